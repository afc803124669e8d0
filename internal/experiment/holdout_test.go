package experiment

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestBeginHoldout(t *testing.T) {
	for _, c := range []struct {
		name       string
		start, end time.Duration // From now; 0 stands for none.
		want       [2]time.Duration
		fields     string
	}{
		{"now", 0, 0, [2]time.Duration{0, 0}, ""},
		{"later", time.Hour, 2 * time.Hour, [2]time.Duration{time.Hour, 2 * time.Hour}, ""},
		{"a while ago", -5 * time.Minute, time.Hour, [2]time.Duration{0, time.Hour}, ""},
		{"too long ago", -5*time.Minute - 1, -time.Hour, [2]time.Duration{}, "start_time end_time"},
		{"without a moment", time.Hour, time.Hour, [2]time.Duration{time.Hour, time.Hour}, ""},
		{"the wrong way round", time.Hour, time.Minute, [2]time.Duration{}, "end_time"},
	} {
		var h Holdout
		if c.start != 0 {
			h.StartTime = now.Add(c.start)
		}
		if c.end != 0 {
			h.EndTime = now.Add(c.end)
		}
		err := h.Begin(now)
		if got := fieldsOf(err); got != c.fields {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil {
			continue
		}
		want := Holdout{StartTime: now.Add(c.want[0])}
		if c.want[1] != 0 {
			want.EndTime = now.Add(c.want[1])
		}
		if diff := cmp.Diff(want, h); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// fieldsOf lists the fields at fault, or the reason of a refusal.
func fieldsOf(err error) string {
	var invalid *InvalidError
	var refusal *Error
	switch {
	case errors.As(err, &invalid):
		var fields []string
		for _, v := range invalid.Violations {
			fields = append(fields, v.Field)
		}
		return strings.Join(fields, " ")
	case errors.As(err, &refusal):
		return refusal.Reason
	}
	return ""
}

func TestNextHoldout(t *testing.T) {
	future := Holdout{Share: 0.1, Salt: "s", Kind: HoldoutStatusQuo, StartTime: now.Add(time.Hour), EndTime: now.Add(2 * time.Hour)}
	started := future
	started.StartTime = now
	ended := started
	ended.StartTime, ended.EndTime = now.Add(-time.Hour), now
	for _, c := range []struct {
		name   string
		of     Holdout
		change func(*Holdout)
		want   func(*Holdout) // Of what the change made; nil for as it is.
		fields string
	}{
		{"all of it before the start", future, func(h *Holdout) {
			*h = Holdout{Share: 0.2, Salt: "t", Kind: HoldoutNoPersonalisation, Labels: map[string]string{"a": "b"}, Description: "d", StartTime: now.Add(time.Minute)}
		}, nil, ""},
		{"the default start", future, func(h *Holdout) { h.StartTime = time.Time{} }, func(h *Holdout) { h.StartTime = now }, ""},
		{"a start too long ago", future, func(h *Holdout) { h.StartTime = now.Add(-time.Hour) }, nil, "start_time"},
		{"a start behind the end", future, func(h *Holdout) { h.StartTime = now.Add(3 * time.Hour) }, nil, "end_time"},
		{"description", started, func(h *Holdout) { h.Description = "d" }, nil, ""},
		{"share", started, func(h *Holdout) { h.Share = 0.2 }, nil, "HOLDOUT_STARTED"},
		{"salt", started, func(h *Holdout) { h.Salt = "t" }, nil, "HOLDOUT_STARTED"},
		{"labels", started, func(h *Holdout) { h.Labels = map[string]string{"a": "b"} }, nil, "HOLDOUT_STARTED"},
		{"kind", started, func(h *Holdout) { h.Kind = HoldoutNoPersonalisation }, nil, "HOLDOUT_STARTED"},
		{"start", started, func(h *Holdout) { h.StartTime = now.Add(time.Minute) }, nil, "HOLDOUT_STARTED"},
		{"the default start, started", started, func(h *Holdout) { h.StartTime = time.Time{} }, nil, "HOLDOUT_STARTED"},
		{"another end", started, func(h *Holdout) { h.EndTime = now.Add(time.Minute) }, nil, ""},
		{"no end", started, func(h *Holdout) { h.EndTime = time.Time{} }, nil, ""},
		{"an end just past", started, func(h *Holdout) { h.EndTime = now.Add(-time.Minute) }, func(h *Holdout) { h.EndTime = now }, ""},
		{"an end long past", started, func(h *Holdout) { h.EndTime = now.Add(-time.Hour) }, nil, "end_time"},
		{"description, ended", ended, func(h *Holdout) { h.Description = "d" }, nil, ""},
		{"another end, ended", ended, func(h *Holdout) { h.EndTime = now.Add(time.Minute) }, nil, "HOLDOUT_ENDED"},
		{"no end, ended", ended, func(h *Holdout) { h.EndTime = time.Time{} }, nil, "HOLDOUT_ENDED"},
	} {
		next := c.of
		c.change(&next)
		got, err := c.of.Next(next, now)
		if fields := fieldsOf(err); fields != c.fields {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil {
			continue
		}
		if c.want != nil {
			c.want(&next)
		}
		if diff := cmp.Diff(next, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if c.of.Equal(&got) {
			t.Errorf("%s: equal", c.name)
		}
	}
	if !started.Equal(&started) {
		t.Error("a holdout is not equal to itself")
	}
}

func TestHoldoutCovers(t *testing.T) {
	of := Definition{Unit: "user", Labels: map[string]string{"team": "growth", "area": "cart"}}
	for _, c := range []struct {
		name   string
		unit   string
		labels map[string]string
		want   bool
	}{
		{"all of the unit", "user", nil, true},
		{"of another unit", "device", nil, false},
		{"by labels", "user", map[string]string{"team": "growth", "area": "cart"}, true},
		{"by a label too many", "user", map[string]string{"team": "growth", "x": ""}, false},
		{"by another value", "user", map[string]string{"team": "x"}, false},
	} {
		h := Holdout{Unit: c.unit, Labels: c.labels}
		if got := h.Covers(&of); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	elsewhere := Definition{Unit: "user", External: true}
	if (&Holdout{Unit: "user"}).Covers(&elsewhere) {
		t.Error("an experiment that is assigned elsewhere is covered")
	}
}

func TestHoldoutBuckets(t *testing.T) {
	for share, want := range map[float64]int32{0.000001: 1, 0.0000014: 1, 0.0000016: 2, 0.05: 50_000, 0.5: 500_000} {
		h := Holdout{Share: share, Salt: "s"}
		d := h.AsDefinition(0.9)
		if got := h.Buckets(); got != want || d.Variants[0].Weight != want || d.Variants[0].Weight+d.Variants[1].Weight != Buckets {
			t.Errorf("a share of %v: %d buckets, analysed as %v", share, got, d.Variants)
		}
		if err := d.Validate(); err != nil || d.Variants[d.Control()].Key != SideHeldOut {
			t.Errorf("analysed as %+v: %v", d, err)
		}
	}
}
