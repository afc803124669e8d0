package metric

import (
	"math"
	"slices"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// A cap bounds each subject's number. A bound that is a number applies as rows
// come. One that is a percentile is known only when all rows have come, and then
// it is that of all analysed subjects of all variants together: a threshold by
// variant would cut a variant's own effect off. So the rows of such metrics are
// kept until the end, and added up then; segments and days have the thresholds
// of the whole.

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
		if f.closed[m] && !f.study.metrics[m].entry.deferred {
			f.capMetric(m)
		}
	}
	if len(f.study.deferred) == 0 {
		return
	}
	f.kept.cells = append(f.kept.cells, int32(f.cellOf(&f.at)))
	f.kept.values = append(f.kept.values, f.at.value)
	f.kept.firsts = append(f.kept.firsts, f.at.first.UnixMicro())
	f.kept.groups = append(f.kept.groups, f.at.groups...)
	for _, m := range f.study.deferred {
		f.kept.numbers = append(f.kept.numbers, f.vectors[m]...)
		if !f.closed[m] {
			f.kept.numbers[len(f.kept.numbers)-len(f.vectors[m])] = math.NaN()
		}
		f.closed[m] = false
	}
}

// capMetric caps the present row's components of a metric.
func (f *Fold) capMetric(m int) {
	for i, c := range f.study.metrics[m].caps {
		f.vectors[m][c.component] = f.caps[m][i].apply(f.vectors[m][c.component])
	}
}

// keptRows are the subjects of metrics with percentiles. A subject takes 16
// bytes, 4 for every segment, and 8 for every component and covariate of these
// metrics.
type keptRows struct {
	cells  []int32 // Phase × variants + variant.
	values []int32
	firsts []int64 // In microseconds since 1970.
	groups []int32
	// numbers are the components of the deferred metrics; NaN is the first of a
	// metric whose window is open.
	numbers []float64
}

// replay adds up the deferred metrics.
func (f *Fold) replay() {
	if len(f.kept.firsts) == 0 {
		return
	}
	width := len(f.kept.numbers) / len(f.kept.firsts)
	from := 0
	for _, m := range f.study.deferred {
		f.setPercentiles(m, from, width)
		from += len(f.vectors[m])
	}
	clear(f.closed)
	variants := int32(len(f.variants))
	for row, cell := range f.kept.cells {
		f.at.phase, f.at.variant = int(cell/variants), int(cell%variants)
		f.at.value, f.at.first = f.kept.values[row], time.UnixMicro(f.kept.firsts[row])
		copy(f.at.groups, f.kept.groups[row*len(f.at.groups):])
		numbers := f.kept.numbers[row*width:]
		for _, m := range f.study.deferred {
			numbers = numbers[copy(f.vectors[m], numbers):]
			if f.closed[m] = !math.IsNaN(f.vectors[m][0]); f.closed[m] {
				f.capMetric(m)
			}
		}
		f.take()
	}
	f.kept = keptRows{}
}

// setPercentiles finds the bounds of a metric's caps that are percentiles, its
// numbers standing in every kept row of a width from one place on.
func (f *Fold) setPercentiles(m, from, width int) {
	for i, c := range f.study.metrics[m].caps {
		if !c.ByPercentile() {
			continue
		}
		var numbers []float64
		for at := from; at < len(f.kept.numbers); at += width {
			x := f.kept.numbers[at+c.component]
			if !math.IsNaN(f.kept.numbers[at]) && !(c.IgnoreZeros && x == 0) {
				numbers = append(numbers, x)
			}
		}
		slices.Sort(numbers)
		f.caps[m][i].setPercentiles(c.Cap, numbers)
	}
}

// setPercentiles finds the bounds that are percentiles of sorted numbers. One
// that lies beyond the other bound, which is a number, gives way to it.
func (c *CapTally) setPercentiles(by *experiment.Cap, sorted []float64) {
	percentile := func(b *experiment.Bound) *float64 {
		if x, ok := stats.Quantile(sorted, b.Value/100); ok {
			return &x
		}
		return nil
	}
	if by.Lower != nil && by.Lower.Percentile {
		c.Lower = percentile(by.Lower)
	}
	if by.Upper != nil && by.Upper.Percentile {
		c.Upper = percentile(by.Upper)
	}
	switch {
	case c.Lower == nil || c.Upper == nil || *c.Lower <= *c.Upper:
	case by.Upper.Percentile:
		c.Upper = c.Lower
	default:
		c.Lower = c.Upper
	}
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
