package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

const erased = experiment.Erased

// leftOf counts the rows of a subject in the tables of events and pins.
const leftOf = `SELECT (SELECT count(*) FROM exposures WHERE subject_id = $1) + (SELECT count(*) FROM outcomes WHERE subject_id = $1)
	+ (SELECT count(*) FROM overrides WHERE subject_id = $1)`

func checkLeft(t *testing.T, d *database, subject, want int) {
	t.Helper()
	if n := scalar[int](t, d.raw, leftOf, [16]byte(subjectID(subject))); n != want {
		t.Errorf("%d rows are left of subject %d, want %d", n, subject, want)
	}
}

func checkResults(t *testing.T, got []experiment.Result, want ...experiment.Result) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A recorder that read the tombstones before there was one commits after the
// erasure has begun. The erasure waits for it and removes what it wrote.
func TestEraseSubjectWaitsForRecorders(t *testing.T) {
	d := newDatabase(t)
	e := createExperiment(t, d.DB, "e", definition())
	late := exposure(1, "short", day(5))
	late.ExperimentID = e.ID
	// The same row, not committed, holds the recorder up between reading and writing.
	exec(t, d.raw, `BEGIN`)
	exec(t, d.raw, `INSERT INTO exposures (experiment_id, subject_id, phase, variant, exposed_time) VALUES ($1, $2, 1, 'short', $3)`,
		e.ID, [16]byte(late.SubjectID), late.ExposedTime)
	recorded := make(chan error, 1)
	go func() {
		results, err := d.other.RecordExposures(context.Background(), []experiment.Exposure{late})
		if err == nil && results[0] != experiment.Recorded {
			err = errors.New("the recorder came too late to test anything")
		}
		recorded <- err
	}()
	watcher := connect(t, d.url, "watcher")
	waitForLock(t, watcher, "assay-record")
	done := make(chan error, 1)
	var removed *postgres.Erasure
	go func() {
		var err error
		removed, err = d.EraseSubject(context.Background(), late.SubjectID, "")
		done <- err
	}()
	waitFor(t, watcher, `SELECT count(*) = 1 FROM erased_subjects`)
	checkResults(t, recordOutcomes(t, d.DB, outcome("o", 1, day(5), nil, "")), erased)
	select {
	case err := <-done:
		t.Fatalf("the erasure did not wait: %v", err)
	case <-time.After(500 * time.Millisecond): // Long enough for one that does not wait.
	}
	exec(t, d.raw, `ROLLBACK`)
	if err := errors.Join(<-recorded, <-done); err != nil {
		t.Fatal(err)
	}
	if removed.Exposures != 1 {
		t.Errorf("removed %+v", removed)
	}
	checkLeft(t, d, 1, 0)
}

// What an erasure could not finish, and what a server of an earlier release
// recorded after it, goes with the next maintenance.
func TestMaintainFinishesErasures(t *testing.T) {
	d := newDatabase(t)
	e := createExperiment(t, d.DB, "e", definition())
	shown := exposure(1, "short", day(5))
	shown.ExperimentID = e.ID
	recordExposures(t, d.DB, shown)
	recordOutcomes(t, d.DB, outcome("a", 1, day(5), 1.0, ""), outcome("b", 2, day(5), 1.0, ""))
	setOverrides(t, d.DB, pin("short", 1, 2)...)
	recorder := connect(t, d.url, "assay-record")
	exec(t, recorder, `BEGIN`)
	scalar[time.Time](t, recorder, insertExposure)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- second(d.EraseSubject(ctx, subjectID(1), "ana")) }()
	waitFor(t, d.raw, `SELECT count(*) = 1 FROM erased_subjects`)
	cancel()
	if err := <-done; err == nil {
		t.Fatal("erased although a recorder is at work")
	}
	checkLeft(t, d, 1, 3)
	checkResults(t, recordOutcomes(t, d.DB, outcome("c", 1, day(5), nil, ""), outcome("c", 2, day(5), nil, "")), erased, experiment.Recorded)
	exec(t, recorder, `ROLLBACK`)
	version := scalar[int64](t, d.raw, `SELECT version FROM experiments`)
	maintain := func(left int) {
		t.Helper()
		if err := errors.Join(d.Maintain(t.Context(), day(20), 0), d.other.Maintain(t.Context(), day(20), 0)); err != nil {
			t.Fatal(err)
		}
		checkLeft(t, d, 1, left)
	}
	maintain(0)
	checkLeft(t, d, 2, 3)
	if now := scalar[int64](t, d.raw, `SELECT version FROM experiments`); now == version {
		t.Error("servers do not learn that the pin is gone")
	}
	if n, err := d.Erasures(t.Context(), e.ID); err != nil || n != 1 {
		t.Errorf("%d subjects of the experiment were erased, %v", n, err)
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM audit_events WHERE action = 'erase'`); n != 0 {
		t.Errorf("%d events of an erasure that was not finished by its caller", n)
	}

	// A server that knows no tombstones records; the erasure is repeated once.
	if _, err := d.EraseSubject(t.Context(), subjectID(1), "ana"); err != nil {
		t.Fatal(err)
	}
	for _, left := range []int{0, 1} {
		exec(t, d.raw, `INSERT INTO exposures (experiment_id, subject_id, phase, variant, exposed_time) VALUES ($1, $2, 1, 'short', now())`, e.ID, [16]byte(subjectID(1)))
		maintain(left)
	}
}

// A roster is being made when one of its subjects is erased. The erasure waits for
// it and takes the subject out of it.
func TestEraseSubjectWaitsForRosters(t *testing.T) {
	d := newDatabase(t)
	e := createExperiment(t, d.DB, "e", definition())
	maker := connect(t, d.url, "maker")
	exec(t, maker, `BEGIN; LOCK TABLE rosters IN ROW EXCLUSIVE MODE`)
	id := scalar[int32](t, maker, `INSERT INTO rosters (experiment_id, revision, arms, balance) VALUES ($1, 1, '[]', '{}') RETURNING id`, e.ID)
	for n := range 2 {
		exec(t, maker, `INSERT INTO roster_subjects (roster_id, subject_id, arm) VALUES ($1, $2, 0)`, id, [16]byte(subjectID(n)))
	}
	done := make(chan error, 1)
	go func() { done <- second(d.EraseSubject(context.Background(), subjectID(1), "")) }()
	waitForLock(t, d.raw, "assay-analyze")
	exec(t, maker, `COMMIT`)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if left := list[[16]byte](t, d.raw, `SELECT subject_id FROM roster_subjects`); len(left) != 1 || left[0] != subjectID(0) {
		t.Errorf("left in the roster: %v", left)
	}
	if n := scalar[int](t, d.raw, `SELECT erased FROM rosters`); n != 1 {
		t.Errorf("%d erased of the roster", n)
	}
}

// Subjects are erased while others are recorded and pinned. Nothing of these is
// lost, and nobody waits for another for ever.
func TestEraseSubjectsAtOnce(t *testing.T) {
	d := newDatabase(t)
	e := createExperiment(t, d.DB, "e", definition())
	for _, err := range atOnce(12, func(i int) error {
		db := []*postgres.DB{d.DB, d.other}[i%2]
		subject := i/2 + 1
		if i >= 8 {
			subject += 10
			for n := range 10 {
				shown := exposure(subject, "short", day(5, -float64(n)))
				shown.ExperimentID = e.ID
				if _, err := db.RecordExposures(context.Background(), []experiment.Exposure{shown}); err != nil {
					return err
				}
				if err := second(db.SetOverrides(context.Background(), "e", "", pin([]string{"short", "control"}[n%2], subject))); err != nil {
					return err
				}
			}
			return nil
		}
		return second(db.EraseSubject(context.Background(), subjectID(subject), ""))
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM erased_subjects`); n != 4 {
		t.Errorf("%d tombstones", n)
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM exposures`); n < 20 {
		t.Errorf("%d exposures", n)
	}
}
