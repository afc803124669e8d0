package catalog

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
)

// Fault is why an experiment is not served as it is in storage.
type Fault string

// The faults.
const (
	FaultDefinition Fault = "definition" // It cannot be decoded or compiled, and is served as not running.
	FaultRoster     Fault = "roster"     // Its roster could not be loaded.
)

// Faults are all faults that there can be.
var Faults = []Fault{FaultDefinition, FaultRoster}

// Faulty returns the number of experiments that have a fault.
func (s *Store) Faulty(fault Fault) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, f := range s.faults {
		if f == fault {
			n++
		}
	}
	return n
}

func (s *Store) loadChanges(ctx context.Context) error {
	began, err := s.readAhead(ctx)
	if err != nil {
		return err
	}
	changes, err := s.changes(ctx)
	if err != nil {
		return err
	}
	next, faults := s.base(), map[string]Fault{}
	if len(changes) > 0 {
		next = next.With(s.compile(ctx, changes, faults)...)
	}
	s.publish(next, changes, faults, began)
	select {
	case s.loaded <- struct{}{}:
	default:
	}
	return nil
}

// readAhead reads what has changed, until that and what is known are the catalog at
// one moment, which is at the time that it returns or later. What it has read stays,
// if it fails.
func (s *Store) readAhead(ctx context.Context) (began time.Time, err error) {
	known := s.known()
	for more := true; more; {
		var page []experiment.History
		began = time.Now()
		bounded, cancel := context.WithTimeout(ctx, loadTimeout)
		page, more, err = s.load(bounded, known)
		cancel()
		if err != nil {
			return began, err
		}
		for _, h := range page { // Each a copy of its own, which does not keep the others.
			s.ahead[h.Experiment.Key], known[h.Experiment.Key] = &h, &h
		}
	}
	return began, nil
}

// known returns what need not be read again: nothing of a catalog from disk.
func (s *Store) known() map[string]*experiment.History {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := map[string]*experiment.History{}
	if s.edition > 0 {
		known = maps.Clone(s.histories)
	}
	maps.Copy(known, s.ahead)
	return known
}

// changes returns what has been read, and the experiments whose roster is to be
// tried again, with their rosters as far as these are at hand.
func (s *Store) changes(ctx context.Context) ([]*experiment.History, error) {
	var changes []*experiment.History
	for _, h := range s.ahead {
		changes = append(changes, h)
	}
	now := time.Now()
	for key, due := range s.lacking {
		if s.ahead[key] == nil && !now.Before(due) {
			again := *s.histories[key] // The other may be read meanwhile.
			changes = append(changes, &again)
		}
	}
	for _, h := range changes {
		if err := s.fillRoster(ctx, h); err != nil {
			return nil, err
		}
	}
	return changes, nil
}

// rosterVersion names what a roster holds: it changes only when a subject is
// erased.
type rosterVersion struct {
	id     int32
	erased int64
}

func versionOf(r *experiment.Roster) rosterVersion { return rosterVersion{r.ID, r.Erased} }

// fillRoster gives an experiment the subjects of its roster. A roster is loaded once
// for all versions of its experiment in which it holds the same. One that cannot be
// loaded is as it was before an erasure, or missing. The error is of ctx.
func (s *Store) fillRoster(ctx context.Context, h *experiment.History) error {
	key, r := h.Experiment.Key, h.Experiment.Roster
	if !r.HasSubjects() {
		delete(s.lacking, key)
		return nil
	}
	h.Roster = s.rosters[versionOf(r)]
	if due, lacks := s.lacking[key]; h.Roster == nil && !(lacks && time.Now().Before(due)) {
		bounded, cancel := context.WithTimeout(ctx, loadTimeout)
		subjects, err := s.roster(bounded, r)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			h.Roster, s.rosters[versionOf(r)] = subjects, subjects
		default:
			if !lacks {
				s.log.ErrorContext(ctx, "a roster could not be loaded, and is tried again; meanwhile its experiment is served with the subjects that were known before, or as not running",
					"experiment", key, "error", err)
			}
			s.lacking[key] = time.Now().Add(rosterPause)
		}
	}
	if h.Roster != nil {
		delete(s.lacking, key)
		return nil
	}
	for version, subjects := range s.rosters {
		if version.id == r.ID {
			h.Roster = subjects
		}
	}
	return nil
}

// forgetRosters drops the rosters that no experiment has any more.
func (s *Store) forgetRosters() {
	used := map[rosterVersion]bool{}
	stale := map[int32]bool{} // What is known of them stands in for what is not.
	for _, h := range s.histories {
		if r := h.Experiment.Roster; r.HasSubjects() {
			used[versionOf(r)] = true
			stale[r.ID] = s.rosters[versionOf(r)] == nil
		}
	}
	maps.DeleteFunc(s.rosters, func(v rosterVersion, _ *experiment.RosterSubjects) bool { return !used[v] && !stale[v.id] })
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
func (s *Store) publish(next *assign.Catalog, changes []*experiment.History, faults map[string]Fault, began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.edition == 0 {
		s.histories = make(map[string]*experiment.History, len(changes))
		clear(s.faults)
	}
	if s.edition == 0 || len(changes) > 0 {
		s.edition++
	}
	for _, h := range changes {
		key := h.Experiment.Key
		s.histories[key] = h
		delete(s.faults, key)
		if fault := faults[key]; fault != "" {
			s.faults[key] = fault
		}
	}
	clear(s.ahead)
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

// maxLogged is how many experiments that do not compile are logged at once.
const maxLogged = 10

// compile compiles the experiments, and notes the faults that they have.
func (s *Store) compile(ctx context.Context, histories []*experiment.History, faults map[string]Fault) []*assign.Experiment {
	compiled := make([]*assign.Experiment, len(histories))
	broken := 0
	for i, h := range histories {
		var err error
		compiled[i], err = assign.Compile(*h)
		key := h.Experiment.Key
		if _, lacks := s.lacking[key]; lacks && (err == nil || errors.Is(err, assign.ErrNoRoster)) {
			faults[key] = FaultRoster
			continue
		}
		if err == nil {
			continue
		}
		faults[key] = FaultDefinition
		if broken++; broken <= maxLogged {
			s.log.ErrorContext(ctx, "experiment does not compile; it is served as not running", "experiment", key, "error", err)
		}
	}
	if broken > maxLogged {
		s.log.ErrorContext(ctx, "more experiments do not compile; they are served as not running", "count", broken-maxLogged)
	}
	return compiled
}
