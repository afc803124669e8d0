package assign

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

// coverage returns a holdout over an experiment from day 2 on. Its salt is that
// of the golden vectors, by which u-1 is in bucket 404731.
func coverage(id int32, buckets int32) experiment.Coverage {
	return experiment.Coverage{
		HoldoutID: id, Holdout: fmt.Sprint("h", id), Kind: experiment.HoldoutStatusQuo, Salt: "global-2026", Buckets: buckets, FromTime: day(2),
	}
}

// covered returns the experiment with holdouts.
func (h history) covered(by ...experiment.Coverage) history {
	h.Coverages = by
	return h
}

const vectorBucket = 404_731

// TestHoldoutGate takes u-1 to the bounds of a holdout and of its time.
func TestHoldoutGate(t *testing.T) {
	ended := coverage(7, vectorBucket+1)
	ended.EndTime = day(9)
	bucketing := func(in bool) *Bucketing {
		b := &Bucketing{Purpose: "holdout", Salt: "global-2026", Hash: 0x679c836e58b265c0, Bucket: vectorBucket}
		if in {
			b.Range = &experiment.Range{From: 0, To: vectorBucket + 1}
		}
		return b
	}
	for _, c := range []struct {
		name     string
		coverage experiment.Coverage
		at       time.Time
		held     bool
		want     *Bucketing
		says     string
	}{
		{"its bucket is the last", coverage(7, vectorBucket+1), day(3), true, bucketing(true), "held out"},
		{"up to it", coverage(7, vectorBucket), day(3), false, bucketing(false), "is open"},
		{"at the beginning", ended, day(2), true, bucketing(true), "held out"},
		{"by a clock that is slow", ended, day(1), true, bucketing(true), "held out"},
		{"before it", func() experiment.Coverage {
			c := ended
			c.FromTime = day(4)
			return c
		}(), day(4).Add(-time.Microsecond), false, nil, "No holdout"},
		{"just before the end", ended, day(9).Add(-time.Nanosecond), true, bucketing(true), "held out"},
		{"at the end", ended, day(9), false, nil, "No holdout"},
	} {
		// Nobody is in the traffic, and v1 has all the weight.
		catalog := catalogOf(t, running("e", 0, 1).with(func(d *experiment.Definition) { d.Traffic = 0 }).covered(c.coverage))
		x := catalog.Subject("user", "u-1", nil, c.at).Explain(catalog.Experiment("e"))
		want := answer{-1, 1, ReasonNoTraffic, false}
		if c.held {
			want = answer{0, 1, ReasonHoldout, false}
		}
		if diff := cmp.Diff(want, answerOf(x.Decision)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		gate := x.Gates[3]
		if diff := cmp.Diff(c.want, gate.Bucketing); diff != "" || gate.Kind != GateHoldout || !gate.Passed || !strings.Contains(gate.Detail, c.says) {
			t.Errorf("%s: %+v %s", c.name, gate, diff)
		}
		if c.held != (len(x.Gates) == 4) {
			t.Errorf("%s: %d gates", c.name, len(x.Gates))
		}
	}
}

// TestHoldoutBesideOtherGates holds u-1 out of experiments in which other gates
// decide too.
func TestHoldoutBesideOtherGates(t *testing.T) {
	everything := coverage(1, experiment.Buckets)
	everything.Kind = experiment.HoldoutNoPersonalisation
	base := running("e", 0, 1).covered(coverage(2, experiment.Buckets))
	pinned := base
	pinned.Overrides = map[experiment.SubjectID]string{pepper.SubjectID(experiment.Subject{Unit: "user", Key: "u-1"}): "v1"}
	ship := func(h history) history {
		h.Experiment.ShippedVariant = "v1"
		return h.in(experiment.StateConcluded, day(3))
	}
	for _, c := range []struct {
		name    string
		history history
		want    answer
	}{
		{"running", base, answer{0, 1, ReasonHoldout, false}},
		{"outside the slot", base.inLayer("l"), answer{0, 1, ReasonHoldout, false}},
		{"open in the first, held out by the second", base.covered(coverage(1, 0), coverage(2, experiment.Buckets)), answer{0, 1, ReasonHoldout, false}},
		{"held out by the first, open in the second", base.covered(coverage(1, experiment.Buckets), coverage(2, 0)), answer{0, 1, ReasonHoldout, false}},
		{"pinned", pinned, answer{1, 1, ReasonOverride, false}},
		{"ineligible", base.with(func(d *experiment.Definition) { d.Eligibility = "unit == 'x'" }), answer{-1, 1, ReasonIneligible, false}},
		{"paused", base.in(experiment.StatePaused, day(3)), answer{-1, 1, ReasonNotRunning, false}},
		{"shipped, status quo", ship(base), answer{1, 1, ReasonConcluded, false}},
		{"shipped, no personalisation", ship(base.covered(everything)), answer{0, 1, ReasonHoldout, false}},
		{"shipped, both", ship(base.covered(everything, coverage(2, experiment.Buckets))), answer{0, 1, ReasonHoldout, false}},
		{"concluded without a winner", base.covered(everything).in(experiment.StateConcluded, day(3)), answer{-1, 1, ReasonNotRunning, false}},
	} {
		catalog := catalogOf(t, c.history)
		d := catalog.Subject("user", "u-1", nil, day(3)).Assign("e")
		if diff := cmp.Diff(c.want, answerOf(d)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		x := catalog.Subject("user", "u-1", nil, day(3)).Explain(catalog.Experiment("e"))
		if diff := cmp.Diff(c.want, answerOf(x.Decision)); diff != "" {
			t.Errorf("%s, explained: %s", c.name, diff)
		}
	}
}

// TestHoldoutWithoutControl cannot be: it is the control that the held-out get.
func TestHoldoutWithoutControl(t *testing.T) {
	h := running("e", 1, 1).with(func(d *experiment.Definition) { d.Variants[0].Control = false })
	if _, err := Compile(h.stored()); err != nil {
		t.Error(err)
	}
	if _, err := Compile(h.covered(coverage(1, 1)).stored()); err == nil || !strings.Contains(err.Error(), "no control") {
		t.Error(err)
	}
}

func TestHoldoutDoesNotAllocate(t *testing.T) {
	catalog := catalogOf(t, running("e", 1, 1).covered(coverage(1, 0), coverage(2, 0)))
	subject := catalog.Subject("user", "u-1", nil, day(3))
	if n := testing.AllocsPerRun(100, func() { subject.Assign("e") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// randomCoverages are none, or holdouts of which some are in force on day 3.
func randomCoverages(r *rand.Rand) []experiment.Coverage {
	var list []experiment.Coverage
	for i := range max(0, r.Int32N(5)-1) {
		c := coverage(100+i, r.Int32N(experiment.Buckets/2))
		c.Salt, c.FromTime = fmt.Sprint("salt-", r.IntN(3)), day(2+r.IntN(2))
		if r.IntN(2) == 0 {
			c.Kind = experiment.HoldoutNoPersonalisation
		}
		if r.IntN(3) == 0 {
			c.EndTime = day(3 + r.IntN(2))
		}
		list = append(list, c)
	}
	return list
}

// TestHoldoutsHoldOut decides with holdouts as they are specified, from what the
// same experiment decides without them.
func TestHoldoutsHoldOut(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	seen := map[Reason]int{}
	for i := range 400 {
		h := randomHistory(r, fmt.Sprint("e-", i))
		with, without := catalogOf(t, h), catalogOf(t, h.covered())
		attributes := randomAttributes(r)
		at := day(1 + r.IntN(5))
		for j := range 40 {
			key := fmt.Sprint("u-", j)
			want := answerOf(without.Subject("user", key, attributes, at).Assign(h.Experiment.Key))
			if want.Reason == ReasonSplit || want.Reason == ReasonNoTraffic || want.Reason == ReasonConcluded {
				for _, c := range h.Coverages {
					begun := !c.FromTime.After(at) || c.FromTime.Equal(day(2)) // The start's, which has been.
					inForce := begun && (c.EndTime.IsZero() || at.Before(c.EndTime))
					bucket := int32((mix(hashPair("user", key), hashPair("holdout", c.Salt)) >> 32) * 1_000_000 >> 32)
					if inForce && bucket < c.Buckets && (want.Reason != ReasonConcluded || c.Kind == "no_personalisation") {
						want = answer{0, 1, ReasonHoldout, false}
						break
					}
				}
			}
			seen[want.Reason]++
			subject := with.Subject("user", key, attributes, at)
			if diff := cmp.Diff(want, answerOf(subject.Assign(h.Experiment.Key))); diff != "" {
				t.Fatalf("%s at %v, %+v: %s", key, at, h.History, diff)
			}
			checkCaused(t, subject, at)
		}
	}
	if seen[ReasonHoldout] < 300 || seen[ReasonConcluded] == 0 || seen[ReasonSplit] == 0 {
		t.Errorf("reasons: %v", seen)
	}
}

// checkCaused holds that the exposures which decisions cause are those that are
// accepted as their reports, with the same sides.
func checkCaused(t *testing.T, s *Subject, at time.Time) {
	t.Helper()
	for _, e := range s.catalog.experiments {
		d := s.Decide(e)
		if d.Variant < 0 || d.Reason == ReasonConcluded || e.concluded || d.Reason == ReasonOverride {
			continue
		}
		caused, ok := s.Exposed(d)
		if !ok {
			caused = Exposed{Revision: &e.revisions[0], HeldOut: true} // Outside the traffic.
		}
		reported, rejection := s.CheckExposure(e, e.Current.Definition.Variants[d.Variant].Key, at, 0)
		if rejection != nil {
			t.Fatalf("%s: decided %+v, and its exposure is rejected: %+v", s.Key, d, rejection)
		}
		if diff := cmp.Diff(caused, reported); diff != "" {
			t.Fatalf("%s: decided %+v (-caused +reported):\n%s", s.Key, d, diff)
		}
	}
}

// TestExposureSides reports exposures of u-1, for which the split has v1, to an
// experiment that holdouts cover from day 4 on, with a new phase.
func TestExposureSides(t *testing.T) {
	in, out := coverage(1, vectorBucket+1), coverage(2, vectorBucket)
	in.FromTime, in.EndTime, out.FromTime = day(4), day(8), day(4)
	base := running("e", 0, 1)
	second := base.Revisions[0]
	second.Number, second.Phase, second.CreateTime = 2, 2, day(4)
	base.Revisions = append(base.Revisions, second)
	base.Experiment.Current = second
	inTraffic := func(buckets float64) func(*experiment.Definition) {
		return func(d *experiment.Definition) { d.Traffic = buckets / experiment.Buckets }
	}
	trafficBucket := float64(bucketOf(mix(hashPair("user", "u-1"), hashPair(PurposeTraffic, "e"))))
	both := func(h history) history { return h.covered(in, out) }
	outside, inside := both(base), both(base)
	for _, h := range []*history{&outside, &inside} {
		h.Revisions = append([]experiment.Revision(nil), h.Revisions...)
	}
	inTraffic(trafficBucket)(&outside.Revisions[1].Definition)
	inTraffic(trafficBucket + 1)(&inside.Revisions[1].Definition)
	slot := func(ranges ...experiment.Range) history {
		h := both(base)
		h.Revisions = append([]experiment.Revision(nil), h.Revisions...)
		h.Revisions[1].Definition.Layer = "l"
		h.Experiment.Current = h.Revisions[1]
		h.Slots = []experiment.SlotPeriod{
			{Slot: experiment.Slot{Salt: "checkout", Ranges: ranges}, FromTime: day(4), EndTime: day(6)}, // u-1 is in bucket 478761.
			{Slot: experiment.Slot{Salt: "checkout", Ranges: []experiment.Range{{From: 0, To: 1}}}, FromTime: day(6)},
		}
		return h
	}
	pinned := both(base)
	pinned.Overrides = map[experiment.SubjectID]string{pepper.SubjectID(experiment.Subject{Unit: "user", Key: "u-1"}): "v1"}
	held := []experiment.Side{{HoldoutID: 1, HeldOut: true}, {HoldoutID: 2}}
	type want struct {
		Phase    int32
		HeldOut  bool
		Sides    []experiment.Side
		Rejected bool
	}
	for _, c := range []struct {
		name     string
		history  history
		variant  string
		exposed  time.Time
		revision int32
		want     want
	}{
		{"before the coverage", both(base), "v1", day(3), 0, want{Phase: 1}},
		{"before the coverage, the control", both(base), "v0", day(3), 0, want{Rejected: true}},
		{"held out", both(base), "v0", day(5), 0, want{2, true, held, false}},
		{"held out, at the beginning", both(base), "v0", day(4), 0, want{2, true, held, false}},
		{"held out, the split's variant", both(base), "v1", day(5), 0, want{Rejected: true}},
		{"held out, by an assignment of before", both(base), "v1", day(5), 1, want{Phase: 1}},
		{"held out, by a clock that is slow", both(base), "v0", day(3), 2, want{2, true, held, false}},
		{"open once one has ended", both(base), "v1", day(8), 0, want{2, false, held[1:], false}},
		{"the control once one has ended", both(base), "v0", day(8), 0, want{Rejected: true}},
		{"open in all", base.covered(out), "v1", day(5), 0, want{2, false, held[1:], false}},
		{"held out, outside the traffic", outside, "v0", day(5), 0, want{2, true, nil, false}},
		{"held out, in the traffic", inside, "v0", day(5), 0, want{2, true, held, false}},
		{"held out, in the slot", slot(experiment.Range{From: 478_761, To: 478_762}), "v0", day(5), 0, want{2, true, held, false}},
		{"held out, outside the slot", slot(experiment.Range{From: 0, To: 478_761}), "v0", day(5), 0, want{2, true, nil, false}},
		{"held out, in the slot of before", slot(experiment.Range{From: 478_761, To: 478_762}), "v0", day(7), 0, want{2, true, nil, false}},
		{"pinned", pinned, "v1", day(5), 0, want{Phase: 2}},
		{"pinned after it was held out", pinned, "v0", day(5), 0, want{2, true, nil, false}},
		{"before the start", running("e", 0, 1).covered(coverage(1, vectorBucket+1)), "v0", day(1), 0, want{1, true, held[:1], false}},
	} {
		catalog := catalogOf(t, c.history)
		x, rejection := catalog.Subject("user", "u-1", nil, day(20)).CheckExposure(catalog.Experiment("e"), c.variant, c.exposed, c.revision)
		got := want{Rejected: rejection != nil}
		if rejection == nil {
			got = want{x.Revision.Phase, x.HeldOut, x.Sides, false}
		} else if rejection.Reason != RejectVariantMismatch {
			t.Errorf("%s: %+v", c.name, rejection)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// TestMomentsOfHoldouts explains u-1 at times and by revisions.
func TestMomentsOfHoldouts(t *testing.T) {
	h := running("e", 0, 1)
	for i := range int32(2) {
		r := h.Revisions[0]
		r.Number, r.CreateTime = i+2, day(5*int(i+1))
		h.Revisions = append(h.Revisions, r)
	}
	h.Experiment.Current = h.Revisions[2]
	first, second := coverage(1, vectorBucket+1), coverage(2, vectorBucket+1)
	first.EndTime, second.FromTime, second.EndTime = day(5), day(6), day(12)
	h = h.covered(first, second)
	e := compile(t, h)
	explain := func(view *Experiment, at time.Time) Reason {
		return NewCatalog(pepper).Subject("user", "u-1", nil, at).Explain(view).Reason
	}
	for n, want := range map[int]Reason{3: ReasonHoldout, 5: ReasonSplit, 6: ReasonHoldout, 11: ReasonHoldout, 12: ReasonSplit} {
		if got := explain(h.asOf(e, day(n), nil), day(n)); got != want {
			t.Errorf("on day %d: reason %d, want %d", n, got, want)
		}
	}
	for _, c := range []struct {
		revision int32
		now      time.Time
		want     Reason
	}{{1, day(20), ReasonHoldout}, {2, day(20), ReasonHoldout}, {3, day(11), ReasonHoldout}, {3, day(20), ReasonSplit}} {
		if got := explain(h.atRevision(e, c.revision), c.now); got != c.want {
			t.Errorf("revision %d on %v: reason %d, want %d", c.revision, c.now, got, c.want)
		}
	}
}

func TestHoldsOut(t *testing.T) {
	ended := coverage(1, 1)
	ended.EndTime = day(9)
	total := ended
	total.Kind = experiment.HoldoutNoPersonalisation
	shipped := func(h history) history {
		h.Experiment.ShippedVariant = "v1"
		return h.in(experiment.StateConcluded, day(3))
	}
	base := running("e", 1, 1)
	for _, c := range []struct {
		name    string
		history history
		at      time.Time
		want    bool
	}{
		{"none", base, day(3), false},
		{"running", base.covered(ended), day(3), true},
		{"ended", base.covered(ended), day(9), false},
		{"shipped", shipped(base.covered(ended)), day(3), false},
		{"shipped, not to be", shipped(base.covered(total)), day(3), true},
		{"shipped, ended", shipped(base.covered(total)), day(9), false},
	} {
		if got := compile(t, c.history).HoldsOut(c.at); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
