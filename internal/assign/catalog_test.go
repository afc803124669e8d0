package assign

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

func keysOf(list []*Experiment) []string {
	keys := make([]string, len(list))
	for i, e := range list {
		keys[i] = e.Key
	}
	return keys
}

func TestRunning(t *testing.T) {
	labelled := func(key string, labels map[string]string) history {
		return running(key, 1, 1).with(func(d *experiment.Definition) { d.Labels = labels })
	}
	device := running("of-devices", 1, 1).with(func(d *experiment.Definition) { d.Unit = "device" })
	c := catalogOf(t,
		labelled("c", map[string]string{"team": "growth", "area": "cart"}), labelled("a", nil),
		labelled("b", map[string]string{"team": "growth"}), labelled("d", map[string]string{"team": "", "area": "cart"}),
		running("paused", 1).in(experiment.StatePaused, day(3)), device,
		running("external", 1, 1).with(func(d *experiment.Definition) { d.External = true }),
	)
	for _, q := range []struct {
		unit   string
		labels map[string]string
		want   []string
	}{
		{"user", nil, []string{"a", "b", "c", "d"}},
		{"user", map[string]string{"team": "growth"}, []string{"b", "c"}},
		{"user", map[string]string{"team": "growth", "area": "cart"}, []string{"c"}},
		{"user", map[string]string{"team": ""}, []string{"d"}},
		{"user", map[string]string{"color": ""}, []string{}},
		{"device", nil, []string{"of-devices"}},
		{"account", nil, []string{}},
	} {
		list, truncated := c.Running(q.unit, q.labels)
		if diff := cmp.Diff(q.want, keysOf(list)); diff != "" || truncated {
			t.Errorf("%s %v: truncated %v %s", q.unit, q.labels, truncated, diff)
		}
	}
}

func TestRunningIsTruncated(t *testing.T) {
	var all []*Experiment
	for i := range MaxListed + 1 {
		all = append(all, compile(t, running(fmt.Sprintf("e%04d", i), 1).with(func(d *experiment.Definition) {
			d.Labels = map[string]string{"half": fmt.Sprint(i % 2), "all": "yes"}
		})))
	}
	for _, q := range []struct {
		n         int // Of the experiments.
		labels    map[string]string
		want      int
		truncated bool
	}{
		{MaxListed, nil, MaxListed, false},
		{MaxListed + 1, nil, MaxListed, true},
		{MaxListed, map[string]string{"all": "yes"}, MaxListed, false},
		{MaxListed + 1, map[string]string{"all": "yes"}, MaxListed, true},
		{MaxListed + 1, map[string]string{"half": "0"}, MaxListed/2 + 1, false},
	} {
		list, truncated := NewCatalog(pepper).With(all[:q.n]...).Running("user", q.labels)
		if len(list) != q.want || truncated != q.truncated {
			t.Errorf("%d, %v: listed %d, truncated %v", q.n, q.labels, len(list), truncated)
		}
	}
}

func TestWith(t *testing.T) {
	before := catalogOf(t, running("a", 1, 0), running("b", 1, 0))
	changed := running("a", 0, 1)
	changed.Experiment.Version = 7
	after := before.With(compile(t, changed), compile(t, running("c", 1, 0)))

	if before.Experiment("b") != after.Experiment("b") {
		t.Error("an unchanged experiment was not kept")
	}
	for _, c := range []struct {
		name    string
		catalog *Catalog
		variant int
		running []string
		version map[string]int64
	}{
		{"before", before, 0, []string{"a", "b"}, map[string]int64{"a": 1, "b": 1}},
		{"after", after, 1, []string{"a", "b", "c"}, map[string]int64{"a": 7, "b": 1, "c": 1}},
	} {
		if v := c.catalog.Subject("user", "u-1", nil, day(3)).Assign("a").Variant; v != c.variant {
			t.Errorf("%s: variant %d", c.name, v)
		}
		list, _ := c.catalog.Running("user", nil)
		if diff := cmp.Diff(c.running, keysOf(list)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if diff := cmp.Diff(c.version, c.catalog.Versions()); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// TestCompileFails checks that a broken experiment is known, and harmless.
func TestCompileFails(t *testing.T) {
	allocation := func(ranges ...experiment.Range) history {
		s := running("e", 1, 1)
		s.Experiment.Current.Allocation = ranges
		return s
	}
	shipped := running("e", 1, 1).in(experiment.StateConcluded, day(3))
	shipped.Experiment.ShippedVariant = "v9"
	withoutRevisions := running("e", 1, 1)
	withoutRevisions.Revisions = nil
	oldRevision := running("e", 1, 1)
	oldRevision.Experiment.Current.Number = 2
	oldRevision.Revisions = []experiment.Revision{allocation(experiment.Range{From: 0, To: 5, Variant: "v9"}).Experiment.Current, oldRevision.Experiment.Current}
	for _, c := range []struct {
		history history
		want    string
	}{
		{running("e", 1, 1).with(func(d *experiment.Definition) { d.Eligibility = "unit ==" }), "eligibility: it does not parse"},
		{allocation(experiment.Range{From: 0, To: 5, Variant: "v9"}), `the allocation names the variant "v9"`},
		{allocation(experiment.Range{From: 5, To: 5, Variant: "v0"}), "the range [5, 5)"},
		{allocation(experiment.Range{From: -1, To: 5, Variant: "v0"}), "the range [-1, 5)"},
		{allocation(experiment.Range{From: 0, To: experiment.Buckets + 1, Variant: "v0"}), "the range [0, 1000001)"},
		{allocation(experiment.Range{From: 4, To: 9, Variant: "v0"}, experiment.Range{From: 0, To: 5, Variant: "v1"}), "the range [4, 9)"},
		{shipped, `the shipped variant "v9" does not exist`},
		{withoutRevisions, "its revisions are not those up to the current one"},
		{oldRevision, `the allocation names the variant "v9"`},
	} {
		e, err := Compile(c.history.stored())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
			continue
		}
		catalog := NewCatalog(pepper).With(e)
		subject := catalog.Subject("user", "u-1", nil, day(3))
		if d := subject.Assign("e"); d.Reason != ReasonNotRunning || d.Variant != -1 {
			t.Errorf("%s: got %+v", c.want, answerOf(d))
		}
		if list, _ := catalog.Running("user", nil); len(list) != 0 {
			t.Errorf("%s: listed as running", c.want)
		}
		if x := subject.Explain(e); !strings.Contains(x.Gates[0].Detail, c.want) {
			t.Errorf("%s: explained as %q", c.want, x.Gates[0].Detail)
		}
		if _, rejection := subject.CheckExposure(e, "v0", day(2), 0); rejection == nil || rejection.Reason != RejectNotRunning {
			t.Errorf("%s: exposure: %v", c.want, rejection)
		}
	}
}

// TestStoredPredicateKeepsRunning: what was accepted once is not measured again.
func TestStoredPredicateKeepsRunning(t *testing.T) {
	predicate := nestedLoops(7)
	var invalid *experiment.InvalidError
	if err := CheckEligibility(predicate); !errors.As(err, &invalid) {
		t.Fatalf("got %v, want a refusal", err)
	}
	compile(t, running("e", 1).with(func(d *experiment.Definition) { d.Eligibility = predicate }))
}

// TestIdlePredicate: a predicate that is never evaluated is not compiled.
func TestIdlePredicate(t *testing.T) {
	s := running("e", 1).with(func(d *experiment.Definition) { d.Eligibility = "unit ==" })
	compile(t, s.in(experiment.StateConcluded, day(3)).in(experiment.StateArchived, day(4)))
}

func TestDerived(t *testing.T) {
	e := compile(t, running("e", 1, 1))
	calls := 0
	prepare := func(e *Experiment) any { calls++; return len(e.Current.Definition.Variants) }
	for range 2 {
		if got := e.Derived(prepare); got != 2 {
			t.Errorf("got %v", got)
		}
	}
	if calls != 1 {
		t.Errorf("prepared %d times", calls)
	}
}
