package stats

import (
	"fmt"
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
	c.note(p.fill(&control, &treatment, r))
	c.Control, c.Treatment = present(control.value+control.tail), present(treatment.value+treatment.tail)
	difference := (treatment.value - control.value) + (treatment.tail - control.tail)
	base := math.Abs(control.value + control.tail)
	c.effect(r, &c.Difference, Absolute, difference, base, p, treatment.parts, control.parts, p.shared(adj, 1, -1))

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
		Estimate: value, StandardError: deviation, DegreesOfFreedom: degrees, Subjects: c.Subjects, Skewness: Skewness(p.treatment.subjects(), p.control.subjects()), LiftUnit: liftUnit,
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
	}
	if r.Test.Method != AlwaysValid && inference.PValue != nil {
		out.DegreesOfFreedom = present(degrees)
	}
	if r.Margin.Scale == scale {
		c.Statistic, c.PValue, c.Opposite, c.Boundary = inference.Statistic, inference.PValue, inference.Opposite, inference.Boundary
		c.ChanceToWin = inference.ChanceToWin
	}
}

// fill makes up for the variance of a side whose subjects are all alike so far.
// Where few convert, the first subjects of a small arm never do, and a variance of
// zero would make them certain: it takes the other side's. At a fixed horizon it
// stays zero, as Welch has it. If both sides' are alike and the formula is a
// proportion, each has the variance of one success and one failure more (Agresti
// and Caffo 2000, Simple and effective confidence intervals for proportions and
// differences of proportions result from adding two successes and two failures):
// that nobody was lost of 10,000 is known to within some ten-thousandths.
func (p *pair) fill(control, treatment *estimate, r *Request) (note string) {
	varies := func(s side) bool {
		variance, _ := satterthwaite(s.parts(s.gradient))
		return variance > 0
	}
	c, t := float64(p.control.subjects()), float64(p.treatment.subjects())
	switch known := [2]bool{varies(p.control), varies(p.treatment)}; {
	case !p.variance || known[0] && known[1]:
		return ""
	case !known[0] && !known[1]:
		if !r.Proportion {
			return ""
		}
		control.parts, treatment.parts = oneMore(p.control.value, c), oneMore(p.treatment.value, t)
		return "All subjects of either arm are alike so far: the variances are those of one success and one failure more in each."
	case r.Test.Method == FixedHorizon && !known[0]:
		return fmt.Sprintf(takenForZero, "control")
	case r.Test.Method == FixedHorizon:
		return fmt.Sprintf(takenForZero, "treatment")
	case !known[0]:
		control.parts = scaled(treatment.parts, math.Sqrt(t/c))
		return fmt.Sprintf(borrowed, "control")
	default:
		treatment.parts = scaled(control.parts, math.Sqrt(c/t))
		return fmt.Sprintf(borrowed, "treatment")
	}
}

const (
	takenForZero = "All subjects of the %s are alike, and its variance is taken to be zero: with few of them the interval is far too narrow."
	borrowed     = "All subjects of the %s are alike so far: its variance is taken to be that of the other arm."
)

// oneMore is the variance of a rate with one success and one failure more than n
// subjects have.
func oneMore(rate, n float64) []part {
	rate = (rate*n + 1) / (n + 2)
	return []part{{rate * (1 - rate) / (n + 2), n - 1}}
}

// Skewness is how much of the subjects' own skewness is left in the difference
// of two arms of so many: κ₃·(1/n₁² − 1/n₀²) over (σ²·(1/n₁ + 1/n₀))^1.5. Arms of
// one size leave none.
func Skewness(n1, n0 int64) float64 { return skewness(float64(n1), float64(n0)) }

func skewness(n1, n0 float64) float64 {
	return math.Abs(n1-n0) / math.Sqrt(n1) / math.Sqrt(n0) / math.Sqrt(n1+n0)
}
