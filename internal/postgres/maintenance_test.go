package postgres_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
	"github.com/assayhq/assay/internal/postgres/postgrestest"
)

const subjectIndexes = `SELECT i.indrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
	WHERE c.relname LIKE 'outcomes_%_subject' AND i.indisvalid ORDER BY 1`

func monthly(t *testing.T, db *postgres.DB, months ...time.Time) {
	t.Helper()
	for i, month := range months {
		recordOutcomes(t, db, outcome(fmt.Sprint(i), 1, month.AddDate(0, 0, 14), 1.0, ""))
	}
}

func month(year int, m time.Month) time.Time { return time.Date(year, m, 1, 0, 0, 0, 0, time.UTC) }

func TestMaintain(t *testing.T) {
	d := newDatabase(t)
	monthly(t, d.DB, month(2025, 1), month(2025, 2), month(2026, 1), month(2026, 2), month(2026, 3))
	now := month(2026, 3).AddDate(0, 0, 10)
	if err := d.Maintain(t.Context(), now, 0); err != nil {
		t.Fatal(err)
	}
	all := []string{"outcomes_2025_01", "outcomes_2025_02", "outcomes_2026_01", "outcomes_2026_02", "outcomes_2026_03", "outcomes_2026_04"}
	if diff := cmp.Diff(all, list[string](t, d.raw, partitionNames)); diff != "" {
		t.Errorf("kept for ever: %s", diff)
	}
	if diff := cmp.Diff(all[:4], list[string](t, d.raw, subjectIndexes)); diff != "" {
		t.Errorf("indexes of closed months: %s", diff)
	}
	if kept, err := d.KeptFrom(t.Context()); err != nil || !kept.IsZero() {
		t.Errorf("kept from %v, %v", kept, err)
	}

	// February 2025 ended 375 days ago.
	for range 2 {
		if err := d.Maintain(t.Context(), now, 375*24*time.Hour); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(all[2:], list[string](t, d.raw, partitionNames)); diff != "" {
			t.Errorf("kept for 375 days: %s", diff)
		}
		if kept, err := d.KeptFrom(t.Context()); err != nil || !kept.Equal(month(2025, 3)) {
			t.Errorf("kept from %v, %v", kept, err)
		}
	}
	// What was dropped can be made again, and a shorter history forgets nothing.
	monthly(t, d.DB, month(2025, 1))
	if err := d.Maintain(t.Context(), now, 375*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	if kept, err := d.KeptFrom(t.Context()); err != nil || !kept.Equal(month(2025, 3)) {
		t.Errorf("kept from %v, %v", kept, err)
	}
}

func TestMaintainMakesABrokenIndexAnew(t *testing.T) {
	d := newDatabase(t)
	monthly(t, d.DB, month(2026, 1))
	exec(t, d.raw, `CREATE INDEX outcomes_2026_01_subject ON outcomes_2026_01 (subject_id)`)
	exec(t, d.raw, `UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'outcomes_2026_01_subject'::regclass`)
	if err := d.Maintain(t.Context(), month(2026, 6), 0); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"outcomes_2026_01"}, list[string](t, d.raw, subjectIndexes)); diff != "" {
		t.Error(diff)
	}
}

// Servers maintain a database at once while events are recorded: nothing is
// recorded less, and at the end all is in order.
func TestMaintainFromManyServers(t *testing.T) {
	d := newDatabase(t)
	months := []time.Time{month(2024, 1), month(2024, 2), month(2025, 10), month(2025, 11), month(2025, 12)}
	monthly(t, d.DB, months...)
	now := month(2026, 3)
	g, ctx := errgroup.WithContext(t.Context())
	for range 3 {
		other, err := postgres.Open(t.Context(), d.url, postgrestest.Pepper)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		g.Go(func() error {
			for range 5 {
				// One that waits for another for too long tries again later.
				if err := other.Maintain(ctx, now, 400*24*time.Hour); err != nil && !errors.Is(err, experiment.ErrUnavailable) {
					return err
				}
			}
			return nil
		})
	}
	for i := range 200 {
		recordOutcomes(t, d.DB, outcome(fmt.Sprint("late", i), i, months[2+i%3], 1.0, ""))
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := d.Maintain(t.Context(), now, 400*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM outcomes`); n != 203 {
		t.Errorf("%d outcomes, want 203", n)
	}
	want := []string{"outcomes_2025_10", "outcomes_2025_11", "outcomes_2025_12"}
	if diff := cmp.Diff(want, list[string](t, d.raw, subjectIndexes)); diff != "" {
		t.Error(diff)
	}
}
