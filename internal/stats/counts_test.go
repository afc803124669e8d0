package stats

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestMomentsCountSubjects: those whose number is not 0, and those whose number
// is negative, however the subjects came together.
func TestMomentsCountSubjects(t *testing.T) {
	subjects := [][]float64{{0, -1, 3}, {2, 0, -4}, {0, -3, 5}, {1, 7, 0}}
	whole, parts := NewMoments(3), NewMoments(3)
	for _, x := range subjects {
		whole.Add(x)
		one := NewMoments(3)
		one.Add(x)
		parts.Merge(one)
	}
	stored := NewMoments(3)
	text, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &stored); err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]Moments{"added": whole, "merged": parts, "stored": stored, "cloned": whole.clone()} {
		if diff := cmp.Diff([][]int64{{2, 3, 3}, {0, 2, 1}}, [][]int64{m.NonZero, m.Negative}); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if err := whole.check(3).err(); err != nil {
		t.Errorf("check: %v", err)
	}
}

// TestUnknownCountsStayUnknown: of a summary nobody knows them, and of more
// subjects with these neither; a summary of nobody takes nothing away.
func TestUnknownCountsStayUnknown(t *testing.T) {
	unknown, err := FromSummary(3, []float64{0.5}, []float64{1})
	if err != nil {
		t.Fatal(err)
	}
	nobody, err := FromSummary(0, []float64{0}, []float64{0})
	if err != nil {
		t.Fatal(err)
	}
	known := NewMoments(1)
	known.Add([]float64{2})
	known.Merge(nobody)
	nobody.Merge(known)
	for name, m := range map[string]Moments{"nobody merged": known, "merged into nobody": nobody} {
		if diff := cmp.Diff([][]int64{{1}, {0}}, [][]int64{m.NonZero, m.Negative}); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	into, from := known.clone(), unknown.clone()
	into.Merge(unknown)
	from.Merge(known)
	unknown.Add([]float64{1})
	for name, m := range map[string]Moments{"merged into": into, "merged from": from, "added to": unknown} {
		if m.NonZero != nil || m.Negative != nil {
			t.Errorf("%s: %v %v, want none", name, m.NonZero, m.Negative)
		}
	}
}

func TestCountsThatNoSubjectsHave(t *testing.T) {
	m := NewMoments(2)
	m.Add([]float64{1, 2})
	m.NonZero[0], m.Negative[1] = 2, -1
	want := faults{{"nonzero[0]", "of 1 subjects 2 cannot be"}, {"negative[1]", "of 1 subjects -1 cannot be"}}
	if diff := cmp.Diff(want, m.check(2)); diff != "" {
		t.Error(diff)
	}
	m.NonZero, m.Negative = []int64{1}, nil
	if diff := cmp.Diff(faults{{"nonzero", "there are 1 for 2 components"}}, m.check(2)); diff != "" {
		t.Error(diff)
	}
}

// TestIntervalRate: the interval is that of another level, and all else stays.
func TestIntervalRate(t *testing.T) {
	schedule, err := NewSchedule(OBrienFleming, []Look{{0.5, 50}, {0.9, 90}})
	if err != nil {
		t.Fatal(err)
	}
	e := Evidence{Estimate: 0.3, StandardError: 0.1, DegreesOfFreedom: 40, Subjects: 500, LiftUnit: 1}
	for _, test := range []Test{
		{Method: FixedHorizon}, {Method: GroupSequential, Schedule: schedule},
		{Method: AlwaysValid, PlannedSubjects: 800}, {Method: Bayesian, Prior: Prior{Alpha: 1, Beta: 1}},
	} {
		for _, side := range []Alternative{TwoSided, Greater, Less, Equivalent} {
			test.ConfidenceLevel, test.Alternative, test.IntervalRate = 0.95, side, 0
			plain := test.Infer(e, 0.1)
			test.IntervalRate = 0.01
			wide := test.Infer(e, 0.1)
			lower, upper := wide.Lower, wide.Upper
			wide.Lower, wide.Upper = plain.Lower, plain.Upper
			if diff := cmp.Diff(plain, wide); diff != "" {
				t.Errorf("method %d, side %d: beside the interval: %s", test.Method, side, diff)
			}
			if test.Method == AlwaysValid { // The shape of the boundary stays the level's.
				x := test.intrinsicTime(e.Subjects)
				checkBounds(t, lower, upper, e, atNormalScore(mixtureCritical(0.01, x), e.DegreesOfFreedom))
				continue
			}
			test.ConfidenceLevel, test.IntervalRate = 0.99, 0
			want := test.Infer(e, 0.1)
			if diff := cmp.Diff([]*float64{want.Lower, want.Upper}, []*float64{lower, upper}, cmpopts.EquateApprox(1e-12, 0)); diff != "" {
				t.Errorf("method %d, side %d: %s", test.Method, side, diff)
			}
		}
	}
	if err := (Test{Method: FixedHorizon, ConfidenceLevel: 0.95, IntervalRate: 0.7}).errors(); err == nil {
		t.Error("a rate of 0.7 is taken")
	}
}

// checkBounds checks that those which are there lie so many standard errors off.
func checkBounds(t *testing.T, lower, upper *float64, e Evidence, reach float64) {
	t.Helper()
	if lower != nil {
		near(t, "lower", *lower, e.Estimate-reach*e.StandardError, 1e-12)
	}
	if upper != nil {
		near(t, "upper", *upper, e.Estimate+reach*e.StandardError, 1e-12)
	}
}

func (t Test) errors() error {
	var f faults
	t.check(&f)
	return f.err()
}

// TestZeroByRoundingInFormulas: what is zero but for rounding is neither divided by
// nor a slope, and two arms that are alike do not differ. 0.1 + 0.2 and 0.3 are not
// the same float64, nor is the mean of one rate always that of its like.
func TestZeroByRoundingInFormulas(t *testing.T) {
	arm := func(means ...float64) Arm {
		m := NewMoments(len(means))
		m.N = 100
		copy(m.Means, means)
		for i := range means {
			m.Products[m.index(i, i)], m.NonZero[i] = 99, 100
		}
		return Arm{[]Moments{m}}
	}
	quotient := func(x []float64) (float64, []float64) { // a / (b − c)
		by := x[1] - x[2]
		return x[0] / by, []float64{1 / by, -x[0] / by / by, x[0] / by / by}
	}
	divisor := func(x []float64) (float64, []float64) { return x[1] - x[2], []float64{0, 1, -1} }
	product := func(x []float64) (float64, []float64) { return x[0] * x[1], []float64{x[1], x[0]} }
	sum := 0.1
	sum += 0.2
	compare := func(r Request) ArmComparison {
		t.Helper()
		r.Test = Test{Method: FixedHorizon, ConfidenceLevel: 0.95}
		result, err := Compare(r)
		if err != nil {
			t.Fatal(err)
		}
		return result.Comparisons[0]
	}
	for _, b := range []float64{sum, 0.3} {
		c := compare(Request{Formula: quotient, Divisors: []Formula{divisor}, Arms: []Arm{arm(1, b, 0.3), arm(1.3, 0.5, 0.3)}}).Unadjusted
		if c.Difference.Estimate != nil || c.PValue != nil || len(c.Notes) == 0 {
			t.Errorf("divided by %v - 0.3: difference %v, p %v, notes %q", b, c.Difference.Estimate, c.PValue, c.Notes)
		}
	}
	for _, zero := range []float64{2e-17, 0} {
		c := compare(Request{Formula: product, Arms: []Arm{arm(zero, -zero), arm(0.3, 0.3)}}).Unadjusted
		if c.PValue != nil || len(c.Notes) == 0 || !strings.Contains(c.Notes[0], "no slope") {
			t.Errorf("a slope of %v: p %v, notes %q", zero, c.PValue, c.Notes)
		}
	}
	c := compare(Request{Formula: ComponentMean(0), Arms: []Arm{arm(sum), arm(0.3)}}).Unadjusted
	if *c.Difference.Estimate != 0 || *c.PValue != 1 {
		t.Errorf("between %v and 0.3: difference %v, p %v", sum, *c.Difference.Estimate, *c.PValue)
	}
}
