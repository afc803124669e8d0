package server

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// validate refuses requests that break the rules of the API's schema.
func validate(v protovalidate.Validator) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if m, ok := req.(proto.Message); ok {
			if err := checkRules(v, m); err != nil {
				return nil, err
			}
			if !checkedByItem(m) {
				if path := findNUL(m.ProtoReflect(), ""); path != "" {
					return nil, experiment.Invalid(path, "must not contain NUL")
				}
			}
		}
		return handler(ctx, req)
	}
}

// checkedByItem tells the requests whose strings are checked where they are
// used: they are many, and little of them is stored.
func checkedByItem(m proto.Message) bool {
	switch m.(type) {
	case *assayv1.AssignRequest, *assayv1.BatchAssignRequest, *assayv1.RecordExposuresRequest, *assayv1.RecordOutcomesRequest:
		return true
	}
	return false
}

// checkRules returns an InvalidError that names every field of m that breaks a
// rule of the schema.
func checkRules(v protovalidate.Validator, m proto.Message) error {
	err := v.Validate(m)
	var broken *protovalidate.ValidationError
	if !errors.As(err, &broken) {
		return err
	}
	var bad experiment.InvalidError
	for _, violation := range broken.Violations {
		bad.Add(protovalidate.FieldPathString(violation.Proto.GetField()), "%s", violation.Proto.GetMessage())
	}
	return bad.Err()
}

// findNUL returns the path of a string in m that contains NUL, which Postgres
// cannot store, or "".
func findNUL(m protoreflect.Message, path string) (found string) {
	check := func(path string, fd protoreflect.FieldDescriptor, v protoreflect.Value) {
		switch fd.Kind() {
		case protoreflect.StringKind:
			if strings.ContainsRune(v.String(), 0) {
				found = path
			}
		case protoreflect.MessageKind:
			found = findNUL(v.Message(), path)
		}
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := string(fd.Name())
		if path != "" {
			at = path + "." + at
		}
		switch {
		case fd.IsList():
			for i := 0; i < v.List().Len() && found == ""; i++ {
				check(fmt.Sprintf("%s[%d]", at, i), fd, v.List().Get(i))
			}
		case fd.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, value protoreflect.Value) bool {
				at := fmt.Sprintf("%s[%q]", at, k.String())
				if strings.ContainsRune(k.String(), 0) {
					found = at
				} else {
					check(at, fd.MapValue(), value)
				}
				return found == ""
			})
		default:
			check(at, fd, v)
		}
		return found == ""
	})
	return found
}
