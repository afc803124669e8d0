package assign

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/assayhq/assay/internal/experiment"
)

// Experiment is a compiled experiment. It never changes and is safe for
// concurrent use; its fields and what they point to are for reading only.
type Experiment struct {
	experiment.Experiment

	failure     error // Why it did not compile, and so is served as not running.
	unread      bool  // It could not even be read: what it says of itself is not to be relied on.
	open        bool  // It compiled, is assigned here, and its state gives variants.
	concluded   bool
	sticky      bool         // It is running, and its enrolled subjects keep their variants.
	eligibility *eligibility // Nil for everyone.
	holdouts    []holdout    // That cover it, ended ones too.
	since       int64        // The moment of its start or of its current revision, whichever is later.
	control     int          // Index of the control.
	slot        *split       // In a layer the buckets that are in; nil without a layer.
	traffic     int32        // Traffic buckets below it are in; 0 in a layer.
	trafficHash uint64
	current     split
	splitAlone  bool // Every other gate lets everyone of the unit through; without a layer, as a slot has no traffic.
	shipped     int  // Index of the shipped variant; -1 if none.
	overrides   map[experiment.SubjectID]int
	roster      *roster // Nil for none.

	history      []experiment.Transition // In the order of time.
	slots        []experiment.SlotPeriod // In the order of time.
	coverages    []experiment.Coverage   // What holdouts was compiled from.
	start        int                     // Index of the first start in the history; -1 before.
	revisions    []experiment.Terms      // By number; the last ones are the current revision's.
	firstInForce int                     // Index of the revision in force at the first start.

	derive  sync.Once
	derived any
}

// split finds a subject's variant by its split bucket. A slot in a layer is
// found alike, and has no variants.
type split struct {
	hash   uint64
	ranges []variantRange // Ascending, disjoint.
}

type variantRange struct {
	from, to int32
	variant  int // Its index in the definition.
}

// find returns the index of the range that holds the bucket, or -1.
func (s *split) find(bucket int32) int {
	lo, hi := 0, len(s.ranges)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s.ranges[mid].to <= bucket {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(s.ranges) && s.ranges[lo].from <= bucket {
		return lo
	}
	return -1
}

// whole says whether every bucket is in a range.
func (s *split) whole() bool {
	end := int32(0)
	for _, r := range s.ranges {
		if r.from != end {
			return false
		}
		end = r.to
	}
	return end == experiment.Buckets
}

// variantOf returns the index of the variant whose range holds the bucket, or -1.
func (s *split) variantOf(bucket int32) int {
	if i := s.find(bucket); i >= 0 {
		return s.ranges[i].variant
	}
	return -1
}

// Compile prepares an experiment for decisions. It keeps what it is given, which
// must not change afterwards. If it returns an error, the
// experiment that comes with it is served as not running and accepts no
// exposures, so that one broken row cannot stop the others. The error wraps
// ErrNoRoster if it is the roster's subjects that are missing.
//
// The predicate's cost is not estimated again: it was when the predicate was
// accepted, and a stricter estimate of a later release must not stop an
// experiment that runs.
func Compile(h experiment.History) (*Experiment, error) {
	e := &Experiment{Experiment: h.Experiment, shipped: -1, start: -1, history: h.Transitions, slots: h.Slots, coverages: h.Coverages}
	var err error
	if e.unread = h.Fault != ""; e.unread {
		err = errors.New(h.Fault)
	} else {
		err = e.compile(&h)
	}
	if err != nil {
		e.failure, e.open = err, false
		return e, fmt.Errorf("experiment %s: %w", e.Key, err)
	}
	return e, nil
}

func (e *Experiment) compile(h *experiment.History) error {
	def := &e.Current.Definition
	var err error
	if e.current, err = compileSplit(&e.Current); err != nil {
		return err
	}
	e.trafficHash = hashPair(PurposeTraffic, def.Salt)
	if def.Layer == "" {
		e.traffic = def.TrafficBuckets()
	} else if e.slot, err = compileSlot(e.Slot); err != nil {
		return fmt.Errorf("the slot in the layer %q: %w", def.Layer, err)
	}
	e.holdouts = compileHoldouts(h.Coverages)
	if e.control = def.Control(); e.control < 0 && len(e.holdouts) > 0 {
		return errors.New("there is no control for those who are held out")
	}
	if e.ShippedVariant != "" {
		if e.shipped = def.Variant(e.ShippedVariant); e.shipped < 0 {
			return fmt.Errorf("the shipped variant %q does not exist", e.ShippedVariant)
		}
	}
	e.open, e.concluded = e.assigns() && !def.External, e.State == experiment.StateConcluded
	e.sticky = e.running() && def.Sticky
	if e.assigns() {
		// The predicates of the many that were archived are never evaluated.
		if e.eligibility, err = compileEligibility(def.Eligibility); err != nil {
			return err
		}
	}
	e.overrides = make(map[experiment.SubjectID]int, len(h.Overrides))
	for id, key := range h.Overrides {
		// A variant that has been removed since pins nobody.
		if i := def.Variant(key); i >= 0 {
			e.overrides[id] = i
		}
	}
	if e.roster, err = compileRoster(&e.Experiment, h.Roster); err != nil {
		return err
	}
	if err := e.compileHistory(h); err != nil {
		return err
	}
	e.splitAlone = e.open && !e.concluded && !e.sticky && len(e.overrides) == 0 && e.eligibility == nil &&
		len(e.holdouts) == 0 && e.roster == nil && e.traffic == experiment.Buckets && e.current.whole()
	return nil
}

// assigns says whether the experiment's state gives variants to anyone.
func (e *Experiment) assigns() bool {
	return e.State == experiment.StateRunning || e.State == experiment.StateConcluded && e.shipped >= 0
}

func (e *Experiment) compileHistory(h *experiment.History) error {
	e.revisions = h.Revisions
	if n := len(e.revisions); n == 0 || e.revisions[n-1].Number != e.Current.Number {
		return errors.New("its revisions are not those up to the current one")
	}
	var checked *experiment.Rules
	for i := range e.revisions {
		r := &e.revisions[i]
		if r.Rules == checked {
			continue
		}
		if err := checkRules(r); err != nil {
			return err
		}
		checked = r.Rules
	}
	e.start = slices.IndexFunc(e.history, func(t experiment.Transition) bool {
		return t.State == experiment.StateRunning
	})
	e.since = momentOf(e.Current.CreateTime)
	if e.start >= 0 {
		e.firstInForce = e.revisionAt(e.history[e.start].Time)
		e.since = max(e.since, momentOf(e.history[e.start].Time))
	}
	return nil
}

func compileSplit(r *experiment.Revision) (split, error) {
	s := split{
		hash:   hashPair(PurposeSplit, r.Definition.SaltOfSplit()),
		ranges: make([]variantRange, len(r.Allocation)),
	}
	for i, a := range r.Allocation {
		v := r.Definition.Variant(a.Variant)
		if v < 0 {
			return split{}, unknownVariant(r.Number, a.Variant)
		}
		s.ranges[i] = variantRange{a.From, a.To, v}
	}
	slices.SortFunc(s.ranges, func(a, b variantRange) int { return int(a.from) - int(b.from) })
	if err := s.check(); err != nil {
		return split{}, badAllocation(r.Number, err)
	}
	return s, nil
}

// checkRules checks what is relied on where the rules of an earlier revision are
// applied.
func checkRules(r *experiment.Terms) error {
	end := int32(0)
	for _, a := range r.Rules.Allocation {
		if r.Rules.Variant(a.Variant) < 0 {
			return unknownVariant(r.Number, a.Variant)
		}
		if err := checkRange(a.From, a.To, end); err != nil {
			return badAllocation(r.Number, err)
		}
		end = a.To
	}
	return nil
}

func unknownVariant(revision int32, key string) error {
	return fmt.Errorf("revision %d: the allocation names the variant %q, which does not exist", revision, key)
}

func badAllocation(revision int32, err error) error {
	return fmt.Errorf("revision %d: the allocation: %w", revision, err)
}

// compileSlot returns a slot by which none takes part if there is none.
func compileSlot(slot *experiment.Slot) (*split, error) {
	if slot == nil {
		return new(split), nil
	}
	s := &split{hash: hashPair(PurposeLayer, slot.Salt), ranges: make([]variantRange, len(slot.Ranges))}
	for i, r := range slot.Ranges {
		s.ranges[i] = variantRange{r.From, r.To, -1}
	}
	slices.SortFunc(s.ranges, func(a, b variantRange) int { return int(a.from) - int(b.from) })
	return s, s.check()
}

// check checks the ranges.
func (s *split) check() error {
	end := int32(0)
	for _, r := range s.ranges {
		if err := checkRange(r.from, r.to, end); err != nil {
			return err
		}
		end = r.to
	}
	return nil
}

// checkRange checks a range that comes after the end of another.
func checkRange(from, to, end int32) error {
	if from < end || to <= from || to > experiment.Buckets {
		return fmt.Errorf("the range [%d, %d) is empty, out of bounds or overlaps another", from, to)
	}
	return nil
}

// Derived returns what prepare returned when it was first called for this
// experiment. It is where the server keeps the variants' payloads in a form
// that this package does not know, for as long as the compiled experiment
// lives. All callers must pass the same function.
func (e *Experiment) Derived(prepare func(*Experiment) any) any {
	e.derive.Do(func() { e.derived = prepare(e) })
	return e.derived
}

// Broken says that the experiment did not compile.
func (e *Experiment) Broken() bool { return e.failure != nil }

// Sticky says whether the experiment is running and sticky, so that decisions
// need to know whether their subject is enrolled.
func (e *Experiment) Sticky() bool { return e.sticky }

// findRevision returns the index of the revision of the given number, or -1.
func (e *Experiment) findRevision(number int32) int {
	i, found := slices.BinarySearchFunc(e.revisions, number, func(r experiment.Terms, number int32) int { return cmp.Compare(r.Number, number) })
	if !found {
		return -1
	}
	return i
}
