package stats

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// near fails the test unless got is within a relative error of want.
func near(t *testing.T, what string, got, want, relative float64) {
	t.Helper()
	if !(math.Abs(got-want) <= relative*math.Abs(want)) { // NaN is near nothing.
		t.Errorf("%s = %.17g, want %.17g (off by %.2g of it)", what, got, want, math.Abs(got/want-1))
	}
}

// nearOptional is near for a number that may be absent; a nil want has to be
// met by a nil got.
func nearOptional(t *testing.T, what string, got, want *float64, relative float64) {
	t.Helper()
	switch {
	case got == nil && want == nil:
	case got == nil || want == nil:
		t.Errorf("%s: got %v, want %v", what, show(got), show(want))
	default:
		near(t, what, *got, *want, relative)
	}
}

// show prints an optional number.
func show(x *float64) any {
	if x == nil {
		return "absent"
	}
	return *x
}

// load reads a file of reference numbers; each names the call that made it.
func load(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// column makes moments of subjects given by columns of their components.
func column(columns ...[]float64) Moments {
	m := NewMoments(len(columns))
	x := make([]float64, len(columns))
	for s := range columns[0] {
		for i := range columns {
			x[i] = columns[i][s]
		}
		m.Add(x)
	}
	return m
}

// where picks the entries at which a column of labels has a value.
func where(xs, labels []float64, label float64) []float64 {
	var out []float64
	for i, x := range xs {
		if labels[i] == label {
			out = append(out, x)
		}
	}
	return out
}

// mustCompare compares, or ends the test.
func mustCompare(t *testing.T, r Request) Result {
	t.Helper()
	result, err := Compare(r)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// reference is a row of numbers that R gives for one comparison.
type reference struct {
	Call                         string
	Estimate, Treatment, Control *float64
	SE, DF, Statistic, P         *float64
	Lower, Upper                 *float64
}

// check compares a whole comparison with its reference.
func (want reference) check(t *testing.T, got Comparison) {
	t.Helper()
	const closed = 1e-9
	nearOptional(t, "control", got.Control, want.Control, closed)
	nearOptional(t, "treatment", got.Treatment, want.Treatment, closed)
	nearOptional(t, "estimate", got.Difference.Estimate, want.Estimate, closed)
	nearOptional(t, "standard error", got.Difference.StandardError, want.SE, closed)
	if want.P == nil { // What is not judged shows none.
		want.DF = nil
	}
	nearOptional(t, "degrees of freedom", got.Difference.DegreesOfFreedom, want.DF, closed)
	nearOptional(t, "statistic", got.Statistic, want.Statistic, closed)
	nearOptional(t, "p-value", got.PValue, want.P, closed)
	nearOptional(t, "lower", got.Difference.Lower, want.Lower, closed)
	nearOptional(t, "upper", got.Difference.Upper, want.Upper, closed)
}
