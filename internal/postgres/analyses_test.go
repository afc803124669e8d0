package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

func analysis(e *experiment.Experiment, n byte, created time.Time) *postgres.Analysis {
	return &postgres.Analysis{
		ID: [16]byte{n}, ExperimentID: e.ID, Revision: 1, AsOfTime: day(3), CreateTime: created,
		RequestHash: []byte{n}, Result: []byte{0, n, 255}, Moments: []byte(`{"x":"\u0000"}`),
	}
}

// same says how two analyses differ, the request and the moments apart, which
// are not read.
func same(want, got *postgres.Analysis) string {
	w := *want
	w.RequestHash, w.Moments = nil, nil
	g := *got
	g.AsOfTime, g.CreateTime = g.AsOfTime.UTC(), g.CreateTime.UTC()
	return cmp.Diff(w, g)
}

func TestSaveAnalysis(t *testing.T) {
	d := newDatabase(t)
	ctx := t.Context()
	e, f := createExperiment(t, d.DB, "e", definition()), createExperiment(t, d.DB, "f", definition())
	first := analysis(e, 1, day(4))
	if found, err := d.FindAnalysis(ctx, e.ID, first.RequestHash); found != nil || err != nil {
		t.Errorf("before: %v, %v", found, err)
	}
	saved, err := d.SaveAnalysis(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	if diff := same(first, saved); diff != "" {
		t.Error(diff)
	}
	rival := analysis(e, 2, day(5))
	rival.RequestHash = first.RequestHash
	if saved, err = d.other.SaveAnalysis(ctx, rival); err != nil {
		t.Fatal(err)
	}
	if diff := same(first, saved); diff != "" {
		t.Errorf("the second of a request: %s", diff)
	}
	elsewhere := analysis(f, 3, day(5))
	elsewhere.RequestHash = first.RequestHash
	if saved, err = d.SaveAnalysis(ctx, elsewhere); err != nil {
		t.Fatal(err)
	}
	if diff := same(elsewhere, saved); diff != "" {
		t.Errorf("the same request of another experiment: %s", diff)
	}
	got, err := d.other.Analysis(ctx, elsewhere.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := same(elsewhere, got); diff != "" {
		t.Error(diff)
	}
	_, err = d.Analysis(ctx, rival.ID)
	wantKind(t, err, experiment.ErrNotFound, "ANALYSIS_NOT_FOUND")
}

func TestSaveAnalysisAtOnce(t *testing.T) {
	d := newDatabase(t)
	e := createExperiment(t, d.DB, "e", definition())
	ids := make([][16]byte, 8)
	for _, err := range atOnce(len(ids), func(i int) error {
		a := analysis(e, byte(i+1), day(4))
		a.RequestHash = []byte("request")
		saved, err := []*postgres.DB{d.DB, d.other}[i%2].SaveAnalysis(context.Background(), a)
		if err == nil {
			ids[i] = saved.ID
		}
		return err
	}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("callers got different analyses: %v", ids)
		}
	}
}

func TestListAnalyses(t *testing.T) {
	d := newDatabase(t)
	e, f := createExperiment(t, d.DB, "e", definition()), createExperiment(t, d.DB, "f", definition())
	for n, created := range map[byte]time.Time{1: day(5), 2: day(4), 3: day(4), 4: day(4), 5: day(4).Add(time.Microsecond), 6: day(3)} {
		if _, err := d.SaveAnalysis(t.Context(), analysis(e, n, created)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.SaveAnalysis(t.Context(), analysis(f, 9, day(4))); err != nil {
		t.Fatal(err)
	}
	exec(t, d.raw, `DROP INDEX analyses_newest`) // The order is the query's own.
	for _, limit := range []int{1, 2, 3, 10} {
		var got []byte
		var last postgres.Analysis
		for {
			page, err := d.Analyses(t.Context(), e.ID, last.CreateTime, last.ID, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range page {
				got = append(got, a.ID[0])
			}
			if len(page) < limit {
				break
			}
			last = *page[len(page)-1]
		}
		if fmt.Sprint(got) != "[1 5 4 3 2 6]" {
			t.Errorf("in pages of %d: %v", limit, got)
		}
	}
}

// TestForgetAnalyses holds that what is forgotten is said to be, is not listed and still
// counts as a look, and that what decisions rest on and the newest stay.
func TestForgetAnalyses(t *testing.T) {
	d := newDatabase(t)
	ctx := t.Context()
	e, f := createExperiment(t, d.DB, "e", definition()), createExperiment(t, d.DB, "f", definition())
	save := func(of *experiment.Experiment, n byte, created time.Time, look int32) {
		a := analysis(of, n, created)
		a.AsOfTime, a.Analysed = created, 1
		if look > 0 {
			a.Look = &postgres.Look{AnalysisID: a.ID, AsOfTime: created, CreateTime: created}
			a.Look.Number = look
		}
		if _, err := d.SaveAnalysis(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	save(e, 1, day(1), 0)
	save(e, 2, day(2), 1)
	save(e, 3, day(3), 0) // A conclusion's.
	save(e, 4, day(4), 0)
	save(e, 5, day(20), 0)
	save(f, 6, day(1), 0) // The newest.
	exec(t, d.raw, `UPDATE experiments SET conclusion = '{"analysis_id":"03000000-0000-0000-0000-000000000000"}' WHERE key = 'e'`)
	looks, err := d.EarlyLooks(ctx, e.ID, 0, day(21))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.ForgetAnalyses(ctx, day(10)); err != nil {
			t.Fatal(err)
		}
	}
	for n := byte(1); n <= 6; n++ {
		forgotten := n == 1 || n == 4
		_, err := d.Analysis(ctx, [16]byte{n})
		_, again := d.FindAnalysis(ctx, map[bool]int32{true: e.ID, false: f.ID}[n < 6], []byte{n})
		for _, err := range []error{err, again} {
			var refusal *experiment.Error
			if forgotten != (errors.As(err, &refusal) && refusal.Reason == "ANALYSIS_EXPIRED" && errors.Is(err, experiment.ErrNotFound)) {
				t.Errorf("analysis %d: %v", n, err)
			}
		}
	}
	list, err := d.Analyses(ctx, e.ID, time.Time{}, [16]byte{}, 10)
	if err != nil || len(list) != 3 {
		t.Errorf("%d are listed, %v", len(list), err)
	}
	if _, err := d.SaveAnalysis(ctx, analysis(e, 1, day(21))); !errors.Is(err, experiment.ErrNotFound) {
		t.Errorf("the same request again: %v", err)
	}
	if now, err := d.EarlyLooks(ctx, e.ID, 0, day(21)); now != looks || err != nil {
		t.Errorf("%d early looks, were %d, %v", now, looks, err)
	}
}
