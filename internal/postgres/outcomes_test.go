package postgres_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

// outcome returns a purchase. A properties of "" is none.
func outcome(event string, subject int, at time.Time, value any, properties string) experiment.Outcome {
	o := experiment.Outcome{RowID: experiment.NewRowID(at, event), SubjectID: subjectID(subject), Name: "purchase", OccurredTime: at}
	if v, ok := value.(float64); ok {
		o.Value = &v
	}
	if properties != "" {
		o.Properties = json.RawMessage(properties)
	}
	return o
}

// correction adds a value to an outcome.
func correction(event string, corrected experiment.Outcome, at time.Time, value float64) experiment.Outcome {
	c := outcome(event, 0, corrected.OccurredTime, value, "")
	c.SubjectID, c.Name, c.Corrects, c.AdjustedTime = corrected.SubjectID, corrected.Name, corrected.RowID, at
	return c
}

func named(o experiment.Outcome, name string) experiment.Outcome {
	o.Name = name
	return o
}

func recordOutcomes(t *testing.T, db *postgres.DB, items ...experiment.Outcome) []experiment.Result {
	t.Helper()
	results, err := db.RecordOutcomes(t.Context(), items)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func TestRecordOutcomesOneAfterAnother(t *testing.T) {
	d := newDatabase(t)
	noon := day(5, 12)
	const sku = `{"n":1,"sku":"A1"}`
	for _, step := range []struct {
		name string
		item experiment.Outcome
		want experiment.Result
	}{
		{"new", outcome("e", 1, noon, 49.9, sku), recorded},
		{"the same", outcome("e", 1, noon, 49.9, sku), duplicate},
		{"properties in another order", outcome("e", 1, noon, 49.9, `{"sku":"A1","n":1}`), duplicate},
		{"a number in another form", outcome("e", 1, noon, 49.9, `{"n":1.0,"sku":"A1"}`), duplicate},
		{"other value", outcome("e", 1, noon, 50.0, sku), conflict},
		{"no value", outcome("e", 1, noon, nil, sku), conflict},
		{"other name", named(outcome("e", 1, noon, 49.9, sku), "refund"), conflict},
		{"other property", outcome("e", 1, noon, 49.9, `{"n":2,"sku":"A1"}`), conflict},
		{"a property as text", outcome("e", 1, noon, 49.9, `{"n":"1","sku":"A1"}`), conflict},
		{"no properties", outcome("e", 1, noon, 49.9, ""), conflict},
		{"empty properties", outcome("e", 1, noon, 49.9, "{}"), conflict},
		{"the same after conflicts", outcome("e", 1, noon, 49.9, sku), duplicate},
		{"another millisecond", outcome("e", 1, noon.Add(time.Millisecond), 50.0, ""), recorded},
		{"another subject", outcome("e", 2, noon, 50.0, ""), recorded},
		{"another event", outcome("f", 1, noon, 50.0, ""), recorded},
		{"without value", outcome("null", 1, noon, nil, ""), recorded},
		{"without value again", outcome("null", 1, noon, nil, ""), duplicate},
		{"a value where none was", outcome("null", 1, noon, 0.0, ""), conflict},
		{"negative zero", outcome("zero", 1, noon, math.Copysign(0, -1), ""), recorded},
		{"zero", outcome("zero", 1, noon, 0.0, ""), duplicate},
		{"negative", outcome("negative", 1, noon, -3.5, ""), recorded},
		{"largest", outcome("largest", 1, noon, 1e100, ""), recorded},
		{"largest again", outcome("largest", 1, noon, 1e100, ""), duplicate},
		{"a bit less", outcome("largest", 1, noon, math.Nextafter(1e100, 0), ""), conflict},
	} {
		if got := recordOutcomes(t, d.DB, step.item); got[0] != step.want {
			t.Errorf("%s: result %d, want %d", step.name, got[0], step.want)
		}
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM outcomes`); n != 8 {
		t.Errorf("%d rows, want 8", n)
	}
	stored := scalar[string](t, d.raw, `SELECT concat_ws(' ', value, properties, occurred_time) FROM outcomes WHERE row_id = $1 AND subject_id = $2`,
		[16]byte(experiment.NewRowID(noon, "e")), [16]byte(subjectID(1)))
	if want := `49.9 {"n": 1, "sku": "A1"} 2026-01-05 12:00:00+00`; stored != want {
		t.Errorf("stored %s, want %s", stored, want)
	}
}

func TestRecordOutcomesBatch(t *testing.T) {
	d := newDatabase(t)
	noon := day(5, 12)
	recordOutcomes(t, d.DB, outcome("known", 1, noon, 1.0, ""))
	got := recordOutcomes(t, d.DB,
		outcome("e", 1, noon, 1.0, `{"a":1}`),
		outcome("e", 1, noon, 1.0, `{"a":1.0}`),
		outcome("e", 1, noon, 2.0, `{"a":1}`),
		outcome("known", 1, noon, 2.0, ""),
		outcome("known", 1, noon, 1.0, ""), // It equals what is recorded, not what came before it.
		outcome("known", 1, noon, 2.0, ""),
		outcome("e", 1, noon.Add(time.Millisecond), 2.0, ""),
	)
	want := []experiment.Result{recorded, duplicate, conflict, conflict, duplicate, conflict, recorded}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := recordOutcomes(t, d.DB); len(got) != 0 {
		t.Errorf("results %v of nothing", got)
	}
}

func TestRecordOutcomesRepeatWritesNothing(t *testing.T) {
	d := newDatabase(t)
	items := []experiment.Outcome{outcome("e", 1, day(5), 1.0, ""), outcome("f", 2, day(40), nil, `{"a":1}`)}
	recordOutcomes(t, d.DB, items...)
	state := func() []string {
		return list[string](t, d.raw, `SELECT concat_ws(' ', tableoid, ctid, xmin, xmax, outcomes) FROM outcomes ORDER BY 1`)
	}
	before := state()
	other := 7.0
	changed := items[0]
	changed.Value = &other
	if diff := cmp.Diff([]experiment.Result{duplicate, duplicate, conflict}, recordOutcomes(t, d.other, items[0], items[1], changed)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Error(diff)
	}
}

// However writers and servers compete, every identity is stored once, with a
// content that was sent, and each result says how the item relates to it.
func TestRecordOutcomesAnyOrder(t *testing.T) {
	for seed := range uint64(3) {
		d := newDatabase(t)
		r := seeded(seed)
		type key struct {
			row     experiment.RowID
			subject experiment.SubjectID
		}
		type content struct {
			name  string
			value float64
		}
		keyOf := func(o experiment.Outcome) key { return key{o.RowID, o.SubjectID} }
		var items []experiment.Outcome
		sent := map[key][]content{}
		for i := range 150 {
			at := day(1 + r.IntN(120)).Add(time.Duration(r.IntN(3)) * time.Millisecond)
			for range 1 + r.IntN(3) { // Mostly the same content again.
				c := content{fmt.Sprint("name", i%5), float64(1 + r.IntN(10)/9)}
				o := named(outcome(fmt.Sprint(i/2), i%7, at, c.value, fmt.Sprintf(`{"i":%d}`, i/2)), c.name)
				items = append(items, o)
				sent[keyOf(o)] = append(sent[keyOf(o)], c)
			}
		}
		var mu sync.Mutex
		claims := map[experiment.Result]map[key]map[content]int{recorded: {}, duplicate: {}, conflict: {}}
		acknowledged := fromWriters(t, d, r, items, (*postgres.DB).RecordOutcomes, func(o experiment.Outcome, result experiment.Result) bool {
			mu.Lock()
			defer mu.Unlock()
			byKey := claims[result]
			if byKey[keyOf(o)] == nil {
				byKey[keyOf(o)] = map[content]int{}
			}
			byKey[keyOf(o)][content{o.Name, *o.Value}]++
			return result == recorded
		})
		if acknowledged != len(sent) {
			t.Errorf("seed %d: %d acknowledged as recorded, %d identities", seed, acknowledged, len(sent))
		}
		rows, err := d.raw.Query(t.Context(), `SELECT o.row_id, o.subject_id, n.name, o.value FROM outcomes o JOIN outcome_names n ON n.id = o.name_id`)
		if err != nil {
			t.Fatal(err)
		}
		stored := 0
		for rows.Next() {
			var k key
			var c content
			if err := rows.Scan((*[16]byte)(&k.row), (*[16]byte)(&k.subject), &c.name, &c.value); err != nil {
				t.Fatal(err)
			}
			stored++
			if !slices.Contains(sent[k], c) {
				t.Errorf("seed %d: %v was stored and never sent", seed, c)
			}
			if diff := cmp.Diff(map[content]int{c: 1}, claims[recorded][k], cmp.AllowUnexported(content{})); diff != "" {
				t.Errorf("seed %d: claims of being recorded: %s", seed, diff)
			}
			for other := range claims[duplicate][k] {
				if other != c {
					t.Errorf("seed %d: %v was called a duplicate of %v", seed, other, c)
				}
			}
			if n := claims[conflict][k][c]; n > 0 {
				t.Errorf("seed %d: %v was called a conflict with itself", seed, c)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		if stored != len(sent) {
			t.Errorf("seed %d: %d rows, %d identities", seed, stored, len(sent))
		}
	}
}

func TestRowIDIsOrderedByTime(t *testing.T) {
	r := seeded(1)
	var last experiment.RowID
	for at := day(1); at.Before(day(3)); at = at.Add(time.Millisecond + time.Duration(r.IntN(1e10))) {
		id := experiment.NewRowID(at, fmt.Sprint(r.Uint64()))
		if at != day(1) && bytes.Compare(id[:], last[:]) <= 0 {
			t.Fatalf("%x at %v does not follow %x", id, at, last)
		}
		last = id
	}
}

// Three others record an identity each just before a batch does, so that each
// way to write it meets one more; the last waits it out.
func TestRecordOutcomesWhileOthersDo(t *testing.T) {
	d := newDatabase(t)
	var items []experiment.Outcome
	for i := range 4 {
		items = append(items, outcome(fmt.Sprint(i), i, day(5, float64(i)), 1.0, ""))
	}
	recordOutcomes(t, d.DB, named(outcome("first", 9, day(5), 1.0, ""), "purchase")) // The partition and the name.
	var others []pgx.Tx
	for _, o := range items[:3] {
		tx, err := connect(t, d.url, "other").Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `INSERT INTO outcomes (row_id, subject_id, name_id, value, occurred_time)
			SELECT $1, $2, id, 1, $3 FROM outcome_names`, [16]byte(o.RowID), [16]byte(o.SubjectID), o.OccurredTime); err != nil {
			t.Fatal(err)
		}
		others = append(others, tx)
	}
	done := make(chan []experiment.Result, 1)
	go func() {
		results, err := d.RecordOutcomes(context.Background(), items)
		if err != nil {
			t.Error(err)
		}
		done <- results
	}()
	for i, tx := range others {
		waitFor(t, d.raw, `SELECT count(*) > 0 FROM pg_locks w JOIN pg_locks h ON h.transactionid = w.transactionid AND h.granted
			WHERE NOT w.granted AND h.pid = $1`, tx.Conn().PgConn().PID())
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatalf("other %d: %v", i, err)
		}
	}
	want := []experiment.Result{experiment.Duplicate, experiment.Duplicate, experiment.Duplicate, experiment.Recorded}
	if diff := cmp.Diff(want, <-done); diff != "" {
		t.Error(diff)
	}
}
