package server_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// person is a subject of the experiment "plain": what it met and when, what was
// known of it, and what it spent.
type person struct {
	variant string
	band    string
	age     float64
	day     int
	spent   float64 // 0: nothing.
}

// meet records people of "plain", from exposedAt on.
func (a *api) meet(tb testing.TB, people []person) {
	tb.Helper()
	for start := 0; start < len(people); start += 1000 {
		exposures, outcomes := &assayv1.RecordExposuresRequest{}, &assayv1.RecordOutcomesRequest{}
		for i, v := range people[start:min(start+1000, len(people))] {
			key, at := fmt.Sprint("u-", start+i), timestamppb.New(exposedAt.AddDate(0, 0, v.day))
			attributes := map[string]*structpb.Value{"band": structpb.NewStringValue(v.band)}
			if v.age != 0 {
				attributes["age"] = structpb.NewNumberValue(v.age)
			}
			exposures.Exposures = append(exposures.Exposures, &assayv1.Exposure{
				Experiment: "plain", Variant: v.variant, ExposedTime: at,
				Subject: &assayv1.Subject{Key: key, Attributes: &structpb.Struct{Fields: attributes}},
			})
			if v.spent != 0 {
				outcomes.Outcomes = append(outcomes.Outcomes, &assayv1.Outcome{
					EventId: key, Subject: &assayv1.Subject{Key: key}, Name: "purchase", Value: proto.Float64(v.spent), OccurredTime: at,
				})
			}
		}
		if got, err := a.events.RecordExposures(tb.Context(), exposures); err != nil || int(got.Recorded) != len(exposures.Exposures) {
			tb.Fatal(got, err)
		}
		if len(outcomes.Outcomes) == 0 {
			continue
		}
		if got, err := a.events.RecordOutcomes(tb.Context(), outcomes); err != nil || int(got.Recorded) != len(outcomes.Outcomes) {
			tb.Fatal(got, err)
		}
	}
}

// startPlain starts an experiment whose variants were assigned elsewhere.
func (a *api) startPlain(tb testing.TB, patch string) {
	tb.Helper()
	a.do(tb, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL",`+patch))
	a.do(tb, "ExperimentService/StartExperiment", `{"key":"plain"}`)
}

// TestCaps: 3 of 400 have spent, so the 99th percentile is 0 unless zeros are
// ignored. The metric with that cap says that it can tell nothing, and the same
// numbers without one, or with another, are what they are.
func TestCaps(t *testing.T) {
	a := newAPI(t)
	for key, limit := range map[string]string{"plain": "", "percentile": `{"upper_percentile":99}`, "spenders": `{"upper_percentile":50,"ignore_zeros":true}`, "number": `{"lower_value":1,"upper_value":10}`} {
		request := newSum(limit)
		if limit == "" {
			request = newMetric(`"proportion":null,"sum":{"outcome":"purchase"}`)
		}
		m := newRequest(t, "MetricService/CreateMetric", request).(*assayv1.CreateMetricRequest)
		m.Metric.Key = "sum-" + key
		if _, err := a.metrics.CreateMetric(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		got := call[*assayv1.GetMetricResponse](t, a, "MetricService/GetMetric", fmt.Sprintf(`{"key":%q}`, m.Metric.Key)).Metric
		if diff := cmp.Diff(m.Metric.GetSum(), got.GetSum(), protocmp.Transform()); diff != "" {
			t.Errorf("%s (-created +got):\n%s", key, diff)
		}
	}
	a.startPlain(t, `"metrics":[{"metric":"sum-plain","role":"METRIC_ROLE_PRIMARY"},{"metric":"sum-percentile","role":"METRIC_ROLE_SECONDARY"},
		{"metric":"sum-spenders","role":"METRIC_ROLE_SECONDARY"}],"plan":{"method":"METHOD_FIXED_HORIZON"}`)
	people := make([]person, 400)
	for i := range people {
		people[i].variant = []string{"a", "b"}[i%2]
	}
	people[0].spent, people[1].spent, people[3].spent = 20, 30, 7
	a.meet(t, people)
	analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain","metrics":["sum-number"]}`)
	var totals [][2]float64
	var caps []*assayv1.AppliedCap
	for _, m := range analysis.Metrics {
		totals = append(totals, [2]float64{m.Arms[0].GetTotal(), m.Arms[1].GetTotal()})
		caps = append(caps, m.Caps...)
	}
	if diff := cmp.Diff([][2]float64{{20, 37}, {0, 0}, {20, 27}, {209, 215}}, totals, cmpopts.EquateApprox(1e-12, 0)); diff != "" {
		t.Errorf("totals (-want +got):\n%s", diff)
	}
	want := []*assayv1.AppliedCap{
		{Component: "sum", Upper: proto.Float64(0), Lowered: 3, Notes: []string{"With the cap every subject has the same number: nothing can differ any more."}},
		{Component: "sum", Upper: proto.Float64(20), Lowered: 1},
		{Component: "sum", Lower: proto.Float64(1), Upper: proto.Float64(10), Raised: 397, Lowered: 2},
	}
	if diff := cmp.Diff(want, caps, protocmp.Transform()); diff != "" {
		t.Errorf("caps (-want +got):\n%s", diff)
	}
	if n := len(slices.DeleteFunc(analysis.Warnings, func(w string) bool { return !strings.Contains(w, `"sum-percentile"`) })); n != 1 {
		t.Errorf("%d warnings of the metric that can tell nothing", n)
	}
}

// TestGuards: a variant loses young subjects of one band on one day. The ratio
// is broken there, the covariate out of balance, the effect another in that band,
// and two bands of 19 and 1 subjects a variant are withheld.
func TestGuards(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", newMetric(`"proportion":null,"sum":{"outcome":"purchase"}`))
	a.startPlain(t, `"segments":["band"],"covariates":[{"name":"age","attribute":"age"}],
		"metrics":[{"metric":"m","role":"METRIC_ROLE_PRIMARY","covariates":["age"]}],"plan":{"method":"METHOD_FIXED_HORIZON"}`)
	var people []person
	add := func(variant, band string, n, day int, age, spent float64) {
		for i := range n {
			people = append(people, person{variant, band, age + float64(i%20), day, spent + float64(i%3)})
		}
	}
	for _, variant := range []string{"a", "b"} {
		add(variant, "low", 300, 0, 30, 5)
		add(variant, "rare", 19, 0, 30, 5)
		add(variant, "rarest", 1, 0, 30, 5)
	}
	add("a", "high", 400, 1, 20, 5)
	add("b", "high", 250, 1, 30, 8)
	people[len(people)-1].age = 0 // It is not known.
	a.meet(t, people)
	got := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain","segments":["band"]}`)

	if v := got.SampleRatio.Verdict; v != assayv1.SampleRatioVerdict_SAMPLE_RATIO_VERDICT_MISMATCH || got.SampleRatio.SequentialPValue == nil {
		t.Errorf("sample ratio %v", got.SampleRatio)
	}
	p := math.Erfc(math.Sqrt(150 * 150 / 650.0 / 2)) // Of five cells that were tested two are broken.
	day := exposedAt.AddDate(0, 0, 1).Format(time.DateOnly)
	cell := func(attribute, value string) *assayv1.SampleRatioCell {
		return &assayv1.SampleRatioCell{
			Attribute: attribute, Value: value, Observed: map[string]int64{"a": 400, "b": 250}, Expected: map[string]float64{"a": 325, "b": 325},
			PValue: &p, AdjustedPValue: proto.Float64(5 * p),
		}
	}
	if diff := cmp.Diff([]*assayv1.SampleRatioCell{cell("band", "high"), cell("", day)}, got.SampleRatio.BrokenCells, protocmp.Transform(), cmpopts.EquateApprox(1e-9, 0)); diff != "" {
		t.Errorf("broken cells (-want +got):\n%s", diff)
	}
	if says := fmt.Sprintf(`It is broken most where band is "high", on %s.`, day); !strings.Contains(strings.Join(got.Warnings, "\n"), says) {
		t.Errorf("warnings %q", got.Warnings)
	}

	if b := got.Balance; len(b) != 2 || b[0].Covariate != "age" || b[0].Variant != "b" || b[0].GetStandardizedDifference() < 0.2 || b[0].GetAdjustedPValue() > 0.001 ||
		b[0].Missing || b[0].GetAdjustedPValue() != 2*b[0].GetPValue() || b[1].Covariate != "age" || !b[1].Missing || b[1].GetPValue() < 0.1 {
		t.Errorf("balance %v", b)
	}
	m := got.Metrics[0]
	if h := m.Heterogeneity; len(h) != 1 || h[0].Attribute != "band" || h[0].Variant != "b" || h[0].DegreesOfFreedom != 1 || h[0].GetAdjustedPValue() > 1e-10 || h[0].GetInconsistency() < 0.9 {
		t.Errorf("heterogeneity %v", h)
	}
	if slices.ContainsFunc(m.Segments, func(s *assayv1.SegmentResult) bool { return !s.Exploratory }) {
		t.Errorf("a segment is not exploratory: %v", m.Segments)
	}
	rare := m.Segments[2]
	if diff := cmp.Diff(&assayv1.SegmentResult{Attribute: "band", Value: "rare", Exploratory: true, Withheld: true, Arms: []*assayv1.ArmResult{{Variant: "a", Subjects: 19}, {Variant: "b", Subjects: 19}}}, rare, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.ArmResult{}, "notes")); diff != "" {
		t.Errorf("withheld segment (-want +got):\n%s", diff)
	}
	if got.Plan.GetSmallestCell() != 20 {
		t.Errorf("the plan's smallest cell is %d, want the default", got.Plan.GetSmallestCell())
	}
}

// TestSummariesAreGuarded: weights, covariates and strata bring the tests of
// what the comparison rests on.
func TestSummariesAreGuarded(t *testing.T) {
	a := newAPI(t)
	got := call[*assayv1.CompareSummariesResponse](t, a, "AnalysisService/CompareSummaries", `{"components":["spend","before"],"covariates":["before"],
		"plan":{"method":"METHOD_FIXED_HORIZON"},"arms":[
		{"variant":"none","control":true,"weight":1,"strata":[
			{"stratum":"s","subjects":"500","means":[1,5],"covariances":[4,1,9]},{"stratum":"t","subjects":"300","means":[2,5],"covariances":[4,1,9]}]},
		{"variant":"mail","weight":1,"strata":[
			{"stratum":"s","subjects":"300","means":[1,6],"covariances":[4,1,9]},{"stratum":"t","subjects":"500","means":[5,6],"covariances":[4,1,9]}]}]}`)
	if r := got.SampleRatio; r.GetPValue() != 1 || r.GetSequentialPValue() != 1 || r.Expected["mail"] != 800 || r.Verdict != assayv1.SampleRatioVerdict_SAMPLE_RATIO_VERDICT_OK {
		t.Errorf("sample ratio %v", r)
	}
	if b := got.Balance; len(b) != 1 || math.Abs(b[0].GetStandardizedDifference()-1.0/3) > 1e-3 {
		t.Errorf("balance %v", b)
	}
	if h := got.Heterogeneity; len(h) != 1 || h[0].Attribute != "" || h[0].GetPValue() > 1e-20 {
		t.Errorf("heterogeneity %v", h)
	}
}

// TestOutcomesOnlyBeforeExposure: they count for nobody, and the metric says that
// it has nothing to go by.
func TestOutcomesOnlyBeforeExposure(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", newMetric(`"proportion":null,"sum":{"outcome":"purchase"}`))
	a.startPlain(t, `"metrics":[{"metric":"m","role":"METRIC_ROLE_PRIMARY"}],"plan":{"method":"METHOD_FIXED_HORIZON"}`)
	people := make([]person, 40)
	for i := range people {
		people[i].variant = []string{"a", "b"}[i%2]
	}
	a.meet(t, people)
	outcomes := &assayv1.RecordOutcomesRequest{}
	for i := range people {
		key := fmt.Sprint("u-", i)
		outcomes.Outcomes = append(outcomes.Outcomes, &assayv1.Outcome{
			EventId: key, Subject: &assayv1.Subject{Key: key}, Name: "purchase", Value: proto.Float64(9), OccurredTime: timestamppb.New(exposedAt.Add(-time.Millisecond)),
		})
	}
	if _, err := a.events.RecordOutcomes(t.Context(), outcomes); err != nil {
		t.Fatal(err)
	}
	m := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"}`).Metrics[0]
	if c := m.Comparisons[0]; m.Arms[0].GetSubjects() != 20 || m.Arms[0].Mean != nil || m.Arms[0].Total != nil || len(m.Arms[0].Notes) == 0 || c.PValue != nil || len(c.Notes) == 0 {
		t.Errorf("arm %v, comparison %v", m.Arms[0], c)
	}
}
