package metric

import (
	"slices"

	"github.com/assayhq/assay/internal/stats"
)

// imbalance is the corrected p-value below which a covariate counts as out of
// balance. It is that of a sample-ratio mismatch, for the same reasons.
const imbalance = mismatch

// balance compares the covariates that some metric uses between the variants,
// among the subjects of the first such metric.
func (s *Study) balance(t *Tally) ([]Balance, error) {
	var all []Balance
	for _, wanted := range s.definition.Covariates {
		for m := range s.metrics {
			metric := &s.metrics[m]
			i := slices.IndexFunc(metric.covariates, func(v covariate) bool { return v.name == wanted.Name })
			if i < 0 {
				continue
			}
			found, err := checkBalance(metric.covariates[i], metric.arms(t.Metrics[m].Whole), s.control, t.Variants)
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
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
			StandardizedDifference: c.StandardizedDifference, PValue: c.PValue,
		}
	}
	return balances, nil
}

// correctBalance corrects for the number of covariates and variants.
func correctBalance(all []Balance) error {
	return holm(all, func(b *Balance) (*float64, **float64) { return b.PValue, &b.AdjustedPValue })
}
