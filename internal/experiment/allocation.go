package experiment

import (
	"cmp"
	"math"
	"slices"
)

// Buckets is the number of buckets that traffic and splits are cut into.
const Buckets = 1_000_000

// Range is a half-open range [From, To) of buckets: of a split, that belong to
// a variant, or of a layer, that belong to a slot and name no variant.
type Range struct {
	From    int32  `json:"from"`
	To      int32  `json:"to"`
	Variant string `json:"variant,omitempty"`
}

// TrafficBuckets is the number of traffic buckets that take part: those below
// floor(traffic × 10⁶ + ½).
func (d *Definition) TrafficBuckets() int32 {
	return int32(math.Floor(d.Traffic*Buckets + 0.5))
}

// FirstAllocation lays the variants out in their listed order, the i-th
// boundary at floor(10⁶ × cumulative weight ÷ total weight). Variants of
// weight 0 get no range. The total weight must be positive.
func FirstAllocation(variants []Variant) []Range {
	total := int64(0)
	for _, v := range variants {
		total += int64(v.Weight)
	}
	var ranges []Range
	from, sum := int32(0), int64(0)
	for _, v := range variants {
		sum += int64(v.Weight)
		to := int32(Buckets * sum / total)
		if to > from {
			ranges = append(ranges, Range{from, to, v.Key})
		}
		from = to
	}
	return ranges
}

// Reallocate gives the variants their shares by moving as few buckets as
// possible. The current ranges must cover all buckets once, and the total
// weight must be positive; the result covers them once too, in the order of
// the buckets, neighbours of one variant joined.
//
// A variant is due floor(10⁶ × weight ÷ total weight) buckets, and one more
// for as many variants as it takes to reach 10⁶: first for those that hold
// more than the floor already, then by the largest remainder, then by their
// listed order. No choice of whole buckets within one of every exact share
// moves fewer.
//
// Whoever holds more than it is due gives up its highest buckets. They go, from
// the lowest on, to whoever holds less, in the listed order. So a variant that
// is no longer wanted is spread over the others. These keep what they hold, but
// for a bucket each that rounding may cost where shares are of about a bucket.
func Reallocate(current []Range, variants []Variant) []Range {
	held := bucketsOf(current)
	due := dueBuckets(held, variants)
	kept, freed := giveUp(current, held, due)
	for _, v := range variants {
		for missing := due[v.Key] - held[v.Key]; missing > 0; {
			r := &freed[0]
			n := min(missing, r.To-r.From)
			kept = append(kept, Range{r.From, r.From + n, v.Key})
			missing -= n
			if r.From += n; r.From == r.To {
				freed = freed[1:]
			}
		}
	}
	return joined(kept)
}

// bucketsOf counts the buckets of each variant.
func bucketsOf(ranges []Range) map[string]int32 {
	held := map[string]int32{}
	for _, r := range ranges {
		held[r.Variant] += r.To - r.From
	}
	return held
}

// dueBuckets says how many buckets each variant is to have.
func dueBuckets(held map[string]int32, variants []Variant) map[string]int32 {
	total := int64(0)
	for _, v := range variants {
		total += int64(v.Weight)
	}
	due := make(map[string]int32, len(variants))
	remainders := make(map[string]int64, len(variants))
	left := int32(Buckets)
	var inexact []string // Variants with a remainder: more of them than buckets left.
	for _, v := range variants {
		exact := Buckets * int64(v.Weight)
		due[v.Key], remainders[v.Key] = int32(exact/total), exact%total
		left -= due[v.Key]
		if remainders[v.Key] > 0 {
			inexact = append(inexact, v.Key)
		}
	}
	slices.SortStableFunc(inexact, func(a, b string) int {
		if x, y := held[a] > due[a], held[b] > due[b]; x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Compare(remainders[b], remainders[a])
	})
	for _, key := range inexact[:left] {
		due[key]++
	}
	return due
}

// giveUp cuts the highest buckets off the ranges of variants that hold more
// than they are due. It returns what they keep and, ascending, what is free.
func giveUp(current []Range, held, due map[string]int32) (kept, freed []Range) {
	excess := map[string]int32{}
	for key, n := range held {
		excess[key] = max(0, n-due[key])
	}
	for _, r := range slices.Backward(joined(current)) {
		n := min(excess[r.Variant], r.To-r.From)
		excess[r.Variant] -= n
		if n > 0 {
			freed = append(freed, Range{r.To - n, r.To, ""})
		}
		if r.To -= n; r.To > r.From {
			kept = append(kept, r)
		}
	}
	slices.Reverse(freed)
	return kept, freed
}

// joined sorts ranges and joins neighbours of one variant.
func joined(ranges []Range) []Range {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b Range) int { return cmp.Compare(a.From, b.From) })
	var out []Range
	for _, r := range sorted {
		if n := len(out); n > 0 && out[n-1].To == r.From && out[n-1].Variant == r.Variant {
			out[n-1].To = r.To
			continue
		}
		out = append(out, r)
	}
	return out
}
