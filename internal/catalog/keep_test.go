package catalog

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

// keep runs Keep on a file until the test calls the function that is returned.
func keep(t *testing.T, store *Store, path string) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- store.Keep(ctx, path) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Keep: %v", err)
		}
	}
}

func refresh(t *testing.T, store *Store) {
	t.Helper()
	if err := store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// kept returns the versions in the file and its time.
func kept(t *testing.T, path string) (map[string]int64, time.Time) {
	t.Helper()
	histories, at, err := readPath(path, pepper)
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]int64{}
	for _, h := range histories {
		versions[h.Experiment.Key] = h.Experiment.Version
	}
	return versions, at
}

func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "catalog")
		s := newStorage()
		store, _ := open(s)
		check := func(when string, want map[string]int64, at time.Time) {
			t.Helper()
			synctest.Wait()
			got, gotAt := kept(t, path)
			if diff := cmp.Diff(want, got); diff != "" || !gotAt.Equal(at) {
				t.Errorf("%s: of %v, want %v; -want +got:\n%s", when, gotAt, at, diff)
			}
		}
		stop := keep(t, store, path)
		if _, err := os.Stat(path); err == nil {
			t.Error("nothing was loaded, but something is kept")
		}
		refresh(t, store) // Nobody has made an experiment: that is something to know.
		check("an empty catalog", map[string]int64{}, store.LoadedAt())
		time.Sleep(keepPause)

		s.put("x", 1, 0)
		s.put("y", 1, 0)
		refresh(t, store)
		first := store.LoadedAt()
		check("at once", map[string]int64{"x": 1, "y": 1}, first)
		for i := range 5 { // A burst is one write, after a pause.
			s.put("x", int64(2+i), 0)
			refresh(t, store)
		}
		check("in the pause", map[string]int64{"x": 1, "y": 1}, first)
		time.Sleep(keepPause)
		check("after it", map[string]int64{"x": 6, "y": 1}, store.LoadedAt())

		time.Sleep(keepPause)
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		refresh(t, store)
		check("nothing has changed", map[string]int64{"x": 6, "y": 1}, store.LoadedAt())
		after, err := os.Stat(path)
		if err != nil || !os.SameFile(before, after) {
			t.Errorf("the file was written though nothing had changed: %v", err)
		}

		s.put("x", 7, 0)
		refresh(t, store)
		stop() // In the pause.
		check("at the end", map[string]int64{"x": 7, "y": 1}, store.LoadedAt())
	})
}

// TestKeepFails: a directory that cannot be written stops nothing, and what it
// missed is written once it can.
func TestKeepFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		if err := os.WriteFile(dir, nil, 0o600); err != nil { // No directory.
			t.Fatal(err)
		}
		path := filepath.Join(dir, "catalog")
		s := newStorage()
		store, log := open(s)
		s.put("x", 1, 0)
		stop := keep(t, store, path)
		refresh(t, store)
		if n := log.count("could not be kept"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		want := map[string]int64{"x": 1}
		for _, lose := range []func(){func() {}, func() { os.Remove(path) }} {
			lose()
			for range 2 { // The first finds out.
				time.Sleep(keepPause)
				refresh(t, store)
			}
			if got, _ := kept(t, path); !maps.Equal(got, want) {
				t.Errorf("kept %v", got)
			}
		}
		stop()
	})
}

func TestKeepRemovesLeftovers(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	for name, age := range map[string]time.Duration{".catalog-1": 2 * leftoverAge, ".catalog-2": time.Minute, "catalog": 2 * leftoverAge} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, now, now.Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	removeLeftovers(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if !slices.Equal(left, []string{".catalog-2", "catalog"}) {
		t.Errorf("left: %v", left)
	}
}

// restorePath opens the file that a store is restored from.
func restorePath(ctx context.Context, s *Store, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return s.Restore(ctx, f)
}

func TestRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "catalog")
		s := newStorage()
		first, _ := open(s)
		s.put("x", 1, 1)
		s.put("gone", 1, 0)
		s.putDefinition("broken", 1, experiment.Definition{
			Unit: "user", Traffic: 1, Salt: "s", Eligibility: "unit ==", Variants: []experiment.Variant{{Key: "a", Weight: 1}},
		})
		stop := keep(t, first, path)
		refresh(t, first)
		stop()
		written, at := kept(t, path)

		time.Sleep(time.Hour)
		s.fail(errors.New("down"))
		store, log := open(s)
		if err := restorePath(t.Context(), store, path); err != nil {
			t.Fatal(err)
		}
		stop = keep(t, store, path)
		if err := store.Refresh(t.Context()); err == nil {
			t.Error("refreshed from storage that is down")
		}
		if got := []int{variantOf(store, "x"), variantOf(store, "gone"), variantOf(store, "broken")}; !slices.Equal(got, []int{1, 0, -1}) {
			t.Errorf("got variants %v", got)
		}
		if store.Len() != 3 || !store.LoadedAt().Equal(at) || log.count("experiment=broken") != 1 {
			t.Errorf("%d experiments of %v, logged %v", store.Len(), store.LoadedAt(), log.lines)
		}

		// The storage comes back from an earlier state: another x under the
		// same version, and no memory of the other.
		s.fail(nil)
		delete(s.histories, "gone")
		s.put("x", 1, 0)
		if got, gotAt := kept(t, path); !maps.Equal(got, written) || !gotAt.Equal(at) {
			t.Errorf("the file has changed before the storage was reached: %v", got)
		}
		refresh(t, store)
		if variantOf(store, "x") != 0 || store.Current().Experiment("gone") != nil || store.Len() != 2 {
			t.Error("something from disk was taken for something from storage")
		}
		if got, gotAt := kept(t, path); !maps.Equal(got, map[string]int64{"x": 1, "broken": 1}) || !gotAt.Equal(store.LoadedAt()) {
			t.Errorf("kept %v of %v", got, gotAt)
		}
		stop()
	})
}

func TestRestoreRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog")
	s := newStorage()
	store, _ := open(s)
	if err := restorePath(t.Context(), store, path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := writeFile(path, experiment.Pepper("another pepper!!"), nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := restorePath(t.Context(), store, path); err == nil || store.Len() != 0 || !store.LoadedAt().IsZero() {
		t.Errorf("another pepper: %v", err)
	}
}

// TestLoadThatHangs: a connection that broke in silence does not stop the loads
// that follow.
func TestLoadThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		store, _ := open(s)
		s.slowness = time.Hour
		if err := store.Refresh(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		s.slowness = 0
		refresh(t, store)
	})
}

// TestOutageIsToldOnce: an hour without storage is one line about notices.
func TestOutageIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage()
		var up atomic.Bool
		up.Store(true)
		listen := func(ctx context.Context, notify func()) error {
			if !up.Load() {
				return errors.New("refused")
			}
			return s.listen(ctx, notify)
		}
		store, log := open(s)
		store.listen = listen
		stop := run(t, store)
		for range 2 {
			up.Store(false)
			s.lost <- struct{}{}
			time.Sleep(time.Hour)
			up.Store(true)
			time.Sleep(2 * listenPause)
		}
		if n := log.count("notices lost"); n != 2 {
			t.Errorf("two outages are %d lines", n)
		}
		stop()
	})
}
