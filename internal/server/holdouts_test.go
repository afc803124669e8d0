package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

const (
	createHoldout = "HoldoutService/CreateHoldout"
	updateHoldout = "HoldoutService/UpdateHoldout"
)

// newHoldout is a request for a holdout of half of all users from now on, but
// for what the patch says.
func newHoldout(patch string) string {
	return `{"holdout":` + with(`{"key":"global","share":0.5,"kind":"KIND_STATUS_QUO"}`, patch) + `}`
}

// heldOut is a subject that a holdout with the salt "global-2026" of the test
// vectors holds out: its bucket is 81833. The bucket of u-1 is 404731.
const heldOut = "42"

func (a *api) holdout(tb testing.TB, key string) *assayv1.Holdout {
	tb.Helper()
	return call[*assayv1.GetHoldoutResponse](tb, a, "HoldoutService/GetHoldout", fmt.Sprintf(`{"key":%q}`, key)).Holdout
}

// explained returns the reason that explains what a subject got in "plain" at a
// moment, such as "time":"…".
func (a *api) explained(tb testing.TB, subject, moment string) assayv1.Reason {
	tb.Helper()
	return call[*assayv1.ExplainAssignmentResponse](tb, a, "AssignmentService/ExplainAssignment",
		fmt.Sprintf(`{"subject":{"key":%q},"experiment":"plain",%s}`, subject, moment)).Assignment.Reason
}

func subjectOf(key string) string { return fmt.Sprintf(`{"key":%q}`, key) }

func nowText() string { return time.Now().UTC().Format(time.RFC3339Nano) }

// TestHoldoutsInTime takes an experiment that is running through the refusal of
// a holdout, one that leaves it, one that begins a new phase, and its end.
func TestHoldoutsInTime(t *testing.T) {
	const split, held = assayv1.Reason_REASON_SPLIT, assayv1.Reason_REASON_HOLDOUT
	a := newAPI(t)
	// All weight is on the treatment, so that the control is the holdout's.
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"metrics":[],"variants":[{"key":"a","control":true,"weight":0},{"key":"b"}]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	global := newHoldout(`"salt":"global-2026","share":0.1`)
	a.refuses(t, []refusal{
		{"over a running experiment", createHoldout, global, codes.FailedPrecondition, []string{"HOLDOUT_COVERS_RUNNING"}, "plain"},
		{"a new phase, later", createHoldout, with(newHoldout(`"start_time":"2100-01-01T00:00:00Z"`), `"running_experiments":"RUNNING_EXPERIMENTS_NEW_PHASE"`),
			codes.InvalidArgument, []string{"holdout.start_time"}, ""},
	})
	a.do(t, createHoldout, with(newHoldout(`"key":"left","share":0.5`), `"running_experiments":"RUNNING_EXPERIMENTS_LEAVE"`))
	if got := a.assigned(t, "plain", subjectOf(heldOut)); got.Reason != split || got.Revision != 1 {
		t.Errorf("left alone: %v", got)
	}
	if got := a.get(t, "plain"); got.Holdouts != nil || got.Phase != 1 {
		t.Errorf("left alone: %v", got)
	}
	before := nowText()
	a.do(t, createHoldout, with(global, `"running_experiments":"RUNNING_EXPERIMENTS_NEW_PHASE"`))
	if got := a.get(t, "plain"); len(got.Holdouts) != 1 || got.Holdouts[0] != "global" || got.Phase != 2 || got.Revision != 2 {
		t.Errorf("in a new phase: %v", got)
	}
	if got := a.holdout(t, "global"); len(got.Experiments) != 1 || got.Experiments[0] != "plain" || got.StartTime == nil || got.EndTime != nil {
		t.Errorf("the holdout: %v", got)
	}
	if got := a.assigned(t, "plain", subjectOf(heldOut)); got.Reason != held || got.Variant != "a" || got.Revision != 2 {
		t.Errorf("held out: %v", got)
	}
	if got := a.assigned(t, "plain", subjectOf("u-1")); got.Reason != split {
		t.Errorf("open: %v", got)
	}
	checkHoldoutGates(t, a)

	during := nowText()
	ended := call[*assayv1.UpdateHoldoutResponse](t, a, updateHoldout, fmt.Sprintf(`{"holdout":{"key":"global","end_time":%q}}`, during)).Holdout
	if got := a.assigned(t, "plain", subjectOf(heldOut)); got.Reason != split || got.Variant != "b" {
		t.Errorf("after the end: %v", got)
	}
	if got := a.get(t, "plain"); got.Holdouts != nil || got.Phase != 2 {
		t.Errorf("after the end: %v", got)
	}
	for moment, want := range map[string]assayv1.Reason{
		fmt.Sprintf(`"time":%q`, before): split,
		fmt.Sprintf(`"time":%q`, during): held,
		fmt.Sprintf(`"time":%q`, ended.EndTime.AsTime().Add(-time.Microsecond).Format(time.RFC3339Nano)): held,
		fmt.Sprintf(`"time":%q`, ended.EndTime.AsTime().Format(time.RFC3339Nano)):                        split,
		`"revision":1`: split,
		`"revision":2`: split, // It is the current one, and the holdout has ended.
	} {
		if got := a.explained(t, heldOut, moment); got != want {
			t.Errorf("%s: %v, want %v", moment, got, want)
		}
	}
	a.refuses(t, []refusal{
		{"another end", updateHoldout, `{"holdout":{"key":"global","end_time":"2100-01-01T00:00:00Z"}}`, codes.FailedPrecondition, []string{"HOLDOUT_ENDED"}, ""},
		{"another share", updateHoldout, `{"holdout":{"key":"global","share":0.2,"kind":"KIND_NO_PERSONALISATION"}}`, codes.FailedPrecondition, []string{"HOLDOUT_STARTED"}, "share, kind"},
		{"another salt", updateHoldout, `{"holdout":{"key":"global"},"update_mask":"salt,labels,description,startTime"}`, codes.FailedPrecondition, []string{"HOLDOUT_STARTED"}, "salt, start_time"},
	})
}

// checkHoldoutGates compares the gates of the subjects with the test vectors.
func checkHoldoutGates(t *testing.T, a *api) {
	t.Helper()
	for subject, want := range map[string]string{
		heldOut: `{"kind":"KIND_HOLDOUT","passed":true,"bucketing":{"purpose":"holdout","salt":"global-2026","hash":"14f3036babec384d","bucket":81833,"range":{"from":0,"to":100000}}}`,
		"u-1":   `{"kind":"KIND_HOLDOUT","passed":true,"bucketing":{"purpose":"holdout","salt":"global-2026","hash":"679c836e58b265c0","bucket":404731}}`,
	} {
		got := call[*assayv1.ExplainAssignmentResponse](t, a, "AssignmentService/ExplainAssignment", fmt.Sprintf(`{"subject":{"key":%q},"experiment":"plain"}`, subject))
		gate := got.Gates[3]
		if diff := cmp.Diff(parse(t, gate.ProtoReflect().Descriptor(), want), gate, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.Gate{}, "detail")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", subject, diff)
		}
		if decided := subject == heldOut; decided != (len(got.Gates) == 4) {
			t.Errorf("%s: %v", subject, got.Gates)
		}
	}
}

// TestHoldoutKinds ships the treatment under a holdout of each kind.
func TestHoldoutKinds(t *testing.T) {
	a := newAPI(t)
	a.do(t, createHoldout, newHoldout(`"key":"everything","kind":"KIND_NO_PERSONALISATION","salt":"global-2026","share":0.1,"labels":{"team":"x"}`))
	a.do(t, createHoldout, newHoldout(`"salt":"global-2026","share":0.1`))
	for key, labels := range map[string]string{"total": `{"team":"x"}`, "shippable": `{}`} {
		a.do(t, "ExperimentService/CreateExperiment", newExperiment(fmt.Sprintf(`"key":%q,"labels":%s,"metrics":[],"variants":[{"key":"a","control":true,"weight":0},{"key":"b"}]`, key, labels)))
		a.do(t, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
		if got := a.assigned(t, key, subjectOf(heldOut)); got.Reason != assayv1.Reason_REASON_HOLDOUT || got.Variant != "a" {
			t.Errorf("%s, running: %v", key, got)
		}
		a.do(t, "ExperimentService/ConcludeExperiment", fmt.Sprintf(`{"key":%q,"shipped_variant":"b"}`, key))
	}
	if got := a.assigned(t, "total", subjectOf(heldOut)); got.Reason != assayv1.Reason_REASON_HOLDOUT || got.Variant != "a" {
		t.Errorf("no personalisation: %v", got)
	}
	if got := a.assigned(t, "shippable", subjectOf(heldOut)); got.Reason != assayv1.Reason_REASON_CONCLUDED || got.Variant != "b" {
		t.Errorf("status quo: %v", got)
	}

	// A value that clients may keep by the flag alone must be the same for all.
	for _, subject := range []string{heldOut, "u-1"} {
		context := fmt.Sprintf(`{"targetingKey":%q}`, subject)
		variant := map[string]string{heldOut: "a", "u-1": "b"}[subject]
		a.expectFlag(t, "String", "total", context, fmt.Sprintf(`{"value":%[1]q,"variant":%[1]q,"reason":"SPLIT"}`, variant))
		a.expectFlag(t, "String", "shippable", context, `{"value":"b","variant":"b","reason":"STATIC"}`)
	}
	a.do(t, updateHoldout, fmt.Sprintf(`{"holdout":{"key":"everything","end_time":%q}}`, nowText()))
	a.expectFlag(t, "String", "total", fmt.Sprintf(`{"targetingKey":%q}`, heldOut), `{"value":"b","variant":"b","reason":"STATIC"}`)
}

// TestUpdateHoldout changes a holdout that has not started.
func TestUpdateHoldout(t *testing.T) {
	a := newAPI(t)
	created := call[*assayv1.CreateHoldoutResponse](t, a, createHoldout,
		newHoldout(`"description":"d","labels":{"team":"x"},"start_time":"2100-01-01T00:00:00.123456789Z","etag":"x","experiments":["y"]`)).Holdout
	check := func(got *assayv1.Holdout, want string) {
		t.Helper()
		expected := parse(t, got.ProtoReflect().Descriptor(), with(`{"key":"global","unit":"user"}`, want))
		if diff := cmp.Diff(expected, got, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.Holdout{}, "etag", "create_time", "update_time")); diff != "" {
			t.Errorf("the holdout (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(got, a.holdout(t, "global"), protocmp.Transform()); diff != "" || got.Etag == "" || !got.CreateTime.IsValid() || !got.UpdateTime.IsValid() {
			t.Errorf("read again: %s", diff)
		}
	}
	check(created, `"description":"d","labels":{"team":"x"},"share":0.5,"salt":"global","kind":"KIND_STATUS_QUO","start_time":"2100-01-01T00:00:00.123456Z"`)
	update := func(request string) *assayv1.Holdout {
		t.Helper()
		return call[*assayv1.UpdateHoldoutResponse](t, a, updateHoldout, request).Holdout
	}
	if same := update(`{"holdout":{"key":"global","description":"d","unit":"device"}}`); same.Etag != created.Etag {
		t.Errorf("an update that changes nothing made %v of %v", same, created)
	}
	changed := update(fmt.Sprintf(`{"holdout":{"key":"global","share":0.25,"salt":"s","kind":"KIND_NO_PERSONALISATION","end_time":"2101-01-01T00:00:00Z","etag":%q}}`, created.Etag))
	check(changed, `"description":"d","labels":{"team":"x"},"share":0.25,"salt":"s","kind":"KIND_NO_PERSONALISATION","start_time":"2100-01-01T00:00:00.123456Z","end_time":"2101-01-01T00:00:00Z"`)
	a.refuses(t, []refusal{
		{"stale etag", updateHoldout, fmt.Sprintf(`{"holdout":{"key":"global","share":0.1,"etag":%q}}`, created.Etag), codes.Aborted, []string{"ETAG_MISMATCH"}, ""},
		{"malformed etag", updateHoldout, `{"holdout":{"key":"global","etag":"!"}}`, codes.InvalidArgument, []string{"holdout.etag"}, ""},
		{"no key", updateHoldout, `{}`, codes.InvalidArgument, []string{"holdout.key"}, ""},
		{"unit", updateHoldout, `{"holdout":{"key":"global","unit":"device"},"update_mask":"unit"}`, codes.InvalidArgument, []string{"update_mask.paths[0]"}, "cannot be changed"},
		{"no kind and no share", updateHoldout, `{"holdout":{"key":"global"},"update_mask":"kind,share"}`, codes.InvalidArgument, []string{"holdout.kind", "holdout.share"}, ""},
		{"end before the start", updateHoldout, `{"holdout":{"key":"global","end_time":"2099-01-01T00:00:00Z"}}`, codes.InvalidArgument, []string{"holdout.end_time"}, "before start_time"},
		{"unknown", updateHoldout, `{"holdout":{"key":"nothing"}}`, codes.NotFound, []string{"HOLDOUT_NOT_FOUND"}, `"nothing"`},
	})
	begun := update(`{"holdout":{"key":"global"},"update_mask":"startTime,endTime,labels,salt,description"}`)
	if since := time.Since(begun.StartTime.AsTime()); since < 0 || since > time.Minute || begun.EndTime != nil || begun.Salt != "global" || begun.Labels != nil {
		t.Errorf("with its defaults: %v", begun)
	}
}

func TestInvalidHoldouts(t *testing.T) {
	a := newAPI(t)
	a.do(t, createHoldout, newHoldout(""))
	a.do(t, createHoldout, newHoldout(`"key":"later","start_time":"2100-01-01T00:00:00Z"`))
	const analyze = "AnalysisService/AnalyzeHoldout"
	a.refuses(t, []refusal{
		{"no holdout", createHoldout, `{}`, codes.InvalidArgument, []string{"holdout"}, ""},
		{"nothing", createHoldout, `{"holdout":{}}`, codes.InvalidArgument, []string{"holdout.key", "holdout.share", "holdout.kind"}, ""},
		{"all fields", createHoldout, with(newHoldout(fmt.Sprintf(`"key":"A","unit":"U","description":%q,"salt":%q,"share":0.51,"kind":9,"labels":{"T":"x"}`, strings.Repeat("d", 4097), strings.Repeat("s", 129))),
			fmt.Sprintf(`"request_id":%q,"running_experiments":7`, strings.Repeat("r", 65))), codes.InvalidArgument,
			[]string{"holdout.key", "holdout.unit", "holdout.description", "holdout.salt", "holdout.share", "holdout.kind", `holdout.labels["T"]`, "request_id", "running_experiments"}, ""},
		{"share of nothing", createHoldout, newHoldout(`"key":"x","share":0.0000004`), codes.InvalidArgument, []string{"holdout.share"}, ""},
		{"share that is no number", createHoldout, newHoldout(`"key":"x","share":"NaN"`), codes.InvalidArgument, []string{"holdout.share"}, ""},
		{"times past", createHoldout, newHoldout(`"key":"x","start_time":"2026-01-01T00:00:00Z","end_time":"2026-01-01T00:00:00Z"`), codes.InvalidArgument,
			[]string{"holdout.start_time", "holdout.end_time"}, "5 minutes"},
		{"NUL", createHoldout, newHoldout(`"key":"x","salt":"\u0000"`), codes.InvalidArgument, []string{"holdout.salt"}, "NUL"},
		{"taken", createHoldout, newHoldout(""), codes.AlreadyExists, []string{"HOLDOUT_EXISTS"}, ""},
		{"key to get", "HoldoutService/GetHoldout", `{"key":"-"}`, codes.InvalidArgument, []string{"key"}, ""},
		{"unknown", "HoldoutService/GetHoldout", `{"key":"nothing"}`, codes.NotFound, []string{"HOLDOUT_NOT_FOUND"}, `"nothing"`},
		{"page size", "HoldoutService/ListHoldouts", `{"page_size":1001}`, codes.InvalidArgument, []string{"page_size"}, ""},
		{"analysis of nothing", analyze, `{"holdout":"nothing","metrics":["m"]}`, codes.NotFound, []string{"HOLDOUT_NOT_FOUND"}, ""},
		{"analysis of no metric", analyze, `{"holdout":"global"}`, codes.InvalidArgument, []string{"metrics"}, ""},
		{"analysis of an unknown metric", analyze, `{"holdout":"global","metrics":["m"]}`, codes.NotFound, []string{"METRIC_NOT_FOUND"}, ""},
		{"analysis in the future", analyze, `{"holdout":"global","metrics":["m"],"as_of_time":"2100-01-01T00:00:00Z"}`, codes.InvalidArgument, []string{"as_of_time"}, ""},
		{"analysis before the start", analyze, `{"holdout":"later","metrics":["m"]}`, codes.FailedPrecondition, []string{"HOLDOUT_NOT_STARTED"}, ""},
		{"analysis by a bad level", analyze, `{"holdout":"global","metrics":["m","m"],"confidence_level":1}`, codes.InvalidArgument, []string{"metrics", "confidence_level"}, ""},
	})
}
