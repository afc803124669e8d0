package server_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// startSequential starts an experiment of a and b whose plan is group-sequential,
// of 1,000 subjects. The windows of its secondary metric never close.
func (a *api) startSequential(tb testing.TB) {
	tb.Helper()
	a.do(tb, "MetricService/CreateMetric", purchaseRate)
	a.do(tb, "MetricService/CreateMetric", refundRate)
	a.do(tb, "MetricService/CreateMetric", newMetric(`"key":"years","window":"315360000s"`))
	a.do(tb, "ExperimentService/CreateExperiment", newExperiment(`"plan":{"method":"METHOD_GROUP_SEQUENTIAL","spending":"SPENDING_POCOCK","planned_subjects":"1000"},
		"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY"},{"metric":"years","role":"METRIC_ROLE_SECONDARY"}]`))
	a.do(tb, "ExperimentService/StartExperiment", `{"key":"plain"}`)
}

func (a *api) analyzed(tb testing.TB, request string) *assayv1.AnalyzeExperimentResponse {
	tb.Helper()
	return call[*assayv1.AnalyzeExperimentResponse](tb, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"`+request+`}`)
}

// TestLooks takes the looks of an experiment from the first to the last.
func TestLooks(t *testing.T) {
	const analyze, take = "AnalysisService/AnalyzeExperiment", `,"take_look":true`
	a := newAPI(t)
	a.startSequential(t)
	a.checkUnjudged(t, a.analyzed(t, ""), 0)
	withoutSubjects := refusal{"without subjects", analyze, `{"experiment":"plain","take_look":true}`, codes.FailedPrecondition, []string{"LOOK_WITHOUT_SUBJECTS"}, "a thousandth more"}
	a.refuses(t, []refusal{withoutSubjects})

	a.arrive(t, "plain", "first", 300, map[string]float64{"a": 0.5, "b": 0.5})
	first := a.analyzed(t, take)
	a.checkLook(t, first, 0.3)
	if v := first.Verdict; v.Action != assayv1.VerdictAction_VERDICT_ACTION_KEEP_RUNNING || !strings.HasPrefix(v.Reasons[0], "Nothing is decided yet") {
		t.Errorf("verdict of the first look: %v", v)
	}
	a.refuses(t, []refusal{withoutSubjects})
	if again := a.analyzed(t, take+`,"as_of_time":"`+timeText(first.AsOfTime)+`"`); !proto.Equal(first, again) {
		t.Errorf("the look taken again differs: %v", cmp.Diff(first, again, protocmp.Transform()))
	}
	a.checkUnjudged(t, a.analyzed(t, `,"metrics":["refund_rate"]`), 1)

	a.arrive(t, "plain", "second", 400, map[string]float64{"a": 0.5, "b": 0.8})
	between := a.analyzed(t, "")
	a.checkUnjudged(t, between, 1)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "assay-author", "ana")
	second, err := a.analysis.AnalyzeExperiment(ctx, &assayv1.AnalyzeExperimentRequest{Experiment: "plain", TakeLook: true, Metrics: []string{"refund_rate"}})
	if err != nil {
		t.Fatal(err)
	}
	a.checkLook(t, second, 0.3, 0.7)
	if v := second.Verdict; v.Action != assayv1.VerdictAction_VERDICT_ACTION_SHIP || v.Variant != "b" {
		t.Errorf("verdict of the second look: %v", v)
	}
	if c := second.Metrics[2].Comparisons[0]; second.Metrics[2].Metric != "refund_rate" || c.Notes == nil {
		t.Errorf("a metric that no earlier look had: %v", second.Metrics[2])
	}
	after := a.analyzed(t, "")
	a.checkUnjudged(t, after, 2)
	if v := after.Verdict; v.Action != second.Verdict.Action || v.Variant != "b" || !strings.HasPrefix(v.Reasons[0], "Look 2 decided") || len(v.Reasons) != len(second.Verdict.Reasons)+1 {
		t.Errorf("verdict after the second look: %v", v)
	}
	// What was known before.
	a.checkUnjudged(t, a.analyzed(t, `,"segments":[],"metrics":["refund_rate"],"as_of_time":"`+timeText(between.AsOfTime)+`"`), 1)
	a.refuses(t, []refusal{{"out of order", analyze, fmt.Sprintf(`{"experiment":"plain","take_look":true,"as_of_time":%q}`, timeText(between.AsOfTime)),
		codes.FailedPrecondition, []string{"LOOK_OUT_OF_ORDER"}, "look 2 was taken as of " + timeText(second.AsOfTime)}})

	a.arrive(t, "plain", "third", 400, map[string]float64{"a": 0.5, "b": 0.5})
	a.do(t, "ExperimentService/ConcludeExperiment", `{"key":"plain","shipped_variant":"b"}`)
	last := a.analyzed(t, take)
	a.checkLook(t, last, 0.3, 0.7, 1.1)
	if spent := last.Looks[2].Spent; math.Abs(spent-0.05) > 1e-12 {
		t.Errorf("%v was spent in all", spent)
	}
	a.refuses(t, []refusal{{"after the last", analyze, `{"experiment":"plain","take_look":true}`, codes.FailedPrecondition, []string{"LAST_LOOK_TAKEN"}, "look 3 was the last one"}})

	events := call[*assayv1.ListAuditEventsResponse](t, a, listAuditEvents, `{"kind":"AUDITED_KIND_EXPERIMENT","key":"plain","page_size":5}`).Events
	if e := events[2]; e.Action != assayv1.AuditAction_AUDIT_ACTION_TAKE_LOOK || e.Author != "ana" || e.Details.Fields["look"].GetNumberValue() != 2 {
		t.Errorf("the second look in the audit: %v", events)
	}
}

func timeText(at *timestamppb.Timestamp) string {
	return at.AsTime().Format("2006-01-02T15:04:05.999999999Z")
}

// checkUnjudged expects estimates without a judgement, after so many looks.
func (a *api) checkUnjudged(t *testing.T, got *assayv1.AnalyzeExperimentResponse, looks int) {
	t.Helper()
	if len(got.Looks) != looks {
		t.Errorf("%d looks, want %d", len(got.Looks), looks)
	}
	for _, m := range got.Metrics {
		for _, c := range m.Comparisons {
			if c.PValue != nil || c.AdjustedPValue != nil || c.Difference.Lower != nil || c.Lift.Upper != nil || c.Boundary != nil || c.Significant {
				t.Errorf("%s is judged without a look: %v", m.Metric, c)
			}
			if looks > 0 && m.Metric == "purchase_rate" && (c.Difference.Estimate == nil || c.StandardError == nil || !strings.Contains(fmt.Sprint(c.Notes), "at its looks only")) {
				t.Errorf("%s has no estimate or no note: %v", m.Metric, c)
			}
		}
	}
	if action := got.Verdict.Action; action != assayv1.VerdictAction_VERDICT_ACTION_KEEP_RUNNING && looks < 2 {
		t.Errorf("verdict %v", got.Verdict)
	}
}

// checkLook expects an analysis to take the last of the looks, and to judge the
// primary metric as CompareSummaries does.
func (a *api) checkLook(t *testing.T, got *assayv1.AnalyzeExperimentResponse, information ...float64) {
	t.Helper()
	if len(got.Looks) != len(information) {
		t.Fatalf("looks %v, want %v", got.Looks, information)
	}
	for i, look := range got.Looks {
		if look.Number != int32(i)+1 || math.Abs(look.Information-information[i]) > 1e-12 {
			t.Errorf("look %v, want information %v", look, information[i])
		}
		if want := 0.05 * math.Log1p((math.E-1)*math.Min(1, information[i])); math.Abs(look.Spent-want) > 1e-12 {
			t.Errorf("look %v has spent %v, want %v", i+1, look.Spent, want)
		}
	}
	last := got.Looks[len(got.Looks)-1]
	if c := got.Metrics[0].Comparisons[0]; !(last.GetBoundary() < c.GetBoundary() && last.GetBoundary() > 0.98*c.GetBoundary()) {
		t.Errorf("the boundary of look %v, and by its degrees of freedom %v", last, c.GetBoundary())
	}
	if last.AnalysisId != got.AnalysisId || !proto.Equal(last.CreateTime, got.CreateTime) {
		t.Errorf("the look %v is not that of the analysis", last)
	}
	req := &assayv1.CompareSummariesRequest{Components: []string{"x"}, Plan: got.Plan, Looks: information}
	for _, arm := range got.Metrics[0].Arms {
		n, p := float64(arm.Subjects), arm.GetMean()
		req.Arms = append(req.Arms, &assayv1.SummaryArm{Variant: arm.Variant, Control: arm.Variant == "a", Strata: []*assayv1.SummaryStratum{
			{Subjects: arm.Subjects, Means: []float64{p}, Covariances: []float64{p * (1 - p) * n / (n - 1)}}}})
	}
	compared, err := a.analysis.CompareSummaries(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	want, have := compared.Comparisons[0], got.Metrics[0].Comparisons[0]
	for name, pair := range map[string][2]float64{
		"p-value": {want.GetPValue(), have.GetPValue()}, "lower": {want.Difference.GetLower(), have.Difference.GetLower()},
		"upper of the lift": {want.Lift.GetUpper(), have.Lift.GetUpper()}, "boundary": {want.GetBoundary(), have.GetBoundary()},
	} {
		if pair[0] == 0 || !near(pair[1], pair[0]) {
			t.Errorf("%s: %v, and %v by CompareSummaries", name, pair[1], pair[0])
		}
	}
	if c := got.Metrics[1].Comparisons[0]; got.Metrics[1].Metric != "years" || c.PValue != nil || c.Significant {
		t.Errorf("a metric without subjects is judged: %v", c)
	}
}

// TestLooksAtOnce has many callers take the same look. Those with the same
// moment have one analysis; of the others one takes it.
func TestLooksAtOnce(t *testing.T) {
	a := newAPI(t)
	a.startSequential(t)
	a.arrive(t, "plain", "first", 300, map[string]float64{"a": 0.5, "b": 0.5})
	callers := func(req *assayv1.AnalyzeExperimentRequest) map[string]bool {
		ids := map[string]bool{}
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				got, err := a.analysis.AnalyzeExperiment(context.Background(), req)
				mu.Lock()
				defer mu.Unlock()
				switch code := status.Code(err); {
				case err == nil:
					ids[got.AnalysisId] = true
				case code != codes.Aborted && code != codes.FailedPrecondition || req.AsOfTime != nil:
					t.Error(err)
				}
			})
		}
		all.Wait()
		return ids
	}
	if ids := callers(&assayv1.AnalyzeExperimentRequest{Experiment: "plain", TakeLook: true}); len(ids) != 1 {
		t.Errorf("the first look is %v", ids)
	}
	a.arrive(t, "plain", "second", 300, map[string]float64{"a": 0.5, "b": 0.5})
	if ids := callers(&assayv1.AnalyzeExperimentRequest{Experiment: "plain", TakeLook: true, AsOfTime: timestamppb.Now()}); len(ids) != 1 {
		t.Errorf("the second look is %v", ids)
	}
	if got := a.analyzed(t, ""); len(got.Looks) != 2 {
		t.Errorf("looks %v", got.Looks)
	}
}

// TestLookSentAgain: a request that is sent again under its id takes no second
// look, whatever was recorded meanwhile, also if both are answered at once.
func TestLookSentAgain(t *testing.T) {
	a := newAPI(t)
	a.startSequential(t)
	a.arrive(t, "plain", "first", 300, map[string]float64{"a": 0.5, "b": 0.5})
	const take = `,"take_look":true,"request_id":"monday"`
	first := a.analyzed(t, take)
	a.checkLook(t, first, 0.3)
	a.arrive(t, "plain", "second", 300, map[string]float64{"a": 0.5, "b": 0.5})
	for _, request := range []string{take, `,"request_id":"monday"`, take + `,"as_of_time":"` + timeText(timestamppb.Now()) + `"`} {
		if again := a.analyzed(t, request); !proto.Equal(first, again) {
			t.Errorf("%s: %v", request, cmp.Diff(first, again, protocmp.Transform()))
		}
	}
	ids := make([]string, 4)
	var callers sync.WaitGroup
	for i := range ids {
		callers.Go(func() {
			got, err := a.analysis.AnalyzeExperiment(context.Background(), &assayv1.AnalyzeExperimentRequest{Experiment: "plain", TakeLook: true, RequestId: "tuesday"})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = got.AnalysisId
		})
	}
	callers.Wait()
	if ids[0] == first.AnalysisId || ids[0] != ids[1] || ids[0] != ids[2] || ids[0] != ids[3] {
		t.Errorf("requests with one id have the analyses %v", ids)
	}
	if got := a.analyzed(t, ""); len(got.Looks) != 2 {
		t.Errorf("looks %v", got.Looks)
	}
	// The id is the experiment's.
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"key":"other"`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"other"}`)
	if got := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"other","request_id":"monday"}`); got.Experiment != "other" {
		t.Errorf("an analysis of %q", got.Experiment)
	}
}

// TestNoLooks refuses looks where there are none.
func TestNoLooks(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	for key, patch := range map[string]string{
		"always":  `"key":"always"`,
		"nothing": `"key":"nothing","metrics":[],"plan":{"method":"METHOD_GROUP_SEQUENTIAL","planned_subjects":"10"}`,
	} {
		a.do(t, "ExperimentService/CreateExperiment", newExperiment(patch))
		a.do(t, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
	}
	const analyze = "AnalysisService/AnalyzeExperiment"
	a.refuses(t, []refusal{
		{"another method", analyze, `{"experiment":"always","take_look":true}`, codes.FailedPrecondition, []string{"NOT_GROUP_SEQUENTIAL"}, ""},
		{"no primary metric", analyze, `{"experiment":"nothing","take_look":true}`, codes.FailedPrecondition, []string{"NO_PRIMARY_METRIC"}, ""},
	})
	got := call[*assayv1.AnalyzeExperimentResponse](t, a, analyze, `{"experiment":"nothing"}`)
	if got.Plan.Spending != assayv1.Spending_SPENDING_O_BRIEN_FLEMING || got.Verdict.Action != assayv1.VerdictAction_VERDICT_ACTION_INCONCLUSIVE {
		t.Errorf("plan %v, verdict %v", got.Plan, got.Verdict)
	}
}

// TestLookAfterConclusion: a group-sequential plan whose primary metric has no window
// takes no look while it runs, and decides by one when it has been concluded, with all
// of its error rate.
func TestLookAfterConclusion(t *testing.T) {
	const analyze, take = "AnalysisService/AnalyzeExperiment", `{"experiment":"plain","take_look":true}`
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", endlessRevenue)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"}],"plan":{"method":"METHOD_GROUP_SEQUENTIAL","planned_subjects":"1000"}`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	given := a.exposed(t, "plain", "u", 0, 200)
	a.spend(t, "order", given, func(key, variant string) float64 {
		return map[string]float64{"a": 10, "b": 14}[variant] + float64(len(key)) + float64(key[len(key)-1]%5)
	})
	a.refuses(t, []refusal{{"while it runs", analyze, take, codes.FailedPrecondition, []string{"LOOK_CANNOT_DECIDE"}, "decides once"}})
	a.do(t, "ExperimentService/ConcludeExperiment", `{"key":"plain"}`)
	if v := a.analyze(t, `{"experiment":"plain"}`).Verdict; v.Action != assayv1.VerdictAction_VERDICT_ACTION_INCONCLUSIVE || !strings.HasPrefix(v.Reasons[0], "It was concluded undecided") || !strings.HasSuffix(v.Reasons[1], "take the next one.") {
		t.Errorf("before the look: %v", v)
	}
	got := a.analyze(t, take)
	if got.Verdict.Action != assayv1.VerdictAction_VERDICT_ACTION_SHIP || len(got.Looks) != 1 || math.Abs(got.Looks[0].Spent-0.05) > 1e-12 || math.Abs(got.Looks[0].GetBoundary()-1.959963984540054) > 1e-9 {
		t.Errorf("the look: %v, %v", got.Verdict, got.Looks)
	}
	a.refuses(t, []refusal{{"another one", analyze, take, codes.FailedPrecondition, []string{"LAST_LOOK_TAKEN"}, "decides once"}})
	if v := a.analyze(t, `{"experiment":"plain"}`).Verdict; v.Action != assayv1.VerdictAction_VERDICT_ACTION_SHIP || !strings.HasPrefix(v.Reasons[0], "Look 1 decided") {
		t.Errorf("after the look: %v", v)
	}
}
