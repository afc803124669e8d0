package main

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/catalog"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

// manyRevisions makes experiments with so many revisions each since their start, and
// one with 1,000 and twice as many before. Each says something else, and every tenth
// splits otherwise.
func manyRevisions(tb testing.TB, db *postgres.DB, conn *pgx.Conn, experiments, revisions int) {
	tb.Helper()
	weights := func(e *experiment.Experiment) (experiment.Revision, error) {
		def := e.Current.Definition
		def.Variants = append([]experiment.Variant(nil), def.Variants...)
		def.Variants[1].Weight = 3
		next, _, err := e.Current.Next(def, false)
		return next, err
	}
	def := experiment.Definition{
		Unit: "user", Traffic: 1, Salt: "e", Description: strings.Repeat("What is tried, and why. ", 40), Eligibility: `attributes.country == "PL"`,
		Variants: []experiment.Variant{{Key: "control", Control: true, Weight: 1}, {Key: "short", Weight: 1, Payload: json.RawMessage(`{"title":"Pay now"}`)}},
		Plan:     experiment.Plan{Method: experiment.MethodAlwaysValid, ConfidenceLevel: 0.95, Correction: experiment.CorrectionHolm},
	}
	_, err := db.CreateExperiment(tb.Context(), "first", "", "", def)
	if err == nil {
		_, err = db.UpdateExperiment(tb.Context(), "first", 0, weights)
	}
	if err != nil {
		tb.Fatal(err)
	}
	for _, sql := range []string{
		`ALTER TABLE experiments ADD last integer, ADD drafts integer DEFAULT 0`,
		fmt.Sprintf(`INSERT INTO experiments (key, state, revision, last) SELECT 'e-' || n, 'running', %d, %[1]d FROM generate_series(1, %d) n`, revisions, experiments),
		`INSERT INTO experiments (key, state, revision, last, drafts) VALUES ('long', 'running', 3000, 3000, 2000)`,
		`UPDATE experiments SET create_time = now() - interval '9 days', start_time = now() - interval '8 days' WHERE last > 0`,
		`INSERT INTO experiment_transitions (experiment_id, version, state, time)
			SELECT id, 1, 'draft', create_time FROM experiments WHERE last > 0 UNION ALL SELECT id, 2, 'running', start_time FROM experiments WHERE last > 0`,
		`INSERT INTO experiment_revisions (experiment_id, revision, phase, definition, allocation, create_time, terms)
			SELECT e.id, n, 1 + n / 10, replace(replace(r.definition::text, 'What is tried', 'What is tried by ' || n), '"salt":"e"', '"salt":"' || e.key || '"')::json, r.allocation,
				CASE WHEN n <= drafts + 1 THEN e.create_time ELSE e.start_time END + n * interval '1 second', replace(r.terms::text, 'salt":"e"', 'salt":"' || e.key || '"')::json
			FROM experiments e, generate_series(1, last) n, experiment_revisions r
			WHERE last > 0 AND r.experiment_id = (SELECT id FROM experiments WHERE key = 'first') AND r.revision = 1 + n / 10 % 2`,
		`ALTER TABLE experiments DROP last, DROP drafts`,
		`ANALYZE`,
	} {
		if _, err := conn.Exec(tb.Context(), sql); err != nil {
			tb.Fatalf("%s: %v", sql, err)
		}
	}
}

// TestMemoryOfRevisions: a catalog of experiments with 100 revisions each, and of one
// with 1,000, holds little more than one of the same experiments with one revision.
func TestMemoryOfRevisions(t *testing.T) {
	const experiments, revisions = 1000, 100
	cluster := newCluster(t)
	db := openDB(t, cluster)
	conn := openConn(t, cluster)
	manyRevisions(t, db, conn, experiments, revisions)
	measure := func(what string, live int) int64 {
		began := time.Now()
		held, store := heldBy(t, func() *catalog.Store { return loadCatalog(t, db) })
		t.Logf("%s: %d KiB, loaded in %v", what, held>>10, time.Since(began).Round(time.Millisecond))
		if store.Len() != experiments+2 || store.Faulty(catalog.FaultDefinition) != 0 {
			t.Fatalf("%s: %d experiments, %d faulty", what, store.Len(), store.Faulty(catalog.FaultDefinition))
		}
		subject := store.Current().Subject("user", "u-1", map[string]any{"country": "PL"}, time.Now())
		for key, revision := range map[string]int32{"e-1": revisions, "long": 3000} {
			d := subject.Assign(key)
			if d.Variant < 0 || d.Revision() != revision {
				t.Errorf("%s: assigned %+v", key, d)
				continue
			}
			first := revision - int32(live) + 1
			if key == "long" && live > 1 {
				first = 2001
			}
			for number, known := range map[int32]bool{first: true, first - 1: false} {
				if number == 0 {
					continue // There is none before.
				}
				_, refused := subject.CheckExposure(d.Experiment, "none", time.Now(), number)
				if isKnown := refused.Field == "variant"; isKnown != known {
					t.Errorf("%s: an exposure to revision %d: %+v", what, number, refused)
				}
			}
		}
		return held
	}
	many := measure("with terms", revisions)
	if _, err := conn.Exec(t.Context(), `UPDATE experiment_revisions SET terms = NULL`); err != nil {
		t.Fatal(err)
	}
	earlier := measure("of an earlier release", revisions)
	if _, err := conn.Exec(t.Context(), `DELETE FROM experiment_revisions r USING experiments e WHERE e.id = r.experiment_id AND r.revision < e.revision`); err != nil {
		t.Fatal(err)
	}
	one := measure("of one revision", 1)
	if most := 3 * one; many > most || earlier > most {
		t.Errorf("%d and %d bytes, against %d with one revision each", many, earlier, one)
	}
}

// TestMemoryOfDefinitions makes large experiments and changes them, and refreshes
// after each step. What a catalog holds is bounded by their definitions as they are,
// and what a refresh takes by the one that has changed.
func TestMemoryOfDefinitions(t *testing.T) {
	const experiments, rounds = 40, 5
	db := openDB(t, newCluster(t))
	store := loadCatalog(t, db)
	refresh := func() uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := store.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	stored := 0
	var first, last uint64
	held, _ := heldBy(t, func() *catalog.Store {
		for i := range experiments {
			def := experiment.Definition{Unit: "user", Traffic: 1, Salt: "e", Plan: experiment.Plan{Method: experiment.MethodAlwaysValid, ConfidenceLevel: 0.95, Correction: experiment.CorrectionHolm}}
			for v := range 15 {
				def.Variants = append(def.Variants, experiment.Variant{Key: fmt.Sprint("v", v), Control: v == 0, Weight: 1, Payload: json.RawMessage(`{"t":"` + strings.Repeat("x", 16_000) + `"}`)})
			}
			text, err := json.Marshal(def)
			if err != nil {
				t.Fatal(err)
			}
			stored += len(text)
			if _, err := db.CreateExperiment(t.Context(), fmt.Sprint("e-", i), "", "", def); err != nil {
				t.Fatal(err)
			}
			if last = refresh(); i == 1 {
				first = last
			}
		}
		for round := range rounds {
			for i := range experiments {
				if _, err := db.UpdateExperiment(t.Context(), fmt.Sprint("e-", i), 0, func(e *experiment.Experiment) (experiment.Revision, error) {
					next := e.Current
					next.Number++
					next.Definition.Description = fmt.Sprint("round ", round)
					return next, nil
				}); err != nil {
					t.Fatal(err)
				}
				last = refresh()
			}
		}
		return store
	})
	t.Logf("%d KiB held of %d KiB stored; a refresh took %d KiB at first and %d KiB at last", held>>10, stored>>10, first>>10, last>>10)
	if held > 2*int64(stored) {
		t.Errorf("%d bytes are held of definitions of %d", held, stored)
	}
	if last > 2*first {
		t.Errorf("a refresh took %d bytes at first, and %d at last", first, last)
	}
}

// BenchmarkStartWithRevisions prints how long a server takes from its start to
// serving with 100,000 revisions in all, with their terms and as an earlier release
// has left them, and with one each.
func BenchmarkStartWithRevisions(b *testing.B) {
	for b.Loop() {
		cluster := newCluster(b)
		db := openDB(b, cluster)
		conn := openConn(b, cluster)
		manyRevisions(b, db, conn, 1000, 100)
		for _, step := range []struct{ name, sql string }{
			{"s-start", `SELECT`},
			{"s-start-of-earlier-release", `UPDATE experiment_revisions SET terms = NULL`},
			{"s-start-of-one-each", `DELETE FROM experiment_revisions r USING experiments e WHERE e.id = r.experiment_id AND r.revision < e.revision`},
		} {
			if _, err := conn.Exec(b.Context(), step.sql); err != nil {
				b.Fatal(err)
			}
			began := time.Now()
			p := serveWith(b, cluster.url("assay"), b.TempDir())
			p.address(b)
			b.ReportMetric(time.Since(began).Seconds(), step.name)
			p.cmd.Process.Kill()
			<-p.ended
		}
	}
	b.ReportMetric(0, "ns/op")
}

func openDB(tb testing.TB, c *cluster) *postgres.DB {
	tb.Helper()
	db, err := postgres.Open(tb.Context(), c.url("assay"), experiment.Pepper(testPepper))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Close)
	return db
}

// openConn returns a connection to the database of openDB.
func openConn(tb testing.TB, c *cluster) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), c.url("assay"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}
