package server_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// exposeInTurns starts an experiment of a against b that decides by a metric, and
// exposes n subjects to it, in turns.
func (a *api) exposeInTurns(tb testing.TB, key, metric, unit string, n int) {
	tb.Helper()
	a.do(tb, "ExperimentService/CreateExperiment", `{"experiment":{"key":"`+key+`","unit":"`+unit+`","assignment":"ASSIGNMENT_EXTERNAL",
		"variants":[{"key":"a","control":true},{"key":"b"}],"metrics":[`+metric+`]}}`)
	a.do(tb, "ExperimentService/StartExperiment", `{"key":"`+key+`"}`)
	var exposures list
	for i := range n {
		exposures.add(`{"experiment":"%s","variant":"%c","subject":{"unit":"%s","key":"%s-%d"},"exposed_time":"2026-01-10T00:00:00Z"}`, key, "ab"[i%2], unit, key, i)
	}
	if got := call[*assayv1.RecordExposuresResponse](tb, a, "EventService/RecordExposures", exposures.of("exposures")); int(got.Recorded) != n {
		tb.Fatal(got)
	}
}

// analyse records outcomes and analyses an experiment.
func (a *api) analyse(tb testing.TB, experiment string, outcomes list) *assayv1.AnalyzeExperimentResponse {
	tb.Helper()
	a.do(tb, "EventService/RecordOutcomes", outcomes.of("outcomes"))
	return call[*assayv1.AnalyzeExperimentResponse](tb, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"`+experiment+`"}`)
}

// said tells whether a text has all of the words.
func said(texts []string, words ...string) bool {
	for _, text := range texts {
		found := true
		for _, w := range words {
			found = found && strings.Contains(text, w)
		}
		if found {
			return true
		}
	}
	return false
}

// Every other page of the slower variant never reports how long it took: its
// figures are those of the pages that did, and it is told that fewer did.
func TestLargestValueOfNothing(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", `{"metric":{"key":"m","direction":"DIRECTION_DECREASE","window":"86400s",
		"formula":{"expression":"m","components":[{"name":"m","outcome":"load","aggregate":"AGGREGATE_MAX"}]}}}`)
	a.exposeInTurns(t, "e", `{"metric":"m","role":"METRIC_ROLE_PRIMARY"}`, "user", 400)
	var outcomes list
	sums, counts := [2]float64{}, [2]float64{}
	for i := range 400 {
		b, j := i%2, i/2
		if b == 1 && j%2 == 1 {
			continue
		}
		x := 300 + 30*b + j%7
		sums[b], counts[b] = sums[b]+float64(x), counts[b]+1
		outcomes.add(`{"event_id":"%d","subject":{"key":"e-%d"},"name":"load","value":%d,"occurred_time":"2026-01-10T01:00:00Z"}`, i, i, x)
	}
	got := a.analyse(t, "e", outcomes)
	m := got.Metrics[0]
	for v, arm := range m.Arms {
		if want := sums[v] / counts[v]; math.Abs(arm.GetMean()-want) > 1e-9 || float64(arm.Subjects) != counts[v] {
			t.Errorf("%s: mean %v of %d, want %v of %v", arm.Variant, arm.GetMean(), arm.Subjects, want, counts[v])
		}
	}
	want := []*assayv1.LeftOut{{Reason: assayv1.LeftOutReason_LEFT_OUT_REASON_NO_OUTCOME, Subjects: map[string]int64{"a": 0, "b": 100}, Share: 0.25}}
	if diff := cmp.Diff(want, m.LeftOut, protocmp.Transform()); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
	if got.Verdict.Action == assayv1.VerdictAction_VERDICT_ACTION_SHIP || m.Comparisons[0].Difference.GetEstimate() < 0 {
		t.Errorf("verdict %v with difference %v of the slower variant", got.Verdict, m.Comparisons[0].Difference)
	}
	if !said(got.Warnings, "Metric m leaves out", "0 of 200 in a", "100 of 200 in b") {
		t.Errorf("warnings %q", got.Warnings)
	}
	if n := got.SampleRatio.Observed["b"]; n != 200 {
		t.Errorf("the sample ratio counts %d subjects of b, want all 200", n)
	}
}

// Every other outcome of one variant lacks its value, and enters no mean.
func TestMeanOfNoValue(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", `{"metric":{"key":"v","direction":"DIRECTION_INCREASE","window":"86400s","mean":{"outcome":"order"}}}`)
	a.exposeInTurns(t, "e", `{"metric":"v","role":"METRIC_ROLE_PRIMARY"}`, "user", 400)
	var outcomes list
	sums, counts := [2]float64{}, [2]float64{}
	for i := range 400 {
		b, j := i%2, i/2
		value := ""
		if b == 0 || j%2 == 0 {
			x := 50 + j%7
			sums[b], counts[b] = sums[b]+float64(x), counts[b]+1
			value = fmt.Sprintf(`"value":%d,`, x)
		}
		outcomes.add(`{"event_id":"%d","subject":{"key":"e-%d"},"name":"order",%s"occurred_time":"2026-01-10T01:00:00Z"}`, i, i, value)
	}
	got := a.analyse(t, "e", outcomes)
	for v, arm := range got.Metrics[0].Arms {
		if want := sums[v] / counts[v]; math.Abs(arm.GetMean()-want) > 1e-9 || arm.Subjects != 200 {
			t.Errorf("%s: mean %v of %d, want %v of 200", arm.Variant, arm.GetMean(), arm.Subjects, want)
		}
	}
	if got.Verdict.Action != assayv1.VerdictAction_VERDICT_ACTION_KEEP_RUNNING {
		t.Errorf("verdict %v, want none yet", got.Verdict)
	}
}
