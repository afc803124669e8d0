package server

import (
	"math"
	"runtime/debug"
	"testing"
)

// The budgets keep to their share of the memory limit, whatever it is, and leave
// room for a message of the largest size where there is memory enough.
func TestBudgets(t *testing.T) {
	was := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(was)
	for _, limit := range []int64{math.MaxInt64, 4 << 30, 512 << 20, 128 << 20} {
		debug.SetMemoryLimit(limit)
		a := newTestAdmission(t)
		sum := 2*a.recording + a.small.most + a.large.most + a.replies.most
		if float64(sum) > budgetShare*float64(limit) {
			t.Errorf("with a limit of %d the budgets are %d together", limit, sum)
		}
		if limit >= 1<<30 && a.recording != recordingBytes {
			t.Errorf("with a limit of %d recording has %d", limit, a.recording)
		}
	}
}

func TestBudget(t *testing.T) {
	b := budget{most: 10}
	if !b.take(6) || b.take(5) || !b.take(4) {
		t.Error("it does not hold ten")
	}
	b.release(6)
	if b.take(7) || !b.take(6) {
		t.Error("it does not give back six")
	}
}
