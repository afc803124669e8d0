package experiment

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResizeSlot(t *testing.T) {
	all := []Range{{From: 0, To: Buckets}}
	for _, c := range []struct {
		name         string
		slot, others []Range
		width        int32
		want         []Range
		fits         bool
	}{
		{"an empty layer", nil, nil, 300, []Range{{From: 0, To: 300}}, true},
		{"all of it", nil, nil, Buckets, all, true},
		{"nothing", nil, all, 0, nil, true},
		{"a full layer", nil, all, 1, nil, false},
		{"behind others, listed in any order", nil, []Range{{From: 5, To: 9}, {From: 0, To: 5}}, 3, []Range{{From: 9, To: 12}}, true},
		{"in pieces", nil, []Range{{From: 2, To: 5}, {From: 6, To: Buckets - 1}}, 4,
			[]Range{{From: 0, To: 2}, {From: 5, To: 6}, {From: Buckets - 1, To: Buckets}}, true},
		{"one bucket short", nil, []Range{{From: 2, To: 5}, {From: 6, To: Buckets - 1}}, 5, nil, false},
		{"widened beside itself", []Range{{From: 4, To: 6}}, nil, 8, []Range{{From: 0, To: 8}}, true},
		{"widened around others", []Range{{From: 4, To: 6}}, []Range{{From: 1, To: 3}, {From: 6, To: 8}}, 6,
			[]Range{{From: 0, To: 1}, {From: 3, To: 6}, {From: 8, To: 10}}, true},
		{"not to be widened", []Range{{From: 0, To: 6}}, []Range{{From: 6, To: Buckets}}, 7, nil, false},
		{"as wide as before", []Range{{From: 4, To: 6}}, []Range{{From: 0, To: 2}}, 2, []Range{{From: 4, To: 6}}, true},
		{"narrowed", []Range{{From: 0, To: 2}, {From: 5, To: 9}}, nil, 3, []Range{{From: 0, To: 2}, {From: 5, To: 6}}, true},
		{"narrowed by a range", []Range{{From: 0, To: 2}, {From: 5, To: 9}}, nil, 2, []Range{{From: 0, To: 2}}, true},
		{"narrowed to nothing", []Range{{From: 0, To: 2}}, nil, 0, nil, true},
	} {
		got, fits := ResizeSlot(c.slot, c.others, c.width)
		if diff := cmp.Diff(c.want, got); diff != "" || fits != c.fits {
			t.Errorf("%s: fits %t (-want +got):\n%s", c.name, fits, diff)
		}
	}
}

func TestTrafficBuckets(t *testing.T) {
	for traffic, want := range map[float64]int32{0: 0, 1: Buckets, 0.5: 500_000, 0.0000004: 0, 0.0000005: 1, 0.1 + 0.2: 300_000, 0.9999995: Buckets} {
		if got := (&Definition{Traffic: traffic}).TrafficBuckets(); got != want {
			t.Errorf("%v: %d buckets, want %d", traffic, got, want)
		}
	}
}

// TestSlots starts, resizes and ends experiments at random. A list of every
// bucket's holder, kept by the plainest means, is the oracle.
func TestSlots(t *testing.T) {
	const scale = Buckets / 100 // Buckets are handed out by hundredths, but for one odd bucket.
	r := rand.New(rand.NewPCG(5, 6))
	slots := map[int][]Range{}
	holder := make([]int, Buckets) // 0 is free.
	odd, full, fragmented := 0, 0, 0
	for step := range 80 {
		id := 1 + r.IntN(9)
		buckets := r.Int32N(40) * scale
		if r.IntN(4) == 0 {
			buckets, odd = buckets+1, odd+1
		}
		if r.IntN(3) == 0 {
			buckets = 0
		}
		var others []Range
		for other, slot := range slots {
			if other != id {
				others = append(others, slot...)
			}
		}
		room := 0
		for _, h := range holder {
			if h == 0 || h == id {
				room++
			}
		}
		before := width(slots[id])
		got, fits := ResizeSlot(slots[id], others, buckets)
		if fits != (int(buckets) <= room) {
			t.Fatalf("step %d: %d buckets of %d: fits %t", step, buckets, room, fits)
		}
		if !fits {
			full++
			continue
		}
		// By the plainest means: the lowest free ones in, or the highest out.
		for b, change := 0, buckets-before; change > 0; b++ {
			if holder[b] == 0 {
				holder[b] = id
				change--
			}
		}
		for b, change := Buckets-1, before-buckets; change > 0; b-- {
			if holder[b] == id {
				holder[b] = 0
				change--
			}
		}
		var want []Range
		for b, h := range holder {
			switch last := len(want) - 1; {
			case h != id:
			case last >= 0 && want[last].To == int32(b):
				want[last].To++
			default:
				want = append(want, Range{From: int32(b), To: int32(b) + 1})
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("step %d, from %d to %d buckets (-want +got):\n%s", step, before, buckets, diff)
		}
		slots[id] = got
		if len(got) > 1 {
			fragmented++
		}
	}
	if odd < 8 || full < 8 || fragmented < 8 {
		t.Errorf("only %d odd widths, %d refusals and %d fragmented slots came up", odd, full, fragmented)
	}
}
