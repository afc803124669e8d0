package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// exposuresAhead is what the server counted of exposures that are ahead.
func (a *api) exposuresAhead(t *testing.T) (n float64) {
	t.Helper()
	families, err := a.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "assay_exposures_ahead_total" {
			for _, m := range f.Metric {
				n += m.Counter.GetValue()
			}
		}
	}
	return n
}

// TestClockAhead reports exposures by a clock that is four minutes ahead, and
// outcomes by a right one. Those from between are not counted, and the analysis says
// so: not of whom a right clock reported later, and not of what is from before.
func TestClockAhead(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"key":"plain"`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	began := time.Now()
	expose := func(key string, at time.Time) {
		t.Helper()
		variant := a.assigned(t, "plain", fmt.Sprintf(`{"key":%q}`, key)).Variant
		got := a.exposeRaw(t, fmt.Sprintf(`{"experiment":"plain","subject":{"key":%q},"variant":%q,"exposed_time":%q}`, key, variant, at.UTC().Format(time.RFC3339Nano)))
		if got.Recorded != 1 {
			t.Errorf("%s: %v", key, got)
		}
	}
	ahead := began.Add(4 * time.Minute)
	expose("u-1", ahead)
	expose("u-2", ahead)
	expose("u-2", began)
	expose("u-3", began)
	expose("u-4", ahead.Add(time.Second))
	if got := a.exposuresAhead(t); got != 3 {
		t.Errorf("%v exposures were counted as ahead, of 3", got)
	}
	now := time.Now().Add(2 * time.Millisecond) // Outcomes are timed to the millisecond.
	req := &assayv1.RecordOutcomesRequest{}
	for i, key := range []string{"u-1", "u-1", "u-2", "u-3", "u-4", "u-1"} {
		at := now
		if i == 5 {
			at = began.Add(-time.Hour)
		}
		req.Outcomes = append(req.Outcomes, &assayv1.Outcome{EventId: fmt.Sprint("e-", i), Name: "purchase", Subject: &assayv1.Subject{Key: key}, OccurredTime: timestamppb.New(at)})
	}
	if got, err := a.events.RecordOutcomes(t.Context(), req); err != nil || got.Recorded != 6 {
		t.Fatal(got, err)
	}
	analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"}`)
	i := slices.IndexFunc(analysis.Warnings, func(w string) bool { return strings.Contains(w, "is ahead") })
	if i < 0 || !strings.HasPrefix(analysis.Warnings[i], "2 subjects were first exposed at a time of more than 5 seconds after it was recorded") ||
		!strings.Contains(analysis.Warnings[i], "3 at least, do not count") {
		t.Errorf("warnings: %q", analysis.Warnings)
	}
}
