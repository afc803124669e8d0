package stats

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// normal judges a statistic whose standard error is known.
func (t Test) normal(statistic float64) Inference {
	return t.Infer(Evidence{Estimate: statistic, StandardError: 1, DegreesOfFreedom: math.Inf(1)}, 0)
}

// TestOneLookAtTheEnd is the fixed horizon, to the last digit.
func TestOneLookAtTheEnd(t *testing.T) {
	for _, at := range []float64{1, 1.7} {
		for _, alternative := range []Alternative{TwoSided, Greater, Less} {
			for statistic := -8.0; statistic < 8; statistic += 0.37 {
				fixed := Test{Method: FixedHorizon, ConfidenceLevel: 0.9, Alternative: alternative}
				sequential := fixed
				sequential.Method, sequential.Schedule = GroupSequential, mustSchedule(t, OBrienFleming, sameLooks(at))
				e := Evidence{Estimate: statistic, StandardError: 1, DegreesOfFreedom: 7.3}
				want, got := fixed.Infer(e, 0.5), sequential.Infer(e, 0.5)
				for name, pair := range map[string][2]*float64{"lower": {want.Lower, got.Lower}, "upper": {want.Upper, got.Upper}, "p": {want.PValue, got.PValue}} {
					nearOptional(t, fmt.Sprint(name, " of ", statistic, " at ", at), pair[1], pair[0], 0)
				}
			}
		}
	}
}

// drawSchedule is some looks, of which two may be close together.
func drawSchedule(t *testing.T, rng *rand.Rand, looks int) *Schedule {
	t.Helper()
	list := make([]Look, looks)
	time, information := 0.0, 0.0
	for i := range list {
		time += rng.ExpFloat64()
		information += 1 + rng.ExpFloat64()
		if rng.IntN(3) == 0 {
			information *= 1.002
		}
		list[i] = Look{time, information}
	}
	end := time
	if rng.IntN(2) == 0 {
		end *= 1 + rng.Float64()
	}
	for i := range list {
		list[i].Time /= end
	}
	return mustSchedule(t, Spending(1+rng.IntN(2)), list)
}

// TestTabulatedBoundary compares the table of boundaries with boundaries that
// are computed for one rate, and takes them back.
func TestTabulatedBoundary(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 22))
	for range 8 {
		s := drawSchedule(t, rng, 2+rng.IntN(5))
		twoSided := rng.IntN(2) == 0
		c := s.curveOf(twoSided)
		for range 12 {
			at := c.bottom + (c.top-c.bottom)*math.Pow(rng.Float64(), 3)
			want := s.boundary(normalUpperTail(at), twoSided)
			got, _ := c.boundary(at)
			// A rate is off by at times what its quantile is off by.
			near(t, fmt.Sprintf("boundary of %v of %+v", at, s.looks), got, want, 1e-9/math.Max(1, at*want))
			back, ok := c.rate(want)
			if !ok {
				t.Errorf("the boundary %v has no rate", want)
			}
			near(t, "rate", normalUpperTail(back), normalUpperTail(at), 1e-9)
		}
	}
}

// TestRepeatedAgreesAtEveryLevel moves the null onto a bound, at any level: the
// p-value has to be α. With many degrees of freedom and with few.
func TestRepeatedAgreesAtEveryLevel(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 24))
	for range 20 {
		s := drawSchedule(t, rng, 1+rng.IntN(5))
		for range 20 {
			alpha := math.Exp(-8*rng.Float64()) / 2
			test := Test{Method: GroupSequential, ConfidenceLevel: 1 - alpha, Alternative: Alternative(rng.IntN(3)), Schedule: s}
			e := Evidence{Estimate: rng.NormFloat64(), StandardError: rng.ExpFloat64(), DegreesOfFreedom: math.Exp(8 * rng.Float64())}
			got := test.Infer(e, 0)
			for _, bound := range []*float64{got.Lower, got.Upper} {
				if bound != nil {
					near(t, fmt.Sprintf("p-value at the bound of %+v", s.looks), *test.Infer(e, *bound).PValue, alpha, 1e-8)
				}
			}
			outside := got.Lower != nil && *got.Lower > 0 || got.Upper != nil && *got.Upper < 0
			if significant := *got.PValue <= alpha; significant != outside {
				t.Errorf("p-value %v at alpha %v, interval %v to %v", *got.PValue, alpha, show(got.Lower), show(got.Upper))
			}
			reached := got.Boundary != nil && map[Alternative]float64{TwoSided: math.Abs(*got.Statistic), Greater: *got.Statistic, Less: -*got.Statistic}[test.Alternative] > *got.Boundary
			if reached != outside {
				t.Errorf("statistic %v, boundary %v, interval %v to %v", *got.Statistic, show(got.Boundary), show(got.Lower), show(got.Upper))
			}
		}
	}
}

// TestExtremeLooks: whatever the looks, nothing is NaN or infinite, and what
// cannot be said is said.
func TestExtremeLooks(t *testing.T) {
	for name, looks := range map[string][]Look{
		"early":                sameLooks(1e-4),
		"very early":           sameLooks(1e-300),
		"early, then late":     sameLooks(1e-9, 0.5, 1),
		"close together":       sameLooks(0.5, 0.5006, 0.5012),
		"at the end":           sameLooks(0.999, 1),
		"overrun":              sameLooks(0.5, 40),
		"times without growth": {{0.2, 100}, {0.4, 100}, {1, 200}},
		"growth without time":  {{0.2, 100}, {0.2000000000000001, 10000}},
		"huge growth":          {{0.2, 1e-200}, {0.4, 1e200}},
		"fifty":                sameLooks(evenly(50)...),
	} {
		for _, spending := range []Spending{OBrienFleming, Pocock} {
			s := mustSchedule(t, spending, looks)
			for _, alternative := range []Alternative{TwoSided, Greater, Less} {
				for _, alpha := range []float64{1e-15, 0.0001, 0.05, 0.4, 0.4999} {
					test := Test{Method: GroupSequential, ConfidenceLevel: 1 - alpha, Alternative: alternative, Schedule: s}
					for _, statistic := range []float64{0, 1, -3, 9, -37, 300, 1e200} {
						got := test.normal(statistic)
						for _, x := range []*float64{got.Lower, got.Upper, got.PValue, got.Boundary} {
							if x != nil && !finite(*x) {
								t.Errorf("%s, alpha %v, statistic %v: %+v", name, alpha, statistic, got)
							}
						}
						if s.idle {
							if got.PValue != nil || got.Note == "" {
								t.Errorf("%s judges: %+v", name, got)
							}
							continue
						}
						if got.PValue == nil || *got.PValue < 0 || *got.PValue > 1 || (got.Lower == nil && got.Upper == nil) != (got.Note != "") {
							t.Errorf("%s, alpha %v, statistic %v: %+v", name, alpha, statistic, got)
						}
					}
				}
			}
		}
	}
}

// TestSmallPValue: a p-value of 1e-300 stays what it is, and one that no number
// can hold is no greater than what its statistic gives.
func TestSmallPValue(t *testing.T) {
	test := Test{Method: GroupSequential, ConfidenceLevel: 0.95, Schedule: mustSchedule(t, OBrienFleming, sameLooks(0.5, 1))}
	for _, z := range []float64{20, 30, 36, 37} {
		p := 2 * normalUpperTail(z)
		// At the end nearly all is spent at the end.
		if got := *test.normal(z).PValue; got < p*(1-1e-9) || got > p*1.01 {
			t.Errorf("at %v: p = %v, and %v at a fixed horizon", z, got, p)
		}
	}
	early := test
	early.Schedule = mustSchedule(t, OBrienFleming, sameLooks(0.25))
	// α(t)/2 = 2 − 2Φ(z(1 − α/4)/√t) solved for α.
	for _, z := range []float64{3, 9, 20, 36} {
		near(t, fmt.Sprint("p-value of ", z, " early"), *early.normal(z).PValue, 4*normalUpperTail(normalUpperQuantile(normalUpperTail(z)/2)/2), 1e-9)
	}
}

// TestIdleLook: a look that adds nothing judges nothing, and costs nothing.
func TestIdleLook(t *testing.T) {
	test := Test{Method: GroupSequential, ConfidenceLevel: 0.95, Schedule: mustSchedule(t, Pocock, []Look{{0.3, 100}, {0.6, 100.05}})}
	if got := test.normal(9); got.PValue != nil || got.Lower != nil || got.Statistic == nil || got.Note == "" {
		t.Errorf("a look without growth: %+v", got)
	}
	test.Schedule = mustSchedule(t, Pocock, []Look{{0.3, 100}, {0.6, 100.05}, {1, 200}})
	with := *test.normal(2).Boundary
	test.Schedule = mustSchedule(t, Pocock, []Look{{0.3, 100}, {1, 200}})
	near(t, "boundary after a look without growth", with, *test.normal(2).Boundary, 0)
	test.Schedule = nil
	if got := test.normal(9); got.PValue != nil || got.Lower != nil || got.Statistic == nil || got.Note == "" {
		t.Errorf("between looks: %+v", got)
	}
}

// TestWrongLooks names what is wrong.
func TestWrongLooks(t *testing.T) {
	for name, looks := range map[string][]Look{
		"looks":    nil,
		"looks[0]": sameLooks(0, 1),
		"looks[1]": sameLooks(0.5, 0.5),
		"looks[2]": sameLooks(0.5, 0.7, 0.6, 0.9),
		"looks[3]": sameLooks(0.1, 0.2, 0.3, math.NaN()),
		"looks[4]": sameLooks(0.1, 0.2, 0.3, 0.4, math.Inf(1)),
	} {
		_, err := NewSchedule(Pocock, looks)
		var fault InvalidError
		if !errors.As(err, &fault) || fault.Field != name {
			t.Errorf("%v: %v", looks, err)
		}
	}
	var fault InvalidError
	if _, err := NewSchedule(Pocock, sameLooks(0.5, 1, 1.5)); !errors.As(err, &fault) || fault.Field != "looks[1]" {
		t.Errorf("a look after the last: %v", err)
	}
	if _, err := NewSchedule(0, sameLooks(1)); !errors.As(err, &fault) || fault.Field != "spending" {
		t.Errorf("no spending: %v", err)
	}
	r := simple(draw(rand.New(rand.NewPCG(1, 2)), 1, 9), draw(rand.New(rand.NewPCG(3, 4)), 1, 9))
	r.Test.Schedule = mustSchedule(t, Pocock, sameLooks(1))
	if _, err := Compare(r); !errors.As(err, &fault) || fault.Field != "looks" {
		t.Errorf("looks at a fixed horizon: %v", err)
	}
}

// TestFalsePositivesAtLooks: two arms that do not differ, looked at five times.
// A group-sequential test spends its error rate and no more; Welch's test at
// every look is wrong far more often.
func TestFalsePositivesAtLooks(t *testing.T) {
	const (
		experiments = 6_000
		looks       = 5
		each        = 60 // Subjects of an arm between looks.
		alpha       = 0.1
	)
	rng := rand.New(rand.NewPCG(2026, 5))
	var tests []Test
	for _, spending := range []Spending{OBrienFleming, Pocock} {
		for k := range looks {
			tests = append(tests, Test{Method: GroupSequential, ConfidenceLevel: 1 - alpha, Schedule: mustSchedule(t, spending, sameLooks(evenly(looks)[:k+1]...))})
		}
	}
	fixed := Test{Method: FixedHorizon, ConfidenceLevel: 1 - alpha}
	wrong := [3]int{}
	for range experiments {
		arms := [2]Moments{NewMoments(1), NewMoments(1)}
		var ever [3]bool
		for k := range looks {
			for range each {
				arms[0].Add([]float64{rng.NormFloat64()})
				arms[1].Add([]float64{rng.NormFloat64()})
			}
			a, b := arms[0].Products[0]/float64(arms[0].N-1), arms[1].Products[0]/float64(arms[1].N-1)
			n := float64(arms[0].N)
			e := Evidence{Estimate: arms[1].Means[0] - arms[0].Means[0], StandardError: math.Sqrt((a + b) / n),
				DegreesOfFreedom: (a + b) * (a + b) / (a*a + b*b) * (n - 1)}
			ever[0] = ever[0] || *tests[k].Infer(e, 0).PValue <= alpha
			ever[1] = ever[1] || *tests[looks+k].Infer(e, 0).PValue <= alpha
			ever[2] = ever[2] || *fixed.Infer(e, 0).PValue <= alpha
		}
		for i, was := range ever {
			if was {
				wrong[i]++
			}
		}
	}
	t.Logf("of %d: O'Brien–Fleming %d, Pocock %d, Welch at every look %d", experiments, wrong[0], wrong[1], wrong[2])
	for _, count := range wrong[:2] {
		if exceeds(count, experiments, alpha) || exceeds(experiments-count, experiments, 1-alpha) {
			t.Errorf("%d of %d are wrong, and %v is to be spent", count, experiments, alpha)
		}
	}
	if !exceeds(wrong[2], experiments, 2*alpha) {
		t.Errorf("Welch at every look: %d of %d; the simulation cannot tell the methods apart", wrong[2], experiments)
	}
}

// BenchmarkSchedule is what a schedule costs once.
func BenchmarkSchedule(b *testing.B) {
	for _, looks := range []int{1, 5, 20, 50} {
		for _, spending := range []Spending{OBrienFleming, Pocock} {
			b.Run(fmt.Sprintf("%d looks, spending %d", looks, spending), func(b *testing.B) {
				times := evenly(looks)
				times[looks-1] = 1.1
				for b.Loop() {
					mustSchedule(b, spending, sameLooks(times...)).twoSided()
				}
			})
		}
	}
}

// TestBetweenLooks: without a look nothing is judged, however far off the estimate.
func TestBetweenLooks(t *testing.T) {
	test := Test{Method: GroupSequential, ConfidenceLevel: 0.95}
	for deviation, judged := range map[float64]bool{1: true, 1e-300: false} {
		got := test.Infer(Evidence{Estimate: 1e300, StandardError: deviation, DegreesOfFreedom: 10}, 0)
		if got.PValue != nil || got.Lower != nil || got.Note == "" || (got.Statistic != nil) != judged {
			t.Errorf("standard error %v: %+v", deviation, got)
		}
	}
}
