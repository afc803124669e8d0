package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
)

// TestRefreshInPages: what is larger than a page is read page by page, and nothing of
// it is served before all of it is.
func TestRefreshInPages(t *testing.T) {
	s := newStorage()
	s.pageSize = 3
	store, _ := open(s)
	for i := range 10 {
		s.put(fmt.Sprint("e-", i), 1, 0)
	}
	served := 0
	load := store.load
	store.load = func(ctx context.Context, known map[string]*experiment.History) ([]experiment.History, bool, error) {
		if store.Len() > 0 || store.Current().Experiment("e-0") != nil {
			served++
		}
		return load(ctx, known)
	}
	if err := store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if store.Len() != 10 || s.loads() != 4 || served != 0 {
		t.Errorf("%d experiments by %d loads, of which %d found some served", store.Len(), s.loads(), served)
	}
}

// TestRefreshGoesOn: a round that is cut off loses nothing of what it has read, so
// that a catalog which is too large for the time of any round is served at last.
func TestRefreshGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		s.pageSize, s.slowness = 1, 10*time.Second
		store, _ := open(s)
		const experiments = 10
		for i := range experiments {
			s.put(fmt.Sprint("e-", i), 1, 0)
		}
		rounds := 0
		for store.Len() == 0 {
			if rounds++; rounds > experiments {
				t.Fatal("it does not go on")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second) // Two pages.
			if err := store.Refresh(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			cancel()
		}
		if store.Len() != experiments || rounds != experiments/2 {
			t.Errorf("%d experiments after %d rounds", store.Len(), rounds)
		}

		// A page that fails is tried again, and those before it are not.
		s.put("e-0", 2, 1)
		s.put("e-1", 2, 1)
		loads := s.loads()
		load := store.load
		store.load = func(ctx context.Context, known map[string]*experiment.History) ([]experiment.History, bool, error) {
			if s.loads() == loads+1 {
				s.began = append(s.began, time.Now())
				return nil, false, errors.New("down")
			}
			return load(ctx, known)
		}
		if err := store.Refresh(t.Context()); err == nil || variantOf(store, "e-0") != 0 {
			t.Errorf("a part is served, after %v", err)
		}
		refresh(t, store)
		if got := []int{variantOf(store, "e-0"), variantOf(store, "e-1"), s.loads() - loads}; !slices.Equal(got, []int{1, 1, 3}) {
			t.Errorf("variants and loads: %v", got)
		}
	})
}

// TestRefreshIsOfOneMoment: between two pages an experiment gives up its slot in a
// layer to another. No catalog in which both hold it is served.
func TestRefreshIsOfOneMoment(t *testing.T) {
	s := newStorage()
	s.pageSize = 1
	store, _ := open(s)
	slot := func(key string, version int64, ranges ...experiment.Range) {
		d := experiment.Definition{Unit: "user", Traffic: 1, Salt: key, Layer: "l", Variants: []experiment.Variant{{Key: "a", Weight: 1}}}
		s.putDefinition(key, version, d)
		h := s.histories[key]
		if ranges != nil {
			h.Experiment.Slot = &experiment.Slot{Salt: "l", Ranges: ranges}
		}
		s.histories[key] = h
	}
	all := experiment.Range{From: 0, To: experiment.Buckets}
	slot("a", 1, all)
	slot("b", 2)
	load := store.load
	store.load = func(ctx context.Context, known map[string]*experiment.History) ([]experiment.History, bool, error) {
		page, more, err := load(ctx, known)
		if s.loads() == 1 { // a has been read with the slot.
			slot("a", 3)
			slot("b", 4, all)
		}
		return page, more, err
	}
	if err := store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := []assign.Reason{reasonOf(store, "a"), reasonOf(store, "b")}; !slices.Equal(got, []assign.Reason{assign.ReasonNoTraffic, assign.ReasonSplit}) {
		t.Errorf("the subject is in a: %v, in b: %v", got[0], got[1])
	}
}

// TestFaultyExperiments: an experiment that could not be read is served as not
// running, whatever its unit, and so is one that does not compile. They are counted,
// logged up to a number, kept on disk, and served again once they are mended.
func TestFaultyExperiments(t *testing.T) {
	s := newStorage()
	store, log := open(s)
	s.put("x", 1, 0)
	s.histories["unread"] = experiment.History{Experiment: experiment.Experiment{Key: "unread", State: experiment.StateRunning, Version: 1}, Fault: "no JSON"}
	for i := range maxLogged + 5 {
		s.putDefinition(fmt.Sprint("broken-", i), 1, experiment.Definition{
			Unit: "user", Traffic: 1, Salt: "s", Eligibility: "unit ==", Variants: []experiment.Variant{{Key: "a", Weight: 1}},
		})
	}
	check := func(store *Store, faulty int) {
		t.Helper()
		got := []any{variantOf(store, "x"), reasonOf(store, "unread"), reasonOf(store, "broken-0"), store.Faulty(FaultDefinition)}
		if want := []any{0, assign.ReasonNotRunning, assign.ReasonNotRunning, faulty}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	if err := store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(store, maxLogged+6)
	if log.count("level=ERROR") != maxLogged+1 || log.count("count=6") != 1 {
		t.Errorf("logged %v", log.lines)
	}

	path := t.TempDir() + "/catalog"
	if _, err := store.save(path, 0); err != nil {
		t.Fatal(err)
	}
	restored := New(pepper, nil, nil, nil, poll, slog.New(slog.DiscardHandler))
	if err := restorePath(t.Context(), restored, path); err != nil {
		t.Fatal(err)
	}
	check(restored, maxLogged+6)

	s.put("unread", 2, 0)
	if err := store.Refresh(t.Context()); err != nil || variantOf(store, "unread") != 0 || store.Faulty(FaultDefinition) != maxLogged+5 {
		t.Errorf("mended: %v, variant %d, %d faults", err, variantOf(store, "unread"), store.Faulty(FaultDefinition))
	}
}
