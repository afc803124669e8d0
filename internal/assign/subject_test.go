package assign

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

// answer is a decision without the experiment.
type answer struct {
	Variant  int
	Revision int32
	Reason   Reason
	Failed   bool
}

func answerOf(d Decision) answer { return answer{d.Variant, d.Revision(), d.Reason, d.Failed()} }

func TestAssign(t *testing.T) {
	poles := func(d *experiment.Definition) { d.Eligibility = "attributes.country == 'PL'" }
	nobody := func(d *experiment.Definition) { d.Traffic = 0 }
	pin := func(s history) history {
		s.Overrides = map[experiment.SubjectID]string{pepper.SubjectID(experiment.Subject{Unit: "user", Key: "u-1"}): "v1"}
		return s
	}
	concluded := func(s history, ship string) history {
		s.Experiment.ShippedVariant = ship
		return s.in(experiment.StateConcluded, day(9))
	}
	draft := running("e", 1, 0)
	draft.Experiment.State, draft.Transitions = experiment.StateDraft, draft.Transitions[:1]
	// v0 has all the weight, so that v1 can only come from elsewhere.
	base := running("e", 1, 0)
	for _, c := range []struct {
		name    string
		history history
		unit    string
		want    answer
	}{
		{"split", base, "user", answer{0, 1, ReasonSplit, false}},
		{"other unit", base, "device", answer{-1, 1, ReasonUnitMismatch, false}},
		{"external", base.with(func(d *experiment.Definition) { d.External = true }), "user", answer{-1, 1, ReasonExternal, false}},
		{"external, pinned", pin(base.with(func(d *experiment.Definition) { d.External = true })), "user", answer{-1, 1, ReasonExternal, false}},
		{"draft", draft, "user", answer{-1, 1, ReasonNotRunning, false}},
		{"paused, pinned", pin(base.in(experiment.StatePaused, day(3))), "user", answer{-1, 1, ReasonNotRunning, false}},
		{"archived", concluded(base, "v1").in(experiment.StateArchived, day(10)), "user", answer{-1, 1, ReasonNotRunning, false}},
		{"concluded", concluded(base, ""), "user", answer{-1, 1, ReasonNotRunning, false}},
		{"shipped", concluded(base, "v1"), "user", answer{1, 1, ReasonConcluded, false}},
		{"shipped, pinned to another", concluded(pin(base), "v0"), "user", answer{0, 1, ReasonConcluded, false}},
		{"shipped, outside traffic", concluded(base.with(nobody), "v1"), "user", answer{1, 1, ReasonConcluded, false}},
		{"shipped, ineligible", concluded(base.with(poles), "v1"), "user", answer{-1, 1, ReasonIneligible, true}},
		{"pinned", pin(base), "user", answer{1, 1, ReasonOverride, false}},
		{"pinned, ineligible, outside traffic", pin(base.with(poles).with(nobody)), "user", answer{1, 1, ReasonOverride, false}},
		{"ineligible", base.with(func(d *experiment.Definition) { d.Eligibility = "unit == 'x'" }), "user", answer{-1, 1, ReasonIneligible, false}},
		{"predicate fails, outside traffic", base.with(poles).with(nobody), "user", answer{-1, 1, ReasonIneligible, true}},
		{"outside traffic", base.with(nobody), "user", answer{-1, 1, ReasonNoTraffic, false}},
		{"in no range", func() history {
			s := running("e", 1, 0)
			s.Experiment.Current.Allocation = []experiment.Range{{From: 0, To: 1, Variant: "v0"}}
			return s
		}(), "user", answer{-1, 1, ReasonNoTraffic, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			catalog := catalogOf(t, c.history)
			d := catalog.Subject(c.unit, "u-1", nil, day(3)).Assign("e")
			if diff := cmp.Diff(c.want, answerOf(d)); diff != "" {
				t.Error(diff)
			}
			if d.Experiment != catalog.Experiment("e") {
				t.Error("another experiment")
			}
		})
	}
}

func TestAssignNotFound(t *testing.T) {
	want := Decision{Variant: -1, Reason: ReasonNotFound}
	if d := NewCatalog(pepper).Subject("user", "u-1", nil, day(3)).Assign("e"); d != want {
		t.Errorf("got %+v", d)
	}
}

// TestAssignFrozen holds a few assignments for ever: whatever changes them
// moves the subjects of running experiments.
func TestAssignFrozen(t *testing.T) {
	s := running("checkout-copy", 1, 1, 2).with(func(d *experiment.Definition) { d.Traffic = 0.5 })
	catalog := catalogOf(t, s)
	// u-1 has traffic bucket 45,699 and split bucket 545,614 in the vectors.
	for key, want := range map[string]answer{
		"u-1": {2, 1, ReasonSplit, false},
		"":    {-1, 1, ReasonNoTraffic, false}, // Traffic bucket 882,163.
	} {
		if diff := cmp.Diff(want, answerOf(catalog.Subject("user", key, nil, day(3)).Assign("checkout-copy"))); diff != "" {
			t.Errorf("%q: %s", key, diff)
		}
	}
}

// TestBoundaries puts u-1, whose traffic bucket is 45,699 and whose split bucket
// is 545,614, on either side of each boundary.
func TestBoundaries(t *testing.T) {
	base := running("checkout-copy", 1, 1)
	for _, c := range []struct {
		traffic  float64
		boundary int32 // Between the two variants.
		want     answer
	}{
		{0.045699, 500_000, answer{-1, 1, ReasonNoTraffic, false}},
		{0.0456994, 500_000, answer{-1, 1, ReasonNoTraffic, false}}, // Rounded down.
		{0.0456996, 500_000, answer{1, 1, ReasonSplit, false}},      // Rounded up.
		{0.0457, 500_000, answer{1, 1, ReasonSplit, false}},
		{1, 545_614, answer{1, 1, ReasonSplit, false}},
		{1, 545_615, answer{0, 1, ReasonSplit, false}},
	} {
		h := base.with(func(d *experiment.Definition) { d.Traffic = c.traffic })
		h.Experiment.Current.Allocation = []experiment.Range{
			{From: 0, To: c.boundary, Variant: "v0"}, {From: c.boundary, To: experiment.Buckets, Variant: "v1"},
		}
		got := answerOf(catalogOf(t, h).Subject("user", "u-1", nil, day(3)).Assign("checkout-copy"))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("traffic %v, boundary %d: %s", c.traffic, c.boundary, diff)
		}
	}
}

func TestExplain(t *testing.T) {
	s := running("checkout-copy", 1, 1).with(func(d *experiment.Definition) {
		d.Traffic, d.Eligibility = 0.5, "attributes.country == 'PL' && attributes.age >= 18 || has(attributes.vip)"
	})
	catalog := catalogOf(t, s)
	subject := catalog.Subject("user", "u-1", map[string]any{"country": "PL", "age": 31.0, "other": true}, day(3))
	got := subject.Explain(catalog.Experiment("checkout-copy"))
	want := []Gate{
		{Kind: GateState, Passed: true, Detail: "The experiment is running."},
		{Kind: GateOverride, Passed: true, Detail: "The subject is not pinned."},
		{
			Kind: GateEligibility, Passed: true, Detail: "The predicate is true.",
			Predicate:  s.Experiment.Current.Definition.Eligibility,
			Attributes: map[string]any{"country": "PL", "age": 31.0},
		},
		{Kind: GateHoldout, Passed: true, Detail: "No holdout covers the experiment."},
		{
			Kind: GateTraffic, Passed: true, Detail: "Bucket 45699 takes part: it is below 500000.",
			Bucketing: &Bucketing{"traffic", "checkout-copy", 0x0bb2f5dcbb57f302, 45699, &experiment.Range{From: 0, To: 500_000}},
		},
		{
			Kind: GateSplit, Passed: true, Detail: `Bucket 545614 belongs to "v1".`,
			Bucketing: &Bucketing{"split", "checkout-copy", 0x8bad68df783663bd, 545614, &experiment.Range{From: 500_000, To: 1_000_000, Variant: "v1"}},
		},
	}
	if diff := cmp.Diff(want, got.Gates); diff != "" {
		t.Error(diff)
	}
}

// TestExplainStops checks the gate at which each decision is made.
func TestExplainStops(t *testing.T) {
	id := pepper.SubjectID(experiment.Subject{Unit: "user", Key: "u-1"})
	eligible := func(predicate string) func(*experiment.Definition) {
		return func(d *experiment.Definition) { d.Eligibility = predicate }
	}
	pinned := running("e", 1, 1)
	pinned.Overrides = map[experiment.SubjectID]string{id: "v1"}
	shipped := running("e", 1, 1).in(experiment.StateConcluded, day(3))
	shipped.Experiment.ShippedVariant = "v1"
	for _, c := range []struct {
		name    string
		history history
		unit    string
		want    Gate
	}{
		{"unit", running("e", 1), "device", Gate{Kind: GateState, Detail: `The experiment randomises the unit "user"; the subject's is "device".`}},
		{"external", running("e", 1).with(func(d *experiment.Definition) { d.External = true }), "user", Gate{Kind: GateState, Detail: "The experiment is assigned elsewhere."}},
		{"paused", running("e", 1).in(experiment.StatePaused, day(3)), "user", Gate{Kind: GateState, Detail: "The experiment is paused."}},
		{"concluded", running("e", 1).in(experiment.StateConcluded, day(3)), "user", Gate{Kind: GateState, Detail: "The experiment is concluded and ships no variant."}},
		{"pinned", pinned, "user", Gate{Kind: GateOverride, Passed: true, Detail: `The subject is pinned to "v1".`}},
		{"ineligible", running("e", 1).with(eligible("unit == 'x'")), "user", Gate{
			Kind: GateEligibility, Detail: "The predicate is false.", Predicate: "unit == 'x'", Attributes: map[string]any{},
		}},
		{"failed", running("e", 1).with(eligible("attributes.x == 1")), "user", Gate{
			Kind: GateEligibility, Detail: "The predicate failed to evaluate: no such key: x.", Predicate: "attributes.x == 1", Attributes: map[string]any{},
		}},
		{"shipped", shipped, "user", Gate{Kind: GateHoldout, Passed: true, Detail: "No holdout covers the experiment."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			catalog := catalogOf(t, c.history)
			got := catalog.Subject(c.unit, "u-1", nil, day(3)).Explain(catalog.Experiment("e")).Gates
			if diff := cmp.Diff(c.want, got[len(got)-1]); diff != "" {
				t.Error(diff)
			}
		})
	}
}
