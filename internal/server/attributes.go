package server

import (
	"fmt"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
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

// checkAttributes refuses attributes beyond the limits for which the costs of
// predicates are estimated. The InvalidError names what is at fault below field.
func checkAttributes(field string, s *structpb.Struct) error {
	fields := s.GetFields()
	if n := len(fields); n > assign.MaxAttributes {
		return experiment.Invalid(field, "has %d fields; at most %d are read", n, assign.MaxAttributes)
	}
	room := assign.MaxAttributeBytes
	if fault := checkFields(fields, 1, &room); fault != nil {
		return experiment.Invalid(field+fault.path, "%s", fault.problem)
	}
	return nil
}

// attributeFault is a broken limit. Its path is completed on the way up, so that
// attributes within the limits cost nothing but a look at each.
type attributeFault struct{ path, problem string }

func faultf(format string, args ...any) *attributeFault {
	return &attributeFault{problem: fmt.Sprintf(format, args...)}
}

func (f *attributeFault) within(format string, args ...any) *attributeFault {
	f.path = fmt.Sprintf(format, args...) + f.path
	return f
}

// checkFields takes from room what the fields of a level weigh.
func checkFields(fields map[string]*structpb.Value, level int, room *int) *attributeFault {
	for name, v := range fields {
		*room -= len(name)
		var fault *attributeFault
		if len(name) > assign.MaxAttributeText {
			fault = faultf("has a name of %d bytes; at most %d are read", len(name), assign.MaxAttributeText)
		} else {
			fault = checkAttribute(v, level, room)
		}
		if fault != nil {
			return fault.within("[%q]", shorten(name, 64))
		}
	}
	return nil
}

func checkAttribute(v *structpb.Value, level int, room *int) *attributeFault {
	*room -= assign.AttributeWeight
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		if n := len(kind.StringValue); n > assign.MaxAttributeText {
			return faultf("is %d bytes long; at most %d are read", n, assign.MaxAttributeText)
		}
		*room -= len(kind.StringValue)
	case *structpb.Value_ListValue:
		return checkList(kind.ListValue.GetValues(), level+1, room)
	case *structpb.Value_StructValue:
		fields := kind.StructValue.GetFields()
		if fault := checkCount(len(fields), level+1); fault != nil {
			return fault
		}
		return checkFields(fields, level+1, room)
	}
	if *room < 0 {
		return faultf("is beyond the %d bytes of attributes that are read in all: the bytes of texts and names, and %d for each value",
			assign.MaxAttributeBytes, assign.AttributeWeight)
	}
	return nil
}

func checkList(values []*structpb.Value, level int, room *int) *attributeFault {
	if fault := checkCount(len(values), level); fault != nil {
		return fault
	}
	for i, v := range values {
		if fault := checkAttribute(v, level, room); fault != nil {
			return fault.within("[%d]", i)
		}
	}
	return nil
}

func checkCount(n, level int) *attributeFault {
	switch {
	case level > assign.MaxAttributeDepth:
		return faultf("is nested too deep; at most %d levels are read", assign.MaxAttributeDepth)
	case n > assign.MaxAttributeItems:
		return faultf("has %d elements; at most %d are read", n, assign.MaxAttributeItems)
	}
	return nil
}
