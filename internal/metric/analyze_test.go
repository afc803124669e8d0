package metric

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func mustAnalyze(t *testing.T, s *Study, tally *Tally, overridden int64) *Analysis {
	t.Helper()
	shares := map[int32][]float64{}
	for _, phase := range tally.Phases {
		for range tally.Variants {
			shares[phase] = append(shares[phase], 1/float64(len(tally.Variants)))
		}
	}
	if overridden > 0 {
		pinned := *tally
		pinned.Excluded = append(slices.Clone(tally.Excluded), Excluded{Reason: ExclusionOverridden, Beforehand: true, Variant: tally.Variants[0], Subjects: overridden})
		tally = &pinned
	}
	a, err := s.Analyze(tally, shares)
	if err != nil {
		t.Fatalf("Analyze: %v", err)
	}
	return a
}

// want compares a figure with a reference to its digits.
func want(t *testing.T, name string, got *float64, reference, tolerance float64) {
	t.Helper()
	if got == nil {
		t.Errorf("%s is absent, want %v", name, reference)
	} else if !(math.Abs(*got-reference) <= tolerance*math.Abs(reference)) {
		t.Errorf("%s = %.15g, want %.15g", name, *got, reference)
	}
}

// TestAnalyzeMissingCovariate compares with a regression on the covariate with
// its mean in place of what is missing, and an indicator. In R:
//
//	i <- 0:239; arm <- i%%2; x <- ((i*37)%%101)/10; miss <- i%%7==3
//	y <- 2+0.5*arm+0.8*x+((i*53)%%29)/10
//	xi <- ifelse(miss, mean(x[!miss]), x)
//	b <- coef(lm(y ~ arm + xi + miss)); r <- y - b["xi"]*xi - b["missTRUE"]*miss
//	c(b["arm"], sqrt(var(r[arm==1])/120+var(r[arm==0])/120))
//	t.test(y[arm==1], y[arm==0])[c("statistic","parameter","p.value","conf.int","stderr")]
//
// The coefficient was computed by numpy and statsmodels' OLS as well.
func TestAnalyzeMissingCovariate(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary, "spend")})
	var rows []Row
	for i := range 240 {
		x := float64(i*37%101) / 10
		r := row([]string{"control", "short"}[i%2], 2+0.5*float64(i%2)+0.8*x+float64(i*53%29)/10)
		r.AttributeNumbers = []float64{x}
		if i%7 == 3 {
			r.AttributeNumbers[0] = math.NaN()
		}
		rows = append(rows, r)
	}
	c := mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0].Comparisons[0]
	want(t, "adjusted difference", c.Difference.Estimate, 0.40062012811423, 1e-12)
	want(t, "adjusted standard error", c.StandardError, 0.15717741453571, 1e-12)
	want(t, "variance reduction", c.VarianceReduction, 1-math.Pow(0.15717741453571/0.320320777232445, 2), 1e-12)
	if c.Unadjusted == nil {
		t.Fatal("no unadjusted comparison")
	}
	want(t, "standard error", c.Unadjusted.StandardError, 0.320320777232445, 1e-12)
	want(t, "statistic", c.Unadjusted.Statistic, 1.5760243144234, 1e-12)
	want(t, "degrees of freedom", c.Unadjusted.DegreesOfFreedom, 237.679756061348, 1e-12)
	want(t, "p-value", c.Unadjusted.PValue, 0.116350257511849, 1e-12)
	want(t, "lower bound", c.Unadjusted.Difference.Lower, -0.126197026535309, 1e-11)
	want(t, "upper bound", c.Unadjusted.Difference.Upper, 1.135863693201975, 1e-11)
	if c.Unadjusted.Significant || !c.Significant || c.AdjustedPValue == nil || c.Unadjusted.AdjustedPValue != nil {
		t.Errorf("the covariate should turn an insignificant comparison into a significant one: %+v", c)
	}
	if len(c.Notes) != 0 {
		t.Errorf("notes %q, want none", c.Notes)
	}
}

// TestAnalyzeFarCovariate: a covariate that some lack, near 0 and in seconds since
// 1970. By R, whose numbers are the same for both:
//
//	i <- rep(0:199, 2); arm <- rep(0:1, each=200); u <- ((37*i)%%101)/10; miss <- i%%5==0
//	y <- 3+u+((53*i)%%17)/10+0.2*arm*(i%%3)
//	x <- 1.77e9+3600*u; f <- ifelse(miss, 0, x-mean(x[!miss]))
//	th <- coef(lm(y ~ factor(arm)+f+miss)); r <- y - th[["f"]]*f - th[["missTRUE"]]*miss
//	t.test(r[arm==1], r[arm==0])
func TestAnalyzeFarCovariate(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary, "spend")})
	for _, far := range []struct{ origin, unit float64 }{{0, 1}, {1e7, 1}, {1.77e9, 3600}} {
		var rows []Row
		for i := range 400 {
			i, arm := i/2, i%2
			u := float64(37*i%101) / 10
			r := row([]string{"control", "short"}[arm], 3+u+float64(53*i%17)/10+0.2*float64(arm*(i%3)))
			r.AttributeNumbers = []float64{far.origin + far.unit*u}
			if i%5 == 0 {
				r.AttributeNumbers[0] = math.NaN()
			}
			rows = append(rows, r)
		}
		a := mustAnalyze(t, s, fold(s, rows...), 0)
		c := a.Metrics[0].Comparisons[0]
		want(t, fmt.Sprint("standard error at ", far.origin), c.StandardError, 0.13850807956639485, 1e-9)
		want(t, fmt.Sprint("p-value at ", far.origin), c.PValue, 0.15157769546485084, 1e-9)
		if len(c.Notes) > 0 || *a.Balance[0].StandardizedDifference != 0 {
			t.Errorf("at %v: notes %q, balance %v", far.origin, c.Notes, *a.Balance[0].StandardizedDifference)
		}
	}
}

func TestAnalyzeCovariateNotes(t *testing.T) {
	nan := math.NaN()
	tests := []struct {
		name string
		x    func(i int) float64
		want []string
	}{
		{"none missing", func(i int) float64 { return float64(i % 7) }, nil},
		{"some missing", func(i int) float64 { return []float64{1, 2, 5, nan}[i%4] }, nil},
		{"all missing", func(int) float64 { return nan }, []string{`Covariate "spend" is missing for every subject of control, short: it is not used.`}},
		{"missing for a variant", func(i int) float64 { return []float64{100 + float64(i%7), nan}[i%2] }, []string{`Covariate "spend" is missing for every subject of short: it is not used.`}},
		{"constant", func(int) float64 { return 3 }, []string{`Covariate "spend" is constant: it is not used as a covariate.`}},
		{"constant where present", func(i int) float64 { return []float64{3, nan}[i/2%2] },
			[]string{`Covariate "spend" is constant: it is not used as a covariate.`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary, "spend")})
			var rows []Row
			for i := range 200 {
				r := row([]string{"control", "short"}[i%2], float64(i*53%29))
				r.AttributeNumbers = []float64{tt.x(i)}
				rows = append(rows, r)
			}
			c := mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0].Comparisons[0]
			if diff := cmp.Diff(tt.want, c.Notes); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
			if c.PValue == nil {
				t.Error("no p-value")
			}
		})
	}
}

// TestAnalyzePhases is Simpson's paradox. Within either phase the treatment
// lowers the rate by 0.1; phase 2 has a higher rate and three quarters of its
// subjects in the treatment, so that all subjects together show a rise.
func TestAnalyzePhases(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("rate", Proportion("x", nil), experiment.RolePrimary)})
	var rows []Row
	add := func(phase int32, variant string, subjects, converted int) {
		for i := range subjects {
			r := row(variant, 0)
			if i < converted {
				r.Values[0] = 1
			}
			r.Phase = phase
			rows = append(rows, r)
		}
	}
	add(1, "control", 300, 90)
	add(1, "short", 100, 20)
	add(2, "control", 100, 80)
	add(2, "short", 300, 210)
	a, err := s.Analyze(fold(s, rows...), map[int32][]float64{1: {0.75, 0.25}, 2: {0.25, 0.75}})
	if err != nil {
		t.Fatal(err)
	}
	result := a.Metrics[0]
	want(t, "the control's mean", result.Arms[0].Mean, 170.0/400, 1e-12)
	want(t, "the treatment's mean", result.Arms[1].Mean, 230.0/400, 1e-12)
	want(t, "difference", result.Comparisons[0].Difference.Estimate, -0.1, 1e-12)
	if a.SampleRatio.Verdict != SampleRatioOK || *a.SampleRatio.PValue != 1 {
		t.Errorf("sample ratio %+v: the counts are what each phase's split expects", a.SampleRatio)
	}
	if diff := cmp.Diff(map[string]float64{"control": 400, "short": 400}, a.SampleRatio.Expected); diff != "" {
		t.Errorf("expected (-want +got):\n%s", diff)
	}
	// The split of the first phase was among variants that are gone.
	a, err = s.Analyze(fold(s, rows...), map[int32][]float64{1: {0, 0}, 2: {0.25, 0.75}})
	if err != nil {
		t.Fatal(err)
	}
	if a.SampleRatio.Verdict != SampleRatioOK || *a.SampleRatio.PValue != 1 || a.SampleRatio.Observed["short"] != 300 {
		t.Errorf("sample ratio %+v: only the second phase can be tested", a.SampleRatio)
	}
}

func TestAnalyzeSampleRatio(t *testing.T) {
	half := []float64{0.5, 0.5}
	tests := []struct {
		name     string
		subjects map[int32][]int64
		shares   []float64
		p        float64 // Negative: absent.
		verdict  SampleRatioVerdict
	}{
		// The p-values are those of R's chisq.test(counts).
		{"even", map[int32][]int64{1: {5000, 5000}}, half, 1, SampleRatioOK},
		{"broken", map[int32][]int64{1: {5000, 5400}}, half, 8.769942376e-05, SampleRatioMismatch},
		{"just not", map[int32][]int64{1: {5000, 5327}}, half, 0.001291724633, SampleRatioOK},
		{"just so", map[int32][]int64{1: {5000, 5335}}, half, 0.0009833097501, SampleRatioMismatch},
		{"none", nil, half, -1, SampleRatioTooFew},
		{"four expected", map[int32][]int64{1: {7, 1}}, half, 0.03389485352, SampleRatioTooFew},
		{"five expected", map[int32][]int64{1: {5, 5}}, half, 1, SampleRatioOK},
		// chisq.test(c(301, 299), p = c(101, 100), rescale.p = TRUE)
		{"a tiny variant does not hide the others", map[int32][]int64{1: {300, 299, 1}}, []float64{100, 100, 1}, 0.967920921034, SampleRatioOK},
		{"a young phase does not hide a broken one", map[int32][]int64{1: {5000, 5400}, 2: {1, 0}}, half, 8.769942376e-05, SampleRatioMismatch},
		{"subjects without a share", map[int32][]int64{1: {5000, 0}, 2: {0, 1}}, []float64{1, 0}, 0, SampleRatioMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tally := &Tally{Variants: []string{"control", "short", "tiny"}[:len(tt.shares)]}
			shares := map[int32][]float64{}
			for phase := int32(1); phase <= int32(len(tt.subjects)); phase++ {
				tally.Phases = append(tally.Phases, phase)
				tally.Subjects = append(tally.Subjects, tt.subjects[phase])
				shares[phase] = tt.shares
			}
			ratio, err := sampleRatio(tally, nil, shares)
			if err != nil {
				t.Fatal(err)
			}
			if ratio.Verdict != tt.verdict {
				t.Errorf("verdict %q, want %q", ratio.Verdict, tt.verdict)
			}
			if tt.p < 0 {
				if ratio.PValue != nil {
					t.Errorf("p-value %v, want none", *ratio.PValue)
				}
				return
			}
			want(t, "p-value", ratio.PValue, tt.p, 1e-9)
		})
	}
}

// TestCorrect holds families and corrections. The adjusted p-values were
// computed by hand.
func TestCorrect(t *testing.T) {
	s := mustStudy(t, definition("control", "short", "long"), []Use{
		use("p", Sum("p", nil), experiment.RolePrimary),
		use("s1", Sum("s1", nil), experiment.RoleSecondary),
		use("s2", Sum("s2", nil), experiment.RoleSecondary),
		use("g", Sum("g", nil), experiment.RoleGuardrail),
		use("x", Sum("x", nil), ""),
	})
	comparisons := func(p ...float64) []Comparison {
		out := make([]Comparison, len(p))
		for i := range p {
			out[i] = Comparison{PValue: &p[i], Significant: p[i] <= 0.05}
		}
		return out
	}
	analysis := func() *Analysis {
		return &Analysis{Metrics: []Result{
			{Role: experiment.RolePrimary, Comparisons: comparisons(0.04, 0.03), Segments: []Segment{
				{Comparisons: comparisons(0.01, 0.2)}, {Comparisons: comparisons(0.02, 0.9)},
			}},
			{Role: experiment.RoleSecondary, Comparisons: comparisons(0.01, 0.04)},
			{Role: experiment.RoleSecondary, Comparisons: append(comparisons(0.015), Comparison{})},
			{Role: experiment.RoleGuardrail, Comparisons: comparisons(0.04, 0.06)},
			{Comparisons: comparisons(0.04, 0.06), Segments: []Segment{{Comparisons: comparisons(0.03, 0.04)}}},
		}}
	}
	// One line per list of comparisons: the metrics in order, each followed by
	// its segments. −1 stands for no adjusted p-value.
	tests := map[experiment.Correction][][]float64{
		experiment.CorrectionHolm: {
			{0.06, 0.06}, {0.04, 0.4}, {0.06, 0.9}, {0.04, 0.08}, {0.045, -1}, {-1, -1}, {-1, -1}, {0.06, 0.06},
		},
		experiment.CorrectionBonferroni: {
			{0.08, 0.06}, {0.04, 0.8}, {0.08, 1}, {0.04, 0.16}, {0.06, -1}, {-1, -1}, {-1, -1}, {0.06, 0.08},
		},
		experiment.CorrectionBenjaminiHochberg: {
			{0.04, 0.04}, {0.04, 0.8 / 3}, {0.04, 0.9}, {0.03, 0.16 / 3}, {0.03, -1}, {-1, -1}, {-1, -1}, {0.04, 0.04},
		},
	}
	for correction, want := range tests {
		t.Run(string(correction), func(t *testing.T) {
			s.definition.Plan.Correction = correction
			a := analysis()
			if err := s.correct(a); err != nil {
				t.Fatal(err)
			}
			var got [][]float64
			read := func(comparisons []Comparison) {
				var line []float64
				for _, c := range comparisons {
					decisive := c.PValue
					if c.AdjustedPValue != nil {
						decisive = c.AdjustedPValue
						line = append(line, *c.AdjustedPValue)
					} else {
						line = append(line, -1)
					}
					if significant := decisive != nil && *decisive <= 0.05; significant != c.Significant {
						t.Errorf("significant is %v for adjusted p-values %v", c.Significant, line)
					}
				}
				got = append(got, line)
			}
			for _, result := range a.Metrics {
				read(result.Comparisons)
				for _, segment := range result.Segments {
					read(segment.Comparisons)
				}
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateApprox(1e-12, 0)); diff != "" {
				t.Errorf("adjusted p-values (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGuardrail(t *testing.T) {
	interval := func(lower, upper float64) Interval { return Interval{Lower: &lower, Upper: &upper} }
	absolute, relative := experiment.Magnitude{Value: 0.01}, experiment.Magnitude{Value: 0.02, Relative: true}
	wide := interval(-9, 9)
	tests := []struct {
		name       string
		direction  Direction
		margin     experiment.Magnitude
		difference Interval
		lift       Interval
		want       GuardrailVerdict
	}{
		{"rise, within", DirectionIncrease, absolute, interval(-0.009, 0.5), wide, GuardrailPassed},
		{"rise, at the margin", DirectionIncrease, absolute, interval(-0.01, 0.5), wide, GuardrailPassed},
		{"rise, over the margin", DirectionIncrease, absolute, interval(-0.011, 0.5), wide, GuardrailUndecided},
		{"rise, beyond", DirectionIncrease, absolute, interval(-0.5, -0.011), wide, GuardrailFailed},
		{"rise, worse but within", DirectionIncrease, absolute, interval(-0.009, -0.001), wide, GuardrailPassed},
		{"fall, within", DirectionDecrease, absolute, interval(-0.5, 0.009), wide, GuardrailPassed},
		{"fall, over the margin", DirectionDecrease, absolute, interval(-0.5, 0.011), wide, GuardrailUndecided},
		{"fall, beyond", DirectionDecrease, absolute, interval(0.011, 0.5), wide, GuardrailFailed},
		{"lift, within", DirectionIncrease, relative, wide, interval(-0.019, 1), GuardrailPassed},
		{"lift, beyond", DirectionIncrease, relative, wide, interval(-1, -0.021), GuardrailFailed},
		{"no interval", DirectionIncrease, absolute, Interval{}, wide, GuardrailUndecided},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := guardrail(&Comparison{Difference: tt.difference, Lift: tt.lift}, tt.direction, &tt.margin); got != tt.want {
				t.Errorf("guardrail = %q, want %q", got, tt.want)
			}
		})
	}
}

// TestAnalyzeGuardrail holds that the p-value of a guardrail is of its margin:
// it decides just as the interval does.
func TestAnalyzeGuardrail(t *testing.T) {
	for _, direction := range []Direction{DirectionIncrease, DirectionDecrease} {
		for _, relative := range []bool{false, true} {
			d := Sum("x", nil)
			d.Direction = direction
			guard := use("guard", d, experiment.RoleGuardrail)
			guard.Margin = &experiment.Magnitude{Value: 0.5, Relative: relative}
			verdicts := map[GuardrailVerdict]int{}
			for shift := -40; shift <= 40; shift++ {
				s := mustStudy(t, definition("control", "short"), []Use{guard})
				var rows []Row
				for i := range 60 {
					rows = append(rows, row("control", float64(i*7%11)), row("short", float64(i*5%11)+float64(shift)/10))
				}
				c := mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0].Comparisons[0]
				verdicts[c.Guardrail]++
				if c.Significant == (c.Guardrail == GuardrailUndecided) {
					t.Errorf("%s, relative %v, shift %v: %s with p = %v", direction, relative, shift, c.Guardrail, *c.PValue)
				}
				if len(c.Notes) != 1 || !strings.Contains(c.Notes[0], "against the margin") || c.AdjustedPValue != nil {
					t.Errorf("notes %q, adjusted p-value %v", c.Notes, c.AdjustedPValue)
				}
			}
			if verdicts[GuardrailPassed] == 0 || verdicts[GuardrailUndecided] == 0 || !relative && verdicts[GuardrailFailed] == 0 {
				t.Errorf("%s, relative %v: verdicts %v", direction, relative, verdicts)
			}
		}
	}
}

func TestAnalyzeRoles(t *testing.T) {
	windowed := Sum("x", nil)
	windowed.Window = week
	d := definition("control", "short")
	d.Plan.Method, d.Plan.SmallestCell = experiment.MethodAlwaysValid, new(int32)
	s := mustStudy(t, d, []Use{
		use("primary", windowed, experiment.RolePrimary),
		use("ratio", Ratio(sum("a", "x"), sum("b", "y")), experiment.RoleSecondary),
		use("asked", Formula("(a)", []experiment.Component{sum("a", "x")}), ""),
	}, "device")
	var rows []Row
	for i := range 40 {
		r := row([]string{"control", "short"}[i%2], float64(i), 1+float64(i%3), 2*float64(i))
		r.Segments = [][]byte{[]byte([]string{"", "phone"}[i/2%2])}
		rows = append(rows, r)
	}
	a := mustAnalyze(t, s, fold(s, rows...), 3)
	type kind struct {
		Metric                  string
		Confirmatory, Protected bool
		Total                   bool
		Segments                int
		Notes                   []string
	}
	var got []kind
	for _, r := range a.Metrics {
		got = append(got, kind{r.Metric, r.Confirmatory, r.PeekingProtected, r.Arms[0].Total != nil, len(r.Segments), r.Comparisons[0].Notes})
		for _, segment := range r.Segments {
			if segment.Comparisons[0].AdjustedPValue == nil || segment.Arms[0].Subjects != 10 {
				t.Errorf("segment %q of %s: %+v", segment.Value, r.Metric, segment)
			}
		}
	}
	const unbounded = "The lift has no bounds: the control's value is not known to differ from zero."
	wantKinds := []kind{
		{"primary", true, true, true, 2, []string{unbounded}},
		{"ratio", true, false, false, 2, []string{unbounded}},
		{"asked", false, false, true, 2, []string{unbounded, "Exploratory: the plan does not name this metric, and its p-value is not corrected."}},
	}
	if diff := cmp.Diff(wantKinds, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	want(t, "total", a.Metrics[0].Arms[1].Total, 400, 1e-15) // 1 + 3 + … + 39
	if diff := cmp.Diff(Exclusions{Overridden: 3}, a.Exclusions, cmpopts.IgnoreFields(Exclusions{}, "ByReason")); diff != "" {
		t.Errorf("exclusions (-want +got):\n%s", diff)
	}

	// Without always-valid inference nothing is protected.
	d.Plan.Method = experiment.MethodFixedHorizon
	if mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0].PeekingProtected {
		t.Error("a fixed horizon is called protected against peeking")
	}
}

func TestAnalyzeEmpty(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{
		use("revenue", Sum("purchase", nil), experiment.RolePrimary, "spend", "visits"),
		use("guard", Ratio(sum("a", "x"), sum("b", "y")), experiment.RoleGuardrail),
	}, "device")
	s.metrics[1].Margin = &experiment.Magnitude{Value: 0.1}
	a := mustAnalyze(t, s, s.NewFold(moment).Tally(), 0)
	for _, result := range a.Metrics {
		for _, arm := range result.Arms {
			if arm.Subjects != 0 || arm.Mean != nil || arm.Total != nil || len(arm.Notes) == 0 {
				t.Errorf("%s: arm %+v", result.Metric, arm)
			}
		}
		c := result.Comparisons[0]
		if c.Difference.Estimate != nil || c.PValue != nil || c.Significant || len(c.Notes) == 0 {
			t.Errorf("%s: comparison %+v", result.Metric, c)
		}
	}
	if a.Verdict.Action != ActionKeepRunning {
		t.Errorf("verdict %+v", a.Verdict)
	}
	if diff := cmp.Diff([]string{"No exposure that can be analysed was recorded up to this moment."}, a.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	wantRatio := SampleRatio{
		Observed: map[string]int64{"control": 0, "short": 0},
		Expected: map[string]float64{"control": 0, "short": 0},
		Verdict:  SampleRatioTooFew,
		Notes:    []string{"There are no subjects in two arms with a weight: nothing to compare.", "Without subjects there is no sequential p-value."},
	}
	if diff := cmp.Diff(wantRatio, a.SampleRatio); diff != "" {
		t.Errorf("sample ratio (-want +got):\n%s", diff)
	}
}

func TestAnalyzeWarnings(t *testing.T) {
	d := definition("control", "short")
	d.External = true
	d.Plan.Method = experiment.MethodAlwaysValid
	s := mustStudy(t, d, []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)}, "device")
	tally := fold(s, Row{Variant: []byte("control"), Phase: 1, Values: []float64{1}, Segments: [][]byte{nil}})
	tally.Crossovers, tally.UnknownVariants, tally.Metrics[0].OpenWindows = 2, 1, 4
	tally.Subjects[0] = []int64{1000, 0}
	tally.Segments[0] = SegmentValues{Attribute: "device", Limit: 200}
	got := mustAnalyze(t, s, tally, 0).Warnings
	for i, part := range []string{
		"not as many as the split expects", "assigned elsewhere", "2 subjects were seen in more than one variant",
		"1 subject was seen in a variant that the experiment does not have",
		"4 subjects were not counted yet", "has no window", `"device" is withheld: it has more than 200 values`,
	} {
		if i >= len(got) || !strings.Contains(got[i], part) {
			t.Fatalf("warnings %q, want %q at %d", got, part, i)
		}
	}
	if len(got) != 7 {
		t.Errorf("%d warnings: %q", len(got), got)
	}
}

func TestAnalyzeRefusesAnotherTally(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
	tests := map[string]func(*Tally){
		"variants": func(t *Tally) { t.Variants[1] = "long" },
		"number":   func(t *Tally) { t.Variants = t.Variants[:1] },
		"metric":   func(t *Tally) { t.Metrics[0].Metric = "visits" },
		"revision": func(t *Tally) { t.Metrics[0].Revision = 2 },
		"segments": func(t *Tally) { t.Segments = make([]SegmentValues, 1) },
		"shares":   func(t *Tally) { t.Phases, t.Subjects = []int32{1}, [][]int64{{1, 1}} },
	}
	for name, change := range tests {
		tally := fold(s)
		change(tally)
		if _, err := s.Analyze(tally, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestPairShare holds how a plan's subjects of all arms become those of the two
// arms that a test compares.
func TestPairShare(t *testing.T) {
	tests := []struct {
		weights []int32
		want    float64
	}{
		{[]int32{1, 1}, 1},
		{[]int32{9, 1}, 1},
		{[]int32{1, 1, 1}, 2.0 / 3},
		{[]int32{2, 1, 1}, 0.75},
		{[]int32{0, 1, 1}, 0.5},
	}
	for _, tt := range tests {
		d := definition(make([]string, len(tt.weights))...)
		for i := range d.Variants {
			d.Variants[i].Weight = tt.weights[i]
		}
		if got := mustStudy(t, d, nil).pairShare(); math.Abs(got-tt.want) > 1e-15 {
			t.Errorf("weights %v: %v, want %v", tt.weights, got, tt.want)
		}
		later, err := NewStudy(definition("control", "short"), d.Variants, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := later.pairShare(); math.Abs(got-tt.want) > 1e-15 {
			t.Errorf("sealed with the weights %v: %v, want %v", tt.weights, got, tt.want)
		}
	}
	plan := definition().Plan
	plan.PlannedSubjects = 9000
	if got, err := test(&plan, 2.0/3, stats.TwoSided); err != nil || got.PlannedSubjects != 6000 {
		t.Errorf("test %+v, %v; want 6000 planned subjects", got, err)
	}
}

// TestFamilyKeepsItsSize: a treatment that is removed, or cannot be judged yet, was
// one of the family, and so is one that takes its place.
func TestFamilyKeepsItsSize(t *testing.T) {
	planned, d := definition("control", "a", "b"), definition("control", "a", "c") // b was replaced.
	s, err := NewStudy(d, planned.Variants, []Use{
		use("revenue", Sum("purchase", nil), experiment.RolePrimary), use("more", Sum("x", nil), experiment.RoleSecondary),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := 0.04
	one := func() []Comparison { return []Comparison{{Variant: "a", PValue: &p}, {Variant: "c"}} }
	a := &Analysis{Metrics: []Result{{Role: experiment.RolePrimary, Comparisons: one()}, {Role: experiment.RoleSecondary, Comparisons: one()}}}
	if err := s.correct(a); err != nil {
		t.Fatal(err)
	}
	for _, result := range a.Metrics {
		if c := result.Comparisons[0]; c.Significant {
			t.Errorf("%s: significant", result.Role)
		} else {
			want(t, string(result.Role), c.AdjustedPValue, 0.12, 1e-12)
		}
	}
}

// TestUnlikeArms: where the arms as they are contradict a comparison within phases or
// one that is adjusted, it says so, and elsewhere not.
func TestUnlikeArms(t *testing.T) {
	phased := func(early, late int) (rows []Row) {
		for _, part := range []struct {
			phase            int32
			control, short   int
			level, treatment float64
		}{{1, early, late, 10, 1}, {2, late, early, 0, 1}} {
			for i := range part.control {
				r := row("control", part.level+float64(i%5))
				r.Phase = part.phase
				rows = append(rows, r)
			}
			for i := range part.short {
				r := row("short", part.level+part.treatment+float64(i%5))
				r.Phase = part.phase
				rows = append(rows, r)
			}
		}
		return rows
	}
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
	for _, tt := range []struct {
		name string
		rows []Row
		says string
	}{
		{"one phase", won(100), ""},
		{"alike in both", phased(500, 500), ""},
		{"turned around", phased(900, 100), "The arms differ by -7 as they are, to the other side: the comparison is within each phase and stratum"},
		{"too large", phased(100, 900), "The arms differ by +9 as they are, outside the interval: the comparison is within each phase and stratum"},
	} {
		a, err := s.Analyze(fold(s, tt.rows...), map[int32][]float64{1: {0.5, 0.5}, 2: {0.5, 0.5}})
		if err != nil {
			t.Fatal(err)
		}
		notes := strings.Join(a.Metrics[0].Comparisons[0].Notes, " ")
		if said := strings.Contains(notes, "as they are"); said != (tt.says != "") || !strings.Contains(notes, tt.says) {
			t.Errorf("%s: notes %q, want %q", tt.name, notes, tt.says)
		}
	}
}
