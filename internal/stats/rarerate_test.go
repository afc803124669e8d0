package stats

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// rareDesign is a test of rates of few events at the edge of what it must not find.
type rareDesign struct {
	name        string
	n           [2]int64
	rates       [2]float64
	alternative Alternative
	margin      float64
	guardrail   bool
	failing     bool // What is found falsely is that a guardrail is broken.
}

// found is the probability that a design finds what is not so: by enumeration, exactly.
func (d *rareDesign) found(t *testing.T, method Method) (found float64) {
	var arms [2][]float64
	for a, n := range d.n {
		arms[a] = make([]float64, n+1)
		p := d.rates[a]
		sd := math.Sqrt(float64(n) * p * (1 - p))
		for x := range arms[a] {
			if distance := float64(x) - float64(n)*p; math.Abs(distance) < 6*sd+8 {
				lg := func(k float64) float64 { l, _ := math.Lgamma(k + 1); return l }
				k := float64(x)
				arms[a][x] = math.Exp(lg(float64(n)) - lg(k) - lg(float64(n)-k) + k*math.Log(p) + (float64(n)-k)*math.Log1p(-p))
			}
		}
	}
	for x, p := range arms[0] {
		for y, q := range arms[1] {
			if p*q < 1e-6 { // Of which all together are less than 0.1 %.
				continue
			}
			r := simple(proportion(t, float64(x), d.n[0]), proportion(t, float64(y), d.n[1]))
			r.Proportion, r.Guardrail, r.Margin.Value = true, d.guardrail, d.margin
			r.Test.Method, r.Test.Alternative = method, d.alternative
			c := mustCompare(t, r).Comparisons[0].Unadjusted
			low, high := c.Difference.Lower, c.Difference.Upper
			passes := low != nil && *low >= d.margin && d.margin < 0 || high != nil && *high <= d.margin && d.margin > 0
			fails := low != nil && *low > d.margin && d.margin > 0 || high != nil && *high < d.margin && d.margin < 0
			switch {
			case !d.guardrail && c.PValue != nil && *c.PValue <= 0.05, d.guardrail && (d.failing && fails || !d.failing && passes):
				found += p * q
			}
		}
	}
	return found
}

// TestRareRatesKeepTheirLevel: what rests on the rarer arm needs five events, and that a
// margin is kept is told by the exact test of the arm that could break it. Of what is at
// the margin no more than 6 % is found by a one-sided test at 5 %, and 3.5 % by a side of
// a guardrail's interval at 95 %.
func TestRareRatesKeepTheirLevel(t *testing.T) {
	designs := []rareDesign{
		{"greater than a tiny margin, 99:1", [2]int64{9900, 100}, [2]float64{0.001, 0.001}, Greater, 1e-9, false, false},
		{"greater than a margin, 99:1", [2]int64{9900, 100}, [2]float64{0.001, 0.0015}, Greater, 0.0005, false, false},
		{"not worse, 1:99, 0.4 %", [2]int64{50, 4950}, [2]float64{0.004, 0.005}, Less, 0.001, false, false},
		{"not worse, 1:99, 1 %", [2]int64{100, 9900}, [2]float64{0.01, 0.011}, Less, 0.001, false, false},
		{"not worse, 99:1", [2]int64{4950, 50}, [2]float64{0.01, 0.06}, Less, 0.05, false, false},
		{"not fewer, 1:1", [2]int64{500, 500}, [2]float64{0.01, 0.002}, Greater, -0.008, false, false},
		{"not fewer, 99:1", [2]int64{4950, 50}, [2]float64{0.004, 0.003}, Greater, -0.001, false, false},
		{"not fewer of most, 1:99", [2]int64{50, 4950}, [2]float64{0.996, 0.995}, Greater, -0.001, false, false},
		{"guardrail passes, 1:1", [2]int64{1000, 1000}, [2]float64{0.001, 0.006}, TwoSided, 0.005, true, false},
		{"guardrail passes, 1:99", [2]int64{50, 4950}, [2]float64{0.004, 0.005}, TwoSided, 0.001, true, false},
		{"guardrail fails, 99:1", [2]int64{4950, 50}, [2]float64{0.001, 0.002}, TwoSided, 0.001, true, true},
		{"guardrail fails, 99:1, 0.4 %", [2]int64{4950, 50}, [2]float64{0.004, 0.005}, TwoSided, 0.001, true, true},
		{"guardrail of most fails, 99:1", [2]int64{4950, 50}, [2]float64{0.999, 0.998}, TwoSided, -0.001, true, true},
	}
	for _, d := range designs {
		for _, method := range []Method{FixedHorizon, AlwaysValid} {
			if method == AlwaysValid && !d.guardrail { // It is slow, and its boundary wide.
				continue
			}
			most := 0.06
			if d.guardrail {
				most = 0.035
			}
			found := d.found(t, method)
			t.Logf("%-40s method %d: %.2f %%", d.name, method, 100*found)
			if found > most {
				t.Errorf("%s, method %d: %.4f are found, of %v at most", d.name, method, found, most)
			}
		}
	}
}

// TestMarginThatNoneKeeps: without an event in either arm a margin is kept that so many
// subjects can bear, by every method, and by nothing is it broken. A rate of few events
// against many is no harm by one more.
func TestMarginThatNoneKeeps(t *testing.T) {
	for _, c := range []struct {
		events  [2]float64
		n       [2]int64
		margin  float64
		kept    bool
		greater bool
	}{
		{[2]float64{0, 0}, [2]int64{10_000, 10_000}, 0.001, true, false},
		{[2]float64{0, 0}, [2]int64{1000, 1000}, 0.001, false, false},
		{[2]float64{2, 1}, [2]int64{10_000, 10_000}, 0.002, true, false},
		{[2]float64{3, 0}, [2]int64{50, 4950}, 0.002, true, false},
		{[2]float64{3, 30}, [2]int64{50, 4950}, 0.001, false, false},
		{[2]float64{1, 1}, [2]int64{4950, 50}, 0.001, false, false},
		{[2]float64{10_000, 9_999}, [2]int64{10_000, 10_000}, -0.002, true, true},
		{[2]float64{10_000, 9_000}, [2]int64{10_000, 9_000}, -0.002, true, true},
	} {
		for _, method := range []Method{FixedHorizon, AlwaysValid, GroupSequential} {
			for _, side := range []Alternative{TwoSided, Less, Equivalent} {
				r := simple(proportion(t, c.events[0], c.n[0]), proportion(t, c.events[1], c.n[1]))
				r.Proportion, r.Guardrail, r.Margin.Value = true, side == TwoSided, c.margin
				r.Test.Method, r.Test.Alternative = method, side
				if c.greater && side == Less {
					r.Test.Alternative = Greater
				}
				if c.greater && side == Equivalent {
					r.Margin.Value = -c.margin
				}
				if method == GroupSequential {
					r.Test.Schedule = someSchedule(0)
				}
				result := mustCompare(t, r)
				soundness(t, r, result)
				got := result.Comparisons[0].Unadjusted
				what := fmt.Sprintf("%+v, %+v", c, r.Test)
				if side == Equivalent && c.events[0] > 2 && !c.greater { // Of three of 50 more cannot be told.
					continue
				}
				if significant := got.PValue != nil && *got.PValue <= 0.05; significant != c.kept {
					t.Errorf("%s: kept %t, interval %s to %s, notes %q", what, significant, show(got.Difference.Lower), show(got.Difference.Upper), got.Notes)
				}
				bound := got.Difference.Upper
				if c.greater {
					bound = got.Difference.Lower
				}
				if within := bound != nil && math.Abs(*bound) <= math.Abs(c.margin); within != c.kept {
					t.Errorf("%s: bound %s", what, show(bound))
				}
				if got.Opposite != nil || side == TwoSided && got.Difference.Lower != nil && got.Difference.Upper != nil {
					t.Errorf("%s: the opposite is told", what)
				}
			}
		}
	}
}

// TestBinomialTail: R's pbinom.
func TestBinomialTail(t *testing.T) {
	for _, c := range [][4]float64{
		{0, 10000, 0.001, 4.5173345977048628e-05},
		{4, 10000, 0.001, 0.029195950158227756},
		{25, 4950, 0.01, 8.6961115581853004e-05},
		{1, 50, 0.2, 0.00019267843851530469},
		{3, 1e9, 1e-8, 0.010336050411092753},
		{1800, 5000, 0.4, 3.4431728893920384e-09},
		{49, 50, 0.999, 0.048794371802968722},
		{40, 400000, 0.0002, 5.7372989465972487e-07},
		{2, 3, 0.9, 0.271},
	} {
		near(t, fmt.Sprint(c), binomialTail(c[0], c[1], c[2]), c[3], 1e-10)
	}
}

// TestRareRatesInStrataByTheirBound: what the exact test tells of a Bayesian rate is not
// said to be the normal posterior's.
func TestRareRatesInStrataByTheirBound(t *testing.T) {
	for events, want := range map[float64]bool{0: false, 40: true} {
		r := simple(proportion(t, events, 5000), proportion(t, events, 5000))
		for a := range r.Arms {
			r.Arms[a].Strata = append(r.Arms[a].Strata, proportion(t, events, 4000))
		}
		r.Proportion, r.Guardrail, r.Margin.Value = true, true, 0.01
		r.Test.Method, r.Test.Prior = Bayesian, Prior{Alpha: 1, Beta: 1}
		got := mustCompare(t, r).Comparisons[0].Unadjusted
		if says := strings.Contains(strings.Join(got.Notes, " "), "judged by the normal posterior"); says != want || got.Difference.Upper == nil {
			t.Errorf("%v events: notes %q", events, got.Notes)
		}
	}
}
