package enrollment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

// storage is what a Find finds, and what it was asked.
type storage struct {
	mu     sync.Mutex
	rows   map[experiment.Enrollment]experiment.Enrolled
	err    error
	hangs  bool
	asked  [][]experiment.Enrollment
	before func() // Called before it answers.
}

func (s *storage) find(ctx context.Context, names []experiment.Enrollment) (found []experiment.Enrolled, err error) {
	s.mu.Lock()
	s.asked = append(s.asked, slices.Clone(names))
	hangs := s.hangs
	for _, name := range names {
		if row, ok := s.rows[name]; ok {
			found = append(found, row)
		}
	}
	err = s.err
	s.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if s.before != nil {
		s.before()
	}
	return found, err
}

func name(experimentID int32, subject byte) experiment.Enrollment {
	return experiment.Enrollment{ExperimentID: experimentID, SubjectID: experiment.SubjectID{subject}}
}

func holding(variant string, recent bool, names ...experiment.Enrollment) *storage {
	s := &storage{rows: map[experiment.Enrollment]experiment.Enrolled{}}
	for _, n := range names {
		s.rows[n] = experiment.Enrolled{Enrollment: n, Variant: variant, Recent: recent}
	}
	return s
}

func check(t *testing.T, c *Cache, names []experiment.Enrollment, want map[experiment.Enrollment]string, complete bool) {
	t.Helper()
	got, known := c.Lookup(t.Context(), names)
	if diff := cmp.Diff(want, got); diff != "" || known != complete {
		t.Errorf("complete %t (-want +got):\n%s", known, diff)
	}
}

// TestLookup asks for what memory lacks, once, and remembers the enrolled only.
func TestLookup(t *testing.T) {
	s := holding("a", false, name(1, 1), name(2, 1), name(1, 3))
	c := New(s.find, 10, time.Now)
	all := []experiment.Enrollment{name(1, 1), name(1, 2), name(2, 1)}
	want := map[experiment.Enrollment]string{name(1, 1): "a", name(2, 1): "a"}
	check(t, c, all, want, true)
	check(t, c, all, want, true)
	check(t, c, []experiment.Enrollment{name(2, 1)}, map[experiment.Enrollment]string{name(2, 1): "a"}, true)
	check(t, c, nil, map[experiment.Enrollment]string{}, true)
	if diff := cmp.Diff([][]experiment.Enrollment{all, {name(1, 2)}}, s.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Counts{Hits: 3, Queries: 2}, c.Counts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// TestBound holds that memory keeps no more than it may, and the latest.
func TestBound(t *testing.T) {
	var names []experiment.Enrollment
	for i := range byte(200) {
		names = append(names, name(1, i))
	}
	s := holding("a", false, names...)
	c := New(s.find, 50, time.Now)
	for _, n := range names {
		check(t, c, []experiment.Enrollment{n}, map[experiment.Enrollment]string{n: "a"}, true)
	}
	if n := c.known.Len(); n != 50 {
		t.Errorf("%d in a memory of 50", n)
	}
	check(t, c, names[150:], lookupAll(names[150:]), true)
	if len(s.asked) != 200 {
		t.Errorf("asked %d times for 200, of which the last 50 were remembered", len(s.asked))
	}
	check(t, c, names[:150], lookupAll(names[:150]), true)
	if got := s.asked[200]; len(s.asked) != 201 || len(got) != 150 {
		t.Errorf("asked %d times, last for %d", len(s.asked), len(got))
	}
}

func lookupAll(names []experiment.Enrollment) map[experiment.Enrollment]string {
	all := map[experiment.Enrollment]string{}
	for _, n := range names {
		all[n] = "a"
	}
	return all
}

// TestRecent asks again for what was recorded lately, and goes on with it while
// storage fails.
func TestRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := []experiment.Enrollment{name(1, 1)}
		s := holding("late", true, n...)
		c := New(s.find, 10, time.Now)
		late, early := map[experiment.Enrollment]string{n[0]: "late"}, map[experiment.Enrollment]string{n[0]: "early"}
		check(t, c, n, late, true)
		s.rows[n[0]] = experiment.Enrolled{Enrollment: n[0], Variant: "early"}
		time.Sleep(recheck - 1)
		check(t, c, n, late, true)
		time.Sleep(time.Nanosecond)
		s.err = errors.New("down")
		check(t, c, n, late, false)
		s.err = nil
		time.Sleep(firstPause)
		check(t, c, n, early, true)
		time.Sleep(24 * time.Hour)
		check(t, c, n, early, true)
		if len(s.asked) != 3 {
			t.Errorf("asked %d times", len(s.asked))
		}
	})
}

// TestFailure takes storage away: one call at a time asks it, after ever longer
// pauses, nobody waits for it longer than it should, and what memory holds is
// answered.
func TestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known, unknown := name(1, 1), name(1, 2)
		s := holding("a", false, known)
		c := New(s.find, 10, time.Now)
		check(t, c, []experiment.Enrollment{known}, map[experiment.Enrollment]string{known: "a"}, true)
		s.hangs = true
		both := []experiment.Enrollment{known, unknown}
		ask := func(wait time.Duration) {
			t.Helper()
			began := time.Now()
			check(t, c, both, map[experiment.Enrollment]string{known: "a"}, false)
			if took := time.Since(began); took != wait {
				t.Errorf("waited for %v, not %v", took, wait)
			}
		}
		ask(MaxWait)
		for _, pause := range []time.Duration{50, 100, 200, 400, 800, 1000, 1000} {
			ask(0)
			time.Sleep(pause*time.Millisecond - 1)
			ask(0)
			time.Sleep(time.Nanosecond)
			var others sync.WaitGroup
			others.Go(func() { ask(MaxWait) })
			synctest.Wait()
			check(t, c, []experiment.Enrollment{known, name(1, 3)}, map[experiment.Enrollment]string{known: "a"}, false)
			others.Wait()
		}
		check(t, c, []experiment.Enrollment{known}, map[experiment.Enrollment]string{known: "a"}, true)
		s.hangs = false
		time.Sleep(longestPause)
		for range 2 {
			check(t, c, both, map[experiment.Enrollment]string{known: "a"}, true)
		}
		if got := c.Counts(); got.Failures != 8 || got.Queries != 11 || got.Unknown != 1+7*4 {
			t.Errorf("counts %+v", got)
		}
		// The next failure is a single one again, however many fail at once.
		s.hangs = true
		var others sync.WaitGroup
		for i := range byte(5) {
			others.Go(func() { check(t, c, []experiment.Enrollment{name(2, i)}, map[experiment.Enrollment]string{}, false) })
		}
		others.Wait()
		s.hangs = false
		time.Sleep(firstPause)
		check(t, c, both, map[experiment.Enrollment]string{known: "a"}, true)
	})
}

// TestAwait waits for storage as long as it takes, and for no longer than the
// caller can.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := name(1, 1)
		s := holding("a", false, known)
		c := New(s.find, 10, time.Now)
		s.hangs = true
		began := time.Now()
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				got, complete := c.Await(t.Context(), []experiment.Enrollment{known})
				if !complete || got[known] != "a" || time.Since(began) < 3*time.Second {
					t.Errorf("after %v: %v, complete %t", time.Since(began), got, complete)
				}
			})
		}
		time.Sleep(3 * time.Second)
		s.mu.Lock()
		s.hangs = false
		s.mu.Unlock()
		callers.Wait()
		for _, left := range []time.Duration{10 * time.Millisecond, time.Second, time.Hour} {
			s.mu.Lock()
			s.hangs = true
			s.mu.Unlock()
			ctx, cancel := context.WithTimeout(t.Context(), left)
			began := time.Now()
			if got, complete := c.Await(ctx, []experiment.Enrollment{known, name(1, 2)}); complete || got[known] != "a" {
				t.Errorf("while storage hangs: %v, complete %t", got, complete)
			}
			if took := time.Since(began); took != min(left, Patience) {
				t.Errorf("with %v left: waited for %v", left, took)
			}
			cancel()
		}
	})
}

// TestJoined asks once for those that several ask for at once, and again for who
// was not found: it may have been enrolled since the other asked.
func TestJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		enrolled, other := name(1, 1), name(1, 2)
		s := holding("a", false, enrolled)
		ready := make(chan struct{})
		s.before = func() { <-ready }
		c := New(s.find, 10, time.Now)
		var callers sync.WaitGroup
		ask := func(names []experiment.Enrollment, want map[experiment.Enrollment]string) {
			callers.Go(func() { check(t, c, names, want, true) })
			synctest.Wait()
		}
		ask([]experiment.Enrollment{enrolled, other, enrolled}, map[experiment.Enrollment]string{enrolled: "a"})
		s.mu.Lock()
		s.rows[other] = experiment.Enrolled{Enrollment: other, Variant: "b"} // After the first was answered.
		s.mu.Unlock()
		for range 3 {
			ask([]experiment.Enrollment{enrolled}, map[experiment.Enrollment]string{enrolled: "a"})
		}
		ask([]experiment.Enrollment{other}, map[experiment.Enrollment]string{other: "b"})
		if len(s.asked) != 1 {
			t.Errorf("asked for %v while the first question was under way", s.asked)
		}
		close(ready)
		callers.Wait()
		if diff := cmp.Diff([][]experiment.Enrollment{{enrolled, other}, {other}}, s.asked); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
	})
}

// TestHurry holds that a caller waits for half of its time, and that storage is
// left alone only for what is its own fault.
func TestHurry(t *testing.T) {
	for _, tt := range []struct {
		left  time.Duration // 0: the caller gives up while it waits.
		rests bool
	}{{20 * time.Millisecond, false}, {200 * time.Millisecond, true}, {time.Hour, true}, {0, false}} {
		synctest.Test(t, func(t *testing.T) {
			s := &storage{hangs: true}
			c := New(s.find, 10, time.Now)
			ctx, cancel := context.WithCancel(t.Context())
			if tt.left > 0 {
				ctx, cancel = context.WithTimeout(ctx, tt.left)
			} else {
				time.AfterFunc(time.Millisecond, cancel)
			}
			defer cancel()
			began := time.Now()
			if _, complete := c.Lookup(ctx, []experiment.Enrollment{name(1, 1)}); complete {
				t.Error("complete without an answer")
			}
			if took := time.Since(began); tt.left > 0 && took != min(MaxWait, tt.left/2) {
				t.Errorf("with %v left: waited for %v", tt.left, took)
			}
			if admitted, _ := c.breaker.admit(time.Now()); admitted == tt.rests {
				t.Errorf("with %v left: rests %t", tt.left, !tt.rests)
			}
		})
	}
}

// TestForget drops a subject from memory, also while it is being looked up.
func TestForget(t *testing.T) {
	all := []experiment.Enrollment{name(1, 1), name(2, 1), name(1, 2)}
	s := holding("a", false, all...)
	c := New(s.find, 10, time.Now)
	c.Lookup(t.Context(), all)
	c.Forget([]experiment.SubjectID{{1}})
	clear(s.rows)
	check(t, c, all, map[experiment.Enrollment]string{name(1, 2): "a"}, true)

	s.rows[name(3, 3)] = experiment.Enrolled{Enrollment: name(3, 3), Variant: "a"}
	s.before = func() {
		s.before = nil
		c.Forget([]experiment.SubjectID{{3}})
		s.rows = map[experiment.Enrollment]experiment.Enrolled{}
		check(t, c, []experiment.Enrollment{name(3, 3)}, map[experiment.Enrollment]string{}, true) // It joins no earlier one.
	}
	c.Lookup(t.Context(), []experiment.Enrollment{name(3, 3)})
	s.before = nil
	clear(s.rows)
	check(t, c, []experiment.Enrollment{name(3, 3)}, map[experiment.Enrollment]string{}, true)
}

// TestConcurrent is for the race detector.
func TestConcurrent(t *testing.T) {
	var names []experiment.Enrollment
	for i := range byte(100) {
		names = append(names, name(1, i))
	}
	s := holding("a", false, names...)
	c := New(s.find, 50, time.Now)
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			for j := range names {
				if got, complete := c.Lookup(t.Context(), names[j:min(j+10, len(names))]); !complete || got[names[j]] != "a" {
					t.Error(fmt.Sprint(i, j, got, complete))
				}
				if j%10 == 0 {
					c.Forget([]experiment.SubjectID{names[j].SubjectID})
				}
			}
		})
	}
	callers.Wait()
}
