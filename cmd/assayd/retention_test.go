package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// A server that keeps events for a year drops what is older, refuses what would
// be, and an analysis says what it can no longer see.
func TestRetention(t *testing.T) {
	dir := dataDir(t)
	p, addr := serveIn(t, dir, "")
	conn := connect(t, addr)
	for _, c := range [][3]string{
		{"MetricService", "CreateMetric", `{"metric":{"key":"revenue","direction":"DIRECTION_INCREASE","sum":{"outcome":"purchase"},"window":"86400s"}}`},
		{"ExperimentService", "CreateExperiment", `{"experiment":{"key":"old","assignment":"ASSIGNMENT_EXTERNAL","variants":[{"key":"a","control":true},{"key":"b"}],
			"metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"}]}}`},
		{"ExperimentService", "StartExperiment", `{"key":"old"}`},
		{"EventService", "RecordExposures", `{"exposures":[{"experiment":"old","variant":"a","subject":{"key":"u"},"exposed_time":"2020-01-05T10:00:00Z"}]}`},
		{"EventService", "RecordOutcomes", `{"outcomes":[{"event_id":"o","subject":{"key":"u"},"name":"purchase","value":5,"occurred_time":"2020-01-05T11:00:00Z"}]}`},
	} {
		if _, err := call(t.Context(), conn, "assay.v1."+c[0], c[1], c[2]); err != nil {
			t.Fatal(err)
		}
	}
	// The server's own maintenance may still be writing: an analysis is of a moment
	// before it, which may be before what was just recorded.
	eventually(t, "the outcome counts", func() bool {
		total, warnings := revenueOf(t, conn, "old")
		return total == 5 && !strings.Contains(warnings, "no longer kept")
	})
	conn.Close()
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.waitEnd(t)

	p = start(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", dir, "--retention", "8760h")
	conn = connect(t, p.address(t))
	eventually(t, "old outcomes are dropped", func() bool {
		total, warnings := revenueOf(t, conn, "old")
		return total == 0 && strings.Contains(warnings, "1 subject was exposed before 2020-02-01")
	})
	client := assayv1.NewEventServiceClient(conn)
	old, now := timestamppb.New(time.Now().AddDate(-1, 0, -2)), timestamppb.Now()
	event := func(id string, at *timestamppb.Timestamp) *assayv1.Outcome {
		return &assayv1.Outcome{EventId: id, Subject: &assayv1.Subject{Key: "u"}, Name: "purchase", OccurredTime: at}
	}
	correction := event("c", now)
	correction.CorrectsEventId, correction.CorrectsOccurredTime, correction.Value = "a", old, new(float64)
	got, err := client.RecordOutcomes(t.Context(), &assayv1.RecordOutcomesRequest{Outcomes: []*assayv1.Outcome{event("a", old), event("b", now), correction}})
	if err != nil {
		t.Fatal(err)
	}
	const beforeRetention = assayv1.RejectionReason_REJECTION_REASON_BEFORE_RETENTION
	want := &assayv1.RecordOutcomesResponse{Recorded: 1, Rejected: []*assayv1.Rejection{
		{Index: 0, Reason: beforeRetention, Field: "occurred_time"}, {Index: 2, Reason: beforeRetention, Field: "corrects_occurred_time"},
	}}
	if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.Rejection{}, "message")); diff != "" {
		t.Error(diff)
	}
	exposures, err := client.RecordExposures(t.Context(), &assayv1.RecordExposuresRequest{Exposures: []*assayv1.Exposure{
		{Experiment: "old", Variant: "a", Subject: &assayv1.Subject{Key: "v"}, ExposedTime: old},
	}})
	if err != nil || len(exposures.Rejected) != 1 || exposures.Rejected[0].Reason != beforeRetention {
		t.Errorf("an exposure from before retention: %v, %v", exposures, err)
	}
}

// A server that is told to keeps analyses no longer than that, but for the newest.
func TestAnalysisRetention(t *testing.T) {
	dir := dataDir(t)
	p, addr := serveIn(t, dir, "")
	conn := connect(t, addr)
	for _, c := range [][3]string{
		{"ExperimentService", "CreateExperiment", `{"experiment":{"key":"plain","variants":[{"key":"a","control":true},{"key":"b"}]}}`},
		{"ExperimentService", "StartExperiment", `{"key":"plain"}`},
	} {
		if _, err := call(t.Context(), conn, "assay.v1."+c[0], c[1], c[2]); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	for range 2 {
		a, err := assayv1.NewAnalysisServiceClient(conn).AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: "plain"})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, a.AnalysisId)
	}
	conn.Close()
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.waitEnd(t)

	p = start(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", dir, "--analysis-retention", "1ms")
	client := assayv1.NewAnalysisServiceClient(connect(t, p.address(t)))
	eventually(t, "the older analysis has expired", func() bool {
		_, err := client.GetAnalysis(t.Context(), &assayv1.GetAnalysisRequest{AnalysisId: ids[0]})
		return status.Code(err) == codes.NotFound && strings.Contains(fmt.Sprint(status.Convert(err).Details()), "ANALYSIS_EXPIRED")
	})
	if _, err := client.GetAnalysis(t.Context(), &assayv1.GetAnalysisRequest{AnalysisId: ids[1]}); err != nil {
		t.Errorf("the newest analysis: %v", err)
	}
}

func revenueOf(t *testing.T, conn *grpc.ClientConn, key string) (total float64, warnings string) {
	t.Helper()
	a, err := assayv1.NewAnalysisServiceClient(conn).AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: key})
	if err != nil {
		t.Fatal(err)
	}
	return a.Metrics[0].Arms[0].GetTotal(), strings.Join(a.Warnings, "\n")
}
