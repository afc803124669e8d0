package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
	"github.com/assayhq/assay/internal/postgres"
)

func TestMetricRevisions(t *testing.T) {
	d := newDatabase(t)
	ctx := t.Context()
	def := metric.Sum("purchase", []experiment.Condition{{Field: "a\x00", Op: experiment.OpEqual, Values: []string{"\x00", "b"}}})
	def.Direction, def.Window, def.Description = metric.DirectionIncrease, 14*24*time.Hour, "NUL \x00"
	made, err := d.CreateMetric(ctx, "m", "", "", def)
	if err != nil {
		t.Fatal(err)
	}
	want := &metric.Metric{Key: "m", Revision: 1, Version: made.Version, CreateTime: made.CreateTime, UpdateTime: made.CreateTime, Definition: def}
	if diff := cmp.Diff(want, made); diff != "" {
		t.Error(diff)
	}
	updated, err := d.UpdateMetric(ctx, "m", "", made.Version, func(m *metric.Metric) (metric.Definition, error) {
		next := m.Definition
		next.Window = time.Hour
		return next, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want = &metric.Metric{Key: "m", Revision: 2, Version: updated.Version, CreateTime: made.CreateTime, UpdateTime: updated.UpdateTime, Definition: def}
	want.Definition.Window = time.Hour
	if diff := cmp.Diff(want, updated); diff != "" || updated.Version <= made.Version || !updated.UpdateTime.After(made.UpdateTime) {
		t.Errorf("updated: %s", diff)
	}
	same, err := d.UpdateMetric(ctx, "m", "", 0, func(m *metric.Metric) (metric.Definition, error) { return m.Definition, nil })
	if diff := cmp.Diff(updated, same); diff != "" || err != nil {
		t.Errorf("an update that changes nothing: %s, %v", diff, err)
	}
	first, err := d.other.Metric(ctx, "m", 1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(def, first.Definition); diff != "" || first.Revision != 1 {
		t.Errorf("the first revision changed: %s", diff)
	}
	_, err = d.Metric(ctx, "m", 3)
	wantKind(t, err, experiment.ErrNotFound, "METRIC_NOT_FOUND")
	_, err = d.Metric(ctx, "n", 0)
	wantKind(t, err, experiment.ErrNotFound, "METRIC_NOT_FOUND")
	_, err = d.UpdateMetric(ctx, "n", "", 0, nil)
	wantKind(t, err, experiment.ErrNotFound, "METRIC_NOT_FOUND")
	_, err = d.UpdateMetric(ctx, "m", "", made.Version, nil)
	wantKind(t, err, experiment.ErrAborted, "ETAG_MISMATCH")
	_, err = d.ArchiveMetric(ctx, "m", "", made.Version)
	wantKind(t, err, experiment.ErrAborted, "ETAG_MISMATCH")

	archived, err := d.ArchiveMetric(ctx, "m", "", updated.Version)
	if err != nil {
		t.Fatal(err)
	}
	want.Archived, want.Version = true, archived.Version
	if diff := cmp.Diff(want, archived); diff != "" || archived.Version <= updated.Version {
		t.Errorf("archived: %s", diff)
	}
	again, err := d.ArchiveMetric(ctx, "m", "", 0)
	if diff := cmp.Diff(archived, again); diff != "" || err != nil {
		t.Errorf("archived again: %s, %v", diff, err)
	}
	_, err = d.UpdateMetric(ctx, "m", "", 0, nil)
	wantKind(t, err, experiment.ErrPrecondition, "METRIC_ARCHIVED")
}

func TestCreateMetricTwice(t *testing.T) {
	d := newDatabase(t)
	ctx := t.Context()
	first, err := d.CreateMetric(ctx, "m", "request", "", metric.Proportion("purchase", nil))
	if err != nil {
		t.Fatal(err)
	}
	again, err := d.other.CreateMetric(ctx, "m", "request", "", metric.Sum("refund", nil))
	if diff := cmp.Diff(first, again); diff != "" || err != nil {
		t.Errorf("the same request: %s, %v", diff, err)
	}
	for _, c := range []struct{ key, request string }{{"m", "request 2"}, {"m", ""}, {"n", "request"}} {
		_, err := d.CreateMetric(ctx, c.key, c.request, "", metric.Proportion("purchase", nil))
		wantKind(t, err, experiment.ErrAlreadyExists, "METRIC_EXISTS")
	}
}

func TestUpdateMetricAtOnce(t *testing.T) {
	d := newDatabase(t)
	createMetrics(t, d.DB, "m")
	made, err := d.Metric(t.Context(), "m", 0)
	if err != nil {
		t.Fatal(err)
	}
	update := func(etag int64) []error {
		return atOnce(8, func(i int) error {
			return second([]*postgres.DB{d.DB, d.other}[i%2].UpdateMetric(context.Background(), "m", "", etag,
				func(m *metric.Metric) (metric.Definition, error) {
					next := m.Definition
					next.Description = fmt.Sprint(etag, i)
					return next, nil
				}))
		})
	}
	won := 0
	for _, err := range update(made.Version) {
		if err == nil {
			won++
			continue
		}
		wantKind(t, err, experiment.ErrAborted, "ETAG_MISMATCH")
	}
	if won != 1 {
		t.Errorf("%d updates with the same etag won, want 1", won)
	}
	if err := errors.Join(update(0)...); err != nil {
		t.Error(err)
	}
	if m, err := d.Metric(t.Context(), "m", 0); err != nil || m.Revision != 10 {
		t.Errorf("revision %d, want 10; %v", m.Revision, err)
	}
}

func TestListMetrics(t *testing.T) {
	d := newDatabase(t)
	createMetrics(t, d.DB, "c", "a", "d", "b")
	if _, err := d.ArchiveMetric(t.Context(), "b", "", 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after    string
		limit    int
		archived bool
		want     string
	}{
		{"", 10, false, "acd"},
		{"", 10, true, "abcd"},
		{"", 2, false, "ac"},
		{"a", 2, true, "bc"},
		{"d", 2, true, ""},
	} {
		metrics, err := d.Metrics(t.Context(), c.after, c.limit, c.archived)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, m := range metrics {
			got += m.Key
		}
		if got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
