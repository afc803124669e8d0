package stats_test

import (
	"math"
	"testing"

	"github.com/assayhq/assay/internal/stats"
)

// R 4: chisq.test(rbind(some, all - some), correct = FALSE)$p.value
func TestEqualShares(t *testing.T) {
	for _, c := range []struct {
		some, all []int64
		want      float64
	}{
		{[]int64{30, 60, 45}, []int64{1000, 1000, 1500}, 0.00017206172898864751},
		{[]int64{3, 20}, []int64{1000, 1000}, 0.00036343354203721885},
		{[]int64{3, 0, 20}, []int64{1000, 0, 1000}, 0.00036343354203721885},
	} {
		if got := stats.EqualShares(c.some, c.all); got == nil || math.Abs(*got/c.want-1) > 1e-9 {
			t.Errorf("%v of %v: %v, want %v", c.some, c.all, got, c.want)
		}
	}
	for _, c := range [][2][]int64{{{}, {}}, {{1}, {2}}, {{1, 0}, {2, 0}}, {{0, 0}, {2, 3}}, {{2, 3}, {2, 3}}} {
		if got := stats.EqualShares(c[0], c[1]); got != nil {
			t.Errorf("%v of %v: %v, want none", c[0], c[1], *got)
		}
	}
}
