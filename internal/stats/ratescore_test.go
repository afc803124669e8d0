package stats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// rateCase is two rates as mpmath judges them, control first.
type rateCase struct {
	X, N           [2]float64
	Level, Margin  float64
	Diff, Ratio    []*float64
	DiffStatistic  *float64 `json:"diff_statistic"`
	DiffP          *float64 `json:"diff_p"`
	RatioStatistic *float64 `json:"ratio_statistic"`
	RatioP         *float64 `json:"ratio_p"`
}

// TestRateScore: mpmath, and statsmodels where it is right, from testdata/ratescore.py.
// The guard for few events is left out.
func TestRateScore(t *testing.T) {
	var cases []rateCase
	load(t, "ratescore.json", &cases)
	if len(cases) < 40 {
		t.Fatalf("only %d cases", len(cases))
	}
	for _, c := range cases {
		r, test := rates{c.X, c.N}, Test{Method: FixedHorizon, ConfidenceLevel: c.Level}
		what := fmt.Sprintf("%v of %v at %v", c.X, c.N, c.Level)
		got := byScore(&r, test, Margin{Absolute, c.Margin})
		bounds(t, what+": difference", got, c.Diff)
		if c.DiffStatistic != nil {
			nearOr(t, what+": statistic", got.Statistic, *c.DiffStatistic, 1e-9, 1e-12)
			nearOr(t, what+": p-value", got.PValue, *c.DiffP, 1e-9, 1e-12)
		}
		if c.Ratio == nil {
			continue
		}
		got = byScore(&r, test, Margin{Relative, 5 * c.Margin})
		bounds(t, what+": lift", got, c.Ratio)
		nearOr(t, what+": statistic of the lift", got.Statistic, *c.RatioStatistic, 1e-9, 1e-12)
		nearOr(t, what+": p-value of the lift", got.PValue, *c.RatioP, 1e-9, 1e-12)
	}
}

// byScore judges two rates, however few their events are.
func byScore(r *rates, test Test, margin Margin) Inference {
	g := gauge{Test: test}
	return g.weigh(scoreScale{r, margin.Scale}, margin.Value)
}

func bounds(t *testing.T, what string, got Inference, want []*float64) {
	t.Helper()
	nearOr(t, what+", lower", got.Lower, *want[0], 1e-9, 1e-12)
	nearOr(t, what+", upper", got.Upper, *want[1], 1e-9, 1e-12)
	if got.Unbounded {
		t.Errorf("%s: %+v", what, got)
	}
}

// TestRateScoreAgrees: on both scales, and with every alternative, the p-value is the
// rate of the interval exactly where a bound lies on the margin, and the difference and
// the lift say the same of 0.
func TestRateScoreAgrees(t *testing.T) {
	rng := rand.New(rand.NewPCG(61, 62))
	for range 300 {
		n := [2]int64{5 + rng.Int64N(2000), 5 + rng.Int64N(2000)}
		rate := math.Pow(rng.Float64(), 3)
		draw := func(n int64) (x float64) {
			for range n {
				x += float64(one(rng.Float64() < rate))
			}
			return x
		}
		r := rates{[2]float64{draw(n[0]), draw(n[1])}, [2]float64{float64(n[0]), float64(n[1])}}
		test := Test{Method: FixedHorizon, ConfidenceLevel: 0.6 + 0.39*rng.Float64(), Alternative: Alternative(rng.IntN(3))}
		scales := []Inference{byScore(&r, test, Margin{Scale: Absolute})}
		if r.x[0] > 0 { // Or there is no lift.
			scales = append(scales, byScore(&r, test, Margin{Scale: Relative}))
			for i, bound := range [][2]*float64{{scales[0].Lower, scales[1].Lower}, {scales[0].Upper, scales[1].Upper}} {
				if bound[0] != nil && math.Abs(*bound[0]) > 1e-12 && (*bound[0] > 0) != (*bound[1] > 0) {
					t.Errorf("%+v: bound %d of the difference %v, of the lift %v", test, i, *bound[0], *bound[1])
				}
			}
		}
		for scale, e := range scales {
			for _, bound := range []*float64{e.Lower, e.Upper} {
				if bound == nil || math.Abs(*bound) == 1 {
					continue
				}
				near(t, fmt.Sprintf("p-value at a bound, %v, %+v", *bound, test), *byScore(&r, test, Margin{Scale(scale), *bound}).PValue, 1-test.ConfidenceLevel, 1e-8)
			}
		}
	}
}

// TestRareGuardrailInStrata: a rate of 0.1 % that the treatment raises by the margin of
// 1 %, in 20 strata, is found to keep within it in no more than the promised 2.5 %, and
// one that it does not raise is, though some arm has fewer than five events.
func TestRareGuardrailInStrata(t *testing.T) {
	const runs, strata, margin = 600, 20, 0.01
	rng := rand.New(rand.NewPCG(81, 82))
	arm := func(n int, rate float64) (a Arm) {
		for range strata {
			events := 0.0
			for range n / strata {
				events += float64(one(rng.Float64() < rate))
			}
			a.Strata = append(a.Strata, proportion(t, events, int64(n/strata)))
		}
		return a
	}
	within, kept := 0, 0
	for range runs {
		for i, added := range []float64{margin, 0} {
			r := Request{
				Formula: ComponentMean(0), Proportion: true, Guardrail: true, Margin: Margin{Value: margin}, Test: fixed95,
				Arms: []Arm{arm(3600, 0.001), arm(400, 0.001+added)},
			}
			upper := mustCompare(t, r).Comparisons[0].Unadjusted.Difference.Upper
			if upper == nil {
				t.Fatal("a guardrail has no interval")
			}
			passes := *upper <= margin
			within += count(passes && i == 0)
			kept += count(passes && i == 1)
		}
	}
	if exceeds(within, runs, 0.025) || kept < runs/3 {
		t.Errorf("%d of %d pass at the margin, %d without harm", within, runs, kept)
	}
}

// TestRateScoreKeepsDigits: of rates near 0 and near 1 of up to a billion. By mpmath with
// 60 digits: the cubic's root by bisection between max(0, −d) and min(1, 1 − d), and
// (x1/n1 − x0/n0 − d)/sqrt((c(1 − c)/n0 + t(1 − t)/n1)·N/(N − 1)) with t = c + d.
func TestRateScoreKeepsDigits(t *testing.T) {
	for _, c := range []struct {
		x, n   [2]float64
		null   float64
		result float64
	}{
		{[2]float64{999999992, 999999985}, [2]float64{1000000000, 1000000000}, 0, -1.4596009064273284},
		{[2]float64{999999994, 999999975}, [2]float64{1000000000, 1000000000}, 0, -3.412500764102479},
		{[2]float64{7, 25}, [2]float64{1000000000, 1000000000}, 0, 3.1819805399998132},
		{[2]float64{7, 25}, [2]float64{1000000000, 1000000000}, 2e-08, -0.34708076310637086},
		{[2]float64{7, 25}, [2]float64{1000000000, 1000000000}, -1e-08, 4.4748952076871843},
		{[2]float64{999999993, 999999975}, [2]float64{1000000000, 1000000000}, -2e-08, 0.34708076310637086},
		{[2]float64{40, 90}, [2]float64{10000000, 1000000}, 1e-05, 18.060484972924916},
		{[2]float64{99999960, 99999910}, [2]float64{100000000, 100000000}, 3e-07, -6.61193195371789},
		{[2]float64{30, 9}, [2]float64{1000000, 10000}, 0.001, -0.40522203101375583},
		{[2]float64{9, 25}, [2]float64{2000, 3000}, 0.01, -2.5801591320736588},
		{[2]float64{12, 1000000}, [2]float64{1000000000, 1000000000}, 0.0005, 704.73613705581103},
	} {
		near(t, fmt.Sprintf("%v", c), rates{c.x, c.n}.difference(c.null), c.result, 1e-9)
		other := rates{[2]float64{c.n[0] - c.x[0], c.n[1] - c.x[1]}, c.n}
		near(t, fmt.Sprintf("%v of the others", c), other.difference(-c.null), -c.result, 1e-9)
	}
}

// TestRateScoreAtLooks: a look judges two rates by the score statistic of a fixed
// horizon and by its own boundary; one that is the first and the last says what a fixed
// horizon says. The statistics are those of statsmodels in TestRateScore.
func TestRateScoreAtLooks(t *testing.T) {
	for _, events := range [][2]float64{{12, 25}, {40, 31}, {7, 6}} {
		for _, margin := range []Margin{{}, {Absolute, 0.004}, {Relative, 0.5}} {
			for _, alternative := range []Alternative{TwoSided, Less} {
				r := simple(zerosAndOnes(3000, events[0]), zerosAndOnes(1000, events[1]))
				r.Proportion, r.Margin = true, margin
				r.Test = Test{Method: FixedHorizon, ConfidenceLevel: 0.95, Alternative: alternative}
				fixed := mustCompare(t, r).Comparisons[0].Unadjusted
				r.Test.Method, r.Test.Schedule = GroupSequential, mustSchedule(t, OBrienFleming, sameLooks(1))
				only := mustCompare(t, r).Comparisons[0].Unadjusted
				r.Test.Schedule = mustSchedule(t, OBrienFleming, sameLooks(0.4, 0.7, 1))
				last := mustCompare(t, r).Comparisons[0].Unadjusted
				what := fmt.Sprint(events, margin, alternative)
				near(t, what+" p-value of the only look", *only.PValue, *fixed.PValue, 1e-9)
				near(t, what+" upper bound of the only look", *only.Difference.Upper, *fixed.Difference.Upper, 1e-9)
				near(t, what+" statistic of the last look", *last.Statistic, *fixed.Statistic, 1e-12)
				extreme := *last.Statistic
				if alternative == TwoSided {
					extreme = -math.Abs(extreme)
				}
				if (*last.PValue <= 0.05) != (extreme <= -*last.Boundary) {
					t.Errorf("%s: p = %v, statistic %v, boundary %v", what, *last.PValue, *last.Statistic, *last.Boundary)
				}
			}
		}
	}
}

// zerosAndOnes is the moments of so many subjects, of whom some have the event.
func zerosAndOnes(n int64, events float64) Moments {
	m := NewMoments(1)
	for i := range n {
		m.Add([]float64{float64(one(float64(i) < events))})
	}
	return m
}
