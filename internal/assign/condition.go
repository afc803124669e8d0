package assign

import (
	"cmp"
	"math"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// condition is a predicate as a function of its own. Predicates of the common
// shapes are compiled to it from the checked CEL expression: an attribute or
// the unit compared with a constant or looked for in a list of constants, the
// presence of an attribute, an attribute that is a bool, and all of these under
// &&, || and !. It decides exactly as CEL does, at a tenth of the price and
// without an allocation; the tests hold it to CEL's own evaluator. It does not
// say why it failed: whoever wants to know asks CEL.
type condition func(v *variables) truth

// truth is what becomes of a condition.
type truth uint8

const (
	no truth = iota
	yes
	failed // It could not be evaluated.
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// compileCondition returns the condition of an expression, or nil if it is not
// of the common shapes.
func compileCondition(e ast.Expr) condition {
	switch e.Kind() {
	case ast.LiteralKind:
		if b, ok := e.AsLiteral().(types.Bool); ok {
			return func(*variables) truth { return truthOf(bool(b)) }
		}
	case ast.SelectKind:
		if s := e.AsSelect(); s.IsTestOnly() {
			if isAttributes(s.Operand()) {
				return present(s.FieldName())
			}
			return nil
		}
		return flag(e)
	case ast.CallKind:
		return compileCall(e)
	}
	return nil
}

func compileCall(e ast.Expr) condition {
	call := e.AsCall()
	args := call.Args()
	switch name := call.FunctionName(); name {
	case operators.LogicalAnd:
		return compileTerms(args, no)
	case operators.LogicalOr:
		return compileTerms(args, yes)
	case operators.LogicalNot:
		return not(compileCondition(args[0]))
	case operators.In:
		if name, ok := attributeOfCall(call); ok {
			return present(name)
		}
		return member(args[0], args[1])
	case operators.Index:
		return flag(e)
	default:
		return comparison(name, args)
	}
}

// compileTerms joins terms by && or ||, whose result is decided by one term of
// the given truth, even if another one fails.
func compileTerms(args []ast.Expr, deciding truth) condition {
	terms := make([]condition, len(args))
	for i, arg := range args {
		if terms[i] = compileCondition(arg); terms[i] == nil {
			return nil
		}
	}
	return func(v *variables) truth {
		result := yes - deciding
		for _, term := range terms {
			switch term(v) {
			case deciding:
				return deciding
			case failed:
				result = failed
			}
		}
		return result
	}
}

func not(c condition) condition {
	if c == nil {
		return nil
	}
	return func(v *variables) truth {
		switch c(v) {
		case yes:
			return no
		case no:
			return yes
		}
		return failed
	}
}

func present(name string) condition {
	return func(v *variables) truth { return truthOf(v.attributes.Attribute(name).Kind != ValueMissing) }
}

// flag is an attribute that is itself the condition.
func flag(e ast.Expr) condition {
	from, ok := operandOf(e)
	if !ok {
		return nil
	}
	return func(v *variables) truth {
		if x := from.read(v); x.Kind == ValueBool {
			return truthOf(x.Bool)
		}
		return failed
	}
}

// member is the membership of an operand in a list of constants.
func member(e, in ast.Expr) condition {
	from, ok := operandOf(e)
	if !ok || in.Kind() != ast.ListKind {
		return nil
	}
	members := map[Value]bool{}
	for _, element := range in.AsList().Elements() {
		c, ok := constantOf(element)
		if !ok {
			return nil
		}
		members[c] = true
	}
	return func(v *variables) truth {
		x := from.read(v)
		if x.Kind == ValueMissing && len(members) > 0 { // CEL does not look for it in an empty list.
			return failed
		}
		return truthOf(members[x])
	}
}

// comparison compares an operand with a constant on either side.
func comparison(operator string, args []ast.Expr) condition {
	test, ok := comparisons[operator]
	if !ok {
		return nil
	}
	left, right := args[0], args[1]
	if left.Kind() == ast.LiteralKind {
		left, right = right, left
		test.less, test.greater = test.greater, test.less
	}
	from, isOperand := operandOf(left)
	c, isConstant := constantOf(right)
	if !isOperand || !isConstant || test.ordered && c.Kind == ValueNull {
		return nil
	}
	if test.ordered {
		return func(v *variables) truth {
			switch x := from.read(v); {
			case math.IsNaN(x.Number):
				return no // Of any constant, says CEL.
			case x.Kind != c.Kind:
				return failed
			default:
				return test.of(x.compare(c))
			}
		}
	}
	return func(v *variables) truth {
		x := from.read(v)
		if x.Kind == ValueMissing {
			return failed
		}
		return truthOf((x == c) == (test.equal == yes))
	}
}

// outcomes says what a comparison is for each order of its sides.
type outcomes struct {
	less, equal, greater truth
	ordered              bool // It asks for more than equality.
}

var comparisons = map[string]outcomes{
	operators.Equals:        {equal: yes},
	operators.NotEquals:     {less: yes, greater: yes},
	operators.Less:          {less: yes, ordered: true},
	operators.LessEquals:    {less: yes, equal: yes, ordered: true},
	operators.Greater:       {greater: yes, ordered: true},
	operators.GreaterEquals: {greater: yes, equal: yes, ordered: true},
}

func (o outcomes) of(order int) truth {
	switch {
	case order < 0:
		return o.less
	case order > 0:
		return o.greater
	}
	return o.equal
}

// compare orders two values of the same kind.
func (x Value) compare(y Value) int {
	switch {
	case x.Kind == ValueText:
		return cmp.Compare(x.Text, y.Text)
	case x.Kind == ValueNumber:
		return cmp.Compare(x.Number, y.Number)
	case x.Bool == y.Bool:
		return 0
	case y.Bool:
		return -1
	}
	return 1
}

// operand is a variable that a condition reads: an attribute, or the unit.
type operand struct {
	name string
	unit bool
}

func (o *operand) read(v *variables) Value {
	if o.unit {
		return Value{Kind: ValueText, Text: v.unit}
	}
	return v.attributes.Attribute(o.name)
}

// operandOf recognises unit, attributes.name and attributes['name'].
func operandOf(e ast.Expr) (o operand, ok bool) {
	switch e.Kind() {
	case ast.IdentKind:
		return operand{unit: true}, e.AsIdent() == unitVariable
	case ast.SelectKind:
		s := e.AsSelect()
		return operand{name: s.FieldName()}, !s.IsTestOnly() && isAttributes(s.Operand())
	case ast.CallKind:
		if call := e.AsCall(); call.FunctionName() == operators.Index {
			o.name, ok = attributeOfCall(call)
		}
	}
	return o, ok
}

// constantOf returns the value of a literal. CEL compares a double with an
// integer as doubles, and attributes have no other numbers.
func constantOf(e ast.Expr) (Value, bool) {
	if e.Kind() != ast.LiteralKind {
		return Value{}, false
	}
	switch x := e.AsLiteral().(type) {
	case types.Null:
		return Value{Kind: ValueNull}, true
	case types.Bool:
		return Value{Kind: ValueBool, Bool: bool(x)}, true
	case types.Int:
		return Value{Kind: ValueNumber, Number: float64(x)}, true
	case types.Uint:
		return Value{Kind: ValueNumber, Number: float64(x)}, true
	case types.Double:
		return Value{Kind: ValueNumber, Number: float64(x)}, true
	case types.String:
		return Value{Kind: ValueText, Text: string(x)}, true
	}
	return Value{}, false
}
