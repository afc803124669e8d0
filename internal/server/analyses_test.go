package server_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

const pricing = `{"experiment":{"key":%q,
  "variants":[{"key":"control","control":true},{"key":"low"},{"key":"high"}],
  "segments":["country"],"covariates":[{"name":"past_spend","attribute":"past_spend"}],
  "metrics":[{"metric":"order_value","role":"METRIC_ROLE_PRIMARY","covariates":["past_spend"]}],
  "plan":{"method":%q,"planned_subjects":"600"}}}`

// startPricing starts an experiment of three variants on order_value, and
// returns its plan.
func (a *api) startPricing(tb testing.TB, key, method string) *assayv1.Plan {
	tb.Helper()
	e := call[*assayv1.CreateExperimentResponse](tb, a, "ExperimentService/CreateExperiment", fmt.Sprintf(pricing, key, method)).Experiment
	a.do(tb, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
	return e.Plan
}

// exposedAt is when the subjects of the tests meet their variants: long enough
// ago for windows of 14 days to have closed.
var exposedAt = time.Date(2026, 1, 5, 10, 0, 0, 0, time.UTC)

// shopper is a subject with what it did: revenue, orders and past spend.
type shopper struct {
	key     string
	variant string
	numbers [3]float64
}

// shop exposes n subjects to what the split of the experiment gives them, and
// records their orders, of which some do not count.
func (a *api) shop(tb testing.TB, experiment string, n int) []shopper {
	tb.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	shoppers := make([]shopper, n)
	ask := &assayv1.BatchAssignRequest{Experiments: []string{experiment}}
	for i := range shoppers {
		shoppers[i].key = fmt.Sprintf("%s-%d", experiment, i)
		ask.Subjects = append(ask.Subjects, &assayv1.Subject{Key: shoppers[i].key})
	}
	assigned, err := a.assign.BatchAssign(context.Background(), ask)
	if err != nil {
		tb.Fatal(err)
	}
	exposures, outcomes := &assayv1.RecordExposuresRequest{}, &assayv1.RecordOutcomesRequest{}
	for i := range shoppers {
		s := &shoppers[i]
		s.variant = assigned.Results[i].Assignments[0].Variant
		pastSpend := 100 * r.ExpFloat64()
		s.numbers[2] = pastSpend
		country := []string{"PL", "DE", "FR"}[i%3]
		exposures.Exposures = append(exposures.Exposures, &assayv1.Exposure{
			Experiment: experiment, Variant: s.variant, ExposedTime: timestamppb.New(exposedAt),
			Subject: &assayv1.Subject{Key: s.key, Attributes: &structpb.Struct{Fields: map[string]*structpb.Value{
				"past_spend": structpb.NewNumberValue(pastSpend), "country": structpb.NewStringValue(country),
			}}},
		})
		order := func(after time.Duration, value float64) {
			outcomes.Outcomes = append(outcomes.Outcomes, &assayv1.Outcome{
				EventId: fmt.Sprint("order-", len(outcomes.Outcomes)), Subject: &assayv1.Subject{Key: s.key},
				Name: "purchase", Value: proto.Float64(value), OccurredTime: timestamppb.New(exposedAt.Add(after)),
			})
		}
		for range r.IntN(4) {
			value := pastSpend/2 + 20*r.ExpFloat64()
			s.numbers[0] += value
			s.numbers[1]++
			order(time.Duration(r.Int64N(int64(14*24*time.Hour))), value)
		}
		order(-time.Millisecond, 1000)
		order(14*24*time.Hour, 1000)
	}
	got, err := a.events.RecordExposures(context.Background(), exposures)
	if err != nil || int(got.Recorded) != n {
		tb.Fatal(got, err)
	}
	stored, err := a.events.RecordOutcomes(context.Background(), outcomes)
	if err != nil || int(stored.Recorded) != len(outcomes.Outcomes) {
		tb.Fatal(stored, err)
	}
	return shoppers
}

// summaryOf computes the aggregates of a variant in two passes.
func summaryOf(shoppers []shopper, variant string) *assayv1.SummaryArm {
	var n float64
	mean, products := make([]float64, 3), [3][3]float64{}
	for _, s := range shoppers {
		if s.variant == variant {
			n++
			for i, x := range s.numbers {
				mean[i] += x
			}
		}
	}
	for i := range mean {
		mean[i] /= n
	}
	for _, s := range shoppers {
		if s.variant == variant {
			for i := range mean {
				for j := range mean {
					products[i][j] += (s.numbers[i] - mean[i]) * (s.numbers[j] - mean[j])
				}
			}
		}
	}
	stratum := &assayv1.SummaryStratum{Subjects: int64(n), Means: mean, NonzeroSubjects: make([]int64, 3), NegativeSubjects: make([]int64, 3)}
	for _, s := range shoppers {
		for i, x := range s.numbers {
			if s.variant == variant && x != 0 {
				stratum.NonzeroSubjects[i]++
			}
			if s.variant == variant && x < 0 {
				stratum.NegativeSubjects[i]++
			}
		}
	}
	for i := range mean {
		for j := i; j < len(mean); j++ {
			stratum.Covariances = append(stratum.Covariances, products[i][j]/(n-1))
		}
	}
	return &assayv1.SummaryArm{Variant: variant, Control: variant == "control", Strata: []*assayv1.SummaryStratum{stratum}}
}

// TestCompareEqualsAnalyze takes the same data through the database and as
// aggregates: there is one statistical path.
func TestCompareEqualsAnalyze(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", orderValue)
	for key, method := range map[string]string{"always": "METHOD_ALWAYS_VALID", "fixed": "METHOD_FIXED_HORIZON", "bayesian": "METHOD_BAYESIAN"} {
		t.Run(method, func(t *testing.T) {
			plan := a.startPricing(t, key, method)
			shoppers := a.shop(t, key, 500)
			analysis, err := a.analysis.AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: key})
			if err != nil {
				t.Fatal(err)
			}
			compared, err := a.analysis.CompareSummaries(t.Context(), &assayv1.CompareSummariesRequest{
				Components: []string{"revenue", "orders", "past_spend"}, Formula: "revenue / orders", Covariates: []string{"past_spend"},
				Arms: []*assayv1.SummaryArm{summaryOf(shoppers, "control"), summaryOf(shoppers, "low"), summaryOf(shoppers, "high")},
				Plan: plan,
			})
			if err != nil {
				t.Fatal(err)
			}
			got := &assayv1.CompareSummariesResponse{Arms: analysis.Metrics[0].Arms, Comparisons: analysis.Metrics[0].Comparisons, Balance: analysis.Balance}
			if diff := cmp.Diff(compared, got, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.Comparison{}, "smallest_p_value", "smallest_p_value_day"), protocmp.IgnoreFields(&assayv1.ArmResult{}, "largest_share"), cmpopts.EquateApprox(1e-9, 0)); diff != "" {
				t.Errorf("AnalyzeExperiment differs from CompareSummaries (-summaries +experiment):\n%s", diff)
			}
			if c := got.Comparisons[0]; c.GetVarianceReduction() < 0.1 || c.Unadjusted == nil || c.PValue == nil && c.ChanceToWin == nil {
				t.Errorf("the comparison lacks figures: %v", c)
			}
		})
	}
}

// TestAnalysisIsReproducible asks again after more has been recorded.
func TestAnalysisIsReproducible(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", orderValue)
	a.startPricing(t, "pricing", "METHOD_ALWAYS_VALID")
	shoppers := a.shop(t, "pricing", 100)

	req := &assayv1.AnalyzeExperimentRequest{Experiment: "pricing", AsOfTime: timestamppb.Now(), Segments: []string{"country"}}
	answers := make([]*assayv1.AnalyzeExperimentResponse, 4)
	var callers sync.WaitGroup
	for i := range answers {
		callers.Go(func() {
			var err error
			if answers[i], err = a.analysis.AnalyzeExperiment(t.Context(), req); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	first := answers[0]
	if first.AnalysisId == "" || first.Metrics[0].Arms[0].Subjects == 0 || len(first.Metrics[0].Segments) != 3 {
		t.Fatalf("an empty analysis: %v", first)
	}
	for _, other := range answers[1:] {
		if diff := cmp.Diff(first, other, protocmp.Transform()); diff != "" {
			t.Errorf("the same request at the same time (-one +other):\n%s", diff)
		}
	}

	a.do(t, "EventService/RecordOutcomes", fmt.Sprintf(
		`{"outcomes":[{"event_id":"late","subject":{"key":%q},"name":"purchase","value":1e6,"occurred_time":"2026-01-06T00:00:00Z"}]}`, shoppers[0].key))
	a.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"pricing","owner":"someone else"}}`)
	again, err := a.analysis.AnalyzeExperiment(t.Context(), req)
	if err != nil || !proto.Equal(first, again) {
		t.Errorf("the analysis has changed: %v %v", again, err)
	}
	got, err := a.analysis.GetAnalysis(t.Context(), &assayv1.GetAnalysisRequest{AnalysisId: first.AnalysisId})
	if err != nil || !proto.Equal(first, got.Analysis) {
		t.Errorf("the stored analysis differs: %v %v", got, err)
	}

	now, err := a.analysis.AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: "pricing", Segments: []string{"country"}})
	if err != nil {
		t.Fatal(err)
	}
	if now.AnalysisId == first.AnalysisId || now.Metrics[0].Comparisons[0].Difference.GetEstimate() == first.Metrics[0].Comparisons[0].Difference.GetEstimate() {
		t.Error("an analysis of now does not know of the late outcome")
	}
	later, err := a.analysis.AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: "pricing", Segments: []string{"country"}})
	if err != nil || later.AnalysisId == now.AnalysisId {
		t.Errorf("an analysis of now is that of an earlier now: %v", err)
	}
}

// TestWritesUnderWay analyses while a transaction has written an exposure and
// not yet committed it. A moment before it is answered at once; a moment after
// it is not answered before the transaction has ended.
func TestWritesUnderWay(t *testing.T) {
	a, address := newAPIAt(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.live(t, "plain", "running")

	conn := connect(t, address)
	if _, err := conn.Exec(t.Context(), `SET application_name = 'assay-record'`); err != nil { // As those of the server that write events.
		t.Fatal(err)
	}
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `INSERT INTO exposures (experiment_id, subject_id, phase, variant, exposed_time)
		SELECT id, '00000000-0000-4000-8000-000000000000', 1, 'a', now() FROM experiments`); err != nil {
		t.Fatal(err)
	}
	after := &assayv1.AnalyzeExperimentRequest{Experiment: "plain", AsOfTime: timestamppb.Now()}
	if got := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"}`); got.SampleRatio.Observed["a"] != 0 || !got.AsOfTime.AsTime().Before(after.AsOfTime.AsTime()) {
		t.Errorf("before the transaction: %v", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got, err := a.analysis.AnalyzeExperiment(ctx, after); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("answered while the transaction was under way: %v, %v", got, err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := a.analysis.AnalyzeExperiment(t.Context(), after); err != nil || got.SampleRatio.Observed["a"] != 1 {
		t.Errorf("after the transaction: %v, %v", got, err)
	}
}

// TestStoredWhileWritesAreUnderWay: an analysis that is stored is answered at once,
// whatever is being written.
func TestStoredWhileWritesAreUnderWay(t *testing.T) {
	a, address := newAPIAt(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.live(t, "plain", "running")
	conn := connect(t, address)
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`BEGIN`)
	at := &assayv1.AnalyzeExperimentRequest{Experiment: "plain", AsOfTime: timestamppb.Now()}
	first, err := a.analysis.AnalyzeExperiment(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	exec(`SET application_name = 'assay-record'`) // Now the transaction counts as one that writes.
	if again, err := a.analysis.AnalyzeExperiment(t.Context(), at); err != nil || !proto.Equal(first, again) {
		t.Errorf("%v, %v; want %v", again, err, first)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	at.Metrics = []string{"purchase_rate"}
	if got, err := a.analysis.AnalyzeExperiment(ctx, at); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("another request was answered: %v, %v", got, err)
	}
}

// TestHugeValues records values at the edge of what is accepted: whatever is
// recorded is answered, without NaN or infinity.
func TestHugeValues(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", `{"metric":{"key":"order_value","direction":"DIRECTION_INCREASE",
		"formula":{"expression":"(a * a * a * a * a) / b","components":[
			{"name":"a","outcome":"purchase","aggregate":"AGGREGATE_MAX"},
			{"name":"b","outcome":"purchase","aggregate":"AGGREGATE_LAST","conditions":[{"field":"size","op":"OP_LESS","values":["1e308"]}]}]}}}`)
	a.startPricing(t, "pricing", "METHOD_FIXED_HORIZON")
	shoppers := a.shop(t, "pricing", 30)
	outcomes := &assayv1.RecordOutcomesRequest{}
	for i, s := range shoppers {
		properties, _ := structpb.NewStruct(map[string]any{"size": math.MaxFloat64 / float64(i+1)})
		outcomes.Outcomes = append(outcomes.Outcomes, &assayv1.Outcome{
			EventId: "huge", Subject: &assayv1.Subject{Key: s.key}, Name: "purchase", Properties: properties,
			Value: proto.Float64(math.Copysign(1e100, float64(i%3-1))), OccurredTime: timestamppb.New(exposedAt),
		}, &assayv1.Outcome{
			EventId: "tiny", Subject: &assayv1.Subject{Key: s.key}, Name: "purchase", Properties: properties,
			Value: proto.Float64(math.SmallestNonzeroFloat64), OccurredTime: timestamppb.New(exposedAt.Add(time.Hour)),
		})
	}
	if got, err := a.events.RecordOutcomes(t.Context(), outcomes); err != nil || len(got.Rejected) > 0 {
		t.Fatal(got, err)
	}
	got, err := a.analysis.AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: "pricing", Segments: []string{"country"}})
	if err != nil {
		t.Fatal(err)
	}
	if path := findNotFinite(got.ProtoReflect()); path != "" {
		t.Errorf("%s is not finite: %v", path, got)
	}
	if len(got.Metrics[0].Arms[0].Notes) == 0 {
		t.Errorf("no note says why a figure is absent: %v", got.Metrics[0].Arms[0])
	}
}

// TestConditionNumbers analyses with conditions on every number that creation
// accepts.
func TestConditionNumbers(t *testing.T) {
	a := newAPI(t)
	created := 0
	for i, number := range []string{"1", "-0", "+1", "1.", ".5", "1e5", "1E5", "1e-400", "-1e-400", "1e-320", "0x1p-2", "0x_1p-2", "1e308", "1_000", "1e309", "inf", "nan", "", " 1", "１"} {
		key := fmt.Sprintf("metric-%d", i)
		op := []string{"OP_EQUAL", "OP_GREATER"}[i%2]
		_, err := a.metrics.CreateMetric(t.Context(), newRequest(t, "MetricService/CreateMetric", fmt.Sprintf(
			`{"metric":{"key":%q,"direction":"DIRECTION_INCREASE","formula":{"expression":"a - b","components":[
				{"name":"a","outcome":"purchase","aggregate":"AGGREGATE_COUNT","conditions":[{"field":"value","op":%q,"values":[%q]}]},
				{"name":"b","outcome":"purchase","aggregate":"AGGREGATE_COUNT","conditions":[{"field":"size","op":"OP_LESS","values":[%q]}]}]}}}`,
			key, op, number, number)).(*assayv1.CreateMetricRequest))
		if err != nil {
			checkRefusal(t, err, codes.InvalidArgument, "is not a number",
				"metric.formula.components[0].conditions[0].values[0]", "metric.formula.components[1].conditions[0].values[0]")
			continue
		}
		created++
		a.do(t, "ExperimentService/CreateExperiment", fmt.Sprintf(`{"experiment":{"key":%q,"variants":[{"key":"a","control":true},{"key":"b"}],
			"metrics":[{"metric":%[1]q,"role":"METRIC_ROLE_PRIMARY"}]}}`, key))
		a.do(t, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
		if i == 0 {
			a.do(t, "EventService/RecordOutcomes", `{"outcomes":[{"event_id":"1","subject":{"key":"u"},"name":"purchase","value":1,"occurred_time":"2026-01-06T00:00:00Z","properties":{"size":1}}]}`)
		}
		if _, err := a.analysis.AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: key}); err != nil {
			t.Errorf("a condition with the number %q: %v", number, err)
		}
	}
	if created < 8 {
		t.Errorf("only %d of the numbers were accepted", created)
	}
}

// findNotFinite returns the path of a number in m that is NaN or an infinity.
func findNotFinite(m protoreflect.Message) (path string) {
	protorange.Range(m, func(v protopath.Values) error {
		if x, ok := v.Index(-1).Value.Interface().(float64); ok && (math.IsNaN(x) || math.IsInf(x, 0)) {
			path = v.Path.String()
			return protorange.Terminate
		}
		return nil
	})
	return path
}
