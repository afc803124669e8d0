package stats

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestWelchReference: R's oneway.test where the effects are means of groups, and
// Welch's formula with pf elsewhere.
func TestWelchReference(t *testing.T) {
	var cases []struct {
		Estimates, Errors, Degrees []float64
		Q, Denominator, P          float64
	}
	load(t, "heterogeneity.json", &cases)
	for i, c := range cases {
		effects := effectsOf(c.Estimates, c.Errors)
		for k := range effects {
			effects[k].DegreesOfFreedom = &c.Degrees[k]
		}
		got := CheckHeterogeneity(effects)
		what := fmt.Sprint("case ", i)
		nearOptional(t, what+" Q", got.Statistic, &c.Q, 1e-9)
		nearOptional(t, what+" denominator", got.DenominatorDegreesOfFreedom, &c.Denominator, 1e-9)
		nearOptional(t, what+" p", got.PValue, &c.P, 1e-9)
		if got.Note != "" {
			t.Errorf("%s: note %q", what, got.Note)
		}
	}
}

// TestHeterogeneityOfSmallGroups keeps to 5 % for 20 groups with 20 subjects in each
// of two arms, where the chi-square distribution has 7.6 %.
func TestHeterogeneityOfSmallGroups(t *testing.T) {
	const runs, groups, subjects = 4000, 20, 20
	random := rand.New(rand.NewPCG(1, 9))
	rejected, byChiSquare := 0, 0
	for range runs {
		var effects []Effect
		for range groups {
			arms := []Arm{{[]Moments{NewMoments(1)}}, {[]Moments{NewMoments(1)}}}
			for a := range arms {
				for range subjects {
					arms[a].Strata[0].Add([]float64{random.NormFloat64()})
				}
			}
			result, err := Compare(Request{Formula: ComponentMean(0), Arms: arms, Test: Test{Method: AlwaysValid, ConfidenceLevel: 0.95}})
			if err != nil {
				t.Fatal(err)
			}
			c := &result.Comparisons[0].Unadjusted
			effects = append(effects, Effect{Estimate: c.Observed, StandardError: c.Difference.StandardError, DegreesOfFreedom: c.Degrees})
		}
		h := CheckHeterogeneity(effects)
		if *h.PValue <= 0.05 {
			rejected++
		}
		if chiSquareUpperTail(*h.Statistic, h.DegreesOfFreedom) <= 0.05 {
			byChiSquare++
		}
	}
	// Four standard errors of a share of 5 % are 1.4 %.
	if share := float64(rejected) / runs; share < 0.036 || share > 0.064 {
		t.Errorf("%.2f %% of true nulls are rejected at 5 %%", 100*share)
	}
	if share := float64(byChiSquare) / runs; share < 0.064 {
		t.Errorf("by the chi-square distribution %.2f %%: this does not test what it should", 100*share)
	}
	t.Logf("rejected %d, by the chi-square distribution %d of %d", rejected, byChiSquare, runs)
}
