package catalog

import (
	"context"
	"errors"
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

// TestRosterIsLoadedOnce: versions of an experiment share their roster, one that
// could not be reached fails the load but not those before it, and one that is
// gone is forgotten.
func TestRosterIsLoadedOnce(t *testing.T) {
	s := newStorage()
	store, _ := open(s)
	s.putRoster("x", 1, 1, 100)
	refresh := func(want error) {
		t.Helper()
		if err := store.Refresh(t.Context()); (err == nil) != (want == nil) {
			t.Fatalf("refreshed with %v", err)
		}
	}
	refresh(nil)
	if got := []any{variantOf(store, "x"), reasonOf(store, "x")}; !slices.Equal(got, []any{1, assign.ReasonRoster}) {
		t.Errorf("got %v", got)
	}
	shared := store.rosters[rosterVersion{id: 1}]
	s.putRoster("x", 2, 1, 100)
	refresh(nil)
	if store.histories["x"].Roster != shared || len(s.rosterLoads) != 1 {
		t.Errorf("the roster was loaded again: %v", s.rosterLoads)
	}

	s.putRoster("x", 3, 2, 1) // Another one, without u-1.
	s.putRoster("y", 1, 3, 100)
	lost := s.rosters[3]
	delete(s.rosters, 3)
	refresh(errors.New("3 is out of reach"))
	if reasonOf(store, "x") != assign.ReasonRoster {
		t.Error("the last good catalog is gone")
	}
	s.rosters[3] = lost
	refresh(nil)
	if got := []any{reasonOf(store, "x"), reasonOf(store, "y")}; !slices.Equal(got, []any{assign.ReasonNotInRoster, assign.ReasonRoster}) {
		t.Errorf("got %v", got)
	}
	loads := map[int32]int{}
	for _, id := range s.rosterLoads {
		loads[id]++
	}
	if loads[2] != 1 || store.rosters[rosterVersion{id: 1}] != nil || len(store.rosters) != 2 {
		t.Errorf("loads %v, and held are %d rosters", loads, len(store.rosters))
	}

	s.dropRoster("y", 2)
	refresh(nil)
	if reasonOf(store, "y") != assign.ReasonNotInRoster || len(store.rosters) != 1 {
		t.Errorf("a roster without subjects: %v, and held are %d rosters", reasonOf(store, "y"), len(store.rosters))
	}
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
