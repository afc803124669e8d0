package stats

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// exact is the mean and the covariance of two columns in 300 bits.
func exact(xs, ys []float64) (mean, covariance float64) {
	number := func(x float64) *big.Float { return new(big.Float).SetPrec(300).SetFloat64(x) }
	sx, sy, sxy := number(0), number(0), number(0)
	for i := range xs {
		x, y := number(xs[i]), number(ys[i])
		sx.Add(sx, x)
		sy.Add(sy, y)
		sxy.Add(sxy, x.Mul(x, y))
	}
	n := number(float64(len(xs)))
	product := number(0).Mul(sx, sy)
	sxy.Sub(sxy, product.Quo(product, n))
	covariance, _ = sxy.Quo(sxy, number(float64(len(xs)-1))).Float64()
	mean, _ = sx.Quo(sx, n).Float64()
	return mean, covariance
}

// TestMomentsAreAccurate: against 300-bit arithmetic, where naive sums of
// squares have no digit left.
func TestMomentsAreAccurate(t *testing.T) {
	for _, origin := range []float64{0, 1, 1e6, 1e12, -1e12, 1e15} {
		t.Run(fmt.Sprint(origin), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			const n = 100_000
			columns := [][]float64{make([]float64, n), make([]float64, n)}
			for s := range n {
				z := rng.NormFloat64()
				columns[0][s] = origin + z
				columns[1][s] = 3*z + rng.NormFloat64()
			}
			m := column(columns...)
			for i := range columns {
				for j := range columns {
					mean, covariance := exact(columns[i], columns[j])
					got, _ := m.Mean(i)
					if math.Abs(got-mean) > 1e-16*math.Abs(mean)+1e-14 {
						t.Errorf("mean %d = %.17g, want %.17g", i, got, mean)
					}
					c, _ := m.Covariance(i, j)
					near(t, fmt.Sprintf("covariance %d %d", i, j), c, covariance, 1e-11)
				}
			}
		})
	}
}

// TestMomentsOfABillion: 30 doublings of two subjects, and a summary.
func TestMomentsOfABillion(t *testing.T) {
	m := column([]float64{1e12 - 1, 1e12 + 1})
	for range 29 {
		m.Merge(m)
	}
	variance, _ := m.Covariance(0, 0)
	if m.N != 1<<30 || m.Means[0] != 1e12 {
		t.Errorf("%+v", m)
	}
	near(t, "variance", variance, float64(m.N)/float64(m.N-1), 1e-15)

	summary, err := FromSummary(1_000_000_000, []float64{1e12}, []float64{1})
	if err != nil {
		t.Fatal(err)
	}
	summary.Add([]float64{1e12})
	variance, _ = summary.Covariance(0, 0)
	near(t, "variance", variance, 999999999.0/1e9, 1e-15)
}

// TestMeanKeepsMoving: a thousand subjects of 1 more than 1e12, after a hundred
// million at 1e12, move the mean by 1e-5: less than the last bit of 1e12.
func TestMeanKeepsMoving(t *testing.T) {
	m, err := FromSummary(100_000_000, []float64{1e12}, []float64{0})
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		m.Add([]float64{1e12 + 1})
	}
	near(t, "the mean's distance from 1e12", m.Means[0]-1e12+m.Tails[0], 1000/100_001_000.0, 1e-9)
}

// TestMergingInAnyOrder: however subjects are split and merged, the moments are
// the same up to rounding.
func TestMergingInAnyOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		dim, n := 1+rng.IntN(4), 1+rng.IntN(60)
		whole := NewMoments(dim)
		parts := make([]Moments, 1+rng.IntN(6))
		for p := range parts {
			parts[p] = NewMoments(dim)
		}
		for range n {
			x := make([]float64, dim)
			for i := range x {
				x[i] = math.Exp(5 * rng.NormFloat64())
			}
			whole.Add(x)
			parts[rng.IntN(len(parts))].Add(x)
		}
		for len(parts) > 1 {
			i := rng.IntN(len(parts) - 1)
			before := parts[i+1].clone()
			parts[i].Merge(parts[i+1])
			if diff := cmp.Diff(before, parts[i+1]); diff != "" {
				t.Fatalf("merging changed its argument:\n%s", diff)
			}
			parts = append(parts[:i+1], parts[i+2:]...)
		}
		got := parts[0]
		if got.N != whole.N {
			t.Fatalf("%d subjects, want %d", got.N, whole.N)
		}
		for i := range dim {
			near(t, "mean", got.Means[i], whole.Means[i], 1e-13)
			for j := range dim {
				bound := 1e-12 * math.Sqrt(whole.Products[whole.index(i, i)]*whole.Products[whole.index(j, j)])
				if d := got.Products[got.index(i, j)] - whole.Products[whole.index(i, j)]; math.Abs(d) > bound {
					t.Errorf("product %d %d is off by %g, more than %g", i, j, d, bound)
				}
			}
		}
	}
}

func TestMomentsAsJSON(t *testing.T) {
	m := column([]float64{0.1, 0.7, 1e12}, []float64{1, 2, 4})
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var back Moments
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, back); diff != "" {
		t.Error(diff)
	}
	// Without tails they can still be added to and merged.
	back.Tails = nil
	back.Merge(m)
	back.Tails = nil
	back.Add([]float64{1, 1})
	if back.N != 7 {
		t.Errorf("%d subjects", back.N)
	}
}

func TestFewSubjectsHaveNoMoments(t *testing.T) {
	m := NewMoments(1)
	if _, ok := m.Mean(0); ok {
		t.Error("no subjects have a mean")
	}
	m.Add([]float64{3})
	if mean, ok := m.Mean(0); !ok || mean != 3 {
		t.Errorf("mean %v, %v", mean, ok)
	}
	if _, ok := m.Covariance(0, 0); ok {
		t.Error("one subject has a variance")
	}
}

func TestWidthsMustAgree(t *testing.T) {
	m := NewMoments(2)
	for name, f := range map[string]func(){
		"Add":   func() { m.Add([]float64{1}) },
		"Merge": func() { m.Merge(NewMoments(1)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s took another width", name)
				}
			}()
			f()
		}()
	}
}

// TestFromSummary: a summary of subjects gives the moments of the subjects.
func TestFromSummary(t *testing.T) {
	want := column([]float64{1, 2, 4, 9}, []float64{3, 1, 1, 0}, []float64{2, 4, 8, 18})
	var covariances []float64
	for i := range 3 {
		for j := i; j < 3; j++ {
			c, _ := want.Covariance(i, j)
			covariances = append(covariances, c)
		}
	}
	got, err := FromSummary(want.N, want.Means, covariances)
	if err != nil {
		t.Fatal(err)
	}
	for k := range want.Products {
		near(t, fmt.Sprint("product ", k), got.Products[k], want.Products[k], 1e-15)
	}
	if diff := cmp.Diff(want.Means, got.Means); diff != "" {
		t.Error(diff)
	}
}

func TestFromSummaryRefuses(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		name        string
		n           int64
		means       []float64
		covariances []float64
		want        string // "" if it is to be taken
	}{
		{"nothing", 5, nil, nil, "means: there are none"},
		{"negative subjects", -1, []float64{1}, []float64{1}, "subjects: the number lies between 0 and 1000000000000000, and -1 does not"},
		{"a mean that is no number", 5, []float64{nan}, []float64{1}, "means[0]: it is not a finite number"},
		{"an infinite variance", 5, []float64{1}, []float64{inf}, "covariances[0]: it is not a finite number"},
		{"a matrix too short", 5, []float64{1, 2}, []float64{1, 1}, "covariances: there are 2, but the upper triangle for 2 components has 3"},
		{"a negative variance", 5, []float64{1, 2}, []float64{1, 0, -2}, "covariances[2]: the variance of component 1 is negative: -2"},
		{"a covariance too large", 5, []float64{1, 2}, []float64{1, 1.1, 1}, "covariances[1]: components 0 and 1 have covariance 1.1, which is more than their variances allow"},
		{"a covariance with a constant", 5, []float64{1, 2}, []float64{1, 0.1, 0}, "covariances[1]: components 0 and 1 have covariance 0.1, which is more than their variances allow"},
		{"pairs possible, three not", 5, []float64{1, 2, 3}, []float64{1, .9, -.9, 1, .9, 1}, "covariances: they are not positive semidefinite: no subjects can have them"},
		{"one subject with a variance", 1, []float64{1}, []float64{2}, "covariances[0]: with fewer than two subjects there is no covariance, so it has to be 0, not 2"},
		{"too large together", 1e15, []float64{1}, []float64{1e300}, "covariances[0]: 1e+300 is too large for 1000000000000000 subjects"},
		{"a perfect correlation, rounded", 5, []float64{1, 2}, []float64{1, 1.4142136, 2}, ""},
		{"a collinear three", 5, []float64{1, 2, 3}, []float64{1, 1, 2, 1, 2, 4}, ""},
		{"far apart in size", 5, []float64{1, 2}, []float64{1e-200, 0.5, 1e200}, ""},
		{"one subject", 1, []float64{1, 2}, []float64{0, 0, 0}, ""},
		{"none", 0, []float64{0}, []float64{0}, ""},
	} {
		_, err := FromSummary(c.n, c.means, c.covariances)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, dim := range []int{1, 2, 3, 9} {
		b.Run(fmt.Sprint(dim), func(b *testing.B) {
			m := NewMoments(dim)
			x := make([]float64, dim)
			rng := rand.New(rand.NewPCG(5, 6))
			for i := range x {
				x[i] = rng.NormFloat64()
			}
			b.ReportAllocs()
			for b.Loop() {
				m.Add(x)
			}
		})
	}
}
