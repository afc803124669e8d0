package stats

import (
	"cmp"
	"math"
)

// A Method decides how an estimate and its standard error become an interval
// and a p-value.
type Method int

const (
	// FixedHorizon is the Student t test with Satterthwaite's degrees of
	// freedom. It holds for one analysis, at a time chosen beforehand.
	FixedHorizon Method = iota + 1
	// AlwaysValid is an asymptotic confidence sequence. It holds at all times
	// together, so it may be looked at as often as one likes.
	AlwaysValid
	// GroupSequential judges by the boundaries of a [Schedule], with Student's t
	// in place of the normal distribution. It holds at all its looks together.
	GroupSequential
	// Bayesian is the posterior from a stated prior. It has no p-values.
	Bayesian
)

// An Alternative is the side on which the effect is sought.
type Alternative int

const (
	// TwoSided asks whether the effect differs from the margin.
	TwoSided Alternative = iota
	// Greater asks whether the effect is above the margin.
	Greater
	// Less asks whether the effect is below the margin.
	Less
	// Equivalent asks whether the effect is closer to zero than the margin, on
	// both sides.
	Equivalent
)

// DefaultPlannedSubjects stands for the planned subjects of a plan that names
// none. It shapes the always-valid interval, not its validity.
const DefaultPlannedSubjects = 10_000

// A Test is the rule by which estimates are judged, fixed before the data.
type Test struct {
	Method Method
	// ConfidenceLevel lies above 0.5 and below 1.
	ConfidenceLevel float64
	// IntervalRate is the error rate of the interval, where it is not
	// 1 − ConfidenceLevel, as in a family whose intervals hold together. P-values,
	// the boundary of a look and the shape of the always-valid interval stay those
	// of the level.
	IntervalRate float64
	// PlannedSubjects is where an always-valid interval is tightest, counted
	// over both compared arms; 0 is DefaultPlannedSubjects. The other methods do
	// not use it.
	PlannedSubjects int64
	Alternative     Alternative
	// Schedule is that of a group-sequential test, which judges nothing without
	// one: between the looks.
	Schedule *Schedule
	// Prior and LessIsBetter are of Bayesian alone. Greater and Less say
	// themselves which way the effect is better.
	Prior        Prior
	LessIsBetter bool
}

// Evidence is what a method needs to know of an estimate.
type Evidence struct {
	Estimate      float64
	StandardError float64
	// DegreesOfFreedom of the standard error; +Inf if it is known exactly.
	// Bayesian inference does not use it.
	DegreesOfFreedom float64
	// Subjects of both compared arms. Only always-valid inference uses it.
	Subjects int64
	// Skewness is the share of the subjects' skewness that the estimate has: 0 if
	// the arms are of one size. Only always-valid inference uses it.
	Skewness float64
	// LiftUnit is how much a lift of 1 is on the estimate's scale. Only Bayesian
	// inference uses it.
	LiftUnit float64
}

// Inference is what a method says. A bound that the alternative does not ask
// for is nil. If nothing can be said all are nil, and Note tells why.
type Inference struct {
	Lower, Upper *float64
	// Unbounded is as in Effect.
	Unbounded bool
	// Statistic is the distance from the null value in standard errors.
	Statistic *float64
	PValue    *float64
	// Opposite is the p-value of the same test of the opposite: that the effect
	// is on the other side of the null value, or beyond the margins of
	// Equivalent on the estimate's side. It is nil for TwoSided, which asks for
	// both sides.
	Opposite *float64
	// Boundary is the size of the statistic from which on a group-sequential
	// look is significant.
	Boundary *float64
	// Estimate is the posterior mean, ChanceToWin the posterior probability that
	// the effect is better than the null value, or within the margins of
	// Equivalent, and ExpectedLoss the posterior mean of how much worse than 0
	// it is, counting 0 where it is better: of Bayesian alone.
	Estimate, ChanceToWin, ExpectedLoss *float64
	Note                                string
}

// Infer judges an estimate against the null value. The interval and the
// p-value agree: a bound lies on the null value exactly when the p-value is
// the interval's rate, which is 1 − ConfidenceLevel by default. It expects a test
// that [Compare] would accept.
//
// Equivalent is two one-sided tests, against −null and against null, of which
// the larger p-value counts (Schuirmann 1987, A comparison of the two one-sided
// tests procedure and the power approach for assessing the equivalence of
// average bioavailability). Both bounds are those of one-sided tests, so the
// interval has the level 1 − 2(1 − ConfidenceLevel), and it lies within the
// margins exactly when the p-value is at most 1 − ConfidenceLevel.
func (t Test) Infer(e Evidence, null float64) Inference {
	if note := t.hindrance(e, null); note != "" {
		return Inference{Note: note}
	}
	if t.Method == Bayesian {
		return t.posterior(e, null)
	}
	g := gauge{Test: t, subjects: e.Subjects}
	return g.weigh(line{e}, null)
}

// A scale is where an effect is judged.
type scale interface {
	// score is how far the data are above a null value, in standard errors, and the
	// degrees of freedom of that under it.
	score(null float64) (statistic, degrees float64)
	// bounds are the values that lie so many standard errors below the data, and
	// above. One that there is not is nil.
	bounds(below, above float64) (lower, upper *float64)
}

// line is the scale of an estimate whose standard error is the same under every
// null value.
type line struct{ Evidence }

func (l line) score(null float64) (statistic, degrees float64) {
	return (l.Estimate - null) / l.StandardError, l.DegreesOfFreedom
}

func (l line) bounds(below, above float64) (lower, upper *float64) {
	return present(l.Estimate - below*l.StandardError), present(l.Estimate + above*l.StandardError)
}

// A gauge is a test of effects of so many subjects. It remembers the last critical
// value of an interval, which a difference and its lift share.
type gauge struct {
	Test
	subjects           int64
	degrees, remembers float64
}

// reach is how many standard errors an interval reaches to each side.
func (g *gauge) reach(degrees float64) float64 {
	if g.degrees != degrees {
		g.degrees, g.remembers = degrees, g.critical(g.intervalRate(), degrees, g.subjects)
	}
	return g.remembers
}

// sided is one test of an effect on a scale, against its own null value.
type sided struct {
	side                  Alternative
	statistic, degrees, p float64
}

func (g *gauge) against(s scale, side Alternative, null float64) sided {
	one := sided{side: side, p: 1}
	one.statistic, one.degrees = s.score(null)
	if g.silence() == "" {
		one.p = g.pValue(side, one.statistic, one.degrees, g.subjects)
	}
	return one
}

// weigh tests an effect on a scale against the null value, and finds its interval.
func (g *gauge) weigh(s scale, null float64) Inference {
	var decisive sided
	if g.Alternative == Equivalent {
		if _, degrees := s.score(-null); !(degrees > 0) { // At null itself there are some: see hindrance.
			return Inference{Note: noVariance}
		}
		greater, less := g.against(s, Greater, -null), g.against(s, Less, null)
		decisive = less
		if finite(greater.statistic) && (greater.p > less.p || greater.p == less.p && greater.statistic < -less.statistic) {
			decisive = greater
		}
	} else {
		decisive = g.against(s, g.Alternative, null)
	}
	if !finite(decisive.statistic) {
		return Inference{Note: tooLarge}
	}
	inference := Inference{Statistic: &decisive.statistic}
	if inference.Note = g.silence(); inference.Note != "" {
		return inference
	}
	inference.PValue = &decisive.p
	if decisive.side != TwoSided {
		opposite := g.pValue(Greater+Less-decisive.side, decisive.statistic, decisive.degrees, g.subjects) // On the other side.
		inference.Opposite = &opposite
	}
	if g.Method == GroupSequential {
		boundary := g.reach(decisive.degrees)
		if g.IntervalRate != 0 {
			boundary = g.critical(1-g.ConfidenceLevel, decisive.degrees, g.subjects)
		}
		inference.Boundary = present(boundary)
	}
	g.bound(&inference, s, null)
	return inference
}

// farthest is how many standard errors an always-valid interval may reach: of a handful
// of subjects it would reach for 1e20 and more, which is no interval.
const farthest = 1e6

// bound sets the bounds. Each has the degrees of freedom of its own null value, so
// that it agrees with the p-value there.
func (g *gauge) bound(i *Inference, s scale, null float64) {
	_, above := s.score(null)
	below := above
	if g.Alternative == Equivalent {
		_, below = s.score(-null)
	}
	low, high := g.reach(below), g.reach(above)
	if !finite(low) || !finite(high) || g.Method == AlwaysValid && max(low, high) > farthest {
		i.Note = g.endless()
		return
	}
	lower, upper := s.bounds(low, high)
	i.bounds(g.Alternative, lower, upper)
}

// endless says why an interval would reach to infinity whatever the data are.
func (t Test) endless() string {
	if t.Method == GroupSequential {
		return "This look spends so little of the error rate that no result could be significant: no interval."
	}
	return "There are too few subjects yet for an interval that ends."
}

// bounds sets the bounds that the alternative asks for. Equivalent needs both.
func (i *Inference) bounds(alternative Alternative, lower, upper *float64) {
	if alternative == Equivalent && (lower == nil || upper == nil) {
		i.Unbounded = true
		return
	}
	if alternative != Less {
		i.Lower, i.Unbounded = lower, lower == nil
	}
	if alternative != Greater {
		i.Upper, i.Unbounded = upper, i.Unbounded || upper == nil
	}
}

// intervalRate is the error rate of the interval.
func (t Test) intervalRate() float64 { return cmp.Or(t.IntervalRate, 1-t.ConfidenceLevel) }

const noVariance = "The variance is zero as far as rounding can tell: no interval and no p-value."

const tooLarge = "The numbers are too large to compute with: no interval and no p-value."

// hindrance says why an estimate cannot be judged; it is empty if it can.
func (t Test) hindrance(e Evidence, null float64) string {
	switch {
	case !finite(e.Estimate) || !finite(e.StandardError) || e.StandardError < 0 || !finite(null):
		return tooLarge
	case e.StandardError == 0:
		return noVariance
	case t.Method != Bayesian && !(e.DegreesOfFreedom > 0), t.Method == AlwaysValid && e.Subjects < 1:
		return "There are too few subjects for a variance: no interval and no p-value."
	case t.Method == AlwaysValid && e.Skewness > mostSkewness:
		return "The arms are too uneven for so few subjects, as a whole or in a phase: no always-valid interval and no p-value yet."
	}
	return ""
}

// silence says why a group-sequential test judges nothing; it is empty if it
// does judge.
func (t Test) silence() string {
	switch {
	case t.Method != GroupSequential:
		return ""
	case t.Schedule == nil:
		return "A group-sequential plan is judged at its looks only, and this is none: no interval and no p-value."
	case t.Schedule.idle:
		return "Too little has been added since the look before: no interval and no p-value."
	}
	return ""
}

// critical is how many standard errors an interval of level 1 − alpha reaches
// to each side on which it has a bound. For an always-valid test alpha may
// differ from the plan's; the shape of the boundary stays the plan's. Boundaries
// of the normal distribution are those of the statistic's normal score.
func (t Test) critical(alpha, degrees float64, subjects int64) float64 {
	if t.Method == AlwaysValid {
		return atNormalScore(mixtureCritical(alpha, t.intrinsicTime(subjects)), degrees)
	}
	twoSided := t.Alternative == TwoSided
	if twoSided {
		alpha /= 2
	}
	if t.Method == GroupSequential {
		return t.Schedule.critical(alpha, degrees, twoSided)
	}
	return studentUpperQuantile(alpha, degrees)
}

// pValue is the p-value of a distance from the null value, in standard errors,
// on one side or both.
func (t Test) pValue(side Alternative, statistic, degrees float64, subjects int64) float64 {
	if t.Method == AlwaysValid {
		if side == Greater && statistic <= 0 || side == Less && statistic >= 0 {
			return 1
		}
		return mixturePValue(normalScore(statistic, degrees), t.intrinsicTime(subjects))
	}
	rate := func(statistic float64) float64 {
		tail := studentUpperTail(statistic, degrees)
		if t.Method == GroupSequential {
			return t.Schedule.rate(tail, side == TwoSided)
		}
		return tail
	}
	switch side {
	case Greater:
		return rate(statistic)
	case Less:
		return rate(-statistic)
	default:
		return math.Min(1, 2*rate(math.Abs(statistic)))
	}
}

// finite tells whether x is an ordinary number.
func finite(x float64) bool { return x-x == 0 }

// present is x as an optional number: nil if it is not finite.
func present(x float64) *float64 {
	if !finite(x) {
		return nil
	}
	return &x
}
