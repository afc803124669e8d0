package stats

import (
	"math"
	"slices"
)

// A Design is a comparison with the control before it has subjects.
//
// Its power is the probability that the test finds what it looks for, in either
// direction if it looks in both: of a two-sided test, the chance of being
// significant on the wrong side counts too, as in R's
// power.t.test(strict = TRUE), in pwr and in statsmodels.
//
// A fixed horizon is planned with the noncentral t at Welch's degrees of
// freedom, which for arms of the same size and variance are those of Student's
// test, so that R's figures are met there. Proportions are planned by the score test
// that will judge them: as normal, with the variance at the rates that fit best on the
// margin, which for a margin of 0 and arms of one size is R's power.prop.test, and
// where few events are expected by the test itself, over all numbers of them: see
// [Design.FewEvents]. The other methods take the variance as known, as rpact does with
// normalApproximation; of rates of few events their power is no more than the guard of
// informative subjects allows, and than that of a fixed horizon.
//
// A Bayesian test finds what it looks for if its credible interval says so. The
// posterior of rates is planned as normal, too.
//
// An always-valid test, and a group-sequential one for equivalence, is planned
// for its last look alone, and may end earlier. Other group-sequential tests are
// planned for all their looks.
//
// Each arm is planned at its part of the subjects, whole or not. A design is not
// safe for concurrent use.
type Design struct {
	// Test is the rule. Its planned subjects are those of each size that is
	// tried. The schedule of a group-sequential one has all looks, up to the time
	// and information of 1. Of a Bayesian prior, a deviation of the lift counts for
	// means, and alpha and beta for rates, if they are above 0.
	Test   Test
	Margin Margin
	// Control is the control's value.
	Control float64
	// Deviation is the standard deviation between the control's subjects, above
	// 0, and the treatments' too unless Proportion.
	Deviation float64
	// Proportion says that values are rates, so that a treatment's variance
	// follows from its rate.
	Proportion bool
	// Adjusted says that covariates take part, so that rates are compared as means.
	Adjusted bool
	// Shares are the arms' parts of all subjects, the control's first. Each
	// treatment is tested at its part of the error rate, as by Bonferroni's
	// correction, and the one with the fewest subjects is planned for.
	Shares []float64
	// Pause is called between the steps of long computations. Once it returns an error
	// they end soon, with figures that mean nothing; [Design.Err] returns it. May be nil.
	Pause func() error

	course  *course // Once it was needed.
	stopped error
}

// Err is the error of the pause, if there was one. Where it is, no other answer is one.
func (d *Design) Err() error {
	d.isStopped()
	return d.stopped
}

// isStopped pauses, and says whether the computation is to end.
func (d *Design) isStopped() bool {
	if d.stopped == nil && d.Pause != nil {
		d.stopped = d.Pause()
	}
	return d.stopped != nil
}

// Power is the probability of finding a signed effect on the scale of the
// difference. Every arm needs two subjects or more. It is 0 where an always-valid
// test does not judge yet, as the arms are too uneven for so few subjects, and NaN once
// the pause has returned an error, which ends every search.
func (d *Design) Power(effect float64, subjects int64) float64 {
	if d.isStopped() {
		return math.NaN()
	}
	if d.TooUneven(subjects) {
		return 0
	}
	few := d.ratePlan(effect, subjects)
	if few != nil && !few.guarded {
		return few.power()
	}
	o := d.outlook(effect, float64(subjects))
	power := 0.0
	if d.hasCourse() {
		power = d.course.power(o.drift(d.Test.Alternative))
	} else {
		power = o.power(d.Test.Alternative)
	}
	if few == nil {
		return power
	}
	power = min(power, few.power())
	if !d.Adjusted { // And looking more often does not find more.
		once := *d
		once.Test.Method = FixedHorizon
		power = min(power, once.Power(effect, subjects))
	}
	return power
}

// TooUneven tells whether an always-valid test does not judge so few subjects yet, for
// how uneven the arms are.
func (d *Design) TooUneven(subjects int64) bool {
	n := float64(subjects)
	return d.Test.Method == AlwaysValid && skewness(n*slices.Min(d.Shares[1:]), n*d.Shares[0]) > mostSkewness
}

// Expected is how many of the subjects a group-sequential test has on average
// when it ends, if the effect is there. It is false for other tests, and for
// those for equivalence.
func (d *Design) Expected(effect float64, subjects int64) (float64, bool) {
	o := d.outlook(effect, float64(subjects))
	if !d.hasCourse() {
		return 0, false
	}
	return float64(subjects) * d.course.expected(o.drift(d.Test.Alternative)), true
}

// hasCourse tells whether the test may end at any of its looks.
func (d *Design) hasCourse() bool {
	return d.Test.Method == GroupSequential && d.Test.Alternative != Equivalent
}

// rate is the part of the error rate for each comparison. A Bayesian test is not
// corrected.
func (d *Design) rate() float64 {
	if d.Test.Method == Bayesian {
		return 1 - d.Test.ConfidenceLevel
	}
	return (1 - d.Test.ConfidenceLevel) / float64(len(d.Shares)-1)
}

// pairShare is the part of all subjects that is in the two arms of a comparison,
// over the treatments in the mean.
func (d *Design) pairShare() float64 {
	return d.Shares[0] + (1-d.Shares[0])/float64(len(d.Shares)-1)
}

// plannedPair is how many of all subjects a comparison is planned for.
func (d *Design) plannedPair(subjects float64) int64 {
	return max(1, int64(math.Round(subjects*d.pairShare())))
}
