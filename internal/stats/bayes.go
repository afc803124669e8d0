package stats

import "math"

// The Bayesian method. Of a proportion without covariates and in one stratum each
// variant's rate has a beta distribution before the data and after them, and what
// is said of the difference and of the lift is exact: see duel. Of everything else
// the estimate is taken as normal around the truth, with the delta method's
// standard error, and the lift as normal before the data, or as unknown: the
// conjugate update of Gelman, Carlin, Stern, Dunson, Vehtari and Rubin (2013),
// Bayesian Data Analysis, equation 2.12. GrowthBook's gbstats does the same.
//
// A credible interval is central: as much probability lies below it as above. It
// and the chance to win agree: one-sided, the bound touches the null value exactly
// when the chance to win is the level. No error rate is claimed.

// The parameters of a prior of a rate lie within bounds: with smaller ones a rate
// spreads over hundreds of powers of ten.
const (
	leastPrior    = 0.1
	greatestPrior = 1e9
)

// Prior is what a Bayesian test believes before the data.
type Prior struct {
	// Alpha and Beta are of each variant's rate, if the metric is a proportion.
	Alpha, Beta float64
	// LiftMean and LiftDeviation are of the lift, of other metrics. A deviation
	// of 0 stands for no belief at all: all lifts are alike.
	LiftMean, LiftDeviation float64
}

// check refuses what is no prior.
func (p Prior) check(f *faults) {
	for i, x := range []float64{p.Alpha, p.Beta} {
		if !(x >= leastPrior && x <= greatestPrior) {
			f.add([]string{"prior.alpha", "prior.beta"}[i], "it lies between %v and %v, and %v does not", leastPrior, greatestPrior, x)
		}
	}
	if !finite(p.LiftMean) {
		f.add("prior.lift_mean", "it is not a finite number")
	}
	if !(p.LiftDeviation >= 0 && finite(p.LiftDeviation)) {
		f.add("prior.lift_standard_deviation", "it is a finite number and not negative, and %v is not", p.LiftDeviation)
	}
}

// posterior judges an estimate by the normal posterior.
func (t Test) posterior(e Evidence, null float64) Inference {
	mean, deviation := e.Estimate, e.StandardError
	if t.Prior.LiftDeviation > 0 {
		if e.LiftUnit == 0 {
			return Inference{Note: "The control's value is zero, by which the prior of the lift is scaled: no interval and no chance to win."}
		}
		belief, spread := t.Prior.LiftMean*e.LiftUnit, t.Prior.LiftDeviation*e.LiftUnit
		both := math.Hypot(spread, deviation)
		mean += (belief - mean) * (deviation / both) * (deviation / both)
		deviation *= spread / both
	}
	reach := deviation * studentUpperQuantile(t.tail(), math.Inf(1))
	lower, upper := mean-reach, mean+reach
	at := func(x float64) split {
		z := (x - mean) / deviation / math.Sqrt2
		return split{above: math.Erfc(z) / 2, below: math.Erfc(-z) / 2}
	}
	worse := -mean / deviation
	if t.lessIsBetter() {
		worse = -worse
	}
	chance := t.chance(at, null)
	// The mean of max(0, X) for a normal X.
	loss := deviation * (studentDensity(worse, math.Inf(1)) + worse*math.Erfc(-worse/math.Sqrt2)/2)
	if !finite(lower) || !finite(upper) || !finite(chance) || !finite(loss) {
		return Inference{Note: "The numbers are too large to compute with: no interval and no chance to win."}
	}
	loss = math.Max(0, loss)
	inference := Inference{Estimate: &mean, ChanceToWin: &chance, ExpectedLoss: &loss}
	inference.bounds(t.Alternative, &lower, &upper)
	return inference
}

// lessIsBetter tells which way the effect is better.
func (t Test) lessIsBetter() bool {
	return t.Alternative == Less || t.Alternative != Greater && t.LessIsBetter
}

// tail is the probability that a credible interval leaves out on a side.
func (t Test) tail() float64 {
	if t.Alternative == TwoSided {
		return t.intervalRate() / 2
	}
	return t.intervalRate()
}

// split is the probability that an effect is above and below some place.
type split struct{ above, below float64 }

// chance is the probability that an effect is on the good side of the margin, or
// for Equivalent between the margins. at splits the effect's probability.
func (t Test) chance(at func(float64) split, margin float64) float64 {
	if t.Alternative == Equivalent {
		// By the tails on the side on which they keep their digits.
		low, high := at(-margin), at(margin)
		if low.above > high.below {
			return high.below - low.below
		}
		return low.above - high.above
	}
	if t.lessIsBetter() {
		return at(margin).below
	}
	return at(margin).above
}

// hasRates tells whether the arms are judged as rates: the metric is a proportion,
// and neither covariates nor strata change what the subjects did.
func (r *Request) hasRates() bool {
	return r.Test.Method == Bayesian && r.Proportion && len(r.Covariates) == 0 && len(r.Arms[0].Strata) == 1
}

// judgeRates compares a pair of rates on both scales.
func (r *Request) judgeRates(p *pair) (c Comparison, variance float64) {
	c = Comparison{
		Subjects: p.control.subjects() + p.treatment.subjects(), Skewness: p.skewness(),
		Control: present(p.control.value), Treatment: present(p.treatment.value), Observed: present(p.treatment.value - p.control.value),
	}
	if p.variance {
		info := r.information(p)
		d := r.disperse(p, nil, info)
		variance = d.own().at(0)
		c.Difference.StandardError = present(math.Sqrt(variance))
		c.Degrees = info.degreesOf(&d)
	} else {
		c.note("An arm has only one subject, which has no variance: no standard error.")
	}
	treatment, control := r.Test.Prior.rate(p.treatment), r.Test.Prior.rate(p.control)
	if treatment == nil || control == nil {
		c.note("The mean of a proportion lies between 0 and 1, and here it does not: no interval and no chance to win.")
		return c, variance
	}
	difference, ratio := newDuels(treatment, control)
	estimate, tail := treatment.mean-control.mean, r.Test.tail()
	c.Difference.Estimate, c.Lift.Estimate = &estimate, present(estimate/control.mean)
	if r.Test.Alternative != Less {
		c.Difference.Lower, c.Lift.Lower = present(difference.differenceBound(tail, false)), present(ratio.liftBound(tail, false))
	}
	if r.Test.Alternative != Greater {
		c.Difference.Upper, c.Lift.Upper = present(difference.differenceBound(tail, true)), present(ratio.liftBound(tail, true))
	}
	at := difference.atDifference
	if r.Margin.Scale == Relative {
		at = ratio.atLift
	}
	chance, loss := r.Test.chance(at, r.Margin.Value), difference.loss(r.Test.lessIsBetter())
	c.ChanceToWin, c.ExpectedLoss = &chance, &loss
	return c, variance
}

// rate is the posterior of a side's rate: the successes and failures added to the
// prior. It is nil if the side's value is no rate.
func (p Prior) rate(s side) *rate {
	if !(s.value >= 0 && s.value <= 1) {
		return nil
	}
	n := float64(s.subjects())
	return newRate(p.Alpha+s.value*n, p.Beta+(1-s.value)*n)
}
