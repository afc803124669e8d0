package calibration

import (
	"math"
	"math/rand/v2"

	"github.com/assayhq/assay/internal/stats"
)

// population is where simulated subjects come from. Every subject has a
// disposition that shows before the experiment too, so that its past is a
// covariate.
type population struct {
	name string
	// formula is over the components that draw fills in.
	formula stats.Formula
	// covariates are the components that are known before.
	covariates []int
	dim        int
	// proportion says that the metric is 0 or 1 for every subject.
	proportion bool
	// draw fills in one subject, whose behaviour the treatment multiplies by
	// 1 + lift.
	draw func(rng *rand.Rand, lift float64, x []float64)
	// value is the metric's true value for a lift.
	value func(lift float64) float64
	// lift is the effect of the experiments that have one, chosen so that a
	// single look finds it about as often as not.
	lift float64
	// promise is what methods are held to on it.
	promise Promise
}

// populations are the metrics that are tried.
//
//   - A proportion of 5 %: one subject in ten converts with a chance of 0.32, the
//     others with 0.02. The covariate is how often they converted in ten earlier
//     periods, which removes 12 % of the variance.
//   - A heavy-tailed mean: three subjects in ten spend, log-normally with
//     σ = 1 between and 0.75 within them. The covariate is what they spent before,
//     which removes 29 % of the variance.
//   - A ratio of clicks to views: one view and more, Poisson around an exponential
//     mean of 3, each clicked with a chance from Beta(2, 8). The covariates are
//     earlier clicks and views.
var populations = []population{
	{
		name: "proportion", formula: stats.ComponentMean(0), covariates: []int{1}, dim: 2, proportion: true, lift: 0.3, promise: light,
		draw: func(rng *rand.Rand, lift float64, x []float64) {
			chance := 0.02
			if rng.IntN(10) == 0 {
				chance = 0.32
			}
			x[0] = indicator(rng.Float64() < chance*(1+lift))
			x[1] = successes(rng, 10, chance)
		},
		value: func(lift float64) float64 { return 0.05 * (1 + lift) },
	},
	{
		name: "heavy-tailed mean", formula: stats.ComponentMean(0), covariates: []int{1}, dim: 2, lift: 0.25, promise: heavy,
		draw: func(rng *rand.Rand, lift float64, x []float64) {
			x[0], x[1] = 0, 0
			if rng.IntN(10) < 3 {
				taste := rng.NormFloat64()
				x[0] = math.Exp(taste+0.75*rng.NormFloat64()) * (1 + lift)
				x[1] = math.Exp(taste + 0.75*rng.NormFloat64())
			}
		},
		value: func(lift float64) float64 { return 0.3 * math.Exp((1+0.75*0.75)/2) * (1 + lift) },
	},
	{
		name: "ratio", formula: stats.ComponentRatio(0, 1), covariates: []int{2, 3}, dim: 4, lift: 0.08, promise: light,
		draw: func(rng *rand.Rand, lift float64, x []float64) {
			activity := 3 * rng.ExpFloat64()
			chance := beta28(rng)
			x[1] = 1 + poisson(rng, activity)
			x[0] = successes(rng, int(x[1]), chance*(1+lift))
			x[3] = 1 + poisson(rng, activity)
			x[2] = successes(rng, int(x[3]), chance)
		},
		// Views and chances are independent. A chance above 1 ÷ (1 + lift) has a
		// probability below 1e-7, and counts for nothing here.
		value: func(lift float64) float64 { return 0.2 * (1 + lift) },
	},
}

func indicator(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// beta28 draws from Beta(2, 8), as the second smallest of nine uniforms.
func beta28(rng *rand.Rand) float64 {
	first, second := 1.0, 1.0
	for range 9 {
		switch u := rng.Float64(); {
		case u < first:
			first, second = u, first
		case u < second:
			second = u
		}
	}
	return second
}

// successes counts those of n trials.
func successes(rng *rand.Rand, n int, chance float64) float64 {
	count := 0.0
	for range n {
		count += indicator(rng.Float64() < chance)
	}
	return count
}

// poisson draws a count by the products of uniforms (Knuth, The Art of Computer
// Programming, volume 2, section 3.4.1).
func poisson(rng *rand.Rand, mean float64) float64 {
	count, product := 0.0, rng.Float64()
	for limit := math.Exp(-mean); product > limit; count++ {
		product *= rng.Float64()
	}
	return count
}
