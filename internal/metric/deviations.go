package metric

import (
	"fmt"
	"slices"
	"strings"

	"github.com/assayhq/assay/internal/experiment"
)

// Course is what happened to an experiment beside what its subjects did.
type Course struct {
	// Changes are the deviations of the experiment itself.
	Changes []experiment.Deviation
	// Concluded says that it had been concluded by the moment of the analysis.
	Concluded bool
	// EarlyLooks counts the moments that other analyses had looked at before the
	// planned subjects had been analysed, or at all if none are planned.
	EarlyLooks int64
}

// tolerated is how many times the planned subjects may have been analysed at a
// fixed horizon: an analysis seldom meets its size exactly.
const tolerated = 1.1

// Deviations lists how the experiment and this analysis of it departed from the
// sealed plan. A departure by which a verdict is more often wrong joins its reasons.
func (s *Study) Deviations(a *Analysis, course Course) []experiment.Deviation {
	list := slices.Clone(course.Changes)
	add := func(reason, format string, args ...any) {
		list = append(list, experiment.Deviation{Reason: reason, Message: fmt.Sprintf(format, args...)})
	}
	plan := &s.definition.Plan
	fixed := plan.Method == experiment.MethodFixedHorizon && plan.PlannedSubjects > 0
	if fixed && course.EarlyLooks > 0 {
		add("LOOKS_BEFORE_HORIZON", "The figures had been looked at %s before the %d planned subjects had been analysed: a fixed horizon is one look, at the planned size.",
			times(course.EarlyLooks), plan.PlannedSubjects)
	}
	if plan.Method == experiment.MethodFixedHorizon && plan.PlannedSubjects == 0 && course.EarlyLooks > 0 {
		if a.Verdict.Action == ActionShip || a.Verdict.Action == ActionRollBack {
			a.Verdict.Reasons = append(a.Verdict.Reasons, fmt.Sprintf("But the figures had been looked at %s before, and a fixed horizon keeps its error rate for one look: this verdict is more often wrong than the plan says.", times(course.EarlyLooks)))
		}
		add("REPEATED_LOOKS", "The figures had been looked at %s before, and the plan names no size at which they count: p-values and intervals at a fixed horizon hold for one look.",
			times(course.EarlyLooks))
	}
	if n := a.Analysed(); fixed && float64(n) > tolerated*float64(plan.PlannedSubjects) {
		add("PLANNED_SUBJECTS_EXCEEDED", "%d subjects were analysed of %d planned: a fixed horizon decides at the planned size.", n, plan.PlannedSubjects)
	}
	if n := a.exposed() - a.withoutOutcome(); course.Concluded && n < plan.PlannedSubjects && (a.Verdict.Ended || a.Verdict.Action == ActionKeepRunning) {
		add("ENDED_EARLY", "The experiment was concluded with %d of %d planned subjects exposed%s, and undecided.", n, plan.PlannedSubjects, besides(a.withoutOutcome()))
	}
	if n := a.Exclusions.Overridden; n > 0 {
		add("OVERRIDES", "%s pinned to a variant at some time, and left out.", subjects(n))
	}
	for _, e := range a.Exclusions.ByReason {
		if e.Reason == ExclusionRemovedVariant {
			add("REMOVED_VARIANT", "%s.", e.sentence())
		}
	}
	if s.conduct.ExcludePauses && a.Pauses > 0 {
		add("PAUSES_EXCLUDED", "What happened in the experiment's %s was left out, of all variants alike: the plan does not say so.", plural(a.Pauses, "pause"))
	}
	for i := range a.Metrics {
		if a.Metrics[i].Role == "" {
			add("METRIC_NOT_PLANNED", "The plan does not name the metric %s: it is exploratory.", a.Metrics[i].Metric)
		}
	}
	for _, name := range s.segments {
		if !slices.Contains(s.definition.Segments, name) {
			add("SEGMENT_NOT_PLANNED", "The plan does not name the segment %s.", name)
		}
	}
	return list
}

// Analysed counts the subjects on whom the primary metric was analysed; 0
// without one.
func (a *Analysis) Analysed() (n int64) {
	if len(a.Metrics) == 0 || a.Metrics[0].Role != experiment.RolePrimary {
		return 0
	}
	for i := range a.Metrics[0].Arms {
		n += a.Metrics[0].Arms[i].Subjects
	}
	return n
}

// withoutOutcome counts those of the exposed who cannot count for the primary metric, as
// they have no outcome to be of.
func (a *Analysis) withoutOutcome() (n int64) {
	if len(a.Metrics) > 0 && a.Metrics[0].Role == experiment.RolePrimary {
		for _, left := range a.Metrics[0].LeftOut {
			if left.Reason == NoOutcome {
				n += left.all()
			}
		}
	}
	return n
}

// ofExposed says how many were exposed, and why not all of them were analysed on the
// primary metric; empty if all were.
func (a *Analysis) ofExposed() string {
	primary, exposed := &a.Metrics[0], a.exposed()
	var why []string
	if n := primary.OpenWindows; n > 0 {
		why = append(why, fmt.Sprintf("%d whose window is open", n))
	}
	for _, left := range primary.LeftOut {
		if text := map[LeftOutReason]string{NoOutcome: "without an outcome for it", Moved: "moved while their window was open"}[left.Reason]; text != "" {
			why = append(why, fmt.Sprintf("%d %s", left.all(), text))
		}
	}
	if len(why) == 0 || exposed <= a.Analysed() {
		return ""
	}
	return fmt.Sprintf(" of %d exposed (not counted for %s: %s)", exposed, primary.Metric, strings.Join(why, ", "))
}

// exposed counts the subjects that were not left out, whatever their windows.
func (a *Analysis) exposed() (n int64) {
	for _, observed := range a.SampleRatio.Observed {
		n += observed
	}
	return n
}

// besides says that some were exposed who cannot count.
func besides(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", besides %d without an outcome for the primary metric", n)
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
