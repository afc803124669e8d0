package assign

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"cel.dev/cel-go/cel"

	"github.com/assayhq/assay/internal/experiment"
)

// largeInputs are attributes as large as they may be, in several shapes. Their
// names are those that costlyPredicates read.
func largeInputs(tb testing.TB) map[string]map[string]any {
	long := strings.Repeat("a", MaxAttributeText)
	inputs := map[string]map[string]any{
		"texts": {"a": long, "b": long[:MaxAttributeText-1] + "b", "l": many(58, long)},
		"list":  {"a": long, "b": long, "l": many(MaxAttributeItems, strings.Repeat("a", 40))},
		"twins": {"a": many(MaxAttributeItems, 1.0), "b": many(MaxAttributeItems, 1.0), "l": many(MaxAttributeItems, 1.0), "m": many(900, 1.0)},
		"lists": {"a": many(40, many(20, 1.0)), "b": many(40, many(20, 1.0)), "l": many(40, many(55, 1.0))},
		"flat":  {},
		"deep":  {},
	}
	for i := range MaxAttributes {
		inputs["flat"][fmt.Sprintf("%s%d", strings.Repeat("k", 36), i)] = 1.0
	}
	nest := any("x")
	for level := range MaxAttributeDepth - 2 {
		nest = map[string]any{"a": nest, "l": many(10, nest), "m": float64(level)}
		if weight(nest) > MaxAttributeBytes/8 {
			nest = map[string]any{"a": nest.(map[string]any)["a"]}
		}
	}
	inputs["deep"] = map[string]any{"a": nest, "b": nest, "l": []any{nest, nest}}
	for shape, attributes := range inputs {
		if w := weight(attributes); w > MaxAttributeBytes+AttributeWeight {
			tb.Fatalf("%s weighs %d", shape, w)
		}
	}
	return inputs
}

func many(n int, x any) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = x
	}
	return list
}

// weight is what a value counts of MaxAttributeBytes.
func weight(x any) int {
	w := AttributeWeight
	switch x := x.(type) {
	case string:
		w += len(x)
	case []any:
		for _, element := range x {
			w += weight(element)
		}
	case map[string]any:
		for name, element := range x {
			w += len(name) + weight(element)
		}
	}
	return w
}

// costlyPredicates try to make more of the attributes than was estimated.
var costlyPredicates = []string{
	// They grow: texts, lists, lists of lists.
	"[1,2,3,4,5,6,7,8,9,10].map(x, attributes.a+attributes.a+attributes.a+attributes.a).map(y, y+y+y+y).map(z, z+z+z+z).exists(w, w == 'x')",
	"[attributes.a].map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x).exists(x, x == 'x')",
	"[attributes.l].map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x)[0].exists(x, x == 'x')",
	"attributes.l.map(x, [x,x,x,x]).map(x, [x,x,x,x]).exists(x, x == [['x']])",
	"attributes.l.map(x, attributes.l).map(x, x + x).exists(x, size(x) == 1)",
	"attributes.l.map(x, attributes.a + attributes.b).exists(x, x == 'x')",
	"attributes.l.map(x, {'a': attributes, 'b': x}).exists(x, x == {})",
	"size(attributes.a + attributes.a) > 0 && attributes.a + attributes.b == attributes.b + attributes.a",
	// They compare what is deep, or a long text with each of many.
	"attributes.exists(k, attributes == attributes)",
	"attributes.l.exists(x, attributes.a == attributes.b && x == 'x')",
	"attributes.l.exists(x, attributes.a != attributes.b)",
	"attributes.l.all(x, attributes.a in [attributes.b, attributes.l])",
	"[1,2,3,4].all(i, attributes.l.all(x, x != attributes.a))",
	"attributes.a == attributes.b && attributes.l == attributes.l && attributes == attributes",
	"attributes.a in attributes.l || attributes.b in [attributes.a, attributes.l, attributes]",
	"attributes.l.exists(x, x < attributes.a)",
	"attributes.exists(k, string(attributes[k]) == attributes.a)",
	// They match.
	"attributes.a.matches('(a?){190}a{190}x')",
	"attributes.l.exists(x, x.matches('(a|aa)*b'))",
	"attributes.l.exists(x, attributes.a.matches('(a?){99}a{99}x'))",
	"attributes.l.exists(x, attributes.a.contains('aaaaaaaab'))",
	// They convert.
	"attributes.l.exists(x, size(attributes.a) > 2000)",
	"attributes.l.exists(x, string(bytes(attributes.a)) == 'x')",
	"attributes.l.exists(x, timestamp('2026-01-05T10:00:00Z').getHours('Europe/Warsaw') == 30)",
}

// measured evaluates a predicate and returns what it has cost.
func measured(tb testing.TB, p *predicatePlan, attributes map[string]any) (units uint64, err error) {
	tb.Helper()
	env, err := predicateEnv()
	if err != nil {
		tb.Fatal(err)
	}
	program, err := env.Program(p.checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxPredicateCost), cel.CostTracking(p.prices))
	if err != nil {
		tb.Fatal(err)
	}
	_, details, err := program.Eval(&variables{attributes: attributeMap(attributes), unit: "user"})
	if cost := details.ActualCost(); cost != nil {
		units = *cost
	}
	return units, err
}

func planOf(tb testing.TB, predicate string) *predicatePlan {
	tb.Helper()
	checked, err := checkPredicate(predicate)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := surveyed(checked)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// checkCost holds an evaluation to what was promised when the predicate was
// accepted.
func checkCost(t *testing.T, p *predicatePlan, attributes map[string]any) {
	t.Helper()
	units, err := measured(t, p, attributes)
	switch {
	case p.loops && units > 2*maxPredicateCost: // The last call may begin just below the limit.
		t.Errorf("cost %d units, where evaluations are stopped at %d", units, maxPredicateCost)
	case !p.loops && units > p.cost:
		t.Errorf("cost %d units, where %d were estimated", units, p.cost)
	}
	if units > maxPredicateCost && err == nil {
		t.Errorf("cost %d units and was not stopped", units)
	}
}

// TestPredicateCost evaluates nasty predicates with the largest attributes.
func TestPredicateCost(t *testing.T) {
	inputs := largeInputs(t)
	for _, predicate := range costlyPredicates {
		if err := CheckEligibility(predicate); err != nil {
			t.Errorf("%s: %v", predicate, err)
			continue
		}
		p := planOf(t, predicate)
		for shape, attributes := range inputs {
			t.Run(shape+"/"+predicate, func(t *testing.T) { checkCost(t, p, attributes) })
		}
	}
}

// TestJoinedLists refuses lists that are joined so often that to find an element takes
// long, though each join is cheap and so is each step of the loop.
func TestJoinedLists(t *testing.T) {
	joined := func(maps, joins int) string {
		return "[attributes.l]" + strings.Repeat(".map(x, x"+strings.Repeat("+[1.0]", joins)+")", maps) + ".exists(x, [1,2,3].exists(i, x.exists(y, y == 7.0)))"
	}
	if err := CheckEligibility(joined(1, maxJoins-14)); err != nil {
		t.Error(err)
	}
	err := CheckEligibility(joined(8, 50))
	if err == nil || !strings.Contains(err.Error(), "it joins texts or lists by + 400 times, where 64 are allowed") {
		t.Errorf("lists that are joined 400 times: %v", err)
	}
}

// TestPredicateMemory bounds what an evaluation allocates by what it may cost:
// a unit makes ten bytes of text, or touches a value.
func TestPredicateMemory(t *testing.T) {
	const most = 64 * maxPredicateCost // Bytes; a value with what holds it takes up to 64.
	inputs := largeInputs(t)
	for _, predicate := range costlyPredicates {
		el, err := compileEligibility(predicate)
		if err != nil {
			t.Fatal(err)
		}
		for shape, attributes := range inputs {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			el.eval(&variables{attributes: attributeMap(attributes), unit: "user"})
			runtime.ReadMemStats(&after)
			if bytes := after.TotalAlloc - before.TotalAlloc; bytes > most {
				t.Errorf("%s of %s: allocated %d bytes, where %d are the most", predicate, shape, bytes, most)
			}
		}
	}
}

// TestPredicateIsInterrupted ends the call of a predicate that would go on for
// long: it fails for that reason, and not at the limit of its cost.
func TestPredicateIsInterrupted(t *testing.T) {
	el, err := compileEligibility("attributes.l.all(x, attributes.a == attributes.b)")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	v := variables{attributes: attributeMap(largeInputs(t)["twins"]), unit: "user", ctx: ctx}
	if _, err := el.eval(&v); err == nil || !strings.Contains(err.Error(), "cost limit exceeded") {
		t.Errorf("before the end: %v", err)
	}
	cancel()
	if ok, err := el.eval(&v); ok || !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v, %v", ok, err)
	}
}

// TestStoredPredicates compiles predicates that were accepted by earlier rules.
func TestStoredPredicates(t *testing.T) {
	attributes := map[string]any{"email": "ann@example.com", "pattern": "ann", "l": []any{"a"}, "a": "x"}
	for _, c := range []struct{ predicate, want string }{
		{"attributes.email.matches(attributes.pattern)", "a pattern of matches must be a constant"},
		{"attributes.email == 'x' || attributes.email.matches(attributes.pattern)", "a pattern of matches must be a constant"},
		{"['^a', '^b'].exists(p, attributes.email.matches(p))", "a pattern of matches must be a constant"},
		{"google.protobuf.Int32Value{value: 1} == attributes.n || true", "it makes messages"},
		{"attributes.l.exists(a, attributes.l.exists(b, attributes.l.exists(c, true)))", "it is too costly"},
		{"attributes.l.exists(a, a == 'a' || a.tags.exists(t, t == 'x'))", ""}, // A newer estimate alone stops nothing.
	} {
		e, err := Compile(running("e", 1, 1).with(func(d *experiment.Definition) { d.Eligibility = c.predicate }).stored())
		if err != nil {
			t.Errorf("%s: %v", c.predicate, err)
			continue
		}
		s := NewCatalog(pepper).With(e).Subject("user", "u", attributes, day(3))
		d, x := s.Decide(e), s.Explain(e)
		detail := ""
		for _, g := range x.Gates {
			if g.Kind == GateEligibility {
				detail = g.Detail
			}
		}
		if c.want == "" {
			if d.Failed() || d.Variant < 0 {
				t.Errorf("%s: %+v: %s", c.predicate, d, detail)
			}
			continue
		}
		if !d.Failed() || d.Reason != ReasonIneligible || !x.Failed() {
			t.Errorf("%s: decided %+v, explained %+v", c.predicate, d, x.Decision)
		}
		if want := "The predicate failed to evaluate: " + c.want; !strings.HasPrefix(detail, want) {
			t.Errorf("%s: got %q, want %q", c.predicate, detail, want)
		}
	}
}

// FuzzPredicateCost looks for attributes within the limits with which a
// predicate that was accepted costs more than it was promised to.
func FuzzPredicateCost(f *testing.F) {
	for i, predicate := range costlyPredicates {
		f.Add(predicate, uint64(i), uint8(i))
	}
	for _, predicate := range []string{
		"attributes.a == attributes.b", "attributes.l == attributes.a || attributes.b in attributes.l", "attributes.a[0] == attributes.b[0]",
		"attributes.l.filter(x, x.a == 'a') == attributes.a", "[attributes.a, attributes.b] == [attributes.b, attributes.a]",
		"{'a': attributes.a} == {'a': attributes.b}", "attributes.a + attributes.b == attributes.l", "attributes.l.map(x, x.a)[0] == attributes.b",
		"string(attributes.a) + string(attributes.b) > string(attributes.l)", "attributes.a ? attributes.b == attributes.l : attributes == {}",
	} {
		f.Add(predicate, uint64(1), uint8(1))
	}
	f.Fuzz(func(t *testing.T, predicate string, seed uint64, shape uint8) {
		if len(predicate) > 4096 || predicate == "" || CheckEligibility(predicate) != nil {
			return
		}
		g := inputGenerator{Rand: rand.New(rand.NewPCG(seed, 0)), shape: shape, room: MaxAttributeBytes}
		attributes := map[string]any{}
		for _, name := range []string{"a", "b", "l", "m", "items"} {
			g.room -= len(name)
			attributes[name] = g.value(1)
		}
		for g.shape&1 == 0 && g.room > 64 && len(attributes) < MaxAttributes {
			name := g.text(40)
			attributes[name] = g.value(MaxAttributeDepth)
		}
		checkCost(t, planOf(t, predicate), attributes)
	})
}

// inputGenerator makes attributes, until their room is taken. Its shape sways
// what it makes: wide, deep, long.
type inputGenerator struct {
	*rand.Rand
	shape uint8
	room  int
}

func (g *inputGenerator) text(most int) string {
	n := min(g.IntN(most+1), max(g.room, 0))
	g.room -= n
	if g.shape&2 == 0 {
		return strings.Repeat("a", n)
	}
	return strings.Repeat(string(rune('a'+g.IntN(3))), n)
}

// value makes a value within a level.
func (g *inputGenerator) value(level int) any {
	g.room -= AttributeWeight
	kind := g.IntN(6)
	if g.shape&4 == 0 && kind < 2 {
		kind = 4
	}
	if (level >= MaxAttributeDepth || g.room < AttributeWeight) && kind > 3 {
		kind = 2
	}
	switch kind {
	case 0:
		return g.IntN(2) == 0
	case 1:
		return float64(g.IntN(3))
	case 2, 3:
		return g.text(MaxAttributeText)
	case 4:
		list := []any{}
		for n := g.elements(); len(list) < n && g.room > AttributeWeight; {
			list = append(list, g.value(level+1))
		}
		return list
	}
	fields := map[string]any{}
	for n := g.elements(); len(fields) < n && g.room > AttributeWeight; {
		fields[g.text(12)] = g.value(level + 1)
	}
	return fields
}

func (g *inputGenerator) elements() int {
	if g.shape&8 == 0 {
		return g.IntN(MaxAttributeItems + 1)
	}
	return g.IntN(8)
}
