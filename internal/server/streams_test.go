package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// eventStream is a stream of batches as JSON.
type eventStream struct {
	grpc.BidiStreamingClient[assayv1.StreamEventsRequest, assayv1.StreamEventsResponse]
	tb testing.TB
}

func (a *api) stream(tb testing.TB) *eventStream {
	tb.Helper()
	s, err := a.events.StreamEvents(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return &eventStream{s, tb}
}

func (s *eventStream) send(batches ...string) *eventStream {
	s.tb.Helper()
	for _, b := range batches {
		if err := s.Send(newRequest(s.tb, "EventService/StreamEvents", b).(*assayv1.StreamEventsRequest)); err != nil {
			s.tb.Fatal(err)
		}
	}
	return s
}

// expect receives the acknowledgements, which it compares but for the messages
// of their rejections.
func (s *eventStream) expect(acknowledgements ...string) {
	s.tb.Helper()
	for _, text := range acknowledgements {
		got, err := s.Recv()
		if err != nil {
			s.tb.Fatal(err)
		}
		want := parse(s.tb, got.ProtoReflect().Descriptor(), text)
		if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.Rejection{}, "message")); diff != "" {
			s.tb.Errorf("acknowledgement (-want +got):\n%s", diff)
		}
	}
}

// end receives what must be the end of the stream.
func (s *eventStream) end() error {
	s.tb.Helper()
	got, err := s.Recv()
	if err == nil {
		s.tb.Fatalf("the stream goes on with %v", got)
	}
	return err
}

// checkRetry holds that an error tells when to try again.
func checkRetry(tb testing.TB, err error) {
	tb.Helper()
	if !slices.ContainsFunc(status.Convert(err).Details(), func(d any) bool {
		info, ok := d.(*errdetails.RetryInfo)
		return ok && info.RetryDelay.AsDuration() > 0
	}) {
		tb.Errorf("does not say when to try again: %v", err)
	}
}

func TestStreamEvents(t *testing.T) {
	a := newAPI(t)
	a.createCheckoutCopy(t)
	a.do(t, "ExperimentService/StartExperiment", `{"key":"checkout-copy"}`)
	const (
		exposure = `{"experiment":"checkout-copy","variant":"short","subject":{"key":"u-1","attributes":{"country":"PL"}},"exposed_time":"2026-01-05T10:00:00Z"}`
		unknown  = `{"experiment":"nothing","variant":"short","subject":{"key":"u-1"}}`
		order    = `{"event_id":"order-1","subject":{"key":"u-1"},"name":"purchase","value":1,"occurred_time":"2026-01-05T10:03:00Z"}`
		other    = `{"event_id":"order-1","subject":{"key":"u-1"},"name":"purchase","value":2,"occurred_time":"2026-01-05T10:03:00Z"}`
	)
	first := `{"sequence":"1","exposures":[` + exposure + `],"outcomes":[` + order + `]}`
	s := a.stream(t).send(first)
	s.expect(`{"sequence":"1","recorded":2}`)
	s.send(`{"sequence":"7","outcomes":[`+order+`,{},`+other+`,`+with(order, `"event_id":"order-2"`)+`]}`,
		`{"sequence":"9223372036854775807","exposures":[{},`+unknown+`,`+exposure+`]}`)
	s.expect(`{"sequence":"7","recorded":1,"duplicates":1,"rejected_outcomes":[
			{"index":1,"reason":"REJECTION_REASON_INVALID_FIELD","field":"event_id"},{"index":2,"reason":"REJECTION_REASON_CONFLICT","field":"event_id"}]}`,
		`{"sequence":"9223372036854775807","duplicates":1,"rejected_exposures":[
			{"reason":"REJECTION_REASON_INVALID_FIELD","field":"experiment"},{"index":1,"reason":"REJECTION_REASON_EXPERIMENT_NOT_FOUND","field":"experiment"}]}`)
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := s.end(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
	// A new stream knows nothing of the old one.
	again := a.stream(t).send(first)
	again.expect(`{"sequence":"1","duplicates":2}`)
}

func TestStreamBreaksARule(t *testing.T) {
	a := newAPI(t)
	valid := func(sequence string) string {
		return `{"sequence":"` + sequence + `","outcomes":[{"event_id":"` + sequence + `","subject":{"key":"u"},"name":"purchase","occurred_time":"2026-01-05T10:03:00Z"}]}`
	}
	empties := func(n int) string { return strings.TrimSuffix(strings.Repeat(`{},`, n), ",") }
	for _, tt := range []struct {
		name, batch string
		fields      []string
	}{
		{"no sequence", `{"exposures":[{}]}`, []string{"sequence"}},
		{"negative sequence", `{"sequence":"-1","exposures":[{}]}`, []string{"sequence"}},
		{"the same sequence", `{"sequence":"5","exposures":[{}]}`, []string{"sequence"}},
		{"a lower sequence", `{"sequence":"4"}`, []string{"exposures", "outcomes", "sequence"}},
		{"nothing", `{"sequence":"6"}`, []string{"exposures", "outcomes"}},
		{"too many", `{"sequence":"6","exposures":[` + empties(5_000) + `],"outcomes":[` + empties(5_001) + `]}`, []string{"exposures", "outcomes"}},
		{"too many exposures", `{"sequence":"6","exposures":[` + empties(10_001) + `]}`, []string{"exposures"}},
		{"too many outcomes", `{"outcomes":[` + empties(10_001) + `]}`, []string{"outcomes"}}, // Not decoded, and so nothing else is known.
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := a.stream(t).send(valid("5"), tt.batch)
			if got, err := s.Recv(); err != nil || got.Sequence != 5 || got.Recorded+got.Duplicates != 1 {
				t.Errorf("the batch before: %v, %v", got, err)
			}
			checkRefusal(t, s.end(), codes.InvalidArgument, "", tt.fields...)
		})
	}
	full := a.stream(t).send(`{"sequence":"1","exposures":[` + empties(5_000) + `],"outcomes":[` + empties(5_000) + `]}`)
	if got, err := full.Recv(); err != nil || len(got.RejectedExposures) != 5_000 || len(got.RejectedOutcomes) != 5_000 {
		t.Errorf("the largest batch: %d and %d rejected, %v", len(got.GetRejectedExposures()), len(got.GetRejectedOutcomes()), err)
	}
}

// held is a server whose outcomes cannot be stored until they are released.
type held struct {
	*api
	conn    *pgx.Conn
	watcher *pgx.Conn
}

func newHeld(t *testing.T) *held {
	t.Helper()
	a, address := newAPIAt(t)
	h := &held{api: a}
	for _, conn := range []**pgx.Conn{&h.conn, &h.watcher} {
		var err error
		if *conn, err = pgx.Connect(t.Context(), address); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*conn).Close(context.Background()) })
	}
	h.record(t, "before") // The partition and the name are known from now on.
	h.execute(t, `BEGIN; LOCK TABLE outcomes`)
	return h
}

func (h *held) execute(t *testing.T, sql string) {
	t.Helper()
	if _, err := h.conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func (h *held) record(t *testing.T, event string) {
	t.Helper()
	h.do(t, "EventService/RecordOutcomes", `{"outcomes":[{"event_id":"`+event+`","subject":{"key":"u"},"name":"purchase","occurred_time":"2026-01-05T10:03:00Z"}]}`)
}

// waits returns when a commit waits for the release.
func (h *held) waits(t *testing.T) {
	t.Helper()
	for waiting := false; !waiting; time.Sleep(time.Millisecond) {
		if err := h.watcher.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
}

func (h *held) release(t *testing.T) {
	t.Helper()
	h.execute(t, `ROLLBACK`)
}

// TestStreamEndsInOrder stops the server while a batch is being stored.
func TestStreamEndsInOrder(t *testing.T) {
	h := newHeld(t)
	s := h.stream(t).send(`{"sequence":"1","outcomes":[{"event_id":"e","subject":{"key":"u"},"name":"purchase","occurred_time":"2026-01-05T10:03:00Z"}]}`)
	h.waits(t)
	close(h.stopping)
	h.release(t)
	s.expect(`{"sequence":"1","recorded":1}`)
	err := s.end()
	checkRefusal(t, err, codes.Unavailable, "stopping", "STOPPING")
	checkRetry(t, err)
}

func TestStreamWithoutDatabase(t *testing.T) {
	a, address := newAPIAt(t)
	batch := func(n int) string {
		return fmt.Sprintf(`{"sequence":"%d","outcomes":[{"event_id":"%d","subject":{"key":"u"},"name":"purchase","occurred_time":"2026-01-05T10:03:00Z"}]}`, n, n)
	}
	s := a.stream(t).send(batch(1))
	s.expect(`{"sequence":"1","recorded":1}`)
	giveBack := takeAway(t, address)
	s.send(batch(2))
	err := s.end()
	checkRefusal(t, err, codes.Unavailable, "the database", "DATABASE_UNAVAILABLE")
	checkRetry(t, err)
	giveBack()
	a.stream(t).send(batch(1), batch(2)).expect(`{"sequence":"1","duplicates":1}`, `{"sequence":"2","recorded":1}`)
}

// largeBatch takes more than 3 MB.
func largeBatch(name string) []*assayv1.Outcome {
	list := make([]*assayv1.Outcome, 400)
	for i := range list {
		list[i] = &assayv1.Outcome{
			EventId: fmt.Sprint(name, i), Subject: &assayv1.Subject{Key: "u"}, Name: "purchase", OccurredTime: timestamppb.New(exposedAt),
			Properties: newText(8_000),
		}
	}
	return list
}

// TestOverload sends more than is admitted while nothing can be stored. What is
// too much is refused at once, or waits in its stream; what was admitted is
// stored, and so is what is sent afterwards.
func TestOverload(t *testing.T) {
	h := newHeld(t)
	const calls = 20
	answers := make(chan error, calls)
	for i := range calls {
		go func() {
			resp, err := h.events.RecordOutcomes(context.Background(), &assayv1.RecordOutcomesRequest{Outcomes: largeBatch(fmt.Sprint("call-", i, "-"))})
			if err == nil && resp.Recorded != 400 {
				err = fmt.Errorf("%v", resp)
			}
			answers <- err
		}()
	}
	checkOverloaded := func(err error) {
		t.Helper()
		checkRefusal(t, err, codes.ResourceExhausted, "more events", "OVERLOADED")
		checkRetry(t, err)
	}
	// A message of 3 MB takes 3.4 of 32 MiB.
	const admitted = 9
	for range calls - admitted {
		checkOverloaded(<-answers)
	}
	_, err := h.events.RecordOutcomes(t.Context(), &assayv1.RecordOutcomesRequest{Outcomes: largeBatch("small")[:1]})
	checkOverloaded(err) // There is no room for the usual.
	h.do(t, "AssignmentService/Assign", `{"subject":{"key":"u"}}`)

	const streamed = 6 // Two times so many do not fit in.
	streams := []*eventStream{h.stream(t), h.stream(t)}
	sent := make(chan error, len(streams))
	for i, s := range streams {
		go func() {
			for n := range int64(streamed) {
				if err := s.Send(&assayv1.StreamEventsRequest{Sequence: n + 1, Outcomes: largeBatch(fmt.Sprint("stream-", i, n, "-"))}); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
	}
	h.waits(t)
	h.release(t)
	for range admitted {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	for _, s := range streams {
		for n := range int64(streamed) {
			if got, err := s.Recv(); err != nil || got.Sequence != n+1 || got.Recorded != 400 {
				t.Fatalf("acknowledgement %d: %v, %v", n+1, got, err)
			}
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
	h.record(t, "after")
}
