// Package catalog keeps the compiled catalog of experiments current.
//
// A [Store] holds one immutable catalog behind an atomic pointer, so that
// assignments read it without a lock, and replaces it when something has
// changed. It learns of changes by notice, so that they show soon on every
// server, and by polling, so that a lost notice delays them by no more than the
// interval. Where storage cannot be reached, the last good catalog stays.
//
// [Store.Keep] keeps a copy on disk, from which [Store.Restore] starts a server
// while storage cannot be reached. The first load after that replaces the copy
// as a whole: storage may have been restored to an earlier state meanwhile,
// under the same versions.
//
// It promises that a [Store.Refresh] sees all that was committed before it was
// called. A handler that refreshes after its own change therefore reads its own
// writes on its server.
//
// Rosters are large and never change. They are loaded by themselves, once, and
// all versions of an experiment share its roster.
//
// It knows no storage: loading and listening are functions that it is given.
package catalog

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
)

// Load returns every experiment whose version differs from the known one, or
// that is not known.
type Load func(ctx context.Context, known map[string]int64) ([]experiment.History, error)

// LoadRoster returns the subjects of a roster.
type LoadRoster func(ctx context.Context, r *experiment.Roster) (*experiment.RosterSubjects, error)

// Listen waits for notices of changes until ctx ends or the connection is lost.
// It calls notify once as soon as it is listening, since changes before that
// went unnoticed, and then at every notice. It may be called again after it has
// returned.
type Listen func(ctx context.Context, notify func()) error

const (
	// listenPause is how long Run waits before it listens again. A reconnection
	// need not be faster: polling goes on.
	listenPause = time.Second
	// loadTimeout bounds a load, and then that of each roster. Loads follow each
	// other, so one on a connection that broke in silence would stop them all.
	loadTimeout = 30 * time.Second
)

// Store holds the current catalog. It is safe for concurrent use.
type Store struct {
	pepper experiment.Pepper
	load   Load
	roster LoadRoster
	listen Listen
	poll   time.Duration
	log    *slog.Logger

	empty   *assign.Catalog
	current atomic.Pointer[assign.Catalog]
	changed atomic.Pointer[chan struct{}] // Closed and replaced after each change of current.

	turn    chan struct{}                                // Holds one element while a round loads.
	rosters map[rosterVersion]*experiment.RosterSubjects // That were loaded; whoever has the turn uses it.
	loaded  chan struct{}                                // Holds one element when a load has succeeded since Keep looked.

	mu        sync.Mutex
	next      *round                         // The round that has not begun; nil if nobody waits for one.
	histories map[string]*experiment.History // What current was compiled from.
	loadedAt  time.Time
	edition   int64 // Counts the changes that came from storage; 0 before the first load.
}

// round is one load and the callers who wait for it.
type round struct {
	done      chan struct{} // Closed when the fields below are set.
	err       error
	abandoned bool // The caller who loaded was cancelled or panicked; the others try again.
}

// New returns a store with an empty catalog. It polls at the given interval.
func New(pepper experiment.Pepper, load Load, roster LoadRoster, listen Listen, poll time.Duration, log *slog.Logger) *Store {
	s := &Store{
		pepper: pepper, load: load, roster: roster, listen: listen, poll: poll, log: log,
		empty: assign.NewCatalog(pepper), turn: make(chan struct{}, 1), loaded: make(chan struct{}, 1),
		rosters: map[rosterVersion]*experiment.RosterSubjects{},
	}
	s.current.Store(s.empty)
	changed := make(chan struct{})
	s.changed.Store(&changed)
	return s
}

// Current returns the current catalog, which never changes.
func (s *Store) Current() *assign.Catalog { return s.current.Load() }

// Changed returns a channel that is closed when the current catalog is replaced
// by another. Whoever calls Changed first and Current then misses nothing.
func (s *Store) Changed() <-chan struct{} { return *s.changed.Load() }

// LoadedAt returns when the last load that succeeded began, or zero before the
// first. The catalog holds all that was committed before it. Of a catalog from
// disk it is the last load of the server that wrote it.
func (s *Store) LoadedAt() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loadedAt
}

// Len returns the number of experiments.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.histories)
}

// Refresh loads what has changed, and returns when everything that was
// committed before the call is in the current catalog. Loads follow each other;
// callers who come while one runs share the next.
func (s *Store) Refresh(ctx context.Context) error {
	for {
		r := s.join()
		select {
		case s.turn <- struct{}{}:
			s.lead(ctx, r)
		case <-r.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !r.abandoned || ctx.Err() != nil {
			return r.err
		}
	}
}

// join returns the round that has not begun.
func (s *Store) join() *round {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = &round{done: make(chan struct{})}
	}
	return s.next
}

// lead runs the round, unless another of its callers has had the turn before,
// and passes the turn on.
func (s *Store) lead(ctx context.Context, r *round) {
	defer func() { <-s.turn }()
	s.mu.Lock()
	mine := s.next == r
	if mine {
		s.next = nil // Whoever comes from here on may have committed after the load began.
	}
	s.mu.Unlock()
	if !mine {
		return
	}
	defer close(r.done)
	r.abandoned = true // A panic must not pass for success.
	r.err = s.loadChanges(ctx)
	r.abandoned = r.err != nil && ctx.Err() != nil
}

func (s *Store) loadChanges(ctx context.Context) error {
	began := time.Now()
	base := s.base()
	bounded, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	histories, err := s.load(bounded, base.Versions())
	if err != nil {
		return err
	}
	if err := s.fillRosters(ctx, histories); err != nil {
		return err
	}
	next := base
	if len(histories) > 0 {
		next = base.With(s.compile(ctx, histories)...)
	}
	s.publish(next, histories, began)
	select {
	case s.loaded <- struct{}{}:
	default:
	}
	return nil
}

// rosterVersion names what a roster holds: it changes only when a subject is
// erased.
type rosterVersion struct {
	id     int32
	erased int64
}

func versionOf(r *experiment.Roster) rosterVersion { return rosterVersion{r.ID, r.Erased} }

// fillRosters gives the experiments the subjects of their rosters. A roster is
// loaded once for all versions of its experiment in which it holds the same. Where
// a later one cannot be loaded, those before it need not be loaded again.
func (s *Store) fillRosters(ctx context.Context, histories []experiment.History) error {
	for i := range histories {
		r := histories[i].Experiment.Roster
		if !r.HasSubjects() {
			continue
		}
		version := versionOf(r)
		if s.rosters[version] == nil {
			bounded, cancel := context.WithTimeout(ctx, loadTimeout)
			subjects, err := s.roster(bounded, r)
			cancel()
			if err != nil {
				return err
			}
			s.rosters[version] = subjects
		}
		histories[i].Roster = s.rosters[version]
	}
	return nil
}

// forgetRosters drops the rosters that no experiment has any more.
func (s *Store) forgetRosters() {
	used := map[rosterVersion]bool{}
	for _, h := range s.histories {
		if h.Experiment.Roster.HasSubjects() {
			used[versionOf(h.Experiment.Roster)] = true
		}
	}
	maps.DeleteFunc(s.rosters, func(v rosterVersion, _ *experiment.RosterSubjects) bool { return !used[v] })
}

// base returns the catalog that a load adds to: nothing of one from disk.
func (s *Store) base() *assign.Catalog {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.edition == 0 {
		return s.empty
	}
	return s.current.Load()
}

// publish makes next current, which a load that began then has brought from
// storage by these changes.
func (s *Store) publish(next *assign.Catalog, changes []experiment.History, began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.edition == 0 {
		s.histories = make(map[string]*experiment.History, len(changes))
	}
	if s.edition == 0 || len(changes) > 0 {
		s.edition++
	}
	for i := range changes {
		s.histories[changes[i].Experiment.Key] = &changes[i]
	}
	if len(s.rosters) > 0 && len(changes) > 0 {
		s.forgetRosters()
	}
	s.loadedAt = began
	s.replace(next)
}

// replace makes the catalog the current one and, if it is another, wakes those
// who wait for that.
func (s *Store) replace(next *assign.Catalog) {
	if s.current.Swap(next) == next {
		return
	}
	changed := make(chan struct{})
	close(*s.changed.Swap(&changed))
}

func (s *Store) compile(ctx context.Context, histories []experiment.History) []*assign.Experiment {
	compiled := make([]*assign.Experiment, len(histories))
	for i, history := range histories {
		var err error
		if compiled[i], err = assign.Compile(history); err != nil {
			s.log.ErrorContext(ctx, "experiment does not compile; it is served as not running",
				"experiment", history.Experiment.Key, "error", err)
		}
	}
	return compiled
}

// Run keeps the catalog current until ctx ends, and then returns nil. Failures
// are logged and tried again.
func (s *Store) Run(ctx context.Context) error {
	notices := make(chan struct{}, 1) // One stands for many: a refresh answers them all.
	var listener sync.WaitGroup
	listener.Go(func() { s.keepListening(ctx, notices) })
	defer listener.Wait()

	ticker := time.NewTicker(s.poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-notices:
		case <-ticker.C:
		}
		if err := s.Refresh(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "catalog not refreshed; the last good one stays", "error", err)
		}
	}
}

func (s *Store) keepListening(ctx context.Context, notices chan<- struct{}) {
	notify := func() {
		select {
		case notices <- struct{}{}:
		default:
		}
	}
	told := false // Of this loss: an outage is one line, not one for each attempt.
	for {
		err := s.listen(ctx, func() {
			told = false
			notify()
		})
		if ctx.Err() != nil {
			return
		}
		if !told {
			s.log.WarnContext(ctx, "catalog notices lost; polling goes on", "error", err)
		}
		told = true
		select {
		case <-ctx.Done():
			return
		case <-time.After(listenPause):
		}
	}
}
