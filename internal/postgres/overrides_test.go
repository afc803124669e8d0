package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

// pin returns the pins of subjects to a variant, or their ends.
func pin(variant string, subjects ...int) []postgres.Override {
	var pins []postgres.Override
	for _, n := range subjects {
		pins = append(pins, postgres.Override{SubjectID: subjectID(n), Variant: variant})
	}
	return pins
}

func setOverrides(t *testing.T, db *postgres.DB, pins ...postgres.Override) int {
	t.Helper()
	changed, err := db.SetOverrides(t.Context(), "e", "", pins)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func TestSetOverrides(t *testing.T) {
	d := newDatabase(t)
	e := createExperiment(t, d.DB, "e", definition())
	version := e.Version
	for _, step := range []struct {
		name string
		pins []postgres.Override
		want int
	}{
		{"set", pin("short", 1, 2, 3), 3},
		{"set again", pin("short", 1, 2, 3), 0},
		{"change one, keep one, add one, unpin one, unpin nobody",
			append(pin("control", 1), append(pin("short", 2, 4), pin("", 3, 5)...)...), 3},
		{"pin again what was unpinned", pin("short", 3), 1},
	} {
		if got := setOverrides(t, d.DB, step.pins...); got != step.want {
			t.Errorf("%s: %d changed, want %d", step.name, got, step.want)
		}
		now, err := d.Experiment(t.Context(), "e")
		if err != nil {
			t.Fatal(err)
		}
		if changed := now.Version != version; changed != (step.want > 0) {
			t.Errorf("%s: version %d after %d", step.name, now.Version, version)
		}
		version = now.Version
	}
	want := append(pin("control", 1), pin("short", 2, 3, 4)...)
	ignored := cmpopts.IgnoreFields(postgres.Override{}, "CreateTime")
	got, err := d.other.Overrides(t.Context(), e.ID, experiment.SubjectID{}, 10)
	if diff := cmp.Diff(want, got, ignored); diff != "" || err != nil {
		t.Errorf("in force: %s, %v", diff, err)
	}
	got, err = d.other.Overrides(t.Context(), e.ID, subjectID(1), 2)
	if diff := cmp.Diff(want[1:3], got, ignored); diff != "" || err != nil {
		t.Errorf("a page: %s, %v", diff, err)
	}
	kept := list[string](t, d.raw, `SELECT variant || CASE WHEN end_time IS NULL THEN '' WHEN end_time > create_time THEN ' ended' ELSE ' ended early' END
		FROM overrides WHERE subject_id = ANY($1) ORDER BY create_time, subject_id`, [][16]byte{subjectID(1), subjectID(3)})
	if diff := cmp.Diff([]string{"short ended", "short ended", "control", "short"}, kept); diff != "" {
		t.Errorf("history: %s", diff)
	}
	_, err = d.SetOverrides(t.Context(), "f", "", pin("short", 1))
	wantKind(t, err, experiment.ErrNotFound, "EXPERIMENT_NOT_FOUND")
}

func TestSetOverridesHasALimit(t *testing.T) {
	d := newDatabase(t)
	e := createExperiment(t, d.DB, "e", definition())
	createExperiment(t, d.DB, "f", definition())
	exec(t, d.raw, `INSERT INTO overrides (experiment_id, subject_id, variant, end_time)
		SELECT $1, gen_random_uuid(), 'short', CASE WHEN i > $2 THEN now() END FROM generate_series(1, $2 + 100) i`, e.ID, postgres.MaxOverrides-2)
	before := scalar[int](t, d.raw, `SELECT count(*) FROM overrides`)
	_, err := d.SetOverrides(t.Context(), "e", "", pin("short", 1, 2, 3))
	wantKind(t, err, experiment.ErrPrecondition, "TOO_MANY_OVERRIDES")
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM overrides`); n != before {
		t.Errorf("a refusal changed %d rows", n-before)
	}
	if n := setOverrides(t, d.DB, pin("short", 1, 2)...); n != 2 {
		t.Errorf("%d changed, want 2", n)
	}
	if n := setOverrides(t, d.DB, append(pin("", 1), pin("control", 2, 3)...)...); n != 3 {
		t.Errorf("%d changed, want 3", n)
	}
	if _, err := d.SetOverrides(t.Context(), "f", "", pin("short", 1)); err != nil {
		t.Errorf("another experiment: %v", err)
	}
}

func TestSetOverridesAtOnce(t *testing.T) {
	d := newDatabase(t)
	createExperiment(t, d.DB, "e", definition())
	for _, err := range atOnce(8, func(i int) error {
		return second([]*postgres.DB{d.DB, d.other}[i%2].SetOverrides(context.Background(), "e", "", pin([]string{"short", "control"}[i%2], 1, 2, 3)))
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	overlaps := scalar[int](t, d.raw, `SELECT count(*) FROM overrides a JOIN overrides b ON a.subject_id = b.subject_id AND a.create_time < b.create_time
		WHERE a.end_time IS NULL OR a.end_time > b.create_time`)
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM overrides WHERE end_time IS NULL`); n != 3 || overlaps != 0 {
		t.Errorf("%d in force, want 3; %d overlaps", n, overlaps)
	}
}

// TestOverrideAt pins a subject, pins it again, unpins it, and asks for each
// moment between.
func TestOverrideAt(t *testing.T) {
	d := newDatabase(t)
	e := createExperiment(t, d.DB, "e", definition())
	moments := []time.Time{time.Now()}
	for _, variant := range []string{"short", "control", "", "short"} {
		setOverrides(t, d.DB, pin(variant, 1)...)
		setOverrides(t, d.DB, pin("control", 2)...)
		moments = append(moments, time.Now())
	}
	for i, want := range []string{"", "short", "control", "", "short"} {
		got, err := d.OverrideAt(t.Context(), e.ID, subjectID(1), moments[i])
		if err != nil {
			t.Fatal(err)
		}
		if got[subjectID(1)] != want || want == "" && len(got) > 0 {
			t.Errorf("after step %d: %v, want %q", i, got, want)
		}
	}
}
