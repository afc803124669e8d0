package assign

import (
	"fmt"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// RejectionReason says which rule a reported exposure breaks.
type RejectionReason uint8

// The reasons for which an exposure is refused.
const (
	RejectNotRunning       RejectionReason = iota + 1 // Not running at that time, or never started.
	RejectUnitMismatch                                // The experiment randomises another unit.
	RejectRevisionNotFound                            // No such revision was ever in force.
	RejectVariantNotFound                             // The revision has no such variant.
	RejectVariantMismatch                             // The subject gets another one.
)

// Rejection says why an exposure is refused.
type Rejection struct {
	Reason  RejectionReason
	Field   string // Of the exposure, in API spelling.
	Message string
}

func reject(reason RejectionReason, field, format string, args ...any) (*experiment.Revision, *Rejection) {
	return nil, &Rejection{reason, field, fmt.Sprintf(format, args...)}
}

// CheckExposure says which revision, and so which phase, an exposure of the
// subject to a variant belongs to, or why it is refused. The number is that of
// the revision that assigned the variant; 0 means the one in force at the time
// of the exposure.
//
// The revision's split or a present override must give the variant, unless the
// experiment is assigned elsewhere. Eligibility and traffic are not looked at
// again: the attributes may have changed since, and the exposure has happened.
// A time before the first start is taken for the start's, since imports and
// slow clocks bring such times.
func (s *Subject) CheckExposure(e *Experiment, variant string, exposed time.Time, number int32) (*experiment.Revision, *Rejection) {
	if unit := e.Current.Definition.Unit; unit != s.Unit {
		return reject(RejectUnitMismatch, "subject.unit", "the experiment randomises the unit %q, not %q", unit, s.Unit)
	}
	switch {
	case e.failure != nil:
		return reject(RejectNotRunning, "experiment", "the experiment could not be loaded")
	case e.start < 0:
		return reject(RejectNotRunning, "experiment", "the experiment has never started")
	}
	if state := e.stateAt(exposed); state != experiment.StateRunning {
		return reject(RejectNotRunning, "exposed_time", "the experiment was %s at that time", state)
	}
	i := e.revisionAt(exposed)
	if number != 0 {
		if i = e.findRevision(number); i < e.firstInForce {
			return reject(RejectRevisionNotFound, "revision", "the experiment has never run with a revision %d", number)
		}
	}
	r := &e.revisions[i]
	index := r.Definition.Variant(variant)
	switch {
	case index < 0:
		return reject(RejectVariantNotFound, "variant", "revision %d has no variant %q", r.Number, variant)
	case r.Definition.External, r.split.variant(s.hash) == index, s.overriddenTo(e, variant):
		return r.Revision, nil
	}
	return reject(RejectVariantMismatch, "variant", "revision %d gives the subject another variant than %q", r.Number, variant)
}

func (s *Subject) overriddenTo(e *Experiment, variant string) bool {
	i := s.override(e)
	return i >= 0 && e.Current.Definition.Variants[i].Key == variant
}

// stateAt returns the state at a time, which is running before the first start.
func (e *Experiment) stateAt(t time.Time) experiment.State {
	state := experiment.StateRunning
	for _, next := range e.history[e.start+1:] {
		if next.Time.After(t) {
			break
		}
		state = next.State
	}
	return state
}

// revisionAt returns the index of the revision in force at a time: the latest
// that existed, but none from before the one with which the experiment started.
func (e *Experiment) revisionAt(t time.Time) int {
	for i := len(e.revisions) - 1; i > e.firstInForce; i-- {
		if !e.revisions[i].CreateTime.After(t) {
			return i
		}
	}
	return e.firstInForce
}
