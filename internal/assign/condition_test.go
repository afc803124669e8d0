package assign

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// agree compares the decision of a predicate's condition with that of CEL's
// evaluator, the oracle.
func agree(t *testing.T, el *eligibility, predicate string, attributes map[string]any) (outcome string) {
	t.Helper()
	v := variables{attributes: attributeMap(attributes), unit: "user"}
	for range 2 { // CEL's evaluator reads other values the second time.
		want, failure := el.tell(&v)
		got, err := el.eval(&v)
		if got != want || (err == nil) != (failure == nil) {
			t.Fatalf("%s of %v: got %v, %v; CEL says %v, %v", predicate, attributes, got, err, want, failure)
		}
		outcome = fmt.Sprint(got, err != nil)
	}
	return outcome
}

// The names and constants meet often, and at the edges of the number types.
var (
	conditionNames  = []string{"a", "b", "c"}
	textConstants   = []string{"'PL'", "''", "'pl'", "'PL\\u0000'", "'Łódź'", `"5"`, "'true'"}
	numberConstants = []string{
		"0", "-0.0", "5", "5.0", "5u", "5.5", "-5", "9007199254740993", "9223372036854775807", "-9223372036854775808",
		"18446744073709551615u", "1e308", "-1e-320", "0x10",
	}
	otherConstants    = []string{"true", "false", "null"}
	conditionValues   = []any{"PL", "", "pl", "PL\x00", "Łódź", "5", "true", true, false, nil, []any{}, []any{"PL"}, map[string]any{}, map[string]any{"a": 5.0}}
	conditionNumbers  = []float64{0, math.Copysign(0, -1), 5, 5.5, -5, 16, 1 << 53, 1<<53 + 2, 1 << 63, -1 << 63, 1 << 64, 1e308, -1e-320, math.Inf(1), math.Inf(-1), math.NaN()}
	orderedConditions = []string{"<", "<=", ">", ">="}
)

func randomScalar(r *rand.Rand) string {
	all := [][]string{textConstants, numberConstants, numberConstants, otherConstants}[r.IntN(4)]
	return all[r.IntN(len(all))]
}

func randomOperand(r *rand.Rand) string {
	name := conditionNames[r.IntN(len(conditionNames))]
	switch r.IntN(8) {
	case 0:
		return fmt.Sprintf("attributes['%s']", name)
	case 1:
		return "unit"
	}
	return "attributes." + name
}

// randomCondition writes a predicate of the common shapes. CEL's checker
// refuses some, such as a unit compared with a number.
func randomCondition(r *rand.Rand, depth int) string {
	if depth > 0 && r.IntN(3) > 0 {
		switch r.IntN(5) {
		case 0:
			return "!(" + randomCondition(r, depth-1) + ")"
		case 1, 2:
			return "(" + randomCondition(r, depth-1) + " && " + randomCondition(r, depth-1) + ")"
		}
		return "(" + randomCondition(r, depth-1) + " || " + randomCondition(r, depth-1) + ")"
	}
	name := conditionNames[r.IntN(len(conditionNames))]
	switch r.IntN(10) {
	case 0:
		return "has(attributes." + name + ")"
	case 1:
		return "'" + name + "' in attributes"
	case 2:
		return "attributes." + name
	case 3:
		return []string{"true", "false"}[r.IntN(2)]
	case 4, 5:
		list := make([]string, r.IntN(4))
		for i := range list {
			list[i] = randomScalar(r)
		}
		return randomOperand(r) + " in [" + strings.Join(list, ", ") + "]"
	}
	operator, scalar := []string{"==", "!="}[r.IntN(2)], randomScalar(r)
	if r.IntN(2) == 0 && scalar != "null" {
		operator = orderedConditions[r.IntN(len(orderedConditions))]
	}
	if r.IntN(2) == 0 {
		return scalar + " " + operator + " " + randomOperand(r)
	}
	return randomOperand(r) + " " + operator + " " + scalar
}

func randomValues(r *rand.Rand) map[string]any {
	attributes := map[string]any{}
	for _, name := range conditionNames {
		switch r.IntN(5) {
		case 0:
		case 1, 2:
			attributes[name] = conditionNumbers[r.IntN(len(conditionNumbers))]
		default:
			attributes[name] = conditionValues[r.IntN(len(conditionValues))]
		}
	}
	return attributes
}

// TestConditionsDecideAsCEL is the promise of conditions, with CEL's own
// evaluator as the oracle. Every predicate of the common shapes must have one.
func TestConditionsDecideAsCEL(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	seen, refused := map[string]int{}, 0
	for range 4000 {
		predicate := randomCondition(r, r.IntN(4))
		el, err := compileEligibility(predicate)
		if err != nil {
			if !strings.Contains(err.Error(), "its types do not check") {
				t.Fatal(err)
			}
			refused++
			continue
		}
		if el.condition == nil {
			t.Fatalf("%s: no condition", predicate)
		}
		for range 25 {
			seen[agree(t, el, predicate, randomValues(r))]++
		}
	}
	for _, outcome := range []string{"true false", "false false", "false true"} {
		if seen[outcome] < 10_000 {
			t.Errorf("the outcome %s came up %d times", outcome, seen[outcome])
		}
	}
	if refused > 2000 {
		t.Errorf("%d predicates were refused", refused)
	}
}

// TestConditionsAgreeOnEveryPair compares each constant with each value by each
// operator, which random predicates might miss.
func TestConditionsAgreeOnEveryPair(t *testing.T) {
	values := slices.Clone(conditionValues)
	for _, x := range conditionNumbers {
		values = append(values, x)
	}
	constants := slices.Concat(textConstants, numberConstants, otherConstants)
	for _, constant := range constants {
		for _, operator := range append([]string{"==", "!=", "in"}, orderedConditions...) {
			predicates := []string{"attributes.a " + operator + " " + constant, constant + " " + operator + " attributes.a"}
			if operator == "in" {
				predicates = []string{"attributes.a in [" + constant + "]", "attributes.a in ['x', 7, " + constant + "]"}
			}
			for _, predicate := range predicates {
				el, err := compileEligibility(predicate)
				if err != nil {
					if constant != "null" {
						t.Errorf("%s: %v", predicate, err)
					}
					continue
				}
				if el.condition == nil && (constant != "null" || !slices.Contains(orderedConditions, operator)) {
					t.Errorf("%s: no condition", predicate)
				}
				agree(t, el, predicate, nil)
				for _, x := range values {
					agree(t, el, predicate, map[string]any{"a": x})
				}
			}
		}
	}
}

// TestOtherPredicatesHaveNoCondition lists what is left to CEL's evaluator.
func TestOtherPredicatesHaveNoCondition(t *testing.T) {
	for _, predicate := range []string{
		"attributes.a == attributes.b", "attributes.a.b == 1", "attributes.a + 1 == 2", "attributes.a in attributes.b",
		"attributes.a in [attributes.b]", "attributes.a == [1]", "has(attributes.a.b)", "attributes[unit] == 1",
		"unit.startsWith('u')", "attributes.a == 1 ? true : false", "attributes.a.exists(x, x == 1)", "1 == 1",
		"attributes.a == b'x'", "attributes.a == 1 && size(unit) == 4", "!(unit + 'x' == 'userx')", "unit in attributes",
		"attributes == {}", "'a' in attributes.b", "attributes.a < null",
	} {
		el, err := compileEligibility(predicate)
		if err != nil {
			t.Errorf("%s: %v", predicate, err)
			continue
		}
		if el.condition != nil {
			t.Errorf("%s has a condition", predicate)
		}
	}
}

// FuzzCondition looks for predicates whose condition differs from CEL.
func FuzzCondition(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 60 {
		f.Add(randomCondition(r, 3), r.Uint64(), "PL", 5.5)
	}
	f.Fuzz(func(t *testing.T, predicate string, seed uint64, s string, n float64) {
		if predicate == "" || len(predicate) > 4096 {
			return
		}
		el, err := compileEligibility(predicate)
		if err != nil || el.condition == nil {
			return
		}
		r := rand.New(rand.NewPCG(seed, 0))
		for range 5 {
			attributes := randomValues(r)
			attributes[conditionNames[r.IntN(3)]] = []any{s, n}[r.IntN(2)]
			agree(t, el, predicate, attributes)
		}
	})
}
