package postgres_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
	"github.com/assayhq/assay/internal/postgres/postgrestest"
)

// database is one database with what a test needs of it: a DB, another as a
// second server has it, and a connection of the test's own.
type database struct {
	*postgres.DB
	other *postgres.DB
	raw   *pgx.Conn
	url   string
}

func newDatabase(t testing.TB) *database {
	t.Helper()
	d := &database{url: postgrestest.URL(t)}
	d.DB, d.other, d.raw = openURL(t, d.url), openURL(t, d.url), connect(t, d.url, "test")
	return d
}

func openURL(t testing.TB, url string) *postgres.DB {
	t.Helper()
	db, err := postgres.Open(t.Context(), url, postgrestest.Pepper)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// connect returns a connection under a name of its own.
func connect(t testing.TB, url, name string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = name
	config.RuntimeParams["timezone"] = "UTC"
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// scalar returns the one value that a query gives.
func scalar[T any](t testing.TB, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// list returns the first column of a query.
func list[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) []T {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return values
}

// waitFor polls a query until it gives true. The deadline is for a broken test
// only.
func waitFor(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !scalar[bool](t, conn, sql, args...); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never true: %s", sql)
		}
	}
}

// waitForLock waits until a connection of the name waits for a lock.
func waitForLock(t *testing.T, conn *pgx.Conn, name string) {
	t.Helper()
	waitFor(t, conn, `SELECT count(*) > 0 FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = $1 AND wait_event_type = 'Lock'`, name)
}

func subjectID(n int) experiment.SubjectID {
	return experiment.SubjectID{byte(n * 37), byte(n), 14: byte(n >> 8), 15: byte(n)}
}

// day is the instant of an hour of a day of January 2026.
func day(n int, hours ...float64) time.Time {
	t := time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC)
	for _, h := range hours {
		t = t.Add(time.Duration(h * float64(time.Hour)))
	}
	return t
}

func wantKind(t *testing.T, err, kind error, reason string) {
	t.Helper()
	var refusal *experiment.Error
	if !errors.As(err, &refusal) || !errors.Is(err, kind) || refusal.Reason != reason {
		t.Fatalf("error %v, want kind %q with reason %s", err, kind, reason)
	}
}

func wantInvalid(t *testing.T, err error, fields ...string) {
	t.Helper()
	var invalid *experiment.InvalidError
	if !errors.As(err, &invalid) || len(invalid.Violations) != len(fields) {
		t.Fatalf("error %v, want one about %q", err, fields)
	}
	for i, field := range fields {
		if invalid.Violations[i].Field != field {
			t.Fatalf("fault %d is of %q, want %q", i, invalid.Violations[i].Field, field)
		}
	}
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// batches shuffles items and cuts them into batches of random size.
func batches[T any](r *rand.Rand, items []T) [][]T {
	shuffled := make([]T, len(items))
	for i, p := range r.Perm(len(items)) {
		shuffled[i] = items[p]
	}
	var cut [][]T
	for len(shuffled) > 0 {
		n := min(1+r.IntN(12), len(shuffled))
		cut = append(cut, shuffled[:n])
		shuffled = shuffled[n:]
	}
	return cut
}
