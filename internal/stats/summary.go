package stats

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// summaryTolerance is how far the correlations of a summary may be from
// possible ones. Summaries are often rounded to some seven digits on the way.
const summaryTolerance = 1e-6

// FromSummary makes moments of n subjects out of their component means and
// sample covariances (n−1 in the denominator), the upper triangle row by row.
// It refuses numbers that no subjects can have, with an [InvalidError] for each
// field at fault ("subjects", "means", "covariances"): a covariance matrix has
// to be positive semidefinite, up to rounding. With fewer than two subjects
// there is no covariance, and all have to be 0. The counts of the moments are
// not known, unless there are no subjects.
func FromSummary(n int64, means, covariances []float64) (Moments, error) {
	var f faults
	dim := len(means)
	if dim == 0 {
		f.add("means", "there are none")
	}
	if n < 0 || n > maxSubjects {
		f.add("subjects", "the number lies between 0 and %d, and %d does not", int64(maxSubjects), n)
	}
	checkFinite(&f, "means", means)
	checkFinite(&f, "covariances", covariances)
	if len(covariances) != triangle(dim) {
		f.add("covariances", "there are %d, but the upper triangle for %d components has %d", len(covariances), dim, triangle(dim))
	}
	if len(f) > 0 {
		return Moments{}, f.err()
	}
	m := NewMoments(dim)
	checkCovariances(&f, n, &m, covariances)
	if len(f) > 0 {
		return Moments{}, f.err()
	}
	if n == 0 {
		return m, nil
	}
	m.N = n
	m.NonZero, m.Negative = nil, nil
	copy(m.Means, means)
	for k, c := range covariances {
		if m.Products[k] = c * float64(n-1); !finite(m.Products[k]) {
			f.add(fmt.Sprintf("covariances[%d]", k), "%v is too large for %d subjects", c, n)
		}
	}
	if len(f) > 0 {
		return Moments{}, f.err()
	}
	return m, nil
}

// checkCovariances refuses a matrix that is not positive semidefinite. It
// works on correlations, so that the tolerance does not depend on units. Pairs
// are checked by themselves first (Cauchy and Schwarz), to name the culprits.
// m gives the positions.
func checkCovariances(f *faults, n int64, m *Moments, covariances []float64) {
	dim := m.Dim()
	deviation := make([]float64, dim)
	for i := range dim {
		k := m.index(i, i)
		if covariances[k] < 0 {
			f.add(fmt.Sprintf("covariances[%d]", k), "the variance of component %d is negative: %v", i, covariances[k])
		}
		deviation[i] = math.Sqrt(covariances[k])
	}
	if n < 2 {
		for k, c := range covariances {
			if c != 0 {
				f.add(fmt.Sprintf("covariances[%d]", k), "with fewer than two subjects there is no covariance, so it has to be 0, not %v", c)
			}
		}
	}
	if len(*f) > 0 {
		return
	}
	correlation := make([]float64, len(covariances))
	for i := range dim {
		for j := i; j < dim; j++ {
			k := m.index(i, j)
			correlation[k] = correlate(covariances[k], deviation[i], deviation[j])
			if i == j {
				correlation[k] = 1
			} else if math.Abs(correlation[k]) > 1+summaryTolerance {
				f.add(fmt.Sprintf("covariances[%d]", k), "components %d and %d have covariance %v, which is more than their variances allow", i, j, covariances[k])
			}
		}
	}
	if len(*f) == 0 && !semidefinite(dim, correlation) {
		f.add("covariances", "they are not positive semidefinite: no subjects can have them")
	}
}

// correlate is a covariance over two standard deviations. A constant
// correlates with nothing; a covariance with one is out of all bounds.
func correlate(covariance, di, dj float64) float64 {
	if covariance == 0 {
		return 0
	}
	return covariance / di / dj
}

// semidefinite tells whether a correlation matrix has no eigenvalue below zero
// by more than the tolerance for each component.
func semidefinite(dim int, correlation []float64) bool {
	matrix := mat.NewSymDense(dim, nil)
	k := 0
	for i := range dim {
		for j := i; j < dim; j++ {
			matrix.SetSym(i, j, correlation[k])
			k++
		}
	}
	var eigen mat.EigenSym
	return eigen.Factorize(matrix, false) && eigen.Values(nil)[0] >= -summaryTolerance*float64(dim)
}
