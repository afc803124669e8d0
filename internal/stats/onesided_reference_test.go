package stats

import "testing"

// TestOneSidedLift: R by testdata/judge.R, with no margin and with a relative
// one; some baselines are negative.
func TestOneSidedLift(t *testing.T) {
	var cases []struct {
		reference
		Name          string
		Alternative   Alternative
		Level, Margin float64
		TreatmentData []float64 `json:"treatment_data"`
		ControlData   []float64 `json:"control_data"`
	}
	load(t, "onesided.json", &cases)
	if len(cases) < 40 {
		t.Fatalf("only %d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name+"/"+c.Call, func(t *testing.T) {
			r := simple(column(c.ControlData), column(c.TreatmentData))
			r.Test = Test{Method: FixedHorizon, ConfidenceLevel: c.Level, Alternative: c.Alternative}
			r.Margin = Margin{Relative, c.Margin}
			got := mustCompare(t, r).Comparisons[0].Unadjusted
			nearOptional(t, "estimate", got.Lift.Estimate, c.Estimate, 1e-9)
			nearOptional(t, "standard error", got.Lift.StandardError, c.SE, 1e-9)
			if c.P == nil && !got.Lift.Unbounded { // What is not judged shows none.
				c.DF = nil
			}
			nearOptional(t, "degrees of freedom", got.Lift.DegreesOfFreedom, c.DF, 1e-9)
			nearOptional(t, "statistic", got.Statistic, c.Statistic, 1e-9)
			nearOptional(t, "p-value", got.PValue, c.P, 1e-9)
			nearOptional(t, "lower", got.Lift.Lower, c.Lower, 1e-9)
			nearOptional(t, "upper", got.Lift.Upper, c.Upper, 1e-9)
		})
	}
}
