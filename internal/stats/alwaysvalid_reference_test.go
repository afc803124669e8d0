package stats

import (
	"fmt"
	"math"
	"testing"
)

// boundaryCase is what mpmath makes of an always-valid test with a null value.
type boundaryCase struct {
	Planned      int64
	Level, Null  float64
	Alternative  Alternative
	Estimate, SE float64
	P            float64
	Opposite     *float64
	Lower, Upper *float64
}

func (c boundaryCase) test() Test {
	return Test{Method: AlwaysValid, ConfidenceLevel: c.Level, PlannedSubjects: c.Planned, Alternative: c.Alternative}
}

func (c boundaryCase) check(t *testing.T, what string, p, opposite, lower, upper *float64) {
	t.Helper()
	nearOptional(t, what+" p", p, &c.P, 1e-9)
	nearOptional(t, what+" opposite", opposite, c.Opposite, 1e-9)
	nearOptional(t, what+" lower", lower, c.Lower, 1e-9)
	nearOptional(t, what+" upper", upper, c.Upper, 1e-9)
}

// TestAlwaysValidSides: the published formula in mpmath, p-values by findroot;
// one-sided, and with an absolute margin.
func TestAlwaysValidSides(t *testing.T) {
	var file struct {
		Differences []struct {
			boundaryCase
			N int64
		}
	}
	load(t, "alwaysvalid.json", &file)
	if len(file.Differences) < 40 {
		t.Fatalf("only %d cases", len(file.Differences))
	}
	for i, c := range file.Differences {
		got := c.test().Infer(Evidence{Estimate: c.Estimate, StandardError: c.SE, DegreesOfFreedom: math.Inf(1), Subjects: c.N}, c.Null)
		c.check(t, fmt.Sprintf("%d, alternative %d:", i, c.Alternative), got.PValue, got.Opposite, got.Lower, got.Upper)
	}
}

// TestAlwaysValidLift: the same of a lift, by the delta method in mpmath.
func TestAlwaysValidLift(t *testing.T) {
	var file struct {
		Lifts []struct {
			boundaryCase
			Treatment, Control [3]float64 // Subjects, mean and variance.
		}
	}
	load(t, "alwaysvalid.json", &file)
	if len(file.Lifts) < 40 {
		t.Fatalf("only %d cases", len(file.Lifts))
	}
	for i, c := range file.Lifts {
		r := simple(summarised(t, c.Control), summarised(t, c.Treatment))
		r.Test, r.Margin = c.test(), Margin{Relative, c.Null}
		got := mustCompare(t, r).Comparisons[0].Unadjusted
		what := fmt.Sprintf("%d, alternative %d:", i, c.Alternative)
		nearOptional(t, what+" estimate", got.Lift.Estimate, &c.Estimate, 1e-9)
		nearOptional(t, what+" standard error", got.Lift.StandardError, &c.SE, 1e-9)
		c.check(t, what, got.PValue, got.Opposite, got.Lift.Lower, got.Lift.Upper)
	}
}

// summarised makes moments of one component out of subjects, mean and variance.
func summarised(t *testing.T, arm [3]float64) Moments {
	t.Helper()
	m, err := FromSummary(int64(arm[0]), arm[1:2], arm[2:])
	if err != nil {
		t.Fatal(err)
	}
	return m
}
