package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// mapping says how a row of a CSV file becomes an exposure and outcomes.
//
// There is one idea in it: every value is a template over the row, in which
// {column} stands for the field of that column and {line} for the line of the
// file on which the row begins (the header is line 1). {{ and }} stand for
// braces. A template without either is a fixed value.
type mapping struct {
	Subject struct {
		Unit string `yaml:"unit"` // Default: the server's.
		Key  string `yaml:"key"`
	} `yaml:"subject"`

	// What fields stand for, by column: field → value. In a column that has a
	// map, a field without an entry is an error of the row.
	Maps map[string]map[string]string `yaml:"maps"`

	Exposure *exposureMapping `yaml:"exposure"`
	Outcomes []outcomeMapping `yaml:"outcomes"`
}

// exposureMapping makes at most one exposure of a row.
type exposureMapping struct {
	Experiment string                  `yaml:"experiment"`
	Variant    string                  `yaml:"variant"`
	Time       string                  `yaml:"time"`
	TimeLayout string                  `yaml:"time_layout"`
	Attributes map[string]valueMapping `yaml:"attributes"`
	When       *condition              `yaml:"when"`
}

// outcomeMapping makes at most one outcome of a row. The event id is what
// makes a second import of the file change nothing, so it must be a function of
// the row.
type outcomeMapping struct {
	Name       string                  `yaml:"name"`
	EventID    string                  `yaml:"event_id"`
	Value      string                  `yaml:"value"` // A number; empty means none.
	Time       string                  `yaml:"time"`
	TimeLayout string                  `yaml:"time_layout"`
	Properties map[string]valueMapping `yaml:"properties"`
	When       *condition              `yaml:"when"`
}

// valueMapping is an attribute or a property. One that comes out empty is left
// out.
type valueMapping struct {
	Value string `yaml:"value"`
	Type  string `yaml:"type"` // string (the default), number or bool.
}

// condition holds if the column's field, as it stands in the file, is one of Is
// or none of Not.
type condition struct {
	Column string   `yaml:"column"`
	Is     []string `yaml:"is"`
	Not    []string `yaml:"not"`
}

// parseMapping reads a mapping and refuses what it does not know.
func parseMapping(text []byte) (*mapping, error) {
	var m mapping
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&m); err != nil {
		return nil, yamlFault(err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file must hold one YAML document and nothing else")
	}
	if m.Exposure == nil && len(m.Outcomes) == 0 {
		return nil, errors.New("neither exposure nor outcomes are mapped")
	}
	return &m, nil
}

// yamlFault puts the library's errors on one line and into words of the file.
func yamlFault(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the file is empty")
	}
	var bad *yaml.TypeError
	if !errors.As(err, &bad) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	faults := make([]string, len(bad.Errors))
	for i, fault := range bad.Errors {
		faults[i], _, _ = strings.Cut(fault, " in type ")
	}
	return errors.New(strings.Join(faults, "; "))
}

// faults gathers what is wrong with a mapping, so that one run tells all.
type faults []string

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, field+": "+fmt.Sprintf(format, args...))
}

func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return errors.New(strings.Join(f, "; "))
}

// row is a record of the file.
type row struct {
	line   int
	fields []string
}

// text makes a value of a row.
type text func(r row) (string, error)

// columns resolves templates against a header.
type columns struct {
	index  map[string]int
	twice  map[string]bool // Names that the header holds more than once.
	maps   map[string]map[string]string
	faults faults
}

const lineName = "line"

func newColumns(header []string, byColumn map[string]map[string]string) *columns {
	c := &columns{index: map[string]int{}, twice: map[string]bool{}, maps: byColumn}
	for i, name := range header {
		if _, ok := c.index[name]; ok {
			c.twice[name] = true
		}
		c.index[name] = i
	}
	for _, name := range sortedKeys(byColumn) {
		c.column("maps", name)
	}
	return c
}

// column returns the index of a column, or notes a fault.
func (c *columns) column(field, name string) int {
	i, ok := c.index[name]
	switch {
	case !ok:
		c.faults.add(field, "the file has no column %q", name)
	case c.twice[name]:
		c.faults.add(field, "the file has several columns %q", name)
	}
	return i
}

// required is template for a value that must not be empty.
func (c *columns) required(field, template string) text {
	if template == "" {
		c.faults.add(field, "is missing")
	}
	value := c.template(field, template)
	return func(r row) (string, error) {
		s, err := value(r)
		if err == nil && s == "" {
			err = fmt.Errorf("%s: is empty", field)
		}
		return s, err
	}
}

// template compiles a template. Faults of the template are noted; errors of a
// row name the field.
func (c *columns) template(field, template string) text {
	var parts []text
	for rest := template; rest != ""; {
		i := strings.IndexAny(rest, "{}")
		if i < 0 {
			i = len(rest)
		}
		if i > 0 {
			parts = append(parts, literal(rest[:i]))
			rest = rest[i:]
			continue
		}
		if strings.HasPrefix(rest, "{{") || strings.HasPrefix(rest, "}}") {
			parts = append(parts, literal(rest[:1]))
			rest = rest[2:]
			continue
		}
		name, after, ok := strings.Cut(rest[1:], "}")
		if rest[0] == '}' || !ok {
			c.faults.add(field, "%q has a brace without its other half", template)
			break
		}
		parts = append(parts, c.placeholder(field, name))
		rest = after
	}
	return concatenate(parts)
}

func (c *columns) placeholder(field, name string) text {
	if name == lineName {
		if _, ok := c.index[lineName]; ok {
			c.faults.add(field, "{line} is the line number, but the file has a column of that name too; rename the column")
		}
		return func(r row) (string, error) { return fmt.Sprint(r.line), nil }
	}
	i := c.column(field, name)
	values, mapped := c.maps[name]
	if !mapped {
		return func(r row) (string, error) { return r.fields[i], nil }
	}
	return func(r row) (string, error) {
		value, ok := values[r.fields[i]]
		if !ok {
			return "", fmt.Errorf("%s: the map of column %s has no entry for %q", field, name, r.fields[i])
		}
		return value, nil
	}
}

func literal(s string) text { return func(row) (string, error) { return s, nil } }

func concatenate(parts []text) text {
	if len(parts) == 1 {
		return parts[0]
	}
	return func(r row) (string, error) {
		var b strings.Builder
		for _, part := range parts {
			s, err := part(r)
			if err != nil {
				return "", err
			}
			b.WriteString(s)
		}
		return b.String(), nil
	}
}

// condition compiles a condition; none always holds.
func (c *columns) condition(field string, when *condition) func(r row) bool {
	if when == nil {
		return func(row) bool { return true }
	}
	if (len(when.Is) == 0) == (len(when.Not) == 0) {
		c.faults.add(field, "needs a list of values, either as is or as not")
	}
	i := c.column(field, when.Column)
	if len(when.Is) > 0 {
		return func(r row) bool { return slices.Contains(when.Is, r.fields[i]) }
	}
	return func(r row) bool { return !slices.Contains(when.Not, r.fields[i]) }
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
