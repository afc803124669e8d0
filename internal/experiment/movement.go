package experiment

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Movement is the share of subjects that a change of a started experiment
// moves. Traffic and split are independent hashes, so that a share of all
// subjects is the product of a share of traffic buckets and a share of split
// buckets. The shares are of those who are eligible before and after, and in a
// sticky experiment of those who are not enrolled.
type Movement struct {
	Change float64 // Take part before and after, and change variant.
	Enter  float64 // Begin to take part.
	Leave  float64 // No longer take part.
	Flows  []Flow  // Change, by both variants.
	// SplitChange is the share of the split buckets that change variant. After
	// a reshuffle it is that of the pairs of an old and a new bucket, which are
	// independent.
	SplitChange float64
	// OfParticipants is the share of those who took part that change variant
	// or leave.
	OfParticipants float64
	// EligibilityChanged says that the predicate moves subjects beside these,
	// and nobody knows how many.
	EligibilityChanged bool
	// VariantsChanged says that there are other variants than before, even if
	// they have no buckets.
	VariantsChanged bool
}

// Flow is the share of subjects that go from one variant to another.
type Flow struct {
	From, To   string
	Share      float64 // Of all subjects.
	SplitShare float64 // Of the split buckets, as Movement.SplitChange.
}

// NewPhase says whether the change begins a new phase: whether it does more
// than to let subjects in.
func (m *Movement) NewPhase() bool {
	return m.SplitChange > 0 || m.Leave > 0 || m.EligibilityChanged || m.VariantsChanged
}

// Allow refuses a change that begins a new phase, unless it was asked for.
func (m *Movement) Allow(allowed bool) error {
	if allowed || !m.NewPhase() {
		return nil
	}
	what := fmt.Sprintf("of all subjects %s change variant, %s enter and %s leave", percent(m.Change), percent(m.Enter), percent(m.Leave))
	if m.EligibilityChanged {
		what += ", and an unknown share by the eligibility"
	}
	return Errorf(ErrPrecondition, "MOVEMENT_NOT_ALLOWED",
		"the experiment has started and the change begins a new phase: %s; set allow_movement if that is wanted", what)
}

// Among estimates how many of the given number of participants change variant
// or leave.
func (m *Movement) Among(participants int64) int64 {
	return int64(math.Round(float64(participants) * m.OfParticipants))
}

func percent(share float64) string { return fmt.Sprintf("%.4g %%", 100*share) }

// Next returns the revision by which a started experiment takes a definition,
// and whom that moves. The definition's split salt is r's; a reshuffle gives it
// a new one, named by the new phase. The allocation is that of r where it can
// be.
func (r *Revision) Next(def Definition, reshuffle bool) (Revision, Movement, error) {
	before := &r.Definition
	if err := before.checkSealed(&def); err != nil {
		return Revision{}, Movement{}, err
	}
	def.SplitSalt = before.SplitSalt
	if reshuffle {
		def.SplitSalt = fmt.Sprintf("%s/%d", def.Salt, r.Phase+1)
	}
	next := Revision{Number: r.Number + 1, Phase: r.Phase, Definition: def, Allocation: r.Allocation}
	if !slices.Equal(before.weights(), def.weights()) {
		next.Allocation = Reallocate(r.Allocation, def.Variants)
	}
	m := r.MovementTo(&next)
	if def.Sticky && def.Layer != "" && m.Leave > 0 {
		return Revision{}, Movement{}, Errorf(ErrPrecondition, "STICKY_IN_LAYER",
			"the experiment is sticky and in a layer: its traffic cannot fall, since those who are enrolled would share their buckets with whatever takes the room")
	}
	if m.NewPhase() {
		next.Phase++
	}
	return next, m, nil
}

// weight is a variant's part of the split.
type weight struct {
	key   string
	value int32
}

// weights lists the variants' weights by key: their order does not count.
func (d *Definition) weights() []weight {
	list := make([]weight, len(d.Variants))
	for i, v := range d.Variants {
		list[i] = weight{v.Key, v.Weight}
	}
	slices.SortFunc(list, func(a, b weight) int { return strings.Compare(a.key, b.key) })
	return list
}

// MovementTo says whom the change from r to next moves. Both allocations cover
// all buckets.
func (r *Revision) MovementTo(next *Revision) Movement {
	before, after := &r.Definition, &next.Definition
	was, is := int64(before.TrafficBuckets()), int64(after.TrafficBuckets())
	both := min(was, is)
	m := Movement{
		Enter: float64(is-both) / Buckets, Leave: float64(was-both) / Buckets,
		EligibilityChanged: before.Eligibility != after.Eligibility,
		VariantsChanged: !slices.EqualFunc(before.weights(), after.weights(), func(a, b weight) bool {
			return a.key == b.key
		}),
	}
	counts, all := overlaps(r.Allocation, next.Allocation)
	if before.SaltOfSplit() != after.SaltOfSplit() {
		counts, all = products(r.Allocation, next.Allocation)
	}
	moved := int64(0) // Counts are added and divided once, so that shares are exact.
	for pair, n := range counts {
		if pair.from != pair.to {
			moved += n
			m.Flows = append(m.Flows, Flow{pair.from, pair.to, float64(both*n) / float64(Buckets*all), float64(n) / float64(all)})
		}
	}
	slices.SortFunc(m.Flows, func(a, b Flow) int {
		return cmp.Or(strings.Compare(a.From, b.From), strings.Compare(a.To, b.To))
	})
	m.SplitChange = float64(moved) / float64(all)
	m.Change = float64(both*moved) / float64(Buckets*all)
	if was > 0 {
		m.OfParticipants = float64(both*moved+(was-both)*all) / float64(was*all)
	}
	return m
}

// pair is the variants of a subject before and after.
type pair struct{ from, to string }

// overlaps counts, of all buckets, those of each pair when a subject keeps its
// bucket.
func overlaps(before, after []Range) (counts map[pair]int64, all int64) {
	before, after = joined(before), joined(after)
	counts = map[pair]int64{}
	for i, j := 0, 0; i < len(before) && j < len(after); {
		a, b := before[i], after[j]
		if n := min(a.To, b.To) - max(a.From, b.From); n > 0 {
			counts[pair{a.Variant, b.Variant}] += int64(n)
		}
		if a.To <= b.To {
			i++
		} else {
			j++
		}
	}
	return counts, Buckets
}

// products counts, of all pairs of buckets, those of each pair of variants: a
// subject's bucket after a reshuffle does not depend on the one before.
func products(before, after []Range) (counts map[pair]int64, all int64) {
	counts = map[pair]int64{}
	to := bucketsOf(after)
	for from, n := range bucketsOf(before) {
		for variant, m := range to {
			counts[pair{from, variant}] = int64(n) * int64(m)
		}
	}
	return counts, Buckets * Buckets
}

// checkSealed refuses what no started experiment may change, since its analysis
// was decided with it.
func (d *Definition) checkSealed(next *Definition) error {
	var changed fieldNames
	changed.addIf(d.Unit != next.Unit, "unit")
	changed.addIf(d.Salt != next.Salt, "salt (reshuffle splits anew)")
	changed.addIf(d.Layer != next.Layer, "layer")
	changed.addIf(d.External != next.External, "assignment")
	changed.addIf(d.Sticky != next.Sticky, "sticky")
	changed.addIf(d.Variants[d.Control()].Key != next.Variants[next.Control()].Key, "variants (the control is sealed)")
	changed.addIf(!slices.Equal(d.Segments, next.Segments), "segments")
	changed.addIf(!equalJSON(d.Covariates, next.Covariates), "covariates")
	changed.addIf(!equalJSON(d.Metrics, next.Metrics), "metrics")
	changed.addIf(!equalJSON(d.Plan, next.Plan), "plan")
	return changed.refused("EXPERIMENT_STARTED", "the experiment has started and its plan is sealed")
}

// fieldNames are the fields that a change may not change.
type fieldNames []string

func (f *fieldNames) addIf(changed bool, field string) {
	if changed {
		*f = append(*f, field)
	}
}

// refused is the refusal of the change for a reason, nil if there are no fields.
func (f fieldNames) refused(reason, why string) error {
	if len(f) == 0 {
		return nil
	}
	return Errorf(ErrPrecondition, reason, "%s: %s cannot change", why, strings.Join(f, ", "))
}
