package stats

// A Formula is the estimand as a smooth function of component means. It
// returns its value and its gradient there; the gradient is as long as means,
// and is 0 for components that the formula does not use, covariates among
// them. Where it is undefined (a division by zero) it returns a NaN or an
// infinity, which [Compare] turns into a note. It must not keep or change means.
type Formula func(means []float64) (value float64, gradient []float64)

// ComponentMean is the formula of a plain mean: component i itself.
func ComponentMean(i int) Formula {
	return func(means []float64) (float64, []float64) {
		gradient := make([]float64, len(means))
		gradient[i] = 1
		return means[i], gradient
	}
}

// ComponentRatio is the formula of a ratio of two means, component i over
// component j.
func ComponentRatio(i, j int) Formula {
	return func(means []float64) (float64, []float64) {
		gradient := make([]float64, len(means))
		ratio := means[i] / means[j]
		gradient[i] = 1 / means[j]
		gradient[j] -= ratio / means[j]
		return ratio, gradient
	}
}
