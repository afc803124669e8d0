package stats

import (
	"fmt"
	"slices"
	"testing"
)

// adjustedCase is what R's lm and testdata/judge.R make of one covariate.
type adjustedCase struct {
	reference
	Arm, Y           []float64
	Slope, Reduction *float64
}

// compare takes the first component as the formula and the others as covariates.
func (c adjustedCase) compare(t *testing.T, columns ...[]float64) ArmComparison {
	t.Helper()
	r := Request{Formula: ComponentMean(0), Test: fixed95}
	columns = append([][]float64{c.Y}, columns...)
	for i := range columns[1:] {
		r.Covariates = append(r.Covariates, i+1)
	}
	r.Arms = armsOf(c.Arm, columns...)
	return mustCompare(t, r).Comparisons[0]
}

// armsOf cuts columns by the arm that each subject is in, from 0.
func armsOf(assigned []float64, columns ...[]float64) (arms []Arm) {
	for a := 0.0; a <= slices.Max(assigned); a++ {
		var of [][]float64
		for _, xs := range columns {
			of = append(of, where(xs, assigned, a))
		}
		arms = append(arms, Arm{[]Moments{column(of...)}})
	}
	return arms
}

func (c adjustedCase) checkAdjusted(t *testing.T, got ArmComparison) {
	t.Helper()
	c.check(t, *got.Adjusted)
	nearOptional(t, "slope of lm", got.Adjusted.Difference.Estimate, c.Slope, 1e-9)
	nearOptional(t, "variance reduction", got.VarianceReduction, c.Reduction, 1e-9)
}

// TestCUPEDProportion: R's lm for the estimate, testdata/judge.R on residuals for the rest, of
// subjects that are 0 or 1; two arms to four.
func TestCUPEDProportion(t *testing.T) {
	var file struct {
		Proportions []struct {
			adjustedCase
			X []float64
		}
	}
	load(t, "cuped.json", &file)
	if len(file.Proportions) < 10 {
		t.Fatalf("only %d cases", len(file.Proportions))
	}
	for i, c := range file.Proportions {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			c.checkAdjusted(t, c.compare(t, c.X))
		})
	}
}

// TestCUPEDMissing: the same of a mean, with a covariate that some lack. R puts its
// mean in place of what is missing, and here it is 0: with the indicator beside it
// the fit is the same.
func TestCUPEDMissing(t *testing.T) {
	var file struct {
		Missing []struct {
			adjustedCase
			X []*float64
		}
	}
	load(t, "cuped.json", &file)
	if len(file.Missing) < 10 {
		t.Fatalf("only %d cases", len(file.Missing))
	}
	for i, c := range file.Missing {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			values, missing := indicated(c.X)
			c.checkAdjusted(t, c.compare(t, values, missing))
		})
	}
}

// TestCUPEDInStrata: R's predictions by a regression on the cells of arm and stratum,
// with covariates or without; two arms or three, the last of which may lack subjects
// in a stratum. With one covariate θ is how far the adjusted value moved over how far
// the treatment was ahead on it.
func TestCUPEDInStrata(t *testing.T) {
	var file struct {
		Strata []struct {
			Call                    string
			Of                      int
			Arm, Stratum, Y, X1, X2 []float64
			Kept                    int64
			Treatment, Control      float64
			AdjustedTreatment       float64 `json:"adjusted_treatment"`
			AdjustedControl         float64 `json:"adjusted_control"`
			Theta                   []float64
			Ahead                   float64
		}
	}
	load(t, "cuped.json", &file)
	three, partial := 0, 0
	for i, c := range file.Strata {
		t.Run(fmt.Sprint(i, " ", c.Call), func(t *testing.T) {
			r := Request{Formula: ComponentMean(0), Covariates: []int{1}, Test: fixed95, Arms: make([]Arm, 2)}
			columns := [][]float64{c.Y, c.X1}
			if c.X2 != nil {
				columns, r.Covariates = append(columns, c.X2), []int{1, 2}
			}
			if len(where(c.Y, c.Arm, 2)) > 0 {
				r.Arms = make([]Arm, 3)
				three++
			}
			for label := 1.0; ; label++ {
				arms := where(c.Arm, c.Stratum, label)
				if len(arms) == 0 {
					break
				}
				for a := range r.Arms {
					var of [][]float64
					for _, xs := range columns {
						of = append(of, where(where(xs, c.Stratum, label), arms, float64(a)))
					}
					r.Arms[a].Strata = append(r.Arms[a].Strata, column(of...))
				}
			}
			if c.Kept < int64(len(c.Y)) {
				partial++
			}
			got := mustCompare(t, r).Comparisons[c.Of-1]
			plain, adjusted := got.Unadjusted, *got.Adjusted
			difference := c.Treatment - c.Control
			nearOptional(t, "treatment", plain.Treatment, &c.Treatment, 1e-9)
			nearOptional(t, "control", plain.Control, &c.Control, 1e-9)
			nearOptional(t, "difference", plain.Difference.Estimate, &difference, 1e-9)
			difference = c.AdjustedTreatment - c.AdjustedControl
			nearOptional(t, "adjusted treatment", adjusted.Treatment, &c.AdjustedTreatment, 1e-9)
			nearOptional(t, "adjusted control", adjusted.Control, &c.AdjustedControl, 1e-9)
			nearOptional(t, "adjusted difference", adjusted.Difference.Estimate, &difference, 1e-9)
			if len(c.Theta) == 1 {
				near(t, "θ", (*plain.Treatment-*adjusted.Treatment)/c.Ahead, c.Theta[0], 1e-9)
			}
		})
	}
	if len(file.Strata) < 20 || three < 10 || partial < 3 {
		t.Errorf("%d cases, %d of three arms, %d with a stratum left out", len(file.Strata), three, partial)
	}
}
