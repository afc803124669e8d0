package metric

import (
	"fmt"
	"strings"

	"github.com/assayhq/assay/internal/experiment"
)

// A metric one of whose names nobody has outcomes of is without data: that its
// numbers are 0 says nothing of what happened. Nothing is decided by it, whatever
// its margin. If somebody has some, 0 is 0: a guardrail on crashes must be able to
// pass because there are none. But if a condition is on a property that no outcome of
// the name has, or what takes values finds none, that tells nothing either: the
// property may have another name.

// lacking is what nobody has of what a metric's components take, in words. A tally
// from before outcomes were accounted for lacks nothing.
func (s *Study) lacking(t *MetricTally) (names []string) {
	for i := range t.Outcomes {
		use := &t.Outcomes[i]
		if !use.Alive {
			text := fmt.Sprintf("%q", use.Name)
			if arrived := s.arrived(use.Similar); arrived != "" {
				text += " (but there is " + arrived + ")"
			}
			if n := use.ShortlyBefore; n > 0 {
				text += fmt.Sprintf(" (but for %d in the last %.0f seconds before the subject's exposure: the clock that they are timed by may be behind)", n, ShortlyBefore.Seconds())
			}
			names = append(names, text)
			continue
		}
		for _, lack := range use.Lacking {
			names = append(names, fmt.Sprintf("%q %s", use.Name, lack.words()))
		}
	}
	return names
}

// words say with what an outcome would have met a need.
func (l *Lack) words() string {
	text := fmt.Sprintf("with a property %q, which it has a condition on", l.Field)
	switch {
	case l.Field == experiment.FieldValue:
		text = "with a value"
	case l.Number:
		text = fmt.Sprintf("with a number as its property %q, which it has a condition on", l.Field)
	}
	if len(l.Similar) == 0 {
		return text
	}
	var similar []string
	for _, name := range l.Similar {
		similar = append(similar, fmt.Sprintf("%q", name))
	}
	return text + " (but there is " + strings.Join(similar, ", ") + ")"
}

// withoutData says that a metric has no data, and what arrived in place of it;
// empty if it has.
func (s *Study) withoutData(t *Tally, m int) string {
	names := s.lacking(&t.Metrics[m])
	if len(names) == 0 {
		return ""
	}
	when := "since the start or the first exposure, whichever is earlier,"
	if !t.CountingEnd.IsZero() {
		when = "from the start or the first exposure, whichever is earlier, until counting ended,"
	}
	return fmt.Sprintf("Metric %s has no data: %s nobody of the unit %s, exposed or not, has had an outcome %s. Nothing is decided by it.",
		t.Metrics[m].Metric, when, s.Unit(), strings.Join(names, " or "))
}

// arrived names what is similar and arrived.
func (s *Study) arrived(outcomes []SimilarOutcomes) string {
	var list []string
	for _, similar := range outcomes {
		of := ""
		switch {
		case similar.Unit == "":
			of = " of a unit that is not known"
		case similar.Unit != s.Unit():
			of = " of the unit " + similar.Unit
		}
		list = append(list, fmt.Sprintf("%q%s, %s", similar.Name, of, times(similar.Outcomes)))
	}
	return strings.Join(list, "; ")
}

// leaveNothing leaves nothing of comparisons on a metric without data but whom they
// compare, and the note that says why. A p-value of zeros that nobody had would be
// one of a family, and make the others' look better.
func leaveNothing(comparisons []Comparison, note string) {
	for i := range comparisons {
		c := &comparisons[i]
		*c = Comparison{Variant: c.Variant, Baseline: c.Baseline, Subjects: c.Subjects, Guardrail: c.Guardrail, Notes: []string{note}}
		if c.Guardrail != "" {
			c.Guardrail = GuardrailUndecided
		}
	}
}

// withholdWithoutData does so for all metrics without data, before p-values are
// corrected, and returns why. Of their arms it leaves the subjects.
func (s *Study) withholdWithoutData(t *Tally, a *Analysis) (reasons []string) {
	for m := range a.Metrics {
		note := s.withoutData(t, m)
		if note == "" {
			continue
		}
		result := &a.Metrics[m]
		result.WithoutData = true
		reasons = append(reasons, note)
		leaveNothing(result.Comparisons, note)
		countOnly(result.Arms, note)
		for i := range result.Segments {
			leaveNothing(result.Segments[i].Comparisons, note)
			if !result.Segments[i].Withheld {
				countOnly(result.Segments[i].Arms, note)
			}
		}
		for _, tests := range [][]Heterogeneity{result.Heterogeneity, result.Drift} {
			for i := range tests {
				tests[i] = Heterogeneity{Attribute: tests[i].Attribute, Variant: tests[i].Variant, Notes: []string{note}}
			}
		}
	}
	return reasons
}

// someOutcomes is the number from which on it is said that none or few of them
// count.
const someOutcomes = 10

// uncounted says where outcomes arrive and few count, for a reason that looks like
// a fault.
func (s *Study) uncounted(t *MetricTally) (warnings []string) {
	for i := range t.Outcomes {
		use := &t.Outcomes[i]
		if use.Alive && use.Lacking == nil {
			warnings = append(warnings, s.fault(t.Metric, use)...)
		}
	}
	return warnings
}

// fault is what looks like one in what became of the outcomes of a name.
func (s *Study) fault(metric string, use *OutcomeUse) (warnings []string) {
	all, foreign := use.Counted, use.NotCounted[OfOtherUnit]
	most := UncountedReason("")
	for _, reason := range UncountedReasons {
		if reason == NothingToCorrect {
			continue // These are no outcomes.
		}
		n := use.NotCounted[reason]
		all += n
		if n > use.NotCounted[most] {
			most = reason
		}
	}
	if n := use.NotCounted[NothingToCorrect]; n >= someOutcomes {
		warnings = append(warnings, fmt.Sprintf("%d corrections of outcomes %q count nowhere, as no outcome is known that is as they say: one of the same subject, name, event_id and occurred_time, and no correction itself.", n, use.Name))
	}
	if all < someOutcomes {
		return warnings
	}
	if n := use.NotCounted[WithoutValue]; n >= someOutcomes && use.Counted > 0 && float64(n) > mostExcluded*float64(n+use.Counted) {
		warnings = append(warnings, fmt.Sprintf("%d outcomes %q that %s would take have no value, beside %d that count: what takes values leaves them out, and if one variant loses more values than another, the two differ by that.",
			n, use.Name, metric, use.Counted))
	}
	switch {
	case 2*use.ShortlyBefore > use.ShortlyBefore+use.Counted && use.ShortlyBefore >= someOutcomes:
		warnings = append(warnings, fmt.Sprintf("%d outcomes %q do not count for %s, as they occurred in the last %.0f seconds before the subject's exposure, and %d count: the clock that they are timed by may be behind.",
			use.ShortlyBefore, use.Name, metric, ShortlyBefore.Seconds(), use.Counted))
	case use.Counted == 0 && use.NotCounted[WindowOpen] == 0:
		warnings = append(warnings, fmt.Sprintf("None of the %d outcomes %q counts for %s: %d of them %s.", all, use.Name, metric, use.NotCounted[most], reasonTexts[most]))
	case 2*foreign > all:
		warnings = append(warnings, fmt.Sprintf("%d of the %d outcomes %q are of subjects of another unit than %s, and do not count for %s.", foreign, all, use.Name, s.Unit(), metric))
	}
	return warnings
}

// reasonTexts say why outcomes do not count.
var reasonTexts = map[UncountedReason]string{
	OfOtherUnit: "are of subjects of another unit", OfNeverExposed: "are of subjects that were never exposed",
	OfLeftOut: "are of subjects that are left out", BeforeExposure: "occurred before exposure", AfterWindow: "occurred after the window",
	AfterConclusion: "occurred when counting had ended", DuringPause: "occurred in a pause", ConditionNotMet: "do not meet the conditions",
	WithoutValue: "have no value", WindowOpen: "are of subjects whose window is open",
}
