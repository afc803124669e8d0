package server_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

const planExperiment = "AnalysisService/PlanExperiment"

// plan is a plan for a rise from 10 % by a fifth.
const plan = `{"proportion":0.1,"minimum_effect":{"relative":0.2},"power":0.8,"plan":{"method":"METHOD_FIXED_HORIZON"}}`

// TestPlanExperiment compares with R. For means
//
//	power.t.test(n = N/2, delta, sd, sig.level, power, strict = TRUE, tol = 1e-12)
//
// and for rates power.prop.test(n = N/2, p1, p2, strict = TRUE)$power, of which uniroot
// finds N = 7681.68 for a power of 0.8.
func TestPlanExperiment(t *testing.T) {
	a := newAPI(t)
	tests := []struct {
		name, request, response string
	}{
		{"subjects for a rate", plan, `{"subjects":"7682","subjects_by_variant":["3841","3841"],
			"absolute_effect":0.02,"relative_effect":0.2,"power":0.8,"baseline":0.1,"standard_deviation":0.3,"inflation":1}`},
		{"power for a rate", with(plan, `"power":null,"subjects":"7682","subjects_per_day":500`), `{"subjects":"7682","subjects_by_variant":["3841","3841"],
			"absolute_effect":0.02,"relative_effect":0.2,"power":0.80001652861637407,"days":16,"baseline":0.1,"standard_deviation":0.3,"inflation":1}`},
		{"three variants for a mean", with(plan, `"proportion":null,"mean":{"standard_deviation":10},"minimum_effect":{"absolute":1},"weights":[1,2,1]`),
			`{"subjects":"7610","subjects_by_variant":["1903","3805","1902"],"absolute_effect":1,"power":0.8,"standard_deviation":10,"inflation":1,"notes":[
			"Each of the 2 comparisons with the control is planned at an error rate of 0.025, as by Bonferroni's correction; the power is that of the variant with the fewest subjects.",
			"The baseline is 0, or so near it that the effect's share of it is too large to write."]}`},
		{"effect for a ratio", `{"ratio":{"numerator_mean":12,"denominator_mean":4,"numerator_variance":100,"denominator_variance":9,"covariance":20},
			"subjects":"5000","power":0.8,"plan":{"method":"METHOD_FIXED_HORIZON"}}`,
			`{"subjects":"5000","subjects_by_variant":["2500","2500"],"absolute_effect":0.154752149047791,"relative_effect":0.0515840496825970,
			"power":0.8,"baseline":3,"standard_deviation":1.9525624189766635,"inflation":1}`},
		{"power with a covariate", `{"mean":{"mean":-5,"standard_deviation":10},"covariate_correlation":0.6,"subjects":"2000","minimum_effect":{"absolute":1},
			"plan":{"method":"METHOD_FIXED_HORIZON"}}`,
			`{"subjects":"2000","subjects_by_variant":["1000","1000"],"absolute_effect":1,"relative_effect":0.2,"power":0.79779773983353397,
			"baseline":-5,"standard_deviation":8,"inflation":1,"notes":["Covariates remove 36% of the variance."]}`},
		{"non-inferiority", `{"mean":{"mean":50,"standard_deviation":10},"objective":"OBJECTIVE_NON_INFERIORITY","margin":{"absolute":1},"power":0.8,
			"plan":{"method":"METHOD_FIXED_HORIZON"}}`,
			`{"subjects":"2475","subjects_by_variant":["1238","1237"],"relative_effect":0,"power":0.8,"baseline":50,"standard_deviation":10,"inflation":1}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := call[*assayv1.PlanExperimentResponse](t, a, planExperiment, tt.request)
			want := parse(t, findMethod(t, planExperiment).Output(), tt.response)
			if diff := cmp.Diff(want, got, protocmp.Transform(), cmpopts.EquateApprox(1e-9, 1e-12)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestPlanOfAlwaysValid: what looking at any time costs, and that it says so.
func TestPlanOfAlwaysValid(t *testing.T) {
	a := newAPI(t)
	fixed := call[*assayv1.PlanExperimentResponse](t, a, planExperiment, plan)
	always := call[*assayv1.PlanExperimentResponse](t, a, planExperiment, with(plan, `"plan":null`))
	if want := float64(always.Subjects) / float64(fixed.Subjects); always.GetInflation() != want || want < 1.5 || want > 2 || len(always.Notes) != 1 {
		t.Errorf("always valid %v, fixed horizon %v", always, fixed)
	}
	small := call[*assayv1.PlanExperimentResponse](t, a, planExperiment, with(plan, `"plan":null,"power":null,"subjects":"10"`))
	if small.Inflation != nil || len(small.Notes) != 3 || !strings.Contains(small.Notes[2], "guard of informative subjects") || small.Power > 0.05 {
		t.Errorf("ten subjects: %v", small)
	}
}

// TestPlanOfLooks compares with rpact:
//
//	d <- getDesignGroupSequential(kMax = 5, alpha = 0.05, beta = 0.2, sided = 2, typeOfDesign = "asOF", twoSidedPower = TRUE)
//	getSampleSizeMeans(d, groups = 2, normalApproximation = TRUE, alternative = 0.2, stDev = 1)
//
// which has 804.286966064573 subjects, and on average 646.480621362116 of them.
func TestPlanOfLooks(t *testing.T) {
	a := newAPI(t)
	const looks = `{"mean":{"standard_deviation":1},"minimum_effect":{"absolute":0.2},"power":0.8,"plan":{"method":"METHOD_GROUP_SEQUENTIAL"}}`
	got := call[*assayv1.PlanExperimentResponse](t, a, planExperiment, looks)
	if got.Subjects != 805 || math.Abs(got.GetExpectedSubjects()/646.480621362116-1) > 1e-3 || got.GetInflation() != 805.0/787 {
		t.Errorf("five looks: %v", got)
	}
	more := call[*assayv1.PlanExperimentResponse](t, a, planExperiment, with(looks, `"looks":50,"plan":{"method":"METHOD_GROUP_SEQUENTIAL","spending":"SPENDING_POCOCK"}`))
	if more.Subjects <= got.Subjects || more.GetExpectedSubjects() >= got.GetExpectedSubjects() {
		t.Errorf("fifty looks: %v; five: %v", more, got)
	}
	equivalence := call[*assayv1.PlanExperimentResponse](t, a, planExperiment,
		with(looks, `"minimum_effect":null,"objective":"OBJECTIVE_EQUIVALENCE","margin":{"absolute":0.2}`))
	if equivalence.ExpectedSubjects != nil || len(equivalence.Notes) != 2 || equivalence.GetInflation() < 1 {
		t.Errorf("equivalence: %v", equivalence)
	}
	a.refuses(t, []refusal{
		{"looks of another method", planExperiment, with(plan, `"looks":3`), codes.InvalidArgument, []string{"looks"}, "only a group-sequential plan"},
		{"too many looks", planExperiment, with(looks, `"looks":51`), codes.InvalidArgument, []string{"looks"}, ""},
		{"spending of another method", planExperiment, with(plan, `"plan":{"spending":"SPENDING_POCOCK"}`), codes.InvalidArgument, []string{"plan.spending"}, ""},
	})
}

// TestPlanOfBayesian: the prior of the lift is for means and for rates with
// covariates, that of the rate for others.
func TestPlanOfBayesian(t *testing.T) {
	a := newAPI(t)
	subjects := func(baseline, prior, more string) int64 {
		return call[*assayv1.PlanExperimentResponse](t, a, planExperiment, `{`+baseline+`,"minimum_effect":{"relative":0.1},"power":0.8,
			"plan":{"method":"METHOD_BAYESIAN","prior":{`+prior+`}}`+more+`}`).Subjects
	}
	const rate, mean = `"proportion":0.1`, `"mean":{"mean":0.1,"standard_deviation":0.3}`
	const sceptical, strong = `"lift_standard_deviation":0.05`, `"alpha":100,"beta":900`
	covariates := `,"covariate_correlation":0.5`
	for name, c := range map[string]struct {
		with, without int64
		matters       bool
	}{
		"a lift's prior for a mean":               {subjects(mean, sceptical, ""), subjects(mean, "", ""), true},
		"a rate's prior for a mean":               {subjects(mean, strong, ""), subjects(mean, "", ""), false},
		"a lift's prior for a rate":               {subjects(rate, sceptical, ""), subjects(rate, "", ""), false},
		"a rate's prior for a rate":               {subjects(rate, strong, ""), subjects(rate, "", ""), true},
		"a lift's prior for a rate by covariates": {subjects(rate, sceptical, covariates), subjects(rate, "", covariates), true},
		"a rate's prior for a rate by covariates": {subjects(rate, strong, covariates), subjects(rate, "", covariates), false},
	} {
		if c.without == 0 || (c.with > c.without) != c.matters || !c.matters && c.with != c.without {
			t.Errorf("%s: %d subjects with it, %d without", name, c.with, c.without)
		}
	}
	const bayesian = `"plan":{"method":"METHOD_BAYESIAN","prior":{"lift_mean":0.5,"lift_standard_deviation":0.01}}`
	a.refuses(t, []refusal{
		{"a prior that is sure", planExperiment, `{` + mean + `,"subjects":"1000","power":0.8,` + bayesian + `}`, codes.InvalidArgument, []string{"power"}, "by the prior alone"},
		{"a prior of no lift", planExperiment, `{"mean":{"standard_deviation":1},"subjects":"1000","power":0.8,` + bayesian + `}`,
			codes.InvalidArgument, []string{"plan.prior.lift_standard_deviation"}, "baseline of 0"},
		{"a prior of another method", planExperiment, with(plan, `"plan":{"prior":{"alpha":2}}`), codes.InvalidArgument, []string{"plan.prior"}, ""},
	})
}

// TestPlanFromHistory takes the figures that an analysis shows of the control.
func TestPlanFromHistory(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", orderValue)
	a.startPricing(t, "pricing", "METHOD_ALWAYS_VALID")
	a.shop(t, "pricing", 600)
	analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"pricing"}`).Metrics[0]
	control, removed := analysis.Arms[0], math.Inf(1)
	for _, c := range analysis.Comparisons {
		removed = min(removed, c.GetVarianceReduction())
	}
	request := `{"metric":{"metric":"order_value","experiment":"pricing"%s},"minimum_effect":{"relative":0.1},"power":0.9,"plan":{"method":"METHOD_FIXED_HORIZON"}}`
	for covariates, left := range map[string]float64{"": 1, `,"covariates":["past_spend"]`: 1 - removed} {
		got := call[*assayv1.PlanExperimentResponse](t, a, planExperiment, fmt.Sprintf(request, covariates))
		deviation := control.GetStandardError() * math.Sqrt(float64(control.Subjects))
		if math.Abs(got.Baseline/control.GetMean()-1) > 1e-12 || math.Abs(got.StandardDeviation/deviation/math.Sqrt(left)-1) > 1e-9 {
			t.Errorf("%q: %v, but the control is %v and %v is left", covariates, got, control, left)
		}
		typed := call[*assayv1.PlanExperimentResponse](t, a, planExperiment, fmt.Sprintf(
			`{"mean":{"mean":%v,"standard_deviation":%v},"minimum_effect":{"relative":0.1},"power":0.9,"plan":{"method":"METHOD_FIXED_HORIZON"}}`,
			got.Baseline, got.StandardDeviation))
		if typed.Subjects != got.Subjects {
			t.Errorf("%q: %d subjects from history, %d by the same numbers", covariates, got.Subjects, typed.Subjects)
		}
		// All came on one day, and the window is of 14 days.
		if want := int32(math.Ceil(float64(got.Subjects)/600) + 14); got.GetDays() != want {
			t.Errorf("%q: %d days, want %d", covariates, got.GetDays(), want)
		}
	}
	got := call[*assayv1.PlanExperimentResponse](t, a, planExperiment, fmt.Sprintf(request, ""))
	if got.CountedShare == nil || got.GetCountedShare() != 1 || got.GetExposedSubjects() != got.Subjects {
		t.Errorf("all subjects have a number of orders: %v", got)
	}
	if age := time.Since(got.BaselineAsOfTime.AsTime()); got.BaselineSubjects != control.Subjects || age < 0 || age > time.Hour || len(got.Notes) != 0 {
		t.Errorf("the figures come from %d subjects as of %v, want %d; notes %q", got.BaselineSubjects, got.BaselineAsOfTime, control.Subjects, got.Notes)
	}
	// As many days as that needs have its power, or with the rest of the last day
	// more; one day less does not.
	days := func(days int32) *assayv1.PlanExperimentResponse {
		return call[*assayv1.PlanExperimentResponse](t, a, planExperiment, with(fmt.Sprintf(request, ""), fmt.Sprintf(`"power":null,"days":%d`, days)))
	}
	if in, less := days(got.GetDays()), days(got.GetDays()-1); in.Subjects != 600*int64(got.GetDays()-14) || in.Power < 0.9 || less.Power >= 0.9 || in.GetDays() != got.GetDays() {
		t.Errorf("%d days: %v, and a day less: %v", got.GetDays(), in, less)
	}
	slow := call[*assayv1.PlanExperimentResponse](t, a, planExperiment, with(fmt.Sprintf(request, ""), `"subjects_per_day":0.5`))
	if want := int32(2*slow.Subjects + 14); slow.GetDays() != want {
		t.Errorf("%d days, want %d", slow.GetDays(), want)
	}
}

// TestExtremePlans: whatever the numbers, a plan is answered in finite numbers
// that are possible, or refused by its fields.
func TestExtremePlans(t *testing.T) {
	a := newAPI(t)
	rng := rand.New(rand.NewPCG(41, 42))
	pick := func(values ...float64) float64 { return values[rng.IntN(len(values))] }
	magnitude := func() *assayv1.Magnitude {
		size := pick(0, 5e-324, 1e-12, 0.01, 0.3, 1, 20, 1e20, 1e308)
		if rng.IntN(2) == 0 {
			return &assayv1.Magnitude{Scale: &assayv1.Magnitude_Absolute{Absolute: size}}
		}
		return &assayv1.Magnitude{Scale: &assayv1.Magnitude_Relative{Relative: size}}
	}
	answered := 0
	for range 1500 {
		req := &assayv1.PlanExperimentRequest{
			Plan:                 &assayv1.Plan{Method: assayv1.Method(rng.IntN(5)), ConfidenceLevel: proto.Float64(pick(0.500001, 0.8, 0.95, 1-1e-16))},
			Objective:            assayv1.Objective(rng.IntN(5)),
			MinimumEffect:        magnitude(),
			Weights:              [][]float64{nil, {1, 1}, {1, 999}, {1e-300, 1}, {5e-324, 1e308}, {3, 1, 2}}[rng.IntN(6)],
			CovariateCorrelation: pick(0, 0.5, 1-1e-16),
			Subjects:             int64(pick(2, 5, 1000, 1e12)),
			Power:                proto.Float64(pick(0.06, 0.5, 0.8, 0.999999, 1-1e-16)),
			SubjectsPerDay:       proto.Float64(pick(5e-324, 1, 1e308)),
		}
		switch rng.IntN(3) {
		case 0:
			req.Baseline = &assayv1.PlanExperimentRequest_Proportion{Proportion: pick(5e-324, 1e-9, 0.1, 0.5, 1-1e-16)}
		case 1:
			req.Baseline = &assayv1.PlanExperimentRequest_Mean{Mean: &assayv1.MeanBaseline{
				Mean: pick(0, 5e-324, -1e-90, 1, -1, 1e99, 1e308), StandardDeviation: pick(5e-324, 1e-99, 1, 3, 1e99, 1e308),
			}}
		default:
			req.Baseline = &assayv1.PlanExperimentRequest_Ratio{Ratio: &assayv1.RatioBaseline{
				NumeratorMean: pick(0, 1, 1e200), DenominatorMean: pick(5e-324, 1, -2, 1e200), NumeratorVariance: pick(0, 1, 1e300),
				DenominatorVariance: pick(0, 1, 1e-300), Covariance: pick(0, 1, -0.5),
			}}
		}
		if req.Objective >= assayv1.Objective_OBJECTIVE_NON_INFERIORITY {
			req.Margin = magnitude()
		}
		switch rng.IntN(3) {
		case 0:
			req.Subjects = 0
		case 1:
			req.Power = nil
		default:
			req.MinimumEffect = nil
		}
		if req.Plan.Method == assayv1.Method_METHOD_GROUP_SEQUENTIAL {
			req.Looks = int32(pick(0, 1, 2, 50))
		}
		if req.Plan.Method == assayv1.Method_METHOD_BAYESIAN && rng.IntN(3) > 0 {
			req.Plan.Prior = &assayv1.Prior{
				Alpha: proto.Float64(pick(0.1, 1, 1e9)), Beta: proto.Float64(pick(0.1, 1, 1e9)), LiftMean: pick(0, 1, -1e308),
				LiftStandardDeviation: proto.Float64(pick(5e-324, 0.3, 1e308)),
			}
		}
		a.checkAnswer(t, planExperiment, req)
		resp, err := a.analysis.PlanExperiment(t.Context(), req)
		if err != nil {
			continue
		}
		answered++
		total := int64(0)
		for _, n := range resp.SubjectsByVariant {
			total += n
		}
		if total != resp.Subjects || resp.Power < 0 || resp.Power > 1 || resp.AbsoluteEffect < 0 || resp.StandardDeviation <= 0 || resp.GetExpectedSubjects() > float64(resp.Subjects) {
			t.Errorf("%v: %v", req, resp)
		}
	}
	t.Logf("%d of 1,500 plans were answered", answered)
	if answered < 100 {
		t.Errorf("only %d plans were answered", answered)
	}
}

func TestInvalidPlans(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", orderValue)
	a.do(t, "MetricService/CreateMetric", refundRate)
	a.startPricing(t, "pricing", "METHOD_FIXED_HORIZON")
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"key":"draft","metrics":[]`))
	invalid := func(name, patch, says string, fields ...string) refusal {
		return refusal{name, planExperiment, with(plan, patch), codes.InvalidArgument, fields, says}
	}
	const mean = `"proportion":null,"mean":{"mean":10,"standard_deviation":30},`
	const equivalence = mean + `"objective":"OBJECTIVE_EQUIVALENCE","minimum_effect":null,`
	history := func(metric string) string { return `"proportion":null,"metric":` + metric }
	a.refuses(t, []refusal{
		invalid("nothing to answer", `"subjects":"100"`, "must be left out", "minimum_effect", "power", "subjects"),
		invalid("two to answer", `"power":null`, "only one of", "power", "subjects"),
		invalid("three to answer", `"power":null,"minimum_effect":null`, "only one of", "minimum_effect", "power", "subjects"),
		invalid("non-inferiority with nothing to answer", mean+`"objective":"OBJECTIVE_NON_INFERIORITY","margin":{"absolute":1},"subjects":"9"`, "subjects and power", "power", "subjects"),
		invalid("non-inferiority with two to answer", mean+`"objective":"OBJECTIVE_NON_INFERIORITY","margin":{"absolute":1},"power":null`, "subjects and power", "power", "subjects"),
		invalid("days and subjects", `"power":null,"subjects":"100","days":10,"subjects_per_day":10`, "beside subjects", "days"),
		invalid("days without traffic", `"power":null,"days":10`, "subjects_per_day", "days"),
		invalid("days without subjects", `"power":null,"days":1,"subjects_per_day":0.9`, "no subject comes", "days"),
		invalid("fewer days than none", `"power":null,"days":-1,"subjects_per_day":10`, "", "days"),
		invalid("days with nothing to answer", `"days":10,"subjects_per_day":10`, "must be left out", "minimum_effect", "power", "subjects"),
		invalid("no baseline", `"proportion":null`, "", "baseline"),
		invalid("no rate", `"proportion":1`, "", "proportion"),
		invalid("power of the error rate", `"power":0.05`, "exceed the error rate of 0.05", "power"),
		invalid("power and confidence", `"power":0.25,"plan":{"confidence_level":0.7}`, "0.3", "power"),
		invalid("sure power", `"power":1`, "", "power"),
		invalid("no effect", `"minimum_effect":{"relative":0}`, "greater than 0", "minimum_effect"),
		invalid("an effect beyond rates", `"minimum_effect":{"relative":9.5}`, "from 0.1 to 1.05", "minimum_effect"),
		invalid("an effect beyond rates downwards", `"proportion":0.9,"minimum_effect":{"absolute":0.91}`, "from 0.9 to -0.01", "minimum_effect"),
		invalid("an effect that is too small", mean+`"minimum_effect":{"absolute":1e-7}`, "1000000000000 subjects", "minimum_effect"),
		invalid("an effect that is too large", mean+`"minimum_effect":{"absolute":1e200}`, "too large", "minimum_effect"),
		invalid("an effect relative to nothing", `"proportion":null,"mean":{"standard_deviation":1}`, "baseline of 0", "minimum_effect"),
		invalid("too few subjects", `"minimum_effect":null,"subjects":"3"`, "at least 4", "subjects"),
		invalid("too few subjects for any effect", `"minimum_effect":null,"subjects":"4","plan":{"confidence_level":0.9999}`, "any possible effect", "subjects"),
		invalid("too few subjects for the weights", `"minimum_effect":null,"subjects":"1000","weights":[999,1]`, "at least 2000", "subjects"),
		invalid("one weight", `"weights":[1]`, "two variants", "weights"),
		invalid("a weight of nothing", `"weights":[1,0]`, "", "weights[1]"),
		invalid("weights too far apart", `"weights":[1e300,1e-300]`, "without two subjects", "weights"),
		invalid("a margin for a difference", `"margin":{"absolute":1}`, "only non-inferiority", "margin"),
		invalid("no margin", equivalence+`"objective":"OBJECTIVE_EQUIVALENCE"`, "margin greater than 0", "margin"),
		invalid("a margin of 0", equivalence+`"margin":{"absolute":0}`, "margin greater than 0", "margin"),
		invalid("a margin that is too small", equivalence+`"margin":{"absolute":1e-7}`, "1000000000000 subjects", "margin"),
		invalid("an effect at the margin", equivalence+`"margin":{"relative":0.1},"minimum_effect":{"absolute":1}`, "below the margin", "minimum_effect"),
		invalid("a rate of 0 and a margin of the lift", `"objective":"OBJECTIVE_NON_INFERIORITY","proportion":0.9,"minimum_effect":{"relative":1},"margin":{"relative":0.1}`, "no variance", "minimum_effect"),
		invalid("no deviation", `"proportion":null,"mean":{"mean":1}`, "", "mean.standard_deviation"),
		invalid("no denominator", `"proportion":null,"ratio":{"numerator_mean":1,"numerator_variance":1}`, "", "ratio.denominator_mean"),
		invalid("an impossible ratio", `"proportion":null,"weights":[1],"ratio":{"numerator_mean":1,"denominator_mean":1,"numerator_variance":1,"denominator_variance":1,"covariance":-2}`,
			"no subjects can have", "ratio", "weights"),
		invalid("a full correlation", `"covariate_correlation":1`, "", "covariate_correlation"),
		invalid("two kinds of covariates", history(`{"metric":"order_value","experiment":"pricing","covariates":["past_spend"]},"covariate_correlation":0.5`), "", "covariate_correlation"),
		invalid("an unknown covariate", history(`{"metric":"order_value","experiment":"pricing","covariates":["past_spend","age"]}`), `no covariate "age"`, "metric.covariates[1]"),
		{"an unknown metric", planExperiment, with(plan, history(`{"metric":"none","experiment":"pricing"}`)), codes.NotFound, []string{"METRIC_NOT_FOUND"}, ""},
		{"an unknown experiment", planExperiment, with(plan, history(`{"metric":"order_value","experiment":"none"}`)), codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, ""},
		{"a draft", planExperiment, with(plan, history(`{"metric":"order_value","experiment":"draft"}`)), codes.FailedPrecondition, []string{"EXPERIMENT_NOT_STARTED"}, ""},
		{"no history", planExperiment, with(plan, history(`{"metric":"refund_rate","experiment":"pricing"}`)), codes.FailedPrecondition, []string{"NO_HISTORY"}, "no subjects"},
	})
}
