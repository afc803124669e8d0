package experiment

import (
	"encoding/json"
	"time"
)

// Definition is what a revision of an experiment freezes. Its JSON form is how
// it is stored; a field that is added later must mean nothing when absent.
type Definition struct {
	Unit         string            `json:"unit"`
	Owner        string            `json:"owner,omitempty"`
	Description  string            `json:"description,omitempty"`
	Hypothesis   Hypothesis        `json:"hypothesis,omitzero"`
	Variants     []Variant         `json:"variants"`
	Eligibility  string            `json:"eligibility,omitempty"` // CEL; empty means everyone.
	Traffic      float64           `json:"traffic"`               // 0 to 1.
	Salt         string            `json:"salt"`
	SplitSalt    string            `json:"split_salt,omitempty"`    // Since a reshuffle; empty means Salt.
	Layer        string            `json:"layer,omitempty"`         // Its key; empty means none.
	External     bool              `json:"external,omitempty"`      // Assigned elsewhere.
	Sticky       bool              `json:"sticky,omitempty"`        // A subject keeps the variant of its first recorded exposure.
	IntakeClosed bool              `json:"intake_closed,omitempty"` // Sticky only: nobody else enters.
	Labels       map[string]string `json:"labels,omitempty"`
	Segments     []string          `json:"segments,omitempty"` // Attribute names.
	Covariates   []Covariate       `json:"covariates,omitempty"`
	Metrics      []MetricUse       `json:"metrics,omitempty"`
	Plan         Plan              `json:"plan"`
}

// Hypothesis is what an experiment is meant to settle.
type Hypothesis struct {
	Statement string `json:"statement,omitempty"`
	Null      string `json:"null,omitempty"`
}

// Variant is one treatment.
type Variant struct {
	Key         string          `json:"key"`
	Control     bool            `json:"control,omitempty"`
	Weight      int32           `json:"weight"`
	Payload     json.RawMessage `json:"payload,omitempty"` // A JSON object.
	Description string          `json:"description,omitempty"`
}

// Covariate is a number per subject known before exposure: an attribute, or
// an aggregate of past outcomes.
type Covariate struct {
	Name      string        `json:"name"`
	Attribute string        `json:"attribute,omitempty"`
	Past      *PastOutcomes `json:"past,omitempty"`
}

// PastOutcomes aggregates the outcomes from Window before exposure up to it.
type PastOutcomes struct {
	Component
	Window time.Duration `json:"window"`
}

// Aggregate says how a subject's outcomes become one number. A subject
// without a matching outcome has 0.
type Aggregate string

// The aggregates.
const (
	AggregateCount        Aggregate = "count"
	AggregateSum          Aggregate = "sum"
	AggregateAny          Aggregate = "any"
	AggregateMin          Aggregate = "min"
	AggregateMax          Aggregate = "max"
	AggregateLast         Aggregate = "last"
	AggregateDistinctDays Aggregate = "distinct_days"
)

// Component is one number per subject: an aggregate of the outcomes of one
// name that meet all conditions.
type Component struct {
	Name       string      `json:"name,omitempty"` // In formulas.
	Outcome    string      `json:"outcome"`
	Aggregate  Aggregate   `json:"aggregate"`
	Conditions []Condition `json:"conditions,omitempty"`
	Cap        *Cap        `json:"cap,omitempty"` // Nil means none. Covariates have none.
}

// Cap bounds a component: smaller numbers are raised to Lower, larger ones
// lowered to Upper. At least one of them is there.
type Cap struct {
	Lower       *Bound `json:"lower,omitempty"`
	Upper       *Bound `json:"upper,omitempty"`
	IgnoreZeros bool   `json:"ignore_zeros,omitempty"` // By percentiles.
}

// ByPercentile says whether some bound is a percentile.
func (c *Cap) ByPercentile() bool {
	return c.Lower != nil && c.Lower.Percentile || c.Upper != nil && c.Upper.Percentile
}

// Bound is a number, or the percentile of all analysed subjects that is to be
// that number.
type Bound struct {
	Value      float64 `json:"value"`
	Percentile bool    `json:"percentile,omitempty"`
}

// Op compares a field of an outcome with values.
type Op string

// The operators.
const (
	OpEqual          Op = "eq"
	OpNotEqual       Op = "ne"
	OpGreater        Op = "gt"
	OpGreaterOrEqual Op = "ge"
	OpLess           Op = "lt"
	OpLessOrEqual    Op = "le"
)

// FieldValue is the Condition.Field that names the outcome's value; every
// other field is a property.
const FieldValue = "value"

// Condition is a test of one field of an outcome.
type Condition struct {
	Field  string   `json:"field"`
	Op     Op       `json:"op"`
	Values []string `json:"values"`
}

// Role says what a metric decides in an experiment.
type Role string

// The roles. A metric that was not planned has none.
const (
	RolePrimary   Role = "primary"
	RoleSecondary Role = "secondary"
	RoleGuardrail Role = "guardrail"
)

// DefaultObjective is what is to be shown of a metric in the role if nothing
// else is said.
func (r Role) DefaultObjective() Objective {
	if r == RoleGuardrail {
		return ObjectiveNonInferiority
	}
	return ObjectiveDifference
}

// Objective is what a comparison is meant to show of a metric, in the direction
// in which it gets better.
type Objective string

// The objectives.
const (
	ObjectiveDifference     Objective = "difference"
	ObjectiveSuperiority    Objective = "superiority"
	ObjectiveNonInferiority Objective = "non_inferiority"
	ObjectiveEquivalence    Objective = "equivalence"
)

// HasMargin says whether the objective is to be shown against a margin.
func (o Objective) HasMargin() bool {
	return o == ObjectiveNonInferiority || o == ObjectiveEquivalence
}

// MetricUse is a metric's place in an experiment.
type MetricUse struct {
	Metric     string     `json:"metric"`
	Role       Role       `json:"role"`
	Objective  Objective  `json:"objective,omitempty"` // Empty means the role's default, and only that.
	Covariates []string   `json:"covariates,omitempty"`
	Margin     *Magnitude `json:"margin,omitempty"` // Of objectives that have one.
}

// Magnitude is the size of an effect, without direction: in the metric's unit,
// or as a share of the control's value.
type Magnitude struct {
	Value    float64 `json:"value"`
	Relative bool    `json:"relative,omitempty"`
}

// Method is how uncertainty is computed.
type Method string

// The methods.
const (
	MethodFixedHorizon Method = "fixed_horizon"
	MethodAlwaysValid  Method = "always_valid"
	// MethodGroupSequential judges at a few looks, which have to be taken.
	MethodGroupSequential Method = "group_sequential"
	// MethodBayesian claims no error rate, and has no p-values.
	MethodBayesian Method = "bayesian"
)

// Spending says how a group-sequential plan spreads its error rate over the
// looks.
type Spending string

// The spendings.
const (
	SpendingOBrienFleming Spending = "obrien_fleming"
	SpendingPocock        Spending = "pocock"
)

// Correction adjusts p-values for the number of comparisons in a family.
type Correction string

// The corrections.
const (
	CorrectionHolm              Correction = "holm"
	CorrectionBonferroni        Correction = "bonferroni"
	CorrectionBenjaminiHochberg Correction = "benjamini_hochberg"
)

// DefaultConfidenceLevel is the confidence level of plans that name none.
const DefaultConfidenceLevel = 0.95

// DefaultSmallestCell is the smallest cell of plans that name none.
const DefaultSmallestCell = 20

// Plan is the analysis decided before the start.
type Plan struct {
	Method          Method     `json:"method"`
	ConfidenceLevel float64    `json:"confidence_level"`
	Correction      Correction `json:"correction"`
	MinimumEffect   *Magnitude `json:"minimum_effect,omitempty"`
	PlannedSubjects int64      `json:"planned_subjects,omitempty"` // Of all arms; 0 means none planned.
	StratifyBy      string     `json:"stratify_by,omitempty"`      // A kept attribute; empty means none.
	Spending        Spending   `json:"spending,omitempty"`         // Group sequential only.
	SmallestCell    *int32     `json:"smallest_cell,omitempty"`    // Nil means the default.
	Prior           *Prior     `json:"prior,omitempty"`            // Bayesian only; nil: all are defaults.
}

// SmallestSegment is the number of subjects below which a variant's part of a
// segment keeps the segment from being shown.
func (p *Plan) SmallestSegment() int64 {
	if p.SmallestCell == nil {
		return DefaultSmallestCell
	}
	return int64(*p.SmallestCell)
}

// Prior is what a Bayesian plan believes before the data: each variant's rate is
// Beta(Alpha, Beta) where the metric is a proportion, and the lift of every other
// metric is normal.
type Prior struct {
	Alpha         float64 `json:"alpha,omitempty"` // 0 means 1; so does that of Beta.
	Beta          float64 `json:"beta,omitempty"`
	LiftMean      float64 `json:"lift_mean,omitempty"`
	LiftDeviation float64 `json:"lift_deviation,omitempty"` // 0: all lifts are alike.
}

// SaltOfSplit returns what salts the split's hash.
func (d *Definition) SaltOfSplit() string {
	if d.SplitSalt != "" {
		return d.SplitSalt
	}
	return d.Salt
}

// Carries says whether the definition has all of the labels.
func (d *Definition) Carries(labels map[string]string) bool {
	for name, want := range labels {
		if have, ok := d.Labels[name]; !ok || have != want {
			return false
		}
	}
	return true
}

// Control returns the index of the control, or -1.
func (d *Definition) Control() int {
	for i := range d.Variants {
		if d.Variants[i].Control {
			return i
		}
	}
	return -1
}

// Variant returns the index of the variant with the key, or -1.
func (d *Definition) Variant(key string) int {
	for i := range d.Variants {
		if d.Variants[i].Key == key {
			return i
		}
	}
	return -1
}

// KeptAttributes lists the names of the attributes that are stored with an
// exposure: those that the definition names as segments or covariates.
func (d *Definition) KeptAttributes() []string {
	names := make([]string, 0, len(d.Segments)+len(d.Covariates))
	names = append(names, d.Segments...)
	for _, c := range d.Covariates {
		if c.Attribute != "" {
			names = append(names, c.Attribute)
		}
	}
	return names
}
