package experiment

import (
	"maps"
	"math"
	"strings"
	"time"
)

// Holdout is a control group across many experiments: its subjects get the
// control in every experiment that it covers.
type Holdout struct {
	ID          int32 // In storage; no experiment has it.
	Key         string
	Unit        string
	Description string
	Share       float64 // More than 0 and at most 0.5.
	Salt        string
	Labels      map[string]string // That an experiment must carry; none: every experiment of the unit.
	Kind        HoldoutKind
	StartTime   time.Time
	EndTime     time.Time // Zero: not known yet.
	Version     int64     // Grows with every change of the holdout; the etag.
	Experiments []string  // That it covers or covered, but for archived ones; by key.
	CreateTime  time.Time
	UpdateTime  time.Time
}

// HoldoutKind says what a holdout's subjects go without.
type HoldoutKind string

// The kinds of holdouts.
const (
	HoldoutNoPersonalisation HoldoutKind = "no_personalisation" // What is tried and what has shipped.
	HoldoutStatusQuo         HoldoutKind = "status_quo"         // What is tried.
)

// The sides of a holdout, which are the variants in its analysis.
const (
	SideHeldOut = "held_out"
	SideOpen    = "open"
)

// HoldoutPhase is the phase of all exposures of a holdout.
const HoldoutPhase = 1

// RunningExperiments says what becomes of the started experiments that a new
// holdout would cover.
type RunningExperiments uint8

// What can become of them.
const (
	RunningRefuse   RunningExperiments = iota // They stand in the holdout's way.
	RunningLeave                              // They stay uncovered.
	RunningNewPhase                           // A new phase of each begins, which is covered.
)

// Coverage is a holdout as it bears on one experiment, from the experiment's
// start or a new phase on.
type Coverage struct {
	HoldoutID int32
	Holdout   string // Its key.
	Kind      HoldoutKind
	Salt      string
	Buckets   int32 // Subjects below it in the holdout's hash are held out.
	FromTime  time.Time
	EndTime   time.Time // The holdout's; zero: not known yet.
}

// Buckets is the number of buckets that are held out: those below
// floor(share × 10⁶ + ½).
func (h *Holdout) Buckets() int32 { return int32(math.Floor(h.Share*Buckets + 0.5)) }

// Covers says whether a holdout in force covers an experiment that starts.
func (h *Holdout) Covers(d *Definition) bool {
	return !d.External && d.Unit == h.Unit && d.Carries(h.Labels)
}

// Equal says whether a change has left the holdout as it is.
func (h *Holdout) Equal(next *Holdout) bool {
	return h.Description == next.Description && h.EndTime.Equal(next.EndTime) && len(h.sealedChanges(next)) == 0
}

// startedBy says whether the holdout has started at a time.
func (h *Holdout) startedBy(t time.Time) bool { return !h.StartTime.After(t) }

// AsDefinition returns the definition as which the holdout is analysed: an
// experiment of two arms, whose control is held out.
func (h *Holdout) AsDefinition(confidenceLevel float64) *Definition {
	return &Definition{
		Unit: h.Unit, Traffic: 1, Salt: h.Salt,
		Variants: []Variant{
			{Key: SideHeldOut, Control: true, Weight: h.Buckets()},
			{Key: SideOpen, Weight: Buckets - h.Buckets()},
		},
		Plan: Plan{Method: MethodAlwaysValid, ConfidenceLevel: confidenceLevel, Correction: CorrectionHolm},
	}
}

// maxHoldoutDelay is how long ago a time may be that a change of a holdout
// takes for now.
const maxHoldoutDelay = 5 * time.Minute

// Begin completes the times of a holdout that is created now.
func (h *Holdout) Begin(now time.Time) error {
	var bad InvalidError
	if h.StartTime.IsZero() {
		h.StartTime = now
	}
	h.StartTime = notPast(&bad, "start_time", h.StartTime, now)
	if !h.EndTime.IsZero() {
		h.EndTime = notPast(&bad, "end_time", h.EndTime, now)
	}
	h.checkOrder(&bad)
	return bad.Err()
}

// Next returns the holdout that a change makes of h now.
func (h *Holdout) Next(next Holdout, now time.Time) (Holdout, error) {
	if err := h.checkSealed(&next, now); err != nil {
		return next, err
	}
	var bad InvalidError
	if next.StartTime.IsZero() {
		next.StartTime = now
	}
	if !next.StartTime.Equal(h.StartTime) {
		next.StartTime = notPast(&bad, "start_time", next.StartTime, now)
	}
	if !next.EndTime.IsZero() && !next.EndTime.Equal(h.EndTime) {
		next.EndTime = notPast(&bad, "end_time", next.EndTime, now)
	}
	next.checkOrder(&bad)
	return next, bad.Err()
}

// notPast returns a time, or now if it is past; but not by much.
func notPast(bad *InvalidError, field string, t, now time.Time) time.Time {
	switch {
	case !t.Before(now):
		return t
	case t.Before(now.Add(-maxHoldoutDelay)):
		bad.Add(field, "is more than 5 minutes past")
	}
	return now
}

func (h *Holdout) checkOrder(bad *InvalidError) {
	if !h.EndTime.IsZero() && h.EndTime.Before(h.StartTime) {
		bad.Add("end_time", "is before start_time")
	}
}

// checkSealed refuses what may not change any more: it would move subjects that
// are held out, or make the past another.
func (h *Holdout) checkSealed(next *Holdout, now time.Time) error {
	if !h.EndTime.IsZero() && !h.EndTime.After(now) && !next.EndTime.Equal(h.EndTime) {
		return Errorf(ErrPrecondition, "HOLDOUT_ENDED", "the holdout has ended: end_time cannot change")
	}
	if !h.startedBy(now) {
		return nil
	}
	if fields := h.sealedChanges(next); len(fields) > 0 {
		return Errorf(ErrPrecondition, "HOLDOUT_STARTED", "the holdout has started: %s cannot change", strings.Join(fields, ", "))
	}
	return nil
}

// sealedChanges lists the fields that change of those that the start seals.
func (h *Holdout) sealedChanges(next *Holdout) (fields []string) {
	note := func(changed bool, field string) {
		if changed {
			fields = append(fields, field)
		}
	}
	note(h.Share != next.Share, "share")
	note(h.Salt != next.Salt, "salt")
	note(!maps.Equal(h.Labels, next.Labels), "labels")
	note(h.Kind != next.Kind, "kind")
	note(!h.StartTime.Equal(next.StartTime), "start_time")
	return fields
}
