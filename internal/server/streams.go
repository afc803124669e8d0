package server

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// maxUnderWay is how many batches of a stream are not acknowledged, so that one
// stream can fill the commits.
const maxUnderWay = 8

// eventStream is one call of StreamEvents. Its loop is the only one to touch
// it; a goroutine reads one message, another records one batch, a third sends one
// acknowledgement, and each hands over what it has. None outlives the call, but
// for those that read and send: gRPC ends them when the call has returned.
type eventStream struct {
	*eventService
	place    *openStream
	stream   grpc.BidiStreamingServer[assayv1.StreamEventsRequest, assayv1.StreamEventsResponse]
	received chan received
	reading  bool

	sequence int64            // Of the last batch that was read.
	underWay []*streamedBatch // In the order of their acknowledgement.
	sentOne  chan error       // How sending went.
	answered int64            // Bytes of the acknowledgement that is being sent; 0 if none is.
	patience *time.Timer      // With the client that is to read it.
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
	bytes int64 // After done: those of the response, of which there is at least one.
	err   error
}

func (s *eventService) StreamEvents(stream grpc.BidiStreamingServer[assayv1.StreamEventsRequest, assayv1.StreamEventsResponse]) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	e := &eventStream{
		eventService: s, place: &openStream{peer: peerOfCall(ctx), end: cancel}, stream: stream,
		received: make(chan received), sentOne: make(chan error, 1), patience: time.NewTimer(s.open.limits.sending),
	}
	if err := s.open.enter(e.place); err != nil {
		return err
	}
	defer s.open.leave(e.place)
	defer e.settle()
	defer cancel(nil)
	defer e.patience.Stop()
	return e.run(ctx)
}

// run reads, records and acknowledges until the stream is to end.
func (e *eventStream) run(ctx context.Context) error {
	stopping := e.Stopping
	for !e.ended || len(e.underWay) > 0 || e.answered > 0 {
		unanswered := len(e.underWay)
		if e.answered > 0 {
			unanswered++
		}
		if !e.ended && !e.reading && unanswered < maxUnderWay {
			e.reading = true
			go e.read(ctx, e.sequence)
		}
		var oldest chan struct{}
		var late <-chan time.Time
		if e.answered > 0 {
			late = e.patience.C
		} else if len(e.underWay) > 0 {
			oldest = e.underWay[0].done
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case in := <-e.received:
			e.reading = false
			e.begin(ctx, in)
		case <-oldest:
			if err := e.acknowledge(ctx); err != nil {
				return err
			}
		case err := <-e.sentOne:
			if err := e.acknowledged(err); err != nil {
				return err
			}
		case <-late:
			select {
			case err := <-e.sentOne: // It was sent meanwhile; the server is slow, not the client.
				if err := e.acknowledged(err); err != nil {
					return err
				}
			default:
				return e.open.unreadEnd()
			}
		case <-stopping:
			stopping = nil
			e.stop(experiment.Errorf(experiment.ErrUnavailable, "STOPPING",
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
	in.req = new(assayv1.StreamEventsRequest)
	m := &incoming{admission: e.admission, message: in.req, wait: func(n, encoded int64) error { return e.wait(ctx, n, encoded) }}
	defer func() {
		if p := recover(); p != nil {
			in.err = recovered(ctx, p)
		}
		if in.err == nil {
			in.bytes = m.bytes
		} else {
			e.admission.streams.Release(m.bytes)
		}
	}()
	if in.err = e.stream.RecvMsg(m); in.err == nil {
		in.err = m.err
	}
	if in.err == nil {
		in.err = e.check(in.req, last)
	}
	return in
}

// wait waits for the admission of a message of n bytes. From then on, until it is
// acknowledged, the stream is not idle.
func (e *eventStream) wait(ctx context.Context, n, encoded int64) error {
	e.open.work(e.place)
	return e.admission.waitInStream(ctx, n, encoded)
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
		e.stop(nil)
	case in.err != nil:
		e.stop(in.err)
	case e.ended:
		e.admission.streams.Release(in.bytes)
	default:
		e.sequence = in.req.Sequence
		b := &streamedBatch{done: make(chan struct{})}
		e.underWay = append(e.underWay, b)
		go e.record(ctx, b, in)
	}
}

// stop stops the reading. What is under way is still acknowledged.
func (e *eventStream) stop(err error) {
	if !e.ended {
		e.ended, e.err = true, err
	}
}

// record stores a batch, and gives back what its request was admitted with: how
// long the client takes to read the acknowledgement is no matter of others.
func (e *eventStream) record(ctx context.Context, b *streamedBatch, in received) {
	defer close(b.done)
	defer func() {
		if p := recover(); p != nil {
			b.err = recovered(ctx, p)
		}
		e.admission.streams.Release(in.bytes)
		b.bytes = max(1, int64(proto.Size(b.resp)))
		e.open.answer(e.place, b.bytes)
	}()
	req := in.req
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

// acknowledge begins to answer the oldest batch under way, which is done. A
// refusal is a stream's end, and the client is to try again on another.
func (e *eventStream) acknowledge(ctx context.Context) error {
	b := e.underWay[0]
	e.underWay = slices.Delete(e.underWay, 0, 1)
	if errors.Is(b.err, experiment.ErrExhausted) {
		return experiment.Errorf(experiment.ErrUnavailable, "OVERLOADED", "%s", b.err.Error())
	}
	if b.err != nil {
		return b.err
	}
	e.answered = b.bytes
	e.patience.Reset(e.open.limits.sending)
	e.open.begin(e.place)
	go func() { e.sentOne <- e.send(ctx, b.resp) }()
	return nil
}

func (e *eventStream) send(ctx context.Context, resp *assayv1.StreamEventsResponse) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = recovered(ctx, p)
		}
	}()
	return e.stream.Send(resp)
}

// acknowledged is about the acknowledgement that was being sent, and how that went.
func (e *eventStream) acknowledged(err error) error {
	e.open.sent(e.place, e.answered)
	e.answered = 0
	return err
}

// settle waits for the batches that are not acknowledged.
func (e *eventStream) settle() {
	for _, b := range e.underWay {
		<-b.done
	}
}
