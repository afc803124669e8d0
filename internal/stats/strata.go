package stats

import (
	"fmt"
	"math"
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

// part is the variance that one cell contributes, with its degrees of freedom.
type part struct {
	variance float64
	degrees  float64
}

// estimate is a value with its variance in independent parts. The value is the
// sum of two words, so that the difference of two large ones keeps its digits.
type estimate struct {
	value, tail float64
	parts       []part
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
	return b
}

// subjects is the number of subjects of an arm in the strata combined.
func (b blend) subjects() int64 {
	var n int64
	for _, c := range b.cells {
		n += c.N
	}
	return n
}

// parts is the variance of a linear function of the arm's means, cell by cell:
// w_s²·gᵀΣ_s g/n_s. With the gradient of the formula at the arm's means this
// is the multivariate delta method (van der Vaart 1998, Asymptotic Statistics,
// theorem 3.1; for metrics Deng, Knoblich and Lu 2018, Applying the delta method
// in metric analytics). With one stratum and one component it is var/n.
func (b blend) parts(gradient []float64) []part {
	parts := make([]part, len(b.cells))
	for k, c := range b.cells {
		degrees := float64(c.N - 1)
		parts[k] = part{
			variance: c.weight * c.weight * c.quadratic(gradient) / degrees / float64(c.N),
			degrees:  degrees,
		}
	}
	return parts
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

// scaled is the parts of the variance after multiplication by a constant.
func scaled(parts []part, by float64) []part {
	out := make([]part, len(parts))
	for k, p := range parts {
		out[k] = part{variance: p.variance * by * by, degrees: p.degrees}
	}
	return out
}

// satterthwaite adds independent parts of variance up and finds the degrees of
// freedom of the sum: V²/Σ(v_k²/ν_k) (Satterthwaite 1946, An approximate
// distribution of estimates of variance components; for two parts Welch 1947
// and R's t.test). The degrees are 0 if the variance is 0.
func satterthwaite(parts ...[]part) (variance, degrees float64) {
	for _, side := range parts {
		for _, p := range side {
			variance += p.variance
		}
	}
	if !(variance > 0) {
		return variance, 0
	}
	sum := 0.0
	for _, side := range parts {
		for _, p := range side {
			share := p.variance / variance
			sum += share * share / p.degrees
		}
	}
	return variance, 1 / sum
}
