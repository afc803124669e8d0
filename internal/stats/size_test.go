package stats

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestApportion: whole numbers that add up, each next to its share.
func TestApportion(t *testing.T) {
	if got := Apportion(10, []float64{0.3, 0.35, 0.35}); !slices.Equal(got, []int64{3, 4, 3}) {
		t.Errorf("10 subjects are apportioned as %v", got)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		shares := make([]float64, 2+rng.IntN(10))
		total, sum := 0.0, int64(0)
		for i := range shares {
			shares[i] = rng.ExpFloat64()
			total += shares[i]
		}
		for i := range shares {
			shares[i] /= total
		}
		subjects := int64(math.Exp(27 * rng.Float64()))
		for i, n := range Apportion(subjects, shares) {
			sum += n
			if math.Abs(float64(n)-float64(subjects)*shares[i]) > 1 {
				t.Errorf("%d of %d subjects for a share of %v", n, subjects, shares[i])
			}
		}
		if sum != subjects {
			t.Errorf("%d of %d subjects are apportioned", sum, subjects)
		}
	}
}
