package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

const partitionNames = `SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'outcomes'::regclass ORDER BY 1`

func TestPartitionsAreMadeOnDemand(t *testing.T) {
	d := newDatabase(t)
	endOf := func(year int, month time.Month) time.Time {
		return time.Date(year, month+1, 1, 0, 0, 0, 0, time.UTC).Add(-time.Millisecond)
	}
	items := []experiment.Outcome{
		outcome("a", 1, time.UnixMilli(0).UTC(), 1.0, ""),
		outcome("b", 1, endOf(1999, time.December), 1.0, ""),
		outcome("c", 1, endOf(1999, time.December).Add(time.Millisecond), 1.0, ""),
		outcome("d", 1, endOf(2024, time.February), 1.0, ""),
		outcome("e", 1, time.Date(2031, 7, 4, 0, 0, 0, 0, time.FixedZone("", -3600)), 1.0, ""),
	}
	for i, r := range recordOutcomes(t, d.DB, items...) {
		if r != recorded {
			t.Errorf("item %d: result %d", i, r)
		}
	}
	want := []string{"outcomes_1970_01", "outcomes_1999_12", "outcomes_2000_01", "outcomes_2024_02", "outcomes_2031_07"}
	if diff := cmp.Diff(want, list[string](t, d.raw, partitionNames)); diff != "" {
		t.Error(diff)
	}
	misplaced := scalar[int](t, d.raw, `SELECT count(*) FROM outcomes
		WHERE tableoid::regclass::text <> to_char(occurred_time, '"outcomes_"YYYY_MM')`)
	if misplaced != 0 {
		t.Errorf("%d outcomes are in the partition of another month", misplaced)
	}
}

func TestPartitionsFromTwoServers(t *testing.T) {
	d := newDatabase(t)
	var items []experiment.Outcome
	for month := range 24 {
		items = append(items, outcome(fmt.Sprint(month), 1, time.Date(2025, time.Month(1+month), 10, 0, 0, 0, 0, time.UTC), 1.0, ""))
	}
	got := fromWriters(t, d, seeded(1), items, (*postgres.DB).RecordOutcomes, func(_ experiment.Outcome, r experiment.Result) bool { return r == recorded })
	if got != len(items) {
		t.Errorf("%d recorded, want %d", got, len(items))
	}
	if n := len(list[string](t, d.raw, partitionNames)); n != 24 {
		t.Errorf("%d partitions, want 24", n)
	}
}

// A running analysis reads outcomes for as long as it takes; a new month must
// not wait for it.
func TestPartitionIsMadeWhileOutcomesAreRead(t *testing.T) {
	d := newDatabase(t)
	recordOutcomes(t, d.DB, outcome("a", 1, day(5), 1.0, ""))
	exec(t, d.raw, `BEGIN`)
	scalar[int](t, d.raw, `SELECT count(*) FROM outcomes`)
	if got := recordOutcomes(t, d.DB, outcome("b", 1, day(40), 1.0, "")); got[0] != recorded {
		t.Errorf("result %d", got[0])
	}
	exec(t, d.raw, `COMMIT`)
}

func TestDroppedPartitionIsMadeAgain(t *testing.T) {
	d := newDatabase(t)
	item := outcome("a", 1, day(5), 1.0, "")
	recordOutcomes(t, d.DB, item, outcome("b", 1, day(40), 1.0, ""))
	exec(t, d.raw, `DROP TABLE outcomes_2026_01`)
	if got := recordOutcomes(t, d.DB, item, item); got[0] != recorded || got[1] != duplicate {
		t.Errorf("results %v", got)
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM outcomes`); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

// A month that an operator detached is not the data's fault: nobody may be
// told so, and drop the outcomes.
func TestDetachedPartition(t *testing.T) {
	d := newDatabase(t)
	recordOutcomes(t, d.DB, outcome("a", 1, day(5), 1.0, ""))
	exec(t, d.raw, `ALTER TABLE outcomes DETACH PARTITION outcomes_2026_01`)
	for range 2 {
		_, err := d.RecordOutcomes(context.Background(), []experiment.Outcome{outcome("b", 1, day(5), 1.0, "")})
		if err == nil || errors.Is(err, postgres.ErrBadData) {
			t.Fatalf("error %v", err)
		}
	}
	exec(t, d.raw, `ALTER TABLE outcomes_2026_01 RENAME TO kept`)
	if got := recordOutcomes(t, d.DB, outcome("b", 1, day(5), 1.0, "")); got[0] != recorded {
		t.Errorf("result %d", got[0])
	}
}

// TestPrepareMonths makes the months of a batch that reaches far back in calls of a
// bounded number, and none that are there, also where another server made them.
func TestPrepareMonths(t *testing.T) {
	d := newDatabase(t)
	var items []experiment.Outcome
	for month := range 150 {
		items = append(items, outcome(fmt.Sprint(month), 1, time.Date(2001, time.Month(1+month), 10, 0, 0, 0, 0, time.UTC), 1.0, ""))
	}
	err := d.PrepareMonths(t.Context(), items)
	wantKind(t, err, experiment.ErrUnavailable, "MONTHS_BEING_MADE")
	if !strings.Contains(err.Error(), "150 months") {
		t.Error(err)
	}
	if n := len(list[string](t, d.raw, partitionNames)); n != 120 {
		t.Errorf("%d partitions, want 120", n)
	}
	if err := d.other.PrepareMonths(t.Context(), items); err != nil {
		t.Error(err)
	}
	if n := len(list[string](t, d.raw, partitionNames)); n != 150 {
		t.Errorf("%d partitions, want 150", n)
	}
	if got := recordOutcomes(t, d.DB, items...); slices.Contains(got, limited) || got[0] != recorded {
		t.Errorf("results %v", got)
	}
	if err := d.PrepareMonths(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// TestPartitionsGiveUp holds that who needs a month waits only shortly for who holds
// the lock, and gets it by the next try.
func TestPartitionsGiveUp(t *testing.T) {
	d := newDatabase(t)
	exec(t, d.raw, `BEGIN`)
	exec(t, d.raw, `SELECT pg_advisory_xact_lock($1)`, 0x6173736179)
	item := outcome("a", 1, day(5), 1.0, "")
	wantKind(t, d.PrepareMonths(t.Context(), []experiment.Outcome{item}), experiment.ErrUnavailable, "DATABASE_UNAVAILABLE")
	exec(t, d.raw, `COMMIT`)
	if err := d.PrepareMonths(t.Context(), []experiment.Outcome{item}); err != nil {
		t.Error(err)
	}
}
