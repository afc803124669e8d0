package metric

import (
	"fmt"
	"strings"
	"testing"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// bayesian is an experiment with a Bayesian plan.
func bayesian(variants ...string) *experiment.Definition {
	d := definition(variants...)
	d.Plan.Method = experiment.MethodBayesian
	return d
}

// converted is n subjects of a variant, of whom so many converted.
func converted(variant string, n, conversions int) (rows []Row) {
	for i := range n {
		r := row(variant, 0)
		if i < conversions {
			r.Values[0] = 1
		}
		rows = append(rows, r)
	}
	return rows
}

// TestAnalyzeRates compares with R: see testdata/bayes.R of package stats, whose
// first case this is.
func TestAnalyzeRates(t *testing.T) {
	rows := append(converted("control", 1000, 100), converted("short", 1000, 120)...)
	for _, direction := range []Direction{DirectionIncrease, DirectionDecrease} {
		chance, loss := 0.92318343897355881, 0.0004846139263564482
		if direction == DirectionDecrease {
			chance, loss = 0.07681656102644023, 0.020444693766675723
		}
		u := use("rate", Proportion("x", nil), experiment.RolePrimary)
		u.Metric.Definition.Direction = direction
		s := mustStudy(t, bayesian("control", "short"), []Use{u})
		a := mustAnalyze(t, s, fold(s, rows...), 0)
		c := a.Metrics[0].Comparisons[0]
		want(t, "chance to win", c.ChanceToWin, chance, 1e-9)
		want(t, "expected loss", c.ExpectedLoss, loss, 1e-9)
		want(t, "lower", c.Difference.Lower, -0.0074706927075670546, 1e-9)
		want(t, "upper", c.Difference.Upper, 0.047469692724242805, 1e-9)
		want(t, "lower of the lift", c.Lift.Lower, -0.065360432110983052, 1e-9)
		want(t, "upper of the lift", c.Lift.Upper, 0.54083819309979575, 1e-9)
		want(t, "estimate", c.Difference.Estimate, 121.0/1002-101.0/1002, 1e-12)
		want(t, "lift", c.Lift.Estimate, 20.0/101, 1e-12)
		want(t, "mean", a.Metrics[0].Arms[1].Mean, 0.12, 1e-12)
		if c.PValue != nil || c.AdjustedPValue != nil || c.Statistic != nil || c.Significant || a.Metrics[0].PeekingProtected || len(c.Notes) > 0 {
			t.Errorf("%s: %+v", direction, c)
		}
		if a.Verdict.Action != ActionKeepRunning || len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0], "claims no error rate") {
			t.Errorf("%s: verdict %+v, warnings %q", direction, a.Verdict, a.Warnings)
		}
	}
}

// TestBayesianVerdict: the planned subjects, the guardrails and the number of
// comparisons.
func TestBayesianVerdict(t *testing.T) {
	tests := []struct {
		name                string
		planned             int64
		conversions, harmed int // Of 400, against 40 and 20.
		action              Action
		reason              string
	}{
		{"winner", 0, 80, 20, ActionShip, "short wins on rate and keeps within every guardrail."},
		{"winner at the planned size", 800, 80, 20, ActionShip, "short wins"},
		{"too early", 801, 80, 20, ActionKeepRunning, "800 of 801 planned subjects have been analysed, and a Bayesian plan"},
		{"guardrail undecided", 0, 80, 60, ActionKeepRunning, "Nothing is decided yet"},
		{"guardrail broken", 0, 80, 180, ActionRollBack, "Every treatment loses on rate or breaks a guardrail."},
		{"loser", 0, 10, 20, ActionRollBack, "Every treatment loses"},
		{"neither, at the planned size", 800, 42, 20, ActionInconclusive, "800 subjects have been analysed of 800 planned"},
	}
	for _, tt := range tests {
		d := bayesian("control", "short")
		d.Plan.PlannedSubjects = tt.planned
		guard := use("harm", Proportion("y", nil), experiment.RoleGuardrail)
		guard.Metric.Definition.Direction, guard.Margin = DirectionDecrease, &experiment.Magnitude{Value: 0.1}
		s := mustStudy(t, d, []Use{use("rate", Proportion("x", nil), experiment.RolePrimary), guard})
		var rows []Row
		for variant, counts := range map[string][2]int{"control": {40, 20}, "short": {tt.conversions, tt.harmed}} {
			for i, r := range converted(variant, 400, counts[0]) {
				harm := 0.0
				if i < counts[1] {
					harm = 1
				}
				r.Values = append(r.Values, harm)
				rows = append(rows, r)
			}
		}
		v := mustAnalyze(t, s, fold(s, rows...), 0).Verdict
		if v.Action != tt.action || !strings.HasPrefix(v.Reasons[0], tt.reason) || !strings.Contains(v.Reasons[1], "; chance to win ") {
			t.Errorf("%s: %s %q", tt.name, v.Action, v.Reasons)
		}
	}
}

// TestBayesianFamilies: nothing is corrected, and the comparisons of a family say
// so.
func TestBayesianFamilies(t *testing.T) {
	s := mustStudy(t, bayesian("control", "short", "long"), []Use{use("rate", Proportion("x", nil), experiment.RolePrimary), use("asked", Proportion("y", nil), "")})
	var rows []Row
	for i := range 600 {
		rows = append(rows, row([]string{"control", "short", "long"}[i%3], float64(i%(2+i%3)/2), float64(i%2)))
	}
	a := mustAnalyze(t, s, fold(s, rows...), 0)
	for _, c := range a.Metrics[0].Comparisons {
		if len(c.Notes) != 1 || !strings.HasPrefix(c.Notes[0], "One of 2 comparisons, and not corrected") || c.ChanceToWin == nil {
			t.Errorf("%+v", c)
		}
	}
	if diff := cmp.Diff([]string{"Exploratory: the plan does not name this metric."}, a.Metrics[1].Comparisons[0].Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

// TestBayesianHeterogeneity: whether segments differ is asked of the data, which a
// prior does not draw together.
func TestBayesianHeterogeneity(t *testing.T) {
	var got []Heterogeneity
	for _, d := range []*experiment.Definition{bayesian("control", "short"), definition("control", "short")} {
		if d.Plan.Method == experiment.MethodBayesian {
			d.Plan.Prior = &experiment.Prior{Alpha: 500, Beta: 500}
		}
		s := mustStudy(t, d, []Use{use("rate", Proportion("x", nil), experiment.RolePrimary)}, "device")
		var rows []Row
		for i := range 400 {
			r := row([]string{"control", "short"}[i%2], 0)
			if i/4%(2+i%2+i/2%2*3) == 0 {
				r.Values[0] = 1
			}
			r.Segments = [][]byte{[]byte([]string{"phone", "desk"}[i/2%2])}
			rows = append(rows, r)
		}
		got = append(got, mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0].Heterogeneity...)
	}
	if len(got) != 2 || got[0].Statistic == nil || *got[0].Statistic == 0 {
		t.Fatalf("heterogeneity %+v", got)
	}
	if diff := cmp.Diff(got[1], got[0], cmpopts.EquateApprox(1e-12, 0)); diff != "" {
		t.Errorf("heterogeneity (-fixed +bayesian):\n%s", diff)
	}
}

// rates are two arms with one component, of which the caller says that it is 0 or 1.
func rates() Summaries {
	stratum := func(p float64) []SummaryStratum {
		return []SummaryStratum{{Subjects: 1000, Means: []float64{p}, Covariances: []float64{p * (1 - p) * 1000 / 999}}}
	}
	plan := bayesian().Plan
	plan.Prior = &experiment.Prior{Alpha: 1}
	return Summaries{
		Components: []string{"converted"}, Plan: plan,
		Arms: []SummaryArm{{Variant: "control", Control: true, Strata: stratum(0.1)}, {Variant: "short", Strata: stratum(0.12)}},
	}
}

func TestSummariesOfRates(t *testing.T) {
	s := rates()
	result, err := s.Compare()
	if err != nil {
		t.Fatal(err)
	}
	want(t, "chance to win", result.Comparisons[0].ChanceToWin, 0.92318343897355881, 1e-9)
	s.Plan.Prior = nil
	if result, err = s.Compare(); err != nil {
		t.Fatal(err)
	}
	want(t, "chance to win by the normal posterior", result.Comparisons[0].ChanceToWin, 0.9238, 1e-3)

	tests := []struct {
		name   string
		change func(*Summaries)
		want   string
	}{
		{"rounded", func(s *Summaries) { s.Arms[0].Strata[0].Covariances[0] = 0.0908 }, ""},
		{"other method", func(s *Summaries) { s.Plan.Method, s.Plan.Prior = experiment.MethodAlwaysValid, nil }, ""},
		{"formula", func(s *Summaries) { s.Formula = "2 * converted" }, "formula: must be one component"},
		{"no proportion", func(s *Summaries) { s.Arms[1].Strata[0].Means[0] = 1.2 }, "arms[1].strata[0].means[0]: 1.2 is no proportion"},
		{"not 0 or 1", func(s *Summaries) { s.Arms[1].Strata[0].Covariances[0] = 0.1 }, "arms[1].strata[0].covariances[0]: of numbers that are 0 or 1"},
		{"prior of another method", func(s *Summaries) { s.Plan.Method = experiment.MethodFixedHorizon }, "plan.prior: only a Bayesian plan has a prior"},
		{"prior without doubt", func(s *Summaries) { s.Plan.Prior.LiftMean = 0.1 }, "plan.prior.lift_mean: says nothing without"},
		{"prior out of range", func(s *Summaries) { s.Plan.Prior.Alpha = 0.01 }, "plan.prior.alpha: it lies between"},
	}
	for _, tt := range tests {
		s := rates()
		tt.change(&s)
		_, err := s.Compare()
		if got := fmt.Sprint(err); tt.want == "" && err != nil || tt.want != "" && !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

// TestPlanBayesian: with a prior that says nothing the size is that of a fixed
// horizon, up to the t distribution; with a sceptical one it takes more. Of several
// treatments each has the whole error rate.
func TestPlanBayesian(t *testing.T) {
	power := 0.8
	size := func(change func(*Planned)) *Sizing {
		t.Helper()
		p := Planned{
			Baseline: Baseline{Field: "mean", Value: 10, Deviation: 5}, Plan: bayesian().Plan, Objective: experiment.ObjectiveDifference,
			Effect: &experiment.Magnitude{Value: 0.3}, Power: &power,
		}
		change(&p)
		sizing, err := p.Solve()
		if err != nil {
			t.Fatal(err)
		}
		return sizing
	}
	flat := size(func(*Planned) {})
	fixed := size(func(p *Planned) { p.Plan.Method = experiment.MethodFixedHorizon })
	if flat.Subjects > fixed.Subjects || flat.Subjects < fixed.Subjects-4 {
		t.Errorf("%d subjects, and %d at a fixed horizon", flat.Subjects, fixed.Subjects)
	}
	sceptical := size(func(p *Planned) { p.Plan.Prior = &experiment.Prior{LiftDeviation: 0.01} })
	if sceptical.Subjects < flat.Subjects*6/5 {
		t.Errorf("%d subjects with a sceptical prior, %d without", sceptical.Subjects, flat.Subjects)
	}
	three := size(func(p *Planned) { p.Weights = []float64{1, 1, 1} })
	if got := three.Subjects / 3 * 2; got < flat.Subjects-4 || got > flat.Subjects+4 || !strings.Contains(strings.Join(three.Notes, " "), "planned by itself") {
		t.Errorf("%d subjects in two of three variants, %d in two; notes %q", got, flat.Subjects, three.Notes)
	}
	rate := func(prior experiment.Prior) int64 {
		return size(func(p *Planned) {
			p.Baseline, p.Effect, p.Plan.Prior = RateBaseline(0.1), &experiment.Magnitude{Value: 0.02}, &prior
		}).Subjects
	}
	plain := rate(experiment.Prior{})
	if strong := rate(experiment.Prior{Alpha: 500, Beta: 4500}); strong < plain*6/5 {
		t.Errorf("%d subjects with a strong prior of the rates, %d without", strong, plain)
	}
	if lift := rate(experiment.Prior{LiftDeviation: 0.01}); lift != plain {
		t.Errorf("%d subjects with a prior of the lift, %d without: rates have one of their own", lift, plain)
	}
	zero := Planned{
		Baseline: Baseline{Field: "mean", Deviation: 5}, Plan: bayesian().Plan, Objective: experiment.ObjectiveDifference,
		Effect: &experiment.Magnitude{Value: 0.3}, Power: &power,
	}
	zero.Plan.Prior = &experiment.Prior{LiftDeviation: 0.1}
	if _, err := zero.Solve(); err == nil || !strings.HasPrefix(err.Error(), "plan.prior.lift_standard_deviation: ") {
		t.Errorf("a prior of a lift over 0: %v", err)
	}
}
