package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

const (
	batchItems = 2000
	// batchBytes keeps a batch of large items far below the 4 MB that a server
	// receives.
	batchBytes = 1 << 20
	// inFlight requests keep the server's commits busy while the next batches
	// are made; more would only queue there.
	inFlight = 4

	callTimeout = 30 * time.Second
	// patience is how long one batch is tried: enough for a restart of the
	// server.
	patience   = 2 * time.Minute
	firstPause = 200 * time.Millisecond
	maxPause   = 5 * time.Second
)

// answer is what both recording calls answer.
type answer interface {
	GetRecorded() int32
	GetDuplicates() int32
	GetRejected() []*assayv1.Rejection
}

// sender sends exposures and outcomes in batches, some at a time. Their order
// does not matter to the server.
type sender struct {
	group     *errgroup.Group
	tally     *tally
	exposures lane[*assayv1.Exposure]
	outcomes  lane[*assayv1.Outcome]
	stderr    io.Writer
	troubled  sync.Once
}

// newSender returns a sender and the context that ends when a batch fails.
func newSender(ctx context.Context, client assayv1.EventServiceClient, t *tally, stderr io.Writer) (*sender, context.Context) {
	s := &sender{tally: t, stderr: stderr}
	s.group, ctx = errgroup.WithContext(ctx)
	s.group.SetLimit(inFlight)
	s.exposures = lane[*assayv1.Exposure]{what: "exposure", counts: &t.exposures,
		record: func(ctx context.Context, items []*assayv1.Exposure) (answer, error) {
			return client.RecordExposures(ctx, &assayv1.RecordExposuresRequest{Exposures: items})
		}}
	s.outcomes = lane[*assayv1.Outcome]{what: "outcome", counts: &t.outcomes,
		record: func(ctx context.Context, items []*assayv1.Outcome) (answer, error) {
			return client.RecordOutcomes(ctx, &assayv1.RecordOutcomesRequest{Outcomes: items})
		}}
	return s, ctx
}

// wait returns when all that was flushed is answered, or a batch failed.
func (s *sender) wait() error { return s.group.Wait() }

// lane gathers items of one kind.
type lane[T proto.Message] struct {
	what   string
	counts *counts
	record func(ctx context.Context, items []T) (answer, error)

	items []T
	lines []int // Where each item comes from.
	bytes int
}

// add takes an item, and sends a full batch. It blocks while enough requests
// are in flight.
func (l *lane[T]) add(ctx context.Context, s *sender, item T, line int) {
	size := proto.Size(item)
	if size > batchBytes {
		s.tally.tooLarge(l.what, l.counts, line, size)
		return
	}
	if l.bytes+size > batchBytes || len(l.items) == batchItems {
		l.flush(ctx, s)
	}
	l.items = append(l.items, item)
	l.lines = append(l.lines, line)
	l.bytes += size
}

// flush sends what was gathered.
func (l *lane[T]) flush(ctx context.Context, s *sender) {
	items, lines := l.items, l.lines
	l.items, l.lines, l.bytes = nil, nil, 0
	if len(items) == 0 {
		return
	}
	s.group.Go(func() error {
		for len(items) > 0 {
			a, err := persist(ctx, s.notice, func(ctx context.Context) (answer, error) {
				return l.record(ctx, items)
			})
			if err != nil {
				return err
			}
			again := s.tally.answered(l.what, l.counts, lines, a)
			items, lines = at(items, again), at(lines, again)
		}
		return nil
	})
}

func at[T any](items []T, indices []int) []T {
	chosen := make([]T, len(indices))
	for i, index := range indices {
		chosen[i] = items[index]
	}
	return chosen
}

// notice tells once that the server does not take the batches.
func (s *sender) notice(err error) {
	s.troubled.Do(func() {
		fmt.Fprintf(s.stderr, "The server does not answer as it should (%v); each batch is tried for %v.\n", err, patience)
	})
}

// persist repeats a call while its error says that it may succeed later:
// UNAVAILABLE, RESOURCE_EXHAUSTED with RetryInfo, or no answer in time. All
// that is sent can be sent again.
func persist(ctx context.Context, notice func(error), call func(ctx context.Context) (answer, error)) (answer, error) {
	giveUp := time.Now().Add(patience)
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		a, err := callOnce(ctx, call)
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		wait, ok := retryDelay(err, pause)
		s := status.Convert(err)
		err = fmt.Errorf("%v: %s", s.Code(), s.Message())
		if !ok || time.Now().Add(wait).After(giveUp) {
			return nil, err
		}
		notice(err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func callOnce(ctx context.Context, call func(ctx context.Context) (answer, error)) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx)
}

// retryDelay says how long to wait before the next try, and whether there is
// one. The server's own wish comes first. RESOURCE_EXHAUSTED without it is a
// message that is too large, which no waiting makes smaller.
func retryDelay(err error, pause time.Duration) (time.Duration, bool) {
	s := status.Convert(err)
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			if d := info.GetRetryDelay().AsDuration(); d > 0 {
				pause = d
			}
			if s.Code() == codes.ResourceExhausted {
				return pause, true
			}
		}
	}
	return pause, s.Code() == codes.Unavailable || s.Code() == codes.DeadlineExceeded
}
