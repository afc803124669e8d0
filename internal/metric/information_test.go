package metric

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

// fourOrders is two arms of 100 subjects with two orders each, whose values differ.
func fourOrders() Summaries {
	return Summaries{
		Components: []string{"num", "den"}, Formula: "num / den", Plan: definition("a", "b").Plan,
		Arms: []SummaryArm{
			{Variant: "a", Control: true, Strata: []SummaryStratum{{Subjects: 100, Means: []float64{0.41, 0.02}, Covariances: []float64{8.325, 0.4059, 0.0198}}}},
			{Variant: "b", Strata: []SummaryStratum{{Subjects: 100, Means: []float64{1.02, 0.02}, Covariances: []float64{51.51, 1.0097, 0.0198}}}},
		},
	}
}

// TestFourOrdersDecideNothing: two orders against two are significant by no method,
// however little the orders of an arm differ, with the counts of the numbers that are
// not 0 or without, as the denominators' variance tells theirs.
func TestFourOrdersDecideNothing(t *testing.T) {
	for _, known := range []bool{false, true} {
		for _, method := range []experiment.Method{experiment.MethodFixedHorizon, experiment.MethodAlwaysValid, experiment.MethodGroupSequential, experiment.MethodBayesian} {
			s := fourOrders()
			s.Plan.Method, s.Plan.PlannedSubjects = method, 200
			if method == experiment.MethodGroupSequential {
				s.Looks, s.Plan.Spending = []float64{0.5, 1}, experiment.SpendingOBrienFleming
			}
			for i := range s.Arms {
				if known {
					s.Arms[i].Strata[0].NonZero, s.Arms[i].Strata[0].Negative = []int64{2, 2}, []int64{0, 0}
				}
			}
			got, err := s.Compare()
			if err != nil {
				t.Fatal(err)
			}
			c := got.Comparisons[0]
			if c.Significant || c.PValue != nil || c.ChanceToWin != nil || c.Difference.Lower != nil || c.Difference.Upper != nil || c.Lift.Lower != nil {
				t.Errorf("%s, counts known %v: %+v", method, known, c)
			}
			if c.Difference.Estimate == nil || !strings.Contains(strings.Join(c.Notes, " "), "Only 2 of the control's subjects and 2 of the treatment's are informative") {
				t.Errorf("%s: notes %q", method, c.Notes)
			}
		}
	}
}

// TestWhoInformsAFormula: by hand.
func TestWhoInformsAFormula(t *testing.T) {
	names := []string{"a", "b", "c"}
	counts := []float64{7, 40, 100}
	for formula, want := range map[string]float64{
		"a": 7, "-b": 40, "3 * c": 100, "a / b": 7, "b / a": 7, "a + b": 40, "a - b": 40, "a * b / c": 7, "(a + b) / c": 40,
		"1 - a / b": 7, "1000 * a / c": 7, "b + 1": 40, "2": math.Inf(1), "1 + 2 - a": 7,
	} {
		e, err := Parse(formula, names)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.informative(counts); got != want {
			t.Errorf("%s: %v, want %v", formula, got, want)
		}
	}
}

// TestDivisors: what a formula divides by, with its slope, and that it cannot be
// negative.
func TestDivisors(t *testing.T) {
	for _, c := range []struct {
		formula     string
		values      []float64
		nonNegative bool
	}{
		{"a / b", []float64{3}, true}, {"a / (b - 2 * c) / 4", []float64{-7}, false}, {"a / (1 / b)", []float64{3, 1. / 3}, true},
		{"a * b", nil, true}, {"a / 2", nil, true}, {"-a", nil, false}, {"(a + 1) / (b + c)", []float64{8}, true},
	} {
		e, err := Parse(c.formula, []string{"a", "b", "c"})
		if err != nil {
			t.Fatal(err)
		}
		var got []float64
		for _, divisor := range e.divisors {
			value, gradient := divisor([]float64{2, 3, 5, 9})
			got = append(got, value)
			if len(gradient) != 4 {
				t.Errorf("%s: a slope of %d entries", c.formula, len(gradient))
			}
		}
		if diff := cmp.Diff(c.values, got); diff != "" || e.nonNegative() != c.nonNegative {
			t.Errorf("%s: never negative %v, divisors (-want +got):\n%s", c.formula, e.nonNegative(), diff)
		}
	}
}

// TestRoughDenominator: a divisor near zero is told of the difference too.
func TestRoughDenominator(t *testing.T) {
	s := Summaries{Components: []string{"x", "y"}, Formula: "x / y", Plan: definition("a", "b").Plan}
	for i, mean := range []float64{0.2, 5} {
		s.Arms = append(s.Arms, SummaryArm{Variant: string(rune('a' + i)), Control: i == 0, Strata: []SummaryStratum{{
			Subjects: 100, Means: []float64{3, mean}, Covariances: []float64{1, 0, 1}, NonZero: []int64{100, 100}, Negative: []int64{0, 40},
		}}})
	}
	got, err := s.Compare()
	if err != nil {
		t.Fatal(err)
	}
	const want = "What the formula divides by is within three standard errors of zero in the control: its value, the difference and the lift are rough."
	if notes := strings.Join(got.Comparisons[0].Notes, " "); !strings.Contains(notes, want) || strings.Contains(notes, "in the treatment") {
		t.Errorf("notes %q", got.Comparisons[0].Notes)
	}
}

// TestZeroByRounding: a baseline whose numbers add up to 0 but for rounding is 0.
func TestZeroByRounding(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("net", Formula("a - b", []experiment.Component{sum("a", "x"), sum("b", "y")}), experiment.RolePrimary)})
	var rows []Row
	tenth, fifth := 0.1, 0.2 // Their sum is 0.3 as a constant, and not as numbers.
	for i := range 60 {
		r := row([]string{"control", "short"}[i%2], tenth+fifth, 0.3)
		if i%2 == 1 {
			r = row("short", 0.1*float64(i%7), 0.3)
		}
		rows = append(rows, r)
	}
	c := mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0].Comparisons[0]
	if c.Lift.Estimate != nil || !strings.Contains(strings.Join(c.Notes, " "), "The control's value is zero: there is no lift.") {
		t.Errorf("lift %v, notes %q", c.Lift.Estimate, c.Notes)
	}
}

// TestFlatFormula: a formula without a slope at the means is not called one whose
// subjects are alike.
func TestFlatFormula(t *testing.T) {
	s := Summaries{Components: []string{"x", "y"}, Formula: "x * y", Plan: definition("a", "b").Plan}
	for i := range 2 {
		s.Arms = append(s.Arms, SummaryArm{Variant: string(rune('a' + i)), Control: i == 0, Strata: []SummaryStratum{{
			Subjects: 100, Means: []float64{float64(i), float64(i)}, Covariances: []float64{1, 0, 1}, NonZero: []int64{100, 100}, Negative: []int64{50, 50},
		}}})
	}
	got, err := s.Compare()
	if err != nil {
		t.Fatal(err)
	}
	notes := strings.Join(got.Comparisons[0].Notes, " ")
	if got.Comparisons[0].PValue != nil || got.Arms[0].StandardError != nil || !strings.Contains(notes, "no slope at the means of the control") || strings.Contains(notes, "alike") {
		t.Errorf("p-value %v, notes %q", got.Comparisons[0].PValue, got.Comparisons[0].Notes)
	}
}

// TestCountsOfSummaries: impossible ones are refused by name.
func TestCountsOfSummaries(t *testing.T) {
	s := fourOrders()
	s.Arms[0].Strata[0].NonZero, s.Arms[0].Strata[0].Negative = []int64{101, 0}, []int64{0}
	s.Arms[1].Strata[0].NonZero, s.Arms[1].Strata[0].Negative = []int64{2, 2}, []int64{3, -1}
	_, err := s.Compare()
	want := []string{
		"arms[0].strata[0].nonzero_subjects[0] must lie between 0 and the 100 subjects",
		"arms[0].strata[0].nonzero_subjects[1] must not be 0, as the mean is 0.02",
		"arms[0].strata[0].negative_subjects there are 1 for 2 components",
		"arms[1].strata[0].negative_subjects[0] must not be more than the 2 subjects whose number is not 0",
		"arms[1].strata[0].negative_subjects[1] must lie between 0 and the 100 subjects",
	}
	for _, part := range want {
		if !strings.Contains(strings.ReplaceAll(fmt.Sprint(err), ":", ""), part) {
			t.Errorf("%v\ndoes not say %q", err, part)
		}
	}
}

// TestCountsThatFiguresExclude: three of 100 cannot have a mean of 5 and a variance of 1,
// and a mean below 0 is of somebody's number below 0.
func TestCountsThatFiguresExclude(t *testing.T) {
	s := Summaries{Components: []string{"x"}, Plan: definition("a", "b").Plan}
	for i := range 2 {
		s.Arms = append(s.Arms, SummaryArm{Variant: string(rune('a' + i)), Control: i == 0, Strata: []SummaryStratum{{
			Subjects: 100, Means: []float64{5}, Covariances: []float64{1}, NonZero: []int64{100}, Negative: []int64{0},
		}}})
	}
	if _, err := s.Compare(); err != nil {
		t.Fatal(err)
	}
	s.Arms[0].Strata[0].NonZero[0] = 3
	s.Arms[1].Strata[0].Means[0] = -5
	_, err := s.Compare()
	for _, part := range []string{"arms[0].strata[0].nonzero_subjects[0]", "must not be less than 96", "arms[1].strata[0].negative_subjects[0]", "must not be 0, as the mean is -5"} {
		if !strings.Contains(fmt.Sprint(err), part) {
			t.Errorf("%v\ndoes not say %q", err, part)
		}
	}
}

// TestLiftWithCovariates: the interval of a lift of 0.5 with a covariate, where who
// spends little gains more, and where all gain in proportion. In 2,000 simulated
// experiments each an interval of 0.053 and of 0.025 covers 95 %; those of before, of
// 0.041 and 0.049, covered 87.7 and 100 %.
func TestLiftWithCovariates(t *testing.T) {
	for width, covariances := range map[float64][]float64{0.053: {2.5, 4.5, 9}, 0.025: {20.8125, 13.5, 9}} {
		s := Summaries{Components: []string{"y", "x"}, Formula: "y", Covariates: []string{"x"}, Plan: definition("a", "b").Plan}
		s.Arms = []SummaryArm{
			{Variant: "a", Control: true, Strata: []SummaryStratum{{Subjects: 300, Means: []float64{10, 10}, Covariances: []float64{9.25, 9, 9}, NonZero: []int64{300, 300}, Negative: []int64{0, 0}}}},
			{Variant: "b", Strata: []SummaryStratum{{Subjects: 300, Means: []float64{15, 10}, Covariances: covariances, NonZero: []int64{300, 300}, Negative: []int64{0, 0}}}},
		}
		got, err := s.Compare()
		if err != nil {
			t.Fatal(err)
		}
		if lift := got.Comparisons[0].Lift; math.Abs(*lift.Upper-*lift.Lower-width) > 0.0005 || math.Abs(*lift.Estimate-0.5) > 1e-12 {
			t.Errorf("lift %v (%v to %v), want it %v wide", *lift.Estimate, *lift.Lower, *lift.Upper, width)
		}
	}
}

// TestGuardrailByOneBound: it passes by the bound on the bad side alone, as where a lift
// has no other.
func TestGuardrailByOneBound(t *testing.T) {
	low, high := -0.02, 0.03
	margin := &experiment.Magnitude{Value: 0.05, Relative: true}
	for _, c := range []struct {
		interval  Interval
		direction Direction
		want      GuardrailVerdict
	}{
		{Interval{Lower: &low, Unbounded: true}, DirectionIncrease, GuardrailPassed},
		{Interval{Lower: &low, Unbounded: true}, DirectionDecrease, GuardrailUndecided},
		{Interval{Upper: &high, Unbounded: true}, DirectionDecrease, GuardrailPassed},
		{Interval{Unbounded: true}, DirectionIncrease, GuardrailUndecided},
	} {
		if got := guardrail(&Comparison{Lift: c.interval}, c.direction, margin); got != c.want {
			t.Errorf("%+v, %s: %s, want %s", c.interval, c.direction, got, c.want)
		}
	}
}

// TestCrashGuardrail: of a rate that nothing touches a guardrail passes by every
// method, and a difference is not judged.
func TestCrashGuardrail(t *testing.T) {
	for _, method := range []experiment.Method{experiment.MethodFixedHorizon, experiment.MethodAlwaysValid} {
		d := definition("control", "short")
		d.Plan.Method, d.Plan.PlannedSubjects = method, 2000
		crash := Proportion("crash", nil)
		crash.Direction = DirectionDecrease
		use1, use2 := use("crash", crash, experiment.RoleGuardrail), use("crashed", crash, experiment.RoleSecondary)
		use1.Margin = &experiment.Magnitude{Value: 0.02}
		s := mustStudy(t, d, []Use{use("money", Sum("x", nil), experiment.RolePrimary), use1, use2})
		var rows []Row
		for i := range 2000 {
			rows = append(rows, row([]string{"control", "short"}[i%2], float64(i%13), 0, 0))
		}
		a := mustAnalyze(t, s, fold(s, rows...), 0)
		for _, m := range a.Metrics {
			c := m.Comparisons[0]
			switch m.Metric {
			case "crash":
				if c.Guardrail != GuardrailPassed {
					t.Errorf("%s: the guardrail is %s: %+v, notes %q", method, c.Guardrail, c.Difference, c.Notes)
				}
			case "crashed":
				if c.PValue != nil {
					t.Errorf("%s: a difference of nothing is judged", method)
				}
			}
		}
	}
}

// TestInformativeSubjects counts those whose numbers say something: of a sum the
// buyers, of a rate the rarer of buyers and others.
func TestInformativeSubjects(t *testing.T) {
	for _, tt := range []struct {
		name   string
		metric Definition
		buyers int // Of 20 subjects.
		want   int64
	}{
		{"sum", Sum("purchase", nil), 15, 15},
		{"rare rate", Proportion("purchase", nil), 3, 3},
		{"common rate", Proportion("purchase", nil), 17, 3},
	} {
		s := mustStudy(t, definition("control", "short"), []Use{use("m", tt.metric, experiment.RolePrimary)})
		var rows []Row
		for i := range 20 {
			x := 0.0
			if i < tt.buyers {
				x = 1
			}
			rows = append(rows, row("control", x), row("short", x))
		}
		arm := mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0].Arms[1]
		if arm.Informative == nil || *arm.Informative != tt.want {
			t.Errorf("%s: %v informative, want %d", tt.name, arm.Informative, tt.want)
		}
	}
}
