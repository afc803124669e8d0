package server_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/testing/protocmp"
)

// The tests type calls as an operator of grpcurl does: a method such as
// "MetricService/CreateMetric" and the request as JSON.

// newRequest returns a request as JSON, or the empty one for "".
func newRequest(tb testing.TB, method, text string) proto.Message {
	tb.Helper()
	return parse(tb, findMethod(tb, method).Input(), text)
}

func findMethod(tb testing.TB, method string) protoreflect.MethodDescriptor {
	tb.Helper()
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("assay.v1." + strings.ReplaceAll(method, "/", ".")))
	if err != nil {
		tb.Fatalf("%s: %v", method, err)
	}
	return d.(protoreflect.MethodDescriptor)
}

func newMessage(tb testing.TB, d protoreflect.MessageDescriptor) proto.Message {
	tb.Helper()
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		tb.Fatal(err)
	}
	return t.New().Interface()
}

func parse(tb testing.TB, d protoreflect.MessageDescriptor, text string) proto.Message {
	tb.Helper()
	m := newMessage(tb, d)
	if text == "" {
		return m
	}
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return m
}

// invoke makes a call with a message. A stream is called with it alone.
func (a *api) invoke(tb testing.TB, method string, req proto.Message) (proto.Message, error) {
	tb.Helper()
	resp := newMessage(tb, findMethod(tb, method).Output())
	err := a.conn.Invoke(context.Background(), "/assay.v1."+method, req, resp)
	return resp, err
}

// call makes a call that must succeed, and returns the response.
func call[T proto.Message](tb testing.TB, a *api, method, request string) T {
	tb.Helper()
	resp, err := a.invoke(tb, method, newRequest(tb, method, request))
	if err != nil {
		tb.Fatalf("%s %s: %v", method, request, err)
	}
	return resp.(T)
}

// do makes a call that must succeed and whose response does not matter.
func (a *api) do(tb testing.TB, method, request string) {
	tb.Helper()
	call[proto.Message](tb, a, method, request)
}

// expect makes a call that must succeed with the given response.
func (a *api) expect(tb testing.TB, method, request, response string) {
	tb.Helper()
	got := call[proto.Message](tb, a, method, request)
	want := parse(tb, findMethod(tb, method).Output(), response)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		tb.Errorf("%s %s (-want +got):\n%s", method, request, diff)
	}
}

// refusal is a call and how it must be refused: the paths of all fields at
// fault for INVALID_ARGUMENT, the reason of the ErrorInfo for other codes.
type refusal struct {
	name    string
	method  string
	request string
	code    codes.Code
	details []string
	says    string // A part of the message; "" stands for any.
}

func (a *api) refuses(t *testing.T, cases []refusal) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			_, err := a.invoke(t, tt.method, newRequest(t, tt.method, tt.request))
			checkRefusal(t, err, tt.code, tt.says, tt.details...)
		})
	}
}

func checkRefusal(tb testing.TB, err error, code codes.Code, says string, details ...string) {
	tb.Helper()
	if got := status.Code(err); got != code {
		tb.Fatalf("code %v, want %v: %v", got, code, err)
	}
	want := slices.Sorted(slices.Values(details))
	if got := refusalDetails(err); !slices.Equal(got, want) {
		tb.Errorf("details %q, want %q: %v", got, want, err)
	}
	if message := status.Convert(err).Message(); !strings.Contains(message, says) {
		tb.Errorf("the message %q does not say %q", message, says)
	}
}

// refusalDetails returns the fields and reasons of an error, sorted.
func refusalDetails(err error) (details []string) {
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.BadRequest:
			for _, v := range d.FieldViolations {
				if v.Description == "" {
					details = append(details, v.Field+" without a description")
					continue
				}
				details = append(details, v.Field)
			}
		case *errdetails.ErrorInfo:
			if d.Domain != "assay" {
				details = append(details, "domain "+d.Domain)
			}
			details = append(details, d.Reason)
		}
	}
	slices.Sort(details)
	return details
}
