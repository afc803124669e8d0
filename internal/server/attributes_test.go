package server

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
)

// TestStructAttributes holds the single values to those of the whole.
func TestStructAttributes(t *testing.T) {
	s, err := structpb.NewStruct(map[string]any{
		"null": nil, "true": true, "false": false, "zero": 0, "number": -1.5, "": "", "text": "PL",
		"list": []any{}, "map": map[string]any{}, "full list": []any{1}, "full map": map[string]any{"a": 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Fields["no kind"] = &structpb.Value{}
	s.Fields["nil"] = nil
	attributes := structAttributes{s}
	for name, x := range attributes.All() {
		if got, want := attributes.Attribute(name), assign.ValueOf(x); got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	for _, without := range []structAttributes{attributes, {&structpb.Struct{}}, {}} {
		if got := without.Attribute("missing"); got != (assign.Value{}) {
			t.Errorf("a missing attribute is %+v", got)
		}
	}
	if all := (structAttributes{}).All(); len(all) != 0 {
		t.Errorf("without a struct: %v", all)
	}
}

// TestAttributeLimits goes to each limit, and one step beyond it.
func TestAttributeLimits(t *testing.T) {
	long := strings.Repeat("x", assign.MaxAttributeText)
	list := func(n int, x any) any {
		list := make([]any, n)
		for i := range list {
			list[i] = x
		}
		return list
	}
	object := func(n int) map[string]any {
		fields := map[string]any{}
		for i := range n {
			fields[fmt.Sprint(i)] = nil
		}
		return fields
	}
	nested := func(levels int) any {
		var x any = 1
		for i := range levels {
			if x = []any{x}; i%2 == 1 {
				x = map[string]any{"k": x.([]any)[0]}
			}
		}
		return x
	}
	const each = 1000 + assign.AttributeWeight
	full := func(n int) map[string]any { // So many bytes in all.
		n -= 1 + assign.AttributeWeight
		values := list(n/each, long[:1000]).([]any)
		return map[string]any{"a": append(values, strings.Repeat("x", n%each-assign.AttributeWeight))}
	}
	for _, c := range []struct {
		name       string
		attributes map[string]any
		field      string // "" if they are admitted.
		says       string
	}{
		{"none", nil, "", ""},
		{"most", object(assign.MaxAttributes), "", ""},
		{"more", object(assign.MaxAttributes + 1), "at", "has 1001 fields; at most 1000"},
		{"long", map[string]any{"a": long}, "", ""},
		{"longer", map[string]any{"a": long + "x"}, `at["a"]`, "is 1025 bytes long; at most 1024"},
		{"long in bytes", map[string]any{"a": strings.Repeat("é", 513)}, `at["a"]`, "is 1026 bytes long"},
		{"longer within", map[string]any{"a": map[string]any{"b": []any{1, long + "x"}}}, `at["a"]["b"][1]`, "is 1025 bytes long"},
		{"long name", map[string]any{long: 1}, "", ""},
		{"longer name", map[string]any{"a": map[string]any{long + "x": 1}}, `at["a"]["xxx`, "has a name of 1025 bytes"},
		{"long list", map[string]any{"a": list(assign.MaxAttributeItems, 1)}, "", ""},
		{"longer list", map[string]any{"a": []any{list(assign.MaxAttributeItems+1, 1)}}, `at["a"][0]`, "has 1025 elements; at most 1024"},
		{"wide map", map[string]any{"a": object(assign.MaxAttributeItems)}, "", ""},
		{"wider map", map[string]any{"a": object(assign.MaxAttributeItems + 1)}, `at["a"]`, "has 1025 elements"},
		{"deep", map[string]any{"a": nested(assign.MaxAttributeDepth - 1)}, "", ""},
		{"deeper", map[string]any{"a": nested(assign.MaxAttributeDepth)}, `at["a"]["k"][0]["k"][0]["k"][0]["k"]`, "nested too deep; at most 8 levels"},
		{"full", full(assign.MaxAttributeBytes), "", ""},
		{"fuller", full(assign.MaxAttributeBytes + 1), `at["a"][64]`, "beyond the 65536 bytes"},
		{"many values", map[string]any{"a": list(1024, nil), "b": list(1024, nil), "c": list(1024, nil), "d": list(1024, nil)}, `at["`, "beyond the 65536 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := structpb.NewStruct(c.attributes)
			if err != nil {
				t.Fatal(err)
			}
			err = checkAttributes("at", s)
			var invalid *experiment.InvalidError
			switch {
			case c.field == "" && err != nil:
				t.Error(err)
			case c.field == "":
			case !errors.As(err, &invalid) || len(invalid.Violations) != 1:
				t.Errorf("got %v", err)
			case !strings.HasPrefix(invalid.Violations[0].Field, c.field) || !strings.Contains(invalid.Violations[0].Message, c.says):
				t.Errorf("got %v, want %s: %s", err, c.field, c.says)
			}
		})
	}
}

// BenchmarkCheckAttributes is what the limits cost a usual subject.
func BenchmarkCheckAttributes(b *testing.B) {
	s, err := structpb.NewStruct(map[string]any{"country": "PL", "age": 31, "plan": "pro"})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := checkAttributes("at", s); err != nil {
			b.Fatal(err)
		}
	}
}
