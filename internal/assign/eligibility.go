package assign

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/assayhq/assay/internal/experiment"
)

// The variables of a predicate.
const (
	attributesVariable = "attributes"
	unitVariable       = "unit"
)

// The limits of a predicate. The cost is counted in CEL's units, about 25 ns
// each, for the largest input that is assumed: maxAttributes attributes, and
// maxSize elements or characters in each list, map or string below them. So the
// most expensive predicate takes tens of milliseconds. One pass over the
// attributes costs about 60,000, a test of a list of 1,000 against 400 constants
// about 420,000; one pass within another over such a list costs 100 million.
const (
	maxPredicateCost  = 1_000_000
	maxPredicateDepth = 64
	maxRegexpSize     = 1000 // Instructions of the compiled regular expression.
	maxAttributes     = 10_000
	maxSize           = 1024
)

// eligibility is a compiled predicate, safe for concurrent use.
type eligibility struct {
	condition condition // Nil for a predicate that is not of the common shapes.
	program   cel.Program
	names     []string // Of the attributes that it reads by name, sorted.
}

var (
	errNotBool = errors.New("the result is not a bool")
	errFailed  = errors.New("the predicate failed to evaluate")
)

// CheckEligibility says whether a predicate is acceptable for a new definition.
// The InvalidError that it returns, on the field "eligibility", tells why not.
// The empty predicate is everyone's.
func CheckEligibility(predicate string) error {
	if predicate == "" {
		return nil
	}
	checked, err := checkPredicate(predicate)
	if err != nil {
		return err
	}
	env, err := predicateEnv()
	if err != nil {
		return err
	}
	estimate, err := env.EstimateCost(checked, inputLimits{})
	if err != nil {
		return invalidPredicate("its cost cannot be estimated: %v", err)
	}
	if estimate.Max > maxPredicateCost {
		return invalidPredicate("it is too costly: up to %d units of work for one subject, where %d are allowed; "+
			"loops within loops are the usual reason", estimate.Max, maxPredicateCost)
	}
	_, err = planPredicate(checked)
	return err
}

// compileEligibility prepares a predicate that was accepted before; nil stands
// for everyone.
func compileEligibility(predicate string) (*eligibility, error) {
	if predicate == "" {
		return nil, nil
	}
	checked, err := checkPredicate(predicate)
	if err != nil {
		return nil, err
	}
	return planPredicate(checked)
}

func invalidPredicate(format string, args ...any) error {
	return experiment.Invalid("eligibility", format, args...)
}

// predicateEnv makes the environment on first use: 1 ms that a program without
// predicates need not spend. Attributes come from JSON, whose numbers are
// doubles, so that comparisons must reach across the number types.
var predicateEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable(attributesVariable, cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable(unitVariable, cel.StringType),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserRecursionLimit(maxPredicateDepth),
		cel.RegexProgramSizeLimit(maxRegexpSize),
		cel.CostModelVersion(1),
	)
})

// checkPredicate parses and checks a predicate.
func checkPredicate(predicate string) (checked *cel.Ast, err error) {
	defer recoverPredicate(&err)
	env, err := predicateEnv()
	if err != nil {
		return nil, err
	}
	parsed, issues := env.Parse(predicate)
	if issues.Err() != nil {
		if slices.ContainsFunc(issues.Errors(), tooDeep) {
			return nil, invalidPredicate("it is too deep: more than %d levels", maxPredicateDepth)
		}
		return nil, invalidPredicate("it does not parse: %v", issues.Err())
	}
	checked, issues = env.Check(parsed)
	if issues.Err() != nil {
		return nil, invalidPredicate("its types do not check: %v", issues.Err())
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, invalidPredicate("its result must be a bool, not %s", t)
	}
	return checked, nil
}

// tooDeep recognises the two messages by which the parser says that it went too
// deep; it has no other way to tell.
func tooDeep(e *cel.Error) bool {
	return strings.HasPrefix(e.Message, "expression recursion limit exceeded") ||
		strings.HasPrefix(e.Message, "max recursion depth exceeded")
}

// planPredicate makes the program. Tracking the cost triples the price of an
// evaluation; it is done only where a loop could run over more than the input
// that the estimate assumed.
func planPredicate(checked *cel.Ast) (el *eligibility, err error) {
	defer recoverPredicate(&err)
	env, err := predicateEnv()
	if err != nil {
		return nil, err
	}
	names, loops := readsOf(checked)
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if loops {
		options = append(options, cel.CostLimit(maxPredicateCost))
	}
	program, err := env.Program(checked, options...)
	if err != nil {
		return nil, invalidPredicate("one of its constants is invalid: %v", err)
	}
	return &eligibility{compileCondition(checked.NativeRep().Expr()), program, names}, nil
}

// recoverPredicate turns a panic of the CEL compiler into a refusal. What it
// compiles was written by users, and a stored predicate that brought it down
// would bring down every server at every refresh.
func recoverPredicate(err *error) {
	if r := recover(); r != nil {
		*err = invalidPredicate("it cannot be compiled: %v", r)
	}
}

// readsOf lists the names of the attributes that an expression reads by name,
// and says whether it loops.
func readsOf(checked *cel.Ast) (names []string, loops bool) {
	ast.PostOrderVisit(checked.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.ComprehensionKind:
			loops = true
		case ast.SelectKind:
			if isAttributes(e.AsSelect().Operand()) {
				names = append(names, e.AsSelect().FieldName())
			}
		case ast.CallKind:
			if name, ok := attributeOfCall(e.AsCall()); ok {
				names = append(names, name)
			}
		}
	}))
	slices.Sort(names)
	return slices.Compact(names), loops
}

// attributeOfCall recognises attributes['name'] and 'name' in attributes.
func attributeOfCall(call ast.CallExpr) (string, bool) {
	args := call.Args()
	if len(args) != 2 {
		return "", false
	}
	key := args[1]
	switch call.FunctionName() {
	case operators.Index:
		if !isAttributes(args[0]) {
			return "", false
		}
	case operators.In:
		if !isAttributes(args[1]) {
			return "", false
		}
		key = args[0]
	default:
		return "", false
	}
	if key.Kind() != ast.LiteralKind {
		return "", false
	}
	name, ok := key.AsLiteral().(types.String)
	return string(name), ok
}

func isAttributes(e ast.Expr) bool {
	return e.Kind() == ast.IdentKind && e.AsIdent() == attributesVariable
}

// inputLimits is the largest input for which costs are estimated.
type inputLimits struct{}

// EstimateSize bounds the sizes that an expression does not tell itself.
func (inputLimits) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	if path := node.Path(); len(path) == 1 && path[0] == attributesVariable {
		return &cost.SizeEstimate{Max: maxAttributes}
	}
	return &cost.SizeEstimate{Max: maxSize}
}

// EstimateCallCost leaves the costs of functions to the standard model.
func (inputLimits) EstimateCallCost(_, _ string, _ *cost.AstNode, _ []cost.AstNode) *cost.CallEstimate {
	return nil
}

// variables are the inputs of the predicates of one subject. The first predicate
// that CEL's evaluator decides reads the attributes as they are, which costs an
// allocation at each use; for a second one they are converted to the
// evaluator's own types, all at once, so that it and those after it allocate
// nothing.
type variables struct {
	attributes Attributes
	unit       string

	evaluations   int
	all           map[string]any // Nil before the first.
	converted     map[string]any // Nil before the second.
	convertedUnit any            // Nil until it is asked for.
}

// ResolveName returns the value of a variable.
func (v *variables) ResolveName(name string) (any, bool) {
	switch name {
	case attributesVariable:
		if v.all == nil {
			v.all = v.attributes.All()
		}
		if v.evaluations < 2 {
			return v.all, true
		}
		if v.converted == nil {
			v.converted = convertScalars(v.all)
		}
		return v.converted, true
	case unitVariable:
		if v.convertedUnit == nil {
			v.convertedUnit = types.String(v.unit)
		}
		return v.convertedUnit, true
	}
	return nil, false
}

// convertScalars returns a copy of the attributes in which the numbers, strings
// and bools are CEL's. The evaluator converts the rest when it meets it.
func convertScalars(attributes map[string]any) map[string]any {
	converted := make(map[string]any, len(attributes))
	for name, value := range attributes {
		switch x := value.(type) {
		case string:
			value = types.String(x)
		case float64:
			value = types.Double(x)
		case bool:
			value = types.Bool(x)
		}
		converted[name] = value
	}
	return converted
}

// Parent returns nil: there is no outer scope.
func (v *variables) Parent() cel.Activation { return nil }

// eval evaluates the predicate. An error means that it could not be evaluated
// for this subject, which is then not eligible; [eligibility.tell] says why.
func (el *eligibility) eval(v *variables) (bool, error) {
	if el.condition == nil {
		return el.tell(v)
	}
	switch el.condition(v) {
	case yes:
		return true, nil
	case no:
		return false, nil
	}
	return false, errFailed
}

// tell is eval with an error that says what failed.
func (el *eligibility) tell(v *variables) (bool, error) {
	v.evaluations++
	out, _, err := el.program.Eval(v)
	if err != nil {
		return false, err
	}
	result, ok := out.(types.Bool)
	if !ok {
		return false, errNotBool
	}
	return bool(result), nil
}
