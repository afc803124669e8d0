package main

import (
	"bytes"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// TestCompressed sends messages of a few kilobytes that would inflate beyond
// what a message may hold. The server knows no compression, which the test's
// own process does: it refuses them unread, and goes on.
func TestCompressed(t *testing.T) {
	_, addr := serveIn(t, dataDir(t), "")
	conn := connect(t, addr)
	events := assayv1.NewEventServiceClient(conn)
	bomb := &assayv1.RecordOutcomesRequest{Outcomes: []*assayv1.Outcome{{EventId: string(bytes.Repeat([]byte("x"), 64<<20))}}}
	if _, err := events.RecordOutcomes(t.Context(), bomb, grpc.UseCompressor(gzip.Name)); status.Code(err) != codes.Unimplemented {
		t.Errorf("a compressed message: %v", err)
	}
	s, err := events.StreamEvents(t.Context(), grpc.UseCompressor(gzip.Name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Unimplemented {
		t.Errorf("a stream of compressed messages: %v", err)
	}
	if _, err := call(t.Context(), conn, "assay.v1.EventService", "RecordOutcomes", anOutcome); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
