package stats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// draw makes moments of n random subjects; the components are correlated and
// away from zero.
func draw(rng *rand.Rand, dim, n int) Moments {
	m := NewMoments(dim)
	x := make([]float64, dim)
	for range n {
		common := rng.NormFloat64()
		for i := range x {
			x[i] = 5 + float64(i) + common + rng.NormFloat64()
		}
		m.Add(x)
	}
	return m
}

// someSchedule is one of a few schedules, whose boundaries are computed once.
var someSchedule = func() func(int64) *Schedule {
	var all []*Schedule
	for _, looks := range [][]Look{sameLooks(1), sameLooks(0.3), sameLooks(0.2, 0.6, 1.1), {{0.4, 10}, {0.5, 30}, {1, 30.5}}} {
		for _, spending := range []Spending{OBrienFleming, Pocock} {
			schedule, err := NewSchedule(spending, looks)
			if err != nil {
				panic(err)
			}
			all = append(all, schedule)
		}
	}
	return func(n int64) *Schedule { return all[uint64(n)%uint64(len(all))] }
}()

// drawRequest is a ratio with a covariate, in some arms and strata.
func drawRequest(rng *rand.Rand) Request {
	r := Request{
		Formula:    ComponentRatio(0, 1),
		Covariates: []int{2},
		Arms:       make([]Arm, 2+rng.IntN(2)),
		Test: Test{
			Method:          FixedHorizon + Method(rng.IntN(3)),
			ConfidenceLevel: 0.5 + 0.4999*rng.Float64(),
			PlannedSubjects: rng.Int64N(1000),
			Alternative:     Alternative(rng.IntN(3)),
		},
		Margin: Margin{Scale: Scale(rng.IntN(2)), Value: 0.2 * (rng.Float64() - 0.5)},
	}
	if r.Test.Method == GroupSequential {
		r.Test.Schedule = someSchedule(rng.Int64N(100))
	}
	r.Control = rng.IntN(len(r.Arms))
	strata, fewest := 1+rng.IntN(3), 7
	if r.Test.Method == AlwaysValid {
		fewest = 40 // Or the arms would be too uneven.
	}
	for a := range r.Arms {
		for range strata {
			r.Arms[a].Strata = append(r.Arms[a].Strata, draw(rng, 3, fewest+rng.IntN(40)))
		}
	}
	return r
}

// transformed returns the request's moments with component i multiplied by factor
// and moved by shift.
func (r Request) transformed(i int, factor, shift float64) Request {
	out := r
	out.Arms = make([]Arm, len(r.Arms))
	for a, arm := range r.Arms {
		for s := range arm.Strata {
			m := arm.Strata[s].clone()
			m.Means[i] = m.Means[i]*factor + shift
			m.Tails[i] *= factor
			for j := range m.Means {
				m.Products[m.index(i, j)] *= factor
			}
			m.Products[m.index(i, i)] *= factor
			out.Arms[a].Strata = append(out.Arms[a].Strata, m)
		}
	}
	return out
}

// TestBoundTouchesTheNullAtP: at the level 1 − p, and there only, a bound lies
// on the null value. It is put the other way round: the null is moved onto a
// bound, and the p-value has to be α.
func TestBoundTouchesTheNullAtP(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 500 {
		r := drawRequest(rng)
		for _, adjusted := range []bool{false, true} {
			pick := func(r Request) (Comparison, Effect) {
				c := mustCompare(t, r).Comparisons[0]
				which := c.Unadjusted
				if adjusted {
					which = *c.Adjusted
				}
				if r.Margin.Scale == Relative {
					return which, which.Lift
				}
				return which, which.Difference
			}
			before, effect := pick(r)
			alpha := 1 - r.Test.ConfidenceLevel
			for name, of := range map[string]func(Effect) *float64{"lower": func(e Effect) *float64 { return e.Lower }, "upper": func(e Effect) *float64 { return e.Upper }} {
				if of(effect) == nil {
					continue
				}
				// On the scale of the lift the bound moves a little with the margin, at
				// which its degrees of freedom are.
				moved, after := r, effect
				var touching Comparison
				for range 40 {
					moved.Margin.Value = *of(after)
					touching, after = pick(moved)
				}
				near(t, fmt.Sprintf("p-value at the %s bound, %+v", name, r.Test), *touching.PValue, alpha, 1e-8)
				if diff := cmp.Diff(effect, after); diff != "" && r.Margin.Scale == Absolute {
					t.Errorf("moving the margin moved the interval:\n%s", diff)
				}
			}
			outside := effect.Lower != nil && r.Margin.Value < *effect.Lower || effect.Upper != nil && r.Margin.Value > *effect.Upper
			if significant := *before.PValue < alpha; significant != outside {
				t.Errorf("%+v: p-value %v, interval %v to %v, null %v", r.Test, *before.PValue, show(effect.Lower), show(effect.Upper), r.Margin.Value)
			}
		}
	}
}

// TestAlwaysValidAgreesAtEveryLevel: the p-value is where the boundary of the
// same plan, drawn at another level, meets the estimate.
func TestAlwaysValidAgreesAtEveryLevel(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for range 1000 {
		test := Test{Method: AlwaysValid, ConfidenceLevel: 0.95, PlannedSubjects: 1 + rng.Int64N(100_000)}
		e := Evidence{Estimate: 10 * rng.NormFloat64(), StandardError: 1, DegreesOfFreedom: math.Inf(1), Subjects: 2 + rng.Int64N(1_000_000)}
		p := *test.Infer(e, 0).PValue
		if p < 1 {
			near(t, "boundary at the p-value", test.critical(p, e.DegreesOfFreedom, e.Subjects), math.Abs(e.Estimate), 1e-9)
		} else if test.critical(1, e.DegreesOfFreedom, e.Subjects) < math.Abs(e.Estimate) {
			t.Errorf("p-value 1, but %v is outside of the boundary at level 0", e.Estimate)
		}
	}
}

// TestSwappingTheArms: the difference changes its sign and nothing else.
func TestSwappingTheArms(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for range 300 {
		r := drawRequest(rng)
		r.Arms = r.Arms[:2]
		r.Control, r.Margin, r.Test.Alternative = 0, Margin{}, TwoSided
		swapped := r
		swapped.Control = 1
		a, b := mustCompare(t, r).Comparisons[0], mustCompare(t, swapped).Comparisons[0]
		for _, pair := range [][2]Comparison{{a.Unadjusted, b.Unadjusted}, {*a.Adjusted, *b.Adjusted}} {
			x, y := pair[0].Difference, pair[1].Difference
			near(t, "estimate", *x.Estimate, -*y.Estimate, 1e-12)
			near(t, "lower", *x.Lower, -*y.Upper, 1e-9)
			near(t, "standard error", *x.StandardError, *y.StandardError, 1e-12)
			near(t, "p-value", *pair[0].PValue, *pair[1].PValue, 1e-9)
		}
	}
}

// TestUnits: in other units of the numerator the difference scales and the
// lift and the p-value stay; moving a covariate's origin changes nothing.
func TestUnits(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	for range 300 {
		r := drawRequest(rng)
		r.Margin.Scale = Relative
		factor := math.Exp(20 * rng.NormFloat64())
		before := mustCompare(t, r).Comparisons[0]
		after := mustCompare(t, r.transformed(0, factor, 0)).Comparisons[0]
		moved := mustCompare(t, r.transformed(2, -3, 17)).Comparisons[0]
		for _, c := range []struct{ before, after, moved Comparison }{
			{before.Unadjusted, after.Unadjusted, moved.Unadjusted},
			{*before.Adjusted, *after.Adjusted, *moved.Adjusted},
		} {
			near(t, "scaled standard error", *c.after.Difference.StandardError, *c.before.Difference.StandardError*factor, 1e-9)
			near(t, "lift", *c.after.Lift.StandardError, *c.before.Lift.StandardError, 1e-9)
			near(t, "p-value", *c.after.PValue, *c.before.PValue, 1e-7)
			near(t, "p-value with the covariate moved", *c.moved.PValue, *c.before.PValue, 1e-7)
			near(t, "standard error with the covariate moved", *c.moved.Difference.StandardError, *c.before.Difference.StandardError, 1e-9)
		}
		near(t, "variance reduction", *moved.VarianceReduction, *before.VarianceReduction, 1e-7)
	}
}

// TestShiftOfAMean: adding a constant to a plain mean leaves its difference.
func TestShiftOfAMean(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 16))
	for range 300 {
		r := drawRequest(rng)
		r.Formula, r.Margin = ComponentMean(0), Margin{}
		before := mustCompare(t, r).Comparisons[0].Adjusted.Difference
		after := mustCompare(t, r.transformed(0, 1, 1000)).Comparisons[0].Adjusted.Difference
		if math.Abs(*before.Estimate-*after.Estimate) > 1e-11 {
			t.Errorf("%v became %v", *before.Estimate, *after.Estimate)
		}
		near(t, "standard error", *after.StandardError, *before.StandardError, 1e-12)
	}
}

// TestLargeValues: subjects near 1e12 are compared as if they were near 0, in
// strata and with a covariate too. The shift and the numbers are such that a
// subject's number is exact; the means are not, by far.
func TestLargeValues(t *testing.T) {
	const shift = 1e12
	rng := rand.New(rand.NewPCG(19, 20))
	for i := range 50 {
		small := Request{Formula: ComponentMean(0), Covariates: []int{1}, Test: fixed95}
		large := small
		for range 2 {
			var smallArm, largeArm Arm
			for range 1 + i%3 {
				a, b := NewMoments(2), NewMoments(2)
				for range 100 + rng.IntN(3000) {
					x := math.Round(1024*rng.NormFloat64()) / 1024
					y := math.Round(1024*(x+rng.NormFloat64())) / 1024
					a.Add([]float64{y, x})
					b.Add([]float64{y + shift, x + shift})
				}
				smallArm.Strata, largeArm.Strata = append(smallArm.Strata, a), append(largeArm.Strata, b)
			}
			small.Arms, large.Arms = append(small.Arms, smallArm), append(large.Arms, largeArm)
		}
		want, got := mustCompare(t, small).Comparisons[0], mustCompare(t, large).Comparisons[0]
		for _, pair := range [][2]Comparison{{want.Unadjusted, got.Unadjusted}, {*want.Adjusted, *got.Adjusted}} {
			w, g := pair[0], pair[1]
			if gap := math.Abs(*w.Difference.Estimate-*g.Difference.Estimate) / *w.Difference.StandardError; gap > 1e-6 {
				t.Errorf("difference %v, near 1e12 %v: %.2g standard errors", *w.Difference.Estimate, *g.Difference.Estimate, gap)
			}
			near(t, "standard error", *g.Difference.StandardError, *w.Difference.StandardError, 1e-6)
			near(t, "p-value", *g.PValue, *w.PValue, 1e-5)
		}
	}
}

// TestAdjustmentByIdenticalCovariate: a covariate that says all leaves no
// variance, so no p-value either.
func TestAdjustmentByIdenticalCovariate(t *testing.T) {
	rng := rand.New(rand.NewPCG(17, 18))
	r := Request{Formula: ComponentMean(0), Covariates: []int{1}, Test: fixed95}
	for range 2 {
		m := NewMoments(2)
		for range 100 {
			x := rng.NormFloat64()
			m.Add([]float64{3 + 2*x, x})
		}
		r.Arms = append(r.Arms, Arm{[]Moments{m}})
	}
	got := mustCompare(t, r).Comparisons[0]
	if *got.VarianceReduction != 1 || got.Adjusted.PValue != nil || math.Abs(*got.Adjusted.Difference.Estimate) > 1e-12 {
		t.Errorf("reduction %v, p-value %v, estimate %v", *got.VarianceReduction, show(got.Adjusted.PValue), *got.Adjusted.Difference.Estimate)
	}
}
