package server

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

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
	cancel context.CancelFunc
	finish chan struct{}
}

// enter lets a call with a message of some items arrive, and says whether it
// was read and whether it was admitted. One that is admitted stays until it is
// left.
func enter(t *testing.T, a *admission, items int) (c *recordingCall, read, admitted bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ctx, err := a.arrive(ctx, &tap.Info{FullMethodName: assayv1.EventService_RecordOutcomes_FullMethodName})
	if err != nil {
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("refused with %v", err)
		}
		cancel()
		return nil, false, false
	}
	c = &recordingCall{cancel: cancel, finish: make(chan struct{})}
	ended := false
	go func() {
		req := &assayv1.RecordOutcomesRequest{Outcomes: make([]*assayv1.Outcome, items)}
		_, _ = a.admit(ctx, req, nil, func(context.Context, any) (any, error) {
			admitted = true
			<-c.finish
			return nil, nil
		})
		ended = true
		cancel()
	}()
	synctest.Wait()
	if !admitted && !ended {
		t.Error("a refusal waits")
	}
	return c, true, admitted
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
			room := a.unary+callBytes+a.usual <= maxRecordingBytes
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
			if a.unary > maxRecordingBytes {
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
		if silent != maxRecordingBytes/callBytes {
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
