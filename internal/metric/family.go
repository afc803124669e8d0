package metric

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// A family is the comparisons that one decision rests on. Their p-values are
// corrected together, and so are their intervals, which stand beside those of the
// level itself: by Bonferroni, at α/m of m tests, where p-values are corrected by
// Holm or Bonferroni, so that all of them cover at once; and where they are by
// Benjamini and Hochberg at R·α/m, R of the tests being significant, so that of
// those that are significant no more than a share of α fails to cover (Benjamini and
// Yekutieli 2005, False discovery rate–adjusted multiple confidence intervals for
// selected parameters, Journal of the American Statistical Association 100). With
// none significant R is 1. A corrected interval that excludes what is tested against
// then has p ≤ R·α/m, which either correction finds significant. The reverse does
// not hold of Holm, which has no such simple intervals.

// correct corrects p-values within families, and decides significance. A
// family is what one decision rests on:
//
//   - the variants of the primary metric, any of which could be shipped;
//   - the secondary metrics with all their variants;
//   - the segments of one metric with all their variants.
//
// Guardrails stand alone: a variant ships only if every one of them holds, and
// a rule that asks for all of several tests keeps the error rate of each
// (Berger 1982, Multiparameter hypothesis testing and acceptance sampling).
// Exploratory metrics stand alone too, as nothing follows from them.
func (s *Study) correct(a *Analysis) error {
	var primary, secondary []*Comparison
	secondaries := 0
	for m := range a.Metrics {
		result := &a.Metrics[m]
		var segments []*Comparison
		for i := range result.Segments {
			segments = appendPointers(segments, result.Segments[i].Comparisons)
		}
		if err := correct(&s.definition.Plan, segments, 0); err != nil {
			return err
		}
		switch result.Role {
		case experiment.RolePrimary:
			primary = appendPointers(primary, result.Comparisons)
		case experiment.RoleSecondary:
			secondary = appendPointers(secondary, result.Comparisons)
			secondaries++
		}
	}
	treatments := len(s.sealed) - 1 // And those that were added.
	for _, v := range s.definition.Variants {
		if !slices.ContainsFunc(s.sealed, func(sealed experiment.Variant) bool { return sealed.Key == v.Key }) {
			treatments++
		}
	}
	return errors.Join(correct(&s.definition.Plan, primary, treatments), correct(&s.definition.Plan, secondary, treatments*secondaries))
}

// widen gives all comparisons the intervals of their families.
func (s *Study) widen(t *Tally, a *Analysis) error {
	for m := range a.Metrics {
		result, tally := &a.Metrics[m], &t.Metrics[m]
		if result.WithoutData {
			continue
		}
		among := func(moments Arms) func(float64) ([]Comparison, error) {
			return func(rate float64) ([]Comparison, error) {
				_, comparisons, err := s.compareAt(&s.metrics[m], moments, rate)
				return comparisons, err
			}
		}
		if err := widen(result.Comparisons, among(tally.Whole)); err != nil {
			return err
		}
		for i, segment, k := 0, 0, 0; i < len(result.Segments); i, k = i+1, k+1 {
			for k == len(t.Segments[segment].Values) {
				segment, k = segment+1, 0
			}
			if err := widen(result.Segments[i].Comparisons, among(tally.Segments[segment][k])); err != nil {
				return err
			}
		}
	}
	return nil
}

func appendPointers(to []*Comparison, comparisons []Comparison) []*Comparison {
	for i := range comparisons {
		to = append(to, &comparisons[i])
	}
	return to
}

// correct adjusts the p-values of a family by the plan, and judges its
// comparisons by the adjusted ones. Bayesian plans have none. Of a family whose size
// was planned a comparison counts as one of 1 if it has no p-value yet or no data, or
// is gone: else the family would grow or shrink in the course of an experiment.
func correct(plan *experiment.Plan, family []*Comparison, planned int) error {
	if plan.Method == experiment.MethodBayesian {
		for _, c := range family {
			if n := len(family); n > 1 && c.ChanceToWin != nil {
				c.Notes = append(c.Notes, fmt.Sprintf("One of %d comparisons, and not corrected for their number: a Bayesian plan has no p-values to correct.", n))
			}
		}
		return nil
	}
	var correction stats.Correction
	switch plan.Correction {
	case experiment.CorrectionHolm:
		correction = stats.Holm
	case experiment.CorrectionBonferroni:
		correction = stats.Bonferroni
	case experiment.CorrectionBenjaminiHochberg:
		correction = stats.BenjaminiHochberg
	default:
		return fmt.Errorf("correction %q is not known", plan.Correction)
	}
	p, none := make([]*float64, max(len(family), planned)), 1.0
	for i := range p {
		if i < len(family) {
			p[i] = family[i].PValue
		}
		if planned > 0 {
			p[i] = cmp.Or(p[i], &none)
		}
	}
	adjusted, err := correction.Adjust(p)
	if err != nil {
		return err
	}
	significant := 0
	for i, c := range family {
		if c.PValue == nil {
			adjusted[i] = nil
		}
		c.AdjustedPValue = adjusted[i]
		c.Significant = adjusted[i] != nil && *adjusted[i] <= 1-plan.ConfidenceLevel
		if c.Significant {
			significant++
		}
	}
	if tests := countTests(p); tests > 1 {
		rate := (1 - plan.ConfidenceLevel) / float64(tests)
		if correction == stats.BenjaminiHochberg {
			rate *= float64(max(1, significant))
		}
		for _, c := range family {
			c.AdjustedRate = rate
		}
	}
	return nil
}

// countTests is how many tests a family has.
func countTests(p []*float64) (n int) {
	for _, p := range p {
		if p != nil {
			n++
		}
	}
	return n
}

// widen gives comparisons of one metric the intervals of their family, if they have
// one. again compares the same subjects with intervals of another error rate.
func widen(comparisons []Comparison, again func(rate float64) ([]Comparison, error)) error {
	if len(comparisons) == 0 || comparisons[0].AdjustedRate == 0 {
		return nil
	}
	wider, err := again(comparisons[0].AdjustedRate)
	if err != nil {
		return err
	}
	for i := range comparisons {
		c := &comparisons[i]
		for _, one := range []struct{ now, wider, to *Interval }{
			{&c.Difference, &wider[i].Difference, &c.AdjustedDifference}, {&c.Lift, &wider[i].Lift, &c.AdjustedLift},
		} {
			if one.wider.Lower != nil || one.wider.Upper != nil || one.wider.Unbounded {
				*one.to = *one.wider
				one.to.Estimate = one.now.Estimate
			}
		}
	}
	return nil
}
