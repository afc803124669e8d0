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
}

// judges are the methods that are tried at an error rate, for experiments of so
// many subjects.
func judges(alpha float64, subjects int) []judge {
	fixed := stats.Test{Method: stats.FixedHorizon, ConfidenceLevel: 1 - alpha}
	always := stats.Test{Method: stats.AlwaysValid, ConfidenceLevel: 1 - alpha, PlannedSubjects: int64(subjects)}
	var list []judge
	for _, looks := range []Looks{Once, Ten, Often} {
		list = append(list,
			judge{"fixed horizon", looks, looks == Once, func(int) stats.Test { return fixed }},
			judge{"always valid", looks, true, func(int) stats.Test { return always }})
	}
	return list
}
