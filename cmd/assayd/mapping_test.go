package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustParse(t *testing.T, text string) *mapping {
	t.Helper()
	m, err := parseMapping([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestParseMappingRefuses(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"nothing", "", "the file is empty"},
		{"no events", "subject: {key: a}", "neither exposure nor outcomes are mapped"},
		{"no YAML", "exposure: [", "line 1: did not find expected node content"},
		{"an unknown field", "exposure:\n  variant: a\n  wehn: {}\noutcome: 1",
			"line 3: field wehn not found; line 4: field outcome not found"},
		{"a wrong type", "outcomes: {}\nexposure: [1]",
			"line 1: cannot unmarshal !!map into []main.outcomeMapping; line 2: cannot unmarshal !!seq into main.exposureMapping"},
		{"a field twice", "exposure: {}\nexposure: {}", `line 2: mapping key "exposure" already defined at line 1`},
		{"two documents", "exposure: {}\n---\nexposure: {}", "the file must hold one YAML document and nothing else"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseMapping([]byte(tt.text))
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %q, want %q", err, tt.want)
			}
		})
	}
}

func TestTemplates(t *testing.T) {
	header := []string{"a", "b c", "kind", "twice", "twice"}
	r := row{line: 7, fields: []string{"1", "{a}", "x", "", ""}}
	byColumn := map[string]map[string]string{"kind": {"x": "X!"}}
	tests := []struct{ template, want, fault string }{
		{template: "", want: ""},
		{template: "plain", want: "plain"},
		{template: "{a}", want: "1"},
		{template: "<{a}{a}>{b c}", want: "<11>{a}"},
		{template: "{line}-{a}", want: "7-1"},
		{template: "{{{a}}}", want: "{1}"},
		{template: "{{a}}", want: "{a}"},
		{template: "{kind}", want: "X!"},
		{template: "{nope}", fault: `f: the file has no column "nope"`},
		{template: "{}", fault: `f: the file has no column ""`},
		{template: "{twice}", fault: `f: the file has several columns "twice"`},
		{template: "{a", fault: `f: "{a" has a brace without its other half`},
		{template: "a}", fault: `f: "a}" has a brace without its other half`},
	}
	for _, tt := range tests {
		t.Run(tt.template, func(t *testing.T) {
			c := newColumns(header, byColumn)
			value := c.template("f", tt.template)
			if got := strings.Join(c.faults, "; "); got != tt.fault {
				t.Fatalf("faults %q, want %q", got, tt.fault)
			}
			if tt.fault != "" {
				return
			}
			got, err := value(r)
			if err != nil || got != tt.want {
				t.Errorf("= %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestMapWithoutEntry(t *testing.T) {
	c := newColumns([]string{"kind"}, map[string]map[string]string{"kind": {"x": "X"}})
	_, err := c.template("f", "{kind}")(row{fields: []string{"y"}})
	if want := `f: the map of column kind has no entry for "y"`; err == nil || err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

func TestColumnNamedLine(t *testing.T) {
	c := newColumns([]string{"line"}, nil)
	c.template("f", "{line}")
	if c.faults.err() == nil {
		t.Error("{line} has two meanings and was taken")
	}
}

func TestConditions(t *testing.T) {
	tests := []struct {
		name  string
		when  *condition
		field string
		want  bool
	}{
		{"none", nil, "", true},
		{"is", &condition{Column: "a", Is: []string{"1", "2"}}, "2", true},
		{"is not listed", &condition{Column: "a", Is: []string{"1", "2"}}, "3", false},
		{"not", &condition{Column: "a", Not: []string{"0", ""}}, "1", true},
		{"not, listed", &condition{Column: "a", Not: []string{"0", ""}}, "", false},
		{"text, not number", &condition{Column: "a", Not: []string{"0"}}, "0.0", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newColumns([]string{"a"}, nil)
			holds := c.condition("when", tt.when)
			if c.faults != nil {
				t.Fatal(c.faults)
			}
			if got := holds(row{fields: []string{tt.field}}); got != tt.want {
				t.Errorf("= %v, want %v", got, tt.want)
			}
		})
	}
}

func TestCompileNamesEveryFault(t *testing.T) {
	m := mustParse(t, `
maps: {gone: {a: b}}
exposure:
  experiment: e
  time: 2008-02-30T00:00:00Z
  attributes: {age: {value: "{age}", type: int}}
  when: {column: nope}
outcomes:
  - {name: n, event_id: "{id}", value: "{price", time: "{t}", time_layout: yesterday}
`)
	_, err := m.compile([]string{"age", "id", "t"})
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		`maps: the file has no column "gone"`,
		`subject.key: is missing`,
		`exposure.variant: is missing`,
		`exposure.when: needs a list of values, either as is or as not`,
		`exposure.when: the file has no column "nope"`,
		`exposure.time: "2008-02-30T00:00:00Z" is neither a time as in RFC 3339 nor in seconds since 1970`,
		`exposure.attributes.age: type "int" is none of string, number and bool`,
		`outcomes[0].value: "{price" has a brace without its other half`,
		`outcomes[0].time_layout: "yesterday" holds nothing of Go's reference time, 2006-01-02 15:04:05`,
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "; ")); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}
