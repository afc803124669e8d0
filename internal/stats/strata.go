package stats

import (
	"fmt"
	"math"
	"slices"
)

// cancelled is the share of the terms of a quadratic form below which their
// sum is rounding error: what is left of a variance that is zero in truth,
// such as that of a ratio which is the same for every subject.
const cancelled = 1e-12

// cell is one arm in one stratum, with the stratum's weight.
type cell struct {
	*Moments
	weight float64
}

// blend is one arm with its strata combined.
type blend struct {
	cells []cell
	means []float64
	tails []float64 // What the means lost to rounding, as in Moments.
}

// stratify picks the strata in which the arm and the control can be compared.
// A stratum counts if both have two subjects there: with none there is no
// mean, with one no variance. If no stratum counts, those with one subject
// each are taken, for the sake of the estimate, and variance is false.
func (r *Request) stratify(arm int) (kept []int, variance bool, notes []string) {
	var single []int
	var left int64
	for s := range r.Arms[arm].Strata {
		a, b := r.Arms[arm].Strata[s].N, r.Arms[r.Control].Strata[s].N
		switch fewest := min(a, b); {
		case fewest >= 2:
			kept = append(kept, s)
			continue
		case fewest == 1:
			single = append(single, s)
		}
		left += a + b
	}
	switch {
	case len(kept) == 0 && len(single) == 0:
		return nil, false, []string{"No stratum has subjects of both arms: there is nothing to compare."}
	case len(kept) == 0:
		return single, false, []string{"An arm has only one subject in every stratum, which has no variance: no interval and no p-value."}
	case left > 0:
		notes = append(notes, fmt.Sprintf(
			"%d of %d strata are left out, with %d subjects: an arm has fewer than two subjects there.",
			len(r.Arms[arm].Strata)-len(kept), len(r.Arms[arm].Strata), left))
	}
	return kept, true, notes
}

// weights gives each kept stratum its share of the subjects of all arms, and
// tells how many those are. All
// arms have the same weights, so strata cannot be confounded with arms: this is
// post-stratification (Miratrix, Sekhon and Yu 2013, Adjusting treatment effect
// estimates by post-stratification in randomized experiments).
func (r *Request) weights(kept []int) (weights []float64, total float64) {
	weights = make([]float64, len(kept))
	for k, s := range kept {
		for _, arm := range r.Arms {
			weights[k] += float64(arm.Strata[s].N)
		}
		total += weights[k]
	}
	for k := range weights {
		weights[k] /= total
	}
	return weights, total
}

// combine weights the strata of one arm: m = Σ w_s·μ_s, in two words. FMA gives
// what a product loses to rounding (Ogita, Rump and Oishi 2005, Accurate sum and
// dot product, algorithm 5.3).
func (a Arm) combine(kept []int, weights []float64) blend {
	dim := a.Strata[0].Dim()
	b := blend{cells: make([]cell, len(kept)), means: make([]float64, dim), tails: make([]float64, dim)}
	for k, s := range kept {
		m, w := &a.Strata[s], weights[k]
		b.cells[k] = cell{m, w}
		for i, mean := range m.Means {
			product := w * mean
			var lost float64
			b.means[i], lost = twoSum(b.means[i], product)
			b.tails[i] += lost + math.FMA(w, mean, -product) + w*m.tail(i)
		}
	}
	b.roundZeros()
	return b
}

// roundZeros takes for zero the means that are so as far as rounding can tell, by
// the size of the subjects' numbers. Else what is zero in truth would be divided by,
// or be a slope.
func (b *blend) roundZeros() {
	for i, mean := range b.means {
		if mean == 0 || !isRounding(mean, b.rootMeanSquare(i)) {
			continue
		}
		b.means, b.tails = slices.Clone(b.means), slices.Clone(b.tails) // They may be an arm's own.
		if b.means[i] = 0; i < len(b.tails) {
			b.tails[i] = 0
		}
	}
}

// subjects is the number of subjects of an arm in the strata combined.
func (b blend) subjects() int64 {
	var n int64
	for _, c := range b.cells {
		n += c.N
	}
	return n
}

// quadratic is gᵀSg, with S the matrix of products; never negative.
func (m *Moments) quadratic(g []float64) float64 {
	sum, size := 0.0, 0.0
	k := 0
	for i := range g {
		if g[i] == 0 {
			k += len(g) - i
			continue
		}
		for j := i; j < len(g); j++ {
			if g[j] != 0 {
				term := g[i] * m.Products[k] * g[j]
				if i != j {
					term *= 2
				}
				sum += term
				size += math.Abs(term)
			}
			k++
		}
	}
	if sum <= cancelled*size {
		return 0
	}
	return sum
}
