package stats

import (
	"fmt"
	"math"
	"testing"
)

// TestStudentTail: mpmath at 40 digits, from 1e-9 standard errors to 1e-300.
func TestStudentTail(t *testing.T) {
	var file struct {
		Student, StudentQuantile, Normal, ChiSquare [][3]float64
	}
	load(t, "tails.json", &file)
	for _, c := range file.Student {
		near(t, fmt.Sprintf("P(T(%v) > %v)", c[1], c[0]), studentUpperTail(c[0], c[1]), c[2], 1e-12)
		near(t, fmt.Sprintf("P(T(%v) > %v)", c[1], -c[0]), studentUpperTail(-c[0], c[1]), 1-c[2], 1e-15)
	}
	for _, c := range file.StudentQuantile {
		near(t, fmt.Sprintf("quantile %v of T(%v)", c[0], c[1]), studentUpperQuantile(c[0], c[1]), c[2], 1e-12)
	}
	for _, c := range file.Normal {
		near(t, fmt.Sprintf("P(Z > %v)", c[0]), studentUpperTail(c[0], math.Inf(1)), c[1], 1e-12)
	}
	for _, c := range file.ChiSquare {
		near(t, fmt.Sprintf("P(X(%v) > %v)", c[1], c[0]), chiSquareUpperTail(c[0], int(c[1])), c[2], 1e-9)
	}
}

// TestAlwaysValid: the published formula in numpy; p by root search.
func TestAlwaysValid(t *testing.T) {
	var file struct {
		Always []struct {
			N, Planned        int64
			Alpha, SE         float64
			Estimate, Half, P float64
		}
	}
	load(t, "reference-python.json", &file)
	for _, c := range file.Always {
		test := Test{Method: AlwaysValid, ConfidenceLevel: 1 - c.Alpha, PlannedSubjects: c.Planned}
		evidence := Evidence{Estimate: c.Estimate, StandardError: c.SE, DegreesOfFreedom: math.Inf(1), Subjects: c.N}
		got := test.Infer(evidence, 0)
		what := fmt.Sprintf("n=%d planned=%d", c.N, c.Planned)
		near(t, what+" width", *got.Upper-*got.Lower, 2*c.Half, 1e-9)
		near(t, what+" middle", *got.Upper+*got.Lower, 2*c.Estimate, 1e-9)
		near(t, what+" p", *got.PValue, c.P, 1e-9)
		if c.Planned == DefaultPlannedSubjects {
			test.PlannedSubjects = 0
			near(t, what+" by default", *test.Infer(evidence, 0).Upper, c.Estimate+c.Half, 1e-9)
		}
	}
}

// TestBoundaryIsTightestAtThePlan: the approximate ρ is within 3 % of the width
// that any other ρ could give at the planned subjects.
func TestBoundaryIsTightestAtThePlan(t *testing.T) {
	for _, level := range []float64{0.8, 0.95, 0.999} {
		test := Test{Method: AlwaysValid, ConfidenceLevel: level, PlannedSubjects: 5000}
		got := mixtureCritical(1-level, test.intrinsicTime(5000))
		best := math.Inf(1)
		for x := 0.01; x < 1000; x *= 1.01 {
			best = min(best, mixtureCritical(1-level, x))
		}
		if got > 1.03*best {
			t.Errorf("level %v: %v at the plan, %v at best", level, got, best)
		}
	}
}
