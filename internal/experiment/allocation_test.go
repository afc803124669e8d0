package experiment

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// weighted returns variants by key and weight; the first is the control.
func weighted(pairs ...any) []Variant {
	var variants []Variant
	for i := 0; i < len(pairs); i += 2 {
		variants = append(variants, Variant{Key: pairs[i].(string), Control: i == 0, Weight: int32(pairs[i+1].(int))})
	}
	return variants
}

func TestReallocate(t *testing.T) {
	half := []Range{{0, 500_000, "a"}, {500_000, Buckets, "b"}}
	thirds := FirstAllocation(weighted("a", 1, "b", 1, "c", 1))
	cases := []struct {
		name     string
		current  []Range
		variants []Variant
		want     []Range
	}{
		{"the same weights", half, weighted("a", 1, "b", 1), half},
		{"the same shares", thirds, weighted("a", 2, "b", 2, "c", 2), thirds},
		{"another order", half, weighted("b", 1, "a", 1), half},
		{"a variant without weight", half, weighted("a", 1, "b", 1, "c", 0), half},
		{"more for the first", half, weighted("a", 3, "b", 1), []Range{{0, 500_000, "a"}, {500_000, 750_000, "b"}, {750_000, Buckets, "a"}}},
		{"more for the second", half, weighted("a", 1, "b", 3), []Range{{0, 250_000, "a"}, {250_000, Buckets, "b"}}},
		{"a new variant", half, weighted("a", 1, "b", 1, "c", 2),
			[]Range{{0, 250_000, "a"}, {250_000, 500_000, "c"}, {500_000, 750_000, "b"}, {750_000, Buckets, "c"}}},
		{"a killed variant", thirds, weighted("a", 1, "b", 0, "c", 1),
			[]Range{{0, 500_000, "a"}, {500_000, Buckets, "c"}}},
		{"a removed variant", thirds, weighted("a", 1, "b", 1),
			[]Range{{0, 333_333, "a"}, {333_333, 666_666, "b"}, {666_666, 833_333, "a"}, {833_333, Buckets, "b"}}},
		{"another in its place", half, weighted("a", 1, "c", 1), []Range{{0, 500_000, "a"}, {500_000, Buckets, "c"}}},
		{"everything to one", thirds, weighted("a", 0, "b", 0, "c", 7), []Range{{0, Buckets, "c"}}},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Reallocate(tt.current, tt.variants)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// owners says bucket by bucket whose it is, and fails unless each has one
// owner.
func owners(t *testing.T, ranges []Range) []string {
	t.Helper()
	all := make([]string, Buckets)
	for i, r := range ranges {
		if r.From >= r.To || i > 0 && (r.From < ranges[i-1].To || ranges[i-1].To == r.From && ranges[i-1].Variant == r.Variant) {
			t.Fatalf("range %d of %v is empty, out of order or not joined", i, ranges)
		}
		for b := r.From; b < r.To; b++ {
			all[b] = r.Variant
		}
	}
	if i := slices.Index(all, ""); i >= 0 {
		t.Fatalf("bucket %d of %v has no owner", i, ranges)
	}
	return all
}

// leastMovement is the least number of buckets that must change owner, so that
// every variant holds its exact share rounded down or up: all that are missing
// from the shares rounded down, and the rest of the 10⁶ where no holder of a
// bucket more can keep it.
func leastMovement(before []string, variants []Variant) int {
	held, total := map[string]int{}, 0
	for b, run := 0, 0; b < Buckets; b += run {
		for run = 1; b+run < Buckets && before[b+run] == before[b]; run++ {
		}
		held[before[b]] += run
	}
	for _, v := range variants {
		total += int(v.Weight)
	}
	missing, floors, keepers := 0, 0, 0
	for _, v := range variants {
		floor := Buckets * int(v.Weight) / total
		floors += floor
		missing += max(0, floor-held[v.Key])
		if held[v.Key] > floor && Buckets*int(v.Weight)%total > 0 {
			keepers++
		}
	}
	return missing + max(0, Buckets-floors-keepers)
}

// TestReallocateExtremes chains changes among many variants of weights that
// differ by six orders of magnitude: every variant gets its exact share rounded
// down or up, and killing one costs no other more than one bucket.
func TestReallocateExtremes(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 100 {
		variants := make([]Variant, 2+r.IntN(63))
		for i := range variants {
			variants[i] = Variant{Key: fmt.Sprint("v", i)}
		}
		current := []Range{{0, Buckets, "v0"}}
		for range 10 {
			for i := range variants {
				variants[i].Weight = []int32{0, 1, 2, 1000, 1_000_000, r.Int32N(1_000_000)}[r.IntN(6)]
			}
			variants[0].Weight++
			current = Reallocate(current, variants)
			checkShares(t, current, variants)
			before, killed := bucketsOf(current), 1+r.IntN(len(variants)-1)
			variants[killed].Weight = 0
			current = Reallocate(current, variants)
			checkShares(t, current, variants)
			after := bucketsOf(current)
			for i, v := range variants {
				if i != killed && after[v.Key] < before[v.Key]-1 {
					t.Fatalf("killing v%d costs %s %d buckets", killed, v.Key, before[v.Key]-after[v.Key])
				}
			}
		}
	}
}

// checkShares fails unless the ranges cover all buckets once, and every variant
// holds its exact share rounded down or up.
func checkShares(t *testing.T, ranges []Range, variants []Variant) {
	t.Helper()
	total, end := 0.0, int32(0)
	for _, v := range variants {
		total += float64(v.Weight)
	}
	for _, r := range ranges {
		if r.From != end || r.To <= r.From {
			t.Fatalf("the ranges %v do not follow each other", ranges)
		}
		end = r.To
	}
	if end != Buckets {
		t.Fatalf("the ranges %v end at %d", ranges, end)
	}
	held := bucketsOf(ranges)
	for _, v := range variants {
		exact := float64(v.Weight) / total * Buckets
		if gap := float64(held[v.Key]) - exact; gap <= -1 || gap >= 1 || v.Weight == 0 && held[v.Key] != 0 {
			t.Fatalf("%s holds %d buckets of its %v", v.Key, held[v.Key], exact)
		}
	}
}

// randomChange changes weights, kills, adds or removes variants, or changes
// traffic. killed is the one that was killed or removed alone.
func randomChange(r *rand.Rand, d *Definition, step int) (next Definition, killed string) {
	next = *d
	next.Variants = slices.Clone(d.Variants)
	positive := slices.DeleteFunc(slices.Clone(next.Variants), func(v Variant) bool { return v.Weight == 0 })
	i := r.IntN(len(next.Variants))
	v, kind := &next.Variants[i], r.IntN(6)
	switch {
	case kind == 0:
		for i := range next.Variants {
			next.Variants[i].Weight = r.Int32N(100)
		}
		next.Variants[r.IntN(len(next.Variants))].Weight++
	case kind == 1 && v.Weight > 0 && len(positive) > 1:
		v.Weight, killed = 0, v.Key
	case kind == 2 && !v.Control && v.Weight > 0 && len(positive) > 1 && len(next.Variants) > 2:
		killed = v.Key
		next.Variants = slices.Delete(next.Variants, i, i+1)
	case kind == 3 && len(next.Variants) < 8:
		next.Variants = slices.Insert(next.Variants, i, Variant{Key: fmt.Sprint("v", step), Weight: r.Int32N(50)})
	case kind == 4:
		next.Traffic = r.Float64()
	default:
		next.Traffic += (1 - next.Traffic) * r.Float64()
	}
	return next, killed
}

func TestRandomChanges(t *testing.T) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 5))
		d := Definition{Unit: "user", Salt: "e", Traffic: 0.5, Variants: weighted("control", 1+r.IntN(9), "b", 1+r.IntN(9), "c", r.IntN(9))}
		revision := Revision{Number: 1, Phase: 1, Definition: d, Allocation: FirstAllocation(d.Variants)}
		before := owners(t, revision.Allocation)
		for step := range 10 {
			def, killed := randomChange(r, &revision.Definition, step)
			next, movement, err := revision.Next(def, false)
			if err != nil {
				t.Fatalf("%+v to %+v: %v", revision.Definition, def, err)
			}
			if again, same, _ := revision.Next(def, false); !cmp.Equal(next, again) || !cmp.Equal(movement, same) {
				t.Fatalf("%+v and %+v follow from the same change", next, again)
			}
			after := owners(t, next.Allocation)
			least := 0
			if !slices.Equal(revision.Definition.weights(), def.weights()) {
				least = leastMovement(before, def.Variants)
			}
			checkMovement(t, &revision, &next, &movement, before, after, least)
			if killed != "" {
				for b := range before {
					if before[b] != after[b] && before[b] != killed {
						t.Fatalf("killing %q moves bucket %d of %q", killed, b, before[b])
					}
				}
			}
			revision, before = next, after
		}
	}
}

// checkMovement compares a movement with a count over all buckets.
func checkMovement(t *testing.T, from, to *Revision, got *Movement, before, after []string, least int) {
	t.Helper()
	flows, changed := map[[2]string]int{}, 0
	for b, run := 0, 0; b < Buckets; b += run {
		for run = 1; b+run < Buckets && before[b+run] == before[b] && after[b+run] == after[b]; run++ {
		}
		if before[b] != after[b] {
			changed += run
			flows[[2]string{before[b], after[b]}] += run
		}
	}
	if changed != least {
		t.Fatalf("%d buckets move where %d must: %v to %v", changed, least, from.Allocation, to.Definition.Variants)
	}
	stay, enter, leave := 0, 0, 0
	for b := range Buckets { // A bucket is in if it is below the traffic's, rounded.
		was, is := float64(b) <= from.Definition.Traffic*Buckets-0.5, float64(b) <= to.Definition.Traffic*Buckets-0.5
		switch {
		case was && is:
			stay++
		case is:
			enter++
		case was:
			leave++
		}
	}
	const all = float64(Buckets)
	want := Movement{
		Change: float64(stay) * float64(changed) / all / all, Enter: float64(enter) / all, Leave: float64(leave) / all,
		SplitChange: float64(changed) / all, VariantsChanged: got.VariantsChanged,
		OfParticipants: (float64(stay)*float64(changed)/all + float64(leave)) / float64(stay+leave),
	}
	for pair, n := range flows {
		want.Flows = append(want.Flows, Flow{pair[0], pair[1], float64(stay) * float64(n) / all / all, float64(n) / all})
	}
	slices.SortFunc(want.Flows, func(a, b Flow) int {
		return slices.Compare([]string{a.From, a.To}, []string{b.From, b.To})
	})
	close := cmp.Comparer(func(a, b float64) bool { return a == b || a-b < 1e-15 && b-a < 1e-15 })
	if diff := cmp.Diff(&want, got, close); diff != "" {
		t.Fatalf("the movement differs from a count (-count +got):\n%s", diff)
	}
	if phase := from.Phase + 1; (to.Phase == phase) != (changed > 0 || leave > 0 || got.VariantsChanged) || to.Phase > phase {
		t.Fatalf("phase %d after %d with %d buckets moved and %d left", to.Phase, from.Phase, changed, leave)
	}
}
