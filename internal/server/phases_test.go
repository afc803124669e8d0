package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// arrive exposes n new subjects to what they are given, and lets the share of
// each variant's subjects that rates says purchase something.
func (a *api) arrive(tb testing.TB, experiment, name string, n int, rates map[string]float64) {
	tb.Helper()
	ask := &assayv1.BatchAssignRequest{Experiments: []string{experiment}}
	for i := range n {
		ask.Subjects = append(ask.Subjects, &assayv1.Subject{Key: fmt.Sprint(name, "-", i)})
	}
	assigned, err := a.assign.BatchAssign(tb.Context(), ask)
	if err != nil {
		tb.Fatal(err)
	}
	exposures, outcomes := &assayv1.RecordExposuresRequest{}, &assayv1.RecordOutcomesRequest{}
	seen := map[string]float64{}
	for i, result := range assigned.Results {
		got := result.Assignments[0]
		exposures.Exposures = append(exposures.Exposures, &assayv1.Exposure{
			Experiment: experiment, Variant: got.Variant, Revision: &got.Revision, Subject: ask.Subjects[i], ExposedTime: timestamppb.New(exposedAt),
		})
		rate := rates[got.Variant]
		if before := seen[got.Variant]; int((before+1)*rate) > int(before*rate) {
			outcomes.Outcomes = append(outcomes.Outcomes, &assayv1.Outcome{
				EventId: fmt.Sprint("order-", got.Revision), Subject: ask.Subjects[i], Name: "purchase", OccurredTime: timestamppb.New(exposedAt.Add(time.Minute)),
			})
		}
		seen[got.Variant]++
	}
	if resp, err := a.events.RecordExposures(tb.Context(), exposures); err != nil || int(resp.Recorded) != n {
		tb.Fatal(resp, err)
	}
	if resp, err := a.events.RecordOutcomes(tb.Context(), outcomes); err != nil || int(resp.Recorded) != len(outcomes.Outcomes) {
		tb.Fatal(resp, err)
	}
}

// TestPhasesAreStrata turns a split of 90:10 into 10:90 between customers who
// buy much and customers who buy little. The treatment is better by five
// points among both, and looks far worse when they are pooled (Simpson's
// paradox). Customers of the first phase come back in the second, when most of
// them have another variant: they count as they did first.
func TestPhasesAreStrata(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"plan":{"method":"METHOD_FIXED_HORIZON"},
		"variants":[{"key":"a","control":true,"weight":90},{"key":"b","weight":10}]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	for i := range 4 {
		a.arrive(t, "plain", fmt.Sprint("early-", i), 1000, map[string]float64{"a": 0.6, "b": 0.65})
	}
	a.do(t, updateExperiment, `{"experiment":{"key":"plain","variants":[{"key":"a","control":true,"weight":10},{"key":"b","weight":90}]},"allow_movement":true}`)
	for i := range 4 {
		a.arrive(t, "plain", fmt.Sprint("late-", i), 1000, map[string]float64{"a": 0.1, "b": 0.15})
	}
	a.arrive(t, "plain", "early-0", 1000, map[string]float64{"a": 0.001, "b": 0.01})

	got := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"}`)
	arms, comparison := got.Metrics[0].Arms, got.Metrics[0].Comparisons[0]
	if pooled := arms[1].GetMean() - arms[0].GetMean(); pooled > -0.25 {
		t.Errorf("pooled, the treatment is better by %v: the data are not what this test needs", pooled)
	}
	if arms[0].Subjects+arms[1].Subjects != 8000 {
		t.Errorf("%d and %d subjects, of 8000", arms[0].Subjects, arms[1].Subjects)
	}
	d := comparison.Difference
	if d.GetEstimate() < 0.045 || d.GetEstimate() > 0.055 || d.GetLower() <= 0 || d.GetUpper() < 0.05 || !comparison.Significant {
		t.Errorf("the treatment is better by 0.05 in each phase, and the analysis says %v", d)
	}
	ratio := got.SampleRatio
	if ratio.Verdict != assayv1.SampleRatioVerdict_SAMPLE_RATIO_VERDICT_OK || ratio.Expected["a"] != 4000 || ratio.Expected["b"] != 4000 {
		t.Errorf("sample ratio %v: each phase has the split that it was given", ratio)
	}
	if d := got.Deviations; len(d) != 1 || d[0].Reason != "WEIGHTS_CHANGED" || d[0].Message != "Revision 2 changed the weights, and began phase 2." {
		t.Errorf("deviations %v: the weights have changed", d)
	}
}

// TestRemovedVariant analyses an experiment that has lost a variant and got
// another one.
func TestRemovedVariant(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL","variants":[{"key":"a","control":true,"weight":0},{"key":"b"}]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	a.do(t, "EventService/RecordExposures", `{"exposures":[{"experiment":"plain","variant":"a","subject":{"key":"u-1"}},{"experiment":"plain","variant":"b","subject":{"key":"u-2"}}]}`)
	a.do(t, updateExperiment, `{"experiment":{"key":"plain","variants":[{"key":"a","control":true},{"key":"c"}]},"allow_movement":true}`)
	a.do(t, "EventService/RecordExposures", `{"exposures":[{"experiment":"plain","variant":"a","subject":{"key":"u-3"}},{"experiment":"plain","variant":"c","subject":{"key":"u-4"}}]}`)
	got := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"}`)
	if arms := got.Metrics[0].Arms; len(arms) != 2 || arms[0].Variant != "a" || arms[1].Variant != "c" {
		t.Errorf("arms %v", arms)
	}
	if !slices.ContainsFunc(got.Warnings, func(w string) bool {
		return strings.HasPrefix(w, "1 subject was first seen in a variant that has been removed since")
	}) {
		t.Errorf("no word of the subject of the variant that was removed: %q", got.Warnings)
	}
}
