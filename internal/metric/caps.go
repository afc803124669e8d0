package metric

import (
	"math"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// A cap bounds each subject's number. A bound that is a number applies as rows
// come. One that is a percentile is known only when all rows have come, and then
// it is that of all analysed subjects of all variants together: a threshold by
// variant would cut a variant's own effect off. So the rows of such metrics are
// kept until the end, and added up then. Segments have the thresholds of the
// whole. A day has those of the subjects that had entered by then: it must say
// what its own analysis said, and with later thresholds it would not.

// componentCap is the cap of one component of a metric.
type componentCap struct {
	component int
	*experiment.Cap
}

// newCaps is what a metric's caps have done before the first subject. Bounds
// that are percentiles are not known yet.
func (m *compiled) newCaps() []CapTally {
	var caps []CapTally
	for _, c := range m.caps {
		tally := CapTally{Component: m.Metric.Definition.Components[c.component].Name}
		if c.Lower != nil && !c.Lower.Percentile {
			tally.Lower = &c.Lower.Value
		}
		if c.Upper != nil && !c.Upper.Percentile {
			tally.Upper = &c.Upper.Value
		}
		caps = append(caps, tally)
	}
	return caps
}

// apply caps a subject's number.
func (c *CapTally) apply(x float64) float64 {
	switch {
	case c.Upper != nil && x > *c.Upper:
		c.Lowered++
		return *c.Upper
	case c.Lower != nil && x < *c.Lower:
		c.Raised++
		return *c.Lower
	}
	return x
}

// applyCaps caps the present row, and keeps its part of the deferred metrics, which do
// not count yet.
func (f *Fold) applyCaps() {
	for m := range f.caps {
		if metric := &f.study.metrics[m]; f.closed[m] && !metric.entry.deferred {
			metric.cap(f.vectors[m], f.caps[m])
		}
	}
	if len(f.study.deferred) == 0 {
		return
	}
	f.kept.cells = append(f.kept.cells, int32(f.cellOf(&f.at)))
	f.kept.values = append(f.kept.values, f.at.value)
	f.kept.firsts = append(f.kept.firsts, f.at.first.UnixMicro())
	f.kept.groups = append(f.kept.groups, f.at.groups...)
	numbers := f.kept.next()
	for _, m := range f.study.deferred {
		if copy(numbers, f.vectors[m]); !f.closed[m] {
			numbers[0] = math.NaN()
		}
		numbers = numbers[len(f.vectors[m]):]
		f.closed[m] = false
	}
}

// cap caps a subject's components of the metric, and says whether that changed
// any.
func (m *compiled) cap(vector []float64, caps []CapTally) (changed bool) {
	for i, c := range m.caps {
		x := vector[c.component]
		vector[c.component] = caps[i].apply(x)
		changed = changed || vector[c.component] != x
	}
	return changed
}

// describeCaps says what a metric's caps did.
func (m *compiled) describeCaps(tally *MetricTally) []Cap {
	var caps []Cap
	for i, c := range m.caps {
		applied := Cap{CapTally: tally.Caps[i]}
		if c.Lower != nil && applied.Lower == nil || c.Upper != nil && applied.Upper == nil {
			applied.Notes = append(applied.Notes, "There is no number to take a percentile of.")
		}
		if applied.Raised+applied.Lowered > 0 && tally.Whole.constant(c.component) {
			applied.Constant = true
			applied.Notes = append(applied.Notes, "With the cap every subject has the same number: nothing can differ any more.")
		}
		caps = append(caps, applied)
	}
	return caps
}

// constant says whether a component is the same for all subjects.
func (a Arms) constant(component int) bool {
	all := stats.NewMoments(len(a[0][0].Means))
	for _, strata := range a {
		for _, m := range strata {
			all.Merge(m)
		}
	}
	variance, _ := all.Covariance(component, component)
	return variance == 0
}
