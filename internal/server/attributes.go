package server

import (
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/assayhq/assay/internal/assign"
)

// structAttributes are attributes that are read where they lie in the request.
type structAttributes struct{ *structpb.Struct }

// Attribute returns the value of the name.
func (a structAttributes) Attribute(name string) assign.Value {
	v, ok := a.GetFields()[name]
	if !ok {
		return assign.Value{}
	}
	switch kind := v.GetKind().(type) {
	case nil, *structpb.Value_NullValue:
		return assign.Value{Kind: assign.ValueNull}
	case *structpb.Value_BoolValue:
		return assign.Value{Kind: assign.ValueBool, Bool: kind.BoolValue}
	case *structpb.Value_NumberValue:
		return assign.Value{Kind: assign.ValueNumber, Number: kind.NumberValue}
	case *structpb.Value_StringValue:
		return assign.Value{Kind: assign.ValueText, Text: kind.StringValue}
	}
	return assign.Value{Kind: assign.ValueOther}
}

// All converts everything.
func (a structAttributes) All() map[string]any { return a.AsMap() }
