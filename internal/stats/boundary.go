package stats

// Boundary is the size of the statistic from which on the present look of a
// group-sequential test is significant, where subjects are so many that their
// degrees of freedom do not matter. It is nil where no result could be
// significant, and at a look that judges nothing.
func (t Test) Boundary() *float64 {
	if t.silence() != "" {
		return nil
	}
	alpha, twoSided := 1-t.ConfidenceLevel, t.Alternative == TwoSided
	if twoSided {
		alpha /= 2
	}
	return present(t.Schedule.boundary(alpha, twoSided))
}
