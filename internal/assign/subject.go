package assign

import (
	"context"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// Reason says why a decision is what it is.
type Reason uint8

// The reasons. Override, Concluded, Split, Holdout, Sticky and Roster alone come
// with a variant.
const (
	ReasonNotFound     Reason = iota + 1 // No experiment has the key.
	ReasonUnitMismatch                   // It randomises another unit.
	ReasonExternal                       // It is assigned elsewhere.
	ReasonNotRunning                     // Its state assigns nothing.
	ReasonOverride                       // The subject is pinned.
	ReasonIneligible                     // The predicate is false or failed to evaluate.
	ReasonConcluded                      // The shipped variant is for everyone eligible.
	ReasonNoTraffic                      // The subject's bucket, or its layer bucket, does not take part.
	ReasonSplit                          // The split gave the variant.
	ReasonHoldout                        // A holdout holds the subject out: it gets the control.
	ReasonSticky                         // The subject is enrolled with the variant.
	ReasonIntakeClosed                   // The subject is not enrolled, and nobody else enters.
	ReasonRoster                         // The roster lists the subject with the variant.
	ReasonNotInRoster                    // It does not list the subject.
)

// Decision is one experiment's answer for one subject. It has four fields, and
// so is passed in registers.
type Decision struct {
	Experiment *Experiment // Nil if not found.
	Variant    int         // Index in the current definition's variants; -1 for none.
	Reason     Reason
	doubts     doubts
}

// doubts are what could not be known for a decision.
type doubts uint8

const (
	predicateFailed doubts = 1 << iota
	enrollmentUnknown
)

// Revision returns the number of the revision that decided; 0 if not found.
func (d Decision) Revision() int32 {
	if d.Experiment == nil {
		return 0
	}
	return d.Experiment.Current.Number
}

// Failed says that the subject is ineligible because the predicate failed to
// evaluate.
func (d Decision) Failed() bool { return d.doubts&predicateFailed != 0 }

// EnrollmentUnknown says that the experiment is sticky and whether the subject
// is enrolled was not handed over: it was decided as one that is not, with the
// intake open.
func (d Decision) EnrollmentUnknown() bool { return d.doubts&enrollmentUnknown != 0 }

// Subject is a subject with what all decisions about it share. It belongs to
// one call and is not safe for concurrent use.
type Subject struct {
	experiment.Subject

	catalog    *Catalog
	at         int64 // The moment of the decisions, as momentOf a time.
	hash       uint64
	variables  variables
	id         experiment.SubjectID
	identified bool
	enrolled   map[experiment.Enrollment]string
	complete   bool // Who is not in enrolled is not enrolled.
}

// Subject prepares decisions about a subject at a time, by which holdouts are in
// force or not. Its unit is not empty. The attributes hold nil, bool, float64,
// string, []any and map[string]any only; the map may be nil, and must not change
// while the subject is in use.
func (c *Catalog) Subject(unit, key string, attributes map[string]any, at time.Time) *Subject {
	return c.SubjectWith(unit, key, attributeMap(attributes), at)
}

// SubjectWith is Subject with attributes that the caller holds in a form of its
// own.
func (c *Catalog) SubjectWith(unit, key string, attributes Attributes, at time.Time) *Subject {
	return &Subject{
		Subject:   experiment.Subject{Unit: unit, Key: key},
		catalog:   c,
		at:        momentOf(at),
		hash:      hashPair(unit, key),
		variables: variables{attributes: attributes, unit: unit},
	}
}

// Within lets costly predicates give up, and so fail, once ctx is done.
func (s *Subject) Within(ctx context.Context) { s.variables.ctx = ctx }

// ID returns the subject's id in storage. It is computed when first needed, as
// it costs more than all else in a decision.
func (s *Subject) ID() experiment.SubjectID {
	if !s.identified {
		s.id = s.catalog.pepper.SubjectID(s.Subject)
		s.identified = true
	}
	return s.id
}

// Enroll hands over who is enrolled, and with which variant; this subject may
// be among them. If that is complete, nobody else is.
func (s *Subject) Enroll(enrolled map[experiment.Enrollment]string, complete bool) {
	s.enrolled, s.complete = enrolled, complete
}

// Enrollment names the subject in an experiment.
func (s *Subject) Enrollment(e *Experiment) experiment.Enrollment {
	return experiment.Enrollment{ExperimentID: e.ID, SubjectID: s.ID()}
}

// Assign decides for the experiment with the key.
func (s *Subject) Assign(key string) Decision {
	e := s.catalog.experiments[key]
	if e == nil {
		return Decision{Variant: -1, Reason: ReasonNotFound}
	}
	return s.Decide(e)
}

// Decide decides for an experiment of the subject's catalog. Where the split
// alone decides, the other gates are not even looked at.
func (s *Subject) Decide(e *Experiment) Decision {
	if !e.splitAlone || e.Current.Definition.Unit != s.Unit {
		return s.decide(e, nil)
	}
	i := e.current.find(bucketOf(mix(s.hash, e.current.hash)))
	return Decision{e, e.current.ranges[i].variant, ReasonSplit, 0}
}

// decide takes the subject through the gates, and notes each in x unless that
// is nil.
func (s *Subject) decide(e *Experiment, x *Explanation) Decision {
	variant, reason, failed, unknown := s.pass(e, x)
	d := Decision{Experiment: e, Variant: variant, Reason: reason}
	if failed {
		d.doubts |= predicateFailed
	}
	if unknown {
		d.doubts |= enrollmentUnknown
	}
	return d
}

// pass is decide without the making of a Decision. A gate that lets everyone
// through is entered only to be noted.
func (s *Subject) pass(e *Experiment, x *Explanation) (variant int, reason Reason, failed, unknown bool) {
	reason = s.stateReason(e)
	if x != nil {
		x.noteState(s, e, reason)
	}
	if reason != 0 {
		return -1, reason, false, false
	}
	if !e.concluded && (len(e.overrides) > 0 || x != nil) {
		if variant := s.passOverride(e, x); variant >= 0 {
			return variant, ReasonOverride, false, false
		}
	}
	if e.sticky {
		if variant, reason, unknown = s.passSticky(e, x); reason != 0 {
			return variant, reason, false, false
		}
	}
	if e.eligibility != nil || x != nil {
		if eligible, failed := s.passEligibility(e, x); !eligible {
			return -1, ReasonIneligible, failed, unknown
		}
	}
	if (len(e.holdouts) > 0 || x != nil) && !s.passHoldouts(e, x) {
		return e.control, ReasonHoldout, false, unknown
	}
	if e.concluded {
		return e.shipped, ReasonConcluded, false, false
	}
	if e.roster != nil {
		variant, reason = s.passRoster(e, x)
		return variant, reason, false, unknown
	}
	if (e.traffic < experiment.Buckets || x != nil) && !s.passTraffic(e, x) {
		return -1, ReasonNoTraffic, false, unknown
	}
	mixed := mix(s.hash, e.current.hash)
	i := e.current.find(bucketOf(mixed))
	if x != nil {
		x.noteSplit(e, mixed, i)
	}
	if i < 0 {
		return -1, ReasonNoTraffic, false, unknown
	}
	return e.current.ranges[i].variant, ReasonSplit, false, unknown
}

// stateReason returns the reason why the experiment assigns nothing to subjects
// of this unit, or 0. What is wrong whatever the state comes before the state.
func (s *Subject) stateReason(e *Experiment) Reason {
	switch {
	case e.Current.Definition.Unit != s.Unit:
		if e.unread {
			return ReasonNotRunning
		}
		return ReasonUnitMismatch
	case e.open:
		return 0
	case e.Current.Definition.External:
		return ReasonExternal
	}
	return ReasonNotRunning
}

// passOverride returns the index of the variant to which the subject is pinned,
// or -1.
func (s *Subject) passOverride(e *Experiment, x *Explanation) int {
	variant := s.override(e)
	if x != nil {
		x.noteOverride(e, variant)
	}
	return variant
}

func (s *Subject) override(e *Experiment) int {
	if len(e.overrides) == 0 {
		return -1
	}
	if variant, ok := e.overrides[s.ID()]; ok {
		return variant
	}
	return -1
}

// passSticky gives an enrolled subject its variant and stops others while the
// intake is closed. Its reason is 0 for a subject that it lets through.
func (s *Subject) passSticky(e *Experiment, x *Explanation) (variant int, reason Reason, unknown bool) {
	variant = -1
	kept := ""
	if len(s.enrolled) > 0 {
		kept = s.enrolled[s.Enrollment(e)]
		variant = e.Current.Definition.Variant(kept)
	}
	unknown = kept == "" && !s.complete
	switch {
	case variant >= 0:
		reason = ReasonSticky
	case !unknown && e.Current.Definition.IntakeClosed:
		reason = ReasonIntakeClosed
	}
	if x != nil {
		x.noteSticky(kept, reason, unknown)
	}
	return variant, reason, unknown
}

func (s *Subject) passEligibility(e *Experiment, x *Explanation) (eligible, failed bool) {
	var err error
	eligible = true
	switch {
	case e.eligibility == nil:
	case x == nil:
		eligible, err = e.eligibility.eval(&s.variables)
	default:
		eligible, err = e.eligibility.tell(&s.variables)
	}
	if x != nil {
		x.noteEligibility(s, e, eligible, err)
	}
	return eligible, err != nil
}

// passRoster takes the place of traffic and split.
func (s *Subject) passRoster(e *Experiment, x *Explanation) (variant int, reason Reason) {
	variant, reason = e.roster.variant(s), ReasonRoster
	if variant < 0 {
		reason = ReasonNotInRoster
	}
	if x != nil {
		x.noteRoster(e, variant)
	}
	return variant, reason
}

// passTraffic says whether the subject takes part. In a layer the slot is the
// traffic.
func (s *Subject) passTraffic(e *Experiment, x *Explanation) bool {
	if e.slot != nil {
		return s.passLayer(e, x)
	}
	mixed := mix(s.hash, e.trafficHash)
	in := bucketOf(mixed) < e.traffic
	if x != nil {
		x.noteTraffic(e, mixed, in)
	}
	return in
}

func (s *Subject) passLayer(e *Experiment, x *Explanation) bool {
	mixed := mix(s.hash, e.slot.hash)
	i := e.slot.find(bucketOf(mixed))
	if x != nil {
		x.noteLayer(e, mixed, i)
	}
	return i >= 0
}
