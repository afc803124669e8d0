package metric

import "github.com/assayhq/assay/internal/experiment"

// guardrail judges a comparison by its interval: it passes by the bound on the bad
// side, also where the interval has no other, and the estimate alone never does.
func guardrail(c *Comparison, direction Direction, margin *experiment.Magnitude) GuardrailVerdict {
	if margin == nil {
		return GuardrailUndecided
	}
	interval := c.Difference
	if margin.Relative {
		interval = c.Lift
	}
	worst, best := interval.Lower, interval.Upper
	if direction == DirectionDecrease {
		worst, best = best, worst
	}
	sign := direction.sign()
	switch {
	case worst != nil && sign**worst >= -margin.Value:
		return GuardrailPassed
	case best != nil && sign**best < -margin.Value:
		return GuardrailFailed
	}
	return GuardrailUndecided
}
