package server

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// TestTurns holds that what is short waits for a stretch of a long computation, and not
// for its end, and that the computation then goes on.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := &turns{places: semaphore.NewWeighted(1)}
		began := time.Now()
		done := make(chan time.Duration)
		go func() {
			long, err := all.take(t.Context())
			if err != nil {
				t.Error(err)
			}
			defer long.end()
			for range 1000 {
				time.Sleep(time.Millisecond)
				if err := long.pass(t.Context()); err != nil {
					t.Error(err)
				}
			}
			done <- time.Since(began)
		}()
		time.Sleep(100 * time.Millisecond)
		asked := time.Now()
		short, err := all.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(asked); waited > stretch {
			t.Errorf("it waited %v for its turn", waited)
		}
		time.Sleep(time.Second)
		short.end()
		if took := <-done; took < 2*time.Second || took > 2*time.Second+stretch {
			t.Errorf("the computation took %v, of which another had a second", took)
		}
		if !all.places.TryAcquire(1) {
			t.Error("a turn was not given back")
		}
	})
}

// TestTurnOfOneWhoLeft holds that a computation for which nobody waits any more ends
// without a turn.
func TestTurnOfOneWhoLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := &turns{places: semaphore.NewWeighted(1)}
		ctx, leave := context.WithCancel(t.Context())
		left, err := all.take(ctx)
		if err != nil {
			t.Fatal(err)
		}
		other := make(chan *turn)
		go func() {
			one, err := all.take(t.Context())
			if err != nil {
				t.Error(err)
			}
			other <- one
		}()
		time.Sleep(stretch)
		time.AfterFunc(stretch, leave)
		if err := left.pass(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("it goes on: %v", err)
		}
		left.end()
		(<-other).end()
		if !all.places.TryAcquire(1) || all.places.TryAcquire(1) {
			t.Error("a turn was not given back, or one twice")
		}
	})
}

// TestLongMessagesWait holds that a long message is not decoded while a computation has
// all turns, that it counts meanwhile, and that it is refused once its class's time is
// over.
func TestLongMessagesWait(t *testing.T) {
	arms := func(n int) []byte {
		req := &assayv1.CompareSummariesRequest{}
		for range n {
			req.Arms = append(req.Arms, &assayv1.SummaryArm{Strata: []*assayv1.SummaryStratum{{Stratum: strings.Repeat("s", 1000)}}})
		}
		text, err := proto.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	synctest.Test(t, func(t *testing.T) {
		a, w := newTestAdmission(t), newTestWork(t)
		for range turnsAtOnce() {
			busy, err := w.turns.take(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer busy.end()
		}
		receive := func(text []byte) *incoming {
			in := &incoming{ctx: t.Context(), admission: a, work: w, queue: w.queues[classComputing], message: new(assayv1.CompareSummariesRequest)}
			if err := in.decode(mem.BufferSlice{mem.SliceBuffer(text)}); err != nil {
				t.Error(err)
			}
			return in
		}
		short := receive(arms(longMessage / 1100))
		if short.err != nil || len(short.message.(*assayv1.CompareSummariesRequest).Arms) == 0 {
			t.Errorf("a short message waits: %v", short.err)
		}
		short.release()
		text, began := arms(longMessage/1000+1), time.Now()
		time.AfterFunc(time.Second, func() {
			if taken := a.large.taken.Load(); taken != int64(len(text)) {
				t.Errorf("%d bytes count while it waits, of %d", taken, len(text))
			}
		})
		long := receive(text)
		if reasonOf(toStatus(t.Context(), long.err, "", nil)) != "SERVER_DEADLINE" || time.Since(began) != time.Minute {
			t.Errorf("after %v: %v", time.Since(began), long.err)
		}
		long.release()
		if a.large.taken.Load() != 0 || a.small.taken.Load() != 0 {
			t.Error("it still counts")
		}
	})
}
