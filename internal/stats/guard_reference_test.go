package stats

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// TestHeterogeneityReference: metafor's rma(method = "FE").
func TestHeterogeneityReference(t *testing.T) {
	var file struct {
		Heterogeneity []struct {
			Estimates, Errors   []float64
			Q, P, Inconsistency float64
			DF                  int
		}
	}
	load(t, "guard.json", &file)
	for i, c := range file.Heterogeneity {
		got := CheckHeterogeneity(effectsOf(c.Estimates, c.Errors))
		what := fmt.Sprint("case ", i)
		nearOptional(t, what+" Q", got.Statistic, &c.Q, 1e-9)
		nearOptional(t, what+" p", got.PValue, &c.P, 1e-9)
		nearOptional(t, what+" I²", got.Inconsistency, &c.Inconsistency, 1e-9)
		if got.DegreesOfFreedom != c.DF {
			t.Errorf("%s: %d degrees of freedom, want %d", what, got.DegreesOfFreedom, c.DF)
		}
	}
}

// TestBalanceReference: R's t.test, and Austin's formula written out.
func TestBalanceReference(t *testing.T) {
	var file struct {
		Balance []struct {
			Name               string
			Treatment, Control []float64
			SMD, P             float64
		}
		Missing []struct {
			Treatment, Control []*float64
			SMD                float64
		} `json:"balance_missing"`
	}
	load(t, "guard.json", &file)
	for _, c := range file.Balance {
		arms := []Arm{{[]Moments{column(c.Control)}}, {[]Moments{column(c.Treatment)}}}
		got := mustBalance(t, arms, 0, 0, -1)[0]
		nearOptional(t, c.Name, got.StandardizedDifference, &c.SMD, 1e-9)
		nearOptional(t, c.Name+" p", got.PValue, &c.P, 1e-9)
	}
	for i, c := range file.Missing {
		arms := []Arm{{[]Moments{withMissing(c.Control)}}, {[]Moments{withMissing(c.Treatment)}}}
		got := mustBalance(t, arms, 0, 0, 1)[0]
		nearOptional(t, fmt.Sprint("with missing values, case ", i), got.StandardizedDifference, &c.SMD, 1e-9)
		if got.PValue == nil {
			t.Errorf("case %d has no p-value", i)
		}
	}
}

// TestQuantileReference: R's quantile of type 7, to the last bit.
func TestQuantileReference(t *testing.T) {
	var file struct {
		Quantiles []struct{ X, P, Quantiles []float64 }
	}
	load(t, "guard.json", &file)
	for i, c := range file.Quantiles {
		slices.Sort(c.X)
		for k, p := range c.P {
			if got, ok := Quantile(c.X, p); !ok || got != c.Quantiles[k] {
				t.Errorf("set %d at %v: %.17g, want %.17g", i, p, got, c.Quantiles[k])
			}
		}
	}
	if _, ok := Quantile(nil, 0.5); ok {
		t.Error("nothing has a median")
	}
	if first, _ := Quantile([]float64{1, 2}, 0); first != 1 {
		t.Errorf("the smallest of 1 and 2 is %v", first)
	}
}

func TestHeterogeneityEdges(t *testing.T) {
	none := []Effect{{}, {Estimate: new(float64)}, {Estimate: new(float64), StandardError: new(float64)}}
	absent := func(h Heterogeneity) bool {
		note := h.Note
		h.Note = ""
		return h == (Heterogeneity{}) && note != ""
	}
	if got := CheckHeterogeneity(none); !absent(got) {
		t.Errorf("nothing to compare, and %+v", got)
	}
	one := append(effectsOf([]float64{1}, []float64{1}), none...)
	if got := CheckHeterogeneity(one); !absent(got) {
		t.Errorf("one effect differs from itself: %+v", got)
	}
	huge := effectsOf([]float64{-1e300, 1e300}, []float64{1e-300, 1e-300})
	if got := CheckHeterogeneity(huge); !absent(got) {
		t.Errorf("a statistic that cannot be written: %+v", got)
	}
	few := effectsOf([]float64{1, 2, 3}, []float64{1, 1, 1})
	three, five := 3.0, 5.0
	few[0].DegreesOfFreedom, few[1].DegreesOfFreedom, few[2].DegreesOfFreedom = &three, &five, &five
	if got := CheckHeterogeneity(few); got.DegreesOfFreedom != 1 || !strings.HasPrefix(got.Note, "1 of 3 effects do not count") {
		t.Errorf("an effect that too few subjects tell: %+v", got)
	}
	apart := CheckHeterogeneity(effectsOf([]float64{1, 3}, []float64{1e-200, 1e200}))
	if apart.PValue == nil || *apart.PValue != 1 {
		t.Errorf("an effect of which nothing is known differs: %+v", apart)
	}
}

// TestHeterogeneityUnits: no shift, scale or order of the effects matters, and
// with two it is the square of the z test.
func TestHeterogeneityUnits(t *testing.T) {
	estimates, errors := []float64{0.3, -0.1, 0.5, 0.2}, []float64{0.1, 0.2, 0.05, 0.4}
	want := CheckHeterogeneity(effectsOf(estimates, errors))
	scaled, wider := make([]float64, 4), make([]float64, 4)
	for i := range estimates {
		scaled[3-i], wider[3-i] = -1e6*estimates[i]+3, 1e6*errors[i]
	}
	got := CheckHeterogeneity(effectsOf(scaled, wider))
	near(t, "Q in other units", *got.Statistic, *want.Statistic, 1e-9)
	two := CheckHeterogeneity(effectsOf([]float64{1, 2}, []float64{0.3, 0.4}))
	near(t, "Q of two", *two.Statistic, 4, 1e-12)
	near(t, "p of two", *two.PValue, math.Erfc(2/math.Sqrt2), 1e-12)
}

// TestBalanceEdges: what cannot be told is absent, and a stratum that differs in
// size and level between the arms is no imbalance.
func TestBalanceEdges(t *testing.T) {
	constant := []Arm{{[]Moments{column([]float64{2, 2})}}, {[]Moments{column([]float64{2, 2, 2})}}}
	if got := mustBalance(t, constant, 0, 0, -1)[0]; got.StandardizedDifference != nil || got.PValue != nil {
		t.Errorf("a constant covariate: %+v", got)
	}
	lacking := []Arm{{[]Moments{column([]float64{0, 0}, []float64{1, 1})}}, {[]Moments{column([]float64{1, 3}, []float64{0, 0})}}}
	if got := mustBalance(t, lacking, 0, 0, 1)[0]; got.StandardizedDifference != nil || got.PValue != nil {
		t.Errorf("a covariate that the control lacks: %+v", got)
	}
	low, high := []float64{1, 2, 3}, []float64{11, 12, 13}
	few := append(slices.Clone(low), low...)
	strata := []Arm{{[]Moments{column(few), column(high)}}, {[]Moments{column(low), column(append(slices.Clone(high), high...))}}}
	if got := mustBalance(t, strata, 0, 0, -1)[0]; math.Abs(*got.StandardizedDifference) > 1e-12 || math.Abs(*got.PValue-1) > 1e-9 {
		t.Errorf("balanced within strata: %v, p %v", *got.StandardizedDifference, *got.PValue)
	}
	if _, err := CheckBalance(constant, 2, 0, -1); err == nil {
		t.Error("a control that is no arm was taken")
	}
}

// TestBalanceSwapped: seen from the other arm only the sign changes; in other
// units nothing does.
func TestBalanceSwapped(t *testing.T) {
	x, y := []float64{1, 4, 2, 8, 5}, []float64{7, 1, 9, 3}
	arms := []Arm{{[]Moments{column(x)}}, {[]Moments{column(y)}}}
	a, b := mustBalance(t, arms, 0, 0, -1)[0], mustBalance(t, arms, 1, 0, -1)[0]
	near(t, "swapped", *a.StandardizedDifference, -*b.StandardizedDifference, 1e-14)
	near(t, "p-value swapped", *a.PValue, *b.PValue, 1e-14)
	for _, xs := range [][]float64{x, y} {
		for i := range xs {
			xs[i] = 1000*xs[i] - 7
		}
	}
	c := mustBalance(t, []Arm{{[]Moments{column(x)}}, {[]Moments{column(y)}}}, 0, 0, -1)[0]
	near(t, "in other units", *c.StandardizedDifference, *a.StandardizedDifference, 1e-12)
}

func mustBalance(t *testing.T, arms []Arm, control, value, missing int) []Balance {
	t.Helper()
	balances, err := CheckBalance(arms, control, value, missing)
	if err != nil {
		t.Fatal(err)
	}
	return balances
}

func effectsOf(estimates, errors []float64) []Effect {
	effects := make([]Effect, len(estimates))
	for i := range effects {
		effects[i] = Effect{Estimate: &estimates[i], StandardError: &errors[i]}
	}
	return effects
}

// withMissing makes moments of a covariate, 0 where it is missing, and of the
// indicator of that.
func withMissing(xs []*float64) Moments {
	values, missing := indicated(xs)
	return column(values, missing)
}

// indicated is a covariate, 0 where it is missing, and the indicator of that.
func indicated(xs []*float64) (values, missing []float64) {
	values, missing = make([]float64, len(xs)), make([]float64, len(xs))
	for i, x := range xs {
		if x == nil {
			missing[i] = 1
		} else {
			values[i] = *x
		}
	}
	return values, missing
}
