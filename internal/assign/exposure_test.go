package assign

import (
	"fmt"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// changing returns an experiment with a history:
//
//	day 1   draft, revision 1: variants a and b, all weight on b
//	day 3   revision 2: variants control and short, all weight on control
//	day 5   running
//	day 8   revision 3: all weight on short, phase 2
//	day 10  paused
//	day 12  running
//	day 14  revision 4: a third variant, long
//	day 20  concluded
//	day 22  archived
func changing(external bool) history {
	revision := func(number, phase int32, created time.Time, weights map[string]int32, keys ...string) experiment.Revision {
		d := experiment.Definition{Unit: "user", Traffic: 0, Eligibility: "false", Salt: "e", External: external}
		for i, key := range keys {
			d.Variants = append(d.Variants, experiment.Variant{Key: key, Control: i == 0, Weight: weights[key]})
		}
		return experiment.Revision{
			Number: number, Phase: phase, Definition: d, CreateTime: created,
			Allocation: experiment.FirstAllocation(d.Variants),
		}
	}
	s := history{
		Revisions: []experiment.Revision{
			revision(1, 1, day(1), map[string]int32{"b": 1}, "a", "b"),
			revision(2, 1, day(3), map[string]int32{"control": 1}, "control", "short"),
			revision(3, 2, day(8), map[string]int32{"short": 1}, "control", "short"),
			revision(4, 2, day(14), map[string]int32{"short": 1}, "control", "short", "long"),
		},
		History: experiment.History{Transitions: []experiment.Transition{
			{State: experiment.StateDraft, Time: day(1)},
			{State: experiment.StateRunning, Time: day(5)},
			{State: experiment.StatePaused, Time: day(10)},
			{State: experiment.StateRunning, Time: day(12)},
			{State: experiment.StateConcluded, Time: day(20)},
			{State: experiment.StateArchived, Time: day(22)},
		}},
	}
	s.Experiment = experiment.Experiment{Key: "e", State: experiment.StateArchived, Version: 9, Current: s.Revisions[3]}
	return s
}

func TestCheckExposure(t *testing.T) {
	draft := changing(false)
	draft.Experiment.State, draft.Transitions = experiment.StateDraft, draft.Transitions[:1]
	pinned := changing(false)
	pinned.Overrides = map[experiment.SubjectID]string{
		pepper.SubjectID(experiment.Subject{Unit: "user", Key: "u-1"}): "long",
	}
	lost := changing(false)
	lost.Overrides = map[experiment.SubjectID]string{
		pepper.SubjectID(experiment.Subject{Unit: "user", Key: "u-1"}): "b", // A variant of the first draft only.
	}
	abandoned := draft.in(experiment.StateArchived, day(4))
	native, external := changing(false), changing(true)

	for _, c := range []struct {
		name     string
		history  history
		unit     string
		variant  string
		exposed  time.Time
		revision int32
		want     string // "revision/phase", or the rejected field and reason.
	}{
		{"first revision that ran", native, "user", "control", day(6), 0, "2/1"},
		{"at the start", native, "user", "control", day(5), 0, "2/1"},
		{"before the start", native, "user", "control", day(4), 0, "2/1"},
		{"in 1970", native, "user", "control", time.Unix(0, 0), 0, "2/1"},
		{"at the change", native, "user", "short", day(8), 0, "3/2"},
		{"just before the change", native, "user", "control", day(8).Add(-1), 0, "2/1"},
		{"after the change", native, "user", "short", day(9), 0, "3/2"},
		{"after the resumption", native, "user", "short", day(12), 0, "3/2"},
		{"last revision", native, "user", "short", day(15), 0, "4/2"},
		{"just before the end", native, "user", "short", day(20).Add(-1), 0, "4/2"},

		{"at the pause", native, "user", "short", day(10), 0, "exposed_time 1"},
		{"in the pause", native, "user", "short", day(11), 0, "exposed_time 1"},
		{"at the end", native, "user", "short", day(20), 0, "exposed_time 1"},
		{"archived", native, "user", "short", day(23), 0, "exposed_time 1"},
		{"draft", draft, "user", "b", day(2), 0, "experiment 1"},
		{"archived draft", abandoned, "user", "b", day(2), 0, "experiment 1"},

		{"other unit", native, "device", "control", day(6), 0, "subject.unit 2"},
		{"other unit, external", external, "device", "control", day(6), 0, "subject.unit 2"},

		{"explicit, late", native, "user", "control", day(9), 2, "2/1"},
		{"explicit, early", native, "user", "short", day(7), 3, "3/2"},
		{"explicit, in the pause", native, "user", "control", day(11), 2, "exposed_time 1"},
		{"explicit, of the draft", native, "user", "b", day(6), 1, "revision 3"},
		{"explicit, unknown", native, "user", "short", day(9), 5, "revision 3"},

		{"unknown variant", native, "user", "green", day(6), 0, "variant 4"},
		{"variant of a later revision", native, "user", "long", day(9), 0, "variant 4"},
		{"variant of the draft", native, "user", "b", day(6), 0, "variant 4"},
		{"unknown variant, external", external, "user", "green", day(6), 0, "variant 4"},

		{"mismatch", native, "user", "short", day(6), 0, "variant 5"},
		{"mismatch after the change", native, "user", "control", day(9), 0, "variant 5"},
		{"mismatch, explicit", native, "user", "short", day(9), 2, "variant 5"},
		{"external", external, "user", "short", day(6), 0, "2/1"},
		{"external, in the pause", external, "user", "short", day(11), 0, "exposed_time 1"},
		{"pinned", pinned, "user", "long", day(15), 0, "4/2"},
		{"pinned, and the split's", pinned, "user", "short", day(15), 0, "4/2"},
		{"pinned to another", pinned, "user", "control", day(15), 0, "variant 5"},
		{"pinned to a variant that is gone", lost, "user", "short", day(15), 0, "4/2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			catalog := catalogOf(t, c.history)
			e := catalog.Experiment("e")
			x, rejection := catalog.Subject(c.unit, "u-1", nil, day(3)).CheckExposure(e, c.variant, c.exposed, c.revision)
			var got string
			if rejection != nil {
				got = fmt.Sprintf("%s %d", rejection.Field, rejection.Reason)
			} else {
				got = fmt.Sprintf("%d/%d", x.Revision.Number, x.Revision.Phase)
				bySplit := !e.Current.Definition.External && c.name != "pinned"
				if (x.Bucket != nil) != bySplit {
					t.Errorf("bucket %v, by the split: %v", x.Bucket, bySplit)
				}
			}
			if got != c.want {
				t.Errorf("got %s (%v), want %s", got, rejection, c.want)
			}
		})
	}
}

// checkBucket holds that an exposure has the same bucket whichever way it is
// recorded, and one that the revision's allocation gives to the variant.
func checkBucket(t *testing.T, subject *Subject, d Decision, reported Exposed) {
	t.Helper()
	shown, ok := subject.Exposed(d)
	if !ok || shown.Bucket == nil || reported.Bucket == nil || *shown.Bucket != *reported.Bucket {
		t.Fatalf("%s: buckets %v and %v", subject.Key, shown.Bucket, reported.Bucket)
	}
	for _, r := range reported.Revision.Rules.Allocation {
		if *shown.Bucket >= r.From && *shown.Bucket < r.To && r.Variant == reported.Revision.Rules.Variants[d.Variant] {
			return
		}
	}
	t.Fatalf("%s: bucket %d is not one of variant %d", subject.Key, *shown.Bucket, d.Variant)
}

// TestCheckExposureAgrees checks what makes recording possible at all: whatever
// Assign gives now is an exposure that is accepted now, and no other variant is.
func TestCheckExposureAgrees(t *testing.T) {
	s := running("e", 3, 1, 0, 2).with(func(d *experiment.Definition) { d.Traffic = 0.9 })
	s.Overrides = map[experiment.SubjectID]string{}
	for i := range 100 {
		s.Overrides[pepper.SubjectID(experiment.Subject{Unit: "user", Key: fmt.Sprint("u-", i)})] = "v2"
	}
	catalog := catalogOf(t, s)
	e := catalog.Experiment("e")
	for i := range 2000 {
		subject := catalog.Subject("user", fmt.Sprint("u-", i), nil, day(3))
		d := subject.Decide(e)
		for v := range s.Experiment.Current.Definition.Variants {
			x, rejection := subject.CheckExposure(e, fmt.Sprint("v", v), day(3), d.Revision())
			switch accepted := rejection == nil; d.Reason {
			case ReasonSplit:
				if accepted != (v == d.Variant) {
					t.Fatalf("u-%d has variant %d; %d: %v", i, d.Variant, v, rejection)
				}
				if accepted {
					checkBucket(t, subject, d, x)
				}
			case ReasonOverride:
				if v == d.Variant && !accepted {
					t.Fatalf("u-%d is pinned to %d: %v", i, v, rejection)
				}
			}
		}
	}
}
