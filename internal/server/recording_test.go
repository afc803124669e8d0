package server_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/structpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// batchDurable asks for 100 subjects, of whom the first is malformed and the
// second has an attribute that is too large to keep.
func batchDurable() *assayv1.BatchAssignRequest {
	req := &assayv1.BatchAssignRequest{Experiments: []string{"plain", "nothing"}, ExposureRecording: assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE}
	for i := range 100 {
		req.Subjects = append(req.Subjects, &assayv1.Subject{Key: fmt.Sprint("u-", i)})
	}
	req.Subjects[0].Key = ""
	band, _ := structpb.NewList(slices.Repeat([]any{strings.Repeat("x", 1000)}, 9))
	req.Subjects[1].Attributes = &structpb.Struct{Fields: map[string]*structpb.Value{"band": structpb.NewListValue(band)}}
	return req
}

// TestDurable finds every exposure stored once the assignment is answered.
func TestDurable(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"segments":["band"]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	stored := func(subject string, got *assayv1.Assignment) {
		t.Helper()
		if got.Reason != assayv1.Reason_REASON_SPLIT || got.ExposureError != "" {
			t.Errorf("%s: %v", subject, got)
		}
		// A later exposure to the same variant brings nothing new.
		if again := a.exposeRaw(t, fmt.Sprintf(`{"experiment":"plain","variant":%q,"subject":{"key":%q}}`, got.Variant, subject)); again.Duplicates != 1 {
			t.Errorf("%s was not stored: %v", subject, again)
		}
	}
	one := call[*assayv1.AssignResponse](t, a, "AssignmentService/Assign", `{"subject":{"key":"one"},"exposure_recording":"EXPOSURE_RECORDING_DURABLE"}`)
	stored("one", one.Assignments[0])

	req := batchDurable()
	batch, err := a.assign.BatchAssign(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for i, result := range batch.Results {
		switch i {
		case 0:
			if result.Error == "" || len(result.Assignments) != 0 {
				t.Errorf("malformed: %v", result)
			}
			continue
		case 1:
			if got := result.Assignments[0]; got.Variant == "" || !strings.Contains(got.ExposureError, "attributes") {
				t.Errorf("too large to keep: %v", got)
			}
		default:
			stored(req.Subjects[i].Key, result.Assignments[0])
		}
		if got := result.Assignments[1]; got.Reason != assayv1.Reason_REASON_NOT_FOUND || got.ExposureError != "" {
			t.Errorf("an experiment that does not exist: %v", got)
		}
	}
	if got := a.exposeRaw(t, `{"experiment":"plain","variant":"a","subject":{"key":"u-1"}}`); got.Duplicates != 0 {
		t.Errorf("stored although it said that it was not: %v", got)
	}
}

// TestRecordingWithoutDatabase assigns in both modes while the database is
// away. The best effort is lost once its repeats are over, and counted.
func TestRecordingWithoutDatabase(t *testing.T) {
	a, address := newAPIAt(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.live(t, "plain", "running")
	giveBack := takeAway(t, address)

	req := batchDurable()
	check := func(says string) {
		t.Helper()
		batch, err := a.assign.BatchAssign(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for i, result := range batch.Results[1:] {
			got := result.Assignments[0]
			if got.Variant == "" || got.Reason != assayv1.Reason_REASON_SPLIT || !strings.Contains(got.ExposureError, says) || (says == "") != (got.ExposureError == "") {
				t.Fatalf("%s: %v", req.Subjects[i+1].Key, got)
			}
		}
	}
	check("the database cannot be reached")
	one := call[*assayv1.AssignResponse](t, a, "AssignmentService/Assign", `{"subject":{"key":"one"},"exposure_recording":"EXPOSURE_RECORDING_DURABLE"}`)
	if got := one.Assignments[0]; got.Variant == "" || !strings.Contains(got.ExposureError, "the database") {
		t.Errorf("one: %v", got)
	}
	if n := a.lostExposures(t); n != 0 {
		t.Errorf("%v exposures are counted as lost, of which the caller was told", n)
	}
	req.ExposureRecording = assayv1.ExposureRecording_EXPOSURE_RECORDING_BEST_EFFORT
	check("")
	for a.lostExposures(t) < 99 {
		time.Sleep(50 * time.Millisecond)
	}
	giveBack()
	req.ExposureRecording = assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE
	check("")
	if n := a.lostExposures(t); n != 99 {
		t.Errorf("%v exposures are counted as lost, want 99", n)
	}
}

// TestDurableRefused has the database refuse the exposures to one variant, as
// it does with data that no rule foresaw.
func TestDurableRefused(t *testing.T) {
	a, address := newAPIAt(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.live(t, "plain", "running")
	conn := connect(t, address)
	if _, err := conn.Exec(t.Context(), `ALTER TABLE exposures ADD CHECK (variant <> 'b')`); err != nil {
		t.Fatal(err)
	}
	batch, err := a.assign.BatchAssign(t.Context(), batchDurable())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, result := range batch.Results[1:] {
		got := result.Assignments[0]
		seen[got.Variant] = true
		if refused := strings.Contains(got.ExposureError, "refused"); refused != (got.Variant == "b") || !refused && got.ExposureError != "" {
			t.Errorf("where the database refuses b: %v", got)
		}
	}
	if !seen["a"] || !seen["b"] {
		t.Errorf("variants %v", seen)
	}
}

// TestDurableWaitsNotForEver stores into a table that somebody holds. The
// assignment arrives before the caller's deadline all the same.
func TestDurableWaitsNotForEver(t *testing.T) {
	a, address := newAPIAt(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.live(t, "plain", "running")
	conn := connect(t, address)
	if _, err := conn.Exec(t.Context(), `BEGIN; LOCK TABLE exposures`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	resp, err := a.assign.Assign(ctx, &assayv1.AssignRequest{
		Subject: &assayv1.Subject{Key: "one"}, ExposureRecording: assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Assignments[0]; got.Variant == "" || got.ExposureError == "" {
		t.Errorf("one: %v", got)
	}
}

func (a *api) lostExposures(tb testing.TB) float64 {
	tb.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(a.lost)
	families, err := registry.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	return families[0].Metric[0].Counter.GetValue()
}
