package assign

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

// then adds the revision that a change makes, on the day after the last one.
func (h history) then(t *testing.T, reshuffle bool, change func(*experiment.Definition)) history {
	t.Helper()
	current := &h.Experiment.Current
	def := current.Definition
	def.Variants = append([]experiment.Variant(nil), def.Variants...)
	change(&def)
	next, _, err := current.Next(def, reshuffle)
	if err != nil {
		t.Fatal(err)
	}
	next.CreateTime = day(int(next.Number) + 1)
	h.Experiment.Current = next
	h.Revisions = append(h.Revisions[:len(h.Revisions):len(h.Revisions)], next)
	return h
}

// TestAssignAfterChanges looks, after each of several changes, whether the
// subjects get what the ranges say of their buckets, and whether exposures to
// what any revision so far gave them are accepted, and to nothing else.
func TestAssignAfterChanges(t *testing.T) {
	keys := subjects(5000)
	h := running("e", 1, 1, 1)
	given := map[int32][]string{} // Revision → by subject, whoever takes part.
	for i, change := range []func(*experiment.Definition){
		nil,
		func(d *experiment.Definition) { d.Traffic = 0.4 },
		func(d *experiment.Definition) { d.Traffic = 0.6 },
		func(d *experiment.Definition) { d.Variants[1].Weight = 5 },
		func(d *experiment.Definition) { d.Variants[2].Weight = 0 },
		func(d *experiment.Definition) {
			d.Variants = append(d.Variants, experiment.Variant{Key: "v3", Weight: 9})
		},
		func(d *experiment.Definition) { d.Variants = append(d.Variants[:1], d.Variants[2:]...) },
		func(d *experiment.Definition) { d.Owner = "reshuffled" },
		func(d *experiment.Definition) { d.Variants[2].Weight = 1 },
		func(d *experiment.Definition) { d.Traffic = 1 },
	} {
		if change != nil {
			h = h.then(t, i == 7, change)
		}
		catalog := catalogOf(t, h)
		current := &h.Experiment.Current
		salt := "e"
		if i >= 7 {
			salt = "e/7"
		}
		traffic, split := hashPair(PurposeTraffic, "e"), hashPair(PurposeSplit, salt)
		given[current.Number] = make([]string, len(keys))
		for k, key := range keys {
			hash := hashPair("user", key)
			bucket, want := bucketOf(mix(hash, split)), ""
			for _, r := range current.Allocation {
				if r.From <= bucket && bucket < r.To {
					given[current.Number][k] = r.Variant
				}
			}
			if bucketOf(mix(hash, traffic)) < current.Definition.TrafficBuckets() {
				want = given[current.Number][k]
			}
			got, subject := "", catalog.Subject("user", key, nil, day(3))
			if d := subject.Assign("e"); d.Variant >= 0 {
				got = current.Definition.Variants[d.Variant].Key
			}
			if got != want {
				t.Fatalf("revision %d gives %s %q, and the ranges %q", current.Number, key, got, want)
			}
			if k%100 == 0 {
				checkExposures(t, subject, catalog.Experiment("e"), given, k)
			}
		}
		if x := catalog.Subject("user", "u-1", nil, day(3)).Explain(catalog.Experiment("e")); i >= 2 {
			if last := x.Gates[len(x.Gates)-1]; last.Kind == GateSplit && last.Bucketing.Salt != salt {
				t.Errorf("revision %d: the explanation names the salt %q", current.Number, last.Bucketing.Salt)
			}
		}
	}
	if phases := h.Experiment.Current.Phase; phases != 8 {
		t.Errorf("%d phases", phases)
	}
}

func checkExposures(t *testing.T, s *Subject, e *Experiment, given map[int32][]string, k int) {
	t.Helper()
	for number, variants := range given {
		at := day(int(number) + 1) // When it was in force.
		for _, variant := range []string{"v0", "v1", "v2", "v3"} {
			byTime, rejected := s.CheckExposure(e, variant, at, 0)
			byNumber, _ := s.CheckExposure(e, variant, day(20), number)
			if (rejected == nil) != (variant == variants[k]) {
				t.Fatalf("revision %d gave %q, and an exposure to %q: %+v", number, variants[k], variant, rejected)
			}
			if diff := cmp.Diff(byTime, byNumber); diff != "" || byTime.Revision != nil && byTime.Revision.Number != number {
				t.Fatalf("revision %d by its time and by its number: %s", number, diff)
			}
		}
	}
}
