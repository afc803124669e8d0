package server

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// longMessage is the length from which on a message takes turns to be decoded and
	// checked: the rules of the schema take a processor a millisecond for each 10 kB.
	longMessage = 32 << 10
	// stretch is how long a computation goes on while others wait for a turn.
	stretch = 5 * time.Millisecond
)

// turns hand out processors to what keeps one busy for long: all but one, which is left
// to assignment. With all of them busy a request that has come would wait until one is
// free, 10 ms or 20: Go looks at the network when a processor has nothing to do.
//
// They are given in the order of asking, and computations pass theirs on, so that a
// message which is to be decoded does not wait for seconds.
type turns struct {
	places  *semaphore.Weighted
	waiting atomic.Int64
}

func newTurns() *turns { return &turns{places: semaphore.NewWeighted(turnsAtOnce())} }

func turnsAtOnce() int64 { return max(1, int64(runtime.GOMAXPROCS(0))-1) }

// take waits for a turn.
func (t *turns) take(ctx context.Context) (*turn, error) {
	one := &turn{of: t}
	if err := one.begin(ctx); err != nil {
		return nil, err
	}
	return one, nil
}

// turn is a turn that was taken. Only one goroutine uses it.
type turn struct {
	of    *turns
	since time.Time // Zero while it is not held.
}

func (t *turn) begin(ctx context.Context) error {
	t.of.waiting.Add(1)
	defer t.of.waiting.Add(-1)
	if err := t.of.places.Acquire(ctx, 1); err != nil {
		return err
	}
	t.since = time.Now()
	return nil
}

// pass lets others go first, if they wait and this turn has lasted its stretch.
func (t *turn) pass(ctx context.Context) error {
	if t.of.waiting.Load() == 0 || time.Since(t.since) < stretch {
		return ctx.Err()
	}
	t.end()
	return t.begin(ctx)
}

// end gives the turn back, if it is held.
func (t *turn) end() {
	if !t.since.IsZero() {
		t.since = time.Time{}
		t.of.places.Release(1)
	}
}
