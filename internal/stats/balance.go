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
	// PValue is that of the test of the difference at a fixed horizon. It is there
	// only with the StandardizedDifference.
	PValue *float64
	// Notes says why one is nil.
	Notes []string
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
	known := make([]Arm, len(arms))
	variances := make([]float64, len(arms))
	for a := range arms {
		all := NewMoments(1)
		for s := range arms[a].Strata {
			m := arms[a].Strata[s].known(value, missing)
			known[a].Strata = append(known[a].Strata, m)
			all.Merge(m)
		}
		variances[a], _ = all.Covariance(0, 0)
	}
	result, err := Compare(Request{
		Formula: ComponentMean(0), Arms: known, Control: control, plain: true,
		Test: Test{Method: FixedHorizon, ConfidenceLevel: 0.95}, // The level shows nowhere.
	})
	if err != nil {
		return nil, err
	}
	balances := make([]Balance, len(result.Comparisons))
	for i, c := range result.Comparisons {
		balances[i].Arm = c.Arm
		difference := c.Unadjusted.Difference.Estimate
		deviation := math.Sqrt(variances[c.Arm]/2 + variances[control]/2)
		if c.Unadjusted.Difference.StandardError != nil && deviation > 0 && finite(*difference/deviation) {
			balances[i].StandardizedDifference = present(*difference / deviation)
			balances[i].PValue = c.Unadjusted.PValue
		}
		if balances[i].PValue == nil {
			balances[i].Notes = c.Unadjusted.Notes
		}
		if balances[i].PValue == nil && deviation == 0 && difference != nil {
			balances[i].Notes = []string{"It is the same for all subjects of either variant: nothing varies that could be compared."}
		}
	}
	return balances, nil
}

// known is the moments of a component among the subjects that do not lack it: of
// n subjects with mean v the k others have the mean μ = n·v/k, and a subject that
// lacks it is at distance 0 from it. A negative missing means that none lacks it.
func (m *Moments) known(value, missing int) Moments {
	gradient := make([]float64, m.Dim())
	gradient[value] = 1
	subjects, share := m.N, 1.0
	if missing >= 0 {
		subjects = int64(math.Round(float64(m.N) * (1 - m.Means[missing])))
		share = float64(subjects) / float64(m.N)
	}
	if subjects == 0 {
		return NewMoments(1)
	}
	mean := m.Means[value] / share
	if missing >= 0 {
		gradient[missing] = mean
	}
	return Moments{N: subjects, Means: []float64{mean}, Tails: []float64{m.tail(value) / share}, Products: []float64{m.quadratic(gradient)}}
}
