package stats

import (
	"errors"
	"fmt"
	"math"
)

// maxSubjects bounds the subjects of one set of moments, so that sums of them
// cannot overflow and a float64 holds them exactly.
const maxSubjects = 1_000_000_000_000_000

// InvalidError says what is wrong with one field of a request. A request with
// several faults gets them all, joined by errors.Join.
type InvalidError struct {
	// Field is the path of the field, such as "arms[1].strata[0].means[2]".
	Field string
	// Reason is the rest of the sentence.
	Reason string
}

// Error is the field and the reason.
func (e InvalidError) Error() string { return e.Field + ": " + e.Reason }

// faults collects what is wrong with a request.
type faults []InvalidError

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, InvalidError{field, fmt.Sprintf(format, args...)})
}

// err is all faults as one error, or nil.
func (f faults) err() error {
	errs := make([]error, len(f))
	for i := range f {
		errs[i] = f[i]
	}
	return errors.Join(errs...)
}

// check names every fault of a request, or returns nil.
func (r *Request) check() error {
	var f faults
	if r.Formula == nil {
		f.add("formula", "it is missing")
	}
	r.Test.check(&f)
	if !finite(r.Margin.Value) {
		f.add("margin", "it is not a finite number")
	}
	if r.Test.Alternative == Equivalent && r.Margin.Value <= 0 {
		f.add("margin", "equivalence needs one greater than 0, and it is %v", r.Margin.Value)
	}
	if r.Margin.Scale != Absolute && r.Margin.Scale != Relative {
		f.add("margin", "scale %d is not known", r.Margin.Scale)
	}
	if len(r.Arms) < 2 {
		f.add("arms", "a comparison needs two arms or more, and there are %d", len(r.Arms))
		return f.err()
	}
	if r.Control < 0 || r.Control >= len(r.Arms) {
		f.add("control", "arm %d is not one of the %d arms", r.Control, len(r.Arms))
	}
	strata := len(r.Arms[0].Strata)
	if strata == 0 {
		f.add("arms[0].strata", "an arm needs one stratum or more")
		return f.err()
	}
	dim := r.Arms[0].Strata[0].Dim()
	for a, arm := range r.Arms {
		if len(arm.Strata) != strata {
			f.add(fmt.Sprintf("arms[%d].strata", a), "there are %d, but arms[0] has %d", len(arm.Strata), strata)
			continue
		}
		for s := range arm.Strata {
			for _, fault := range arm.Strata[s].check(dim) {
				fault.Field = fmt.Sprintf("arms[%d].strata[%d].%s", a, s, fault.Field)
				f = append(f, fault)
			}
		}
	}
	r.checkCovariates(&f, dim)
	return f.err()
}

// checkCovariates refuses covariates that are not components, and repeats.
func (r *Request) checkCovariates(f *faults, dim int) {
	seen := make([]bool, dim)
	for k, i := range r.Covariates {
		field := fmt.Sprintf("covariates[%d]", k)
		switch {
		case i < 0 || i >= dim:
			f.add(field, "component %d is not one of the %d components", i, dim)
		case seen[i]:
			f.add(field, "component %d is named twice", i)
		default:
			seen[i] = true
		}
	}
}

// check refuses a test that says nothing.
func (t Test) check(f *faults) {
	if t.Method < FixedHorizon || t.Method > Bayesian {
		f.add("method", "method %d is not known", t.Method)
	}
	if !(t.ConfidenceLevel > 0.5 && t.ConfidenceLevel < 1) {
		f.add("confidence_level", "it lies above 0.5 and below 1, and %v does not", t.ConfidenceLevel)
	}
	if t.IntervalRate != 0 && !(t.IntervalRate > 0 && t.IntervalRate < 0.5) {
		f.add("interval_rate", "it lies above 0 and below 0.5, and %v does not", t.IntervalRate)
	}
	if t.PlannedSubjects < 0 {
		f.add("planned_subjects", "it is not negative, and %d is", t.PlannedSubjects)
	}
	if t.Method != GroupSequential && t.Schedule != nil {
		f.add("looks", "only a group-sequential test has looks")
	}
	if t.Method == Bayesian {
		t.Prior.check(f)
	}
	if t.Alternative < TwoSided || t.Alternative > Equivalent {
		f.add("alternative", "alternative %d is not known", t.Alternative)
	}
}

// check refuses moments that are not dim components wide, or that no subjects
// can have. The fields are those of the moments.
func (m *Moments) check(dim int) (f faults) {
	if len(m.Means) != dim {
		f.add("means", "there are %d, but the first stratum of the first arm has %d", len(m.Means), dim)
		return f
	}
	if len(m.Tails) != 0 && len(m.Tails) != dim {
		f.add("tails", "there are %d for %d components", len(m.Tails), dim)
	}
	if len(m.Products) != triangle(dim) {
		f.add("products", "there are %d, but %d components have %d", len(m.Products), dim, triangle(dim))
		return f
	}
	if m.N < 0 || m.N > maxSubjects {
		f.add("n", "the number of subjects lies between 0 and %d, and %d does not", int64(maxSubjects), m.N)
	}
	m.checkCounts(&f, "nonzero", m.NonZero)
	m.checkCounts(&f, "negative", m.Negative)
	checkFinite(&f, "means", m.Means)
	checkFinite(&f, "tails", m.Tails)
	checkFinite(&f, "products", m.Products)
	for i := range dim {
		if s := m.Products[m.index(i, i)]; s < 0 {
			f.add("products", "the sum of squares of component %d is negative: %v", i, s)
		}
	}
	return f
}

// checkCounts refuses counts of subjects, one for each component, that are more
// than all or fewer than none. There may be none at all.
func (m *Moments) checkCounts(f *faults, field string, counts []int64) {
	if len(counts) != 0 && len(counts) != m.Dim() {
		f.add(field, "there are %d for %d components", len(counts), m.Dim())
	}
	for i, n := range counts {
		if m.N >= 0 && (n < 0 || n > m.N) {
			f.add(fmt.Sprintf("%s[%d]", field, i), "of %d subjects %d cannot be", m.N, n)
		}
	}
}

// checkFinite names every NaN and every infinity.
func checkFinite(f *faults, field string, numbers []float64) {
	for i, x := range numbers {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			f.add(fmt.Sprintf("%s[%d]", field, i), "it is not a finite number")
		}
	}
}
