package metric

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestSummariesAreAnAnalysis holds that a caller who brings the aggregates of
// the same subjects gets the same figures.
func TestSummariesAreAnAnalysis(t *testing.T) {
	for _, method := range []experiment.Method{experiment.MethodFixedHorizon, experiment.MethodAlwaysValid, experiment.MethodBayesian} {
		d := definition("control", "short", "long")
		d.Plan.Method, d.Plan.PlannedSubjects = method, 6000
		d.Variants[0].Weight = 6 // What a pair is expected to see follows from the weights.
		if method == experiment.MethodBayesian {
			d.Plan.Prior = &experiment.Prior{LiftMean: 0.01, LiftDeviation: 0.3}
		}
		s := mustStudy(t, d, []Use{use("order_value", Ratio(sum("revenue", "purchase"), sum("orders", "order")), experiment.RolePrimary, "visits")})
		var rows []Row
		for i := range 600 {
			r := row([]string{"control", "short", "long"}[i%3], float64(i*37%101)+float64(i%3), 1+float64(i*53%7), float64(i*37%101)+float64(i*11%17))
			r.Phase = int32(1 + i/3%3/2) // Two thirds of the subjects in the first.
			rows = append(rows, r)
		}
		tally := fold(s, rows...)
		analysis := mustAnalyze(t, s, tally, 0).Metrics[0]

		summaries := Summaries{
			Components: []string{"revenue", "orders", "visits"}, Formula: "revenue / orders", Covariates: []string{"visits"}, Plan: d.Plan,
		}
		for v, strata := range tally.Metrics[0].Whole {
			weight := float64(d.Variants[v].Weight)
			arm := SummaryArm{Variant: tally.Variants[v], Control: v == 0, Weight: &weight}
			for p := range strata {
				m := &strata[p]
				stratum := SummaryStratum{Name: []string{"first", "second"}[p], Subjects: m.N, Means: m.Means, NonZero: m.NonZero, Negative: m.Negative}
				for _, product := range m.Products {
					stratum.Covariances = append(stratum.Covariances, product/float64(m.N-1))
				}
				arm.Strata = append(arm.Strata, stratum)
			}
			if v == 1 {
				arm.Strata[0], arm.Strata[1] = arm.Strata[1], arm.Strata[0] // Their names put them in order.
			}
			summaries.Arms = append(summaries.Arms, arm)
		}
		result, err := summaries.Compare()
		if err != nil {
			t.Fatal(err)
		}
		arms, comparisons := result.Arms, result.Comparisons
		approximately := cmpopts.EquateApprox(1e-11, 0)
		if diff := cmp.Diff(analysis.Arms, arms, approximately, cmpopts.IgnoreFields(Arm{}, "LargestShare")); diff != "" {
			t.Errorf("%s: arms (-analysis +summaries):\n%s", method, diff)
		}
		if diff := cmp.Diff(analysis.Comparisons, comparisons, approximately); diff != "" {
			t.Errorf("%s: comparisons (-analysis +summaries):\n%s", method, diff)
		}
		if c := comparisons[1]; c.Variant != "long" || c.Unadjusted == nil || (c.AdjustedPValue == nil) != (method == experiment.MethodBayesian) || c.VarianceReduction == nil || *c.VarianceReduction < 0.3 {
			t.Errorf("%s: %+v", method, c)
		}
	}
}

// example is two arms of 1,000 subjects with components a, b and c.
func example() Summaries {
	stratum := func() []SummaryStratum {
		return []SummaryStratum{{Subjects: 1000, Means: []float64{5, 2, 3}, Covariances: []float64{4, 1, 1, 2, 0.5, 3}}}
	}
	return Summaries{
		Components: []string{"a", "b", "c"},
		Arms:       []SummaryArm{{Variant: "control", Control: true, Strata: stratum()}, {Variant: "short", Strata: stratum()}},
		Plan:       definition().Plan,
	}
}

func TestSummariesFirstComponent(t *testing.T) {
	s := example()
	s.Arms[1].Strata[0].Means[0] = 5.5
	result, err := s.Compare()
	if err != nil {
		t.Fatal(err)
	}
	arms, comparisons := result.Arms, result.Comparisons
	want(t, "total", arms[1].Total, 5500, 1e-12)
	want(t, "difference", comparisons[0].Difference.Estimate, 0.5, 1e-12)
	want(t, "standard error", comparisons[0].StandardError, math.Sqrt(8.0/1000), 1e-12)
	want(t, "statistic", comparisons[0].Statistic, 0.5/math.Sqrt(8.0/1000), 1e-12)
}

func TestSummariesMarginAndSide(t *testing.T) {
	s := example()
	s.Alternative, s.Margin = stats.Greater, stats.Margin{Value: -0.1}
	result, err := s.Compare()
	if err != nil {
		t.Fatal(err)
	}
	comparisons := result.Comparisons
	c := comparisons[0]
	want(t, "statistic", c.Statistic, 0.1/math.Sqrt(8.0/1000), 1e-12)
	if c.Difference.Upper != nil || c.Difference.Lower == nil {
		t.Errorf("interval %+v, want a lower bound only", c.Difference)
	}
	// On the lift's scale statistic and degrees of freedom are the lift's. By
	// hand, for means 5 and 6 with variance 4 of 1,000 subjects each: that of
	// 6 − 5·(1 − 0.02) has the parts 4/1000 and 4/1000·0.98², of 999 degrees each.
	s.Arms[1].Strata[0].Means[0] = 6
	s.Margin = stats.Margin{Scale: stats.Relative, Value: -0.02}
	if result, err = s.Compare(); err != nil {
		t.Fatal(err)
	}
	comparisons = result.Comparisons
	treatment, control := 4.0/1000, 4.0/1000*0.98*0.98
	want(t, "statistic of the lift", comparisons[0].Statistic, 1.1/math.Sqrt(treatment+control), 1e-12)
	want(t, "degrees of freedom of the lift", comparisons[0].DegreesOfFreedom,
		999*math.Pow(treatment+control, 2)/(treatment*treatment+control*control), 1e-12)
}

func TestSummariesNotesNameComponents(t *testing.T) {
	s := example()
	s.Covariates = []string{"c"}
	for i := range s.Arms {
		s.Arms[i].Strata[0].Covariances = []float64{4, 1, 0, 2, 0, 0}
	}
	result, err := s.Compare()
	if err != nil {
		t.Fatal(err)
	}
	comparisons := result.Comparisons
	if diff := cmp.Diff([]string{
		`Component "c" is constant: it is not used as a covariate.`,
		"How many subjects have a number other than 0 is not known: whether too few of them decide was not checked.",
	}, comparisons[0].Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

func TestSummariesRefuse(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Summaries)
		want   []experiment.Violation
	}{
		{"formula", func(s *Summaries) { s.Formula = "a / d" }, []experiment.Violation{
			{Field: "formula", Message: `at character 5: there is no component "d"`}}},
		{"covariates", func(s *Summaries) { s.Covariates = []string{"d", "b", "b", "a"} }, []experiment.Violation{
			{Field: "covariates[0]", Message: `there is no component "d"`},
			{Field: "covariates[2]", Message: `"b" is listed twice`},
			{Field: "covariates[3]", Message: `the formula names "a", which then cannot be a covariate`}}},
		{"no control", func(s *Summaries) { s.Arms[0].Control = false }, []experiment.Violation{
			{Field: "arms", Message: "exactly one arm must be the control; 0 are"}}},
		{"two controls", func(s *Summaries) { s.Arms[1].Control = true }, []experiment.Violation{
			{Field: "arms", Message: "exactly one arm must be the control; 2 are"}}},
		{"one arm", func(s *Summaries) { s.Arms = s.Arms[:1] }, []experiment.Violation{
			{Field: "arms", Message: "a comparison needs at least two arms"}}},
		{"a variant twice", func(s *Summaries) { s.Arms[1].Variant = "control" }, []experiment.Violation{
			{Field: "arms[1].variant", Message: `"control" is the variant of an earlier arm`}}},
		{"number of strata", func(s *Summaries) { s.Arms[1].Strata = nil }, []experiment.Violation{
			{Field: "arms[1].strata", Message: "there are 0, but the first arm has 1; every arm has the same strata"}}},
		{"names of strata", func(s *Summaries) { s.Arms[1].Strata[0].Name = "x" }, []experiment.Violation{
			{Field: "arms[1].strata[0].stratum", Message: `the first arm has no stratum "x"`}}},
		{"a stratum twice", func(s *Summaries) {
			for i := range s.Arms {
				s.Arms[i].Strata = append(s.Arms[i].Strata, s.Arms[i].Strata[0])
			}
		}, []experiment.Violation{
			{Field: "arms[0].strata[1].stratum", Message: `"" is the name of an earlier stratum`},
			{Field: "arms[1].strata[1].stratum", Message: `"" is the name of an earlier stratum`}}},
		{"number of means", func(s *Summaries) { s.Arms[1].Strata[0].Means = []float64{1} }, []experiment.Violation{
			{Field: "arms[1].strata[0].means", Message: "there are 1 for 3 components"}}},
		{"covariances", func(s *Summaries) { s.Arms[1].Strata[0].Covariances[0] = -4 }, []experiment.Violation{
			{Field: "arms[1].strata[0].covariances[0]", Message: "the variance of component 0 is negative: -4"}}},
		{"several", func(s *Summaries) {
			s.Arms[0].Strata[0].Subjects = -1
			s.Arms[1].Strata[0].Means[2] = math.NaN()
			s.Arms[1].Strata[0].Covariances = nil
		}, []experiment.Violation{
			{Field: "arms[0].strata[0].subjects", Message: "the number lies between 0 and 1000000000000000, and -1 does not"},
			{Field: "arms[1].strata[0].means[2]", Message: "it is not a finite number"},
			{Field: "arms[1].strata[0].covariances", Message: "there are 0, but the upper triangle for 3 components has 6"}}},
		{"test", func(s *Summaries) { s.Plan.ConfidenceLevel, s.Margin.Value = 1, math.Inf(1) }, []experiment.Violation{
			{Field: "plan.confidence_level", Message: "it lies above 0.5 and below 1, and 1 does not"},
			{Field: "margin", Message: "it is not a finite number"}}},
		{"weights", func(s *Summaries) { s.Arms[0].Weight, s.Arms[1].Weight = new(float64), new(float64) }, []experiment.Violation{
			{Field: "arms", Message: "the sum of the weights is not a positive finite number"}}},
		{"endless weights", func(s *Summaries) {
			huge := math.MaxFloat64
			s.Arms[0].Weight, s.Arms[1].Weight = &huge, &huge
		}, []experiment.Violation{{Field: "arms", Message: "the sum of the weights is not a positive finite number"}}},
		{"too many subjects for a split", func(s *Summaries) {
			one := 1.0
			for i := range s.Arms {
				s.Arms[i].Weight = &one
				s.Arms[i].Strata[0].Subjects = 1e15
				s.Arms[i].Strata = append(s.Arms[i].Strata, s.Arms[i].Strata[0])
				s.Arms[i].Strata[1].Name = "second"
			}
		}, []experiment.Violation{{Field: "arms[0].strata", Message: "a count lies between 0 and 1000000000000000, and 2000000000000000 does not"}}},
		{"method", func(s *Summaries) { s.Plan.Method = "guess" }, []experiment.Violation{
			{Field: "plan.method", Message: `method "guess" is not known`}}},
		{"correction", func(s *Summaries) { s.Plan.Correction = "" }, []experiment.Violation{
			{Field: "plan.correction", Message: `correction "" is not known`}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := example()
			tt.change(&s)
			_, err := s.Compare()
			var bad *experiment.InvalidError
			if !errors.As(err, &bad) {
				t.Fatalf("Compare: %v, want an InvalidError", err)
			}
			if diff := cmp.Diff(tt.want, bad.Violations); diff != "" {
				t.Errorf("violations (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSummariesGuard: the split, the balance and the heterogeneity of summaries
// are those of an analysis of the same subjects.
func TestSummariesGuard(t *testing.T) {
	d := definition("control", "short")
	s := mustStudy(t, d, []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary, "visits")}, "country")
	var rows []Row
	for i := range 900 {
		variant, country := []string{"control", "short", "short"}[i%3], []string{"DE", "PL", "SE"}[min(i/410, 2)]
		r := row(variant, float64(i*37%101)+float64(len(country)*i/300), float64(i*11%17+i%3))
		r.Segments = [][]byte{[]byte(country)}
		rows = append(rows, r)
	}
	tally := fold(s, rows...)
	shares := map[int32][]float64{1: {0.5, 0.5}}
	analysis, err := s.Analyze(tally, shares)
	if err != nil {
		t.Fatal(err)
	}
	half := 0.5
	summaries := Summaries{Components: []string{"revenue", "visits"}, Covariates: []string{"visits"}, Plan: d.Plan}
	for v, variant := range tally.Variants {
		arm := SummaryArm{Variant: variant, Control: v == 0, Weight: &half}
		for j, country := range tally.Segments[0].Values {
			m := tally.Metrics[0].Segments[0][j][v][0]
			stratum := SummaryStratum{Name: country, Subjects: m.N, Means: m.Means, NonZero: m.NonZero, Negative: m.Negative}
			for _, product := range m.Products {
				stratum.Covariances = append(stratum.Covariances, product/float64(m.N-1))
			}
			arm.Strata = append(arm.Strata, stratum)
		}
		summaries.Arms = append(summaries.Arms, arm)
	}
	got, err := summaries.Compare()
	if err != nil {
		t.Fatal(err)
	}
	approximately := cmpopts.EquateApprox(1e-9, 0)
	analysis.Metrics[0].Heterogeneity[0].Attribute = ""
	if diff := cmp.Diff(analysis.Metrics[0].Heterogeneity, got.Heterogeneity, approximately); diff != "" {
		t.Errorf("heterogeneity (-analysis +summaries):\n%s", diff)
	}
	analysis.SampleRatio.BrokenCells = nil
	if diff := cmp.Diff(&analysis.SampleRatio, got.SampleRatio, approximately, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("sample ratio (-analysis +summaries):\n%s", diff)
	}
	if got.SampleRatio.Verdict != SampleRatioMismatch {
		t.Errorf("300 and 600 subjects of equal weights: %+v", got.SampleRatio)
	}
	if got.Balance[0].Covariate != "visits" || got.Balance[0].Variant != "short" || got.Balance[0].StandardizedDifference == nil {
		t.Errorf("balance %+v", got.Balance)
	}

	// In one stratum the balance is that of the subjects together.
	for i := range summaries.Arms {
		whole := stats.NewMoments(2)
		for _, m := range tally.Metrics[0].Whole[i] {
			whole.Merge(m)
		}
		one := SummaryStratum{Subjects: whole.N, Means: whole.Means}
		for _, product := range whole.Products {
			one.Covariances = append(one.Covariances, product/float64(whole.N-1))
		}
		summaries.Arms[i].Strata = []SummaryStratum{one}
	}
	summaries.Arms[1].Weight = nil
	if got, err = summaries.Compare(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(analysis.Balance, got.Balance, approximately); diff != "" {
		t.Errorf("balance (-analysis +summaries):\n%s", diff)
	}
	if got.SampleRatio != nil || got.Heterogeneity != nil {
		t.Errorf("with a weight missing and one stratum: %+v, %+v", got.SampleRatio, got.Heterogeneity)
	}

	// Strata below the smallest cell do not count if it was asked for.
	summaries.Arms[0].Strata[0].Subjects = 19
	for i := range summaries.Arms {
		second := summaries.Arms[i].Strata[0]
		second.Name, second.Subjects = "second", 500
		summaries.Arms[i].Strata = append(summaries.Arms[i].Strata, second)
	}
	if got, err = summaries.Compare(); err != nil {
		t.Fatal(err)
	}
	if h := got.Heterogeneity; len(h) != 1 || h[0].DegreesOfFreedom != 1 || len(h[0].Notes) != 0 {
		t.Errorf("two strata, and %+v", h)
	}
	twenty := int32(20)
	summaries.Plan.SmallestCell = &twenty
	if got, err = summaries.Compare(); err != nil {
		t.Fatal(err)
	}
	if h := got.Heterogeneity; len(h) != 1 || h[0].Statistic != nil || !slices.ContainsFunc(h[0].Notes, func(n string) bool { return strings.HasPrefix(n, "1 of 2 strata do not count") }) {
		t.Errorf("one stratum is left, and %+v", h)
	}
}

// TestSmallStratum: effects of 0, 0 and 9 differ, of which the last is told by ten
// subjects an arm: fewer than the smallest cell that a plan has by default.
func TestSmallStratum(t *testing.T) {
	arm := func(last float64) []SummaryStratum {
		var strata []SummaryStratum
		for i, mean := range []float64{5, 5, 5 + last} {
			strata = append(strata, SummaryStratum{Name: string(rune('a' + i)), Subjects: []int64{100, 100, 10}[i], Means: []float64{mean}, Covariances: []float64{4}})
		}
		return strata
	}
	s := Summaries{
		Components: []string{"x"}, Plan: definition("control", "short").Plan,
		Arms: []SummaryArm{{Variant: "control", Control: true, Strata: arm(0)}, {Variant: "short", Strata: arm(9)}},
	}
	got, err := s.Compare()
	if err != nil {
		t.Fatal(err)
	}
	if h := got.Heterogeneity[0]; h.PValue == nil || *h.PValue > 1e-6 || h.DegreesOfFreedom != 2 {
		t.Errorf("heterogeneity %+v", h)
	}
}
