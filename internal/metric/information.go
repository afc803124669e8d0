package metric

import (
	"math"

	"github.com/assayhq/assay/internal/stats"
)

// informative is how many subjects of an arm inform the formula, if so many have a
// number other than 0 in each component. A subject informs a product or a quotient if
// it informs both operands, of which the rarer decides: a ratio of few orders to many
// visits is a rate in all but its name. A sum or a difference is informed by either,
// so the larger count stands for it. Constants do not count.
func (e *Expression) informative(counts []float64) float64 {
	constant := math.Inf(1)
	values := make([]float64, len(e.nodes))
	for i, n := range e.nodes {
		switch n.kind {
		case number:
			values[i] = constant
		case variable:
			values[i] = counts[n.variable]
		case negate:
			values[i] = values[i-1]
		case multiply, divide:
			values[i] = min(values[n.left], values[i-1])
		default:
			values[i] = max(values[n.left], values[i-1])
			if values[i] == constant {
				values[i] = min(values[n.left], values[i-1])
			}
		}
	}
	return values[len(values)-1]
}

// informativeSubjects is how many subjects of an arm inform the formula, of a
// proportion the rarer of those with the event and those without; nil if that is not
// known. It is of all strata, also of those in which nothing is compared.
func (c *contest) informativeSubjects(arm int) *int64 {
	counts, subjects := make([]float64, len(c.names)), int64(0)
	for i := range c.arms[arm].Strata {
		m := &c.arms[arm].Strata[i]
		if m.N > 0 && len(m.NonZero) != len(counts) {
			return nil
		}
		subjects += m.N
		for k, n := range m.NonZero {
			counts[k] += float64(n)
		}
	}
	informed := int64(min(float64(subjects), c.expression.informative(counts)))
	if c.proportion {
		informed = min(informed, subjects-informed)
	}
	return &informed
}

// nonNegative tells whether the formula cannot be negative where no component is.
// Numbers are not negative themselves.
func (e *Expression) nonNegative() bool {
	for _, n := range e.nodes {
		if n.kind == negate || n.kind == subtract {
			return false
		}
	}
	return true
}

// divisorsOf are the formulas of what is divided by, but for constants.
func divisorsOf(nodes []node) (divisors []stats.Formula) {
	for i, n := range nodes {
		if n.kind != divide {
			continue
		}
		divisor, varies := Expression{}, false
		for _, of := range nodes[n.left+1 : i] {
			of.left -= n.left + 1
			divisor.nodes = append(divisor.nodes, of)
			varies = varies || of.kind == variable
		}
		if varies {
			divisors = append(divisors, divisor.Evaluate)
		}
	}
	return divisors
}
