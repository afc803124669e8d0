package stats

import (
	"math"
	"slices"
)

// weakBaseline is how many standard errors the control should be away from
// zero for the delta method to describe a lift.
const weakBaseline = 3

// fairBaseline is how many it should be for a test against a lift: the standard
// error is that at the observed lift and not at the margin, so it is smaller where
// the treatment has fallen. At 10 a two-sided test that has 2.5 % on each side has
// up to 3.9 % on the lower one, at 4.5 up to 5.6 %.
const fairBaseline = 10

// judge compares a pair on both scales, adjusted if adj is not nil. Without a
// pair there is nothing but the notes.
func (r *Request) judge(p *pair, adj *adjustment, notes []string) Comparison {
	c := Comparison{Notes: slices.Clone(notes)}
	if p == nil {
		return c
	}
	if r.hasRates() {
		return r.judgeRates(p)
	}
	if r.Test.Method == Bayesian && r.Proportion {
		c.note("With covariates or several strata a proportion is judged by the normal posterior and the prior of the lift.")
	}
	c.Subjects, c.Skewness = p.control.subjects()+p.treatment.subjects(), p.skewness()
	control, treatment := p.control.estimate(adj, p.variance), p.treatment.estimate(adj, p.variance)
	c.note(p.fill(&control, &treatment, r))
	c.Control, c.Treatment = present(control.value+control.tail), present(treatment.value+treatment.tail)
	difference := (treatment.value - control.value) + (treatment.tail - control.tail)
	c.Observed = present(difference)
	base := math.Abs(control.value + control.tail)
	c.effect(r, &c.Difference, Absolute, difference, base, p, treatment.parts, control.parts, p.shared(adj, 1, -1))

	if base == 0 {
		c.note("The control's value is zero: there is no lift.")
		return c
	}
	switch variance, _ := satterthwaite(control.parts); {
	case base < weakBaseline*math.Sqrt(variance):
		c.note("The control's value is within three standard errors of zero: the lift's interval is rough.")
	case r.Margin.Scale == Relative && r.Margin.Value != 0 && base < fairBaseline*math.Sqrt(variance):
		c.note("The control's value is within ten standard errors of zero: the test against a relative margin is rough.")
	}
	// The lift is (t − c)/|c|. Its derivatives are 1/|c| by t, and −t/(c·|c|)
	// by c: the delta method for the percent change of Deng, Knoblich and Lu
	// (2018), Applying the delta method in metric analytics.
	byTreatment, byControl := 1/base, -(treatment.value+treatment.tail)/(control.value+control.tail)/base
	c.effect(r, &c.Lift, Relative, difference/base, 1, p,
		scaled(treatment.parts, byTreatment), scaled(control.parts, byControl), p.shared(adj, byTreatment, byControl))
	return c
}

// effect fills in one scale, on which a lift of 1 is so much, and the test if the
// margin is on it. Estimates without parts of variance have no interval.
func (c *Comparison) effect(r *Request, out *Effect, scale Scale, value, liftUnit float64, p *pair, parts ...[]part) {
	if out.Estimate = present(value); out.Estimate == nil {
		c.note("The numbers are too large to compute with: an estimate is missing.")
		return
	}
	if !p.variance {
		return
	}
	variance, degrees := satterthwaite(parts...)
	deviation := math.Sqrt(variance)
	null := 0.0
	if r.Margin.Scale == scale {
		null = r.Margin.Value
	}
	inference := r.Test.Infer(Evidence{
		Estimate: value, StandardError: deviation, DegreesOfFreedom: degrees, Subjects: c.Subjects, Skewness: c.Skewness, LiftUnit: liftUnit,
	}, null)
	if inference.Note != "" && scale == Relative {
		inference.Note = "Of the lift: " + inference.Note
	}
	c.note(inference.Note)
	out.StandardError = present(deviation)
	out.Lower, out.Upper = inference.Lower, inference.Upper
	if inference.Estimate != nil {
		out.Estimate = inference.Estimate
	}
	if scale == Absolute {
		c.ExpectedLoss = inference.ExpectedLoss
		if deviation > 0 {
			c.Degrees = present(degrees)
		}
	}
	if r.Test.Method != AlwaysValid && inference.PValue != nil {
		out.DegreesOfFreedom = present(degrees)
	}
	if r.Margin.Scale == scale {
		c.Statistic, c.PValue, c.Opposite, c.Boundary = inference.Statistic, inference.PValue, inference.Opposite, inference.Boundary
		c.ChanceToWin = inference.ChanceToWin
	}
}

// skewness is how much of the subjects' own skewness is left in the difference
// of two arms of so many: κ₃·(1/n₁² − 1/n₀²) over (σ²·(1/n₁ + 1/n₀))^1.5. Arms of
// one size leave none.
func skewness(n1, n0 float64) float64 {
	return math.Abs(n1-n0) / math.Sqrt(n1) / math.Sqrt(n0) / math.Sqrt(n1+n0)
}

// skewness is that of the pair's difference, whose strata have weights:
// |Σw³(1/n₁² − 1/n₀²)| over (Σw²(1/n₁ + 1/n₀))^1.5.
func (p *pair) skewness() float64 {
	third, second := 0.0, 0.0
	for k, w := range p.weights {
		t, c := 1/float64(p.treatment.cells[k].N), 1/float64(p.control.cells[k].N)
		third += w * w * w * (t*t - c*c)
		second += w * w * (t + c)
	}
	return math.Abs(third) / math.Pow(second, 1.5)
}
