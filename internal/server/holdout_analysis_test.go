package server_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// tried are the experiments that the holdout of the test covers, and twins have
// the same hashes and are not covered: they tell who is in the traffic.
var (
	tried = []string{"first", "second"}
	twins = []string{"first-twin", "second-twin"}
)

// startTried starts a holdout with a share of 0.2 and the experiments, each with
// a traffic of 0.3.
func (a *api) startTried(tb testing.TB) {
	tb.Helper()
	a.do(tb, "MetricService/CreateMetric", revenue)
	a.do(tb, createHoldout, newHoldout(`"share":0.2,"labels":{"team":"growth"}`))
	for i, key := range tried {
		for _, named := range []string{fmt.Sprintf(`"key":%q,"labels":{"team":"growth"}`, key), fmt.Sprintf(`"key":%q`, twins[i])} {
			a.do(tb, "ExperimentService/CreateExperiment", newExperiment(named+fmt.Sprintf(`,"salt":%q,"traffic":0.3,"metrics":[]`, key)))
		}
		a.do(tb, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
		a.do(tb, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, twins[i]))
	}
}

// visitor is what the test knows of a subject.
type visitor struct {
	held   bool
	inside [2]bool // In the traffic of the experiments.
	spent  float64
}

// visit lets n subjects ask for all experiments, and reports every exposure to
// those that are tried. Each visitor spends something, more if it is not held
// out.
func (a *api) visit(tb testing.TB, n int, mode assayv1.ExposureRecording) (visitors []visitor, exposures []*assayv1.Exposure) {
	tb.Helper()
	r := rand.New(rand.NewPCG(11, 12))
	for first := 0; first < n; first += 1000 {
		req := &assayv1.BatchAssignRequest{Experiments: slices.Concat(tried, twins), ExposureRecording: mode}
		for i := range min(1000, n-first) {
			req.Subjects = append(req.Subjects, &assayv1.Subject{Key: fmt.Sprint("u-", first+i)})
		}
		resp, err := a.assign.BatchAssign(tb.Context(), req)
		if err != nil {
			tb.Fatal(err)
		}
		outcomes := &assayv1.RecordOutcomesRequest{}
		for i, result := range resp.Results {
			v := visitor{held: result.Assignments[0].Reason == assayv1.Reason_REASON_HOLDOUT}
			v.spent = 10 * r.ExpFloat64()
			if !v.held {
				v.spent *= 1.5
			}
			for k := range tried {
				got := result.Assignments[k]
				v.inside[k] = result.Assignments[2+k].Reason == assayv1.Reason_REASON_SPLIT
				if v.held != (got.Reason == assayv1.Reason_REASON_HOLDOUT) || v.held && got.Variant != "a" || !v.held && v.inside[k] != (got.Variant != "") {
					tb.Fatalf("%s: %v", req.Subjects[i].Key, result)
				}
				if got.Variant != "" {
					exposures = append(exposures, &assayv1.Exposure{Experiment: got.Experiment, Variant: got.Variant, Subject: req.Subjects[i], ExposedTime: timestamppb.New(exposedAt)})
				}
			}
			visitors = append(visitors, v)
			outcomes.Outcomes = append(outcomes.Outcomes, &assayv1.Outcome{
				EventId: "order", Subject: req.Subjects[i], Name: "purchase", Value: proto.Float64(v.spent), OccurredTime: timestamppb.New(exposedAt.Add(time.Hour)),
			})
		}
		if _, err := a.events.RecordOutcomes(tb.Context(), outcomes); err != nil {
			tb.Fatal(err)
		}
	}
	return visitors, exposures
}

// report records exposures, and returns how many brought something new.
func (a *api) report(tb testing.TB, exposures []*assayv1.Exposure) (recorded int) {
	tb.Helper()
	for batch := range slices.Chunk(exposures, 5000) {
		resp, err := a.events.RecordExposures(tb.Context(), &assayv1.RecordExposuresRequest{Exposures: batch})
		if err != nil || len(resp.Rejected) > 0 {
			tb.Fatal(resp, err)
		}
		recorded += int(resp.Recorded)
	}
	return recorded
}

// sample is a mean with its standard error, in two passes.
type sample struct {
	n          int64
	mean, sdOf float64
}

func sampleOf(visitors []visitor, held bool) (s sample) {
	var spent []float64
	for _, v := range visitors {
		if v.held == held && (v.inside[0] || v.inside[1]) {
			spent = append(spent, v.spent)
			s.mean += v.spent
		}
	}
	s.n = int64(len(spent))
	s.mean /= float64(s.n)
	for _, x := range spent {
		s.sdOf += (x - s.mean) * (x - s.mean)
	}
	s.sdOf = math.Sqrt(s.sdOf / float64(s.n-1) / float64(s.n))
	return s
}

// differenceError is the standard error of their difference: the larger of Welch's and
// of that with the variance of both together.
func differenceError(a, b sample) float64 {
	n, m := float64(a.n), float64(b.n)
	squares := a.sdOf*a.sdOf*n*(n-1) + b.sdOf*b.sdOf*m*(m-1)
	return math.Max(math.Hypot(a.sdOf, b.sdOf), math.Sqrt(squares/(n+m-2)*(1/n+1/m)))
}

func near(got, want float64) bool { return math.Abs(got-want) <= 1e-9*math.Abs(want) }

// TestAnalyzeHoldout compares the effect of two experiments with what the test
// knows of their subjects. All of 20,000 subjects ask and report. Held-out ones
// get the control even outside the traffic of 0.3; only those inside may count,
// or they would be too many.
func TestAnalyzeHoldout(t *testing.T) {
	a := newAPI(t)
	a.startTried(t)
	visitors, exposures := a.visit(t, 20_000, assayv1.ExposureRecording_EXPOSURE_RECORDING_NONE)
	held, open := sampleOf(visitors, true), sampleOf(visitors, false)
	if recorded, want := a.report(t, exposures), recordedOf(visitors); recorded != want {
		t.Errorf("%d exposures recorded, want %d", recorded, want)
	}
	if again := a.report(t, exposures); again != 0 {
		t.Errorf("%d exposures recorded again", again)
	}

	request := fmt.Sprintf(`{"holdout":"global","metrics":["revenue"],"as_of_time":%q}`, nowText())
	got := call[*assayv1.AnalyzeHoldoutResponse](t, a, "AnalysisService/AnalyzeHoldout", request)
	if diff := cmp.Diff(map[string]int64{"held_out": held.n, "open": open.n}, got.SampleRatio.Observed); diff != "" {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}
	expected := got.SampleRatio.Expected["held_out"]
	if got.SampleRatio.Verdict != assayv1.SampleRatioVerdict_SAMPLE_RATIO_VERDICT_OK || !near(expected, 0.2*float64(held.n+open.n)) {
		t.Errorf("sample ratio: %v", got.SampleRatio)
	}
	m := got.Metrics[0]
	if len(got.Metrics) != 1 || m.Metric != "revenue" || m.Confirmatory || !m.PeekingProtected || m.Arms[0].Variant != "held_out" || m.Arms[1].Variant != "open" {
		t.Fatalf("metrics: %v", got.Metrics)
	}
	for i, want := range []sample{held, open} {
		if arm := m.Arms[i]; arm.Subjects != want.n || !near(arm.GetMean(), want.mean) || !near(arm.GetStandardError(), want.sdOf) {
			t.Errorf("%v, want %+v", arm, want)
		}
	}
	c := m.Comparisons[0]
	if c.Variant != "open" || c.Baseline != "held_out" || !near(c.Difference.GetEstimate(), open.mean-held.mean) || !near(c.Lift.GetEstimate(), open.mean/held.mean-1) ||
		!near(c.GetStandardError(), differenceError(held, open)) || !c.Significant || c.Lift.GetLower() <= 0 || c.Lift.GetUpper() < c.Lift.GetEstimate() {
		t.Errorf("comparison %v, want a difference of %v", c, open.mean-held.mean)
	}
	if got.Holdout != "global" || got.ConfidenceLevel != 0.95 || len(got.Warnings) != 0 || got.Exclusions.Crossovers != 0 {
		t.Errorf("analysis: %v", got)
	}
	checkStoredHoldoutAnalysis(t, a, request, got)

	// The experiments themselves know of the open subjects alone.
	for k, key := range tried {
		analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", fmt.Sprintf(`{"experiment":%q,"metrics":["revenue"]}`, key))
		want := int64(0)
		for _, v := range visitors {
			if v.inside[k] && !v.held {
				want++
			}
		}
		var subjects int64
		for n := range maps.Values(analysis.SampleRatio.Observed) {
			subjects += n
		}
		if subjects != want || analysis.SampleRatio.Verdict != assayv1.SampleRatioVerdict_SAMPLE_RATIO_VERDICT_OK {
			t.Errorf("%s: %v, want %d subjects", key, analysis.SampleRatio, want)
		}
	}
}

// recordedOf counts the exposures that bring something new: those of open
// subjects, and the first of each subject that is held out.
func recordedOf(visitors []visitor) (n int) {
	for _, v := range visitors {
		for _, inside := range v.inside {
			if inside && !v.held {
				n++
			}
		}
		if v.held && (v.inside[0] || v.inside[1]) {
			n++
		}
	}
	return n
}

func checkStoredHoldoutAnalysis(t *testing.T, a *api, request string, want *assayv1.AnalyzeHoldoutResponse) {
	t.Helper()
	a.do(t, "EventService/RecordOutcomes", fmt.Sprintf(`{"outcomes":[{"event_id":"late","subject":{"key":"u-1"},"name":"purchase","value":1e6,"occurred_time":%q}]}`,
		exposedAt.Add(time.Minute).Format(time.RFC3339)))
	again := call[*assayv1.AnalyzeHoldoutResponse](t, a, "AnalysisService/AnalyzeHoldout", request)
	if diff := cmp.Diff(want, again, protocmp.Transform()); diff != "" {
		t.Errorf("the same request again:\n%s", diff)
	}
	stored := call[*assayv1.GetAnalysisResponse](t, a, "AnalysisService/GetAnalysis", fmt.Sprintf(`{"analysis_id":%q}`, want.AnalysisId))
	if diff := cmp.Diff(&assayv1.GetAnalysisResponse{HoldoutAnalysis: want}, stored, protocmp.Transform()); diff != "" {
		t.Errorf("stored:\n%s", diff)
	}
	wider := call[*assayv1.AnalyzeHoldoutResponse](t, a, "AnalysisService/AnalyzeHoldout", with(request, `"confidence_level":0.99`))
	if c, narrow := wider.Metrics[0].Comparisons[0], want.Metrics[0].Comparisons[0]; wider.ConfidenceLevel != 0.99 || c.Lift.GetLower() >= narrow.Lift.GetLower() {
		t.Errorf("at 0.99: %v", c)
	}
}

// TestRecordedAssignmentsOfHoldouts stores the exposures with the assignments:
// reports of the same ones bring nothing new.
func TestRecordedAssignmentsOfHoldouts(t *testing.T) {
	a := newAPI(t)
	a.startTried(t)
	// Pinned subjects have no side, nor is the assignment recorded.
	a.do(t, "ExperimentService/SetOverrides", `{"experiment":"first","overrides":[{"subject_key":"pinned","variant":"b"}]}`)
	pinned := `{"experiment":"first","variant":"b","subject":{"key":"pinned"}}`
	a.do(t, "AssignmentService/Assign", `{"subject":{"key":"pinned"},"experiments":["first"],"exposure_recording":"EXPOSURE_RECORDING_DURABLE"}`)
	if got := a.exposeRaw(t, pinned); got.Recorded != 1 {
		t.Errorf("pinned: %v", got)
	}
	visitors, exposures := a.visit(t, 1000, assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE)
	for _, x := range exposures {
		x.ExposedTime = nil
	}
	if again := a.report(t, exposures); again != 0 {
		t.Errorf("%d exposures had not been recorded", again)
	}
	got := call[*assayv1.AnalyzeHoldoutResponse](t, a, "AnalysisService/AnalyzeHoldout", `{"holdout":"global","metrics":["revenue"]}`)
	want := map[string]int64{"held_out": sampleOf(visitors, true).n, "open": sampleOf(visitors, false).n}
	if diff := cmp.Diff(want, got.SampleRatio.Observed); diff != "" {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}
}

// A holdout's metric without data says so, and one that has some accounts for it:
// both sides' outcomes count, and those of subjects that were in no traffic do not.
func TestHoldoutWithoutData(t *testing.T) {
	a := newAPI(t)
	a.startTried(t)
	a.do(t, "MetricService/CreateMetric", `{"metric":{"key":"returns","direction":"DIRECTION_DECREASE","sum":{"outcome":"Purchases"}}}`)
	visitors, exposures := a.visit(t, 600, assayv1.ExposureRecording_EXPOSURE_RECORDING_NONE)
	a.report(t, exposures)
	inside := int64(0)
	for _, v := range visitors {
		if v.inside[0] || v.inside[1] {
			inside++
		}
	}
	got := call[*assayv1.AnalyzeHoldoutResponse](t, a, "AnalysisService/AnalyzeHoldout", `{"holdout":"global","metrics":["revenue","returns"]}`)
	if use := got.Metrics[0].Outcomes[0]; !use.Alive || use.Counted != inside || len(use.NotCounted) != 1 ||
		use.NotCounted[0].Reason != assayv1.UncountedReason_UNCOUNTED_REASON_NEVER_EXPOSED || use.NotCounted[0].Outcomes != 600-inside {
		t.Errorf("outcomes %v, want %d of 600 to count", got.Metrics[0].Outcomes, inside)
	}
	if !said(got.Warnings, "Metric returns has no data", `"Purchases" (but there is "purchase", 600 times)`) || !said(got.Metrics[1].Comparisons[0].Notes, "Metric returns has no data") {
		t.Errorf("warnings %q, notes %q", got.Warnings, got.Metrics[1].Comparisons[0].Notes)
	}
}
