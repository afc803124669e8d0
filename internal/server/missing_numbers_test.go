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

// Every other outcome of one variant lacks its value, and enters no mean. Who has one
// then differs between the variants, and no verdict rests on it.
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
	left := got.Metrics[0].LeftOut
	if len(left) != 1 || left[0].Reason != assayv1.LeftOutReason_LEFT_OUT_REASON_NO_VALUE || left[0].Subjects["b"] != 100 || left[0].Subjects["a"] != 0 || left[0].Share != 0.25 {
		t.Errorf("left out %v", left)
	}
	if got.Verdict.Action != assayv1.VerdictAction_VERDICT_ACTION_INCONCLUSIVE || !said(got.Verdict.Reasons, "Metric v tells nothing of the subjects that have no value for it", "0 of 200 in a, 100 of 200 in b") {
		t.Errorf("verdict %v, want it withheld", got.Verdict)
	}
}

// A guardrail whose outcome arrives under another name does not pass, and nothing
// is shipped; one of which somebody has an outcome passes if nobody exposed does.
func TestGuardrailWithoutData(t *testing.T) {
	a := newAPI(t)
	for key, outcome := range map[string]string{"s": "signup", "u": "unsubscribe", "crashes": "crash"} {
		direction := "DECREASE"
		if key == "s" {
			direction = "INCREASE"
		}
		a.do(t, "MetricService/CreateMetric", `{"metric":{"key":"`+key+`","direction":"DIRECTION_`+direction+`","proportion":{"outcome":"`+outcome+`"},"window":"86400s"}}`)
	}
	a.exposeInTurns(t, "e", `{"metric":"s","role":"METRIC_ROLE_PRIMARY"},{"metric":"u","role":"METRIC_ROLE_GUARDRAIL","margin":{"absolute":0.5}},
		{"metric":"crashes","role":"METRIC_ROLE_GUARDRAIL","margin":{"absolute":0.1}}`, "user", 4000)
	outcomes := list(`{"event_id":"c","subject":{"key":"somebody else"},"name":"crash","occurred_time":"2026-01-10T02:00:00Z"}`)
	unsubscribed := int64(0)
	for i := range 4000 {
		b, j := i%2, i/2%100
		if j < 20+20*b {
			outcomes.add(`{"event_id":"s","subject":{"key":"e-%d"},"name":"signup","occurred_time":"2026-01-10T01:00:00Z"}`, i)
		}
		if (j+37)%100 < 5+35*b {
			unsubscribed++
			outcomes.add(`{"event_id":"u","subject":{"key":"e-%d"},"name":"Unsubscribe","occurred_time":"2026-01-10T02:00:00Z"}`, i)
		}
	}
	got := a.analyse(t, "e", outcomes)
	if got.Verdict.Action != assayv1.VerdictAction_VERDICT_ACTION_KEEP_RUNNING {
		t.Errorf("verdict %v, want none", got.Verdict)
	}
	why := []string{`Metric u has no data`, `"unsubscribe" (but there is "Unsubscribe", 900 times)`}
	if !said(got.Verdict.Reasons, why...) || !said(got.Warnings, why...) {
		t.Errorf("reasons %q, warnings %q", got.Verdict.Reasons, got.Warnings)
	}
	signup, dead, alive := got.Metrics[0], got.Metrics[1], got.Metrics[2]
	if g := dead.Comparisons[0].Guardrail; g != assayv1.GuardrailVerdict_GUARDRAIL_VERDICT_UNDECIDED || dead.Comparisons[0].Significant {
		t.Errorf("without data: %v", dead.Comparisons[0])
	}
	if g := alive.Comparisons[0].Guardrail; g != assayv1.GuardrailVerdict_GUARDRAIL_VERDICT_PASSED {
		t.Errorf("without crashes among the exposed: %v", alive.Comparisons[0])
	}
	want := [][]*assayv1.OutcomeUse{
		{{Name: "signup", Alive: true, Counted: 1200}},
		{{Name: "unsubscribe", Similar: []*assayv1.SimilarOutcomes{{Name: "Unsubscribe", Unit: "user", Outcomes: unsubscribed}}}},
		{{Name: "crash", Alive: true, NotCounted: []*assayv1.UncountedOutcomes{{Reason: assayv1.UncountedReason_UNCOUNTED_REASON_NEVER_EXPOSED, Outcomes: 1}}}},
	}
	if diff := cmp.Diff(want, [][]*assayv1.OutcomeUse{signup.Outcomes, dead.Outcomes, alive.Outcomes}, protocmp.Transform()); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	line := call[*assayv1.GetTimelineResponse](t, a, "AnalysisService/GetTimeline", `{"experiment":"e","metric":"u"}`)
	if g := line.Cumulative[0].Comparisons[0].Guardrail; g != assayv1.GuardrailVerdict_GUARDRAIL_VERDICT_UNDECIDED || !said(line.Notes, why...) {
		t.Errorf("the timeline: %v, notes %q", g, line.Notes)
	}
	_, err := a.invoke(t, "AnalysisService/PlanExperiment", newRequest(t, "AnalysisService/PlanExperiment",
		`{"metric":{"experiment":"e","metric":"u"},"minimum_effect":{"relative":0.1},"power":0.8}`))
	if err == nil || !strings.Contains(err.Error(), why[0]) {
		t.Errorf("the plan: %v", err)
	}
	// The first that is recorded for the experiment makes 0 a number.
	if got = a.analyse(t, "e", `{"event_id":"x","subject":{"key":"a third"},"name":"unsubscribe","occurred_time":"2026-01-10T00:00:00Z"}`); got.Verdict.Action != assayv1.VerdictAction_VERDICT_ACTION_SHIP {
		t.Errorf("with data: %v", got.Verdict)
	}
}

// The experiment is of accounts, and outcomes are recorded for users.
func TestOutcomesOfAnotherUnit(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", `{"metric":{"key":"m","direction":"DIRECTION_INCREASE","proportion":{"outcome":"signup"},"window":"86400s"}}`)
	a.exposeInTurns(t, "e", `{"metric":"m","role":"METRIC_ROLE_PRIMARY"}`, "account", 100)
	of := func(unit, time string) (outcomes list) {
		for i := range 100 {
			outcomes.add(`{"event_id":"x","subject":{"unit":"%s","key":"e-%d"},"name":"signup","occurred_time":"%s"}`, unit, i, time)
		}
		return outcomes
	}
	got := a.analyse(t, "e", of("user", "2026-01-10T01:00:00Z"))
	foreign := &assayv1.UncountedOutcomes{Reason: assayv1.UncountedReason_UNCOUNTED_REASON_OTHER_UNIT, Outcomes: 100}
	similar := []*assayv1.SimilarOutcomes{{Name: "signup", Unit: "user", Outcomes: 100}}
	want := []*assayv1.OutcomeUse{{Name: "signup", NotCounted: []*assayv1.UncountedOutcomes{foreign}, Similar: similar}}
	if diff := cmp.Diff(want, got.Metrics[0].Outcomes, protocmp.Transform()); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if why := []string{"Metric m has no data", "of the unit account", `"signup" of the unit user, 100 times`}; !said(got.Warnings, why...) || !said(got.Verdict.Reasons, why...) {
		t.Errorf("warnings %q, reasons %q", got.Warnings, got.Verdict.Reasons)
	}
	// A clock that is a second behind.
	got = a.analyse(t, "e", of("account", "2026-01-09T23:59:59Z"))
	if !said(got.Warnings, "Metric m has no data", "but for 100 in the last 5 seconds before the subject's exposure") {
		t.Errorf("what is from before the first exposure and the start makes nothing alive: %q", got.Warnings)
	}
	a.do(t, "EventService/RecordExposures", `{"exposures":[{"experiment":"e","variant":"a","subject":{"unit":"account","key":"early"},"exposed_time":"2026-01-09T00:00:00Z"}]}`)
	got = a.analyse(t, "e", `{"event_id":"x","subject":{"unit":"account","key":"e-0"},"name":"signup","occurred_time":"2026-01-10T01:00:00Z"}`)
	want = []*assayv1.OutcomeUse{{Name: "signup", Alive: true, Counted: 1, NotCounted: []*assayv1.UncountedOutcomes{
		foreign, {Reason: assayv1.UncountedReason_UNCOUNTED_REASON_BEFORE_EXPOSURE, Outcomes: 100, ShortlyBefore: 100}}, Similar: similar}}
	if diff := cmp.Diff(want, got.Metrics[0].Outcomes, protocmp.Transform()); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if !said(got.Warnings, `100 outcomes "signup" do not count for m`, "last 5 seconds") {
		t.Errorf("warnings %q", got.Warnings)
	}
}
