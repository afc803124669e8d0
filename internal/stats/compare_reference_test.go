package stats

import (
	"fmt"
	"strings"
	"testing"
)

var fixed95 = Test{Method: FixedHorizon, ConfidenceLevel: 0.95}

// TestMeans: R by testdata/judge.R on the subjects, also when they come as a summary.
func TestMeans(t *testing.T) {
	var file struct {
		Welch []struct {
			reference
			Name          string
			Alternative   string
			Level, Mu     float64
			TreatmentData []float64 `json:"treatment_data"`
			ControlData   []float64 `json:"control_data"`
		}
	}
	load(t, "reference-r.json", &file)
	sides := map[string]Alternative{"two.sided": TwoSided, "greater": Greater, "less": Less}
	for _, c := range file.Welch {
		t.Run(c.Name+"/"+c.Call, func(t *testing.T) {
			side, ok := sides[c.Alternative]
			if !ok {
				t.Fatalf("alternative %q", c.Alternative)
			}
			treatment, control := column(c.TreatmentData), column(c.ControlData)
			r := Request{
				Formula: ComponentMean(0),
				Arms:    []Arm{{[]Moments{control}}, {[]Moments{treatment}}},
				Test:    Test{Method: FixedHorizon, ConfidenceLevel: c.Level, Alternative: side},
				Margin:  Margin{Value: c.Mu},
			}
			c.check(t, mustCompare(t, r).Comparisons[0].Unadjusted)
			for a := range r.Arms {
				m := &r.Arms[a].Strata[0]
				variance, _ := m.Covariance(0, 0)
				summary, err := FromSummary(m.N, m.Means, []float64{variance})
				if err != nil {
					t.Fatal(err)
				}
				summary.NonZero, summary.Negative = m.NonZero, m.Negative
				r.Arms[a].Strata[0] = summary
			}
			c.check(t, mustCompare(t, r).Comparisons[0].Unadjusted)
		})
	}
}

// ratioArm is one arm of a reference ratio.
type ratioArm struct {
	X, Y      []float64
	Value, SE float64
}

// row is one scale of a reference comparison.
type row struct {
	Estimate, SE, DF, Lower, Upper float64
}

func (want row) check(t *testing.T, what string, got Effect) {
	t.Helper()
	nearOptional(t, what, got.Estimate, &want.Estimate, 1e-9)
	nearOptional(t, what+" standard error", got.StandardError, &want.SE, 1e-9)
	nearOptional(t, what+" degrees of freedom", got.DegreesOfFreedom, &want.DF, 1e-9)
	nearOptional(t, what+" lower", got.Lower, &want.Lower, 1e-9)
	nearOptional(t, what+" upper", got.Upper, &want.Upper, 1e-9)
}

// TestRatioAndLift: numpy, by influence values of the subjects; every fourth
// baseline is negative.
func TestRatioAndLift(t *testing.T) {
	var file struct {
		Ratios []struct {
			Call               string
			Level, Margin      float64
			Treatment, Control ratioArm
			Difference, Lift   row
			LiftAtMargin       row `json:"lift_at_margin"`
			Statistic, P       float64
			LiftStatistic      float64 `json:"lift_statistic"`
			LiftP              float64 `json:"lift_p"`
		}
	}
	load(t, "reference-python.json", &file)
	for i, c := range file.Ratios {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			r := Request{
				Formula: ComponentRatio(0, 1),
				Arms:    []Arm{{[]Moments{column(c.Control.X, c.Control.Y)}}, {[]Moments{column(c.Treatment.X, c.Treatment.Y)}}},
				Test:    Test{Method: FixedHorizon, ConfidenceLevel: c.Level},
			}
			result := mustCompare(t, r)
			for a, want := range []ratioArm{c.Control, c.Treatment} {
				nearOptional(t, "value", result.Arms[a].Value, &want.Value, 1e-9)
				nearOptional(t, "standard error", result.Arms[a].StandardError, &want.SE, 1e-9)
			}
			got := result.Comparisons[0].Unadjusted
			c.Difference.check(t, "difference", got.Difference)
			c.Lift.check(t, "lift", got.Lift)
			nearOptional(t, "statistic", got.Statistic, &c.Statistic, 1e-9)
			nearOptional(t, "p-value", got.PValue, &c.P, 1e-9)

			r.Margin = Margin{Relative, c.Margin}
			got = mustCompare(t, r).Comparisons[0].Unadjusted
			c.LiftAtMargin.check(t, "lift", got.Lift)
			nearOptional(t, "statistic of the lift", got.Statistic, &c.LiftStatistic, 1e-9)
			nearOptional(t, "p-value of the lift", got.PValue, &c.LiftP, 1e-9)
		})
	}
}

// TestCUPEDMean: R's lm for the estimate, testdata/judge.R on residuals for the rest;
// one covariate or two, two arms or three.
func TestCUPEDMean(t *testing.T) {
	var file struct {
		CUPED []struct {
			adjustedCase
			X1, X2 []float64
		}
	}
	load(t, "reference-r.json", &file)
	for i, c := range file.CUPED {
		t.Run(fmt.Sprint(i, " ", c.Call), func(t *testing.T) {
			columns := [][]float64{c.X1, c.Y}
			r := Request{Formula: ComponentMean(1), Covariates: []int{0}, Test: fixed95}
			if c.X2 != nil {
				columns = append(columns, c.X2)
				r.Covariates = []int{2, 0}
			}
			r.Arms = armsOf(c.Arm, columns...)
			got := mustCompare(t, r).Comparisons[0]
			c.checkAdjusted(t, got)
			for _, note := range got.Adjusted.Notes {
				if strings.Contains(note, "covariate") {
					t.Error(note)
				}
			}
		})
	}
}

// TestCUPEDRatio: numpy's lstsq on the linearised ratio.
func TestCUPEDRatio(t *testing.T) {
	var file struct {
		CUPED []struct {
			Arm, X, Y, C       []float64
			Treatment, Control float64
			Difference, Lift   row
			Reduction          float64
		}
	}
	load(t, "reference-python.json", &file)
	for i, c := range file.CUPED {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			r := Request{Formula: ComponentRatio(0, 1), Covariates: []int{2}, Test: fixed95}
			for a := range 2 {
				arm := float64(a)
				r.Arms = append(r.Arms, Arm{[]Moments{column(where(c.X, c.Arm, arm), where(c.Y, c.Arm, arm), where(c.C, c.Arm, arm))}})
			}
			got := mustCompare(t, r).Comparisons[0]
			nearOptional(t, "treatment", got.Adjusted.Treatment, &c.Treatment, 1e-9)
			nearOptional(t, "control", got.Adjusted.Control, &c.Control, 1e-9)
			c.Difference.check(t, "difference", got.Adjusted.Difference)
			c.Lift.check(t, "lift", got.Adjusted.Lift)
			nearOptional(t, "variance reduction", got.VarianceReduction, &c.Reduction, 1e-9)
		})
	}
}

// TestPostStratification: R, weighted sums of tapply.
func TestPostStratification(t *testing.T) {
	var file struct {
		Strata []struct {
			reference
			Arm, Y, Stratum []float64
		}
	}
	load(t, "reference-r.json", &file)
	for i, c := range file.Strata {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			r := Request{Formula: ComponentMean(0), Test: fixed95, Arms: make([]Arm, 2)}
			for label := 0.0; ; label++ {
				ys, arms := where(c.Y, c.Stratum, label), where(c.Arm, c.Stratum, label)
				if len(ys) == 0 {
					break
				}
				for a := range r.Arms {
					r.Arms[a].Strata = append(r.Arms[a].Strata, column(where(ys, arms, float64(a))))
				}
			}
			c.check(t, mustCompare(t, r).Comparisons[0].Unadjusted)
		})
	}
}
