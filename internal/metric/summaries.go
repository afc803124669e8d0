package metric

import (
	"errors"
	"fmt"
	"slices"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// Summaries are aggregates that a caller brings, and how to compare them.
type Summaries struct {
	Components  []string // Names, in the order of the means.
	Formula     string   // Empty means the first component.
	Covariates  []string // The components that reduce variance.
	Arms        []SummaryArm
	Plan        experiment.Plan // With its defaults.
	Alternative stats.Alternative
	Margin      stats.Margin
}

// SummaryArm is one variant's aggregates.
type SummaryArm struct {
	Variant string
	Control bool
	Strata  []SummaryStratum // The same ones in every arm, in any order.
}

// SummaryStratum is the aggregates of one stratum of an arm.
type SummaryStratum struct {
	Name     string
	Subjects int64
	Means    []float64
	// Covariances is the upper triangle, row by row, of the sample covariance
	// matrix.
	Covariances []float64
}

// Compare compares the arms as Analyze would: they form one family, corrected
// by the plan. Faults are an InvalidError by the fields of the API's request.
func (s *Summaries) Compare() ([]Arm, []Comparison, error) {
	var bad experiment.InvalidError
	c := contest{control: -1, margin: s.Margin}
	s.readFormula(&c, &bad)
	s.readArms(&c, &bad)
	if err := bad.Err(); err != nil {
		return nil, nil, err
	}
	var err error
	if c.test, err = test(&s.Plan, 2/float64(len(s.Arms)), s.Alternative); err != nil {
		return nil, nil, experiment.Invalid("plan.method", "%s", err)
	}
	arms, comparisons, err := c.compare()
	if err != nil {
		if err := addFaults(&bad, "", err); err != nil {
			return nil, nil, err
		}
		return nil, nil, bad.Err()
	}
	if err := correct(&s.Plan, appendPointers(nil, comparisons)); err != nil {
		return nil, nil, experiment.Invalid("plan.correction", "%s", err)
	}
	return arms, comparisons, nil
}

// readFormula parses the formula and finds the covariates.
func (s *Summaries) readFormula(c *contest, bad *experiment.InvalidError) {
	for _, name := range s.Components {
		c.names = append(c.names, fmt.Sprintf("Component %q", name))
	}
	text := s.Formula
	if text == "" && len(s.Components) > 0 {
		text = s.Components[0]
	}
	expression, err := Parse(text, s.Components)
	if err != nil {
		bad.Join("formula", err)
	}
	c.expression = expression
	for i, name := range s.Covariates {
		component := slices.Index(s.Components, name)
		switch {
		case component < 0:
			bad.Add(fmt.Sprintf("covariates[%d]", i), "there is no component %q", name)
		case slices.Contains(c.covariates, component):
			bad.Add(fmt.Sprintf("covariates[%d]", i), "%q is listed twice", name)
		case expression != nil && expression.uses(component):
			bad.Add(fmt.Sprintf("covariates[%d]", i), "the formula names %q, which then cannot be a covariate", name)
		}
		c.covariates = append(c.covariates, component)
	}
}

// readArms turns the aggregates into moments, the strata of every arm in the
// order of the first arm's.
func (s *Summaries) readArms(c *contest, bad *experiment.InvalidError) {
	controls := 0
	for i := range s.Arms {
		arm := &s.Arms[i]
		if slices.Contains(c.variants, arm.Variant) {
			bad.Add(fmt.Sprintf("arms[%d].variant", i), "%q is the variant of an earlier arm", arm.Variant)
		}
		c.variants = append(c.variants, arm.Variant)
		if arm.Control {
			c.control = i
			controls++
		}
		c.arms = append(c.arms, stats.Arm{Strata: s.readStrata(i, bad)})
	}
	if controls != 1 {
		bad.Add("arms", "exactly one arm must be the control; %d are", controls)
	}
	if len(s.Arms) < 2 {
		bad.Add("arms", "a comparison needs at least two arms")
	}
}

func (s *Summaries) readStrata(i int, bad *experiment.InvalidError) []stats.Moments {
	arm, first := &s.Arms[i], &s.Arms[0]
	if len(arm.Strata) != len(first.Strata) {
		bad.Add(fmt.Sprintf("arms[%d].strata", i), "there are %d, but the first arm has %d; every arm has the same strata", len(arm.Strata), len(first.Strata))
		return nil
	}
	moments := make([]stats.Moments, len(arm.Strata))
	at := make(map[string]int, len(first.Strata))
	for j := range first.Strata {
		at[first.Strata[j].Name] = j
	}
	seen := make(map[string]bool, len(arm.Strata))
	for j := range arm.Strata {
		stratum := &arm.Strata[j]
		path := fmt.Sprintf("arms[%d].strata[%d]", i, j)
		position, ok := at[stratum.Name]
		switch {
		case seen[stratum.Name]:
			bad.Add(path+".stratum", "%q is the name of an earlier stratum", stratum.Name)
			continue
		case !ok:
			bad.Add(path+".stratum", "the first arm has no stratum %q", stratum.Name)
			continue
		case len(stratum.Means) != len(s.Components):
			bad.Add(path+".means", "there are %d for %d components", len(stratum.Means), len(s.Components))
			continue
		}
		seen[stratum.Name] = true
		m, err := stats.FromSummary(stratum.Subjects, stratum.Means, stratum.Covariances)
		if err != nil {
			addFaults(bad, path, err)
			continue
		}
		moments[position] = m
	}
	return moments
}

// addFaults adds what stats refuses under a path, and returns any other error
// as it is. Faults of a test are those of the plan.
func addFaults(bad *experiment.InvalidError, path string, err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if err := addFaults(bad, path, e); err != nil {
				return err
			}
		}
		return nil
	}
	var fault stats.InvalidError
	if !errors.As(err, &fault) {
		return err
	}
	field := fault.Field
	switch {
	case path != "":
		field = path + "." + field
	case field == "method", field == "confidence_level", field == "planned_subjects":
		field = "plan." + field
	}
	bad.Add(field, "%s", fault.Reason)
	return nil
}
