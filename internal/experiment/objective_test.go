package experiment

import (
	"errors"
	"strings"
	"testing"
)

// guarded is a definition with a metric in every role.
func guarded() *Definition {
	return &Definition{
		Unit: "user", Salt: "s", Traffic: 1, Segments: []string{"country"},
		Variants: []Variant{{Key: "control", Control: true, Weight: 1}, {Key: "short", Weight: 1}},
		Metrics: []MetricUse{
			{Metric: "revenue", Role: RolePrimary}, {Metric: "visits", Role: RoleSecondary},
			{Metric: "refunds", Role: RoleGuardrail, Margin: &Magnitude{Value: 0.01}},
		},
		Plan: Plan{Method: MethodAlwaysValid, ConfidenceLevel: 0.95, Correction: CorrectionHolm, PlannedSubjects: 1000},
	}
}

// TestSealIsStable holds that a plan that was sealed keeps its hash, whatever is
// added to plans. The hash was computed before plans had objectives.
func TestSealIsStable(t *testing.T) {
	const want = "78378132a10f4a5f06e6bdfebdf1eb5353a5a7487a8f55ef9fb6c1a4fe23885d"
	if got := guarded().SealPlan(map[string]int32{"revenue": 1, "visits": 2, "refunds": 3}); got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
}

func TestValidatePrior(t *testing.T) {
	for want, plan := range map[string]Plan{
		"": {Method: MethodBayesian, Prior: &Prior{Alpha: 1, Beta: 1, LiftMean: 0.1, LiftDeviation: 0.2}},
		"plan.prior: only a Bayesian plan has a prior":                       {Method: MethodAlwaysValid, Prior: &Prior{Alpha: 1, Beta: 1}},
		"plan.prior.lift_mean: says nothing without lift_standard_deviation": {Method: MethodBayesian, Prior: &Prior{Alpha: 1, Beta: 1, LiftMean: 0.1}},
	} {
		d := guarded()
		d.Plan = plan
		if err := d.Validate(); (err != nil) != (want != "") || err != nil && err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestValidateObjectives(t *testing.T) {
	margin, zero := &Magnitude{Value: 0.1}, &Magnitude{Relative: true}
	tests := []struct {
		name      string
		role      Role
		objective Objective
		margin    *Magnitude
		want      string // Field and part of the message; empty: valid.
	}{
		{"nothing said", RolePrimary, "", nil, ""},
		{"superiority", RoleSecondary, ObjectiveSuperiority, nil, ""},
		{"non-inferiority", RolePrimary, ObjectiveNonInferiority, margin, ""},
		{"equivalence", RolePrimary, ObjectiveEquivalence, margin, ""},
		{"guardrail", RoleGuardrail, "", margin, ""},
		{"guardrail that must not get worse at all", RoleGuardrail, "", zero, ""},
		{"superiority with a margin", RolePrimary, ObjectiveSuperiority, margin, "metrics[0].margin: only guardrails, non-inferiority and equivalence"},
		{"difference with a margin", RolePrimary, "", margin, "metrics[0].margin: only guardrails"},
		{"non-inferiority without a margin", RolePrimary, ObjectiveNonInferiority, nil, "metrics[0].margin: this objective needs a margin greater than 0"},
		{"equivalence with a margin of 0", RoleSecondary, ObjectiveEquivalence, zero, "metrics[0].margin: this objective needs a margin greater than 0"},
		{"guardrail without a margin", RoleGuardrail, "", nil, "metrics[0].margin: a guardrail needs a margin"},
		{"guardrail for something else", RoleGuardrail, ObjectiveEquivalence, margin, "metrics[0].objective: a guardrail is for non-inferiority"},
	}
	for _, tt := range tests {
		d := guarded()
		d.Metrics = []MetricUse{{Metric: "revenue", Role: tt.role, Objective: tt.objective, Margin: tt.margin}}
		err := d.Validate()
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		var invalid *InvalidError
		if !errors.As(err, &invalid) || len(invalid.Violations) != 1 || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}
