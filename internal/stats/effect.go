package stats

import (
	"fmt"
	"math"
	"slices"
)

// weakBaseline is how many standard errors what is divided by should be away from
// zero for the delta method to describe the ratio.
const weakBaseline = 3

// roundedZero is the share of the size of a sum's terms below which the sum is zero
// as far as rounding can tell.
const roundedZero = 1e-12

// isRounding tells whether a number is zero as far as rounding can tell, by the size
// of what it comes from. Of what is too large to compute with nothing is told.
func isRounding(x, size float64) bool { return math.Abs(x) <= roundedZero*size && finite(size) }

// isLastDigits tells the same of what is left between numbers of a size that do not vary.
func isLastDigits(x, size float64) bool { return math.Abs(x) <= 1e-14*size && finite(size) }

// judge compares a pair on both scales, adjusted if adj is not nil, and tells the
// variance of the difference by the cells' own variances. Without a pair there is
// nothing but the notes.
func (r *Request) judge(p *pair, adj *adjustment, notes []string) (c Comparison, variance float64) {
	c = Comparison{Notes: slices.Clone(notes)}
	if p == nil {
		return c, 0
	}
	if r.hasRates() {
		return r.judgeRates(p)
	}
	c.Subjects, c.Skewness = p.control.subjects()+p.treatment.subjects(), p.skewness()
	v := r.view(&c, p, adj)
	if r.Test.Method == Bayesian && r.Proportion && v.rare == nil {
		c.note("With covariates or several strata a proportion is judged by the normal posterior and the prior of the lift.")
	}
	switch deviation := v.deviation(0); {
	case !p.variance:
	case isRounding(v.difference, deviation), deviation == 0 && isLastDigits(v.difference, p.size(adj)):
		v.difference = 0
	}
	c.Control, c.Treatment = present(v.control), present(v.treatment)
	c.Observed = present(v.difference)
	if p.variance {
		c.Degrees = v.info.degreesOf(&v.dispersion)
	}
	c.note(r.nearZero(p)...)
	v.judgeDifference()
	v.judgeLift()
	own := v.own()
	return c, own.at(0)
}

// A view is a pair as it is judged.
type view struct {
	r                              *Request
	c                              *Comparison
	p                              *pair
	control, treatment, difference float64
	dispersion
	info    information
	gauge   gauge
	score   *rates  // Nil unless the pair is judged by the score test of rates.
	rare    *rarity // Nil unless all that is told is whether rates keep within a margin.
	silence string  // Why nothing is judged; empty if something is.
}

// view finds the values of a pair with their variance, and whether they can be
// judged. That rates keep within a margin can be told without informative subjects.
func (r *Request) view(c *Comparison, p *pair, adj *adjustment) *view {
	control, controlTail := p.control.estimate(adj)
	treatment, treatmentTail := p.treatment.estimate(adj)
	v := &view{
		r: r, c: c, p: p, control: control + controlTail, treatment: treatment + treatmentTail,
		difference: (treatment - control) + (treatmentTail - controlTail),
		gauge:      gauge{Test: r.Test, subjects: c.Subjects},
	}
	if !p.variance { // The notes say why.
		return v
	}
	info := r.information(p)
	if r.plain {
		info = info.all()
	}
	v.info = info
	few := info.few()
	if few {
		v.dispersion = r.disperse(p, adj, info.all())
	} else {
		v.dispersion = r.disperse(p, adj, info)
	}
	if r.Proportion && v.silentControl && v.silentTreatment {
		v.addOne(p)
	}
	if few && r.keeps() {
		v.rare = r.rarity(p)
	}
	if r.Test.Method.scoresRates() && r.Proportion && adj == nil && len(p.weights) == 1 {
		if rates, ok := p.rates(); ok {
			v.score = &rates
			if own := v.own(); own.at(0) > 0 {
				v.whole = own
			}
		}
	}
	switch flat := r.flatSide(p); {
	case flat != "":
		v.silence = fmt.Sprintf("The formula has no slope at the means of %s, by which its variance is told: no interval and no p-value.", flat)
	case r.plain:
		v.whole = v.own()
		return v
	case few && v.rare != nil:
		c.note(info.keepsNote())
		return v
	case few:
		v.silence = info.fewNote()
	}
	if v.silence != "" {
		c.note(v.silence)
		return v
	}
	if !info.known {
		c.note(countsUnknown)
	}
	c.note(v.describe())
	return v
}

// describe says where the variance is not the cells' own because subjects are alike.
func (v *view) describe() string {
	strata := len(v.p.weights)
	switch {
	case v.score != nil:
		return ""
	case v.silentControl && v.silentTreatment:
		return ""
	case v.silentControl || v.silentTreatment:
		name := "treatment"
		if v.silentControl {
			name = "control"
		}
		return fmt.Sprintf("All subjects of the %s are alike so far: the variance is the larger of the other arm's and that of both together.", name)
	case strata > 1 && v.partly > 0 && v.pooled:
		return fmt.Sprintf("In %d of %d strata all subjects of an arm are alike: the arms' variances are taken together there.", v.partly, strata)
	}
	return ""
}

// judgeDifference fills in the difference.
func (v *view) judgeDifference() {
	base := math.Abs(v.control)
	if v.zero(base) {
		base = 0
	}
	v.effect(&v.c.Difference, Absolute, v.difference, v.deviation(0), base, line{Evidence{
		Estimate: v.difference, StandardError: v.deviation(0), DegreesOfFreedom: v.degrees(0),
	}})
}

// judgeLift fills in the lift, if there is one.
func (v *view) judgeLift() {
	base := math.Abs(v.control)
	if v.zero(base) || v.score != nil && v.score.x[0] == 0 {
		v.c.note("The control's value is zero: there is no lift.")
		return
	}
	lift := v.difference / base
	if v.r.Test.Method == Bayesian {
		v.bayesianLift(lift, base)
		return
	}
	l := &lifts{
		lift: lift, sign: math.Copysign(1, v.control), base: base, dispersion: v.dispersion,
		nonNegative: v.r.neverNegative(v.p) && v.control > 0,
	}
	if !l.nonNegative && v.eitherSign(l) {
		v.c.note("The control's value is not known to differ from zero, and could be of either sign: there is no lift.")
		return
	}
	v.effect(&v.c.Lift, Relative, lift, v.deltaDeviation(base), 1, l)
	switch e := &v.c.Lift; {
	case e.Unbounded && e.Lower != nil:
		v.c.note("The lift has no upper bound: the control's value is not known to differ from zero.")
	case e.Unbounded:
		v.c.note("The lift has no bounds: the control's value is not known to differ from zero.")
	}
}

// eitherSign tells whether the control's value could be on the other side of zero,
// at the level of the interval.
func (v *view) eitherSign(l *lifts) bool {
	if !v.p.variance {
		return true
	}
	degrees := v.degrees(0)
	if !(degrees > 0) { // Nobody varies.
		return false
	}
	t := v.r.Test
	critical := math.Inf(1)
	if t.silence() == "" {
		critical = v.gauge.reach(degrees)
	}
	if !finite(critical) {
		critical = studentUpperQuantile(t.tail(), degrees)
	}
	return l.base <= critical*math.Sqrt(v.whole.control())
}

// bayesianLift is the lift by the normal posterior, (t − c)/|c| with the delta
// method's variance. Its derivatives are 1/|c| by t, and −t/(c·|c|) by c (Deng,
// Knoblich and Lu 2018, Applying the delta method in metric analytics).
func (v *view) bayesianLift(lift, base float64) {
	if base < weakBaseline*math.Sqrt(v.whole.control()) {
		v.c.note("The control's value is within three standard errors of zero: the lift's interval is rough.")
	}
	v.effect(&v.c.Lift, Relative, lift, v.deltaDeviation(base), 1, nil)
}

// deltaDeviation is the standard error of the lift by the delta method.
func (v *view) deltaDeviation(base float64) float64 {
	return math.Sqrt(math.Max(0, v.whole.of(1/base, -v.treatment/v.control/base)))
}

// effect fills in one scale, on which a lift of 1 is so much, and the test if the
// margin is on it. Estimates that are not judged have no interval.
func (v *view) effect(out *Effect, on Scale, value, deviation, liftUnit float64, s scale) {
	c, test := v.c, v.r.Test
	if out.Estimate = present(value); out.Estimate == nil {
		c.note("The numbers are too large to compute with: an estimate is missing.")
		return
	}
	if !v.p.variance {
		return
	}
	if out.StandardError = present(deviation); out.StandardError == nil {
		c.note("The numbers are too large to compute with: a standard error is missing.")
	}
	null := 0.0
	if v.r.Margin.Scale == on {
		null = v.r.Margin.Value
	}
	degrees := v.degrees(0)
	if s != nil {
		_, degrees = s.score(null)
	}
	if v.silence != "" || v.rare != nil && v.r.Margin.Scale != on {
		return
	}
	if v.score == nil && v.rare == nil && degrees > 0 {
		out.DegreesOfFreedom = present(degrees)
	}
	inference := v.infer(Evidence{
		Estimate: value, StandardError: deviation, DegreesOfFreedom: degrees, Subjects: c.Subjects, Skewness: c.Skewness, LiftUnit: liftUnit,
	}, on, null, s)
	if inference.Note != "" && on == Relative {
		inference.Note = "Of the lift: " + inference.Note
	}
	c.note(inference.Note)
	out.Lower, out.Upper, out.Unbounded = inference.Lower, inference.Upper, inference.Unbounded
	if inference.Estimate != nil {
		out.Estimate = inference.Estimate
	}
	if on == Absolute {
		c.ExpectedLoss = inference.ExpectedLoss
	}
	if v.r.Margin.Scale == on {
		c.ChanceToWin, c.Boundary = inference.ChanceToWin, inference.Boundary
		if test.decides(inference) {
			c.Statistic, c.PValue, c.Opposite = inference.Statistic, inference.PValue, inference.Opposite
		}
	}
}

// infer judges one scale by the method. On the other scale than the margin's there is an
// interval alone.
func (v *view) infer(e Evidence, on Scale, null float64, s scale) (i Inference) {
	test := v.r.Test
	if v.rare != nil {
		return v.keepsWithin(null)
	}
	if v.score != nil {
		s = scoreScale{v.score, on}
	} else if on == Relative && test.Method != Bayesian {
		// What is judged varies as it does under the null hypothesis, not as the lift does.
		e.StandardError = v.deviation(math.Copysign(null, null*v.control)) / math.Abs(v.control)
		if note := test.hindrance(e, null); note != "" {
			return Inference{Note: note}
		}
	} else if note := test.hindrance(e, null); note != "" {
		return Inference{Note: note}
	}
	switch {
	case test.Method == Bayesian:
		return test.posterior(e, null)
	case on == v.r.Margin.Scale || test.silence() != "":
		return v.gauge.weigh(s, null)
	}
	v.gauge.bound(&i, s, null)
	return i
}

// decides tells whether a test says something: where a bound that it would need is
// not there, its p-value would speak of one null value alone.
func (t Test) decides(i Inference) bool {
	return !i.Unbounded || t.Alternative == TwoSided && i.Lower != nil
}

// scoreScale is the scale of rates.
type scoreScale struct {
	*rates
	on Scale
}

func (s scoreScale) score(null float64) (statistic, degrees float64) {
	if s.on == Relative {
		return s.ratio(null), math.Inf(1)
	}
	return s.rates.difference(null), math.Inf(1)
}

func (s scoreScale) bounds(below, above float64) (lower, upper *float64) {
	bound := s.differenceBound
	if s.on == Relative {
		bound = s.ratioBound
	}
	return present(bound(below)), present(bound(-above))
}

// zero tells whether the control's value is zero as far as rounding can tell.
func (v *view) zero(base float64) bool {
	return isRounding(base, v.p.control.size(nil))
}

// size is that of what the side's value is made of.
func (s side) size(adj *adjustment) (size float64) {
	for i, g := range s.gradient {
		if adj != nil {
			g -= adj.theta[i]
		}
		if g != 0 {
			size += math.Abs(g) * s.rootMeanSquare(i)
		}
	}
	return size
}

// size is that of the larger side.
func (p *pair) size(adj *adjustment) float64 { return max(p.control.size(adj), p.treatment.size(adj)) }

// rootMeanSquare is that of the subjects' numbers, by the strata's weights.
func (b blend) rootMeanSquare(component int) float64 {
	sum := 0.0
	for _, c := range b.cells {
		mean := c.Means[component]
		sum += c.weight * (mean*mean + c.Products[c.index(component, component)]/float64(c.N))
	}
	return math.Sqrt(sum)
}

// flatSide names an arm at whose means the formula has no slope, though its subjects
// differ; it is empty if there is none.
func (r *Request) flatSide(p *pair) string {
	switch {
	case r.flat(p.control.gradient, p.control.cells...):
		return "the control"
	case r.flat(p.treatment.gradient, p.treatment.cells...):
		return "the treatment"
	}
	return ""
}

// flat tells whether a formula has no slope by any component though some vary.
func (r *Request) flat(gradient []float64, cells ...cell) bool {
	vary := false
	for i, g := range gradient {
		if g != 0 {
			return false
		}
		for _, c := range cells {
			vary = vary || !r.adjustedBy(i) && c.Products[c.index(i, i)] > 0
		}
	}
	return vary
}

// nearZero says where the formula divides by what could be zero.
func (r *Request) nearZero(p *pair) (notes []string) {
	for i, s := range []*side{&p.control, &p.treatment} {
		for _, divisor := range r.Divisors {
			value, gradient := divisor(s.means)
			variance := 0.0
			for _, c := range s.cells {
				variance += c.weight * c.weight * c.quadratic(gradient) / float64(max(1, c.N-1)) / float64(c.N)
			}
			if math.Abs(value) < weakBaseline*math.Sqrt(variance) {
				notes = append(notes, fmt.Sprintf("What the formula divides by is within three standard errors of zero in the %s: its value, the difference and the lift are rough.", []string{"control", "treatment"}[i]))
				break
			}
		}
	}
	return notes
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
