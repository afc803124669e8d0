package postgres_test

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
	"github.com/assayhq/assay/internal/postgres"
)

// namedOutcomes returns an outcome of each name.
func namedOutcomes(names ...string) []experiment.Outcome {
	var items []experiment.Outcome
	for _, name := range names {
		items = append(items, named(outcome("of "+name, 1, day(5), 1.0, ""), name))
	}
	return items
}

func numbered(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s %05d", prefix, i)
	}
	return names
}

// recordCall records outcomes as a call does: what is not admitted is left out.
func recordCall(t *testing.T, db *postgres.DB, items ...experiment.Outcome) (recorded int, refusal *experiment.NameRefusal) {
	t.Helper()
	refusal, err := db.AdmitNames(t.Context(), items)
	if err != nil {
		t.Fatal(err)
	}
	if refusal != nil {
		items = slices.DeleteFunc(slices.Clone(items), func(o experiment.Outcome) bool { return refusal.Names[o.Name] })
	}
	for i, result := range recordOutcomes(t, db, items...) {
		if result != experiment.Recorded && result != experiment.Duplicate {
			t.Fatalf("an outcome of the name %q, which is admitted: %v", items[i].Name, result)
		}
	}
	return len(items), refusal
}

// wantRecorded records an outcome of each name.
func wantRecorded(t *testing.T, db *postgres.DB, names ...string) {
	t.Helper()
	if n, refusal := recordCall(t, db, namedOutcomes(names...)...); n != len(names) {
		t.Fatalf("%d of the names %q are admitted: %+v", n, names, refusal)
	}
}

// wantRefused records an outcome of each name, of which the limit admits some.
func wantRefused(t *testing.T, db *postgres.DB, limit experiment.NameLimit, most, admitted int, names ...string) *experiment.NameRefusal {
	t.Helper()
	n, refusal := recordCall(t, db, namedOutcomes(names...)...)
	if refusal == nil || refusal.Limit != limit || refusal.Most != most || n != admitted || len(refusal.Names) != len(names)-admitted {
		t.Fatalf("%d names are admitted, want %d; the others are refused for %+v, want limit %d of %d", n, admitted, refusal, limit, most)
	}
	return refusal
}

// fill takes the room of so many names, which were not admitted in this hour.
func fill(t *testing.T, d *database, names int) {
	t.Helper()
	exec(t, d.raw, `INSERT INTO outcome_names (name, admit_time) SELECT 'filler ' || i, NULL FROM generate_series(1, $1) i`, names)
}

// passHour lets an hour pass since names were admitted.
func passHour(t *testing.T, d *database) {
	t.Helper()
	exec(t, d.raw, `UPDATE outcome_names SET admit_time = now() - interval '61 minutes' WHERE admit_time IS NOT NULL`)
	d.ForgetRefusal()
	d.other.ForgetRefusal()
}

func wantRoom(t *testing.T, db *postgres.DB, want postgres.NameRoom) {
	t.Helper()
	if got, err := db.NameRoom(t.Context()); err != nil || got != want {
		t.Errorf("room %+v, %v; want %+v", got, err, want)
	}
}

// One call of as many junk names as there may be leaves room for everybody else.
func TestJunkNamesLeaveRoom(t *testing.T) {
	d := newDatabase(t)
	junk := numbered("junk", postgres.DefaultOutcomeNames)
	wantRefused(t, d.DB, experiment.NamesPerCall, 100, 100, junk...)
	wantRecorded(t, d.DB, "signup", "junk 00017")
	wantRecorded(t, d.other, "refund", "signup")
	wantRoom(t, d.other, postgres.NameRoom{Known: 102, Limit: 10_000, Left: 898})
	// Who sends again what was refused gets on.
	wantRefused(t, d.DB, experiment.NamesPerCall, 100, 200, junk[:300]...)
}

// All servers share what is admitted in an hour, whoever comes at once.
func TestNewNamesPerHour(t *testing.T) {
	d := newDatabase(t)
	d.LimitNames(1000)
	d.other.LimitNames(1000)
	var admitted atomic.Int64
	g, ctx := errgroup.WithContext(t.Context())
	for w := range 8 {
		db := d.DB
		if w%2 == 1 {
			db = d.other
		}
		g.Go(func() error {
			for i := range 5 {
				names := numbered(fmt.Sprint("junk ", w, i), 50)
				refusal, err := db.AdmitNames(ctx, namedOutcomes(names...))
				if err != nil {
					return err
				}
				admitted.Add(int64(len(names) - len(refusal.Names)))
				db.ForgetRefusal() // The others ask again.
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := admitted.Load(); n != 100 || scalar[int64](t, d.raw, `SELECT count(*) FROM outcome_names`) != n {
		t.Errorf("%d names are admitted, want 100", n)
	}
	wantRoom(t, d.DB, postgres.NameRoom{Known: 100, Limit: 1000, Left: 0})
	for _, db := range []*postgres.DB{d.DB, d.other} {
		if refusal := wantRefused(t, db, experiment.NamesPerHour, 100, 0, "signup"); refusal.Retry <= 0 || refusal.Retry > time.Hour {
			t.Errorf("try again in %v", refusal.Retry)
		}
	}
	// What is known is not new, even to a server that has not met it.
	known := list[string](t, d.raw, `SELECT name FROM outcome_names ORDER BY name`)
	wantRecorded(t, d.DB, known...)
	wantRecorded(t, d.other, known...)

	passHour(t, d)
	wantRefused(t, d.DB, experiment.NamesPerCall, 10, 10, numbered("later", 11)...)
	wantRecorded(t, d.other, "signup")
	wantRoom(t, d.DB, postgres.NameRoom{Known: 111, Limit: 1000, Left: 89})
}

func TestOutcomeNamesHaveALimit(t *testing.T) {
	d := newDatabase(t)
	wantRecorded(t, d.DB, "purchase")
	fill(t, d, postgres.DefaultOutcomeNames-3)
	results := recordOutcomes(t, d.other,
		named(outcome("f", 1, day(5), 1.0, ""), "d"),
		named(outcome("g", 1, day(5), 1.0, ""), "b"),
		outcome("h", 1, day(5), 1.0, ""),
		named(outcome("i", 1, day(5), 1.0, ""), "c"),
		named(outcome("i", 1, day(5), 1.0, ""), "d"), // Its identity comes second; a refused name decides first.
		named(outcome("j", 1, day(5), 1.0, ""), "filler 17"),
		named(outcome("k", 1, day(5), 1.0, ""), "b"),
	)
	want := []experiment.Result{limited, recorded, recorded, recorded, limited, recorded, recorded}
	if diff := cmp.Diff(want, results); diff != "" {
		t.Error(diff)
	}
	wantRoom(t, d.DB, postgres.NameRoom{Known: 10_000, Limit: 10_000, Left: 0})
	wantRefused(t, d.DB, experiment.NamesInAll, 10_000, 1, "c", "d")

	// The limit is the operator's, and takes effect at once.
	d.LimitNames(10_001)
	d.ForgetRefusal()
	wantRefused(t, d.DB, experiment.NamesInAll, 10_001, 2, "c", "d", "e")
	d.other.LimitNames(1)
	d.other.ForgetRefusal()
	wantRecorded(t, d.other, "d", "filler 33")
	wantRoom(t, d.other, postgres.NameRoom{Known: 10_001, Limit: 1, Left: 0})
}

// TestNamesTooManyCostNoQuery fills the names while another server is adding
// one. Once refused, names cost nothing: the table is locked, and nobody waits.
func TestNamesTooManyCostNoQuery(t *testing.T) {
	d := newDatabase(t)
	fill(t, d, postgres.DefaultOutcomeNames)
	exec(t, d.raw, `BEGIN`)
	exec(t, d.raw, `INSERT INTO outcome_names (name) VALUES ('late')`)
	refused := make(chan *experiment.NameRefusal, 1)
	go func() {
		refusal, err := d.AdmitNames(t.Context(), namedOutcomes("one too many"))
		if err != nil {
			t.Error(err)
		}
		refused <- refusal
	}()
	watcher := connect(t, d.url, "test")
	for scalar[int](t, watcher, `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'outcome_names'::regclass`) == 0 {
		time.Sleep(time.Millisecond)
	}
	exec(t, d.raw, `COMMIT`)
	if r := <-refused; r == nil || r.Limit != experiment.NamesInAll {
		t.Errorf("one too many: %+v", r)
	}
	d.KeepRefusal()
	exec(t, d.raw, `BEGIN`)
	exec(t, d.raw, `LOCK TABLE outcome_names`)
	items := []experiment.Outcome{named(outcome("f", 1, day(5), 1.0, ""), "late"), named(outcome("g", 1, day(5), 1.0, ""), "filler 17")}
	want := []experiment.Result{recorded, recorded}
	for i := range 9_998 {
		items = append(items, named(outcome(fmt.Sprint(i), 2, day(5), 1.0, ""), fmt.Sprint("flood ", i)))
		want = append(want, limited)
	}
	if diff := cmp.Diff(want, recordOutcomes(t, d.DB, items...)); diff != "" {
		t.Error(diff)
	}
	// But that is not for ever.
	exec(t, d.raw, `DELETE FROM outcome_names WHERE name IN ('filler 33', 'filler 34')`)
	exec(t, d.raw, `COMMIT`)
	d.ForgetRefusal()
	wantRecorded(t, d.DB, "one too many")
}

// TestFloodOfOutcomeNames sends two million names. As many as may be are
// recorded, and nothing stays in memory of the others.
func TestFloodOfOutcomeNames(t *testing.T) {
	const (
		names  = 2_000_000
		batch  = 100_000
		growth = 16 << 20 // Bytes. The names would take many times as much.
	)
	d := newDatabase(t)
	items := make([]experiment.Outcome, batch)
	var before uint64
	accepted := 0
	for from := 0; from < names; from += batch {
		for i := range items {
			name := "flood " + strconv.Itoa(from+i)
			items[i] = named(outcome(name, 1, day(5), 1.0, ""), name)
		}
		for i, result := range recordOutcomes(t, d.DB, items...) {
			switch result {
			case recorded:
				accepted++
			case limited:
			default:
				t.Fatalf("name %d: result %v", from+i, result)
			}
		}
		if from == 0 {
			before = heap()
		}
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM outcome_names`); n != postgres.DefaultOutcomeNames/10 || accepted != n {
		t.Errorf("%d names are recorded, and %d outcomes", n, accepted)
	}
	if after := heap(); after > before+growth {
		t.Errorf("%d bytes of heap after %d names, and %d after all %d", before, batch, after, names)
	}
}

// heap is how many of its bytes are in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // What pools keep survives the first.
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// What a metric or a covariate counts is admitted whatever the limits, as the metric
// would count nothing.
func TestDefinedNamesAreAdmitted(t *testing.T) {
	d := newDatabase(t)
	d.LimitNames(100)
	fill(t, d, 100)
	wantRefused(t, d.DB, experiment.NamesInAll, 100, 0, "visit")
	d.KeepRefusal()

	def := metric.Definition{Components: []experiment.Component{{Outcome: "order"}, {Outcome: "order"}, {Outcome: "never\x00recorded"}}}
	created, err := d.CreateMetric(t.Context(), "m", "", "", def)
	if err != nil {
		t.Fatal(err)
	}
	def.Components[0].Outcome = "refund"
	if _, err := d.UpdateMetric(t.Context(), "m", "", created.Version, func(*metric.Metric) (metric.Definition, error) { return def, nil }); err != nil {
		t.Fatal(err)
	}
	past := experiment.Definition{
		Unit: "user", Traffic: 1, Variants: []experiment.Variant{{Key: "a", Control: true, Weight: 1}, {Key: "b", Weight: 1}},
		Covariates: []experiment.Covariate{{Name: "visits", Past: &experiment.PastOutcomes{Component: experiment.Component{Outcome: "visit", Aggregate: experiment.AggregateCount}, Window: time.Hour}}},
	}
	createExperiment(t, d.DB, "e", past)
	wantRecorded(t, d.other, "order", "refund", "visit")
	wantRoom(t, d.DB, postgres.NameRoom{Known: 103, Limit: 100, Left: 0})
	d.ForgetRefusal()
	wantRecorded(t, d.DB, "visit", "order")
	wantRefused(t, d.DB, experiment.NamesInAll, 100, 0, "another")
}
func TestOutcomeNamesFromTwoServers(t *testing.T) {
	d := newDatabase(t)
	var items []experiment.Outcome
	for i := range 60 {
		items = append(items, named(outcome(fmt.Sprint(i), 1, day(5), 1.0, ""), fmt.Sprint("name ", i)))
	}
	fromWriters(t, d, seeded(1), items, (*postgres.DB).RecordOutcomes, func(experiment.Outcome, experiment.Result) bool { return true })
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM outcome_names`); n != len(items) {
		t.Errorf("%d names, want %d", n, len(items))
	}
	stored := list[string](t, d.raw, `SELECT n.name FROM outcomes o JOIN outcome_names n ON n.id = o.name_id WHERE o.row_id = ANY($1) ORDER BY o.row_id`,
		[][16]byte{items[3].RowID, items[40].RowID})
	slices.Sort(stored)
	if diff := cmp.Diff([]string{"name 3", "name 40"}, stored); diff != "" {
		t.Error(diff)
	}
}
