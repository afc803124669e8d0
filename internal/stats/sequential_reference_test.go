package stats

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// sameLooks are looks whose information is their time.
func sameLooks(times ...float64) []Look {
	looks := make([]Look, len(times))
	for i, t := range times {
		looks[i] = Look{Time: t, Information: t}
	}
	return looks
}

func mustSchedule(t testing.TB, spending Spending, looks []Look) *Schedule {
	t.Helper()
	s, err := NewSchedule(spending, looks)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// evenly are k times from 1/k to 1.
func evenly(k int) []float64 {
	times := make([]float64, k)
	for i := range times {
		times[i] = float64(i+1) / float64(k)
	}
	return times
}

// design is a schedule with the boundary of each look as the last one so far,
// where it is known. Level and what was spent are there from rpact alone.
type design struct {
	Spending                  Spending
	Sided                     int
	Alpha                     float64
	Times                     []float64
	Boundaries, Spent, Levels []*float64
}

// check compares the boundaries within a relative error, and what was spent, which
// has a closed form.
func (d design) check(t *testing.T, relative float64) {
	t.Helper()
	rate, alternative := d.Alpha, Greater
	if d.Sided == 2 {
		rate, alternative = d.Alpha/2, TwoSided
	}
	for k := range d.Boundaries {
		s := mustSchedule(t, d.Spending, sameLooks(d.Times[:k+1]...))
		got := s.boundary(rate, d.Sided == 2) // Which TestTabulatedBoundary compares with what is used.
		spent := d.Spending.Spent(d.Alpha, d.Times[k], alternative)
		what := fmt.Sprintf("spending %d, %d-sided, alpha %v, look %d of %v:", d.Spending, d.Sided, d.Alpha, k+1, d.Times)
		for name, pair := range map[string]struct {
			got      float64
			want     []*float64
			relative float64
		}{
			"boundary": {got, d.Boundaries, relative}, "level": {normalUpperTail(got), d.Levels, relative},
			"spent": {spent, d.Spent, 1e-9},
		} {
			if pair.want != nil && pair.want[k] != nil {
				near(t, what+" "+name, pair.got, *pair.want[k], pair.relative)
			}
		}
	}
}

// TestBoundaries: rpact's getDesignGroupSequential, mvtnorm's pmvnorm, and an
// integration in Python.
func TestBoundaries(t *testing.T) {
	var r, python struct{ Designs, Exact []design }
	load(t, "sequential-r.json", &r)
	load(t, "sequential-python.json", &python)
	if len(r.Designs) < 40 || len(r.Exact) < 10 || len(python.Designs) < 50 {
		t.Fatalf("%d, %d and %d designs", len(r.Designs), len(r.Exact), len(python.Designs))
	}
	for _, d := range r.Designs {
		d.check(t, 1e-6) // By iteration, over a coarser grid.
	}
	for _, d := range slices.Concat(r.Exact, python.Designs) {
		d.check(t, 1e-9)
	}
}

// TestRepeated: rpact's getRepeatedConfidenceIntervals and getRepeatedPValues,
// which gives 0.5 for all from there on.
func TestRepeated(t *testing.T) {
	var file struct {
		Repeated []struct {
			Spending                                                  Spending
			Times                                                     []float64
			Normal                                                    bool
			Subjects, Estimate, Deviation, Statistic, Lower, Upper, P float64
		}
	}
	load(t, "sequential-r.json", &file)
	if len(file.Repeated) < 20 {
		t.Fatalf("only %d cases", len(file.Repeated))
	}
	for _, c := range file.Repeated {
		e := Evidence{Estimate: c.Estimate, StandardError: c.Deviation * math.Sqrt(2/c.Subjects), DegreesOfFreedom: math.Inf(1)}
		if !c.Normal {
			e.DegreesOfFreedom = 2*c.Subjects - 2
		}
		test := Test{Method: GroupSequential, ConfidenceLevel: 0.975, Alternative: Greater,
			Schedule: mustSchedule(t, c.Spending, sameLooks(c.Times...))}
		got := test.Infer(e, 0)
		what := fmt.Sprintf("spending %d, %v, normal %v:", c.Spending, c.Times, c.Normal)
		near(t, what+" statistic", *got.Statistic, c.Statistic, 1e-9)
		near(t, what+" width below", c.Estimate-*got.Lower, c.Estimate-c.Lower, 1e-6) // A bound may be near 0.
		if c.P < 0.4999 {
			near(t, what+" p", *got.PValue, c.P, 1e-6)
		} else if *got.PValue < 0.4999 {
			t.Errorf("%s p = %v, want %v or more", what, *got.PValue, c.P)
		}
		test.Alternative = Less
		near(t, what+" width above", *test.Infer(e, 0).Upper-c.Estimate, c.Upper-c.Estimate, 1e-6)
	}
}
