package stats

import (
	"math"
	"slices"
)

// weakBaseline is how many standard errors the control should be away from
// zero for the delta method to describe a lift.
const weakBaseline = 3

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
	c.Subjects = p.control.subjects() + p.treatment.subjects()
	control, treatment := p.control.estimate(adj, p.variance), p.treatment.estimate(adj, p.variance)
	c.Control, c.Treatment = present(control.value), present(treatment.value)
	difference := treatment.value - control.value
	base := math.Abs(control.value)
	c.effect(r, &c.Difference, Absolute, difference, base, treatment.parts, control.parts)

	if base == 0 {
		c.note("The control's value is zero: there is no lift.")
		return c
	}
	if variance, _ := satterthwaite(control.parts); base < weakBaseline*math.Sqrt(variance) {
		c.note("The control's value is within three standard errors of zero: the lift's interval is rough.")
	}
	// The lift is (t − c)/|c|. Its derivatives are 1/|c| by t, and −t/(c·|c|)
	// by c: the delta method for the percent change of Deng, Knoblich and Lu
	// (2018), Applying the delta method in metric analytics.
	c.effect(r, &c.Lift, Relative, difference/base, 1,
		scaled(treatment.parts, 1/base), scaled(control.parts, treatment.value/control.value/base))
	return c
}

// effect fills in one scale, on which a lift of 1 is so much, and the test if the
// margin is on it. Estimates without parts of variance have no interval.
func (c *Comparison) effect(r *Request, out *Effect, scale Scale, value, liftUnit float64, treatment, control []part) {
	if out.Estimate = present(value); out.Estimate == nil {
		c.note("The numbers are too large to compute with: an estimate is missing.")
		return
	}
	if treatment == nil || control == nil {
		return
	}
	variance, degrees := satterthwaite(treatment, control)
	deviation := math.Sqrt(variance)
	null := 0.0
	if r.Margin.Scale == scale {
		null = r.Margin.Value
	}
	inference := r.Test.Infer(Evidence{
		Estimate: value, StandardError: deviation, DegreesOfFreedom: degrees, Subjects: c.Subjects, LiftUnit: liftUnit,
	}, null)
	c.note(inference.Note)
	out.StandardError = present(deviation)
	out.Lower, out.Upper = inference.Lower, inference.Upper
	if inference.Estimate != nil {
		out.Estimate = inference.Estimate
	}
	if scale == Absolute {
		c.ExpectedLoss = inference.ExpectedLoss
	}
	if r.Test.Method != AlwaysValid && inference.PValue != nil {
		out.DegreesOfFreedom = present(degrees)
	}
	if r.Margin.Scale == scale {
		c.Statistic, c.PValue, c.Opposite, c.Boundary = inference.Statistic, inference.PValue, inference.Opposite, inference.Boundary
		c.ChanceToWin = inference.ChanceToWin
	}
}
