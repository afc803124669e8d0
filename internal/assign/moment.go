package assign

import (
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// AsOf returns an experiment that is not broken as it was at a time, or nil if it
// did not exist: with the state then, and with the given revision, which was in
// force then, and overrides, since it knows only the present ones itself. Decisions
// on it go through the same gates as those of now. The subject brings the time to
// the holdouts.
func (e *Experiment) AsOf(t time.Time, r *experiment.Revision, overrides map[experiment.SubjectID]string) *Experiment {
	then, found := e.Experiment, false
	for _, transition := range e.history {
		if transition.Time.After(t) {
			break
		}
		then.State, found = transition.State, true
	}
	if !found {
		return nil
	}
	then.Current = *r
	then.Slot = e.slotIn(t, t.Add(1))
	if then.State != experiment.StateConcluded && then.State != experiment.StateArchived {
		then.ShippedVariant = ""
	}
	return e.view(then, overrides, e.coverages)
}

// AtRevision returns an experiment that is not broken as if it ran with one of its
// revisions, which was replaced at a time, or not yet if that is zero: with the last
// slot that it had with it, if any, with the holdouts that were in force when it was
// replaced, and with the present overrides. The holdouts of the current revision are
// those of the subject's time.
func (e *Experiment) AtRevision(r *experiment.Revision, replaced time.Time) *Experiment {
	as := e.Experiment
	as.State, as.Current, as.ShippedVariant = experiment.StateRunning, *r, ""
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

// view compiles e as it was, for explanations alone. One that does not compile
// says so in its explanation. A roster never changes: what is known of it holds
// for all revisions since it was made.
func (e *Experiment) view(was experiment.Experiment, overrides map[experiment.SubjectID]string, coverages []experiment.Coverage) *Experiment {
	h := experiment.History{
		Experiment: was, Revisions: []experiment.Terms{was.Current.Terms()}, Overrides: overrides, Coverages: coverages,
	}
	if e.roster != nil {
		h.Roster = e.roster.subjects
	}
	compiled, _ := Compile(h)
	return compiled
}
