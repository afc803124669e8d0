package stats

import (
	"fmt"
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
	}
	if r.Test.Method != AlwaysValid && inference.PValue != nil {
		out.DegreesOfFreedom = present(degrees)
	}
	if r.Margin.Scale == scale {
		c.Statistic, c.PValue, c.Opposite, c.Boundary = inference.Statistic, inference.PValue, inference.Opposite, inference.Boundary
		c.ChanceToWin = inference.ChanceToWin
	}
}

// fill makes up for the variance of cells whose subjects are all alike so far.
// Where few convert, the first subjects of a small arm never do, in an experiment
// or in a phase of it, and a variance of zero would make them certain. At a fixed
// horizon in one stratum it stays zero, as Welch has it. Elsewhere both cells of
// such a stratum have the variance of their subjects together, which over many
// strata is neither too much nor too little.
//
// A stratum in which nobody varies is certain of nothing either: if more, all cells
// have the variance of the subjects of all strata together. If nobody varies at
// all and the formula is a proportion, each cell has the variance of one success
// and one failure more (Agresti and Caffo 2000, Simple and effective confidence
// intervals for proportions and differences of proportions result from adding two
// successes and two failures): that nobody was lost of 10,000 is known to within
// some ten-thousandths.
func (p *pair) fill(control, treatment *estimate, r *Request) (note string) {
	if !p.variance {
		return ""
	}
	strata, filled, silent := len(p.weights), 0, 0
	var all spread
	for k := range p.weights {
		c, t := &p.control.cells[k], &p.treatment.cells[k]
		both := spread{}.with(&control.parts[k], c).with(&treatment.parts[k], t)
		all = all.and(both)
		one, other := c.quadratic(p.control.gradient) > 0, t.quadratic(p.treatment.gradient) > 0
		name := "treatment"
		if other {
			name = "control"
		}
		switch {
		case one && other:
		case !one && !other:
			silent++
		case strata == 1 && r.Test.Method == FixedHorizon:
			return fmt.Sprintf("All subjects of the %s are alike, and its variance is taken to be zero: with few of them the interval is far too narrow.", name)
		default:
			control.parts[k], treatment.parts[k] = both.part(c), both.part(t)
			note = fmt.Sprintf("All subjects of the %s are alike so far: the variance of either arm is taken to be that of both together.", name)
			filled++
		}
	}
	switch {
	case silent == strata && r.Proportion:
		for k, w := range p.weights {
			control.parts[k], treatment.parts[k] = oneMore(w, p.control.value, p.control.cells[k].N), oneMore(w, p.treatment.value, p.treatment.cells[k].N)
		}
		return "All subjects are alike so far: the variances are those of one success and one failure more."
	case silent > 0 && silent < strata:
		p.even(control, treatment, all)
	case strata == 1 || filled == 0:
		return note
	}
	if silent == strata {
		return ""
	}
	return fmt.Sprintf("In %d of %d strata all subjects of an arm are alike: the variances of both arms there are taken to be those of more subjects together.", filled+silent, strata)
}

// spread is the squared distances of subjects from the means of their cells, with
// the degrees of freedom.
type spread struct{ squares, degrees float64 }

// with adds a cell with its part of the variance.
func (s spread) with(of *part, c *cell) spread {
	n := float64(c.N)
	return s.and(spread{of.variance / (c.weight * c.weight) * n * (n - 1), n - 1})
}

func (s spread) and(other spread) spread {
	return spread{s.squares + other.squares, s.degrees + other.degrees}
}

// part is a cell's part of the variance if its subjects vary like these.
func (s spread) part(c *cell) part {
	return part{c.weight * c.weight * s.squares / s.degrees / float64(c.N), s.degrees}
}

// even gives all cells the same variance between subjects, if that is more.
func (p *pair) even(control, treatment *estimate, all spread) {
	var ofControl, ofTreatment []part
	for k := range p.weights {
		ofControl = append(ofControl, all.part(&p.control.cells[k]))
		ofTreatment = append(ofTreatment, all.part(&p.treatment.cells[k]))
	}
	own, _ := satterthwaite(control.parts, treatment.parts)
	if shared, _ := satterthwaite(ofControl, ofTreatment); shared > own {
		control.parts, treatment.parts = ofControl, ofTreatment
	}
}

// oneMore is the variance of a rate with one success and one failure more than n
// subjects of a stratum have.
func oneMore(weight, rate float64, n int64) part {
	subjects := float64(n)
	rate = (rate*subjects + 1) / (subjects + 2)
	return part{weight * weight * rate * (1 - rate) / (subjects + 2), subjects - 1}
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
