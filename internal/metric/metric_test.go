package metric

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/google/go-cmp/cmp"
)

func sum(name, outcome string) experiment.Component {
	return experiment.Component{Name: name, Outcome: outcome, Aggregate: experiment.AggregateSum}
}

func TestPresets(t *testing.T) {
	paid := []experiment.Condition{{Field: "value", Op: experiment.OpGreater, Values: []string{"0"}}}
	component := func(name string, aggregate experiment.Aggregate) experiment.Component {
		return experiment.Component{Name: name, Outcome: "purchase", Aggregate: aggregate, Conditions: paid}
	}
	tests := []struct {
		name string
		got  Definition
		want Definition
	}{
		{"proportion", Proportion("purchase", paid), Definition{
			Kind: "proportion", Expression: "any",
			Components: []experiment.Component{component("any", "any")},
		}},
		{"sum", Sum("purchase", paid), Definition{
			Kind: "sum", Expression: "sum",
			Components: []experiment.Component{component("sum", "sum")},
		}},
		{"mean", Mean("purchase", paid), Definition{
			Kind: "mean", Expression: "sum / count",
			Components: []experiment.Component{component("sum", "sum"), component("count", "count")},
		}},
		{"ratio without names", Ratio(component("", "sum"), component("", "count")), Definition{
			Kind: "ratio", Expression: "numerator / denominator",
			Components: []experiment.Component{component("numerator", "sum"), component("denominator", "count")},
		}},
		{"ratio with names", Ratio(component("revenue", "sum"), component("orders", "count")), Definition{
			Kind: "ratio", Expression: "revenue / orders",
			Components: []experiment.Component{component("revenue", "sum"), component("orders", "count")},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.got); diff != "" {
				t.Errorf("definition (-want +got):\n%s", diff)
			}
			if err := tt.got.Validate(); err != nil {
				t.Errorf("Validate: %v", err)
			}
		})
	}
}

func TestDefinitionJSON(t *testing.T) {
	d := Formula("a / b", []experiment.Component{sum("a", "x"), sum("b", "y")})
	d.Direction, d.Window, d.Description = DirectionDecrease, 14*24*time.Hour, "what it is"
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	// Stored definitions have this form; a change of it loses them.
	want := `{"description":"what it is","direction":"decrease","kind":"formula","expression":"a / b",` +
		`"components":[{"name":"a","outcome":"x","aggregate":"sum"},{"name":"b","outcome":"y","aggregate":"sum"}],"window":1209600000000000}`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	var back Definition
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, back); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

func TestValidateRefuses(t *testing.T) {
	faulty := sum("a", "x")
	faulty.Conditions = []experiment.Condition{{Field: "value", Op: experiment.OpGreater, Values: []string{"much"}}}
	nameless := sum("", "x")
	tests := []struct {
		name string
		d    Definition
		want []experiment.Violation
	}{
		{"no components", Formula("1", nil), []experiment.Violation{
			{Field: "formula.expression", Message: "needs a component"},
		}},
		{"syntax", Formula("a +", []experiment.Component{sum("a", "x")}), []experiment.Violation{
			{Field: "formula.expression", Message: `at character 4: expected a number, a name, "-" or "(", found the end`},
		}},
		{"unknown component", Formula("a / b", []experiment.Component{sum("a", "x")}), []experiment.Violation{
			{Field: "formula.expression", Message: `at character 5: there is no component "b"`},
		}},
		{"unused component", Formula("a", []experiment.Component{sum("a", "x"), sum("b", "x")}), []experiment.Violation{
			{Field: "formula.components[1].name", Message: `the expression does not use "b"`},
		}},
		{"constant", Formula("1 + 2", []experiment.Component{sum("a", "x")}), []experiment.Violation{
			{Field: "formula.expression", Message: "names no component; a constant cannot be compared"},
		}},
		{"duplicate name", Formula("a", []experiment.Component{sum("a", "x"), sum("a", "y")}), []experiment.Violation{
			{Field: "formula.components[1].name", Message: `"a" is the name of an earlier component`},
		}},
		{"missing name", Formula("a", []experiment.Component{sum("a", "x"), nameless}), []experiment.Violation{
			{Field: "formula.components[1].name", Message: "must not be empty"},
		}},
		{"too deep", Formula(strings.Repeat("(", 65)+"a"+strings.Repeat(")", 65), []experiment.Component{sum("a", "x")}), []experiment.Violation{
			{Field: "formula.expression", Message: "at character 65: it is nested more than 64 deep"},
		}},
		{"several at once", Formula("a / q", []experiment.Component{sum("a", "x"), faulty, nameless}), []experiment.Violation{
			{Field: "formula.components[1].name", Message: `"a" is the name of an earlier component`},
			{Field: "formula.components[1].conditions[0].values[0]", Message: `"much" is not a number`},
			{Field: "formula.components[2].name", Message: "must not be empty"},
			{Field: "formula.expression", Message: `at character 5: there is no component "q"`},
		}},
		{"conditions of a proportion", Proportion("x", faulty.Conditions), []experiment.Violation{
			{Field: "proportion.conditions[0].values[0]", Message: `"much" is not a number`},
		}},
		{"conditions of a mean, once", Mean("x", faulty.Conditions), []experiment.Violation{
			{Field: "mean.conditions[0].values[0]", Message: `"much" is not a number`},
		}},
		{"ratio", Ratio(sum("a", "x"), faulty), []experiment.Violation{
			{Field: "ratio.denominator.name", Message: `"a" is the name of an earlier component`},
			{Field: "ratio.denominator.conditions[0].values[0]", Message: `"much" is not a number`},
		}},
		{"numerator", Ratio(faulty, sum("b", "x")), []experiment.Violation{
			{Field: "ratio.numerator.conditions[0].values[0]", Message: `"much" is not a number`},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.d.Validate()
			var bad *experiment.InvalidError
			if !errors.As(err, &bad) {
				t.Fatalf("Validate: %v, want an InvalidError", err)
			}
			if diff := cmp.Diff(tt.want, bad.Violations); diff != "" {
				t.Errorf("violations (-want +got):\n%s", diff)
			}
		})
	}
}
