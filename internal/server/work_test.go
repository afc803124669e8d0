package server_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/server"
)

// heavySummaries is a request that takes a processor seconds: 64 arms of so many strata.
func heavySummaries(strata int) *assayv1.CompareSummariesRequest {
	req := &assayv1.CompareSummariesRequest{Components: []string{"x"}}
	for v := range 64 {
		arm := &assayv1.SummaryArm{Variant: fmt.Sprintf("v%d", v), Control: v == 0}
		for s := range strata {
			arm.Strata = append(arm.Strata, &assayv1.SummaryStratum{
				Stratum: fmt.Sprint(s), Subjects: int64(1000 + s), Means: []float64{1 + float64(v*7+s*3)/100}, Covariances: []float64{3},
			})
		}
		req.Arms = append(req.Arms, arm)
	}
	return req
}

// TestComputationsQueue holds that computations take turns, that those for which nobody
// waits end, and that what is more than the queue is told so.
func TestComputationsQueue(t *testing.T) {
	a := newAPI(t)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	heavy := heavySummaries(60)
	const callers = 48
	var refused, ended atomic.Int64
	var calls sync.WaitGroup
	full := make(chan error, callers)
	for range callers {
		calls.Go(func() {
			_, err := a.analysis.CompareSummaries(ctx, heavy)
			switch status.Code(err) {
			case codes.ResourceExhausted:
				refused.Add(1)
				full <- err
			case codes.Canceled:
				ended.Add(1)
			case codes.OK:
			default:
				t.Error(err)
			}
		})
	}
	select {
	case err := <-full:
		checkRefusal(t, err, codes.ResourceExhausted, "too many calls", "QUEUE_FULL")
		checkRetry(t, err)
	case <-time.After(time.Minute):
		t.Fatal("nothing is refused")
	}
	if most := max(1, runtime.GOMAXPROCS(0)-1); a.gauge(t, "assay_calls_under_way", "computing") > float64(most) {
		t.Errorf("%v computations at once, want %d", a.gauge(t, "assay_calls_under_way", "computing"), most)
	}
	leave()
	calls.Wait()
	if ended.Load() == 0 {
		t.Error("every call was done before its caller left")
	}
	for a.gauge(t, "assay_calls_under_way", "computing")+a.gauge(t, "assay_calls_waiting", "computing") > 0 { // Those that nobody waits for make way.
		time.Sleep(time.Millisecond)
	}
	if got := a.gauge(t, "assay_calls_refused_total", "computing"); got == 0 || int64(got) < refused.Load() {
		t.Errorf("%v refusals are counted, of %d", got, refused.Load())
	}
	if _, err := a.analysis.CompareSummaries(t.Context(), heavySummaries(1)); err != nil {
		t.Error(err)
	}
}

// TestAnalysisTooLarge holds that an analysis which would take more memory than one may
// is refused before it reads, with what it would have taken, and so is one of whose few
// subjects there would be too much to say.
func TestAnalysisTooLarge(t *testing.T) {
	server.SetAnalysisBytes(t, 8<<10)
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", `{"metric":{"key":"capped","direction":"DIRECTION_INCREASE","window":"1209600s",
		"formula":{"expression":"x","components":[{"name":"x","outcome":"purchase","aggregate":"AGGREGATE_SUM","cap":{"upper_percentile":99}}]}}}`)
	a.do(t, "MetricService/CreateMetric", `{"metric":{"key":"plain","direction":"DIRECTION_INCREASE","sum":{"outcome":"purchase"}}}`)
	a.startPlain(t, `"metrics":[{"metric":"plain","role":"METRIC_ROLE_PRIMARY"}]`)
	a.exposeHalves(t, "plain", "u", 200)
	_, err := a.analysis.AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: "plain", Metrics: []string{"capped"}})
	checkRefusal(t, err, codes.ResourceExhausted, "this analysis needs 1 MiB of memory or more", "ANALYSIS_TOO_LARGE")
	if a.gauge(t, "assay_calls_refused_total", "analysis") != 1 {
		t.Error("the refusal is not counted")
	}
	a.do(t, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain","metrics":["plain"]}`)
	a.do(t, "MetricService/CreateMetric", `{"metric":{"key":"more","direction":"DIRECTION_INCREASE","sum":{"outcome":"purchase"}}}`)
	_, err = a.analysis.AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: "plain", Metrics: []string{"plain", "more"}})
	checkRefusal(t, err, codes.ResourceExhausted, "ask for fewer metrics or segments", "ANALYSIS_TOO_LARGE")
}

// TestLockedTable holds that what waits for a lock ends, so that nobody else waits behind
// it for connections, and that all goes on once the lock is gone.
func TestLockedTable(t *testing.T) {
	a, address := newAPIAt(t)
	a.do(t, "MetricService/CreateMetric", `{"metric":{"key":"plain","direction":"DIRECTION_INCREASE","sum":{"outcome":"purchase"}}}`)
	a.startPlain(t, `"metrics":[{"metric":"plain","role":"METRIC_ROLE_PRIMARY"}]`)
	a.exposeHalves(t, "plain", "u", 10)
	locker, err := connect(t, address).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := locker.Exec(t.Context(), `LOCK TABLE exposures`); err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	for range 5 { // More than there are connections.
		calls.Go(func() {
			_, err := a.analysis.AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: "plain"})
			checkRefusal(t, err, codes.Unavailable, "the database", "DATABASE_UNAVAILABLE")
		})
	}
	calls.Wait()
	if err := locker.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.do(t, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"}`)
	a.do(t, "SubjectService/EraseSubject", `{"subject":{"key":"u-1"}}`)
}

// gauge reads a metric of the server of one class.
func (a *api) gauge(t *testing.T, name, class string) float64 {
	t.Helper()
	families, err := a.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == class {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no metric %s of class %s", name, class)
	return 0
}
