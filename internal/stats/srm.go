package stats

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mathext"
)

// minimumExpected is the expected count below which the chi-square
// approximation is not to be relied on (Cochran 1954, Some methods for
// strengthening the common χ² tests).
const minimumExpected = 5

// Split is what one phase was meant to do and did: the weights of the arms,
// in any unit, and the subjects counted in each.
type Split struct {
	Observed []int64
	Weights  []float64
}

// SampleRatio is a test for sample-ratio mismatch (SRM).
type SampleRatio struct {
	// Expected counts, for each split and each arm. A split without subjects
	// expects none.
	Expected         [][]float64
	Statistic        *float64
	DegreesOfFreedom int
	PValue           *float64
	// TooFew tells that some split cannot be pooled into two groups that expect 5
	// subjects each, so the p-value, of its arms one by one, is rough.
	TooFew bool
	// Note says why a number is absent, or is not the usual one.
	Note string
}

// CheckSampleRatio compares observed counts with the weights by Pearson's
// chi-square test. With several splits (the phases of an experiment) the
// statistics are added, and so are the degrees of freedom: given the total of
// each split, they are independent. Arms that expect fewer than 5 subjects are
// pooled, and the degrees of freedom count the groups, so that one small arm does
// not keep the others from being tested. A subject in an arm of weight 0 cannot
// come about by chance: the p-value is then 0 and there is no statistic.
//
// Pearson (1900); Fabijan et al. (2019), Diagnosing sample ratio mismatch in
// online controlled experiments; R's chisq.test(observed, p = weights).
func CheckSampleRatio(splits ...Split) (SampleRatio, error) {
	result := SampleRatio{Expected: make([][]float64, len(splits))}
	statistic, impossible := 0.0, false
	for s, split := range splits {
		if err := split.check(s); err != nil {
			return SampleRatio{}, err
		}
		expected, sum := split.expected()
		result.Expected[s] = expected
		if sum == 0 {
			continue
		}
		groups := split.groups(expected)
		pooled := pool(groups)
		if pooled[0].expected < minimumExpected || len(pooled) == 1 && len(groups) > 1 {
			result.TooFew = true
		} else {
			groups = pooled
		}
		for _, g := range groups {
			if gap := float64(g.observed) - g.expected; gap != 0 {
				statistic += gap / g.expected * gap
			}
		}
		result.DegreesOfFreedom += len(groups) - 1
		for a, w := range split.Weights {
			impossible = impossible || w == 0 && split.Observed[a] > 0
		}
	}
	switch {
	case impossible:
		result.PValue = new(float64)
		result.Note = "An arm of weight 0 has subjects."
	case result.DegreesOfFreedom == 0:
		result.Note = "There are no subjects in two arms with a weight: nothing to compare."
	default:
		if result.Statistic = present(statistic); result.Statistic == nil {
			result.PValue = new(float64)
			result.Note = "The statistic is too large to be written."
			break
		}
		result.PValue = present(chiSquareUpperTail(statistic, result.DegreesOfFreedom))
	}
	return result, nil
}

// check refuses a split that cannot be tested.
func (s Split) check(index int) error {
	field := func(name string, arm int) string { return fmt.Sprintf("splits[%d].%s[%d]", index, name, arm) }
	if len(s.Observed) != len(s.Weights) {
		return InvalidError{fmt.Sprintf("splits[%d]", index), fmt.Sprintf("it has %d observed counts and %d weights", len(s.Observed), len(s.Weights))}
	}
	sum := 0.0
	for a, w := range s.Weights {
		if !finite(w) || w < 0 {
			return InvalidError{field("weights", a), fmt.Sprintf("a weight is a number not below 0, not %v", w)}
		}
		sum += w
		if s.Observed[a] < 0 || s.Observed[a] > maxSubjects {
			return InvalidError{field("observed", a), fmt.Sprintf("a count lies between 0 and %d, and %d does not", int64(maxSubjects), s.Observed[a])}
		}
	}
	if !(sum > 0) || math.IsInf(sum, 1) {
		return InvalidError{fmt.Sprintf("splits[%d].weights", index), "their sum is not a positive finite number"}
	}
	return nil
}

// expected is the number of subjects that each arm should have, and the number
// that all have.
func (s Split) expected() (counts []float64, subjects float64) {
	weight := 0.0
	for a, w := range s.Weights {
		weight += w
		subjects += float64(s.Observed[a])
	}
	counts = make([]float64, len(s.Weights))
	for a, w := range s.Weights {
		counts[a] = subjects * (w / weight)
	}
	return counts, subjects
}

// group is one or more arms of a split.
type group struct {
	observed int64
	expected float64
}

// groups are the arms with a weight, those that expect fewest first.
func (s Split) groups(expected []float64) []group {
	var groups []group
	for a, w := range s.Weights {
		if w > 0 {
			groups = append(groups, group{s.Observed[a], expected[a]})
		}
	}
	slices.SortStableFunc(groups, func(a, b group) int { return cmp.Compare(a.expected, b.expected) })
	return groups
}

// pool puts all arms together that expect too few subjects, and as many of the
// next smallest as it takes to expect enough.
func pool(arms []group) []group {
	groups := []group{arms[0]}
	for _, arm := range arms[1:] {
		last := &groups[len(groups)-1]
		if arm.expected >= minimumExpected && last.expected >= minimumExpected {
			groups = append(groups, arm)
			continue
		}
		last.observed += arm.observed
		last.expected += arm.expected
	}
	return groups
}

// chiSquareUpperTail is P(X > x) for the chi-square distribution
// (Abramowitz and Stegun 26.4.19).
func chiSquareUpperTail(x float64, degrees int) float64 {
	return mathext.GammaIncRegComp(float64(degrees)/2, x/2)
}
