package stats_test

import (
	"math"
	"testing"

	"github.com/assayhq/assay/internal/stats"
)

func TestEqualSharesWithin(t *testing.T) {
	// R 4: x <- function(some, all) chisq.test(rbind(some, all - some), correct = FALSE)
	// pchisq(x(c(30, 60, 45), c(1000, 1000, 1500))$statistic + x(c(300, 20), c(1000, 100))$statistic, 3, lower.tail = FALSE)
	got := stats.EqualSharesWithin([][]int64{{30, 60, 45}, {300, 20, 0}, {0, 0, 0}, {0, 7, 0}}, [][]int64{{1000, 1000, 1500}, {1000, 100, 0}, {5, 9, 2}, {0, 9, 0}})
	if got == nil || math.Abs(*got/7.379863670511154e-05-1) > 1e-9 {
		t.Errorf("got %v", *got)
	}
	// The shares of the strata differ, and the groups' in the strata do not.
	some, all := [][]int64{{10, 90}, {450, 50}}, [][]int64{{100, 900}, {900, 100}}
	if got := stats.EqualSharesWithin(some, all); got == nil || math.Abs(*got-1) > 1e-9 {
		t.Errorf("got %v, want 1", got)
	}
	if got := stats.EqualSharesWithin(nil, nil); got != nil {
		t.Errorf("of nothing: %v", *got)
	}
}

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
