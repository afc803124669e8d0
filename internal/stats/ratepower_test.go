package stats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// ratesCase is a row of reference numbers for the power of two rates.
type ratesCase struct {
	Rate, TreatmentRate, Control, Treatment, Margin, Alpha, Power float64
	Scale                                                         Scale
	Alternative                                                   Alternative
}

func (c ratesCase) design() (d Design, effect float64, subjects int64) {
	all := c.Control + c.Treatment
	return Design{
		Test:    Test{Method: FixedHorizon, ConfidenceLevel: 1 - c.Alpha, Alternative: c.Alternative},
		Margin:  Margin{c.Scale, c.Margin},
		Control: c.Rate, Deviation: math.Sqrt(c.Rate * (1 - c.Rate)), Proportion: true,
		Shares: []float64{c.Control / all, c.Treatment / all},
	}, c.TreatmentRate - c.Rate, int64(all)
}

// TestPowerOfRates: by scipy, of few events over all numbers of them, and of many by
// the formula.
func TestPowerOfRates(t *testing.T) {
	var file struct{ Exact, Normal []ratesCase }
	load(t, "ratepower.json", &file)
	if len(file.Exact) < 20 || len(file.Normal) < 10 {
		t.Fatalf("only %d and %d cases", len(file.Exact), len(file.Normal))
	}
	for _, c := range file.Exact {
		d, effect, subjects := c.design()
		if got := d.Power(effect, subjects); math.Abs(got-c.Power) > 1e-8 {
			t.Errorf("%+v: power %v", c, got)
		}
	}
	for _, c := range file.Normal {
		d, effect, subjects := c.design()
		near(t, fmt.Sprintf("%+v", c), d.Power(effect, subjects), c.Power, 1e-9)
	}
}

// compareRates is what the judge says of so many events.
func compareRates(t *testing.T, d *Design, control, treatment, x0, x1 int64) *Comparison {
	t.Helper()
	r := simple(ofEvents(control, x0), ofEvents(treatment, x1))
	r.Test, r.Margin, r.Proportion = d.Test, d.Margin, true
	return &mustCompare(t, r).Comparisons[0].Unadjusted
}

// ofEvents are the moments of n subjects of whom x have an event.
func ofEvents(n, x int64) Moments {
	m := NewMoments(1)
	m.N, m.NonZero[0], m.Means[0] = n, x, float64(x)/float64(n)
	m.Products[0] = float64(x) * (1 - m.Means[0])
	return m
}

// TestRatePlanIsTheJudge: the power is the sum of the probabilities of all numbers of
// events of which a comparison finds what is sought.
func TestRatePlanIsTheJudge(t *testing.T) {
	for _, n := range [][2]int64{{30, 30}, {24, 41}, {90, 12}, {11, 60}, {5, 5}, {150, 150}} {
		for _, margin := range []Margin{{}, {Absolute, 0.1}, {Absolute, 0.35}, {Relative, 0.4}} {
			for alternative := TwoSided; alternative <= Equivalent; alternative++ {
				if margin.Value == 0 && alternative == Equivalent || margin.Value != 0 && alternative == TwoSided {
					continue
				}
				for _, rates := range [][2]float64{{0.02, 0.02}, {0.5, 0.3}, {0.9, 0.97}} {
					d := Design{
						Test: Test{Method: FixedHorizon, ConfidenceLevel: 0.9, Alternative: alternative}, Margin: margin,
						Control: rates[0], Deviation: math.Sqrt(rates[0] * (1 - rates[0])), Proportion: true,
						Shares: []float64{float64(n[0]) / float64(n[0]+n[1]), float64(n[1]) / float64(n[0]+n[1])},
					}
					if alternative == Greater {
						d.Margin.Value = -margin.Value
					}
					effect := rates[1] - rates[0]
					plan := d.ratePlan(effect, n[0]+n[1])
					if plan == nil {
						t.Fatalf("%+v is not planned by the test", d)
					}
					want := 0.0
					for i := range plan.events[0].upTo {
						for j := range plan.events[1].upTo {
							x := [2]float64{plan.events[0].from + float64(i), plan.events[1].from + float64(j)}
							if p := compareRates(t, &d, n[0], n[1], int64(x[0]), int64(x[1])).PValue; p != nil && *p <= 0.1 {
								want += plan.events[0].between(i, i+1) * plan.events[1].between(j, j+1)
							}
						}
					}
					if got := d.Power(effect, n[0]+n[1]); math.Abs(got-want) > 1e-9 {
						t.Errorf("arms %v, rates %v, alternative %d, margin %+v: power %v, and %v by comparisons", n, rates, alternative, d.Margin, got, want)
					}
				}
			}
		}
	}
}

// drawEvents draws a number of events of so many subjects.
func drawEvents(rng *rand.Rand, b *binomial) int64 {
	u, i := rng.Float64(), 0
	for i < len(b.upTo)-1 && b.upTo[i] < u {
		i++
	}
	return int64(b.from) + int64(i)
}

// TestPlannedRareRatesComeTrue: simulated experiments have the planned power, where the
// formula for many events promised 0.8 for a quarter of that or for none. Of the fewest
// events one more that may be had takes it from below 0.8 to 0.92.
func TestPlannedRareRatesComeTrue(t *testing.T) {
	const experiments, power = 6000, 0.8
	rng := rand.New(rand.NewPCG(51, 52))
	for _, c := range []struct {
		rate, effect, margin float64
		formula              int64 // Its subjects.
	}{
		{0.001, 0, 0.01, 249}, {0.005, 0, 0.01, 1232}, {0.001, 0, 0.002, 6178}, {0.02, 0, 0.01, 4849}, {0.05, 0, 0.02, 2939}, {0.0005, 0.0045, 0, 4248},
	} {
		d, _, _ := ratesCase{Rate: c.rate, Control: 1, Treatment: 1, Margin: -c.margin, Alpha: 0.05, Alternative: Greater}.design()
		if c.margin == 0 {
			d.Test.Alternative = TwoSided
		}
		subjects, ok := d.Subjects(c.effect, power)
		if !ok || subjects <= c.formula {
			t.Fatalf("%+v: %d subjects", c, subjects)
		}
		control, treatment := (subjects+1)/2, subjects/2
		events := [2]binomial{newBinomial(float64(control), c.rate), newBinomial(float64(treatment), c.rate+c.effect)}
		found := 0
		for range experiments {
			if p := compareRates(t, &d, control, treatment, drawEvents(rng, &events[0]), drawEvents(rng, &events[1])).PValue; p != nil && *p <= 0.05 {
				found++
			}
		}
		share, planned := float64(found)/experiments, d.Power(c.effect, subjects)
		t.Logf("%+v: %d subjects with the power of %.4f; %.4f of experiments find it", c, subjects, planned, share)
		if planned < power || math.Abs(planned-share) > 0.02 {
			t.Errorf("%+v: planned for %v with %d subjects, and %v find it", c, planned, subjects, share)
		}
	}
}

// TestPowerLasts: the power of few events goes up and down with the size, and stays from
// the planned one on.
func TestPowerLasts(t *testing.T) {
	saws := 0
	for _, c := range []ratesCase{
		{Rate: 0.001, Control: 1, Treatment: 1, Margin: -0.01, Alpha: 0.05, Alternative: Greater},
		{Rate: 0.01, Control: 2, Treatment: 1, Margin: 0.05, Alpha: 0.05, Alternative: Less},
		{Rate: 0.02, TreatmentRate: 0.1, Control: 1, Treatment: 1, Alpha: 0.05},
		{Rate: 0.9, TreatmentRate: 0.9, Control: 1, Treatment: 1, Margin: 0.15, Alpha: 0.05, Alternative: Equivalent},
	} {
		if c.TreatmentRate == 0 {
			c.TreatmentRate = c.Rate
		}
		d, effect, _ := c.design()
		for _, power := range []float64{0.5, 0.8, 0.9} {
			subjects, ok := d.Subjects(effect, power)
			if !ok || d.Power(effect, subjects-1) >= power {
				t.Errorf("%+v: %d subjects have the power of %v, and one less does", c, subjects, power)
			}
			for n := subjects; n <= subjects+subjects/2; n++ {
				if got := d.Power(effect, n); got < power-0.004 {
					t.Errorf("%+v: %d subjects are planned for %v, and %d have %v", c, subjects, power, n, got)
				}
			}
			for n := subjects / 2; n < subjects; n++ {
				if d.Power(effect, n) >= power {
					saws++
				}
			}
		}
	}
	if saws == 0 {
		t.Error("no smaller number of subjects has the power: the cases show nothing")
	}
}

// TestGuardedPower: of rates of few events no method promises more than the guard lets
// it find: the probability, by scipy's binom, that there are five informative subjects
// in each arm or ten in both of one size.
func TestGuardedPower(t *testing.T) {
	for _, test := range []Test{{Method: AlwaysValid}, {Method: GroupSequential, Schedule: plannedLooks(t, OBrienFleming, 5)}, {Method: FixedHorizon}, {Method: Bayesian}} {
		test.ConfidenceLevel = 0.95
		d := Design{Test: test, Control: 0.0005, Deviation: math.Sqrt(0.0005 * 0.9995), Proportion: true, Adjusted: test.Method != AlwaysValid && test.Method != GroupSequential, Shares: []float64{0.5, 0.5}}
		// x, y = binom(2000, .0005), binom(2000, .006); sum of x.pmf(i)*y.pmf(j) where min(i, j) >= 5 or i + j >= 10.
		const allowed = 0.8349265019737316
		few, ok := d.FewEvents(0.0055, 4000)
		if !ok || few.Exact || math.Abs(few.Allowed-allowed) > 1e-6 || few.Expected != [2]float64{1, 12} {
			t.Errorf("%+v: %+v", test, few)
		}
		if got := d.Power(0.0055, 4000); got > allowed+1e-6 {
			t.Errorf("%+v: power %v", test, got)
		}
		// None of 125 subjects shows that a rate is below 0.01.
		d.Control, d.Deviation = 0.001, math.Sqrt(0.001*0.999)
		d.Test.Alternative, d.Margin.Value = Greater, -0.01
		if got := d.Power(0, 249); got > 1e-4 {
			t.Errorf("%+v: power %v of a margin that cannot be kept", test, got)
		}
		if subjects, ok := d.Subjects(0, 0.8); !ok || subjects < 800 || d.Power(0, subjects) < 0.8 {
			t.Errorf("%+v: %d subjects", test, subjects)
		}
	}
}

// TestPlannedLooksOfRatesComeTrue: so have looks at rates, in arms of 9 to 1 and against
// a margin, where the variance under the null hypothesis is another.
func TestPlannedLooksOfRatesComeTrue(t *testing.T) {
	const experiments, looks, power = 1500, 4, 0.8
	rng := rand.New(rand.NewPCG(53, 54))
	for _, c := range []ratesCase{
		{Rate: 0.05, TreatmentRate: 0.06, Control: 9, Treatment: 1, Alpha: 0.05},
		{Rate: 0.02, TreatmentRate: 0.02, Control: 1, Treatment: 1, Margin: -0.006, Alpha: 0.05, Alternative: Greater},
	} {
		d, effect, _ := c.design()
		d.Test.Method, d.Test.Schedule = GroupSequential, plannedLooks(t, OBrienFleming, looks)
		subjects, _ := d.Subjects(effect, power)
		var judges [looks]Design
		for k := range judges {
			var err error
			judges[k] = d
			if judges[k].Test.Schedule, err = NewSchedule(OBrienFleming, d.Test.Schedule.looks[:k+1]); err != nil {
				t.Fatal(err)
			}
		}
		found := 0
		for range experiments {
			var n, x [2]int64
			for k := range judges {
				for i, all := range Apportion(subjects*int64(k+1)/looks, d.Shares) {
					more := newBinomial(float64(all-n[i]), []float64{c.Rate, c.TreatmentRate}[i])
					n[i], x[i] = all, x[i]+drawEvents(rng, &more)
				}
				if p := compareRates(t, &judges[k], n[0], n[1], x[0], x[1]).PValue; p != nil && *p <= c.Alpha {
					found++
					break
				}
			}
		}
		t.Logf("%+v: %d of %d found with %d subjects", c, found, experiments, subjects)
		if exceeds(found, experiments, power) || exceeds(experiments-found, experiments, 1-power) {
			t.Errorf("%+v: planned for power %v, %d of %d found", c, power, found, experiments)
		}
	}
}
