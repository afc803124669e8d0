package metric

import (
	"math"
	"strings"
	"testing"

	"github.com/assayhq/assay/internal/experiment"
)

// TestSubjectsWithoutADenominator: a subject with nothing below the line counts
// like any other. The standard error is that of the linearised ratio.
func TestSubjectsWithoutADenominator(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("order_value", Ratio(sum("revenue", "a"), sum("orders", "b")), experiment.RolePrimary)})
	revenue, orders := []float64{0, 0, 30, 0, 12, 50, 0, 7}, []float64{0, 0, 2, 0, 1, 3, 0, 0}
	var rows []Row
	for i := range revenue {
		rows = append(rows, row("control", revenue[i], orders[i]), row("short", 2*revenue[i], orders[i]))
	}
	result := mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0]
	squares := 0.0
	for i := range revenue {
		z := (revenue[i] - 99.0/6*orders[i]) / (6.0 / 8)
		squares += z * z
	}
	if result.Arms[0].Subjects != 8 {
		t.Errorf("%d subjects, want 8", result.Arms[0].Subjects)
	}
	want(t, "ratio", result.Arms[0].Mean, 99.0/6, 1e-12)
	want(t, "standard error", result.Arms[0].StandardError, math.Sqrt(squares/7/8), 1e-12)
	want(t, "lift", result.Comparisons[0].Lift.Estimate, 1, 1e-12)
}

// nasty is two arms of one component, compared at a fixed horizon.
func nasty(subjects int64, control, treatment, varianceC, varianceT float64) Summaries {
	weight := 1.0
	arm := func(variant string, mean, variance float64) SummaryArm {
		return SummaryArm{Variant: variant, Control: variant == "control", Weight: &weight, Strata: []SummaryStratum{{
			Subjects: subjects, Means: []float64{mean}, Covariances: []float64{variance},
		}}}
	}
	return Summaries{
		Components: []string{"x"}, Plan: definition().Plan,
		Arms: []SummaryArm{arm("control", control, varianceC), arm("short", treatment, varianceT)},
	}
}

// TestSummariesOfNastyNumbers: a billion subjects with tiny rates, and values
// near 1e12 with unit variance. The statistic and p-value are those of R:
//
//	se <- sqrt(va/n + vb/n); t <- (b - a)/se
//	df <- se^4/((va/n)^2/(n - 1) + (vb/n)^2/(n - 1)); 2*pt(-abs(t), df)
//
// and for the billion, whose rates are judged by their score, of mpmath:
//
//	p = (a + b)/2; z = (b - a)/sqrt(p*(1 - p)*2/n*(2*n)/(2*n - 1)); erfc(z/sqrt(2))
func TestSummariesOfNastyNumbers(t *testing.T) {
	const n = 1e9
	for _, tt := range []struct {
		name         string
		s            Summaries
		statistic, p float64
	}{
		{"a billion subjects", nasty(n, 1e-6, 1.2e-6, 1e-6*(1-1e-6)*n/(n-1), 1.2e-6*(1-1.2e-6)*n/(n-1)), 4.26401667125601923, 2.00784453631491233e-05},
		{"values near 1e12", nasty(1e4, 1e12, 1e12+0.0625, 1, 1), 4.4194173824159222, 9.9487797116216656e-06},
	} {
		got, err := tt.s.Compare()
		if err != nil {
			t.Fatal(err)
		}
		want(t, tt.name, got.Comparisons[0].Statistic, tt.statistic, 1e-9)
		want(t, tt.name+", p-value", got.Comparisons[0].PValue, tt.p, 1e-9)
		if *got.SampleRatio.PValue != 1 || *got.SampleRatio.SequentialPValue != 1 {
			t.Errorf("%s: sample ratio %+v", tt.name, got.SampleRatio)
		}
	}
}

// TestSummariesDividedByZero: a component that is zero for everyone below the
// line leaves no figure and a note, and nothing else is the worse for it.
func TestSummariesDividedByZero(t *testing.T) {
	s := nasty(100, 1, 2, 1, 1)
	s.Components, s.Formula = []string{"x", "y"}, "x / y"
	for i := range s.Arms {
		s.Arms[i].Strata[0].Means = append(s.Arms[i].Strata[0].Means, 0)
		s.Arms[i].Strata[0].Covariances = []float64{1, 0, 0}
		s.Arms[i].Strata = append(s.Arms[i].Strata, s.Arms[i].Strata[0])
		s.Arms[i].Strata[1].Name = "second"
	}
	got, err := s.Compare()
	if err != nil {
		t.Fatal(err)
	}
	if c := got.Comparisons[0]; c.Difference.Estimate != nil || c.PValue != nil || len(c.Notes) == 0 || !strings.Contains(c.Notes[0], "divides by zero") {
		t.Errorf("comparison %+v", c)
	}
	if h := got.Heterogeneity; len(h) != 1 || h[0].Statistic != nil || *got.SampleRatio.PValue != 1 {
		t.Errorf("heterogeneity %+v, sample ratio %+v", h, got.SampleRatio)
	}
}
