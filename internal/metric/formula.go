package metric

import "github.com/assayhq/assay/internal/stats"

// Expression is a parsed formula over named numbers. It is immutable.
//
// Its tree is kept in postfix order: operands stand before their operator. So
// one loop over the nodes evaluates, one loop backwards differentiates, and
// neither recurses, however the formula is nested.
type Expression struct {
	nodes    []node
	divisors []stats.Formula
}

type node struct {
	kind     nodeKind
	constant float64 // Of a number.
	variable int     // Of a variable: the index of its name.
	left     int     // Of an operator on two operands: the node of the first. The second stands just before the operator.
}

type nodeKind uint8

const (
	number nodeKind = iota
	variable
	negate
	add
	subtract
	multiply
	divide
)

// Evaluate returns the value at the numbers x, which stand in the order of the
// names, and the gradient by them. x may be longer than the names; the
// gradient is as long as x, and 0 for what the expression does not name. A
// division by zero and an overflow give a NaN or an infinity. It is a
// stats.Formula.
//
// The gradient is by differentiation of the tree in reverse mode: every node
// passes the derivative of the whole by itself on to its operands by the chain
// rule (Griewank and Walther 2008, Evaluating Derivatives, section 3.2).
func (e *Expression) Evaluate(x []float64) (value float64, gradient []float64) {
	words := make([]float64, 2*len(e.nodes)+len(x))
	values, slopes, gradient := words[:len(e.nodes)], words[len(e.nodes):2*len(e.nodes)], words[2*len(e.nodes):]
	for i, n := range e.nodes {
		switch n.kind {
		case number:
			values[i] = n.constant
		case variable:
			values[i] = x[n.variable]
		case negate:
			values[i] = -values[i-1]
		case add:
			values[i] = values[n.left] + values[i-1]
		case subtract:
			values[i] = values[n.left] - values[i-1]
		case multiply:
			values[i] = values[n.left] * values[i-1]
		case divide:
			values[i] = values[n.left] / values[i-1]
		}
	}
	last := len(e.nodes) - 1
	slopes[last] = 1
	for i := last; i >= 0; i-- {
		n, slope := e.nodes[i], slopes[i]
		switch n.kind {
		case variable:
			gradient[n.variable] += slope
		case negate:
			slopes[i-1] = -slope
		case add:
			slopes[n.left], slopes[i-1] = slope, slope
		case subtract:
			slopes[n.left], slopes[i-1] = slope, -slope
		case multiply:
			slopes[n.left], slopes[i-1] = slope*values[i-1], slope*values[n.left]
		case divide:
			slopes[n.left], slopes[i-1] = slope/values[i-1], -slope*values[i]/values[i-1]
		}
	}
	return values[last], gradient
}

// uses tells whether the expression names variable i.
func (e *Expression) uses(i int) bool {
	for _, n := range e.nodes {
		if n.kind == variable && n.variable == i {
			return true
		}
	}
	return false
}

// mean tells whether the expression is the mean of one component and nothing
// else, and of which.
func (e *Expression) mean() (component int, ok bool) {
	if len(e.nodes) == 1 && e.nodes[0].kind == variable {
		return e.nodes[0].variable, true
	}
	return 0, false
}
