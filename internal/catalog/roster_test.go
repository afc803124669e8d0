package catalog

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
)

// loadRoster returns a roster that was put, and counts.
func (s *storage) loadRoster(_ context.Context, r *experiment.Roster) (*experiment.RosterSubjects, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rosterLoads = append(s.rosterLoads, r.ID)
	if s.rosters[r.ID] == nil {
		return nil, fmt.Errorf("roster %d is out of reach", r.ID)
	}
	return s.rosters[r.ID], nil
}

// putRoster commits an experiment with a roster of the subjects u-0 … u-n, in
// which every subject has the second of two variants.
func (s *storage) putRoster(key string, version int64, id int32, n int) {
	s.put(key, version, 0)
	list := assign.NewRosterList(pepper, &experiment.Definition{Unit: "user", Salt: key})
	for i := range n {
		list.Add(fmt.Sprint("u-", i), "")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rosters == nil {
		s.rosters = map[int32]*experiment.RosterSubjects{}
	}
	s.rosters[id] = list.Subjects(list.Order(), slices.Repeat([]uint8{1}, n))
	h := s.histories[key]
	h.Experiment.Roster = &experiment.Roster{ID: id, Revision: 1, Arms: []experiment.RosterArm{{Variant: "a"}, {Variant: "b", Subjects: int64(n)}}}
	s.histories[key] = h
}

// dropRoster commits that the subjects of a roster were deleted.
func (s *storage) dropRoster(key string, version int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.histories[key]
	roster := *h.Experiment.Roster
	roster.DeleteTime = h.Experiment.CreateTime.Add(1)
	h.Experiment.Roster, h.Experiment.Version = &roster, version
	s.histories[key] = h
}

func reasonOf(store *Store, key string) assign.Reason {
	return store.Current().Subject("user", "u-1", nil, time.Time{}).Assign(key).Reason
}

// TestRosterIsLoadedOnce: versions of an experiment share their roster, and one that
// is gone is forgotten.
func TestRosterIsLoadedOnce(t *testing.T) {
	s := newStorage()
	store, _ := open(s)
	s.putRoster("x", 1, 1, 100)
	refresh := func() {
		t.Helper()
		if err := store.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	refresh()
	if got := []any{variantOf(store, "x"), reasonOf(store, "x")}; !slices.Equal(got, []any{1, assign.ReasonRoster}) {
		t.Errorf("got %v", got)
	}
	shared := store.rosters[rosterVersion{id: 1}]
	s.putRoster("x", 2, 1, 100)
	refresh()
	if store.histories["x"].Roster != shared || len(s.rosterLoads) != 1 {
		t.Errorf("the roster was loaded again: %v", s.rosterLoads)
	}
	s.putRoster("x", 3, 2, 1) // Another one, without u-1.
	refresh()
	if reasonOf(store, "x") != assign.ReasonNotInRoster || store.rosters[rosterVersion{id: 1}] != nil || len(store.rosters) != 1 {
		t.Errorf("%v, and held are %d rosters", reasonOf(store, "x"), len(store.rosters))
	}
	s.dropRoster("x", 4)
	refresh()
	if reasonOf(store, "x") != assign.ReasonNotInRoster || len(store.rosters) != 0 {
		t.Errorf("a roster without subjects: %v, and held are %d rosters", reasonOf(store, "x"), len(store.rosters))
	}
}

// eraseFromRoster commits that a subject of a roster was erased, after which it
// cannot be loaded.
func (s *storage) eraseFromRoster(key string, version int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.histories[key]
	roster := *h.Experiment.Roster
	roster.Erased++
	h.Experiment.Roster, h.Experiment.Version = &roster, version
	s.histories[key] = h
	delete(s.rosters, roster.ID)
}

// TestRosterCannotBeLoaded: it keeps the changes of no other experiment from taking
// effect, nor those of its own but for the subjects, it is told, and it is tried
// again, but not each time.
func TestRosterCannotBeLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		store, log := open(s)
		s.putRoster("known", 1, 1, 100)
		s.put("other", 1, 0)
		refresh(t, store)

		s.putRoster("new", 1, 2, 100)
		lost := s.rosters[2]
		delete(s.rosters, 2)
		s.eraseFromRoster("known", 2)
		s.put("other", 2, 1)
		for range 3 { // The first try and no other.
			refresh(t, store)
		}
		got := []any{variantOf(store, "other"), reasonOf(store, "known"), reasonOf(store, "new"), store.Faulty(FaultRoster), store.Faulty(FaultDefinition), len(s.rosterLoads), log.count("could not be loaded")}
		if diff := cmp.Diff([]any{1, assign.ReasonRoster, assign.ReasonNotRunning, 2, 0, 3, 2}, got); diff != "" {
			t.Errorf("-want +got:\n%s\n%v", diff, log.lines)
		}
		// A pause of the experiment itself takes effect, too.
		s.mu.Lock()
		h := s.histories["known"]
		h.Experiment.State, h.Experiment.Version = experiment.StatePaused, 3
		s.histories["known"] = h
		s.mu.Unlock()
		refresh(t, store)
		if got := reasonOf(store, "known"); got != assign.ReasonNotRunning || store.histories["known"].Roster == nil {
			t.Errorf("paused: reason %v", got)
		}

		s.rosters[2] = lost
		time.Sleep(rosterPause)
		refresh(t, store)
		got = []any{reasonOf(store, "new"), store.Faulty(FaultRoster), log.count("could not be loaded")}
		if diff := cmp.Diff([]any{assign.ReasonRoster, 1, 2}, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		s.rosters[1] = lost
		time.Sleep(rosterPause)
		refresh(t, store)
		if store.Faulty(FaultRoster) != 0 || len(store.rosters) != 2 || len(store.lacking) != 0 {
			t.Errorf("%d faults, %d rosters, lacking %v", store.Faulty(FaultRoster), len(store.rosters), store.lacking)
		}
	})
}

// TestRosterIsKept: a server that starts from disk serves the roster, until it
// can load it.
func TestRosterIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "catalog")
		s := newStorage()
		store, _ := open(s)
		stop := keep(t, store, path)
		s.putRoster("x", 1, 1, 2*rosterChunk+1)
		s.putRoster("y", 1, 2, 1)
		refresh(t, store)
		stop()
		restored, _ := open(s)
		if err := restorePath(t.Context(), restored, path); err != nil {
			t.Fatal(err)
		}
		if got := []any{reasonOf(restored, "x"), variantOf(restored, "x"), reasonOf(restored, "y")}; !slices.Equal(got, []any{assign.ReasonRoster, 1, assign.ReasonNotInRoster}) {
			t.Errorf("from disk: %v", got)
		}
		if diff := cmp.Diff(s.rosters[1], restored.histories["x"].Roster); diff != "" {
			t.Errorf("-loaded +restored:\n%s", diff)
		}
		// Storage may be another than that of the file, under the same ids.
		s.putRoster("x", 1, 1, 1)
		refresh(t, restored)
		if reasonOf(restored, "x") != assign.ReasonNotInRoster {
			t.Error("a roster from disk outlasted the first load")
		}
	})
}
