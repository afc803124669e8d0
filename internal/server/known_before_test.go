package server_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/testing/protocmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// Every tenth subject of one arm sends back an order from before its exposure
// after it: the covariate is what was known before, and nothing changes. What is
// sent back before exposure was known.
func TestRefundsAfterExposureAreNotKnownBefore(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", `{"metric":{"key":"spend","direction":"DIRECTION_INCREASE","sum":{"outcome":"order"},"window":"604800s"}}`)
	a.do(t, "ExperimentService/CreateExperiment", `{"experiment":{"key":"e","assignment":"ASSIGNMENT_EXTERNAL","variants":[{"key":"a","control":true},{"key":"b"}],
		"covariates":[{"name":"past","past_outcomes":{"outcome":"order","aggregate":"AGGREGATE_SUM","window":"864000s"}}],
		"metrics":[{"metric":"spend","role":"METRIC_ROLE_PRIMARY","covariates":["past"]}]}}`)
	a.do(t, "ExperimentService/StartExperiment", `{"key":"e"}`)
	var exposures, orders list
	refunds := func(event, occurred string) (items list) {
		for i := 1; i < 400; i += 20 {
			items.add(`{"event_id":"%s","subject":{"key":"%d"},"name":"order","value":-20,"occurred_time":"%s","corrects_event_id":"pre","corrects_occurred_time":"2026-01-05T00:00:00Z"}`, event, i, occurred)
		}
		return items
	}
	for i := range 400 {
		exposures.add(`{"experiment":"e","variant":"%c","subject":{"key":"%d"},"exposed_time":"2026-01-10T00:00:00Z"}`, "ab"[i%2], i)
		spent := 20 + i/2%5*40
		orders.add(`{"event_id":"pre","subject":{"key":"%d"},"name":"order","value":%d,"occurred_time":"2026-01-05T00:00:00Z"}`, i, spent)
		orders.add(`{"event_id":"post","subject":{"key":"%d"},"name":"order","value":%d,"occurred_time":"2026-01-12T00:00:00Z"}`, i, spent+i/2%7)
	}
	a.do(t, "EventService/RecordExposures", exposures.of("exposures"))
	analyse := func(items list) *assayv1.AnalyzeExperimentResponse {
		a.do(t, "EventService/RecordOutcomes", items.of("outcomes"))
		return call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"e"}`)
	}
	before := analyse(orders)
	after := analyse(refunds("after", "2026-01-14T00:00:00Z"))
	if diff := cmp.Diff(before.Metrics[0].Comparisons, after.Metrics[0].Comparisons, protocmp.Transform(), cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("refunds after exposure (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(before.Balance, after.Balance, protocmp.Transform(), cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("balance (-before +after):\n%s", diff)
	}
	if d := after.Metrics[0].Comparisons[0].Difference.GetEstimate(); d < -1e-9 || d > 1e-9 || after.Verdict.Action == assayv1.VerdictAction_VERDICT_ACTION_SHIP {
		t.Errorf("difference %g, verdict %s, want none", d, after.Verdict.Action)
	}
	known := analyse(refunds("before", "2026-01-08T00:00:00Z"))
	if *known.Balance[0].StandardizedDifference >= *before.Balance[0].StandardizedDifference {
		t.Errorf("refunds before exposure leave the balance at %g", *known.Balance[0].StandardizedDifference)
	}
}

// list is items of a request.
type list string

func (l *list) add(format string, args ...any) {
	if *l != "" {
		*l += ","
	}
	*l += list(fmt.Sprintf(format, args...))
}

// of is the request whose field they are.
func (l list) of(field string) string { return fmt.Sprintf(`{"%s":[%s]}`, field, string(l)) }
