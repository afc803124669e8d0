package experiment

import (
	"slices"
	"sort"
	"time"
)

// Phase is how a phase of a started experiment began, as it bears on the subjects
// of the phases before.
type Phase struct {
	Number int32
	Start  time.Time
	// Moves says that its split gives some of the subjects of before another variant,
	// whether or not they come back: those whose bucket is another variant's in the
	// Allocation.
	Moves bool
	// Reshuffled says that it moves them by another salt, under which the buckets of
	// before say nothing.
	Reshuffled bool
	// Dilutes says why some subjects of before may have no part in it any more, or
	// get the status quo, so that buckets do not tell whom it concerns: what it did,
	// or empty.
	Dilutes    string
	Allocation []Range // Of all buckets, rising.
}

// VariantAt returns the variant to which the phase's split gives a bucket; empty for
// none.
func (p *Phase) VariantAt(bucket int32) string {
	i := sort.Search(len(p.Allocation), func(i int) bool { return p.Allocation[i].To > bucket })
	if i == len(p.Allocation) || p.Allocation[i].From > bucket {
		return ""
	}
	return p.Allocation[i].Variant
}

// Phases lists the phases of a started experiment after the first, by their
// revisions as [Deviations] takes them. Whoever is enrolled in a sticky experiment
// keeps variant and part, and a roster's subjects their variants. Where an experiment
// is assigned elsewhere, weights do not say who has which variant.
func (e *Experiment) Phases(last, first []Revision) []Phase {
	var phases []Phase
	if e.Current.Definition.Sticky {
		return nil
	}
	for i := 1; i < len(first); i++ {
		phases = append(phases, e.phase(&first[i-1], &last[i-1], &first[i]))
	}
	return phases
}

// phase is how the phase of next began after the one between two revisions. A
// reshuffle that moves nobody, as one variant has all buckets, begins no phase, and
// is one at the next.
func (e *Experiment) phase(from, to, next *Revision) Phase {
	p := Phase{Number: next.Phase, Start: next.CreateTime, Allocation: joined(next.Allocation)}
	p.Reshuffled = from.Definition.SaltOfSplit() != next.Definition.SaltOfSplit()
	p.Moves = p.Reshuffled || !slices.Equal(joined(to.Allocation), p.Allocation)
	moved := to.MovementTo(next)
	switch {
	case moved.EligibilityChanged:
		p.Dilutes = "changed the eligibility"
	case moved.Leave > 0 && e.Roster == nil:
		p.Dilutes = "lowered the traffic"
	case p.Moves && next.Definition.External:
		p.Dilutes = "changed the weights of an experiment that is assigned elsewhere"
	case !p.Moves && moved.Leave == 0 && !moved.VariantsChanged:
		p.Dilutes = "began a holdout"
	}
	if next.Definition.External || e.Roster != nil {
		p.Moves, p.Reshuffled = false, false
	}
	return p
}

// DefinedAt is the experiment as it was at a moment, if variants that it had then have
// been removed since, so that its subjects of then are compared as they were then; else
// as it is. last and first are the revisions with which its phases end and begin.
func (e *Experiment) DefinedAt(moment time.Time, last, first []Revision) *Experiment {
	for i := min(len(first), len(last)) - 1; i >= 0; i-- {
		if first[i].CreateTime.After(moment) {
			continue
		}
		if len(last[i].Definition.variantsBeside(&e.Current.Definition)) == 0 {
			break
		}
		then := *e
		then.Current = last[i]
		return &then
	}
	return e
}
