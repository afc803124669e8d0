package server

import (
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/assayhq/assay/internal/assign"
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
