package assign

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

// TestLayerGate takes u-1, whose bucket in a layer with the salt "checkout" is
// 478761 by the golden vectors, to the bounds of slots. The traffic hash would
// decide otherwise each time.
func TestLayerGate(t *testing.T) {
	const bucket = 478_761
	for _, c := range []struct {
		name string
		slot []experiment.Range
		want *experiment.Range // Nil: not in.
	}{
		{"its bucket alone", []experiment.Range{{From: bucket, To: bucket + 1}}, &experiment.Range{From: bucket, To: bucket + 1}},
		{"up to it", []experiment.Range{{From: 0, To: bucket}}, nil},
		{"from behind it", []experiment.Range{{From: bucket + 1, To: experiment.Buckets}}, nil},
		{"around it", []experiment.Range{{From: 0, To: bucket}, {From: bucket + 1, To: experiment.Buckets}}, nil},
		{"the third of three", []experiment.Range{{From: 0, To: 1}, {From: 5, To: 9}, {From: bucket - 1, To: experiment.Buckets}},
			&experiment.Range{From: bucket - 1, To: experiment.Buckets}},
		{"empty", nil, nil},
	} {
		h := running("e", 0, 1).inLayer("checkout", c.slot...).with(func(d *experiment.Definition) {
			d.Traffic = 1
			if c.want != nil {
				d.Traffic = 0
			}
		})
		catalog := catalogOf(t, h)
		x := catalog.Subject("user", "u-1", nil, day(3)).Explain(catalog.Experiment("e"))
		want := Gate{Kind: GateLayer, Passed: c.want != nil, Bucketing: &Bucketing{
			Purpose: "layer", Salt: "checkout", Hash: 0x7a9025182290c694, Bucket: bucket, Range: c.want,
		}}
		reason, gates := ReasonNoTraffic, 5
		if c.want != nil {
			reason, gates = ReasonSplit, 6
		}
		if x.Reason != reason || len(x.Gates) != gates {
			t.Errorf("%s: reason %d after %d gates", c.name, x.Reason, len(x.Gates))
			continue
		}
		got := x.Gates[4]
		if !strings.Contains(got.Detail, `the layer "layer"`) {
			t.Errorf("%s: %s", c.name, got.Detail)
		}
		got.Detail = ""
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestBrokenSlot(t *testing.T) {
	for _, slot := range [][]experiment.Range{
		{{From: 5, To: 5}}, {{From: -1, To: 5}}, {{From: 0, To: experiment.Buckets + 1}}, {{From: 4, To: 9}, {From: 0, To: 5}},
	} {
		_, err := Compile(running("e", 1, 1).inLayer("s", slot...).stored())
		if err == nil || !strings.Contains(err.Error(), `the slot in the layer "layer"`) {
			t.Errorf("%v: %v", slot, err)
		}
	}
}

func TestLayerDoesNotAllocate(t *testing.T) {
	ranges := make([]experiment.Range, 1000)
	for i := range ranges {
		ranges[i] = experiment.Range{From: int32(i) * 1000, To: int32(i)*1000 + 900}
	}
	subject := catalogOf(t, running("e", 1, 1).inLayer("s", ranges...)).Subject("user", "u-1", nil, day(3))
	if n := testing.AllocsPerRun(100, func() { subject.Assign("e") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestLayerExcludes: no subject is in two slots, and each has its share.
func TestLayerExcludes(t *testing.T) {
	keys := subjects(100_000)
	a := running("a", 1, 1).inLayer("l", experiment.Range{From: 0, To: 300_000})
	b := running("b", 1, 1).inLayer("l", experiment.Range{From: 300_000, To: 400_000}, experiment.Range{From: 900_000, To: 1_000_000})
	c := running("c", 1, 1).inLayer("l", experiment.Range{From: 400_000, To: 900_000})
	catalog := catalogOf(t, a, b, c)
	in := map[string]int{}
	for _, key := range keys {
		subject, n := catalog.Subject("user", key, nil, day(3)), 0
		for _, e := range []string{"a", "b", "c"} {
			if subject.Assign(e).Reason == ReasonSplit {
				in[e]++
				n++
			}
		}
		if n != 1 {
			t.Fatalf("%s is in %d experiments", key, n)
		}
	}
	n := float64(len(keys))
	for e, share := range map[string]float64{"a": 0.3, "b": 0.2, "c": 0.5} {
		if d := math.Abs(float64(in[e]) - n*share); d > 4.9*math.Sqrt(n*share*(1-share)) {
			t.Errorf("%s has %d of %v subjects, want a share of %v", e, in[e], n, share)
		}
	}
}

// TestSlotsInSuccession: experiments that follow each other in a slot split its
// subjects independently, and the layer's bucket tells nothing of the arm.
func TestSlotsInSuccession(t *testing.T) {
	slot := experiment.Range{From: 200_000, To: 700_000}
	half := experiment.Range{From: 200_000, To: 450_000}
	catalog := catalogOf(t, running("first", 1, 1, 2).inLayer("l", slot), running("second", 3, 1, 1).inLayer("l", slot),
		running("half", 1, 1).inLayer("l", half))
	arms := [][]int{make([]int, 3), make([]int, 3), make([]int, 3)}
	sides := [][]int{make([]int, 3), make([]int, 3)}
	for _, key := range subjects(200_000) {
		subject := catalog.Subject("user", key, nil, day(3))
		first, second := subject.Assign("first").Variant, subject.Assign("second").Variant
		if (first < 0) != (second < 0) {
			t.Fatalf("%s is in one of two equal slots", key)
		}
		if first < 0 {
			continue
		}
		arms[first][second]++
		side := 0
		if subject.Assign("half").Variant < 0 {
			side = 1
		}
		sides[side][first]++
	}
	for name, table := range map[string][][]int{"arms": arms, "sides of the slot": sides} {
		if chi2, df := independence(table); chi2 > critical(df) {
			t.Errorf("%s: %v, chi-square %.1f", name, table, chi2)
		}
	}
}

// TestLayersAreIndependent: of each other, and of experiments without a layer.
func TestLayersAreIndependent(t *testing.T) {
	low := experiment.Range{From: 0, To: 400_000}
	catalog := catalogOf(t, running("e", 1, 1).inLayer("l", low), running("other", 1, 1).inLayer("m", low),
		running("alone", 1, 1).with(func(d *experiment.Definition) { d.Traffic = 0.4 }),
		running("namesake", 1, 1).with(func(d *experiment.Definition) { d.Traffic, d.Salt = 0.4, "l" }))
	tables := map[string][][]int{}
	for _, key := range subjects(200_000) {
		subject := catalog.Subject("user", key, nil, day(3))
		for _, name := range []string{"other", "alone", "namesake"} {
			if tables[name] == nil {
				tables[name] = [][]int{make([]int, 3), make([]int, 3), make([]int, 3)}
			}
			tables[name][subject.Assign("e").Variant+1][subject.Assign(name).Variant+1]++
		}
	}
	for name, table := range tables {
		if chi2, df := independence(table); chi2 > critical(df) {
			t.Errorf("%s: %v, chi-square %.1f", name, table, chi2)
		}
	}
}

// TestSlotOfRevision asks for the revisions of an experiment that began with the
// second, rose with the third, was renamed by the fourth, and is concluded.
func TestSlotOfRevision(t *testing.T) {
	period := func(to int32, from, end time.Time) experiment.SlotPeriod {
		return experiment.SlotPeriod{Slot: experiment.Slot{Salt: "l", Ranges: []experiment.Range{{From: 0, To: to}}}, FromTime: from, EndTime: end}
	}
	h := running("e", 1, 1).with(func(d *experiment.Definition) { d.Layer = "l" })
	h.Transitions[1].Time = day(3)
	for i := range int32(3) {
		r := h.Revisions[0]
		r.Number, r.CreateTime = i+2, day([]int{2, 4, 5}[i])
		h.Revisions = append(h.Revisions, r)
	}
	h.Experiment.Current = h.Revisions[3]
	h.Slots = []experiment.SlotPeriod{period(10, day(3), day(4)), period(20, day(4), day(6))}
	h = h.in(experiment.StateConcluded, day(6))
	e := compile(t, h)
	var got, then []int32
	for number := range int32(4) {
		got = append(got, h.atRevision(e, number+1).Slot.Width())
	}
	for n := range 7 {
		if view := h.asOf(e, day(n), nil); view != nil {
			then = append(then, view.Slot.Width())
		}
	}
	if diff := cmp.Diff([][]int32{{0, 10, 20, 20}, {0, 0, 10, 20, 20, 0}}, [][]int32{got, then}); diff != "" {
		t.Errorf("slots by revision and by day (-want +got):\n%s", diff)
	}
	x := NewCatalog(pepper).Subject("user", "u", nil, day(3)).Explain(h.atRevision(e, 1))
	if last := x.Gates[len(x.Gates)-1]; x.Reason != ReasonNoTraffic || last.Kind != GateLayer || last.Bucketing != nil || !strings.Contains(last.Detail, "no slot") {
		t.Errorf("without a slot: %+v", x)
	}
}
