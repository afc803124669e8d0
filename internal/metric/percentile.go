package metric

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// keptRows are the subjects of metrics with percentiles. What they take is bounded: see
// [Study.SubjectBytes].
type keptRows struct {
	cells  []int32 // Phase × variants + variant.
	values []int32
	firsts []int64 // In microseconds since 1970.
	groups []int32
	// blocks hold the components of the deferred metrics, in so many numbers for each
	// subject; NaN is the first of a metric whose window is open.
	blocks [][]float64
	width  int
}

// replay adds up the deferred metrics.
func (f *Fold) replay() {
	if len(f.kept.firsts) == 0 {
		return
	}
	from := 0
	for _, m := range f.study.deferred {
		if !f.step() {
			return
		}
		f.setPercentiles(m, from)
		from += len(f.vectors[m])
	}
	clear(f.closed)
	variants := int32(len(f.variants))
	for row, cell := range f.kept.cells {
		if row%keptBlock == 0 && !f.step() {
			return
		}
		f.at.phase, f.at.variant = int(cell/variants), int(cell%variants)
		f.at.value, f.at.first = f.kept.values[row], time.UnixMicro(f.kept.firsts[row])
		copy(f.at.groups, f.kept.groups[row*len(f.at.groups):])
		numbers := f.kept.row(row)
		for _, m := range f.study.deferred {
			f.at.moves[m] = f.touched(f.at.phase, f.at.first, f.study.metrics[m].entry.closes)
			numbers = numbers[copy(f.vectors[m], numbers):]
			if f.closed[m] = !math.IsNaN(f.vectors[m][0]); f.closed[m] {
				f.study.metrics[m].cap(f.vectors[m], f.caps[m])
			}
		}
		f.take()
	}
}

// setPercentiles finds the bounds of a metric's caps that are percentiles, its
// numbers standing in every kept row from one place on.
func (f *Fold) setPercentiles(m, from int) {
	for i, c := range f.study.metrics[m].caps {
		if !c.ByPercentile() {
			continue
		}
		numbers := make([]float64, 0, len(f.kept.firsts))
		for row := range f.kept.firsts {
			kept := f.kept.row(row)[from:]
			if x := kept[c.component]; !math.IsNaN(kept[0]) && c.counts(x) {
				numbers = append(numbers, x)
			}
		}
		slices.Sort(numbers)
		f.caps[m][i].setPercentiles(c.Cap, numbers)
	}
}

// counts says whether percentiles are taken of a number too.
func (c *componentCap) counts(x float64) bool { return !c.IgnoreZeros || x != 0 }

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

// keptRow is a subject's place in a tally, and the components of one metric.
type keptRow struct {
	variant, stratum int
	numbers          []float64
}

// retell has the days of a deferred metric say what was known on each of them.
func (f *Fold) retell(m int, all *calendar, places map[stratum]int, days []Day) {
	metric := &f.study.metrics[m]
	entered := f.entered(m, all, places, days)
	caps := metric.capsByDay(entered)
	narrow := narrowest(caps)
	settled := metric.noArms(len(f.variants), len(places)) // The subjects so far that no day caps.
	var touched []keptRow                                  // The others.
	vector := make([]float64, len(metric.sources))
	for i := range days {
		if !f.step() {
			return
		}
		arms := metric.noArms(len(f.variants), len(places))
		fresh := len(touched)
		for _, row := range entered[i] {
			if copy(vector, row.numbers); metric.cap(vector, narrow) {
				touched = append(touched, row)
			} else {
				arms[row.variant][row.stratum].Add(vector)
			}
		}
		settled.merge(arms)
		if days[i].Anew = i > 0 && moved(caps[i-1], caps[i]); days[i].Anew {
			fresh, arms = 0, metric.noArms(len(f.variants), len(places))
			arms.merge(settled)
		}
		for _, row := range touched[fresh:] {
			copy(vector, row.numbers)
			metric.cap(vector, caps[i])
			arms[row.variant][row.stratum].Add(vector)
		}
		days[i].Cells = arms.cells()
	}
}

// entered lays out the subjects of a deferred metric by the days on which they
// entered.
func (f *Fold) entered(m int, all *calendar, places map[stratum]int, days []Day) [][]keptRow {
	rows := make([][]keptRow, len(days))
	from := 0
	for _, before := range f.study.deferred[:slices.Index(f.study.deferred, m)] {
		from += len(f.vectors[before])
	}
	for row, first := range f.kept.firsts {
		numbers := f.kept.row(row)[from:][:len(f.vectors[m])]
		if math.IsNaN(numbers[0]) {
			continue
		}
		cell := int(f.kept.cells[row])
		phase := cell / len(f.variants)
		in := stratum{int32(phase), f.kept.values[row], f.touched(phase, time.UnixMicro(first), f.study.metrics[m].entry.closes)}
		if all == f.whole {
			in.value = 0
		}
		last := all.last(f.study.metrics[m].entry.day(time.UnixMicro(first)) >> all.shift)
		i, _ := slices.BinarySearchFunc(days, last, func(d Day, last int32) int { return cmp.Compare(d.Last, last) })
		rows[i] = append(rows[i], keptRow{cell % len(f.variants), places[in], numbers})
	}
	return rows
}

// capsByDay is what caps the metric on each day, for the subjects that had
// entered by then. Its counts mean nothing.
func (m *compiled) capsByDay(entered [][]keptRow) [][]CapTally {
	days := make([][]CapTally, len(entered))
	for i := range days {
		days[i] = m.newCaps()
	}
	for k, c := range m.caps {
		if !c.ByPercentile() {
			continue
		}
		var sorted []float64
		for i, rows := range entered {
			var numbers []float64
			for _, row := range rows {
				if x := row.numbers[c.component]; c.counts(x) {
					numbers = append(numbers, x)
				}
			}
			slices.Sort(numbers)
			sorted = merge(sorted, numbers)
			days[i][k].setPercentiles(c.Cap, sorted)
		}
	}
	return days
}

// narrowest is the bounds that leave alone what every day leaves alone.
func narrowest(days [][]CapTally) []CapTally {
	var caps []CapTally
	for i, day := range days {
		if i == 0 {
			caps = slices.Clone(day)
		}
		for k, c := range day {
			if c.Lower != nil && (caps[k].Lower == nil || *c.Lower > *caps[k].Lower) {
				caps[k].Lower = c.Lower
			}
			if c.Upper != nil && (caps[k].Upper == nil || *c.Upper < *caps[k].Upper) {
				caps[k].Upper = c.Upper
			}
		}
	}
	return caps
}

// moved says whether a bound of one day is another on the next.
func moved(before, after []CapTally) bool {
	same := func(a, b *float64) bool { return a == b || a != nil && b != nil && *a == *b }
	return !slices.EqualFunc(before, after, func(a, b CapTally) bool { return same(a.Lower, b.Lower) && same(a.Upper, b.Upper) })
}

// merge merges b into a; both are sorted.
func merge(a, b []float64) []float64 {
	i, j := len(a)-1, len(b)-1
	a = append(a, b...)
	for at := len(a) - 1; j >= 0; at-- {
		if i >= 0 && a[i] > b[j] {
			a[at] = a[i]
			i--
		} else {
			a[at] = b[j]
			j--
		}
	}
	return a
}
