package metric

import (
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/google/go-cmp/cmp"
)

const week = 7 * 24 * time.Hour

// definition is an experiment with a control, a treatment, and whatever the
// tests need beside.
func definition(variants ...string) *experiment.Definition {
	d := &experiment.Definition{
		Unit: "user", Salt: "s", Traffic: 1,
		Segments: []string{"country", "device"},
		Covariates: []experiment.Covariate{
			{Name: "spend", Attribute: "past_spend"},
			{Name: "visits", Past: &experiment.PastOutcomes{
				Component: experiment.Component{Outcome: "visit", Aggregate: experiment.AggregateCount}, Window: week,
			}},
		},
		Plan: experiment.Plan{
			Method: experiment.MethodFixedHorizon, ConfidenceLevel: 0.95, Correction: experiment.CorrectionHolm,
		},
	}
	for i, key := range variants {
		d.Variants = append(d.Variants, experiment.Variant{Key: key, Control: i == 0, Weight: 1})
	}
	return d
}

// use is a metric in a role, with no window.
func use(key string, d Definition, role experiment.Role, covariates ...string) Use {
	if d.Direction == "" {
		d.Direction = DirectionIncrease
	}
	return Use{Metric: Metric{Key: key, Revision: 1, Definition: d}, Role: role, Covariates: covariates}
}

func mustStudy(t testing.TB, d *experiment.Definition, uses []Use, segments ...string) *Study {
	t.Helper()
	s, err := NewStudy(d, d.Variants, uses, segments)
	if err != nil {
		t.Fatalf("NewStudy: %v", err)
	}
	return s
}

func TestStudyColumns(t *testing.T) {
	windowed := Sum("purchase", nil)
	windowed.Window = week
	value := []experiment.Condition{{Field: "value", Op: experiment.OpGreater, Values: []string{"0"}}}
	s := mustStudy(t, definition("control", "short"), []Use{
		use("guard", Proportion("refund", nil), experiment.RoleGuardrail),
		use("order_value", Ratio(sum("revenue", "purchase"), sum("all", "visit")), experiment.RoleSecondary, "spend", "visits"),
		use("revenue", Sum("purchase", nil), experiment.RolePrimary, "spend"),
		use("week_revenue", windowed, ""),
		use("paid", Sum("purchase", value), experiment.RoleSecondary),
		use("revenue", Sum("purchase", nil), ""),
	}, "device")

	purchases := experiment.Component{Outcome: "purchase", Aggregate: experiment.AggregateSum}
	paid := purchases
	paid.Conditions = value
	want := []Column{
		{Component: purchases}, // Shared by revenue and order_value, under two names.
		{Component: experiment.Component{Outcome: "visit", Aggregate: experiment.AggregateSum}},
		{Component: experiment.Component{Outcome: "visit", Aggregate: experiment.AggregateCount}, Before: week},
		{Component: paid},
		{Component: experiment.Component{Outcome: "refund", Aggregate: experiment.AggregateAny}},
		{Component: purchases, Window: week},
	}
	if diff := cmp.Diff(want, s.Columns()); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"past_spend"}, s.Attributes()); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"device"}, s.Segments()); diff != "" {
		t.Errorf("segments (-want +got):\n%s", diff)
	}
	var order []string
	for _, m := range s.metrics {
		order = append(order, m.Metric.Key+" "+string(m.Role))
	}
	// The repeat of revenue without a role is left out.
	wantOrder := []string{"revenue primary", "order_value secondary", "paid secondary", "guard guardrail", "week_revenue "}
	if diff := cmp.Diff(wantOrder, order); diff != "" {
		t.Errorf("order of metrics (-want +got):\n%s", diff)
	}
}

func TestStudyRefuses(t *testing.T) {
	revenue := use("revenue", Sum("purchase", nil), experiment.RolePrimary)
	broken := use("broken", Formula("a +", []experiment.Component{sum("a", "x")}), experiment.RolePrimary)
	lost := use("revenue", Sum("purchase", nil), experiment.RolePrimary, "age")
	headless := definition("control", "short")
	headless.Variants[0].Control = false
	tests := []struct {
		name     string
		d        *experiment.Definition
		use      Use
		segments []string
		want     string
	}{
		{"segment that is not kept", definition("control", "short"), revenue, []string{"device", "age"}, `segments[1]: the experiment keeps no attribute "age" with exposures`},
		{"segment twice", definition("control", "short"), revenue, []string{"device", "device"}, `segments[1]: "device" is listed twice`},
		{"unknown covariate", definition("control", "short"), lost, nil, `metric "revenue": the experiment has no covariate "age"`},
		{"stored formula that does not parse", definition("control", "short"), broken, nil,
			`metric "broken": stored expression "a +": at character 4: expected a number, a name, "-" or "(", found the end`},
		{"no control", headless, revenue, nil, "the definition has no control"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := NewStudy(tt.d, tt.d.Variants, []Use{tt.use}, tt.segments); err == nil || err.Error() != tt.want {
				t.Errorf("NewStudy: %v, want %q", err, tt.want)
			}
		})
	}
}
