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
)

// endlessRevenue is revenue without a window.
const endlessRevenue = `{"metric":{"key":"revenue","direction":"DIRECTION_INCREASE","sum":{"outcome":"purchase"}}}`

// exposed assigns the subjects name-from to name-to of an experiment and records
// that they were exposed, and returns what each was given.
func (a *api) exposed(tb testing.TB, experiment, name string, from, to int) map[string]string {
	tb.Helper()
	given := map[string]string{}
	for start := from; start < to; start += 1000 {
		req := &assayv1.BatchAssignRequest{Experiments: []string{experiment}, ExposureRecording: assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE}
		for i := start; i < min(start+1000, to); i++ {
			req.Subjects = append(req.Subjects, &assayv1.Subject{Key: fmt.Sprint(name, "-", i)})
		}
		resp, err := a.assign.BatchAssign(tb.Context(), req)
		if err != nil {
			tb.Fatal(err)
		}
		for i, result := range resp.Results {
			got := result.Assignments[0]
			if got.ExposureError != "" {
				tb.Fatal(got)
			}
			given[req.Subjects[i].Key] = got.Variant
		}
	}
	return given
}

// spend has every subject spend something now, and some time go by before and after.
func (a *api) spend(tb testing.TB, event string, given map[string]string, spent func(key, variant string) float64) {
	tb.Helper()
	time.Sleep(2 * time.Millisecond)
	at := nowText()
	var items []string
	for key, variant := range given {
		items = append(items, fmt.Sprintf(`{"event_id":%q,"subject":{"key":%q},"name":"purchase","value":%v,"occurred_time":%q}`, event, key, spent(key, variant), at))
	}
	for part := range slices.Chunk(items, 2000) {
		a.do(tb, "EventService/RecordOutcomes", `{"outcomes":[`+strings.Join(part, ",")+`]}`)
	}
	time.Sleep(2 * time.Millisecond)
}

// spread spends amounts from base to base + 2.
func spread(base float64) func(key, variant string) float64 {
	return func(key, _ string) float64 { return base + float64(key[len(key)-1]%3) }
}

func (a *api) analyze(tb testing.TB, request string) *assayv1.AnalyzeExperimentResponse {
	tb.Helper()
	return call[*assayv1.AnalyzeExperimentResponse](tb, a, "AnalysisService/AnalyzeExperiment", request)
}

// warned says whether a warning holds all of the words.
func warned(warnings []string, words ...string) bool {
	return slices.ContainsFunc(warnings, func(w string) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(w, word) })
	})
}

// TestCountingEndsWithTheConclusion ships b, which the control's subjects get from
// then on: what anybody does then changes no figure, wherever it is asked for.
func TestCountingEndsWithTheConclusion(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", endlessRevenue)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"},{"metric":"purchase_rate","role":"METRIC_ROLE_SECONDARY"}]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	given := a.exposed(t, "plain", "u", 0, 60)
	a.spend(t, "first", given, spread(10))
	const plan = `{"metric":{"metric":"revenue","experiment":"plain"},"subjects":"100","power":0.8}`
	running, planned := nowText(), call[*assayv1.PlanExperimentResponse](t, a, planExperiment, plan)
	before := a.analyze(t, `{"experiment":"plain"}`)
	e := call[*assayv1.ConcludeExperimentResponse](t, a, "ExperimentService/ConcludeExperiment", `{"key":"plain","shipped_variant":"b"}`).Experiment
	a.spend(t, "second", given, spread(1000))

	after := a.analyze(t, `{"experiment":"plain"}`)
	for i, m := range after.Metrics {
		if diff := cmp.Diff(before.Metrics[i], m, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.MetricAnalysis{}, "outcomes")); diff != "" {
			t.Errorf("after the conclusion %s is another (-before +after):\n%s", m.Metric, diff)
		}
	}
	if diff := cmp.Diff(e.ConcludeTime, after.CountingEndTime, protocmp.Transform()); diff != "" || before.CountingEndTime != nil {
		t.Errorf("counting ended at %v, before that %v:\n%s", after.CountingEndTime, before.CountingEndTime, diff)
	}
	if !warned(after.Warnings, "Counting ended at") || !warned(after.Warnings, "make the effect look larger on average than it is; its intervals hold only if") || warned(before.Warnings, "Counting ended") {
		t.Errorf("warnings %q, and before the conclusion %q", after.Warnings, before.Warnings)
	}
	if m := after.Metrics[1]; m.OpenWindowSubjects != 60 || m.Arms[0].Subjects != 0 {
		t.Errorf("the windows had not closed, and %v", m)
	}
	if use := after.Metrics[0].Outcomes[0]; use.Counted != 60 || len(use.NotCounted) != 1 || use.NotCounted[0].Reason != assayv1.UncountedReason_UNCOUNTED_REASON_AFTER_CONCLUSION {
		t.Errorf("of the outcomes: %v", use)
	}
	while := a.analyze(t, fmt.Sprintf(`{"experiment":"plain","as_of_time":%q}`, running))
	if while.CountingEndTime != nil || warned(while.Warnings, "Counting ended") {
		t.Errorf("as of a moment before: %v, %q", while.CountingEndTime, while.Warnings)
	}

	line := call[*assayv1.GetTimelineResponse](t, a, "AnalysisService/GetTimeline", `{"experiment":"plain"}`)
	if got := line.Cumulative[len(line.Cumulative)-1]; !cmp.Equal(got.Arms, after.Metrics[0].Arms, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.ArmResult{}, "largest_share")) || !warned(line.Notes, "Counting ended at") {
		t.Errorf("the timeline has %v, and the analysis %v; notes %q", got.Arms, after.Metrics[0].Arms, line.Notes)
	}
	changed := call[*assayv1.CompareAnalysesResponse](t, a, compareAnalyses, fmt.Sprintf(`{"from_analysis_id":%q,"to_analysis_id":%q}`, before.AnalysisId, after.AnalysisId))
	if c := changed.Changes[0]; c.ByLateEvents == nil || *c.ByLateEvents != 0 || c.GetFrom() != c.GetTo() {
		t.Errorf("changes %v, notes %q", changed.Changes, changed.Notes)
	}
	again := call[*assayv1.PlanExperimentResponse](t, a, planExperiment, plan)
	if again.Baseline != planned.Baseline || again.StandardDeviation != planned.StandardDeviation {
		t.Errorf("planned with %v, and with %v before the conclusion", again, planned)
	}
}

// TestConclusionWithWindows counts the subjects whose window had closed by the
// conclusion. An always-valid interval of theirs holds.
func TestConclusionWithWindows(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(``))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	a.arrive(t, "plain", "closed", 200, map[string]float64{"a": 0.2, "b": 0.4})
	a.exposed(t, "plain", "open", 0, 30)
	a.do(t, "ExperimentService/ConcludeExperiment", `{"key":"plain"}`)
	got := a.analyze(t, `{"experiment":"plain"}`)
	if m := got.Metrics[0]; m.OpenWindowSubjects != 30 || m.Arms[0].Subjects+m.Arms[1].Subjects != 200 {
		t.Errorf("%v", m)
	}
	if !warned(got.Warnings, "30 subjects were not counted for the primary metric, as the window after exposure was still open when counting ended.") ||
		!warned(got.Warnings, "its intervals hold all the same") {
		t.Errorf("warnings %q", got.Warnings)
	}
}

// TestPauses: what happens in a pause, when everybody gets the same, dilutes an
// effect, and can be left out.
func TestPauses(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", endlessRevenue)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"}]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	given := a.exposed(t, "plain", "u", 0, 60)
	a.spend(t, "running", given, spread(10))
	before := a.analyze(t, `{"experiment":"plain"}`)
	if before.PausedShare != 0 || warned(before.Warnings, "pause") {
		t.Errorf("before the pause: %v, %q", before.PausedShare, before.Warnings)
	}
	a.do(t, "ExperimentService/PauseExperiment", `{"key":"plain"}`)
	a.spend(t, "paused", given, spread(1000))
	during := a.analyze(t, `{"experiment":"plain","exclude_pauses":true}`)
	a.do(t, "ExperimentService/ResumeExperiment", `{"key":"plain"}`)
	a.spend(t, "resumed", given, spread(0))

	all, excluded := a.analyze(t, `{"experiment":"plain"}`), a.analyze(t, `{"experiment":"plain","exclude_pauses":true}`)
	mean := func(of *assayv1.AnalyzeExperimentResponse) float64 { return of.Metrics[0].Arms[0].GetMean() }
	if got := mean(all) - mean(excluded); got < 1000 || got > 1002 || mean(during) != mean(before) {
		t.Errorf("means: %v with the pause, %v without, %v before and %v during it", mean(all), mean(excluded), mean(before), mean(during))
	}
	for _, of := range []*assayv1.AnalyzeExperimentResponse{all, excluded} {
		if of.PausedShare <= 0 || of.PausedShare >= 1 || of.Metrics[0].PausedShare != of.PausedShare || !warned(of.Warnings, "followed for revenue lies in 1 pause") {
			t.Errorf("share %v, warnings %q", of.PausedShare, of.Warnings)
		}
	}
	for excludes, analysis := range map[bool]*assayv1.AnalyzeExperimentResponse{false: all, true: excluded} {
		timeline := call[*assayv1.GetTimelineResponse](t, a, "AnalysisService/GetTimeline", fmt.Sprintf(`{"experiment":"plain","exclude_pauses":%t}`, excludes))
		if last := timeline.Cumulative[len(timeline.Cumulative)-1]; last.Arms[0].GetMean() != mean(analysis) || !warned(timeline.Notes, "followed for revenue lies in 1 pause") {
			t.Errorf("timeline, pauses excluded %t: mean %v, the analysis has %v; notes %q", excludes, last.Arms[0].GetMean(), mean(analysis), timeline.Notes)
		}
	}
	says := func(of *assayv1.AnalyzeExperimentResponse) bool {
		return slices.ContainsFunc(of.Deviations, func(d *assayv1.Deviation) bool { return d.Reason == "PAUSES_EXCLUDED" })
	}
	if says(all) || !says(excluded) || !says(during) {
		t.Errorf("deviations %v, %v and %v", all.Deviations, excluded.Deviations, during.Deviations)
	}
	// Both can be made again as they were.
	changed := call[*assayv1.CompareAnalysesResponse](t, a, compareAnalyses, fmt.Sprintf(`{"from_analysis_id":%q,"to_analysis_id":%q}`, during.AnalysisId, excluded.AnalysisId))
	if c := changed.Changes[0]; c.ByLateEvents == nil {
		t.Errorf("changes %v, notes %q", changed.Changes, changed.Notes)
	}
}

// TestCountingEndsWithTheHoldout lets those who were held out go: what they do then
// is not that of the status quo.
func TestCountingEndsWithTheHoldout(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", endlessRevenue)
	a.do(t, createHoldout, newHoldout(``))
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"metrics":[]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	given := a.exposed(t, "plain", "u", 0, 60)
	a.spend(t, "held out", given, spread(10))
	const request = `{"holdout":"global","metrics":["revenue"]}`
	analyze := func() *assayv1.AnalyzeHoldoutResponse {
		return call[*assayv1.AnalyzeHoldoutResponse](t, a, "AnalysisService/AnalyzeHoldout", request)
	}
	before := analyze()
	ended := call[*assayv1.UpdateHoldoutResponse](t, a, updateHoldout, fmt.Sprintf(`{"holdout":{"key":"global","end_time":%q}}`, nowText())).Holdout
	a.spend(t, "let go", given, spread(1000))
	after := analyze()
	if diff := cmp.Diff(before.Metrics, after.Metrics, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.MetricAnalysis{}, "outcomes")); diff != "" {
		t.Errorf("after the end (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(ended.EndTime, after.CountingEndTime, protocmp.Transform()); diff != "" || before.CountingEndTime != nil || !warned(after.Warnings, "Counting ended at") {
		t.Errorf("counting ended at %v, warnings %q:\n%s", after.CountingEndTime, after.Warnings, diff)
	}
}

// bought spends 2 under a and 6 under b, and 10 under c, or one more or less.
func bought(key, variant string) float64 {
	return map[string]float64{"a": 2, "b": 6, "c": 10}[variant] + float64(key[len(key)-1]%3) - 1
}

// leftOut is how many subjects of each variant were moved.
func leftOut(m *assayv1.MetricAnalysis) map[string]int64 {
	for _, l := range m.LeftOut {
		if l.Reason == assayv1.LeftOutReason_LEFT_OUT_REASON_MOVED {
			return l.Subjects
		}
	}
	return nil
}

// TestMovedSubjects turns 90:10 into 50:50. Most of the first subjects live under b
// from then on, where all is bought; their first variant is not credited with that.
func TestMovedSubjects(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", endlessRevenue)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"variants":[{"key":"a","control":true,"weight":9},{"key":"b","weight":1}],
		"metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"}],"segments":["country"]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	first := a.exposed(t, "plain", "u", 0, 1000)
	time.Sleep(2 * time.Millisecond)
	a.do(t, updateExperiment, `{"allow_movement":true,"experiment":{"key":"plain","variants":[{"key":"a","control":true,"weight":1},{"key":"b","weight":1}]}}`)
	given := a.exposed(t, "plain", "u", 0, 2000) // All of the first come back.
	a.spend(t, "order", given, bought)
	moved, stay := int64(0), map[string]int64{}
	for key, variant := range given {
		if before, ok := first[key]; ok && before != variant {
			moved++
		} else {
			stay[variant]++
		}
	}

	got := a.analyze(t, `{"experiment":"plain","segments":["country"]}`)
	m := got.Metrics[0]
	if d := m.Comparisons[0].Difference; d.GetEstimate() < 3.9 || d.GetEstimate() > 4.1 || d.GetLower() > 4 || d.GetUpper() < 4 {
		t.Errorf("difference %v, and the true one is 4", d)
	}
	if diff := cmp.Diff(map[string]int64{"a": moved, "b": 0}, leftOut(m)); diff != "" || m.Arms[0].Subjects != stay["a"] || m.Arms[1].Subjects != stay["b"] {
		t.Errorf("%v of %v; left out (-want +got):\n%s", m.Arms, stay, diff)
	}
	if !warned(got.Warnings, fmt.Sprintf("%d subjects were left out of revenue (%.3g%%), as a later phase gave them another variant", moved, float64(moved)/20)) {
		t.Errorf("warnings %q", got.Warnings)
	}
	if use := m.Outcomes[0]; use.Counted != 2000-moved || len(use.NotCounted) != 1 || use.NotCounted[0].Outcomes != moved || use.NotCounted[0].Reason != assayv1.UncountedReason_UNCOUNTED_REASON_SUBJECT_LEFT_OUT {
		t.Errorf("of the outcomes: %v", use)
	}
	if r := got.SampleRatio; r.Verdict != assayv1.SampleRatioVerdict_SAMPLE_RATIO_VERDICT_OK || r.Observed["a"]+r.Observed["b"] != 2000 {
		t.Errorf("the sample ratio is of everybody: %v", r)
	}
	if cut := m.Segments[0]; cut.Arms[0].Subjects != stay["a"] || cut.Comparisons[0].Difference.GetEstimate() != m.Comparisons[0].Difference.GetEstimate() {
		t.Errorf("the only segment: %v", cut)
	}
	line := call[*assayv1.GetTimelineResponse](t, a, "AnalysisService/GetTimeline", `{"experiment":"plain"}`)
	if last := line.Cumulative[len(line.Cumulative)-1]; !cmp.Equal(last.Arms, m.Arms, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.ArmResult{}, "largest_share")) || !warned(line.Notes, "left out of revenue") {
		t.Errorf("timeline %v, notes %q", last, line.Notes)
	}
	plan := call[*assayv1.PlanExperimentResponse](t, a, planExperiment, `{"metric":{"metric":"revenue","experiment":"plain"},"subjects":"100","power":0.8}`)
	if plan.BaselineSubjects != stay["a"] || plan.Baseline != m.Arms[0].GetMean() {
		t.Errorf("planned by %v, want those who stayed", plan)
	}
	// What is asked of earlier is as it was.
	changed := call[*assayv1.CompareAnalysesResponse](t, a, compareAnalyses, fmt.Sprintf(`{"from_analysis_id":%q,"to_analysis_id":%q}`, got.AnalysisId, a.analyze(t, `{"experiment":"plain"}`).AnalysisId))
	if c := changed.Changes[0]; c.ByLateEvents == nil || c.GetFrom() != c.GetTo() {
		t.Errorf("changes %v, notes %q", changed.Changes, changed.Notes)
	}
}

// TestEndedVariant takes all weight from c, whose subjects live under a and b from
// then on. What they did before counts where its window has closed.
func TestEndedVariant(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", endlessRevenue)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"variants":[{"key":"a","control":true},{"key":"b"},{"key":"c"}],
		"metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"},{"metric":"purchase_rate","role":"METRIC_ROLE_SECONDARY"}]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	a.arrive(t, "plain", "early", 300, map[string]float64{"a": 0.2, "b": 0.3, "c": 0.4})
	first := a.exposed(t, "plain", "u", 0, 600)
	time.Sleep(2 * time.Millisecond)
	a.do(t, updateExperiment, `{"allow_movement":true,"experiment":{"key":"plain","variants":[{"key":"a","control":true},{"key":"b"},{"key":"c","weight":0}]}}`)
	given := a.exposed(t, "plain", "u", 0, 600)
	a.spend(t, "order", given, bought)
	ended := int64(0)
	for _, variant := range first {
		if variant == "c" {
			ended++
		}
	}

	got := a.analyze(t, `{"experiment":"plain"}`)
	m := got.Metrics[0]
	left := leftOut(m)
	if m.Arms[2].Subjects != 0 || left["c"] < ended || left["a"] != 0 || left["b"] != 0 {
		t.Errorf("%v, left out %v: without a window all of c are", m.Arms, left)
	}
	early := got.Metrics[1]
	if early.LeftOut != nil || early.Arms[0].Subjects+early.Arms[1].Subjects+early.Arms[2].Subjects != 300 || early.Comparisons[1].Difference.GetEstimate() < 0.1 {
		t.Errorf("of the windows that had closed: %v, left out %v", early.Arms, early.LeftOut)
	}
	if d := m.Comparisons[0].Difference; d.GetEstimate() < 2.4 || m.Comparisons[1].Difference.GetEstimate() != 0 || len(m.Comparisons[1].Notes) == 0 {
		t.Errorf("%v", m.Comparisons)
	}
}

// TestDilutingPhase: whom lower traffic leaves without a variant is not known.
func TestDilutingPhase(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", endlessRevenue)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"}]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	given := a.exposed(t, "plain", "u", 0, 60)
	a.spend(t, "order", given, bought)
	a.do(t, updateExperiment, `{"allow_movement":true,"experiment":{"key":"plain","traffic":0.5}}`)
	time.Sleep(2 * time.Millisecond)
	got := a.analyze(t, `{"experiment":"plain"}`)
	if m := got.Metrics[0]; m.LeftOut != nil || m.Arms[0].Subjects+m.Arms[1].Subjects != 60 || !warned(got.Warnings, "60 subjects were followed for revenue (100% of its subjects) past a later phase that lowered the traffic") {
		t.Errorf("%v, warnings %q", m, got.Warnings)
	}
}

// TestUnknownBuckets: exposures from before buckets were kept count, and a warning
// says how many.
func TestUnknownBuckets(t *testing.T) {
	a, address := newAPIAt(t)
	a.do(t, "MetricService/CreateMetric", endlessRevenue)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"}]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	a.exposed(t, "plain", "old", 0, 40)
	if _, err := connect(t, address).Exec(t.Context(), `UPDATE exposures SET bucket = NULL`); err != nil {
		t.Fatal(err)
	}
	known := a.exposed(t, "plain", "new", 0, 40)
	time.Sleep(2 * time.Millisecond)
	a.do(t, updateExperiment, `{"allow_movement":true,"experiment":{"key":"plain","variants":[{"key":"a","control":true,"weight":0},{"key":"b","weight":1}]}}`)
	time.Sleep(2 * time.Millisecond)
	moved := int64(0)
	for _, variant := range known {
		if variant == "a" {
			moved++
		}
	}
	got := a.analyze(t, `{"experiment":"plain"}`)
	if m := got.Metrics[0]; leftOut(m)["a"] != moved || m.Arms[0].Subjects+m.Arms[1].Subjects != 80-moved {
		t.Errorf("%v, left out %v, want %d", m.Arms, m.LeftOut, moved)
	}
	if !warned(got.Warnings, "40 subjects were followed for revenue past a later phase", "it is not known which bucket") {
		t.Errorf("warnings %q", got.Warnings)
	}
}
