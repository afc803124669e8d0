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

// applyMask replaces in target the fields that the mask names by those of
// from, each as a whole; fields lists those that may be named. Without a mask,
// it takes those of them that from has set.
func applyMask(target, from proto.Message, mask *fieldmaskpb.FieldMask, fields []string) error {
	dst, src := target.ProtoReflect(), from.ProtoReflect()
	descriptors := src.Descriptor().Fields()
	paths := mask.GetPaths()
	if mask == nil {
		for _, name := range fields {
			if src.Has(descriptors.ByName(protoreflect.Name(name))) {
				paths = append(paths, name)
			}
		}
	}
	if len(paths) == 1 && paths[0] == "*" {
		paths = fields
	}
	var bad experiment.InvalidError
	for i, path := range paths {
		if !slices.Contains(fields, path) {
			bad.Add(fmt.Sprintf("update_mask.paths[%d]", i), "%q cannot be changed; these can: %s", path, strings.Join(fields, ", "))
			continue
		}
		fd := descriptors.ByName(protoreflect.Name(path))
		if !src.Has(fd) {
			// "*" names every member of a oneof; the one that is set stays.
			if one := fd.ContainingOneof(); one == nil || src.WhichOneof(one) == nil {
				dst.Clear(fd)
			}
			continue
		}
		dst.Set(fd, src.Get(fd))
	}
	return bad.Err()
}
