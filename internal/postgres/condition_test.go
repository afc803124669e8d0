package postgres_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

// TestCondition spoils a database in several ways.
func TestCondition(t *testing.T) {
	d := newDatabase(t)
	u, err := url.Parse(d.url)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	u.Path = "/postgres"
	admin := connect(t, u.String(), "admin")
	lock := func(statement string) func() (undo func()) {
		return func() func() {
			tx, err := d.raw.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
			return func() { tx.Rollback(context.Background()) }
		}
	}
	// alter changes the database for connections that are made from now on.
	alter := func(do, undo string) func() (undo func()) {
		run := func(setting string) {
			exec(t, admin, `ALTER DATABASE `+pgx.Identifier{name}.Sanitize()+setting)
			exec(t, admin, `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1 AND application_name LIKE 'assay%'`, name)
		}
		return func() func() {
			run(do)
			return func() { run(undo) }
		}
	}
	for _, tt := range []struct {
		name                             string
		spoil                            func() (undo func())
		definitions, recording, analysis bool
	}{
		{"sound", func() func() { return func() {} }, true, true, true},
		{"read-only", alter(` SET default_transaction_read_only = on`, ` RESET default_transaction_read_only`), true, false, false},
		{"out of connections", alter(` ALLOW_CONNECTIONS false`, ` ALLOW_CONNECTIONS true`), false, false, false},
		{"outcomes locked", lock(`LOCK TABLE outcomes`), true, false, false},
		{"exposures locked to writers", lock(`LOCK TABLE exposures IN SHARE MODE`), true, false, true},
		{"sound again", func() func() { return func() {} }, true, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer tt.spoil()()
			check := func(of string, err error, want bool) {
				if (err == nil) != want || err != nil && !errors.Is(err, experiment.ErrUnavailable) {
					t.Errorf("%s: %v", of, err)
				}
			}
			var c postgres.Condition
			for range 3 { // Connections that were ended fail once.
				if c = d.Condition(t.Context()); (c.Definitions == nil) == tt.definitions && (c.Recording == nil) == tt.recording && (c.Analysis == nil) == tt.analysis {
					break
				}
			}
			check("definitions", c.Definitions, tt.definitions)
			check("recording", c.Recording, tt.recording)
			check("analysis", c.Analysis, tt.analysis)
		})
	}
}
