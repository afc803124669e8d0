// Package postgrestest gives tests real databases: a private Postgres per test
// binary, and in it a database per test, copied from a migrated template. A
// machine without Postgres fails the tests; it never skips them.
package postgrestest

import (
	"context"
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

var (
	cluster *localpg.Server
	count   atomic.Int64
)

// Main runs the tests of a binary with a Postgres, and returns the exit code.
// It is to be called from TestMain.
func Main(m *testing.M) int {
	ctx := context.Background()
	var err error
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
	if err := execute(ctx, `CREATE DATABASE `+template); err != nil {
		return err
	}
	return postgres.Migrate(ctx, urlOf(template))
}

// URL returns the connection string of a new, migrated database.
func URL(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test_%d", count.Add(1))
	if err := execute(context.Background(), `CREATE DATABASE `+name+` TEMPLATE `+template); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := execute(context.Background(), `DROP DATABASE `+name+` WITH (FORCE)`); err != nil {
			tb.Error(err)
		}
	})
	return urlOf(name)
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

func execute(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, cluster.URL())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

func urlOf(database string) string {
	u, err := url.Parse(cluster.URL())
	if err != nil {
		panic(fmt.Sprintf("postgrestest: the cluster's URL: %v", err)) // It was made by this project.
	}
	u.Path = "/" + database
	return u.String()
}
