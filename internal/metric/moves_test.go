package metric

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

// The splits of an experiment that goes from 90:10 to 50:50: of the buckets those
// from 500,000 up to 900,000 are moved.
var (
	mostlyControl = []experiment.Range{{From: 0, To: 900_000, Variant: "control"}, {From: 900_000, To: 1_000_000, Variant: "short"}}
	evenly        = []experiment.Range{{From: 0, To: 500_000, Variant: "control"}, {From: 500_000, To: 1_000_000, Variant: "short"}}
)

// moves is the phase that begins at a time with a split.
func moves(number int32, start time.Time, split []experiment.Range) experiment.Phase {
	return experiment.Phase{Number: number, Start: start, Moves: true, Allocation: split}
}

// came is a subject with a bucket that came in a phase, and its numbers.
func came(phase int32, at time.Time, bucket int32, split []experiment.Range, values ...float64) Row {
	p := experiment.Phase{Allocation: split}
	return Row{Variant: []byte(p.VariantAt(bucket)), Phase: phase, FirstExposure: at, Bucket: &bucket, Values: values}
}

// TestFoldMoves follows subjects of two phases past a move and past another one,
// with a window of a week and without one.
func TestFoldMoves(t *testing.T) {
	const day = 24 * time.Hour
	windowed := Sum("purchase", nil)
	windowed.Window = week
	s := mustStudy(t, definition("control", "short"), []Use{
		use("week", windowed, experiment.RolePrimary), use("ever", Sum("purchase", nil), experiment.RoleSecondary),
	}, "country")
	second, third := moment.Add(-30*day), moment.Add(-20*day)
	conduct := Conduct{Phases: []experiment.Phase{moves(2, second, evenly), moves(3, third, mostlyControl)}}
	const staysControl, isMoved, staysShort = 0, 700_000, 950_000
	at := func(r Row, country string) Row {
		r.Values = append(r.Values, r.Values[0]) // Of the other metric too.
		r.Segments = [][]byte{[]byte(country)}
		return r
	}
	unknown := at(came(1, second.Add(-day), isMoved, mostlyControl, 64), "PL")
	unknown.Bucket = nil
	late := at(came(1, second.Add(day), isMoved, mostlyControl, 128), "PL") // By a server that had not heard of the phase.
	rows := []Row{
		at(came(1, second.Add(-week), isMoved, mostlyControl, 1), "PL"), // The week ended with the phase.
		at(came(1, second.Add(1-week), isMoved, mostlyControl, 2), "PL"),
		at(came(1, second.Add(-day), staysControl, mostlyControl, 4), "PL"),
		at(came(1, second.Add(-day), staysShort, mostlyControl, 8), "DE"),
		at(came(2, second.Add(day), isMoved, evenly, 16), "PL"), // Its week ends before the third phase moves it back.
		at(came(2, third.Add(-day), isMoved, evenly, 32), "PL"),
		unknown, late,
		at(came(3, third.Add(day), isMoved, mostlyControl, 256), "DE"),
		at(came(3, moment.Add(-day), isMoved, mostlyControl, 512), "DE"), // Its week is open.
	}
	tally := fold(s.Conducted(conduct), rows...)
	type cell struct {
		Stratum Stratum
		Variant string
		Sum     float64
	}
	cells := func(arms Arms, strata []Stratum) (list []cell) {
		for v := range arms {
			for i, m := range arms[v] {
				if m.N > 0 {
					list = append(list, cell{strata[i], tally.Variants[v], math.Round(m.Means[0] * float64(m.N))})
				}
			}
		}
		return list
	}
	in := func(phase, moves int32) Stratum { return Stratum{Phase: phase, Moves: moves} }
	// The unknown one counts, and of the numbers each tells who is in the sum.
	wantWeek := []cell{{in(1, 0), "control", 1}, {in(1, 1), "control", 4 + 64}, {in(3, 0), "control", 256}, {in(1, 1), "short", 8}, {in(2, 0), "short", 16}}
	wantEver := []cell{{in(1, 2), "control", 4 + 64}, {in(3, 0), "control", 256 + 512}, {in(1, 2), "short", 8}}
	wantLeft := []map[LeftOutReason][]int64{{Moved: {2, 1}}, {Moved: {3, 2}}}
	for m, want := range [][]cell{wantWeek, wantEver} {
		if diff := cmp.Diff(want, cells(tally.Metrics[m].Whole, tally.Strata)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tally.Metrics[m].Metric, diff)
		}
		if diff := cmp.Diff(wantLeft[m], tally.Metrics[m].LeftOut); diff != "" {
			t.Errorf("left out of %s (-want +got):\n%s", tally.Metrics[m].Metric, diff)
		}
		if tally.Metrics[m].Doubts.Unplaced != 1 {
			t.Errorf("%+v, and one bucket is not known", tally.Metrics[m].Doubts)
		}
	}
	if diff := cmp.Diff([]cell{{in(1, 1), "short", 8}, {in(3, 0), "control", 256}}, sorted(cells(tally.Metrics[0].Segments[0][0], tally.Parts), func(c cell) float64 { return c.Sum })); diff != "" {
		t.Errorf("the segment DE (-want +got):\n%s", diff)
	}
	// The sample ratio is of everybody.
	if diff := cmp.Diff([][]int64{{5, 1}, {0, 2}, {2, 0}}, tally.Subjects); diff != "" {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}
	// Before the moves, and without them, nobody is left out.
	if early := fold(s.Conducted(Conduct{Phases: []experiment.Phase{moves(2, moment, evenly)}}), rows[:4]...); early.Metrics[0].LeftOut != nil || len(early.Strata) != 1 || early.Parts != nil {
		t.Errorf("as of the start of the next phase: %+v", early)
	}
}

func sorted[T any](list []T, by func(T) float64) []T {
	slices.SortFunc(list, func(a, b T) int { return int(by(a) - by(b)) })
	return list
}

// TestMoveWarnings names what later phases did to whom.
func TestMoveWarnings(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
	start := moment.Add(-week)
	var rows []Row
	for i := range 100 {
		rows = append(rows, came(1, start.Add(-week), int32(i)*10_000, mostlyControl, float64(i%3)))
		if i%10 == 0 {
			rows[i].Bucket = nil
		}
	}
	reshuffled := moves(2, start, evenly)
	reshuffled.Reshuffled = true
	diluting := experiment.Phase{Number: 2, Start: start, Dilutes: "lowered the traffic"}
	for _, c := range []struct {
		name   string
		phases []experiment.Phase
		want   []string
	}{
		{"moved", []experiment.Phase{moves(2, start, evenly)}, []string{
			"36 subjects were left out of revenue (36%), as a later phase gave them another variant while they were followed, whether or not they came back: 36 of control, 0 of short.",
			"10 subjects were followed for revenue past a later phase that gives some subjects another variant, and kept, as it is not known which bucket they are in: their exposures were recorded before buckets were."}},
		{"reshuffled", []experiment.Phase{reshuffled}, []string{
			"100 subjects were left out of revenue (100%), as a later phase gave them another variant while they were followed, whether or not they came back: 90 of control, 10 of short. Past a reshuffle nobody is known to have stayed, and all are left out, of every variant."}},
		{"diluted", []experiment.Phase{diluting}, []string{
			"100 subjects were followed for revenue (100% of its subjects) past a later phase that lowered the traffic: some of them may have got nothing or another variant since, which is not known, so they are kept, and an effect looks smaller than it is."}},
		{"later", []experiment.Phase{moves(2, moment, evenly)}, nil},
		{"of an earlier phase", []experiment.Phase{moves(1, start, evenly)}, nil},
	} {
		study := s.Conducted(Conduct{Phases: c.phases})
		a := mustAnalyze(t, study, fold(study, rows...), 0)
		var got []string
		for _, w := range a.Warnings {
			if strings.Contains(w, "later phase") {
				got = append(got, w)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// TestMoveWarningsByMetric names the metric that it concerns most: not one whose window
// had closed when the phase began.
func TestMoveWarningsByMetric(t *testing.T) {
	weekly := Sum("purchase", nil)
	weekly.Window = week
	s := mustStudy(t, definition("control", "short"), []Use{use("weekly", weekly, experiment.RolePrimary), use("all", Sum("purchase", nil), experiment.RoleSecondary)})
	start := moment.Add(-week)
	var rows []Row
	for i := range 100 {
		rows = append(rows, came(1, start.Add(-week), int32(i)*10_000, mostlyControl, float64(i%3), float64(i%3)))
	}
	for _, c := range []struct {
		phase experiment.Phase
		want  string
	}{
		{moves(2, start, evenly), "40 subjects were left out of all (40%), as a later phase gave them another variant while they were followed, whether or not they came back: 40 of control, 0 of short. See left_out for the other metrics."},
		{experiment.Phase{Number: 2, Start: start, Dilutes: "lowered the traffic"}, "100 subjects were followed for all (100% of its subjects) past a later phase that lowered the traffic: some of them may have got nothing or another variant since, which is not known, so they are kept, and an effect looks smaller than it is."},
	} {
		study := s.Conducted(Conduct{Phases: []experiment.Phase{c.phase}})
		var got []string
		for _, w := range mustAnalyze(t, study, fold(study, rows...), 0).Warnings {
			if strings.Contains(w, "later phase") {
				got = append(got, w)
			}
		}
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("warnings %q", got)
		}
	}
}

// TestLaterPhasesChangeNoEarlierDay: the figures of every day before a phase began
// are those that an analysis had then, to the last digit but for the order of sums.
func TestLaterPhasesChangeNoEarlierDay(t *testing.T) {
	const day = 24 * time.Hour
	d, revenue := watched("spend")
	percentile := 95.0
	revenue.Metric.Definition.Components[0].Cap = &experiment.Cap{Upper: &experiment.Bound{Value: percentile, Percentile: true}}
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 11))
		begin := moment.Add(-40 * day)
		conduct := Conduct{Phases: []experiment.Phase{moves(2, begin.Add(15*day+7*time.Hour), evenly), moves(3, begin.Add(25*day), mostlyControl)}}
		splits := [][]experiment.Range{mostlyControl, evenly, mostlyControl}
		rows := make([]Row, 900)
		for i := range rows {
			at := begin.Add(time.Duration(r.Int64N(int64(33 * day))).Truncate(time.Millisecond))
			phase := int32(1)
			for _, p := range conduct.Phases {
				if !at.Before(p.Start) {
					phase = p.Number
				}
			}
			rows[i] = came(phase, at, r.Int32N(experiment.Buckets), splits[phase-1], 10*r.ExpFloat64())
			rows[i].AttributeNumbers = []float64{r.NormFloat64()}
		}
		s := mustStudy(t, d, []Use{revenue})
		at := func(asOf time.Time, known int) *Tally {
			f := s.Conducted(Conduct{Phases: conduct.Phases[:known]}).NewFold(asOf)
			for i := range rows {
				if !rows[i].FirstExposure.After(asOf) {
					f.Add(&rows[i])
				}
			}
			return f.Tally()
		}
		var all []*Day
		err := s.cumulate(&s.metrics[0], &at(moment, 2).Metrics[0], func(d *Day, _ []Arm, c []Comparison) { all = append(all, d) })
		if err != nil {
			t.Fatal(err)
		}
		figures := map[string]string{}
		s.cumulate(&s.metrics[0], &at(moment, 2).Metrics[0], func(d *Day, arms []Arm, c []Comparison) {
			figures[d.date().Format(time.DateOnly)] = textOf(arms, c)
		})
		compared := 0
		for _, last := range all {
			end := last.date().Add(day)
			known := 0
			for known < 2 && conduct.Phases[known].Start.Before(end) {
				known++
			}
			s.cumulate(&s.metrics[0], &at(end, known).Metrics[0], func(d *Day, arms []Arm, c []Comparison) {
				if d.Last != last.Last {
					return
				}
				compared++
				if got := textOf(arms, c); got != figures[d.date().Format(time.DateOnly)] {
					t.Errorf("seed %d, %s: then %s, and now %s", seed, d.date().Format(time.DateOnly), got, figures[d.date().Format(time.DateOnly)])
				}
			})
		}
		if compared < 30 {
			t.Errorf("only %d days", compared)
		}
	}
}

// textOf is the figures of a day to nine digits.
func textOf(arms []Arm, comparisons []Comparison) string {
	number := func(x *float64) string {
		if x == nil {
			return "none"
		}
		return fmt.Sprintf("%.9g", *x)
	}
	c := &comparisons[0]
	return fmt.Sprint(arms[0].Subjects, " ", arms[1].Subjects, " ", number(arms[0].Mean), " ", number(c.Difference.Estimate), " ", number(c.Difference.Lower), " ", number(c.PValue))
}

// conducted is an experiment to be simulated: 4,000 subjects come in 100 days,
// each followed for 30, and what they spend follows a trend in time.
type conducted struct {
	name          string
	effect, trend float64
	conduct       Conduct
	end           float64 // When everybody gets short; in hundreds of days.
}

// TestConductUnderATrend simulates moves and conclusions. The rules count neither
// the trend for an effect nor what happened under another variant: of 300 experiments
// not more are significant without an effect, and not fewer cover one, than chance
// allows where 6 % and 94 % are promised:
//
//	qbinom(0.999, 300, 0.06) # 32
//	qbinom(0.001, 300, 0.94) # 268
//
// Counted all alike, an effect is not covered.
func TestConductUnderATrend(t *testing.T) {
	start := moment.AddDate(0, 0, -400)
	moved := Conduct{Phases: []experiment.Phase{moves(2, start.AddDate(0, 0, 50), evenly)}}
	ended := Conduct{End: start.AddDate(0, 0, 70)}
	for _, c := range []conducted{
		{"moved, without an effect", 0, 3, moved, 0},
		{"moved, with one", 1, 3, moved, 0},
		{"concluded, without an effect", 0, 3, ended, 0.7},
		{"concluded, with one", 0.5, 3, ended, 0.7},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			significant, covered, bias, error := c.simulate(t, start, c.conduct, 300)
			t.Logf("significant %.1f%%, covered %.1f%%, bias %.4f ± %.4f", float64(significant)/3, float64(covered)/3, bias, error)
			if c.effect == 0 && significant > 32 {
				t.Errorf("%d of 300 are significant", significant)
			}
			if covered < 268 {
				t.Errorf("%d of 300 cover the effect", covered)
			}
			if math.Abs(bias) > 4*error {
				t.Errorf("bias %.4f ± %.4f", bias, error)
			}
			if c.effect == 0 {
				return
			}
			if _, covered, _, _ := c.simulate(t, start, Conduct{}, 100); covered > 85 {
				t.Errorf("%d of 100 cover it without the rules: the data are not what this test needs", covered)
			}
		})
	}
}

// simulate runs experiments, and counts those that are significant and whose interval
// covers the effect.
func (c *conducted) simulate(t *testing.T, start time.Time, conduct Conduct, n int) (significant, covered int, bias, error float64) {
	windowed := Sum("purchase", nil)
	windowed.Window = 30 * day
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", windowed, experiment.RolePrimary)}).Conducted(conduct)
	shares := map[int32][]float64{1: {0.9, 0.1}, 2: {0.5, 0.5}}
	r := rand.New(rand.NewPCG(2, uint64(1000*c.effect)))
	sum, squares := 0.0, 0.0
	for range n {
		f := s.NewFold(moment)
		for range 4000 {
			row := c.subject(r, start)
			f.Add(&row)
		}
		a, err := s.Analyze(f.Tally(), shares)
		if err != nil {
			t.Fatal(err)
		}
		d := a.Metrics[0].Comparisons[0]
		if *d.PValue <= 0.05 {
			significant++
		}
		if *d.Difference.Lower <= c.effect && c.effect <= *d.Difference.Upper {
			covered++
		}
		x := *d.Difference.Estimate - c.effect
		sum, squares = sum+x, squares+x*x
	}
	mean := sum / float64(n)
	return significant, covered, mean, math.Sqrt((squares/float64(n) - mean*mean) / float64(n))
}

// subject comes at some time; what happens after a move or the end is that of the
// variant that it then has.
func (c *conducted) subject(r *rand.Rand, start time.Time) Row {
	const window = 0.3
	move := 0.5 // Of the split.
	came, u := r.Float64(), r.Float64()
	phase, short := int32(1), u >= 0.9
	then, changed := u >= 0.5, move // What it gets later, and when.
	switch {
	case c.end > 0:
		then, changed = true, c.end
	case came >= move:
		phase, short = 2, then
	}
	after := min(max((came+window-changed)/window, 0), 1)
	y := c.trend*(came+window/2) + r.NormFloat64()
	if short {
		y += c.effect * (1 - after)
	}
	if then {
		y += c.effect * after
	}
	variant := "control"
	if short {
		variant = "short"
	}
	bucket := int32(u * experiment.Buckets)
	return Row{
		Variant: []byte(variant), Phase: phase, Bucket: &bucket, Values: []float64{y},
		FirstExposure: start.Add(time.Duration(came * float64(100*day))),
	}
}
