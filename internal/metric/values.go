package metric

import (
	"slices"

	"github.com/assayhq/assay/internal/experiment"
)

// An outcome without a value is no 0. Where a formula takes values of outcomes and
// divides by how many there were, it means their mean, however it is written: the
// count is then of those with a value. That follows from the formula, so that it
// holds of definitions from before there was such a rule.

// meanCounts says of each component whether it is a count that does not count
// outcomes without a value: wherever the formula names it, it divides by it what
// takes the values of the same outcomes. A count that stands anywhere else counts
// what it says.
func (d *Definition) meanCounts(e *Expression) []bool {
	counts := make([]bool, len(d.Components))
	for i := range d.Components {
		if d.Components[i].Aggregate != experiment.AggregateCount {
			continue
		}
		named, divides := 0, 0
		for at, n := range e.nodes {
			if n.kind == variable && n.variable == i {
				named++
			}
			if n.kind == divide && n.left+2 == at && e.nodes[at-1].kind == variable && e.nodes[at-1].variable == i && d.takesValuesOf(i, e.variables(n.left)) {
				divides++
			}
		}
		counts[i] = named > 0 && named == divides
	}
	return counts
}

// takesValuesOf says whether some of the components take the values of the outcomes
// that one counts.
func (d *Definition) takesValuesOf(counted int, components []int) bool {
	c := &d.Components[counted]
	return slices.ContainsFunc(components, func(i int) bool {
		other := &d.Components[i]
		return takesValues(other.Aggregate) && other.Outcome == c.Outcome && sameConditions(other.Conditions, c.Conditions)
	})
}

// variables are those of the part of the expression whose value stands at a node.
func (e *Expression) variables(at int) []int {
	switch n := &e.nodes[at]; n.kind {
	case number:
		return nil
	case variable:
		return []int{n.variable}
	case negate:
		return e.variables(at - 1)
	default:
		return append(e.variables(n.left), e.variables(at-1)...)
	}
}

func sameConditions(a, b []experiment.Condition) bool {
	return slices.EqualFunc(a, b, func(x, y experiment.Condition) bool {
		return x.Field == y.Field && x.Op == y.Op && slices.Equal(x.Values, y.Values)
	})
}

// takesValues says that an outcome without a value changes nothing.
func takesValues(a experiment.Aggregate) bool {
	switch a {
	case experiment.AggregateSum, experiment.AggregateMin, experiment.AggregateMax, experiment.AggregateLast:
		return true
	}
	return false
}
