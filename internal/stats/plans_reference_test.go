package stats

import (
	"fmt"
	"math"
	"testing"
)

// plan is a reference case of arms of any size, with a margin.
type plan struct {
	Arms                          []float64 // Subjects, the control's first.
	Effect, Margin                float64
	Scale                         Scale
	Value, Rate, Deviation, Alpha float64
	Alternative                   Alternative
	Power                         float64
	Looks                         int
	Spending                      Spending
	Expected                      float64
}

func (p plan) String() string {
	return fmt.Sprintf("power of alternative %d, arms %v, effect %v, margin %v on scale %d", p.Alternative, p.Arms, p.Effect, p.Margin, p.Scale)
}

func (p plan) design(method Method) (d Design, subjects int64) {
	d = Design{
		Test:    Test{Method: method, ConfidenceLevel: 1 - p.Alpha, Alternative: p.Alternative},
		Margin:  Margin{p.Scale, p.Margin},
		Control: p.Value, Deviation: 1,
	}
	if p.Deviation != 0 {
		d.Deviation = p.Deviation
	}
	total := 0.0
	for _, n := range p.Arms {
		total += n
	}
	for _, n := range p.Arms {
		d.Shares = append(d.Shares, n/total)
	}
	return d, int64(total)
}

// TestPowerOfNonInferiority: R's power.t.test, and R's noncentral t at Welch's
// degrees of freedom for arms of different sizes and margins of the lift.
func TestPowerOfNonInferiority(t *testing.T) {
	var file struct{ NonInferiority []plan }
	load(t, "power.json", &file)
	if len(file.NonInferiority) < 17 {
		t.Fatalf("only %d cases", len(file.NonInferiority))
	}
	for _, c := range file.NonInferiority {
		d, subjects := c.design(FixedHorizon)
		near(t, c.String(), d.Power(c.Effect, subjects), c.Power, 1e-9)
	}
}

// TestPowerOfUnevenLooks: rpact, with arms of different sizes, several treatments and
// margins.
func TestPowerOfUnevenLooks(t *testing.T) {
	var file struct{ UnevenLooks []plan }
	load(t, "power.json", &file)
	if len(file.UnevenLooks) < 20 {
		t.Fatalf("only %d cases", len(file.UnevenLooks))
	}
	for _, c := range file.UnevenLooks {
		d, subjects := c.design(GroupSequential)
		d.Test.Schedule = plannedLooks(t, c.Spending, c.Looks)
		near(t, c.String(), d.Power(c.Effect, subjects), c.Power, 1e-6)
		expected, ok := d.Expected(c.Effect, subjects)
		if !ok {
			t.Fatalf("%v: no expected subjects", c)
		}
		near(t, "subjects on average, "+c.String(), expected, c.Expected, 1e-6)
	}
}

// TestPowerOfUnevenAlwaysValid: the published boundary in mpmath, likewise.
func TestPowerOfUnevenAlwaysValid(t *testing.T) {
	var file struct{ UnevenAlways []plan }
	load(t, "power-python.json", &file)
	if len(file.UnevenAlways) < 20 {
		t.Fatalf("only %d cases", len(file.UnevenAlways))
	}
	for _, c := range file.UnevenAlways {
		d, subjects := c.design(AlwaysValid)
		near(t, c.String(), d.Power(c.Effect, subjects), c.Power, 1e-9)
	}
}

// TestRatioPlans: the standard deviation of a ratio is that of the subjects' influence
// values in R, and sizes and smallest effects are power.t.test's at it, or the Welch
// test's for arms of different sizes.
func TestRatioPlans(t *testing.T) {
	var file struct {
		Ratios []struct {
			Baseline                int64
			Means, Covariances      []float64
			Value, Deviation, Share float64
			Effect, Alpha           float64
			Alternative             Alternative
			Power                   float64
			Subjects                int64
			Smallest                float64
		}
	}
	load(t, "power.json", &file)
	if len(file.Ratios) < 10 {
		t.Fatalf("only %d cases", len(file.Ratios))
	}
	for i, c := range file.Ratios {
		m, err := FromSummary(c.Baseline, c.Means, c.Covariances)
		if err != nil {
			t.Fatal(err)
		}
		r := simple(m, m)
		r.Formula = ComponentRatio(0, 1)
		baseline := mustCompare(t, r).Arms[0]
		what := fmt.Sprintf("ratio %d: ", i)
		near(t, what+"value", *baseline.Value, c.Value, 1e-9)
		deviation := *baseline.StandardError * math.Sqrt(float64(c.Baseline))
		near(t, what+"deviation", deviation, c.Deviation, 1e-9)
		d := Design{
			Test:    Test{Method: FixedHorizon, ConfidenceLevel: 1 - c.Alpha, Alternative: c.Alternative},
			Control: *baseline.Value, Deviation: deviation, Shares: []float64{1 - c.Share, c.Share},
		}
		if subjects, ok := d.Subjects(c.Effect, c.Power); !ok || subjects != c.Subjects {
			t.Errorf("%s%d subjects, want %d", what, subjects, c.Subjects)
		}
		effect, ok := d.Effect(c.Power, c.Subjects, false)
		if !ok {
			t.Errorf("%sno effect", what)
		}
		near(t, what+"smallest effect", effect, c.Smallest, 1e-9)
	}
}
