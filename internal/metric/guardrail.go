package metric

import "github.com/assayhq/assay/internal/experiment"

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
