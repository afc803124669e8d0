package calibration

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/assayhq/assay/internal/stats"
)

// cellsLike are the cells whose name has one of these parts.
func cellsLike(parts ...string) []Cell {
	var cells []Cell
	for _, c := range Cells() {
		if slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(c.Name(), part) }) {
			cells = append(cells, c)
		}
	}
	return cells
}

// TestCellPromises: on a few designs no promise is broken, and the judge can tell:
// one that looks ten times at a fixed horizon breaks both of a dense design.
func TestCellPromises(t *testing.T) {
	const runs = 300
	for _, c := range cellsLike("dense/proportion, 1:1", "rate/1 %, 1:99, 500 events", "sparse/ratio, 2 % buy, σ 1, 1:9, 500 events",
		"rare numerator/one each, 1:99, 500 events", "lift with covariates/slopes 1 and 1.5", "non-inferiority/rate 1 % against a lift of +50 %, 1:9, 100 events", "drifting effect/0.25", "decided/0.25",
		"20 groups, 100 subjects a cell, normal", "under a trend/90:10 becomes 50:50, window of 2 days") {
		r, err := c.Try(t.Context(), runs, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, broken := range c.Broken(&r) {
			t.Error(broken)
		}
	}
	s := converting(0.05, []int{2000, 2000})
	s.judges = []watch{{"fixed horizon, looked at ten times", looks, alike(stats.FixedHorizon, looks)}}
	wrong := s.cell("test", "wrong method", light)
	r, err := wrong.Try(t.Context(), runs, 1)
	if err != nil {
		t.Fatal(err)
	}
	if broken := wrong.Broken(&r); len(broken) != 3 {
		t.Errorf("of false positives and coverage of two scales %v are broken, in %+v", broken, r)
	}
}

// TestSameCounts: counts follow from the cell, the seed and the runs alone.
func TestSameCounts(t *testing.T) {
	c := cellsLike("rare numerator/σ 1, 1:9, 100 events")[0]
	try := func(seed uint64) Result {
		r, err := c.Try(t.Context(), 50, seed)
		if err != nil {
			t.Fatal(err)
		}
		r.Seconds = 0
		return r
	}
	first, other := try(1), try(2)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	if diff := cmp.Diff(first, try(1)); diff != "" {
		t.Errorf("another number of processors, other counts (-2 +3):\n%s", diff)
	}
	if other.Seed = first.Seed; cmp.Equal(first, other) {
		t.Error("another seed, the same counts")
	}
	if k := first.Counts[0]; k.Null.Runs != 50 || k.Effect.Runs != 50 {
		t.Errorf("50 runs without an effect and with one are %+v", k)
	}
}

// TestFile: what is in a file is not tried again, but for another seed or number of
// runs; a line that was cut off is.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.jsonl")
	cells := cellsLike("rate/5 %, 1:1, 20 events", "rate/5 %, 1:9, 20 events")
	try := func(c *Cell, runs int, seed uint64, wantKnown bool) Result {
		t.Helper()
		f, err := OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r, known, err := f.Try(t.Context(), c, runs, seed)
		if err != nil || known != wantKnown {
			t.Fatalf("known %v, want %v, error %v", known, wantKnown, err)
		}
		return r
	}
	first := try(&cells[0], 20, 1, false)
	if diff := cmp.Diff(first, try(&cells[0], 20, 1, true), cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("read back (-before +after):\n%s", diff)
	}
	try(&cells[1], 20, 1, false)
	try(&cells[0], 21, 1, false)
	try(&cells[0], 20, 2, false)
	try(&cells[1], 20, 1, true)
}

// TestNames: a name decides what is simulated and is the key of its results.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Cells() {
		if seen[c.Name()] {
			t.Errorf("two cells are called %q", c.Name())
		}
		seen[c.Name()] = true
		for _, m := range c.Methods {
			if m.Reason == "" {
				t.Errorf("%s, %s gives no reason for its promise", c.Name(), m.Name)
			}
		}
	}
}

// TestTruth: the effects that designs are said to have are what many subjects show.
func TestTruth(t *testing.T) {
	done := map[string]bool{}
	for _, c := range Cells() {
		s := c.sample
		design, _, _ := strings.Cut(c.Design, ", 1:") // Splits and sizes do not matter.
		if s == nil || done[c.Group+design] {
			continue
		}
		done[c.Group+design] = true
		subjects := 100_000
		if c.Group == "sparse" || c.Group == "rate" || c.Group == "rare numerator" {
			subjects = 2_000_000
		}
		for effect := range c.parts {
			if !c.parts[effect] {
				continue
			}
			request := s.request
			request.Test = stats.Test{Method: stats.FixedHorizon, ConfidenceLevel: 1 - alpha}
			request.Margin, request.Covariates = stats.Margin{}, nil
			rng := rand.New(rand.NewPCG(5, 6))
			for arm := range 2 {
				strata := make([]stats.Moments, s.strata)
				for k := range strata {
					strata[k] = stats.NewMoments(s.dim)
				}
				s.draw(rng, arm, subjects, effect == 1, strata)
				request.Arms = append(request.Arms, stats.Arm{Strata: strata})
			}
			result, err := stats.Compare(request)
			if err != nil {
				t.Fatal(err)
			}
			got, truth := result.Comparisons[0].Unadjusted, s.difference*float64(effect)
			if z := (*got.Difference.Estimate - truth) / *got.Difference.StandardError; !(math.Abs(z) < 4) {
				t.Errorf("%s: %v subjects show %v ± %v, said to be %v", c.Name(), subjects, *got.Difference.Estimate, *got.Difference.StandardError, truth)
			}
			if effect == 1 && c.Group != "lift over a weak baseline" {
				if off := (*got.Lift.Estimate - s.lift) / *got.Difference.StandardError * *got.Control; !(math.Abs(off) < 5) {
					t.Errorf("%s: a lift of %v is said to be %v", c.Name(), *got.Lift.Estimate, s.lift)
				}
			}
		}
	}
}

// TestBinomial: means and variances of both ways to draw, and of what is likely.
func TestBinomial(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		n int
		p float64
	}{{1, 0.3}, {7, 0.5}, {1000, 0.001}, {50, 0.59}, {300, 0.2}, {100_000, 0.01}, {500, 0.97}} {
		const draws = 40_000
		m := stats.NewMoments(1)
		for range draws {
			m.Add([]float64{float64(binomial(rng, c.n, c.p))})
		}
		mean, variance := float64(c.n)*c.p, float64(c.n)*c.p*(1-c.p)
		seen, _ := m.Covariance(0, 0)
		// The variance of a sample variance is that of a normal one, and some more
		// where few succeed.
		if z := (m.Means[0] - mean) / math.Sqrt(variance/draws); math.Abs(z) > 4 {
			t.Errorf("of %d with %v the mean is %v", c.n, c.p, m.Means[0])
		}
		if z := (seen/variance - 1) / math.Sqrt((2+1/variance)/draws); math.Abs(z) > 4 {
			t.Errorf("of %d with %v the variance is %v, not %v", c.n, c.p, seen, variance)
		}
	}
	if binomial(rng, 5, 0) != 0 || binomial(rng, 5, 1) != 5 || binomial(rng, 0, 0.5) != 0 {
		t.Error("what is certain was drawn")
	}
}

// TestBeyondChance: R's min(k[pbinom(k - 1, n, p, lower.tail = FALSE) < 0.001]), for
// k of 0:n.
func TestBeyondChance(t *testing.T) {
	for _, c := range []struct {
		n     int
		p     float64
		least int
	}{{10_000, 0.06, 676}, {200, 0.06, 25}, {10_000, 0.08, 886}, {1000, 0.05, 74}} {
		if (Rate{c.least - 1, c.n}).Above(c.p) || !(Rate{c.least, c.n}).Above(c.p) {
			t.Errorf("%+v: not the least count", c)
		}
		if (Rate{c.n - c.least + 1, c.n}).Below(1-c.p) || !(Rate{c.n - c.least, c.n}).Below(1-c.p) {
			t.Errorf("%+v: not the greatest of the rest", c)
		}
	}
	if (Rate{}).Above(0.05) || (Rate{}).Below(0.95) {
		t.Error("nothing breaks a promise")
	}
}
