package experiment

import "testing"

// TestSealPlan holds the hash of a plan that was sealed before fields were
// added: stored plans keep theirs.
func TestSealPlan(t *testing.T) {
	d := &Definition{
		Unit: "user", Segments: []string{"country"}, Salt: "s", Traffic: 1,
		Variants:   []Variant{{Key: "control", Control: true, Weight: 1}, {Key: "short", Weight: 2}},
		Covariates: []Covariate{{Name: "past", Past: &PastOutcomes{Component: Component{Outcome: "purchase", Aggregate: AggregateSum}, Window: 3600}}},
		Metrics:    []MetricUse{{Metric: "revenue", Role: RolePrimary, Covariates: []string{"past"}}},
		Plan:       Plan{Method: MethodAlwaysValid, ConfidenceLevel: 0.95, Correction: CorrectionHolm, PlannedSubjects: 20000},
	}
	const want = "b5dac730a27c8fd26cff92f5228c005923f052befb38b57a02a75e284a52a3ad"
	if got := d.SealPlan(map[string]int32{"revenue": 1}); got != want {
		t.Errorf("the plan's hash is %s, want %s", got, want)
	}
}
