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
// A load reads what has changed, in pages, and goes on where an earlier one was cut
// off. Nothing of it is served before it is whole: of two experiments that exclude
// each other, one as it is now and the other as it was could give a subject to both.
// An experiment that cannot be read or compiled keeps nobody else from what is new:
// it is served as not running.
//
// Rosters are large and never change. They are loaded by themselves, once, and
// all versions of an experiment share its roster. One that cannot be loaded is tried
// again; until then its experiment has the subjects that it listed before an
// erasure, if they are known, or else is served as not running.
//
// It knows no storage: loading and listening are functions that it is given.
package catalog

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
)

// Load returns a page of the experiments whose version differs from that of the
// known one, by key, or that are not known, and says whether there are more. A page
// without more is, with all that is known, the catalog at one moment.
type Load func(ctx context.Context, known map[string]*experiment.History) (page []experiment.History, more bool, err error)

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
	// loadTimeout bounds the load of a page, and then that of each roster. Loads follow
	// each other, so one on a connection that broke in silence would stop them all.
	loadTimeout = 30 * time.Second
	// rosterPause is how long a roster that could not be loaded is not tried again, so
	// that it does not hold up the changes of others each time.
	rosterPause = time.Minute
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

	turn   chan struct{} // Holds one element while a round loads.
	loaded chan struct{} // Holds one element when a load has succeeded since Keep looked.

	// Whoever has the turn uses these.
	ahead   map[string]*experiment.History               // That were read and are not served yet, as others are to come.
	rosters map[rosterVersion]*experiment.RosterSubjects // That were loaded.
	lacking map[string]time.Time                         // Experiments without their roster, and when it is tried again.

	mu        sync.Mutex
	next      *round                         // The round that has not begun; nil if nobody waits for one.
	histories map[string]*experiment.History // What current was compiled from.
	faults    map[string]Fault               // Of those that are not served as they are in storage.
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
		ahead: map[string]*experiment.History{}, rosters: map[rosterVersion]*experiment.RosterSubjects{}, lacking: map[string]time.Time{},
		faults: map[string]Fault{},
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
