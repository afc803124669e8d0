package postgres_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

func safeTime(t *testing.T, db *postgres.DB) time.Time {
	t.Helper()
	safe, err := db.SafeTime(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return safe
}

func clock(t *testing.T, conn *pgx.Conn) time.Time {
	t.Helper()
	return scalar[time.Time](t, conn, `SELECT clock_timestamp()`)
}

const insertExposure = `INSERT INTO exposures (experiment_id, subject_id, phase, variant, exposed_time)
	VALUES (7, gen_random_uuid(), 1, 'a', now()) RETURNING recorded_time`

// What a transaction that is under way may still commit is never safe.
func TestSafeTimeWaitsForRecorders(t *testing.T) {
	d := newDatabase(t)
	before := clock(t, d.raw)
	if safe := safeTime(t, d.DB); !safe.After(before) {
		t.Errorf("nothing is under way, and yet %v is not after %v", safe, before)
	}
	recorder := connect(t, d.url, "assay-record")
	exec(t, recorder, `BEGIN`)
	begun := clock(t, d.raw)
	if safe := safeTime(t, d.DB); !safe.Before(begun) {
		t.Errorf("safe until %v, but a recorder began before %v", safe, begun)
	}
	recorded := scalar[time.Time](t, recorder, insertExposure)
	later := connect(t, d.url, "assay-record")
	exec(t, later, `BEGIN`)
	scalar[time.Time](t, later, insertExposure)
	for _, db := range []*postgres.DB{d.DB, d.other} {
		if safe := safeTime(t, db); !safe.Before(recorded) || !safe.Before(begun) {
			t.Errorf("safe until %v, but an event from %v is not committed", safe, recorded)
		}
	}
	exec(t, recorder, `COMMIT`)
	if safe := safeTime(t, d.DB); safe.Before(recorded) {
		t.Errorf("safe until %v, though the event from %v is committed", safe, recorded)
	}
	exec(t, later, `ROLLBACK`)
	after := clock(t, d.raw)
	if safe := safeTime(t, d.DB); !safe.After(after) {
		t.Errorf("everything ended, and yet %v is not after %v", safe, after)
	}
}

// Only recorders of this database hold the safe time back.
func TestSafeTimePassesOthers(t *testing.T) {
	d, elsewhere := newDatabase(t), newDatabase(t)
	for _, other := range []*pgx.Conn{connect(t, d.url, "assay-analyze"), connect(t, d.url, "assay"), connect(t, elsewhere.url, "assay-record")} {
		exec(t, other, `BEGIN`)
		scalar[int](t, other, `SELECT count(*) FROM exposures`)
	}
	now := clock(t, d.raw)
	if safe := safeTime(t, d.DB); !safe.After(now) {
		t.Errorf("safe until %v, held back from %v", safe, now)
	}
}

// The DB's own writes are seen: those of events, and those of pins, which
// analyses read like events.
func TestSafeTimeSeesWrites(t *testing.T) {
	for name, write := range map[string]func(d *database) error{
		"exposures": func(d *database) error {
			return second(d.RecordExposures(t.Context(), []experiment.Exposure{exposure(1, "a", day(5))}))
		},
		"outcomes": func(d *database) error {
			return second(d.RecordOutcomes(t.Context(), []experiment.Outcome{outcome("e", 1, day(5), 1.0, "")}))
		},
		"overrides": func(d *database) error { return second(d.SetOverrides(t.Context(), "e", "", pin("short", 1))) },
	} {
		d := newDatabase(t)
		createExperiment(t, d.DB, "e", definition())
		recordOutcomes(t, d.DB, outcome("other", 1, day(5), 1.0, ""))
		locker := connect(t, d.url, "locker")
		exec(t, locker, `BEGIN`)
		exec(t, locker, `LOCK TABLE exposures, outcomes, overrides`)
		written := make(chan error)
		go func() { written <- write(d) }()
		waitForLock(t, d.raw, "assay-record")
		safe := safeTime(t, d.DB)
		exec(t, locker, `COMMIT`)
		if err := <-written; err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		table, column := name, "recorded_time"
		if name == "overrides" {
			column = "create_time"
		}
		if at := scalar[time.Time](t, d.raw, `SELECT max(`+column+`) FROM `+table); !safe.Before(at) {
			t.Errorf("%s: %v was safe, and then %v was committed", name, safe, at)
		}
	}
}

// The start of a transaction is known only after it, so it could pass for a
// safe moment; the time of a later statement cannot.
func TestRecordedTimeIsThatOfTheStatement(t *testing.T) {
	d := newDatabase(t)
	got := list[string](t, d.raw, `SELECT adrelid::regclass || ' ' || pg_get_expr(adbin, adrelid) FROM pg_attrdef
		JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
		WHERE (adrelid::regclass::text, attname) IN (('exposures', 'recorded_time'), ('outcomes', 'recorded_time'), ('overrides', 'create_time')) ORDER BY 1`)
	want := []string{"exposures statement_timestamp()", "outcomes statement_timestamp()", "overrides statement_timestamp()"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
