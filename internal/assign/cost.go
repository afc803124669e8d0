package assign

import (
	"math"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// The limits of a subject's attributes. The costs of predicates are estimated
// for attributes within them, so whoever takes attributes from a caller must
// refuse what exceeds them.
const (
	MaxAttributes     = 1000     // At the top.
	MaxAttributeText  = 1024     // Bytes of a string or a name, at any level.
	MaxAttributeItems = 1024     // Elements of one list, or entries of one map.
	MaxAttributeDepth = 8        // Levels, of which the attributes themselves are the first.
	MaxAttributeBytes = 64 << 10 // Of all strings and names, and AttributeWeight for each value.
	AttributeWeight   = 16       // So that all together are at most 4,096 values.
)

// Costs are counted in units of about 25 ns. It takes one to touch a value, and
// a tenth of one for a byte of text, as in CEL's own model.
//
// CEL's model does not see everything: it prices a comparison by the length of
// the outermost list alone, a pattern by the length of its text, and, while it
// evaluates, any function of an operand whose type is not known by 1. So prices
// puts its own on these, the same before and during an evaluation.
const (
	bytesPerUnit = 10
	// elementUnits is the cost of an element of lists and maps that are compared,
	// beside its text: it is converted to a value of CEL, and then found unequal.
	elementUnits = 4
	// maxContent bounds the units to compare one subject's attributes. A value with
	// n bytes of text and names takes at most 1 + elementUnits + n/10, tenths being
	// rounded up, and weighs AttributeWeight + n.
	maxContent = MaxAttributeBytes / AttributeWeight * (1 + elementUnits)
	// zoneCost is that of a timestamp's field in a time zone that is named by a
	// string: the zone is read from a file at each call, in some 30 µs.
	zoneCost = 2000
	// unitsPerStep is the cost of a regular expression for each byte of the text and
	// each instruction of its program: 5 to 50 ns.
	unitsPerStep = 1
)

// Names within expressions.
const (
	matches   = "matches"
	collector = "@result" // In which macros gather; predicates cannot spell it.
)

// prices is what the functions of a predicate cost: estimated for the largest
// attributes, and counted during an evaluation.
type prices struct {
	patterns map[string]uint64 // Of each regular expression, the instructions of its program.
	// builds says that the predicate makes values that are no part of the
	// attributes, by + or as lists and maps, so that one of an unknown origin may
	// have any size.
	builds bool
	// counted says that evaluations are counted, and stopped when they have cost
	// too much. The estimate is then less strict about what are parts of the
	// attributes: it takes them for single texts where they are compared, and
	// leaves patterns and time zones to CEL's model. Otherwise each pass of a loop
	// would seem to meet all of the attributes.
	counted bool
	hidden  bool // A loop calls its variable as the attributes are called.
}

// anyAttribute is the size of an attribute whose type is not known: as many
// elements as a list may have, at as many levels as there may be.
var anyAttribute = func() *cost.SizeEstimate {
	size := &cost.SizeEstimate{Max: MaxAttributeText}
	for range MaxAttributeDepth - 1 {
		size = &cost.SizeEstimate{Max: max(MaxAttributeText, MaxAttributeItems), Elem: size}
	}
	return size
}()

// EstimateSize bounds the sizes that an expression does not tell itself.
func (p *prices) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	switch path := node.Path(); {
	case len(path) == 1 && path[0] == attributesVariable:
		return &cost.SizeEstimate{Max: MaxAttributes, Key: &cost.SizeEstimate{Max: MaxAttributeText}, Elem: anyAttribute}
	case isScalarType(node.Type()):
		return &cost.SizeEstimate{Min: 1, Max: 1}
	case len(path) == 0 && p.builds:
		return nil
	case node.Type().Kind() == types.StringKind:
		return &cost.SizeEstimate{Max: MaxAttributeText}
	}
	size := *anyAttribute
	return &size
}

func isScalarType(t *types.Type) bool {
	switch t.Kind() {
	case types.BoolKind, types.DoubleKind, types.DurationKind, types.IntKind, types.NullTypeKind, types.TimestampKind, types.UintKind:
		return true
	}
	return false
}

// EstimateCallCost prices what CEL's model prices too low, and leaves the rest
// to it.
func (p *prices) EstimateCallCost(function, _ string, target *cost.AstNode, args []cost.AstNode) *cost.CallEstimate {
	if target != nil {
		args = append([]cost.AstNode{*target}, args...)
	}
	var size *cost.SizeEstimate
	var units uint64
	switch {
	case function == operators.Equals, function == operators.NotEquals:
		units = min(p.content(args[0]), p.content(args[1]))
	case function == operators.In:
		units = cost.SafeAdd(1, p.search(args[0], args[1]))
	case isOrdering(function):
		units = cost.SafeAdd(1, min(textUnits(longest(args[0])), textUnits(longest(args[1]))))
	case function == operators.Add:
		units = cost.SafeAdd(1, textUnits(longest(args[0])), textUnits(longest(args[1])))
		if a, b := args[0].ComputedSize(), args[1].ComputedSize(); a != nil && b != nil {
			sum := a.Add(*b)
			size = &sum
		}
	case function == matches:
		if p.counted && isInput(args[0]) {
			return nil
		}
		pattern, _ := constantText(args[1].Expr())
		units = p.match(pattern, longest(args[0]))
	case function == "size", isConversion(function):
		units = cost.SafeAdd(1, textUnits(longest(args[0])))
		size = convertedSize(function, args[0])
	case isZoned(function, len(args)) && !p.counted:
		units = zoneCost
	default:
		return nil
	}
	return cost.NewCallEstimate(cost.Estimate{Max: units}, size)
}

// CallCost returns what a call has cost. It is never more than the estimate of
// the same call, but for what the estimate leaves out when evaluations are
// counted.
func (p *prices) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	var units uint64
	switch {
	case function == operators.Equals, function == operators.NotEquals:
		units = equalityCost(args[0], args[1])
	case function == operators.In:
		units = membershipCost(args[0], args[1])
	case isOrdering(function):
		units = 1 + min(textUnits(textOf(args[0])), textUnits(textOf(args[1])))
	case function == operators.Add:
		units = 1 + textUnits(textOf(args[0])) + textUnits(textOf(args[1]))
	case function == matches:
		pattern, _ := args[1].(types.String)
		units = p.match(string(pattern), textOf(args[0]))
	case function == "size", isConversion(function):
		units = 1 + textUnits(textOf(args[0]))
	case isZoned(function, len(args)):
		units = zoneCost
	default:
		return nil
	}
	return &units
}

// match is the cost of matching a text of n bytes.
func (p *prices) match(pattern string, n uint64) uint64 {
	return cost.SafeAdd(1, cost.SafeMultiply(unitsPerStep*p.patterns[pattern], cost.SafeAdd(n, 1)))
}

// content bounds the units to go through an operand.
func (p *prices) content(node cost.AstNode) uint64 {
	switch {
	case isScalarType(node.Type()):
		return 1
	case isInput(node) && p.counted, node.Type().Kind() == types.StringKind && isInput(node):
		return textUnits(MaxAttributeText)
	case isInput(node):
		return maxContent
	}
	if p.hidden {
		return contentOf(node.ComputedSize())
	}
	return min(contentOf(node.ComputedSize()), contentOfParts(node.Expr()))
}

// search bounds the units to look for a value in a list.
func (p *prices) search(x, in cost.AstNode) uint64 {
	if p.counted && isInput(in) {
		return longest(in)
	}
	all := p.content(in)
	if e := in.Expr(); e.Kind() == ast.ListKind && all < math.MaxUint64 {
		all -= elementUnits * uint64(e.AsList().Size()) // They are converted already.
	}
	return min(all, cost.SafeMultiply(longest(in), p.content(x)))
}

// contentOfParts bounds the content of what is made of constants and parts of
// the attributes, whose single sizes do not tell that there is a bound to all.
func contentOfParts(e ast.Expr) uint64 {
	switch {
	case e == nil:
	case isPart(e):
		return maxContent
	case e.Kind() == ast.LiteralKind:
		text, _ := constantText(e)
		return max(1, textUnits(uint64(len(text))))
	case e.Kind() == ast.ListKind:
		sum := uint64(1)
		for _, element := range e.AsList().Elements() {
			sum = cost.SafeAdd(sum, elementUnits, contentOfParts(element))
		}
		return sum
	case e.Kind() == ast.CallKind && e.AsCall().FunctionName() == operators.Add:
		args := e.AsCall().Args()
		return cost.SafeAdd(contentOfParts(args[0]), contentOfParts(args[1]))
	}
	return math.MaxUint64
}

// isPart recognises attributes and what selections and indices take from them.
func isPart(e ast.Expr) bool {
	switch e.Kind() {
	case ast.SelectKind:
		return isPart(e.AsSelect().Operand())
	case ast.CallKind:
		return e.AsCall().FunctionName() == operators.Index && isPart(e.AsCall().Args()[0])
	}
	return isAttributes(e)
}

func contentOf(size *cost.SizeEstimate) uint64 {
	if size == nil {
		return math.MaxUint64
	}
	if size.Elem == nil && size.Key == nil {
		return max(1, textUnits(size.Max))
	}
	entry := uint64(0)
	for _, part := range []*cost.SizeEstimate{size.Key, size.Elem} {
		if part != nil {
			entry = cost.SafeAdd(entry, contentOf(part))
		}
	}
	return cost.SafeAdd(1, cost.SafeMultiply(size.Max, cost.SafeAdd(elementUnits, entry)))
}

// longest is the most bytes or elements of an operand.
func longest(node cost.AstNode) uint64 {
	if text, ok := constantText(node.Expr()); ok {
		return uint64(len(text))
	}
	if size := node.ComputedSize(); size != nil {
		return size.Max
	}
	return math.MaxUint64
}

// isInput says whether an operand is a variable or a part of one.
func isInput(node cost.AstNode) bool { return len(node.Path()) > 0 }

func textUnits(n uint64) uint64 { return n/bytesPerUnit + min(1, n%bytesPerUnit) }

// convertedSize bounds what a function returns that makes one type of another.
func convertedSize(function string, from cost.AstNode) *cost.SizeEstimate {
	const longestScalar = 64 // As text; a timestamp with nanoseconds takes 30.
	size := cost.SizeEstimate{Max: max(longestScalar, longest(from))}
	switch function {
	case "string":
	case "bytes":
		size.Max = cost.SafeMultiply(size.Max, 4) // Of a character in UTF-8.
	default:
		size = cost.SizeEstimate{Min: 1, Max: 1}
	}
	return &size
}

func isConversion(function string) bool {
	switch function {
	case "bool", "bytes", "double", "duration", "int", "string", "timestamp", "type", "uint":
		return true
	}
	return false
}

func isOrdering(function string) bool {
	switch function {
	case operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		return true
	}
	return false
}

// isZoned recognises the functions that take a timestamp and a time zone.
func isZoned(function string, args int) bool { return args == 2 && strings.HasPrefix(function, "get") }

// textOf is the length of a text in bytes, and 0 for other values.
func textOf(v ref.Val) uint64 {
	switch x := v.(type) {
	case types.String:
		return uint64(len(x))
	case types.Bytes:
		return uint64(len(x))
	}
	return 0
}

// equalityCost is the cost of comparing two values to their ends, and stops
// counting once it is too much for any predicate.
func equalityCost(a, b ref.Val) uint64 {
	units := uint64(0)
	countEquality(a, b, &units)
	return units
}

func countEquality(a, b ref.Val, units *uint64) {
	*units += max(1, min(textUnits(textOf(a)), textUnits(textOf(b))))
	if *units > maxPredicateCost || lengthOf(a) != lengthOf(b) {
		return
	}
	switch x := a.(type) {
	case traits.Lister:
		if y, ok := b.(traits.Lister); ok {
			for i, j := x.Iterator(), y.Iterator(); i.HasNext() == types.True; {
				*units += elementUnits
				countEquality(i.Next(), j.Next(), units)
			}
		}
	case traits.Mapper:
		if y, ok := b.(traits.Mapper); ok {
			for i := x.Iterator(); i.HasNext() == types.True; {
				key := i.Next()
				*units += elementUnits + max(1, textUnits(textOf(key)))
				if other, found := y.Find(key); found {
					countEquality(x.Get(key), other, units)
				}
			}
		}
	}
}

// membershipCost is the cost of looking for a value in a list to its end, or
// among the keys of a map.
func membershipCost(x, in ref.Val) uint64 {
	list, ok := in.(traits.Lister)
	if !ok {
		return 1
	}
	if lengthOf(x) == 0 && textUnits(textOf(x)) <= 1 {
		return 1 + lengthOf(in)
	}
	units := uint64(1)
	for i := list.Iterator(); i.HasNext() == types.True && units <= maxPredicateCost; {
		countEquality(x, i.Next(), &units)
	}
	return units
}

// lengthOf is the number of elements of a list or map, and 0 for other values.
func lengthOf(v ref.Val) uint64 {
	switch x := v.(type) {
	case traits.Lister:
		return uint64(x.Size().(types.Int))
	case traits.Mapper:
		return uint64(x.Size().(types.Int))
	}
	return 0
}

// survey is what planning and pricing need to know of a checked predicate.
type survey struct {
	names    []string // Of the attributes that it reads by name, sorted.
	loops    bool
	builds   bool              // As in prices.
	joins    int               // How often it joins texts or lists by +.
	hidden   bool              // As in prices.
	messages bool              // It makes messages of protocol buffers.
	patterns map[string]uint64 // As in prices.
	variable bool              // A pattern is no constant.
}

func surveyOf(checked *cel.Ast) *survey {
	s := survey{patterns: map[string]uint64{}}
	native := checked.NativeRep()
	collected := map[int64]bool{} // The lists of one element by which macros collect their results.
	ast.PreOrderVisit(native.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.ComprehensionKind:
			s.loops = true
			s.hidden = s.hidden || e.AsComprehension().IterVar() == attributesVariable || e.AsComprehension().IterVar2() == attributesVariable
		case ast.StructKind:
			s.messages = true
		case ast.ListKind:
			s.builds = s.builds || !collected[e.ID()] && slices.ContainsFunc(e.AsList().Elements(), isComposed)
		case ast.MapKind:
			s.builds = s.builds || slices.ContainsFunc(e.AsMap().Entries(), func(entry ast.EntryExpr) bool {
				return isComposed(entry.AsMapEntry().Key()) || isComposed(entry.AsMapEntry().Value())
			})
		case ast.SelectKind:
			if isAttributes(e.AsSelect().Operand()) {
				s.names = append(s.names, e.AsSelect().FieldName())
			}
		case ast.CallKind:
			s.call(e, native, collected)
		}
	}))
	slices.Sort(s.names)
	s.names = slices.Compact(s.names)
	return &s
}

func (s *survey) call(e ast.Expr, native *ast.AST, collected map[int64]bool) {
	call := e.AsCall()
	if name, ok := attributeOfCall(call); ok {
		s.names = append(s.names, name)
	}
	switch args := call.Args(); call.FunctionName() {
	case operators.Add:
		if args[0].Kind() == ast.IdentKind && args[0].AsIdent() == collector {
			collected[args[1].ID()] = true
		} else if !isScalarType(native.GetType(e.ID())) {
			s.builds = true
			s.joins++
		}
	case matches:
		pattern, ok := constantText(args[len(args)-1])
		if !ok {
			s.variable = true
			break
		}
		size, _ := types.RegexProgramSize(pattern) // One that does not parse is not planned.
		s.patterns[pattern] = uint64(size)
	}
}

func constantText(e ast.Expr) (string, bool) {
	if e == nil || e.Kind() != ast.LiteralKind {
		return "", false
	}
	text, ok := e.AsLiteral().(types.String)
	return string(text), ok
}

// isComposed says whether an expression is more than a constant.
func isComposed(e ast.Expr) bool {
	switch e.Kind() {
	case ast.LiteralKind:
		return false
	case ast.ListKind:
		return slices.ContainsFunc(e.AsList().Elements(), isComposed)
	}
	return true
}
