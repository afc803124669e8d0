package metric

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/assayhq/assay/internal/stats"
)

const (
	// maxPeriods is how many days a calendar tells apart.
	maxPeriods = 400
	// maxCalendarNumbers bounds the memory that a calendar takes and the work of
	// analysing each of its days, in float64s: 256 MiB.
	maxCalendarNumbers = 1 << 25
)

// calendar is the moments of all subjects by stratum, variant, and the day on
// which they enter. Where that is too much it counts by periods of 2 days, of 4,
// and so on. How long they end up depends on the subjects and not on their
// order: a longer period never has more to count.
type calendar struct {
	study  *Study
	shift  int // A period is 1<<shift days, counted from 1970.
	strata map[stratum]bool
	pages  []page
	bytes  int64 // Of the cells.
}

// page is the part of the metrics whose subjects enter at the same time.
type page struct {
	entry   entry
	metrics []int
	numbers int // In all moments of one stratum and period.
	periods map[int32]bool
	cells   map[place][]stats.Moments // By metric, in the order of metrics.
}

// entry says when a subject enters a metric.
type entry struct {
	closes     time.Duration // It counts once so long has passed since its first exposure.
	byExposure bool          // It enters on the day of first exposure, not on that on which its window closes.
	dated      bool          // Days are told apart.
	deferred   bool          // It is added up once all subjects are known.
}

// retold says that days are capped by the percentiles of their own time.
func (e entry) retold() bool { return e.dated && e.deferred && !e.byExposure }

// stratum is a phase with a value of the attribute that subjects are
// stratified by, as indices, and how many of the moves that follow the phase its
// subjects touch.
type stratum struct{ phase, value, moves int32 }

// place is what the subjects of one set of moments share.
type place struct {
	period  int32
	variant int32
	stratum stratum
}

func (s *Study) newCalendar() *calendar {
	c := &calendar{study: s, strata: map[stratum]bool{}}
	for m := range s.metrics {
		i := slices.IndexFunc(c.pages, func(p page) bool { return p.entry == s.metrics[m].entry })
		if i < 0 {
			i = len(c.pages)
			c.pages = append(c.pages, page{entry: s.metrics[m].entry, periods: map[int32]bool{}, cells: map[place][]stats.Moments{}})
		}
		c.pages[i].metrics = append(c.pages[i].metrics, m)
		c.pages[i].numbers += len(s.definition.Variants) * numbersOf(&s.metrics[m])
	}
	return c
}

// numbersOf is how many numbers of eight bytes the moments of a metric are.
func numbersOf(m *compiled) int {
	dim := len(m.sources)
	return 4*dim + dim*(dim+1)/2
}

// add takes in a subject with its components, for those metrics that it counts
// for. How many moves it touches is the metrics' part of its stratum: those of a
// page have the same window.
func (c *calendar) add(in stratum, from *position, closed []bool, vectors [][]float64) {
	for i := range c.pages {
		p := &c.pages[i]
		if !slices.ContainsFunc(p.metrics, func(m int) bool { return closed[m] }) {
			continue
		}
		day := p.entry.day(from.first)
		in.moves = from.moves[p.metrics[0]]
		at := place{day >> c.shift, int32(from.variant), in}
		cell, ok := p.cells[at]
		if !ok {
			c.open(p, at)
			at.period = day >> c.shift
			cell = c.cell(p, at)
		}
		for k, m := range p.metrics {
			if closed[m] {
				cell[k].Add(vectors[m])
			}
		}
	}
}

// day is the UTC day on which a subject enters, counted from 1970. A window
// that ends at midnight closes with the day that ends then.
func (e entry) day(first time.Time) int32 {
	if !e.dated {
		return 0
	}
	if !e.byExposure {
		first = first.Add(e.closes - time.Microsecond)
	}
	return dayOf(first)
}

// dayOf is the UTC day of a time, counted from 1970.
func dayOf(t time.Time) int32 {
	days := t.Unix() / secondsPerDay
	if t.Unix() < days*secondsPerDay {
		days--
	}
	return int32(days)
}

const secondsPerDay = 24 * 60 * 60

// open makes room for a new place.
func (c *calendar) open(p *page, at place) {
	c.strata[at.stratum] = true
	p.periods[at.period] = true
	for c.tooFine() && c.shift < 31 {
		c.coarsen()
	}
}

func (c *calendar) tooFine() bool {
	numbers := 0
	for i := range c.pages {
		if len(c.pages[i].periods) > maxPeriods {
			return true
		}
		numbers += len(c.pages[i].periods) * c.pages[i].numbers
	}
	return numbers*len(c.strata) > maxCalendarNumbers
}

// coarsen makes periods twice as long.
func (c *calendar) coarsen() {
	c.shift++
	c.bytes = 0
	for i := range c.pages {
		p := &c.pages[i]
		fine := p.cells
		periods := map[int32]bool{}
		for period := range p.periods {
			periods[period>>1] = true
		}
		p.periods, p.cells = periods, make(map[place][]stats.Moments, len(fine))
		for _, at := range inPlaces(fine) {
			coarse := at
			coarse.period >>= 1
			cell := c.cell(p, coarse)
			for k := range cell {
				cell[k].Merge(fine[at][k])
			}
		}
	}
}

// cell returns the moments at a place, which it makes if they are new.
func (c *calendar) cell(p *page, at place) []stats.Moments {
	cell, ok := p.cells[at]
	if !ok {
		cell = make([]stats.Moments, len(p.metrics))
		for k, m := range p.metrics {
			cell[k] = stats.NewMoments(len(c.study.metrics[m].sources))
			c.bytes += c.study.metrics[m].bytes()
		}
		p.cells[at] = cell
	}
	return cell
}

// inPlaces sorts places by period.
func inPlaces(cells map[place][]stats.Moments) []place {
	return slices.SortedFunc(maps.Keys(cells), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.period, b.period), cmp.Compare(a.variant, b.variant),
			cmp.Compare(a.stratum.phase, b.stratum.phase), cmp.Compare(a.stratum.value, b.stratum.value), cmp.Compare(a.stratum.moves, b.stratum.moves))
	})
}

// days lays out one metric by day. at tells the place of each stratum in the
// tally.
func (c *calendar) days(m int, at map[stratum]int) []Day {
	var days []Day
	for i := range c.pages {
		p := &c.pages[i]
		k := slices.Index(p.metrics, m)
		if k < 0 {
			continue
		}
		for _, place := range inPlaces(p.cells) {
			if p.cells[place][k].N == 0 {
				continue // Its subjects count for other metrics alone.
			}
			last := c.last(place.period)
			if len(days) == 0 || days[len(days)-1].Last != last {
				days = append(days, Day{Last: last, Days: 1 << c.shift})
			}
			day := &days[len(days)-1]
			day.Cells = append(day.Cells, Cell{Variant: int(place.variant), Stratum: at[place.stratum], Moments: p.cells[place][k]})
		}
	}
	for i := range days {
		slices.SortFunc(days[i].Cells, func(a, b Cell) int {
			return cmp.Or(cmp.Compare(a.Variant, b.Variant), cmp.Compare(a.Stratum, b.Stratum))
		})
	}
	return days
}

// last is the last day of a period.
func (c *calendar) last(period int32) int32 { return (period+1)<<c.shift - 1 }
