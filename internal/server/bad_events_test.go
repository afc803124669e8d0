package server_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// newText returns properties of about n bytes.
func newText(n int) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewStringValue(strings.Repeat("x", n))}}
}

// TestOddTimesOfExposures sends what JSON cannot say, among exposures that are
// recorded.
func TestOddTimesOfExposures(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL"`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	req := &assayv1.RecordExposuresRequest{}
	var rejected []*assayv1.Rejection
	for i, tt := range []struct {
		at *timestamppb.Timestamp
		ok bool
	}{
		{&timestamppb.Timestamp{}, true},
		{timestamppb.New(time.Now().Add(4 * time.Minute)), true},
		{timestamppb.New(time.Now().Add(6 * time.Minute)), false},
		{timestamppb.New(time.Date(300000, 1, 1, 0, 0, 0, 0, time.UTC)), false},
		{&timestamppb.Timestamp{Seconds: -1, Nanos: 999_999_999}, false},
		{&timestamppb.Timestamp{Nanos: -1}, false},
		{&timestamppb.Timestamp{Nanos: 1_000_000_000}, false},
		{&timestamppb.Timestamp{Seconds: math.MaxInt64}, false},
		{&timestamppb.Timestamp{Seconds: math.MinInt64}, false},
	} {
		req.Exposures = append(req.Exposures, &assayv1.Exposure{Experiment: "plain", Variant: "a", Subject: &assayv1.Subject{Key: fmt.Sprint(i)}, ExposedTime: tt.at})
		if !tt.ok {
			rejected = append(rejected, &assayv1.Rejection{Index: int32(i), Reason: invalidField, Field: "exposed_time"})
		}
	}
	got, err := a.events.RecordExposures(t.Context(), req)
	if err != nil || got.Recorded != 2 {
		t.Errorf("recorded %d, want 2: %v", got.GetRecorded(), err)
	}
	checkRejected(t, got.GetRejected(), rejected)
}

// TestLargeMessages sends more than a message may hold. gRPC refuses what is
// too long, unread, and the server goes on; many small items are refused as
// such.
func TestLargeMessages(t *testing.T) {
	a := newAPI(t)
	long := []*assayv1.Outcome{{Properties: newText(4 << 20)}}
	_, err := a.events.RecordOutcomes(t.Context(), &assayv1.RecordOutcomesRequest{Outcomes: long})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message that is too long: %v", err)
	}
	s := a.stream(t).send(`{"sequence":"1","outcomes":[{"event_id":"e","subject":{"key":"u"},"name":"purchase","occurred_time":"2026-01-05T10:03:00Z"}]}`)
	s.expect(`{"sequence":"1","recorded":1}`) // What is not acknowledged by then never is.
	if err := s.Send(&assayv1.StreamEventsRequest{Sequence: 2, Outcomes: long}); err != nil {
		t.Fatal(err)
	}
	if err := s.end(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of a stream that is too long: %v", err)
	}
	tiny := make([]*assayv1.Outcome, 100_000)
	_, err = a.events.RecordOutcomes(t.Context(), &assayv1.RecordOutcomesRequest{Outcomes: tiny})
	checkRefusal(t, err, codes.InvalidArgument, "", "outcomes")
	s = a.stream(t)
	if err := s.Send(&assayv1.StreamEventsRequest{Sequence: 1, Outcomes: tiny}); err != nil {
		t.Fatal(err)
	}
	checkRefusal(t, s.end(), codes.InvalidArgument, "", "outcomes")

	// What fits is stored, up to the last byte of its properties.
	var batch []*assayv1.Outcome
	for i := range 490 {
		batch = append(batch, &assayv1.Outcome{EventId: fmt.Sprint(i), Subject: &assayv1.Subject{Key: "u"}, Name: "purchase",
			OccurredTime: timestamppb.New(exposedAt), Properties: newText(8<<10 - len(`{"x":""}`))})
	}
	got, err := a.events.RecordOutcomes(t.Context(), &assayv1.RecordOutcomesRequest{Outcomes: batch})
	if err != nil || got.Recorded != 490 {
		t.Errorf("4 MB of properties: %v, %v", got, err)
	}
}

// TestNamesAreBytes records names that look alike.
func TestNamesAreBytes(t *testing.T) {
	a := newAPI(t)
	for _, name := range []string{"café", "cafe\u0301", "Café", "CAFÉ", "café "} {
		a.expect(t, "EventService/RecordOutcomes", fmt.Sprintf(
			`{"outcomes":[{"event_id":%q,"subject":{"key":"u"},"name":%[1]q,"occurred_time":"2026-01-05T10:03:00Z"}]}`, name), `{"recorded":1}`)
	}
	// The identity is known: with a name of the same look it is a conflict.
	got := call[*assayv1.RecordOutcomesResponse](t, a, "EventService/RecordOutcomes",
		`{"outcomes":[{"event_id":"café","subject":{"key":"u"},"name":"cafe\u0301","occurred_time":"2026-01-05T10:03:00Z"}]}`)
	checkRejected(t, got.Rejected, []*assayv1.Rejection{{Reason: conflict, Field: "event_id"}})
	a.do(t, "MetricService/CreateMetric", newMetric(`"proportion":{"outcome":"cafe\u0301"}`))
	if got := call[*assayv1.GetMetricResponse](t, a, "MetricService/GetMetric", `{"key":"m"}`).Metric.GetProportion().Outcome; got != "cafe\u0301" {
		t.Errorf("a metric of %q is of %q", "cafe\u0301", got)
	}
}
