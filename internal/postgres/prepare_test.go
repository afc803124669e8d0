package postgres_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
	"github.com/assayhq/assay/internal/postgres/postgrestest"
)

// A database that is not prepared lets nothing in: it may have another schema,
// and its subjects may be hashed with another pepper.
func TestUnpreparedDatabase(t *testing.T) {
	db, err := postgres.New(postgrestest.URL(t), postgrestest.Pepper)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	calls := map[string]func() error{
		"a ping": func() error { return db.Ping(t.Context()) },
		"a read": func() error { return second(allHistories(t.Context(), db)) },
		"exposures": func() error {
			return second(db.RecordExposures(t.Context(), []experiment.Exposure{exposure(1, "a", day(5))}))
		},
		"enrolments": func() error { return second(db.Enrollments(t.Context(), nil)) },
		"safe time":  func() error { return second(db.SafeTime(t.Context())) },
	}
	listen := func() error { return db.ListenCatalog(t.Context(), func() { t.Error("listens") }) }
	for name, call := range calls {
		if wantKind(t, call(), experiment.ErrUnavailable, "DATABASE_UNAVAILABLE"); t.Failed() {
			t.Fatal(name)
		}
	}
	wantKind(t, listen(), experiment.ErrUnavailable, "DATABASE_UNAVAILABLE")
	if err := db.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls {
		if err := call(); err != nil {
			t.Errorf("%s of a prepared database: %v", name, err)
		}
	}
}

// A migration does not wait for a lock for ever, with all who come after it behind it,
// and can be tried again.
func TestLockedMigration(t *testing.T) {
	d := newDatabase(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	locker, err := connect(t, d.url, "locker").Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := locker.Exec(ctx, `LOCK TABLE goose_db_version`); err != nil {
		t.Fatal(err)
	}
	if wantKind(t, postgres.Migrate(ctx, d.url), experiment.ErrUnavailable, "DATABASE_UNAVAILABLE"); ctx.Err() != nil {
		t.Fatal("it waits for ever")
	}
	if err := locker.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrate(ctx, d.url); err != nil {
		t.Error(err)
	}
}

// A listener that never answers stands for a network that loses every packet.
func TestSilentDatabase(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	host, port, err := net.SplitHostPort(silent.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	db, err := postgres.New("user=x dbname=x sslmode=disable host="+host+" port="+port, postgrestest.Pepper)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ended := make(chan error, 1)
	go func() { ended <- db.Prepare(t.Context()) }()
	select {
	case err := <-ended:
		wantKind(t, err, experiment.ErrUnavailable, "DATABASE_UNAVAILABLE")
	case <-time.After(time.Minute):
		t.Fatal("waits for ever")
	}
}
