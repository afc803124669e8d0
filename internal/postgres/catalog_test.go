package postgres_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

// listen runs ListenCatalog, and sends what each notice finds in the catalog.
func listen(ctx context.Context, db *postgres.DB) (found chan map[string]int64, ended chan error) {
	found, ended = make(chan map[string]int64, 100), make(chan error, 1)
	go func() {
		ended <- db.ListenCatalog(ctx, func() {
			versions := map[string]int64{}
			list, _, err := db.Histories(ctx, nil)
			if err != nil {
				versions[err.Error()] = -1
			}
			for _, h := range list {
				versions[h.Experiment.Key] = h.Experiment.Version
			}
			found <- versions
		})
	}()
	return found, ended
}

// Every change is announced, on every server, and not before it can be seen.
func TestListenCatalog(t *testing.T) {
	d := newDatabase(t)
	createMetrics(t, d.DB, "m")
	ctx, cancel := context.WithCancel(t.Context())
	found, ended := listen(ctx, d.other)
	if got := <-found; len(got) != 0 {
		t.Errorf("on listening: %v", got)
	}
	version := func() map[string]int64 {
		e, err := d.Experiment(t.Context(), "e")
		if err != nil {
			t.Fatal(err)
		}
		return map[string]int64{"e": e.Version}
	}
	for _, change := range []struct {
		name string
		make func()
	}{
		{"create", func() { createExperiment(t, d.DB, "e", definition("m")) }},
		{"update", func() {
			if _, err := d.UpdateExperiment(t.Context(), "e", 0, described("two")); err != nil {
				t.Fatal(err)
			}
		}},
		{"start", func() { transition(t, d.DB, "e", start) }},
		{"override", func() { setOverrides(t, d.DB, pin("short", 1)...) }},
		{"conclude", func() { transition(t, d.DB, "e", postgres.StateChange{To: experiment.StateConcluded}) }},
	} {
		change.make()
		if diff := cmp.Diff(version(), <-found); diff != "" {
			t.Errorf("%s: %s", change.name, diff)
		}
	}
	// What changes nothing, and what fails, is not announced.
	setOverrides(t, d.DB, pin("short", 1)...)
	if _, err := d.TransitionExperiment(t.Context(), "e", 0, start); err == nil {
		t.Error("started twice")
	}
	transition(t, d.DB, "e", postgres.StateChange{To: experiment.StateArchived})
	if diff := cmp.Diff(version(), <-found); diff != "" || len(found) != 0 {
		t.Errorf("archive: %s; %d more notices", diff, len(found))
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestListenCatalogEndsWithItsConnection(t *testing.T) {
	d := newDatabase(t)
	found, ended := listen(t.Context(), d.DB)
	<-found
	exec(t, d.raw, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`)
	wantKind(t, <-ended, experiment.ErrUnavailable, "DATABASE_UNAVAILABLE")
	again, _ := listen(t.Context(), d.DB)
	<-again
	createExperiment(t, d.DB, "e", definition())
	if got := <-again; len(got) != 1 {
		t.Errorf("after listening again: %v", got)
	}
}
