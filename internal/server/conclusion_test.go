package server_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/testing/protocmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

const concludeExperiment = "ExperimentService/ConcludeExperiment"

// startDecided starts an experiment in which half of the subjects of b purchase
// and none of the control's, and returns its analysis.
func (a *api) startDecided(tb testing.TB, key string) *assayv1.AnalyzeExperimentResponse {
	tb.Helper()
	a.do(tb, "ExperimentService/CreateExperiment", newExperiment(fmt.Sprintf(`"key":%q`, key)))
	a.do(tb, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
	a.arrive(tb, key, key, 1000, map[string]float64{"a": 0, "b": 0.5})
	got := call[*assayv1.AnalyzeExperimentResponse](tb, a, "AnalysisService/AnalyzeExperiment", fmt.Sprintf(`{"experiment":%q}`, key))
	if got.Verdict.Action != assayv1.VerdictAction_VERDICT_ACTION_SHIP || got.Verdict.Variant != "b" {
		tb.Fatalf("verdict %v: the data are not what this test needs", got.Verdict)
	}
	return got
}

// TestConclusions ends experiments as their newest analysis says, against it, by
// an analysis that is old, and without any.
func TestConclusions(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "assay-author", "ana")
	conclude := func(req *assayv1.ConcludeExperimentRequest, want *assayv1.Conclusion) {
		t.Helper()
		want.ShippedVariant, want.Rationale, want.Author = req.ShippedVariant, req.Rationale, "ana"
		resp, err := a.experiments.ConcludeExperiment(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range []*assayv1.Experiment{resp.Experiment, a.get(t, req.Key)} {
			if diff := cmp.Diff(want, got.Conclusion, protocmp.Transform()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", req.Key, diff)
			}
		}
	}
	const ship = assayv1.VerdictAction_VERDICT_ACTION_SHIP
	followed := a.startDecided(t, "followed")
	conclude(&assayv1.ConcludeExperimentRequest{Key: "followed", ShippedVariant: "b", Rationale: "It won."},
		&assayv1.Conclusion{AnalysisId: followed.AnalysisId, Verdict: ship, VerdictVariant: "b"})

	against := a.startDecided(t, "against")
	conclude(&assayv1.ConcludeExperimentRequest{Key: "against", ShippedVariant: "a", Rationale: "Dearer.", AnalysisId: against.AnalysisId},
		&assayv1.Conclusion{AnalysisId: against.AnalysisId, Verdict: ship, VerdictVariant: "b", Objections: []string{"The verdict was to ship b, and a is shipped."}})

	a.startDecided(t, "old")
	empty := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"old","as_of_time":"2026-01-20T00:00:00Z"}`)
	conclude(&assayv1.ConcludeExperimentRequest{Key: "old", ShippedVariant: "b", AnalysisId: empty.AnalysisId},
		&assayv1.Conclusion{AnalysisId: empty.AnalysisId, Verdict: assayv1.VerdictAction_VERDICT_ACTION_KEEP_RUNNING, Objections: []string{
			"The verdict was to keep running: nothing was decided yet.",
			"b was not significantly better on purchase_rate.",
			"The analysis is old: it knew 0 subjects, and 1000 were exposed since.",
		}})

	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"key":"blind"`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"blind"}`)
	conclude(&assayv1.ConcludeExperimentRequest{Key: "blind"},
		&assayv1.Conclusion{Objections: []string{"There is no analysis that the decision could rest on."}})

	events := call[*assayv1.ListAuditEventsResponse](t, a, listAuditEvents, `{"key":"against"}`).Events
	want := parse(t, findMethod(t, listAuditEvents).Output(), `{"events":[{"details":{"shipped_variant":"a","verdict":"ship",
		"objections":["The verdict was to ship b, and a is shipped."]}}]}`).(*assayv1.ListAuditEventsResponse).Events[0]
	if diff := cmp.Diff(want.Details, events[0].Details, protocmp.Transform()); diff != "" {
		t.Errorf("the audit (-want +got):\n%s", diff)
	}
}

// TestConclusionsBetweenLooks: an analysis between looks judges nothing, so what
// is said of a variant is what the latest look found.
func TestConclusionsBetweenLooks(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	const shipB, again = "The verdict was to ship b, and c is shipped.", "The verdict was to keep running: nothing was decided yet."
	for key, tt := range map[string]struct {
		rates map[string]float64 // At the first look; nil for none.
		want  []string           // Of shipping c.
	}{
		"two-winners":  {map[string]float64{"a": 0.1, "b": 0.9, "c": 0.5}, []string{shipB}},
		"one-winner":   {map[string]float64{"a": 0.1, "b": 0.9, "c": 0.1}, []string{shipB, "c was not significantly better on purchase_rate."}},
		"nothing-yet":  {map[string]float64{"a": 0.1, "b": 0.1, "c": 0.1}, []string{again, "c was not significantly better on purchase_rate."}},
		"without-look": {nil, []string{again}},
	} {
		a.do(t, "ExperimentService/CreateExperiment", newExperiment(fmt.Sprintf(`"key":%q,"variants":[{"key":"a","control":true},{"key":"b"},{"key":"c"}],
			"plan":{"method":"METHOD_GROUP_SEQUENTIAL","planned_subjects":"1000"}`, key)))
		a.do(t, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
		if tt.rates != nil {
			a.arrive(t, key, key+"-first", 600, tt.rates)
			a.do(t, "AnalysisService/AnalyzeExperiment", fmt.Sprintf(`{"experiment":%q,"take_look":true}`, key))
		}
		a.arrive(t, key, key+"-second", 300, map[string]float64{"a": 0.5, "b": 0.5, "c": 0.5})
		between := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", fmt.Sprintf(`{"experiment":%q}`, key))
		got := call[*assayv1.ConcludeExperimentResponse](t, a, concludeExperiment, fmt.Sprintf(`{"key":%q,"shipped_variant":"c"}`, key)).Experiment.Conclusion
		if got.AnalysisId != between.AnalysisId || got.Verdict != between.Verdict.Action {
			t.Errorf("%s: rests on %v, want %v", key, got, between.Verdict)
		}
		if diff := cmp.Diff(tt.want, got.Objections); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
}

func TestRefusedConclusions(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.live(t, "other", "running")
	a.live(t, "plain", "running")
	other := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"other"}`).AnalysisId
	a.refuses(t, []refusal{
		{"no such analysis", concludeExperiment, `{"key":"plain","analysis_id":"00000000-0000-4000-8000-000000000000"}`, codes.NotFound, []string{"ANALYSIS_NOT_FOUND"}, "no such analysis"},
		{"of another experiment", concludeExperiment, `{"key":"plain","analysis_id":"` + other + `"}`, codes.InvalidArgument, []string{"analysis_id"}, `not an analysis of the experiment "plain"`},
		{"nothing is right", concludeExperiment, `{"key":"plain","shipped_variant":"c","analysis_id":"` + other + `"}`, codes.InvalidArgument, []string{"analysis_id", "shipped_variant"}, ""},
		{"no id", concludeExperiment, `{"key":"plain","analysis_id":"x"}`, codes.InvalidArgument, []string{"analysis_id"}, ""},
		{"unknown experiment", concludeExperiment, `{"key":"nothing","analysis_id":"` + other + `"}`, codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, ""},
	})
	if got := a.get(t, "plain"); got.State != assayv1.State_STATE_RUNNING || got.Conclusion != nil {
		t.Errorf("after refusals: %v", got)
	}
}
