package stats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// twoRates is a reference case of two proportions.
type twoRates struct {
	TreatmentSuccesses float64 `json:"treatment_successes"`
	TreatmentSubjects  int64   `json:"treatment_subjects"`
	ControlSuccesses   float64 `json:"control_successes"`
	ControlSubjects    int64   `json:"control_subjects"`
	Alpha, Beta        float64
}

// request compares the two under a flat prior or the case's own.
func (c twoRates) request(t testing.TB) Request {
	t.Helper()
	r := simple(proportion(t, c.ControlSuccesses, c.ControlSubjects), proportion(t, c.TreatmentSuccesses, c.TreatmentSubjects))
	r.Proportion = true
	r.Test = Test{Method: Bayesian, ConfidenceLevel: 0.95, Prior: Prior{Alpha: 1, Beta: 1}}
	if c.Alpha > 0 {
		r.Test.Prior = Prior{Alpha: c.Alpha, Beta: c.Beta}
	}
	return r
}

func (c twoRates) String() string {
	return fmt.Sprintf("%v of %d against %v of %d", c.TreatmentSuccesses, c.TreatmentSubjects, c.ControlSuccesses, c.ControlSubjects)
}

// proportion is the moments of n subjects, of whom so many are 1 and the others 0.
func proportion(t testing.TB, successes float64, n int64) Moments {
	t.Helper()
	p := successes / float64(n)
	m := Moments{N: n, Means: []float64{p}, Products: []float64{successes * (1 - p)}}
	return m
}

// nearOr is near, or within an absolute error of what has the size of 1: a
// probability below it says nothing more.
func nearOr(t *testing.T, what string, got *float64, want, relative, absolute float64) {
	t.Helper()
	if got == nil {
		t.Errorf("%s is absent, want %v", what, want)
	} else if math.Abs(*got-want) > relative*math.Abs(want)+absolute {
		t.Errorf("%s = %.17g, want %.17g (off by %.2g of it)", what, *got, want, math.Abs(*got/want-1))
	}
}

// TestRatesInClosedForm: Miller's and Stucchio's sums at 50 digits, which are
// integrated here.
func TestRatesInClosedForm(t *testing.T) {
	var file struct {
		Closed []struct {
			twoRates
			Chance, Less, Loss float64
			LossIfLess         float64 `json:"loss_if_less"`
		}
	}
	load(t, "bayes-python.json", &file)
	for _, c := range file.Closed {
		r := c.request(t)
		got := mustCompare(t, r).Comparisons[0].Unadjusted
		nearOr(t, c.String()+": chance", got.ChanceToWin, c.Chance, 1e-9, 1e-16)
		nearOr(t, c.String()+": loss", got.ExpectedLoss, c.Loss, 1e-9, 1e-16)
		r.Test.LessIsBetter = true
		got = mustCompare(t, r).Comparisons[0].Unadjusted
		nearOr(t, c.String()+": chance if less is better", got.ChanceToWin, c.Less, 1e-9, 1e-16)
		nearOr(t, c.String()+": loss if less is better", got.ExpectedLoss, c.LossIfLess, 1e-9, 1e-16)
	}
}

// TestRates: R's integrate over dbeta and pbeta, and uniroot for the bounds.
func TestRates(t *testing.T) {
	var file struct {
		Rates []struct {
			twoRates
			Chance, Less, Margin float64
			BeyondMargin         float64 `json:"beyond_margin"`
			NotWorse             float64 `json:"not_worse"`
			LiftMargin           float64 `json:"lift_margin"`
			BeyondLift           float64 `json:"beyond_lift"`
			NotWorseLift         float64 `json:"not_worse_lift"`
			Loss                 float64
			LossIfLess           float64 `json:"loss_if_less"`
			Lower, Upper         float64
			LiftLower            float64 `json:"lift_lower"`
			LiftUpper            float64 `json:"lift_upper"`
			OneSidedLower        float64 `json:"one_sided_lower"`
			OneSidedUpper        float64 `json:"one_sided_upper"`
		}
	}
	load(t, "bayes-r.json", &file)
	for _, c := range file.Rates {
		t.Run(c.String(), func(t *testing.T) {
			r := c.request(t)
			ask := func(change func(*Request)) Comparison {
				asked := r
				change(&asked)
				return mustCompare(t, asked).Comparisons[0].Unadjusted
			}
			chance := func(what string, margin Margin, want float64) {
				nearOr(t, what, ask(func(r *Request) { r.Margin = margin }).ChanceToWin, want, 1e-6, 1e-13)
			}
			chance("chance", Margin{}, c.Chance)
			chance("beyond the margin", Margin{Value: c.Margin}, c.BeyondMargin)
			chance("not worse by the margin", Margin{Value: -c.Margin}, c.NotWorse)
			chance("beyond the lift", Margin{Relative, c.LiftMargin}, c.BeyondLift)
			chance("not worse by the lift", Margin{Relative, -c.LiftMargin}, c.NotWorseLift)
			both := ask(func(r *Request) { r.Test.Alternative, r.Margin = Equivalent, Margin{Value: c.Margin} })
			nearOr(t, "equivalent", both.ChanceToWin, c.NotWorse-c.BeyondMargin, 1e-6, 1e-10)
			less := ask(func(r *Request) { r.Test.LessIsBetter = true })
			nearOr(t, "chance if less is better", less.ChanceToWin, c.Less, 1e-6, 1e-13)
			nearOr(t, "loss if less is better", less.ExpectedLoss, c.LossIfLess, 1e-6, 1e-16)

			got := ask(func(*Request) {})
			nearOr(t, "loss", got.ExpectedLoss, c.Loss, 1e-6, 1e-16)
			nearOr(t, "lower", got.Difference.Lower, c.Lower, 1e-6, 0)
			nearOr(t, "upper", got.Difference.Upper, c.Upper, 1e-6, 0)
			nearOr(t, "lower of the lift", got.Lift.Lower, c.LiftLower, 1e-6, 0)
			nearOr(t, "upper of the lift", got.Lift.Upper, c.LiftUpper, 1e-6, 0)
			above := ask(func(r *Request) { r.Test.Alternative, r.Test.ConfidenceLevel = Greater, 0.9 })
			nearOr(t, "one-sided lower", above.Difference.Lower, c.OneSidedLower, 1e-6, 0)
			below := ask(func(r *Request) { r.Test.Alternative, r.Test.ConfidenceLevel = Less, 0.9 })
			nearOr(t, "one-sided upper", below.Difference.Upper, c.OneSidedUpper, 1e-6, 0)
			if above.Difference.Upper != nil || below.Difference.Lower != nil || got.PValue != nil || got.Statistic != nil {
				t.Errorf("there is a bound, a statistic or a p-value too many: %+v", got)
			}
		})
	}
}

// TestRatesWithoutAPeak: mpmath's quadrature, with a subject or two.
func TestRatesWithoutAPeak(t *testing.T) {
	var file struct {
		Halves []struct {
			twoRates
			Chance, Margin float64
			BeyondMargin   float64 `json:"beyond_margin"`
			NotWorse       float64 `json:"not_worse"`
			Lower, Upper   float64
			LiftLower      float64 `json:"lift_lower"`
			LiftUpper      float64 `json:"lift_upper"`
		}
	}
	load(t, "bayes-python.json", &file)
	for _, c := range file.Halves {
		r := c.request(t)
		r.Test.ConfidenceLevel = 0.8
		got := mustCompare(t, r).Comparisons[0].Unadjusted
		nearOr(t, c.String()+": chance", got.ChanceToWin, c.Chance, 1e-6, 0)
		nearOr(t, c.String()+": lower", got.Difference.Lower, c.Lower, 1e-6, 0)
		nearOr(t, c.String()+": upper", got.Difference.Upper, c.Upper, 1e-6, 0)
		nearOr(t, c.String()+": lower of the lift", got.Lift.Lower, c.LiftLower, 1e-6, 0)
		nearOr(t, c.String()+": upper of the lift", got.Lift.Upper, c.LiftUpper, 1e-6, 0)
		r.Margin.Value = c.Margin
		nearOr(t, c.String()+": beyond the margin", mustCompare(t, r).Comparisons[0].Unadjusted.ChanceToWin, c.BeyondMargin, 1e-6, 0)
		r.Margin.Value = -c.Margin
		nearOr(t, c.String()+": not worse", mustCompare(t, r).Comparisons[0].Unadjusted.ChanceToWin, c.NotWorse, 1e-6, 0)
	}
}

// TestNormalPosterior: the conjugate update in R, and integrate for the loss.
func TestNormalPosterior(t *testing.T) {
	var file struct {
		Normal []struct {
			Estimate, SE, Unit, Level, Null, Margin        float64
			PriorMean                                      float64 `json:"prior_mean"`
			PriorSD                                        float64 `json:"prior_sd"`
			Mean, Lower, Upper, Above, Below, Within, Loss float64
			LossIfLess                                     float64 `json:"loss_if_less"`
		}
	}
	load(t, "bayes-r.json", &file)
	for i, c := range file.Normal {
		test := Test{Method: Bayesian, ConfidenceLevel: c.Level, Prior: Prior{Alpha: 1, Beta: 1, LiftMean: c.PriorMean, LiftDeviation: c.PriorSD}}
		e := Evidence{Estimate: c.Estimate, StandardError: c.SE, LiftUnit: c.Unit}
		what := fmt.Sprintf("%d: ", i)
		got := test.Infer(e, c.Null)
		nearOr(t, what+"mean", got.Estimate, c.Mean, 1e-9, 1e-15)
		nearOr(t, what+"lower", got.Lower, c.Lower, 1e-9, 0)
		nearOr(t, what+"upper", got.Upper, c.Upper, 1e-9, 0)
		nearOr(t, what+"above", got.ChanceToWin, c.Above, 1e-9, 0)
		nearOr(t, what+"loss", got.ExpectedLoss, c.Loss, 1e-9, 0)
		test.LessIsBetter = true
		got = test.Infer(e, c.Null)
		nearOr(t, what+"below", got.ChanceToWin, c.Below, 1e-9, 0)
		nearOr(t, what+"loss if less is better", got.ExpectedLoss, c.LossIfLess, 1e-9, 0)
		test.Alternative = Equivalent
		nearOr(t, what+"within", test.Infer(e, c.Margin).ChanceToWin, c.Within, 1e-9, 0)
	}
}

// TestBayesianPower: uniroot for the estimates from which on R's posterior is sure
// enough, and pnorm.
func TestBayesianPower(t *testing.T) {
	var file struct {
		Power []struct {
			Subjects                                  int64
			Control, Deviation, Effect, Level, Margin float64
			PriorMean                                 float64 `json:"prior_mean"`
			PriorSD                                   float64 `json:"prior_sd"`
			TwoSided                                  float64 `json:"two_sided"`
			Greater, Less, Equivalent                 float64
		}
	}
	load(t, "bayes-r.json", &file)
	for i, c := range file.Power {
		for _, side := range []struct {
			alternative  Alternative
			margin, want float64
		}{{TwoSided, 0, c.TwoSided}, {Greater, -c.Margin, c.Greater}, {Less, c.Margin, c.Less}, {Equivalent, c.Margin, c.Equivalent}} {
			d := Design{
				Test: Test{
					Method: Bayesian, ConfidenceLevel: c.Level, Alternative: side.alternative,
					Prior: Prior{Alpha: 1, Beta: 1, LiftMean: c.PriorMean, LiftDeviation: c.PriorSD},
				},
				Margin: Margin{Value: side.margin}, Control: c.Control, Deviation: c.Deviation, Shares: []float64{0.5, 0.5},
			}
			got := d.Power(c.Effect, c.Subjects)
			nearOr(t, fmt.Sprintf("%d, alternative %d: power", i, side.alternative), &got, side.want, 1e-9, 1e-12)
		}
	}
}

// drawRates are two rates of any size and a prior.
func drawRates(t testing.TB, rng *rand.Rand) Request {
	draw := func() (float64, int64) {
		n := int64(math.Exp(14 * rng.Float64()))
		return math.Round(float64(n) * rng.Float64() * []float64{1, 0.1, 0.001}[rng.IntN(3)]), n
	}
	var c twoRates
	c.TreatmentSuccesses, c.TreatmentSubjects = draw()
	c.ControlSuccesses, c.ControlSubjects = draw()
	c.Alpha, c.Beta = 0.5+rng.ExpFloat64(), 0.5+rng.ExpFloat64()
	r := c.request(t)
	r.Test.ConfidenceLevel = 0.5 + 0.499*rng.Float64()
	return r
}

// TestRatesSwapped: with the arms swapped, everything turns round. With successes
// and failures swapped, so does the difference.
func TestRatesSwapped(t *testing.T) {
	rng := rand.New(rand.NewPCG(41, 42))
	for range 300 {
		r := drawRates(t, rng)
		r.Margin.Value = 0.1 * rng.NormFloat64()
		swapped, mirrored := r, r
		swapped.Arms, swapped.Margin.Value, swapped.Test.LessIsBetter = []Arm{r.Arms[1], r.Arms[0]}, -r.Margin.Value, true
		mirrored.Margin.Value, mirrored.Test.LessIsBetter = -r.Margin.Value, true
		mirrored.Test.Prior.Alpha, mirrored.Test.Prior.Beta = r.Test.Prior.Beta, r.Test.Prior.Alpha
		mirrored.Arms = nil
		for _, arm := range r.Arms {
			m := arm.Strata[0].clone()
			m.Means[0] = 1 - m.Means[0]
			mirrored.Arms = append(mirrored.Arms, Arm{[]Moments{m}})
		}
		a := mustCompare(t, r).Comparisons[0].Unadjusted
		for what, other := range map[string]Request{"swapped": swapped, "mirrored": mirrored} {
			b := mustCompare(t, other).Comparisons[0].Unadjusted
			unit := *a.Difference.Upper - *a.Difference.Lower
			nearOr(t, what+" chance", b.ChanceToWin, *a.ChanceToWin, 1e-7, 1e-9)
			nearOr(t, what+" loss", b.ExpectedLoss, *a.ExpectedLoss, 1e-7, 1e-9*unit)
			nearOr(t, what+" lower", b.Difference.Lower, -*a.Difference.Upper, 1e-7, 1e-7*unit)
			nearOr(t, what+" upper", b.Difference.Upper, -*a.Difference.Lower, 1e-7, 1e-7*unit)
			nearOr(t, what+" estimate", b.Difference.Estimate, -*a.Difference.Estimate, 1e-9, 1e-9*unit)
			if what == "swapped" {
				nearOr(t, "swapped lift", b.Lift.Lower, 1/(1+*a.Lift.Upper)-1, 1e-6, 1e-9)
			}
		}
		if t.Failed() {
			t.Fatalf("%+v", r)
		}
	}
}

// TestCredibleIntervalsAgree: beyond each bound lies as much probability as the
// level says, on both scales, for rates and by the normal posterior. A margin put
// on the bound has it for a chance to win.
func TestCredibleIntervalsAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(43, 44))
	for i := range 300 {
		r := drawRates(t, rng)
		if i%2 == 1 {
			r = drawRequest(rng)
			r.Test.Method, r.Test.Schedule = Bayesian, nil
			r.Test.Prior = Prior{Alpha: 1, Beta: 1, LiftMean: 0.1 * rng.NormFloat64(), LiftDeviation: float64(i/2%2) * rng.ExpFloat64()}
		}
		r.Test.Alternative, r.Margin = TwoSided, Margin{Scale: Scale(i / 4 % 2)}
		r.Test.LessIsBetter = i/8%2 == 0
		alpha := 1 - r.Test.ConfidenceLevel
		effect := func(c Comparison) Effect {
			if r.Margin.Scale == Relative {
				return c.Lift
			}
			return c.Difference
		}
		ask := func(change func(*Request)) Comparison {
			asked := r
			change(&asked)
			return mustCompare(t, asked).Comparisons[0].Unadjusted
		}
		both := effect(ask(func(*Request) {}))
		for _, c := range []struct {
			bound *float64
			above float64
		}{{both.Lower, 1 - alpha/2}, {both.Upper, alpha / 2}} {
			want := c.above
			if r.Test.LessIsBetter {
				want = 1 - c.above
			}
			at := ask(func(r *Request) { r.Margin.Value = *c.bound })
			nearOr(t, fmt.Sprintf("%d: chance at the bound %v", i, *c.bound), at.ChanceToWin, want, 1e-6, 1e-9)
		}
		for alternative, want := range map[Alternative]Effect{Greater: {Lower: both.Lower}, Less: {Upper: both.Upper}} {
			c := ask(func(r *Request) { r.Test.Alternative, r.Test.ConfidenceLevel = alternative, 1-alpha/2 })
			if got := effect(c); (got.Lower == nil) != (want.Lower == nil) || (got.Upper == nil) != (want.Upper == nil) {
				t.Errorf("%d: one-sided interval %v to %v", i, show(got.Lower), show(got.Upper))
			} else if want.Lower != nil {
				nearOr(t, "one-sided lower", got.Lower, *want.Lower, 1e-9, 1e-12)
			} else {
				nearOr(t, "one-sided upper", got.Upper, *want.Upper, 1e-9, 1e-12)
			}
		}
		margin := math.Abs(*both.Estimate)/2 + 1e-3*rng.ExpFloat64()
		within := ask(func(r *Request) { r.Test.Alternative, r.Margin.Value = Equivalent, margin })
		above := ask(func(r *Request) { r.Test.Alternative, r.Margin.Value = Greater, -margin })
		beyond := ask(func(r *Request) { r.Test.Alternative, r.Margin.Value = Greater, margin })
		nearOr(t, fmt.Sprintf("%d: chance to be within ±%v", i, margin), within.ChanceToWin, *above.ChanceToWin-*beyond.ChanceToWin, 1e-6, 1e-8)
		if t.Failed() {
			t.Fatalf("%+v", r)
		}
	}
}

// TestBayesianUnits: in other units the difference and what is lost scale, and
// the lift and the chance to win stay.
func TestBayesianUnits(t *testing.T) {
	rng := rand.New(rand.NewPCG(45, 46))
	for range 100 {
		r := drawRequest(rng)
		r.Test = Test{Method: Bayesian, ConfidenceLevel: r.Test.ConfidenceLevel, Prior: Prior{Alpha: 1, Beta: 1, LiftMean: 0.05, LiftDeviation: 0.1}}
		r.Margin = Margin{}
		factor := math.Exp(20 * rng.NormFloat64())
		before, after := mustCompare(t, r).Comparisons[0].Adjusted, mustCompare(t, r.transformed(0, factor, 0)).Comparisons[0].Adjusted
		near(t, "scaled estimate", *after.Difference.Estimate, *before.Difference.Estimate*factor, 1e-7)
		near(t, "scaled loss", *after.ExpectedLoss, *before.ExpectedLoss*factor, 1e-7)
		near(t, "lift", *after.Lift.Upper, *before.Lift.Upper, 1e-7)
		near(t, "chance", *after.ChanceToWin, *before.ChanceToWin, 1e-7)
	}
}

// TestPriorDraws: the narrower the prior the nearer the posterior is to it, on both
// scales; with none the estimate is the data's.
func TestPriorDraws(t *testing.T) {
	r := simple(column([]float64{9, 10, 11, 10, 9, 11}), column([]float64{11, 12, 13, 12, 11, 13}))
	data := mustCompare(t, r).Comparisons[0].Unadjusted
	r.Test = Test{Method: Bayesian, ConfidenceLevel: 0.95, Prior: Prior{Alpha: 1, Beta: 1}}
	got := mustCompare(t, r).Comparisons[0].Unadjusted
	near(t, "flat", *got.Difference.Estimate, *data.Difference.Estimate, 1e-15)
	near(t, "flat lift", *got.Lift.Estimate, *data.Lift.Estimate, 1e-15)
	last := *got.Difference.Estimate
	for _, deviation := range []float64{1, 0.1, 0.01, 1e-6} {
		r.Test.Prior.LiftDeviation = deviation
		got = mustCompare(t, r).Comparisons[0].Unadjusted
		if now := *got.Difference.Estimate; !(now < last && now > 0) {
			t.Errorf("with a prior deviation of %v the difference is %v, after %v", deviation, now, last)
		}
		last = *got.Difference.Estimate
		near(t, "standard error", *got.Difference.StandardError, *data.Difference.StandardError, 1e-15)
	}
	if math.Abs(last) > 1e-5 || math.Abs(*got.Lift.Estimate) > 1e-6 {
		t.Errorf("with hardly any doubt of no effect the difference is %v, the lift %v", last, *got.Lift.Estimate)
	}
}

// TestBayesianNasty: what is absent, and what the note says.
func TestBayesianNasty(t *testing.T) {
	varied := column([]float64{1, 2, 3, 4, 7})
	for _, c := range []struct {
		name               string
		control, treatment Moments
		proportion         bool
		prior              Prior
		covered            bool // Bounds and a chance to win.
		note               string
	}{
		{"no conversions", proportion(t, 0, 100), proportion(t, 0, 90), true, Prior{Alpha: 1, Beta: 1}, true, ""},
		{"one subject", proportion(t, 1, 1), proportion(t, 0, 1), true, Prior{Alpha: 0.5, Beta: 0.5}, true, "only one subject, which has no variance: no standard error"},
		{"vague and one-sided", proportion(t, 9, 9), proportion(t, 9, 9), true, Prior{Alpha: 0.1, Beta: 0.1}, true, ""},
		{"as many as can be", proportion(t, 1e14, 1e15), proportion(t, 1e14+1e8, 1e15), true, Prior{Alpha: 1, Beta: 1}, true, ""},
		{"no subjects", NewMoments(1), proportion(t, 9, 10), true, Prior{Alpha: 1, Beta: 1}, false, "nothing to compare"},
		{"no proportion", varied, varied, true, Prior{Alpha: 1, Beta: 1}, false, "here it does not"},
		{"no variance", column([]float64{2, 2, 2, 2, 2}), column([]float64{3, 3, 3, 3, 3}), false, Prior{Alpha: 1, Beta: 1}, false, "The variance is zero"},
		{"baseline zero", column([]float64{-1, 1, -2, 2, -1, 1}), varied, false, Prior{Alpha: 1, Beta: 1, LiftDeviation: 0.1}, false, "by which the prior of the lift is scaled"},
		{"baseline zero, nothing believed", column([]float64{-1, 1, -2, 2, -1, 1}), varied, false, Prior{Alpha: 1, Beta: 1}, true, "there is no lift"},
	} {
		r := simple(c.control, c.treatment)
		r.Test = Test{Method: Bayesian, ConfidenceLevel: 0.95, Prior: c.prior}
		r.Proportion = c.proportion
		result := mustCompare(t, r)
		soundness(t, r, result)
		got := result.Comparisons[0].Unadjusted
		if covered := got.ChanceToWin != nil && got.Difference.Lower != nil && got.Difference.Upper != nil; covered != c.covered {
			t.Errorf("%s: %+v", c.name, got)
		}
		if !strings.Contains(strings.Join(got.Notes, " "), c.note) || c.note == "" && len(got.Notes) > 0 {
			t.Errorf("%s: notes %q, want %q", c.name, got.Notes, c.note)
		}
	}
}

// TestRatesNeedPlainData: covariates and strata take a proportion to the normal
// posterior, which says so.
func TestRatesNeedPlainData(t *testing.T) {
	rng := rand.New(rand.NewPCG(47, 48))
	for name, change := range map[string]func(*Request){
		"covariate": func(r *Request) { r.Covariates = []int{1} },
		"strata": func(r *Request) {
			for a := range r.Arms {
				r.Arms[a].Strata = append(r.Arms[a].Strata, r.Arms[a].Strata[0])
			}
		},
	} {
		r := Request{Formula: ComponentMean(0), Proportion: true, Test: Test{Method: Bayesian, ConfidenceLevel: 0.95, Prior: Prior{Alpha: 1, Beta: 1}}}
		for range 2 {
			m := NewMoments(2)
			for range 200 {
				m.Add([]float64{float64(rng.IntN(2)), rng.NormFloat64()})
			}
			r.Arms = append(r.Arms, Arm{[]Moments{m}})
		}
		exact := mustCompare(t, r).Comparisons[0].Unadjusted
		change(&r)
		got := mustCompare(t, r).Comparisons[0]
		if len(exact.Notes) > 0 || len(got.Unadjusted.Notes) != 1 || !strings.Contains(got.Unadjusted.Notes[0], "normal posterior") {
			t.Errorf("%s: notes %q, without it %q", name, got.Unadjusted.Notes, exact.Notes)
		}
		if got.Adjusted != nil && got.Adjusted.ChanceToWin == nil {
			t.Errorf("%s: no chance to win", name)
		}
	}
}

func TestPriorsRefused(t *testing.T) {
	for _, c := range []struct {
		prior Prior
		want  string
	}{
		{Prior{Alpha: 0.09, Beta: 1}, "prior.alpha: it lies between 0.1 and 1e+09, and 0.09 does not"},
		{Prior{Alpha: 1, Beta: math.NaN()}, "prior.beta: it lies between 0.1 and 1e+09, and NaN does not"},
		{Prior{Alpha: 1, Beta: 1, LiftMean: math.Inf(1)}, "prior.lift_mean: it is not a finite number"},
		{Prior{Alpha: 1, Beta: 1, LiftDeviation: -1}, "prior.lift_standard_deviation: it is a finite number and not negative, and -1 is not"},
	} {
		r := simple(proportion(t, 1, 10), proportion(t, 2, 10))
		r.Test = Test{Method: Bayesian, ConfidenceLevel: 0.95, Prior: c.prior}
		if _, err := Compare(r); err == nil || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

// BenchmarkBayesian counts cells: one metric, one treatment against the control.
func BenchmarkBayesian(b *testing.B) {
	for _, c := range []struct {
		name string
		twoRates
	}{
		{"few", twoRates{3, 40, 5, 42, 1, 1}}, {"thousands", twoRates{1100, 10_000, 1000, 10_000, 1, 1}},
		{"a billion", twoRates{130, 1e9, 100, 1e9, 1, 1}}, {"one side", twoRates{110, 1000, 99_000, 999_000, 1, 1}},
	} {
		for _, normal := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/normal=%v", c.name, normal), func(b *testing.B) {
				r := c.request(b)
				r.Proportion = !normal
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Compare(r); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "cells/s")
			})
		}
	}
}
