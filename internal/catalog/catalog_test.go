package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const poll = time.Minute

// storage is a database in memory that can fail, be slow, and notify.
type storage struct {
	mu        sync.Mutex
	histories map[string]experiment.History
	loadErr   error
	pageSize  int         // Of experiments; 0: all.
	began     []time.Time // Of the loads.
	slowness  time.Duration

	rosters     map[int32]*experiment.RosterSubjects
	rosterLoads []int32

	notices chan struct{}
	lost    chan struct{} // Ends one Listen each time it is sent to.
	listens int
}

func newStorage() *storage {
	return &storage{histories: map[string]experiment.History{}, notices: make(chan struct{}, 10), lost: make(chan struct{})}
}

// put commits an experiment in which all weight is on the numbered variant.
func (s *storage) put(key string, version int64, variant int) {
	d := experiment.Definition{Unit: "user", Traffic: 1, Salt: key, Variants: []experiment.Variant{{Key: "a"}, {Key: "b"}}}
	d.Variants[variant].Weight = 1
	s.putDefinition(key, version, d)
}

func (s *storage) putDefinition(key string, version int64, d experiment.Definition) {
	r := experiment.Revision{Number: 1, Phase: 1, Definition: d, Allocation: experiment.FirstAllocation(d.Variants)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.histories[key] = experiment.History{
		Experiment: experiment.Experiment{Key: key, State: experiment.StateRunning, Version: version, Current: r},
		Revisions:  []experiment.Terms{r.Terms()},
	}
}

func (s *storage) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loadErr = err
}

// load sees what was committed when it began, and takes its time.
func (s *storage) load(ctx context.Context, known map[string]*experiment.History) ([]experiment.History, bool, error) {
	s.mu.Lock()
	s.began = append(s.began, time.Now())
	var changed []experiment.History
	for _, key := range slices.Sorted(maps.Keys(s.histories)) {
		history := s.histories[key]
		if have := known[key]; have == nil || have.Experiment.Version != history.Experiment.Version {
			changed = append(changed, history)
		}
	}
	err, more := s.loadErr, false
	if s.pageSize > 0 && len(changed) > s.pageSize {
		changed, more = changed[:s.pageSize], true
	}
	s.mu.Unlock()
	select {
	case <-time.After(s.slowness):
		return changed, more, err
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

func (s *storage) loads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.began)
}

func (s *storage) listened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listens
}

func (s *storage) listen(ctx context.Context, notify func()) error {
	s.mu.Lock()
	s.listens++
	s.mu.Unlock()
	notify()
	for {
		select {
		case <-s.notices:
			notify()
		case <-s.lost:
			return errors.New("connection lost")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// messages is a log that keeps what it is told.
type messages struct {
	mu    sync.Mutex
	lines []string
}

func (m *messages) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = append(m.lines, string(p))
	return len(p), nil
}

func (m *messages) count(part string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, line := range m.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func open(s *storage) (*Store, *messages) {
	log := &messages{}
	return New(experiment.Pepper("0123456789abcdef"), s.load, s.loadRoster, s.listen, poll, slog.New(slog.NewTextHandler(log, nil))), log
}

// run runs the store until the test calls the function that is returned.
func run(t *testing.T, store *Store) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- store.Run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func variantOf(store *Store, key string) int {
	return store.Current().Subject("user", "u-1", nil, time.Now()).Assign(key).Variant
}

func TestRefresh(t *testing.T) {
	s := newStorage()
	store, _ := open(s)
	if store.Current() == nil || !store.LoadedAt().IsZero() {
		t.Error("a new store is not empty")
	}
	s.put("x", 1, 0)
	s.put("y", 1, 0)
	if err := store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := store.Current()
	if err := store.Refresh(t.Context()); err != nil || store.Current() != before {
		t.Errorf("nothing has changed, but the catalog has: %v", err)
	}
	s.put("x", 2, 1)
	if err := store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := []int{variantOf(store, "x"), variantOf(store, "y")}; !slices.Equal(got, []int{1, 0}) {
		t.Errorf("got variants %v", got)
	}
	if store.Current().Experiment("y") != before.Experiment("y") {
		t.Error("an unchanged experiment was compiled again")
	}
	if d := before.Subject("user", "u-1", nil, time.Now()).Assign("x"); d.Variant != 0 {
		t.Error("an earlier catalog has changed")
	}
}

func TestRefreshFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		store, _ := open(s)
		s.put("x", 1, 0)
		if err := store.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		before, loaded := store.Current(), store.LoadedAt()
		time.Sleep(time.Second)
		s.put("x", 2, 1)
		s.fail(errors.New("down"))
		if err := store.Refresh(t.Context()); err == nil || err.Error() != "down" {
			t.Errorf("got %v", err)
		}
		if store.Current() != before || store.LoadedAt() != loaded {
			t.Error("the last good catalog is gone")
		}
		s.fail(nil)
		if err := store.Refresh(t.Context()); err != nil || variantOf(store, "x") != 1 || store.LoadedAt() != loaded.Add(time.Second) {
			t.Errorf("did not recover: %v, loaded %v", err, store.LoadedAt())
		}
	})
}

// TestBrokenExperiment: it is logged once and served as not running, and the
// others are served.
func TestBrokenExperiment(t *testing.T) {
	s := newStorage()
	store, log := open(s)
	s.put("x", 1, 0)
	s.putDefinition("broken", 1, experiment.Definition{
		Unit: "user", Traffic: 1, Salt: "s", Eligibility: "unit ==", Variants: []experiment.Variant{{Key: "a", Weight: 1}},
	})
	for range 2 {
		if err := store.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	subject := store.Current().Subject("user", "u-1", nil, time.Now())
	got := []assign.Reason{subject.Assign("x").Reason, subject.Assign("broken").Reason}
	if diff := cmp.Diff([]assign.Reason{assign.ReasonSplit, assign.ReasonNotRunning}, got); diff != "" {
		t.Error(diff)
	}
	if n := log.count("experiment=broken"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// TestRefreshSeesEarlierCommits: many callers change an experiment and refresh
// while loads are slow. Each must find its own change, and they must share.
func TestRefreshSeesEarlierCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		s.slowness = 10 * time.Millisecond
		store, _ := open(s)
		var callers sync.WaitGroup
		for i := range 100 {
			callers.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				key := fmt.Sprint("e-", i)
				s.put(key, 1, 0)
				if err := store.Refresh(t.Context()); err != nil {
					t.Error(err)
				}
				if store.Current().Experiment(key) == nil {
					t.Errorf("%s is not in the catalog after its refresh", key)
				}
			})
		}
		callers.Wait()
		if n := s.loads(); n > 12 {
			t.Errorf("%d loads of 10 ms in 100 ms: they do not share", n)
		}
		for i := 1; i < len(s.began); i++ {
			if s.began[i].Sub(s.began[i-1]) < s.slowness {
				t.Error("two loads ran at once")
			}
		}
	})
}

// TestRefreshOutlivesItsLeader: a caller who is cancelled while it loads for
// others takes nobody with it.
func TestRefreshOutlivesItsLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		s.slowness = time.Second
		store, _ := open(s)
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		refresh := func(ctx context.Context, want error) {
			group.Go(func() {
				if err := store.Refresh(ctx); !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			})
			synctest.Wait()
		}
		refresh(t.Context(), nil)      // Loads from 0 s to 1 s.
		refresh(ctx, context.Canceled) // Leads the next round, for both.
		refresh(t.Context(), nil)
		time.Sleep(1500 * time.Millisecond)
		s.put("x", 1, 0)
		cancel()
		group.Wait()
		if n := s.loads(); n != 3 || variantOf(store, "x") != 0 {
			t.Errorf("%d loads, variant %d", n, variantOf(store, "x"))
		}
	})
}

// TestRefreshIsCancelledWhileItWaits: who waits for another's load need not.
func TestRefreshIsCancelledWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		s.slowness = time.Hour
		store, _ := open(s)
		var slow sync.WaitGroup
		slow.Go(func() { store.Refresh(t.Context()) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := store.Refresh(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		slow.Wait()
	})
}

// TestRefreshAfterPanic: a load that panics is no success for those who share
// it, and leaves the store usable.
func TestRefreshAfterPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		s.slowness = time.Second
		load := func(ctx context.Context, known map[string]*experiment.History) ([]experiment.History, bool, error) {
			histories, more, err := s.load(ctx, known)
			if s.loads() == 2 {
				panic("once")
			}
			return histories, more, err
		}
		store := New(nil, load, s.loadRoster, s.listen, poll, slog.New(slog.DiscardHandler))
		var group sync.WaitGroup
		refresh := func() {
			group.Go(func() {
				defer func() { recover() }()
				if err := store.Refresh(t.Context()); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		refresh() // Loads from 0 s to 1 s.
		s.put("x", 1, 0)
		refresh() // Leads the next round, for both, and panics.
		refresh()
		group.Wait()
		if n := s.loads(); n != 3 || variantOf(store, "x") != 0 {
			t.Errorf("%d loads, variant %d", n, variantOf(store, "x"))
		}
	})
}

func TestRunPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		store, _ := open(s)
		stop := run(t, store)
		s.put("x", 1, 1)
		time.Sleep(poll - time.Second)
		if variantOf(store, "x") != -1 {
			t.Error("loaded before its time")
		}
		time.Sleep(2 * time.Second)
		if variantOf(store, "x") != 1 {
			t.Error("not loaded by polling")
		}
		stop()
	})
}

func TestRunFollowsNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		s.slowness = time.Second
		store, _ := open(s)
		stop := run(t, store)
		time.Sleep(2 * time.Second)
		loads := s.loads()
		s.put("x", 1, 1)
		for range 5 {
			s.notices <- struct{}{}
		}
		time.Sleep(4 * time.Second)
		if variantOf(store, "x") != 1 {
			t.Error("a notice was not followed")
		}
		// One for the first notice, one for those that came while it ran.
		if n := s.loads() - loads; n != 2 {
			t.Errorf("%d loads for a burst of notices", n)
		}
		stop()
	})
}

func TestRunListensAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		store, log := open(s)
		stop := run(t, store)
		s.lost <- struct{}{}
		s.put("x", 1, 1) // Nobody hears of it.
		synctest.Wait()
		if s.listened() != 1 {
			t.Error("listened again without a pause")
		}
		time.Sleep(2 * listenPause)
		if s.listened() != 2 || variantOf(store, "x") != 1 {
			t.Errorf("listened %d times, variant %d", s.listened(), variantOf(store, "x"))
		}
		if log.count("connection lost") != 1 {
			t.Errorf("logged %v", log.lines)
		}
		// Stopping while it pauses must not wait for the pause's end.
		s.lost <- struct{}{}
		synctest.Wait()
		began := time.Now()
		stop()
		if d := time.Since(began); d != 0 {
			t.Errorf("stopping took %v", d)
		}
	})
}

func TestRunSurvivesFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		s.slowness = time.Second
		store, log := open(s)
		s.put("x", 1, 0)
		stop := run(t, store)
		s.put("x", 2, 1)
		s.fail(errors.New("down"))
		time.Sleep(3*poll + 2*time.Second)
		if variantOf(store, "x") != 0 {
			t.Error("the last good catalog is gone")
		}
		if n := log.count("error=down"); n != 3 {
			t.Errorf("logged %d failures of 3", n)
		}
		s.fail(nil)
		time.Sleep(poll)
		if variantOf(store, "x") != 1 {
			t.Error("did not try again")
		}
		s.notices <- struct{}{}
		synctest.Wait()
		stop() // While it loads.
		if log.count("canceled") != 0 {
			t.Errorf("stopping was logged as a failure: %v", log.lines)
		}
	})
}

// TestRunWaitsForListener: nothing that Run has started outlives it.
func TestRunWaitsForListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		var returned atomic.Bool
		listen := func(ctx context.Context, notify func()) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			returned.Store(true)
			return ctx.Err()
		}
		stop := run(t, New(nil, s.load, s.loadRoster, listen, poll, slog.New(slog.DiscardHandler)))
		stop()
		if !returned.Load() {
			t.Error("Run returned before its listener")
		}
	})
}
