package metric

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/google/go-cmp/cmp"
)

// planned is a plan for a power of 0.8 at a fixed horizon.
func planned(b Baseline, objective experiment.Objective) *Planned {
	power := 0.8
	return &Planned{
		Baseline: b, Objective: objective, Power: &power,
		Plan: experiment.Plan{Method: experiment.MethodFixedHorizon, ConfidenceLevel: 0.95, Correction: experiment.CorrectionHolm},
	}
}

func mustSolve(t *testing.T, p *Planned) *Sizing {
	t.Helper()
	s, err := p.Solve()
	if err != nil {
		t.Fatalf("%+v: %v", p, err)
	}
	return s
}

// TestPlannedDirection: of two directions the one that takes more subjects is
// planned for, unless only one of them is better.
func TestPlannedDirection(t *testing.T) {
	rate := func(value float64, d Direction) Baseline {
		b := RateBaseline(value)
		b.Direction = d
		return b
	}
	// The subjects are those of Farrington and Manning's formula by scipy, in
	// stats/testdata/ratepower.py: the root of normal(c, t, N/2, N/2, 0, alternative,
	// margin, 0.05) = 0.8 by N, rounded up.
	tests := []struct {
		baseline  Baseline
		objective experiment.Objective
		falls     bool
		subjects  int64
	}{
		{rate(0.1, ""), experiment.ObjectiveDifference, false, 29502},
		{rate(0.9, ""), experiment.ObjectiveDifference, true, 29502},
		{rate(0.9, DirectionIncrease), experiment.ObjectiveDifference, true, 29502},
		{rate(0.9, DirectionIncrease), experiment.ObjectiveSuperiority, false, 21260},
		{rate(0.9, DirectionDecrease), experiment.ObjectiveSuperiority, true, 23239},
		{rate(0.1, DirectionDecrease), experiment.ObjectiveSuperiority, true, 21260},
		{rate(0.1, ""), experiment.ObjectiveSuperiority, false, 23239},
		{rate(0.9, ""), experiment.ObjectiveSuperiority, true, 23239},
		{rate(0.1, DirectionDecrease), experiment.ObjectiveNonInferiority, true, 4836},
		{rate(0.1, DirectionDecrease), experiment.ObjectiveEquivalence, false, 2323618},
	}
	for _, tt := range tests {
		p := planned(tt.baseline, tt.objective)
		p.Effect = &experiment.Magnitude{Value: 0.01}
		if tt.objective.HasMargin() {
			p.Margin = &experiment.Magnitude{Value: 0.011}
		}
		got := mustSolve(t, p)
		if got.Subjects != tt.subjects {
			t.Errorf("%v, %s: %d subjects, want %d", tt.baseline, tt.objective, got.Subjects, tt.subjects)
		}
		if told := strings.Contains(strings.Join(got.Notes, " "), "fall of the rate"); told != tt.falls {
			t.Errorf("%v, %s: notes %q", tt.baseline, tt.objective, got.Notes)
		}
	}
}

// TestPlanOfFewEvents: a plan of a rate with few events has the power that the test has,
// and says so, and others promise no more than the guard allows.
func TestPlanOfFewEvents(t *testing.T) {
	notes := func(s *Sizing) string { return strings.Join(s.Notes, " ") }
	p := planned(RateBaseline(0.001), experiment.ObjectiveNonInferiority)
	p.Margin = &experiment.Magnitude{Value: 0.01}
	got := mustSolve(t, p)
	// The sizes are those of binom.cdf(1, n, 0.01) <= 0.05 by scipy, of which 473 is the
	// first, and the power is binom.cdf(1, 473, 0.001).
	if want(t, "power", &got.Power, 0.91799, 1e-3); got.Subjects < 945 || got.Subjects > 946 || !strings.Contains(notes(got), "0.473 events in the control") || !strings.Contains(notes(got), "not below 0.8") {
		t.Errorf("%+v", got)
	}
	p.Subjects, p.Power = 249, nil
	if got := mustSolve(t, p); got.Power > 1e-9 || !strings.Contains(notes(got), "a few subjects more may have less") {
		t.Errorf("249 subjects: %+v", got)
	}
	p.Plan.Method = experiment.MethodAlwaysValid
	if got := mustSolve(t, p); got.Power > 1e-3 || !strings.Contains(notes(got), "keeps the plan undecided") || strings.Contains(notes(got), "too uneven") {
		t.Errorf("249 subjects of an always-valid plan: %+v", got)
	}
	p.Baseline = RateBaseline(0.3)
	p.Subjects = 100_000
	if got := mustSolve(t, p); strings.Contains(notes(got), "expected") {
		t.Errorf("many events: %+v", got)
	}
	share := 0.004
	p = planned(Baseline{Field: "metric", Value: 1, Deviation: 30, Informative: &share}, experiment.ObjectiveDifference)
	p.Subjects, p.Power, p.Effect = 2400, nil, &experiment.Magnitude{Value: 8}
	if got := mustSolve(t, p); !strings.Contains(notes(got), "Only some 4.8 informative subjects, which are 0.4% by history, are expected") {
		t.Errorf("few informative subjects: %+v", got)
	}
	p.Subjects = 2600
	if got := mustSolve(t, p); len(got.Notes) > 0 {
		t.Errorf("enough informative subjects: %+v", got)
	}
}

// TestPlanOfThoseWhoCount: of a largest value half of the subjects have none, so that
// twice as many have to be exposed, for twice the days.
func TestPlanOfThoseWhoCount(t *testing.T) {
	d := aggregated(experiment.AggregateMax, nil)
	d.Window = day
	s := mustStudy(t, definition("control", "short"), []Use{use("m", d, experiment.RolePrimary)})
	var rows []Row
	for i := range 400 {
		r := row([]string{"control", "short"}[i%2], math.NaN())
		if i%4 < 2 {
			r.Values[0] = float64(50 + i%30)
		}
		rows = append(rows, r)
	}
	b, err := s.Baseline(fold(s, rows...))
	if err != nil {
		t.Fatal(err)
	}
	if b.Counted != 0.5 || b.Subjects != 100 {
		t.Fatalf("baseline %+v", b)
	}
	b.SubjectsPerDay = 100
	// power.t.test(delta = 5, sd = 29.28, power = 0.8, strict = TRUE)$n is 539.3 an arm.
	p := planned(b, experiment.ObjectiveDifference)
	p.Baseline.Deviation, p.Effect = 29.28, &experiment.Magnitude{Value: 5}
	got := mustSolve(t, p)
	if got.Subjects < 1078 || got.Subjects > 1080 || *got.Exposed != 2*got.Subjects || *got.Days != 23 ||
		!slices.Contains(got.Notes, fmt.Sprintf("By history 50%% of the exposed subjects count for the metric, as the others have no outcome to be of: for %d that count %d have to be exposed.", got.Subjects, 2*got.Subjects)) {
		t.Errorf("%+v", got)
	}
	if n, err := b.SubjectsIn(14); n != 650 || err != nil {
		t.Errorf("in 14 days %d subjects, %v", n, err)
	}
	b.Counted = 0
	p.Baseline.Counted = 0
	if got := mustSolve(t, p); got.Exposed != nil || *got.Days != 12 {
		t.Errorf("figures that a caller brings: %+v", got)
	}
}

// TestPlannedMargin: a metric that gets better downwards is planned as its
// mirror image.
func TestPlannedMargin(t *testing.T) {
	for _, margin := range []*experiment.Magnitude{{Value: 2}, {Value: 0.2, Relative: true}} {
		for _, objective := range []experiment.Objective{experiment.ObjectiveNonInferiority, experiment.ObjectiveEquivalence} {
			up := planned(Baseline{Field: "mean", Value: 10, Deviation: 30}, objective)
			up.Margin, up.Effect = margin, &experiment.Magnitude{Value: 0.3}
			down := *up
			down.Baseline.Value, down.Baseline.Direction = -10, DirectionDecrease
			if diff := cmp.Diff(mustSolve(t, up), mustSolve(t, &down)); diff != "" {
				t.Errorf("%s with %+v (-up +down):\n%s", objective, margin, diff)
			}
			without := *up
			without.Effect = nil
			with, none := mustSolve(t, up).Subjects, mustSolve(t, &without).Subjects
			if better := with < none; better != (objective == experiment.ObjectiveNonInferiority) {
				t.Errorf("%s with %+v: %d subjects with an effect and %d without", objective, margin, with, none)
			}
		}
	}
}

// TestRatioBaseline: figures that subjects can have, and others.
func TestRatioBaseline(t *testing.T) {
	b := RatioBaseline(12, 4, 100, 9, 20)
	want(t, "ratio", &b.Value, 3, 1e-15)
	want(t, "deviation", &b.Deviation, math.Sqrt((100-2*3*20+9*9)/16.0), 1e-15)
	huge := RatioBaseline(12e90, 4e90, 100e180, 9e180, 20e180)
	want(t, "deviation of huge figures", &huge.Deviation, b.Deviation, 1e-12)
	for name, b := range map[string]Baseline{
		"the same for everyone":    RatioBaseline(12, 4, 90, 10, 30),
		"no variance":              RatioBaseline(12, 4, 0, 0, 0),
		"impossible covariance":    RatioBaseline(12, 4, 100, 9, -31),
		"too large to compute":     RatioBaseline(1e300, 1e-300, 1, 1, 0),
		"covariance of a constant": RatioBaseline(12, 4, 100, 0, 1),
	} {
		p := planned(b, experiment.ObjectiveDifference)
		p.Effect = &experiment.Magnitude{Value: 1}
		var invalid *experiment.InvalidError
		if _, err := p.Solve(); !errors.As(err, &invalid) || invalid.Violations[0].Field != "ratio" {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
	}
}

// TestThinBaseline: figures of fewer than 100 subjects are said to be rough, and
// those that a caller brings are not.
func TestThinBaseline(t *testing.T) {
	for subjects, rough := range map[int64]bool{0: false, 99: true, 100: false} {
		p := planned(RateBaseline(0.1), experiment.ObjectiveDifference)
		p.Subjects, p.Baseline.Subjects = 1000, subjects
		got, err := p.Solve()
		if err != nil {
			t.Fatal(err)
		}
		if says := slices.Contains(got.Notes, "The baseline is that of 99 control subjects only: its figures are rough, and so is the plan."); says != rough {
			t.Errorf("of %d subjects: notes %q", subjects, got.Notes)
		}
	}
}

func TestSubjectsIn(t *testing.T) {
	for _, tt := range []struct {
		days     int32
		perDay   float64
		window   time.Duration
		subjects int64 // 0: refused.
	}{
		{10, 100, 0, 1000}, {10, 100, 3 * day, 700}, {10, 100, 2*day + time.Hour, 700}, {10, 0.35, 0, 3},
		{10, 0, 0, 0}, {3, 100, 3 * day, 0}, {3, 100, 4 * day, 0}, {2, 0.4, 0, 0}, {1000, 1e10, 0, 0}, {math.MaxInt32, 1e308, 0, 0},
	} {
		b := Baseline{SubjectsPerDay: tt.perDay, Window: tt.window}
		got, err := b.SubjectsIn(tt.days)
		var invalid *experiment.InvalidError
		if got != tt.subjects || (err != nil) != (tt.subjects == 0) || err != nil && !errors.As(err, &invalid) {
			t.Errorf("%+v: %d subjects, %v", tt, got, err)
		}
	}
}

// TestBaseline: what an analysis says of the control, by subject.
func TestBaseline(t *testing.T) {
	orders := Ratio(sum("revenue", "purchase"), sum("orders", "order"))
	s := mustStudy(t, definition("control", "short", "long"), []Use{use("order_value", orders, "", "visits")})
	var rows []Row
	for i := range 600 {
		rows = append(rows, row([]string{"control", "short", "long"}[i%3], float64(i*37%101)+float64(i%3), 1+float64(i*53%7), float64(i*37%101)+float64(i*11%17)))
	}
	tally := fold(s, rows...)
	got, err := s.Baseline(tally)
	if err != nil {
		t.Fatal(err)
	}
	analysis := mustAnalyze(t, s, tally, 0).Metrics[0]
	want(t, "value", &got.Value, *analysis.Arms[0].Mean, 0)
	want(t, "deviation", &got.Deviation, *analysis.Arms[0].StandardError*math.Sqrt(200), 1e-15)
	want(t, "removed", &got.Removed, min(*analysis.Comparisons[0].VarianceReduction, *analysis.Comparisons[1].VarianceReduction), 0)
	if got.Proportion || got.Direction != DirectionIncrease || got.Removed < 0.3 || got.Subjects != 200 {
		t.Errorf("baseline %+v", got)
	}

	refunds := Proportion("refund", nil)
	refunds.Direction, refunds.Window = DirectionDecrease, week
	s = mustStudy(t, definition("control", "short"), []Use{use("refunds", refunds, "")})
	rows = []Row{row("control", 1), row("control", 0), row("control", 0), row("control", 0), row("short", 1)}
	rows[2].FirstExposure = rows[2].FirstExposure.AddDate(0, 0, -1)
	if got, err = s.Baseline(fold(s, rows...)); err != nil {
		t.Fatal(err)
	}
	quarter := 0.25
	if diff := cmp.Diff(Baseline{
		Field: "metric", Value: 0.25, Deviation: math.Sqrt(0.1875), Proportion: true, Direction: DirectionDecrease, Window: week, SubjectsPerDay: 2.5, Subjects: 4,
		Counted: 1, Informative: &quarter,
	}, got); diff != "" {
		t.Error(diff)
	}
	const no = "the experiment's history does not give the metric's figures. "
	for says, rows := range map[string][]Row{
		no + "The arm has no subjects.": nil, no + "One subject has no variance: no standard error.": rows[:1],
		no + "The control's subjects have no variance on it.": rows[1:4],
	} {
		if _, err := s.Baseline(fold(s, rows...)); !errors.Is(err, experiment.ErrPrecondition) || err.Error() != says {
			t.Errorf("%v, want %s", err, says)
		}
	}
	if _, err := s.Baseline(fold(s, rows[4:]...)); !errors.Is(err, experiment.ErrPrecondition) {
		t.Errorf("other variants: %v", err)
	}
	s = mustStudy(t, definition("control", "short"), []Use{use("order_value", orders, "")})
	_, err = s.Baseline(fold(s, row("control", 1, 0), row("control", 2, 0), row("control", 3, 0)))
	if err == nil || strings.Contains(err.Error(), "no variance") || !strings.Contains(err.Error(), no) || len(err.Error()) < len(no)+10 {
		t.Errorf("a denominator of 0: %v", err)
	}
	s = mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), "", "visits")})
	if _, err := s.Baseline(fold(s, row("control", 1, 2), row("control", 2, 3), row("control", 3, 3))); !errors.Is(err, experiment.ErrPrecondition) {
		t.Errorf("covariates without a treatment: %v", err)
	}
}
