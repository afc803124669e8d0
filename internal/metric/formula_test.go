package metric

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustParse(t *testing.T, expression string, names ...string) *Expression {
	t.Helper()
	e, err := Parse(expression, names)
	if err != nil {
		t.Fatalf("Parse(%q): %v", expression, err)
	}
	return e
}

func TestEvaluate(t *testing.T) {
	// The gradients were derived by hand. a = 3, b = 4, c = 5.
	tests := []struct {
		expression string
		value      float64
		gradient   []float64
	}{
		{"a", 3, []float64{1, 0, 0}},
		{"-a", -3, []float64{-1, 0, 0}},
		{"--a", 3, []float64{1, 0, 0}},
		{"a-b-c", -6, []float64{1, -1, -1}},
		{"a - (b - c)", 4, []float64{1, -1, 1}},
		{"a/b", 0.75, []float64{1 / 4.0, -3 / 16.0, 0}},
		{"c/a/b", 5 / 12.0, []float64{-5 / 36.0, -5 / 48.0, 1 / 12.0}},
		{"c/(a/b)", 20 / 3.0, []float64{-20 / 9.0, 5 / 3.0, 4 / 3.0}},
		{"a + b*c", 23, []float64{1, 5, 4}},
		{"(a + b)*c", 35, []float64{5, 5, 7}},
		{"a*a*a", 27, []float64{27, 0, 0}},
		{"-a*b", -12, []float64{-4, -3, 0}},
		{"a*-b", -12, []float64{-4, -3, 0}},
		{"2.5e-1 * a + 1E+1", 10.75, []float64{0.25, 0, 0}},
		{"1/(1 - 0.5*a)", -2, []float64{2, 0, 0}}, // 0.5/(1−0.5a)²
		{"(a - b) / c", -0.2, []float64{0.2, -0.2, 1 / 25.0}},
		{"0*a", 0, []float64{0, 0, 0}},
		{"\ta\n/\r b ", 0.75, []float64{1 / 4.0, -3 / 16.0, 0}},
	}
	for _, tt := range tests {
		value, gradient := mustParse(t, tt.expression, "a", "b", "c").Evaluate([]float64{3, 4, 5})
		if !near(value, tt.value) {
			t.Errorf("%s = %v, want %v", tt.expression, value, tt.value)
		}
		for i := range tt.gradient {
			if !near(gradient[i], tt.gradient[i]) {
				t.Errorf("gradient of %s = %v, want %v", tt.expression, gradient, tt.gradient)
				break
			}
		}
	}
}

// near allows for a few roundings.
func near(a, b float64) bool {
	return math.Abs(a-b) <= 1e-14*math.Max(1, math.Max(math.Abs(a), math.Abs(b)))
}

func TestEvaluateUndefined(t *testing.T) {
	for _, expression := range []string{"a/b", "1e308*10*a", "a/(b*a)"} {
		value, _ := mustParse(t, expression, "a", "b").Evaluate([]float64{1, 0})
		if !math.IsInf(value, 0) && !math.IsNaN(value) {
			t.Errorf("%s = %v at a = 1, b = 0, want no finite number", expression, value)
		}
	}
}

func TestEvaluateIgnoresFurtherNumbers(t *testing.T) {
	value, gradient := mustParse(t, "a/b", "a", "b").Evaluate([]float64{1, 2, math.Inf(1), 7})
	if diff := cmp.Diff([]float64{0.5, -0.25, 0, 0}, gradient); value != 0.5 || diff != "" {
		t.Errorf("value %v, gradient (-want +got):\n%s", value, diff)
	}
}

// TestGradientByDifferences compares gradients of random expressions with
// central differences.
func TestGradientByDifferences(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	names := []string{"a", "b", "c"}
	checked := 0
	for range 2000 {
		text := randomExpression(random, names, 4)
		e := mustParse(t, text, names...)
		x := []float64{1 + random.Float64(), 2 + random.Float64(), 4 + random.Float64()}
		value, gradient := e.Evaluate(x)
		for i := range x {
			difference, far := central(e, x, i, 1e-4), central(e, x, i, 2e-4)
			// Richardson's extrapolation; the two must agree for it to mean
			// anything, which near a pole they do not.
			estimate := (4*difference - far) / 3
			size := math.Max(math.Max(math.Abs(value), math.Abs(estimate)), 1)
			if math.Abs(difference-far) > 1e-5*size || math.Abs(value) > 1e4 {
				continue
			}
			checked++
			if math.Abs(gradient[i]-estimate) > 1e-6*size {
				t.Errorf("%s at %v: slope %d is %v, by differences %v", text, x, i, gradient[i], estimate)
			}
		}
	}
	if checked < 4000 {
		t.Errorf("only %d slopes could be checked", checked)
	}
}

func central(e *Expression, x []float64, i int, h float64) float64 {
	at := func(step float64) float64 {
		y := append([]float64(nil), x...)
		y[i] += step
		value, _ := e.Evaluate(y)
		return value
	}
	return (at(h) - at(-h)) / (2 * h)
}

func randomExpression(random *rand.Rand, names []string, depth int) string {
	if depth == 0 || random.IntN(5) == 0 {
		if random.IntN(4) == 0 {
			return fmt.Sprintf("%.2f", 0.5+random.Float64())
		}
		return names[random.IntN(len(names))]
	}
	left, right := randomExpression(random, names, depth-1), randomExpression(random, names, depth-1)
	if random.IntN(8) == 0 {
		return "-(" + left + ")"
	}
	return "(" + left + ")" + string("+-*/"[random.IntN(4)]) + "(" + right + ")"
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ expression, want string }{
		{"", "must not be empty"},
		{" \n", "must not be empty"},
		{"a +", `at character 4: expected a number, a name, "-" or "(", found the end`},
		{"a * + b", `at character 5: expected a number, a name, "-" or "(", found "+"`},
		{"(a + b", `at character 7: expected an operator or ")", found the end`},
		{"(a b)", `at character 4: expected an operator or ")", found "b"`},
		{"a)", `at character 2: expected an operator, found ")"`},
		{"a b", `at character 3: expected an operator, found "b"`},
		{"2a", `at character 2: expected an operator, found "a"`},
		{"1e", `at character 2: expected an operator, found "e"`},
		{"1.", `at character 2: expected an operator, found "."`},
		{".5", `at character 1: expected a number, a name, "-" or "(", found "."`},
		{"a ** b", `at character 4: expected a number, a name, "-" or "(", found "*"`},
		{"a − b", `at character 3: expected an operator, found "−"`},
		{"żółw + a", `at character 1: expected a number, a name, "-" or "(", found "ż"`},
		{"A", `at character 1: expected a number, a name, "-" or "(", found "A"`},
		{"a + \x00", `at character 5: expected a number, a name, "-" or "(", found "\x00"`},
		{"a + \xff", `at character 5: expected a number, a name, "-" or "(", found "\xff"`},
		{"a + orders", `at character 5: there is no component "orders"`},
		{"a + 1e999", "at character 5: the number 1e999 is too large"},
		{strings.Repeat("(", 65) + "a", "at character 65: it is nested more than 64 deep"},
		{strings.Repeat("-", 65) + "a", "at character 65: it is nested more than 64 deep"},
		{strings.Repeat("a", 1025), "has 1025 bytes; at most 1024 are allowed"},
	}
	for _, tt := range tests {
		_, err := Parse(tt.expression, []string{"a", "b"})
		if err == nil || err.Error() != ": "+tt.want {
			t.Errorf("Parse(%q) = %v, want %q", tt.expression, err, tt.want)
		}
	}
}

func TestParseDepth(t *testing.T) {
	deepest := strings.Repeat("(", 32) + strings.Repeat("-", 32) + "a" + strings.Repeat(")", 32)
	if value, _ := mustParse(t, deepest, "a").Evaluate([]float64{2}); value != 2 {
		t.Errorf("64 levels: %v, want 2", value)
	}
	// Levels that were left do not count, and a long sum has no depth.
	long := "0" + strings.Repeat("+(a)", 250)
	if value, gradient := mustParse(t, long, "a").Evaluate([]float64{2}); value != 500 || gradient[0] != 250 {
		t.Errorf("a long sum: %v and slope %v, want 500 and 250", value, gradient[0])
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"a", "revenue / orders", "(a - b) / 2", "-(-a)*1e-3", "1/0", "((((a", "a+", "1.5.5", "1e+", "\xff", "a/b/c*-2",
	} {
		f.Add(seed)
	}
	names := []string{"a", "b", "c", "revenue", "orders"}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse(text, names)
		if err != nil {
			if err.Error() == "" || e != nil {
				t.Fatalf("Parse(%q) = %v, %v", text, e, err)
			}
			return
		}
		if _, gradient := e.Evaluate([]float64{1, 2, 3, 4, 5, 6}); len(gradient) != 6 || gradient[5] != 0 {
			t.Fatalf("gradient of %q: %v", text, gradient)
		}
		// Parentheses around the whole change nothing.
		again, err := Parse("("+text+")", names)
		if err != nil {
			if len(text) > MaxExpressionBytes-2 || strings.Contains(err.Error(), "nested") {
				return
			}
			t.Fatalf("Parse of %q in parentheses: %v", text, err)
		}
		if diff := cmp.Diff(e.nodes, again.nodes, cmp.AllowUnexported(node{})); diff != "" {
			t.Fatalf("%q in parentheses differs:\n%s", text, diff)
		}
	})
}
