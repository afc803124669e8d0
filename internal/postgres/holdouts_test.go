package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

// global is a holdout of everything from now on.
func global(key string) experiment.Holdout {
	return experiment.Holdout{Key: key, Unit: "user", Share: 0.1, Salt: key, Kind: experiment.HoldoutStatusQuo}
}

func createHoldout(t *testing.T, db *postgres.DB, h experiment.Holdout, running experiment.RunningExperiments) *experiment.Holdout {
	t.Helper()
	created, err := db.CreateHoldout(t.Context(), "", "ann", h, running)
	if err != nil {
		t.Fatal(err)
	}
	return created
}

// setEnd is the change to another end.
func setEnd(end time.Time) func(*experiment.Holdout) (experiment.Holdout, error) {
	return func(h *experiment.Holdout) (experiment.Holdout, error) {
		next := *h
		next.EndTime = end
		return next, nil
	}
}

func labelled(name string) experiment.Definition {
	def := definition()
	def.Labels = map[string]string{"team": name}
	return def
}

// coverageOf returns the holdouts that cover an experiment, by its history.
func coverageOf(t *testing.T, db *postgres.DB, key string) (list []experiment.Coverage) {
	t.Helper()
	for _, h := range histories(t, db, nil) {
		if h.Experiment.Key == key {
			list = h.Coverages
		}
	}
	return list
}

func TestCreateAndUpdateHoldout(t *testing.T) {
	d := newDatabase(t)
	wanted := experiment.Holdout{
		Key: "h", Unit: "account", Description: "<é>", Share: 0.05, Salt: "salt", Labels: map[string]string{"team": "é"},
		Kind: experiment.HoldoutNoPersonalisation, StartTime: day(1).AddDate(90, 0, 0), EndTime: day(2).AddDate(90, 0, 0),
	}
	created, err := d.CreateHoldout(t.Context(), "r", "", wanted, experiment.RunningRefuse)
	if err != nil {
		t.Fatal(err)
	}
	ignored := cmpopts.IgnoreFields(experiment.Holdout{}, "ID", "Version", "CreateTime", "UpdateTime")
	if diff := cmp.Diff(&wanted, created, ignored); diff != "" || created.Version == 0 || created.CreateTime.IsZero() {
		t.Errorf("created %+v (-want +got):\n%s", created, diff)
	}
	if e := createExperiment(t, d.DB, "e", definition()); e.ID == created.ID {
		t.Error("an experiment has the holdout's id")
	}
	if again, err := d.CreateHoldout(t.Context(), "r", "", wanted, experiment.RunningRefuse); err != nil || again.ID != created.ID {
		t.Errorf("the same request again: %+v, %v", again, err)
	}
	for request, key := range map[string]string{"": "h", "s": "h", "r": "other"} {
		_, err := d.CreateHoldout(t.Context(), request, "", global(key), experiment.RunningRefuse)
		wantKind(t, err, experiment.ErrAlreadyExists, "HOLDOUT_EXISTS")
	}
	same, err := d.UpdateHoldout(t.Context(), "h", "", created.Version, setEnd(wanted.EndTime))
	if err != nil || same.Version != created.Version {
		t.Fatalf("unchanged: %+v, %v", same, err)
	}
	other := experiment.Holdout{Description: "d", Share: 0.5, Salt: "t", Kind: experiment.HoldoutStatusQuo, StartTime: wanted.StartTime.Add(time.Hour)}
	changed, err := d.UpdateHoldout(t.Context(), "h", "", created.Version, func(*experiment.Holdout) (experiment.Holdout, error) { return other, nil })
	if err != nil || changed.Version <= created.Version || !changed.UpdateTime.After(created.UpdateTime) {
		t.Fatalf("changed: %+v, %v", changed, err)
	}
	other.Key, other.Unit = "h", "account"
	if diff := cmp.Diff(&other, changed, ignored); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	_, err = d.UpdateHoldout(t.Context(), "h", "", created.Version, setEnd(time.Time{}))
	wantKind(t, err, experiment.ErrAborted, "ETAG_MISMATCH")
	_, err = d.UpdateHoldout(t.Context(), "x", "", 0, setEnd(time.Time{}))
	wantKind(t, err, experiment.ErrNotFound, "HOLDOUT_NOT_FOUND")
	_, err = d.UpdateHoldout(t.Context(), "h", "", 0, setEnd(day(1)))
	wantInvalid(t, err, "end_time", "end_time")
	_, err = d.Holdout(t.Context(), "x")
	wantKind(t, err, experiment.ErrNotFound, "HOLDOUT_NOT_FOUND")
	createHoldout(t, d.DB, global("i"), experiment.RunningRefuse)
	list, err := d.Holdouts(t.Context(), "a", 1)
	if err != nil || len(list) != 1 || list[0].Key != "h" {
		t.Errorf("listed %v, %v", list, err)
	}
}

// TestCoverage starts an experiment under holdouts of all kinds.
func TestCoverage(t *testing.T) {
	d := newDatabase(t)
	later, mine, others, devices := global("later"), global("mine"), global("others"), global("devices")
	later.StartTime = time.Now().Add(time.Hour)
	mine.Labels, others.Labels = map[string]string{"team": "a"}, map[string]string{"team": "b"}
	devices.Unit = "device"
	ended := global("ended")
	for _, h := range []experiment.Holdout{later, mine, others, devices, ended, global("all")} {
		createHoldout(t, d.DB, h, experiment.RunningRefuse)
	}
	if _, err := d.UpdateHoldout(t.Context(), "ended", "", 0, setEnd(time.Now())); err != nil {
		t.Fatal(err)
	}
	external := labelled("a")
	external.External = true
	createExperiment(t, d.DB, "e", labelled("a"))
	createExperiment(t, d.DB, "external", external)
	transition(t, d.DB, "external", start)
	started := transition(t, d.DB, "e", start)
	if diff := cmp.Diff([]string{"all", "mine"}, started.Holdouts); diff != "" {
		t.Errorf("started under (-want +got):\n%s", diff)
	}
	if list := coverageOf(t, d.DB, "external"); list != nil {
		t.Errorf("an experiment that is assigned elsewhere: %v", list)
	}
	all, err := d.Holdout(t.Context(), "all")
	if err != nil {
		t.Fatal(err)
	}
	want := experiment.Coverage{HoldoutID: all.ID, Holdout: "all", Kind: "status_quo", Salt: "all", Buckets: 100_000, FromTime: started.StartTime}
	if diff := cmp.Diff(want, coverageOf(t, d.DB, "e")[0]); diff != "" || all.Experiments[0] != "e" || len(all.Experiments) != 1 {
		t.Errorf("covered by %+v (-want +got):\n%s", all, diff)
	}

	// The end of a holdout is a change of its experiments.
	before, err := d.Experiment(t.Context(), "e")
	if err != nil {
		t.Fatal(err)
	}
	described := func(h *experiment.Holdout) (experiment.Holdout, error) {
		next := *h
		next.Description = "d"
		return next, nil
	}
	if _, err := d.UpdateHoldout(t.Context(), "all", "", 0, described); err != nil {
		t.Fatal(err)
	}
	if now, err := d.Experiment(t.Context(), "e"); err != nil || now.Version != before.Version {
		t.Errorf("another description made the experiment %+v, %v", now, err)
	}
	updated, err := d.UpdateHoldout(t.Context(), "all", "", 0, setEnd(time.Now().Add(-time.Minute)))
	if err != nil || time.Since(updated.EndTime) > time.Minute {
		t.Fatalf("ended now: %+v, %v", updated, err)
	}
	now, err := d.Experiment(t.Context(), "e")
	if err != nil || now.Version <= before.Version || len(now.Holdouts) != 1 {
		t.Errorf("the end made the experiment %+v, %v", now, err)
	}
	if list := coverageOf(t, d.DB, "e"); len(list) != 2 || !list[0].EndTime.Equal(updated.EndTime) {
		t.Errorf("after the end: %+v", list)
	}
	transition(t, d.DB, "e", conclude)
	transition(t, d.DB, "e", postgres.StateChange{To: experiment.StateArchived})
	if h, err := d.Holdout(t.Context(), "mine"); err != nil || len(h.Experiments) != 0 {
		t.Errorf("over an archived experiment: %+v, %v", h, err)
	}
}

// TestHoldoutOverRunning creates holdouts over experiments in all states.
func TestHoldoutOverRunning(t *testing.T) {
	d := newDatabase(t)
	for i := range 12 {
		key := fmt.Sprintf("e%02d", i)
		createExperiment(t, d.DB, key, labelled("a"))
		transition(t, d.DB, key, start)
	}
	transition(t, d.DB, "e00", postgres.StateChange{To: experiment.StatePaused})
	transition(t, d.DB, "e01", conclude)
	createExperiment(t, d.DB, "draft", labelled("a"))
	createExperiment(t, d.DB, "other", labelled("b"))
	transition(t, d.DB, "other", start)
	h := global("h")
	h.Labels = map[string]string{"team": "a"}
	_, err := d.CreateHoldout(t.Context(), "", "", h, experiment.RunningRefuse)
	wantKind(t, err, experiment.ErrPrecondition, "HOLDOUT_COVERS_RUNNING")
	if says := "e00, e02, e03, e04, e05, e06, e07, e08, e09, e10 and 1 more;"; !strings.Contains(err.Error(), says) {
		t.Errorf("refused with %v", err)
	}
	later := h
	later.StartTime = time.Now().Add(time.Hour)
	_, err = d.CreateHoldout(t.Context(), "", "", later, experiment.RunningRefuse)
	wantKind(t, err, experiment.ErrPrecondition, "HOLDOUT_COVERS_RUNNING")
	_, err = d.CreateHoldout(t.Context(), "", "", later, experiment.RunningNewPhase)
	wantInvalid(t, err, "start_time")
	if list, err := d.Holdouts(t.Context(), "", 10); err != nil || len(list) != 0 {
		t.Fatalf("refused, and stored: %v, %v", list, err)
	}

	left := h
	left.Key = "left"
	if got := createHoldout(t, d.DB, left, experiment.RunningLeave); got.Experiments != nil {
		t.Errorf("left alone: %v", got.Experiments)
	}
	before, err := d.Experiment(t.Context(), "e02")
	if err != nil || before.Holdouts != nil {
		t.Fatalf("left alone: %+v, %v", before, err)
	}
	created := createHoldout(t, d.DB, h, experiment.RunningNewPhase)
	if len(created.Experiments) != 11 || created.Experiments[0] != "e00" {
		t.Errorf("covers %v", created.Experiments)
	}
	after, err := d.Experiment(t.Context(), "e02")
	if err != nil {
		t.Fatal(err)
	}
	want := before.Current
	want.Number, want.Phase, want.Author, want.CreateTime = 2, 2, "ann", after.UpdateTime
	if diff := cmp.Diff(want, after.Current); diff != "" || after.Version <= before.Version || len(after.Holdouts) != 1 {
		t.Errorf("in a new phase: %+v (-want +got):\n%s", after, diff)
	}
	if list := coverageOf(t, d.DB, "e02"); len(list) != 1 || !list[0].FromTime.Equal(after.Current.CreateTime) || created.StartTime.After(list[0].FromTime) {
		t.Errorf("covered by %+v", list)
	}
	if diff := cmp.Diff([]string{"h", "left"}, transition(t, d.DB, "draft", start).Holdouts); diff != "" {
		t.Error(diff)
	}
}

// TestHoldoutAndStartAtOnce lets a start and a creation meet, in both orders:
// the experiment is named or covered.
func TestHoldoutAndStartAtOnce(t *testing.T) {
	d := newDatabase(t)
	createExperiment(t, d.DB, "r", definition())
	createExperiment(t, d.DB, "e", definition())
	transition(t, d.DB, "r", start)
	waits := func(n int) {
		t.Helper()
		waitFor(t, d.raw, `SELECT count(*) = $1 FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'assay' AND wait_event_type = 'Lock'`, n)
	}
	holder := connect(t, d.url, "holder")
	holdRow := func(key string) (release func()) {
		t.Helper()
		exec(t, holder, `BEGIN`)
		exec(t, holder, `SELECT FROM experiments WHERE key = $1 FOR NO KEY UPDATE`, key)
		return func() { exec(t, holder, `COMMIT`) }
	}
	created, started := make(chan error, 1), make(chan error, 1)
	createTo := func(running experiment.RunningExperiments) {
		_, err := d.other.CreateHoldout(context.Background(), "", "", global("h"), running)
		created <- err
	}
	startOf := func(key string) {
		_, err := d.TransitionExperiment(context.Background(), key, 0, start)
		started <- err
	}

	// The creation begins a new phase of r, for which it must wait, and e comes
	// to start meanwhile.
	release := holdRow("r")
	go createTo(experiment.RunningNewPhase)
	waits(1)
	go startOf("e")
	waits(2)
	release()
	if err := errors.Join(<-created, <-started); err != nil {
		t.Fatal(err)
	}
	h, err := d.Holdout(t.Context(), "h")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"e", "r"}, h.Experiments); diff != "" {
		t.Errorf("covered (-want +got):\n%s", diff)
	}

	// The start of f must wait, and the creation comes meanwhile.
	exec(t, d.raw, `DELETE FROM holdout_coverage`)
	exec(t, d.raw, `DELETE FROM holdouts`)
	createExperiment(t, d.DB, "f", definition())
	release = holdRow("f")
	go startOf("f")
	waits(1)
	go createTo(experiment.RunningRefuse)
	waits(2)
	release()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	err = <-created
	wantKind(t, err, experiment.ErrPrecondition, "HOLDOUT_COVERS_RUNNING")
	if !strings.Contains(err.Error(), "e, f, r;") {
		t.Errorf("refused with %v", err)
	}
}

// TestRecordSides records exposures of experiments that holdouts cover.
func TestRecordSides(t *testing.T) {
	d := newDatabase(t)
	noon := day(5, 12)
	item := func(id int32, subject int, variant string, at time.Time, held bool, sides ...experiment.Side) experiment.Exposure {
		e := exposure(subject, variant, at)
		e.ExperimentID, e.HeldOut, e.Sides = id, held, sides
		return e
	}
	open, in, other := experiment.Side{HoldoutID: 20}, experiment.Side{HoldoutID: 20, HeldOut: true}, experiment.Side{HoldoutID: 21}
	for _, step := range []struct {
		name  string
		items []experiment.Exposure
		want  []experiment.Result
	}{
		{"open", []experiment.Exposure{item(7, 1, "a", noon, false, open, other)}, []experiment.Result{recorded}},
		{"open again", []experiment.Exposure{item(7, 1, "a", noon, false, open, other)}, []experiment.Result{duplicate}},
		{"in another experiment, later", []experiment.Exposure{item(8, 1, "b", noon.Add(time.Hour), false, open)}, []experiment.Result{recorded}},
		{"held out, in two experiments at once", []experiment.Exposure{item(7, 2, "a", noon, true, in), item(8, 2, "a", noon, true, in)},
			[]experiment.Result{recorded, duplicate}},
		{"held out again", []experiment.Exposure{item(8, 2, "a", noon.Add(time.Second), true, in)}, []experiment.Result{duplicate}},
		{"held out, earlier", []experiment.Exposure{item(8, 2, "a", noon.Add(-time.Second), true, in)}, []experiment.Result{recorded}},
		{"held out, without a side", []experiment.Exposure{item(7, 3, "a", noon, true)}, []experiment.Result{duplicate}},
		{"a side that is new", []experiment.Exposure{item(7, 1, "a", noon, false, experiment.Side{HoldoutID: 22})}, []experiment.Result{recorded}},
	} {
		if diff := cmp.Diff(step.want, recordExposures(t, d.DB, step.items...)); diff != "" {
			t.Errorf("%s: %s", step.name, diff)
		}
	}
	want := []string{"7 a", "8 b", "20 held_out", "20 held_out", "20 open", "21 open", "22 open"}
	got := list[string](t, d.raw, `SELECT experiment_id || ' ' || variant FROM exposures WHERE phase = 1 ORDER BY experiment_id, variant`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// TestManyHoldouts: those that have ended and those of other units do not count.
func TestManyHoldouts(t *testing.T) {
	d := newDatabase(t)
	holdout := func(key, unit string) error {
		_, err := d.CreateHoldout(t.Context(), "", "", experiment.Holdout{Key: key, Unit: unit, Share: 0.1, Salt: key, Kind: experiment.HoldoutStatusQuo}, experiment.RunningRefuse)
		return err
	}
	if err := holdout("first", "user"); err != nil {
		t.Fatal(err)
	}
	exec(t, d.raw, `INSERT INTO holdouts (id, key, unit, description, share, salt, labels, kind, start_time)
		SELECT 1000 + n, 'h' || n, unit, '', share, salt, labels, kind, start_time FROM holdouts, generate_series(2, $1::integer) n`, experiment.MaxHoldouts)
	wantKind(t, holdout("more", "user"), experiment.ErrPrecondition, "TOO_MANY_HOLDOUTS")
	if err := holdout("elsewhere", "account"); err != nil {
		t.Error(err)
	}
	exec(t, d.raw, `UPDATE holdouts SET end_time = now() WHERE key = 'h2'`)
	if err := holdout("more", "user"); err != nil {
		t.Error(err)
	}
}
