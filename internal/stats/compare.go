package stats

import (
	"fmt"
	"math"
	"slices"
)

// Arm is one variant's subjects, cut into strata. Stratum s of one arm is
// compared with stratum s of the others; an arm without subjects in a stratum
// has empty moments there.
type Arm struct {
	Strata []Moments
}

// A Scale is what a margin is measured on.
type Scale int

const (
	// Absolute is the scale of the difference.
	Absolute Scale = iota
	// Relative is the scale of the lift.
	Relative
)

// Margin is the effect under the null hypothesis, signed. The zero value tests
// for any difference; Greater with −0.01 is non-inferiority of a metric that
// should rise, Less with 0.01 of one that should fall. Equivalent has 0.01 for
// ±0.01.
type Margin struct {
	Scale Scale
	Value float64
}

// Request is one comparison of arms with a control.
type Request struct {
	Formula Formula
	// Covariates are the indices of components known before exposure. The
	// formula must not use them.
	Covariates []int
	// Proportion says that the formula is the mean of a component that is 0 or 1
	// for every subject: a rate. In one stratum and without covariates Bayesian
	// judges it by its own posterior, a fixed horizon and a look by the score test of
	// rates; elsewhere it counts where all subjects are alike.
	Proportion bool
	// Informative tells how many subjects of an arm inform the formula, if so many
	// have a number other than 0 in each component. Nil: the fewest of the
	// components on which the value depends.
	Informative func(counts []float64) float64
	// NonNegative says that the formula is not negative where no component is.
	NonNegative bool
	// Divisors are what the formula divides by, so that a small one is noticed.
	Divisors []Formula
	// Guardrail says that the interval of a two-sided test is to tell whether a rate
	// keeps within the margin, on whose side of zero it is worse. That can be told
	// without informative subjects, as by a one-sided test against a margin on the bad
	// side, and by equivalence: by a rate without any event.
	Guardrail bool
	// Arms all have the same strata and components.
	Arms []Arm
	// Control is the index of the control in Arms.
	Control int
	Test    Test
	Margin  Margin
	// Pause is called before each arm; an error of it ends the comparison, which
	// returns that. May be nil.
	Pause func() error
	// plain asks for Welch's variance and no guard: of covariates, whose 0 says no
	// more than another number.
	plain bool
}

// Result holds a summary of every arm, in the order of the request, and a
// comparison with the control of every other arm, in the same order.
type Result struct {
	Arms        []ArmSummary
	Comparisons []ArmComparison
}

// ArmSummary is an arm as it is: all its subjects, not weighted by stratum and
// not adjusted by covariates.
type ArmSummary struct {
	Subjects int64
	// Value is the formula at the means of the arm.
	Value         *float64
	StandardError *float64
	// Totals holds the sum of each component over the subjects. For a formula
	// that is a plain mean it is the metric's total.
	Totals []*float64
	// Note says why a number is absent.
	Note string
}

// ArmComparison compares one arm with the control.
type ArmComparison struct {
	// Arm is the index of the treatment in the request.
	Arm        int
	Unadjusted Comparison
	// Adjusted is present if the request has covariates.
	Adjusted *Comparison
	// VarianceReduction is 1 − adjusted ÷ unadjusted variance of the
	// difference; negative if the covariates did harm.
	VarianceReduction *float64
}

// Comparison is a difference with its uncertainty. Numbers that are undefined
// are nil, and Notes says why.
type Comparison struct {
	// Subjects of both arms, in the strata that were used.
	Subjects int64
	// Skewness is the share of the subjects' own skewness that is left in the
	// difference: 0 if the arms are of one size in every stratum.
	Skewness float64
	// Control and Treatment are the values compared: weighted by stratum, and
	// adjusted by covariates if there are any.
	Control, Treatment *float64
	// Difference is Treatment − Control.
	Difference Effect
	// Observed is the difference that the data have, without a prior.
	Observed *float64
	// Degrees are those of the difference's standard error, whatever the method
	// makes of them; nil if it has none.
	Degrees *float64
	// Lift is the difference relative to the control's absolute value, so a
	// rise is positive over a negative baseline too. It is absent where the
	// control's value could be of either sign.
	Lift Effect
	// Statistic and PValue are on the margin's scale: they belong to
	// Difference for an absolute margin, to Lift for a relative one.
	Statistic, PValue *float64
	// Opposite is the p-value of the opposite, as in Inference.
	Opposite *float64
	// Boundary is that of a group-sequential look, for the statistic.
	Boundary *float64
	// ChanceToWin and ExpectedLoss are as in Inference, the one on the margin's
	// scale and the other of the difference.
	ChanceToWin, ExpectedLoss *float64
	Notes                     []string
}

// Effect is an estimate on one scale. A one-sided test leaves one bound nil. Under
// Bayesian the estimate is the posterior mean (of the lift of a proportion: that of
// the difference over that of the control), and the standard error the data's own,
// which a lift of a proportion lacks. The bounds of a lift are not made of its
// standard error.
type Effect struct {
	Estimate      *float64
	StandardError *float64
	// DegreesOfFreedom are those of the standard error under the null hypothesis;
	// rates judged by their score have none.
	DegreesOfFreedom *float64
	Lower, Upper     *float64
	// Unbounded says that the values which the test does not reject reach to
	// infinity on a side on which the test has a bound. Then a bound that is there
	// is the only one of them.
	Unbounded bool
}

// Compare compares every arm with the control. The error is an [InvalidError],
// or several joined, and names what is wrong with the request; whatever the
// data may be, they are answered by a result.
func Compare(r Request) (Result, error) {
	if err := r.check(); err != nil {
		return Result{}, err
	}
	var result Result
	for a := range r.Arms {
		if r.Pause != nil {
			if err := r.Pause(); err != nil {
				return Result{}, err
			}
		}
		summary, err := r.summarise(a)
		if err != nil {
			return Result{}, err
		}
		result.Arms = append(result.Arms, summary)
		if a == r.Control {
			continue
		}
		comparison, err := r.compare(a)
		if err != nil {
			return Result{}, err
		}
		result.Comparisons = append(result.Comparisons, comparison)
	}
	return result, nil
}

// summarise describes one arm as it is.
func (r *Request) summarise(a int) (ArmSummary, error) {
	strata := r.Arms[a].Strata
	m := strata[0]
	if len(strata) > 1 {
		m = m.clone()
		for _, s := range strata[1:] {
			m.Merge(s)
		}
	}
	summary := ArmSummary{Subjects: m.N, Totals: make([]*float64, m.Dim())}
	if m.N == 0 {
		summary.Note = "The arm has no subjects."
		return summary, nil
	}
	for i, mean := range m.Means {
		summary.Totals[i] = present(mean * float64(m.N))
	}
	whole := blend{cells: []cell{{&m, 1}}, means: m.Means, tails: m.Tails}
	whole.roundZeros()
	value, gradient, note, err := r.evaluate(whole.means, "the arm")
	if err != nil || note != "" {
		summary.Note = note
		return summary, err
	}
	summary.Value = &value
	if m.N == 1 {
		summary.Note = "One subject has no variance: no standard error."
		return summary, nil
	}
	variance := m.quadratic(gradient) / float64(m.N-1) / float64(m.N)
	switch {
	case r.flat(gradient, whole.cells...):
		summary.Note = "The formula has no slope at the arm's means, by which its variance is told: no standard error."
	case !finite(variance):
		summary.Note = "The numbers are too large to compute with: no standard error."
	default:
		summary.StandardError = present(math.Sqrt(variance))
	}
	return summary, nil
}

// evaluate calls the formula. A note says why it has no value; whose tells
// whose means they are.
func (r *Request) evaluate(means []float64, whose string) (value float64, gradient []float64, note string, err error) {
	value, gradient = r.Formula(means)
	if len(gradient) != len(means) {
		return 0, nil, "", InvalidError{"formula", fmt.Sprintf("its gradient has %d entries for %d components", len(gradient), len(means))}
	}
	sound := finite(value)
	for _, g := range gradient {
		sound = sound && finite(g)
	}
	for _, divisor := range r.Divisors {
		by, slope := divisor(means)
		sound = sound && !cancels(by, slope, means)
	}
	if !sound {
		return 0, nil, fmt.Sprintf("The formula has no finite value and slope at the means of %s, as when it divides by zero.", whose), nil
	}
	for k, c := range r.Covariates {
		if gradient[c] != 0 {
			return 0, nil, "", InvalidError{fmt.Sprintf("covariates[%d]", k), fmt.Sprintf("component %d is part of the formula", c)}
		}
	}
	return value, gradient, "", nil
}

// cancels tells whether a sum of several terms is zero as far as rounding can tell,
// by the size of what it is made of.
func cancels(value float64, gradient, means []float64) bool {
	size := 0.0
	for i, g := range gradient {
		size += math.Abs(g * means[i])
	}
	return isRounding(value, size)
}

// compare compares one arm with the control, without and with covariates.
func (r *Request) compare(arm int) (ArmComparison, error) {
	result := ArmComparison{Arm: arm}
	p, notes, err := r.pair(arm)
	if err != nil {
		return ArmComparison{}, err
	}
	unadjusted, before := r.judge(p, nil, notes)
	result.Unadjusted = unadjusted
	if len(r.Covariates) == 0 {
		return result, nil
	}
	var adj *adjustment
	if p != nil {
		var more []string
		if adj, more, err = r.adjust(p.kept); err != nil {
			return ArmComparison{}, err
		}
		notes = append(notes, more...)
		switch {
		case adj == nil:
			p = nil
		case adj.early && r.Test.Method == AlwaysValid:
			early := *p
			early.variance = false
			p = &early
		}
	}
	adjusted, after := r.judge(p, adj, notes)
	result.Adjusted = &adjusted
	if before > 0 && adjusted.Difference.StandardError != nil {
		result.VarianceReduction = present(1 - after/before)
	}
	return result, nil
}

// pair is an arm and the control, ready to be compared.
type pair struct {
	arm                int
	kept               []int // strata
	weights            []float64
	population         float64 // The subjects of all arms in these strata.
	variance           bool    // whether it is known
	control, treatment side
}

// side is one of a pair, with the formula at its means.
type side struct {
	blend
	value    float64
	gradient []float64
}

// pair combines the strata of an arm and of the control. It is nil if the two
// cannot be compared; the notes say why, or what was left out.
func (r *Request) pair(arm int) (*pair, []string, error) {
	kept, variance, notes := r.stratify(arm)
	if len(kept) == 0 {
		return nil, notes, nil
	}
	p := pair{arm: arm, kept: kept, variance: variance}
	p.weights, p.population = r.weights(kept)
	for _, one := range []struct {
		side *side
		arm  int
		name string
	}{{&p.control, r.Control, "the control"}, {&p.treatment, arm, "the treatment"}} {
		one.side.blend = r.Arms[one.arm].combine(kept, p.weights)
		value, gradient, note, err := r.evaluate(one.side.means, one.name)
		if err != nil {
			return nil, nil, err
		}
		if note != "" {
			return nil, append(notes, note), nil
		}
		one.side.value, one.side.gradient = value, gradient
	}
	return &p, notes, nil
}

// estimate is one side's value, adjusted if adj is not nil, in two words, so that
// the difference of two large ones keeps its digits.
func (s side) estimate(adj *adjustment) (value, tail float64) {
	for i, g := range s.gradient {
		tail += g * s.tails[i]
	}
	if adj != nil {
		tail += adj.change(s)
	}
	return s.value, tail
}

// moved is how far the side's value in one stratum lies from that of all, by the
// formula's slope.
func (s side) moved(adj *adjustment, stratum int) (moved float64) {
	c := s.cells[stratum]
	if adj != nil {
		moved = adj.moved[stratum]
	}
	for i, g := range s.gradient {
		if adj != nil {
			g -= adj.theta[i]
		}
		if g != 0 {
			moved += g * ((c.Means[i] - s.means[i]) + (c.tail(i) - s.tails[i]))
		}
	}
	return moved
}

// note adds what is new among the notes.
func (c *Comparison) note(notes ...string) {
	for _, n := range notes {
		if n != "" && !slices.Contains(c.Notes, n) {
			c.Notes = append(c.Notes, n)
		}
	}
}
