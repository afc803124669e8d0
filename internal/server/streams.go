package server

import (
	"context"
	"errors"
	"io"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// maxUnderWay is how many batches of a stream are recorded at once, so that one
// stream can fill the commits.
const maxUnderWay = 8

// eventStream is one call of StreamEvents. Its loop is the only one to touch
// it; a goroutine reads one message, another records one batch, and each hands
// over what it has. None outlives the call, but for the one that is reading:
// gRPC ends it when the call has returned.
type eventStream struct {
	*eventService
	stream   grpc.BidiStreamingServer[assayv1.StreamEventsRequest, assayv1.StreamEventsResponse]
	received chan received
	reading  bool

	sequence int64            // Of the last batch that was read.
	underWay []*streamedBatch // In the order of their acknowledgement.
	ended    bool             // Nothing more is read.
	err      error            // What to end with.
}

// received is a message, or why there is none.
type received struct {
	req   *assayv1.StreamEventsRequest
	bytes int64 // Admitted.
	err   error
}

// streamedBatch is a batch under way.
type streamedBatch struct {
	done  chan struct{}
	resp  *assayv1.StreamEventsResponse
	bytes int64 // Admitted: those of the request, and after done of the response.
	err   error
}

func (s *eventService) StreamEvents(stream grpc.BidiStreamingServer[assayv1.StreamEventsRequest, assayv1.StreamEventsResponse]) error {
	if !s.admission.open.TryAcquire(1) {
		s.admission.refused.Inc()
		return errOverloaded()
	}
	defer s.admission.open.Release(1)
	ctx, cancel := context.WithCancel(stream.Context())
	e := &eventStream{eventService: s, stream: stream, received: make(chan received)}
	defer e.settle()
	defer cancel()
	stopping := s.Stopping
	for !e.ended || len(e.underWay) > 0 {
		if !e.ended && !e.reading && len(e.underWay) < maxUnderWay {
			e.reading = true
			go e.read(ctx, e.sequence)
		}
		var oldest chan struct{}
		if len(e.underWay) > 0 {
			oldest = e.underWay[0].done
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case in := <-e.received:
			e.reading = false
			e.begin(ctx, in)
		case <-oldest:
			if err := e.acknowledge(); err != nil {
				return err
			}
		case <-stopping:
			stopping = nil
			e.end(experiment.Errorf(experiment.ErrUnavailable, "STOPPING",
				"the server is stopping; send on a new stream what was not acknowledged"))
		}
	}
	return e.err
}

// read receives a message and hands it over once it is admitted.
func (e *eventStream) read(ctx context.Context, last int64) {
	in := e.receive(ctx, last)
	select {
	case e.received <- in:
	case <-ctx.Done():
		e.admission.streams.Release(in.bytes)
	}
}

// receive returns a message that keeps the rules of a batch, whose sequence
// number must be above last. It waits for its admission before it decodes it.
func (e *eventStream) receive(ctx context.Context, last int64) (in received) {
	defer func() {
		if p := recover(); p != nil {
			in.err = recovered(ctx, p)
		}
	}()
	in.req = new(assayv1.StreamEventsRequest)
	m := &incoming{admission: e.admission, message: in.req, wait: func(n int64) error { return e.admission.streams.Acquire(ctx, n) }}
	if in.err = e.stream.RecvMsg(m); in.err == nil {
		in.err = m.err
	}
	if in.err == nil {
		in.err = e.check(in.req, last)
	}
	if in.err == nil {
		in.bytes = m.bytes
	} else {
		e.admission.streams.Release(m.bytes)
	}
	return in
}

// check is about the rules of a batch. Those of its items are checked with each.
func (e *eventStream) check(req *assayv1.StreamEventsRequest, last int64) error {
	var bad experiment.InvalidError
	if err := bad.Join("", checkRules(e.validator, req)); err != nil {
		return err
	}
	if req.Sequence >= 1 && req.Sequence <= last {
		bad.Add("sequence", "must be greater than that of the batch before, %d", last)
	}
	switch n := len(req.Exposures) + len(req.Outcomes); {
	case n == 0:
		bad.Add("exposures", "must not be empty, unless there are outcomes")
		bad.Add("outcomes", "must not be empty, unless there are exposures")
	case n > maxBatchItems && len(bad.Violations) == 0:
		bad.Add("exposures", "must not be more than %d together with the outcomes", maxBatchItems)
		bad.Add("outcomes", "must not be more than %d together with the exposures", maxBatchItems)
	}
	return bad.Err()
}

// begin records what was received, if it is a batch and the stream goes on.
func (e *eventStream) begin(ctx context.Context, in received) {
	switch {
	case errors.Is(in.err, io.EOF): // The client has no more to send.
		e.end(nil)
	case in.err != nil:
		e.end(in.err)
	case e.ended:
		e.admission.streams.Release(in.bytes)
	default:
		e.sequence = in.req.Sequence
		b := &streamedBatch{done: make(chan struct{}), bytes: in.bytes}
		e.underWay = append(e.underWay, b)
		go e.record(ctx, b, in.req)
	}
}

// end stops the reading. What is under way is still acknowledged.
func (e *eventStream) end(err error) {
	if !e.ended {
		e.ended, e.err = true, err
	}
}

// record stores a batch. From then on its response counts as admitted in the
// place of the request, until it is sent.
func (e *eventStream) record(ctx context.Context, b *streamedBatch, req *assayv1.StreamEventsRequest) {
	defer close(b.done)
	defer func() {
		if p := recover(); p != nil {
			b.err = recovered(ctx, p)
		}
		left := min(b.bytes, int64(proto.Size(b.resp)))
		e.admission.streams.Release(b.bytes - left)
		b.bytes = left
	}()
	exposures, err := e.recordExposures(ctx, req.Exposures)
	if err != nil {
		b.err = err
		return
	}
	outcomes, err := e.recordOutcomes(ctx, req.Outcomes)
	if err != nil {
		b.err = err
		return
	}
	b.resp = &assayv1.StreamEventsResponse{
		Sequence: req.Sequence, Recorded: exposures.recorded + outcomes.recorded, Duplicates: exposures.duplicates + outcomes.duplicates,
		RejectedExposures: exposures.rejected, RejectedOutcomes: outcomes.rejected,
	}
}

// acknowledge answers the oldest batch under way, which is done. A refusal is a
// stream's end, and the client is to try again on another.
func (e *eventStream) acknowledge() error {
	b := e.underWay[0]
	e.underWay = slices.Delete(e.underWay, 0, 1)
	defer e.admission.streams.Release(b.bytes)
	if errors.Is(b.err, experiment.ErrExhausted) {
		return experiment.Errorf(experiment.ErrUnavailable, "OVERLOADED", "%s", b.err.Error())
	}
	if b.err != nil {
		return b.err
	}
	return e.stream.Send(b.resp)
}

// settle waits for the batches that are not acknowledged.
func (e *eventStream) settle() {
	for _, b := range e.underWay {
		<-b.done
		e.admission.streams.Release(b.bytes)
	}
}
