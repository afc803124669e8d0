package server_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/testing/protocmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// TestObjectives takes every objective through the database, and as aggregates
// with the alternative that asks the same.
func TestObjectives(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", strings.Replace(orderValue, "INCREASE", "DECREASE", 1))
	for i, tt := range []struct {
		objective   string // And margin.
		alternative string
		kind        assayv1.Objective
	}{
		{`"OBJECTIVE_DIFFERENCE"`, `"alternative":"ALTERNATIVE_TWO_SIDED"`, assayv1.Objective_OBJECTIVE_DIFFERENCE},
		{`"OBJECTIVE_SUPERIORITY"`, `"alternative":"ALTERNATIVE_LESS"`, assayv1.Objective_OBJECTIVE_SUPERIORITY},
		{`"OBJECTIVE_NON_INFERIORITY","margin":{"absolute":3}`, `"alternative":"ALTERNATIVE_LESS","margin":{"absolute":3}`, assayv1.Objective_OBJECTIVE_NON_INFERIORITY},
		{`"OBJECTIVE_EQUIVALENCE","margin":{"relative":0.2}`, `"alternative":"ALTERNATIVE_EQUIVALENT","margin":{"relative":0.2}`, assayv1.Objective_OBJECTIVE_EQUIVALENCE},
	} {
		t.Run(tt.kind.String(), func(t *testing.T) {
			key := fmt.Sprint("e", i)
			made := call[*assayv1.CreateExperimentResponse](t, a, "ExperimentService/CreateExperiment", strings.Replace(fmt.Sprintf(pricing, key, "METHOD_FIXED_HORIZON"),
				`"covariates":["past_spend"]}]`, `"covariates":["past_spend"],"objective":`+tt.objective+`}]`, 1)).Experiment
			a.do(t, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
			shoppers := a.shop(t, key, 300)
			analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", fmt.Sprintf(`{"experiment":%q}`, key))
			result := analysis.Metrics[0]
			if made.Metrics[0].Objective != tt.kind || result.Objective != tt.kind || !cmp.Equal(made.Metrics[0].Margin, result.Margin, protocmp.Transform()) {
				t.Errorf("defined %v, analysed for %v with the margin %v", made.Metrics[0], result.Objective, result.Margin)
			}
			ask := newRequest(t, "AnalysisService/CompareSummaries", `{"components":["revenue","orders","past_spend"],"formula":"revenue / orders","covariates":["past_spend"],`+
				tt.alternative+`}`).(*assayv1.CompareSummariesRequest)
			ask.Plan = analysis.Plan
			for _, variant := range []string{"control", "low", "high"} {
				ask.Arms = append(ask.Arms, summaryOf(shoppers, variant))
			}
			compared, err := a.analysis.CompareSummaries(t.Context(), ask)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(compared.Comparisons, result.Comparisons, protocmp.Transform(), cmpopts.EquateApprox(1e-9, 0),
				protocmp.IgnoreFields(&assayv1.Comparison{}, "notes")); diff != "" {
				t.Errorf("AnalyzeExperiment differs from CompareSummaries (-summaries +experiment):\n%s", diff)
			}
		})
	}
}

// TestBayesian takes a proportion through the database, and as aggregates whose
// prior says that they are rates.
func TestBayesian(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", `{"experiment":{"key":"b","variants":[{"key":"control","control":true},{"key":"low"}],
		"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY","objective":"OBJECTIVE_SUPERIORITY"}],
		"plan":{"method":"METHOD_BAYESIAN","prior":{"alpha":2,"beta":3}}}}`)
	a.do(t, "ExperimentService/StartExperiment", `{"key":"b"}`)
	shoppers := a.shop(t, "b", 300)
	analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"b"}`)
	ask := &assayv1.CompareSummariesRequest{Components: []string{"bought"}, Plan: analysis.Plan, Alternative: assayv1.Alternative_ALTERNATIVE_GREATER}
	for _, variant := range []string{"control", "low"} {
		n, bought := 0.0, 0.0
		for _, s := range shoppers {
			if s.variant == variant {
				n++
				if s.numbers[1] > 0 {
					bought++
				}
			}
		}
		p := bought / n
		ask.Arms = append(ask.Arms, &assayv1.SummaryArm{Variant: variant, Control: variant == "control", Strata: []*assayv1.SummaryStratum{
			{Subjects: int64(n), Means: []float64{p}, Covariances: []float64{p * (1 - p) * n / (n - 1)}},
		}})
	}
	compared, err := a.analysis.CompareSummaries(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(compared.Comparisons, analysis.Metrics[0].Comparisons, protocmp.Transform(), cmpopts.EquateApprox(1e-9, 0)); diff != "" {
		t.Errorf("AnalyzeExperiment differs from CompareSummaries (-summaries +experiment):\n%s", diff)
	}
	c := compared.Comparisons[0]
	if c.ChanceToWin == nil || c.ExpectedLoss == nil || c.PValue != nil || c.Difference.Lower == nil || c.Difference.Upper != nil || c.Lift.Lower == nil {
		t.Errorf("the comparison has other figures: %v", c)
	}
}
