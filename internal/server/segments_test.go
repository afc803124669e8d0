package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// TestManyValues: of 230 bands the 20 with most customers are shown, whichever came
// first, and all others as one.
func TestManyValues(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL","segments":["band"],"plan":{"method":"METHOD_FIXED_HORIZON"}`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	var customers []customer
	add := func(band string, n int) {
		for i := range n {
			c := customer{variant: []string{"a", "b"}[i%2], band: band, exposed: exposedAt}
			if len(customers)/2%3 == 0 {
				c.buys = []time.Duration{time.Hour}
			}
			customers = append(customers, c)
		}
	}
	for i := range 210 {
		add(fmt.Sprintf("small-%03d", i), 2)
	}
	for i := range 19 {
		add(fmt.Sprintf("large-%02d", i), 60)
	}
	add("", 50)
	a.sell(t, "plain", customers)
	got := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain","segments":["band"]}`)
	segments := got.Metrics[0].Segments
	if len(segments) != 21 {
		t.Fatalf("%d segments", len(segments))
	}
	for i, s := range segments {
		subjects, value := int64(60), fmt.Sprintf("large-%02d", i-1)
		switch i {
		case 0:
			subjects, value = 50, ""
		case 20:
			subjects, value = 420, ""
		}
		if s.Value != value || s.Rest != (i == 20) || s.Withheld || s.Arms[0].Subjects+s.Arms[1].Subjects != subjects || len(s.Comparisons) != 1 {
			t.Errorf("segment %d: %v", i, s)
		}
	}
	if h := got.Metrics[0].Heterogeneity; len(h) != 1 || h[0].DegreesOfFreedom != 20 {
		t.Errorf("heterogeneity %v", h)
	}
	if !strings.Contains(strings.Join(got.Warnings, " "), `Segment "band" has more values than can be told apart: the 20 with most subjects are shown`) {
		t.Errorf("warnings %q", got.Warnings)
	}
}

// TestSegmentsNotAskedFor: two bands that lose subjects of different variants make up
// for each other as a whole. Nothing ships, whether or not the analysis is cut by the
// plan's band, and if it has more values than are shown.
func TestSegmentsNotAskedFor(t *testing.T) {
	for name, others := range map[string]int{"few": 0, "many": 210} {
		a := newAPI(t)
		a.do(t, "MetricService/CreateMetric", purchaseRate)
		a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL","segments":["band"],"plan":{"method":"METHOD_FIXED_HORIZON"}`))
		a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
		var customers []customer
		add := func(band, variant string, n int) {
			for i := range n {
				c := customer{variant: variant, band: band, exposed: exposedAt}
				if i%10 < map[string]int{"a": 2, "b": 6}[variant] {
					c.buys = []time.Duration{time.Hour}
				}
				customers = append(customers, c)
			}
		}
		for band, n := range map[string]int{"x": 60, "y": 140} {
			add(band, "a", n)
			add(band, "b", 200-n)
		}
		for i := range others {
			add(fmt.Sprint("other-", i), []string{"a", "b"}[i%2], 1)
		}
		a.sell(t, "plain", customers)
		for _, request := range []string{`{"experiment":"plain"}`, `{"experiment":"plain","segments":["band"]}`} {
			got := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", request)
			if r := got.SampleRatio; r.Verdict != assayv1.SampleRatioVerdict_SAMPLE_RATIO_VERDICT_MISMATCH || len(r.BrokenCells) != 2 || got.Verdict.Action != assayv1.VerdictAction_VERDICT_ACTION_INCONCLUSIVE {
				t.Errorf("%s values, %s: %v, %v", name, request, r, got.Verdict)
			}
		}
	}
}
