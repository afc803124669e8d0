package assign

import (
	"math"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// holdout is a holdout that covers an experiment, while it is in force.
type holdout struct {
	*experiment.Coverage
	hash      uint64
	from, end int64 // In force from the first moment on and before the second.
}

// momentOf returns a time in microseconds since 1970, as which moments are
// compared: storage knows no finer times.
func momentOf(t time.Time) int64 { return t.UnixMicro() }

// never is a moment after all others.
const never = math.MaxInt64

func compileHoldouts(coverages []experiment.Coverage) []holdout {
	if len(coverages) == 0 {
		return nil
	}
	list := make([]holdout, len(coverages))
	for i := range coverages {
		c := &coverages[i]
		list[i] = holdout{c, hashPair(PurposeHoldout, c.Salt), momentOf(c.FromTime), never}
		if !c.EndTime.IsZero() {
			list[i].end = momentOf(c.EndTime)
		}
	}
	return list
}

func (h *holdout) inForce(at int64) bool { return h.from <= at && at < h.end }

// holds says whether the subject with the mixed hash is in the holdout.
func (h *holdout) holds(mixed uint64) bool { return bucketOf(mixed) < h.Buckets }

// decides says whether the holdout decides for the experiment in its state:
// once it is concluded, not every kind does.
func (h *holdout) decides(e *Experiment) bool {
	return !e.concluded || h.Kind == experiment.HoldoutNoPersonalisation
}

// passHoldouts says whether no holdout holds the subject out. The start and the
// revision that the decision is about have come, whatever the clock says that
// the subject's time is from: so have the holdouts that came with them.
func (s *Subject) passHoldouts(e *Experiment, x *Explanation) bool {
	at := max(s.at, e.since)
	open, covered := true, false
	for i := range e.holdouts {
		h := &e.holdouts[i]
		if !h.inForce(at) {
			continue
		}
		mixed := mix(s.hash, h.hash)
		in := h.holds(mixed)
		held := in && h.decides(e)
		open, covered = open && !held, true
		if x != nil {
			x.noteHoldout(h, mixed, in, held)
		}
	}
	if x != nil && !covered {
		x.noteNoHoldout()
	}
	return open
}

// sides returns the subject's side in each holdout that is in force over the
// experiment at a moment, and whether any holds it out. A holdout that began
// when the revision was replaced, or later, had no part in what that assigned.
func (s *Subject) sides(e *Experiment, at, replaced int64) (sides []experiment.Side, held bool) {
	for i := range e.holdouts {
		h := &e.holdouts[i]
		if !h.inForce(at) || h.from >= replaced {
			continue
		}
		in := h.holds(mix(s.hash, h.hash))
		sides = append(sides, experiment.Side{HoldoutID: h.HoldoutID, HeldOut: in})
		held = held || in
	}
	return sides, held
}

// replacedAt returns the moment at which a revision was replaced by the next.
func (e *Experiment) replacedAt(i int) int64 {
	if i+1 < len(e.revisions) {
		return momentOf(e.revisions[i+1].CreateTime)
	}
	return never
}

// HoldsOut says whether, at a time or later, a holdout can keep a subject from
// what the experiment gives others.
func (e *Experiment) HoldsOut(at time.Time) bool {
	for i := range e.holdouts {
		if h := &e.holdouts[i]; h.end > momentOf(at) && h.decides(e) {
			return true
		}
	}
	return false
}
