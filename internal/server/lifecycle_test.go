package server_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// assigned asks for one subject and experiment.
func (a *api) assigned(tb testing.TB, experiment, subject string) *assayv1.Assignment {
	tb.Helper()
	return call[*assayv1.AssignResponse](tb, a, "AssignmentService/Assign",
		fmt.Sprintf(`{"subject":%s,"experiments":[%q]}`, subject, experiment)).Assignments[0]
}

// TestLifecycle takes an experiment through its life, and asks for an adult
// and a child after every step.
func TestLifecycle(t *testing.T) {
	const adult, child = `{"key":"u-1","attributes":{"country":"PL","age":31}}`, `{"key":"u-1","attributes":{"country":"PL","age":3}}`
	a := newAPI(t)
	expect := func(step, subject string, reason assayv1.Reason, variant string, revision int32) {
		t.Helper()
		got := a.assigned(t, "checkout-copy", subject)
		want := &assayv1.Assignment{Experiment: "checkout-copy", Reason: reason, Variant: variant, Revision: revision}
		if variant == "short" {
			want.Payload = &structpb.Struct{Fields: map[string]*structpb.Value{"title": structpb.NewStringValue("Pay now")}}
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step, diff)
		}
	}
	step := func(verb, rest string, state assayv1.State) {
		t.Helper()
		a.do(t, "ExperimentService/"+verb+"Experiment", with(`{"key":"checkout-copy"}`, rest))
		if got := a.get(t, "checkout-copy").State; got != state {
			t.Errorf("%s: the state is %v", verb, got)
		}
	}
	expect("before", adult, assayv1.Reason_REASON_NOT_FOUND, "", 0)
	a.createCheckoutCopy(t)
	expect("created", adult, assayv1.Reason_REASON_NOT_RUNNING, "", 1)
	step("Start", ``, assayv1.State_STATE_RUNNING)
	expect("started", adult, assayv1.Reason_REASON_SPLIT, "short", 1)
	expect("started", child, assayv1.Reason_REASON_INELIGIBLE, "", 1)
	step("Pause", ``, assayv1.State_STATE_PAUSED)
	expect("paused", adult, assayv1.Reason_REASON_NOT_RUNNING, "", 1)
	a.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"checkout-copy","owner":"x"}}`)
	step("Resume", ``, assayv1.State_STATE_RUNNING)
	expect("resumed", adult, assayv1.Reason_REASON_SPLIT, "short", 2)
	running := a.get(t, "checkout-copy")
	if running.Conclusion != nil {
		t.Errorf("running, and concluded as %v", running.Conclusion)
	}
	step("Conclude", fmt.Sprintf(`"shipped_variant":"control","rationale":"dearer","etag":%q`, running.Etag), assayv1.State_STATE_CONCLUDED)
	expect("concluded", adult, assayv1.Reason_REASON_CONCLUDED, "control", 2)
	expect("concluded", child, assayv1.Reason_REASON_INELIGIBLE, "", 2)
	concluded := a.get(t, "checkout-copy")
	if c := concluded.Conclusion; c.GetShippedVariant() != "control" || c.GetRationale() != "dearer" || concluded.ConcludeTime == nil || concluded.StartTime.AsTime() != running.StartTime.AsTime() {
		t.Errorf("concluded: %v", concluded)
	}
	a.do(t, "AnalysisService/AnalyzeExperiment", `{"experiment":"checkout-copy"}`)
	step("Archive", ``, assayv1.State_STATE_ARCHIVED)
	expect("archived", adult, assayv1.Reason_REASON_NOT_RUNNING, "", 2)
	a.do(t, "AnalysisService/AnalyzeExperiment", `{"experiment":"checkout-copy"}`)
}

// TestConcludeWithout a variant to ship ends the assignments.
func TestConcludeWithout(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.live(t, "plain", "running")
	_, err := a.experiments.ConcludeExperiment(t.Context(), &assayv1.ConcludeExperimentRequest{Key: "plain", ShippedVariant: "c"})
	checkRefusal(t, err, codes.InvalidArgument, `no variant "c"`, "shipped_variant")
	a.do(t, "ExperimentService/ConcludeExperiment", `{"key":"plain"}`)
	if got := a.assigned(t, "plain", `{"key":"u"}`); got.Reason != assayv1.Reason_REASON_NOT_RUNNING || got.Variant != "" {
		t.Errorf("after the conclusion: %v", got)
	}
}

func TestOverrides(t *testing.T) {
	const outside = `{"key":"u-2","attributes":{"country":"DE"}}`
	a := newAPI(t)
	a.createCheckoutCopy(t)
	set := func(overrides string, changed int) {
		t.Helper()
		a.expect(t, "ExperimentService/SetOverrides", `{"experiment":"checkout-copy","overrides":[`+overrides+`]}`, fmt.Sprintf(`{"changed":%d}`, changed))
	}
	set(`{"subject_key":"u-2","variant":"short"},{"subject_key":"u-3","variant":"control"},{"subject_key":"u-4"}`, 2)
	set(`{"subject_key":"u-2","variant":"short"}`, 0)
	if got := a.assigned(t, "checkout-copy", outside); got.Reason != assayv1.Reason_REASON_NOT_RUNNING {
		t.Errorf("pinned in a draft: %v", got)
	}
	a.do(t, "ExperimentService/StartExperiment", `{"key":"checkout-copy"}`)
	if got := a.assigned(t, "checkout-copy", outside); got.Reason != assayv1.Reason_REASON_OVERRIDE || got.Variant != "short" || got.Payload == nil {
		t.Errorf("pinned: %v", got)
	}
	if got := a.exposeRaw(t, `{"experiment":"checkout-copy","variant":"short","subject":{"key":"u-2"}}`); got.Recorded != 1 {
		t.Errorf("an exposure to the pinned variant: %v", got)
	}
	set(`{"subject_key":"u-2","variant":"control"},{"subject_key":"u-3"}`, 2)
	if got := a.assigned(t, "checkout-copy", outside); got.Variant != "control" {
		t.Errorf("pinned again: %v", got)
	}
	list := call[*assayv1.ListOverridesResponse](t, a, "ExperimentService/ListOverrides", `{"experiment":"checkout-copy"}`).Overrides
	if len(list) != 1 || list[0].Variant != "control" || len(list[0].SubjectId) != 36 || list[0].CreateTime == nil {
		t.Errorf("pinned subjects: %v", list)
	}
	set(`{"subject_key":"u-2"}`, 1)
	if got := a.assigned(t, "checkout-copy", outside); got.Reason != assayv1.Reason_REASON_INELIGIBLE {
		t.Errorf("unpinned: %v", got)
	}
	analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"checkout-copy"}`)
	if analysis.Exclusions.Overridden != 1 || analysis.SampleRatio.Observed["short"] != 0 {
		t.Errorf("a subject that was pinned is analysed: %v", analysis)
	}
}

// TestAssignByLabels asks for no experiment by name.
func TestAssignByLabels(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	for key, patch := range map[string]string{
		"b-blue":    `"labels":{"colour":"blue","size":""}`,
		"a-blue":    `"labels":{"colour":"blue"}`,
		"c-red":     `"labels":{"colour":"red","size":""}`,
		"d-plain":   `"traffic":0`,
		"e-account": `"unit":"account","labels":{"colour":"blue"}`,
		"f-draft":   `"labels":{"colour":"blue"}`,
	} {
		a.do(t, "ExperimentService/CreateExperiment", newExperiment(fmt.Sprintf(`"key":%q,%s`, key, patch)))
		if key != "f-draft" {
			a.do(t, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
		}
	}
	for labels, want := range map[string][]string{
		`{}`:                          {"a-blue", "b-blue", "c-red", "d-plain"},
		`{"colour":"blue"}`:           {"a-blue", "b-blue"},
		`{"colour":"blue","size":""}`: {"b-blue"},
		`{"size":""}`:                 {"b-blue", "c-red"},
		`{"size":"x"}`:                nil,
	} {
		resp := call[*assayv1.AssignResponse](t, a, "AssignmentService/Assign", `{"subject":{"key":"u"},"labels":`+labels+`}`)
		var got []string
		for _, assignment := range resp.Assignments {
			got = append(got, assignment.Experiment)
			if assignment.Experiment == "d-plain" && assignment.Reason != assayv1.Reason_REASON_NO_TRAFFIC {
				t.Errorf("without traffic: %v", assignment)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || resp.Truncated {
			t.Errorf("with %s (-want +got):\n%s", labels, diff)
		}
	}
	// Named: in the order asked for, whatever their state and unit.
	resp := call[*assayv1.AssignResponse](t, a, "AssignmentService/Assign", `{"subject":{"key":"u"},"labels":{"colour":"red"},"experiments":["f-draft","nothing","e-account","a-blue"]}`)
	var got []assayv1.Reason
	for _, assignment := range resp.Assignments {
		got = append(got, assignment.Reason)
	}
	want := []assayv1.Reason{assayv1.Reason_REASON_NOT_RUNNING, assayv1.Reason_REASON_NOT_FOUND, assayv1.Reason_REASON_UNIT_MISMATCH, assayv1.Reason_REASON_SPLIT}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

// TestExplainAgreesWithAssign explains many subjects of each kind.
func TestExplainAgreesWithAssign(t *testing.T) {
	a := newAPI(t)
	a.createCheckoutCopy(t)
	explain := func(subject *assayv1.Subject) *assayv1.ExplainAssignmentResponse {
		t.Helper()
		resp, err := a.assign.ExplainAssignment(t.Context(), &assayv1.ExplainAssignmentRequest{Subject: subject, Experiment: "checkout-copy"})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	reasons := map[assayv1.Reason]bool{}
	compare := func() {
		t.Helper()
		req := &assayv1.BatchAssignRequest{Experiments: []string{"checkout-copy"}}
		for i := range 150 {
			attributes, _ := structpb.NewStruct(map[string]any{"country": []string{"PL", "PL", "DE"}[i%3], "age": 18 + i%2, "nul\x00": "\x00"})
			if i%10 == 0 {
				attributes = nil // The predicate fails to evaluate.
			}
			req.Subjects = append(req.Subjects, &assayv1.Subject{Key: fmt.Sprint("u-", i), Unit: []string{"", "user", "user", "account"}[i%4], Attributes: attributes})
		}
		batch, err := a.assign.BatchAssign(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for i, subject := range req.Subjects {
			got := explain(subject)
			reasons[got.Assignment.Reason] = true
			if diff := cmp.Diff(batch.Results[i].Assignments[0], got.Assignment, protocmp.Transform()); diff != "" {
				t.Errorf("%s (-assigned +explained):\n%s", subject.Key, diff)
			}
			one, err := a.assign.Assign(t.Context(), &assayv1.AssignRequest{Subject: subject, Experiments: req.Experiments})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(one.Assignments[0], got.Assignment, protocmp.Transform()); diff != "" {
				t.Errorf("%s (-assigned +explained):\n%s", subject.Key, diff)
			}
			for _, gate := range got.Gates[:len(got.Gates)-1] {
				if !gate.Passed || gate.Detail == "" {
					t.Errorf("%s went on from %v", subject.Key, gate)
				}
			}
		}
	}
	compare()
	a.do(t, "ExperimentService/SetOverrides", `{"experiment":"checkout-copy","overrides":[{"subject_key":"u-5","variant":"control"}]}`)
	a.do(t, "ExperimentService/StartExperiment", `{"key":"checkout-copy"}`)
	compare()
	checkGoldenGates(t, explain(&assayv1.Subject{Key: "u-1", Attributes: &structpb.Struct{Fields: map[string]*structpb.Value{
		"country": structpb.NewStringValue("PL"), "age": structpb.NewNumberValue(31), "other": structpb.NewNullValue(),
	}}}))
	a.do(t, "ExperimentService/ConcludeExperiment", `{"key":"checkout-copy","shipped_variant":"short"}`)
	compare()
	for _, reason := range []assayv1.Reason{assayv1.Reason_REASON_NOT_RUNNING, assayv1.Reason_REASON_OVERRIDE, assayv1.Reason_REASON_SPLIT, assayv1.Reason_REASON_NO_TRAFFIC,
		assayv1.Reason_REASON_INELIGIBLE, assayv1.Reason_REASON_UNIT_MISMATCH, assayv1.Reason_REASON_CONCLUDED} {
		if !reasons[reason] {
			t.Errorf("no subject met %v", reason)
		}
	}
}

// checkGoldenGates compares the gates of u-1 with the vectors of
// internal/assign/testdata/bucketing.jsonl.
func checkGoldenGates(t *testing.T, got *assayv1.ExplainAssignmentResponse) {
	t.Helper()
	want := parse(t, got.ProtoReflect().Descriptor(), `{
		"assignment":{"experiment":"checkout-copy","variant":"short","reason":"REASON_SPLIT","payload":{"title":"Pay now"},"revision":1},
		"state":"STATE_RUNNING","gates":[
			{"kind":"KIND_STATE","passed":true},
			{"kind":"KIND_OVERRIDE","passed":true},
			{"kind":"KIND_ELIGIBILITY","passed":true,"predicate":"attributes.country == 'PL' && attributes.age >= 18","attributes":{"country":"PL","age":31}},
			{"kind":"KIND_HOLDOUT","passed":true},
			{"kind":"KIND_TRAFFIC","passed":true,"bucketing":{"purpose":"traffic","salt":"checkout-copy","hash":"0bb2f5dcbb57f302","bucket":45699,"range":{"from":0,"to":500000}}},
			{"kind":"KIND_SPLIT","passed":true,"bucketing":{"purpose":"split","salt":"checkout-copy","hash":"8bad68df783663bd","bucket":545614,"range":{"from":500000,"to":1000000,"variant":"short"}}}]}`)
	if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.Gate{}, "detail")); diff != "" {
		t.Errorf("the gates of u-1 (-want +got):\n%s", diff)
	}
}
