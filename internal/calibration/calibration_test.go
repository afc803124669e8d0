package calibration

import (
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/stats"
)

// short is small enough for every run of the suite.
var short = Config{Experiments: 200, Subjects: 600, Share: 0.5, Seed: 7}

// TestPromises: no method breaks its promise, and the simulation would notice:
// the fixed horizon, looked at often, is wrong far too often, and its intervals
// miss.
func TestPromises(t *testing.T) {
	rows, err := Run(t.Context(), short)
	if err != nil {
		t.Fatal(err)
	}
	unprotected := 0
	for i := range rows {
		r := &rows[i]
		if how := r.Broken(); how != "" {
			t.Errorf("%s, looks %s, on the %s (covariates %v): %s: false positives %+v, coverage %+v",
				r.Method, r.Looks, r.Metric, r.Covariates, how, r.FalsePositives, r.Coverage)
		}
		if r.Method == "fixed horizon" && r.Looks == Often {
			unprotected++
			if !r.Coverage.Below(leastCovered) {
				t.Errorf("looking often at the fixed horizon does no harm on the %s: the simulation cannot tell methods apart: %+v", r.Metric, r)
			}
		}
	}
	if want := 2 * len(populations); unprotected != want {
		t.Errorf("%d rows of a fixed horizon that is looked at often, want %d", unprotected, want)
	}
}

// TestSameTable: the table follows from the seed alone.
func TestSameTable(t *testing.T) {
	c := Config{Experiments: 20, Subjects: 200, Share: 0.3, Seed: 3}
	first, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	second, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("another number of processors, another table (-2 +3):\n%s", diff)
	}
	c.Seed++
	other, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if cmp.Equal(first, other) {
		t.Error("another seed, the same table")
	}
}

// TestPopulations: what is known by construction is what many subjects show.
func TestPopulations(t *testing.T) {
	const subjects = 200_000
	for _, p := range populations {
		for _, lift := range []float64{0, p.lift} {
			rng := rand.New(rand.NewPCG(11, 13))
			m := stats.NewMoments(p.dim)
			x := make([]float64, p.dim)
			for range subjects {
				p.draw(rng, lift, x)
				m.Add(x)
			}
			arm := stats.Arm{Strata: []stats.Moments{m}}
			result, err := stats.Compare(stats.Request{
				Formula: p.formula, Covariates: p.covariates, Arms: []stats.Arm{arm, arm},
				Test: stats.Test{Method: stats.FixedHorizon, ConfidenceLevel: 0.95},
			})
			if err != nil {
				t.Fatal(err)
			}
			seen := result.Arms[0]
			if z := (*seen.Value - p.value(lift)) / *seen.StandardError; math.Abs(z) > 4 {
				t.Errorf("%s with lift %v: %v subjects show %v ± %v, said to be %v", p.name, lift, subjects, *seen.Value, *seen.StandardError, p.value(lift))
			}
			if lift == 0 && *result.Comparisons[0].VarianceReduction < 0.05 {
				t.Errorf("%s: the covariates remove %v of the variance, too little to try them", p.name, *result.Comparisons[0].VarianceReduction)
			}
		}
	}
}

// TestRateInterval: R's binom.test(k, n, conf.level = level)$conf.int.
func TestRateInterval(t *testing.T) {
	for _, c := range []struct {
		rate         Rate
		level        float64
		lower, upper float64
	}{
		{Rate{0, 10}, 0.95, 0, 0.30849710781876083},
		{Rate{10, 10}, 0.95, 0.69150289218123917, 1},
		{Rate{3, 20}, 0.95, 0.032070937185463728, 0.378926826545313955},
		{Rate{251, 5000}, 0.95, 4.4311694398202039e-02, 5.6620205139251811e-02},
		{Rate{251, 5000}, 0.9999, 3.9023734031041452e-02, 6.3271363383130996e-02},
		{Rate{1, 100000}, 0.99, 5.0125416979164099e-08, 7.4298906213904914e-05},
	} {
		lower, upper := c.rate.Interval(c.level)
		if math.Abs(lower-c.lower) > 1e-9 || math.Abs(upper-c.upper) > 1e-9 {
			t.Errorf("%+v at %v: %.17g to %.17g, want %.17g to %.17g", c.rate, c.level, lower, upper, c.lower, c.upper)
		}
	}
}
