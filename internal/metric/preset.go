package metric

import "github.com/assayhq/assay/internal/experiment"

// The constructors below make the definitions that have a name of their own.
// Each is recovered from its Kind and Components: the outcome and conditions
// of a proportion, mean or sum are those of its first component, and a ratio
// is its first component over its second.

// Proportion is the share of subjects with at least one of the outcomes.
func Proportion(outcome string, conditions []experiment.Condition) Definition {
	return Definition{
		Kind:       KindProportion,
		Expression: "any",
		Components: []experiment.Component{
			{Name: "any", Outcome: outcome, Aggregate: experiment.AggregateAny, Conditions: conditions},
		},
	}
}

// Sum is the mean over subjects of each subject's summed values.
func Sum(outcome string, conditions []experiment.Condition) Definition {
	return Definition{
		Kind:       KindSum,
		Expression: "sum",
		Components: []experiment.Component{
			{Name: "sum", Outcome: outcome, Aggregate: experiment.AggregateSum, Conditions: conditions},
		},
	}
}

// Mean is the sum of all values over their number. An outcome without a value does
// not count: see meanCounts.
func Mean(outcome string, conditions []experiment.Condition) Definition {
	return Definition{
		Kind:       KindMean,
		Expression: "sum / count",
		Components: []experiment.Component{
			{Name: "sum", Outcome: outcome, Aggregate: experiment.AggregateSum, Conditions: conditions},
			{Name: "count", Outcome: outcome, Aggregate: experiment.AggregateCount, Conditions: conditions},
		},
	}
}

// Ratio is one component's mean over another's. A component without a name
// gets the name of its place.
func Ratio(numerator, denominator experiment.Component) Definition {
	if numerator.Name == "" {
		numerator.Name = "numerator"
	}
	if denominator.Name == "" {
		denominator.Name = "denominator"
	}
	return Definition{
		Kind:       KindRatio,
		Expression: numerator.Name + " / " + denominator.Name,
		Components: []experiment.Component{numerator, denominator},
	}
}

// Formula is any expression over components.
func Formula(expression string, components []experiment.Component) Definition {
	return Definition{Kind: KindFormula, Expression: expression, Components: components}
}
