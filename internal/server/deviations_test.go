package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// exposeHalves records the exposure of new subjects, half of them to each variant of
// an experiment that is assigned elsewhere.
func (a *api) exposeHalves(tb testing.TB, experiment, name string, n int) {
	tb.Helper()
	var items []string
	for i := range n {
		items = append(items, fmt.Sprintf(`{"experiment":%q,"variant":%q,"subject":{"key":"%s-%d"},"exposed_time":"2026-01-05T10:00:00Z"}`,
			experiment, []string{"a", "b"}[i%2], name, i))
	}
	a.do(tb, "EventService/RecordExposures", `{"exposures":[`+strings.Join(items, ",")+`]}`)
}

func (a *api) deviations(tb testing.TB, request string) map[string]string {
	tb.Helper()
	found := map[string]string{}
	for _, d := range call[*assayv1.AnalyzeExperimentResponse](tb, a, "AnalysisService/AnalyzeExperiment", request).Deviations {
		found[d.Reason] = d.Message
	}
	return found
}

// TestDeviations takes an experiment with a fixed horizon off its plan, step by
// step. What was analysed before a step is not touched by it.
func TestDeviations(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "MetricService/CreateMetric", revenue)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL","plan":{"method":"METHOD_FIXED_HORIZON","planned_subjects":"40"}`))
	a.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"plain","variants":[{"key":"a","control":true},{"key":"b","weight":2}]}}`) // In the draft.
	a.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"plain","variants":[{"key":"a","control":true},{"key":"b"}]}}`)
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	const request = `{"experiment":"plain"}`
	want := map[string]string{}
	step := func(request string) {
		t.Helper()
		if diff := cmp.Diff(want, a.deviations(t, request)); diff != "" {
			t.Errorf("deviations (-want +got):\n%s", diff)
		}
	}
	step(request) // Of nobody, which is no look.
	a.exposeHalves(t, "plain", "early", 20)
	step(request)
	early := `{"experiment":"plain","as_of_time":"` + time.Now().UTC().Format(time.RFC3339Nano) + `"}`
	want["LOOKS_BEFORE_HORIZON"] = "The figures had been looked at once before the 40 planned subjects had been analysed: a fixed horizon is one look, at the planned size."
	step(early)
	wantEarly := map[string]string{"LOOKS_BEFORE_HORIZON": want["LOOKS_BEFORE_HORIZON"]}
	a.do(t, "AnalysisService/AnalyzeExperiment", with(early, `"metrics":["purchase_rate"]`)) // Planned, and of a moment that was looked at.

	a.exposeHalves(t, "plain", "late", 20)
	want["LOOKS_BEFORE_HORIZON"] = strings.Replace(want["LOOKS_BEFORE_HORIZON"], "once", "2 times", 1)
	step(request)
	a.do(t, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain","as_of_time":"2026-01-20T00:00:00Z"}`) // The past, when nothing can be peeked at any more.
	step(request)

	a.do(t, updateExperiment, `{"experiment":{"key":"plain","eligibility":"attributes.country == \"PL\""},"allow_movement":true}`)
	want["ELIGIBILITY_CHANGED"] = "Revision 4 changed the eligibility, and began phase 2."
	a.do(t, updateExperiment, `{"experiment":{"key":"plain"},"reshuffle":true,"allow_movement":true}`)
	want["RESHUFFLED"] = "Revision 5 split all subjects anew, and began phase 3."
	a.do(t, "ExperimentService/SetOverrides", `{"experiment":"plain","overrides":[{"subject_key":"early-0","variant":"a"}]}`)
	a.exposeHalves(t, "plain", "more", 20)
	want["OVERRIDES"] = "1 subject was pinned to a variant at some time, and left out."
	want["PLANNED_SUBJECTS_EXCEEDED"] = "59 subjects were analysed of 40 planned: a fixed horizon decides at the planned size."
	want["METRIC_NOT_PLANNED"] = "The plan does not name the metric revenue: it is exploratory."
	step(`{"experiment":"plain","metrics":["revenue"]}`)

	if diff := cmp.Diff(wantEarly, a.deviations(t, early)); diff != "" {
		t.Errorf("the earlier analysis has changed (-want +got):\n%s", diff)
	}
	wantEarly["METRIC_NOT_PLANNED"] = want["METRIC_NOT_PLANNED"]
	if diff := cmp.Diff(wantEarly, a.deviations(t, with(early, `"metrics":["revenue"]`))); diff != "" {
		t.Errorf("an analysis of the earlier moment knows what happened later (-want +got):\n%s", diff)
	}
}

// TestRepeatedLooks: at a fixed horizon without a size one look counts, and every
// later one says so. Another view of the same moment is no other look.
func TestRepeatedLooks(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "MetricService/CreateMetric", revenue)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL","plan":{"method":"METHOD_FIXED_HORIZON"}`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	const says = "The figures had been looked at %s before, and the plan names no size at which they count: p-values and intervals at a fixed horizon hold for one look."
	step := func(times, request string) {
		t.Helper()
		want := map[string]string{"REPEATED_LOOKS": fmt.Sprintf(says, times)}
		got := a.deviations(t, request)
		if delete(got, "METRIC_NOT_PLANNED"); times == "" {
			delete(want, "REPEATED_LOOKS")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("deviations (-want +got):\n%s", diff)
		}
	}
	step("", `{"experiment":"plain"}`)
	a.exposeHalves(t, "plain", "all", 40)
	first := `{"experiment":"plain","as_of_time":"` + time.Now().UTC().Format(time.RFC3339Nano) + `"}`
	step("", first)
	step("", with(first, `"metrics":["revenue"]`))
	step("once", `{"experiment":"plain"}`)
	step("2 times", `{"experiment":"plain"}`)
	step("", first)
}

// An experiment that was concluded early ended early from then on only.
func TestEndedEarly(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL","plan":{"planned_subjects":"40"}`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	a.exposeHalves(t, "plain", "early", 20)
	running := time.Now()
	a.do(t, "ExperimentService/ConcludeExperiment", `{"key":"plain"}`)
	want := map[string]string{"ENDED_EARLY": "The experiment was concluded with 20 of 40 planned subjects exposed, and undecided."}
	if diff := cmp.Diff(want, a.deviations(t, `{"experiment":"plain"}`)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	got, err := a.analysis.AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: "plain", AsOfTime: timestamppb.New(running)})
	if err != nil || len(got.Deviations) > 0 {
		t.Errorf("while it ran: %v, %v", got.GetDeviations(), err)
	}
}
