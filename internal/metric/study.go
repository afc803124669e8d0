package metric

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// Use is a metric's place in an analysis. One without a role was not planned:
// it is exploratory.
type Use struct {
	Metric     Metric // At the revision to be used: the pinned one if there is one.
	Role       experiment.Role
	Objective  experiment.Objective  // Empty means the role's default.
	Covariates []string              // Names of the experiment's covariates.
	Margin     *experiment.Magnitude // Of objectives that have one.
}

// Column is one number per subject that a query must fetch.
type Column struct {
	Component experiment.Component // Without a name and a cap.
	// Window is how long after first exposure an outcome counts: from the first
	// exposure (inclusive) to first exposure + Window (exclusive). 0 means
	// without an end.
	Window time.Duration
	// Start moves the start of the window, and not its end: from first exposure +
	// Start (inclusive).
	Start time.Duration
	// Valued says that outcomes without a value do not count.
	Valued bool
	// Before, if positive, moves the window ahead of the exposure: from first
	// exposure − Before (inclusive) to the first exposure (exclusive).
	Before time.Duration
}

// Optional says that a subject may have no such number: one without a matching
// outcome has no smallest, largest or last value. All other aggregates are then 0.
func (c *Column) Optional() bool { return optional(c.Component.Aggregate) }

func optional(a experiment.Aggregate) bool {
	switch a {
	case experiment.AggregateMin, experiment.AggregateMax, experiment.AggregateLast:
		return true
	}
	return false
}

// Study is an experiment with the metrics and segments of one analysis,
// compiled. It is immutable.
type Study struct {
	definition *experiment.Definition
	sealed     []experiment.Variant // When the plan was sealed.
	control    int
	metrics    []compiled
	columns    []Column
	attributes []string
	segments   []string
	counted    []string // The plan's other segments, of which subjects are counted alone.
	deferred   []int    // The metrics with a percentile among their caps.
	earlier    time.Time
	conduct    Conduct
	accounted  int  // Of how many metrics, from the first on, outcomes are accounted for.
	aliveOnly  bool // It matters only whether names are alive.
	daily      bool // Each day is told, and no segment.
	looks      looks
	pause      func() error // Nil: none.
}

// compiled is one metric of a study.
type compiled struct {
	Use
	expression *Expression
	meanCounts []bool // By component of the formula: see [Definition.meanCounts].
	// sources are the components of the metric's moments: those of the formula
	// first, then those of the covariates.
	sources    []source
	covariates []covariate
	caps       []componentCap
	entry      entry
}

// source says where one component of a metric comes from.
type source struct {
	kind  sourceKind
	index int // Into Row.Values or Row.AttributeNumbers.
}

type sourceKind uint8

const (
	fromValue     sourceKind = iota // A column. Whoever lacks it does not count for the metric.
	fromAttribute                   // An attribute, 0 where it is missing.
	fromMissing                     // 1 where the attribute is missing, else 0.
	fromPast                        // An optional column, 0 where it is missing.
	fromNoPast                      // 1 where that column is missing, else 0.
)

// covariate is a covariate of a metric, as components of its moments.
type covariate struct {
	name    string
	value   int
	missing int // The indicator's component, or −1 if none can be missing.
}

// NewStudy compiles an analysis of the metrics by the segments, each of them an
// attribute that the definition keeps with exposures. sealed is the variants
// with which the plan was sealed. A metric without a role that is in use already
// is left out. A fault of the segments is an InvalidError by the fields of an
// analysis request.
func NewStudy(d *experiment.Definition, sealed []experiment.Variant, uses []Use, segments []string) (*Study, error) {
	s := &Study{definition: d, sealed: sealed, control: d.Control(), segments: segments}
	if s.control < 0 {
		return nil, errors.New("the definition has no control")
	}
	for i, name := range segments {
		if !slices.Contains(d.KeptAttributes(), name) {
			return nil, experiment.Invalid(fmt.Sprintf("segments[%d]", i), "the experiment keeps no attribute %q with exposures", name)
		}
		if slices.Contains(segments[:i], name) {
			return nil, experiment.Invalid(fmt.Sprintf("segments[%d]", i), "%q is listed twice", name)
		}
	}
	c := compiler{Study: s, seen: map[string]int{}}
	for _, use := range inOrder(uses) {
		window := use.Metric.Definition.Window
		dated := d.Plan.Method == experiment.MethodAlwaysValid && window > 0
		if err := c.add(use, span{end: window}, entry{closes: window, dated: dated}); err != nil {
			return nil, err
		}
	}
	s.accounted = len(s.metrics)
	return s, nil
}

// span is a stretch of time after first exposure: from start, inclusive, to
// end, exclusive. An end of 0 means none.
type span struct{ start, end time.Duration }

// Columns are the numbers to fetch for each subject, in the order of
// Row.Values.
func (s *Study) Columns() []Column { return s.columns }

// Attributes are the names of the attributes that are read as numbers, in the
// order of Row.AttributeNumbers.
func (s *Study) Attributes() []string { return s.attributes }

// Segments are the names of the attributes by which results are cut, and then of those
// by which subjects are counted alone, in the order of Row.Segments.
func (s *Study) Segments() []string { return slices.Concat(s.segments, s.counted) }

// CountingSegments returns the study that counts the subjects of all of the plan's
// segments, also of those by which results are not cut: the verdict on the sample
// ratio must not depend on what is asked for.
func (s *Study) CountingSegments() *Study {
	counting := *s
	counting.counted = nil
	for _, name := range s.definition.Segments {
		if !slices.Contains(s.segments, name) {
			counting.counted = append(counting.counted, name)
		}
	}
	return &counting
}

// Pausing returns the study whose comparisons call pause between their steps. An error
// of it ends them, and [Study.Analyze] and its like return it.
func (s *Study) Pausing(pause func() error) *Study {
	pausing := *s
	pausing.pause = pause
	return &pausing
}

// Stratum is the name of the attribute that becomes Row.Stratum; empty for
// none.
func (s *Study) Stratum() string { return s.definition.Plan.StratifyBy }

// Since returns the study with an earlier moment, as of which a fold can tell who
// counted already.
func (s *Study) Since(earlier time.Time) *Study {
	since := *s
	since.earlier = earlier
	return &since
}

// Earlier is the moment that [Study.Since] gave; zero for none.
func (s *Study) Earlier() time.Time { return s.earlier }

// inOrder sorts uses as an analysis shows them, and drops unplanned repeats.
func inOrder(uses []Use) []Use {
	roles := []experiment.Role{experiment.RolePrimary, experiment.RoleSecondary, experiment.RoleGuardrail, ""}
	var sorted []Use
	seen := map[string]bool{}
	for _, role := range roles {
		for _, use := range uses {
			if use.Role != role || role == "" && seen[use.Metric.Key] {
				continue
			}
			seen[use.Metric.Key] = true
			sorted = append(sorted, use)
		}
	}
	return sorted
}

// compiler adds metrics to a study; seen holds its columns by their JSON form.
type compiler struct {
	*Study
	seen map[string]int
}

// add adds a metric of the outcomes in a span. Caps are of a subject's number in
// the whole window.
func (c *compiler) add(use Use, counted span, entry entry) error {
	d := &use.Metric.Definition
	expression, err := d.Parse()
	if err != nil {
		return fmt.Errorf("metric %q: stored expression %q%v", use.Metric.Key, d.Expression, err) // Not the caller's fault, so not wrapped.
	}
	use.Objective = cmp.Or(use.Objective, use.Role.DefaultObjective())
	m := compiled{Use: use, expression: expression, meanCounts: d.meanCounts(expression), entry: entry}
	for i, component := range d.Components {
		column := c.column(Column{Component: component, Start: counted.start, Window: counted.end, Valued: m.meanCounts[i]})
		m.sources = append(m.sources, source{fromValue, column})
		if component.Cap != nil && counted == (span{end: d.Window}) {
			m.caps = append(m.caps, componentCap{i, component.Cap})
			m.entry.deferred = m.entry.deferred || component.Cap.ByPercentile()
		}
	}
	for _, name := range use.Covariates {
		i := slices.IndexFunc(c.definition.Covariates, func(v experiment.Covariate) bool { return v.Name == name })
		if i < 0 {
			return fmt.Errorf("metric %q: the experiment has no covariate %q", use.Metric.Key, name)
		}
		c.covariate(&m, &c.definition.Covariates[i])
	}
	if m.entry.deferred {
		c.deferred = append(c.deferred, len(c.metrics))
	}
	c.metrics = append(c.metrics, m)
	return nil
}

// covariate adds a covariate to a metric. One that may be missing, as an attribute
// may and the last of no outcomes, becomes two components: its number, 0 where it is
// missing, and an indicator of being missing. A regression on both fits what a
// regression on the number with the mean in place of what is missing, and the
// indicator, fits: the two pairs span the same space. So the mean need not be known
// while rows are read.
func (c *compiler) covariate(m *compiled, v *experiment.Covariate) {
	at := len(m.sources)
	if v.Past != nil {
		column := c.column(Column{Component: v.Past.Component, Before: v.Past.Window})
		if !c.columns[column].Optional() {
			m.sources = append(m.sources, source{fromValue, column})
			m.covariates = append(m.covariates, covariate{v.Name, at, -1})
			return
		}
		m.sources = append(m.sources, source{fromPast, column}, source{fromNoPast, column})
		m.covariates = append(m.covariates, covariate{v.Name, at, at + 1})
		return
	}
	attribute := slices.Index(c.attributes, v.Attribute)
	if attribute < 0 {
		attribute = len(c.attributes)
		c.attributes = append(c.attributes, v.Attribute)
	}
	m.sources = append(m.sources, source{fromAttribute, attribute}, source{fromMissing, attribute})
	m.covariates = append(m.covariates, covariate{v.Name, at, at + 1})
}

// column returns the index of a column, which it adds if it is new. To the query
// a component is the same whatever its cap.
func (c *compiler) column(column Column) int {
	column.Component.Name, column.Component.Cap = "", nil
	key, err := json.Marshal(column)
	if err != nil {
		panic(fmt.Sprintf("metric: a column without JSON form: %v", err)) // Its types all have one.
	}
	if i, ok := c.seen[string(key)]; ok {
		return i
	}
	c.seen[string(key)] = len(c.columns)
	c.columns = append(c.columns, column)
	return len(c.columns) - 1
}
