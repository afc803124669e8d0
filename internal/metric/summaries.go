package metric

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// Summaries are aggregates that a caller brings, and how to compare them.
type Summaries struct {
	Components  []string // Names, in the order of the means.
	Formula     string   // Empty means the first component.
	Covariates  []string // The components that reduce variance.
	Arms        []SummaryArm
	Plan        experiment.Plan // With its defaults.
	Alternative stats.Alternative
	Margin      stats.Margin
	Looks       []float64 // Information times of a group-sequential plan, the present one last.
	// Pause is called between the steps of the comparison; an error of it ends that,
	// and is returned. May be nil.
	Pause func() error
}

// SummaryArm is one variant's aggregates.
type SummaryArm struct {
	Variant string
	Control bool
	Weight  *float64         // In the split; nil if it is not known.
	Strata  []SummaryStratum // The same ones in every arm, in any order.
}

// SummaryResult is what can be told from aggregates.
type SummaryResult struct {
	Arms          []Arm
	Comparisons   []Comparison
	SampleRatio   *SampleRatio // Nil if some arm has no weight.
	Balance       []Balance
	Heterogeneity []Heterogeneity // Between strata; the attribute is empty.
}

// SummaryStratum is the aggregates of one stratum of an arm.
type SummaryStratum struct {
	Name     string
	Subjects int64
	Means    []float64
	// Covariances is the upper triangle, row by row, of the sample covariance
	// matrix.
	Covariances []float64
	// NonZero and Negative count for each component the subjects whose number is not
	// 0, and those whose number is below 0; empty if that is not known.
	NonZero, Negative []int64
}

// Compare compares the arms as Analyze would: they form one family, corrected
// by the plan. Faults are an InvalidError by the fields of the API's request.
func (s *Summaries) Compare() (*SummaryResult, error) {
	var bad experiment.InvalidError
	c := contest{control: -1, margin: s.Margin, proportion: s.ofRate(), pause: s.Pause}
	s.readFormula(&c, &bad)
	if err := s.readArms(&c, &bad); err != nil {
		return nil, err
	}
	s.readTest(&c, &bad)
	s.checkProportion(c.expression, &bad)
	if err := bad.Err(); err != nil {
		return nil, err
	}
	// Bayesian has another prior for a rate, which the caller asks for by naming it.
	c.proportion = c.proportion || c.test.Method != stats.Bayesian && c.isRate()
	var result SummaryResult
	var err error
	if result.Arms, result.Comparisons, err = c.compare(); err == nil {
		err = s.guard(&c, &result)
	}
	if err != nil {
		if err := addFaults(&bad, "", err); err != nil {
			return nil, err
		}
		return nil, bad.Err()
	}
	if err := correct(&s.Plan, appendPointers(nil, result.Comparisons), len(result.Comparisons)); err != nil {
		return nil, experiment.Invalid("plan.correction", "%s", err)
	}
	return &result, widen(result.Comparisons, func(rate float64) ([]Comparison, error) {
		c.test.IntervalRate = rate
		_, comparisons, err := c.compare()
		return comparisons, err
	})
}

// guard tests what the comparison rests on: the split, the balance of the
// covariates, and that the effect is one effect in all strata.
func (s *Summaries) guard(c *contest, r *SummaryResult) error {
	if err := s.checkRatio(r); err != nil {
		return err
	}
	for i, component := range c.covariates {
		found, err := checkBalance(covariate{s.Covariates[i], component, -1}, c.arms, c.control, c.variants)
		if err != nil {
			return err
		}
		r.Balance = append(r.Balance, found...)
	}
	if err := correctBalance(r.Balance); err != nil {
		return err
	}
	if len(c.arms[0].Strata) < 2 {
		return nil
	}
	effects, dropped := make([][]stats.Effect, len(r.Comparisons)), 0
	for j := range c.arms[0].Strata {
		stratum := *c
		stratum.arms = make([]stats.Arm, len(c.arms))
		for i := range c.arms {
			stratum.arms[i].Strata = c.arms[i].Strata[j : j+1]
		}
		arms, comparisons, err := stratum.compare()
		if err != nil {
			return err
		}
		// A caller's strata are no segments that someone might read by mistake, so that
		// only a smallest cell that was asked for leaves some out.
		if s.Plan.SmallestCell != nil && tooSmall(arms, s.Plan.SmallestSegment()) {
			dropped++
			continue
		}
		for k := range comparisons {
			effects[k] = append(effects[k], comparisons[k].effect())
		}
	}
	for k := range effects {
		h := heterogeneity("", r.Comparisons[k].Variant, effects[k])
		if dropped > 0 {
			h.Notes = append(h.Notes, fmt.Sprintf("%d of %d strata do not count: some arm has fewer subjects there than the plan's smallest cell, %d.", dropped, len(c.arms[0].Strata), s.Plan.SmallestSegment()))
		}
		r.Heterogeneity = append(r.Heterogeneity, h)
	}
	return correctHeterogeneity(r.Heterogeneity)
}

// checkRatio tests the sample ratio, if every arm has a weight.
func (s *Summaries) checkRatio(r *SummaryResult) error {
	t := Tally{Phases: []int32{0}, Subjects: [][]int64{nil}}
	var weights []float64
	for i := range s.Arms {
		if s.Arms[i].Weight == nil {
			return nil
		}
		weights = append(weights, *s.Arms[i].Weight)
		t.Variants = append(t.Variants, s.Arms[i].Variant)
		t.Subjects[0] = append(t.Subjects[0], r.Arms[i].Subjects)
	}
	ratio, err := sampleRatio(&t, nil, map[int32][]float64{0: weights})
	r.SampleRatio = &ratio
	return err
}

// readTest turns the plan into the rule that judges.
func (s *Summaries) readTest(c *contest, bad *experiment.InvalidError) {
	bad.Join("plan", s.Plan.Validate())
	var err error
	if c.test, err = test(&s.Plan, s.pairShare(), s.Alternative); err != nil {
		bad.Add("plan.method", "%s", err)
	}
	sequential := s.Plan.Method == experiment.MethodGroupSequential
	switch {
	case !sequential && len(s.Looks) > 0:
		bad.Add("looks", "only a group-sequential plan has looks")
	case sequential && len(s.Looks) == 0:
		bad.Add("looks", "a group-sequential plan is judged at its looks: name their information times, the present one last")
	case sequential:
		looks := make([]stats.Look, len(s.Looks))
		for i, t := range s.Looks {
			looks[i] = stats.Look{Time: t, Information: t}
		}
		if c.test.Schedule, err = stats.NewSchedule(spendings[s.Plan.Spending], looks); err != nil {
			addFaults(bad, "", err)
		}
	}
}

// pairShare is as that of a study, by the arms' weights, or by equal ones if some
// arm has none.
func (s *Summaries) pairShare() float64 {
	weights, control, known := make([]float64, len(s.Arms)), 0, true
	for i, arm := range s.Arms {
		if arm.Control {
			control = i
		}
		if known = known && arm.Weight != nil; known {
			weights[i] = *arm.Weight
		}
	}
	if share := pairShare(weights, control); known && share > 0 {
		return share
	}
	return 2 / float64(len(s.Arms))
}

// readFormula parses the formula and finds the covariates.
func (s *Summaries) readFormula(c *contest, bad *experiment.InvalidError) {
	for _, name := range s.Components {
		c.names = append(c.names, fmt.Sprintf("Component %q", name))
	}
	text := s.Formula
	if text == "" && len(s.Components) > 0 {
		text = s.Components[0]
	}
	expression, err := Parse(text, s.Components)
	if err != nil {
		bad.Join("formula", err)
	}
	c.expression = expression
	for i, name := range s.Covariates {
		component := slices.Index(s.Components, name)
		switch {
		case component < 0:
			bad.Add(fmt.Sprintf("covariates[%d]", i), "there is no component %q", name)
		case slices.Contains(c.covariates, component):
			bad.Add(fmt.Sprintf("covariates[%d]", i), "%q is listed twice", name)
		case expression != nil && expression.uses(component):
			bad.Add(fmt.Sprintf("covariates[%d]", i), "the formula names %q, which then cannot be a covariate", name)
		}
		c.covariates = append(c.covariates, component)
	}
}

// ofRate tells whether the caller has a proportion: the prior is that of a rate.
func (s *Summaries) ofRate() bool {
	return s.Plan.Prior != nil && (s.Plan.Prior.Alpha != 0 || s.Plan.Prior.Beta != 0)
}

// checkProportion refuses the prior of a rate for what is no proportion. Of
// numbers that are 0 or 1 the variance follows from the mean, and other numbers
// between 0 and 1 have a smaller one; a hundredth is left to rounded figures.
func (s *Summaries) checkProportion(expression *Expression, bad *experiment.InvalidError) {
	if !s.ofRate() || expression == nil {
		return
	}
	component, ok := expression.mean()
	if !ok {
		bad.Add("formula", "must be one component, as the prior of a rate is for a proportion")
		return
	}
	diagonal := component*len(s.Components) - component*(component-1)/2
	for i := range s.Arms {
		for j := range s.Arms[i].Strata {
			stratum := &s.Arms[i].Strata[j]
			if stratum.Subjects == 0 || component >= len(stratum.Means) || diagonal >= len(stratum.Covariances) {
				continue
			}
			path := fmt.Sprintf("arms[%d].strata[%d]", i, j)
			mean, variance, n := stratum.Means[component], stratum.Covariances[diagonal], float64(stratum.Subjects)
			expected := mean * (1 - mean) * n / (n - 1)
			switch {
			case !(mean >= 0 && mean <= 1):
				bad.Add(fmt.Sprintf("%s.means[%d]", path, component), "%v is no proportion, as the prior of a rate needs one", mean)
			case n > 1 && math.Abs(variance-expected) > 0.01*expected:
				bad.Add(fmt.Sprintf("%s.covariances[%d]", path, diagonal), "of numbers that are 0 or 1, for which the prior of a rate is, the variance would be %v, not %v", expected, variance)
			}
		}
	}
}

// readArms turns the aggregates into moments, the strata of every arm in the
// order of the first arm's. Its error is that of the pause.
func (s *Summaries) readArms(c *contest, bad *experiment.InvalidError) error {
	controls, weighted, weights := 0, 0, 0.0
	for i := range s.Arms {
		if s.Pause != nil {
			if err := s.Pause(); err != nil {
				return err
			}
		}
		arm := &s.Arms[i]
		if arm.Weight != nil {
			weighted++
			weights += *arm.Weight
		}
		if slices.Contains(c.variants, arm.Variant) {
			bad.Add(fmt.Sprintf("arms[%d].variant", i), "%q is the variant of an earlier arm", arm.Variant)
		}
		c.variants = append(c.variants, arm.Variant)
		if arm.Control {
			c.control = i
			controls++
		}
		c.arms = append(c.arms, stats.Arm{Strata: s.readStrata(i, bad)})
	}
	if controls != 1 {
		bad.Add("arms", "exactly one arm must be the control; %d are", controls)
	}
	if weighted == len(s.Arms) && !(weights > 0 && weights <= math.MaxFloat64) {
		bad.Add("arms", "the sum of the weights is not a positive finite number")
	}
	if len(s.Arms) < 2 {
		bad.Add("arms", "a comparison needs at least two arms")
	}
	return nil
}

func (s *Summaries) readStrata(i int, bad *experiment.InvalidError) []stats.Moments {
	arm, first := &s.Arms[i], &s.Arms[0]
	if len(arm.Strata) != len(first.Strata) {
		bad.Add(fmt.Sprintf("arms[%d].strata", i), "there are %d, but the first arm has %d; every arm has the same strata", len(arm.Strata), len(first.Strata))
		return nil
	}
	moments := make([]stats.Moments, len(arm.Strata))
	at := make(map[string]int, len(first.Strata))
	for j := range first.Strata {
		at[first.Strata[j].Name] = j
	}
	seen := make(map[string]bool, len(arm.Strata))
	for j := range arm.Strata {
		stratum := &arm.Strata[j]
		path := fmt.Sprintf("arms[%d].strata[%d]", i, j)
		position, ok := at[stratum.Name]
		switch {
		case seen[stratum.Name]:
			bad.Add(path+".stratum", "%q is the name of an earlier stratum", stratum.Name)
			continue
		case !ok:
			bad.Add(path+".stratum", "the first arm has no stratum %q", stratum.Name)
			continue
		case len(stratum.Means) != len(s.Components):
			bad.Add(path+".means", "there are %d for %d components", len(stratum.Means), len(s.Components))
			continue
		}
		seen[stratum.Name] = true
		m, err := stats.FromSummary(stratum.Subjects, stratum.Means, stratum.Covariances)
		if err != nil {
			addFaults(bad, path, err)
			continue
		}
		stratum.readCounts(&m, path, bad)
		moments[position] = m
	}
	return moments
}

// readCounts adds the counts of a stratum to its moments, if they can be.
func (s *SummaryStratum) readCounts(m *stats.Moments, path string, bad *experiment.InvalidError) {
	for _, counts := range []struct {
		name string
		from []int64
		to   *[]int64
	}{{"nonzero_subjects", s.NonZero, &m.NonZero}, {"negative_subjects", s.Negative, &m.Negative}} {
		if len(counts.from) == 0 {
			continue
		}
		if len(counts.from) != len(s.Means) {
			bad.Add(path+"."+counts.name, "there are %d for %d components", len(counts.from), len(s.Means))
			continue
		}
		for i, n := range counts.from {
			field := fmt.Sprintf("%s.%s[%d]", path, counts.name, i)
			switch {
			case n < 0 || n > s.Subjects:
				bad.Add(field, "must lie between 0 and the %d subjects", s.Subjects)
			case n == 0 && counts.name == "nonzero_subjects" && s.Means[i] != 0:
				bad.Add(field, "must not be 0, as the mean is %v", s.Means[i])
			case n == 0 && counts.name == "negative_subjects" && s.Means[i] < 0:
				bad.Add(field, "must not be 0, as the mean is %v", s.Means[i])
			case counts.name == "nonzero_subjects" && n > 0 && float64(n) < s.fewestNonZero(m, i):
				bad.Add(field, "must not be less than %.0f, as the mean is %v and the variance too small for fewer", math.Ceil(s.fewestNonZero(m, i)), s.Means[i])
			case counts.name == "negative_subjects" && i < len(s.NonZero) && n > s.NonZero[i]:
				bad.Add(field, "must not be more than the %d subjects whose number is not 0", s.NonZero[i])
			}
		}
		*counts.to = slices.Clone(counts.from)
	}
}

// fewestNonZero is how many subjects have a number other than 0 at least: (Σx)²/Σx², by
// Cauchy and Schwarz, less a hundredth for figures that are rounded.
func (s *SummaryStratum) fewestNonZero(m *stats.Moments, component int) float64 {
	mean, n := s.Means[component], float64(s.Subjects)
	variance, ok := m.Covariance(component, component)
	if !ok || mean == 0 {
		return 0
	}
	return 0.99 * n / (1 + variance*(n-1)/n/mean/mean)
}

// isRate tells whether the formula is one component, and all of its numbers are 0 or
// 1, as far as their mean and variance tell.
func (c *contest) isRate() bool {
	component, ok := c.expression.mean()
	for i := range c.arms {
		for j := range c.arms[i].Strata {
			m := &c.arms[i].Strata[j]
			ok = ok && (m.N == 0 || m.Binary(component))
		}
	}
	return ok
}

// addFaults adds what stats refuses under a path, and returns any other error
// as it is. Faults of a test are those of the plan.
func addFaults(bad *experiment.InvalidError, path string, err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if err := addFaults(bad, path, e); err != nil {
				return err
			}
		}
		return nil
	}
	var fault stats.InvalidError
	if !errors.As(err, &fault) {
		return err
	}
	field := fault.Field
	observed, isSplit := strings.CutPrefix(field, "splits[0].observed")
	switch {
	case path != "":
		field = path + "." + field
	case isSplit:
		field = "arms" + observed + ".strata"
	case field == "method", field == "confidence_level", field == "planned_subjects", field == "spending",
		strings.HasPrefix(field, "prior"):
		field = "plan." + field
	}
	bad.Add(field, "%s", fault.Reason)
	return nil
}
