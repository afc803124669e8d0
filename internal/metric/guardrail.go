package metric

import (
	"fmt"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// margin is the effect that a metric is tested against: none, or for a
// guardrail its margin in the bad direction. So a guardrail's p-value and its
// interval say the same about the margin.
func (m *compiled) margin() stats.Margin {
	if m.Role != experiment.RoleGuardrail || m.Margin == nil {
		return stats.Margin{}
	}
	margin := stats.Margin{Value: -m.Metric.Definition.Direction.sign() * m.Margin.Value}
	if m.Margin.Relative {
		margin.Scale = stats.Relative
	}
	return margin
}

// guardrail judges a comparison by its whole interval: the estimate alone
// never passes.
func guardrail(c *Comparison, direction Direction, margin *experiment.Magnitude) GuardrailVerdict {
	if margin == nil {
		return GuardrailUndecided
	}
	interval := c.Difference
	if margin.Relative {
		interval = c.Lift
	}
	if interval.Lower == nil || interval.Upper == nil {
		return GuardrailUndecided
	}
	worst, best := *interval.Lower, *interval.Upper
	if direction == DirectionDecrease {
		worst, best = -best, -worst
	}
	switch {
	case worst >= -margin.Value:
		return GuardrailPassed
	case best < -margin.Value:
		return GuardrailFailed
	}
	return GuardrailUndecided
}

// marginNote says what a guardrail's p-value is of.
func marginNote(margin stats.Margin) string {
	if margin.Scale == stats.Relative {
		return fmt.Sprintf("The p-value is of a test against the margin, a lift of %+.6g.", margin.Value)
	}
	return fmt.Sprintf("The p-value is of a test against the margin, a difference of %+.6g.", margin.Value)
}
