package main

import (
	"context"
	"errors"
	"io"
	"time"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// streamWindow is the most batches that a stream leaves unacknowledged: more
// than the server records at once.
const streamWindow = 12

// streamedBatch is a batch on its way. It has outcomes or exposures, not both:
// an acknowledgement counts them together, and the ledger apart.
type streamedBatch struct {
	sequence  int64
	round     int64 // In which it was sent last.
	outcomes  []parcel
	exposures []exposureParcel
}

// streamEvents records by stream after stream. What one did not acknowledge is
// mostly sent again on the next.
func (r *eventRecorder) streamEvents(ctx context.Context) {
	var owed []*streamedBatch
	for ctx.Err() == nil {
		if owed = r.stream(ctx, owed); len(owed) > 0 {
			r.pause(500 * time.Millisecond)
			if r.one(4) {
				owed = nil // It is left in doubt.
			}
		}
	}
}

// stream sends what an earlier stream owes, and then new batches until it is
// long enough or ctx ends. It returns what was not acknowledged, in order:
// nothing, unless the stream broke.
func (r *eventRecorder) stream(ctx context.Context, owed []*streamedBatch) []*streamedBatch {
	patience, cancel := context.WithTimeout(context.Background(), r.deadline())
	defer cancel()
	s, err := assayv1.NewEventServiceClient(r.servers[r.random.IntN(2)].conn).StreamEvents(patience)
	r.streamBegun()
	if err != nil {
		r.streamEnded(nil, err)
		return owed
	}
	sent, window, more, closed := 0, 1+r.random.IntN(streamWindow), 1+r.random.IntN(60), false
	for {
		if sent == len(owed) && more > 0 && ctx.Err() == nil {
			owed = append(owed, r.nextBatch(ctx))
			more--
		}
		if sent < min(window, len(owed)) {
			if !r.sendBatch(s, owed[sent]) {
				window = 0 // No more: Recv tells why, after what was acknowledged before.
			}
			sent++
			continue
		}
		if sent == len(owed) && !closed {
			s.CloseSend()
			closed = true
		}
		resp, err := s.Recv()
		if err != nil {
			r.streamEnded(owed[:sent], err)
			return owed
		}
		if !r.batchAcknowledged(owed[:sent], resp) {
			return nil
		}
		if owed[0].round == r.round.Load() {
			r.caughtUp.Store(owed[0].round)
		}
		owed, sent = owed[1:], sent-1
	}
}

// nextBatch makes a batch, mostly of outcomes.
func (r *eventRecorder) nextBatch(ctx context.Context) *streamedBatch {
	r.sequence++
	b := &streamedBatch{sequence: r.sequence}
	if r.one(4) {
		b.exposures, _ = r.composeExposures(ctx) // Without an assignment there are none.
	}
	if len(b.exposures) == 0 {
		b.outcomes = r.composeUpTo(100)
	}
	return b
}

// sendBatch says whether the stream still took the batch.
func (r *eventRecorder) sendBatch(s assayv1.EventService_StreamEventsClient, b *streamedBatch) bool {
	req := &assayv1.StreamEventsRequest{Sequence: b.sequence}
	for _, p := range b.outcomes {
		req.Outcomes = append(req.Outcomes, p.outcome)
	}
	for _, p := range b.exposures {
		req.Exposures = append(req.Exposures, p.exposure)
	}
	r.pause(40 * time.Millisecond)
	r.sendStreamed(b)
	b.round = r.round.Load()
	return s.Send(req) == nil
}

// sendStreamed enters a batch before it is sent.
func (l *ledger) sendStreamed(b *streamedBatch) {
	if len(b.exposures) > 0 {
		l.sendExposures(b.exposures)
	} else {
		l.send(b.outcomes)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.traffic.batches++
}

// answeredStreamed enters what became of a batch.
func (l *ledger) answeredStreamed(b *streamedBatch, resp *assayv1.StreamEventsResponse, err error) {
	if len(b.exposures) > 0 {
		l.answeredExposures(b.exposures, &assayv1.RecordExposuresResponse{
			Recorded: resp.GetRecorded(), Duplicates: resp.GetDuplicates(), Rejected: resp.GetRejectedExposures()}, err)
	} else {
		l.answered(b.outcomes, &assayv1.RecordOutcomesResponse{
			Recorded: resp.GetRecorded(), Duplicates: resp.GetDuplicates(), Rejected: resp.GetRejectedOutcomes()}, err)
	}
}

func (l *ledger) streamBegun() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.traffic.streams++
}

// batchAcknowledged enters an acknowledgement, which must be that of the first
// of what a stream owes.
func (l *ledger) batchAcknowledged(owed []*streamedBatch, resp *assayv1.StreamEventsResponse) bool {
	if len(owed) > 0 && owed[0].sequence == resp.Sequence {
		l.answeredStreamed(owed[0], resp, nil)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.traffic.batchesAcknowledged++
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complain("a stream that owes %d batches acknowledged one out of turn: %v", len(owed), resp)
	return false
}

// streamEnded enters the end of a stream. What it owes is in doubt; one that
// ends in order owes nothing.
func (l *ledger) streamEnded(owed []*streamedBatch, err error) {
	for _, b := range owed {
		l.answeredStreamed(b, nil, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !errors.Is(err, io.EOF):
		l.judge(err)
		l.traffic.streamsBroken++
	case len(owed) > 0:
		l.complain("a stream ended in order and owes %d batches", len(owed))
	}
}
