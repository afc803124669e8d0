package metric

import (
	"cmp"
	"slices"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// An analysis says what became of every outcome of the names that its metrics are
// of, whether or not it was counted: what is silently left out passes for nothing
// having happened. A query counts the outcomes by all that decides whether a metric
// counts them, and what follows for each metric is told here.

// ShortlyBefore is how long before exposure an outcome seems to be if it is not
// before it but the clock that it is timed by is behind.
const ShortlyBefore = 5 * time.Second

// ClockAhead is how much later than its recording an exposure is timed if the clock
// that it is timed by is ahead. Clocks that are kept right differ by far less, and
// what less than that hides is told as shortly before exposure.
const ClockAhead = ShortlyBefore

// Accounts is by what a query is to tell the outcomes of some names apart.
type Accounts struct {
	Names []string // Distinct.
	// AliveOnly says that it matters only whether somebody has outcomes of a name.
	AliveOnly bool
	Windows   []time.Duration
	Takings   []Taking // Distinct.
	Needs     []Need   // Distinct.
	Pasts     []Past   // Distinct.
}

// Need is what an outcome of a name must have for a component to take it, whatever
// it says: a value if the field is that, else a property, as a number if it is
// compared with one.
type Need struct {
	Name, Field string
	Number      bool
}

// Taking is what a metric takes of the outcomes of a name: those that one of its
// components takes. But if a component lacks nothing but the value of an outcome,
// the outcome is without a value to the metric, whatever others make of it.
type Taking struct {
	Name       string
	Components []Taker
}

// Taker is what one component takes.
type Taker struct {
	Conditions []experiment.Condition
	Valued     bool // It takes nothing without a value.
}

// Placed counts outcomes of a name that are alike in all that Accounts tell apart.
type Placed struct {
	Name  string
	Owner Owner
	// Place is −2 before exposure, −1 if that is shortly before it, i from then on if
	// the i-th window after exposure is the first that holds it, and the number of
	// windows if none does.
	Place int
	// Variant is the index of the variant of those from before exposure.
	Variant int
	// Closed is how many of the windows, which rise, have closed for the subject.
	Closed int
	// Moved is of how many metrics a later phase's move keeps the subject out: those
	// without a window come first, and then the longest of the windows.
	Moved       int
	Hidden      bool // It is from before an exposure that is ahead, but not from before its recording.
	Early       bool // It is from before the stretch, shortly before exposure.
	AfterEnd    bool // Counting had ended.
	DuringPause bool // Of those that are left out.
	Outcomes    int64
	// Taken counts those of them that count as far as their properties and values
	// go, and Valueless those that lack a value. Both by Accounts.Takings, and without
	// meaning for those of other names and for owners who are not analysed. They are
	// sums, as groups by such conditions may be as many as the outcomes.
	Taken, Valueless []int64
	// Having counts those of them that have what Accounts.Needs says, whoever's they
	// are. Without meaning for needs of other names.
	Having []int64
}

// alive says that somebody of the unit did something of the name in the stretch that
// counts: what came before it or after its end tells nothing of it.
func (p *Placed) alive() bool { return p.Owner != OtherUnit && !p.Early && !p.AfterEnd }

// Owner is whose an outcome is.
type Owner int

// The owners of outcomes.
const (
	Analysed Owner = iota
	OtherUnit
	NeverExposed
	SubjectLeftOut
)

// Accounted is what a query knows of outcomes beside its rows.
type Accounted struct {
	Placed           []Placed
	Similar          map[string][]SimilarOutcomes // By name.
	NothingToCorrect map[string]int64             // Corrections by name.
	DeadPasts        []DeadPast
	Early            map[string][]EarlyOutcomes // By name, where they look uneven.
	SimilarFields    map[Need][]string          // Properties that arrived, of needs that nothing meets.
}

// SimilarOutcomes are outcomes that may have been meant in place of others, and
// arrived. The unit is empty if it is not known.
type SimilarOutcomes struct {
	Name     string `json:"name"`
	Unit     string `json:"unit,omitempty"`
	Outcomes int64  `json:"outcomes"`
}

// OutcomeUse is what became of the outcomes of one name for a metric, from the
// earlier of the start and the first exposure on.
type OutcomeUse struct {
	Name string `json:"name"`
	// Alive says that somebody of the unit had one before counting ended, exposed or
	// not. Without that a 0 does not mean that nothing happened.
	Alive bool `json:"alive,omitempty"`
	// Lacking is what a component needs of an outcome and none of those has, so that
	// its 0 means nothing either.
	Lacking    []Lack                    `json:"lacking,omitempty"`
	Counted    int64                     `json:"counted,omitempty"`
	NotCounted map[UncountedReason]int64 `json:"not_counted,omitempty"`
	// ShortlyBefore counts those of BeforeExposure in the last seconds before it.
	ShortlyBefore int64 `json:"shortly_before,omitempty"`
	// Hidden counts those of BeforeExposure that are not from before the exposure was
	// recorded: it was timed by a clock that is ahead.
	Hidden  int64             `json:"hidden,omitempty"`
	Early   []EarlyOutcomes   `json:"early,omitempty"` // Told where they look uneven.
	Similar []SimilarOutcomes `json:"similar,omitempty"`
}

// Lack is a need that nothing meets, with the properties that are like it and
// arrived.
type Lack struct {
	Field   string   `json:"field"`
	Number  bool     `json:"number,omitempty"`
	Similar []string `json:"similar,omitempty"`
}

// UncountedReason is why an outcome did not count for a metric.
type UncountedReason string

// The reasons, in the order in which the first that applies is told.
const (
	OfOtherUnit     UncountedReason = "other_unit"
	OfNeverExposed  UncountedReason = "never_exposed"
	OfLeftOut       UncountedReason = "subject_left_out"
	BeforeExposure  UncountedReason = "before_exposure"
	AfterWindow     UncountedReason = "after_window"
	AfterConclusion UncountedReason = "after_conclusion"
	DuringPause     UncountedReason = "during_pause"
	ConditionNotMet UncountedReason = "condition_not_met"
	WithoutValue    UncountedReason = "without_value"
	WindowOpen      UncountedReason = "window_open"
	// NothingToCorrect is of corrections, of which no outcome is known that they could
	// be of. They are no outcomes of their own.
	NothingToCorrect UncountedReason = "nothing_to_correct"
)

// UncountedReasons are all of them, in that order.
var UncountedReasons = []UncountedReason{OfOtherUnit, OfNeverExposed, OfLeftOut, BeforeExposure, AfterWindow,
	AfterConclusion, DuringPause, ConditionNotMet, WithoutValue, WindowOpen, NothingToCorrect}

// Unit is the unit of the study's subjects.
func (s *Study) Unit() string { return cmp.Or(s.definition.Unit, experiment.DefaultUnit) }

// AssignedElsewhere says that the variants of the experiment are not assigned here.
func (s *Study) AssignedElsewhere() bool { return s.definition.External }

// Variants are the keys of the variants that are analysed.
func (s *Study) Variants() []string {
	var keys []string
	for _, v := range s.definition.Variants {
		keys = append(keys, v.Key)
	}
	return keys
}

// Definitions are those of the metrics that are accounted for, in their order.
func (s *Study) Definitions() (list []*Definition) {
	for i := range s.metrics[:s.accounted] {
		list = append(list, &s.metrics[i].Metric.Definition)
	}
	return list
}

// Unaccounted returns the study without accounts of outcomes, for who needs its
// figures alone.
func (s *Study) Unaccounted() *Study {
	unaccounted := *s
	unaccounted.accounted = 0
	return &unaccounted
}

// AliveOnly returns the study with accounts that need not count: they tell whether
// names are alive.
func (s *Study) AliveOnly() *Study {
	alive := *s
	alive.aliveOnly = true
	return &alive
}

// Accounts is by what the study's metrics tell outcomes apart; it has no names if
// nothing is to be accounted for.
func (s *Study) Accounts() *Accounts {
	a := &Accounts{AliveOnly: s.aliveOnly, Pasts: s.pasts()}
	for i := range s.metrics[:s.accounted] {
		m := &s.metrics[i]
		d := &m.Metric.Definition
		if d.Window > 0 && !slices.Contains(a.Windows, d.Window) {
			a.Windows = append(a.Windows, d.Window)
		}
		for _, name := range d.outcomes() {
			if !slices.Contains(a.Names, name) {
				a.Names = append(a.Names, name)
			}
			if taking := m.taking(name); a.find(&taking) < 0 {
				a.Takings = append(a.Takings, taking)
			}
			for _, need := range m.needs(name) {
				if !slices.Contains(a.Needs, need) {
					a.Needs = append(a.Needs, need)
				}
			}
		}
	}
	slices.Sort(a.Windows)
	return a
}

// taking is what the metric takes of the outcomes of a name.
func (m *compiled) taking(name string) Taking {
	taking := Taking{Name: name}
	for i, c := range m.Metric.Definition.Components {
		if c.Outcome == name {
			taking.Components = append(taking.Components, Taker{c.Conditions, m.meanCounts[i] || takesValues(c.Aggregate)})
		}
	}
	return taking
}

// needs are what the metric's components need of the outcomes of a name.
func (m *compiled) needs(name string) (needs []Need) {
	for _, c := range m.taking(name).Components {
		needs = append(needs, c.needs(name)...)
	}
	return needs
}

func (t *Taker) needs(name string) (needs []Need) {
	if t.Valued {
		needs = append(needs, Need{Name: name, Field: experiment.FieldValue})
	}
	for _, c := range t.Conditions {
		number := c.Field != experiment.FieldValue && c.Op != experiment.OpEqual && c.Op != experiment.OpNotEqual
		needs = append(needs, Need{name, c.Field, number})
	}
	return needs
}

// Needs are what the column needs of an outcome.
func (c *Column) Needs() []Need {
	taker := Taker{c.Component.Conditions, c.Valued || takesValues(c.Component.Aggregate)}
	return taker.needs(c.Component.Outcome)
}

// Unmet are the needs that no outcome meets, of names of which there are some.
func (a *Accounts) Unmet(placed []Placed) (unmet []Need) {
	for i, need := range a.Needs {
		alive, having := false, int64(0)
		for k := range placed {
			if p := &placed[k]; p.Name == need.Name && p.alive() {
				alive, having = true, having+p.Having[i]
			}
		}
		if alive && having == 0 {
			unmet = append(unmet, need)
		}
	}
	return unmet
}

// find is the place of what a metric takes; −1 if there is none.
func (a *Accounts) find(t *Taking) int {
	return slices.IndexFunc(a.Takings, func(known Taking) bool {
		return known.Name == t.Name && slices.EqualFunc(known.Components, t.Components, func(x, y Taker) bool {
			return x.Valued == y.Valued && sameConditions(x.Conditions, y.Conditions)
		})
	})
}

// Account adds to a tally of the study what became of outcomes.
func (s *Study) Account(t *Tally, accounted *Accounted) {
	a := s.Accounts()
	t.DeadPasts = accounted.DeadPasts
	unmet := a.Unmet(accounted.Placed)
	for i, d := range s.Definitions() {
		for _, name := range d.outcomes() {
			use := OutcomeUse{Name: name, Similar: accounted.Similar[name], Early: accounted.Early[name]}
			use.leave(NothingToCorrect, accounted.NothingToCorrect[name])
			taking := s.metrics[i].taking(name)
			for k := range accounted.Placed {
				if p := &accounted.Placed[k]; p.Name == name {
					use.take(p, a.reason(d, p), a.find(&taking))
				}
			}
			needs := s.metrics[i].needs(name)
			for _, need := range unmet {
				if slices.Contains(needs, need) {
					use.Lacking = append(use.Lacking, Lack{need.Field, need.Number, accounted.SimilarFields[need]})
				}
			}
			t.Metrics[i].Outcomes = append(t.Metrics[i].Outcomes, use)
		}
	}
}

// outcomes are the names of the outcomes that the metric is of.
func (d *Definition) outcomes() (names []string) {
	for _, c := range d.Components {
		if !slices.Contains(names, c.Outcome) {
			names = append(names, c.Outcome)
		}
	}
	return names
}

// take counts outcomes that are not counted for a reason, or are as far as the metric
// takes them if it is empty.
func (u *OutcomeUse) take(p *Placed, reason UncountedReason, taking int) {
	u.Alive = u.Alive || p.alive()
	if reason != "" && reason != WindowOpen {
		u.leave(reason, p.Outcomes)
		if reason == BeforeExposure && p.Place == -1 {
			u.ShortlyBefore += p.Outcomes
		}
		if reason == BeforeExposure && p.Hidden {
			u.Hidden += p.Outcomes
		}
		return
	}
	taken, valueless := p.Taken[taking], p.Valueless[taking]
	u.leave(WithoutValue, valueless)
	u.leave(ConditionNotMet, p.Outcomes-taken-valueless)
	if reason == WindowOpen {
		u.leave(WindowOpen, taken)
	} else {
		u.Counted += taken
	}
}

// leave counts outcomes that are not counted.
func (u *OutcomeUse) leave(reason UncountedReason, outcomes int64) {
	if outcomes == 0 {
		return
	}
	if u.NotCounted == nil {
		u.NotCounted = map[UncountedReason]int64{}
	}
	u.NotCounted[reason] += outcomes
}

// reason is why the metric counts none of the outcomes, whatever they are; empty if
// it may.
func (a *Accounts) reason(d *Definition, p *Placed) UncountedReason {
	window := slices.Index(a.Windows, d.Window) // −1 without one.
	switch {
	case p.Owner == OtherUnit:
		return OfOtherUnit
	case p.Owner == NeverExposed:
		return OfNeverExposed
	case p.Owner == SubjectLeftOut, a.moved(window, p):
		return OfLeftOut
	case p.Place < 0:
		return BeforeExposure
	case window >= 0 && p.Place > window:
		return AfterWindow
	case p.AfterEnd:
		return AfterConclusion
	case p.DuringPause:
		return DuringPause
	case window >= p.Closed:
		return WindowOpen
	}
	return ""
}

// moved says whether the subject was moved within a window, by its index; −1 is none,
// and longer than any.
func (a *Accounts) moved(window int, p *Placed) bool {
	longer := 0
	if window >= 0 {
		longer = len(a.Windows) - window
	}
	return longer < p.Moved
}
