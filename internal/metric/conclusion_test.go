package metric

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

func TestObjections(t *testing.T) {
	up, down := 0.1, -0.1
	verdict := func(action Action, variant string) func(*Basis) {
		return func(b *Basis) { b.Verdict = Verdict{Action: action, Variant: variant} }
	}
	// Every figure speaks for mens, and none for womens but for the guardrail's.
	basis := func(changes ...func(*Basis)) *Basis {
		b := &Basis{
			SampleRatio: SampleRatioOK, Direction: DirectionIncrease, Subjects: 1000, Newer: 99,
			Results: []Result{
				{Metric: "spend", Role: experiment.RolePrimary, Objective: experiment.ObjectiveDifference, Comparisons: []Comparison{
					{Variant: "mens", Significant: true, Difference: Interval{Estimate: &up}}, {Variant: "womens"}}},
				{Metric: "visits", Role: experiment.RoleSecondary, Comparisons: []Comparison{{Variant: "mens"}, {Variant: "womens"}}},
				{Metric: "refunds", Role: experiment.RoleGuardrail, Comparisons: []Comparison{
					{Variant: "mens", Guardrail: GuardrailPassed}, {Variant: "womens", Guardrail: GuardrailPassed}}},
			},
		}
		for _, change := range changes {
			change(b)
		}
		return b
	}
	tests := []struct {
		name    string
		shipped string
		on      *Basis
		want    []string
	}{
		{"ships the winner", "mens", basis(verdict(ActionShip, "mens")), nil},
		{"ships another", "womens", basis(verdict(ActionShip, "mens")), []string{
			"The verdict was to ship mens, and womens is shipped.", "womens was not significantly better on spend."}},
		{"ships the control in place of the winner", "none", basis(verdict(ActionShip, "mens")), []string{"The verdict was to ship mens, and none is shipped."}},
		{"ships nothing in place of the winner", "", basis(verdict(ActionShip, "mens")), []string{"The verdict was to ship mens, and nothing is shipped."}},
		{"ships too early", "womens", basis(verdict(ActionKeepRunning, "")), []string{
			"The verdict was to keep running: nothing was decided yet.", "womens was not significantly better on spend."}},
		{"ends too early", "", basis(verdict(ActionKeepRunning, "")), []string{"The verdict was to keep running: nothing was decided yet."}},
		{"rolls back", "none", basis(verdict(ActionRollBack, "")), nil},
		{"rolls back without a word", "", basis(verdict(ActionRollBack, "")), nil},
		{"ships a loser", "mens", basis(verdict(ActionRollBack, ""), func(b *Basis) { b.Results[0].Comparisons[0].Difference.Estimate = &down }), []string{
			"The verdict was to roll back, and mens is shipped.", "mens was significantly worse on spend."}},
		{"ships a loser where less is better", "mens", basis(verdict(ActionRollBack, ""), func(b *Basis) { b.Direction = DirectionDecrease }), []string{
			"The verdict was to roll back, and mens is shipped.", "mens was significantly worse on spend."}},
		{"ships what harms", "mens", basis(verdict(ActionRollBack, ""), func(b *Basis) { b.Results[2].Comparisons[0].Guardrail = GuardrailFailed }), []string{
			"The verdict was to roll back, and mens is shipped.", "mens was beyond the margin of the guardrail refunds."}},
		{"ships what may harm", "mens", basis(verdict(ActionInconclusive, ""), func(b *Basis) { b.Results[2].Comparisons[0].Guardrail = GuardrailUndecided }), []string{
			"The verdict was that the data cannot decide, and mens is shipped.", "mens was not known to keep within the margin of the guardrail refunds."}},
		{"ships from a broken split", "mens", basis(verdict(ActionInconclusive, ""), func(b *Basis) { b.SampleRatio = SampleRatioMismatch }), []string{
			"The verdict was that the data cannot decide, and mens is shipped.", "The sample ratio was broken, so that no figure can be trusted."}},
		{"gives up without a decision", "none", basis(verdict(ActionInconclusive, ""), func(b *Basis) { b.SampleRatio = SampleRatioMismatch }), nil},
		{"ships what was not compared", "kids", basis(verdict(ActionInconclusive, "")), []string{"The verdict was that the data cannot decide, and kids is shipped."}},
		{"no estimate", "mens", basis(verdict(ActionKeepRunning, ""), func(b *Basis) { b.Results[0].Comparisons[0].Difference.Estimate = nil }), []string{
			"The verdict was to keep running: nothing was decided yet.", "mens was not significantly better on spend."}},
		{"ships what is not shown to be no worse", "womens", basis(verdict(ActionKeepRunning, ""), func(b *Basis) { b.Results[0].Objective = experiment.ObjectiveNonInferiority }), []string{
			"The verdict was to keep running: nothing was decided yet.", "The objective of spend was not shown for womens."}},
		{"ships what is no worse, and may harm", "mens", basis(verdict(ActionKeepRunning, ""), func(b *Basis) {
			b.Results[0].Objective, b.Results[0].Comparisons[0].Difference.Estimate = experiment.ObjectiveNonInferiority, &down
			b.Results[2].Comparisons[0].Guardrail = GuardrailUndecided
		}), []string{
			"The verdict was to keep running: nothing was decided yet.", "mens was not known to keep within the margin of the guardrail refunds."}},
		{"on an old analysis", "mens", basis(verdict(ActionShip, "mens"), func(b *Basis) { b.Newer = 100 }), []string{
			"The analysis is old: it knew 1000 subjects, and 100 were exposed since."}},
		{"on an analysis of nobody", "none", basis(verdict(ActionInconclusive, ""), func(b *Basis) { b.Subjects, b.Newer = 0, 1 }), []string{
			"The analysis is old: it knew 0 subjects, and 1 were exposed since."}},
		{"of nobody", "none", basis(verdict(ActionInconclusive, ""), func(b *Basis) { b.Subjects, b.Newer = 0, 0 }), nil},
		{"without an analysis", "mens", nil, []string{"There is no analysis that the decision could rest on."}},
		{"ships nothing without an analysis", "", nil, []string{"There is no analysis that the decision could rest on."}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Objections(tt.shipped, "none", tt.on)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
