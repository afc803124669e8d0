package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

const (
	perCall = assayv1.RejectionReason_REJECTION_REASON_NEW_NAMES_PER_CALL
	perHour = assayv1.RejectionReason_REJECTION_REASON_NEW_NAMES_PER_HOUR
)

// ofNames returns an outcome of each of the names "prefix 00000" and so on.
func ofNames(prefix string, n int) []*assayv1.Outcome {
	outcomes := make([]*assayv1.Outcome, n)
	for i := range outcomes {
		outcomes[i] = &assayv1.Outcome{EventId: fmt.Sprint(prefix, i), Subject: &assayv1.Subject{Key: "u"},
			Name: fmt.Sprintf("%s %05d", prefix, i), OccurredTime: timestamppb.New(exposedAt)}
	}
	return outcomes
}

func (a *api) recordOutcomes(t *testing.T, outcomes []*assayv1.Outcome) *assayv1.RecordOutcomesResponse {
	t.Helper()
	resp, err := a.events.RecordOutcomes(t.Context(), &assayv1.RecordOutcomesRequest{Outcomes: outcomes})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// namesRefused is what the server counted of outcomes of new names.
func (a *api) namesRefused(t *testing.T, reason string) (n float64) {
	t.Helper()
	families, err := a.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "assay_outcome_names_refused_total" && m.Label[0].GetValue() == reason {
				n += m.Counter.GetValue()
			}
		}
	}
	return n
}

// TestNewNamesPerCall sends a call, and a batch of a stream, of many new names beside
// a known one.
func TestNewNamesPerCall(t *testing.T) {
	a := newAPI(t)
	known := ofNames("known", 1)
	a.recordOutcomes(t, known)
	junk := append(ofNames("junk", 10_000-1), known...)
	junk[0].Value = new(float64)
	*junk[0].Value = 1e200 // It breaks another rule, and its name does not count.
	got := a.recordOutcomes(t, junk)
	if got.Recorded != 100 || got.Duplicates != 1 || len(got.Rejected) != 9899 {
		t.Errorf("%d recorded, %d duplicates, %d rejected", got.Recorded, got.Duplicates, len(got.Rejected))
	}
	checkRejected(t, got.Rejected[:3], []*assayv1.Rejection{{Index: 0, Reason: invalidField, Field: "value"},
		{Index: 101, Reason: perCall, Field: "name", RetryDelay: &durationpb.Duration{}}, {Index: 102, Reason: perCall, Field: "name", RetryDelay: &durationpb.Duration{}}})
	if said := got.Rejected[1].Message; !strings.Contains(said, "100 new outcome names") || !strings.Contains(said, "in another") {
		t.Errorf("it says %q", said)
	}
	if n := a.namesRefused(t, "NEW_NAMES_PER_CALL"); n != 9898 {
		t.Errorf("%v are counted", n)
	}
	if got := a.recordOutcomes(t, junk[101:201]); got.Recorded != 100 {
		t.Errorf("sent again: %d recorded, %v", got.Recorded, got.Rejected)
	}

	stream, err := a.events.StreamEvents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&assayv1.StreamEventsRequest{Sequence: 1, Outcomes: ofNames("streamed", 101)}); err != nil {
		t.Fatal(err)
	}
	ack, err := stream.Recv()
	if err != nil || ack.Recorded != 100 {
		t.Fatalf("%v, %v", ack, err)
	}
	checkRejected(t, ack.RejectedOutcomes, []*assayv1.Rejection{{Index: 100, Reason: perCall, Field: "name", RetryDelay: &durationpb.Duration{}}})
}

// TestNewNamesPerHour takes what is admitted in an hour. What a metric counts is
// recorded all the same, and all that is known.
func TestNewNamesPerHour(t *testing.T) {
	a := newAPI(t)
	for i := range 10 {
		if got := a.recordOutcomes(t, ofNames(fmt.Sprint("junk ", i), 100)); got.Recorded != 100 {
			t.Fatalf("call %d: %v", i, got)
		}
	}
	got := a.recordOutcomes(t, append(ofNames("signup", 1), ofNames("junk 7", 1)...)).Rejected
	if len(got) != 1 || got[0].Reason != perHour || got[0].Index != 0 || got[0].Field != "name" {
		t.Fatalf("rejected: %v", got)
	}
	if d := got[0].RetryDelay.AsDuration(); d <= 0 || d > time.Hour || !strings.Contains(got[0].Message, "send the outcome again in "+d.String()) {
		t.Errorf("in %v, and it says %q", d, got[0].Message)
	}
	if n := a.namesRefused(t, "NEW_NAMES_PER_HOUR"); n != 1 {
		t.Errorf("%v are counted", n)
	}
	a.do(t, "MetricService/CreateMetric", newMetric(`"proportion":{"outcome":"signup 00000"}`))
	// Within a second, in which a server takes the limit for what it was.
	for a.recordOutcomes(t, ofNames("signup", 1)).Recorded == 0 {
		time.Sleep(10 * time.Millisecond)
	}
}

// TestOutcomeNamesInAll fills the names, sends a flood, and makes room for one.
func TestOutcomeNamesInAll(t *testing.T) {
	a, address := newAPIAt(t)
	database := connect(t, address)
	if _, err := database.Exec(t.Context(), `INSERT INTO outcome_names (name, admit_time) SELECT 'name ' || i, NULL FROM generate_series(1, 10000) i`); err != nil {
		t.Fatal(err)
	}
	for from := range 20 {
		flood := ofNames(fmt.Sprint("flood ", from), 10_000)
		flood[5].Name = "name 17"
		got := a.recordOutcomes(t, flood)
		if got.Recorded != 1 || len(got.Rejected) != 9999 {
			t.Fatalf("flood %d: recorded %d, rejected %d", from, got.Recorded, len(got.Rejected))
		}
		checkRejected(t, got.Rejected[4:6], []*assayv1.Rejection{{Index: 4, Reason: limited, Field: "name"}, {Index: 6, Reason: limited, Field: "name"}})
		if said := got.Rejected[0].Message; !strings.Contains(said, "allows, 10000") {
			t.Fatalf("it says %q", said)
		}
	}
	if n := a.namesRefused(t, "LIMIT"); n != 20*9999 {
		t.Errorf("%v are counted", n)
	}
	if _, err := database.Exec(t.Context(), `UPDATE outcome_names SET freed = true WHERE name = 'name 1'`); err != nil {
		t.Fatal(err)
	}
	for a.recordOutcomes(t, ofNames("one more", 1)).Recorded == 0 {
		time.Sleep(10 * time.Millisecond)
	}
}
