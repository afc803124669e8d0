package server_test

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

const (
	purchaseRate = `{"metric":{"key":"purchase_rate","direction":"DIRECTION_INCREASE","proportion":{"outcome":"purchase"},"window":"1209600s"}}`
	revenue      = `{"metric":{"key":"revenue","direction":"DIRECTION_INCREASE","sum":{"outcome":"purchase"},"window":"1209600s"}}`
	orderValue   = `{"metric":{"key":"order_value","direction":"DIRECTION_INCREASE","window":"1209600s",
   "formula":{"expression":"revenue / orders",
     "components":[{"name":"revenue","outcome":"purchase","aggregate":"AGGREGATE_SUM"},
                   {"name":"orders","outcome":"purchase","aggregate":"AGGREGATE_COUNT",
                    "conditions":[{"field":"value","op":"OP_GREATER","values":["0"]}]}]}}}`
	refundRate = `{"metric":{"key":"refund_rate","direction":"DIRECTION_DECREASE","proportion":{"outcome":"refund"},"window":"1209600s"}}`

	checkoutCopy = `{"experiment":{"key":"checkout-copy","unit":"user","owner":"growth","description":"…",
  "hypothesis":{"statement":"…","null_hypothesis":"…"},
  "variants":[{"key":"control","control":true,"weight":1},
              {"key":"short","weight":1,"payload":{"title":"Pay now"}}],
  "eligibility":"attributes.country == 'PL' && attributes.age >= 18",
  "traffic":0.5,"labels":{"team":"growth"},
  "segments":["country"],"covariates":[{"name":"past_spend","attribute":"past_spend"}],
  "metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY"},
             {"metric":"revenue","role":"METRIC_ROLE_SECONDARY","covariates":["past_spend"]},
             {"metric":"refund_rate","role":"METRIC_ROLE_GUARDRAIL","margin":{"absolute":0.01}}],
  "plan":{"method":"METHOD_ALWAYS_VALID","confidence_level":0.95,"minimum_effect":{"relative":0.02},"planned_subjects":"20000"}}}`
)

// createCheckoutCopy makes the experiment of the examples and its metrics.
func (a *api) createCheckoutCopy(tb testing.TB) {
	tb.Helper()
	for _, m := range []string{purchaseRate, revenue, orderValue, refundRate} {
		a.do(tb, "MetricService/CreateMetric", m)
	}
	a.do(tb, "ExperimentService/CreateExperiment", checkoutCopy)
}

// TestExamples makes the calls that the design shows, as they are typed there
// and in their order.
func TestExamples(t *testing.T) {
	a := newAPI(t)
	a.createCheckoutCopy(t)
	a.do(t, "ExperimentService/StartExperiment", `{"key":"checkout-copy"}`)
	a.expect(t, "AssignmentService/Assign",
		`{"subject":{"key":"u-1","attributes":{"country":"PL","age":31}},"experiments":["checkout-copy"],"exposure_recording":"EXPOSURE_RECORDING_BEST_EFFORT"}`,
		`{"assignments":[{"experiment":"checkout-copy","variant":"short","reason":"REASON_SPLIT","payload":{"title":"Pay now"},"revision":1}]}`)

	exposure := `{"exposures":[{"experiment":"checkout-copy","variant":"short","subject":{"key":"u-1","attributes":{"country":"PL"}},"exposed_time":"2026-01-05T10:00:00Z"}]}`
	a.expect(t, "EventService/RecordExposures", exposure, `{"recorded":1,"duplicates":0,"rejected":[]}`)
	a.expect(t, "EventService/RecordExposures", exposure, `{"recorded":0,"duplicates":1}`)
	outcome := `{"outcomes":[{"event_id":"order-991","subject":{"key":"u-1"},"name":"purchase","value":49.9,"occurred_time":"2026-01-05T10:03:00Z","properties":{"sku":"A1"}}]}`
	a.expect(t, "EventService/RecordOutcomes", outcome, `{"recorded":1,"duplicates":0,"rejected":[]}`)
	a.expect(t, "EventService/RecordOutcomes", outcome, `{"recorded":0,"duplicates":1}`)

	request := `{"experiment":"checkout-copy","segments":["country"],"as_of_time":"2026-01-20T00:00:00Z"}`
	analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", request)
	if analysis.AsOfTime.AsTime() != time.Date(2026, 1, 20, 0, 0, 0, 0, time.UTC) {
		t.Errorf("as of %v", analysis.AsOfTime.AsTime())
	}
	// Nothing had been recorded by then.
	if got := analysis.Metrics[0].Arms[1].Subjects; got != 0 {
		t.Errorf("%d subjects before anything was recorded", got)
	}
	var metrics []string
	for _, m := range call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"checkout-copy","segments":["country"],"metrics":["order_value"]}`).Metrics {
		metrics = append(metrics, m.Metric)
		if got := m.Arms[1].Subjects; got != 1 {
			t.Errorf("%s: %d subjects met the short variant, want 1", m.Metric, got)
		}
		if len(m.Segments) != 1 || m.Segments[0].Value != "PL" {
			t.Errorf("%s: segments %v", m.Metric, m.Segments)
		}
	}
	if diff := cmp.Diff([]string{"purchase_rate", "revenue", "refund_rate", "order_value"}, metrics); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// TestExampleSummaries is the design's CompareSummaries with its gaps filled
// in.
func TestExampleSummaries(t *testing.T) {
	a := newAPI(t)
	got := call[*assayv1.CompareSummariesResponse](t, a, "AnalysisService/CompareSummaries", compareSummaries)
	c := got.Comparisons[0]
	if c.Variant != "short" || c.Baseline != "control" || c.PValue == nil || c.AdjustedPValue == nil {
		t.Errorf("the comparison lacks figures: %v", c)
	}
	if got, want := c.Unadjusted.GetDifference().GetEstimate(), 5.6/0.41-5.1/0.4; math.Abs(got-want) > 1e-12 {
		t.Errorf("unadjusted difference %v, want %v", got, want)
	}
	// By the gradient (2.5, −31.9) of the control's ratio its variance is 664 and
	// its covariance with the covariate 80: 80²/(664·99) is 9.7 %.
	if r := c.GetVarianceReduction(); r < 0.08 || r > 0.11 || c.GetStandardError() >= c.Unadjusted.GetStandardError() {
		t.Errorf("the covariate removed %v of the variance", c.GetVarianceReduction())
	}
	if got.Arms[0].Subjects != 1000 || got.Arms[1].Subjects != 1010 {
		t.Errorf("arms %v", got.Arms)
	}
}

const compareSummaries = `{"components":["revenue","orders","revenue_before"],"formula":"revenue / orders","covariates":["revenue_before"],
 "arms":[{"variant":"control","control":true,"strata":[{"stratum":"","subjects":"1000","means":[5.1,0.4,4.9],"covariances":[104,3.1,60,0.5,2.2,99]}]},
         {"variant":"short","strata":[{"stratum":"","subjects":"1010","means":[5.6,0.41,4.8],"covariances":[110,3.2,61,0.52,2.1,98]}]}],
 "plan":{"method":"METHOD_FIXED_HORIZON","confidence_level":0.95},"alternative":"ALTERNATIVE_TWO_SIDED","margin":{"absolute":0}}`
