package assign

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/assayhq/assay/internal/experiment"
)

// The variables of a predicate.
const (
	attributesVariable = "attributes"
	unitVariable       = "unit"
)

// The limits of a predicate. The cost is counted in units of about 25 ns, for
// the largest attributes that are admitted. So the most expensive predicate
// takes tens of milliseconds, up to 150 where it compares long lists or goes
// through joined ones. One pass over the attributes costs about 6,000, a
// test of a list of 1,000 against 400 constants about 420,000; one pass within
// another over such a list costs 10 million.
//
// A predicate that was accepted before is held to storedTolerance times as much,
// since the estimates of a later release may be stricter, which must not stop
// an experiment that runs. While it is evaluated it may not cost more than others.
const (
	maxPredicateCost  = 1_000_000
	storedTolerance   = 10
	maxPredicateDepth = 64
	maxRegexpSize     = 1000 // Instructions of the compiled regular expression.
	// maxJoins is how many times + may join texts or lists. CEL copies no list: each +
	// lies over the two that it joins, and an element is looked for through all of them.
	// With 400 a step through a list takes 8 µs instead of 0.2.
	maxJoins       = 64
	interruptEvery = 100 // Passes of loops, of microseconds each, until the call's end is noticed.
)

// eligibility is a compiled predicate, safe for concurrent use.
type eligibility struct {
	condition condition // Nil for a predicate that is not of the common shapes.
	program   cel.Program
	names     []string // Of the attributes that it reads by name, sorted.
	loops     bool
	refusal   error // Why it is not evaluated, and so fails for everyone.
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
	plan, err := surveyed(checked)
	if err != nil {
		return err
	}
	if err := plan.refuse(maxPredicateCost); err != nil {
		return invalidPredicate("%v", err)
	}
	_, err = plan.eligibility()
	return err
}

// compileEligibility prepares a predicate that was accepted before; nil stands
// for everyone. One whose cost would be out of bounds by today's rules fails for
// every subject, and says why: evaluated, it could stop every server that knows
// it, and its experiment keeps what it has recorded and accepts exposures still.
func compileEligibility(predicate string) (*eligibility, error) {
	if predicate == "" {
		return nil, nil
	}
	checked, err := checkPredicate(predicate)
	if err != nil {
		return nil, err
	}
	plan, err := surveyed(checked)
	if err != nil {
		return nil, err
	}
	if err := plan.refuse(storedTolerance * maxPredicateCost); err != nil {
		return &eligibility{refusal: err, condition: func(*variables) truth { return failed }, names: plan.names}, nil
	}
	return plan.eligibility()
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

// predicatePlan is a checked predicate with what is known of it before it is
// evaluated.
type predicatePlan struct {
	*survey
	checked *cel.Ast
	prices  *prices
	cost    uint64 // At most, for one subject.
}

func surveyed(checked *cel.Ast) (p *predicatePlan, err error) {
	defer recoverPredicate(&err)
	env, err := predicateEnv()
	if err != nil {
		return nil, err
	}
	p = &predicatePlan{survey: surveyOf(checked), checked: checked}
	p.prices = &prices{patterns: p.patterns, builds: p.builds, counted: p.loops, hidden: p.hidden}
	estimate, err := env.EstimateCost(checked, p.prices)
	if err != nil {
		return nil, invalidPredicate("its cost cannot be estimated: %v", err)
	}
	p.cost = estimate.Max
	return p, nil
}

// refuse says why a predicate is not to be evaluated, if it is not.
func (p *predicatePlan) refuse(most uint64) error {
	switch {
	case p.variable:
		return errors.New("a pattern of matches must be a constant, since only so its cost is known; " +
			"join several by ||, or look for a text by contains")
	case p.messages:
		return errors.New("it makes messages of protocol buffers; plain numbers, strings, lists and maps do as well")
	case p.joins > maxJoins:
		return fmt.Errorf("it joins texts or lists by + %d times, where %d are allowed", p.joins, maxJoins)
	case p.cost == math.MaxUint64:
		return errors.New("its cost has no bound, mostly since it compares values, or parts of values, that it makes itself")
	case p.cost > most:
		return fmt.Errorf("it is too costly: up to %d units of work for one subject, where %d are allowed; "+
			"loops within loops and values that grow are the usual reasons", p.cost, most)
	}
	return nil
}

// eligibility makes the program. To count the cost triples the price of an
// evaluation; it is done only where there is a loop, or where the estimate is
// above the limit.
func (p *predicatePlan) eligibility() (el *eligibility, err error) {
	defer recoverPredicate(&err)
	env, err := predicateEnv()
	if err != nil {
		return nil, err
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if p.loops || p.cost > maxPredicateCost {
		options = append(options, cel.CostLimit(maxPredicateCost), cel.CostTracking(p.prices), cel.InterruptCheckFrequency(interruptEvery))
	}
	program, err := env.Program(p.checked, options...)
	if err != nil {
		return nil, invalidPredicate("one of its constants is invalid: %v", err)
	}
	return &eligibility{condition: compileCondition(p.checked.NativeRep().Expr()), program: program, names: p.names, loops: p.loops}, nil
}

// recoverPredicate turns a panic of the CEL compiler into a refusal. What it
// compiles was written by users, and a stored predicate that brought it down
// would bring down every server at every refresh.
func recoverPredicate(err *error) {
	if r := recover(); r != nil {
		*err = invalidPredicate("it cannot be compiled: %v", r)
	}
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

// variables are the inputs of the predicates of one subject. The first predicate
// that CEL's evaluator decides reads the attributes as they are, which costs an
// allocation at each use; for a second one they are converted to the
// evaluator's own types, all at once, so that it and those after it allocate
// nothing.
type variables struct {
	attributes Attributes
	unit       string
	ctx        context.Context // Of the call; nil if loops need not heed its end.

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
	if el.refusal != nil {
		return false, el.refusal
	}
	v.evaluations++
	var out ref.Val
	var err error
	if el.loops && v.ctx != nil {
		out, _, err = el.program.ContextEval(v.ctx, v)
	} else {
		out, _, err = el.program.Eval(v)
	}
	if err != nil {
		return false, err
	}
	result, ok := out.(types.Bool)
	if !ok {
		return false, errNotBool
	}
	return bool(result), nil
}
