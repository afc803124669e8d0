package server_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// A refund after the window has closed counts in the window of the order that it
// corrects, and an analysis of a moment before it knows nothing of it.
func TestCorrections(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", `{"metric":{"key":"revenue","direction":"DIRECTION_INCREASE","sum":{"outcome":"purchase"},"window":"86400s"}}`)
	a.do(t, "MetricService/CreateMetric", `{"metric":{"key":"buyers","direction":"DIRECTION_INCREASE","window":"86400s","formula":{"expression":"n","components":[
		{"name":"n","outcome":"purchase","aggregate":"AGGREGATE_ANY","conditions":[{"field":"value","op":"OP_GREATER","values":["0"]}]}]}}}`)
	a.do(t, "ExperimentService/CreateExperiment", `{"experiment":{"key":"e","assignment":"ASSIGNMENT_EXTERNAL",
		"variants":[{"key":"a","control":true},{"key":"b"}],"metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"},{"metric":"buyers","role":"METRIC_ROLE_SECONDARY"}]}}`)
	a.do(t, "ExperimentService/StartExperiment", `{"key":"e"}`)
	a.do(t, "EventService/RecordExposures", `{"exposures":[
		{"experiment":"e","variant":"a","subject":{"key":"u-1"},"exposed_time":"2026-01-05T10:00:00Z"},
		{"experiment":"e","variant":"a","subject":{"key":"u-2"},"exposed_time":"2026-01-05T10:00:00Z"}]}`)

	record := func(outcomes string, recorded, duplicates int32, rejected ...*assayv1.Rejection) {
		t.Helper()
		resp := call[*assayv1.RecordOutcomesResponse](t, a, "EventService/RecordOutcomes", `{"outcomes":[`+outcomes+`]}`)
		if resp.Recorded != recorded || resp.Duplicates != duplicates {
			t.Errorf("%d recorded and %d known, want %d and %d", resp.Recorded, resp.Duplicates, recorded, duplicates)
		}
		checkRejected(t, resp.Rejected, rejected)
	}
	const refund = `{"event_id":"refund-1","subject":{"key":"u-1"},"name":"purchase","value":-30,"occurred_time":"2026-03-01T10:00:00Z",
		"corrects_event_id":"order-1","corrects_occurred_time":"2026-01-05T11:00:00Z"}`
	record(`{"event_id":"order-1","subject":{"key":"u-1"},"name":"purchase","value":50,"occurred_time":"2026-01-05T11:00:00Z"}`, 1, 0)
	before := time.Now()
	record(refund, 1, 0)
	record(refund, 0, 1)
	record(`{"event_id":"refund-1","subject":{"key":"u-1"},"name":"purchase","value":-31,"occurred_time":"2026-03-01T10:00:00Z",
		"corrects_event_id":"order-1","corrects_occurred_time":"2026-01-05T11:00:00Z"}`, 0, 0,
		&assayv1.Rejection{Reason: assayv1.RejectionReason_REJECTION_REASON_CONFLICT, Field: "event_id"})
	// The cancellation comes before the order that it cancels.
	record(`{"event_id":"cancel-2","subject":{"key":"u-2"},"name":"purchase","value":-20,"occurred_time":"2026-01-06T10:00:00Z",
		"corrects_event_id":"order-2","corrects_occurred_time":"2026-01-05T12:00:00Z"}`, 1, 0)

	totals := func(asOf time.Time, revenue, buyers float64) {
		t.Helper()
		req := &assayv1.AnalyzeExperimentRequest{Experiment: "e"}
		if !asOf.IsZero() {
			req.AsOfTime = timestamppb.New(asOf)
		}
		got, err := a.analysis.AnalyzeExperiment(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if x, y := got.Metrics[0].Arms[0].GetTotal(), got.Metrics[1].Arms[0].GetTotal(); x != revenue || y != buyers {
			t.Errorf("revenue %g and %g buyers, want %g and %g", x, y, revenue, buyers)
		}
	}
	totals(time.Time{}, 20, 1)
	record(`{"event_id":"order-2","subject":{"key":"u-2"},"name":"purchase","value":20,"occurred_time":"2026-01-05T12:00:00Z"}`, 1, 0)
	totals(time.Time{}, 20, 1)
	totals(before, 50, 1)
}

// What corrects a correction would count nowhere, and is refused: by either time of
// that, in the same batch and later. Another event of its id may be corrected.
func TestCorrectionsOfCorrections(t *testing.T) {
	a := newAPI(t)
	record := func(recorded int32, rejected []int32, outcomes string) {
		t.Helper()
		resp := call[*assayv1.RecordOutcomesResponse](t, a, "EventService/RecordOutcomes", `{"outcomes":[`+outcomes+`]}`)
		var want []*assayv1.Rejection
		for _, i := range rejected {
			want = append(want, &assayv1.Rejection{Index: i, Reason: assayv1.RejectionReason_REJECTION_REASON_INVALID_FIELD, Field: "corrects_event_id"})
		}
		if checkRejected(t, resp.Rejected, want); resp.Recorded != recorded {
			t.Errorf("%d recorded, want %d", resp.Recorded, recorded)
		}
	}
	item := func(event, occurred, corrects, correctsOccurred string) string {
		text := `{"event_id":"` + event + `","subject":{"key":"u"},"name":"purchase","value":1,"occurred_time":"` + occurred + `"`
		if corrects != "" {
			text += `,"corrects_event_id":"` + corrects + `","corrects_occurred_time":"` + correctsOccurred + `"`
		}
		return text + "}"
	}
	const ordered, refunded, later = "2026-01-05T11:00:00Z", "2026-01-06T11:00:00Z", "2026-01-07T11:00:00Z"
	record(2, nil, item("order", ordered, "", "")+","+item("refund", refunded, "order", ordered))
	record(0, []int32{0, 1}, item("again", later, "refund", refunded)+","+item("again", later, "refund", ordered))
	record(1, []int32{1, 2}, item("refund2", refunded, "order", ordered)+","+item("again2", later, "refund2", refunded)+","+item("again3", later, "refund2", ordered))
	record(1, nil, item("again", later, "order", ordered))
	// An outcome with the id of a correction, at that one's time.
	record(1, nil, item("refund", refunded, "", ""))
	record(1, nil, item("of the outcome", later, "refund", refunded))
}

func TestRejectedCorrections(t *testing.T) {
	a := newAPI(t)
	for field, item := range map[string]string{
		"corrects_event_id":      `"value":1,"corrects_occurred_time":"2026-01-05T11:00:00Z"`,
		"corrects_occurred_time": `"value":1,"corrects_event_id":"order"`,
		"value":                  `"corrects_event_id":"order","corrects_occurred_time":"2026-01-05T11:00:00Z"`,
	} {
		resp := call[*assayv1.RecordOutcomesResponse](t, a, "EventService/RecordOutcomes",
			`{"outcomes":[{"event_id":"x","subject":{"key":"u"},"name":"purchase","occurred_time":"2026-01-06T10:00:00Z",`+item+`}]}`)
		checkRejected(t, resp.Rejected, []*assayv1.Rejection{{Reason: assayv1.RejectionReason_REJECTION_REASON_INVALID_FIELD, Field: field}})
	}
	resp := call[*assayv1.RecordOutcomesResponse](t, a, "EventService/RecordOutcomes",
		`{"outcomes":[{"event_id":"x","subject":{"key":"u"},"name":"purchase","value":1,"occurred_time":"2026-01-06T10:00:00Z",
		"corrects_event_id":"x","corrects_occurred_time":"2026-01-05T11:00:00Z"}]}`)
	checkRejected(t, resp.Rejected, []*assayv1.Rejection{{Reason: assayv1.RejectionReason_REJECTION_REASON_INVALID_FIELD, Field: "corrects_event_id"}})
}
