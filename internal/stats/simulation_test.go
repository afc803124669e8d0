package stats

import (
	"math"
	"math/rand/v2"
	"testing"
)

// exceeds tells whether a count out of n is more than a binomial with chance p
// gives by luck once in some 30,000 times.
func exceeds(count, n int, p float64) bool {
	return float64(count) > float64(n)*p+4*math.Sqrt(float64(n)*p*(1-p))
}

// TestFalsePositiveRate: two arms that do not differ, of skewed subjects and
// unequal size. At one look the fixed horizon is wrong in α of the cases;
// looked at after every tenth subject it is wrong far more often, and the
// always-valid method is not.
func TestFalsePositiveRate(t *testing.T) {
	const (
		experiments = 800
		subjects    = 2000 // of both arms
		firstLook   = 20
		alpha       = 0.1
	)
	rng := rand.New(rand.NewPCG(2026, 1))
	fixed := Test{Method: FixedHorizon, ConfidenceLevel: 1 - alpha}
	always := Test{Method: AlwaysValid, ConfidenceLevel: 1 - alpha, PlannedSubjects: subjects}
	fixedAtEnd, fixedPeeking, alwaysPeeking := 0, 0, 0
	for range experiments {
		arms := []Moments{NewMoments(1), NewMoments(1)}
		fixedEver, alwaysEver := false, false
		for n := 1; n <= subjects; n++ {
			arm := 0
			if rng.IntN(10) < 4 {
				arm = 1
			}
			arms[arm].Add([]float64{rng.ExpFloat64()})
			if n < firstLook || n%10 != 0 {
				continue
			}
			r := simple(arms[0], arms[1])
			r.Test = fixed
			p, notes, err := r.pair(1)
			if err != nil || p == nil {
				t.Fatal(err, notes)
			}
			c := r.judge(p, nil, notes)
			if c.PValue == nil {
				continue // one arm has a single subject yet
			}
			e := Evidence{
				Estimate: *c.Difference.Estimate, StandardError: *c.Difference.StandardError,
				DegreesOfFreedom: *c.Difference.DegreesOfFreedom, Subjects: c.Subjects,
			}
			fixedEver = fixedEver || *c.PValue < alpha
			alwaysEver = alwaysEver || *always.Infer(e, 0).PValue < alpha
			if n == subjects && *c.PValue < alpha {
				fixedAtEnd++
			}
		}
		if fixedEver {
			fixedPeeking++
		}
		if alwaysEver {
			alwaysPeeking++
		}
	}
	t.Logf("of %d: fixed horizon at the end %d, with peeking %d; always valid with peeking %d", experiments, fixedAtEnd, fixedPeeking, alwaysPeeking)
	if exceeds(fixedAtEnd, experiments, alpha) || exceeds(experiments-fixedAtEnd, experiments, 1-alpha) {
		t.Errorf("fixed horizon at one look: %d of %d", fixedAtEnd, experiments)
	}
	if exceeds(alwaysPeeking, experiments, alpha) {
		t.Errorf("always valid with peeking: %d of %d", alwaysPeeking, experiments)
	}
	if !exceeds(fixedPeeking, experiments, 2*alpha) {
		t.Errorf("fixed horizon with peeking: %d of %d; the simulation cannot tell the methods apart", fixedPeeking, experiments)
	}
}

// BenchmarkCompare counts cells: one metric, one treatment against the control.
func BenchmarkCompare(b *testing.B) {
	rng := rand.New(rand.NewPCG(19, 20))
	arms := []Arm{{[]Moments{draw(rng, 3, 100)}}, {[]Moments{draw(rng, 3, 100)}}}
	for _, c := range []struct {
		name string
		r    Request
	}{
		{"mean", Request{Formula: ComponentMean(0)}},
		{"ratio with covariate", Request{Formula: ComponentRatio(0, 1), Covariates: []int{2}}},
	} {
		for _, method := range []Method{FixedHorizon, AlwaysValid, GroupSequential} {
			name := c.name + map[Method]string{FixedHorizon: " fixed horizon", AlwaysValid: " always valid", GroupSequential: " group sequential"}[method]
			b.Run(name, func(b *testing.B) {
				r := c.r
				r.Arms, r.Test = arms, Test{Method: method, ConfidenceLevel: 0.95}
				if method == GroupSequential {
					r.Test.Schedule = mustSchedule(b, OBrienFleming, sameLooks(0.2, 0.4, 0.6, 0.8, 1))
				}
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
