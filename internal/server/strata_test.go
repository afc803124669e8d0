package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// customer is a subject that an externally assigned experiment exposes: when,
// to what, of which band, and after how many days it buys.
type customer struct {
	variant string
	band    string // Empty: the attribute is missing.
	exposed time.Time
	buys    []time.Duration
}

// sell exposes customers to an experiment, and records what they bought.
func (a *api) sell(tb testing.TB, experiment string, customers []customer) {
	tb.Helper()
	exposures := &assayv1.RecordExposuresRequest{}
	for i, c := range customers {
		subject := &assayv1.Subject{Key: fmt.Sprint(experiment, "-", i)}
		if c.band != "" {
			subject.Attributes = &structpb.Struct{Fields: map[string]*structpb.Value{"band": structpb.NewStringValue(c.band)}}
		}
		exposures.Exposures = append(exposures.Exposures, &assayv1.Exposure{Experiment: experiment, Variant: c.variant, Subject: subject, ExposedTime: timestamppb.New(c.exposed)})
	}
	if got, err := a.events.RecordExposures(tb.Context(), exposures); err != nil || int(got.Recorded) != len(customers) {
		tb.Fatal(got, err)
	}
	a.buy(tb, experiment, "order", customers)
}

// buy records what customers bought, with event ids of a name.
func (a *api) buy(tb testing.TB, experiment, name string, customers []customer) {
	tb.Helper()
	outcomes := &assayv1.RecordOutcomesRequest{}
	for i, c := range customers {
		for j, after := range c.buys {
			outcomes.Outcomes = append(outcomes.Outcomes, &assayv1.Outcome{
				EventId: fmt.Sprint(name, "-", j), Subject: &assayv1.Subject{Key: fmt.Sprint(experiment, "-", i)},
				Name: "purchase", OccurredTime: timestamppb.New(c.exposed.Add(after)),
			})
		}
	}
	if got, err := a.events.RecordOutcomes(tb.Context(), outcomes); err != nil || int(got.Recorded) != len(outcomes.Outcomes) {
		tb.Fatal(got, err)
	}
}

// TestStratifyBy compares an analysis by bands with the same bands as
// summaries. Customers without a band are a band, and segments need not be named
// as such.
func TestStratifyBy(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	e := call[*assayv1.CreateExperimentResponse](t, a, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL",
		"covariates":[{"name":"value","attribute":"band"}],"plan":{"method":"METHOD_FIXED_HORIZON","stratify_by":"band"}`)).Experiment
	if e.Plan.StratifyBy != "band" {
		t.Errorf("plan %v", e.Plan)
	}
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	bands := map[string][2]int{"": {120, 40}, "high": {30, 60}, "low": {200, 210}} // Subjects in a and b.
	buyers := map[string][2]int{"": {13, 7}, "high": {21, 47}, "low": {6, 9}}
	var customers []customer
	summaries := &assayv1.CompareSummariesRequest{Components: []string{"bought"}, Plan: e.Plan, Arms: []*assayv1.SummaryArm{
		{Variant: "a", Control: true}, {Variant: "b"},
	}}
	for band, subjects := range bands {
		for arm, n := range subjects {
			bought := buyers[band][arm]
			for i := range n {
				v := customer{variant: summaries.Arms[arm].Variant, band: band, exposed: exposedAt}
				if i < bought {
					v.buys = []time.Duration{time.Hour}
				}
				customers = append(customers, v)
			}
			rate := float64(bought) / float64(n)
			summaries.Arms[arm].Strata = append(summaries.Arms[arm].Strata, &assayv1.SummaryStratum{
				Stratum: band, Subjects: int64(n), Means: []float64{rate}, Covariances: []float64{rate * (1 - rate) * float64(n) / float64(n-1)},
			})
		}
	}
	a.sell(t, "plain", customers)
	want, err := a.analysis.CompareSummaries(t.Context(), summaries)
	if err != nil {
		t.Fatal(err)
	}
	analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain","segments":["band"]}`)
	analysis.Metrics[0].Heterogeneity[0].Attribute = "" // Summaries name none.
	got := &assayv1.CompareSummariesResponse{Arms: analysis.Metrics[0].Arms, Comparisons: analysis.Metrics[0].Comparisons, Heterogeneity: analysis.Metrics[0].Heterogeneity}
	if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.ArmResult{}, "informative_subjects", "largest_share"), cmpopts.EquateApprox(1e-9, 0)); diff != "" {
		t.Errorf("AnalyzeExperiment differs from CompareSummaries (-summaries +experiment):\n%s", diff)
	}
	var values []string
	for _, s := range analysis.Metrics[0].Segments {
		values = append(values, s.Value)
		if n := bands[s.Value]; s.Arms[0].Subjects != int64(n[0]) || s.Arms[1].Subjects != int64(n[1]) {
			t.Errorf("segment %q has %v", s.Value, s.Arms)
		}
	}
	if !slices.Equal(values, []string{"", "high", "low"}) {
		t.Errorf("segments %q", values)
	}
	if slices.ContainsFunc(analysis.Warnings, func(w string) bool { return strings.Contains(w, "stratified") }) {
		t.Errorf("warnings %q", analysis.Warnings)
	}
}
