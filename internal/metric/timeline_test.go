package metric

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/google/go-cmp/cmp"
)

func TestTimelineBins(t *testing.T) {
	count := func(window time.Duration) *Definition {
		d := Formula("c", []experiment.Component{{Name: "c", Outcome: "x", Aggregate: experiment.AggregateCount}})
		d.Window = window
		return &d
	}
	for _, tt := range []struct {
		window, length, last time.Duration
		bins                 int
	}{
		{0, day, day, 31}, {time.Hour, time.Hour, time.Hour, 1}, {36 * time.Hour, day, 12 * time.Hour, 2}, {31 * day, day, day, 31},
		{31*day + 1, week, 3*day + 1, 5}, {31 * week, week, week, 31}, {31*week + 1, 2 * week, week + 1, 16}, {366 * day, 2 * week, 2 * day, 27},
	} {
		bins := binsOf(count(tt.window))
		if len(bins) != tt.bins || len(bins) > maxBins {
			t.Errorf("window %v: %d bins, want %d", tt.window, len(bins), tt.bins)
			continue
		}
		first, last := bins[0], bins[len(bins)-1]
		if first.end-first.start != tt.length || last.end-last.start != tt.last || tt.window > 0 && last.end != tt.window {
			t.Errorf("window %v: from %v to %v", tt.window, first, last)
		}
		for i := range bins {
			if i > 0 && bins[i].start != bins[i-1].end {
				t.Errorf("window %v: bin %d is %v after %v", tt.window, i, bins[i], bins[i-1])
			}
		}
	}
	for _, a := range []experiment.Aggregate{experiment.AggregateMin, experiment.AggregateMax, experiment.AggregateLast, experiment.AggregateDistinctDays} {
		d := Formula("a", []experiment.Component{sum("a", "x"), {Name: "b", Outcome: "x", Aggregate: a}})
		if bins := binsOf(&d); bins != nil {
			t.Errorf("%s has bins %v", a, bins)
		}
	}
}

// TestTimelineEnds holds that the last cumulative point is the analysis of the
// moment, and each other one that of the end of its day.
func TestTimelineEnds(t *testing.T) {
	d, revenue := watched("spend")
	d.Plan.StratifyBy = "device"
	rows := arrivals(1, 400, 20)
	for i := range rows {
		rows[i].Stratum = []byte([]string{"phone", "desk", ""}[i%3])
	}
	s := mustStudy(t, d, []Use{revenue})
	line, err := NewTimeline(d, d.Variants, revenue)
	if err != nil {
		t.Fatal(err)
	}
	f := line.NewFold(moment)
	for _, r := range rows {
		r.Values = slices.Concat(r.Values, make([]float64, 7)) // Of the window, and of its days.
		f.Add(&r)
	}
	timeline, err := line.Timeline(f.Tally())
	if err != nil {
		t.Fatal(err)
	}
	if len(timeline.Cumulative) != 20 || len(timeline.Cohorts) != 20 || len(timeline.SinceExposure) != 7 || len(timeline.Notes) != 0 {
		t.Errorf("%d points, %d cohorts, %d days since exposure, notes %q", len(timeline.Cumulative), len(timeline.Cohorts), len(timeline.SinceExposure), timeline.Notes)
	}
	for i, p := range timeline.Cumulative {
		end := moment.AddDate(0, 0, i-19)
		if !p.Day.Equal(end.AddDate(0, 0, -1)) {
			t.Errorf("point %d is of %v, not of the day that ends at %v", i, p.Day, end)
		}
		f := s.NewFold(end)
		for k := range rows {
			f.Add(&rows[k])
		}
		arms, comparisons, err := s.now(&s.metrics[0], &f.Tally().Metrics[0])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(arms, p.Arms); diff != "" {
			t.Errorf("arms of point %d (-analysis +timeline):\n%s", i, diff)
		}
		if diff := cmp.Diff(comparisons, p.Comparisons); diff != "" {
			t.Errorf("comparisons of point %d (-analysis +timeline):\n%s", i, diff)
		}
	}
	subjects := int64(0)
	for i, p := range timeline.Cohorts {
		if !p.Day.Equal(moment.Add(-week).AddDate(0, 0, i-20)) {
			t.Errorf("cohort %d is of %v", i, p.Day)
		}
		subjects += p.Arms[0].Subjects + p.Arms[1].Subjects
	}
	if subjects != 400 {
		t.Errorf("%d subjects in all cohorts, want 400", subjects)
	}
}

// TestTimelineWithholds: a cohort with too few subjects in some variant shows how
// many there are. The other points are no cells.
func TestTimelineWithholds(t *testing.T) {
	d, revenue := watched()
	line, err := NewTimeline(d, d.Variants, revenue)
	if err != nil {
		t.Fatal(err)
	}
	f := line.NewFold(moment)
	for i, n := range [][2]int{{20, 20}, {20, 19}, {19, 0}, {40, 0}} {
		for v, variant := range []string{"control", "short"} {
			for k := range n[v] {
				r := row(variant, make([]float64, 8)...)
				r.Values[0], r.FirstExposure = float64(k%3), moment.AddDate(0, 0, i-20)
				f.Add(&r)
			}
		}
	}
	timeline, err := line.Timeline(f.Tally())
	if err != nil {
		t.Fatal(err)
	}
	if p := timeline.Cohorts[0]; p.Withheld || p.Arms[1].Mean == nil || len(p.Comparisons) != 1 {
		t.Errorf("cohort of 20 a variant: %+v", p)
	}
	if p := timeline.Cohorts[3]; p.Withheld || p.Arms[0].Mean == nil || len(p.Comparisons) != 1 {
		t.Errorf("cohort of a variant that had ended: %+v", p)
	}
	for i, n := range []int64{19, 0} {
		p := timeline.Cohorts[1+i]
		if want := []Arm{{Variant: "control", Subjects: 20 - int64(i), Notes: []string{withheldNote}}, {Variant: "short", Subjects: n, Notes: []string{withheldNote}}}; !p.Withheld || p.Comparisons != nil || !cmp.Equal(p.Arms, want) {
			t.Errorf("cohort with %d subjects of a variant: %+v", n, p)
		}
	}
	for _, p := range slices.Concat(timeline.Cumulative, timeline.SinceExposure) {
		if p.Withheld || len(p.Comparisons) != 1 {
			t.Errorf("point %+v", p)
		}
	}

	// Without data there are subjects alone at every point, and the reason.
	tally := f.Tally()
	line.Account(tally, &Accounted{})
	if timeline, err = line.Timeline(tally); err != nil {
		t.Fatal(err)
	}
	for _, p := range slices.Concat(timeline.Cumulative, timeline.SinceExposure, timeline.Cohorts) {
		for _, arm := range p.Arms {
			if arm.Mean != nil || arm.StandardError != nil || arm.Total != nil || len(arm.Notes) != 1 || !p.Withheld && !strings.Contains(arm.Notes[0], " has no data") {
				t.Errorf("without data: arm %+v", arm)
			}
		}
	}
}

func TestTimelineNotes(t *testing.T) {
	d, largest := watched()
	d.Plan.StratifyBy = "device"
	largest.Metric.Definition.Window = 0
	largest.Metric.Definition.Components = []experiment.Component{{Name: "sum", Outcome: "purchase", Aggregate: experiment.AggregateMax}}
	line, err := NewTimeline(d, d.Variants, largest)
	if err != nil {
		t.Fatal(err)
	}
	f := line.NewFold(moment)
	f.KeptFrom = moment.AddDate(-3, 0, 0)
	for i := range 4008 {
		r := row([]string{"control", "short"}[i%2], math.Mod(float64(i), 5))
		r.FirstExposure, r.Stratum = moment.AddDate(0, 0, -i/2), []byte(strings.Repeat("x", i%1002))
		f.Add(&r)
	}
	timeline, err := line.Timeline(f.Tally())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"The metric has no window: every point counts what is known of its subjects now, which an analysis of that day could not know.",
		"Cumulative points stand for 8 days each, of which they name the last: there are too many days.",
		"Cohort points stand for 8 days each, of which they name the last: there are too many days.",
		`There are no points by days since exposure: the metric has a component that is no count, sum or "any".`,
		`Subjects are not stratified by "device": it has more than 1000 values.`,
		"1814 subjects were exposed before 2023-01-20, or have covariates from before it: outcomes from then are no longer kept, and their lack counts as none.",
	}
	if diff := cmp.Diff(want, timeline.Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	if n := len(timeline.Cumulative); n == 0 || n > maxPeriods || timeline.SinceExposure != nil {
		t.Errorf("%d points, and by days since exposure %d", n, len(timeline.SinceExposure))
	}
}
