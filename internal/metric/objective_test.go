package metric

import (
	"fmt"
	"strings"
	"testing"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

func TestQuestion(t *testing.T) {
	const guardrail, secondary = experiment.RoleGuardrail, experiment.RoleSecondary
	tests := []struct {
		role        experiment.Role
		objective   experiment.Objective
		direction   Direction
		alternative stats.Alternative
		margin      float64 // Of 0.02.
	}{
		{secondary, "", DirectionIncrease, stats.TwoSided, 0},
		{secondary, experiment.ObjectiveDifference, DirectionDecrease, stats.TwoSided, 0},
		{secondary, experiment.ObjectiveSuperiority, DirectionIncrease, stats.Greater, 0},
		{secondary, experiment.ObjectiveSuperiority, DirectionDecrease, stats.Less, 0},
		{secondary, experiment.ObjectiveNonInferiority, DirectionIncrease, stats.Greater, -0.02},
		{secondary, experiment.ObjectiveNonInferiority, DirectionDecrease, stats.Less, 0.02},
		{secondary, experiment.ObjectiveEquivalence, DirectionIncrease, stats.Equivalent, 0.02},
		{secondary, experiment.ObjectiveEquivalence, DirectionDecrease, stats.Equivalent, 0.02},
		{guardrail, "", DirectionIncrease, stats.TwoSided, -0.02},
		{guardrail, "", DirectionDecrease, stats.TwoSided, 0.02},
	}
	for _, tt := range tests {
		for _, relative := range []bool{false, true} {
			u := use("m", Sum("m", nil), tt.role)
			u.Metric.Definition.Direction, u.Objective = tt.direction, tt.objective
			want := stats.Margin{Value: tt.margin}
			if tt.margin != 0 {
				u.Margin = &experiment.Magnitude{Value: 0.02, Relative: relative}
				if relative {
					want.Scale = stats.Relative
				}
			}
			s := mustStudy(t, definition("control", "short"), []Use{u})
			if alternative, margin := s.metrics[0].question(); alternative != tt.alternative || margin != want {
				t.Errorf("%s %s %s: %v %v, want %v %v", tt.role, tt.objective, tt.direction, alternative, margin, tt.alternative, want)
			}
		}
	}
}

// TestObjectives analyses treatments that are better, alike and worse, under
// every objective, direction and method. The standard error of a difference is
// about 0.14.
func TestObjectives(t *testing.T) {
	const better, alike, worse = 2, 0, -2
	tests := []struct {
		objective experiment.Objective
		margin    *experiment.Magnitude
		effect    float64 // In the good direction.
		action    Action
		reason    string
		figures   string // Part of the second reason.
	}{
		{experiment.ObjectiveDifference, nil, better, ActionShip, "short wins on m.", ": better; "},
		{experiment.ObjectiveDifference, nil, alike, ActionKeepRunning, "Nothing is decided yet", ": not decided; "},
		{experiment.ObjectiveDifference, nil, worse, ActionRollBack, "Every treatment loses on m or", ": worse; "},
		{experiment.ObjectiveSuperiority, nil, better, ActionShip, "short wins on m.", ": better; "},
		{experiment.ObjectiveSuperiority, nil, alike, ActionKeepRunning, "Nothing is decided yet", ": not decided; "},
		{experiment.ObjectiveSuperiority, nil, worse, ActionRollBack, "Every treatment loses on m or", ": worse; "},
		{experiment.ObjectiveNonInferiority, &experiment.Magnitude{Value: 1}, better, ActionShip, "short is not worse by the margin on m.", ": not worse by the margin; "},
		{experiment.ObjectiveNonInferiority, &experiment.Magnitude{Value: 1}, alike, ActionShip, "short is not worse by the margin on m.", ": not worse by the margin; "},
		{experiment.ObjectiveNonInferiority, &experiment.Magnitude{Value: 0.01}, alike, ActionKeepRunning, "Nothing is decided yet", ": not decided; "},
		{experiment.ObjectiveNonInferiority, &experiment.Magnitude{Value: 1}, worse, ActionRollBack, "Every treatment is worse by the margin on m or", ": worse by the margin; "},
		{experiment.ObjectiveNonInferiority, &experiment.Magnitude{Value: 0.1, Relative: true}, alike, ActionShip, "short is not worse by the margin on m.", ": not worse by the margin; "},
		{experiment.ObjectiveEquivalence, &experiment.Magnitude{Value: 1}, better, ActionRollBack, "Every treatment differs by more than the margin on m or", ": beyond the margin; "},
		{experiment.ObjectiveEquivalence, &experiment.Magnitude{Value: 1}, alike, ActionShip, "short is equivalent on m.", ": within the margin; "},
		{experiment.ObjectiveEquivalence, &experiment.Magnitude{Value: 0.01}, alike, ActionKeepRunning, "Nothing is decided yet", ": not decided; "},
		{experiment.ObjectiveEquivalence, &experiment.Magnitude{Value: 1}, worse, ActionRollBack, "Every treatment differs by more than the margin on m or", ": beyond the margin; "},
		{experiment.ObjectiveEquivalence, &experiment.Magnitude{Value: 0.1, Relative: true}, alike, ActionShip, "short is equivalent on m.", ": within the margin; "},
	}
	for _, tt := range tests {
		for _, direction := range []Direction{DirectionIncrease, DirectionDecrease} {
			for _, method := range []experiment.Method{experiment.MethodFixedHorizon, experiment.MethodAlwaysValid, experiment.MethodBayesian} {
				name := fmt.Sprint(tt.objective, " ", tt.effect, " ", direction, " ", method)
				d := definition("control", "short")
				d.Plan.Method = method
				u := use("m", Sum("m", nil), experiment.RolePrimary)
				u.Metric.Definition.Direction, u.Objective, u.Margin = direction, tt.objective, tt.margin
				u.Metric.Definition.Window = week
				s := mustStudy(t, d, []Use{u})
				var rows []Row
				for i := range 400 {
					x := 10 + float64(i%5)
					rows = append(rows, row("control", x), row("short", x+direction.sign()*tt.effect))
				}
				a := mustAnalyze(t, s, fold(s, rows...), 0)
				v, result := a.Verdict, a.Metrics[0]
				if v.Action != tt.action || !strings.HasPrefix(v.Reasons[0], tt.reason) || !strings.Contains(v.Reasons[1], tt.figures) {
					t.Errorf("%s: %s %q, want %s %q %q", name, v.Action, v.Reasons, tt.action, tt.reason, tt.figures)
				}
				c := result.Comparisons[0]
				oneSided := tt.objective == experiment.ObjectiveSuperiority || tt.objective == experiment.ObjectiveNonInferiority
				lower, upper := !oneSided || direction == DirectionIncrease, !oneSided || direction == DirectionDecrease
				if (c.Difference.Lower != nil) != lower || (c.Difference.Upper != nil) != upper {
					t.Errorf("%s: interval %+v", name, c.Difference)
				}
				if result.Objective != tt.objective || result.Margin != tt.margin || (len(c.Notes) == 1) != (tt.margin != nil) {
					t.Errorf("%s: objective %q, margin %v, notes %q", name, result.Objective, result.Margin, c.Notes)
				}
			}
		}
	}
}

// TestObjectiveBesideMinimumEffect: to have no effect that matters is what
// equivalence and non-inferiority are after, and speaks against a difference.
func TestObjectiveBesideMinimumEffect(t *testing.T) {
	for objective, want := range map[experiment.Objective]Action{
		experiment.ObjectiveDifference: ActionInconclusive, experiment.ObjectiveEquivalence: ActionKeepRunning,
	} {
		d := definition("control", "short")
		d.Plan.MinimumEffect = &experiment.Magnitude{Value: 1}
		u := use("m", Sum("m", nil), experiment.RolePrimary)
		if u.Objective = objective; objective.HasMargin() {
			u.Margin = &experiment.Magnitude{Value: 0.01}
		}
		s := mustStudy(t, d, []Use{u})
		var rows []Row
		for i := range 400 {
			rows = append(rows, row("control", float64(i%5)), row("short", float64(i%5)))
		}
		if v := mustAnalyze(t, s, fold(s, rows...), 0).Verdict; v.Action != want {
			t.Errorf("%s: %s %q, want %s", objective, v.Action, v.Reasons, want)
		}
	}
}

// TestMarginOfNothing: a guardrail that must not get worse at all has a margin of
// 0, which is not one of −0.
func TestMarginOfNothing(t *testing.T) {
	for _, relative := range []bool{false, true} {
		u := use("m", Sum("m", nil), experiment.RoleGuardrail)
		u.Margin = &experiment.Magnitude{Relative: relative}
		s := mustStudy(t, definition("control", "short"), []Use{u})
		notes := mustAnalyze(t, s, fold(s, rowsOf([]float64{1, 2, 4, 5, 7, 9}, []float64{2, 3, 5, 6, 7, 8})...), 0).Metrics[0].Comparisons[0].Notes
		if text := strings.Join(notes, " "); !strings.Contains(text, "The p-value is of a test against the margin, a ") || strings.Contains(text, "-0") {
			t.Errorf("notes %q", notes)
		}
	}
}

func TestMarginNote(t *testing.T) {
	for want, note := range map[string]string{
		"The chance to win is that of a difference better than the margin, -0.01.":                    marginNote(experiment.ObjectiveNonInferiority, stats.Bayesian, stats.Margin{Value: -0.01}),
		"The chance to win is that of a lift between -0.1 and +0.1.":                                  marginNote(experiment.ObjectiveEquivalence, stats.Bayesian, stats.Margin{Scale: stats.Relative, Value: 0.1}),
		"The p-value is of a test against the margin, a difference of -0.01.":                         marginNote(experiment.ObjectiveNonInferiority, stats.FixedHorizon, stats.Margin{Value: -0.01}),
		"The p-value is the larger of two, of tests against the margins, a lift of -0.1 and of +0.1.": marginNote(experiment.ObjectiveEquivalence, stats.AlwaysValid, stats.Margin{Scale: stats.Relative, Value: 0.1}),
	} {
		if note != want {
			t.Errorf("%q, want %q", note, want)
		}
	}
}
