package stats

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// simple is a comparison of plain means of single components.
func simple(control, treatment Moments) Request {
	return Request{
		Formula: ComponentMean(0),
		Arms:    []Arm{{[]Moments{control}}, {[]Moments{treatment}}},
		Test:    fixed95,

		NonNegative: true,
	}
}

// soundness walks through a result and fails at a NaN, an infinity, or an
// absent number that no note explains.
func soundness(t *testing.T, r Request, result Result) {
	t.Helper()
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		switch v.Kind() {
		case reflect.Float64:
			if !finite(v.Float()) {
				t.Errorf("%s is %v", path, v.Float())
			}
		case reflect.Pointer:
			if !v.IsNil() {
				walk(path, v.Elem())
			}
		case reflect.Struct:
			for i := range v.NumField() {
				walk(path+"."+v.Type().Field(i).Name, v.Field(i))
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(path+"[]", v.Index(i))
			}
		}
	}
	walk("result", reflect.ValueOf(result))
	for _, arm := range result.Arms {
		if (arm.Value == nil || arm.StandardError == nil) && arm.Note == "" {
			t.Errorf("an arm lacks a number without a note: %+v", arm)
		}
	}
	for _, pair := range result.Comparisons {
		comparisons := []Comparison{pair.Unadjusted}
		if pair.Adjusted != nil {
			comparisons = append(comparisons, *pair.Adjusted)
		}
		for _, c := range comparisons {
			lacks := c.PValue == nil || c.Statistic == nil
			if r.Test.Method == Bayesian {
				lacks = c.ChanceToWin == nil || c.ExpectedLoss == nil
			}
			lacks = lacks || c.Control == nil || c.Treatment == nil
			for scale, e := range []Effect{c.Difference, c.Lift} {
				lacks = lacks || e.Estimate == nil || e.StandardError == nil && !(r.hasRates() && Scale(scale) == Relative)
				lacks = lacks || e.Lower == nil && r.Test.Alternative != Less
				lacks = lacks || e.Upper == nil && r.Test.Alternative != Greater
			}
			if lacks && len(c.Notes) == 0 {
				t.Errorf("a comparison lacks a number without a note: %+v", c)
			}
			for _, p := range []*float64{c.PValue, c.Opposite, c.ChanceToWin} {
				if p != nil && (*p < 0 || *p > 1) {
					t.Errorf("probability %v", *p)
				}
			}
			if c.ExpectedLoss != nil && *c.ExpectedLoss < 0 {
				t.Errorf("expected loss %v", *c.ExpectedLoss)
			}
		}
	}
}

// TestNastyData: what is absent, and what the note says.
func TestNastyData(t *testing.T) {
	constant := func(x float64) Moments { return column([]float64{x, x, x, x, x, x}) }
	varied := column([]float64{1, 2, 3, 4, 7})
	one, none := column([]float64{3}), NewMoments(1)
	huge := column([]float64{1e300, -1e300, 1e299})
	zeroMean := column([]float64{-1, 1, -2, 2, -3, 3})
	summary := func(n int64, mean, variance float64) Moments {
		m, err := FromSummary(n, []float64{mean}, []float64{variance})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, c := range []struct {
		name               string
		control, treatment Moments
		estimate, lift, p  bool   // present
		note               string // a part of it; "" for none
	}{
		{"constant and equal", constant(2), constant(2), true, true, false, "The variance is zero"},
		{"constant and different", constant(2), constant(3), true, true, false, "The variance is zero"},
		{"one arm constant", constant(2), varied, true, true, true, "All subjects of the control are alike"},
		{"the other arm constant", varied, constant(2), true, true, true, "All subjects of the treatment are alike"},
		{"no conversions", constant(0), constant(0), true, false, false, "there is no lift"},
		{"no conversions in the control", constant(0), varied, true, false, false, "Only 0 of the control's subjects and 5 of the treatment's are informative"},
		{"one subject", one, varied, true, true, false, "only one subject"},
		{"one subject each", one, one, true, true, false, "only one subject"},
		{"no subjects in the control", none, varied, false, false, false, "nothing to compare"},
		{"no subjects in the treatment", varied, none, false, false, false, "nothing to compare"},
		{"no subjects", none, none, false, false, false, "nothing to compare"},
		{"baseline near zero", column([]float64{-1, 1, -2, 3, 1}), varied, true, false, true, "could be of either sign"},
		{"four subjects that count", column([]float64{1, 2, 3, 4, 0, 0, 0, 0, 0}), varied, true, true, false, "Only 4 of the control's subjects and 5"},
		{"baseline zero", zeroMean, varied, true, false, true, "there is no lift"},
		{"squares overflow", huge, varied, true, true, false, "too large"},
		{"difference overflows", constant(-1.5e308), constant(1.5e308), false, false, false, "too large"},
		{"1 to 999 at a billion", summary(1_000_000, 0.1, 0.09), summary(999_000_000, 0.1001, 0.09009), true, true, true, ""},
		{"tiny baseline", summary(5, 1e-310, 1e-320), varied, true, false, true, "there is no lift"},
		{"smallest variance", summary(1000, 1, 5e-324), summary(1000, 1, 5e-324), true, true, false, "The variance is zero"},
	} {
		for _, method := range []Method{FixedHorizon, AlwaysValid} {
			r := simple(c.control, c.treatment)
			r.Test.Method = method
			result, err := Compare(r)
			if c.name == "squares overflow" {
				if err == nil {
					t.Errorf("%s: sums of squares that are infinite were taken", c.name)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			soundness(t, r, result)
			got := result.Comparisons[0].Unadjusted
			if (got.Difference.Estimate != nil) != c.estimate || (got.Lift.Estimate != nil) != c.lift || (got.PValue != nil) != c.p {
				t.Errorf("%s: estimate %v, lift %v, p-value %v", c.name, show(got.Difference.Estimate), show(got.Lift.Estimate), show(got.PValue))
			}
			notes := strings.Join(got.Notes, " ")
			if c.note == "" && notes != "" || !strings.Contains(notes, c.note) {
				t.Errorf("%s: notes %q, want %q", c.name, notes, c.note)
			}
		}
	}
}

// TestNegativeBaseline: a rise from −2 to −1 is a lift of +50 %.
func TestNegativeBaseline(t *testing.T) {
	r := simple(column([]float64{-2.1, -1.9, -2, -2, -2}), column([]float64{-1.1, -0.9, -1, -1, -1}))
	got := mustCompare(t, r).Comparisons[0].Unadjusted
	near(t, "lift", *got.Lift.Estimate, 0.5, 1e-15)
	if *got.Lift.Lower > 0.5 || *got.Lift.Upper < 0.5 || *got.Lift.Lower < 0 {
		t.Errorf("interval %v to %v", *got.Lift.Lower, *got.Lift.Upper)
	}
}

// TestFormulaWithoutValue: a formula that divides by zero for one arm.
func TestFormulaWithoutValue(t *testing.T) {
	zero, fine := column([]float64{1, 2, 3}, []float64{0, 0, 0}), column([]float64{1, 2, 3}, []float64{1, 2, 1})
	r := Request{Formula: ComponentRatio(0, 1), Arms: []Arm{{[]Moments{zero}}, {[]Moments{fine}}}, Test: fixed95}
	result := mustCompare(t, r)
	soundness(t, r, result)
	notes := result.Comparisons[0].Unadjusted.Notes
	if len(notes) != 1 || !strings.Contains(notes[0], "means of the control") || !strings.Contains(result.Arms[0].Note, "divides by zero") {
		t.Errorf("notes %q, %q", notes, result.Arms[0].Note)
	}
	near(t, "total", *result.Arms[0].Totals[0], 6, 1e-15)

	// A value without a slope, as the square root of zero.
	r.Formula = func(means []float64) (float64, []float64) { return 0, []float64{math.Inf(1), 0} }
	result = mustCompare(t, r)
	soundness(t, r, result)
	if result.Arms[0].Value != nil {
		t.Error("a value without a slope was reported")
	}

	// The same ratio for every subject has no variance, whatever rounding says.
	r.Formula = ComponentRatio(0, 1)
	for a, factor := range []float64{0.1, 0.3} {
		m := NewMoments(2)
		for y := range 50 {
			m.Add([]float64{factor * float64(y+1), float64(y + 1)})
		}
		r.Arms[a] = Arm{[]Moments{m}}
	}
	got := mustCompare(t, r).Comparisons[0].Unadjusted
	if *got.Difference.StandardError != 0 || got.PValue != nil {
		t.Errorf("standard error %v", *got.Difference.StandardError)
	}
}

// TestStrataLeftOut: strata in which an arm has no or one subject.
func TestStrataLeftOut(t *testing.T) {
	full, more := column([]float64{1, 2, 3, 4, 5}), column([]float64{2, 3, 5, 7, 8})
	one, none := column([]float64{100}), NewMoments(1)
	want := mustCompare(t, simple(full, more)).Comparisons[0].Unadjusted
	r := Request{Formula: ComponentMean(0), Test: fixed95, Arms: []Arm{
		{[]Moments{full, one, none}}, {[]Moments{more, full, full}},
	}}
	result := mustCompare(t, r)
	soundness(t, r, result)
	got := result.Comparisons[0].Unadjusted
	near(t, "p-value", *got.PValue, *want.PValue, 1e-15)
	if got.Subjects != 10 || len(got.Notes) != 1 || got.Notes[0] != "2 of 3 strata are left out, with 11 subjects: an arm has fewer than two subjects there." {
		t.Errorf("%d subjects, notes %q", got.Subjects, got.Notes)
	}
	if result.Arms[0].Subjects != 6 || math.Abs(*result.Arms[0].Totals[0]-115) > 1e-12 {
		t.Errorf("the arm's own summary: %+v", result.Arms[0])
	}

	// An arm that came late does not take strata from the others.
	r.Arms = []Arm{{[]Moments{full, full}}, {[]Moments{more, more}}, {[]Moments{none, more}}}
	result = mustCompare(t, r)
	if result.Comparisons[0].Unadjusted.Subjects != 20 || result.Comparisons[1].Unadjusted.Subjects != 10 {
		t.Errorf("%d and %d subjects", result.Comparisons[0].Unadjusted.Subjects, result.Comparisons[1].Unadjusted.Subjects)
	}
}

// TestUselessCovariates: what cannot adjust is left out, and said so.
func TestUselessCovariates(t *testing.T) {
	arm := func(shift float64) Arm {
		m := NewMoments(5)
		for s := range 200 {
			x := float64(s * s % 17)
			m.Add([]float64{2*x + float64(s%5) + shift, x, 0.1, 3 - 2*x, 1e12})
		}
		return Arm{[]Moments{m}}
	}
	r := Request{Formula: ComponentMean(0), Arms: []Arm{arm(0), arm(1)}, Test: fixed95, Covariates: []int{1}}
	want := mustCompare(t, r).Comparisons[0].Adjusted
	r.Covariates = []int{2, 1, 3, 4}
	result := mustCompare(t, r)
	soundness(t, r, result)
	got := result.Comparisons[0].Adjusted
	near(t, "standard error", *got.Difference.StandardError, *want.Difference.StandardError, 1e-12)
	near(t, "estimate", *got.Difference.Estimate, *want.Difference.Estimate, 1e-12)
	notes := strings.Join(got.Notes, " ")
	for _, part := range []string{"Component 2 is constant", "Component 3 follows from", "Component 4 is constant"} {
		if !strings.Contains(notes, part) {
			t.Errorf("notes %q do not say %q", notes, part)
		}
	}
	r.Covariates = []int{2, 4}
	pair := mustCompare(t, r).Comparisons[0]
	if *pair.Adjusted.PValue != *pair.Unadjusted.PValue || *pair.VarianceReduction != 0 {
		t.Errorf("without a usable covariate: %+v", pair)
	}

	// A copy with a little noise is no second covariate.
	noisy := func(shift float64) Arm {
		m := NewMoments(3)
		for s := range 200 {
			x := float64(s * s % 17)
			m.Add([]float64{2*x + float64(s%5) + shift, x, x + 1e-7*float64(s%3)})
		}
		return Arm{[]Moments{m}}
	}
	r = Request{Formula: ComponentMean(0), Arms: []Arm{noisy(0), noisy(1)}, Test: fixed95, Covariates: []int{1, 2}}
	if notes := mustCompare(t, r).Comparisons[0].Adjusted.Notes; len(notes) != 1 || !strings.Contains(notes[0], "Component 2 follows from") {
		t.Errorf("notes %q", notes)
	}

	few := column([]float64{1, 2}, []float64{3, 4})
	r = Request{Formula: ComponentMean(0), Arms: []Arm{{[]Moments{few}}, {[]Moments{few}}}, Test: fixed95, Covariates: []int{1}}
	if notes := mustCompare(t, r).Comparisons[0].Adjusted.Notes; !strings.Contains(strings.Join(notes, " "), "There are few subjects for the covariates") {
		t.Errorf("notes %q", notes)
	}
	few = column([]float64{1, 2}, []float64{3, 4}, []float64{1, 5})
	r.Arms, r.Covariates = []Arm{{[]Moments{few}}, {[]Moments{few}}}, []int{1, 2}
	adjusted := mustCompare(t, r).Comparisons[0].Adjusted
	if adjusted.Difference.Estimate != nil || !strings.Contains(strings.Join(adjusted.Notes, " "), "There are too few subjects for the covariates") {
		t.Errorf("%+v", adjusted)
	}
}

// TestRequestRefused: every field at fault, each by name.
func TestRequestRefused(t *testing.T) {
	good := func() Request {
		return Request{
			Formula:    ComponentMean(0),
			Covariates: []int{1},
			Arms: []Arm{
				{[]Moments{column([]float64{1, 2, 4}, []float64{1, 0, 1})}},
				{[]Moments{column([]float64{1, 3, 4}, []float64{0, 0, 1})}},
			},
			Test: fixed95,
		}
	}
	if _, err := Compare(good()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want   string
		change func(*Request)
	}{
		{"formula: it is missing", func(r *Request) { r.Formula = nil }},
		{"formula: its gradient has 1 entries for 2 components", func(r *Request) {
			r.Formula = func([]float64) (float64, []float64) { return 1, []float64{1} }
		}},
		{"covariates[0]: component 1 is part of the formula", func(r *Request) { r.Formula = ComponentMean(1) }},
		{"covariates[0]: component 2 is not one of the 2 components", func(r *Request) { r.Covariates[0] = 2 }},
		{"covariates[1]: component 1 is named twice", func(r *Request) { r.Covariates = []int{1, 1} }},
		{"arms: a comparison needs two arms or more, and there are 1", func(r *Request) { r.Arms = r.Arms[:1] }},
		{"arms[0].strata: an arm needs one stratum or more", func(r *Request) { r.Arms[0].Strata = nil }},
		{"arms[1].strata: there are 2, but arms[0] has 1", func(r *Request) {
			r.Arms[1].Strata = append(r.Arms[1].Strata, NewMoments(2))
		}},
		{"arms[1].strata[0].means: there are 1, but the first stratum of the first arm has 2", func(r *Request) { r.Arms[1].Strata[0] = NewMoments(1) }},
		{"arms[0].strata[0].products: there are 1, but 2 components have 3", func(r *Request) { r.Arms[0].Strata[0].Products = []float64{1} }},
		{"arms[0].strata[0].tails: there are 1 for 2 components", func(r *Request) { r.Arms[0].Strata[0].Tails = []float64{1} }},
		{"arms[0].strata[0].n: the number of subjects lies between 0 and 1000000000000000, and -1 does not", func(r *Request) { r.Arms[0].Strata[0].N = -1 }},
		{"arms[0].strata[0].means[1]: it is not a finite number", func(r *Request) { r.Arms[0].Strata[0].Means[1] = math.NaN() }},
		{"arms[0].strata[0].products[2]: it is not a finite number", func(r *Request) { r.Arms[0].Strata[0].Products[2] = math.Inf(1) }},
		{"arms[0].strata[0].products: the sum of squares of component 1 is negative: -1", func(r *Request) { r.Arms[0].Strata[0].Products[2] = -1 }},
		{"control: arm 2 is not one of the 2 arms", func(r *Request) { r.Control = 2 }},
		{"method: method 0 is not known", func(r *Request) { r.Test.Method = 0 }},
		{"confidence_level: it lies above 0.5 and below 1, and 0.5 does not", func(r *Request) { r.Test.ConfidenceLevel = 0.5 }},
		{"planned_subjects: it is not negative, and -5 is", func(r *Request) { r.Test.PlannedSubjects = -5 }},
		{"alternative: alternative 4 is not known", func(r *Request) { r.Test.Alternative = 4 }},
		{"margin: equivalence needs one greater than 0, and it is 0", func(r *Request) { r.Test.Alternative = Equivalent }},
		{"margin: equivalence needs one greater than 0, and it is -0.1", func(r *Request) {
			r.Test.Alternative, r.Margin.Value = Equivalent, -0.1
		}},
		{"margin: it is not a finite number", func(r *Request) { r.Margin.Value = math.NaN() }},
		{"margin: scale 2 is not known", func(r *Request) { r.Margin.Scale = 2 }},
		{"method: method 7 is not known\nmargin: it is not a finite number\ncontrol: arm -1 is not one of the 2 arms", func(r *Request) {
			r.Test.Method, r.Control, r.Margin.Value = 7, -1, math.Inf(-1)
		}},
	} {
		r := good()
		c.change(&r)
		_, err := Compare(r)
		if err == nil || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
		var invalid InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("%v is no InvalidError", err)
		}
	}
}

// TestNobodyConverts: of 10,000 subjects an arm nobody does, or everybody. A guardrail's
// interval tells that a margin is kept, and else there is nothing to judge. By R:
//
//	p <- 1/10002; sqrt(2*p*(1-p)/10002)
//	binom.test(0, 10000, conf.level = 0.95)$conf.int[2]
//	2*pbinom(0, 10000, 0.001)
func TestNobodyConverts(t *testing.T) {
	se, upper, p := 0.00014138600920487259, 0.00036881991461876223, 9.0346691954097257e-05
	for _, successes := range []float64{0, 10_000} {
		r := simple(proportion(t, successes, 10_000), proportion(t, successes, 10_000))
		r.Proportion = true
		for _, method := range []Method{FixedHorizon, AlwaysValid} {
			r.Test.Method, r.Guardrail, r.Margin = method, false, Margin{}
			got := mustCompare(t, r).Comparisons[0].Unadjusted
			if got.PValue != nil || got.Difference.Lower != nil || len(got.Notes) == 0 || !strings.Contains(got.Notes[0], "Only 0 of the control's subjects and 0 of the treatment's") {
				t.Errorf("%v successes are judged: %+v", successes, got)
			}
			r.Guardrail, r.Margin.Value = true, 0.001
			result := mustCompare(t, r)
			soundness(t, r, result)
			got = result.Comparisons[0].Unadjusted
			nearOptional(t, "standard error", got.Difference.StandardError, &se, 1e-9)
			if got.Difference.Lower != nil || *got.Difference.Estimate != 0 || !(*got.Difference.Upper < r.Margin.Value) || !(*got.PValue < 0.05) {
				t.Errorf("%v successes: %+v", successes, got)
			}
			if method == FixedHorizon {
				nearOptional(t, "upper bound", got.Difference.Upper, &upper, 1e-9)
				nearOptional(t, "p-value", got.PValue, &p, 1e-9)
			}
		}
		r.Proportion = false
		if got := mustCompare(t, r).Comparisons[0].Unadjusted; got.PValue != nil {
			t.Errorf("numbers that are all alike, and no proportion: p-value %v", *got.PValue)
		}
	}
}

// TestNobodyConvertsInStrata: each stratum has its own success and failure more, so
// that one of few subjects with half of the weight is not known better than it is.
// By R, with 10 and 990 subjects in one stratum, and 500 and 500 in the other:
//
//	v <- function(n) { p <- 1/(n + 2); p*(1 - p)/(n + 2) }
//	sqrt(sum(0.25*c(v(10), v(990), v(500), v(500))))
func TestNobodyConvertsInStrata(t *testing.T) {
	r := Request{
		Formula: ComponentMean(0), Proportion: true, Test: fixed95,
		Arms: []Arm{{[]Moments{proportion(t, 0, 990), proportion(t, 0, 500)}}, {[]Moments{proportion(t, 0, 10), proportion(t, 0, 500)}}},
	}
	near(t, "standard error", *mustCompare(t, r).Comparisons[0].Unadjusted.Difference.StandardError, 0.039920785572357564, 1e-12)
}

// TestSilentStratum: a stratum of which nobody converts is not certain of its part:
// its few subjects vary as those of all strata do. By R, with 10 and 990 subjects
// in it, and 60 and 50 of 500 converting in the other; the second figure is what a
// variance of zero in the first would give:
//
//	v <- (50*0.9 + 60*0.88)/(989 + 9 + 499 + 499); w <- c(0.5, 0.5)
//	d <- c(0, 60/500 - 50/500); shared <- sum(w*(d - sum(w*d))^2)/2000
//	sqrt(sum(w^2*v*(1/c(990, 500) + 1/c(10, 500))) + shared)
//	sqrt(0.25*(0.1*0.9 + 0.12*0.88)*500/499/500 + shared)
func TestSilentStratum(t *testing.T) {
	r := Request{
		Formula: ComponentMean(0), Proportion: true, Test: fixed95,
		Arms: []Arm{{[]Moments{proportion(t, 0, 990), proportion(t, 50, 500)}}, {[]Moments{proportion(t, 0, 10), proportion(t, 60, 500)}}},
	}
	got := mustCompare(t, r).Comparisons[0].Unadjusted
	near(t, "standard error", *got.Difference.StandardError, 0.035866016326080746, 1e-12)
	if len(got.Notes) != 1 || !strings.HasPrefix(got.Notes[0], "In 1 of 2 strata") {
		t.Errorf("notes %q", got.Notes)
	}
	// Where the stratum's subjects are as many, they make no difference.
	for a := range r.Arms {
		r.Arms[a].Strata[0] = proportion(t, 0, 500)
	}
	near(t, "standard error of even arms", *mustCompare(t, r).Comparisons[0].Unadjusted.Difference.StandardError, 0.0099018176101142129, 1e-12)
}

// TestIntervalOfAHandful: of five subjects against five an always-valid interval would
// reach for 1e20 standard errors: there is none, and a note.
func TestIntervalOfAHandful(t *testing.T) {
	r := simple(column([]float64{1, 2, 3, 4, 5}), column([]float64{2, 3, 4, 5, 7}))
	r.Test = Test{Method: AlwaysValid, ConfidenceLevel: 0.95}
	got := mustCompare(t, r).Comparisons[0].Unadjusted
	if got.Difference.Lower != nil || got.Difference.Upper != nil || got.Lift.Upper != nil || !strings.Contains(strings.Join(got.Notes, " "), "too few subjects yet") {
		t.Errorf("%s to %s, notes %q", show(got.Difference.Lower), show(got.Difference.Upper), got.Notes)
	}
}

// TestPerfectCovariate: a covariate that tells everything leaves no variance, and what is
// left by rounding is neither a difference nor a standard error, by strata too.
func TestPerfectCovariate(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		r := Request{Formula: ComponentMean(0), Covariates: []int{1}, Test: Test{Method: FixedHorizon, ConfidenceLevel: 0.95}}
		effect, slope := float64(rng.IntN(2)), rng.NormFloat64()
		strata := 1 + rng.IntN(3)
		for a := range 3 {
			arm := Arm{}
			for range strata {
				m := NewMoments(2)
				for range 50 + rng.IntN(100) {
					x := 5 + 3*rng.NormFloat64()
					m.Add([]float64{slope*x + 0.1 + effect*float64(a), x})
				}
				arm.Strata = append(arm.Strata, m)
			}
			r.Arms = append(r.Arms, arm)
		}
		got := mustCompare(t, r).Comparisons[0].Adjusted
		d := got.Difference
		if d.StandardError == nil || *d.StandardError != 0 || d.Lower != nil || got.PValue != nil || !slices.Contains(got.Notes, noVariance) {
			t.Errorf("%d strata: difference %s, standard error %s, p %s, notes %q", strata, show(d.Estimate), show(d.StandardError), show(got.PValue), got.Notes)
		}
		if effect == 0 && *d.Estimate != 0 {
			t.Errorf("%d strata: a difference of %v is rounding", strata, *d.Estimate)
		}
	}
}

// TestAlikeInStrata: where all subjects of an arm have one number the strata's weights,
// whose sum is rounded, do not make a variance.
func TestAlikeInStrata(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		r := Request{Formula: ComponentMean(0), Test: fixed95}
		for a := range 2 {
			arm := Arm{}
			for range 3 {
				n := 20 + rng.IntN(50)
				arm.Strata = append(arm.Strata, column(slices.Repeat([]float64{5.1 + 0.3*float64(a)}, n)))
			}
			r.Arms = append(r.Arms, arm)
		}
		got := mustCompare(t, r).Comparisons[0].Unadjusted
		if got.PValue != nil || *got.Difference.StandardError != 0 {
			t.Errorf("standard error %v, p %s", *got.Difference.StandardError, show(got.PValue))
		}
	}
}
