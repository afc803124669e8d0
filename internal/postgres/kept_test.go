package postgres_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

// stickyDefinition has the variants a and b.
var stickyDefinition = &experiment.Definition{Sticky: true, Variants: []experiment.Variant{{Key: "a", Control: true}, {Key: "b"}}}

// sticky is an exposure to a sticky experiment.
func sticky(subject int, variant string, phase int32, at time.Time) experiment.Exposure {
	e := exposure(subject, variant, at)
	e.Phase, e.Sticky = phase, stickyDefinition
	return e
}

// TestRecordExposuresKept holds that nothing is recorded of a subject but the
// variant of a sticky experiment that was recorded first, in whatever phase, at
// whatever time and in whatever company, unless that variant is gone.
func TestRecordExposuresKept(t *testing.T) {
	d := newDatabase(t)
	const kept = experiment.Kept
	recordExposures(t, d.DB, exposure(9, "gone", day(3)))
	side := sticky(1, "b", 2, day(9))
	side.Sides = []experiment.Side{{HoldoutID: -1}}
	elsewhere := sticky(1, "b", 2, day(9))
	elsewhere.ExperimentID = 8
	for _, step := range []struct {
		name  string
		items []experiment.Exposure
		want  []experiment.Result
	}{
		{"the first item of a batch", []experiment.Exposure{sticky(1, "a", 1, day(5)), sticky(1, "b", 2, day(4)), sticky(1, "b", 2, day(4)), sticky(2, "b", 1, day(5))},
			[]experiment.Result{recorded, kept, kept, recorded}},
		{"later, with a side", []experiment.Exposure{side}, []experiment.Result{kept}},
		{"earlier", []experiment.Exposure{sticky(1, "b", 1, day(1)), sticky(1, "a", 1, day(1))}, []experiment.Result{kept, recorded}},
		{"the same in another phase", []experiment.Exposure{sticky(1, "a", 2, day(9))}, []experiment.Result{recorded}},
		{"another experiment", []experiment.Exposure{elsewhere}, []experiment.Result{recorded}},
		{"one that does not keep", []experiment.Exposure{exposure(2, "a", day(9))}, []experiment.Result{recorded}},
		{"and the first again", []experiment.Exposure{sticky(2, "b", 2, day(9)), sticky(2, "a", 2, day(9))}, []experiment.Result{recorded, kept}},
		{"a variant that is gone", []experiment.Exposure{sticky(9, "b", 2, day(9)), sticky(9, "a", 2, day(9))}, []experiment.Result{recorded, kept}},
	} {
		if diff := cmp.Diff(step.want, recordExposures(t, d.DB, step.items...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM exposures WHERE experiment_id < 0`); n != 0 {
		t.Errorf("%d sides of an exposure that was not recorded", n)
	}
}

// TestRecordExposuresKeptAtOnce records subjects of a sticky experiment with both
// variants from several writers and servers at once. None gets two.
func TestRecordExposuresKeptAtOnce(t *testing.T) {
	d := newDatabase(t)
	r := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		exec(t, d.raw, `TRUNCATE exposures`)
		var items []experiment.Exposure
		for i := range 400 {
			items = append(items, sticky(i/2, []string{"a", "b"}[i%2], int32(1+i%2), day(5)))
		}
		fromWriters(t, d, r, items, func(db *postgres.DB, ctx context.Context, items []experiment.Exposure) ([]experiment.Result, error) {
			return db.RecordExposures(ctx, items)
		}, func(experiment.Exposure, experiment.Result) bool { return false })
		if n := scalar[int](t, d.raw, `SELECT count(*) FROM exposures`); n != 200 {
			t.Errorf("%d exposures of 200 subjects", n)
		}
	}
}

// TestRecordExposuresKeptWaits holds that a commit waits for another one that may
// record the subject first.
func TestRecordExposuresKeptWaits(t *testing.T) {
	d := newDatabase(t)
	tx, err := d.raw.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock(24947, stripe) FROM generate_series(0, 63) AS stripe`); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `INSERT INTO exposures (experiment_id, subject_id, phase, variant, exposed_time) VALUES (7, $1, 1, 'a', now())`, [16]byte(subjectID(1))); err != nil {
		t.Fatal(err)
	}
	results := make(chan []experiment.Result)
	go func() {
		got, err := d.RecordExposures(context.WithoutCancel(t.Context()), []experiment.Exposure{sticky(1, "b", 2, day(5))})
		if err != nil {
			t.Error(err)
		}
		results <- got
	}()
	waitForLock(t, connect(t, d.url, "other"), "assay-record")
	if got := recordExposures(t, d.other, exposure(1, "b", day(5))); got[0] != recorded {
		t.Errorf("one that does not keep its variant: %v", got)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := <-results; len(got) != 1 || got[0] != experiment.Kept {
		t.Errorf("after the other commit: %v", got)
	}
}
