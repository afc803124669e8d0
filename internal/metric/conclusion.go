package metric

import (
	"fmt"

	"github.com/assayhq/assay/internal/experiment"
)

// Basis is the analysis that a decision rests on.
type Basis struct {
	Verdict     Verdict
	SampleRatio SampleRatioVerdict
	// Results are those that judge: of the latest look where the plan has looks, and
	// none before the first. Of them the roles and the comparisons count.
	Results   []Result
	Direction Direction // Of the primary metric.
	Subjects  int64     // That it knew, whatever their windows.
	Newer     int64     // That were exposed since.
}

// stale is the number of subjects that an analysis must at least know for each
// one that came after it. An experiment that runs has always a few newer ones.
const stale = 10

// Objections lists how a decision to ship a variant (empty: none) goes against its
// basis (nil: none). What follows the verdict of a recent analysis has none.
func Objections(shipped, control string, on *Basis) []string {
	if on == nil {
		return []string{"There is no analysis that the decision could rest on."}
	}
	var list []string
	object := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	treatment := shipped != "" && shipped != control
	what := shipped
	if shipped == "" {
		what = "nothing"
	}
	switch on.Verdict.Action {
	case ActionShip:
		if shipped != on.Verdict.Variant {
			object("The verdict was to ship %s, and %s is shipped.", on.Verdict.Variant, what)
		}
	case ActionKeepRunning:
		object("The verdict was to keep running: nothing was decided yet.")
	case ActionRollBack:
		if treatment {
			object("The verdict was to roll back, and %s is shipped.", what)
		}
	case ActionInconclusive:
		if treatment {
			object("The verdict was that the data cannot decide, and %s is shipped.", what)
		}
	}
	if treatment && len(list) > 0 {
		list = append(list, on.against(shipped)...)
	}
	if on.Newer > 0 && on.Newer*stale >= on.Subjects {
		object("The analysis is old: it knew %d subjects, and %d were exposed since.", on.Subjects, on.Newer)
	}
	return list
}

// against lists what the figures have against a treatment that the verdict does
// not ship.
func (on *Basis) against(treatment string) []string {
	var list []string
	object := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if on.SampleRatio == SampleRatioMismatch {
		object("The sample ratio was broken, so that no figure can be trusted.")
	}
	for i := range on.Results {
		result := &on.Results[i]
		c := result.of(treatment)
		if c == nil {
			continue
		}
		switch {
		case result.Role == experiment.RolePrimary:
			list = append(list, on.shown(result, c)...)
		case c.Guardrail == GuardrailFailed:
			object("%s was beyond the margin of the guardrail %s.", treatment, result.Metric)
		case c.Guardrail == GuardrailUndecided:
			object("%s was not known to keep within the margin of the guardrail %s.", treatment, result.Metric)
		}
	}
	return list
}

// shown says what is missing in a treatment's comparison on the primary metric.
func (on *Basis) shown(primary *Result, c *Comparison) []string {
	better, worse := sides(c, on.Direction.sign())
	switch {
	case primary.Objective != experiment.ObjectiveDifference && !c.Significant:
		return []string{fmt.Sprintf("The objective of %s was not shown for %s.", primary.Metric, c.Variant)}
	case primary.Objective != experiment.ObjectiveDifference || c.Significant && better:
		return nil
	case c.Significant && worse:
		return []string{fmt.Sprintf("%s was significantly worse on %s.", c.Variant, primary.Metric)}
	}
	return []string{fmt.Sprintf("%s was not significantly better on %s.", c.Variant, primary.Metric)}
}

// of returns the comparison of a treatment, nil if there is none.
func (r *Result) of(treatment string) *Comparison {
	for i := range r.Comparisons {
		if r.Comparisons[i].Variant == treatment {
			return &r.Comparisons[i]
		}
	}
	return nil
}
