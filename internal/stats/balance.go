package stats

import "math"

// Balance compares what was known of an arm's subjects before they were exposed
// with what was known of the control's. Numbers that are undefined are nil.
type Balance struct {
	// Arm is the index of the treatment.
	Arm int
	// StandardizedDifference is the difference of the means over the root of
	// the mean of the two arms' variances.
	StandardizedDifference *float64
	// PValue is that of Welch's test of the difference. It is there only with the
	// StandardizedDifference.
	PValue *float64
}

// CheckBalance compares component value of every arm with the control's, among
// the subjects for which component missing is 0; for the others value is 0. A
// negative missing means that none lacks it. The difference is that of
// [Compare], within strata; the variances are those of the arms as they are.
//
// Austin (2009), Balance diagnostics for comparing the distribution of baseline
// covariates between treatment groups in propensity-score matched samples,
// section 3.1; with a single stratum R's t.test(x, y).
func CheckBalance(arms []Arm, control, value, missing int) ([]Balance, error) {
	formula := ComponentMean(value)
	if missing >= 0 {
		formula = meanOfKnown(value, missing)
	}
	result, err := Compare(Request{
		Formula: formula, Arms: arms, Control: control,
		Test: Test{Method: FixedHorizon, ConfidenceLevel: 0.95}, // The level shows nowhere.
	})
	if err != nil {
		return nil, err
	}
	balances := make([]Balance, len(result.Comparisons))
	for i, c := range result.Comparisons {
		balances[i].Arm = c.Arm
		difference := c.Unadjusted.Difference.Estimate
		treated, ok1 := variance(&result.Arms[c.Arm], missing)
		untreated, ok2 := variance(&result.Arms[control], missing)
		if deviation := math.Sqrt(treated/2 + untreated/2); ok1 && ok2 && difference != nil && deviation > 0 && finite(*difference/deviation) {
			balances[i].StandardizedDifference = present(*difference / deviation)
			balances[i].PValue = c.Unadjusted.PValue
		}
	}
	return balances, nil
}

// meanOfKnown is the formula of the mean of a component over the subjects that
// do not lack it: m/(1 − missing).
func meanOfKnown(value, missing int) Formula {
	return func(means []float64) (float64, []float64) {
		gradient := make([]float64, len(means))
		known := 1 - means[missing]
		mean := means[value] / known
		gradient[value] = 1 / known
		gradient[missing] = mean / known
		return mean, gradient
	}
}

// variance is the sample variance of what CheckBalance compares, among those of
// an arm that have it. A subject that lacks it is at distance 0 from the mean of
// those that have it, so with n subjects, k of them with it, the squared standard
// error of that mean is Σ(x − mean)²/k² · n/(n − 1).
func variance(arm *ArmSummary, missing int) (variance float64, ok bool) {
	n := float64(arm.Subjects)
	known := n
	if missing >= 0 && arm.Totals[missing] != nil {
		known -= math.Round(*arm.Totals[missing])
	}
	if arm.StandardError == nil || known < 2 {
		return 0, false
	}
	return *arm.StandardError * *arm.StandardError * known * known * (n - 1) / n / (known - 1), true
}
