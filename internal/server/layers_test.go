package server_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// layered is a draft in the layer "checkout" with a traffic.
func layered(key string, traffic float64) string {
	return newExperiment(fmt.Sprintf(`"key":%q,"layer":"checkout","traffic":%v,"metrics":[]`, key, traffic))
}

func (a *api) startLayered(tb testing.TB, key string, traffic float64) {
	tb.Helper()
	a.do(tb, "ExperimentService/CreateExperiment", layered(key, traffic))
	a.do(tb, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
}

// checkLayer compares a layer with its JSON form, but for etag and times.
func (a *api) checkLayer(tb testing.TB, want string) *assayv1.Layer {
	tb.Helper()
	got := call[*assayv1.GetLayerResponse](tb, a, "LayerService/GetLayer", `{"key":"checkout"}`).Layer
	expected := parse(tb, got.ProtoReflect().Descriptor(), with(`{"key":"checkout","unit":"user","salt":"checkout"}`, want))
	if diff := cmp.Diff(expected, got, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.Layer{}, "etag", "create_time", "update_time")); diff != "" {
		tb.Errorf("the layer (-want +got):\n%s", diff)
	}
	if got.Etag == "" || !got.CreateTime.IsValid() || !got.UpdateTime.IsValid() {
		tb.Errorf("the layer lacks figures: %v", got)
	}
	return got
}

// arms asks for the subjects u-0 … u-99999 and returns the variant of each in
// each experiment, "" where it takes no part.
func (a *api) arms(tb testing.TB, experiments ...string) map[string][]string {
	tb.Helper()
	got := map[string][]string{}
	for first := 0; first < 100_000; first += 1000 {
		req := &assayv1.BatchAssignRequest{Experiments: experiments}
		for i := range 1000 {
			req.Subjects = append(req.Subjects, &assayv1.Subject{Key: fmt.Sprint("u-", first+i)})
		}
		resp, err := a.assign.BatchAssign(tb.Context(), req)
		if err != nil {
			tb.Fatal(err)
		}
		for _, result := range resp.Results {
			for _, assignment := range result.Assignments {
				if assignment.Reason != assayv1.Reason_REASON_SPLIT && assignment.Reason != assayv1.Reason_REASON_NO_TRAFFIC {
					tb.Fatalf("%v", assignment)
				}
				got[assignment.Experiment] = append(got[assignment.Experiment], assignment.Variant)
			}
		}
	}
	return got
}

// checkShare checks that a count of subjects is within 5 standard deviations of
// a share of the 100,000. The subjects are always the same.
func checkShare(tb testing.TB, what string, count int, share float64) {
	tb.Helper()
	if d := math.Abs(float64(count) - 100_000*share); d > 5*math.Sqrt(100_000*share*(1-share)) {
		tb.Errorf("%s: %d subjects, want a share of %v", what, count, share)
	}
}

// dependence returns Pearson's chi-square of two experiments' arms over the
// subjects that keep accepts, for two arms each: with one degree of freedom, it
// exceeds 24 once in a million times.
func dependence(one, other []string, keep func(i int) bool) float64 {
	var n, ones, others, both float64
	for i := range one {
		if !keep(i) {
			continue
		}
		n++
		if one[i] == "a" {
			ones++
		}
		if other[i] == "a" {
			others++
		}
		if one[i] == "a" && other[i] == "a" {
			both++
		}
	}
	expected := ones * others / n
	return (both - expected) * (both - expected) * n * n * n / (ones * others * (n - ones) * (n - others))
}

// TestLayer runs three experiments in a layer, ends one and starts another in
// its place, raises one and lowers one.
func TestLayer(t *testing.T) {
	a := newAPI(t)
	a.do(t, "LayerService/CreateLayer", `{"layer":{"key":"checkout","description":"one at a time"}}`)
	a.startLayered(t, "first", 0.3)
	a.startLayered(t, "second", 0.2)
	a.startLayered(t, "third", 0.4)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"key":"alone","traffic":0.3,"metrics":[]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"alone"}`)
	a.checkLayer(t, `"description":"one at a time","free_share":0.1,"slots":[
		{"experiment":"first","ranges":[{"from":0,"to":300000}]},
		{"experiment":"second","ranges":[{"from":300000,"to":500000}]},
		{"experiment":"third","ranges":[{"from":500000,"to":900000}]}]`)

	before := a.arms(t, "first", "second", "third", "alone")
	then := time.Now().UTC().Format(time.RFC3339Nano)
	in, bothAlone := map[string]int{}, 0
	for i := range before["first"] {
		n := 0
		for _, key := range []string{"first", "second", "third"} {
			if before[key][i] != "" {
				in[key]++
				n++
			}
		}
		if n > 1 {
			t.Fatalf("u-%d is in %d experiments of the layer", i, n)
		}
		if before["first"][i] != "" && before["alone"][i] != "" {
			bothAlone++
		}
	}
	for key, share := range map[string]float64{"first": 0.3, "second": 0.2, "third": 0.4} {
		checkShare(t, key, in[key], share)
	}
	checkShare(t, "in a layer's experiment and in one without a layer", bothAlone, 0.09)

	a.do(t, "ExperimentService/CreateExperiment", layered("next", 0.3))
	a.refuses(t, []refusal{
		{"a start that does not fit", "ExperimentService/StartExperiment", `{"key":"next"}`, codes.FailedPrecondition, []string{"LAYER_FULL"}, "room for another 10 % of its subjects, and this needs 30 %"},
		{"a rise that does not fit", "ExperimentService/UpdateExperiment", `{"experiment":{"key":"second","traffic":0.31}}`, codes.FailedPrecondition, []string{"LAYER_FULL"}, "another 10 % of its subjects, and this needs 11 %"},
		{"a fall that is not wanted", "ExperimentService/UpdateExperiment", `{"experiment":{"key":"third","traffic":0.1}}`, codes.FailedPrecondition, []string{"MOVEMENT_NOT_ALLOWED"}, "30 % leave"},
		{"another layer", "ExperimentService/UpdateExperiment", `{"experiment":{"key":"third"},"update_mask":"layer"}`, codes.FailedPrecondition, []string{"EXPERIMENT_STARTED"}, "layer"},
		{"another salt", "LayerService/UpdateLayer", `{"layer":{"key":"checkout","salt":"x"}}`, codes.FailedPrecondition, []string{"LAYER_USED"}, "salt cannot change"},
	})
	a.do(t, "ExperimentService/PauseExperiment", `{"key":"first"}`)
	a.do(t, "ExperimentService/ConcludeExperiment", `{"key":"first"}`)
	a.do(t, "ExperimentService/StartExperiment", `{"key":"next"}`)
	if got := a.get(t, "next"); got.Layer != "checkout" || len(got.Slot) != 1 || got.Slot[0].From != 0 || got.Slot[0].To != 300_000 {
		t.Errorf("the experiment in the place of the first: %v", got)
	}
	a.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"second","traffic":0.3}}`)
	a.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"third","traffic":0.1},"allow_movement":true}`)
	a.checkLayer(t, `"description":"one at a time","free_share":0.3,"slots":[
		{"experiment":"next","ranges":[{"from":0,"to":300000}]},
		{"experiment":"second","ranges":[{"from":300000,"to":500000},{"from":900000,"to":1000000}]},
		{"experiment":"third","ranges":[{"from":500000,"to":600000}]}]`)

	after := a.arms(t, "second", "third", "next")
	raised, lowered := 0, 0
	for i := range after["next"] {
		if (before["first"][i] == "") != (after["next"][i] == "") {
			t.Fatalf("u-%d is in one of two experiments in the same slot", i)
		}
		if before["second"][i] != "" && after["second"][i] != before["second"][i] {
			t.Fatalf("u-%d moved when the traffic rose", i)
		}
		if after["third"][i] != "" && after["third"][i] != before["third"][i] {
			t.Fatalf("u-%d moved when the traffic fell", i)
		}
		if after["second"][i] != "" {
			raised++
		}
		if after["third"][i] != "" {
			lowered++
		}
	}
	checkShare(t, "raised", raised, 0.3)
	checkShare(t, "lowered", lowered, 0.1)
	if chi2 := dependence(before["first"], after["next"], func(i int) bool { return after["next"][i] != "" }); !(chi2 < 24) {
		t.Errorf("two experiments that follow each other share arms: chi-square %v", chi2)
	}
	if chi2 := dependence(before["first"], before["first"], func(i int) bool { return before["first"][i] != "" }); !(chi2 > 24) {
		t.Errorf("an experiment is independent of itself: chi-square %v", chi2)
	}
	for i := range 20 {
		for _, key := range []string{"first", "second", "third"} {
			got := call[*assayv1.ExplainAssignmentResponse](t, a, "AssignmentService/ExplainAssignment", fmt.Sprintf(`{"subject":{"key":"u-%d"},"experiment":%q,"time":%q}`, i, key, then))
			if got.Assignment.Variant != before[key][i] {
				t.Errorf("u-%d got %q in %s, and that is explained as %v", i, before[key][i], key, got)
			}
		}
	}
}

// TestExplainLayer compares the gates of u-1 with the vectors of
// internal/assign/testdata/bucketing.jsonl.
func TestExplainLayer(t *testing.T) {
	a := newAPI(t)
	a.do(t, "LayerService/CreateLayer", `{"layer":{"key":"l","salt":"checkout"}}`)
	for _, key := range []string{"low", "high"} {
		a.do(t, "ExperimentService/CreateExperiment", newExperiment(fmt.Sprintf(`"key":%q,"salt":"checkout-copy","layer":"l","traffic":0.45,"metrics":[]`, key)))
		a.do(t, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
	}
	for key, want := range map[string]string{
		"low": `{"assignment":{"experiment":"low","reason":"REASON_NO_TRAFFIC","revision":1},"state":"STATE_RUNNING",
			"gates":[{"kind":"KIND_STATE","passed":true},{"kind":"KIND_OVERRIDE","passed":true},{"kind":"KIND_ELIGIBILITY","passed":true},{"kind":"KIND_HOLDOUT","passed":true},
			{"kind":"KIND_LAYER","bucketing":{"purpose":"layer","salt":"checkout","hash":"7a9025182290c694","bucket":478761}}]}`,
		"high": `{"assignment":{"experiment":"high","variant":"b","reason":"REASON_SPLIT","revision":1},"state":"STATE_RUNNING",
			"gates":[{"kind":"KIND_STATE","passed":true},{"kind":"KIND_OVERRIDE","passed":true},{"kind":"KIND_ELIGIBILITY","passed":true},{"kind":"KIND_HOLDOUT","passed":true},
			{"kind":"KIND_LAYER","passed":true,"bucketing":{"purpose":"layer","salt":"checkout","hash":"7a9025182290c694","bucket":478761,"range":{"from":450000,"to":900000}}},
			{"kind":"KIND_SPLIT","passed":true,"bucketing":{"purpose":"split","salt":"checkout-copy","hash":"8bad68df783663bd","bucket":545614,"range":{"from":500000,"to":1000000,"variant":"b"}}}]}`,
	} {
		got := call[*assayv1.ExplainAssignmentResponse](t, a, "AssignmentService/ExplainAssignment", fmt.Sprintf(`{"subject":{"key":"u-1"},"experiment":%q}`, key))
		if diff := cmp.Diff(parse(t, got.ProtoReflect().Descriptor(), want), got, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.Gate{}, "detail")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
}

// TestUpdateLayer changes what can be changed.
func TestUpdateLayer(t *testing.T) {
	a := newAPI(t)
	created := call[*assayv1.CreateLayerResponse](t, a, "LayerService/CreateLayer", `{"layer":{"key":"checkout","unit":"user","description":"d","free_share":0.5,"etag":"x","slots":[{}]}}`).Layer
	if diff := cmp.Diff(created, a.checkLayer(t, `"description":"d","free_share":1`), protocmp.Transform()); diff != "" {
		t.Errorf("read after creation:\n%s", diff)
	}
	update := func(request string) *assayv1.Layer {
		t.Helper()
		return call[*assayv1.UpdateLayerResponse](t, a, "LayerService/UpdateLayer", request).Layer
	}
	if same := update(`{"layer":{"key":"checkout","description":"d","unit":"device"}}`); same.Etag != created.Etag {
		t.Errorf("an update that changes nothing made %v of %v", same, created)
	}
	changed := update(fmt.Sprintf(`{"layer":{"key":"checkout","salt":"s","etag":%q}}`, created.Etag))
	a.checkLayer(t, `"description":"d","salt":"s","free_share":1`)
	if changed.Etag == created.Etag || !changed.UpdateTime.AsTime().After(created.UpdateTime.AsTime()) {
		t.Errorf("changed: %v", changed)
	}
	update(`{"layer":{"key":"checkout"},"update_mask":"salt,description"}`)
	a.checkLayer(t, `"free_share":1`)
	long := strings.Repeat("é", 65)
	a.refuses(t, []refusal{
		{"stale etag", "LayerService/UpdateLayer", fmt.Sprintf(`{"layer":{"key":"checkout","description":"e","etag":%q}}`, created.Etag), codes.Aborted, []string{"ETAG_MISMATCH"}, ""},
		{"malformed etag", "LayerService/UpdateLayer", `{"layer":{"key":"checkout","etag":"!"}}`, codes.InvalidArgument, []string{"layer.etag"}, ""},
		{"no key", "LayerService/UpdateLayer", `{}`, codes.InvalidArgument, []string{"layer.key"}, ""},
		{"unit", "LayerService/UpdateLayer", `{"layer":{"key":"checkout","unit":"device"},"update_mask":"unit"}`, codes.InvalidArgument, []string{"update_mask.paths[0]"}, "cannot be changed"},
		{"salt", "LayerService/UpdateLayer", fmt.Sprintf(`{"layer":{"key":"checkout","salt":%q}}`, long), codes.InvalidArgument, []string{"layer.salt"}, ""},
		{"unknown", "LayerService/UpdateLayer", `{"layer":{"key":"nothing"}}`, codes.NotFound, []string{"LAYER_NOT_FOUND"}, `"nothing"`},
	})
}

func TestInvalidLayers(t *testing.T) {
	const create, createExperiment = "LayerService/CreateLayer", "ExperimentService/CreateExperiment"
	a := newAPI(t)
	a.do(t, create, `{"layer":{"key":"checkout"}}`)
	a.do(t, create, `{"layer":{"key":"devices","unit":"device"}}`)
	a.do(t, createExperiment, layered("draft", 0.5))
	a.refuses(t, []refusal{
		{"no layer", create, `{}`, codes.InvalidArgument, []string{"layer"}, ""},
		{"no key", create, `{"layer":{}}`, codes.InvalidArgument, []string{"layer.key"}, ""},
		{"all fields", create, fmt.Sprintf(`{"layer":{"key":"A","unit":"U","description":%q,"salt":%q},"request_id":%q}`, strings.Repeat("d", 4097), strings.Repeat("s", 129), strings.Repeat("r", 65)),
			codes.InvalidArgument, []string{"layer.key", "layer.unit", "layer.description", "layer.salt", "request_id"}, ""},
		{"NUL", create, `{"layer":{"key":"a","salt":"\u0000"}}`, codes.InvalidArgument, []string{"layer.salt"}, "NUL"},
		{"taken", create, `{"layer":{"key":"checkout"}}`, codes.AlreadyExists, []string{"LAYER_EXISTS"}, ""},
		{"key to get", "LayerService/GetLayer", `{"key":"-"}`, codes.InvalidArgument, []string{"key"}, ""},
		{"unknown", "LayerService/GetLayer", `{"key":"nothing"}`, codes.NotFound, []string{"LAYER_NOT_FOUND"}, `"nothing"`},
		{"page size", "LayerService/ListLayers", `{"page_size":1001}`, codes.InvalidArgument, []string{"page_size"}, ""},
		{"experiment in no layer", createExperiment, newExperiment(`"layer":"nothing","metrics":[]`), codes.InvalidArgument, []string{"experiment.layer"}, `there is no layer "nothing"`},
		{"no key of a layer", createExperiment, newExperiment(`"layer":"?","metrics":[]`), codes.InvalidArgument, []string{"experiment.layer"}, ""},
		{"another unit", createExperiment, newExperiment(`"layer":"devices","metrics":[]`), codes.InvalidArgument, []string{"experiment.layer"}, `of the unit "device", and the experiment of "user"`},
		{"assigned elsewhere", createExperiment, newExperiment(`"layer":"checkout","assignment":"ASSIGNMENT_EXTERNAL","metrics":[]`), codes.InvalidArgument, []string{"experiment.layer"}, "assigned elsewhere"},
		{"an unknown metric too", createExperiment, newExperiment(`"layer":"nothing"`), codes.InvalidArgument, []string{"experiment.layer", "experiment.metrics[0].metric"}, ""},
		{"draft to another unit", "ExperimentService/UpdateExperiment", `{"experiment":{"key":"draft","unit":"device"}}`, codes.InvalidArgument, []string{"experiment.layer"}, ""},
		{"draft to an unknown layer", "ExperimentService/UpdateExperiment", `{"experiment":{"key":"draft","layer":"nothing"}}`, codes.InvalidArgument, []string{"experiment.layer"}, ""},
	})
	a.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"draft","layer":"devices","unit":"device"}}`)
	a.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"draft"},"update_mask":"layer"}`)
	if got := a.get(t, "draft").Layer; got != "" {
		t.Errorf("out of the layer, it is in %q", got)
	}
}
