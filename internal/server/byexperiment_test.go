package server

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestByExperiment counts of more experiments than have a series.
func TestByExperiment(t *testing.T) {
	b := newByExperiment("counted_total", "Counted.")
	for range 2 {
		for i := range maxSeries + 500 {
			b.of(fmt.Sprint("experiment-", i)).Inc()
		}
	}
	if n := testutil.CollectAndCount(b); n != maxSeries+1 {
		t.Errorf("%d series", n)
	}
	for key, want := range map[string]float64{"experiment-0": 2, "experiment-999": 2, "": 1000} {
		if n := testutil.ToFloat64(b.WithLabelValues(key)); n != want {
			t.Errorf("%v counted of %q, want %v", n, key, want)
		}
	}
}
