package calibration

import (
	"math"

	"github.com/assayhq/assay/internal/stats"
)

// Looks says how often an experiment is looked at.
type Looks string

// The ways of looking. Often is from the twentieth subject on, whenever their
// number has grown by 2 %: between two such looks little changes.
const (
	Once  Looks = "1"
	Ten   Looks = "10"
	Often Looks = "often"
)

// firstLook is how many subjects the earliest look of Often has, and growth by
// how much their number grows until the next.
const (
	firstLook = 20
	growth    = 1.02
)

// at lists the numbers of subjects at which a way of looking looks.
func (l Looks) at(subjects int) []int {
	var at []int
	switch l {
	case Ten:
		for k := 1; k < 10; k++ {
			at = append(at, subjects*k/10)
		}
	case Often:
		for n := firstLook; n < subjects; n = int(math.Ceil(float64(n) * growth)) {
			at = append(at, n)
		}
	}
	return append(at, subjects)
}

// judge is a method under a way of looking.
type judge struct {
	method string
	looks  Looks
	// promised says that the method claims its error rate under these looks.
	promised bool
	// test is the rule at a look, numbered from 0.
	test func(look int) stats.Test
	// margin is what an effect is tested against; nil for no effect at all. A
	// judge with a margin is asked of experiments with an effect, just where the
	// effect is as large as the margin: whatever it finds is a false positive.
	margin func(truth float64) float64
}

// alpha is the error rate of every method.
const alpha = 0.05

// judges are the methods that are tried, for experiments of so many subjects.
func judges(subjects int) ([]judge, error) {
	fixed := stats.Test{Method: stats.FixedHorizon, ConfidenceLevel: 1 - alpha}
	always := stats.Test{Method: stats.AlwaysValid, ConfidenceLevel: 1 - alpha, PlannedSubjects: int64(subjects)}
	bayesian := stats.Test{Method: stats.Bayesian, ConfidenceLevel: 1 - alpha, Prior: stats.Prior{Alpha: 1, Beta: 1}}
	var list []judge
	for _, looks := range []Looks{Once, Ten, Often} {
		list = append(list,
			judge{method: "fixed horizon", looks: looks, promised: looks == Once, test: every(fixed)},
			judge{method: "always valid", looks: looks, promised: true, test: every(always)},
			judge{method: "Bayesian, flat prior", looks: looks, test: every(bayesian)})
	}
	for _, spending := range []struct {
		name string
		stats.Spending
	}{{"group sequential, O'Brien–Fleming", stats.OBrienFleming}, {"group sequential, Pocock", stats.Pocock}} {
		tests, err := sequential(spending.Spending, subjects, 10)
		if err != nil {
			return nil, err
		}
		list = append(list, judge{method: spending.name, looks: Ten, promised: true, test: func(look int) stats.Test { return tests[look] }})
	}
	superior, equivalent := fixed, fixed
	superior.Alternative, equivalent.Alternative = stats.Greater, stats.Equivalent
	return append(list,
		judge{method: "one-sided, effect at the margin", looks: Once, promised: true, test: every(superior),
			margin: func(truth float64) float64 { return truth }},
		judge{method: "equivalence, effect at the margin", looks: Once, promised: true, test: every(equivalent),
			margin: math.Abs}), nil
}

// every is the same test at every look.
func every(t stats.Test) func(int) stats.Test { return func(int) stats.Test { return t } }

// sequential is the tests of so many looks, after equal shares of the subjects.
func sequential(spending stats.Spending, subjects, number int) ([]stats.Test, error) {
	var looks []stats.Look
	var tests []stats.Test
	for k := range number {
		n := subjects * (k + 1) / number
		looks = append(looks, stats.Look{Time: float64(n) / float64(subjects), Information: float64(n)})
		schedule, err := stats.NewSchedule(spending, looks)
		if err != nil {
			return nil, err
		}
		tests = append(tests, stats.Test{Method: stats.GroupSequential, ConfidenceLevel: 1 - alpha, Schedule: schedule})
	}
	return tests, nil
}

// finding is what a comparison says.
type finding struct {
	estimate     float64
	lower, upper *float64
	significant  bool
}

// read reads a comparison; ok is false if it says nothing yet.
func (j *judge) read(c *stats.Comparison) (f finding, ok bool) {
	d := &c.Difference
	if d.Estimate == nil || d.Lower == nil && d.Upper == nil {
		return f, false
	}
	f = finding{estimate: *d.Estimate, lower: d.Lower, upper: d.Upper}
	if c.PValue != nil {
		f.significant = *c.PValue <= alpha
	} else { // Without p-values it is for the interval to exclude 0.
		f.significant = d.Lower != nil && *d.Lower > 0 || d.Upper != nil && *d.Upper < 0
	}
	return f, true
}

// holds says whether the interval holds a value.
func (f *finding) holds(x float64) bool {
	return (f.lower == nil || *f.lower <= x) && (f.upper == nil || x <= *f.upper)
}
