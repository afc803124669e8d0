package postgres_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
	"github.com/assayhq/assay/internal/postgres"
)

// freeNames maintains the names on a day of March 2026.
func freeNames(t *testing.T, db *postgres.DB, day int, hours ...time.Duration) {
	t.Helper()
	now := month(2026, 3).AddDate(0, 0, day)
	for _, h := range hours {
		now = now.Add(h * time.Hour)
	}
	if err := db.FreeNames(t.Context(), now); err != nil {
		t.Fatal(err)
	}
}

const (
	freedNames  = `SELECT name FROM outcome_names WHERE freed ORDER BY name`
	unusedNames = `SELECT name FROM outcome_names WHERE unused_time IS NOT NULL AND NOT freed ORDER BY name`
)

func wantNames(t *testing.T, d *database, query string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), list[string](t, d.raw, query)); diff != "" {
		t.Errorf("%s: %s", query, diff)
	}
}

// junkNames returns a database with room for 10 names, of which 3 are in use, 1 is
// counted by a metric, and 4 have no outcome any more or never had one.
func junkNames(t *testing.T) *database {
	t.Helper()
	d := newDatabase(t)
	d.LimitNames(10)
	d.other.LimitNames(10)
	for _, name := range []string{"purchase", "visit", "refused", "dropped"} {
		wantRecorded(t, d.DB, name)
		passHour(t, d)
	}
	for i, item := range []experiment.Outcome{
		named(outcome("old", 1, month(2024, 1), 1.0, ""), "dropped with its month"),
		named(outcome("of an erased one", 2, day(5), 1.0, ""), "erased"),
	} {
		if n, refusal := recordCall(t, d.DB, item); n != 1 {
			t.Fatalf("item %d: %+v", i, refusal)
		}
		passHour(t, d)
	}
	if _, err := d.CreateMetric(t.Context(), "m", "", "", metric.Definition{Components: []experiment.Component{{Outcome: "counted"}}}); err != nil {
		t.Fatal(err)
	}
	exec(t, d.raw, `DELETE FROM outcomes WHERE name_id IN (SELECT id FROM outcome_names WHERE name IN ('refused', 'dropped'))`)
	if err := d.Maintain(t.Context(), month(2026, 3), 375*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := d.EraseSubject(t.Context(), subjectID(2), ""); err != nil {
		t.Fatal(err)
	}
	wantRecorded(t, d.other, "purchase")
	return d
}

// Names that nothing uses make room after a day, and can come again.
func TestFreeNames(t *testing.T) {
	d := junkNames(t)
	exec(t, d.raw, `INSERT INTO metrics (key, revision) VALUES ('of an earlier release', 1)`)
	exec(t, d.raw, `INSERT INTO metric_revisions (metric_id, revision, definition)
		SELECT id, 1, '{"description":"\u0000","components":[{"outcome":"before"}]}' FROM metrics WHERE key <> 'm'`)
	junk := []string{"dropped", "dropped with its month", "erased", "refused"}

	freeNames(t, d.DB, 0)
	wantNames(t, d, unusedNames, junk...)
	wantNames(t, d, freedNames)
	wantRoom(t, d.DB, postgres.NameRoom{Known: 8, Limit: 10, Left: 1})
	freeNames(t, d.other, 0, 22)
	wantNames(t, d, freedNames)
	freeNames(t, d.other, 1)
	wantNames(t, d, unusedNames)
	wantNames(t, d, freedNames, junk...)
	wantRoom(t, d.DB, postgres.NameRoom{Known: 4, Limit: 10, Left: 1})

	// Where there is room enough, nobody looks.
	freeNames(t, d.DB, 2)
	exec(t, d.raw, `DELETE FROM outcomes`)
	freeNames(t, d.DB, 3)
	wantNames(t, d, unusedNames)

	ids := map[string]int32{}
	for _, name := range junk {
		ids[name] = scalar[int32](t, d.raw, `SELECT id FROM outcome_names WHERE name = $1`, name)
	}
	for _, name := range []string{"refused", "new", "erased", "before"} { // The last one is known.
		wantRecorded(t, d.DB, name)
		if name != "before" {
			wantRefused(t, d.DB, experiment.NamesPerHour, 1, 0, "dropped")
			passHour(t, d)
		}
		if id := scalar[int32](t, d.raw, `SELECT id FROM outcome_names WHERE name = $1`, name); ids[name] != 0 && ids[name] != id {
			t.Errorf("%s has id %d, and had %d", name, id, ids[name])
		}
	}
	wantNames(t, d, freedNames, "dropped", "dropped with its month")
	wantRoom(t, d.DB, postgres.NameRoom{Known: 7, Limit: 10, Left: 1})
}

// A name that is about to be freed is not new, if an outcome of it comes after all.
func TestUnusedNamesAreKept(t *testing.T) {
	d := junkNames(t)
	freeNames(t, d.DB, 0)
	freeNames(t, d.DB, 0, 1)
	wantRecorded(t, d.DB, "another")
	wantRefused(t, d.DB, experiment.NamesPerHour, 1, 0, "yet another")
	d.ForgetRefusal()

	wantRecorded(t, d.DB, "refused") // By a server that has forgotten it.
	wantNames(t, d, unusedNames, "dropped", "dropped with its month", "erased")
	wantRecorded(t, d.other, "another")
	exec(t, d.raw, `UPDATE outcome_names SET unused_time = $1 WHERE name = 'purchase'`, month(2026, 3))
	wantRecorded(t, d.other, "purchase") // By one that has it in memory.
	freeNames(t, d.DB, 1)
	wantNames(t, d, unusedNames)
	wantNames(t, d, freedNames, "dropped", "dropped with its month", "erased")
	wantRoom(t, d.DB, postgres.NameRoom{Known: 5, Limit: 10, Left: 0})
}

// A server that still has a freed name in memory, as one of an earlier release has for
// as long as it runs, records under that name, and the name counts again.
func TestStaleServerRecordsFreedNames(t *testing.T) {
	d := junkNames(t)
	stale := openURL(t, d.url)
	wantRecorded(t, stale, "refused")
	exec(t, d.raw, `DELETE FROM outcomes WHERE name_id = (SELECT id FROM outcome_names WHERE name = 'refused')`)
	freeNames(t, d.DB, 0)
	freeNames(t, d.DB, 1)
	wantNames(t, d, freedNames, "dropped", "dropped with its month", "erased", "refused")
	// What an earlier release does with a new name.
	exec(t, d.raw, `INSERT INTO outcome_names (name) SELECT unnest('{erased,old way}'::text[]) ON CONFLICT DO NOTHING`)

	wantRecorded(t, stale, "refused")
	names := `SELECT n.name FROM outcomes o JOIN outcome_names n ON n.id = o.name_id ORDER BY n.name`
	wantNames(t, d, names, "purchase", "refused", "visit")
	d.LimitNames(7) // So that it looks.
	freeNames(t, d.DB, 2)
	wantNames(t, d, freedNames, "dropped", "dropped with its month", "erased")
	wantNames(t, d, unusedNames, "old way")
	wantRecorded(t, d.DB, "refused")
	wantRecorded(t, d.other, "refused", "purchase")
	if n := scalar[int](t, d.raw, `SELECT count(DISTINCT name_id) FROM outcomes`); n != 3 {
		t.Errorf("%d names have outcomes, want 3", n)
	}
}

// Names come, fall out of use, are freed and come again while servers record: every
// outcome is stored under its own name.
func TestFreeNamesWhileRecording(t *testing.T) {
	const names = 12
	d := newDatabase(t)
	servers := []*postgres.DB{d.DB, d.other, openURL(t, d.url)}
	for _, db := range servers {
		db.LimitNames(2 * names)
	}
	var counted metric.Definition // Half of the limit, so that it is always looked for more.
	for _, name := range numbered("counted", names) {
		counted.Components = append(counted.Components, experiment.Component{Outcome: name})
	}
	if _, err := d.CreateMetric(t.Context(), "m", "", "", counted); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	defer stop.Store(true)
	var recording errgroup.Group
	for w := range 4 {
		db, r := servers[w%2], seeded(uint64(w))
		recording.Go(func() error {
			for i := 0; !stop.Load(); i++ {
				name := fmt.Sprint("name ", r.IntN(names))
				item := named(outcome(fmt.Sprint(w, " ", i, " ", name), i, day(5), 1.0, ""), name)
				// The subject says which name was sent.
				item.SubjectID = subjectID(int(name[len("name ")]))
				refusal, err := db.AdmitNames(t.Context(), []experiment.Outcome{item})
				if err != nil {
					return err
				}
				if refusal != nil {
					db.ForgetRefusal()
					continue
				}
				results, err := db.RecordOutcomes(t.Context(), []experiment.Outcome{item})
				if err != nil || results[0] != recorded {
					return fmt.Errorf("%s: %v, %w", name, results, err)
				}
			}
			return nil
		})
	}
	// Until enough names that were freed have come again.
	var freed, came int64
	for round, deadline := 0, time.Now().Add(2*time.Minute); came < 10; round++ {
		if time.Now().After(deadline) {
			t.Fatal("no freed names come again: this shows nothing")
		}
		for i, db := range servers[:2] {
			if i == round%3 {
				continue // It does not hear of it.
			}
			if err := db.FreeNames(t.Context(), month(2026, 3).AddDate(0, 0, round)); err != nil && !errors.Is(err, experiment.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		before := freed
		freed = scalar[int64](t, d.raw, `SELECT count(*) FROM outcome_names WHERE freed`)
		came += max(0, before-freed)
		exec(t, d.raw, `UPDATE outcome_names SET admit_time = NULL`)
		exec(t, d.raw, `DELETE FROM outcomes WHERE name_id % 5 = $1`, round%5)
	}
	stop.Store(true)
	if err := recording.Wait(); err != nil {
		t.Fatal(err)
	}
	wrong := list[string](t, d.raw, `SELECT coalesce(n.name, 'none') FROM outcomes o LEFT JOIN outcome_names n ON n.id = o.name_id
		WHERE n.name IS NULL OR get_byte(uuid_send(o.subject_id), 1) <> ascii(substr(n.name, 6, 1))`)
	if len(wrong) > 0 {
		t.Errorf("outcomes of other names than theirs: %q", wrong)
	}
	for round := range 3 {
		freeNames(t, servers[2], 10_000+round)
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM outcomes o JOIN outcome_names n ON n.id = o.name_id WHERE n.freed`); n > 0 {
		t.Errorf("%d outcomes are of freed names", n)
	}
}
