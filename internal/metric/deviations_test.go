package metric

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

// TestDeviations tries every departure alone, and what is none.
func TestDeviations(t *testing.T) {
	fixed, always := experiment.MethodFixedHorizon, experiment.MethodAlwaysValid
	changed := experiment.Deviation{Reason: "WEIGHTS_CHANGED", Message: "m"}
	tests := []struct {
		name    string
		method  experiment.Method
		planned int64
		change  func(*Analysis, *Course) // Of an analysis of 300 subjects that nothing is to be said of.
		want    string                   // The reason, and a part of its message.
	}{
		{"nothing", fixed, 300, func(*Analysis, *Course) {}, ""},
		{"a changed experiment", fixed, 300, func(_ *Analysis, c *Course) { c.Changes = []experiment.Deviation{changed} }, "WEIGHTS_CHANGED m"},
		{"one early look", fixed, 300, func(_ *Analysis, c *Course) { c.EarlyLooks = 1 }, "LOOKS_BEFORE_HORIZON looked at once before the 300 planned"},
		{"early looks", fixed, 300, func(_ *Analysis, c *Course) { c.EarlyLooks = 3 }, "LOOKS_BEFORE_HORIZON looked at 3 times before"},
		{"early looks that are allowed", always, 300, func(_ *Analysis, c *Course) { c.EarlyLooks = 3 }, ""},
		{"a look before no horizon", fixed, 0, func(_ *Analysis, c *Course) { c.EarlyLooks = 1 }, "REPEATED_LOOKS looked at once before"},
		{"looks before no horizon", fixed, 0, func(_ *Analysis, c *Course) { c.EarlyLooks = 3 }, "REPEATED_LOOKS looked at 3 times before"},
		{"looks that are allowed before no horizon", always, 0, func(_ *Analysis, c *Course) { c.EarlyLooks = 3 }, ""},
		{"long after the horizon", fixed, 250, func(*Analysis, *Course) {}, "PLANNED_SUBJECTS_EXCEEDED 300 subjects were analysed of 250"},
		{"after the horizon", fixed, 275, func(*Analysis, *Course) {}, ""},
		{"long after a size that binds nobody", always, 250, func(*Analysis, *Course) {}, ""},
		{"after no horizon", fixed, 0, func(*Analysis, *Course) {}, ""},
		{"ended early", always, 301, func(a *Analysis, c *Course) { c.Concluded, a.Verdict.Action = true, ActionKeepRunning }, "ENDED_EARLY 300 of 301"},
		{"ended early at a fixed horizon", fixed, 301, func(a *Analysis, c *Course) { c.Concluded, a.Verdict.Action = true, ActionKeepRunning }, "ENDED_EARLY 300 of 301"},
		{"not ended", always, 301, func(a *Analysis, _ *Course) { a.Verdict.Action = ActionKeepRunning }, ""},
		{"ended with a winner", always, 301, func(_ *Analysis, c *Course) { c.Concluded = true }, ""},
		{"ended at the size, with open windows", fixed, 300, func(a *Analysis, c *Course) {
			c.Concluded, a.Verdict.Action, a.Metrics[0].Arms[0].Subjects = true, ActionKeepRunning, 50
		}, ""},
		{"pinned subjects", always, 300, func(a *Analysis, _ *Course) { a.Exclusions.Overridden = 1 }, "OVERRIDES 1 subject was pinned"},
		{"another metric", always, 300, func(a *Analysis, _ *Course) { a.Metrics = append(a.Metrics, Result{Metric: "stay"}) }, "METRIC_NOT_PLANNED metric stay"},
		{"no primary metric", fixed, 250, func(a *Analysis, _ *Course) { a.Metrics[0].Role = experiment.RoleSecondary }, ""},
		{"no metric", fixed, 250, func(a *Analysis, _ *Course) { a.Metrics = nil }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := definition("control", "short")
			d.Plan.Method, d.Plan.PlannedSubjects = tt.method, tt.planned
			s := mustStudy(t, d, []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
			a := &Analysis{
				SampleRatio: SampleRatio{Observed: map[string]int64{"control": 100, "short": 200}},
				Metrics:     []Result{{Metric: "revenue", Role: experiment.RolePrimary, Arms: []Arm{{Subjects: 100}, {Subjects: 200}}}},
				Verdict:     Verdict{Action: ActionShip, Variant: "short"},
			}
			var course Course
			tt.change(a, &course)
			got := s.Deviations(a, course)
			if tt.want == "" {
				if len(got) > 0 {
					t.Errorf("deviations %v, want none", got)
				}
				return
			}
			reason, part, _ := strings.Cut(tt.want, " ")
			if len(got) != 1 || got[0].Reason != reason || !strings.Contains(got[0].Message, part) {
				t.Errorf("deviations %v, want %s", got, tt.want)
			}
		})
	}
}

// Several departures are all told, those of the experiment first, and the caller's
// list stays as it is.
func TestDeviationsTogether(t *testing.T) {
	d := definition("control", "short")
	d.Plan.Method, d.Plan.PlannedSubjects = experiment.MethodFixedHorizon, 100
	s := mustStudy(t, d, []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)}, "device", "past_spend")
	changes := make([]experiment.Deviation, 1, 8)
	changes[0].Reason = "RESHUFFLED"
	a := &Analysis{
		Exclusions: Exclusions{Overridden: 2},
		Metrics: []Result{{Metric: "revenue", Role: experiment.RolePrimary, Arms: []Arm{{Subjects: 900}}},
			{Metric: "stay"}, {Metric: "visits", Role: experiment.RoleSecondary}, {Metric: "clicks"}},
	}
	for range 2 {
		var reasons []string
		for _, d := range s.Deviations(a, Course{Changes: changes, EarlyLooks: 2}) {
			reasons = append(reasons, d.Reason)
		}
		want := []string{"RESHUFFLED", "LOOKS_BEFORE_HORIZON", "PLANNED_SUBJECTS_EXCEEDED", "OVERRIDES", "METRIC_NOT_PLANNED", "METRIC_NOT_PLANNED", "SEGMENT_NOT_PLANNED"}
		if diff := cmp.Diff(want, reasons); diff != "" {
			t.Errorf("reasons (-want +got):\n%s", diff)
		}
	}
}
