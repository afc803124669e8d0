package server

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/assayhq/assay/internal/experiment"
)

// changedFields returns the fields that an update replaces: those that the
// mask names, which changeable lists, or without a mask those of them that
// from has set. "*" names them all.
func changedFields(from proto.Message, mask *fieldmaskpb.FieldMask, changeable []string) ([]protoreflect.FieldDescriptor, error) {
	m := from.ProtoReflect()
	paths := mask.GetPaths()
	if len(paths) == 0 || slices.Equal(paths, []string{"*"}) {
		paths = changeable
	}
	var fields []protoreflect.FieldDescriptor
	var bad experiment.InvalidError
	for i, path := range paths {
		if !slices.Contains(changeable, path) {
			bad.Add(fmt.Sprintf("update_mask.paths[%d]", i), "%q cannot be changed; these can: %s", path, strings.Join(changeable, ", "))
			continue
		}
		field := m.Descriptor().Fields().ByName(protoreflect.Name(path))
		if len(mask.GetPaths()) > 0 || m.Has(field) {
			fields = append(fields, field)
		}
	}
	return fields, bad.Err()
}

// replaceFields gives target the fields of from, each as a whole: one that
// from has not set is cleared.
func replaceFields(target, from proto.Message, fields []protoreflect.FieldDescriptor) {
	dst, src := target.ProtoReflect(), from.ProtoReflect()
	for _, field := range fields { // Before any is set: clearing one member of a oneof must not clear another.
		dst.Clear(field)
	}
	for _, field := range fields {
		if src.Has(field) {
			dst.Set(field, src.Get(field))
		}
	}
}
