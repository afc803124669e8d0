package metric

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// contest is one metric's arms and the rule that judges them. An analysis and a
// caller's summaries both come to this, so that there is one way to a figure.
type contest struct {
	expression *Expression
	variants   []string
	control    int
	arms       []stats.Arm
	// names has the name of each component in notes, at the start of a
	// sentence.
	names      []string
	covariates []int
	proportion bool // Of subjects: each has 0 or 1.
	guardrail  bool // The interval is held against a guardrail's margin.
	test       stats.Test
	margin     stats.Margin
	pause      func() error // Of stats.Request.
}

// compare returns the figures of every arm, and a comparison with the control
// of every other, in order. No p-value of theirs is corrected yet.
func (c *contest) compare() ([]Arm, []Comparison, error) {
	result, err := stats.Compare(stats.Request{
		Formula: c.expression.Evaluate, Covariates: c.covariates, Proportion: c.proportion,
		Arms: c.arms, Control: c.control, Test: c.test, Margin: c.margin, Guardrail: c.guardrail,
		Informative: c.expression.informative, NonNegative: c.expression.nonNegative(), Divisors: c.expression.divisors,
		Pause: c.pause,
	})
	if err != nil {
		return nil, nil, err
	}
	arms := make([]Arm, len(result.Arms))
	for i, a := range result.Arms {
		arms[i] = Arm{Variant: c.variants[i], Subjects: a.Subjects, Mean: a.Value, StandardError: a.StandardError}
		if component, ok := c.expression.mean(); ok {
			arms[i].Total = a.Totals[component]
		}
		arms[i].Informative = c.informativeSubjects(i)
		if a.Note != "" {
			arms[i].Notes = []string{a.Note}
		}
	}
	comparisons := make([]Comparison, len(result.Comparisons))
	for i, pair := range result.Comparisons {
		plain := c.comparison(pair.Arm, &pair.Unadjusted)
		if pair.Adjusted == nil {
			comparisons[i] = plain
			continue
		}
		comparisons[i] = c.comparison(pair.Arm, pair.Adjusted)
		comparisons[i].VarianceReduction = pair.VarianceReduction
		comparisons[i].Unadjusted = &plain
	}
	for i, pair := range result.Comparisons {
		if note := c.unlikeArms(&comparisons[i], &arms[pair.Arm], &arms[c.control]); note != "" {
			comparisons[i].Notes = append(comparisons[i].Notes, note)
		}
	}
	return arms, comparisons, nil
}

// unlikeArms says why the difference of the arms as they are is not that of the
// comparison, where a reader would stumble over it: it has the other sign, or lies
// outside the interval (Simpson 1951, The interpretation of interaction in contingency
// tables). Empty if it does not, or if nothing lies between them.
func (c *contest) unlikeArms(of *Comparison, treatment, control *Arm) string {
	how := ""
	switch stratified := c.strata() > 1; {
	case stratified && of.Unadjusted != nil:
		how = "within each phase and stratum, adjusted by covariates"
	case stratified:
		how = "within each phase and stratum"
	case of.Unadjusted != nil:
		how = "adjusted by covariates"
	}
	interval := &of.Difference
	if how == "" || interval.Estimate == nil || treatment.Mean == nil || control.Mean == nil {
		return ""
	}
	raw := *treatment.Mean - *control.Mean
	rough := 1e-9 * max(math.Abs(*treatment.Mean), math.Abs(*control.Mean))
	turned := raw**interval.Estimate < 0 && math.Abs(raw-*interval.Estimate) > rough
	outside := interval.Lower != nil && raw < *interval.Lower-rough || interval.Upper != nil && raw > *interval.Upper+rough
	switch {
	case turned:
		return fmt.Sprintf("The arms differ by %+.6g as they are, to the other side: the comparison is %s.", raw, how)
	case outside:
		return fmt.Sprintf("The arms differ by %+.6g as they are, outside the interval: the comparison is %s.", raw, how)
	}
	return ""
}

// strata is how many strata have subjects.
func (c *contest) strata() (n int) {
	for s := range c.arms[c.control].Strata {
		if slices.ContainsFunc(c.arms, func(a stats.Arm) bool { return s < len(a.Strata) && a.Strata[s].N > 0 }) {
			n++
		}
	}
	return n
}

// comparison is one comparison in this package's terms. Its significance is
// that of the plain p-value.
func (c *contest) comparison(arm int, from *stats.Comparison) Comparison {
	out := Comparison{
		Variant:       c.variants[arm],
		Baseline:      c.variants[c.control],
		Difference:    intervalOf(&from.Difference),
		Lift:          intervalOf(&from.Lift),
		StandardError: from.Difference.StandardError,
		Statistic:     from.Statistic,
		PValue:        from.PValue,
		Boundary:      from.Boundary,
		ChanceToWin:   from.ChanceToWin,
		ExpectedLoss:  from.ExpectedLoss,
		Subjects:      from.Subjects,
		Skewness:      from.Skewness,
	}
	if from.Difference.Estimate != nil {
		out.Observed, out.Degrees = from.Observed, from.Degrees
	}
	out.DegreesOfFreedom = from.Difference.DegreesOfFreedom
	if c.margin.Scale == stats.Relative {
		out.DegreesOfFreedom = from.Lift.DegreesOfFreedom
	}
	for _, note := range from.Notes {
		out.Notes = append(out.Notes, c.rename(note))
	}
	out.Significant, out.Opposed = c.significant(from.PValue), c.significant(from.Opposite)
	if c.test.Method == stats.Bayesian {
		out.DegreesOfFreedom = nil // The posterior is normal.
		out.Significant = c.excludesMargin(&out)
		out.Opposed = c.test.Alternative != stats.TwoSided && c.significant(from.ChanceToWin)
	}
	return out
}

func intervalOf(e *stats.Effect) Interval {
	return Interval{e.Estimate, e.Lower, e.Upper, e.Unbounded}
}

// rename puts the name of a component in the place of its number, which means
// nothing to a reader.
func (c *contest) rename(note string) string {
	for i, name := range c.names {
		if rest, ok := strings.CutPrefix(note, fmt.Sprintf("Component %d ", i)); ok {
			return name + " " + rest
		}
	}
	return note
}

func (c *contest) significant(p *float64) bool {
	return p != nil && *p <= 1-c.test.ConfidenceLevel
}

// excludesMargin tells whether an interval speaks for the alternative: it leaves
// out what is tested against, or lies within the margins.
func (c *contest) excludesMargin(of *Comparison) bool {
	interval, margin := of.Difference, c.margin.Value
	if c.margin.Scale == stats.Relative {
		interval = of.Lift
	}
	lower, upper := interval.Lower, interval.Upper
	if c.test.Alternative == stats.Equivalent {
		return lower != nil && upper != nil && *lower >= -margin && *upper <= margin
	}
	return lower != nil && *lower >= margin || upper != nil && *upper <= margin
}

// test is the plan's rule for one comparison. part is the share of the plan's
// subjects that are expected in the two arms of a comparison, since the plan
// counts all arms and a test counts two.
func test(plan *experiment.Plan, part float64, alternative stats.Alternative) (stats.Test, error) {
	planned := plan.PlannedSubjects
	if planned == 0 {
		planned = stats.DefaultPlannedSubjects
	}
	t := stats.Test{
		ConfidenceLevel: plan.ConfidenceLevel,
		PlannedSubjects: max(1, int64(math.Round(float64(planned)*part))),
		Alternative:     alternative,
	}
	switch plan.Method {
	case experiment.MethodFixedHorizon:
		t.Method = stats.FixedHorizon
	case experiment.MethodAlwaysValid:
		t.Method = stats.AlwaysValid
	case experiment.MethodGroupSequential:
		t.Method = stats.GroupSequential
	case experiment.MethodBayesian:
		t.Method = stats.Bayesian
		if plan.Prior != nil {
			t.Prior = stats.Prior(*plan.Prior)
		}
		t.Prior.Alpha, t.Prior.Beta = cmp.Or(t.Prior.Alpha, 1), cmp.Or(t.Prior.Beta, 1)
	default:
		return t, fmt.Errorf("method %q is not known", plan.Method)
	}
	return t, nil
}

// holm corrects the p-values of one family of tests by Holm, whatever the plan's
// correction is. fields returns a test's p-value, and where the corrected one
// goes.
func holm[T any](family []T, fields func(*T) (p *float64, adjusted **float64)) error {
	p := make([]*float64, len(family))
	for i := range family {
		p[i], _ = fields(&family[i])
	}
	corrected, err := stats.Holm.Adjust(p)
	if err != nil {
		return err
	}
	for i := range family {
		_, adjusted := fields(&family[i])
		*adjusted = corrected[i]
	}
	return nil
}
