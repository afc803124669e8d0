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
// test, so that R's figures are met there. Proportions are planned with each
// arm's own variance, as the test will compare them; R's power.prop.test pools
// them for the test, and pwr.2p.test takes arcsines, so they differ. The other
// methods take the variance as known, as rpact does with normalApproximation.
//
// A Bayesian test finds what it looks for if its credible interval says so, of
// rates too by the normal posterior.
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
	// and information of 1.
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
	// Shares are the arms' parts of all subjects, the control's first. Each
	// treatment is tested at its part of the error rate, as by Bonferroni's
	// correction, and the one with the fewest subjects is planned for.
	Shares []float64

	course *course // Once it was needed.
}

// Power is the probability of finding a signed effect on the scale of the
// difference. Every arm needs two subjects or more.
func (d *Design) Power(effect float64, subjects int64) float64 {
	o := d.outlook(effect, float64(subjects))
	if d.hasCourse() {
		return d.course.power(o.drift(d.Test.Alternative))
	}
	return o.power(d.Test.Alternative)
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

// outlook is where a planned estimate will fall, in its own standard errors.
type outlook struct {
	// lower and upper are how far its mean lies above the null value; of an
	// equivalence test above the lower and above the upper one.
	lower, upper float64
	// critical is how many estimated standard errors it has to lie beyond, and
	// degrees are those with which they are estimated.
	critical, degrees float64
}

func (d *Design) outlook(effect, subjects float64) outlook {
	control, treatment := d.Shares[0]*subjects, slices.Min(d.Shares[1:])*subjects
	// Variances are in units of the control's, so that nothing overflows.
	variance, ratio := 1.0, 1.0
	if d.Proportion {
		rate := d.Control + effect
		variance = max(0, rate*(1-rate)) / (d.Control * (1 - d.Control))
	}
	null := d.Margin.Value
	if d.Margin.Scale == Relative { // See judge.
		null *= math.Abs(d.Control)
		ratio = 1 + effect/d.Control
	}
	total, degrees := satterthwaite(
		[]part{{variance / treatment, treatment - 1}},
		scaled([]part{{1 / control, control - 1}}, ratio))
	unit := d.Deviation * math.Sqrt(total)
	o := outlook{lower: (effect - null) / unit, upper: (effect - null) / unit, degrees: math.Inf(1)}
	if d.Test.Alternative == Equivalent {
		o.lower = (effect + null) / unit
	}
	if d.Test.Method == FixedHorizon {
		o.degrees = degrees
	}
	o.critical = d.critical(o.degrees, subjects, control+treatment)
	if prior := d.Test.Prior; d.Test.Method == Bayesian && prior.LiftDeviation > 0 {
		lower, upper := null, null
		if d.Test.Alternative == Equivalent {
			lower = -null
		}
		o.believe(prior.LiftMean*math.Abs(d.Control)-lower, prior.LiftMean*math.Abs(d.Control)-upper, unit, prior.LiftDeviation*math.Abs(d.Control))
	}
	return o
}

// believe takes in a prior, whose mean lies so far above the null values. The
// posterior mean is the estimate drawn towards that of the prior, and its deviation
// smaller by the root of the estimate's part in it, so the estimate has to get
// further, on the far side of the prior more than on the near one.
func (o *outlook) believe(aboveLower, aboveUpper, unit, spread float64) {
	precision := unit / spread * unit / spread // Of the prior, over the estimate's.
	o.critical *= math.Sqrt(1 + precision)
	o.lower += aboveLower / unit * precision
	o.upper += aboveUpper / unit * precision
}

// critical is the critical value at a number of subjects, of whom so many are in
// the two arms.
func (d *Design) critical(degrees, subjects, pair float64) float64 {
	if d.Test.Method != GroupSequential {
		test := d.Test
		test.PlannedSubjects = max(1, int64(math.Round(subjects*d.pairShare())))
		return test.critical(d.rate(), Evidence{DegreesOfFreedom: degrees, Subjects: int64(math.Round(pair))})
	}
	if d.course == nil {
		rate, twoSided := d.rate(), d.Test.Alternative == TwoSided
		if twoSided {
			rate /= 2
		}
		d.course = d.Test.Schedule.course(rate, twoSided)
	}
	return d.course.boundary
}

// drift is the distance from the null value in the direction that is sought.
func (o outlook) drift(alternative Alternative) float64 {
	if alternative == Less {
		return -o.upper
	}
	return o.lower
}

// pairShare is the part of all subjects that is in the two arms of a comparison,
// over the treatments in the mean.
func (d *Design) pairShare() float64 {
	return d.Shares[0] + (1-d.Shares[0])/float64(len(d.Shares)-1)
}

// bendWidths are the arguments between which the normal distribution is smooth
// enough for one panel of the integral.
var bendWidths = []float64{-8, -4, 0, 4, 8}

// power is the probability that the estimate lies beyond the critical value.
func (o outlook) power(alternative Alternative) float64 {
	above := func(s float64) float64 { return normalUpperTail(o.critical*s - o.lower) }
	below := func(s float64) float64 { return normalUpperTail(o.critical*s + o.upper) }
	var bends []float64
	for _, x := range bendWidths {
		bends = append(bends, (o.lower+x)/o.critical, (x-o.upper)/o.critical)
	}
	switch alternative {
	case Greater:
		return meanOverScale(o.degrees, bends, above)
	case Less:
		return meanOverScale(o.degrees, bends, below)
	case Equivalent:
		// Both one-sided tests hold (Schuirmann 1987): above − 1 + below, where
		// that is positive.
		bends = append(bends, (o.lower-o.upper)/2/o.critical)
		return meanOverScale(o.degrees, bends, func(s float64) float64 {
			return max(0, below(s)-normalUpperTail(o.lower-o.critical*s))
		})
	default:
		return meanOverScale(o.degrees, bends, func(s float64) float64 { return above(s) + below(s) })
	}
}

// normalUpperTail is P(Z > z).
func normalUpperTail(z float64) float64 { return math.Erfc(z/math.Sqrt2) / 2 }
