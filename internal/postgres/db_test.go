package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/localpg"
	"github.com/assayhq/assay/internal/postgres"
	"github.com/assayhq/assay/internal/postgres/postgrestest"
)

// emptyDatabase returns the URL of a database that nobody has migrated.
func emptyDatabase(t *testing.T, d *database) string {
	t.Helper()
	const name = "empty"
	exec(t, d.raw, `CREATE DATABASE `+name+` TEMPLATE template0`)
	t.Cleanup(func() {
		if _, err := d.raw.Exec(context.Background(), `DROP DATABASE `+name+` WITH (FORCE)`); err != nil {
			t.Error(err)
		}
	})
	u, err := url.Parse(d.url)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

func TestOpenAtOnce(t *testing.T) {
	url := emptyDatabase(t, newDatabase(t))
	opened := make([]*postgres.DB, 3)
	for _, err := range atOnce(len(opened), func(i int) (err error) {
		opened[i], err = postgres.Open(context.Background(), url, postgrestest.Pepper)
		return err
	}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	createExperiment(t, opened[0], "e", definition())
	if _, err := opened[2].Experiment(t.Context(), "e"); err != nil {
		t.Error(err)
	}
	for _, db := range opened {
		db.Close()
	}
	if err := postgres.Migrate(t.Context(), url); err != nil {
		t.Errorf("migrating what is current: %v", err)
	}
}

func TestOpenRefusesAnotherPepper(t *testing.T) {
	url := postgrestest.URL(t)
	openURL(t, url)
	other := experiment.Pepper("another pepper for tests")
	db, err := postgres.Open(t.Context(), url, other)
	if err == nil {
		db.Close()
		t.Fatal("opened with another pepper")
	}
	for _, part := range []string{other.KeyID(), postgrestest.Pepper.KeyID()} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
	openURL(t, url) // The refusal left nothing behind.
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	for _, url := range []string{"postgres://%", "host=/nowhere user=x dbname=x"} {
		if db, err := postgres.Open(t.Context(), url, postgrestest.Pepper); err == nil {
			db.Close()
			t.Errorf("opened %s", url)
		}
	}
}

// A session of every pool keeps commits durable whatever the server's default.
func TestConnectionsCommitDurably(t *testing.T) {
	d := newDatabase(t)
	exec(t, d.raw, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$`)
	exec(t, d.raw, `CREATE FUNCTION show() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO settings VALUES (TG_TABLE_NAME, current_setting('synchronous_commit')); RETURN NULL; END $$`)
	for _, table := range []string{"exposures", "metrics"} {
		exec(t, d.raw, `CREATE TRIGGER show AFTER INSERT ON `+table+` FOR EACH STATEMENT EXECUTE FUNCTION show()`)
	}
	db := openURL(t, d.url)
	recordExposures(t, db, exposure(1, "a", day(1)))
	createMetrics(t, db, "m")
	for _, table := range []string{"exposures", "metrics"} {
		if got := scalar[string](t, d.raw, `SELECT value FROM settings WHERE name = $1`, table); got != "on" {
			t.Errorf("%s: synchronous_commit is %s", table, got)
		}
	}
}

func TestBadDataIsToldApart(t *testing.T) {
	d := newDatabase(t)
	withProperties := func(s string) []experiment.Outcome { return []experiment.Outcome{outcome("e", 1, day(5), 1.0, s)} }
	withAttributes := exposure(1, "a", day(5))
	withAttributes.Attributes = json.RawMessage(`{"x":"\u0000"}`)
	for name, err := range map[string]error{
		"NUL in a name":           second(d.RecordOutcomes(t.Context(), []experiment.Outcome{named(outcome("e", 1, day(5), 1.0, ""), "a\x00")})),
		"not a number":            second(d.RecordOutcomes(t.Context(), []experiment.Outcome{outcome("e", 1, day(5), math.NaN(), "")})),
		"an infinity":             second(d.RecordOutcomes(t.Context(), []experiment.Outcome{outcome("e", 1, day(5), math.Inf(-1), "")})),
		"NUL in a property":       second(d.RecordOutcomes(t.Context(), withProperties(`{"x":"\u0000"}`))),
		"properties that are not": second(d.RecordOutcomes(t.Context(), withProperties(`{"x":`))),
		"NUL in a variant":        second(d.RecordExposures(t.Context(), []experiment.Exposure{exposure(1, "\x00", day(5))})),
		"NUL in an attribute":     second(d.RecordExposures(t.Context(), []experiment.Exposure{withAttributes})),
	} {
		if !errors.Is(err, postgres.ErrBadData) || errors.Is(err, experiment.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := scalar[int](t, d.raw, `SELECT (SELECT count(*) FROM outcomes) + (SELECT count(*) FROM exposures)`); n != 0 {
		t.Errorf("%d rows of bad data", n)
	}
}

// Whoever ends a statement from outside, the same one may succeed later.
func TestInterruptedStatements(t *testing.T) {
	for _, end := range []string{"pg_cancel_backend", "pg_terminate_backend"} {
		d := newDatabase(t)
		locker := connect(t, d.url, "locker")
		exec(t, locker, `BEGIN`)
		exec(t, locker, `LOCK TABLE exposures`)
		errs := make(chan error)
		go func() {
			errs <- second(d.RecordExposures(context.Background(), []experiment.Exposure{exposure(1, "a", day(5))}))
		}()
		waitForLock(t, d.raw, "assay-record")
		exec(t, d.raw, `SELECT `+end+`(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'assay-record' AND wait_event_type = 'Lock'`)
		wantKind(t, <-errs, experiment.ErrUnavailable, "DATABASE_UNAVAILABLE")
		exec(t, locker, `COMMIT`)
		if got := recordExposures(t, d.DB, exposure(1, "a", day(5))); got[0] != recorded {
			t.Errorf("after %s: result %d", end, got[0])
		}
	}
}

// A deadlock is not the caller's: the transaction that Postgres gives up is
// run again.
func TestDeadlockIsTriedAgain(t *testing.T) {
	d := newDatabase(t)
	rival := connect(t, d.url, "rival")
	exec(t, rival, `SET deadlock_timeout = '1h'`) // So that the recorder is the one to be given up.
	exec(t, rival, `BEGIN`)
	insert := func(n int) {
		exec(t, rival, `INSERT INTO exposures (experiment_id, subject_id, phase, variant, exposed_time) VALUES (7, $1, 1, 'a', $2)`,
			[16]byte(experiment.SubjectID{byte(n)}), day(5))
	}
	item := func(n int) experiment.Exposure {
		e := exposure(n, "a", day(5))
		e.SubjectID = experiment.SubjectID{byte(n)}
		return e
	}
	insert(2)
	type answer struct {
		results []experiment.Result
		err     error
	}
	answers := make(chan answer)
	go func() {
		results, err := d.RecordExposures(context.Background(), []experiment.Exposure{item(1), item(2), item(3)})
		answers <- answer{results, err}
	}()
	waitForLock(t, d.raw, "assay-record")
	insert(1) // The recorder has it, and waits for 2.
	exec(t, rival, `COMMIT`)
	a := <-answers
	if a.err != nil || len(a.results) != 3 || a.results[0] != duplicate || a.results[1] != duplicate || a.results[2] != recorded {
		t.Errorf("results %v, error %v", a.results, a.err)
	}
}

func TestUnreachableDatabase(t *testing.T) {
	cluster, err := localpg.Start(t.Context(), localpg.Config{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	db, err := postgres.Open(t.Context(), cluster.URL(), postgrestest.Pepper)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := cluster.Stop(); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"a read":   func() error { return second(db.Experiment(t.Context(), "e")) },
		"a change": func() error { return second(db.SetOverrides(t.Context(), "e", "", pin("a", 1))) },
		"exposures": func() error {
			return second(db.RecordExposures(t.Context(), []experiment.Exposure{exposure(1, "a", day(5))}))
		},
		"outcomes": func() error {
			return second(db.RecordOutcomes(t.Context(), []experiment.Outcome{outcome("e", 1, day(5), 1.0, "")}))
		},
		"safe time": func() error { return second(db.SafeTime(t.Context())) },
		"subjects": func() error {
			_, _, err := db.Subjects(t.Context(), 7, forever, studyOf(t, nil, nil, nil), nil)
			return err
		},
		"histories":  func() error { return second(allHistories(t.Context(), db)) },
		"listening":  func() error { return db.ListenCatalog(t.Context(), func() {}) },
		"an archive": func() error { return second(db.ArchiveMetric(t.Context(), "m", "", 0)) },
	} {
		for range 2 { // With a connection that broke, and without one.
			wantKind(t, call(), experiment.ErrUnavailable, "DATABASE_UNAVAILABLE")
			if t.Failed() {
				t.Fatal(name)
			}
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.Experiment(cancelled, "e"); !errors.Is(err, context.Canceled) || errors.Is(err, experiment.ErrUnavailable) {
		t.Errorf("a caller that gave up: %v", err)
	}
}

// TestNewerSchema: a database that a later release has migrated is refused, by
// a server as by the command, and nothing in it changes.
func TestNewerSchema(t *testing.T) {
	url := postgrestest.URL(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var newest int64
	if err := conn.QueryRow(t.Context(), `SELECT max(version_id) FROM goose_db_version`).Scan(&newest); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, fmt.Sprintf(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (%d, true)`, newest+1))
	want := fmt.Sprintf("the database's schema has version %d, and this release knows those up to %d", newest+1, newest)
	_, opened := postgres.Open(t.Context(), url, postgrestest.Pepper)
	for name, err := range map[string]error{"Migrate": postgres.Migrate(t.Context(), url), "Open": opened} {
		if err == nil || errors.Is(err, experiment.ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	exec(t, conn, fmt.Sprintf(`DELETE FROM goose_db_version WHERE version_id > %d`, newest))
	if err := postgres.Migrate(t.Context(), url); err != nil {
		t.Error(err)
	}
}
