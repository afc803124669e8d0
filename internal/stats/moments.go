package stats

import (
	"fmt"
	"slices"
)

// Moments are what is kept of a set of subjects: how many, the mean of every
// component, and the centred sums of squares and products, from which
// variances and covariances follow. Two sets merge into one without going back
// to the subjects.
//
// The fields are exported so that Moments can be stored as JSON; a value that
// was not made by this package is checked by [Compare].
//
// Precision: means carry a second, low-order word. At values near 1e12 the
// last bit of a float64 is worth 1e-4, and after 20,000 subjects of unit
// variance the running update is smaller than that, so a single word would
// stop moving at a mean wrong by many standard errors. With two words mean and
// variance keep their last digits there. Sums of products are single words:
// their rounding error grows at worst as N × 1e-16, 1e-7 for 1e9 subjects added
// one by one to the same Moments, and far less when parts are merged.
type Moments struct {
	// N is the number of subjects.
	N int64 `json:"n"`
	// Means holds the mean of each component.
	Means []float64 `json:"means"`
	// Tails holds what Means lost to rounding: the mean is the sum of both.
	// It may be absent, which means zeros.
	Tails []float64 `json:"tails,omitempty"`
	// Products holds the centred sums Σ(x_i − mean_i)(x_j − mean_j), the upper
	// triangle row by row: (0,0), (0,1), …, (1,1), …
	Products []float64 `json:"products"`
	// NonZero and Negative count for each component the subjects whose number is
	// not 0, and those whose number is below 0. Where there are subjects and these
	// are absent they are not known.
	NonZero  []int64 `json:"nonzero,omitempty"`
	Negative []int64 `json:"negative,omitempty"`
}

// NewMoments returns the moments of no subjects, for dim components.
func NewMoments(dim int) Moments {
	words := make([]float64, 2*dim+triangle(dim))
	counts := make([]int64, 2*dim)
	return Moments{
		Means:    words[:dim:dim],
		Tails:    words[dim : 2*dim : 2*dim],
		Products: words[2*dim:],
		NonZero:  counts[:dim:dim],
		Negative: counts[dim:],
	}
}

// triangle is the number of entries in the upper triangle of a square matrix.
func triangle(dim int) int { return dim * (dim + 1) / 2 }

// Dim is the number of components.
func (m *Moments) Dim() int { return len(m.Means) }

// index is the position of (i, j) in the upper triangle, in either order.
func (m *Moments) index(i, j int) int {
	if i > j {
		i, j = j, i
	}
	return i*len(m.Means) - i*(i-1)/2 + j - i
}

// Add takes in one subject, with a value for each component. It does not
// allocate. It panics if x is not as long as the moments are wide.
//
// The update is that of Welford (1962), Note on a method for calculating
// corrected sums of squares and products, in its symmetric form: S grows by
// (n−1)/n · d·dᵀ, where d is the distance from the mean before the update. Row i
// of the triangle needs the old means from i on only, so the means can be replaced
// on the way.
func (m *Moments) Add(x []float64) {
	dim := len(m.Means)
	if len(x) != dim {
		panic(fmt.Sprintf("stats: a subject of %d components added to moments of %d", len(x), dim))
	}
	m.start(dim)
	m.N++
	inverse := 1 / float64(m.N)
	share := 1 - inverse
	means, tails, products := m.Means, m.Tails[:dim], m.Products
	nonzero, negative := m.NonZero, m.Negative
	k := 0
	for i, mean := range means {
		d := (x[i] - mean) - tails[i]
		scaled := d * share
		row := products[k : k+dim-i]
		for j := range row {
			row[j] += scaled * ((x[i+j] - means[i+j]) - tails[i+j])
		}
		k += dim - i
		means[i], tails[i] = addTail(mean, tails[i], d*inverse)
		if i < len(nonzero) {
			nonzero[i] += one(x[i] != 0)
		}
		if i < len(negative) {
			negative[i] += one(x[i] < 0)
		}
	}
}

// start makes room for what is kept beside means and products, and was absent.
// The counts of no subjects are known; those of others stay unknown.
func (m *Moments) start(dim int) {
	if len(m.Tails) != dim {
		m.Tails = make([]float64, dim)
	}
	if m.N > 0 {
		return
	}
	if len(m.NonZero) != dim {
		m.NonZero = make([]int64, dim)
	}
	if len(m.Negative) != dim {
		m.Negative = make([]int64, dim)
	}
}

// one is 1 if it holds and else 0, in a form that compiles without a branch.
func one(holds bool) (n int64) {
	if holds {
		n = 1
	}
	return n
}

// addTail adds step to the two-word number hi + lo and returns its two words.
func addTail(hi, lo, step float64) (float64, float64) { return twoSum(hi, step+lo) }

// twoSum is a + b, and what the sum lost to rounding (Knuth, The Art of Computer
// Programming, volume 2, section 4.2.2, theorem B).
func twoSum(a, b float64) (sum, lost float64) {
	sum = a + b
	back := sum - a
	return sum, (a - (sum - back)) + (b - back)
}

// Merge takes in the subjects of other, which is left as it is. It panics if
// the two differ in width.
//
// S grows by S_other + n·m/(n+m) · d·dᵀ, where d is the distance of the means:
// the pairwise formula of Chan, Golub and LeVeque (1983), Algorithms for
// computing the sample variance, with products in place of squares.
func (m *Moments) Merge(other Moments) {
	dim := len(m.Means)
	if len(other.Means) != dim {
		panic(fmt.Sprintf("stats: moments of %d components merged into moments of %d", len(other.Means), dim))
	}
	if other.N == 0 {
		return
	}
	if len(m.Tails) != dim {
		m.Tails = make([]float64, dim)
	}
	if m.N == 0 {
		m.N = other.N
		copy(m.Means, other.Means)
		copy(m.Products, other.Products)
		copy(m.Tails, other.Tails)
		m.NonZero, m.Negative = slices.Clone(other.NonZero), slices.Clone(other.Negative)
		return
	}
	m.NonZero, m.Negative = sum(m.NonZero, other.NonZero), sum(m.Negative, other.Negative)
	n, added := float64(m.N), float64(other.N)
	share := added / (n + added)
	k := 0
	for i := range m.Means {
		d := m.gap(other, i)
		scaled := d * n * share
		for j := i; j < dim; j++ {
			m.Products[k] += other.Products[k] + scaled*m.gap(other, j)
			k++
		}
		m.Means[i], m.Tails[i] = addTail(m.Means[i], m.Tails[i], d*share)
	}
	m.N += other.N
}

// sum adds counts to others. It is nil, which is unknown, if either is.
func sum(to, counts []int64) []int64 {
	if len(to) == 0 || len(counts) == 0 {
		return nil
	}
	for i, n := range counts {
		to[i] += n
	}
	return to
}

// gap is how far other's mean of component i lies above m's.
func (m *Moments) gap(other Moments, i int) float64 {
	return other.Means[i] - m.Means[i] - m.Tails[i] + other.tail(i)
}

// tail is what the mean of component i lost to rounding.
func (m *Moments) tail(i int) float64 {
	if len(m.Tails) == 0 {
		return 0
	}
	return m.Tails[i]
}

// clone returns a copy that shares nothing with m.
func (m *Moments) clone() Moments {
	c := NewMoments(m.Dim())
	c.Merge(*m)
	return c
}

// Mean is the mean of component i; ok is false if there are no subjects.
func (m *Moments) Mean(i int) (mean float64, ok bool) {
	return m.Means[i], m.N > 0
}

// Covariance is the sample covariance of components i and j, with n−1 in the
// denominator; ok is false if there are fewer than two subjects.
func (m *Moments) Covariance(i, j int) (covariance float64, ok bool) {
	if m.N < 2 {
		return 0, false
	}
	return m.Products[m.index(i, j)] / float64(m.N-1), true
}
