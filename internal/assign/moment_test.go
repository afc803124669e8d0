package assign

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

// life is an experiment that changes at random, as storage would know it after
// each change.
type life struct {
	*rand.Rand
	history
	now time.Time
}

// newLife is in a layer or not.
func newLife(r *rand.Rand) *life {
	l := &life{Rand: r, history: running("e", 1, 1), now: day(1)}
	if r.IntN(2) == 0 {
		l.history = l.with(func(d *experiment.Definition) { d.Layer = "l" })
	}
	l.Experiment.State, l.Transitions = experiment.StateDraft, l.Transitions[:1]
	l.Overrides = map[experiment.SubjectID]string{}
	return l
}

// change makes the next revision, with another allocation now and then.
func (l *life) change() {
	next := l.Experiment.Current
	next.Number, next.CreateTime = next.Number+1, l.now
	d := &next.Definition
	d.Variants = slices.Clone(d.Variants)
	switch l.IntN(5) {
	case 0:
		d.Traffic = l.Float64()
	case 1:
		d.Eligibility = []string{"", "attributes.age >= 18", "attributes.country == 'PL'"}[l.IntN(3)]
	case 2:
		d.External = !d.External && l.IntN(4) == 0
	case 3:
		d.Variants = append(d.Variants, experiment.Variant{Key: fmt.Sprint("v", len(d.Variants)), Weight: 1})
		next.Allocation = experiment.FirstAllocation(d.Variants)
	case 4:
		d.Variants[l.IntN(len(d.Variants))].Weight++
		next.Allocation = experiment.FirstAllocation(d.Variants)
	}
	l.Experiment.Current = next
	l.Revisions = append(slices.Clone(l.Revisions), next)
}

func (l *life) move(to experiment.State) {
	l.Experiment.State = to
	l.Transitions = append(slices.Clone(l.Transitions), experiment.Transition{State: to, Time: l.now})
}

// fitSlot gives a started experiment in a layer the slot that its traffic needs.
func (l *life) fitSlot() {
	e, need := &l.Experiment, int32(0)
	if e.State == experiment.StateRunning || e.State == experiment.StatePaused {
		need = e.Current.Definition.TrafficBuckets()
	}
	if e.Current.Definition.Layer == "" || need == e.Slot.Width() {
		return
	}
	var now []experiment.Range
	l.Slots = slices.Clone(l.Slots)
	if e.Slot != nil {
		now = e.Slot.Ranges
		l.Slots[len(l.Slots)-1].EndTime = l.now
	}
	e.Slot = nil
	if need > 0 {
		ranges, _ := experiment.ResizeSlot(now, nil, need)
		e.Slot = &experiment.Slot{Salt: "l", Ranges: ranges}
		l.Slots = append(l.Slots, experiment.SlotPeriod{Slot: *e.Slot, FromTime: l.now})
	}
}

// step makes one change that the experiment's state allows.
func (l *life) step() {
	defer l.fitSlot()
	l.now = l.now.Add(time.Duration(1+l.IntN(1000)) * time.Millisecond)
	variants := l.Experiment.Current.Definition.Variants
	switch n := l.IntN(10); {
	case n < 3:
		l.Overrides = maps.Clone(l.Overrides)
		id := pepper.SubjectID(experiment.Subject{Unit: "user", Key: fmt.Sprint("u-", l.IntN(10))})
		if l.Overrides[id] != "" {
			delete(l.Overrides, id)
		} else {
			l.Overrides[id] = variants[l.IntN(len(variants))].Key
		}
	case l.Experiment.State == experiment.StateConcluded:
		if n == 9 {
			l.move(experiment.StateArchived)
		}
	case l.Experiment.State == experiment.StateArchived:
	case n < 7:
		l.change()
	case l.Experiment.State == experiment.StateRunning && n < 9:
		l.move(experiment.StatePaused)
	case l.Experiment.State != experiment.StateDraft && n == 9:
		l.move(experiment.StateConcluded)
		if l.IntN(3) > 0 {
			l.Experiment.ShippedVariant = variants[l.IntN(len(variants))].Key
		}
	default:
		l.move(experiment.StateRunning)
	}
}

// keyed is a decision by the variant's key, since its index is that of one
// revision.
type keyed struct {
	Reason   Reason
	Revision int32
	Variant  string
	Failed   bool
}

func keyedOf(d Decision) keyed {
	k := keyed{d.Reason, d.Revision(), "", d.Failed()}
	if d.Variant >= 0 {
		k.Variant = d.Experiment.Current.Definition.Variants[d.Variant].Key
	}
	return k
}

// TestAsOf lives an experiment's life, decides after each change, and finds the
// same decisions from its end, at the time of the change and until the next.
func TestAsOf(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	type asked struct {
		life
		attributes map[string]any
		want       []keyed
	}
	seen := map[Reason]int{}
	for range 60 {
		l := newLife(r)
		var moments []asked
		for range 30 {
			m := asked{life: *l, attributes: randomAttributes(r)}
			e := compile(t, l.history)
			catalog := NewCatalog(pepper).With(e)
			for i := range 20 {
				d := catalog.Subject("user", fmt.Sprint("u-", i), m.attributes, day(3)).Decide(e)
				seen[d.Reason]++
				m.want = append(m.want, keyedOf(d))
			}
			moments = append(moments, m)
			l.step()
		}
		end := compile(t, l.history)
		catalog := NewCatalog(pepper).With(end)
		if l.asOf(end, day(1).Add(-1), nil) != nil {
			t.Fatal("there was an experiment before it was created")
		}
		for i, m := range moments {
			last := m.now
			if i+1 < len(moments) {
				last = moments[i+1].now.Add(-time.Nanosecond)
			}
			for _, at := range []time.Time{m.now, last} {
				then := l.asOf(end, at, m.Overrides)
				var got []keyed
				for i := range 20 {
					got = append(got, keyedOf(catalog.Subject("user", fmt.Sprint("u-", i), m.attributes, day(3)).Explain(then).Decision))
				}
				if diff := cmp.Diff(m.want, got); diff != "" || then.State != m.Experiment.State {
					t.Fatalf("step %d, %s (-then +explained):\n%s", i, then.State, diff)
				}
			}
		}
	}
	for _, reason := range []Reason{ReasonExternal, ReasonNotRunning, ReasonOverride, ReasonIneligible, ReasonConcluded, ReasonNoTraffic, ReasonSplit} {
		if seen[reason] == 0 {
			t.Errorf("reason %d never came up", reason)
		}
	}
}

// TestAtRevision compares each revision of a concluded experiment with an
// experiment that runs with it.
func TestAtRevision(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 30 {
		l := newLife(r)
		for len(l.Revisions) < 6 || len(l.Overrides) == 0 {
			l.now = l.now.Add(time.Second)
			if l.change(); l.IntN(2) == 0 {
				l.Overrides[pepper.SubjectID(experiment.Subject{Unit: "user", Key: fmt.Sprint("u-", l.IntN(10))})] = "v1"
			}
		}
		l.move(experiment.StateConcluded)
		l.Experiment.ShippedVariant = "v1"
		e := compile(t, l.history)
		attributes := randomAttributes(r)
		for _, revision := range l.Revisions {
			as := l.history
			as.Experiment.State, as.Experiment.Current, as.Revisions = experiment.StateRunning, revision, []experiment.Revision{revision}
			alone := compile(t, as)
			for i := range 20 {
				s := NewCatalog(pepper).Subject("user", fmt.Sprint("u-", i), attributes, day(3))
				got := keyedOf(s.Explain(l.atRevision(e, revision.Number)).Decision)
				if diff := cmp.Diff(keyedOf(s.Decide(alone)), got); diff != "" {
					t.Fatalf("revision %d, u-%d (-running +explained):\n%s", revision.Number, i, diff)
				}
			}
		}
	}
}
