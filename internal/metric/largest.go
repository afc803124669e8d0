package metric

import (
	"fmt"
	"math"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// Size is how the numbers of some subjects add up, regardless of their sign.
type Size struct {
	Largest float64 `json:"largest"` // Of one subject.
	Total   float64 `json:"total"`   // Of all.
}

// newSizes is the sizes of a metric before the first subject.
func (m *compiled) newSizes(variants int) [][]Size {
	sizes := make([][]Size, variants)
	for v := range sizes {
		sizes[v] = make([]Size, len(m.Metric.Definition.Components))
	}
	return sizes
}

// measure takes in the present row's numbers.
func (f *Fold) measure() {
	for m := range f.vectors {
		if !f.closed[m] {
			continue
		}
		sizes := f.sizes[m][f.at.variant]
		for i := range sizes {
			x := math.Abs(f.vectors[m][i])
			sizes[i].Total += x
			sizes[i].Largest = max(sizes[i].Largest, x)
		}
	}
}

const (
	// overbearing is the share of a sum from which on one subject is the sum, rather
	// than a part of it.
	overbearing = 0.5
	// crowd is how many subjects a variant has, and fewNumbers how many of them have
	// a number that is not 0, before that is worth saying: of two buyers one always
	// has half of it.
	crowd, fewNumbers = 20, 5
)

// largestShare is the largest part that a subject of a variant has in the sum of a
// component's numbers; ok is false if there is none to tell.
func (m *compiled) largestShare(tally *MetricTally, variant, component int) (share float64, ok bool) {
	switch m.Metric.Definition.Components[component].Aggregate {
	case experiment.AggregateAny, experiment.AggregateDistinctDays:
		return 0, false // No subject's number is large.
	}
	if len(tally.Sizes) == 0 {
		return 0, false
	}
	size := tally.Sizes[variant][component]
	share = size.Largest / size.Total
	return share, share > 0
}

// setLargestShares tells each variant's largest share, of all components.
func (m *compiled) setLargestShares(tally *MetricTally, arms []Arm) {
	for v := range arms {
		for i := range m.Metric.Definition.Components {
			if share, ok := m.largestShare(tally, v, i); ok && (arms[v].LargestShare == nil || share > *arms[v].LargestShare) {
				arms[v].LargestShare = &share
			}
		}
	}
}

// overbearingSubjects warns of subjects who are most of a sum. None is named, as
// keys are not stored.
func (m *compiled) overbearingSubjects(tally *MetricTally, arms []Arm) (warnings []string) {
	for v := range arms {
		for i := range m.Metric.Definition.Components {
			share, ok := m.largestShare(tally, v, i)
			if !ok || share <= overbearing || arms[v].Subjects < crowd || nonZero(tally.Whole[v], i) < fewNumbers {
				continue
			}
			of := m.Metric.Key
			if name := m.Metric.Definition.Components[i].Name; len(m.Metric.Definition.Components) > 1 {
				of = fmt.Sprintf("%s in %s", name, of)
			}
			warnings = append(warnings, fmt.Sprintf("One subject carries %.3g%% of %s's %s: one wrong number may be all of the difference. A cap bounds it.", 100*share, arms[v].Variant, of))
		}
	}
	return warnings
}

// nonZero counts the subjects of a variant whose number of a component is not 0; 0
// if that is not known.
func nonZero(strata []stats.Moments, component int) (n int64) {
	for i := range strata {
		if counts := strata[i].NonZero; len(counts) > 0 {
			n += counts[component]
		}
	}
	return n
}
