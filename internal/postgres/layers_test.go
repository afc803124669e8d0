package postgres_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

func createLayer(t *testing.T, db *postgres.DB, key string) *experiment.Layer {
	t.Helper()
	l, err := db.CreateLayer(t.Context(), "", "", experiment.Layer{Key: key, Unit: "user", Salt: key})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// createIn creates a draft in a layer.
func createIn(t *testing.T, db *postgres.DB, layer, key string, traffic float64) *experiment.Experiment {
	t.Helper()
	def := definition()
	def.Layer, def.Traffic = layer, traffic
	return createExperiment(t, db, key, def)
}

func startLayered(t *testing.T, db *postgres.DB, key string) error {
	t.Helper()
	_, err := db.TransitionExperiment(t.Context(), key, 0, start)
	return err
}

// withTraffic is the change to another traffic.
func withTraffic(traffic float64) func(*experiment.Experiment) (experiment.Revision, error) {
	return func(e *experiment.Experiment) (experiment.Revision, error) {
		next := e.Current
		next.Number++
		next.Definition.Traffic = traffic
		return next, nil
	}
}

func wantSlots(t *testing.T, db *postgres.DB, layer string, want ...experiment.LayerSlot) {
	t.Helper()
	l, err := db.Layer(t.Context(), layer)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, l.Slots, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("slots of %s (-want +got):\n%s", layer, diff)
	}
}

func slot(key string, bounds ...int32) experiment.LayerSlot {
	s := experiment.LayerSlot{Experiment: key}
	for i := 0; i < len(bounds); i += 2 {
		s.Ranges = append(s.Ranges, experiment.Range{From: bounds[i], To: bounds[i+1]})
	}
	return s
}

var conclude = postgres.StateChange{To: experiment.StateConcluded}

// TestSlotsOfALayer takes a layer through starts, ends and changes of traffic.
func TestSlotsOfALayer(t *testing.T) {
	d := newDatabase(t)
	createLayer(t, d.DB, "l")
	createLayer(t, d.DB, "m")
	for key, traffic := range map[string]float64{"a": 0.2, "b": 0.3, "c": 0.4, "d": 0.35} {
		createIn(t, d.DB, "l", key, traffic)
	}
	createIn(t, d.DB, "m", "elsewhere", 1)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	full := func(err error, says string) {
		t.Helper()
		if wantKind(t, err, experiment.ErrPrecondition, "LAYER_FULL"); !strings.Contains(err.Error(), says) {
			t.Fatalf("the message %q does not say %q", err, says)
		}
	}
	wantSlots(t, d.DB, "l")
	must(startLayered(t, d.DB, "a"))
	must(startLayered(t, d.other, "b"))
	must(startLayered(t, d.DB, "c"))
	must(startLayered(t, d.DB, "elsewhere"))
	wantSlots(t, d.DB, "l", slot("a", 0, 200_000), slot("b", 200_000, 500_000), slot("c", 500_000, 900_000))
	wantSlots(t, d.DB, "m", slot("elsewhere", 0, 1_000_000))
	full(startLayered(t, d.DB, "d"), "another 10 % of its subjects, and this needs 35 %")
	if e, err := d.Experiment(t.Context(), "d"); err != nil || e.State != experiment.StateDraft || e.PlanHash != "" || e.Slot != nil {
		t.Fatalf("a start that did not fit left %+v, %v", e, err)
	}

	// Paused, an experiment keeps its slot.
	paused := transition(t, d.DB, "b", postgres.StateChange{To: experiment.StatePaused})
	if diff := cmp.Diff(slot("b", 200_000, 500_000).Ranges, paused.Slot.Ranges); diff != "" {
		t.Fatal(diff)
	}
	full(startLayered(t, d.DB, "d"), "another 10 %")
	if concluded := transition(t, d.DB, "b", conclude); concluded.Slot != nil {
		t.Fatalf("concluded with the slot %v", concluded.Slot)
	}
	must(startLayered(t, d.other, "d"))
	wantSlots(t, d.DB, "l", slot("a", 0, 200_000), slot("c", 500_000, 900_000), slot("d", 200_000, 500_000, 900_000, 950_000))

	_, err := d.UpdateExperiment(t.Context(), "a", 0, withTraffic(0.251))
	full(err, "another 5 % of its subjects, and this needs 5.1 %")
	before, err := d.Experiment(t.Context(), "a")
	must(err)
	raised, err := d.UpdateExperiment(t.Context(), "a", 0, withTraffic(0.25))
	must(err)
	if raised.Version <= before.Version || raised.Current.Number != 2 || raised.Current.Phase != 1 {
		t.Errorf("raised: %+v after %+v", raised, before)
	}
	wantSlots(t, d.DB, "l", slot("a", 0, 200_000, 950_000, 1_000_000), slot("c", 500_000, 900_000), slot("d", 200_000, 500_000, 900_000, 950_000))
	if _, err := d.UpdateExperiment(t.Context(), "c", 0, withTraffic(0.1)); err != nil {
		t.Fatal(err)
	}
	transition(t, d.DB, "d", conclude)
	wantSlots(t, d.DB, "l", slot("a", 0, 200_000, 950_000, 1_000_000), slot("c", 500_000, 600_000))
	l, err := d.Layer(t.Context(), "l")
	if must(err); l.Free() != 650_000 {
		t.Errorf("%d buckets are free", l.Free())
	}

	// What assignment reads.
	histories, err := allHistories(t.Context(), d.DB)
	must(err)
	got := map[string][]experiment.Range{}
	for _, h := range histories {
		if h.Experiment.Key == "d" {
			checkPeriods(t, h)
		}
		if h.Experiment.Slot != nil {
			got[h.Experiment.Slot.Salt+" "+h.Experiment.Key] = h.Experiment.Slot.Ranges
		}
	}
	if diff := cmp.Diff(map[string][]experiment.Range{
		"l a": slot("", 0, 200_000, 950_000, 1_000_000).Ranges, "l c": slot("", 500_000, 600_000).Ranges, "m elsewhere": slot("", 0, 1_000_000).Ranges,
	}, got); diff != "" {
		t.Errorf("slots in the histories (-want +got):\n%s", diff)
	}
	checkSlotHistory(t, d)
}

// checkPeriods checks the slots of an experiment that was started and concluded.
func checkPeriods(t *testing.T, h experiment.History) {
	t.Helper()
	want := []experiment.SlotPeriod{{
		Slot:     experiment.Slot{Salt: "l", Ranges: slot("", 200_000, 500_000, 900_000, 950_000).Ranges},
		FromTime: h.Transitions[1].Time, EndTime: h.Transitions[2].Time,
	}}
	if diff := cmp.Diff(want, h.Slots); diff != "" {
		t.Errorf("periods of the slot (-want +got):\n%s", diff)
	}
}

// checkSlotHistory checks that at no time two experiments of a layer held one
// bucket, and that slots began and ended with changes of their experiments.
func checkSlotHistory(t *testing.T, d *database) {
	t.Helper()
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM layer_slots a JOIN layer_slots b ON a.layer_id = b.layer_id AND a.ctid < b.ctid
		AND a.from_bucket < b.to_bucket AND b.from_bucket < a.to_bucket
		AND a.from_time < coalesce(b.end_time, 'infinity') AND b.from_time < coalesce(a.end_time, 'infinity')`); n != 0 {
		t.Errorf("%d pairs of ranges overlapped at some time", n)
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM layer_slots s WHERE NOT EXISTS (SELECT FROM experiment_transitions x WHERE x.experiment_id = s.experiment_id AND x.time = s.from_time)
		AND NOT EXISTS (SELECT FROM experiment_revisions r WHERE r.experiment_id = s.experiment_id AND r.create_time = s.from_time)
		OR end_time <= from_time`); n != 0 {
		t.Errorf("%d ranges began with no change", n)
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM layer_slots`); n < 2 {
		t.Errorf("only %d rows", n)
	}
}

// TestUpdateOfADraftTakesNoSlot, nor does one without a layer ever.
func TestUpdateOfADraftTakesNoSlot(t *testing.T) {
	d := newDatabase(t)
	createLayer(t, d.DB, "l")
	createIn(t, d.DB, "l", "draft", 0.5)
	createIn(t, d.DB, "", "alone", 0.5)
	if _, err := d.UpdateExperiment(t.Context(), "draft", 0, withTraffic(0.6)); err != nil {
		t.Fatal(err)
	}
	if err := startLayered(t, d.DB, "alone"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.UpdateExperiment(t.Context(), "alone", 0, withTraffic(0.6)); err != nil {
		t.Fatal(err)
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM layer_slots`); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// TestConcurrentSlots starts experiments at once on two servers, raises and ends
// others meanwhile, and looks for buckets handed out twice.
func TestConcurrentSlots(t *testing.T) {
	d := newDatabase(t)
	servers := []*postgres.DB{d.DB, d.other}
	r := seeded(7)
	fitted, refused := 0, 0
	for round := range 25 {
		layer := fmt.Sprint("l-", round)
		createLayer(t, d.DB, layer)
		const n = 6
		total := 0
		widths := map[string]int32{}
		for i := range n {
			key, hundredths := fmt.Sprintf("e-%d-%d", round, i), 5+r.IntN(45)
			createIn(t, d.DB, layer, key, float64(hundredths)/100)
			widths[key] = int32(hundredths) * 10_000
			total += hundredths
		}
		var all sync.WaitGroup
		errs := make([]error, n)
		for i := range n {
			all.Go(func() {
				key := fmt.Sprintf("e-%d-%d", round, i)
				if _, errs[i] = servers[i%2].TransitionExperiment(t.Context(), key, 0, start); errs[i] != nil || i > 1 {
					return
				}
				if i == 0 {
					_, errs[i] = servers[1].TransitionExperiment(t.Context(), key, 0, conclude)
					return
				}
				_, err := servers[0].UpdateExperiment(t.Context(), key, 0, withTraffic(0.6))
				if err != nil && !errors.Is(err, experiment.ErrPrecondition) {
					errs[i] = err
				}
			})
		}
		all.Wait()
		l, err := d.Layer(t.Context(), layer)
		if err != nil {
			t.Fatal(err)
		}
		holds := map[string]int32{}
		for _, s := range l.Slots {
			holds[s.Experiment] = (&experiment.Slot{Ranges: s.Ranges}).Width()
		}
		for i, err := range errs {
			key := fmt.Sprintf("e-%d-%d", round, i)
			switch {
			case err != nil:
				refused++
				wantKind(t, err, experiment.ErrPrecondition, "LAYER_FULL")
				if holds[key] != 0 {
					t.Errorf("%s was refused and holds %d buckets", key, holds[key])
				}
			case i == 0 && holds[key] != 0 || i > 1 && holds[key] != widths[key] || i == 1 && holds[key] != widths[key] && holds[key] != 600_000:
				t.Errorf("%s holds %d buckets, its traffic is %d", key, holds[key], widths[key])
			default:
				fitted++
			}
		}
		if l.Free() < 0 {
			t.Errorf("%d buckets too many", -l.Free())
		}
	}
	if fitted < 25 || refused < 10 {
		t.Errorf("only %d starts fitted and %d were refused", fitted, refused)
	}
	checkSlotHistory(t, d)
}

// TestTwoStarts of which only one fits, held at the layer's lock together.
func TestTwoStarts(t *testing.T) {
	d := newDatabase(t)
	createLayer(t, d.DB, "l")
	createIn(t, d.DB, "l", "a", 0.6)
	createIn(t, d.DB, "l", "b", 0.6)
	tx, err := d.raw.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM layers FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 2)
	for i, key := range []string{"a", "b"} {
		go func() {
			_, err := []*postgres.DB{d.DB, d.other}[i].TransitionExperiment(t.Context(), key, 0, start)
			started <- err
		}()
	}
	watch := connect(t, d.url, "watch")
	waitFor(t, watch, `SELECT count(*) = 2 FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = 'assay' AND wait_event_type = 'Lock'`)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, second := <-started, <-started
	if first == nil {
		first = second
	} else if second != nil {
		t.Fatal(second)
	}
	wantKind(t, first, experiment.ErrPrecondition, "LAYER_FULL")
}

func TestCreateAndUpdateLayer(t *testing.T) {
	d := newDatabase(t)
	wanted := experiment.Layer{Key: "l", Unit: "account", Salt: "salt", Description: "<é>"}
	created, err := d.CreateLayer(t.Context(), "r", "", wanted)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&wanted, created, cmpopts.IgnoreFields(experiment.Layer{}, "ID", "Version", "CreateTime", "UpdateTime")); diff != "" || created.Version == 0 || created.CreateTime.IsZero() {
		t.Errorf("created %+v (-want +got):\n%s", created, diff)
	}
	if again, err := d.CreateLayer(t.Context(), "r", "", wanted); err != nil || again.ID != created.ID {
		t.Errorf("the same request again: %+v, %v", again, err)
	}
	for request, key := range map[string]string{"": "l", "s": "l", "r": "other"} {
		_, err := d.CreateLayer(t.Context(), request, "", experiment.Layer{Key: key, Unit: "user", Salt: key})
		wantKind(t, err, experiment.ErrAlreadyExists, "LAYER_EXISTS")
	}
	to := func(description, salt string) func(*experiment.Layer) (experiment.Layer, error) {
		return func(now *experiment.Layer) (experiment.Layer, error) {
			next := *now
			next.Description, next.Salt = description, salt
			return next, nil
		}
	}
	same, err := d.UpdateLayer(t.Context(), "l", "", created.Version, to("<é>", "salt"))
	if err != nil || same.Version != created.Version {
		t.Fatalf("unchanged: %+v, %v", same, err)
	}
	salted, err := d.UpdateLayer(t.Context(), "l", "", created.Version, to("new", "pepper"))
	if err != nil || salted.Salt != "pepper" || salted.Description != "new" || salted.Version <= created.Version || !salted.UpdateTime.After(created.UpdateTime) {
		t.Fatalf("changed: %+v, %v", salted, err)
	}
	_, err = d.UpdateLayer(t.Context(), "l", "", created.Version, to("newer", "pepper"))
	wantKind(t, err, experiment.ErrAborted, "ETAG_MISMATCH")
	_, err = d.UpdateLayer(t.Context(), "m", "", 0, to("", ""))
	wantKind(t, err, experiment.ErrNotFound, "LAYER_NOT_FOUND")
	_, err = d.Layer(t.Context(), "m")
	wantKind(t, err, experiment.ErrNotFound, "LAYER_NOT_FOUND")

	// Once a slot was handed out, the salt stays, though the slot is free again.
	def := definition()
	def.Unit, def.Layer, def.Traffic = "account", "l", 0.1
	createExperiment(t, d.DB, "e", def)
	transition(t, d.DB, "e", start)
	transition(t, d.DB, "e", conclude)
	_, err = d.UpdateLayer(t.Context(), "l", "", 0, to("new", "salt"))
	wantKind(t, err, experiment.ErrPrecondition, "LAYER_USED")
	if _, err := d.UpdateLayer(t.Context(), "l", "", salted.Version, to("newest", "pepper")); err != nil {
		t.Errorf("another description of a layer in use, by an etag from before: %v", err)
	}
	for _, key := range []string{"k", "n", "m"} {
		createLayer(t, d.DB, key)
	}
	list, err := d.Layers(t.Context(), "k", 2)
	if err != nil || len(list) != 2 || list[0].Key != "l" || list[1].Key != "m" {
		t.Errorf("listed %v, %v", list, err)
	}
}

func TestLayerOfADefinition(t *testing.T) {
	d := newDatabase(t)
	createLayer(t, d.DB, "l")
	def := definition("nothing")
	def.Layer = "m"
	_, err := d.CreateExperiment(t.Context(), "e", "", "", def)
	wantInvalid(t, err, "metrics[0].metric", "layer")
	def = definition()
	def.Layer, def.Unit = "l", "account"
	_, err = d.CreateExperiment(t.Context(), "e", "", "", def)
	wantInvalid(t, err, "layer")
	createIn(t, d.DB, "l", "e", 1)
	_, err = d.UpdateExperiment(t.Context(), "e", 0, func(e *experiment.Experiment) (experiment.Revision, error) {
		next := e.Current
		next.Number++
		next.Definition.Unit = "account"
		return next, nil
	})
	wantInvalid(t, err, "layer")
}
