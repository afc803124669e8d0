package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// TestManyCrossovers: of 500 subjects 200 are seen in both variants. However clearly
// the others speak, nothing ships, and the answer says why.
func TestManyCrossovers(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL","plan":{"method":"METHOD_FIXED_HORIZON"}`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	var customers []customer
	for i := range 500 {
		c := customer{variant: []string{"a", "b"}[i%2], exposed: exposedAt}
		if i%10 == 0 || i%2 == 1 && i%10 < 8 {
			c.buys = []time.Duration{time.Hour}
		}
		customers = append(customers, c)
	}
	a.sell(t, "plain", customers)
	twice := &assayv1.RecordExposuresRequest{}
	for i := range 200 {
		twice.Exposures = append(twice.Exposures, &assayv1.Exposure{
			Experiment: "plain", Variant: []string{"b", "a"}[i%2], Subject: &assayv1.Subject{Key: fmt.Sprint("plain-", i)}, ExposedTime: timestamppb.New(exposedAt.Add(time.Minute)),
		})
	}
	if _, err := a.events.RecordExposures(t.Context(), twice); err != nil {
		t.Fatal(err)
	}
	got := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"}`)
	if !got.Metrics[0].Comparisons[0].Significant {
		t.Error("the others do not speak clearly: the data are not what this test needs")
	}
	if v := got.Verdict; v.Action != assayv1.VerdictAction_VERDICT_ACTION_INCONCLUSIVE || !strings.Contains(v.Reasons[0], "40% of all that were exposed") {
		t.Errorf("verdict %v", v)
	}
	e := got.Exclusions.ByReason
	if len(e) != 1 || e[0].Reason != assayv1.ExclusionReason_EXCLUSION_REASON_CROSSOVER || e[0].Subjects != 200 || e[0].Share != 0.4 ||
		e[0].ByVariant["a"] != 100 || e[0].ByVariant["b"] != 100 || e[0].GetPValue() != 1 {
		t.Errorf("exclusions %v", e)
	}
}

// TestVariantRemoved: the subjects of a variant that is removed say nothing against
// those of the others, and an analysis as of a moment before has its figures.
func TestVariantRemoved(t *testing.T) {
	const analyze = "AnalysisService/AnalyzeExperiment"
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"variants":[{"key":"a","control":true,"weight":1},{"key":"b","weight":1},{"key":"c","weight":1}]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	a.arrive(t, "plain", "u", 900, map[string]float64{"a": 0.3, "b": 0.5, "c": 0.3})
	before := call[*assayv1.AnalyzeExperimentResponse](t, a, analyze, `{"experiment":"plain"}`)
	a.do(t, updateExperiment, `{"experiment":{"key":"plain","variants":[{"key":"a","control":true,"weight":1},{"key":"b","weight":1}]},"allow_movement":true}`)

	moment := before.AsOfTime.AsTime().Add(time.Microsecond).Format(time.RFC3339Nano)
	then := call[*assayv1.AnalyzeExperimentResponse](t, a, analyze, fmt.Sprintf(`{"experiment":"plain","as_of_time":%q}`, moment))
	if diff := cmp.Diff(before, then, protocmp.Transform(), protocmp.IgnoreFields(then, "analysis_id", "as_of_time", "create_time", "deviations")); diff != "" {
		t.Errorf("as of a moment before c was removed (-before +then):\n%s", diff)
	}
	if v := then.Verdict; v.Action != assayv1.VerdictAction_VERDICT_ACTION_SHIP || v.Variant != "b" {
		t.Errorf("verdict %v", v)
	}
	line := call[*assayv1.GetTimelineResponse](t, a, "AnalysisService/GetTimeline", fmt.Sprintf(`{"experiment":"plain","as_of_time":%q}`, moment))
	if n := len(line.Cumulative[0].Arms); n != 3 {
		t.Errorf("the timeline of then has %d variants", n)
	}

	now := call[*assayv1.AnalyzeExperimentResponse](t, a, analyze, `{"experiment":"plain"}`)
	of := before.Metrics[0].Arms[2].Subjects
	e := now.Exclusions.ByReason
	if len(e) != 1 || e[0].Reason != assayv1.ExclusionReason_EXCLUSION_REASON_REMOVED_VARIANT || e[0].Subjects != of || e[0].ByVariant["c"] != of || e[0].Share != float64(of)/900 {
		t.Errorf("exclusions %v, of %d subjects of c", e, of)
	}
	if v := now.Verdict; v.Action != assayv1.VerdictAction_VERDICT_ACTION_SHIP || v.Variant != "b" {
		t.Errorf("verdict %v", v)
	}
	if !slices.ContainsFunc(now.Deviations, func(d *assayv1.Deviation) bool { return d.Reason == "REMOVED_VARIANT" }) {
		t.Errorf("deviations %v", now.Deviations)
	}
	if diff := cmp.Diff(before.Metrics[0].Comparisons[0].Difference, now.Metrics[0].Comparisons[0].Difference, protocmp.Transform()); diff != "" {
		t.Errorf("the difference of b (-before +now):\n%s", diff)
	}
	changed := call[*assayv1.CompareAnalysesResponse](t, a, compareAnalyses, fmt.Sprintf(`{"from_analysis_id":%q,"to_analysis_id":%q}`, then.AnalysisId, now.AnalysisId))
	if c := changed.Changes[0]; c.Variant != "b" || c.GetFrom() != c.GetTo() {
		t.Errorf("changes %v", changed)
	}
}

// TestSeenInBothVariants: where the variants are assigned elsewhere no split tells whom a
// change of weights moved, but their exposures do. Whoever was seen in two variants is
// left out, in two phases as in one.
func TestSeenInBothVariants(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", endlessRevenue)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL",
		"metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY","objective":"OBJECTIVE_EQUIVALENCE","margin":{"absolute":1}}],"plan":{"method":"METHOD_FIXED_HORIZON"}`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	variant := map[string]string{}
	for i := range 200 {
		variant[fmt.Sprint("u-", i)] = []string{"a", "b"}[i%2]
	}
	expose := func() {
		var items []string
		for key, v := range variant {
			items = append(items, fmt.Sprintf(`{"experiment":"plain","variant":%q,"subject":{"key":%q},"exposed_time":%q}`, v, key, nowText()))
		}
		a.do(t, "EventService/RecordExposures", `{"exposures":[`+strings.Join(items, ",")+`]}`)
	}
	expose()
	time.Sleep(2 * time.Millisecond)
	e := call[*assayv1.GetExperimentResponse](t, a, "ExperimentService/GetExperiment", `{"key":"plain"}`).Experiment
	a.do(t, "ExperimentService/UpdateExperiment", fmt.Sprintf(`{"experiment":{"key":"plain","etag":%q,"variants":[{"key":"a","control":true,"weight":1},{"key":"b","weight":3}]},"update_mask":"variants","allow_movement":true}`, e.Etag))
	const moved = 12
	for i := range moved {
		variant[fmt.Sprint("u-", i)] = []string{"b", "a"}[i%2]
	}
	expose()
	a.spend(t, "order", variant, func(key, v string) float64 { return map[string]float64{"a": 2, "b": 6}[v] + float64(key[len(key)-1]%3) })
	got := a.analyze(t, `{"experiment":"plain"}`)
	if got.Exclusions.Crossovers != moved || got.Verdict.Action != assayv1.VerdictAction_VERDICT_ACTION_INCONCLUSIVE ||
		!warned(got.Verdict.Reasons, "12 subjects were seen in more than one variant, and left out") {
		t.Errorf("%v, verdict %v", got.Exclusions, got.Verdict)
	}
}
