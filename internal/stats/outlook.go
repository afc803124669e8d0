package stats

import (
	"math"
	"slices"
)

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
	if d.Test.Method == Bayesian && d.Proportion && d.Test.Prior.Alpha > 0 {
		return d.outlookOfRates(effect, control, treatment)
	}
	// Variances are in units of the control's, so that nothing overflows.
	variance, ratio := 1.0, 1.0
	if d.Proportion {
		rate := d.Control + effect
		variance = max(0, rate*(1-rate)) / (d.Control * (1 - d.Control))
	}
	null := d.Margin.Value
	if d.Margin.Scale == Relative { // See lifts, and of Bayesian view.bayesianLift.
		null *= math.Abs(d.Control)
		ratio = 1 + null/d.Control
		if d.Test.Method == Bayesian {
			ratio = 1 + effect/d.Control
		}
	}
	// The score test of rates has none; elsewhere the rarer of events and others count.
	informative := [2]float64{control, treatment}
	if d.Proportion && !d.Test.Method.scoresRates() {
		for i, rate := range []float64{d.Control, d.Control + effect} {
			informative[i] *= min(rate, 1-rate)
		}
	}
	whole := dispersion{terms: []term{
		{form{tt: variance / treatment}, informative[1] - 1},
		{form{cc: 1 / control}, informative[0] - 1},
	}}
	degrees := whole.degrees(ratio - 1)
	unitAt := func(ratio float64) float64 { return d.Deviation * math.Sqrt(variance/treatment+ratio*ratio/control) }
	unit := unitAt(ratio)
	o := outlook{degrees: math.Inf(1)}
	if d.Test.Method == FixedHorizon || d.Proportion && d.Test.Method != Bayesian && degrees > 0 {
		o.degrees = degrees
	}
	scored := d.Proportion && !d.Adjusted && d.Test.Method.scoresRates()
	if scored {
		o.degrees = math.Inf(1)
	}
	o.critical = d.critical(o.degrees, subjects, control+treatment)
	o.place(d.Test.Alternative, effect, null, unit)
	if d.Margin.Scale == Relative && d.Test.Alternative == Equivalent && d.Test.Method != Bayesian {
		o.lower = (effect + null) / unitAt(1-null/d.Control) // At the other margin.
	}
	if scored {
		d.underMargins(&o, effect, control, treatment)
	}
	if prior := d.Test.Prior; d.Test.Method == Bayesian && prior.LiftDeviation > 0 {
		base := math.Abs(d.Control)
		o.believe(d.Test.Alternative, prior.LiftMean*base, null, unit, prior.LiftDeviation*base)
	}
	return o
}

// underMargins moves the mean by as much as the critical value is larger in standard
// errors at the rates that fit best on the margin, by which the score test judges
// (Farrington and Manning 1990, Test statistics and sample size formulae for comparative
// binomial trials with null hypothesis of non-zero risk difference or non-unity relative
// risk, Statistics in Medicine 9, method 3). For a margin of 0 and arms of one size that
// is power.prop.test(strict = TRUE). Of several looks it is right at the last.
func (d *Design) underMargins(o *outlook, effect, control, treatment float64) {
	rate := math.Max(0, math.Min(1, d.Control+effect))
	planned := rates{[2]float64{control * d.Control, treatment * rate}, [2]float64{control, treatment}}
	score := scoreScale{&planned, d.Margin.Scale}
	more := func(distance, null float64) float64 {
		statistic, _ := score.score(null)
		statistic *= math.Sqrt((control + treatment) / (control + treatment - 1))
		if more := o.critical * (distance/statistic - 1); finite(more) {
			return more
		}
		return 0 // On the margin itself, or at the ends of what a rate can be.
	}
	null := d.Margin.Value
	below := null
	if d.Test.Alternative == Equivalent {
		below = -null
	}
	o.lower, o.upper = o.lower-more(o.lower, below), o.upper+more(o.upper, null)
}

// place puts the mean above the null value, or the two of an equivalence test.
func (o *outlook) place(alternative Alternative, mean, null, unit float64) {
	o.upper = (mean - null) / unit
	o.lower = o.upper
	if alternative == Equivalent {
		o.lower = (mean + null) / unit
	}
}

// believe takes in a normal prior. The posterior mean is the estimate drawn towards
// that of the prior, and its deviation smaller by the root of the estimate's part
// in it, so the estimate has to get further, on the far side of the prior more
// than on the near one.
func (o *outlook) believe(alternative Alternative, mean, null, unit, spread float64) {
	var prior outlook
	prior.place(alternative, mean, null, unit)
	precision := unit / spread * unit / spread // Of the prior, over the estimate's.
	o.critical *= math.Sqrt(1 + precision)
	o.lower += prior.lower * precision
	o.upper += prior.upper * precision
}

// outlookOfRates is that of the difference of two posterior means, for rates with
// a beta prior. Both are taken as normal: what will be observed, and the
// posterior, at the variance that it is expected to have.
func (d *Design) outlookOfRates(effect, control, treatment float64) outlook {
	p := d.Test.Prior
	var mean, observed, posterior [2]float64
	for i, n := range [2]float64{control, treatment} {
		rate := d.Control + effect*float64(i)
		all := n + p.Alpha + p.Beta
		mean[i] = (n*rate + p.Alpha) / all
		observed[i] = n / all * max(0, rate*(1-rate)) / all
		posterior[i] = mean[i] * (1 - mean[i]) / (all + 1)
	}
	null, ratio := d.Margin.Value, 1.0
	if d.Margin.Scale == Relative {
		null *= mean[0]
		ratio = mean[1] / mean[0]
	}
	unit := math.Sqrt(observed[1] + ratio*ratio*observed[0])
	o := outlook{degrees: math.Inf(1)}
	o.critical = studentUpperQuantile(d.Test.tail(), o.degrees) * math.Sqrt(posterior[1]+ratio*ratio*posterior[0]) / unit
	o.place(d.Test.Alternative, mean[1]-mean[0], null, unit)
	return o
}

// critical is the critical value at a number of subjects, of whom so many are in
// the two arms.
func (d *Design) critical(degrees, subjects, pair float64) float64 {
	if d.Test.Method != GroupSequential {
		test := d.Test
		test.PlannedSubjects = d.plannedPair(subjects)
		return test.critical(d.rate(), degrees, int64(math.Round(pair)))
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
