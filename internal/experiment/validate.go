package experiment

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
)

var keyPattern = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)

// ValidKey says whether s can be the key of an experiment, variant or metric.
func ValidKey(s string) bool { return keyPattern.MatchString(s) }

// Validate checks the rules that hold across a definition's fields, and
// returns an InvalidError that names every field at fault, as the API spells
// them. Rules on single fields (lengths, patterns, ranges) stand in the API's
// schema; whether metrics exist and whether the eligibility compiles is for
// the packages that know.
func (d *Definition) Validate() error {
	var bad InvalidError
	d.validateVariants(&bad)
	if d.Salt == "" {
		bad.Add("salt", "must not be empty")
	}
	if !(d.Traffic >= 0 && d.Traffic <= 1) {
		bad.Add("traffic", "must be from 0 to 1")
	}
	if d.External && d.Layer != "" {
		bad.Add("layer", "an experiment that is assigned elsewhere cannot be in a layer")
	}
	if d.External && d.Sticky {
		bad.Add("sticky", "an experiment that is assigned elsewhere cannot be sticky")
	}
	if d.IntakeClosed && !d.Sticky {
		bad.Add("intake_closed", "only a sticky experiment has an intake to close")
	}
	d.validateCovariates(&bad)
	d.validateMetrics(&bad)
	if m := d.Plan.MinimumEffect; m != nil && !(m.Value > 0) {
		bad.Add("plan.minimum_effect", "must be greater than 0")
	}
	if d.Plan.Method == MethodGroupSequential && d.Plan.PlannedSubjects == 0 {
		bad.Add("plan.planned_subjects", "a group-sequential plan needs them: its looks are shares of them")
	}
	bad.Join("plan", d.Plan.Validate())
	if by := d.Plan.StratifyBy; by != "" && !slices.Contains(d.KeptAttributes(), by) {
		bad.Add("plan.stratify_by", "%q is not kept with exposures: it is neither a segment nor the attribute of a covariate", by)
	}
	return bad.Err()
}

// Validate checks the rules that a plan has by itself; its violations are
// relative to it.
func (p *Plan) Validate() error {
	var bad InvalidError
	if p.Spending != "" && p.Method != MethodGroupSequential {
		bad.Add("spending", "only a group-sequential plan spends its error rate")
	}
	switch {
	case p.Prior == nil:
	case p.Method != MethodBayesian:
		bad.Add("prior", "only a Bayesian plan has a prior")
	case p.Prior.LiftMean != 0 && p.Prior.LiftDeviation == 0:
		bad.Add("prior.lift_mean", "says nothing without lift_standard_deviation")
	}
	return bad.Err()
}

func (d *Definition) validateVariants(bad *InvalidError) {
	controls, total := 0, int64(0)
	seen := map[string]bool{}
	for i, v := range d.Variants {
		if seen[v.Key] {
			bad.Add(fmt.Sprintf("variants[%d].key", i), "%q is the key of an earlier variant", v.Key)
		}
		seen[v.Key] = true
		if v.Control {
			controls++
		}
		total += int64(v.Weight)
	}
	switch {
	case controls == 0:
		bad.Add("variants", "exactly one variant must be the control; none is")
	case controls > 1:
		bad.Add("variants", "exactly one variant must be the control; %d are", controls)
	}
	if total <= 0 {
		bad.Add("variants", "the weights add up to 0; at least one must be greater")
	}
}

func (d *Definition) validateCovariates(bad *InvalidError) {
	seen := map[string]bool{}
	for i, c := range d.Covariates {
		field := fmt.Sprintf("covariates[%d]", i)
		if c.Name == "" {
			bad.Add(field+".name", "must not be empty")
		} else if seen[c.Name] {
			bad.Add(field+".name", "%q is the name of an earlier covariate", c.Name)
		}
		seen[c.Name] = true
		if c.Past != nil {
			validateConditions(bad, field+".past_outcomes", c.Past.Conditions)
		}
	}
}

func (d *Definition) validateMetrics(bad *InvalidError) {
	names := map[string]bool{}
	for _, c := range d.Covariates {
		names[c.Name] = true
	}
	primaries := 0
	seen := map[string]bool{}
	for i, m := range d.Metrics {
		field := fmt.Sprintf("metrics[%d]", i)
		if seen[m.Metric] {
			bad.Add(field+".metric", "%q is listed twice", m.Metric)
		}
		seen[m.Metric] = true
		if m.Role == RolePrimary {
			if primaries++; primaries == 2 {
				bad.Add(field+".role", "only one metric can be the primary one")
			}
		}
		m.validateObjective(bad, field)
		for j, name := range m.Covariates {
			if !names[name] {
				bad.Add(fmt.Sprintf("%s.covariates[%d]", field, j), "the experiment has no covariate %q", name)
			}
		}
	}
}

// validateObjective checks the objective and its margin. A guardrail's margin
// may be 0: it must not get worse at all.
func (m *MetricUse) validateObjective(bad *InvalidError, field string) {
	if m.Role == RoleGuardrail {
		if m.Objective != "" {
			bad.Add(field+".objective", "a guardrail is for non-inferiority")
		}
		if m.Margin == nil {
			bad.Add(field+".margin", "a guardrail needs a margin")
		}
		return
	}
	switch hasMargin := m.Objective.HasMargin(); {
	case hasMargin && (m.Margin == nil || !(m.Margin.Value > 0)):
		bad.Add(field+".margin", "this objective needs a margin greater than 0")
	case !hasMargin && m.Margin != nil:
		bad.Add(field+".margin", "only guardrails, non-inferiority and equivalence have a margin")
	}
}

// Validate checks a component's conditions and cap; its violations are relative
// to it.
func (c *Component) Validate() error {
	var bad InvalidError
	validateConditions(&bad, "", c.Conditions)
	if c.Cap != nil {
		c.Cap.validate(&bad)
	}
	return bad.Err()
}

func (c *Cap) validate(bad *InvalidError) {
	switch {
	case c.Lower == nil && c.Upper == nil:
		bad.Add("cap", "needs a bound")
	case c.IgnoreZeros && !c.ByPercentile():
		bad.Add("cap.ignore_zeros", "only percentiles can ignore zeros")
	}
	if c.Lower == nil || c.Upper == nil || c.Lower.Percentile != c.Upper.Percentile {
		return
	}
	switch {
	case c.Upper.Percentile && c.Upper.Value <= c.Lower.Value:
		bad.Add("cap.upper_percentile", "must be above the lower one, %v", c.Lower.Value)
	case c.Upper.Value < c.Lower.Value:
		bad.Add("cap.upper_value", "must not be below the lower one, %v", c.Lower.Value)
	}
}

func validateConditions(bad *InvalidError, prefix string, conditions []Condition) {
	if prefix != "" {
		prefix += "."
	}
	for i, c := range conditions {
		field := fmt.Sprintf("%sconditions[%d].values", prefix, i)
		equality := c.Op == OpEqual || c.Op == OpNotEqual
		if !equality && len(c.Values) != 1 {
			bad.Add(field, "this operator compares with exactly one value, not %d", len(c.Values))
		}
		if equality && c.Field != FieldValue {
			continue
		}
		for j, v := range c.Values {
			if x, err := strconv.ParseFloat(v, 64); err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
				bad.Add(fmt.Sprintf("%s[%d]", field, j), "%q is not a number", v)
			}
		}
	}
}
