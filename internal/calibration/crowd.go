package calibration

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/assayhq/assay/internal/stats"
)

// crowd is a population most of whose subjects are alike, so that only the others
// have to be drawn one by one: how many there are of each kind is a draw from a
// multinomial distribution.
type crowd struct {
	dim int
	// rare are the kinds that a stratum may have more or fewer of, and common the
	// rest. The chances of the rare ones are of all subjects, those of the common
	// ones of the rest, and the last of those takes what is left.
	rare, common []kind
}

// kind is subjects of one sort.
type kind struct {
	chance [2]float64 // Without and with an effect, which the control has not.
	// x is what each of them has, unless draw fills it in.
	x    []float64
	draw func(rng *rand.Rand, effect bool, x []float64)
}

// add adds n subjects of an arm, spread over the strata by chance. Of two strata or
// more the first has hardly any of the rare kinds and the last twice as many.
func (c *crowd) add(rng *rand.Rand, arm, n int, effect bool, strata []stats.Moments) {
	effect = effect && arm > 0
	for s := range strata {
		here := binomial(rng, n, 1/float64(len(strata)-s))
		n -= here
		more := 1.0
		if len(strata) > 1 {
			more = (2*float64(s) + 1) / float64(len(strata))
		}
		here -= c.some(rng, here, more, c.rare, effect, &strata[s])
		last := len(c.common) - 1
		here -= c.some(rng, here, 1, c.common[:last], effect, &strata[s])
		strata[s].Merge(copies(here, c.common[last].x))
	}
}

// some adds subjects of these kinds out of n, and tells how many.
func (c *crowd) some(rng *rand.Rand, n int, more float64, kinds []kind, effect bool, m *stats.Moments) (added int) {
	left := 1.0
	for i := range kinds {
		k := &kinds[i]
		chance := k.chance[index(effect)] * more
		count := binomial(rng, n-added, math.Min(1, chance/left))
		left -= chance
		added += count
		if k.draw == nil {
			m.Merge(copies(count, k.x))
			continue
		}
		x := make([]float64, c.dim)
		for range count {
			k.draw(rng, effect, x)
			m.Add(x)
		}
	}
	return added
}

func index(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// copies is the moments of n subjects that all have the same numbers, none of them
// negative.
func copies(n int, x []float64) stats.Moments {
	m := stats.NewMoments(len(x))
	m.N = int64(n)
	copy(m.Means, x)
	for i, value := range x {
		if value != 0 {
			m.NonZero[i] = m.N
		}
	}
	return m
}

// fewSuccesses is how many successes are counted one by one.
const fewSuccesses = 30

// binomial draws the number of successes of n trials: a few by the gaps between
// them, which are geometric (Devroye 1986, Non-uniform random variate generation,
// section X.4.3), and many by rejection.
func binomial(rng *rand.Rand, n int, chance float64) int {
	switch {
	case n == 0 || chance <= 0:
		return 0
	case chance >= 1:
		return n
	case chance > 0.5:
		return n - binomial(rng, n, 1-chance)
	case float64(n)*chance >= fewSuccesses:
		return int(distuv.Binomial{N: float64(n), P: chance, Src: rng}.Rand())
	}
	count, at, scale := 0, 0.0, 1/math.Log1p(-chance)
	for {
		// A uniform number is below 1, so that its complement has a logarithm.
		at += 1 + math.Floor(math.Log(1-rng.Float64())*scale)
		if at > float64(n) {
			return count
		}
		count++
	}
}
