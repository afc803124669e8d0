package experiment

import (
	"slices"
	"time"
)

// Layer is a set of experiments that never share a subject, since their slots
// never share a bucket of its hash.
type Layer struct {
	ID          int32 // In storage.
	Key         string
	Unit        string
	Description string
	Salt        string
	Version     int64       // Grows with every change of the layer, but not with its slots; the etag.
	Slots       []LayerSlot // In use, by experiment.
	CreateTime  time.Time
	UpdateTime  time.Time
}

// LayerSlot is a slot as the layer knows it.
type LayerSlot struct {
	Experiment string  `json:"experiment"`
	Ranges     []Range `json:"ranges"` // Ascending, no two adjacent.
}

// Slot is an experiment's part of its layer: buckets of a hash.
type Slot struct {
	Salt   string  `json:"salt"`   // The layer's, which does not change any more.
	Ranges []Range `json:"ranges"` // Ascending, no two adjacent; never empty.
}

// SlotPeriod is a slot while it was in force.
type SlotPeriod struct {
	Slot
	FromTime time.Time
	EndTime  time.Time // Zero: it is in force.
}

// Width is the number of buckets of a slot; of none it is 0.
func (s *Slot) Width() int32 {
	if s == nil {
		return 0
	}
	return width(s.Ranges)
}

// Free is the number of the layer's buckets that no slot holds.
func (l *Layer) Free() int32 {
	free := int32(Buckets)
	for _, s := range l.Slots {
		free -= width(s.Ranges)
	}
	return free
}

// Others returns the ranges of the slots of all experiments but one.
func (l *Layer) Others(experiment string) []Range {
	var ranges []Range
	for _, s := range l.Slots {
		if s.Experiment != experiment {
			ranges = append(ranges, s.Ranges...)
		}
	}
	return ranges
}

// width is the number of buckets in disjoint ranges.
func width(ranges []Range) int32 {
	sum := int32(0)
	for _, r := range ranges {
		sum += r.To - r.From
	}
	return sum
}

// ResizeSlot returns a slot with another number of buckets. To widen it, it takes the lowest
// buckets that neither it nor the others hold, so that whoever is in stays in;
// to narrow it, it gives up its highest. It returns false if there is no room.
func ResizeSlot(slot, others []Range, buckets int32) ([]Range, bool) {
	missing := buckets - width(slot)
	if missing <= 0 {
		return lowest(slot, buckets), true
	}
	free := gaps(slices.Concat(slot, others))
	if width(free) < missing {
		return nil, false
	}
	return joined(slices.Concat(slot, lowest(free, missing))), true
}

// lowest returns the lowest buckets of ascending ranges, up to a number.
func lowest(ranges []Range, buckets int32) []Range {
	var cut []Range
	for _, r := range ranges {
		if buckets <= 0 {
			break
		}
		r.To = min(r.To, r.From+buckets)
		buckets -= r.To - r.From
		cut = append(cut, r)
	}
	return cut
}

// gaps returns the buckets that no range holds, ascending.
func gaps(ranges []Range) []Range {
	var free []Range
	next := int32(0)
	for _, r := range append(joined(ranges), Range{From: Buckets, To: Buckets}) {
		if r.From > next {
			free = append(free, Range{From: next, To: r.From})
		}
		next = r.To
	}
	return free
}
