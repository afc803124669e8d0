package metric

import (
	"fmt"
	"slices"

	"github.com/assayhq/assay/internal/experiment"
)

// Validate checks the rules that hold across a definition's fields, and
// returns an InvalidError that names every field at fault as the API spells it
// for the definition's kind. Rules on single fields stand in the API's schema.
func (d *Definition) Validate() error {
	var bad experiment.InvalidError
	if len(d.Components) == 0 {
		bad.Add(d.expressionField(), "needs a component")
		return bad.Err()
	}
	names := d.names()
	for i := range d.Components {
		c := &d.Components[i]
		switch {
		case c.Name == "":
			bad.Add(d.componentField(i, "name"), "must not be empty")
		case slices.Index(names, c.Name) < i:
			bad.Add(d.componentField(i, "name"), "%q is the name of an earlier component", c.Name)
		}
		if i > 0 && d.Kind == KindMean {
			continue // Its components share one list of conditions.
		}
		if err := bad.Join(d.componentField(i, ""), c.Validate()); err != nil {
			return err
		}
	}
	d.validateExpression(&bad, names)
	return bad.Err()
}

func (d *Definition) validateExpression(bad *experiment.InvalidError, names []string) {
	expression, err := d.Parse()
	if err != nil {
		bad.Join(d.expressionField(), err)
		return
	}
	if !slices.ContainsFunc(expression.nodes, func(n node) bool { return n.kind == variable }) {
		bad.Add(d.expressionField(), "names no component; a constant cannot be compared")
		return
	}
	for i, name := range names {
		if name != "" && slices.Index(names, name) == i && !expression.uses(i) {
			bad.Add(d.componentField(i, "name"), "the expression does not use %q", name)
		}
	}
}

// Parse returns the expression, its variables in the order of the components.
func (d *Definition) Parse() (*Expression, error) { return Parse(d.Expression, d.names()) }

func (d *Definition) names() []string {
	names := make([]string, len(d.Components))
	for i := range d.Components {
		names[i] = d.Components[i].Name
	}
	return names
}

func (d *Definition) expressionField() string {
	if d.Kind == KindFormula {
		return "formula.expression"
	}
	return string(d.Kind)
}

// componentField is the path of a field of component i, or of the component if
// the field is empty.
func (d *Definition) componentField(i int, field string) string {
	path := string(d.Kind)
	switch {
	case d.Kind == KindFormula:
		path = fmt.Sprintf("formula.components[%d]", i)
	case d.Kind == KindRatio && i == 0:
		path = "ratio.numerator"
	case d.Kind == KindRatio:
		path = "ratio.denominator"
	}
	if field == "" {
		return path
	}
	return path + "." + field
}
