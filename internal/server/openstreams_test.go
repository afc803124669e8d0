package server_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	flagdv1 "github.com/assayhq/assay/gen/flagd/evaluation/v1"
	"github.com/assayhq/assay/internal/server"
)

// from is a client of the same server at another address of this host.
func (a *api) from(t *testing.T, address string, options ...grpc.DialOption) *api {
	t.Helper()
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
			return d.DialContext(ctx, "tcp", to)
		}))
	conn, err := grpc.NewClient(a.conn.Target(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	other := *a
	other.conn, other.events, other.assign = conn, assayv1.NewEventServiceClient(conn), assayv1.NewAssignmentServiceClient(conn)
	return &other
}

func outcomeBatch(sequence int, event string) string {
	return fmt.Sprintf(`{"sequence":"%d","outcomes":[{"event_id":%q,"subject":{"key":"u"},"name":"purchase","occurred_time":"2026-01-05T10:03:00Z"}]}`, sequence, event)
}

// checkGoesOn holds that a stream still records.
func (s *eventStream) checkGoesOn(sequence int) {
	s.tb.Helper()
	s.send(outcomeBatch(sequence, fmt.Sprintf("%p-%d", s, sequence)))
	s.expect(fmt.Sprintf(`{"sequence":"%d","recorded":1}`, sequence))
}

// TestIdleStreams opens as many streams as there may be, which then are idle. They
// keep nobody out, and a client with few streams loses none to one with many.
func TestIdleStreams(t *testing.T) {
	server.SetStreamLimits(t, func(l *server.StreamLimits) { l.Recording = 4 })
	a := newAPI(t)
	few, greedy := a.from(t, "127.0.0.2"), a.from(t, "127.0.0.3")
	oldest := few.stream(t)
	oldest.checkGoesOn(1)
	var idle []*eventStream
	for range 3 {
		s := greedy.stream(t)
		s.checkGoesOn(1)
		idle = append(idle, s)
	}
	newcomer := a.stream(t)
	newcomer.checkGoesOn(1)
	err := idle[0].end() // The longest idle of the greediest.
	checkRefusal(t, err, codes.Unavailable, "idle", "STREAM_IDLE")
	checkRetry(t, err)
	another := a.stream(t)
	another.checkGoesOn(1)
	for i, s := range []*eventStream{oldest, idle[2], newcomer, another} {
		s.checkGoesOn(2)
		if t.Failed() {
			t.Fatalf("stream %d", i)
		}
	}
}

// TestBusyStream has a stream that waits for a commit take the only place: it is
// not ended for another.
func TestBusyStream(t *testing.T) {
	server.SetStreamLimits(t, func(l *server.StreamLimits) { l.Recording = 1 })
	h := newHeld(t)
	busy := h.stream(t).send(outcomeBatch(1, "a"))
	h.waits(t)
	err := h.stream(t).end()
	checkRefusal(t, err, codes.ResourceExhausted, "as many streams", "TOO_MANY_STREAMS")
	checkRetry(t, err)
	h.release(t)
	busy.expect(`{"sequence":"1","recorded":1}`)
	busy.checkGoesOn(2)
}

// rejectedBatch is a batch whose acknowledgement is as large as they get.
func rejectedBatch(sequence int64, items int) *assayv1.StreamEventsRequest {
	req := &assayv1.StreamEventsRequest{Sequence: sequence, Outcomes: make([]*assayv1.Outcome, items)}
	for i := range req.Outcomes {
		req.Outcomes[i] = &assayv1.Outcome{}
	}
	return req
}

// silentReaders open streams, send batches whose acknowledgements are large, and
// read none. They send until the stream ends or takes no more.
func (a *api) silentReaders(t *testing.T, streams, items int) []*eventStream {
	t.Helper()
	var all []*eventStream
	for range streams {
		s := a.stream(t)
		all = append(all, s)
		go func() {
			for n := int64(1); s.Send(rejectedBatch(n, items)) == nil; n++ {
			}
		}()
	}
	return all
}

// checkUnread reads what a stream was sent until it ends, which it must for that.
func (s *eventStream) checkUnread() {
	s.tb.Helper()
	for {
		if _, err := s.Recv(); err != nil {
			checkRefusal(s.tb, err, codes.Unavailable, "not read", "ACKNOWLEDGEMENTS_UNREAD")
			checkRetry(s.tb, err)
			return
		}
	}
}

// ended is how many streams the server has ended.
func (a *api) ended(t *testing.T, reason string) (n int) {
	t.Helper()
	families, err := a.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "assay_streams_ended_total" && m.Label[0].GetValue() == reason {
				n = int(m.Counter.GetValue())
			}
		}
	}
	return n
}

// TestUnreadAcknowledgements has clients that send and do not read hold more
// acknowledgements than there may be. Some are ended for it, though each alone
// might wait for an hour; who reads goes on.
func TestUnreadAcknowledgements(t *testing.T) {
	server.SetStreamLimits(t, func(l *server.StreamLimits) { l.Acknowledgements, l.Sending = 1<<20, time.Hour })
	a := newAPI(t)
	well := a.from(t, "127.0.0.2").stream(t)
	a.from(t, "127.0.0.3").silentReaders(t, 12, 500)
	n := 1
	for ; a.ended(t, "ACKNOWLEDGEMENTS_UNREAD") < 3; n++ {
		well.checkGoesOn(n)
	}
	well.checkGoesOn(n)
}

// TestUnreadTooLong has clients that send and do not read end after their time.
func TestUnreadTooLong(t *testing.T) {
	server.SetStreamLimits(t, func(l *server.StreamLimits) { l.Sending = 2 * time.Second })
	a := newAPI(t)
	well := a.from(t, "127.0.0.2").stream(t)
	silent := a.from(t, "127.0.0.3").silentReaders(t, 2, 500)
	n := 1
	for ; a.ended(t, "ACKNOWLEDGEMENTS_UNREAD") < len(silent); n++ {
		well.checkGoesOn(n)
	}
	for _, s := range silent {
		s.checkUnread()
	}
	well.checkGoesOn(n)
}

// TestUnreadHoldNoRoom has clients that do not read leave all the room for requests
// to others, for as long as they may.
func TestUnreadHoldNoRoom(t *testing.T) {
	server.SetStreamLimits(t, func(l *server.StreamLimits) { l.Sending = time.Hour })
	a := newAPI(t)
	well := a.from(t, "127.0.0.2").stream(t)
	a.from(t, "127.0.0.3").silentReaders(t, 6, 9000) // With 8 requests of 1.5 MB each they would hold more than all may.
	for n := 1; n <= 100; n++ {
		well.checkGoesOn(n)
	}
}

// TestWaitingStreams sends more in streams than may wait while nothing is stored:
// what has no room ends its stream, and the others wait.
func TestWaitingStreams(t *testing.T) {
	server.SetStreamLimits(t, func(l *server.StreamLimits) { l.Waiting = 8 << 20 })
	h := newHeld(t)
	const streams = 20 // Of 3.4 MB each; 32 MiB are admitted and 8 more may wait.
	ends := make(chan error, streams)
	for i := range streams {
		s := h.stream(t)
		go func() {
			if err := s.Send(&assayv1.StreamEventsRequest{Sequence: 1, Outcomes: largeBatch(fmt.Sprint(i, "-"))}); err != nil {
				ends <- err
				return
			}
			_, err := s.Recv()
			ends <- err
		}()
	}
	h.waits(t)
	checkRefusal(t, <-ends, codes.Unavailable, "more events", "OVERLOADED")
	h.release(t)
	recorded := 0
	for range streams - 1 {
		if err := <-ends; err == nil {
			recorded++
		} else {
			checkRefusal(t, err, codes.Unavailable, "more events", "OVERLOADED")
		}
	}
	if recorded < 8 {
		t.Errorf("%d streams were admitted", recorded)
	}
}

// TestFlagStreamsStay has streams of flagd's events, which are idle by nature, keep
// their places while others come and go, and none more be opened than may be.
func TestFlagStreamsStay(t *testing.T) {
	server.SetStreamLimits(t, func(l *server.StreamLimits) { l.Recording, l.Standing = 1, 4 })
	a := newAPI(t)
	follow := func(a *api) (flagdv1.Service_EventStreamClient, error) {
		s, err := flagdv1.NewServiceClient(a.conn).EventStream(t.Context(), &flagdv1.EventStreamRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		return s, err
	}
	var open []flagdv1.Service_EventStreamClient
	for _, client := range []*api{a, a, a.from(t, "127.0.0.2"), a.from(t, "127.0.0.3")} {
		s, err := follow(client)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
		if len(open) == 2 {
			_, err := follow(a)
			checkRefusal(t, err, codes.ResourceExhausted, "as many streams", "TOO_MANY_STREAMS")
		}
	}
	_, err := follow(a.from(t, "127.0.0.4"))
	checkRefusal(t, err, codes.ResourceExhausted, "as many streams", "TOO_MANY_STREAMS")
	checkRetry(t, err)
	for range 3 {
		a.stream(t).checkGoesOn(1)
	}
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"key":"new","metrics":[]`))
	for _, s := range open {
		if e, err := s.Recv(); err != nil || e.Type != "configuration_change" {
			t.Errorf("a stream of events: %v, %v", e, err)
		}
	}
}

// TestIdleConnections has a connection without calls be closed, and one with a stream
// stay.
func TestIdleConnections(t *testing.T) {
	server.SetStreamLimits(t, func(l *server.StreamLimits) { l.Idle = 50 * time.Millisecond })
	a := newAPI(t)
	busy, idle := a.from(t, "127.0.0.2"), a.from(t, "127.0.0.3")
	s := busy.stream(t)
	s.checkGoesOn(1)
	idle.do(t, "AssignmentService/Assign", `{"subject":{"key":"u"}}`)
	for idle.conn.GetState() == connectivity.Ready {
		idle.conn.WaitForStateChange(t.Context(), connectivity.Ready)
	}
	s.checkGoesOn(2)
	idle.do(t, "AssignmentService/Assign", `{"subject":{"key":"u"}}`)
}
