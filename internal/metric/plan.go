package metric

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// Planned is an experiment before it has subjects. One of Subjects, Effect and
// Power is left out, and answered; an objective with a margin can do without
// Effect, which is then none.
type Planned struct {
	Baseline  Baseline
	Plan      experiment.Plan // With its defaults.
	Objective experiment.Objective
	Margin    *experiment.Magnitude
	Weights   []float64 // The control's first; none: two alike.
	Subjects  int64     // Of all variants; 0: left out.
	Effect    *experiment.Magnitude
	Power     *float64
	Looks     int // Of a group-sequential plan, equally spaced; 0: DefaultLooks.
	// Pause is called between the steps of solving; an error of it ends that, and is
	// returned. May be nil.
	Pause func() error
}

// DefaultLooks is how many looks a group-sequential plan is planned with.
const DefaultLooks = 5

// Sizing is a planned experiment with what was left out.
type Sizing struct {
	Subjects          int64
	SubjectsByVariant []int64
	Effect            float64  // Without its direction.
	RelativeEffect    *float64 // Nil for a baseline of 0, or next to it.
	Power             float64
	Exposed           *int64 // Of whom Subjects count for the metric; nil if it is not known how many do.
	Days              *int32 // Nil if the traffic is unknown.
	Deviation         float64
	Inflation         *float64 // Nil if it cannot be told.
	Expected          *float64 // Subjects on average, if a group-sequential plan may end early.
	Notes             []string
}

// maxSize bounds the numbers of a plan, so that no product of two overflows.
const maxSize = 1e100

// Solve answers what was left out. Faults are an InvalidError by the fields of
// the API's request.
func (p *Planned) Solve() (*Sizing, error) {
	var bad experiment.InvalidError
	bad.Join("plan", p.Plan.Validate())
	p.checkQuestion(&bad)
	p.checkSizes(&bad)
	if err := bad.Err(); err != nil {
		return nil, err
	}
	design, err := p.design()
	if err != nil {
		return nil, err
	}
	answer, err := p.solve(design)
	if stopped := design.Err(); stopped != nil { // What was answered then is none.
		return nil, stopped
	}
	return answer, err
}

func (p *Planned) solve(design *stats.Design) (*Sizing, error) {
	answer := &Sizing{Subjects: p.Subjects, Deviation: design.Deviation}
	if p.Effect != nil {
		answer.Effect = absolute(p.Effect, p.Baseline.Value)
	}
	if p.Power != nil {
		answer.Power = *p.Power
	}
	if err := p.answer(design, answer); err != nil {
		return nil, err
	}
	answer.SubjectsByVariant = stats.Apportion(answer.Subjects, design.Shares)
	if relative := answer.Effect / math.Abs(p.Baseline.Value); relative <= math.MaxFloat64 {
		answer.RelativeEffect = &relative
	}
	p.inflation(design, answer)
	if expected, ok := design.Expected(p.direction().sign()*answer.Effect, answer.Subjects); ok {
		answer.Expected = &expected
	}
	p.days(answer)
	p.notes(design, answer)
	p.noteFew(design, answer)
	return answer, nil
}

// checkQuestion refuses a request that does not leave out exactly one thing.
func (p *Planned) checkQuestion(bad *experiment.InvalidError) {
	parts := []struct {
		field  string
		absent bool
	}{{"subjects", p.Subjects == 0}, {"power", p.Power == nil}, {"minimum_effect", p.Effect == nil}}
	which := "subjects, power and minimum_effect"
	if p.Objective.HasMargin() {
		parts, which = parts[:2], "subjects and power"
	}
	absent := 0
	for _, part := range parts {
		if part.absent {
			absent++
		}
	}
	for _, part := range parts {
		switch {
		case absent == 0:
			bad.Add(part.field, "one of %s must be left out, to be answered", which)
		case absent > 1 && part.absent:
			bad.Add(part.field, "only one of %s can be left out, to be answered", which)
		}
	}
	if p.Power != nil && *p.Power <= 1-p.Plan.ConfidenceLevel {
		bad.Add("power", "must exceed the error rate of %.6g, with which an effect of 0 is found", 1-p.Plan.ConfidenceLevel)
	}
	if p.Looks != 0 && p.Plan.Method != experiment.MethodGroupSequential {
		bad.Add("looks", "only a group-sequential plan has looks")
	}
	if len(p.Weights) == 1 {
		bad.Add("weights", "a comparison needs two variants, and there is one weight")
	}
	switch hasMargin := p.Objective.HasMargin(); {
	case hasMargin && (p.Margin == nil || !(p.Margin.Value > 0)):
		bad.Add("margin", "this objective needs a margin greater than 0")
	case !hasMargin && p.Margin != nil:
		bad.Add("margin", "only non-inferiority and equivalence have a margin")
	case !hasMargin && p.Effect != nil && p.Effect.Value == 0:
		bad.Add("minimum_effect", "must be greater than 0")
	}
}

// checkSizes refuses numbers that cannot be computed with, and effects that
// there cannot be.
func (p *Planned) checkSizes(bad *experiment.InvalidError) {
	b := &p.Baseline
	if !(math.Abs(b.Value) <= maxSize) || !(p.deviation() >= 1/maxSize && p.deviation() <= maxSize) {
		bad.Add(b.Field, "has figures that no subjects can have, or that are too large or too small to compute with")
		return
	}
	effect := p.size(bad, "minimum_effect", p.Effect)
	margin := p.size(bad, "margin", p.Margin)
	rate := b.Value + p.direction().sign()*effect
	switch {
	case b.Proportion && !(rate >= 0 && rate <= 1):
		bad.Add("minimum_effect", "takes the rate from %.6g to %.6g, which is no rate", b.Value, rate)
	case b.Proportion && rate == 0 && p.Margin != nil && p.Margin.Relative:
		bad.Add("minimum_effect", "takes the rate to 0, where the lift is -100%% and has no variance to test it by")
	case p.Objective == experiment.ObjectiveEquivalence && p.Effect != nil && effect >= margin:
		bad.Add("minimum_effect", "must be below the margin, or there is no equivalence to be shown")
	}
}

// size is a magnitude in the metric's unit, which it checks; 0 if there is none.
func (p *Planned) size(bad *experiment.InvalidError, field string, m *experiment.Magnitude) float64 {
	base := math.Abs(p.Baseline.Value)
	switch {
	case m == nil:
		return 0
	case m.Relative && base == 0:
		bad.Add(field, "cannot be relative to a baseline of 0")
		return 0
	}
	size := absolute(m, base)
	if !(size <= maxSize) || base != 0 && !(size/base <= maxSize) {
		bad.Add(field, "is too large to compute with")
	}
	return size
}

// absolute is a magnitude in the metric's unit.
func absolute(m *experiment.Magnitude, baseline float64) float64 {
	if m.Relative {
		return m.Value * math.Abs(baseline)
	}
	return m.Value
}

// deviation is that between subjects after the covariates.
func (p *Planned) deviation() float64 {
	return p.Baseline.Deviation * math.Sqrt(1-p.Baseline.Removed)
}

// direction is that of the effect that is planned for: in which the metric gets
// better. Where a proportion may go either way it is that towards one half, which
// takes more subjects.
func (p *Planned) direction() Direction {
	b := &p.Baseline
	oneSided := p.Objective == experiment.ObjectiveSuperiority || p.Objective == experiment.ObjectiveNonInferiority
	switch {
	case !b.Proportion || oneSided && b.Direction != "":
		return b.Direction
	case b.Value > 0.5:
		return DirectionDecrease
	}
	return DirectionIncrease
}

// design is the comparison that is planned.
func (p *Planned) design() (*stats.Design, error) {
	d := &stats.Design{
		Control: p.Baseline.Value, Deviation: p.deviation(), Proportion: p.Baseline.Proportion, Shares: p.shares(),
		Adjusted: p.Baseline.Removed != 0, Pause: p.Pause,
	}
	asked := compiled{Use: Use{
		Metric: Metric{Definition: Definition{Direction: p.direction()}}, Objective: p.Objective, Margin: p.Margin,
	}}
	var alternative stats.Alternative
	alternative, d.Margin = asked.question()
	var err error
	if d.Test, err = test(&p.Plan, 1, alternative); err != nil {
		return nil, experiment.Invalid("plan.method", "%s", err)
	}
	if p.Baseline.Proportion && p.Baseline.Removed == 0 { // As in a comparison.
		d.Test.Prior.LiftMean, d.Test.Prior.LiftDeviation = 0, 0
	} else {
		d.Test.Prior.Alpha, d.Test.Prior.Beta = 0, 0
	}
	if err := checkPrior(d); err != nil {
		return nil, err
	}
	if p.Plan.Method == experiment.MethodGroupSequential {
		d.Test.Schedule, err = plannedLooks(spendings[p.Plan.Spending], cmp.Or(p.Looks, DefaultLooks))
	}
	return d, err
}

// shares are the variants' parts of all subjects.
func (p *Planned) shares() []float64 {
	shares := []float64{0.5, 0.5}
	if len(p.Weights) > 0 {
		largest, total := slices.Max(p.Weights), 0.0 // Their sum may overflow.
		shares = make([]float64, len(p.Weights))
		for i, w := range p.Weights {
			shares[i] = w / largest
			total += shares[i]
		}
		for i := range shares {
			shares[i] /= total
		}
	}
	return shares
}

// plannedLooks is a schedule of equally spaced looks.
func plannedLooks(spending stats.Spending, n int) (*stats.Schedule, error) {
	looks := make([]stats.Look, n)
	for i := range looks {
		at := float64(i+1) / float64(n)
		looks[i] = stats.Look{Time: at, Information: at}
	}
	return stats.NewSchedule(spending, looks)
}

// checkPrior refuses a prior of the lift that cannot be computed with in the
// metric's unit.
func checkPrior(d *stats.Design) error {
	prior, base := d.Test.Prior, math.Abs(d.Control)
	spread := prior.LiftDeviation * base / d.Deviation
	switch {
	case prior.LiftDeviation == 0:
	case base == 0:
		return experiment.Invalid("plan.prior.lift_standard_deviation", "says nothing with a baseline of 0")
	case !(spread >= 1/maxSize && spread <= maxSize && math.Abs(prior.LiftMean)*base/d.Deviation <= maxSize):
		return experiment.Invalid("plan.prior", "is of lifts that are too large or too small to compute with")
	}
	return nil
}

// answer fills in what was left out.
func (p *Planned) answer(d *stats.Design, to *Sizing) error {
	fewest, possible := d.Fewest()
	if !possible {
		return experiment.Invalid("weights", "leave a variant without two subjects of %d", int64(stats.MaxPlannedSubjects))
	}
	if p.Subjects != 0 && p.Subjects < fewest {
		return experiment.Invalid("subjects", "must be at least %d, for two in every variant", fewest)
	}
	effect := p.direction().sign() * to.Effect
	switch {
	case p.Subjects == 0:
		if to.Subjects, possible = d.Subjects(effect, to.Power); possible {
			if few, ok := d.FewEvents(effect, to.Subjects); ok && few.Exact {
				to.Power = d.Power(effect, to.Subjects) // It jumps, and may pass by what is asked.
			}
			return nil
		}
		field := "minimum_effect"
		if p.Objective.HasMargin() {
			field = "margin"
		}
		return experiment.Invalid(field, "is so small, or leaves so few events, that %d subjects do not have the power of %.6g", int64(stats.MaxPlannedSubjects), to.Power)
	case p.Power == nil:
		to.Power = d.Power(effect, p.Subjects)
	default:
		if d.Power(0, p.Subjects) >= to.Power {
			return experiment.Invalid("power", "is had without any effect, by the prior alone")
		}
		if to.Effect, possible = d.Effect(to.Power, p.Subjects, p.direction() == DirectionDecrease); !possible {
			return experiment.Invalid("subjects", "%d do not find any possible effect with the power of %.6g", p.Subjects, to.Power)
		}
	}
	return nil
}

// inflation compares the subjects with those that a fixed horizon would need
// for the same.
func (p *Planned) inflation(d *stats.Design, to *Sizing) {
	fixed := *d
	fixed.Test.Method = stats.FixedHorizon
	inflation := 1.0
	if d.Test.Method != stats.FixedHorizon {
		if !(to.Power > 1-p.Plan.ConfidenceLevel && to.Power < 1) {
			to.Notes = append(to.Notes, "What a fixed horizon would need for this power cannot be told: it is not above the error rate, or is 1.")
			return
		}
		subjects, ok := fixed.Subjects(p.direction().sign()*to.Effect, to.Power)
		if !ok {
			return
		}
		inflation = max(1, float64(to.Subjects)/float64(subjects)) // Few events are planned roughly.
	}
	to.Inflation = &inflation
}

// days is how many have to be exposed for as many subjects to count, how long they take
// to come, and the last one's window to close.
func (p *Planned) days(to *Sizing) {
	exposed := math.Ceil(float64(to.Subjects) / p.Baseline.counting() * (1 - 1e-12)) // The share is rounded.
	if p.Baseline.Counted > 0 && exposed <= math.MaxInt64/2 {
		whole := int64(exposed)
		to.Exposed = &whole
	}
	if p.Baseline.SubjectsPerDay == 0 {
		return
	}
	days := math.Ceil(exposed/p.Baseline.SubjectsPerDay) + p.Baseline.windowDays()
	if days > math.MaxInt32 {
		to.Notes = append(to.Notes, fmt.Sprintf("It takes more than %d days.", math.MaxInt32))
		return
	}
	whole := int32(days)
	to.Days = &whole
}

// notes says what was assumed.
func (p *Planned) notes(d *stats.Design, to *Sizing) {
	note := func(format string, args ...any) { to.Notes = append(to.Notes, fmt.Sprintf(format, args...)) }
	if p.Baseline.Proportion && p.direction() == DirectionDecrease && to.Effect > 0 {
		note("The effect is planned as a fall of the rate, to %.6g.", p.Baseline.Value-to.Effect)
	}
	if p.Baseline.Removed != 0 {
		note("Covariates remove %.3g%% of the variance.", 100*p.Baseline.Removed)
	}
	if treatments := len(p.Weights) - 1; treatments > 1 && p.Plan.Method == experiment.MethodBayesian {
		note("Each of the %d comparisons with the control is planned by itself; the power is that of the variant with the fewest subjects.", treatments)
	} else if treatments > 1 {
		note("Each of the %d comparisons with the control is planned at an error rate of %.6g, as by Bonferroni's correction; the power is that of the variant with the fewest subjects.", treatments, (1-p.Plan.ConfidenceLevel)/float64(treatments))
	}
	if to.RelativeEffect == nil {
		note("The baseline is 0, or so near it that the effect's share of it is too large to write.")
	}
	if share := p.Baseline.Counted; share > 0 && share < 1 && to.Exposed != nil {
		note("By history %.3g%% of the exposed subjects count for the metric, as the others have no outcome to be of: for %d that count %d have to be exposed.", 100*share, to.Subjects, *to.Exposed)
	}
	if n := p.Baseline.Subjects; n > 0 && n < fewSubjects {
		note("The baseline is that of %d control subjects only: its figures are rough, and so is the plan.", n)
	}
	switch {
	case d.TooUneven(to.Subjects):
		note("The variants are too uneven for so few subjects: an always-valid plan does not judge them yet.")
	case p.Plan.Method == experiment.MethodAlwaysValid:
		note("The power is that at the planned subjects. An effect is often found earlier.")
	case p.Plan.Method == experiment.MethodGroupSequential && to.Expected == nil:
		note("The power is that of the last look. Equivalence may be shown earlier.")
	}
}

// fewEvents says how many are expected.
func fewEvents(few *stats.FewEvents) string {
	return fmt.Sprintf("%.3g events in the control and %.3g in the treatment (or subjects without one, if they are rarer)", few.Expected[0], few.Expected[1])
}

// fewToApproximate is below how many expected events a power by the normal distribution
// is said to be approximate.
const fewToApproximate = 50

// noteFew says what few events do to the plan of a rate, and few subjects with a number
// other than 0 to that of another metric.
func (p *Planned) noteFew(d *stats.Design, to *Sizing) {
	note := func(format string, args ...any) { to.Notes = append(to.Notes, fmt.Sprintf(format, args...)) }
	effect := p.direction().sign() * to.Effect
	smallest := slices.Min(to.SubjectsByVariant)
	if share := p.Baseline.Informative; share != nil && !p.Baseline.Proportion && *share*float64(smallest) < stats.FewestInformative {
		note("Only some %.2g informative subjects, which are %.3g%% by history, are expected in the variant with the fewest subjects: where one has fewer than %d nothing is judged, and the power is not had.",
			*share*float64(smallest), 100**share, stats.FewestInformative)
	}
	few, ok := d.FewEvents(effect, to.Subjects)
	switch {
	case !ok:
	case few.Exact && p.Subjects == 0:
		note("%s are expected: the power is that of the test itself over all numbers of them, and it goes up and down with the size. From these subjects on it is not below %.6g, as far as half as many more were looked at.", fewEvents(&few), *p.Power)
	case few.Exact:
		note("%s are expected: the power is that of the test itself over all numbers of them, and a few subjects more may have less.", fewEvents(&few))
	case few.Allowed < 0.999:
		note("With only some %s expected the power is approximate: with a probability of %.3g there are so few that the guard of informative subjects keeps the plan undecided, and no more power is promised than it leaves.", fewEvents(&few), 1-few.Allowed)
	case min(few.Expected[0], few.Expected[1]) < fewToApproximate:
		note("With only some %s expected the power is approximate.", fewEvents(&few))
	}
}
