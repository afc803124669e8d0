package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// undecodable makes a unary call's message one that panics when it is decoded.
type undecodable struct{ grpc.ServiceRegistrar }

func (u undecodable) RegisterService(desc *grpc.ServiceDesc, implementation any) {
	other := *desc
	other.Methods = slices.Clone(desc.Methods)
	for i := range other.Methods {
		other.Methods[i].Handler = func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			return nil, decode((*assayv1.AssignRequest)(nil))
		}
	}
	u.ServiceRegistrar.RegisterService(&other, implementation)
}

// TestPanicInDecoding holds that a panic while a message is decoded, which is before
// the interceptors, costs one call and not the server, and that it counts no longer.
func TestPanicInDecoding(t *testing.T) {
	a := newTestAdmission(t)
	srv := grpc.NewServer(grpc.ForceServerCodecV2(newCodec()), grpc.ChainUnaryInterceptor(mapErrors(slog.New(slog.DiscardHandler))))
	assayv1.RegisterAssignmentServiceServer(undecodable{registrar{srv, a, newTestWork(t)}}, talkative{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Stop()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 2 {
		_, err := assayv1.NewAssignmentServiceClient(conn).Assign(t.Context(), &assayv1.AssignRequest{Labels: map[string]string{"a": "b"}})
		if status.Code(err) != codes.Internal {
			t.Errorf("a call whose message panics: %v", err)
		}
	}
	if taken := a.small.taken.Load(); taken != 0 {
		t.Errorf("%d bytes still count", taken)
	}
}

// receivedStream is a stream that has received one message.
type receivedStream struct {
	grpc.ServerStream
	text []byte
}

func (s receivedStream) Context() context.Context { return context.Background() }
func (s receivedStream) RecvMsg(m any) error {
	return newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(s.text)}, m)
}

// TestPanicInStream holds that what a stream's message was admitted with is given back
// if it panics while it is decoded or checked, and that a panic in sending ends but the
// stream.
func TestPanicInStream(t *testing.T) {
	a := newTestAdmission(t)
	text, err := proto.Marshal(&assayv1.StreamEventsRequest{Outcomes: []*assayv1.Outcome{{EventId: "x"}}}) // Without a number: the validator is asked.
	if err != nil {
		t.Fatal(err)
	}
	open, err := newOpenStreams(defaultStreamLimits, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s := &eventStream{
		eventService: &eventService{services: &services{}, admission: a, open: open}, place: &openStream{},
		stream: &grpc.GenericServerStream[assayv1.StreamEventsRequest, assayv1.StreamEventsResponse]{ServerStream: receivedStream{text: text}},
	}
	in := s.receive(t.Context(), 0)
	if !errors.As(in.err, new(*panicError)) || in.bytes != 0 {
		t.Errorf("there is no validator, and %d bytes were received: %v", in.bytes, in.err)
	}
	if !a.streams.TryAcquire(a.recording) {
		t.Error("the message still counts")
	}
	if err := s.send(t.Context(), &assayv1.StreamEventsResponse{}); !errors.As(err, new(*panicError)) {
		t.Errorf("nothing can be sent: %v", err)
	}

	admitted := &admittedStream{ServerStream: receivedStream{text: text}, admission: a}
	if err := admitted.RecvMsg((*assayv1.StreamEventsRequest)(nil)); !errors.As(err, new(*panicError)) {
		t.Errorf("a message that panics: %v", err)
	}
	admitted.hold(nil, true)
	if taken := a.small.taken.Load(); taken != 0 {
		t.Errorf("%d bytes of a message that panicked still count", taken)
	}
}
