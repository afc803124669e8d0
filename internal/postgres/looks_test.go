package postgres_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
	"github.com/assayhq/assay/internal/postgres"
)

// looking is an analysis that takes a look.
func looking(e *experiment.Experiment, n byte, number int32) *postgres.Analysis {
	a := analysis(e, n, day(4))
	a.Look = &postgres.Look{Look: metric.Look{Number: number, Subjects: map[string]int64{"m": 10 * int64(number)}}, Author: "ana"}
	return a
}

func TestSaveLook(t *testing.T) {
	d := newDatabase(t)
	ctx := t.Context()
	e, f := createExperiment(t, d.DB, "e", definition()), createExperiment(t, d.DB, "f", definition())
	first := looking(e, 1, 1)
	if _, err := d.SaveAnalysis(ctx, first); err != nil {
		t.Fatal(err)
	}
	// The same request has it, whatever look it would have taken.
	again := looking(e, 2, 1)
	again.RequestHash = first.RequestHash
	if saved, err := d.other.SaveAnalysis(ctx, again); err != nil || saved.ID != first.ID {
		t.Errorf("the same request: %v, %v", saved, err)
	}
	for _, number := range []int32{1, 3} {
		rival := looking(e, 3, number)
		_, err := d.other.SaveAnalysis(ctx, rival)
		wantKind(t, err, experiment.ErrAborted, "LOOK_TAKEN")
		if found, err := d.FindAnalysis(ctx, e.ID, rival.RequestHash); found != nil || err != nil {
			t.Errorf("the analysis of a look that was not taken is stored: %v, %v", found, err)
		}
	}
	for _, a := range []*postgres.Analysis{looking(e, 4, 2), looking(f, 5, 1)} {
		if _, err := d.SaveAnalysis(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	got, err := d.other.Looks(ctx, e.ID)
	if err != nil {
		t.Fatal(err)
	}
	var want []postgres.Look
	for _, l := range []struct{ n, number byte }{{1, 1}, {4, 2}} {
		a := looking(e, l.n, int32(l.number))
		want = append(want, postgres.Look{Look: a.Look.Look, AnalysisID: a.ID, AsOfTime: a.AsOfTime, CreateTime: a.CreateTime})
	}
	for i := range got {
		got[i].AsOfTime, got[i].CreateTime = got[i].AsOfTime.UTC(), got[i].CreateTime.UTC()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("looks (-want +got):\n%s", diff)
	}
	if n := scalar[int](t, d.raw, `SELECT count(*) FROM audit_events WHERE action = 'take_look' AND author = 'ana'`); n != 3 {
		t.Errorf("%d looks in the audit, want 3", n)
	}
}

func TestSaveLookAtOnce(t *testing.T) {
	d := newDatabase(t)
	e := createExperiment(t, d.DB, "e", definition())
	taken := 0
	for _, err := range atOnce(8, func(i int) error {
		_, err := []*postgres.DB{d.DB, d.other}[i%2].SaveAnalysis(context.Background(), looking(e, byte(i+1), 1))
		return err
	}) {
		if err == nil {
			taken++
		} else if !errors.Is(err, experiment.ErrAborted) {
			t.Error(err)
		}
	}
	if looks, err := d.Looks(t.Context(), e.ID); taken != 1 || len(looks) != 1 || err != nil {
		t.Errorf("%d took the first look, and there are %v, %v", taken, looks, err)
	}
}
