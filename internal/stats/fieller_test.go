package stats

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// sparse makes the moments of so many subjects, a share of whom has numbers that are
// not 0: an amount, how often, and what they did before.
func sparse(rng *rand.Rand, n int, share, scale float64) Moments {
	m := NewMoments(3)
	for range n {
		x := make([]float64, 3)
		if rng.Float64() < share {
			x[1] = float64(1 + rng.IntN(2))
			x[0] = scale * x[1] * math.Exp(rng.NormFloat64())
			x[2] = x[0] * rng.Float64()
		}
		m.Add(x)
	}
	return m
}

// drawSparse is a mean or a ratio of few, in some strata, with a covariate.
func drawSparse(rng *rand.Rand) Request {
	r := drawRequest(rng)
	r.NonNegative, r.Margin.Value = true, 0
	if rng.IntN(2) == 0 {
		r.Formula = ComponentMean(0)
		r.Covariates = []int{2}
	}
	strata, share := 1+rng.IntN(3), 0.05+0.4*rng.Float64()
	for a := range r.Arms {
		r.Arms[a] = Arm{}
		scale := math.Exp(0.5 * rng.NormFloat64())
		for range strata {
			r.Arms[a].Strata = append(r.Arms[a].Strata, sparse(rng, 80+rng.IntN(80), share, scale))
		}
	}
	return r
}

// TestLiftAndDifferenceAgree: the lift and the difference say the same of 0, for means
// and ratios, sparse or not, of all methods and sides, by strata and with covariates: no
// bound of one excludes 0 where that of the other does not, and the p-values are one.
func TestLiftAndDifferenceAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(71, 72))
	judged, excluding, unbounded := 0, 0, 0
	for i := range 600 {
		r := drawRequest(rng)
		if i%2 == 0 {
			r = drawSparse(rng)
		}
		r.Margin = Margin{}
		if i%3 == 0 {
			r.Test.IntervalRate = 0.4 * rng.Float64()
		}
		result := mustCompare(t, r).Comparisons[0]
		r.Margin.Scale = Relative
		relative := mustCompare(t, r).Comparisons[0]
		for _, pair := range [][2]Comparison{{result.Unadjusted, relative.Unadjusted}, {*result.Adjusted, *relative.Adjusted}} {
			c, d := pair[0], pair[1]
			if c.PValue == nil || c.Lift.Estimate == nil {
				continue
			}
			unbounded += count(c.Lift.Unbounded)
			bounds := [][2]*float64{{c.Difference.Lower, c.Lift.Lower}, {c.Difference.Upper, c.Lift.Upper}}
			for side, b := range bounds {
				if b[0] == nil || b[1] == nil || c.Lift.Unbounded {
					continue
				}
				judged++
				excluding += count(*b[0] > 0 && side == 0 || *b[0] < 0 && side == 1)
				if (*b[0] > 0) != (*b[1] > 0) {
					t.Errorf("%+v: side %d of the difference is %v, of the lift %v", r.Test, side, *b[0], *b[1])
				}
			}
			if d.PValue != nil {
				near(t, "p-value of the lift", *d.PValue, *c.PValue, 1e-9)
			}
		}
	}
	if judged < 500 || excluding < 50 || unbounded < 5 {
		t.Errorf("%d bounds, %d exclude 0, %d lifts without bounds: too few to tell", judged, excluding, unbounded)
	}
}

// TestLiftOfWeakControl: where the control is not known to differ from 0 there is no
// interval of a lift. Numbers that can be negative then have no lift at all, and no test
// of a relative margin; others have one bound where no lower lift is possible.
func TestLiftOfWeakControl(t *testing.T) {
	few := column([]float64{0, 0, 0, 0, 0, 0, 0, 0.1, 0.2, 8, 0.1, 0.3, 0.1, 9, 0, 0, 0, 0})
	many := column([]float64{5, 6, 7, 8, 9, 5, 6, 7, 8, 30, 25, 24, 28, 31})
	some := column([]float64{1, 0, 0, 0, 0, 0, 0, 0.1, 0.2, 5, 0.1, 0.3, 0.1, 3, 0, 0, 0, 0})
	mixed := column([]float64{-3, 4, 2, -1, 1, -2, 3, 0.5, -4, 2})
	for _, c := range []struct {
		name                          string
		control, treatment            Moments
		lift, lower, upper, unbounded bool
		note                          string
	}{
		{"a treatment far above", few, many, true, true, false, true, "The lift has no upper bound"},
		{"a treatment like it", few, some, true, false, false, true, "The lift has no bounds"},
		{"numbers of either sign", mixed, many, false, false, false, false, "could be of either sign: there is no lift"},
		{"a control far from zero", many, few, true, true, true, false, ""},
	} {
		r := simple(c.control, c.treatment)
		r.Test.ConfidenceLevel = 0.99
		r.Margin = Margin{Relative, -0.1}
		got := mustCompare(t, r).Comparisons[0].Unadjusted
		soundness(t, r, mustCompare(t, r))
		if (got.Lift.Estimate != nil) != c.lift || (got.Lift.Lower != nil) != c.lower || (got.Lift.Upper != nil) != c.upper || got.Lift.Unbounded != c.unbounded {
			t.Errorf("%s: lift %v (%v to %v), unbounded %v", c.name, show(got.Lift.Estimate), show(got.Lift.Lower), show(got.Lift.Upper), got.Lift.Unbounded)
		}
		if tested := c.lower || c.upper; (got.PValue != nil) != tested {
			t.Errorf("%s: p-value %v", c.name, show(got.PValue))
		}
		if c.lower && *got.Lift.Lower < -1 {
			t.Errorf("%s: a lift of %v of what is not negative", c.name, *got.Lift.Lower)
		}
		if notes := strings.Join(got.Notes, " "); !strings.Contains(notes, c.note) || c.note == "" && notes != "" {
			t.Errorf("%s: notes %q, want %q", c.name, got.Notes, c.note)
		}
		if c.unbounded && got.Difference.Upper == nil {
			t.Errorf("%s: the difference lacks a bound", c.name)
		}
	}
}

// TestFewInformativeSubjects: what is judged, by who counts.
func TestFewInformativeSubjects(t *testing.T) {
	// n subjects, of whom so many have numbers around 3, and how often.
	buyers := func(n, b int) Moments {
		m := NewMoments(2)
		for i := range n {
			x := []float64{0, 0}
			if i < b {
				x = []float64{2 + float64(i%5)/2, 1}
			}
			m.Add(x)
		}
		return m
	}
	mean, ratio := ComponentMean(0), ComponentRatio(0, 1)
	rate := func(n, x float64) Moments { return proportion(t, x, int64(n)) }
	for _, c := range []struct {
		name       string
		request    Request
		proportion bool
		judged     bool
	}{
		{"a mean of four against four", Request{Formula: mean, Arms: []Arm{{[]Moments{buyers(100, 4)}}, {[]Moments{buyers(100, 4)}}}}, false, false},
		{"a mean of none against ten", Request{Formula: mean, Arms: []Arm{{[]Moments{buyers(100, 10)}}, {[]Moments{buyers(100, 0)}}}}, false, true},
		{"a mean of ten against ten of a small arm", Request{Formula: mean, Arms: []Arm{{[]Moments{buyers(1000, 10)}}, {[]Moments{buyers(100, 10)}}}}, false, true},
		{"a mean of ten against four of a small arm", Request{Formula: mean, Arms: []Arm{{[]Moments{buyers(1000, 10)}}, {[]Moments{buyers(100, 4)}}}}, false, false},
		{"a ratio of four against forty", Request{Formula: ratio, Arms: []Arm{{[]Moments{buyers(100, 40)}}, {[]Moments{buyers(100, 4)}}}}, false, false},
		{"a ratio of five against forty", Request{Formula: ratio, Arms: []Arm{{[]Moments{buyers(100, 40)}}, {[]Moments{buyers(100, 5)}}}}, false, true},
		{"a rate of 0 against 10", Request{Formula: mean, Arms: []Arm{{[]Moments{rate(500, 10)}}, {[]Moments{rate(500, 0)}}}}, true, true},
		{"a rate of 4 against 5", Request{Formula: mean, Arms: []Arm{{[]Moments{rate(500, 4)}}, {[]Moments{rate(500, 5)}}}}, true, false},
		{"all but 4 and 5", Request{Formula: mean, Arms: []Arm{{[]Moments{rate(500, 496)}}, {[]Moments{rate(500, 495)}}}}, true, false},
		{"the same, of which nobody says that it is a rate", Request{Formula: mean, Arms: []Arm{{[]Moments{rate(500, 496)}}, {[]Moments{rate(500, 495)}}}}, false, false},
	} {
		for _, method := range []Method{FixedHorizon, AlwaysValid, Bayesian} {
			r := c.request
			r.Proportion = c.proportion
			r.Test = Test{Method: method, ConfidenceLevel: 0.95, Prior: Prior{Alpha: 1, Beta: 1}}
			got := mustCompare(t, r).Comparisons[0].Unadjusted
			judged := got.PValue != nil || got.ChanceToWin != nil
			want := c.judged || method == Bayesian && c.proportion // Whose prior carries it.
			if judged != want {
				t.Errorf("%s, method %d: judged %v, notes %q", c.name, method, judged, got.Notes)
			}
			if !want && (got.Difference.Lower != nil || got.Lift.Upper != nil || got.Difference.Estimate == nil || got.Difference.StandardError == nil) {
				t.Errorf("%s, method %d: %+v", c.name, method, got)
			}
		}
	}
}

// TestNormalScore: mpmath, also where no tail can be written.
//
//	tail = lambda t, nu: betainc(nu/2, 0.5, 0, nu/(nu+t*t), regularized=True)/2
//	findroot(lambda z: log(erfc(z/sqrt(2))/2) - log(tail(t, nu)), t)
func TestNormalScore(t *testing.T) {
	for _, c := range [][3]float64{
		{2.0, 5.0, 1.6355228967003491},
		{4.5, 12.5, 3.4067816652774591},
		{0.3, 8.0, 0.2899892238518424},
		{30.0, 7.0, 5.7027574219487769},
		{60.0, 4.0, 5.0414130260296888},
		{80.0, 300.0, 30.506491552298201},
		{50.0, 5000.0, 45.023656657507497},
		{100000.0, 20.0, 19.940726369399354},
		{200.0, 100000.0, 183.43134993564239},
		{39.0, 1000000.0, 38.985172710306442},
	} {
		near(t, "score", normalScore(c[0], c[1]), c[2], 1e-11)
		near(t, "score of the other side", normalScore(-c[0], c[1]), -c[2], 1e-11)
		near(t, "statistic", atNormalScore(c[2], c[1]), c[0], 1e-10)
	}
}

// TestLiftOfSilentTreatment: where the control has 700 events and the treatment none, a
// margin on the lift is judged as it is against one event, by every method that tests, and
// no lift is certain. The two scales still agree on 0.
func TestLiftOfSilentTreatment(t *testing.T) {
	arm := func(events float64, strata int) (a Arm) {
		for range strata {
			a.Strata = append(a.Strata, proportion(t, events/float64(strata), 10_000/int64(strata)))
		}
		return a
	}
	for _, c := range []struct {
		method     Method
		strata     int
		proportion bool
	}{{AlwaysValid, 1, true}, {AlwaysValid, 1, false}, {FixedHorizon, 2, true}, {FixedHorizon, 1, false}} {
		r := Request{
			Formula: ComponentMean(0), Proportion: c.proportion, Guardrail: true, NonNegative: true,
			Arms: []Arm{arm(700, c.strata), arm(0, c.strata)}, Margin: Margin{Relative, 0.1},
			Test: Test{Method: c.method, ConfidenceLevel: 0.95},
		}
		result := mustCompare(t, r)
		soundness(t, r, result)
		got := result.Comparisons[0].Unadjusted
		if got.PValue == nil || *got.PValue > 1e-6 || got.Lift.Upper == nil || *got.Lift.Upper >= 0 || *got.Lift.Upper < -0.995 || *got.Lift.Lower != -1 {
			t.Errorf("%+v: lift %s to %s, p %s, notes %q", c, show(got.Lift.Lower), show(got.Lift.Upper), show(got.PValue), got.Notes)
		}
	}
}

// TestMarginBelowNothing: numbers that are not negative lose at most all. That a lift is
// above −110 % is certain, whatever the arms are, and so says the interval; at −90 %
// it is as the data say, and numbers of either sign can lose more.
func TestMarginBelowNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, method := range []Method{FixedHorizon, AlwaysValid} {
		for _, c := range []struct {
			side        Alternative
			margin      float64
			nonNegative bool
			certain     bool
		}{
			{Greater, -1.1, true, true}, {TwoSided, -1.1, true, true}, {Less, -1.1, true, false}, {Greater, -0.9, true, false},
			{Greater, -1.1, false, false}, {Equivalent, 1.1, true, false},
		} {
			r := simple(sparse(rng, 1200, 0.3, 1), sparse(rng, 240, 0.15, 0.2))
			r.NonNegative, r.Covariates, r.Margin = c.nonNegative, []int{2}, Margin{Relative, c.margin}
			r.Test = Test{Method: method, ConfidenceLevel: 0.999, Alternative: c.side}
			got := mustCompare(t, r).Comparisons[0].Adjusted
			if got.PValue == nil {
				t.Fatalf("%+v: no p-value, notes %q", c, got.Notes)
			}
			excludes := got.Lift.Lower != nil && *got.Lift.Lower > c.margin
			switch c.side {
			case Less:
				excludes = got.Lift.Upper != nil && *got.Lift.Upper < c.margin
			case Equivalent:
				excludes = *got.Lift.Lower > -c.margin && *got.Lift.Upper < c.margin
			}
			if significant := *got.PValue <= 0.001; significant != excludes || (*got.PValue == 0) != c.certain {
				t.Errorf("%+v: p %v, but the interval %s to %s excludes the margin: %t", c, *got.PValue, show(got.Lift.Lower), show(got.Lift.Upper), excludes)
			}
		}
	}
}
