package metric

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// Analyze compares the variants of a tally of this study by the experiment's
// plan. shares holds, for every phase of the tally, each variant's share of the
// split in the definition's order.
//
// An error is a fault of the caller: whatever the subjects did is answered.
func (s *Study) Analyze(t *Tally, shares map[int32][]float64) (*Analysis, error) {
	if err := s.check(t); err != nil {
		return nil, err
	}
	s, look, err := s.schedule(t)
	if err != nil {
		return nil, err
	}
	a := &Analysis{Look: look, CountingEnd: t.CountingEnd, Pauses: t.Pauses}
	if a.SampleRatio, err = sampleRatio(t, s.definition.Segments, shares); err != nil {
		return nil, fmt.Errorf("sample ratio: %w", err)
	}
	if a.Exclusions, err = s.exclusions(t, shares); err != nil {
		return nil, fmt.Errorf("exclusions: %w", err)
	}
	for m := range s.metrics {
		result, err := s.result(m, t)
		if err != nil {
			return nil, fmt.Errorf("metric %q: %w", s.metrics[m].Metric.Key, err)
		}
		a.Metrics = append(a.Metrics, result)
		a.PausedShare = max(a.PausedShare, result.PausedShare)
	}
	withoutData := s.withholdWithoutData(t, a)
	if err := s.correct(a); err != nil {
		return nil, err
	}
	if err := s.widen(t, a); err != nil {
		return nil, err
	}
	if a.Balance, err = s.balance(t); err != nil {
		return nil, fmt.Errorf("balance: %w", err)
	}
	var latest []float64
	if n := len(t.Phases); n > 0 {
		latest = shares[t.Phases[n-1]]
	}
	a.Doubts = s.doubts(t, a)
	a.Verdict = s.verdict(a, latest)
	a.Verdict.Reasons = slices.Concat(a.Verdict.Reasons, withoutData)
	a.Warnings = s.warnings(t, a)
	return a, nil
}

// check refuses a tally of another study.
func (s *Study) check(t *Tally) error {
	if len(t.Variants) != len(s.definition.Variants) || len(t.Metrics) != len(s.metrics) || len(t.Segments) != len(s.segments) || len(t.Counted) != len(s.counted) {
		return errors.New("the tally is of another study")
	}
	for i, v := range s.definition.Variants {
		if t.Variants[i] != v.Key {
			return errors.New("the tally is of other variants")
		}
	}
	for i := range s.metrics {
		if t.Metrics[i].Metric != s.metrics[i].Metric.Key || t.Metrics[i].Revision != s.metrics[i].Metric.Revision {
			return errors.New("the tally is of other metrics")
		}
	}
	return nil
}

// result compares the variants on one metric, as a whole and by segment.
func (s *Study) result(m int, t *Tally) (Result, error) {
	metric, tally := &s.metrics[m], &t.Metrics[m]
	result := Result{
		Metric: metric.Metric.Key, Revision: metric.Metric.Revision,
		Role: metric.Role, Objective: metric.Objective, Margin: metric.Margin, Confirmatory: metric.Role != "",
		PeekingProtected: s.definition.Plan.Method == experiment.MethodAlwaysValid && metric.Metric.Definition.Window > 0,
		Window:           metric.Metric.Definition.Window,
		OpenWindows:      tally.OpenWindows, PausedShare: tally.FollowUp.pausedShare(),
	}
	var err error
	if result.Arms, result.Comparisons, err = s.now(metric, tally); err != nil {
		return Result{}, err
	}
	metric.setLargestShares(tally, result.Arms)
	if !result.Confirmatory {
		for i := range result.Comparisons {
			c := &result.Comparisons[i]
			if c.PValue == nil {
				c.Notes = append(c.Notes, "Exploratory: the plan does not name this metric.")
			} else {
				c.Notes = append(c.Notes, "Exploratory: the plan does not name this metric, and its p-value is not corrected.")
			}
		}
	}
	if result.Drift, err = s.drift(metric, tally, result.Comparisons); err != nil {
		return Result{}, err
	}
	result.Caps = metric.describeCaps(tally)
	result.LeftOut, result.Outcomes = tally.describeLeftOut(t.Variants), tally.Outcomes
	if without, ok := metric.withoutValue(tally); ok {
		result.LeftOut = append(result.LeftOut, tally.leftOut(NoValue, without, t.Variants))
	}
	return result, s.bySegment(m, t, &result)
}

// compare compares the variants on one metric among some subjects. Each phase
// is a stratum, or several, so that a change of the split in mid flight does not
// pass for an effect.
func (s *Study) compare(metric *compiled, moments Arms) ([]Arm, []Comparison, error) {
	return s.compareAt(metric, moments, 0)
}

// compareAt does so with intervals of another error rate than the plan's; 0 is that.
func (s *Study) compareAt(metric *compiled, moments Arms, rate float64) ([]Arm, []Comparison, error) {
	alternative, margin := metric.question()
	test, err := test(&s.definition.Plan, s.pairShare(), alternative)
	if err != nil {
		return nil, nil, err
	}
	test.Schedule, test.IntervalRate = s.looks.schedules[metric.Metric.Key], rate
	c := contest{
		expression: metric.expression, control: s.control, test: test, margin: margin,
		arms: metric.arms(moments), names: make([]string, len(metric.sources)),
		proportion: metric.Metric.Definition.Kind == KindProportion,
		guardrail:  metric.Role == experiment.RoleGuardrail && metric.Margin != nil,
		pause:      s.pause,
	}
	c.test.LessIsBetter = metric.Metric.Definition.Direction == DirectionDecrease
	for v := range moments {
		c.variants = append(c.variants, s.definition.Variants[v].Key)
	}
	notes := c.adjustBy(metric.covariates)
	arms, comparisons, err := c.compare()
	if err != nil {
		return nil, nil, err
	}
	for i := range comparisons {
		comparison := &comparisons[i]
		comparison.Notes = append(comparison.Notes, notes...)
		if metric.Role == experiment.RoleGuardrail {
			comparison.Guardrail = guardrail(comparison, metric.Metric.Definition.Direction, metric.Margin)
		}
		if metric.Margin != nil && (comparison.PValue != nil || comparison.ChanceToWin != nil) {
			comparison.Notes = append(comparison.Notes, marginNote(metric.Objective, test.Method, margin))
		}
	}
	return arms, comparisons, nil
}

// arms are moments of the metric as stats takes them.
func (m *compiled) arms(moments Arms) []stats.Arm {
	arms := make([]stats.Arm, len(moments))
	for v, strata := range moments {
		if len(strata) == 0 {
			strata = []stats.Moments{stats.NewMoments(len(m.sources))}
		}
		arms[v].Strata = strata
	}
	return arms
}

// pairShare is the share of all subjects that a comparison of a treatment with
// the control is expected to see, over the treatments in the mean. It follows
// from the sealed weights alone, so that it cannot follow the data, as later
// weights might.
func (s *Study) pairShare() float64 {
	weights, control := make([]float64, len(s.sealed)), 0
	for i, v := range s.sealed {
		weights[i] = float64(v.Weight)
		if v.Control {
			control = i
		}
	}
	return pairShare(weights, control)
}

// pairShare is the mean share that the control and one of the others have.
func pairShare(weights []float64, control int) float64 {
	total := 0.0
	for _, w := range weights {
		total += w
	}
	share := weights[control] / total
	return share + (1-share)/float64(len(weights)-1)
}

// adjustBy picks the components by which variance is reduced, and names them.
// An indicator that is the same for all subjects is left out here, so that the
// reader hears of covariates and not of indicators.
func (c *contest) adjustBy(covariates []covariate) (notes []string) {
	for _, v := range covariates {
		c.names[v.value] = fmt.Sprintf("Covariate %q", v.name)
		if v.missing < 0 {
			c.covariates = append(c.covariates, v.value)
			continue
		}
		c.names[v.missing] = fmt.Sprintf("The indicator of a missing %q", v.name)
		some, without := lacking(c.arms, v.missing)
		switch {
		case !some:
			c.covariates = append(c.covariates, v.value)
		case len(without) > 0:
			// The 0 that stands where it is missing would pass for a difference of the
			// covariate.
			notes = append(notes, fmt.Sprintf("Covariate %q is missing for every subject of %s: it is not used.", v.name, named(without, c.variants)))
		default:
			c.covariates = append(c.covariates, v.value, v.missing)
		}
	}
	return notes
}

// lacking tells whether some subject lacks a covariate, whose indicator of that is
// component missing, and in which arms every subject does.
func lacking(arms []stats.Arm, missing int) (some bool, without []int) {
	for a, arm := range arms {
		subjects, has := false, false
		for i := range arm.Strata {
			if m := &arm.Strata[i]; m.N > 0 {
				subjects = true
				some = some || m.Means[missing] != 0
				has = has || m.Means[missing] != 1
			}
		}
		if subjects && !has {
			without = append(without, a)
		}
	}
	return some, without
}

// named lists variants by their indices.
func named(indices []int, variants []string) string {
	var names []string
	for _, i := range indices {
		names = append(names, variants[i])
	}
	return strings.Join(names, ", ")
}
