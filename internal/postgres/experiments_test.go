package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
	"github.com/assayhq/assay/internal/postgres"
)

// definition returns one that names the metrics, the first as primary.
func definition(metrics ...string) experiment.Definition {
	def := experiment.Definition{
		Unit: "user", Traffic: 1, Salt: "s",
		Variants: []experiment.Variant{{Key: "control", Control: true, Weight: 1}, {Key: "short", Weight: 3}},
		Plan:     experiment.Plan{Method: experiment.MethodAlwaysValid, ConfidenceLevel: 0.95, Correction: experiment.CorrectionHolm},
	}
	for i, key := range metrics {
		role := experiment.RoleSecondary
		if i == 0 {
			role = experiment.RolePrimary
		}
		def.Metrics = append(def.Metrics, experiment.MetricUse{Metric: key, Role: role})
	}
	return def
}

func createExperiment(t *testing.T, db *postgres.DB, key string, def experiment.Definition) *experiment.Experiment {
	t.Helper()
	e, err := db.CreateExperiment(t.Context(), key, "", "", def)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func createMetrics(t *testing.T, db *postgres.DB, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if _, err := db.CreateMetric(t.Context(), key, "", "", metric.Proportion("purchase", nil)); err != nil {
			t.Fatal(err)
		}
	}
}

func transition(t *testing.T, db *postgres.DB, key string, change postgres.StateChange) *experiment.Experiment {
	t.Helper()
	e, err := db.TransitionExperiment(t.Context(), key, 0, change)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// described is the change to another description.
func described(text string) func(*experiment.Experiment) (experiment.Revision, error) {
	return func(e *experiment.Experiment) (experiment.Revision, error) {
		next := e.Current
		next.Number++
		next.Definition.Description = text
		return next, nil
	}
}

var start = postgres.StateChange{From: experiment.StateDraft, To: experiment.StateRunning}

func TestCreateExperiment(t *testing.T) {
	d := newDatabase(t)
	createMetrics(t, d.DB, "m")
	def := definition("m")
	def.Description = "NUL \x00, <b>, \u2028, \U0001F600, \\u0000"
	def.Labels = map[string]string{"team": "a\x00b"}
	def.Variants[1].Payload = json.RawMessage(`{"title":"x\u0000y","n":1.50}`)
	made := createExperiment(t, d.DB, "e", def)
	read, err := d.other.Experiment(t.Context(), "e")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, read); diff != "" {
		t.Errorf("read back: %s", diff)
	}
	want := &experiment.Experiment{
		ID: made.ID, Key: "e", State: experiment.StateDraft, Version: made.Version,
		Current:    experiment.Revision{Number: 1, Phase: 1, Definition: def, Allocation: experiment.FirstAllocation(def.Variants), CreateTime: made.CreateTime},
		CreateTime: made.CreateTime, UpdateTime: made.CreateTime,
	}
	if diff := cmp.Diff(want, made); diff != "" {
		t.Error(diff)
	}
	if made.ID == 0 || made.Version == 0 || made.CreateTime.IsZero() {
		t.Errorf("id %d, version %d, created %v", made.ID, made.Version, made.CreateTime)
	}
	_, err = d.Experiment(t.Context(), "f")
	wantKind(t, err, experiment.ErrNotFound, "EXPERIMENT_NOT_FOUND")
}

func TestCreateExperimentTwice(t *testing.T) {
	d := newDatabase(t)
	ctx := t.Context()
	first, err := d.CreateExperiment(ctx, "e", "request", "", definition())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.UpdateExperiment(ctx, "e", 0, described("changed since")); err != nil {
		t.Fatal(err)
	}
	again, err := d.other.CreateExperiment(ctx, "e", "request", "", definition())
	if err != nil || again.ID != first.ID || again.Current.Definition.Description != "changed since" {
		t.Errorf("the same request made %+v, %v", again, err)
	}
	for _, c := range []struct{ name, key, request string }{
		{"another request", "e", "request 2"},
		{"no request id", "e", ""},
		{"the request id of another key", "f", "request"},
	} {
		_, err := d.CreateExperiment(ctx, c.key, c.request, "", definition())
		if wantKind(t, err, experiment.ErrAlreadyExists, "EXPERIMENT_EXISTS"); t.Failed() {
			t.Fatal(c.name)
		}
	}
	if n := scalar[int](t, d.raw, `SELECT (SELECT count(*) FROM experiments) + (SELECT count(*) FROM experiment_transitions)`); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

func TestCreateExperimentAtOnce(t *testing.T) {
	d := newDatabase(t)
	errs := atOnce(8, func(i int) error {
		_, err := []*postgres.DB{d.DB, d.other}[i%2].CreateExperiment(context.Background(), "e", "request", "", definition())
		return err
	})
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM experiment_revisions`); n != 1 {
		t.Errorf("%d revisions, want 1", n)
	}
}

// atOnce calls f from n goroutines and returns its errors.
func atOnce(n int, f func(i int) error) []error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return errs
}

func TestExperimentMetrics(t *testing.T) {
	d := newDatabase(t)
	ctx := t.Context()
	createMetrics(t, d.DB, "m", "old", "new")
	if _, err := d.ArchiveMetric(ctx, "old", "", 0); err != nil {
		t.Fatal(err)
	}
	_, err := d.CreateExperiment(ctx, "e", "", "", definition("m", "unknown", "old", "none"))
	wantInvalid(t, err, "metrics[1].metric", "metrics[2].metric", "metrics[3].metric")
	if _, err := d.Experiment(ctx, "e"); !errors.Is(err, experiment.ErrNotFound) {
		t.Errorf("an experiment that was refused: %v", err)
	}

	createExperiment(t, d.DB, "e", definition("m"))
	use := func(metrics ...string) error {
		_, err := d.UpdateExperiment(ctx, "e", 0, func(e *experiment.Experiment) (experiment.Revision, error) {
			next := e.Current
			next.Number++
			next.Definition.Metrics = definition(metrics...).Metrics
			return next, nil
		})
		return err
	}
	wantInvalid(t, use("unknown", "m"), "metrics[0].metric")
	wantInvalid(t, use("m", "old"), "metrics[1].metric")
	if _, err := d.ArchiveMetric(ctx, "m", "", 0); err != nil {
		t.Fatal(err)
	}
	if err := use("m", "new"); err != nil {
		t.Errorf("a metric that was archived while in use: %v", err)
	}
	_, err = d.TransitionExperiment(ctx, "e", 0, start)
	wantKind(t, err, experiment.ErrPrecondition, "METRIC_ARCHIVED")
	if e, err := d.Experiment(ctx, "e"); err != nil || e.State != experiment.StateDraft || e.PlanHash != "" || !e.StartTime.IsZero() {
		t.Errorf("after a start that was refused: %+v, %v", e, err)
	}
}

func TestUpdateExperiment(t *testing.T) {
	d := newDatabase(t)
	ctx := t.Context()
	made := createExperiment(t, d.DB, "e", definition())
	updated, err := d.UpdateExperiment(ctx, "e", made.Version, described("two"))
	if err != nil {
		t.Fatal(err)
	}
	if r := updated.Current; r.Number != 2 || r.Definition.Description != "two" || updated.Version == made.Version ||
		!r.CreateTime.Equal(updated.UpdateTime) || !updated.CreateTime.Equal(made.CreateTime) {
		t.Errorf("updated: %+v", updated)
	}
	same, err := d.UpdateExperiment(ctx, "e", updated.Version, func(e *experiment.Experiment) (experiment.Revision, error) { return e.Current, nil })
	if diff := cmp.Diff(updated, same); diff != "" || err != nil {
		t.Errorf("an update that changes nothing: %s, %v", diff, err)
	}
	_, err = d.UpdateExperiment(ctx, "e", made.Version, described("stale"))
	wantKind(t, err, experiment.ErrAborted, "ETAG_MISMATCH")
	_, err = d.UpdateExperiment(ctx, "f", 0, described("none"))
	wantKind(t, err, experiment.ErrNotFound, "EXPERIMENT_NOT_FOUND")
	refusal := errors.New("refused")
	if _, err = d.UpdateExperiment(ctx, "e", 0, func(*experiment.Experiment) (experiment.Revision, error) {
		return experiment.Revision{}, refusal
	}); !errors.Is(err, refusal) {
		t.Errorf("error %v, want that of the change", err)
	}

	revisions, err := d.ExperimentRevisions(ctx, made.ID, math.MaxInt32, 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]experiment.Revision{updated.Current, made.Current}, revisions); diff != "" {
		t.Errorf("revisions: %s", diff)
	}
	if revisions, err = d.ExperimentRevisions(ctx, made.ID, 2, 10); err != nil || len(revisions) != 1 || revisions[0].Number != 1 {
		t.Errorf("revisions before 2: %v, %v", revisions, err)
	}
	if revisions, err = d.ExperimentRevisions(ctx, made.ID, 3, 1); err != nil || len(revisions) != 1 || revisions[0].Number != 2 {
		t.Errorf("one revision before 3: %v, %v", revisions, err)
	}
}

// Updates that meet wait for each other: with one etag a single one wins, and
// without etags none is lost.
func TestUpdateExperimentAtOnce(t *testing.T) {
	d := newDatabase(t)
	made := createExperiment(t, d.DB, "e", definition())
	update := func(etag int64) []error {
		return atOnce(8, func(i int) error {
			_, err := []*postgres.DB{d.DB, d.other}[i%2].UpdateExperiment(context.Background(), "e", etag, described(fmt.Sprint(etag, i)))
			return err
		})
	}
	won := 0
	for _, err := range update(made.Version) {
		if err == nil {
			won++
			continue
		}
		wantKind(t, err, experiment.ErrAborted, "ETAG_MISMATCH")
	}
	if won != 1 {
		t.Errorf("%d updates with the same etag won, want 1", won)
	}
	if err := errors.Join(update(0)...); err != nil {
		t.Error(err)
	}
	revisions, err := d.ExperimentRevisions(t.Context(), made.ID, math.MaxInt32, 20)
	if err != nil || len(revisions) != 10 {
		t.Fatalf("%d revisions, want 10; %v", len(revisions), err)
	}
	for i, r := range revisions {
		if i > 0 && r.CreateTime.After(revisions[i-1].CreateTime) {
			t.Errorf("revision %d is from %v, after its successor from %v", r.Number, r.CreateTime, revisions[i-1].CreateTime)
		}
	}
}

// What a change writes is not from before the change that it waited for.
func TestChangesAreTimedAfterTheirLock(t *testing.T) {
	d := newDatabase(t)
	createExperiment(t, d.DB, "e", definition())
	transition(t, d.DB, "e", start)
	locker := connect(t, d.url, "locker")
	exec(t, locker, `BEGIN`)
	exec(t, locker, `SELECT FROM experiments WHERE key = 'e' FOR UPDATE`)
	errs := make(chan error, 3)
	go func() { errs <- second(d.UpdateExperiment(context.Background(), "e", 0, described("waited"))) }()
	go func() { errs <- second(d.SetOverrides(context.Background(), "e", "", pin("control", 1))) }()
	go func() {
		errs <- second(d.TransitionExperiment(context.Background(), "e", 0, postgres.StateChange{To: experiment.StatePaused}))
	}()
	waitFor(t, d.raw, `SELECT count(*) = 3 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
	exec(t, d.raw, `CREATE TABLE unlocked AS SELECT clock_timestamp() AS time`)
	exec(t, locker, `COMMIT`)
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	early := list[string](t, d.raw, `SELECT w.what FROM unlocked u, (
		SELECT 'revision' AS what, create_time AS time FROM experiment_revisions WHERE revision = 2
		UNION ALL SELECT 'transition', time FROM experiment_transitions WHERE state = 'paused'
		UNION ALL SELECT 'override', create_time FROM overrides
		UNION ALL SELECT 'experiment', update_time FROM experiments) w WHERE w.time <= u.time`)
	if len(early) != 0 {
		t.Errorf("timed before they had the lock: %q", early)
	}
}

func second[T any](_ T, err error) error { return err }

func TestTransitions(t *testing.T) {
	d := newDatabase(t)
	ctx := t.Context()
	createMetrics(t, d.DB, "m", "n")
	if _, err := d.UpdateMetric(ctx, "m", "", 0, func(m *metric.Metric) (metric.Definition, error) { return metric.Sum("purchase", nil), nil }); err != nil {
		t.Fatal(err)
	}
	made := createExperiment(t, d.DB, "e", definition("m", "n"))

	_, err := d.TransitionExperiment(ctx, "e", made.Version+1, start)
	wantKind(t, err, experiment.ErrAborted, "ETAG_MISMATCH")
	_, err = d.TransitionExperiment(ctx, "e", 0, postgres.StateChange{To: experiment.StatePaused})
	wantKind(t, err, experiment.ErrPrecondition, "STATE_FORBIDS")
	_, err = d.TransitionExperiment(ctx, "f", 0, start)
	wantKind(t, err, experiment.ErrNotFound, "EXPERIMENT_NOT_FOUND")

	started, err := d.TransitionExperiment(ctx, "e", made.Version, start)
	if err != nil {
		t.Fatal(err)
	}
	pins := map[string]int32{"m": 2, "n": 1}
	want := *made
	want.State, want.Version, want.Pins, want.PlanHash = experiment.StateRunning, started.Version, pins, made.Current.Definition.SealPlan(pins)
	want.StartTime, want.UpdateTime = started.UpdateTime, started.UpdateTime
	if diff := cmp.Diff(&want, started); diff != "" {
		t.Errorf("started: %s", diff)
	}
	if started.Version <= made.Version || !started.StartTime.After(made.CreateTime) {
		t.Errorf("version %d after %d, started %v after creation %v", started.Version, made.Version, started.StartTime, made.CreateTime)
	}
	_, err = d.TransitionExperiment(ctx, "e", 0, start)
	wantKind(t, err, experiment.ErrPrecondition, "STATE_FORBIDS")

	if _, err := d.UpdateMetric(ctx, "n", "", 0, func(*metric.Metric) (metric.Definition, error) { return metric.Sum("refund", nil), nil }); err != nil {
		t.Fatal(err)
	}
	transition(t, d.DB, "e", postgres.StateChange{To: experiment.StatePaused})
	resumed := transition(t, d.DB, "e", postgres.StateChange{From: experiment.StatePaused, To: experiment.StateRunning})
	ignored := cmpopts.IgnoreFields(experiment.Experiment{}, "Version", "UpdateTime")
	if diff := cmp.Diff(started, resumed, ignored); diff != "" {
		t.Errorf("resumed: %s", diff)
	}

	_, err = d.TransitionExperiment(ctx, "e", 0, postgres.StateChange{To: experiment.StateConcluded, Shipped: "long"})
	wantInvalid(t, err, "shipped_variant")
	if e, err := d.Experiment(ctx, "e"); err != nil || e.State != experiment.StateRunning || e.Version != resumed.Version {
		t.Errorf("after a conclusion that was refused: %+v, %v", e, err)
	}
	concluded := transition(t, d.DB, "e", postgres.StateChange{To: experiment.StateConcluded, Shipped: "short", Rationale: "it won"})
	want = *resumed
	want.State, want.ShippedVariant, want.Rationale, want.ConcludeTime = experiment.StateConcluded, "short", "it won", concluded.UpdateTime
	if diff := cmp.Diff(&want, concluded, ignored); diff != "" {
		t.Errorf("concluded: %s", diff)
	}
	transition(t, d.DB, "e", postgres.StateChange{To: experiment.StateArchived})

	histories, err := allHistories(ctx, d.DB)
	if err != nil {
		t.Fatal(err)
	}
	var states []experiment.State
	for i, tr := range histories[0].Transitions {
		states = append(states, tr.State)
		if i > 0 && !tr.Time.After(histories[0].Transitions[i-1].Time) {
			t.Errorf("transition %d is from %v, not after %v", i, tr.Time, histories[0].Transitions[i-1].Time)
		}
	}
	if diff := cmp.Diff([]experiment.State{"draft", "running", "paused", "running", "concluded", "archived"}, states); diff != "" {
		t.Error(diff)
	}
	if !histories[0].Transitions[1].Time.Equal(started.StartTime) || !histories[0].Transitions[4].Time.Equal(concluded.ConcludeTime) {
		t.Errorf("transitions %v; started %v, concluded %v", histories[0].Transitions, started.StartTime, concluded.ConcludeTime)
	}
}

func TestStartAtOnce(t *testing.T) {
	d := newDatabase(t)
	createMetrics(t, d.DB, "m")
	createExperiment(t, d.DB, "e", definition("m"))
	won := 0
	for _, err := range atOnce(8, func(i int) error {
		return second([]*postgres.DB{d.DB, d.other}[i%2].TransitionExperiment(context.Background(), "e", 0, start))
	}) {
		if err == nil {
			won++
			continue
		}
		wantKind(t, err, experiment.ErrPrecondition, "STATE_FORBIDS")
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM experiment_transitions WHERE state = 'running'`); won != 1 || n != 1 {
		t.Errorf("%d starts won, %d transitions; want 1", won, n)
	}
}

// A server of an earlier release stored less; what it did not know means
// nothing.
func TestDefinitionOfAnEarlierRelease(t *testing.T) {
	d := newDatabase(t)
	made := createExperiment(t, d.DB, "e", definition())
	createMetrics(t, d.DB, "m")
	exec(t, d.raw, `UPDATE experiment_revisions SET definition = '{"variants":[{"key":"control","control":true,"weight":1}],"gone":[1]}'`)
	exec(t, d.raw, `UPDATE metric_revisions SET definition = '{"kind":"sum","components":[{"outcome":"purchase"}]}'`)
	e, err := d.Experiment(t.Context(), "e")
	if err != nil {
		t.Fatal(err)
	}
	want := experiment.Definition{Variants: []experiment.Variant{{Key: "control", Control: true, Weight: 1}}}
	if diff := cmp.Diff(want, e.Current.Definition); diff != "" || e.ID != made.ID {
		t.Error(diff)
	}
	m, err := d.Metric(t.Context(), "m", 0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(metric.Definition{Kind: metric.KindSum, Components: []experiment.Component{{Outcome: "purchase"}}}, m.Definition); diff != "" {
		t.Error(diff)
	}
}

func TestListExperiments(t *testing.T) {
	d := newDatabase(t)
	for i, key := range []string{"d", "b", "a", "c"} {
		def := definition()
		def.Labels = map[string]string{"team": "growth", "n": fmt.Sprint(i)}
		if key == "d" {
			def.Labels = nil
		}
		createExperiment(t, d.DB, key, def)
	}
	transition(t, d.DB, "a", start)
	transition(t, d.DB, "c", postgres.StateChange{To: experiment.StateArchived})
	for _, c := range []struct {
		name   string
		filter postgres.ExperimentFilter
		want   string
	}{
		{"all", postgres.ExperimentFilter{Limit: 10}, "abcd"},
		{"first page", postgres.ExperimentFilter{Limit: 2}, "ab"},
		{"second page", postgres.ExperimentFilter{After: "b", Limit: 2}, "cd"},
		{"end", postgres.ExperimentFilter{After: "d", Limit: 2}, ""},
		{"states", postgres.ExperimentFilter{States: []experiment.State{"draft", "running"}, Limit: 10}, "abd"},
		{"label", postgres.ExperimentFilter{Labels: map[string]string{"team": "growth"}, Limit: 10}, "abc"},
		{"both labels", postgres.ExperimentFilter{Labels: map[string]string{"team": "growth", "n": "1"}, Limit: 10}, "b"},
		{"no such value", postgres.ExperimentFilter{Labels: map[string]string{"team": "growth", "n": "9"}, Limit: 10}, ""},
		{"no such label", postgres.ExperimentFilter{Labels: map[string]string{"x": ""}, Limit: 10}, ""},
		{"label and state", postgres.ExperimentFilter{States: []experiment.State{"running"}, Labels: map[string]string{"team": "growth"}, Limit: 10}, "a"},
	} {
		list, err := d.Experiments(t.Context(), c.filter)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got := ""
		for _, e := range list {
			got += e.Key
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestPhases(t *testing.T) {
	d := newDatabase(t)
	e := createExperiment(t, d.DB, "e", definition())
	next := e.Current
	next.Number, next.Phase = 2, 2
	next.Allocation = []experiment.Range{{From: 0, To: 500_000, Variant: "control"}, {From: 500_000, To: 800_000, Variant: "short"}, {From: 900_000, To: 1_000_000, Variant: "gone"}}
	if _, err := d.UpdateExperiment(t.Context(), "e", 0, func(*experiment.Experiment) (experiment.Revision, error) { return next, nil }); err != nil {
		t.Fatal(err)
	}
	next.Number, next.Definition.Owner = 3, "another"
	if _, err := d.UpdateExperiment(t.Context(), "e", 0, func(*experiment.Experiment) (experiment.Revision, error) { return next, nil }); err != nil {
		t.Fatal(err)
	}
	phases, err := d.Phases(t.Context(), e.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(phases) != 2 || phases[0].Number != 1 || phases[1].Number != 3 || phases[1].Definition.Owner != "another" {
		t.Fatalf("phases %+v", phases)
	}
	shares := map[int32][]float64{}
	for _, r := range phases {
		shares[r.Phase] = r.SharesOf(&e.Current.Definition)
	}
	if diff := cmp.Diff(map[int32][]float64{1: {0.25, 0.75}, 2: {0.5, 0.3}}, shares); diff != "" {
		t.Error(diff)
	}
}

// TestManyRevisions: those of a draft do not count, nor do those of others.
func TestManyRevisions(t *testing.T) {
	d := newDatabase(t)
	createExperiment(t, d.DB, "e", definition())
	more := func(n int) {
		exec(t, d.raw, `WITH more AS (
				INSERT INTO experiment_revisions (experiment_id, revision, phase, definition, allocation, create_time, terms)
				SELECT experiment_id, revision + n, phase, definition, allocation, now(), terms FROM experiment_revisions, generate_series(1, $1::integer) n
				WHERE revision = (SELECT revision FROM experiments) RETURNING revision)
			UPDATE experiments SET revision = (SELECT max(revision) FROM more)`, n)
	}
	more(2 * experiment.MaxLiveRevisions)
	update(t, d.DB, "a draft")
	transition(t, d.DB, "e", start)
	more(experiment.MaxLiveRevisions - 2)
	e := update(t, d.DB, "the last one")
	_, err := d.UpdateExperiment(t.Context(), "e", 0, described("more"))
	wantKind(t, err, experiment.ErrPrecondition, "TOO_MANY_REVISIONS")
	wantKind(t, d.CheckRevisions(t.Context(), e), experiment.ErrPrecondition, "TOO_MANY_REVISIONS")
	list := histories(t, d.DB, nil)
	if n := len(list[0].Revisions); n != experiment.MaxLiveRevisions {
		t.Errorf("a server holds %d revisions", n)
	}
}

// TestManyTransitions: who pauses time and again can pause, but not resume for ever.
func TestManyTransitions(t *testing.T) {
	d := newDatabase(t)
	createExperiment(t, d.DB, "e", definition())
	transition(t, d.DB, "e", start)
	exec(t, d.raw, `INSERT INTO experiment_transitions (experiment_id, version, state, time)
		SELECT id, -n, 'paused', start_time FROM experiments, generate_series(1, $1::integer) n`, experiment.MaxTransitions-4)
	transition(t, d.DB, "e", postgres.StateChange{To: experiment.StatePaused})
	resume := postgres.StateChange{From: experiment.StatePaused, To: experiment.StateRunning}
	transition(t, d.DB, "e", resume)
	transition(t, d.DB, "e", postgres.StateChange{To: experiment.StatePaused})
	_, err := d.TransitionExperiment(t.Context(), "e", 0, resume)
	wantKind(t, err, experiment.ErrPrecondition, "TOO_MANY_TRANSITIONS")
	transition(t, d.DB, "e", postgres.StateChange{To: experiment.StateConcluded})
}
