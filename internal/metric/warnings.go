package metric

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// warnings say what a reader must know before trusting the figures.
func (s *Study) warnings(t *Tally, a *Analysis) []string {
	var out []string
	warn := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if len(t.Phases) == 0 {
		warn("No exposure that can be analysed was recorded up to this moment.")
	}
	if a.SampleRatio.Verdict == SampleRatioMismatch {
		warn("The variants' subjects are not as many as the split expects (%s): something loses or adds them unevenly, and no figure here can be trusted.%s", a.SampleRatio.broken(), worst(a.SampleRatio.BrokenCells))
	}
	if cells := a.SampleRatio.unplannedBroken(); a.SampleRatio.Verdict != SampleRatioMismatch && len(cells) > 0 {
		warn("In segments that the plan does not name the variants' subjects are not as many as the split expects: their figures cannot be trusted, and the verdict does not rest on them.%s", worst(cells))
	}
	if s.definition.External {
		warn("The variants were assigned elsewhere: exposures were not checked against the split.")
	}
	for i := range a.Exclusions.ByReason {
		if e := &a.Exclusions.ByReason[i]; e.Reason != ExclusionOutcomesDropped {
			warn("%s", e.warning())
		}
	}
	if t.Cut > 0 {
		warn("%s", cut(t))
	}
	if t.Ahead > 0 {
		warn("%s", ahead(t))
	}
	out = append(out, s.conductWarnings(t, a)...)
	if s.definition.Plan.Method == experiment.MethodBayesian {
		warn("The plan is Bayesian: it claims no error rate, and looking repeatedly until a chance to win is high makes false winners more frequent.")
	}
	for i := range t.Metrics {
		if days := t.Metrics[i].Days; s.definition.Plan.Method == experiment.MethodAlwaysValid && len(days) > 0 && days[0].Days > 1 {
			warn("Days are not told apart, as there are too many of them or of strata: a smallest p-value is that of the ends of periods of %d days, and can rise when periods get longer.", days[0].Days)
			break // All metrics have the same periods.
		}
	}
	for i := range a.Metrics {
		result := &a.Metrics[i]
		if result.OpenWindows > 0 && result.Role == experiment.RolePrimary {
			warn("%s for the primary metric, as %s.", notCounted(result.OpenWindows, t), openWindow(t))
		}
		if result.Role == experiment.RolePrimary {
			for _, h := range result.Drift {
				if h.AdjustedPValue != nil && *h.AdjustedPValue < drifted {
					warn("The effect of %s on the primary metric differs between the weeks in which subjects entered (p = %.3g): the estimate is a mean over them, and the timeline shows what it was lately.", h.Variant, *h.AdjustedPValue)
				}
			}
		}
		if warning := s.unprotected(i); warning != "" {
			warn("%s", warning)
		}
	}
	for i := range a.Metrics {
		for _, warning := range s.metrics[i].overbearingSubjects(&t.Metrics[i], a.Metrics[i].Arms) {
			warn("%s", warning)
		}
	}
	for _, v := range uneven(a) {
		warn("%s and the control are of uneven size, as a whole or in a phase or stratum, and have too few subjects yet to average out what is skewed: if their numbers vary differently, up to 10 %% of experiments without an effect are significant at 5 %%, by every method.", v)
	}
	for i := range a.Metrics {
		for _, c := range a.Metrics[i].Caps {
			if c.Constant && !a.Metrics[i].WithoutData {
				warn("The cap on %q makes the number of every subject the same for the metric %q, which can tell nothing any more. A percentile that ignores zeros, or a number, does not.", c.Component, a.Metrics[i].Metric)
			}
		}
	}
	for i := range t.Metrics {
		if note := s.withoutData(t, i); note != "" {
			warn("%s", note)
		}
		out = append(out, s.uncounted(&t.Metrics[i])...)
		for _, warning := range slices.Concat(t.unevenlyEarly(i), s.silentVariants(t, i)) {
			if !slices.Contains(out, warning) { // Another metric may count the same.
				warn("%s", warning)
			}
		}
		for _, unequal := range s.unequalReports(t, i) {
			warn("%s", unequal.text)
		}
	}
	out = append(out, s.deadCovariates(t)...)
	for i := range a.Balance {
		if warning := a.Balance[i].imbalance(); warning != "" {
			warn("%s", warning)
		}
	}
	for _, note := range s.absent(t) {
		warn("%s", note)
	}
	if t.StratumLimit > 0 {
		warn("%s", s.unstratified(t))
	}
	for _, segment := range t.Segments {
		if segment.Limit > 0 {
			warn("Segment %q is withheld: it has more than %d values.", segment.Attribute, segment.Limit)
		}
		if segment.Rest {
			warn("Segment %q has more values than can be told apart: the %d with most subjects are shown, and all others as one.", segment.Attribute, len(segment.Values)-1)
		}
	}
	return out
}

// ahead tells of exposures that were timed by a clock that is ahead, and of what they
// hide. An outcome that several metrics take hides but once.
func ahead(t *Tally) string {
	hidden := map[string]int64{}
	for i := range t.Metrics {
		for _, use := range t.Metrics[i].Outcomes {
			hidden[use.Name] = max(hidden[use.Name], use.Hidden)
		}
	}
	outcomes := int64(0)
	for _, n := range hidden {
		outcomes += n
	}
	text := fmt.Sprintf("%s first exposed at a time of more than %.0f seconds after it was recorded: the clock that exposures are timed by is ahead.", subjects(t.Ahead), ClockAhead.Seconds())
	if outcomes > 0 {
		text += fmt.Sprintf(" Outcomes of theirs, %d at least, do not count: they are from after the exposure was recorded, and from before the time that it was given.", outcomes)
	}
	return text
}

// unprotected warns of a metric that a verdict rests on and that has no window, so
// that looking at it often is not protected.
func (s *Study) unprotected(m int) string {
	metric, method := &s.metrics[m], s.definition.Plan.Method
	if metric.Metric.Definition.Window > 0 || method != experiment.MethodAlwaysValid && method != experiment.MethodGroupSequential {
		return ""
	}
	switch metric.Role {
	case experiment.RolePrimary:
		return "The primary metric has no window: a subject's number still changes after it was counted, so that its p-value and interval hold for one look, and not for looking often. The plan therefore decides once."
	case experiment.RoleGuardrail:
		return fmt.Sprintf("The guardrail %s has no window: a subject's number still changes after it was counted, so that what it says holds for one look, and not for looking often.", metric.Metric.Key)
	}
	return ""
}

// cut says that outcomes are missing which have been dropped.
func cut(t *Tally) string {
	return fmt.Sprintf("%s exposed before %s, or have covariates from before it: outcomes from then are no longer kept, and their lack counts as none.",
		subjects(t.Cut), t.KeptFrom.UTC().Format(time.DateOnly))
}

// unstratified says that the plan's strata are withheld.
func (s *Study) unstratified(t *Tally) string {
	return fmt.Sprintf("Subjects are not stratified by %q: it has more than %d values.", s.Stratum(), t.StratumLimit)
}

// worst names the cells in which a sample ratio is broken most.
func worst(cells []SampleRatioCell) string {
	var names []string
	for _, c := range cells[:min(len(cells), 3)] {
		switch {
		case c.Attribute == "":
			names = append(names, "on "+c.Value)
		case c.Value == "":
			names = append(names, fmt.Sprintf("where %s is missing", c.Attribute))
		default:
			names = append(names, fmt.Sprintf("where %s is %q", c.Attribute, c.Value))
		}
	}
	if names == nil {
		return ""
	}
	return " It is broken most " + strings.Join(names, ", ") + "."
}

// subjects begins a sentence about n subjects.
func subjects(n int64) string {
	if n == 1 {
		return "1 subject was"
	}
	return fmt.Sprintf("%d subjects were", n)
}

const (
	// littleSkewness is the share of the subjects' skewness in a difference that no
	// longer matters much: at 1:9 1,800 subjects in the smaller arm leave it.
	littleSkewness = 0.02
	// chanceSkewness, over the subjects of both, is what an even split hardly
	// ever leave by chance: a difference of three standard errors in their sizes.
	chanceSkewness = 6
)

// uneven names the treatments whose comparison on the first metric has much of the
// subjects' skewness.
func uneven(a *Analysis) (names []string) {
	if len(a.Metrics) == 0 {
		return nil
	}
	for _, c := range a.Metrics[0].Comparisons {
		if c.Skewness > max(littleSkewness, chanceSkewness/float64(c.Subjects)) {
			names = append(names, c.Variant)
		}
	}
	return names
}
