package assign

import (
	"errors"
	"fmt"
	"slices"
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
	RejectNotLoaded                                   // Not for good: its roster is not at hand yet.
)

// Rejection says why an exposure is refused.
type Rejection struct {
	Reason  RejectionReason
	Field   string // Of the exposure, in API spelling.
	Message string
}

func reject(reason RejectionReason, field, format string, args ...any) (Exposed, *Rejection) {
	return Exposed{}, &Rejection{reason, field, fmt.Sprintf(format, args...)}
}

// Exposed is what an exposure counts for.
type Exposed struct {
	Revision *experiment.Terms // Of the revision that assigned the variant.
	HeldOut  bool              // It counts for the sides alone.
	Sticky   bool              // A variant that the subject keeps comes before it.
	Bucket   *int32            // Of the revision's split, if that gave the variant; else nil.
	Sides    []experiment.Side // In the holdouts that cover the experiment.
}

// CheckExposure says which revision, and so which phase, an exposure of the
// subject to a variant belongs to, or why it is refused. The number is that of
// the revision that assigned the variant; 0 means the one in force at the time
// of the exposure.
//
// The revision's split or the roster, a holdout or a present override must give
// the variant, unless the experiment is assigned elsewhere. Eligibility and
// traffic are not looked at again: the attributes may have changed since, and
// the exposure has happened. A time before the first start is taken for the
// start's, since imports and slow clocks bring such times.
//
// The holdouts are those of the time of the exposure, whatever the subject's.
// A subject that is held out has no side where, without the holdout, it would
// not have taken part: holdouts decide before traffic, so that its like among
// the open subjects is not exposed. Nor has a subject that is pinned now.
func (s *Subject) CheckExposure(e *Experiment, variant string, exposed time.Time, number int32) (Exposed, *Rejection) {
	if unit := e.Current.Definition.Unit; unit != s.Unit && !e.unread {
		return reject(RejectUnitMismatch, "subject.unit", "the experiment randomises the unit %q, not %q", unit, s.Unit)
	}
	switch {
	case errors.Is(e.failure, ErrNoRoster):
		return reject(RejectNotLoaded, "experiment", "the roster of the experiment could not be loaded yet")
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
	index := r.Rules.Variant(variant)
	switch {
	case index < 0:
		return reject(RejectVariantNotFound, "variant", "revision %d has no variant %q", r.Number, variant)
	case r.Rules.External, s.overriddenTo(e, variant):
		return Exposed{Revision: r}, nil
	}
	return s.checkVariant(e, i, index, exposed)
}

// checkVariant checks the variant with an index, which no override gives.
func (s *Subject) checkVariant(e *Experiment, i, index int, exposed time.Time) (Exposed, *Rejection) {
	r := &e.revisions[i]
	x := Exposed{Revision: r}
	at := latest(exposed, e.history[e.start].Time, r.CreateTime)
	var sides []experiment.Side
	sides, x.HeldOut = s.sides(e, momentOf(at), e.replacedAt(i))
	want := r.Rules.Control
	if !x.HeldOut {
		want, x.Bucket = s.variantIn(e, i)
		x.Sticky = r.Rules.Sticky && s.override(e) < 0
	}
	if index != want {
		return reject(RejectVariantMismatch, "variant", "revision %d gives the subject another variant than %q", r.Number, r.Rules.Variants[index])
	}
	if s.override(e) < 0 && (!x.HeldOut || s.tookPart(e, r, e.slotIn(at, at.Add(1)))) {
		x.Sides = sides
	}
	return x, nil
}

// Exposed says what the exposure counts for that a decision about the subject
// causes, if it causes one.
func (s *Subject) Exposed(d Decision) (x Exposed, ok bool) {
	e := d.Experiment
	switch {
	case d.Reason == ReasonSplit, d.Reason == ReasonRoster:
	case d.Reason == ReasonHoldout && !e.concluded && s.takesPart(e):
	default:
		return Exposed{}, false
	}
	x.Revision = &e.revisions[len(e.revisions)-1]
	x.Sides, x.HeldOut = s.sides(e, max(s.at, e.since), never)
	x.Sticky = e.sticky && !x.HeldOut
	if d.Reason == ReasonSplit {
		x.Bucket = s.bucketIn(&e.current)
	}
	return x, true
}

// takesPart says whether the experiment gives the subject a variant, but for
// holdouts and what comes before them.
func (s *Subject) takesPart(e *Experiment) bool {
	if e.roster != nil {
		return e.roster.variant(s) >= 0
	}
	return s.passTraffic(e, nil)
}

// tookPart says whether the subject was in the traffic of a revision, or in the
// slot if the experiment is in a layer, or in the roster if it has one.
func (s *Subject) tookPart(e *Experiment, r *experiment.Terms, slot *experiment.Slot) bool {
	if e.roster != nil {
		return s.takesPart(e)
	}
	if r.Rules.Layer == "" {
		return bucketOf(mix(s.hash, hashPair(PurposeTraffic, r.Rules.Salt))) < r.Traffic
	}
	compiled, err := compileSlot(slot)
	return err == nil && compiled.find(bucketOf(mix(s.hash, compiled.hash))) >= 0
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// variantIn returns the index of the variant that a revision in force gives the
// subject by its split, with the bucket there, or by the roster; -1 for none. The
// current one's split is compiled.
func (s *Subject) variantIn(e *Experiment, i int) (variant int, bucket *int32) {
	rules := e.revisions[i].Rules
	switch {
	case e.roster != nil:
		if i := e.roster.variant(s); i >= 0 { // The order of the variants may be another.
			return rules.Variant(e.Current.Definition.Variants[i].Key), nil
		}
		return -1, nil
	case i == len(e.revisions)-1:
		bucket = s.bucketIn(&e.current)
		return e.current.variantOf(*bucket), bucket
	}
	bucket = s.bucketIn(&split{hash: hashPair(PurposeSplit, rules.SplitSalt)})
	return rules.VariantAt(*bucket), bucket
}

// bucketIn returns the subject's bucket in a split.
func (s *Subject) bucketIn(split *split) *int32 {
	bucket := bucketOf(mix(s.hash, split.hash))
	return &bucket
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
