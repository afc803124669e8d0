package metric

import (
	"errors"
	"math"
	"math/rand/v2"
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
	tests := []struct {
		baseline  Baseline
		objective experiment.Objective
		rate      float64 // Of the treatment.
	}{
		{rate(0.1, ""), experiment.ObjectiveDifference, 0.15},
		{rate(0.9, ""), experiment.ObjectiveDifference, 0.85},
		{rate(0.9, DirectionIncrease), experiment.ObjectiveDifference, 0.85},
		{rate(0.9, DirectionIncrease), experiment.ObjectiveSuperiority, 0.95},
		{rate(0.9, DirectionDecrease), experiment.ObjectiveSuperiority, 0.85},
		{rate(0.1, DirectionDecrease), experiment.ObjectiveSuperiority, 0.05},
		{rate(0.1, ""), experiment.ObjectiveSuperiority, 0.15},
		{rate(0.9, ""), experiment.ObjectiveSuperiority, 0.85},
		{rate(0.1, DirectionDecrease), experiment.ObjectiveNonInferiority, 0.05},
		{rate(0.1, DirectionDecrease), experiment.ObjectiveEquivalence, 0.15},
	}
	for _, tt := range tests {
		p := planned(tt.baseline, tt.objective)
		p.Effect = &experiment.Magnitude{Value: 0.05}
		if tt.objective.HasMargin() {
			p.Margin = &experiment.Magnitude{Value: 0.06}
		}
		got := mustSolve(t, p)
		// A mean with that variance in both arms needs about as many subjects as
		// these two rates.
		variance := (tt.baseline.Value*(1-tt.baseline.Value) + tt.rate*(1-tt.rate)) / 2
		p.Baseline.Proportion, p.Baseline.Deviation = false, math.Sqrt(variance)
		alike := mustSolve(t, p).Subjects
		if math.Abs(float64(got.Subjects-alike)) > 2+0.002*float64(alike) {
			t.Errorf("%v, %s: %d subjects, and by the rate of %v %d", tt.baseline, tt.objective, got.Subjects, tt.rate, alike)
		}
		falls := tt.rate < tt.baseline.Value
		if told := strings.Contains(strings.Join(got.Notes, " "), "fall of the rate"); told != falls {
			t.Errorf("%v, %s: notes %q", tt.baseline, tt.objective, got.Notes)
		}
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

func TestApportion(t *testing.T) {
	if diff := cmp.Diff([]int64{3, 4, 3}, apportion(10, []float64{0.3, 0.35, 0.35})); diff != "" {
		t.Error(diff)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		shares := make([]float64, 2+rng.IntN(10))
		total, sum := 0.0, int64(0)
		for i := range shares {
			shares[i] = rng.ExpFloat64()
			total += shares[i]
		}
		for i := range shares {
			shares[i] /= total
		}
		subjects := int64(math.Exp(27 * rng.Float64()))
		for i, n := range apportion(subjects, shares) {
			sum += n
			if math.Abs(float64(n)-float64(subjects)*shares[i]) > 1 {
				t.Errorf("%d of %d subjects for a share of %v", n, subjects, shares[i])
			}
		}
		if sum != subjects {
			t.Errorf("%d of %d subjects are apportioned", sum, subjects)
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
	if diff := cmp.Diff(Baseline{
		Field: "metric", Value: 0.25, Deviation: math.Sqrt(0.1875), Proportion: true, Direction: DirectionDecrease, Window: week, SubjectsPerDay: 2.5, Subjects: 4,
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
