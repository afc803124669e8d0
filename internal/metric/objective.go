package metric

import (
	"fmt"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// question is what a metric's objective asks of a comparison. The objective
// speaks of better and worse, the question of more and less. A guardrail's
// interval is two-sided, and its p-value is of the margin on the bad side, so
// that both say the same about the margin.
func (m *compiled) question() (stats.Alternative, stats.Margin) {
	better := stats.Greater
	if m.Metric.Definition.Direction == DirectionDecrease {
		better = stats.Less
	}
	margin := m.margin()
	switch {
	case m.Objective == experiment.ObjectiveEquivalence:
		return stats.Equivalent, margin
	case m.Objective == experiment.ObjectiveNonInferiority && m.Role != experiment.RoleGuardrail,
		m.Objective == experiment.ObjectiveSuperiority:
		return better, margin
	}
	return stats.TwoSided, margin
}

// margin is the effect that a metric is tested against, signed: none, or the
// objective's margin, which for non-inferiority is on the bad side.
func (m *compiled) margin() stats.Margin {
	if m.Margin == nil || !m.Objective.HasMargin() {
		return stats.Margin{}
	}
	margin := stats.Margin{Value: m.Margin.Value}
	if m.Margin.Relative {
		margin.Scale = stats.Relative
	}
	if m.Objective == experiment.ObjectiveNonInferiority && margin.Value != 0 { // Or it would be −0.
		margin.Value *= -m.Metric.Definition.Direction.sign()
	}
	return margin
}

// marginNote says what a p-value or a chance to win is of that has a margin.
func marginNote(objective experiment.Objective, method stats.Method, margin stats.Margin) string {
	scale := "difference"
	if margin.Scale == stats.Relative {
		scale = "lift"
	}
	if method == stats.Bayesian {
		if objective == experiment.ObjectiveEquivalence {
			return fmt.Sprintf("The chance to win is that of a %s between %+.6g and %+.6g.", scale, -margin.Value, margin.Value)
		}
		return fmt.Sprintf("The chance to win is that of a %s better than the margin, %+.6g.", scale, margin.Value)
	}
	if objective == experiment.ObjectiveEquivalence {
		return fmt.Sprintf("The p-value is the larger of two, of tests against the margins, a %s of %+.6g and of %+.6g.", scale, -margin.Value, margin.Value)
	}
	return fmt.Sprintf("The p-value is of a test against the margin, a %s of %+.6g.", scale, margin.Value)
}
