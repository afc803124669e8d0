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
	flagdv1 "github.com/assayhq/assay/gen/flagd/evaluation/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// validate refuses requests that break the rules of the API's schema. Long ones it
// checks in turn.
func validate(v protovalidate.Validator) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if m, ok := req.(proto.Message); ok {
			if err := checkMessage(ctx, v, m); err != nil {
				return nil, err
			}
		}
		return handler(ctx, req)
	}
}

func checkMessage(ctx context.Context, v protovalidate.Validator, m proto.Message) error {
	if in, ok := ctx.Value(incomingKey{}).(*incoming); ok && in.long {
		return inTurn(ctx, func() error { return checkRequest(v, m) })
	}
	return checkRequest(v, m)
}

func checkRequest(v protovalidate.Validator, m proto.Message) error {
	if err := checkRules(v, m); err != nil {
		return err
	}
	if !acceptsNUL(m) {
		if path, found := findNUL(m.ProtoReflect()); found {
			return experiment.Invalid(path, "must not contain NUL")
		}
	}
	return nil
}

// acceptsNUL tells the requests of whose strings none is stored, or only after
// a check of its own.
func acceptsNUL(m proto.Message) bool {
	switch m.(type) {
	case flagRequest, *flagdv1.ResolveAllRequest:
		return true
	case *assayv1.AssignRequest, *assayv1.BatchAssignRequest, *assayv1.ExplainAssignmentRequest,
		*assayv1.RecordExposuresRequest, *assayv1.RecordOutcomesRequest:
		return true
	}
	return false
}

// checkRules returns an InvalidError that names every field of m that breaks a
// rule of the schema. Of a long message it names the first one: a fault takes a
// kilobyte, and each number in such a message may be one.
func checkRules(v protovalidate.Validator, m proto.Message) error {
	if accepts(m) {
		return nil
	}
	var options []protovalidate.ValidationOption
	long := ""
	if proto.Size(m) > longMessage {
		options, long = append(options, protovalidate.WithFailFast()), "; in so long a message nothing else is looked for"
	}
	err := v.Validate(m, options...)
	var broken *protovalidate.ValidationError
	if !errors.As(err, &broken) {
		return err
	}
	var bad experiment.InvalidError
	for _, violation := range broken.Violations {
		bad.Add(protovalidate.FieldPathString(violation.Proto.GetField()), "%s%s", violation.Proto.GetMessage(), long)
	}
	return bad.Err()
}

// findNUL returns the path of a string in m that contains NUL, which Postgres
// cannot store.
func findNUL(m protoreflect.Message) (path string, found bool) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsList():
			for i := 0; i < v.List().Len() && !found; i++ {
				if path, found = findNULIn(fd, v.List().Get(i)); found {
					path = fmt.Sprintf("[%d]%s", i, path)
				}
			}
		case fd.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, value protoreflect.Value) bool {
				if path, found = "", strings.ContainsRune(k.String(), 0); !found {
					path, found = findNULIn(fd.MapValue(), value)
				}
				if found {
					path = fmt.Sprintf("[%q]%s", k.String(), path)
				}
				return !found
			})
		default:
			path, found = findNULIn(fd, v)
		}
		if found {
			path = string(fd.Name()) + path
		}
		return !found
	})
	return path, found
}

// findNULIn looks into one value. The path leads on from it.
func findNULIn(fd protoreflect.FieldDescriptor, v protoreflect.Value) (path string, found bool) {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return "", strings.ContainsRune(v.String(), 0)
	case protoreflect.MessageKind:
		if path, found = findNUL(v.Message()); found {
			path = "." + path
		}
	}
	return path, found
}
