package server_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

func (a *api) get(tb testing.TB, key string) *assayv1.Experiment {
	tb.Helper()
	return call[*assayv1.GetExperimentResponse](tb, a, "ExperimentService/GetExperiment", fmt.Sprintf(`{"key":%q}`, key)).Experiment
}

// everything is a mask that JSON cannot say.
var everything = &fieldmaskpb.FieldMask{Paths: []string{"*"}}

// lives are the transitions that bring a new experiment into each state.
var lives = map[string][]string{
	"draft":            {},
	"running":          {"Start"},
	"paused":           {"Start", "Pause"},
	"concluded":        {"Start", "Conclude"},
	"archived":         {"Start", "Conclude", "Archive"},
	"archived (draft)": {"Archive"},
}

// live makes an experiment with the key and brings it into a state.
func (a *api) live(tb testing.TB, key, state string) {
	tb.Helper()
	a.do(tb, "ExperimentService/CreateExperiment", newExperiment(fmt.Sprintf(`"key":%q`, key)))
	for _, verb := range lives[state] {
		a.do(tb, "ExperimentService/"+verb+"Experiment", fmt.Sprintf(`{"key":%q}`, key))
	}
}

// TestTransitions tries every transition in every state.
func TestTransitions(t *testing.T) {
	allowed := map[string]map[string]assayv1.State{
		"draft":     {"Start": assayv1.State_STATE_RUNNING, "Archive": assayv1.State_STATE_ARCHIVED},
		"running":   {"Pause": assayv1.State_STATE_PAUSED, "Conclude": assayv1.State_STATE_CONCLUDED},
		"paused":    {"Resume": assayv1.State_STATE_RUNNING, "Conclude": assayv1.State_STATE_CONCLUDED},
		"concluded": {"Archive": assayv1.State_STATE_ARCHIVED},
	}
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	n := 0
	for state := range lives {
		for _, verb := range []string{"Start", "Pause", "Resume", "Conclude", "Archive"} {
			n++
			key := fmt.Sprint("e", n)
			a.live(t, key, state)
			before := a.get(t, key)
			method := "ExperimentService/" + verb + "Experiment"
			_, err := a.invoke(t, method, newRequest(t, method, fmt.Sprintf(`{"key":%q}`, key)))
			after := a.get(t, key)
			want, ok := allowed[state][verb]
			if ok {
				if err != nil || after.State != want || after.Etag == before.Etag {
					t.Errorf("%s of a %s experiment: %v, %v", verb, state, after.State, err)
				}
				continue
			}
			checkRefusal(t, err, codes.FailedPrecondition, "", "STATE_FORBIDS")
			if diff := cmp.Diff(before, after, protocmp.Transform()); diff != "" {
				t.Errorf("%s of a %s experiment changed it:\n%s", verb, state, diff)
			}
		}
	}
}

func TestStartSealsThePlan(t *testing.T) {
	a := newAPI(t)
	a.createCheckoutCopy(t)
	draft := a.get(t, "checkout-copy")
	if draft.PlanHash != "" || draft.StartTime != nil || draft.Revision != 1 || draft.Phase != 1 {
		t.Errorf("a draft has %v", draft)
	}
	a.do(t, "MetricService/UpdateMetric", `{"metric":{"key":"revenue","window":"604800s"}}`)
	a.do(t, "ExperimentService/StartExperiment", `{"key":"checkout-copy"}`)
	a.do(t, "MetricService/UpdateMetric", `{"metric":{"key":"revenue","window":"86400s"}}`)
	if got := len(a.get(t, "checkout-copy").PlanHash); got != 64 {
		t.Errorf("the plan hash has %d digits", got)
	}
	analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"checkout-copy","metrics":["order_value"]}`)
	pinned := map[string]int32{}
	for _, m := range analysis.Metrics {
		pinned[m.Metric] = m.MetricRevision
	}
	if diff := cmp.Diff(map[string]int32{"purchase_rate": 1, "revenue": 2, "refund_rate": 1, "order_value": 1}, pinned); diff != "" {
		t.Errorf("revisions of the metrics (-want +got):\n%s", diff)
	}
	if analysis.PlanHash != a.get(t, "checkout-copy").PlanHash {
		t.Error("the analysis names another plan")
	}

	a.live(t, "draft", "draft")
	a.do(t, "MetricService/ArchiveMetric", `{"key":"purchase_rate"}`)
	a.do(t, "MetricService/ArchiveMetric", `{"key":"purchase_rate"}`)
	a.refuses(t, []refusal{
		{"archived metric in a new experiment", "ExperimentService/CreateExperiment", newExperiment(""), codes.InvalidArgument, []string{"experiment.metrics[0].metric"}, "archived"},
		{"archived metric in a draft", "ExperimentService/StartExperiment", `{"key":"draft"}`, codes.FailedPrecondition, []string{"METRIC_ARCHIVED"}, ""},
		{"archived metric to change", "MetricService/UpdateMetric", `{"metric":{"key":"purchase_rate","window":"60s"}}`, codes.FailedPrecondition, []string{"METRIC_ARCHIVED"}, ""},
	})
	a.do(t, "AnalysisService/AnalyzeExperiment", `{"experiment":"checkout-copy"}`)
}

func TestUpdateDraft(t *testing.T) {
	const update = "ExperimentService/UpdateExperiment"
	a := newAPI(t)
	a.createCheckoutCopy(t)
	first := a.get(t, "checkout-copy")
	invalid := func(name, experiment, mask, says string, fields ...string) refusal {
		request := fmt.Sprintf(`{"experiment":%s%s}`, with(`{"key":"checkout-copy"}`, experiment), mask)
		return refusal{name, update, request, codes.InvalidArgument, fields, says}
	}
	a.refuses(t, []refusal{
		{"nothing", update, `{}`, codes.InvalidArgument, []string{"experiment.key"}, ""},
		invalid("no key", `"key":""`, ``, "", "experiment.key"),
		invalid("malformed etag", `"etag":"-5"`, ``, "not an etag", "experiment.etag"),
		invalid("bad field", `"unit":"U","metrics":[{}]`, ``, "", "experiment.unit", "experiment.metrics[0].metric", "experiment.metrics[0].role"),
		invalid("across fields", `"variants":[{"key":"a"},{"key":"b"}],"eligibility":"1"`, ``, "", "experiment.variants", "experiment.eligibility"),
		invalid("covariates in use", ``, `,"update_mask":"covariates"`, "no covariate", "experiment.metrics[1].covariates[0]"),
		invalid("variants cleared", ``, `,"update_mask":"variants"`, "", "experiment.variants"),
		invalid("unknown metric", `"metrics":[{"metric":"nothing","role":"METRIC_ROLE_PRIMARY"}]`, ``, "no metric", "experiment.metrics[0].metric"),
		{"stale etag", update, `{"experiment":{"key":"checkout-copy","etag":"1"}}`, codes.Aborted, []string{"ETAG_MISMATCH"}, ""},
	})
	for _, paths := range [][]string{{"nothing"}, {"key"}, {"state"}, {"create_time"}, {"hypothesis.statement"}, {"variants[0]"}, {"*", "owner"}, {""}} {
		_, err := a.experiments.UpdateExperiment(t.Context(), &assayv1.UpdateExperimentRequest{
			Experiment: &assayv1.Experiment{Key: "checkout-copy"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
		})
		checkRefusal(t, err, codes.InvalidArgument, "cannot be changed", "update_mask.paths[0]")
	}
	if diff := cmp.Diff(first, a.get(t, "checkout-copy"), protocmp.Transform()); diff != "" {
		t.Fatalf("a refused update changed the experiment:\n%s", diff)
	}

	change := func(request string) *assayv1.Experiment {
		t.Helper()
		return call[*assayv1.UpdateExperimentResponse](t, a, update, request).Experiment
	}
	if got := change(`{"experiment":{"key":"checkout-copy"}}`); got.Revision != 1 || got.Etag != first.Etag {
		t.Errorf("an update of nothing made revision %d", got.Revision)
	}
	if got := change(`{"experiment":{"key":"checkout-copy","owner":"growth","traffic":0.5}}`); got.Revision != 1 {
		t.Errorf("an update to what is so already made revision %d", got.Revision)
	}
	// Without a mask: what is set. An empty mask is none.
	got := change(`{"experiment":{"key":"checkout-copy","unit":"account","traffic":0,"state":"STATE_RUNNING","revision":7},"update_mask":""}`)
	if got.Unit != "account" || got.Traffic == nil || *got.Traffic != 0 || got.State != assayv1.State_STATE_DRAFT || got.Revision != 2 || got.Owner != "growth" {
		t.Errorf("without a mask: %v", got)
	}
	// With one: what it names, whether it is set or not.
	got = change(fmt.Sprintf(`{"experiment":{"key":"checkout-copy","owner":"x","description":"y","etag":%q},"updateMask":"owner,labels,unit,traffic"}`, got.Etag))
	if got.Owner != "x" || got.Description == "y" || len(got.Labels) != 0 || got.Unit != "user" || *got.Traffic != 1 {
		t.Errorf("with a mask: %v", got)
	}
	// Another split: the allocation follows it while nobody has been assigned.
	got = change(`{"experiment":{"key":"checkout-copy","variants":[{"key":"c","control":true,"weight":3},{"key":"short"}]}}`)
	if len(got.Allocation) != 2 || got.Allocation[0].To != 750_000 || got.Phase != 1 {
		t.Errorf("the allocation is %v", got.Allocation)
	}
	// "*" replaces everything.
	resp, err := a.experiments.UpdateExperiment(t.Context(), &assayv1.UpdateExperimentRequest{
		Experiment: newRequest(t, "ExperimentService/CreateExperiment", newExperiment(`"key":"checkout-copy"`)).(*assayv1.CreateExperimentRequest).Experiment,
		UpdateMask: everything,
	})
	if err != nil {
		t.Fatal(err)
	}
	got = resp.Experiment
	want := newRequest(t, "ExperimentService/CreateExperiment", newExperiment(`"key":"checkout-copy","unit":"user","traffic":1,"salt":"checkout-copy","assignment":"ASSIGNMENT_NATIVE",
		"variants":[{"key":"a","control":true,"weight":1},{"key":"b","weight":1}],"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY","objective":"OBJECTIVE_DIFFERENCE"}],
		"plan":{"method":"METHOD_ALWAYS_VALID","confidence_level":0.95,"correction":"CORRECTION_HOLM","smallest_cell":20}`)).(*assayv1.CreateExperimentRequest).Experiment
	if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(want,
		"state", "revision", "phase", "allocation", "etag", "create_time", "update_time")); diff != "" {
		t.Errorf("replaced (-want +got):\n%s", diff)
	}
	if got.Revision != 5 {
		t.Errorf("revision %d after four changes", got.Revision)
	}
	old := call[*assayv1.GetExperimentResponse](t, a, "ExperimentService/GetExperiment", `{"key":"checkout-copy","revision":1}`).Experiment
	if diff := cmp.Diff(first, old, protocmp.Transform(), protocmp.IgnoreFields(first, "etag", "update_time")); diff != "" {
		t.Errorf("the first revision has changed (-want +got):\n%s", diff)
	}
}

func TestUpdateStarted(t *testing.T) {
	a := newAPI(t)
	a.createCheckoutCopy(t)
	a.do(t, "ExperimentService/StartExperiment", `{"key":"checkout-copy"}`)
	planHash := a.get(t, "checkout-copy").PlanHash
	update := func(fields string) string {
		return `{"experiment":` + with(`{"key":"checkout-copy"}`, fields) + `}`
	}
	for i, fields := range []string{
		`"owner":"x"`, `"description":"x"`, `"hypothesis":{"statement":"x"}`, `"labels":{"team":"x","more":""}`, `"traffic":0.75`, `"traffic":1`,
		`"variants":[{"key":"control","control":true,"payload":{"x":1}},{"key":"short","description":"x"}]`,
		`"variants":[{"key":"short"},{"key":"control","control":true}]`, `"variants":[{"key":"control","control":true,"weight":3},{"key":"short","weight":3}]`,
	} {
		got := call[*assayv1.UpdateExperimentResponse](t, a, "ExperimentService/UpdateExperiment", update(fields)).Experiment
		if got.Revision != int32(i+2) || got.Phase != 1 || got.PlanHash != planHash {
			t.Errorf("%s: revision %d, phase %d, plan %s", fields, got.Revision, got.Phase, got.PlanHash)
		}
	}
	sealed := []string{
		`"unit":"account"`, `"salt":"x"`, `"assignment":"ASSIGNMENT_EXTERNAL"`,
		`"segments":["city"]`, `"covariates":[{"name":"past_spend","attribute":"x"}]`, `"plan":{"confidence_level":0.9}`,
		`"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY"}]`,
		`"variants":[{"key":"control"},{"key":"short","control":true}]`, `"variants":[{"key":"short","control":true},{"key":"third"}]`,
		`"owner":"y","salt":"x"`,
	}
	moving := []string{
		`"eligibility":"true"`, `"traffic":0.99`, `"variants":[{"key":"control","control":true},{"key":"long"}]`,
		`"variants":[{"key":"control","control":true,"weight":2},{"key":"short"}]`,
		`"variants":[{"key":"control","control":true},{"key":"short"},{"key":"third"}]`,
		`"variants":[{"key":"control","control":true},{"key":"short"},{"key":"third","weight":0}]`,
		`"owner":"y","traffic":0`,
	}
	for reason, list := range map[string][]string{"EXPERIMENT_STARTED": sealed, "MOVEMENT_NOT_ALLOWED": moving} {
		for _, fields := range list {
			_, err := a.invoke(t, "ExperimentService/UpdateExperiment", newRequest(t, "ExperimentService/UpdateExperiment", update(fields)))
			checkRefusal(t, err, codes.FailedPrecondition, "has started", reason)
		}
	}
	a.do(t, "ExperimentService/PauseExperiment", `{"key":"checkout-copy"}`)
	a.do(t, "ExperimentService/UpdateExperiment", update(`"owner":"z"`))
	for _, verb := range []string{"Conclude", "Archive"} {
		a.do(t, "ExperimentService/"+verb+"Experiment", `{"key":"checkout-copy"}`)
		_, err := a.invoke(t, "ExperimentService/UpdateExperiment", newRequest(t, "ExperimentService/UpdateExperiment", update(`"owner":"too late"`)))
		checkRefusal(t, err, codes.FailedPrecondition, "does not change", "STATE_FORBIDS")
	}
}

func TestUpdateMetric(t *testing.T) {
	const update = "MetricService/UpdateMetric"
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", newMetric(`"window":"60s","description":"d"`))
	a.refuses(t, []refusal{
		{"nothing", update, `{}`, codes.InvalidArgument, []string{"metric.key"}, ""},
		{"etag", update, `{"metric":{"key":"m","etag":"zzzzzzzzzzzzzzzzzzzzzz"}}`, codes.InvalidArgument, []string{"metric.etag"}, ""},
		{"stale etag", update, `{"metric":{"key":"m","etag":"zz"}}`, codes.Aborted, []string{"ETAG_MISMATCH"}, ""},
		{"stale etag to archive", "MetricService/ArchiveMetric", `{"key":"m","etag":"zz"}`, codes.Aborted, []string{"ETAG_MISMATCH"}, ""},
		{"output only", update, `{"metric":{"key":"m"},"update_mask":"revision,createTime"}`, codes.InvalidArgument, []string{"update_mask.paths[0]", "update_mask.paths[1]"}, ""},
		{"nested", update, `{"metric":{"key":"m"},"update_mask":"proportion.outcome"}`, codes.InvalidArgument, []string{"update_mask.paths[0]"}, ""},
		{"no definition", update, `{"metric":{"key":"m"},"update_mask":"proportion"}`, codes.InvalidArgument, []string{"metric.definition"}, ""},
		{"another definition than the mask's", update, `{"metric":{"key":"m","sum":{"outcome":"x"}},"update_mask":"proportion"}`, codes.InvalidArgument, []string{"metric.definition"}, ""},
		{"formula", update, `{"metric":{"key":"m","formula":{"expression":"a","components":[{"name":"b","outcome":"x","aggregate":"AGGREGATE_SUM"}]}}}`, codes.InvalidArgument,
			[]string{"metric.formula.expression"}, `no component "a"`},
	})
	change := func(request string) *assayv1.Metric {
		t.Helper()
		return call[*assayv1.UpdateMetricResponse](t, a, update, request).Metric
	}
	if got := change(`{"metric":{"key":"m","window":"60s"}}`); got.Revision != 1 {
		t.Errorf("an update to what is so already made revision %d", got.Revision)
	}
	if got := change(`{"metric":{"key":"m","sum":{"outcome":"x"}}}`); got.GetSum().GetOutcome() != "x" || got.Window.AsDuration().Seconds() != 60 {
		t.Errorf("without a mask: %v", got)
	}
	if got := change(`{"metric":{"key":"m"},"update_mask":"window"}`); got.Window != nil || got.Description != "d" {
		t.Errorf("the window is cleared: %v", got)
	}
	_, err := a.metrics.UpdateMetric(t.Context(), &assayv1.UpdateMetricRequest{Metric: &assayv1.Metric{Key: "m"}, UpdateMask: everything})
	checkRefusal(t, err, codes.InvalidArgument, "", "metric.definition", "metric.direction")
	resp, err := a.metrics.UpdateMetric(t.Context(), &assayv1.UpdateMetricRequest{
		Metric: &assayv1.Metric{Key: "m", Direction: assayv1.Direction_DIRECTION_DECREASE,
			Definition: &assayv1.Metric_Mean{Mean: &assayv1.Mean{Outcome: "y"}}},
		UpdateMask: everything,
	})
	if err != nil {
		t.Fatal(err)
	}
	got := resp.Metric
	if got.GetMean().GetOutcome() != "y" || got.Description != "" || got.Direction != assayv1.Direction_DIRECTION_DECREASE || got.Revision != 4 {
		t.Errorf("replaced: %v", got)
	}
	old := call[*assayv1.GetMetricResponse](t, a, "MetricService/GetMetric", `{"key":"m","revision":1}`).Metric
	if old.GetProportion().GetOutcome() != "purchase" || old.Revision != 1 {
		t.Errorf("the first revision: %v", old)
	}
}
