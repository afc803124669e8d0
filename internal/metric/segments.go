package metric

import (
	"math"

	"github.com/assayhq/assay/internal/stats"
)

// bySegment compares the variants on one metric segment by segment, and asks whether
// their effects differ between the values of each.
func (s *Study) bySegment(m int, t *Tally, result *Result) error {
	for i, segment := range t.Segments {
		cuts := make([]Segment, len(segment.Values))
		for j, value := range segment.Values {
			cuts[j] = Segment{Attribute: segment.Attribute, Value: value, Rest: segment.Rest && j == len(segment.Values)-1}
			var err error
			if cuts[j].Arms, cuts[j].Comparisons, err = s.compare(&s.metrics[m], t.Metrics[m].Segments[i][j]); err != nil {
				return err
			}
		}
		withholdSmall(cuts, s.definition.Plan.SmallestSegment())
		result.Segments = append(result.Segments, cuts...)
		if segment.Limit > 0 {
			continue
		}
		for c := range result.Comparisons {
			var effects []stats.Effect
			for j := range cuts {
				if !cuts[j].Withheld {
					effects = append(effects, cuts[j].Comparisons[c].effect())
				}
			}
			result.Heterogeneity = append(result.Heterogeneity, heterogeneity(segment.Attribute, result.Comparisons[c].Variant, effects))
		}
	}
	return correctHeterogeneity(result.Heterogeneity)
}

// withholdSmall withholds the values of an attribute that are too small. The
// whole less the values that are shown gives the figures of these together. While
// some arm is too small together too, the smallest value that is shown and has it
// is withheld with them (complementary suppression: Cox 1980, Suppression
// methodology and statistical disclosure control).
func withholdSmall(values []Segment, smallest int64) {
	var together []int64
	withhold := func(value *Segment) {
		value.withhold()
		for v, arm := range value.Arms {
			together[v] += arm.Subjects
		}
	}
	for i := range values {
		if together == nil {
			together = make([]int64, len(values[i].Arms))
		}
		if tooSmall(values[i].Arms, smallest) {
			withhold(&values[i])
		}
	}
	for v := range together {
		for together[v] > 0 && together[v] < smallest {
			next := smallestWith(values, v)
			if next == nil {
				break
			}
			withhold(next)
		}
	}
}

// smallestWith is the smallest value that is shown and has subjects in an arm; nil
// if there is none.
func smallestWith(values []Segment, arm int) (next *Segment) {
	for i := range values {
		value := &values[i]
		if value.Withheld || value.Arms[arm].Subjects == 0 {
			continue
		}
		if next == nil || smallestArm(value.Arms) < smallestArm(next.Arms) {
			next = value
		}
	}
	return next
}

// tooSmall says whether some arm of a part of the subjects has fewer of them than
// the smallest cell.
func tooSmall(arms []Arm, smallest int64) bool { return smallestArm(arms) < smallest }

// smallestArm is how many subjects the smallest arm of a part has. A variant that
// has none there, as it ended before or began later, has no figures to withhold.
func smallestArm(arms []Arm) int64 {
	smallest := int64(math.MaxInt64)
	for v := range arms {
		if arms[v].Subjects > 0 {
			smallest = min(smallest, arms[v].Subjects)
		}
	}
	return smallest
}

// withhold leaves nothing of a segment but how many subjects it has.
func (s *Segment) withhold() {
	s.Withheld, s.Comparisons = true, nil
	countOnly(s.Arms, withheldNote)
}

// withheldNote stands in the place of what is withheld.
const withheldNote = "The figures are withheld: some variant has too few subjects here, or with this one it could be told what they are."

// countOnly leaves nothing of arms but how many subjects they have, and the note that
// says why.
func countOnly(arms []Arm, note string) {
	for v := range arms {
		arms[v] = Arm{Variant: arms[v].Variant, Subjects: arms[v].Subjects, Notes: []string{note}}
	}
}

// effect is a comparison's difference with its standard error, as the data have
// them.
func (c *Comparison) effect() stats.Effect {
	return stats.Effect{Estimate: c.Observed, StandardError: c.StandardError, DegreesOfFreedom: c.Degrees}
}

func heterogeneity(attribute, variant string, effects []stats.Effect) Heterogeneity {
	h := stats.CheckHeterogeneity(effects)
	found := Heterogeneity{
		Attribute: attribute, Variant: variant,
		Statistic: h.Statistic, DegreesOfFreedom: h.DegreesOfFreedom, Denominator: h.DenominatorDegreesOfFreedom,
		PValue: h.PValue, Inconsistency: h.Inconsistency,
	}
	if h.Note != "" {
		found.Notes = []string{h.Note}
	}
	return found
}

// correctHeterogeneity corrects for the number of attributes and variants.
func correctHeterogeneity(all []Heterogeneity) error {
	return holm(all, func(h *Heterogeneity) (*float64, **float64) { return h.PValue, &h.AdjustedPValue })
}
