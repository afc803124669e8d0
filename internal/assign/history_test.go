package assign

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

var pepper = experiment.Pepper("0123456789abcdef")

// day returns noon of a day in January 2026.
func day(n int) time.Time { return time.Date(2026, 1, n, 12, 0, 0, 0, time.UTC) }

// history is what storage knows of an experiment, with ways to vary it.
type history struct {
	experiment.History
	Revisions []experiment.Revision // Whole, as storage has them.
}

// stored returns what a server would load.
func (h history) stored() experiment.History {
	h.History.Revisions = nil
	for i := range h.Revisions {
		h.History.Revisions = experiment.AppendTerms(h.History.Revisions, h.Revisions[i].Terms())
	}
	return h.History
}

// asOf asks for the experiment as it was at a time, with the revision of then.
func (h history) asOf(e *Experiment, t time.Time, overrides map[experiment.SubjectID]string) *Experiment {
	i := len(h.Revisions) - 1
	for i > 0 && h.Revisions[i].CreateTime.After(t) {
		i--
	}
	return e.AsOf(t, &h.Revisions[i], overrides)
}

// atRevision asks for the experiment at one of its revisions.
func (h history) atRevision(e *Experiment, number int32) *Experiment {
	i := slices.IndexFunc(h.Revisions, func(r experiment.Revision) bool { return r.Number == number })
	var replaced time.Time
	if i+1 < len(h.Revisions) {
		replaced = h.Revisions[i+1].CreateTime
	}
	return e.AtRevision(&h.Revisions[i], replaced)
}

// running returns what storage would know of an experiment created on day 1 and
// started on day 2, with variants v0 (the control), v1 … of the given weights.
func running(key string, weights ...int32) history {
	d := experiment.Definition{Unit: "user", Traffic: 1, Salt: key}
	for i, w := range weights {
		d.Variants = append(d.Variants, experiment.Variant{Key: fmt.Sprint("v", i), Control: i == 0, Weight: w})
	}
	r := experiment.Revision{
		Number: 1, Phase: 1, Definition: d, CreateTime: day(1),
		Allocation: experiment.FirstAllocation(d.Variants),
	}
	return history{Revisions: []experiment.Revision{r}, History: experiment.History{
		Experiment:  experiment.Experiment{Key: key, State: experiment.StateRunning, Version: 1, Current: r, StartTime: day(2)},
		Transitions: []experiment.Transition{{State: experiment.StateDraft, Time: day(1)}, {State: experiment.StateRunning, Time: day(2)}},
	}}
}

// with returns the history with its only definition changed.
func (h history) with(change func(*experiment.Definition)) history {
	change(&h.Experiment.Current.Definition)
	h.Revisions = []experiment.Revision{h.Experiment.Current}
	return h
}

// inLayer returns the experiment with a slot in a layer since its start.
func (h history) inLayer(salt string, slot ...experiment.Range) history {
	h.Experiment.Slot = &experiment.Slot{Salt: salt, Ranges: slot}
	h.Slots = []experiment.SlotPeriod{{Slot: *h.Experiment.Slot, FromTime: day(2)}}
	return h.with(func(d *experiment.Definition) { d.Layer = "layer" })
}

// in returns the experiment in another state, entered on a day.
func (h history) in(state experiment.State, at time.Time) history {
	h.Experiment.State = state
	h.Transitions = append(h.Transitions[:len(h.Transitions):len(h.Transitions)], experiment.Transition{State: state, Time: at})
	return h
}

func compile(t testing.TB, h history) *Experiment {
	t.Helper()
	e, err := Compile(h.stored())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func catalogOf(t testing.TB, histories ...history) *Catalog {
	t.Helper()
	c := NewCatalog(pepper)
	for _, h := range histories {
		c = c.With(compile(t, h))
	}
	return c
}
