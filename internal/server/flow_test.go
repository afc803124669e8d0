package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/catalog"
	"github.com/assayhq/assay/internal/event"
	"github.com/assayhq/assay/internal/experiment"
)

// theater is a stream of events whose client and store the test plays. The
// goroutines of the stream must be gone when the test ends.
type theater struct {
	grpc.ServerStream
	ctx   context.Context
	leave context.CancelFunc // The client goes.
	batch chan *assayv1.StreamEventsRequest
	stop  chan struct{}
	ended chan error

	service   *eventService
	admission *admission
	storing   chan struct{} // What each commit waits for.
	taking    chan struct{} // What each acknowledgement waits for.
	refuses   error         // What the store answers.

	mu        sync.Mutex
	read      int     // Messages.
	committed int     // Outcomes.
	sent      []int64 // Sequence numbers acknowledged.
}

func (th *theater) Context() context.Context { return th.ctx }

func (th *theater) Recv() (*assayv1.StreamEventsRequest, error) {
	return nil, errors.New("a message is received that is not admitted")
}

func (th *theater) RecvMsg(m any) error {
	select {
	case req, ok := <-th.batch:
		if !ok {
			return io.EOF
		}
		th.mu.Lock()
		th.read++
		th.mu.Unlock()
		data, err := proto.Marshal(req)
		if err != nil {
			return err
		}
		return newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, m)
	case <-th.ctx.Done():
		return th.ctx.Err()
	}
}

func (th *theater) Send(resp *assayv1.StreamEventsResponse) error {
	select {
	case <-th.taking:
	case <-th.ctx.Done():
		return th.ctx.Err()
	}
	th.mu.Lock()
	defer th.mu.Unlock()
	th.sent = append(th.sent, resp.Sequence)
	return nil
}

func (th *theater) flush(_ context.Context, items []experiment.Outcome) ([]experiment.Result, error) {
	<-th.storing
	th.mu.Lock()
	defer th.mu.Unlock()
	th.committed += len(items)
	return make([]experiment.Result, len(items)), th.refuses
}

// playStream runs a test with a stream whose client sends 20 batches of an
// outcome, and whose store and client are stuck until their channel is closed.
func playStream(t *testing.T, test func(t *testing.T, th *theater)) {
	t.Helper()
	validator := newValidator(t)
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		a, err := newAdmission(prometheus.NewRegistry(), log)
		if err != nil {
			t.Fatal(err)
		}
		open, err := newOpenStreams(defaultStreamLimits, prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		th := &theater{admission: a, batch: make(chan *assayv1.StreamEventsRequest, 20), stop: make(chan struct{}), ended: make(chan error, 1),
			storing: make(chan struct{}), taking: make(chan struct{})}
		th.ctx, th.leave = context.WithCancel(t.Context())
		exposures := event.NewWriter(func(context.Context, []experiment.Exposure) ([]experiment.Result, error) { return nil, nil }, nil)
		outcomes := event.NewWriter(th.flush, nil)
		writing, stopWriting := context.WithCancel(t.Context())
		go outcomes.Run(writing)
		s := &eventService{admission: a, open: open, services: &services{validator: validator, Config: Config{
			Catalog: catalog.New(nil, nil, nil, nil, time.Hour, log), Exposures: exposures, Outcomes: outcomes,
			Names:  func(context.Context, []experiment.Outcome) (*experiment.NameRefusal, error) { return nil, nil },
			Months: func(context.Context, []experiment.Outcome) error { return nil },
			Pepper: experiment.Pepper("a pepper for streams"), Now: time.Now, Stopping: th.stop, Log: log,
		}}}
		th.service = s
		for i := range int64(20) {
			th.batch <- &assayv1.StreamEventsRequest{Sequence: i + 1, Outcomes: []*assayv1.Outcome{{
				EventId: "e", Subject: &assayv1.Subject{Key: "u"}, Name: "purchase", OccurredTime: &timestamppb.Timestamp{},
			}}}
		}
		go func() { th.ended <- s.StreamEvents(th) }()
		synctest.Wait()
		test(t, th)
		th.leave() // As gRPC does when the call has returned.
		synctest.Wait()
		stopWriting()
		if !a.streams.TryAcquire(recordingBytes) {
			t.Error("after the stream, something is still admitted")
		}
		if len(open.open) != 0 || open.unread != 0 {
			t.Errorf("after the stream, %d are open, and %d bytes unread", len(open.open), open.unread)
		}
	})
}

func (th *theater) checkRead(t *testing.T, when string, read int, sent ...int64) {
	t.Helper()
	synctest.Wait()
	th.mu.Lock()
	defer th.mu.Unlock()
	if th.read != read || !slices.Equal(th.sent, sent) {
		t.Errorf("%s: %d messages were read, want %d; acknowledged %v, want %v", when, th.read, read, th.sent, sent)
	}
}

func (th *theater) checkEnd(t *testing.T, want error) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-th.ended:
		if !errors.Is(err, want) {
			t.Errorf("the stream ended with %v, want %v", err, want)
		}
	default:
		t.Error("the stream goes on")
	}
}

func upTo(n int64) (list []int64) {
	for i := range n {
		list = append(list, i+1)
	}
	return list
}

func TestStuckStoreStopsTheReading(t *testing.T) {
	playStream(t, func(t *testing.T, th *theater) {
		th.checkRead(t, "while nothing is stored", maxUnderWay)
		close(th.taking)
		th.checkRead(t, "while nothing is stored", maxUnderWay)
		close(th.storing)
		th.checkRead(t, "then", 20, upTo(20)...)
		close(th.batch)
		th.checkEnd(t, nil)
	})
}

func TestStuckClientStopsTheReading(t *testing.T) {
	playStream(t, func(t *testing.T, th *theater) {
		close(th.storing)
		th.checkRead(t, "while the client takes nothing", maxUnderWay)
		th.taking <- struct{}{}
		th.checkRead(t, "after one acknowledgement", maxUnderWay+1, 1)
		if !th.admission.streams.TryAcquire(recordingBytes - 1000) {
			t.Error("what is stored and not acknowledged keeps other streams waiting")
		}
		th.admission.streams.Release(recordingBytes - 1000)
		th.leave()
		th.checkEnd(t, context.Canceled)
	})
}

// TestStuckClientEnds holds that a client may be as slow as it likes, if it takes an
// acknowledgement now and then.
func TestStuckClientEnds(t *testing.T) {
	playStream(t, func(t *testing.T, th *theater) {
		close(th.storing)
		for range 3 {
			time.Sleep(defaultStreamLimits.sending - time.Second)
			th.taking <- struct{}{}
		}
		th.checkRead(t, "while the client is slow", maxUnderWay+3, upTo(3)...)
		time.Sleep(defaultStreamLimits.sending)
		th.checkEnd(t, experiment.ErrUnavailable)
	})
}

// TestAdmissionStopsTheReading holds back a stream while others take all.
func TestAdmissionStopsTheReading(t *testing.T) {
	playStream(t, func(t *testing.T, th *theater) {
		close(th.storing)
		close(th.taking)
		th.checkRead(t, "alone", 20, upTo(20)...)
		if !th.admission.streams.TryAcquire(recordingBytes) {
			t.Fatal("something is left over")
		}
		for i := range int64(3) {
			th.batch <- &assayv1.StreamEventsRequest{Sequence: 21 + i, Outcomes: []*assayv1.Outcome{{}}}
		}
		th.checkRead(t, "beside others that take all", 21, upTo(20)...)
		th.admission.streams.Release(recordingBytes)
		th.checkRead(t, "after the others", 23, upTo(23)...)
		close(th.batch)
		th.checkEnd(t, nil)
	})
}

// TestIdleStreamEnds is about a client that goes without having anything under
// way, and about a server that stops then.
func TestIdleStreamEnds(t *testing.T) {
	for range 20 { // What ends it comes in any order.
		playStream(t, func(t *testing.T, th *theater) {
			close(th.taking)
			close(th.storing)
			th.checkRead(t, "all", 20, upTo(20)...)
			th.leave()
			th.checkEnd(t, context.Canceled)
		})
	}
	playStream(t, func(t *testing.T, th *theater) {
		close(th.taking)
		close(th.storing)
		th.checkRead(t, "all", 20, upTo(20)...)
		close(th.stop)
		th.checkEnd(t, experiment.ErrUnavailable)
	})
}

func TestStreamEndsWithTheServer(t *testing.T) {
	playStream(t, func(t *testing.T, th *theater) {
		close(th.taking)
		close(th.stop)
		th.checkRead(t, "while nothing is stored", maxUnderWay)
		close(th.storing)
		th.checkEnd(t, experiment.ErrUnavailable)
		th.checkRead(t, "in the end", maxUnderWay, upTo(maxUnderWay)...)
	})
}

func TestStreamEndsWithTheStore(t *testing.T) {
	for _, refuses := range []error{experiment.ErrExhausted, experiment.ErrUnavailable} {
		playStream(t, func(t *testing.T, th *theater) {
			th.refuses = refuses
			close(th.taking)
			close(th.storing)
			th.checkEnd(t, experiment.ErrUnavailable)
			th.checkRead(t, "in the end", maxUnderWay)
		})
	}
}

// TestPanicEndsTheStream is about a stream without a catalog, on which the
// recording panics.
func TestPanicEndsTheStream(t *testing.T) {
	playStream(t, func(t *testing.T, th *theater) {
		close(th.storing)
		close(th.taking)
		th.checkRead(t, "before", 20, upTo(20)...)
		th.service.Catalog = nil
		th.batch <- &assayv1.StreamEventsRequest{Sequence: 21, Exposures: []*assayv1.Exposure{{}}}
		synctest.Wait()
		var crash *panicError
		if err := <-th.ended; !errors.As(err, &crash) {
			t.Errorf("the stream ended with %v, want the panic", err)
		}
	})
}

// TestStreamEndsWithItsClient holds that what was read is stored, and counts
// until it is.
func TestStreamEndsWithItsClient(t *testing.T) {
	playStream(t, func(t *testing.T, th *theater) {
		th.leave()
		synctest.Wait()
		if th.admission.streams.TryAcquire(recordingBytes) {
			t.Error("what is still to be stored does not count")
		}
		close(th.storing)
		th.checkEnd(t, context.Canceled)
		if diff := cmp.Diff(maxUnderWay, th.committed); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
	})
}
