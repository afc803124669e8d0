package metric

import (
	"fmt"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// Timeline is how an effect came about. Its intervals are always-valid,
// whatever the plan's method.
type Timeline struct {
	Cumulative    []Point // By the day on which subjects' windows closed.
	SinceExposure []Point // By what happened so many days after exposure.
	Cohorts       []Point // By the day of first exposure.
	Notes         []string
}

// Point is a metric at one place of a timeline.
type Point struct {
	Day         time.Time // UTC; zero in SinceExposure.
	Since       int       // In SinceExposure: the first day after exposure, from 0.
	Days        int       // In SinceExposure: how many days.
	Arms        []Arm
	Comparisons []Comparison
	Withheld    bool // In Cohorts: some variant has too few subjects, and there are no figures.
}

const (
	day = 24 * time.Hour
	// maxBins is how many days since exposure a timeline tells apart.
	maxBins = 31
)

// The metrics of a timeline's study: the metric by the day on which subjects
// enter it, the same by the day of exposure, and then the metric in each bin.
const (
	timelineCumulative = iota
	timelineCohorts
	timelineBins
)

// NewTimeline compiles the timeline of one metric. sealed is as for [NewStudy].
func NewTimeline(d *experiment.Definition, sealed []experiment.Variant, use Use) (*Study, error) {
	watched := *d
	watched.Plan.Method = experiment.MethodAlwaysValid
	s := &Study{definition: &watched, sealed: sealed, control: d.Control()}
	c := compiler{Study: s, seen: map[string]int{}}
	window := use.Metric.Definition.Window
	if err := c.add(use, span{end: window}, entry{closes: window, byExposure: window == 0, dated: true}); err != nil {
		return nil, err
	}
	if err := c.add(use, span{end: window}, entry{closes: window, byExposure: true, dated: true}); err != nil {
		return nil, err
	}
	s.daily, s.accounted, s.aliveOnly = true, 1, true // The others are of the same outcomes.
	for _, bin := range binsOf(&use.Metric.Definition) {
		if err := c.add(use, bin, entry{closes: bin.end}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// binsOf cuts the window of a metric, or 31 days without one, into days, or if
// they are too many into equal whole weeks. It is nil if the parts say nothing of
// the whole: the largest value is not in each of them.
func binsOf(d *Definition) []span {
	for _, c := range d.Components {
		switch c.Aggregate {
		case experiment.AggregateCount, experiment.AggregateSum, experiment.AggregateAny:
		default:
			return nil
		}
	}
	window, length := d.Window, day
	if window == 0 {
		window = maxBins * day
	}
	if window > maxBins*day {
		const weeks = maxBins * 7 * day
		length = 7 * day * ((window + weeks - 1) / weeks)
	}
	var bins []span
	for start := time.Duration(0); start < window; start += length {
		bins = append(bins, span{start, min(start+length, window)})
	}
	return bins
}

// Timeline compares the variants of a tally of this study, which [NewTimeline]
// made, at every place.
func (s *Study) Timeline(t *Tally) (*Timeline, error) {
	if err := s.check(t); err != nil {
		return nil, err
	}
	timeline := &Timeline{Notes: s.timelineNotes(t)}
	err := s.cumulate(&s.metrics[timelineCumulative], &t.Metrics[timelineCumulative], func(d *Day, arms []Arm, comparisons []Comparison) {
		timeline.Cumulative = append(timeline.Cumulative, Point{Day: d.date(), Arms: arms, Comparisons: comparisons})
	})
	if err != nil {
		return nil, err
	}
	cohorts := &s.metrics[timelineCohorts]
	for i := range t.Metrics[timelineCohorts].Days {
		d := &t.Metrics[timelineCohorts].Days[i]
		subjects := cohorts.noArms(len(t.Variants), len(t.Strata))
		subjects.take(d)
		point := Point{Day: d.date()}
		if point.Arms, point.Comparisons, err = s.compare(cohorts, subjects); err != nil {
			return nil, err
		}
		if point.Withheld = tooSmall(point.Arms, s.definition.Plan.SmallestSegment()); point.Withheld {
			point.Comparisons = nil
			countOnly(point.Arms, withheldNote)
		}
		timeline.Cohorts = append(timeline.Cohorts, point)
	}
	if timeline.SinceExposure, err = s.sinceExposure(t); err != nil {
		return nil, err
	}
	if note := s.withoutData(t, timelineCumulative); note != "" {
		for _, points := range [][]Point{timeline.Cumulative, timeline.Cohorts, timeline.SinceExposure} {
			for i := range points {
				leaveNothing(points[i].Comparisons, note)
				if !points[i].Withheld {
					countOnly(points[i].Arms, note)
				}
			}
		}
	}
	return timeline, nil
}

// sinceExposure is the points of all bins that are over for some subject.
func (s *Study) sinceExposure(t *Tally) ([]Point, error) {
	var points []Point
	bins := binsOf(&s.metrics[timelineCumulative].Metric.Definition)
	for i, bin := range bins {
		arms, comparisons, err := s.compare(&s.metrics[timelineBins+i], t.Metrics[timelineBins+i].Whole)
		if err != nil {
			return nil, err
		}
		subjects := int64(0)
		for k := range arms {
			subjects += arms[k].Subjects
		}
		if subjects == 0 {
			break
		}
		days := int((bin.end - bin.start + day - 1) / day)
		points = append(points, Point{Since: int(bin.start / day), Days: days, Arms: arms, Comparisons: comparisons})
	}
	return points, nil
}

// timelineNotes says what to know of a timeline.
func (s *Study) timelineNotes(t *Tally) []string {
	var notes []string
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if without := s.withoutData(t, timelineCumulative); without != "" {
		note("%s", without)
	}
	metric, tally := &s.metrics[timelineCumulative], &t.Metrics[timelineCumulative]
	if metric.entry.closes == 0 {
		note("The metric has no window: every point counts what is known of its subjects now, which an analysis of that day could not know.")
	}
	notes = append(notes, countingEnded(t)...)
	if share := tally.FollowUp.pausedShare(); share >= leastPaused {
		notes = append(notes, s.pausedWarning(metric.Metric.Key, share, t.Pauses))
	}
	notes = append(notes, t.moveWarnings(1)...)
	if n := tally.OpenWindows; n > 0 {
		note("%s, as %s.", notCounted(n, t), openWindow(t))
	}
	for _, by := range []struct {
		name string
		days []Day
	}{{"Cumulative", tally.Days}, {"Cohort", t.Metrics[timelineCohorts].Days}} {
		if len(by.days) > 0 && by.days[0].Days > 1 {
			note("%s points stand for %d days each, of which they name the last: there are too many days.", by.name, by.days[0].Days)
		}
	}
	if len(t.Metrics) == timelineBins {
		note("There are no points by days since exposure: the metric has a component that is no count, sum or \"any\".")
	}
	switch {
	case metric.entry.retold():
		note("Percentiles that cap a number are on each cumulative day those of the subjects by then, and in each cohort those of all subjects now.")
	case metric.entry.deferred:
		note("Percentiles that cap a number are those of all subjects now, on every day.")
	}
	if len(metric.caps) > 0 && len(t.Metrics) > timelineBins+1 {
		note("By days since exposure nothing is capped: a cap is of the number in the whole window.")
	}
	if t.StratumLimit > 0 {
		note("%s", s.unstratified(t))
	}
	if t.Cut > 0 {
		note("%s", cut(t))
	}
	return notes
}
