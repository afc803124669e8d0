package server

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// revisedFields are the fields of an experiment that belong to its revision:
// those that an update may name, and what a reshuffle changes.
var revisedFields = append(slices.Clone(experimentFields), "split_salt")

// elementKeys are the fields by which the elements of lists are known.
var elementKeys = map[protoreflect.FullName]protoreflect.Name{
	"assay.v1.Variant": "key", "assay.v1.Covariate": "name", "assay.v1.ExperimentMetric": "metric",
}

// changesBetween lists the fields in which two revisions of an experiment
// differ.
func changesBetween(before, after *assayv1.Experiment) []*assayv1.FieldChange {
	var c changes
	for _, name := range revisedFields {
		b, a := before.ProtoReflect(), after.ProtoReflect()
		c.field(name, b.Descriptor().Fields().ByName(protoreflect.Name(name)), b, a)
	}
	return c
}

type changes []*assayv1.FieldChange

func (c *changes) add(path string, before, after *structpb.Value) {
	*c = append(*c, &assayv1.FieldChange{Path: path, Before: before, After: after})
}

// message compares two messages of the API field by field.
func (c *changes) message(path string, before, after protoreflect.Message) {
	fields := before.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		c.field(path+"."+string(fd.Name()), fd, before, after)
	}
}

// field compares one field of two messages. It goes into messages of the API
// and into elements that have keys; everything else changes as a whole.
func (c *changes) field(path string, fd protoreflect.FieldDescriptor, before, after protoreflect.Message) {
	of := fd.Message()
	switch {
	case before.Has(fd) == after.Has(fd) && before.Get(fd).Equal(after.Get(fd)):
	case fd.IsMap():
		c.entries(path, before.Get(fd).Map(), after.Get(fd).Map())
	case fd.IsList() && of != nil && elementKeys[of.FullName()] != "":
		c.elements(path, of.Fields().ByName(elementKeys[of.FullName()]), before.Get(fd).List(), after.Get(fd).List())
	case !fd.IsList() && of != nil && of.ParentFile().Package() == "assay.v1" && before.Has(fd) && after.Has(fd):
		c.message(path, before.Get(fd).Message(), after.Get(fd).Message())
	default:
		c.add(path, fieldValue(before, fd), fieldValue(after, fd))
	}
}

// entries compares two maps of strings.
func (c *changes) entries(path string, before, after protoreflect.Map) {
	keys := map[string]protoreflect.MapKey{}
	for _, m := range []protoreflect.Map{before, after} {
		m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
			keys[k.String()] = k
			return true
		})
	}
	value := func(m protoreflect.Map, k protoreflect.MapKey) *structpb.Value {
		if !m.Has(k) {
			return nil
		}
		return structpb.NewStringValue(m.Get(k).String())
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		b, a := value(before, keys[name]), value(after, keys[name])
		if !proto.Equal(b, a) {
			c.add(keyed(path, name), b, a)
		}
	}
}

// elements compares two lists whose elements have keys.
func (c *changes) elements(path string, key protoreflect.FieldDescriptor, before, after protoreflect.List) {
	old, oldKeys := byKey(key, before)
	now, nowKeys := byKey(key, after)
	for _, name := range nowKeys {
		if m, ok := old[name]; ok {
			c.message(keyed(path, name), m, now[name])
		} else {
			c.add(keyed(path, name), nil, messageValue(now[name]))
		}
	}
	for _, name := range oldKeys {
		if _, ok := now[name]; !ok {
			c.add(keyed(path, name), messageValue(old[name]), nil)
		}
	}
	if !slices.Equal(those(oldKeys, now), those(nowKeys, old)) {
		c.add(path, stringsValue(oldKeys), stringsValue(nowKeys))
	}
}

// those returns the keys that have an element.
func those(keys []string, elements map[string]protoreflect.Message) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return elements[key] == nil })
}

func byKey(key protoreflect.FieldDescriptor, list protoreflect.List) (elements map[string]protoreflect.Message, keys []string) {
	elements = map[string]protoreflect.Message{}
	for i := range list.Len() {
		m := list.Get(i).Message()
		name := m.Get(key).String()
		elements[name], keys = m, append(keys, name)
	}
	return elements, keys
}

func keyed(path, key string) string { return fmt.Sprintf("%s[%q]", path, key) }

// fieldValue returns the JSON form of a field, nil if it is not set.
func fieldValue(m protoreflect.Message, fd protoreflect.FieldDescriptor) *structpb.Value {
	if !m.Has(fd) {
		return nil
	}
	one := m.New()
	one.Set(fd, m.Get(fd))
	return messageValue(one).GetStructValue().Fields[string(fd.Name())]
}

func messageValue(m protoreflect.Message) *structpb.Value {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m.Interface())
	if err != nil {
		panic(fmt.Sprintf("server: a stored definition without a JSON form: %v", err)) // It came as a message.
	}
	var v structpb.Value
	if err := protojson.Unmarshal(text, &v); err != nil {
		panic(fmt.Sprintf("server: JSON that is no JSON: %v", err)) // It was made here.
	}
	return &v
}

func stringsValue(list []string) *structpb.Value {
	values := make([]*structpb.Value, len(list))
	for i, s := range list {
		values[i] = structpb.NewStringValue(s)
	}
	return structpb.NewListValue(&structpb.ListValue{Values: values})
}
