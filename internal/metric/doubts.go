package metric

import (
	"fmt"
	"math"
	"slices"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// doubts are the reasons, beside a broken sample ratio, for which figures are not
// those of a randomised comparison of all subjects, so that no verdict rests on
// them: too many subjects are left out, or unevenly; what was known before exposure
// differs between the variants; or who has an outcome of a metric that the verdict
// rests on is part of the effect. Each is a test at the level of a sample-ratio
// mismatch, for the same reasons, and each is also a warning.
func (s *Study) doubts(t *Tally, a *Analysis) []string {
	var doubts []string
	for i := range a.Exclusions.ByReason {
		if doubt := a.Exclusions.ByReason[i].withheld(); doubt != "" {
			doubts = append(doubts, doubt)
		}
	}
	for i := range a.Balance {
		if doubt := a.Balance[i].imbalance(); doubt != "" {
			doubts = append(doubts, doubt)
		}
	}
	doubts = append(doubts, s.absentByVariant(t)...)
	for m := range t.Metrics {
		switch s.metrics[m].Role {
		case experiment.RolePrimary, experiment.RoleGuardrail:
			for _, doubt := range t.unevenlyEarly(m) {
				if !slices.Contains(doubts, doubt) {
					doubts = append(doubts, doubt)
				}
			}
			for _, unequal := range s.unequalReports(t, m) {
				if unequal.fault {
					doubts = append(doubts, unequal.text)
				}
			}
		}
	}
	return doubts
}

// imbalance says that a covariate differs between a variant and the control by more
// than chance; it is empty if it does not.
func (b *Balance) imbalance() string {
	switch {
	case b.AdjustedPValue == nil || *b.AdjustedPValue >= imbalance:
		return ""
	case b.Missing:
		return fmt.Sprintf("Covariate %q is missing more often in one variant: the share of %s differs from the control's by %.3g standard deviations (p = %.3g).", b.Covariate, b.Variant, *b.StandardizedDifference, *b.AdjustedPValue)
	}
	return fmt.Sprintf("Covariate %q was out of balance before exposure: %s differs from the control by %.3g standard deviations (p = %.3g).", b.Covariate, b.Variant, *b.StandardizedDifference, *b.AdjustedPValue)
}

// absentByVariant names the covariates that no subject of some variant has, though
// others have it, if that cannot be chance. The balance cannot tell: within each
// variant nothing varies.
func (s *Study) absentByVariant(t *Tally) []string {
	var doubts []string
	for m := range s.metrics {
		metric := &s.metrics[m]
		for _, v := range metric.covariates {
			if v.missing < 0 {
				continue
			}
			arms := metric.arms(t.Metrics[m].Whole)
			_, without := lacking(arms, v.missing)
			if len(without) == 0 || len(without) == len(arms) {
				continue
			}
			lack, all := make([]int64, len(arms)), make([]int64, len(arms))
			for i, arm := range arms {
				for _, stratum := range arm.Strata {
					all[i] += stratum.N
					lack[i] += int64(math.Round(float64(stratum.N) * stratum.Means[v.missing]))
				}
			}
			if p := stats.EqualShares(lack, all); p != nil && *p < imbalance {
				doubts = append(doubts, fmt.Sprintf("Covariate %q is missing for every subject of %s, and not for the others (p = %.3g).", v.name, named(without, t.Variants), *p))
			}
		}
		if len(doubts) > 0 {
			break // The others say the same of their own subjects.
		}
	}
	return doubts
}
