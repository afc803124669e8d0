package metric

import (
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// MethodVersion is the version of the statistical methods by which analyses are made.
// It grows when the same data give other figures or verdicts; stored analyses keep
// theirs.
//
//   - 1, which the first stored analyses do not name: lifts by the delta method,
//     Welch's variance alone, always-valid p-values the smallest of any day,
//     heterogeneity by the chi-square distribution.
//   - 2: lifts by Fieller, guards that count informative subjects, rates in one
//     stratum at a fixed horizon and at looks by Miettinen and Nurminen, p-values of
//     the moment, heterogeneity in Welch's form, intervals of families, missing numbers
//     that are not zero, counting that ends with the conclusion, subjects that a phase
//     moved in strata of their own, no verdict where variants differ in who has a value.
const MethodVersion = 2

// Analysis is what is known of an experiment at some moment. A number that is
// undefined is nil, and a note beside it says why.
type Analysis struct {
	SampleRatio SampleRatio
	Exclusions  Exclusions
	Metrics     []Result // Primary, secondary, guardrails, then exploratory ones.
	Balance     []Balance
	Verdict     Verdict
	Doubts      []string // For which there is no verdict, beside a broken sample ratio.
	Look        *Look    // The group-sequential look that it takes; nil for none.
	// CountingEnd is when counting had ended; zero if it had not.
	CountingEnd time.Time
	// Pauses counts those that had begun before the end of what counts, and
	// PausedShare is the largest of the metrics'.
	Pauses      int
	PausedShare float64
	Warnings    []string // What a reader must know before trusting the figures.
	Deviations  []experiment.Deviation
}

// SampleRatio is the test for a sample-ratio mismatch.
type SampleRatio struct {
	Observed map[string]int64   // By variant.
	Expected map[string]float64 // By variant.
	PValue   *float64           // Of the chi-square test.
	Verdict  SampleRatioVerdict
	// SequentialPValue is the smallest of the sequential test so far.
	SequentialPValue *float64
	BrokenCells      []SampleRatioCell // Worst first, unplanned ones last.
	Notes            []string
}

// SampleRatioCell is the sample ratio in a part of the subjects.
type SampleRatioCell struct {
	Attribute      string // Empty for a day.
	Value          string // Of the segment, or the UTC day of first exposure.
	Observed       map[string]int64
	Expected       map[string]float64
	PValue         *float64
	AdjustedPValue *float64 // Over all cells that were tested and of which the same holds.
	Unplanned      bool     // The plan does not name its segment: no verdict rests on it.
	Notes          []string
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
	ByReason   []Exclusion
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
	Window           time.Duration // After first exposure; 0 for none.
	OpenWindows      int64         // Subjects whose window is still open, or was when counting ended; not counted.
	PausedShare      float64       // Of the follow-up of the subjects that count: the part in pauses.
	Arms             []Arm
	Comparisons      []Comparison
	Segments         []Segment
	Heterogeneity    []Heterogeneity
	Drift            []Heterogeneity // Between the weeks of entry, by variant; none of one week, or where days are not told apart.
	Caps             []Cap
	LeftOut          []LeftOut
	Outcomes         []OutcomeUse
	WithoutData      bool // Nobody has outcomes of one of its names: nothing is decided by it.
}

// Segment is a metric among the subjects with one value of an attribute.
type Segment struct {
	Attribute   string
	Value       string // Empty for subjects that lack it.
	Rest        bool   // It is all values but those that are shown.
	Arms        []Arm
	Comparisons []Comparison
	Withheld    bool // It has too few subjects, or would tell of those that have: there are no figures.
}

// Heterogeneity says whether a variant's effect differs between the values of a
// segment.
type Heterogeneity struct {
	Attribute, Variant string
	Statistic          *float64 // Cochran's Q.
	DegreesOfFreedom   int
	Denominator        *float64 // Welch's degrees of freedom; nil without a test.
	PValue             *float64
	AdjustedPValue     *float64 // Over all such tests of the metric.
	Inconsistency      *float64 // I².
	Notes              []string
}

// Cap is what a cap did to a component.
type Cap struct {
	CapTally
	Constant bool // It made the component the same for every subject.
	Notes    []string
}

// Balance compares a covariate of a variant with the control's.
type Balance struct {
	Covariate, Variant     string
	Missing                bool // What is compared is the share of subjects that lack it.
	StandardizedDifference *float64
	PValue                 *float64
	AdjustedPValue         *float64 // Over all covariates and variants.
	Notes                  []string
}

// Arm is one variant's figures, unadjusted.
type Arm struct {
	Variant       string
	Subjects      int64
	Mean          *float64
	StandardError *float64
	Total         *float64 // Mean × subjects; nil for metrics that are not means.
	Informative   *int64   // Subjects that inform the formula; nil if that is not known.
	LargestShare  *float64 // That one subject has in the sum; only of all subjects of a variant.
	Notes         []string
}

// Interval is an estimate with its bounds.
type Interval struct {
	Estimate, Lower, Upper *float64
	// Unbounded says that it reaches to infinity on a side on which the test has a
	// bound.
	Unbounded bool
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
	PValue           *float64
	Smallest         *Smallest // Of all days; nil where days are not told apart.
	AdjustedPValue   *float64  // Within its family; nil where no correction applies.
	Significant      bool
	// AdjustedDifference and AdjustedLift are the intervals of the family, at the
	// error rate AdjustedRate; empty, and 0, where no correction applies.
	AdjustedDifference, AdjustedLift Interval
	AdjustedRate                     float64
	Boundary                         *float64 // Of the statistic's size; only at a group-sequential look.
	// Opposed says that the opposite of a one-sided objective was shown, at the
	// plan's level and not corrected: see verdict.
	Opposed bool
	// ChanceToWin is the posterior probability of what the objective is to show,
	// or for a difference that the variant is better, and ExpectedLoss what is lost
	// by the variant on average, in the metric's unit. Bayesian only.
	ChanceToWin, ExpectedLoss *float64
	Observed                  *float64 // The difference in the data, which a prior does not move.
	Degrees                   *float64 // Of StandardError, whatever the method makes of them.
	// Subjects counts those of both variants, and Skewness is how much of their
	// skewness the difference has: see stats.Comparison.
	Subjects int64
	Skewness float64
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
	Ended   bool     // It would be to keep running, had counting not ended.
}
