package server_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

const (
	updateExperiment = "ExperimentService/UpdateExperiment"
	previewUpdate    = "ExperimentService/PreviewUpdate"
)

// variants is what each of n subjects gets of an experiment; empty for none.
func (a *api) variants(tb testing.TB, experiment string, n int) []string {
	tb.Helper()
	ask := &assayv1.BatchAssignRequest{Experiments: []string{experiment}}
	for i := range n {
		ask.Subjects = append(ask.Subjects, &assayv1.Subject{Key: fmt.Sprint("u-", i)})
	}
	resp, err := a.assign.BatchAssign(tb.Context(), ask)
	if err != nil {
		tb.Fatal(err)
	}
	variants := make([]string, n)
	for i, result := range resp.Results {
		variants[i] = result.Assignments[0].Variant
	}
	return variants
}

// expose records that subjects met what they were given.
func (a *api) expose(tb testing.TB, experiment string, variants []string) {
	tb.Helper()
	req := &assayv1.RecordExposuresRequest{}
	for i, v := range variants {
		if v != "" {
			req.Exposures = append(req.Exposures, &assayv1.Exposure{Experiment: experiment, Variant: v, Subject: &assayv1.Subject{Key: fmt.Sprint("u-", i)}})
		}
	}
	if resp, err := a.events.RecordExposures(tb.Context(), req); err != nil || len(resp.Rejected) > 0 {
		tb.Fatal(resp, err)
	}
}

// TestPreviewUpdate holds the figures of previews, that they change nothing,
// and that an update then does what its preview said.
func TestPreviewUpdate(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"traffic":0.5`))
	a.expect(t, previewUpdate, `{"experiment":{"key":"plain","traffic":0.1,"variants":[{"key":"a","control":true},{"key":"b","weight":3}]}}`, `{
		"allocation_before":[{"to":500000,"variant":"a"},{"from":500000,"to":1000000,"variant":"b"}],
		"allocation_after":[{"to":250000,"variant":"a"},{"from":250000,"to":1000000,"variant":"b"}],
		"movement":{},"estimated_exposed_subjects":"0"}`)
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	assigned := a.variants(t, "plain", 101)
	a.expose(t, "plain", assigned)
	exposed := -1 // One of them is pinned, and does not move.
	for i, v := range assigned {
		if v != "" {
			if exposed++; exposed == 0 {
				a.do(t, "ExperimentService/SetOverrides", fmt.Sprintf(`{"experiment":"plain","overrides":[{"subject_key":"u-%d","variant":%q}]}`, i, v))
			}
		}
	}
	about := func(share float64) int { return int(math.Round(share * float64(exposed))) }

	before := a.get(t, "plain")
	const halves = `"allocation_before":[{"to":500000,"variant":"a"},{"from":500000,"to":1000000,"variant":"b"}],`
	for _, tt := range []struct{ name, update, want string }{
		{"nothing", `"experiment":{"key":"plain"}`, halves + `
			"allocation_after":[{"to":500000,"variant":"a"},{"from":500000,"to":1000000,"variant":"b"}],
			"movement":{},"estimated_exposed_subjects":"0"`},
		{"traffic up", `"experiment":{"key":"plain","traffic":0.75}`, halves + `
			"allocation_after":[{"to":500000,"variant":"a"},{"from":500000,"to":1000000,"variant":"b"}],
			"movement":{"enter":0.25},"estimated_exposed_subjects":"0"`},
		{"everything", `"experiment":{"key":"plain","traffic":0.25,"variants":[{"key":"a","control":true},{"key":"b","weight":0},{"key":"c","weight":3}]}`, `"new_phase":true,` + halves + `
			"allocation_after":[{"to":250000,"variant":"a"},{"from":250000,"to":1000000,"variant":"c"}],
			"movement":{"change_variant":0.1875,"leave":0.25,"split_change":0.75,"variants":[
				{"from_variant":"a","to_variant":"c","share":0.0625,"split_share":0.25},{"from_variant":"b","to_variant":"c","share":0.125,"split_share":0.5}]},
			"estimated_exposed_subjects":"` + fmt.Sprint(about(0.875)) + `"`},
		{"reshuffle", `"experiment":{"key":"plain"},"reshuffle":true`, `"new_phase":true,` + halves + `
			"allocation_after":[{"to":500000,"variant":"a"},{"from":500000,"to":1000000,"variant":"b"}],
			"movement":{"change_variant":0.25,"split_change":0.5,"variants":[
				{"from_variant":"a","to_variant":"b","share":0.125,"split_share":0.25},{"from_variant":"b","to_variant":"a","share":0.125,"split_share":0.25}]},
			"estimated_exposed_subjects":"` + fmt.Sprint(about(0.5)) + `"`},
		{"eligibility", `"experiment":{"key":"plain","eligibility":"unit == 'user'"}`, `"new_phase":true,` + halves + `
			"allocation_after":[{"to":500000,"variant":"a"},{"from":500000,"to":1000000,"variant":"b"}],
			"movement":{},"notes":["The eligibility changes: nobody knows how many subjects that lets in or out, so the exposed subjects among them are not estimated."]`},
	} {
		t.Run(tt.name, func(t *testing.T) { a.expect(t, previewUpdate, "{"+tt.update+"}", "{"+tt.want+"}") })
	}
	if diff := cmp.Diff(before, a.get(t, "plain"), protocmp.Transform()); diff != "" {
		t.Errorf("previews have changed the experiment:\n%s", diff)
	}
	if diff := cmp.Diff(assigned, a.variants(t, "plain", 101)); diff != "" {
		t.Errorf("previews have moved subjects:\n%s", diff)
	}
}

// TestMovement changes a running experiment step by step, and looks at whom
// each step moves.
func TestMovement(t *testing.T) {
	const n = 1000
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"traffic":0.5,"variants":[{"key":"a","control":true},{"key":"b"},{"key":"c"}]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	before, experiment := a.variants(t, "plain", n), a.get(t, "plain")
	a.expose(t, "plain", before)
	moved := func(from, to string) func(was, is string) bool {
		return func(was, is string) bool { return was == is || was == from && is == to }
	}
	for _, tt := range []struct {
		name, update string
		newPhase     bool
		allowed      func(was, is string) bool
	}{
		{"traffic up", `"experiment":{"key":"plain","traffic":0.8}`, false, func(was, is string) bool { return was == is || was == "" }},
		{"killed", `"experiment":{"key":"plain","variants":[{"key":"a","control":true},{"key":"b","weight":0},{"key":"c"}]}`, true, func(was, is string) bool { return was == is || was == "b" && is != "" }},
		{"revived", `"experiment":{"key":"plain","variants":[{"key":"a","control":true},{"key":"b"},{"key":"c"}]}`, true, func(was, is string) bool { return was == is || was != "" && is == "b" }},
		{"weights", `"experiment":{"key":"plain","variants":[{"key":"a","control":true,"weight":1},{"key":"b","weight":2},{"key":"c","weight":3}]}`, true, moved("a", "c")},
		{"traffic down", `"experiment":{"key":"plain","traffic":0.4}`, true, func(was, is string) bool { return was == is || is == "" }},
		{"added", `"experiment":{"key":"plain","variants":[{"key":"a","control":true,"weight":1},{"key":"b","weight":2},{"key":"c","weight":3},{"key":"d","weight":4}]}`, true, func(was, is string) bool { return was == is || was != "" && is == "d" }},
		{"removed", `"experiment":{"key":"plain","variants":[{"key":"a","control":true,"weight":1},{"key":"b","weight":2},{"key":"d","weight":4}]}`, true, func(was, is string) bool { return was == is || was == "c" && is != "" }},
		{"reshuffled", `"experiment":{"key":"plain"},"reshuffle":true`, true, func(was, is string) bool { return (was == "") == (is == "") }},
		{"eligibility", `"experiment":{"key":"plain","eligibility":"unit == 'user'"}`, true, func(was, is string) bool { return was == is }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			preview := call[*assayv1.PreviewUpdateResponse](t, a, previewUpdate, "{"+tt.update+"}")
			if tt.newPhase {
				_, err := a.invoke(t, updateExperiment, newRequest(t, updateExperiment, "{"+tt.update+"}"))
				checkRefusal(t, err, codes.FailedPrecondition, fmt.Sprintf("%.4g %% change variant", 100*preview.Movement.ChangeVariant), "MOVEMENT_NOT_ALLOWED")
			}
			next := call[*assayv1.UpdateExperimentResponse](t, a, updateExperiment, fmt.Sprintf(`{%s,"allow_movement":%t}`, tt.update, tt.newPhase)).Experiment
			wantPhase := experiment.Phase
			if tt.newPhase {
				wantPhase++
			}
			if next.Phase != wantPhase || preview.NewPhase != tt.newPhase || next.PlanHash != experiment.PlanHash || next.Salt != "plain" {
				t.Errorf("phase %d, plan %s, salt %s", next.Phase, next.PlanHash, next.Salt)
			}
			got := &assayv1.PreviewUpdateResponse{AllocationBefore: experiment.Allocation, AllocationAfter: next.Allocation}
			want := &assayv1.PreviewUpdateResponse{AllocationBefore: preview.AllocationBefore, AllocationAfter: preview.AllocationAfter}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("allocations (-preview +update):\n%s", diff)
			}
			after := a.variants(t, "plain", n)
			changed := 0.0
			for i := range after {
				if !tt.allowed(before[i], after[i]) {
					t.Fatalf("subject %d moved from %q to %q", i, before[i], after[i])
				}
				if before[i] != "" && after[i] != "" && before[i] != after[i] {
					changed++
				}
			}
			// The shares are exact over all buckets; of n subjects some other
			// number moves, five standard deviations off at most.
			share := preview.Movement.ChangeVariant
			if math.Abs(changed/n-share) > 5*math.Sqrt(share*(1-share)/n) {
				t.Errorf("%v of %d subjects changed variant, and the preview says %v", changed, n, share)
			}
			a.expose(t, "plain", after) // The new revision is in force for exposures of now.
			before, experiment = after, next
		})
	}
	if experiment.SplitSalt != "plain/8" {
		t.Errorf("the salt of the split is %q", experiment.SplitSalt)
	}
}

// TestPreviewRefuses holds that a preview refuses what the update would.
func TestPreviewRefuses(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(""))
	a.live(t, "started", "running")
	a.live(t, "over", "concluded")
	var cases []refusal
	for _, method := range []string{previewUpdate, updateExperiment} {
		name := strings.Split(method, "/")[1]
		cases = append(cases, []refusal{
			{name + " nothing", method, `{}`, codes.InvalidArgument, []string{"experiment.key"}, ""},
			{name + " unknown", method, `{"experiment":{"key":"nothing"}}`, codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, ""},
			{name + " stale", method, `{"experiment":{"key":"plain","etag":"1"}}`, codes.Aborted, []string{"ETAG_MISMATCH"}, ""},
			{name + " mask", method, `{"experiment":{"key":"plain"},"update_mask":"state"}`, codes.InvalidArgument, []string{"update_mask.paths[0]"}, ""},
			{name + " rules", method, `{"experiment":{"key":"started","traffic":2}}`, codes.InvalidArgument, []string{"experiment.traffic"}, ""},
			{name + " across fields", method, `{"experiment":{"key":"started","variants":[{"key":"a"},{"key":"b"}]}}`, codes.InvalidArgument, []string{"experiment.variants"}, ""},
			{name + " weights", method, `{"experiment":{"key":"started","variants":[{"key":"a","control":true,"weight":0},{"key":"b","weight":0}]}}`, codes.InvalidArgument, []string{"experiment.variants"}, "add up to 0"},
			{name + " sealed", method, `{"experiment":{"key":"started","segments":["x"]}}`, codes.FailedPrecondition, []string{"EXPERIMENT_STARTED"}, "segments"},
			{name + " control removed", method, `{"experiment":{"key":"started","variants":[{"key":"b","control":true},{"key":"c"}]}}`, codes.FailedPrecondition, []string{"EXPERIMENT_STARTED"}, "control"},
			{name + " draft reshuffled", method, `{"experiment":{"key":"plain"},"reshuffle":true}`, codes.FailedPrecondition, []string{"STATE_FORBIDS"}, "draft"},
			{name + " concluded", method, `{"experiment":{"key":"over","owner":"x"}}`, codes.FailedPrecondition, []string{"STATE_FORBIDS"}, ""},
		}...)
	}
	cases = append(cases, refusal{"reshuffle alone", updateExperiment, `{"experiment":{"key":"started"},"reshuffle":true}`, codes.FailedPrecondition, []string{"MOVEMENT_NOT_ALLOWED"}, "50 % change variant"})
	a.refuses(t, cases)
}
