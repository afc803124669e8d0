package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

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
