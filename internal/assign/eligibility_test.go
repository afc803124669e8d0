package assign

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

func TestEligibility(t *testing.T) {
	attributes := map[string]any{
		"age": 18.0, "ratio": 0.5, "country": "PL", "beta": true, "none": nil,
		"tags": []any{"a", "b"}, "address": map[string]any{"city": "Łódź"}, "email": "ann@Example.com",
	}
	for predicate, want := range map[string]string{
		"attributes.age >= 18":                      "true",
		"attributes.age > 18":                       "false",
		"attributes.age == 18":                      "true",
		"attributes.age != 18.5":                    "true",
		"attributes.age == 18u":                     "true",
		"18 <= attributes.age":                      "true",
		"attributes.ratio < 1":                      "true",
		"1 < 1.5":                                   "true",
		"attributes.age in [17, 18]":                "true",
		"attributes.age in [17.5, 18.5]":            "false",
		"attributes.country in ['PL', 'DE']":        "true",
		"!(attributes.country in ['FR'])":           "true",
		"has(attributes.country)":                   "true",
		"has(attributes.missing)":                   "false",
		"has(attributes.none)":                      "true",
		"attributes.none == null":                   "true",
		"attributes.beta":                           "true",
		"attributes['country'] == 'PL'":             "true",
		"'country' in attributes":                   "true",
		"attributes.address.city == 'Łódź'":         "true",
		"size(attributes.address.city) == 4":        "true",
		"attributes.email.endsWith('@Example.com')": "true",
		"attributes.email.startsWith('ann')":        "true",
		"attributes.email.contains('@')":            "true",
		"attributes.email.matches('(?i)EXAMPLE')":   "true",
		"'b' in attributes.tags":                    "true",
		"attributes.tags.exists(t, t == 'b')":       "true",
		"attributes.tags.all(t, t == 'b')":          "false",
		"unit == 'user'":                            "true",
		"true || attributes.missing":                "true",
		"attributes.missing == 1 || unit == 'user'": "true",
		"attributes.missing == 1":                   "no such key: missing",
		"attributes.country > 5":                    "no such overload",
		"attributes.age.startsWith('x')":            "no such overload",
		"attributes.country":                        "the result is not a bool",
		"attributes.age / 0.0 > 1.0 && unit == 'x'": "false",
		"int(attributes.country) == 1":              "type conversion error",
		"attributes.tags.exists(t, t > 1)":          "no such overload",
		"attributes.tags in ['a', 'b']":             "false",
	} {
		t.Run(predicate, func(t *testing.T) {
			if err := CheckEligibility(predicate); err != nil {
				t.Fatal(err)
			}
			el, err := compileEligibility(predicate)
			if err != nil {
				t.Fatal(err)
			}
			// The second evaluation reads converted attributes, the third those again.
			v := variables{attributes: attributeMap(attributes), unit: "user"}
			for range 3 {
				ok, err := el.tell(&v)
				if quick, failure := el.eval(&v); quick != ok || (failure == nil) != (err == nil) {
					t.Errorf("decided %v, %v; told %v, %v", quick, failure, ok, err)
				}
				got := fmt.Sprint(ok)
				if err != nil {
					got = err.Error()
					if ok {
						t.Error("eligible in spite of an error")
					}
				}
				if !strings.HasPrefix(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
}

func TestEligibilityWithoutAttributes(t *testing.T) {
	for predicate, want := range map[string]bool{
		"has(attributes.x)": false, "size(attributes) == 0": true, "!has(attributes.x)": true, "attributes == {}": true,
		"attributes.exists(k, k == 'x')": false, "attributes.x == 1": false,
	} {
		el, err := compileEligibility(predicate)
		if err != nil {
			t.Fatal(err)
		}
		v := variables{attributes: attributeMap(nil), unit: "user"}
		for range 2 {
			if ok, _ := el.eval(&v); ok != want {
				t.Errorf("%s: got %v", predicate, ok)
			}
		}
	}
}

func TestCheckEligibility(t *testing.T) {
	// 400 constants fill most of the 4,096 bytes that a predicate may have.
	countries := "attributes.country in ['" + strings.Repeat("PL','", 400) + "DE']"
	const forEach = "attributes.exists(k, %s)"
	const loop = "attributes.tags.exists(t, attributes.tags.exists(u, %s))"
	for _, c := range []struct{ name, predicate, want string }{
		{"empty", "", ""},
		{"list", countries, ""},
		{"list in a loop", "attributes.tags.exists(tag, " + strings.ReplaceAll(countries, "attributes.country", "tag") + ")", ""},
		{"one pass", fmt.Sprintf(forEach, "attributes[k] == 'x'"), ""},
		{"many alternatives", "unit == 'a'" + strings.Repeat(" || unit == 'b'", 250), ""},
		{"no parse", "unit ==", "it does not parse: "},
		{"unknown variable", "country == 'PL'", "its types do not check: ERROR: <input>:1:1: undeclared reference to 'country'"},
		{"ill-typed", "unit == 1", "its types do not check: "},
		{"hostile name", "expression.recursion", "its types do not check: "},
		{"number", "1 + 1", "its result must be a bool, not int"},
		{"string", "unit", "its result must be a bool, not string"},
		{"loop in a loop", fmt.Sprintf(loop, "t == u"), "it is too costly: up to "},
		{"loop over attributes in itself", fmt.Sprintf(forEach, "attributes.exists(l, k > l)"), "it is too costly: up to "},
		{"list in a loop over attributes", fmt.Sprintf(forEach, strings.ReplaceAll(countries, "attributes.country", "k")), ""},
		{"parts compared", "attributes.a == attributes.b && attributes.c in attributes.d", ""},
		{"lists of parts compared", "[attributes.a, attributes.b] == [attributes.c, 'x']", ""},
		{"parts compared in a loop", "attributes.tags.exists(t, t == attributes.favourite)", ""},
		{"sums of parts compared", "attributes.a + attributes['b'] == attributes.c + attributes.d.e", ""},
		{"pattern in a loop", "attributes.tags.exists(t, t.matches('^promo-[0-9]+$'))", ""},
		{"time zone in a loop", "attributes.times.exists(t, timestamp(t).getHours('Europe/Warsaw') < 8)", ""},
		{"text that is made", "attributes.first + ' ' + attributes.last == 'Ann Lee' && size(string(attributes.n)) > 2", ""},
		{"pattern of the subject", "attributes.email.matches(attributes.pattern)", "a pattern of matches must be a constant"},
		{"pattern of a loop", "['^a', '^b'].exists(p, attributes.email.matches(p))", "a pattern of matches must be a constant"},
		{"pattern that is made", "matches(attributes.email, '^a' + unit)", "a pattern of matches must be a constant"},
		{"large pattern on many texts", "attributes.l.map(t, t + t).exists(t, t.matches('(a?){99}a{99}'))", "it is too costly: up to "},
		{"message", "google.protobuf.Int32Value{value: 1} == attributes.n", "it makes messages of protocol buffers"},
		{"lists that grow", "[attributes.l]" + strings.Repeat(".map(x, x + x + x + x)", 9) + ".exists(x, x == x)", "its cost has no bound"},
		{"texts that grow", "[attributes.a]" + strings.Repeat(".map(x, x + x + x + x)", 9) + ".exists(x, x == 'x')", "it is too costly: up to "},
		{"texts that grow in maps", "[{'a': attributes.a}]" + strings.Repeat(".map(m, {'a': m.a + m.a + m.a})", 9) + ".exists(m, m.a == 'x')", "its cost has no bound"},
		{"lists of lists compared", "[unit]" + strings.Repeat(".map(x, [x, x, x, x, x, x, x, x, x, x])", 7) + ".exists(x, x == x)", "it is too costly: up to "},
		{"lists of lists sought", "[unit]" + strings.Repeat(".map(x, [x, x, x, x, x, x, x, x, x, x])", 7) + ".exists(x, x in [x])", "it is too costly: up to "},
		{"lists of lists by a name of ours", "[unit]" + strings.Repeat(".map(x, [x, x, x, x, x, x, x, x, x, x])", 7) + ".exists(attributes, attributes == attributes)", "it is too costly: up to "},
		{"search in a loop", "attributes.l.all(x, x in attributes.l)", "it is too costly: up to "},
		{"lists of lists in maps", "[{'a': unit}]" + strings.Repeat(".map(m, {'a': [m.a, m.a, m.a, m.a]})", 9) + ".exists(m, m.a == m.a)", "its cost has no bound"},
		{"conversion of what grows", "[attributes.a]" + strings.Repeat(".map(x, string(x + x + x + x))", 9) + ".exists(x, x == 'x')", "it is too costly: up to "},
		{"loops over constants", nestedLoops(7), "it is too costly: up to "},
		{"parentheses", strings.Repeat("(", 70) + "true" + strings.Repeat(")", 70), "it is too deep: more than 64 levels"},
		{"sum", "attributes.x" + strings.Repeat(" + attributes.x", 200) + " == 1", "it is too deep: more than 64 levels"},
		{"path", "attributes" + strings.Repeat(".x", 200) + " == 1", "it is too deep: more than 64 levels"},
		{"bad regular expression", "unit.matches('(')", "one of its constants is invalid: "},
		{"large regular expression", "unit.matches('(a{100}){10}')", "its types do not check: "},
		{"bad constant", "int('x') == 1", "one of its constants is invalid: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := CheckEligibility(c.predicate)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var invalid *experiment.InvalidError
			if !errors.As(err, &invalid) || len(invalid.Violations) != 1 || invalid.Violations[0].Field != "eligibility" {
				t.Fatalf("got %v, want one violation of eligibility", err)
			}
			if got := invalid.Violations[0].Message; !strings.HasPrefix(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// nestedLoops returns a predicate that runs through the ninefold of constants
// the given number of times.
func nestedLoops(depth int) string {
	predicate := "a == 0"
	for range depth {
		predicate = "[1, 2, 3, 4, 5, 6, 7, 8, 9].all(a, " + predicate + ")"
	}
	return strings.Replace(predicate, "a == 0", "a > 0", 1)
}

// TestEligibilityIsStopped passes attributes that are larger than the estimate
// assumed: the run-time limit must stop the loop, and see what grows in it.
func TestEligibilityIsStopped(t *testing.T) {
	for _, predicate := range []string{
		"attributes.list.exists(x, x == 'a')",
		"[1, 2, 3].map(x, attributes.a + attributes.a + attributes.a).map(y, y + y + y + y).exists(z, z == 'x')",
		"[1].exists(x, attributes.list == attributes.other && attributes.list == attributes.list && size(attributes.a) == 1)",
		"attributes.a.matches('(a|b)*c') || [1].exists(x, attributes.a.matches('(a|b)*c'))",
	} {
		if err := CheckEligibility(predicate); err != nil {
			t.Fatal(err)
		}
		el, err := compileEligibility(predicate)
		if err != nil {
			t.Fatal(err)
		}
		attributes := attributeMap{"list": many(300_000, "b"), "other": many(300_000, "b"), "a": strings.Repeat("a", 3_900_000)}
		ok, err := el.eval(&variables{attributes: attributes, unit: "user"})
		if ok || err == nil || !strings.Contains(err.Error(), "cost limit exceeded") {
			t.Errorf("%s: got %v, %v", predicate, ok, err)
		}
	}
}

func TestEligibilityIsConcurrent(t *testing.T) {
	el, err := compileEligibility("attributes.n >= 10 && attributes.tags.exists(t, t == unit)")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			v := variables{attributes: attributeMap{"n": float64(i), "tags": []any{"user"}}, unit: "user"}
			for range 100 {
				if ok, err := el.eval(&v); ok != (i >= 10) || err != nil {
					t.Errorf("%d: got %v, %v", i, ok, err)
				}
			}
		})
	}
	group.Wait()
}

func TestEligibilityNames(t *testing.T) {
	for predicate, want := range map[string][]string{
		"attributes.b == 1 && attributes.a == 1 && attributes.b == 2": {"a", "b"},
		"has(attributes.a) && .attributes.b == 1":                     {"a", "b"},
		"attributes['a'] == 1 && 'b' in attributes":                   {"a", "b"},
		"attributes.a.b.c == 1 && unit == 'x'":                        {"a"},
		"attributes.a.exists(x, x == attributes.b)":                   {"a", "b"},
		"attributes[unit] == 1 && unit in attributes":                 nil,
		"unit == 'x'": nil,
	} {
		el, err := compileEligibility(predicate)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, el.names); diff != "" {
			t.Errorf("%s: %s", predicate, diff)
		}
	}
}

// FuzzEligibility looks for predicates that panic, or that are accepted and
// then do not compile.
func FuzzEligibility(f *testing.F) {
	for _, seed := range []string{
		"attributes.country == 'PL' && attributes.age >= 18", "attributes.age in [1, 2.0, 3u]", "has(attributes.a.b)",
		"attributes.tags.exists(t, t.startsWith('a'))", "attributes.tags.map(t, t + 'x').size() > 1", "{'a': 1}[unit] == 1",
		"unit.matches('^a+$')", "timestamp(attributes.t) > timestamp('2026-01-01T00:00:00Z')", "attributes ? true : false",
		"attributes.m in [[1], {}]", "duration('1s') == attributes.d", "b'a' == bytes(unit)", "type(attributes.a) == int",
		"dyn(1) == attributes.n", "attributes.tags[int(attributes.n)] == 'a'", "google.protobuf.Int32Value{value: 1} == attributes.n",
		"-attributes.n % 2 < 1", "((((((true))))))", "attributes.?a.orValue(true)", "1 / 0 == attributes.n", "9223372036854775807 + 1 > 0",
	} {
		f.Add(seed, "a", 1.5)
	}
	f.Fuzz(func(t *testing.T, predicate, s string, n float64) {
		if len(predicate) > 4096 || CheckEligibility(predicate) != nil || predicate == "" {
			return
		}
		el, err := compileEligibility(predicate)
		if err != nil {
			t.Fatalf("accepted, but does not compile: %v", err)
		}
		v := variables{unit: "user", attributes: attributeMap{
			"a": s, "n": n, "t": "2026-01-05T10:00:00Z", "country": "PL", "age": 31.0, "b": true, "nil": nil,
			"tags": []any{s, n, nil, "a"}, "m": map[string]any{s: n, "b": []any{}},
		}}
		first, err := el.eval(&v)
		if second, again := el.eval(&v); first != second || (err == nil) != (again == nil) {
			t.Errorf("%v, %v; then, of converted attributes, %v, %v", first, err, second, again)
		}
		if first && err != nil {
			t.Errorf("eligible in spite of %v", err)
		}
	})
}
