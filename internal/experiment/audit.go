package experiment

import "time"

// AuditEvent tells who did what to a resource.
type AuditEvent struct {
	ID      int64 // In the order of writing.
	Time    time.Time
	Author  string // As the caller named itself; empty if it did not.
	Action  AuditAction
	Kind    AuditedKind
	Key     string         // The resource's; the id of a subject.
	Details map[string]any // As JSON has them; nil for none.
}

// AuditAction is what was done. The value is how it is stored.
type AuditAction string

// The actions.
const (
	AuditCreate         AuditAction = "create"
	AuditUpdate         AuditAction = "update"
	AuditStart          AuditAction = "start"
	AuditPause          AuditAction = "pause"
	AuditResume         AuditAction = "resume"
	AuditConclude       AuditAction = "conclude"
	AuditArchive        AuditAction = "archive"
	AuditSetOverrides   AuditAction = "set_overrides"
	AuditAllocateRoster AuditAction = "allocate_roster"
	AuditDeleteRoster   AuditAction = "delete_roster"
	AuditErase          AuditAction = "erase"
	AuditTakeLook       AuditAction = "take_look"
)

// AuditedKind is a kind of resource. The value is how it is stored.
type AuditedKind string

// The kinds.
const (
	AuditedExperiment AuditedKind = "experiment"
	AuditedMetric     AuditedKind = "metric"
	AuditedLayer      AuditedKind = "layer"
	AuditedHoldout    AuditedKind = "holdout"
	AuditedSubject    AuditedKind = "subject"
)

// AuditOf is what an experiment's change from one state to another is called.
func AuditOf(from, to State) AuditAction {
	switch to {
	case StatePaused:
		return AuditPause
	case StateConcluded:
		return AuditConclude
	case StateArchived:
		return AuditArchive
	}
	if from == StatePaused {
		return AuditResume
	}
	return AuditStart
}
