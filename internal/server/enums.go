package server

import (
	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

// enum pairs the values of an API enum with a noun's.
type enum[P, D comparable] []struct {
	api  P
	noun D
}

// from returns the noun of an API value, or the zero noun.
func (e enum[P, D]) from(p P) (d D) {
	for _, pair := range e {
		if pair.api == p {
			return pair.noun
		}
	}
	return d
}

// to returns the first API value of a noun, or the unspecified one.
func (e enum[P, D]) to(d D) (p P) {
	for _, pair := range e {
		if pair.noun == d {
			return pair.api
		}
	}
	return p
}

var auditedKinds = enum[assayv1.AuditedKind, experiment.AuditedKind]{
	{assayv1.AuditedKind_AUDITED_KIND_EXPERIMENT, experiment.AuditedExperiment},
	{assayv1.AuditedKind_AUDITED_KIND_METRIC, experiment.AuditedMetric},
	{assayv1.AuditedKind_AUDITED_KIND_LAYER, experiment.AuditedLayer},
	{assayv1.AuditedKind_AUDITED_KIND_HOLDOUT, experiment.AuditedHoldout},
	{assayv1.AuditedKind_AUDITED_KIND_SUBJECT, experiment.AuditedSubject},
}

var auditActions = enum[assayv1.AuditAction, experiment.AuditAction]{
	{assayv1.AuditAction_AUDIT_ACTION_CREATE, experiment.AuditCreate},
	{assayv1.AuditAction_AUDIT_ACTION_UPDATE, experiment.AuditUpdate},
	{assayv1.AuditAction_AUDIT_ACTION_START, experiment.AuditStart},
	{assayv1.AuditAction_AUDIT_ACTION_PAUSE, experiment.AuditPause},
	{assayv1.AuditAction_AUDIT_ACTION_RESUME, experiment.AuditResume},
	{assayv1.AuditAction_AUDIT_ACTION_CONCLUDE, experiment.AuditConclude},
	{assayv1.AuditAction_AUDIT_ACTION_ARCHIVE, experiment.AuditArchive},
	{assayv1.AuditAction_AUDIT_ACTION_SET_OVERRIDES, experiment.AuditSetOverrides},
	{assayv1.AuditAction_AUDIT_ACTION_ALLOCATE_ROSTER, experiment.AuditAllocateRoster},
	{assayv1.AuditAction_AUDIT_ACTION_DELETE_ROSTER, experiment.AuditDeleteRoster},
	{assayv1.AuditAction_AUDIT_ACTION_ERASE, experiment.AuditErase},
	{assayv1.AuditAction_AUDIT_ACTION_TAKE_LOOK, experiment.AuditTakeLook},
}

var directions = enum[assayv1.Direction, metric.Direction]{
	{assayv1.Direction_DIRECTION_INCREASE, metric.DirectionIncrease},
	{assayv1.Direction_DIRECTION_DECREASE, metric.DirectionDecrease},
}

var aggregates = enum[assayv1.Aggregate, experiment.Aggregate]{
	{assayv1.Aggregate_AGGREGATE_COUNT, experiment.AggregateCount},
	{assayv1.Aggregate_AGGREGATE_SUM, experiment.AggregateSum},
	{assayv1.Aggregate_AGGREGATE_ANY, experiment.AggregateAny},
	{assayv1.Aggregate_AGGREGATE_MIN, experiment.AggregateMin},
	{assayv1.Aggregate_AGGREGATE_MAX, experiment.AggregateMax},
	{assayv1.Aggregate_AGGREGATE_LAST, experiment.AggregateLast},
	{assayv1.Aggregate_AGGREGATE_DISTINCT_DAYS, experiment.AggregateDistinctDays},
}

var ops = enum[assayv1.Op, experiment.Op]{
	{assayv1.Op_OP_EQUAL, experiment.OpEqual},
	{assayv1.Op_OP_NOT_EQUAL, experiment.OpNotEqual},
	{assayv1.Op_OP_GREATER, experiment.OpGreater},
	{assayv1.Op_OP_GREATER_OR_EQUAL, experiment.OpGreaterOrEqual},
	{assayv1.Op_OP_LESS, experiment.OpLess},
	{assayv1.Op_OP_LESS_OR_EQUAL, experiment.OpLessOrEqual},
}

var states = enum[assayv1.State, experiment.State]{
	{assayv1.State_STATE_DRAFT, experiment.StateDraft},
	{assayv1.State_STATE_RUNNING, experiment.StateRunning},
	{assayv1.State_STATE_PAUSED, experiment.StatePaused},
	{assayv1.State_STATE_CONCLUDED, experiment.StateConcluded},
	{assayv1.State_STATE_ARCHIVED, experiment.StateArchived},
}

var holdoutKinds = enum[assayv1.Holdout_Kind, experiment.HoldoutKind]{
	{assayv1.Holdout_KIND_NO_PERSONALISATION, experiment.HoldoutNoPersonalisation},
	{assayv1.Holdout_KIND_STATUS_QUO, experiment.HoldoutStatusQuo},
}

var runningExperiments = enum[assayv1.RunningExperiments, experiment.RunningExperiments]{
	{assayv1.RunningExperiments_RUNNING_EXPERIMENTS_UNSPECIFIED, experiment.RunningRefuse},
	{assayv1.RunningExperiments_RUNNING_EXPERIMENTS_LEAVE, experiment.RunningLeave},
	{assayv1.RunningExperiments_RUNNING_EXPERIMENTS_NEW_PHASE, experiment.RunningNewPhase},
}

var roles = enum[assayv1.MetricRole, experiment.Role]{
	{assayv1.MetricRole_METRIC_ROLE_PRIMARY, experiment.RolePrimary},
	{assayv1.MetricRole_METRIC_ROLE_SECONDARY, experiment.RoleSecondary},
	{assayv1.MetricRole_METRIC_ROLE_GUARDRAIL, experiment.RoleGuardrail},
}

var objectives = enum[assayv1.Objective, experiment.Objective]{
	{assayv1.Objective_OBJECTIVE_DIFFERENCE, experiment.ObjectiveDifference},
	{assayv1.Objective_OBJECTIVE_SUPERIORITY, experiment.ObjectiveSuperiority},
	{assayv1.Objective_OBJECTIVE_NON_INFERIORITY, experiment.ObjectiveNonInferiority},
	{assayv1.Objective_OBJECTIVE_EQUIVALENCE, experiment.ObjectiveEquivalence},
}

// An unspecified method or correction is the default one.

var methods = enum[assayv1.Method, experiment.Method]{
	{assayv1.Method_METHOD_ALWAYS_VALID, experiment.MethodAlwaysValid},
	{assayv1.Method_METHOD_UNSPECIFIED, experiment.MethodAlwaysValid},
	{assayv1.Method_METHOD_FIXED_HORIZON, experiment.MethodFixedHorizon},
	{assayv1.Method_METHOD_GROUP_SEQUENTIAL, experiment.MethodGroupSequential},
	{assayv1.Method_METHOD_BAYESIAN, experiment.MethodBayesian},
}

var spendings = enum[assayv1.Spending, experiment.Spending]{
	{assayv1.Spending_SPENDING_O_BRIEN_FLEMING, experiment.SpendingOBrienFleming},
	{assayv1.Spending_SPENDING_POCOCK, experiment.SpendingPocock},
}

var corrections = enum[assayv1.Correction, experiment.Correction]{
	{assayv1.Correction_CORRECTION_HOLM, experiment.CorrectionHolm},
	{assayv1.Correction_CORRECTION_UNSPECIFIED, experiment.CorrectionHolm},
	{assayv1.Correction_CORRECTION_BONFERRONI, experiment.CorrectionBonferroni},
	{assayv1.Correction_CORRECTION_BENJAMINI_HOCHBERG, experiment.CorrectionBenjaminiHochberg},
}

var exclusionReasons = enum[assayv1.ExclusionReason, metric.ExclusionReason]{
	{assayv1.ExclusionReason_EXCLUSION_REASON_CROSSOVER, metric.ExclusionCrossover},
	{assayv1.ExclusionReason_EXCLUSION_REASON_OVERRIDDEN, metric.ExclusionOverridden},
	{assayv1.ExclusionReason_EXCLUSION_REASON_UNKNOWN_VARIANT, metric.ExclusionUnknownVariant},
	{assayv1.ExclusionReason_EXCLUSION_REASON_REMOVED_VARIANT, metric.ExclusionRemovedVariant},
	{assayv1.ExclusionReason_EXCLUSION_REASON_OUTCOMES_DROPPED, metric.ExclusionOutcomesDropped},
}

var sampleRatioVerdicts = enum[assayv1.SampleRatioVerdict, metric.SampleRatioVerdict]{
	{assayv1.SampleRatioVerdict_SAMPLE_RATIO_VERDICT_OK, metric.SampleRatioOK},
	{assayv1.SampleRatioVerdict_SAMPLE_RATIO_VERDICT_MISMATCH, metric.SampleRatioMismatch},
	{assayv1.SampleRatioVerdict_SAMPLE_RATIO_VERDICT_TOO_FEW, metric.SampleRatioTooFew},
}

var guardrailVerdicts = enum[assayv1.GuardrailVerdict, metric.GuardrailVerdict]{
	{assayv1.GuardrailVerdict_GUARDRAIL_VERDICT_PASSED, metric.GuardrailPassed},
	{assayv1.GuardrailVerdict_GUARDRAIL_VERDICT_FAILED, metric.GuardrailFailed},
	{assayv1.GuardrailVerdict_GUARDRAIL_VERDICT_UNDECIDED, metric.GuardrailUndecided},
}

var uncountedReasons = enum[assayv1.UncountedReason, metric.UncountedReason]{
	{assayv1.UncountedReason_UNCOUNTED_REASON_OTHER_UNIT, metric.OfOtherUnit},
	{assayv1.UncountedReason_UNCOUNTED_REASON_NEVER_EXPOSED, metric.OfNeverExposed},
	{assayv1.UncountedReason_UNCOUNTED_REASON_SUBJECT_LEFT_OUT, metric.OfLeftOut},
	{assayv1.UncountedReason_UNCOUNTED_REASON_BEFORE_EXPOSURE, metric.BeforeExposure},
	{assayv1.UncountedReason_UNCOUNTED_REASON_AFTER_WINDOW, metric.AfterWindow},
	{assayv1.UncountedReason_UNCOUNTED_REASON_AFTER_CONCLUSION, metric.AfterConclusion},
	{assayv1.UncountedReason_UNCOUNTED_REASON_DURING_PAUSE, metric.DuringPause},
	{assayv1.UncountedReason_UNCOUNTED_REASON_CONDITION_NOT_MET, metric.ConditionNotMet},
	{assayv1.UncountedReason_UNCOUNTED_REASON_WITHOUT_VALUE, metric.WithoutValue},
	{assayv1.UncountedReason_UNCOUNTED_REASON_WINDOW_OPEN, metric.WindowOpen},
	{assayv1.UncountedReason_UNCOUNTED_REASON_NOTHING_TO_CORRECT, metric.NothingToCorrect},
}

var leftOutReasons = enum[assayv1.LeftOutReason, metric.LeftOutReason]{
	{assayv1.LeftOutReason_LEFT_OUT_REASON_NO_OUTCOME, metric.NoOutcome},
	{assayv1.LeftOutReason_LEFT_OUT_REASON_MOVED, metric.Moved},
	{assayv1.LeftOutReason_LEFT_OUT_REASON_NO_VALUE, metric.NoValue},
}

var actions = enum[assayv1.VerdictAction, metric.Action]{
	{assayv1.VerdictAction_VERDICT_ACTION_SHIP, metric.ActionShip},
	{assayv1.VerdictAction_VERDICT_ACTION_KEEP_RUNNING, metric.ActionKeepRunning},
	{assayv1.VerdictAction_VERDICT_ACTION_ROLL_BACK, metric.ActionRollBack},
	{assayv1.VerdictAction_VERDICT_ACTION_INCONCLUSIVE, metric.ActionInconclusive},
}
