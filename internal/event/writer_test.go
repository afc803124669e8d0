package event

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/assayhq/assay/internal/experiment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is what a test writes to. It takes 10 ms for a commit.
type store struct {
	answer func(items []int) ([]experiment.Result, error) // Nil: all recorded.

	mu      sync.Mutex
	calls   [][]int
	commits [][]int // The calls that succeeded.
}

func (s *store) flush(ctx context.Context, items []int) ([]experiment.Result, error) {
	s.mu.Lock()
	s.calls = append(s.calls, slices.Clone(items))
	s.mu.Unlock()
	select {
	case <-time.After(10 * time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	results, err := make([]experiment.Result, len(items)), error(nil)
	if s.answer != nil {
		results, err = s.answer(items)
	}
	if err == nil {
		s.mu.Lock()
		s.commits = append(s.commits, slices.Clone(items))
		s.mu.Unlock()
	}
	return results, err
}

func (s *store) committed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.commits)
}

// poison refuses every batch that holds one of the items.
func poison(bad ...int) func(items []int) ([]experiment.Result, error) {
	return func(items []int) ([]experiment.Result, error) {
		for _, item := range items {
			if slices.Contains(bad, item) {
				return nil, fmt.Errorf("item %d: %w", item, ErrPoison)
			}
		}
		return make([]experiment.Result, len(items)), nil
	}
}

// start runs a writer over s until stop is called. It must be called in a
// bubble.
func start(t *testing.T, s *store, lost func(int)) (w *Writer[int], stop func() error) {
	t.Helper()
	if lost == nil {
		lost = func(n int) { t.Errorf("%d items were counted as lost", n) }
	}
	w = NewWriter(s.flush, lost)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	synctest.Wait()
	return w, func() error { cancel(); return <-ended }
}

func mustStop(t *testing.T, stop func() error) {
	t.Helper()
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func numbers(from, n int) []int {
	items := make([]int, n)
	for i := range items {
		items[i] = from + i
	}
	return items
}

func TestConcurrentWritesShareACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		w, stop := start(t, s, nil)
		defer mustStop(t, stop)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if _, err := w.Write(t.Context(), []int{i}); err != nil {
					t.Errorf("Write: %v", err)
				}
			})
		}
		wg.Wait()
		// The loop may take the first caller alone; the others gather meanwhile.
		if n := len(s.commits); n > 2 {
			t.Errorf("8 callers took %d commits, want at most 2", n)
		}
	})
}

func TestWriteReturnsAfterItsCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		w, stop := start(t, s, nil)
		defer mustStop(t, stop)
		begin := time.Now()
		results, err := w.Write(t.Context(), []int{1, 2})
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d != 10*time.Millisecond {
			t.Errorf("Write took %v, want the time of one commit and no timer", d)
		}
		if diff := cmp.Diff([]experiment.Result{experiment.Recorded, experiment.Recorded}, results); diff != "" {
			t.Errorf("results (-want +got):\n%s", diff)
		}
	})
}

func TestBatchesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		w, stop := start(t, s, nil)
		var wg sync.WaitGroup
		for i, n := range []int{1, 6_000, 6_000, maxBatch, 2*maxBatch + 5} {
			items := numbers(i*100_000, n)
			wg.Go(func() {
				if results, err := w.Write(t.Context(), items); err != nil || len(results) != n {
					t.Errorf("Write of %d items = %d results, %v", n, len(results), err)
				}
			})
			synctest.Wait() // Keeps the callers in order.
		}
		wg.Wait()
		mustStop(t, stop)
		var sizes []int
		for _, c := range s.commits {
			sizes = append(sizes, len(c))
		}
		slices.Sort(sizes) // Two commits may be under way.
		// 6,000 and 6,000 do not fit together, and neither is split.
		want := []int{1, 5, 6_000, 6_000, maxBatch, maxBatch, maxBatch}
		if diff := cmp.Diff(want, sizes); diff != "" {
			t.Errorf("sizes of commits (-want +got):\n%s", diff)
		}
	})
}

func TestCommitsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		w, stop := start(t, s, nil)
		var wg sync.WaitGroup
		for i, step := range []struct{ items, begun int }{
			{1, 1},
			{besideBatch - 1, 1}, // Too few to begin a second commit for.
			{1, 2},
			{besideBatch, 2}, // Two are the most.
		} {
			wg.Go(func() {
				if _, err := w.Write(t.Context(), numbers(i*100_000, step.items)); err != nil {
					t.Errorf("Write: %v", err)
				}
			})
			synctest.Wait()
			if n := len(s.calls); n != step.begun {
				t.Errorf("after %d more items %d commits have begun, want %d", step.items, n, step.begun)
			}
		}
		mustStop(t, stop) // Which waits for all of them.
		if n := s.committed(); n != 3 {
			t.Errorf("%d commits, want 3", n)
		}
		wg.Wait()
	})
}

func TestPoisonIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: poison(3, 12)}
		w, stop := start(t, s, nil)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = w.Write(t.Context(), []int{99}) })
		synctest.Wait() // The rest joins behind this commit.
		got := make([][]experiment.Result, 4)
		for i := range got {
			wg.Go(func() {
				var err error
				if got[i], err = w.Write(t.Context(), numbers(i*5, 5)); err != nil {
					t.Errorf("caller %d: %v", i, err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		mustStop(t, stop)
		const r, l = experiment.Recorded, experiment.Refused
		want := [][]experiment.Result{{r, r, r, l, r}, {r, r, r, r, r}, {r, r, l, r, r}, {r, r, r, r, r}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("results (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(numbers(0, 20), s.calls[1]); diff != "" {
			t.Errorf("the callers did not share a batch (-want +got):\n%s", diff)
		}
	})
}

func TestOtherErrorsGoToAllCallersOfTheBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := experiment.Errorf(experiment.ErrUnavailable, "DOWN", "the database is down")
		s := &store{answer: func(items []int) ([]experiment.Result, error) {
			if items[0] < 0 {
				return make([]experiment.Result, len(items)), nil
			}
			return nil, down
		}}
		w, stop := start(t, s, nil)
		defer mustStop(t, stop)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := w.Write(t.Context(), []int{-1}); err != nil {
				t.Errorf("the batch before: %v", err)
			}
		})
		synctest.Wait()
		for i := range 3 {
			wg.Go(func() {
				if _, err := w.Write(t.Context(), []int{i}); !errors.Is(err, down) {
					t.Errorf("Write = %v, want the error of the store", err)
				}
			})
		}
		wg.Wait()
		if n := len(s.calls); n != 2 {
			t.Errorf("the store was called %d times, want 2: such an error is not halved", n)
		}
	})
}

// A store that answers too few results must not be taken for success.
func TestMissingResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: func([]int) ([]experiment.Result, error) { return nil, nil }}
		w, stop := start(t, s, nil)
		defer mustStop(t, stop)
		if _, err := w.Write(t.Context(), []int{1}); err == nil {
			t.Error("Write succeeded")
		}
	})
}

func TestCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		w, stop := start(t, s, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		if _, err := w.Write(ctx, []int{1}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write = %v, want DeadlineExceeded", err)
		}
		if _, err := w.Write(ctx, []int{2}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write after the deadline = %v, want DeadlineExceeded", err)
		}
		mustStop(t, stop)
		if diff := cmp.Diff([][]int{{1}}, s.commits); diff != "" {
			t.Errorf("the commit was cut off with its caller, or an ended caller was let in (-want +got):\n%s", diff)
		}
	})
}

func TestStuckStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := func(ctx context.Context, _ []int) ([]experiment.Result, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		w := NewWriter(stuck, func(int) {})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		begin := time.Now()
		if _, err := w.Write(t.Context(), []int{1}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write = %v, want the deadline of the commit", err)
		}
		if d := time.Since(begin); d != flushTimeout {
			t.Errorf("a stuck store held the loop for %v, want %v", d, flushTimeout)
		}

		// Stopping is bounded too, whatever is pending.
		errs := make(chan error, 8)
		for i := range 8 {
			go func() {
				_, err := w.Write(t.Context(), numbers(i, maxBatch))
				errs <- err
			}()
		}
		synctest.Wait()
		begin = time.Now()
		cancel()
		if err := <-ended; err == nil {
			t.Error("Run succeeded with items left over")
		}
		// The commit under way when the context ended has its own deadline.
		if d := time.Since(begin); d > flushTimeout+drainTimeout {
			t.Errorf("stopping took %v", d)
		}
		for range 8 {
			if err := <-errs; err == nil {
				t.Error("a write that was not stored was acknowledged")
			}
		}
	})
}

func TestPendingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		w, stop := start(t, s, nil)
		if w.TryWrite(numbers(0, maxBestEffort+1)) {
			t.Error("best-effort items past their part were taken")
		}
		if !w.TryWrite(numbers(0, maxBestEffort)) {
			t.Error("best-effort items within their part were refused")
		}
		var wg sync.WaitGroup
		for range (maxPending - maxBestEffort) / maxBatch {
			wg.Go(func() {
				if _, err := w.Write(t.Context(), numbers(0, maxBatch)); err != nil {
					t.Errorf("a write within the bound: %v", err)
				}
			})
		}
		synctest.Wait()
		begin := time.Now()
		if _, err := w.Write(t.Context(), []int{1}); !errors.Is(err, experiment.ErrExhausted) {
			t.Errorf("Write past the bound = %v, want ErrExhausted", err)
		}
		if time.Since(begin) != 0 {
			t.Error("the refusal waited")
		}
		wg.Wait()
		mustStop(t, stop)

		// All is answered; the bound is free again.
		if w.pending != 0 {
			t.Errorf("%d items are pending in the end", w.pending)
		}
	})
}

func TestBestEffortIsRepeated(t *testing.T) {
	tests := []struct {
		name     string
		failures int32 // Of the store, one after the other.
		lost     int32
		after    time.Duration // When the items are stored or lost.
	}{
		{"stored at once", 0, 0, 10 * time.Millisecond},
		{"stored at the second try", 1, 0, 270 * time.Millisecond},
		{"stored at the last try", 3, 0, 5290 * time.Millisecond},
		{"lost", 4, 2, 5290 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var failures atomic.Int32
				ok := poison()
				s := &store{answer: func(items []int) ([]experiment.Result, error) {
					if failures.Add(1) <= tt.failures {
						return nil, experiment.ErrUnavailable
					}
					return ok(items)
				}}
				var lost atomic.Int32
				w, stop := start(t, s, func(n int) { lost.Add(int32(n)) })
				if !w.TryWrite([]int{0, 1}) {
					t.Fatal("TryWrite refused")
				}
				time.Sleep(tt.after - time.Nanosecond)
				synctest.Wait()
				if n := s.committed(); n != 0 || lost.Load() != 0 {
					t.Errorf("before %v: %d commits, lost %d", tt.after, n, lost.Load())
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if n := s.committed(); (n == 1) != (tt.lost == 0) || lost.Load() != tt.lost {
					t.Errorf("at %v: %d commits, lost %d, want lost %d", tt.after, n, lost.Load(), tt.lost)
				}
				mustStop(t, stop)
				if w.pending != 0 {
					t.Errorf("%d items are still pending", w.pending)
				}
			})
		})
	}
}

// TestRefusedBestEffort counts the items that the store refuses and nobody waits
// for.
func TestRefusedBestEffort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: func([]int) ([]experiment.Result, error) {
			return []experiment.Result{experiment.Recorded, experiment.Duplicate, experiment.Kept, experiment.Refused, experiment.Erased}, nil
		}}
		lost := 0
		w, stop := start(t, s, func(n int) { lost += n })
		w.TryWrite(numbers(0, 5))
		mustStop(t, stop)
		if lost != 2 {
			t.Errorf("lost = %d, want the two that were refused", lost)
		}
	})
}

func TestRepeatsHoldUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{answer: func(items []int) ([]experiment.Result, error) {
			if slices.Contains(items, 0) {
				return nil, experiment.ErrUnavailable
			}
			return make([]experiment.Result, len(items)), nil
		}}
		lost := 0
		w, stop := start(t, s, func(n int) { lost += n })
		w.TryWrite([]int{0})
		time.Sleep(20 * time.Millisecond) // It waits for its repeat now.
		begin := time.Now()
		if _, err := w.Write(t.Context(), []int{1}); err != nil {
			t.Errorf("Write: %v", err)
		}
		if d := time.Since(begin); d != 10*time.Millisecond {
			t.Errorf("Write took %v beside a waiting repeat", d)
		}
		mustStop(t, stop)
		if lost != 1 {
			t.Errorf("lost = %d, want 1: stopping tries once more and gives up", lost)
		}
		if diff := cmp.Diff([][]int{{0}, {1}, {0}}, s.calls); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		w, stop := start(t, s, nil)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if _, err := w.Write(t.Context(), []int{i}); err != nil {
					t.Errorf("a write from before the end: %v", err)
				}
			})
		}
		w.TryWrite([]int{100})
		synctest.Wait()
		mustStop(t, stop)
		wg.Wait()
		all := slices.Concat(s.commits...)
		slices.Sort(all)
		if diff := cmp.Diff(append(numbers(0, 20), 100), all); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		if _, err := w.Write(t.Context(), []int{1}); !errors.Is(err, experiment.ErrUnavailable) {
			t.Errorf("Write after the end = %v, want ErrUnavailable", err)
		}
		if w.TryWrite([]int{1}) {
			t.Error("TryWrite after the end took the items")
		}
	})
}
