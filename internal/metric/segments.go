package metric

import "github.com/assayhq/assay/internal/stats"

// bySegment compares the variants on one metric segment by segment, and asks whether
// their effects differ between the values of each.
func (s *Study) bySegment(m int, t *Tally, result *Result) error {
	for i, segment := range t.Segments {
		from := len(result.Segments)
		for j, value := range segment.Values {
			cut := Segment{Attribute: segment.Attribute, Value: value}
			var err error
			if cut.Arms, cut.Comparisons, err = s.compare(&s.metrics[m], t.Metrics[m].Segments[i][j]); err != nil {
				return err
			}
			if smallest := s.definition.Plan.SmallestSegment(); tooSmall(cut.Arms, result.Arms, smallest) {
				cut.withhold()
			}
			result.Segments = append(result.Segments, cut)
		}
		if segment.Limit > 0 {
			continue
		}
		for c := range result.Comparisons {
			var effects []stats.Effect
			for _, cut := range result.Segments[from:] {
				if !cut.Withheld {
					effects = append(effects, cut.Comparisons[c].effect())
				}
			}
			result.Heterogeneity = append(result.Heterogeneity, heterogeneity(segment.Attribute, result.Comparisons[c].Variant, effects))
		}
	}
	return correctHeterogeneity(result.Heterogeneity)
}

// tooSmall says whether some arm of a segment has fewer subjects than the
// smallest cell. A variant that has none at all does not count.
func tooSmall(arms, whole []Arm, smallest int64) bool {
	for v := range arms {
		if arms[v].Subjects < smallest && whole[v].Subjects > 0 {
			return true
		}
	}
	return false
}

// withhold leaves nothing of a segment but how many subjects it has.
func (s *Segment) withhold() {
	s.Withheld, s.Comparisons = true, nil
	for v := range s.Arms {
		s.Arms[v] = Arm{Variant: s.Arms[v].Variant, Subjects: s.Arms[v].Subjects}
	}
}

// effect is a comparison's difference with its standard error, as the data have
// them.
func (c *Comparison) effect() stats.Effect {
	return stats.Effect{Estimate: c.Observed, StandardError: c.StandardError}
}

func heterogeneity(attribute, variant string, effects []stats.Effect) Heterogeneity {
	h := stats.CheckHeterogeneity(effects)
	return Heterogeneity{
		Attribute: attribute, Variant: variant,
		Statistic: h.Statistic, DegreesOfFreedom: h.DegreesOfFreedom, PValue: h.PValue, Inconsistency: h.Inconsistency,
	}
}

// correctHeterogeneity corrects for the number of attributes and variants.
func correctHeterogeneity(all []Heterogeneity) error {
	return holm(all, func(h *Heterogeneity) (*float64, **float64) { return h.PValue, &h.AdjustedPValue })
}
