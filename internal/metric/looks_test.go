package metric

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// sequential is a study by a group-sequential plan of 400 subjects. The primary
// metric and soon have no window, late has one of a week.
func sequential(t *testing.T) *Study {
	t.Helper()
	d := definition("control", "short")
	d.Plan.Method, d.Plan.PlannedSubjects, d.Plan.Spending = experiment.MethodGroupSequential, 400, experiment.SpendingPocock
	late := Sum("purchase", nil)
	late.Window = week
	revenue := Sum("purchase", nil)
	revenue.Window = day
	return mustStudy(t, d, []Use{
		use("revenue", revenue, experiment.RolePrimary),
		use("soon", Sum("order", nil), experiment.RoleSecondary),
		use("late", late, experiment.RoleSecondary),
		use("unplanned", Sum("visit", nil), ""),
	}, "country")
}

// shoppers are n subjects, of whom the last open have not been exposed for a
// week. Those of the treatment are better by effect.
func shoppers(s *Study, n, open int, effect float64) *Tally {
	var rows []Row
	for i := range n {
		value := float64(i*37%11) + effect*float64(i%2)
		r := row([]string{"control", "short"}[i%2], value, value, value, value)
		r.Segments = [][]byte{[]byte("PL")}
		if i >= n-open {
			r.FirstExposure = moment.Add(-week / 2)
		}
		rows = append(rows, r)
	}
	return fold(s, rows...)
}

func mustLook(t *testing.T, s *Study, earlier []Look, take bool) *Study {
	t.Helper()
	s, err := s.AtLook(earlier, take)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestBoundaries compares with rpact:
//
//	getDesignGroupSequential(typeOfDesign, informationRates = c(0.3, 0.7, 1),
//	  alpha = 0.05, sided)$criticalValues
func TestBoundaries(t *testing.T) {
	looks := []Look{
		{Number: 1, Subjects: map[string]int64{"revenue": 120}},
		{Number: 2, Subjects: map[string]int64{"revenue": 280, "late": 20}},
		{Number: 3, Subjects: map[string]int64{"revenue": 400}},
	}
	for _, tt := range []struct {
		spending  experiment.Spending
		objective experiment.Objective
		want      []float64
	}{
		{experiment.SpendingPocock, "", []float64{2.31183530381, 2.25834631175, 2.30618030578}},
		{experiment.SpendingOBrienFleming, "", []float64{3.92857254263, 2.43874237686, 2.00000857562}},
		{experiment.SpendingOBrienFleming, experiment.ObjectiveSuperiority, []float64{3.39295135467, 2.07417804748, 1.70269542187}},
	} {
		s := sequential(t)
		s.definition.Plan.Spending = tt.spending
		if tt.objective != "" {
			s.metrics[0].Objective = tt.objective
		}
		got, err := s.Boundaries(looks)
		if err != nil || len(got) != len(tt.want) {
			t.Fatal(got, err)
		}
		for i := range got {
			want(t, "boundary", got[i], tt.want[i], 1e-7)
		}
	}
	if got, err := sequential(t).Boundaries(nil); len(got) != 0 || err != nil {
		t.Errorf("without looks: %v, %v", got, err)
	}
	d := definition("control", "short")
	d.Plan.Method, d.Plan.PlannedSubjects, d.Plan.Spending = experiment.MethodGroupSequential, 1e6, experiment.SpendingOBrienFleming
	s := mustStudy(t, d, []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
	if got, err := s.Boundaries([]Look{{Number: 1, Subjects: map[string]int64{"revenue": 10}}}); err != nil || got[0] != nil {
		t.Errorf("a look that spends nothing: %v, %v", got, err)
	}
}

// TestLookSchedules: every metric spends by the time of the primary one, and
// counts its own subjects; segments are judged like the whole.
func TestLookSchedules(t *testing.T) {
	s := sequential(t)
	earlier := []Look{{Number: 1, Subjects: map[string]int64{"revenue": 100, "soon": 100, "late": 20}}}
	a := mustAnalyze(t, mustLook(t, s, earlier, true), shoppers(s, 200, 80, 0.4), 0)
	if a.Look == nil || a.Look.Number != 2 || a.Look.Subjects["revenue"] != 200 || a.Look.Subjects["late"] != 120 || len(a.Look.Subjects) != 3 {
		t.Fatalf("look %+v", a.Look)
	}
	schedule := func(before, now float64) *stats.Schedule {
		schedule, err := stats.NewSchedule(stats.Pocock, []stats.Look{{Time: 0.25, Information: before}, {Time: 0.5, Information: now}})
		if err != nil {
			t.Fatal(err)
		}
		return schedule
	}
	for key, schedule := range map[string]*stats.Schedule{
		"revenue": schedule(1, 2), "soon": schedule(1, 2), "late": schedule(20, 120), "unplanned": schedule(1, 2),
	} {
		for i := range a.Metrics {
			if a.Metrics[i].Metric != key {
				continue
			}
			all := a.Metrics[i].Comparisons
			for _, cut := range a.Metrics[i].Segments {
				all = append(all, cut.Comparisons...)
			}
			if len(all) != 2 {
				t.Fatalf("%s: %d comparisons", key, len(all))
			}
			for _, c := range all {
				test := stats.Test{Method: stats.GroupSequential, ConfidenceLevel: 0.95, Schedule: schedule}
				inference := test.Infer(stats.Evidence{Estimate: *c.Difference.Estimate, StandardError: *c.StandardError, DegreesOfFreedom: *c.DegreesOfFreedom}, 0)
				want(t, key+" p-value", c.PValue, *inference.PValue, 1e-12)
				want(t, key+" lower", c.Difference.Lower, *inference.Lower, 1e-9)
				want(t, key+" boundary", c.Boundary, *inference.Boundary, 1e-12)
			}
		}
	}
	if revenue, late := a.Metrics[0].Comparisons[0].Boundary, a.Metrics[2].Comparisons[0].Boundary; math.Abs(*revenue-*late) < 0.01 {
		t.Errorf("the boundaries %v and %v do not differ by the subjects", *revenue, *late)
	}
}

// TestLooksRefused: what can be known before the subjects are, and what cannot.
func TestLooksRefused(t *testing.T) {
	s := sequential(t)
	at := func(revenue int64) Look { return Look{Number: 1, Subjects: map[string]int64{"revenue": revenue}} }
	full := make([]Look, maxLooks)
	for i := range full {
		full[i] = at(int64(i) + 1)
	}
	refused := func(name, reason string, err error) {
		t.Helper()
		var refusal *experiment.Error
		if !errors.As(err, &refusal) || refusal.Reason != reason || !errors.Is(err, experiment.ErrPrecondition) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := s.AtLook([]Look{at(400)}, true)
	refused("after the last", "LAST_LOOK_TAKEN", err)
	_, err = s.AtLook(full, true)
	refused("too many", "TOO_MANY_LOOKS", err)
	for before, subjects := range map[int64]int{200: 200, 201: 200} {
		_, err = mustLook(t, s, []Look{at(before)}, true).Analyze(shoppers(s, subjects, 0, 0), map[int32][]float64{1: {0.5, 0.5}})
		refused("without growth", "LOOK_WITHOUT_SUBJECTS", err)
	}
	_, err = mustLook(t, s, nil, true).Analyze(shoppers(s, 0, 0, 0), nil)
	refused("without subjects", "LOOK_WITHOUT_SUBJECTS", err)
	fixed := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
	_, err = fixed.AtLook(nil, true)
	refused("another method", "NOT_GROUP_SEQUENTIAL", err)
}

// TestVerdictBetweenLooks: a plan decides at its looks, and what the latest one
// decided stands.
func TestVerdictBetweenLooks(t *testing.T) {
	s := sequential(t)
	look := func(number int32, action Action) Look {
		return Look{Number: number, Subjects: map[string]int64{"revenue": 100}, Verdict: Verdict{Action: action, Variant: "v", Reasons: []string{"r"}}}
	}
	for name, c := range map[string]struct {
		looks  []Look
		action Action
		reason string
	}{
		"no look":                   {nil, ActionKeepRunning, "decides at its looks only"},
		"the latest did not decide": {[]Look{look(1, ActionShip), look(2, ActionKeepRunning)}, ActionKeepRunning, "decides at its looks only"},
		"the latest decided":        {[]Look{look(1, ActionKeepRunning), look(2, ActionRollBack)}, ActionRollBack, "Look 2 decided."},
	} {
		a := mustAnalyze(t, mustLook(t, s, c.looks, false), shoppers(s, 300, 0, 50), 0)
		if v := a.Verdict; v.Action != c.action || !strings.Contains(v.Reasons[0], c.reason) || a.Look != nil || a.Metrics[0].Comparisons[0].PValue != nil {
			t.Errorf("%s: %+v", name, v)
		}
	}
	// A look with the same subjects decides by itself.
	if v := mustAnalyze(t, mustLook(t, s, nil, true), shoppers(s, 300, 0, 50), 0).Verdict; v.Action != ActionShip {
		t.Errorf("at a look: %+v", v)
	}
	if v := mustAnalyze(t, mustLook(t, s, nil, true), shoppers(s, 400, 0, 0), 0).Verdict; v.Action != ActionInconclusive {
		t.Errorf("at the last look: %+v", v)
	}
}

// A plan whose primary metric has no window decides once: no look before spends
// anything, and the one when counting has ended has the boundary of a single look,
// which is that of a fixed horizon (R: qnorm(0.975)), whatever was looked at before.
func TestLooksOfAPlanThatDecidesOnce(t *testing.T) {
	d := definition("control", "short")
	d.Plan.Method, d.Plan.PlannedSubjects, d.Plan.Spending = experiment.MethodGroupSequential, 400, experiment.SpendingOBrienFleming
	s := mustStudy(t, d, []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
	look := func(ended bool) Look {
		return Look{Number: 1, Subjects: map[string]int64{"revenue": 200}, Ended: ended}
	}
	at := func(earlier []Look, take, ended bool) (*Analysis, error) {
		tally := fold(s, oneColumn(200)...)
		if ended {
			tally.CountingEnd = moment
		}
		return mustLook(t, s, earlier, take).Analyze(tally, map[int32][]float64{1: {0.5, 0.5}})
	}
	refused := func(name, reason string, err error) {
		t.Helper()
		var refusal *experiment.Error
		if !errors.As(err, &refusal) || refusal.Reason != reason {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := at(nil, true, false)
	refused("early", "LOOK_CANNOT_DECIDE", err)
	_, err = at([]Look{look(true)}, true, true)
	refused("a second one", "LAST_LOOK_TAKEN", err)
	a, err := at([]Look{look(false)}, true, true)
	if err != nil {
		t.Fatal(err)
	}
	if a.Verdict.Action != ActionShip || a.Look.Number != 2 || !a.Look.Ended {
		t.Errorf("the look when counting has ended: %v, %+v", a.Verdict, a.Look)
	}
	looks := []Look{look(false), *a.Look}
	boundaries, err := s.Boundaries(looks)
	if err != nil || boundaries[0] != nil {
		t.Fatal(boundaries, err)
	}
	want(t, "boundary", boundaries[1], 1.959963984540054, 1e-9)
	if early, last := s.Spent(&looks[0]), s.Spent(&looks[1]); early != 0 || math.Abs(last-0.05) > 1e-12 {
		t.Errorf("spent %v and %v", early, last)
	}
	if text := strings.Join(a.Warnings, " "); strings.Contains(text, "hold all the same") || !strings.Contains(text, "hold for one look") {
		t.Errorf("warnings %q", a.Warnings)
	}
	if a, err = at([]Look{look(false)}, false, true); err != nil || a.Verdict.Action != ActionInconclusive || !strings.Contains(a.Verdict.Reasons[1], "take the next one") {
		t.Errorf("before that look: %v, %v", a.Verdict, err)
	}
}

// oneColumn is n subjects of two variants, of which the treatment is better.
func oneColumn(n int) (rows []Row) {
	for i := range n {
		rows = append(rows, row([]string{"control", "short"}[i%2], float64(i*37%11)+2*float64(i%2)))
	}
	return rows
}

// When counting has ended nothing is waited for: neither for subjects, nor for a look
// that would have no more than the one before.
func TestUndecidedWhenCountingEnded(t *testing.T) {
	const undecided = "It was concluded undecided"
	s := sequential(t)
	earlier := []Look{{Number: 1, Subjects: map[string]int64{"revenue": 200}, Verdict: Verdict{Action: ActionKeepRunning}}}
	for subjects, says := range map[int]string{200: "there are no more subjects for another one", 300: "take the next one"} {
		tally := shoppers(s, subjects, 0, 50)
		tally.CountingEnd = moment
		v := mustAnalyze(t, mustLook(t, s, earlier, false), tally, 0).Verdict
		if v.Action != ActionInconclusive || !v.Ended || !strings.HasPrefix(v.Reasons[0], undecided) || !strings.Contains(v.Reasons[1], says) {
			t.Errorf("after a look, with %d subjects: %+v", subjects, v)
		}
	}
	tally := shoppers(s, 300, 0, 0.1)
	tally.CountingEnd = moment
	if v := mustAnalyze(t, mustLook(t, s, earlier, true), tally, 0).Verdict; v.Action != ActionInconclusive || !v.Ended {
		t.Errorf("at a last look: %+v", v)
	}
	for _, method := range []experiment.Method{experiment.MethodFixedHorizon, experiment.MethodAlwaysValid, experiment.MethodBayesian} {
		for _, planned := range []int64{0, 1000} {
			d := definition("control", "short")
			d.Plan.Method, d.Plan.PlannedSubjects = method, planned
			s := mustStudy(t, d, []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
			var rows []Row
			for i := range 200 {
				rows = append(rows, row([]string{"control", "short"}[i%2], float64(i/2%7)))
			}
			tally := fold(s, rows...)
			before := mustAnalyze(t, s, tally, 0)
			tally.CountingEnd = moment
			after := mustAnalyze(t, s, tally, 0)
			if v := before.Verdict; v.Action != ActionKeepRunning || v.Ended {
				t.Errorf("%s of %d, running: %+v", method, planned, v)
			}
			if v := after.Verdict; v.Action != ActionInconclusive || !strings.HasPrefix(v.Reasons[0], undecided) {
				t.Errorf("%s of %d, ended: %+v", method, planned, v)
			}
			deviations := s.Deviations(after, Course{Concluded: true})
			if ended := len(deviations) == 1 && deviations[0].Reason == "ENDED_EARLY"; ended != (planned > 0) {
				t.Errorf("%s of %d: %v", method, planned, deviations)
			}
		}
	}
}
