package stats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// plannedCase is a row of reference numbers for one power.
type plannedCase struct {
	Call                     string
	Subjects                 int64
	Control, Treatment       float64 // Subjects of the two arms.
	Effect, Deviation, Alpha float64
	Margin, Power, Smallest  float64
	Critical, Lower, Upper   float64
	Degrees                  float64
	Alternative              Alternative
	Looks                    int
	Spending                 Spending
	Expected, Size           float64
}

// plannedLooks are equally spaced.
func plannedLooks(t *testing.T, spending Spending, n int) *Schedule {
	t.Helper()
	looks := make([]Look, n)
	for i := range looks {
		at := float64(i+1) / float64(n)
		looks[i] = Look{at, at}
	}
	s, err := NewSchedule(spending, looks)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// design is the row's comparison of two arms.
func (c plannedCase) design(method Method) (d Design, subjects int64) {
	d = Design{
		Test:      Test{Method: method, ConfidenceLevel: 1 - c.Alpha, Alternative: c.Alternative},
		Deviation: 1, Shares: []float64{0.5, 0.5},
	}
	if c.Deviation != 0 {
		d.Deviation = c.Deviation
	}
	subjects = c.Subjects
	if subjects == 0 {
		subjects = int64(c.Control + c.Treatment)
		d.Shares = []float64{c.Control / float64(subjects), c.Treatment / float64(subjects)}
	}
	return d, subjects
}

// TestNoncentral: mpmath at 30 digits, from one degree of freedom to 1e12.
func TestNoncentral(t *testing.T) {
	var file struct{ Noncentral []plannedCase }
	load(t, "power-python.json", &file)
	for _, c := range file.Noncentral {
		o := outlook{lower: c.Lower, upper: c.Upper, critical: c.Critical, degrees: c.Degrees}
		near(t, fmt.Sprintf("alternative %d of %+v", c.Alternative, o), o.power(c.Alternative), c.Power, 1e-11)
	}
}

// TestPowerOfArms: R's power.t.test, R's formula for arms of different sizes, and
// statsmodels.
func TestPowerOfArms(t *testing.T) {
	var r struct{ Arms, Unequal []plannedCase }
	var python struct{ Independent []plannedCase }
	load(t, "power.json", &r)
	load(t, "power-python.json", &python)
	for _, cases := range [][]plannedCase{r.Arms, r.Unequal, python.Independent} {
		for _, c := range cases {
			d, subjects := c.design(FixedHorizon)
			near(t, fmt.Sprintf("%+v", c), d.Power(c.Effect, subjects), c.Power, 1e-9)
		}
	}
}

// TestPowerOfEquivalence: Owen's integral, by R.
func TestPowerOfEquivalence(t *testing.T) {
	var file struct{ Equivalence []plannedCase }
	load(t, "power.json", &file)
	for _, c := range file.Equivalence {
		d, subjects := c.design(FixedHorizon)
		d.Test.Alternative, d.Margin.Value = Equivalent, c.Margin
		near(t, fmt.Sprintf("%+v", c), d.Power(c.Effect, subjects), c.Power, 1e-9)
	}
}

// TestPowerOfAlwaysValid: the published boundary at the planned subjects, in
// mpmath.
func TestPowerOfAlwaysValid(t *testing.T) {
	var file struct{ Always []plannedCase }
	load(t, "power-python.json", &file)
	for _, c := range file.Always {
		d, subjects := c.design(AlwaysValid)
		near(t, fmt.Sprintf("%+v", c), d.Power(c.Effect, subjects), c.Power, 1e-9)
	}
}

// TestPowerOfLooks: rpact, whose boundaries are iterated.
func TestPowerOfLooks(t *testing.T) {
	var file struct{ Looks, LookSizes []plannedCase }
	load(t, "power.json", &file)
	for _, c := range file.Looks {
		d, subjects := c.design(GroupSequential)
		d.Test.Schedule = plannedLooks(t, c.Spending, c.Looks)
		near(t, fmt.Sprintf("%+v", c), d.Power(c.Effect, subjects), c.Power, 1e-6)
		expected, ok := d.Expected(c.Effect, subjects)
		if !ok {
			t.Fatalf("%+v: no expected subjects", c)
		}
		near(t, fmt.Sprintf("subjects on average in %+v", c), expected, c.Expected, 1e-6)
	}
	for _, c := range file.LookSizes {
		c.Subjects = 2
		d, _ := c.design(GroupSequential)
		d.Test.Schedule = plannedLooks(t, c.Spending, c.Looks)
		if subjects, ok := d.Subjects(c.Effect, c.Power); !ok || subjects != int64(math.Ceil(c.Size)) {
			t.Errorf("%+v: %d subjects", c, subjects)
		}
	}
}

// TestLooksAndNormal: one look has the power of a test with known variance, also
// on the wrong side and downwards, and an early look that spends nothing that can
// be written changes nothing.
func TestLooksAndNormal(t *testing.T) {
	for _, alternative := range []Alternative{TwoSided, Greater, Less} {
		d := Design{
			Test:      Test{Method: GroupSequential, ConfidenceLevel: 0.99, Alternative: alternative, Schedule: plannedLooks(t, OBrienFleming, 1)},
			Deviation: 1, Shares: []float64{0.5, 0.5},
		}
		idle := d
		var err error
		if idle.Test.Schedule, err = NewSchedule(OBrienFleming, []Look{{1e-4, 1e-4}, {1, 1}}); err != nil {
			t.Fatal(err)
		}
		for _, effect := range []float64{-2, -0.4, -0.1, 0, 0.1, 0.4, 2} {
			known := outlook{lower: effect * 5, upper: effect * 5, critical: normalUpperQuantile(0.01), degrees: math.Inf(1)}
			if alternative == TwoSided {
				known.critical = normalUpperQuantile(0.005)
			}
			want := known.power(alternative)
			for _, d := range []Design{d, idle} {
				if got := d.Power(effect, 100); math.Abs(got-want) > 1e-12 {
					t.Errorf("alternative %d, effect %v: power %v, want %v", alternative, effect, got, want)
				}
			}
			if n, _ := idle.Expected(effect, 100); n != 100 {
				t.Errorf("alternative %d, effect %v: %v of 100 subjects on average", alternative, effect, n)
			}
		}
	}
}

// TestPowerOfSeveralArms: the treatment with the fewest subjects, here 200 of
// 1,000, is compared with the control's 300 at a third of the error rate, by the
// boundary of a test that was planned for the mean of the pairs.
func TestPowerOfSeveralArms(t *testing.T) {
	const subjects, effect = 1000, 0.3
	shares := []float64{0.3, 0.21, 0.2, 0.29}
	for _, method := range []Method{FixedHorizon, AlwaysValid, GroupSequential} {
		d := Design{Test: Test{Method: method, ConfidenceLevel: 0.94, Schedule: plannedLooks(t, Pocock, 3)}, Deviation: 1, Shares: shares}
		theta := effect / math.Sqrt(1/300.0+1/200.0)
		want := 0.0
		if method != AlwaysValid {
			pair := d
			pair.Test.ConfidenceLevel, pair.Shares = 0.98, []float64{0.6, 0.4}
			want = pair.Power(effect, 500)
		} else {
			c := mixtureCritical(0.02, Test{ConfidenceLevel: 0.94, PlannedSubjects: 533}.intrinsicTime(500))
			want = normalUpperTail(c-theta) + normalUpperTail(c+theta)
		}
		near(t, fmt.Sprintf("power by method %d", method), d.Power(effect, subjects), want, 1e-12)
	}
}

// TestSizes: R solves for the subjects and for the smallest effect.
func TestSizes(t *testing.T) {
	var file struct{ Sizes []plannedCase }
	load(t, "power.json", &file)
	for _, c := range file.Sizes {
		d, _ := c.design(FixedHorizon)
		if subjects, ok := d.Subjects(c.Effect, c.Power); !ok || subjects != c.Subjects {
			t.Errorf("%+v: %d subjects", c, subjects)
		}
		effect, ok := d.Effect(c.Power, c.Subjects, false)
		if !ok {
			t.Errorf("%+v: no effect", c)
		}
		near(t, fmt.Sprintf("effect of %+v", c), effect, c.Smallest, 1e-9)
	}
}

// TestMarginOnTheScaleOfTheLift: a relative margin is planned to lie where the
// comparison's test will find it.
func TestMarginOnTheScaleOfTheLift(t *testing.T) {
	const subjects = 100_000
	for _, control := range []float64{10, -10} {
		d := Design{
			Test:   Test{Method: FixedHorizon, ConfidenceLevel: 0.95, Alternative: Greater},
			Margin: Margin{Relative, -0.05}, Control: control, Deviation: 30, Shares: []float64{0.3, 0.7},
		}
		const effect = 1.5
		var arms []Moments
		for i, n := range []float64{30_000, 70_000} {
			arms = append(arms, summarised(t, [3]float64{n, control + effect*float64(i), 900}))
		}
		r := simple(arms[0], arms[1])
		r.Test, r.Margin = d.Test, d.Margin
		near(t, "expected statistic", d.outlook(effect, subjects).lower, *mustCompare(t, r).Comparisons[0].Unadjusted.Statistic, 1e-9)
	}
}

// TestRatesWithWeakPrior: next to no prior makes no difference to many subjects,
// also with a margin of the lift, and a strong one draws rates together.
func TestRatesWithWeakPrior(t *testing.T) {
	const effect, subjects = 1e-5, 20_000_000_000
	for _, margin := range []Margin{{}, {Relative, -2e-5}, {Absolute, 2e-6}} {
		d := Design{
			Test:   Test{Method: Bayesian, ConfidenceLevel: 0.95, Alternative: Greater},
			Margin: margin, Control: 0.2, Deviation: 0.4, Proportion: true, Shares: []float64{0.4, 0.6},
		}
		flat := d.Power(effect, subjects)
		if flat < 0.1 || flat > 0.9 {
			t.Errorf("%+v: power %v says little", margin, flat)
		}
		d.Test.Prior = Prior{Alpha: 1e-3, Beta: 1e-3}
		near(t, "power with a weak prior", d.Power(effect, subjects), flat, 1e-6)
		d.Test.Prior = Prior{Alpha: 2e9, Beta: 8e9}
		if strong := d.Power(effect, subjects); margin.Value >= 0 && strong >= flat {
			t.Errorf("%+v: power %v with a strong prior, %v without", margin, strong, flat)
		}
	}
}

// drawDesign is some plan and an effect that it may be asked about.
func drawDesign(rng *rand.Rand) (d Design, effect float64) {
	d = Design{
		Test: Test{
			Method:          FixedHorizon + Method(rng.IntN(2)),
			ConfidenceLevel: 0.6 + 0.3999*rng.Float64(),
			Alternative:     Alternative(rng.IntN(4)),
		},
		Deviation: math.Exp(5 * rng.NormFloat64()),
	}
	d.Control = d.Deviation * rng.NormFloat64()
	total := 0.0
	for range 2 + rng.IntN(3) {
		d.Shares = append(d.Shares, 0.1+rng.Float64())
		total += d.Shares[len(d.Shares)-1]
	}
	for i := range d.Shares {
		d.Shares[i] /= total
	}
	effect = d.Deviation * (0.1 + 0.3*rng.Float64())
	switch d.Test.Alternative {
	case Less:
		effect = -effect
	case Equivalent:
		d.Margin.Value, effect = effect, effect*(rng.Float64()-0.5)
	}
	if rng.IntN(2) == 0 && d.Test.Alternative != Equivalent {
		d.Proportion, d.Control = true, 0.1+0.8*rng.Float64()
		d.Deviation = math.Sqrt(d.Control * (1 - d.Control))
		effect = math.Copysign(min(math.Abs(effect), 0.09)/(1+9*rng.Float64()), effect)
	}
	return d, effect
}

// TestSizesAreConsistent: the answer to each of the three questions is the
// smallest one, and agrees with the answers to the others.
func TestSizesAreConsistent(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	for range 150 {
		d, effect := drawDesign(rng)
		power := 0.5 + 0.49*rng.Float64()
		subjects, ok := d.Subjects(effect, power)
		if !ok {
			t.Fatalf("%+v, effect %v, power %v: no size", d, effect, power)
		}
		if got := d.Power(effect, subjects); got < power {
			t.Errorf("%+v, effect %v: %d subjects have power %v, not %v", d, effect, subjects, got, power)
		}
		if fewest, _ := d.Fewest(); subjects > fewest && d.Power(effect, subjects-1) >= power {
			t.Errorf("%+v, effect %v: %d subjects are one too many for power %v", d, effect, subjects, power)
		}
		if d.Power(effect, 2*subjects) < d.Power(effect, subjects) {
			t.Errorf("%+v, effect %v: power falls beyond %d subjects", d, effect, subjects)
		}
		if d.Test.Alternative == Equivalent {
			continue
		}
		size, ok := d.Effect(power, subjects, effect < 0)
		if !ok || size > math.Abs(effect)*(1+1e-12) {
			t.Errorf("%+v: %d subjects have power %v for %v, but not below %v", d, subjects, power, effect, size)
		}
		near(t, "power at the smallest effect", d.Power(math.Copysign(size, effect), subjects), power, 1e-9)
		if d.Power(math.Copysign(size*0.999, effect), subjects) >= power {
			t.Errorf("%+v: %v is not the smallest effect", d, size)
		}
	}
}

// TestEverySizeIsFound: the smallest size with the power of n subjects is n.
func TestEverySizeIsFound(t *testing.T) {
	d := Design{Test: Test{Method: FixedHorizon, ConfidenceLevel: 0.95}, Deviation: 1, Shares: []float64{0.5, 0.5}}
	for n := int64(4); n < 70; n++ {
		if got, ok := d.Subjects(0.7, d.Power(0.7, n)); !ok || got != n {
			t.Errorf("%d subjects have the power of %d", got, n)
		}
	}
}

// TestPowerBySymmetry: what is better up and what is better down are planned
// alike, equal variances do not care which arm is the larger, and other units
// change nothing.
func TestPowerBySymmetry(t *testing.T) {
	rng := rand.New(rand.NewPCG(33, 34))
	mirror := []Alternative{TwoSided: TwoSided, Greater: Less, Less: Greater, Equivalent: Equivalent}
	for range 200 {
		d, effect := drawDesign(rng)
		subjects := 50 + rng.Int64N(5000)
		power := d.Power(effect, subjects)
		if !(power >= 0 && power <= 1) {
			t.Errorf("%+v: power %v", d, power)
		}
		other := d
		other.Test.Alternative = mirror[d.Test.Alternative]
		if d.Proportion {
			other.Control = 1 - d.Control
		} else {
			other.Control = -d.Control
		}
		near(t, "power upside down", other.Power(-effect, subjects), power, 1e-9)
		if d.Proportion {
			continue
		}
		scaled := d
		scaled.Control, scaled.Deviation, scaled.Margin.Value = 1e6*d.Control, 1e6*d.Deviation, 1e6*d.Margin.Value
		near(t, "power in other units", scaled.Power(1e6*effect, subjects), power, 1e-9)
		if len(d.Shares) == 2 {
			swapped := d
			swapped.Shares = []float64{d.Shares[1], d.Shares[0]}
			near(t, "power with the weights swapped", swapped.Power(effect, subjects), power, 1e-9)
		}
	}
}

// TestUnreachable: what cannot be found with any number of subjects, or by any
// effect, is not answered.
func TestUnreachable(t *testing.T) {
	d := Design{Test: Test{Method: FixedHorizon, ConfidenceLevel: 0.95}, Control: 0.9, Deviation: 0.3, Proportion: true, Shares: []float64{0.5, 0.5}}
	if n, ok := d.Subjects(1e-9, 0.8); ok {
		t.Errorf("an effect of 1e-9 is found by %d subjects", n)
	}
	if size, ok := d.Effect(0.8, 10, false); ok {
		t.Errorf("10 subjects find a rise of %v from 0.9", size)
	}
	if size, ok := d.Effect(0.8, 60, true); !ok || size > 0.9 {
		t.Errorf("60 subjects find no fall from 0.9: %v", size)
	}
	d.Test.Alternative, d.Margin.Value, d.Proportion = Equivalent, 0.1, false
	if n, ok := d.Subjects(0.1, 0.8); ok {
		t.Errorf("an effect on the margin is equivalent with %d subjects", n)
	}
	d.Shares = []float64{1, 1e-300}
	if n, ok := d.Subjects(0, 0.8); ok {
		t.Errorf("a share of 1e-300 is enough with %d subjects", n)
	}
}

// TestPlannedPowerComesTrue: the planned share of simulated experiments is
// significant, within the error of their number.
func TestPlannedPowerComesTrue(t *testing.T) {
	const experiments = 600
	rng := rand.New(rand.NewPCG(35, 36))
	for _, alternative := range []Alternative{TwoSided, Greater} {
		for _, test := range []Test{
			{Method: FixedHorizon}, {Method: AlwaysValid}, {Method: Bayesian, Prior: Prior{Alpha: 1, Beta: 1}}, {Method: Bayesian, Prior: Prior{Alpha: 40, Beta: 60}},
		} {
			test.ConfidenceLevel, test.Alternative = 0.95, alternative
			d := Design{Test: test, Control: 0.2, Deviation: 0.4, Proportion: true, Shares: []float64{0.4, 0.6}}
			const effect, power = 0.15, 0.75
			subjects, _ := d.Subjects(effect, power)
			d.Test.PlannedSubjects = subjects
			found := 0
			for range experiments {
				arms := []Moments{NewMoments(1), NewMoments(1)}
				for i := range subjects {
					arm := 0
					if float64(i) >= 0.4*float64(subjects) {
						arm = 1
					}
					x := 0.0
					if rng.Float64() < d.Control+effect*float64(arm) {
						x = 1
					}
					arms[arm].Add([]float64{x})
				}
				r := simple(arms[0], arms[1])
				r.Test, r.Proportion = d.Test, true
				c := mustCompare(t, r).Comparisons[0].Unadjusted
				// An effect on the wrong side is not found by luck here.
				if c.PValue != nil && *c.PValue <= 0.05 || test.Method == Bayesian && *c.Difference.Lower >= 0 {
					found++
				}
			}
			t.Logf("%+v: %d of %d found with %d subjects", test, found, experiments, subjects)
			if exceeds(found, experiments, power) || exceeds(experiments-found, experiments, 1-power) {
				t.Errorf("%+v: planned for power %v, %d of %d found", test, power, found, experiments)
			}
		}
	}
}

// TestPlannedLooksComeTrue: so do the power of a test that ends at the look that
// finds something, and its subjects on average.
func TestPlannedLooksComeTrue(t *testing.T) {
	const experiments, looks, effect, power = 600, 4, 0.2, 0.75
	rng := rand.New(rand.NewPCG(37, 38))
	for _, alternative := range []Alternative{TwoSided, Greater} {
		d := Design{
			Test:      Test{Method: GroupSequential, ConfidenceLevel: 0.95, Alternative: alternative, Schedule: plannedLooks(t, Pocock, looks)},
			Deviation: 1, Shares: []float64{0.5, 0.5},
		}
		subjects, _ := d.Subjects(effect, power)
		var tests [looks]Test
		for k := range tests {
			var err error
			tests[k] = d.Test
			if tests[k].Schedule, err = NewSchedule(Pocock, d.Test.Schedule.looks[:k+1]); err != nil {
				t.Fatal(err)
			}
		}
		found, taken, squares := 0, 0.0, 0.0
		for range experiments {
			arms := []Moments{NewMoments(1), NewMoments(1)}
			at := 0
			for _, test := range tests {
				for ; looks*at < int(subjects)*len(test.Schedule.looks); at++ {
					arms[at%2].Add([]float64{rng.NormFloat64() + effect*float64(at%2)})
				}
				r := simple(arms[0], arms[1])
				r.Test = test
				if p := mustCompare(t, r).Comparisons[0].Unadjusted.PValue; *p <= 0.05 {
					found++
					break
				}
			}
			taken += float64(at) / experiments
			squares += float64(at) * float64(at) / experiments
		}
		expected, _ := d.Expected(effect, subjects)
		t.Logf("alternative %d: %d of %d found, with %.0f of %d subjects on average; %.0f were planned", alternative, found, experiments, taken, subjects, expected)
		if exceeds(found, experiments, power) || exceeds(experiments-found, experiments, 1-power) {
			t.Errorf("alternative %d: planned for power %v, %d of %d found", alternative, power, found, experiments)
		}
		if math.Abs(taken-expected) > 4*math.Sqrt((squares-taken*taken)/experiments) {
			t.Errorf("alternative %d: %v subjects on average, %v were planned", alternative, taken, expected)
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	d := Design{Test: Test{Method: FixedHorizon, ConfidenceLevel: 0.95}, Deviation: 1, Shares: []float64{0.5, 0.5}}
	for b.Loop() {
		if _, ok := d.Subjects(0.01, 0.8); !ok {
			b.Fatal("no size")
		}
	}
}

// TestPowerFallsBeforeItRises: with a prior that is sure of an effect a few
// subjects always find it, more of them less often, and enough of them for their
// own sake. Those are planned.
func TestPowerFallsBeforeItRises(t *testing.T) {
	d := Design{Control: 10, Deviation: 30, Shares: []float64{0.5, 0.5}, Test: Test{
		Method: Bayesian, ConfidenceLevel: 0.95, Alternative: Greater, Prior: Prior{LiftMean: 0.3, LiftDeviation: 0.15},
	}}
	const effect, power = 0.2, 0.8
	n, ok := d.Subjects(effect, power)
	if !ok || d.Power(effect, n) < power || d.Power(effect, n-1) >= power {
		t.Fatalf("%d subjects, whose power is %v", n, d.Power(effect, n))
	}
	if few := d.Power(effect, 4); few < power {
		t.Errorf("4 subjects have a power of %v: the prior is not what this test needs", few)
	}
	for more := n; more < MaxPlannedSubjects/2; more *= 2 {
		if got := d.Power(effect, more); got < power {
			t.Errorf("%d subjects have a power of %v, though %d are planned", more, got, n)
		}
	}
}

// TestPlannedUnevenArms: however large the effect, an always-valid test judges
// arms of 99 to 1 only with some hundred subjects in the smaller one.
func TestPlannedUnevenArms(t *testing.T) {
	d := Design{Control: 10, Deviation: 1, Shares: []float64{0.99, 0.01}, Test: Test{Method: AlwaysValid, ConfidenceLevel: 0.95}}
	n, ok := d.Subjects(100, 0.8)
	if !ok || n < 9500 || n > 10_000 || d.Power(100, n-1) != 0 {
		t.Errorf("%d subjects, %t", n, ok)
	}
	arms := func(subjects int64) (control, treatment Moments) {
		for i, m := range []*Moments{&control, &treatment} {
			of := int64(float64(subjects) * d.Shares[i])
			var err error
			if *m, err = FromSummary(of, []float64{100 * float64(i)}, []float64{1}); err != nil {
				t.Fatal(err)
			}
		}
		return control, treatment
	}
	for subjects, judged := range map[int64]bool{n + 200: true, n - 200: false} {
		r := simple(arms(subjects))
		r.Test = d.Test
		if p := mustCompare(t, r).Comparisons[0].Unadjusted.PValue; (p != nil) != judged {
			t.Errorf("%d subjects: p-value %v", subjects, show(p))
		}
	}
}
