package experiment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// State is where an experiment stands.
type State string

// The states: draft → running ⇄ paused → concluded → archived.
const (
	StateDraft     State = "draft"
	StateRunning   State = "running"
	StatePaused    State = "paused"
	StateConcluded State = "concluded"
	StateArchived  State = "archived"
)

var transitions = map[State][]State{
	StateDraft:     {StateRunning, StateArchived},
	StateRunning:   {StatePaused, StateConcluded},
	StatePaused:    {StateRunning, StateConcluded},
	StateConcluded: {StateArchived},
}

// CheckTransition says whether an experiment may go from s to next.
func (s State) CheckTransition(next State) error {
	for _, t := range transitions[s] {
		if t == next {
			return nil
		}
	}
	return Errorf(ErrPrecondition, "STATE_FORBIDS", "an experiment that is %s cannot become %s", s, next)
}

// Started says whether the experiment has ever run, as far as its present
// state tells.
func (s State) Started() bool {
	return s == StateRunning || s == StatePaused || s == StateConcluded
}

// Experiment is a definition with its identity, state and history.
type Experiment struct {
	ID             int32 // In storage.
	Key            string
	State          State
	Version        int64 // Grows with every change of any kind; the etag.
	Current        Revision
	Slot           *Slot            // In its layer; nil before the start and after the conclusion.
	Holdouts       []string         // The keys of those that cover it and have not ended.
	Roster         *Roster          // Nil for none.
	Pins           map[string]int32 // Metric key → revision, from the start on.
	PlanHash       string           // Empty before the start.
	ShippedVariant string
	Rationale      string
	Conclusion     *Conclusion `json:",omitempty"` // Nil before, and for conclusions of an earlier release.
	CreateTime     time.Time
	UpdateTime     time.Time
	StartTime      time.Time // Zero before.
	ConcludeTime   time.Time // Zero before.
}

// CheckVersion refuses a version that is not the present one, unless it is 0.
func (e *Experiment) CheckVersion(version int64) error {
	if version != 0 && version != e.Version {
		return Errorf(ErrAborted, "ETAG_MISMATCH", "the experiment has changed since it was read")
	}
	return nil
}

// Revision is an immutable version of an experiment's definition.
type Revision struct {
	Number     int32
	Phase      int32
	Definition Definition
	Allocation []Range
	CreateTime time.Time
	Author     string `json:",omitempty"` // As the caller named itself.
}

// Transition is a change of state.
type Transition struct {
	State State
	Time  time.Time
}

// History is all that assignment needs of an experiment.
type History struct {
	Experiment  Experiment
	Revisions   []Terms              // By number: the current one, and those before it with which it has run.
	Transitions []Transition         // By time.
	Overrides   map[SubjectID]string // In force: subject → variant.
	Pinned      string               // Names what Overrides holds, as storage does; empty for nothing.
	Slots       []SlotPeriod         // In its layer, by time.
	Coverages   []Coverage           // By holdouts, in the order of their keys.
	Roster      *RosterSubjects      // Of Experiment.Roster; nil if that has none.
	Fault       string               // Why it could not be read, if it could not: the rest is then not whole.
}

// IsPastOf says whether h holds an earlier state of the experiment as it is now in
// the same storage, so that what it holds of the past still holds.
func (h *History) IsPastOf(now *Experiment) bool {
	return h != nil && h.Fault == "" && h.Experiment.ID == now.ID && h.Experiment.CreateTime.Equal(now.CreateTime) && h.Experiment.Version <= now.Version
}

// SharesOf returns the share of the subjects that each current variant is due
// in a revision: that of the roster, or of the buckets.
func (e *Experiment) SharesOf(r *Revision) []float64 {
	if e.Roster != nil {
		return e.Roster.SharesOf(&e.Current.Definition)
	}
	return r.SharesOf(&e.Current.Definition)
}

// SharesOf returns the revision's share of the buckets for each variant of a
// definition, in its order.
func (r *Revision) SharesOf(d *Definition) []float64 {
	shares := make([]float64, len(d.Variants))
	for _, a := range r.Allocation {
		if i := d.Variant(a.Variant); i >= 0 {
			shares[i] += float64(a.To-a.From) / Buckets
		}
	}
	return shares
}

// SealPlan returns the hash of all that decides an analysis, once the metrics'
// revisions are pinned: SHA-256 of the canonical JSON of the plan, metrics,
// covariates, segments, variants and unit, in hexadecimal.
func (d *Definition) SealPlan(pins map[string]int32) string {
	type arm struct {
		Key     string `json:"key"`
		Control bool   `json:"control"`
		Weight  int32  `json:"weight"`
	}
	arms := make([]arm, len(d.Variants))
	for i, v := range d.Variants {
		arms[i] = arm{v.Key, v.Control, v.Weight}
	}
	b, err := json.Marshal(map[string]any{
		"unit": d.Unit, "variants": arms, "segments": d.Segments, "covariates": d.Covariates,
		"metrics": d.Metrics, "pins": pins, "plan": d.Plan,
	})
	if err != nil {
		panic(fmt.Sprintf("experiment: a plan without JSON form: %v", err)) // Its types all have one.
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Equal says whether two definitions are stored alike.
func (d *Definition) Equal(other *Definition) bool { return equalJSON(d, other) }

func equalJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
