package server

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

func newTestAdmission(t *testing.T) *admission {
	t.Helper()
	a, err := newAdmission(prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// recordingCall is a unary call that the test plays.
type recordingCall struct {
	ctx    context.Context
	cancel context.CancelFunc
	finish chan struct{}
}

// arrive lets a call arrive. It is nil if it is refused unread.
func arrive(t *testing.T, a *admission) *recordingCall {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ctx, err := a.arrive(ctx, &tap.Info{FullMethodName: assayv1.EventService_RecordOutcomes_FullMethodName})
	if err != nil {
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("refused with %v", err)
		}
		cancel()
		return nil
	}
	return &recordingCall{ctx: ctx, cancel: cancel, finish: make(chan struct{})}
}

// read says whether a message of some items is admitted. If so the call stays
// until it is left.
func (c *recordingCall) read(t *testing.T, a *admission, items int) (admitted bool) {
	t.Helper()
	data, err := proto.Marshal(&assayv1.RecordOutcomesRequest{Outcomes: slices.Repeat([]*assayv1.Outcome{{}}, items)})
	if err != nil {
		t.Fatal(err)
	}
	in := &incoming{admission: a, message: &assayv1.RecordOutcomesRequest{}, call: c.ctx.Value(arrivalKey{}).(*arrival)}
	admitted = in.admit(data)
	go func() {
		if admitted {
			<-c.finish
		}
		in.release()
		c.cancel()
	}()
	synctest.Wait()
	return admitted
}

// enter lets a call arrive and reads its message at once.
func enter(t *testing.T, a *admission, items int) (c *recordingCall, read, admitted bool) {
	t.Helper()
	if c = arrive(t, a); c == nil {
		return nil, false, false
	}
	return c, true, c.read(t, a, items)
}

func (c *recordingCall) leave() {
	close(c.finish)
	synctest.Wait()
}

// TestAdmission lets calls of random sizes come and go.
func TestAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, r := newTestAdmission(t), rand.New(rand.NewPCG(1, 2))
		var inside []*recordingCall
		var unread, late, admitted int
		for range 5000 {
			if n := len(inside); n > 0 && r.IntN(3) == 0 {
				i := r.IntN(n)
				inside[i].leave()
				inside = append(inside[:i], inside[i+1:]...)
				continue
			}
			room := a.unary+callBytes+a.usual <= a.recording
			switch c, read, ok := enter(t, a, 1+r.IntN(maxBatchItems)); {
			case ok:
				inside = append(inside, c)
				admitted++
			case read:
				late++
			default:
				unread++
				if room {
					t.Error("a call was refused unread though there was room")
				}
			}
			if a.unary > a.recording {
				t.Fatalf("%d bytes are admitted", a.unary)
			}
		}
		if admitted < 1000 || unread < 1000 || late < 10 || late > unread {
			t.Errorf("%d admitted, %d refused once they were read, %d unread", admitted, late, unread)
		}
		for _, c := range inside {
			c.leave()
		}
		if a.unary != 0 {
			t.Errorf("in the end %d bytes are admitted", a.unary)
		}
	})
}

// TestSilentCalls has calls that never send their message take all the room.
func TestSilentCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTestAdmission(t)
		ctx, cancel := context.WithCancel(t.Context())
		silent := 0
		for ; ; silent++ {
			if _, err := a.arrive(ctx, &tap.Info{FullMethodName: assayv1.EventService_RecordExposures_FullMethodName}); err != nil {
				break
			}
		}
		if int64(silent) != a.recording/callBytes {
			t.Errorf("%d calls were let in", silent)
		}
		if _, err := a.arrive(ctx, &tap.Info{FullMethodName: assayv1.AssignmentService_Assign_FullMethodName}); err != nil {
			t.Errorf("an assignment is refused: %v", err)
		}
		cancel()
		synctest.Wait()
		c, _, admitted := enter(t, a, 1)
		if !admitted {
			t.Fatal("after all of them have gone, a call is refused")
		}
		c.leave()
	})
}

// TestManySmallCallsAfterLargeOnes has as many callers as a client may well have
// arrive at once, when the latest messages were large: they fit, and are let in.
func TestManySmallCallsAfterLargeOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newTestAdmission(t)
		for range 50 {
			c, _, admitted := enter(t, a, 1000)
			if !admitted {
				t.Fatal("a large call alone is refused")
			}
			c.leave()
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i := range 256 {
			if _, err := a.arrive(ctx, &tap.Info{FullMethodName: assayv1.EventService_RecordOutcomes_FullMethodName}); err != nil {
				t.Fatalf("call %d of 256 is refused unread: %v", i, err)
			}
		}
		cancel()
		synctest.Wait()
	})
}

// TestFloodIsRefusedUnread has many calls arrive whenever a commit has let some
// go, before any of them is read.
func TestFloodIsRefusedUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const items = 1000
		a := newTestAdmission(t)
		var inside []*recordingCall
		for {
			c, _, ok := enter(t, a, items)
			if !ok {
				break
			}
			inside = append(inside, c)
		}
		admitted, late := 0, 0
		for range 20 {
			for _, c := range inside[:10] {
				c.leave()
			}
			inside = inside[10:]
			var unread []*recordingCall
			for range 100 {
				if c := arrive(t, a); c != nil {
					unread = append(unread, c)
				}
			}
			for _, c := range unread {
				if c.read(t, a, items) {
					inside = append(inside, c)
					admitted++
				} else {
					late++
				}
			}
		}
		if admitted < 180 || late > 20 {
			t.Errorf("%d of 2,000 calls were admitted, and %d refused once they were read", admitted, late)
		}
		for _, c := range inside {
			c.leave()
		}
		if a.unary != 0 {
			t.Errorf("in the end %d bytes are admitted", a.unary)
		}
	})
}
