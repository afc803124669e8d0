package postgres_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

func histories(t *testing.T, db *postgres.DB, known map[string]int64) []experiment.History {
	t.Helper()
	list, err := db.Histories(t.Context(), known)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestHistories(t *testing.T) {
	d := newDatabase(t)
	ctx := t.Context()
	if got := histories(t, d.DB, nil); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
	createMetrics(t, d.DB, "m")
	first := createExperiment(t, d.DB, "e", definition("m"))
	plain := createExperiment(t, d.DB, "a", definition())
	updated, err := d.UpdateExperiment(ctx, "e", 0, described("two"))
	if err != nil {
		t.Fatal(err)
	}
	started := transition(t, d.DB, "e", start)
	setOverrides(t, d.DB, pin("short", 1, 2, 3)...)
	setOverrides(t, d.DB, append(pin("control", 2), pin("", 3)...)...)
	now, err := d.Experiment(ctx, "e")
	if err != nil {
		t.Fatal(err)
	}

	ofE := experiment.History{
		Experiment: *now,
		Revisions:  []experiment.Revision{first.Current, updated.Current},
		Transitions: []experiment.Transition{
			{State: experiment.StateDraft, Time: first.CreateTime}, {State: experiment.StateRunning, Time: started.StartTime},
		},
		Overrides: map[experiment.SubjectID]string{subjectID(1): "short", subjectID(2): "control"},
	}
	ofA := experiment.History{
		Experiment:  *plain,
		Revisions:   []experiment.Revision{plain.Current},
		Transitions: []experiment.Transition{{State: experiment.StateDraft, Time: plain.CreateTime}},
	}
	for _, c := range []struct {
		name  string
		known map[string]int64
		want  []experiment.History
	}{
		{"nothing known", nil, []experiment.History{ofE, ofA}},
		{"all known", map[string]int64{"e": now.Version, "a": plain.Version}, []experiment.History{}},
		{"one changed", map[string]int64{"e": started.Version, "a": plain.Version}, []experiment.History{ofE}},
		{"one new", map[string]int64{"e": now.Version}, []experiment.History{ofA}},
		{"one that is gone", map[string]int64{"e": now.Version, "a": plain.Version, "x": 1}, []experiment.History{}},
	} {
		if diff := cmp.Diff(c.want, histories(t, d.other, c.known)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// listen runs ListenCatalog, and sends what each notice finds in the catalog.
func listen(ctx context.Context, db *postgres.DB) (found chan map[string]int64, ended chan error) {
	found, ended = make(chan map[string]int64, 100), make(chan error, 1)
	go func() {
		ended <- db.ListenCatalog(ctx, func() {
			versions := map[string]int64{}
			list, err := db.Histories(ctx, nil)
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
