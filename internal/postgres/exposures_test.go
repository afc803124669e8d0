package postgres_test

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

func exposure(subject int, variant string, at time.Time) experiment.Exposure {
	return experiment.Exposure{ExperimentID: 7, Phase: 1, SubjectID: subjectID(subject), Variant: variant, ExposedTime: at}
}

func recordExposures(t *testing.T, db *postgres.DB, items ...experiment.Exposure) []experiment.Result {
	t.Helper()
	results, err := db.RecordExposures(t.Context(), items)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

const (
	recorded  = experiment.Recorded
	duplicate = experiment.Duplicate
	conflict  = experiment.Conflict
	limited   = experiment.Limited
)

func TestRecordExposuresOneAfterAnother(t *testing.T) {
	d := newDatabase(t)
	noon := day(5, 12)
	ofPhase, ofExperiment := exposure(1, "a", noon), exposure(1, "a", noon)
	ofPhase.Phase, ofExperiment.ExperimentID = 2, 8
	for _, step := range []struct {
		name string
		item experiment.Exposure
		want experiment.Result
	}{
		{"first", exposure(1, "a", noon), recorded},
		{"repeat", exposure(1, "a", noon), duplicate},
		{"later", exposure(1, "a", noon.Add(time.Millisecond)), duplicate},
		{"earlier", exposure(1, "a", noon.Add(-time.Millisecond)), recorded},
		{"the first again", exposure(1, "a", noon), duplicate},
		{"other variant, later", exposure(1, "b", noon.Add(time.Hour)), recorded},
		{"other phase", ofPhase, recorded},
		{"other experiment", ofExperiment, recorded},
		{"other subject", exposure(2, "a", noon), recorded},
	} {
		if got := recordExposures(t, d.DB, step.item); got[0] != step.want {
			t.Errorf("%s: result %d, want %d", step.name, got[0], step.want)
		}
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM exposures`); n != 6 {
		t.Errorf("%d rows, want 6", n)
	}
}

func TestRecordExposuresBatch(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(9, "a", day(3)))
	first := exposure(1, "a", day(4))
	first.Attributes = json.RawMessage(`{"country":"PL"}`)
	got := recordExposures(t, d.DB,
		exposure(1, "a", day(5)),
		first,
		exposure(1, "a", day(4)), // Equal to the earliest: one of them is recorded.
		exposure(1, "b", day(6)),
		exposure(9, "a", day(4)), // Known from before.
		exposure(9, "a", day(3)),
		exposure(1, "a", day(7)),
	)
	want := []experiment.Result{duplicate, recorded, duplicate, recorded, duplicate, duplicate, duplicate}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	kept := list[string](t, d.raw, `SELECT variant || ' ' || exposed_time || ' ' || coalesce(attributes->>'country', '-')
		FROM exposures WHERE subject_id = $1 ORDER BY 1`, [16]byte(subjectID(1)))
	if diff := cmp.Diff([]string{"a 2026-01-04 00:00:00+00 PL", "b 2026-01-06 00:00:00+00 -"}, kept); diff != "" {
		t.Error(diff)
	}
	if got := recordExposures(t, d.DB); len(got) != 0 {
		t.Errorf("results %v of nothing", got)
	}
}

// TestRecordExposuresKeepsBuckets stores the bucket of each row, and none where no
// split decided: of a holdout's side, say.
func TestRecordExposuresKeepsBuckets(t *testing.T) {
	d := newDatabase(t)
	in := func(e experiment.Exposure, bucket int32) experiment.Exposure {
		e.Bucket = &bucket
		return e
	}
	covered := in(exposure(3, "a", day(5)), 999_999)
	covered.Sides = []experiment.Side{{HoldoutID: 21}}
	recordExposures(t, d.DB, in(exposure(1, "a", day(5)), 0), exposure(2, "b", day(5)), covered)
	recordExposures(t, d.DB, in(exposure(2, "b", day(4)), 7)) // An earlier one that came later.
	got := list[string](t, d.raw, `SELECT concat_ws(' ', experiment_id, variant, exposed_time::date, coalesce(bucket::text, '-')) FROM exposures ORDER BY 1`)
	if diff := cmp.Diff([]string{"21 open 2026-01-05 -", "7 a 2026-01-05 0", "7 a 2026-01-05 999999", "7 b 2026-01-04 7", "7 b 2026-01-05 -"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestRecordExposuresRepeatWritesNothing(t *testing.T) {
	d := newDatabase(t)
	items := []experiment.Exposure{exposure(1, "a", day(5)), exposure(2, "b", day(6)), exposure(1, "b", day(7))}
	recordExposures(t, d.DB, items...)
	// Also a lock on a row or an update to the same content would show.
	state := func() []string {
		return list[string](t, d.raw, `SELECT concat_ws(' ', ctid, xmin, xmax, exposures) FROM exposures ORDER BY 1`)
	}
	before := state()
	items[0].ExposedTime = day(9)
	for i, r := range recordExposures(t, d.other, items...) {
		if r != duplicate {
			t.Errorf("item %d: result %d", i, r)
		}
	}
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Error(diff)
	}
}

// Whatever the order, the batches and the servers, readers find the earliest
// time of each subject and variant, and what is acknowledged as recorded is
// exactly what is stored.
func TestRecordExposuresAnyOrder(t *testing.T) {
	for seed := range uint64(3) {
		d := newDatabase(t)
		r := seeded(seed)
		type key struct {
			Subject experiment.SubjectID
			Phase   int32
			Variant string
		}
		want := map[key]time.Time{}
		items := make([]experiment.Exposure, 400)
		for i := range items {
			e := exposure(r.IntN(12), []string{"a", "b"}[r.IntN(2)], day(1).Add(time.Duration(r.IntN(40))*time.Millisecond))
			e.Phase = 1 + r.Int32N(2)
			items[i] = e
			k := key{e.SubjectID, e.Phase, e.Variant}
			if at, ok := want[k]; !ok || e.ExposedTime.Before(at) {
				want[k] = e.ExposedTime
			}
		}
		acknowledged := fromWriters(t, d, r, items, (*postgres.DB).RecordExposures, func(_ experiment.Exposure, result experiment.Result) bool {
			return result == recorded
		})
		if rows := scalar[int](t, d.raw, `SELECT count(*) FROM exposures`); rows != acknowledged {
			t.Errorf("seed %d: %d rows, %d acknowledged as recorded", seed, rows, acknowledged)
		}
		got := map[key]time.Time{}
		rows, err := d.raw.Query(t.Context(), `SELECT subject_id, phase, variant, min(exposed_time) FROM exposures GROUP BY 1, 2, 3`)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var k key
			var at time.Time
			if err := rows.Scan((*[16]byte)(&k.Subject), &k.Phase, &k.Variant, &at); err != nil {
				t.Fatal(err)
			}
			got[k] = at.UTC()
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("seed %d: %s", seed, diff)
		}
	}
}

// fromWriters records the items from three writers at once on each of two
// servers, every writer all of them in an order and in batches of its own, and
// counts the results that the test is interested in.
func fromWriters[T any](t *testing.T, d *database, r *rand.Rand, items []T,
	record func(*postgres.DB, context.Context, []T) ([]experiment.Result, error), interesting func(T, experiment.Result) bool) int {
	t.Helper()
	g, ctx := errgroup.WithContext(t.Context())
	counts := make([]int, 6)
	for w := range counts {
		db, cut := d.DB, batches(r, items)
		if w%2 == 1 {
			db = d.other
		}
		g.Go(func() error {
			for _, batch := range cut {
				results, err := record(db, ctx, batch)
				if err != nil {
					return err
				}
				for i, result := range results {
					if interesting(batch[i], result) {
						counts[w]++
					}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range counts {
		total += n
	}
	return total
}

func TestExposedSubjects(t *testing.T) {
	d := newDatabase(t)
	e := createExperiment(t, d.DB, "e", definition())
	in := func(phase int32, subject int, variant string, at time.Time) experiment.Exposure {
		item := exposure(subject, variant, at)
		item.ExperimentID, item.Phase = e.ID, phase
		return item
	}
	recordExposures(t, d.DB, exposure(9, "short", day(3)), // Of another experiment.
		in(1, 1, "short", day(3)), in(1, 1, "short", day(2)), in(1, 1, "control", day(3)), in(1, 2, "short", day(3)),
		in(1, 3, "control", day(3)), in(1, 4, "control", day(3)), in(2, 5, "control", day(3)), in(2, 1, "short", day(3)))
	setOverrides(t, d.DB, pin("short", 3, 4)...)
	setOverrides(t, d.DB, pin("", 4)...)
	for phase, want := range map[int32]int64{1: 3, 2: 2, 3: 0} {
		if got, err := d.ExposedSubjects(t.Context(), e.ID, phase); err != nil || got != want {
			t.Errorf("phase %d: %d exposed subjects, %v; want %d", phase, got, err, want)
		}
	}
}

// A subject is new since a moment if nothing of it was recorded before.
func TestExposedSince(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "short", day(3)), exposure(2, "short", day(3)), of(8, exposure(4, "short", day(3))))
	then := scalar[time.Time](t, d.raw, `SELECT clock_timestamp()`)
	recordExposures(t, d.DB, exposure(1, "short", day(2)), exposure(1, "control", day(4)), exposure(3, "short", day(3)), exposure(3, "control", day(3)))
	for at, want := range map[time.Time]int64{{}: 3, then: 1, forever: 0} {
		if got, err := d.ExposedSince(t.Context(), 7, at); err != nil || got != want {
			t.Errorf("since %v: %d, %v; want %d", at, got, err, want)
		}
	}
}

// Exposures that are known write no WAL, in whatever order they come again. What
// Postgres itself writes now and then only adds to it, so that one repeat of
// several without any is proof.
func TestRepeatedExposuresWriteNoWAL(t *testing.T) {
	d := newDatabase(t)
	var items []experiment.Exposure
	for i := range 500 {
		e := exposure(i, "short", day(3))
		e.Sides = []experiment.Side{{HoldoutID: 8}}
		items = append(items, e)
	}
	recordExposures(t, d.DB, items...)
	slices.Reverse(items)
	least := math.MaxInt
	for range 5 {
		before := scalar[string](t, d.raw, `SELECT pg_current_wal_insert_lsn()::text`)
		recordExposures(t, d.other, items...)
		least = min(least, scalar[int](t, d.raw, `SELECT (pg_current_wal_insert_lsn() - $1::text::pg_lsn)::bigint`, before))
	}
	if least != 0 {
		t.Errorf("500 known exposures wrote %d bytes of WAL", least)
	}
}
