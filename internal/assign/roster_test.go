package assign

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

// listed is a subject of a roster to be.
type listed struct{ key, stratum string }

func variantsOf(weights ...int32) (variants []experiment.Variant) {
	for i, w := range weights {
		variants = append(variants, experiment.Variant{Key: fmt.Sprint("v", i), Weight: w})
	}
	return variants
}

// allocate returns the variant of each subject by key, and the counts of each
// stratum.
func allocate(t testing.TB, salt string, variants []experiment.Variant, subjects []listed) (byKey map[string]int, counts map[string][]int64) {
	t.Helper()
	list := NewRosterList(pepper, &experiment.Definition{Unit: "user", Salt: salt})
	for _, s := range subjects {
		if !list.Add(s.key, s.stratum) {
			t.Fatalf("%d strata were too many", len(list.Strata()))
		}
	}
	byKey, counts = map[string]int{}, map[string][]int64{}
	for place, v := range list.Allocate(variants) {
		s := subjects[place]
		byKey[s.key] = int(v)
		if counts[s.stratum] == nil {
			counts[s.stratum] = make([]int64, len(variants))
		}
		counts[s.stratum][v]++
	}
	return byKey, counts
}

// TestRosterProperties allocates random lists: every count is within one of its
// exact share, and the order of the list does not matter.
func TestRosterProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 0))
	for range 300 {
		variants := variantsOf(int32(r.IntN(4)), int32(1+r.IntN(10)), int32(r.IntN(1_000_000)), 0)[:2+r.IntN(3)]
		total := int64(0)
		for _, v := range variants {
			total += int64(v.Weight)
		}
		var subjects []listed
		for i := range r.IntN(400) {
			subjects = append(subjects, listed{fmt.Sprint("u-", i), strings.Repeat("s", r.IntN(5)*r.IntN(5))})
		}
		salt := fmt.Sprint("salt-", r.IntN(1000))
		byKey, counts := allocate(t, salt, variants, subjects)
		for stratum, of := range counts {
			n := int64(0)
			for _, c := range of {
				n += c
			}
			for i, c := range of {
				exact := n * int64(variants[i].Weight)
				if c != exact/total && (c != exact/total+1 || exact%total == 0) {
					t.Fatalf("stratum %q: %d of %d subjects for weights %v", stratum, c, n, variants)
				}
			}
		}
		r.Shuffle(len(subjects), func(i, j int) { subjects[i], subjects[j] = subjects[j], subjects[i] })
		again, _ := allocate(t, salt, variants, subjects)
		if diff := cmp.Diff(byKey, again); diff != "" {
			t.Fatalf("in another order:\n%s", diff)
		}
	}
}

// TestRosterOfSmallStrata: 1,000 strata of one subject each, and of two, are
// split by weight altogether. A rule that gave the left-over places to the
// largest remainders would give the first variant all of them.
func TestRosterOfSmallStrata(t *testing.T) {
	for size := 1; size <= 2; size++ {
		var subjects []listed
		for i := range 1000 * size {
			subjects = append(subjects, listed{fmt.Sprint("u-", i), fmt.Sprint("s-", i/size)})
		}
		variants := variantsOf(6, 3, 1)
		got := make([]float64, len(variants))
		_, counts := allocate(t, "campaign", variants, subjects)
		for _, of := range counts {
			for i, c := range of {
				got[i] += float64(c)
			}
		}
		n := float64(len(subjects))
		for i, v := range variants {
			share := float64(v.Weight) / 10
			if d := math.Abs(got[i] - n*share); d > 5*math.Sqrt(n*share*(1-share)) {
				t.Errorf("strata of %d: %s has %v of %v subjects, and its share is %v", size, v.Key, got[i], n, share)
			}
		}
	}
}

// TestRosterCounts holds the left-over places to systematic sampling: over all
// starts, each variant gets one exactly in proportion to its remainder.
func TestRosterCounts(t *testing.T) {
	variants := variantsOf(5, 0, 4, 3, 2, 1)
	const total, n = 15, 7
	sums := make([]int64, len(variants))
	for start := range uint64(total) {
		mixed := (start<<32/total + 1) << 32
		for i, c := range rosterCounts(n, variants, mixed) {
			sums[i] += c
		}
	}
	want := make([]int64, len(variants))
	for i, v := range variants {
		want[i] = n * int64(v.Weight) // Of 15 starts, the exact share times 15.
	}
	if !slices.Equal(sums, want) {
		t.Errorf("over all starts %v, want %v", sums, want)
	}
}

// TestRosterOfDifferentSalts: rosters of the same list by different salts are
// independent, and so are neighbouring keys.
func TestRosterOfDifferentSalts(t *testing.T) {
	const n = 20_000
	var subjects []listed
	for i := range n {
		subjects = append(subjects, listed{key: fmt.Sprint("u-", i)})
	}
	one, _ := allocate(t, "one", variantsOf(1, 1), subjects)
	other, _ := allocate(t, "other", variantsOf(1, 1), subjects)
	both, pairs := 0, 0
	for i := range n {
		key, next := fmt.Sprint("u-", i), fmt.Sprint("u-", (i+1)%n)
		both += one[key] * other[key]
		pairs += one[key] * one[next]
	}
	for what, count := range map[string]int{"in both": both, "neighbours": pairs} {
		if d := math.Abs(float64(count) - n/4); d > 5*math.Sqrt(n*3.0/16) {
			t.Errorf("%s: %d of %d", what, count, n)
		}
	}
}

func TestRosterListLimits(t *testing.T) {
	list := NewRosterList(pepper, &experiment.Definition{Unit: "user", Salt: "s"})
	for i := range experiment.MaxRosterStrata {
		if !list.Add(fmt.Sprint("u-", i), fmt.Sprint("s-", i)) {
			t.Fatalf("%d strata were too many", i+1)
		}
	}
	if list.Add("more", "more") || !list.Add("more", "s-7") || list.Len() != experiment.MaxRosterStrata+1 {
		t.Error("the limit of strata does not hold, or a refused subject was added")
	}
}

// rostered returns the experiment with a roster of the subjects u-0 to u-9, made
// with the second revision.
func rostered(t testing.TB, h history) history {
	t.Helper()
	def := &h.Experiment.Current.Definition
	list := NewRosterList(pepper, def)
	for i := range 10 {
		list.Add(fmt.Sprint("u-", i), "")
	}
	given := list.Allocate(def.Variants)
	h.Roster = list.Subjects(list.Order(), given)
	roster := &experiment.Roster{ID: 1, Revision: h.Experiment.Current.Number, CreateTime: day(1)}
	for _, v := range def.Variants {
		roster.Arms = append(roster.Arms, experiment.RosterArm{Variant: v.Key})
	}
	for _, v := range given {
		roster.Arms[v].Subjects++
	}
	h.Experiment.Roster = roster
	return h
}

func TestRosterDecides(t *testing.T) {
	h := rostered(t, running("e", 1, 1))
	h.Overrides = map[experiment.SubjectID]string{
		pepper.SubjectID(experiment.Subject{Unit: "user", Key: "pinned"}): "v1",
	}
	h = h.with(func(d *experiment.Definition) { d.Eligibility = "!attributes.out" })
	c := catalogOf(t, h)
	e := c.Experiment("e")
	in := map[string]any{"out": false}
	counts := map[int]int{}
	for i := range 10 {
		s := c.Subject("user", fmt.Sprint("u-", i), in, day(3))
		d := s.Assign("e")
		if d.Reason != ReasonRoster {
			t.Fatalf("u-%d: %+v", i, d)
		}
		counts[d.Variant]++
		if x := s.Explain(e); x.Decision != d || x.Gates[len(x.Gates)-1].Kind != GateRoster || !x.Gates[len(x.Gates)-1].Passed || len(x.Gates) != 5 {
			t.Errorf("u-%d is explained as %+v", i, x)
		}
		for v := range 2 {
			_, refused := s.CheckExposure(e, fmt.Sprint("v", v), day(3), 0)
			if (refused == nil) != (v == d.Variant) {
				t.Errorf("u-%d has v%d, and an exposure to v%d: %+v", i, d.Variant, v, refused)
			}
		}
	}
	if counts[0] != 5 || counts[1] != 5 {
		t.Errorf("split into %v", counts)
	}
	for _, tt := range []struct {
		key     string
		out     bool
		variant int
		reason  Reason
		detail  string
	}{
		{"u-10", false, -1, ReasonNotInRoster, "The roster does not list the subject."},
		{"u-1", true, -1, ReasonIneligible, "The predicate is false."},
		{"pinned", false, 1, ReasonOverride, `The subject is pinned to "v1".`},
	} {
		x := c.Subject("user", tt.key, map[string]any{"out": tt.out}, day(3)).Explain(e)
		if last := x.Gates[len(x.Gates)-1]; x.Variant != tt.variant || x.Reason != tt.reason || last.Detail != tt.detail {
			t.Errorf("%s: %+v", tt.key, x)
		}
	}
	if _, refused := c.Subject("user", "u-10", in, day(3)).CheckExposure(e, "v0", day(3), 0); refused == nil || refused.Reason != RejectVariantMismatch {
		t.Errorf("an exposure of a subject that is not listed: %+v", refused)
	}
	if d := catalogOf(t, rostered(t, running("e", 1, 1)).in(experiment.StatePaused, day(5))).Subject("user", "u-1", in, day(3)).Assign("e"); d.Reason != ReasonNotRunning {
		t.Errorf("paused: %+v", d)
	}
}

// TestRosterOfThePast: a roster holds for every time since it was made, and for
// no revision before.
func TestRosterOfThePast(t *testing.T) {
	h := running("e", 1, 1)
	first := h.Experiment.Current
	first.Definition.Variants = variantsOf(1, 0, 0)
	first.Allocation = experiment.FirstAllocation(first.Definition.Variants)
	second := h.Experiment.Current
	second.Number, second.CreateTime = 2, day(1).Add(time.Hour)
	h.Experiment.Current = second
	h = rostered(t, h)
	third := second
	third.Number, third.CreateTime, third.Definition.Variants = 3, day(5), slices.Clone(second.Definition.Variants)
	slices.Reverse(third.Definition.Variants)
	h.Experiment.Current, h.Revisions = third, []experiment.Revision{first, second, third}
	c := catalogOf(t, h)
	e := c.Experiment("e")
	key := func(d Decision) string {
		if d.Variant < 0 {
			return ""
		}
		return d.Experiment.Current.Definition.Variants[d.Variant].Key
	}
	for i := range 10 {
		s := c.Subject("user", fmt.Sprint("u-", i), nil, day(3))
		now := s.Decide(e)
		for what, then := range map[string]*Experiment{"day 3": h.asOf(e, day(3), nil), "day 6": h.asOf(e, day(6), nil), "revision 2": h.atRevision(e, 2), "revision 3": h.atRevision(e, 3)} {
			if d := s.Explain(then); d.Reason != ReasonRoster || key(d.Decision) != key(now) {
				t.Errorf("u-%d at %s: %+v, and now %+v", i, what, d, now)
			}
		}
		if _, refused := s.CheckExposure(e, key(now), day(3), 0); refused != nil {
			t.Errorf("u-%d with another order of the variants: %+v", i, refused)
		}
		if d := s.Explain(h.atRevision(e, 1)); d.Reason != ReasonSplit || key(d.Decision) != "v0" {
			t.Errorf("before the roster: %+v", d)
		}
	}
}

// TestBrokenRoster is served as not running.
func TestBrokenRoster(t *testing.T) {
	for what, broken := range map[string]func(*history){
		"no subjects":     func(h *history) { h.Roster = nil },
		"lacks an arm":    func(h *history) { h.Experiment.Roster.Arms = h.Experiment.Roster.Arms[:1] },
		"unknown variant": func(h *history) { h.Experiment.Roster.Arms[0].Variant = "x" },
		"odd":             func(h *history) { h.Roster.Arms = h.Roster.Arms[:9] },
	} {
		h := rostered(t, running("e", 1, 1))
		broken(&h)
		e, err := Compile(h.stored())
		if err == nil {
			t.Errorf("%s: it compiled", what)
			continue
		}
		if d := NewCatalog(pepper).With(e).Subject("user", "u-1", nil, day(3)).Assign("e"); d.Reason != ReasonNotRunning {
			t.Errorf("%s: %+v", what, d)
		}
	}
	deleted := rostered(t, running("e", 1, 1))
	deleted.Roster, deleted.Experiment.Roster.DeleteTime = nil, day(4)
	x := catalogOf(t, deleted).Subject("user", "u-1", nil, day(3))
	if got := x.Explain(x.catalog.Experiment("e")); got.Reason != ReasonNotInRoster || got.Gates[4].Detail != "The subjects of the roster were deleted." {
		t.Errorf("deleted: %+v", got)
	}
}

// TestRosterUnderAHoldout: the held-out subjects of a roster get the control and
// count for the holdout, the others have their own variants, and a subject that
// is held out and not listed counts for nothing.
func TestRosterUnderAHoldout(t *testing.T) {
	c := catalogOf(t, rostered(t, running("e", 1, 1)).covered(coverage(7, vectorBucket+1))) // Holds u-1 out.
	e := c.Experiment("e")
	held := 0
	for i := range 40 {
		s := c.Subject("user", fmt.Sprint("u-", i), nil, day(3))
		d := s.Decide(e)
		x, counts := s.Exposed(d)
		_, refused := s.CheckExposure(e, "v0", day(3), 0)
		switch d.Reason {
		case ReasonHoldout:
			if d.Variant != 0 || counts != (i < 10) || counts && (!x.HeldOut || len(x.Sides) != 1) || refused != nil {
				t.Errorf("u-%d: %+v counts for %+v, %v; %+v", i, d, x, counts, refused)
			}
			held++
		case ReasonRoster:
			if i >= 10 || !counts || x.Bucket != nil || x.HeldOut || len(x.Sides) != 1 || (refused == nil) != (d.Variant == 0) {
				t.Errorf("u-%d: %+v counts for %+v, %v; %+v", i, d, x, counts, refused)
			}
		case ReasonNotInRoster:
			if i < 10 || counts || refused == nil {
				t.Errorf("u-%d: %+v counts for %+v, %v; %+v", i, d, x, counts, refused)
			}
		}
		if d.Reason != ReasonHoldout {
			continue
		}
		if x, _ := s.CheckExposure(e, "v0", day(3), 0); (len(x.Sides) == 1) != (i < 10) {
			t.Errorf("u-%d: an exposure counts for %+v", i, x)
		}
	}
	if d := c.Subject("user", "u-1", nil, day(3)).Decide(e); d.Reason != ReasonHoldout || held < 8 || held > 32 {
		t.Errorf("u-1: %+v; %d are held out", d, held)
	}
}

// TestStickyRoster: in a sticky experiment the roster decides about those who
// are not enrolled, also where that is unknown, until the intake is closed.
func TestStickyRoster(t *testing.T) {
	for closed, want := range map[bool]Reason{false: ReasonRoster, true: ReasonIntakeClosed} {
		c := catalogOf(t, rostered(t, running("e", 1, 1)).with(func(d *experiment.Definition) { d.Sticky, d.IntakeClosed = true, closed }))
		s := c.Subject("user", "u-1", nil, day(3))
		if d := s.Assign("e"); d.Reason != ReasonRoster || !d.EnrollmentUnknown() {
			t.Errorf("closed %v, unknown: %+v", closed, d)
		}
		s.Enroll(nil, true)
		if d := s.Assign("e"); d.Reason != want || d.EnrollmentUnknown() {
			t.Errorf("closed %v, not enrolled: %+v", closed, d)
		}
	}
}

// BenchmarkRoster decides about subjects of a roster of a million, each for the
// first time, with the id that it needs; and without one, with an override.
func BenchmarkRoster(b *testing.B) {
	h := running("e", 1, 1)
	list := NewRosterList(pepper, &h.Experiment.Current.Definition)
	keys := make([]string, 1_000_000)
	for i := range keys {
		keys[i] = fmt.Sprint("u-", i)
		list.Add(keys[i], "")
	}
	h = rostered(b, h)
	h.Roster = list.Subjects(list.Order(), list.Allocate(h.Experiment.Current.Definition.Variants))
	pinned := running("e", 1, 1)
	pinned.Overrides = map[experiment.SubjectID]string{{}: "v0"}
	c, other := catalogOf(b, h), catalogOf(b, pinned)
	i := 0
	key := func() string {
		i = (i + 7919) % len(keys)
		return keys[i]
	}
	if d := c.Subject("user", "u-999999", nil, day(3)).Assign("e"); d.Reason != ReasonRoster {
		b.Fatal(d)
	}
	alternate(b, "roster", func() { c.Subject("user", key(), nil, day(3)).Assign("e") }, "override", func() { other.Subject("user", key(), nil, day(3)).Assign("e") })
	b.ReportMetric(float64(len(h.Roster.IDs)*len(experiment.SubjectID{})+len(h.Roster.Arms))/float64(len(keys)), "B/subject")
}
