package assign

import (
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// AsOf returns the experiment as it was at a time, or nil if it did not exist:
// with the state and the revision in force then, and with the given overrides,
// since it knows only the present ones itself. Decisions on it go through the
// same gates as those of now. The subject brings the time to the holdouts.
func (e *Experiment) AsOf(t time.Time, overrides map[experiment.SubjectID]string) *Experiment {
	then, found := e.Experiment, false
	for _, transition := range e.history {
		if transition.Time.After(t) {
			break
		}
		then.State, found = transition.State, true
	}
	if !found || e.failure != nil {
		return e.ifKnown(found)
	}
	i := len(e.revisions) - 1
	for i > 0 && e.revisions[i].CreateTime.After(t) {
		i--
	}
	then.Current = *e.revisions[i].Revision
	then.Slot = e.slotIn(t, t.Add(1))
	if then.State != experiment.StateConcluded && then.State != experiment.StateArchived {
		then.ShippedVariant = ""
	}
	return e.view(then, overrides, e.coverages)
}

// AtRevision returns the experiment as if it ran with a revision, with the last
// slot that it had with it, if any, with the holdouts that were in force when it
// was replaced, and with the present overrides, or nil if it has no such
// revision. The holdouts of the current revision are those of the subject's time.
func (e *Experiment) AtRevision(number int32) *Experiment {
	r := e.Revision(number)
	if r == nil || e.failure != nil {
		return e.ifKnown(e.failure != nil)
	}
	as := e.Experiment
	as.State, as.Current, as.ShippedVariant = experiment.StateRunning, *r, ""
	var replaced time.Time
	if i := e.findRevision(number) + 1; i < len(e.revisions) {
		replaced = e.revisions[i].CreateTime
	}
	as.Slot = e.slotIn(r.CreateTime, replaced)
	coverages := e.coverages
	if !replaced.IsZero() {
		coverages = e.coveragesBefore(replaced)
	}
	overrides := make(map[experiment.SubjectID]string, len(e.overrides))
	for id, variant := range e.overrides {
		overrides[id] = e.Current.Definition.Variants[variant].Key
	}
	return e.view(as, overrides, coverages)
}

// slotIn returns the last slot that was in force at some time from a time on and
// before another, which is never if it is zero; or nil.
func (e *Experiment) slotIn(from, before time.Time) *experiment.Slot {
	for i := len(e.slots) - 1; i >= 0; i-- {
		s := &e.slots[i]
		if (before.IsZero() || s.FromTime.Before(before)) && (s.EndTime.IsZero() || s.EndTime.After(from)) {
			return &s.Slot
		}
	}
	return nil
}

// coveragesBefore returns those that were in force just before a time, without
// their bounds.
func (e *Experiment) coveragesBefore(t time.Time) []experiment.Coverage {
	var list []experiment.Coverage
	for i := range e.holdouts {
		if h := &e.holdouts[i]; h.inForce(momentOf(t.Add(-1))) {
			c := *h.Coverage
			c.FromTime, c.EndTime = time.Time{}, time.Time{}
			list = append(list, c)
		}
	}
	return list
}

// ifKnown returns an experiment that could not be loaded as it is: its
// explanation says so, at whatever moment.
func (e *Experiment) ifKnown(known bool) *Experiment {
	if known {
		return e
	}
	return nil
}

// view compiles e as it was, for explanations alone. One that does not compile
// says so in its explanation. A roster never changes: what is known of it holds
// for all revisions since it was made.
func (e *Experiment) view(was experiment.Experiment, overrides map[experiment.SubjectID]string, coverages []experiment.Coverage) *Experiment {
	h := experiment.History{
		Experiment: was, Revisions: []experiment.Revision{was.Current}, Overrides: overrides, Coverages: coverages,
	}
	if e.roster != nil {
		h.Roster = e.roster.subjects
	}
	compiled, _ := Compile(h)
	return compiled
}
