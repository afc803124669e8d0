package assign

import (
	"fmt"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

var pepper = experiment.Pepper("0123456789abcdef")

// day returns noon of a day in January 2026.
func day(n int) time.Time { return time.Date(2026, 1, n, 12, 0, 0, 0, time.UTC) }

// running returns what storage would know of an experiment created on day 1 and
// started on day 2, with variants v0 (the control), v1 … of the given weights.
func running(key string, weights ...int32) Source {
	d := experiment.Definition{Unit: "user", Traffic: 1, Salt: key}
	for i, w := range weights {
		d.Variants = append(d.Variants, experiment.Variant{Key: fmt.Sprint("v", i), Control: i == 0, Weight: w})
	}
	r := experiment.Revision{
		Number: 1, Phase: 1, Definition: d, CreateTime: day(1),
		Allocation: experiment.FirstAllocation(d.Variants),
	}
	return Source{
		Experiment:  experiment.Experiment{Key: key, State: experiment.StateRunning, Version: 1, Current: r, StartTime: day(2)},
		Revisions:   []experiment.Revision{r},
		Transitions: []experiment.Transition{{State: experiment.StateDraft, Time: day(1)}, {State: experiment.StateRunning, Time: day(2)}},
	}
}

// with returns the source with its only definition changed.
func (s Source) with(change func(*experiment.Definition)) Source {
	change(&s.Experiment.Current.Definition)
	s.Revisions = []experiment.Revision{s.Experiment.Current}
	return s
}

// in returns the source in another state, entered on a day.
func (s Source) in(state experiment.State, at time.Time) Source {
	s.Experiment.State = state
	s.Transitions = append(s.Transitions[:len(s.Transitions):len(s.Transitions)], experiment.Transition{State: state, Time: at})
	return s
}

func compile(t testing.TB, s Source) *Experiment {
	t.Helper()
	e, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func catalogOf(t testing.TB, sources ...Source) *Catalog {
	t.Helper()
	c := NewCatalog(pepper)
	for _, s := range sources {
		c = c.With(compile(t, s))
	}
	return c
}
