package stats

import (
	"cmp"
	"math"
	"slices"
	"sort"
)

// MaxPlannedSubjects is how many subjects a plan may have.
const MaxPlannedSubjects = 1_000_000_000_000

// Fewest is the smallest number of subjects that can be planned: two in every
// arm, without which there is no variance. It is false if that is too many.
func (d *Design) Fewest() (int64, bool) {
	fewest := math.Ceil(2 / slices.Min(d.Shares) * (1 - 1e-12)) // Shares are rounded.
	if !(fewest <= MaxPlannedSubjects) {
		return 0, false
	}
	return int64(fewest), true
}

// Subjects is the smallest number of subjects of all arms from which on a signed
// effect is found with at least the given power. It is false if that is more
// than MaxPlannedSubjects. The power of rates with few events goes up and down with the
// size: it stays there from that number up to half as many more, of which some two hundred
// are looked at.
func (d *Design) Subjects(effect, power float64) (int64, bool) {
	fewest, ok := d.Fewest()
	if !ok {
		return 0, false
	}
	low, high := fewest, fewest
	if d.Test.Method == Bayesian {
		// A few subjects leave the prior as it is, and that alone may decide: the
		// power falls with their number before it rises. So it is followed down.
		high = MaxPlannedSubjects
		for low = max(fewest, high/2); high > fewest && d.Power(effect, low) >= power; low = max(fewest, high/2) {
			high = low
		}
	}
	for d.Power(effect, high) < power {
		if high == MaxPlannedSubjects {
			return 0, false
		}
		low, high = high+1, min(2*high, MaxPlannedSubjects)
	}
	return d.lasting(effect, power, d.firstWith(effect, power, low, high))
}

// firstWith is the smallest of some numbers of subjects that has the power, if it rises.
// The last one has it.
func (d *Design) firstWith(effect, power float64, low, high int64) int64 {
	return low + int64(sort.Search(int(high-low), func(n int) bool {
		return d.Power(effect, low+int64(n)) >= power
	}))
}

// lasting is the smallest number of subjects, from a first one on that has the power,
// after which it does not fall below. Numbers are looked at in steps of a 512th, odd and
// even ones, as arms are of one size or not by turns: in less the power of rates falls by
// some thousandths at most before it rises again.
func (d *Design) lasting(effect, power float64, first int64) (int64, bool) {
	less := int64(0) // The last number that has less.
	for n := first; (less > 0 || n <= first+first/2) && !d.isStopped(); n += 1 | n/512 {
		if few := d.ratePlan(effect, n); less == 0 && (few == nil || few.guarded) {
			break // It rises from here on.
		}
		switch {
		case n > MaxPlannedSubjects:
			return 0, false
		case d.Power(effect, n) < power:
			less = n
		case less > 0:
			first, less = d.firstWith(effect, power, less+1, n), 0
		}
	}
	return first, true
}

// Effect is the size of the smallest effect that the subjects find with at least
// the given power, upwards, or downwards if down. It is false if no effect is
// found with it: a rate has to stay within 0 and 1, and any number finite.
func (d *Design) Effect(power float64, subjects int64, down bool) (float64, bool) {
	limit := math.MaxFloat64
	sign := 1.0
	if down {
		sign = -1
	}
	if d.Proportion {
		limit = 1 - d.Control
		if down {
			limit = d.Control
		}
	}
	found := func(size float64) bool { return d.Power(sign*size, subjects) >= power }
	low, high := 0.0, min(limit, d.Deviation/math.Sqrt(float64(subjects)))
	for !found(high) {
		if high == limit {
			return 0, false
		}
		low, high = high, min(2*high, limit)
	}
	for {
		middle := low + (high-low)/2
		if middle <= low || middle >= high {
			return high, true
		}
		if found(middle) {
			high = middle
		} else {
			low = middle
		}
	}
}

// Apportion gives each variant its share of the subjects in whole numbers, by
// largest remainders.
func Apportion(subjects int64, shares []float64) []int64 {
	counts := make([]int64, len(shares))
	order := make([]int, len(shares))
	left := subjects
	rest := func(i int) float64 { return float64(subjects)*shares[i] - float64(counts[i]) }
	for i, share := range shares {
		counts[i], order[i] = int64(float64(subjects)*share), i
		left -= counts[i]
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(rest(j), rest(i)) })
	for _, i := range order[:left] {
		counts[i]++
	}
	return counts
}
