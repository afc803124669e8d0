package stats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// TestEquivalence: two calls of testdata/judge.R, and a third for the interval.
func TestEquivalence(t *testing.T) {
	var cases []struct {
		Name, Call                 string
		Level, Margin              float64
		Treatment, Control         []float64
		Statistic, P, Lower, Upper *float64
	}
	load(t, "equivalence-r.json", &cases)
	for _, c := range cases {
		t.Run(c.Name+"/"+c.Call, func(t *testing.T) {
			r := simple(column(c.Control), column(c.Treatment))
			r.Test, r.Margin = Test{Method: FixedHorizon, ConfidenceLevel: c.Level, Alternative: Equivalent}, Margin{Value: c.Margin}
			got := mustCompare(t, r).Comparisons[0].Unadjusted
			nearOptional(t, "statistic", got.Statistic, c.Statistic, 1e-9)
			nearOptional(t, "p-value", got.PValue, c.P, 1e-9)
			nearOptional(t, "lower", got.Difference.Lower, c.Lower, 1e-9)
			nearOptional(t, "upper", got.Difference.Upper, c.Upper, 1e-9)
		})
	}
}

// TestEquivalenceOfLifts: numpy and scipy by testdata/judge.py, on both scales; every
// fifth baseline is negative.
func TestEquivalenceOfLifts(t *testing.T) {
	type scale struct{ P, Lower, Upper *float64 }
	var cases []struct {
		Level, Margin, Relative float64
		Treatment, Control      []float64
		Absolute, Lift          scale
	}
	load(t, "equivalence-python.json", &cases)
	for i, c := range cases {
		r := simple(column(c.Control), column(c.Treatment))
		r.Test = Test{Method: FixedHorizon, ConfidenceLevel: c.Level, Alternative: Equivalent}
		for _, by := range []struct {
			margin Margin
			want   scale
		}{{Margin{Absolute, c.Margin}, c.Absolute}, {Margin{Relative, c.Relative}, c.Lift}} {
			r.Margin = by.margin
			got := mustCompare(t, r).Comparisons[0].Unadjusted
			effect := got.Difference
			if by.margin.Scale == Relative {
				effect = got.Lift
			}
			what := fmt.Sprintf("%d, margin %v", i, by.margin)
			nearOptional(t, what+": p-value", got.PValue, by.want.P, 1e-9)
			nearOptional(t, what+": lower", effect.Lower, by.want.Lower, 1e-9)
			nearOptional(t, what+": upper", effect.Upper, by.want.Upper, 1e-9)
		}
	}
}

// TestSidesOfAMargin holds how the one-sided tests, their opposites and
// equivalence belong together, under every method: the interval is within the
// margins exactly when equivalence is significant, the test of equivalence is
// the weaker one of two one-sided tests, and an opposite is the other one-sided
// test.
func TestSidesOfAMargin(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	equivalent, beyond := 0, 0
	for range 500 {
		r := drawRequest(rng)
		r.Margin.Value = math.Exp(2*rng.NormFloat64() - 3)
		ask := func(alternative Alternative, margin float64) (Comparison, Effect) {
			asked := r
			asked.Test.Alternative, asked.Margin.Value = alternative, margin
			c := *mustCompare(t, asked).Comparisons[0].Adjusted
			if r.Margin.Scale == Relative {
				return c, c.Lift
			}
			return c, c.Difference
		}
		margin, alpha := r.Margin.Value, 1-r.Test.ConfidenceLevel
		c, interval := ask(Equivalent, margin)
		above, lower := ask(Greater, -margin)
		below, upper := ask(Less, margin)
		if *c.PValue != max(*above.PValue, *below.PValue) {
			t.Errorf("p-value %v, that of one-sided tests %v and %v", *c.PValue, *above.PValue, *below.PValue)
		}
		if *interval.Lower != *lower.Lower || *interval.Upper != *upper.Upper || lower.Upper != nil || upper.Lower != nil {
			t.Errorf("interval %v to %v, one-sided %v and %v", *interval.Lower, *interval.Upper, *lower.Lower, *upper.Upper)
		}
		within := *interval.Lower >= -margin && *interval.Upper <= margin
		if significant := *c.PValue <= alpha; significant != within {
			t.Errorf("%+v: p-value %v, interval %v to %v, margin %v", r.Test, *c.PValue, *interval.Lower, *interval.Upper, margin)
		}
		outside := *interval.Lower >= margin || *interval.Upper <= -margin
		if opposed := *c.Opposite <= alpha; opposed != outside {
			t.Errorf("%+v: opposite %v, interval %v to %v, margin %v", r.Test, *c.Opposite, *interval.Lower, *interval.Upper, margin)
		}
		notAbove, _ := ask(Less, -margin)
		if *above.Opposite != *notAbove.PValue || *notAbove.Opposite != *above.PValue {
			t.Errorf("opposite %v, p-value of the opposite %v", *above.Opposite, *notAbove.PValue)
		}
		if c, _ := ask(TwoSided, margin); c.Opposite != nil {
			t.Errorf("a two-sided test has an opposite, %v", *c.Opposite)
		}
		equivalent += count(within)
		beyond += count(outside)
	}
	if equivalent < 20 || beyond < 20 {
		t.Errorf("%d of 500 were equivalent, %d beyond: too few to tell", equivalent, beyond)
	}
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// TestEquivalenceSwapped: it is of no account which arm is the control.
func TestEquivalenceSwapped(t *testing.T) {
	rng := rand.New(rand.NewPCG(33, 34))
	for range 100 {
		r := drawRequest(rng)
		r.Arms, r.Control = r.Arms[:2], 0
		r.Margin, r.Test.Alternative = Margin{Value: 0.1}, Equivalent
		a := mustCompare(t, r).Comparisons[0].Adjusted
		r.Control = 1
		b := mustCompare(t, r).Comparisons[0].Adjusted
		near(t, "p-value", *a.PValue, *b.PValue, 1e-9)
		near(t, "statistic", *a.Statistic, -*b.Statistic, 1e-9)
		if math.Abs(*a.Difference.Lower+*b.Difference.Upper) > 1e-9 {
			t.Errorf("interval from %v, and swapped to %v", *a.Difference.Lower, *b.Difference.Upper)
		}
	}
}
