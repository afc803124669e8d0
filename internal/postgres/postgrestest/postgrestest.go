// Package postgrestest gives tests real databases: a private Postgres per test
// binary, and in it a database per test, copied from a migrated template. A
// machine without Postgres fails the tests; it never skips them. If the flag -citus
// names the coordinator of a Citus cluster the databases are made there.
package postgrestest

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/localpg"
	"github.com/assayhq/assay/internal/postgres"
)

// Pepper is that of every test database.
var Pepper = experiment.Pepper("a pepper for tests")

const template = "assay_template"

var onCitus = flag.String("citus", "", "the URL of a Citus coordinator, whose user may create databases on all nodes")

var (
	cluster     *localpg.Server
	distributed *citus // In place of it, if the flag names one.
	count       atomic.Int64
)

// Main runs the tests of a binary with a Postgres, and returns the exit code.
// It is to be called from TestMain.
func Main(m *testing.M) int {
	ctx := context.Background()
	var err error
	if flag.Parse(); *onCitus != "" {
		if distributed, err = findCitus(ctx, *onCitus); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}
	if cluster, err = localpg.Start(ctx, localpg.Config{Ephemeral: true}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer cluster.Stop()
	if err := makeTemplate(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func makeTemplate(ctx context.Context) error {
	if err := run(ctx, cluster.URL(), `CREATE DATABASE `+template); err != nil {
		return err
	}
	return postgres.Migrate(ctx, urlOf(template))
}

// URL returns the connection string of a new, migrated database.
func URL(tb testing.TB) string {
	tb.Helper()
	ctx, name := context.Background(), fmt.Sprintf("test_%d_%d", os.Getpid(), count.Add(1))
	if err := create(ctx, name); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := drop(ctx, name); err != nil {
			tb.Error(err)
		}
	})
	return urlOf(name)
}

func create(ctx context.Context, database string) error {
	if distributed != nil {
		return distributed.create(ctx, database)
	}
	return run(ctx, cluster.URL(), `CREATE DATABASE `+database+` TEMPLATE `+template)
}

func drop(ctx context.Context, database string) error {
	if distributed != nil {
		return distributed.drop(ctx, database)
	}
	return run(ctx, cluster.URL(), `DROP DATABASE `+database+` WITH (FORCE)`)
}

// Open returns a new, migrated database.
func Open(tb testing.TB) *postgres.DB {
	tb.Helper()
	db, err := postgres.Open(context.Background(), URL(tb), Pepper)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Close)
	return db
}

// run executes a statement on a connection of its own.
func run(ctx context.Context, at, sql string) error {
	conn, err := pgx.Connect(ctx, at)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

func urlOf(database string) string {
	if distributed != nil {
		return in(distributed.coordinator, database)
	}
	u, err := url.Parse(cluster.URL())
	if err != nil {
		panic(fmt.Sprintf("postgrestest: the cluster's URL: %v", err)) // It was made by this project.
	}
	return in(u, database)
}
