package postgres_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

// read reads pages until there are no more, and adds them to what is known. It
// returns what was read, as of the end, by id.
func read(ctx context.Context, db *postgres.DB, known map[string]*experiment.History) ([]experiment.History, error) {
	if known == nil {
		known = map[string]*experiment.History{}
	}
	changed := map[string]bool{}
	for {
		page, more, err := db.Histories(ctx, known)
		if err != nil {
			return nil, err
		}
		for i := range page {
			known[page[i].Experiment.Key], changed[page[i].Experiment.Key] = &page[i], true
		}
		if more {
			continue
		}
		list := []experiment.History{}
		for key := range changed {
			list = append(list, *known[key])
		}
		slices.SortFunc(list, func(a, b experiment.History) int { return int(a.Experiment.ID - b.Experiment.ID) })
		return list, nil
	}
}

func allHistories(ctx context.Context, db *postgres.DB) ([]experiment.History, error) {
	return read(ctx, db, nil)
}

func histories(t *testing.T, db *postgres.DB, known map[string]*experiment.History) []experiment.History {
	t.Helper()
	list, err := read(t.Context(), db, known)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// update changes the description of e.
func update(t testing.TB, db *postgres.DB, description string) *experiment.Experiment {
	t.Helper()
	e, err := db.UpdateExperiment(t.Context(), "e", 0, described(description))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestHistories(t *testing.T) {
	d := newDatabase(t)
	ctx := t.Context()
	if got, err := allHistories(ctx, d.DB); err != nil || len(got) != 0 {
		t.Errorf("of nothing: %v, %v", got, err)
	}
	createMetrics(t, d.DB, "m")
	first := createExperiment(t, d.DB, "e", definition("m"))
	plain := createExperiment(t, d.DB, "a", definition())
	update(t, d.DB, "two") // Before the start nobody can be exposed to it.
	updated := update(t, d.DB, "three")
	started := transition(t, d.DB, "e", start)
	setOverrides(t, d.DB, pin("short", 1, 2, 3)...)
	setOverrides(t, d.DB, append(pin("control", 2), pin("", 3)...)...)
	now, err := d.Experiment(ctx, "e")
	if err != nil {
		t.Fatal(err)
	}

	ofE := experiment.History{
		Experiment: *now,
		Revisions:  []experiment.Terms{updated.Current.Terms()},
		Transitions: []experiment.Transition{
			{State: experiment.StateDraft, Time: first.CreateTime}, {State: experiment.StateRunning, Time: started.StartTime},
		},
		Overrides: map[experiment.SubjectID]string{subjectID(1): "short", subjectID(2): "control"},
	}
	ofA := experiment.History{
		Experiment:  *plain,
		Revisions:   []experiment.Terms{plain.Current.Terms()},
		Transitions: []experiment.Transition{{State: experiment.StateDraft, Time: plain.CreateTime}},
	}
	known := func(versions map[string]int64) map[string]*experiment.History {
		histories := map[string]*experiment.History{}
		for key, version := range versions {
			histories[key] = &experiment.History{Experiment: experiment.Experiment{Key: key, Version: version}}
		}
		return histories
	}
	for _, c := range []struct {
		name  string
		known map[string]int64
		want  []experiment.History
	}{
		{"nothing known", nil, []experiment.History{ofE, ofA}},
		{"all known", map[string]int64{"e": now.Version, "a": plain.Version}, []experiment.History{}},
		{"one changed", map[string]int64{"e": started.Version, "a": plain.Version}, []experiment.History{ofE}},
		{"one new", map[string]int64{"e": now.Version}, []experiment.History{ofA}},
		{"one that is gone", map[string]int64{"e": now.Version, "a": plain.Version, "x": 1}, []experiment.History{}},
	} {
		got, err := read(ctx, d.other, known(c.known))
		if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(experiment.History{}, "Pinned")); diff != "" || err != nil {
			t.Errorf("%s: %v, %s", c.name, err, diff)
		}
	}
}

// TestHistoriesGoOn follows an experiment through its life, as a server does, with a
// page for each few revisions, and compares each state with one that was read whole.
func TestHistoriesGoOn(t *testing.T) {
	postgres.SetPage(t, 2, 1)
	d := newDatabase(t)
	ctx := t.Context()
	createLayer(t, d.DB, "l")
	def := definition()
	def.Layer, def.Traffic = "l", 0.1
	createExperiment(t, d.DB, "e", def)
	createExperiment(t, d.DB, "other", definition())
	if _, err := d.CreateHoldout(ctx, "", "", experiment.Holdout{Key: "h", Unit: "user", Share: 0.1, Salt: "h", Kind: experiment.HoldoutStatusQuo}, experiment.RunningRefuse); err != nil {
		t.Fatal(err)
	}
	traffic := func(share float64) {
		if _, err := d.UpdateExperiment(ctx, "e", 0, func(e *experiment.Experiment) (experiment.Revision, error) {
			def := e.Current.Definition
			def.Traffic = share
			next, _, err := e.Current.Next(def, false)
			return next, err
		}); err != nil {
			t.Fatal(err)
		}
	}
	known := map[string]*experiment.History{}
	for i, step := range []func(){
		func() {},
		func() { update(t, d.DB, "a draft") },
		func() { update(t, d.DB, "another"); transition(t, d.DB, "e", start); traffic(0.2) },
		func() { setOverrides(t, d.DB, pin("short", 1, 2)...) },
		func() {
			for i := range 250 {
				update(t, d.DB, fmt.Sprint("text ", i))
			}
		},
		func() { traffic(0.3) },
		func() { setOverrides(t, d.DB, append(pin("control", 1), pin("", 2)...)...) },
		func() { transition(t, d.DB, "e", postgres.StateChange{To: experiment.StatePaused}) },
		func() {
			if _, err := d.UpdateHoldout(ctx, "h", "", 0, func(h *experiment.Holdout) (experiment.Holdout, error) {
				next := *h
				next.EndTime = time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
				return next, nil
			}); err != nil {
				t.Fatal(err)
			}
		},
		func() { setOverrides(t, d.DB, pin("", 1)...) },
		func() { transition(t, d.DB, "e", postgres.StateChange{To: experiment.StateConcluded}) },
		func() { transition(t, d.DB, "e", postgres.StateChange{To: experiment.StateArchived}) },
	} {
		step()
		before := maps.Clone(known)
		if _, err := read(ctx, d.DB, known); err != nil {
			t.Fatal(err)
		}
		whole, err := allHistories(ctx, d.other)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(whole, []experiment.History{*known["e"], *known["other"]}, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("step %d (-whole +followed):\n%s", i, diff)
		}
		if i > 0 && before["other"] != known["other"] {
			t.Errorf("step %d: what has not changed was read", i)
		}
	}
	h := known["e"]
	if len(h.Revisions) != 253 || len(h.Slots) != 3 || len(h.Transitions) != 5 || len(h.Coverages) != 1 {
		t.Errorf("%d revisions, %d slots, %d transitions, %d coverages", len(h.Revisions), len(h.Slots), len(h.Transitions), len(h.Coverages))
	}
	rules := map[*experiment.Rules]bool{}
	for _, r := range h.Revisions {
		rules[r.Rules] = true
	}
	if len(rules) != 1 {
		t.Errorf("revisions of one split have %d copies of it", len(rules))
	}
}

// TestHistoriesReadWhatIsNew counts the bytes that come from the database after a
// change: with 500 revisions, 100 resumptions and 5,000 pins behind it, they are as
// many as without.
func TestHistoriesReadWhatIsNew(t *testing.T) {
	d := newDatabase(t)
	createExperiment(t, d.DB, "e", definition())
	transition(t, d.DB, "e", start)
	counted, bytes := countBytes(t, d.url)
	known := map[string]*experiment.History{}
	change := func(i int) int64 {
		update(t, d.DB, fmt.Sprintf("text %9d", i))
		before := bytes.Load()
		if _, err := read(t.Context(), counted, known); err != nil {
			t.Fatal(err)
		}
		return bytes.Load() - before
	}
	change(0)
	change(1) // The statements are known.
	first := change(2)
	for i := range 500 {
		update(t, d.DB, fmt.Sprint("text ", i))
	}
	for range 100 {
		transition(t, d.DB, "e", postgres.StateChange{To: experiment.StatePaused})
		transition(t, d.DB, "e", postgres.StateChange{From: experiment.StatePaused, To: experiment.StateRunning})
	}
	for from := range 5 {
		var ids []int
		for i := range 1000 {
			ids = append(ids, 1000*from+i)
		}
		setOverrides(t, d.DB, pin("short", ids...)...)
	}
	catchUp := change(3)
	last := change(4)
	t.Logf("%d bytes at first, %d to catch up, %d at last", first, catchUp, last)
	if n := len(known["e"].Revisions); n != 506 || len(known["e"].Overrides) != 5000 {
		t.Errorf("%d revisions, %d pins", n, len(known["e"].Overrides))
	}
	if catchUp < 20*first || float64(last) > 1.2*float64(first) {
		t.Errorf("a change takes %d bytes at first, and %d at last", first, last)
	}
}

// countBytes returns the database by a way that counts what comes from it.
func countBytes(t *testing.T, url string) (*postgres.DB, *atomic.Int64) {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	var count atomic.Int64
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			network, address := pgNetwork(config)
			server, err := net.Dial(network, address)
			if err != nil {
				client.Close()
				return
			}
			go func() { io.Copy(server, client); server.Close() }()
			go func() { io.Copy(io.MultiWriter(client, counter{&count}), server); client.Close() }()
		}
	}()
	db := openURL(t, fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", config.User, config.Password, listener.Addr(), config.Database))
	return db, &count
}

func pgNetwork(c *pgx.ConnConfig) (network, address string) {
	if strings.HasPrefix(c.Host, "/") {
		return "unix", fmt.Sprintf("%s/.s.PGSQL.%d", c.Host, c.Port)
	}
	return "tcp", net.JoinHostPort(c.Host, fmt.Sprint(c.Port))
}

type counter struct{ *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.Add(int64(len(p)))
	return len(p), nil
}

// TestHistoriesOfUndecodable: an experiment whose JSON is not as this release knows
// it keeps no other from being read, whichever part of it is odd.
func TestHistoriesOfUndecodable(t *testing.T) {
	d := newDatabase(t)
	for _, key := range []string{"definition", "allocation", "pins", "older", "terms", "e"} {
		createExperiment(t, d.DB, key, definition())
		if key != "e" {
			transition(t, d.DB, key, start)
			if _, err := d.UpdateExperiment(t.Context(), key, 0, described("two")); err != nil {
				t.Fatal(err)
			}
		}
	}
	const of = ` WHERE experiment_id = (SELECT id FROM experiments WHERE key = $1)`
	exec(t, d.raw, `UPDATE experiment_revisions SET definition = '{"variants":7}'`+of+` AND revision = 2`, "definition")
	exec(t, d.raw, `UPDATE experiment_revisions SET allocation = '"none"'`+of+` AND revision = 2`, "allocation")
	exec(t, d.raw, `UPDATE experiments SET pins = '[]' WHERE key = $1`, "pins")
	exec(t, d.raw, `UPDATE experiment_revisions SET definition = '7', terms = NULL`+of+` AND revision = 1`, "older")
	exec(t, d.raw, `UPDATE experiment_revisions SET terms = '{}'`+of+` AND revision = 1`, "terms")
	list, err := allHistories(t.Context(), d.DB)
	if err != nil {
		t.Fatal(err)
	}
	var faults []string
	for _, h := range list {
		fault, _, _ := strings.Cut(h.Fault, ": json")
		faults = append(faults, h.Experiment.Key+": "+fault)
	}
	if diff := cmp.Diff([]string{"definition: revision 2: definition", "allocation: revision 2: allocation", "pins: experiment pins: pins",
		"older: revision 1: definition", "terms: revision 1: terms: there are no rules", "e: "}, faults); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// Mended, it is read whole.
	known := map[string]*experiment.History{}
	for i := range list {
		known[list[i].Experiment.Key] = &list[i]
	}
	exec(t, d.raw, `UPDATE experiments SET pins = '{}', version = nextval('definition_version') WHERE key = 'pins'`)
	if got, err := read(t.Context(), d.DB, known); err != nil || len(got) != 1 || got[0].Fault != "" || len(got[0].Revisions) != 2 || len(got[0].Transitions) != 2 {
		t.Errorf("mended: %+v, %v", got, err)
	}
}

// TestTermsOfEarlierRelease: revisions that were stored without their terms have the
// same ones, before maintenance completes them and after. What cannot be decoded, it
// leaves.
func TestTermsOfEarlierRelease(t *testing.T) {
	postgres.SetPage(t, 10, 1)
	d := newDatabase(t)
	createExperiment(t, d.DB, "e", definition())
	transition(t, d.DB, "e", start)
	for i := range 130 {
		update(t, d.DB, fmt.Sprint("text ", i))
	}
	want, err := allHistories(t.Context(), d.DB)
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, missing int) {
		t.Helper()
		got, err := allHistories(t.Context(), d.DB)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", when, err, diff)
		}
		if n := scalar[int](t, d.raw, `SELECT count(*) FROM experiment_revisions WHERE terms IS NULL`); n != missing {
			t.Errorf("%s: %d revisions are without terms, want %d", when, n, missing)
		}
	}
	exec(t, d.raw, `UPDATE experiment_revisions SET terms = NULL WHERE revision < 125`)
	createExperiment(t, d.DB, "odd", definition())
	exec(t, d.raw, `UPDATE experiment_revisions SET definition = '7', terms = NULL WHERE experiment_id = (SELECT id FROM experiments WHERE key = 'odd')`)
	odd, err := allHistories(t.Context(), d.DB)
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, odd[1])
	check("before", 125)
	if err := d.Maintain(t.Context(), time.Now(), 0); err != nil {
		t.Fatal(err)
	}
	check("after", 1)
}
