package metric

import "github.com/assayhq/assay/internal/experiment"

// Analysis is what is known of an experiment at some moment. A number that is
// undefined is nil, and a note beside it says why.
type Analysis struct {
	SampleRatio SampleRatio
	Exclusions  Exclusions
	Metrics     []Result // Primary, secondary, guardrails, then exploratory ones.
	Verdict     Verdict
	Warnings    []string // What a reader must know before trusting the figures.
	Deviations  []experiment.Deviation
}

// SampleRatio is the test for a sample-ratio mismatch.
type SampleRatio struct {
	Observed map[string]int64   // By variant.
	Expected map[string]float64 // By variant.
	PValue   *float64
	Verdict  SampleRatioVerdict
}

// SampleRatioVerdict judges a sample ratio.
type SampleRatioVerdict string

// The verdicts on a sample ratio.
const (
	SampleRatioOK       SampleRatioVerdict = "ok"
	SampleRatioMismatch SampleRatioVerdict = "mismatch"
	SampleRatioTooFew   SampleRatioVerdict = "too_few"
)

// Exclusions counts the subjects that were exposed and not analysed.
type Exclusions struct {
	Crossovers int64
	Overridden int64
}

// Result is one metric's part of an analysis.
type Result struct {
	Metric           string
	Revision         int32
	Role             experiment.Role // Empty if it was not planned.
	Objective        experiment.Objective
	Margin           *experiment.Magnitude // Of the objective; nil if it has none.
	Confirmatory     bool
	PeekingProtected bool
	OpenWindows      int64 // Subjects whose window is still open; not counted yet.
	Arms             []Arm
	Comparisons      []Comparison
	Segments         []Segment
}

// Segment is a metric among the subjects with one value of an attribute.
type Segment struct {
	Attribute   string
	Value       string // Empty for subjects that lack it.
	Arms        []Arm
	Comparisons []Comparison
}

// Arm is one variant's figures, unadjusted.
type Arm struct {
	Variant       string
	Subjects      int64
	Mean          *float64
	StandardError *float64
	Total         *float64 // Mean × subjects; nil for metrics that are not means.
	Notes         []string
}

// Interval is an estimate with its bounds.
type Interval struct {
	Estimate, Lower, Upper *float64
}

// Comparison is one variant against the control.
type Comparison struct {
	Variant          string
	Baseline         string
	Difference       Interval
	Lift             Interval // Difference over the size of the control's value.
	StandardError    *float64 // Of the difference.
	Statistic        *float64
	DegreesOfFreedom *float64
	PValue           *float64 // Of the moment, or of Earlier.
	Earlier          *Earlier // Nil unless an earlier p-value counts, as it is smaller.
	AdjustedPValue   *float64 // Within its family; nil where no correction applies.
	Significant      bool
	// Opposed says that the opposite of a one-sided objective was shown, at the
	// plan's level and not corrected: see verdict.
	Opposed bool
	// VarianceReduction is the share of the difference's variance that the
	// covariates removed.
	VarianceReduction *float64
	Unadjusted        *Comparison // Without covariates; nil where none was used.
	Guardrail         GuardrailVerdict
	Notes             []string
}

// GuardrailVerdict says whether a variant keeps within a guardrail's margin.
// It is empty for metrics that are not guardrails.
type GuardrailVerdict string

// The verdicts on a guardrail.
const (
	GuardrailPassed    GuardrailVerdict = "passed"
	GuardrailFailed    GuardrailVerdict = "failed"
	GuardrailUndecided GuardrailVerdict = "undecided"
)

// Action is what to do.
type Action string

// The actions.
const (
	ActionShip         Action = "ship"
	ActionKeepRunning  Action = "keep_running"
	ActionRollBack     Action = "roll_back"
	ActionInconclusive Action = "inconclusive"
)

// Verdict is what the plan says to do.
type Verdict struct {
	Action  Action
	Variant string   // The one to ship; empty unless ActionShip.
	Reasons []string // One sentence each.
}
