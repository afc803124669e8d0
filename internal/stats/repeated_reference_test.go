package stats

import (
	"fmt"
	"math"
	"testing"
)

// repeatedCase is what R makes of the last look of a schedule.
type repeatedCase struct {
	Spending                  Spending
	Times                     []float64
	Level, Estimate, SE, Null float64
	Degrees                   *float64 // Absent if the variance is known.
	Alternative               Alternative
	Statistic, Boundary, P    *float64
	Lower, Upper              *float64
	Treatment, Control        [3]float64 // Subjects, mean and variance.
}

func (c repeatedCase) test(t *testing.T) Test {
	return Test{Method: GroupSequential, ConfidenceLevel: c.Level, Alternative: c.Alternative, Schedule: mustSchedule(t, c.Spending, sameLooks(c.Times...))}
}

// check compares the interval by its width, since a bound may be near 0.
func (c repeatedCase) check(t *testing.T, what string, statistic, boundary, p *float64, effect Effect) {
	t.Helper()
	width := func(bound *float64) *float64 {
		if bound == nil {
			return nil
		}
		w := math.Abs(*bound - c.Estimate)
		return &w
	}
	iterated := 1e-6
	if len(c.Times) <= 3 { // By mvtnorm, which is exact to 1e-14.
		iterated = 1e-9
	}
	nearOptional(t, what+" statistic", statistic, c.Statistic, 1e-9)
	nearOptional(t, what+" boundary", boundary, c.Boundary, iterated)
	nearOptional(t, what+" width below", width(effect.Lower), width(c.Lower), iterated)
	nearOptional(t, what+" width above", width(effect.Upper), width(c.Upper), iterated)
	nearOptional(t, what+" p", p, c.P, iterated)
}

// TestRepeatedTwoSided: roots of mvtnorm's pmvnorm, and of rpact's boundaries.
func TestRepeatedTwoSided(t *testing.T) {
	var file struct {
		TwoSided []repeatedCase `json:"two_sided"`
	}
	load(t, "repeated.json", &file)
	if len(file.TwoSided) < 20 {
		t.Fatalf("only %d cases", len(file.TwoSided))
	}
	for _, c := range file.TwoSided {
		e := Evidence{Estimate: c.Estimate, StandardError: c.SE, DegreesOfFreedom: math.Inf(1)}
		if c.Degrees != nil {
			e.DegreesOfFreedom = *c.Degrees
		}
		got := c.test(t).Infer(e, c.Null)
		c.check(t, fmt.Sprintf("spending %d, %v:", c.Spending, c.Times), got.Statistic, got.Boundary, got.PValue, Effect{Lower: got.Lower, Upper: got.Upper})
	}
}

// TestRepeatedLift: the same of a lift, with a margin where it is one-sided.
func TestRepeatedLift(t *testing.T) {
	var file struct{ Lifts []repeatedCase }
	load(t, "repeated.json", &file)
	if len(file.Lifts) < 30 {
		t.Fatalf("only %d cases", len(file.Lifts))
	}
	for _, c := range file.Lifts {
		r := simple(summarised(t, c.Control), summarised(t, c.Treatment))
		r.Test, r.Margin = c.test(t), Margin{Relative, c.Null}
		got := mustCompare(t, r).Comparisons[0].Unadjusted
		what := fmt.Sprintf("spending %d, %v, alternative %d:", c.Spending, c.Times, c.Alternative)
		nearOptional(t, what+" estimate", got.Lift.Estimate, &c.Estimate, 1e-9)
		nearOptional(t, what+" standard error", got.Lift.StandardError, &c.SE, 1e-9)
		nearOptional(t, what+" degrees of freedom", got.Lift.DegreesOfFreedom, c.Degrees, 1e-9)
		c.check(t, what, got.Statistic, got.Boundary, got.PValue, got.Lift)
	}
}
