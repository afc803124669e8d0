package metric

import (
	"fmt"
	"slices"

	"github.com/assayhq/assay/internal/stats"
)

// imbalance is the corrected p-value below which a covariate counts as out of
// balance. It is that of a sample-ratio mismatch, for the same reasons.
const imbalance = mismatch

// balance compares the covariates that some metric uses between the variants,
// among the subjects of the first such metric: what they are among those that
// have them, and how many lack them.
func (s *Study) balance(t *Tally) ([]Balance, error) {
	var all []Balance
	for _, wanted := range s.definition.Covariates {
		for m := range s.metrics {
			metric := &s.metrics[m]
			i := slices.IndexFunc(metric.covariates, func(v covariate) bool { return v.name == wanted.Name })
			if i < 0 {
				continue
			}
			v, arms := metric.covariates[i], metric.arms(t.Metrics[m].Whole)
			found, err := checkBalance(v, arms, s.control, t.Variants)
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
			if v.missing < 0 {
				break
			}
			if some, _ := lacking(arms, v.missing); some {
				if found, err = checkBalance(covariate{v.name, v.missing, -1}, arms, s.control, t.Variants); err != nil {
					return nil, err
				}
				for k := range found {
					found[k].Missing = true
				}
				all = append(all, found...)
			}
			break
		}
	}
	return all, correctBalance(all)
}

// checkBalance compares one covariate of every arm with the control's.
func checkBalance(v covariate, arms []stats.Arm, control int, variants []string) ([]Balance, error) {
	checked, err := stats.CheckBalance(arms, control, v.value, v.missing)
	if err != nil {
		return nil, err
	}
	balances := make([]Balance, len(checked))
	for i, c := range checked {
		balances[i] = Balance{
			Covariate: v.name, Variant: variants[c.Arm],
			StandardizedDifference: c.StandardizedDifference, PValue: c.PValue, Notes: c.Notes,
		}
	}
	return balances, nil
}

// correctBalance corrects for the number of covariates and variants.
func correctBalance(all []Balance) error {
	return holm(all, func(b *Balance) (*float64, **float64) { return b.PValue, &b.AdjustedPValue })
}

// absent names the covariates that no subject of some variant has, though others
// have it.
func (s *Study) absent(t *Tally) (notes []string) {
	for m := range s.metrics {
		metric := &s.metrics[m]
		for _, v := range metric.covariates {
			if v.missing < 0 {
				continue
			}
			if _, without := lacking(metric.arms(t.Metrics[m].Whole), v.missing); len(without) > 0 && len(without) < len(t.Variants) {
				note := fmt.Sprintf("Covariate %q is missing for every subject of %s, and so not used.", v.name, named(without, t.Variants))
				if !slices.Contains(notes, note) {
					notes = append(notes, note)
				}
			}
		}
	}
	return notes
}
