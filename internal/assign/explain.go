package assign

import (
	"fmt"

	"github.com/assayhq/assay/internal/experiment"
)

// GateKind names a step of a decision.
type GateKind uint8

// The gates, in the order in which they decide.
const (
	GateState       GateKind = iota + 1 // State, assignment and unit.
	GateOverride                        // A pinned variant.
	GateSticky                          // The variant of the first recorded exposure; sticky experiments only.
	GateEligibility                     // The predicate.
	GateHoldout                         // A holdout that covers the experiment.
	GateLayer                           // The slot in a layer, in place of traffic.
	GateTraffic                         // The share of traffic that takes part.
	GateSplit                           // The split by weight.
	GateRoster                          // The roster, in place of layer, traffic and split.
)

// Gate is one step of a decision with what it read.
type Gate struct {
	Kind       GateKind
	Passed     bool           // It let the subject through, or gave its variant.
	Detail     string         // What happened, in a sentence.
	Bucketing  *Bucketing     // Holdout (if there is one), layer (if there is a slot), traffic and split only.
	Predicate  string         // Eligibility only.
	Attributes map[string]any // Eligibility only: those that the predicate names and the subject has.
}

// Bucketing is a hash with its inputs, so that it can be repeated by hand.
type Bucketing struct {
	Purpose string
	Salt    string
	Hash    uint64 // Mixed.
	Bucket  int32
	Range   *experiment.Range // That holds the bucket; nil if none does.
}

// Explanation is a decision with the gates that led to it. Gates after the
// deciding one are absent.
type Explanation struct {
	Decision
	Gates []Gate
}

// Explain decides as Decide does, through the same gates, and tells how.
func (s *Subject) Explain(e *Experiment) Explanation {
	var x Explanation
	x.Decision = s.decide(e, &x)
	return x
}

func (x *Explanation) noteState(s *Subject, e *Experiment, reason Reason) {
	g := Gate{Kind: GateState, Passed: reason == 0}
	switch {
	case reason == ReasonUnitMismatch:
		g.Detail = fmt.Sprintf("The experiment randomises the unit %q; the subject's is %q.", e.Current.Definition.Unit, s.Unit)
	case reason == ReasonExternal:
		g.Detail = "The experiment is assigned elsewhere."
	case e.failure != nil:
		g.Detail = fmt.Sprintf("The experiment could not be loaded: %v.", e.failure)
	case e.State == experiment.StateConcluded && e.shipped < 0:
		g.Detail = "The experiment is concluded and ships no variant."
	case e.State == experiment.StateConcluded:
		g.Detail = fmt.Sprintf("The experiment is concluded and ships %q to everyone eligible.", e.ShippedVariant)
	default:
		g.Detail = fmt.Sprintf("The experiment is %s.", stateWords[e.State])
	}
	x.Gates = append(x.Gates, g)
}

var stateWords = map[experiment.State]string{
	experiment.StateDraft:    "a draft",
	experiment.StateRunning:  "running",
	experiment.StatePaused:   "paused",
	experiment.StateArchived: "archived",
}

func (x *Explanation) noteOverride(e *Experiment, variant int) {
	g := Gate{Kind: GateOverride, Passed: true, Detail: "The subject is not pinned."}
	if variant >= 0 {
		g.Detail = fmt.Sprintf("The subject is pinned to %q.", e.Current.Definition.Variants[variant].Key)
	}
	x.Gates = append(x.Gates, g)
}

func (x *Explanation) noteSticky(kept string, reason Reason, unknown bool) {
	g := Gate{Kind: GateSticky, Passed: reason != ReasonIntakeClosed, Detail: "The subject is not enrolled."}
	switch {
	case reason == ReasonSticky:
		g.Detail = fmt.Sprintf("The subject is enrolled: its first recorded exposure was to %q.", kept)
	case unknown:
		g.Detail = "Whether the subject is enrolled could not be read: it is decided as one that is not, with the intake open."
	case kept != "":
		g.Detail = fmt.Sprintf("The subject's first recorded exposure was to %q, which is no variant any more: it is not enrolled.", kept)
	}
	if reason == ReasonIntakeClosed {
		g.Detail += " The intake is closed."
	}
	x.Gates = append(x.Gates, g)
}

func (x *Explanation) noteEligibility(s *Subject, e *Experiment, eligible bool, err error) {
	g := Gate{Kind: GateEligibility, Passed: eligible, Predicate: e.Current.Definition.Eligibility}
	switch {
	case e.eligibility == nil:
		g.Detail = "Everyone is eligible."
	case err != nil:
		g.Detail = fmt.Sprintf("The predicate failed to evaluate: %v.", err)
	case eligible:
		g.Detail = "The predicate is true."
	default:
		g.Detail = "The predicate is false."
	}
	if e.eligibility != nil {
		g.Attributes = map[string]any{}
		all := s.variables.attributes.All()
		for _, name := range e.eligibility.names {
			if v, ok := all[name]; ok {
				g.Attributes[name] = v
			}
		}
	}
	x.Gates = append(x.Gates, g)
}

// noteHoldout notes a holdout in force, whether the subject is in it, and
// whether it is therefore held out.
func (x *Explanation) noteHoldout(h *holdout, mixed uint64, in, held bool) {
	b := Bucketing{Purpose: PurposeHoldout, Salt: h.Salt, Hash: mixed, Bucket: bucketOf(mixed)}
	g := Gate{Kind: GateHoldout, Passed: true, Bucketing: &b}
	if in {
		b.Range = &experiment.Range{From: 0, To: h.Buckets}
	}
	switch {
	case held:
		g.Detail = fmt.Sprintf("Bucket %d is held out by the holdout %q, with the control: it is below %d.", b.Bucket, h.Holdout, h.Buckets)
	case in:
		g.Detail = fmt.Sprintf("Bucket %d is in the holdout %q, which lets through what has shipped.", b.Bucket, h.Holdout)
	default:
		g.Detail = fmt.Sprintf("Bucket %d is open in the holdout %q: it is not below %d.", b.Bucket, h.Holdout, h.Buckets)
	}
	x.Gates = append(x.Gates, g)
}

func (x *Explanation) noteNoHoldout() {
	x.Gates = append(x.Gates, Gate{Kind: GateHoldout, Passed: true, Detail: "No holdout covers the experiment."})
}

func (x *Explanation) noteLayer(e *Experiment, mixed uint64, i int) {
	layer := e.Current.Definition.Layer
	if e.Slot == nil {
		x.Gates = append(x.Gates, Gate{Kind: GateLayer, Detail: fmt.Sprintf("The experiment has no slot in the layer %q.", layer)})
		return
	}
	b := Bucketing{Purpose: PurposeLayer, Salt: e.Slot.Salt, Hash: mixed, Bucket: bucketOf(mixed)}
	g := Gate{Kind: GateLayer, Passed: i >= 0, Bucketing: &b}
	if i >= 0 {
		b.Range = &experiment.Range{From: e.slot.ranges[i].from, To: e.slot.ranges[i].to}
		g.Detail = fmt.Sprintf("Bucket %d takes part: it is in the experiment's slot in the layer %q.", b.Bucket, layer)
	} else {
		g.Detail = fmt.Sprintf("Bucket %d does not take part: it is not in the experiment's slot in the layer %q.", b.Bucket, layer)
	}
	x.Gates = append(x.Gates, g)
}

func (x *Explanation) noteTraffic(e *Experiment, mixed uint64, in bool) {
	b := Bucketing{Purpose: PurposeTraffic, Salt: e.Current.Definition.Salt, Hash: mixed, Bucket: bucketOf(mixed)}
	g := Gate{Kind: GateTraffic, Passed: in, Bucketing: &b}
	if in {
		b.Range = &experiment.Range{From: 0, To: e.traffic}
		g.Detail = fmt.Sprintf("Bucket %d takes part: it is below %d.", b.Bucket, e.traffic)
	} else {
		g.Detail = fmt.Sprintf("Bucket %d does not take part: it is not below %d.", b.Bucket, e.traffic)
	}
	x.Gates = append(x.Gates, g)
}

func (x *Explanation) noteSplit(e *Experiment, mixed uint64, i int) {
	b := Bucketing{Purpose: PurposeSplit, Salt: e.Current.Definition.SaltOfSplit(), Hash: mixed, Bucket: bucketOf(mixed)}
	g := Gate{Kind: GateSplit, Passed: i >= 0, Bucketing: &b}
	if i >= 0 {
		r := e.current.ranges[i]
		b.Range = &experiment.Range{From: r.from, To: r.to, Variant: e.Current.Definition.Variants[r.variant].Key}
		g.Detail = fmt.Sprintf("Bucket %d belongs to %q.", b.Bucket, b.Range.Variant)
	} else {
		g.Detail = fmt.Sprintf("Bucket %d belongs to no variant.", b.Bucket)
	}
	x.Gates = append(x.Gates, g)
}

func (x *Explanation) noteRoster(e *Experiment, variant int) {
	g := Gate{Kind: GateRoster, Passed: variant >= 0}
	switch {
	case variant >= 0:
		g.Detail = fmt.Sprintf("The roster lists the subject with %q.", e.Current.Definition.Variants[variant].Key)
	case e.roster.subjects == nil:
		g.Detail = "The subjects of the roster were deleted."
	default:
		g.Detail = "The roster does not list the subject."
	}
	x.Gates = append(x.Gates, g)
}
