package server_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/metric"
)

// TestMethodVersion: an analysis says by which version of the methods it was made and
// which window its metrics have, and a comparison says if two were made by different
// ones.
func TestMethodVersion(t *testing.T) {
	a, address := newAPIAt(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL","plan":{"method":"METHOD_FIXED_HORIZON"}`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	a.sell(t, "plain", []customer{{variant: "a", exposed: exposedAt, buys: []time.Duration{time.Hour}}, {variant: "b", exposed: exposedAt}, {variant: "a", exposed: exposedAt}, {variant: "b", exposed: exposedAt}})
	const analyze = "AnalysisService/AnalyzeExperiment"
	first := call[*assayv1.AnalyzeExperimentResponse](t, a, analyze, `{"experiment":"plain","request_id":"1"}`)
	if first.MethodVersion != metric.MethodVersion {
		t.Errorf("made by version %d", first.MethodVersion)
	}
	if w := first.Metrics[0].Window; w.AsDuration() != 14*24*time.Hour {
		t.Errorf("window %v", w)
	}
	a.do(t, analyze, `{"experiment":"plain","request_id":"2"}`)
	compare := func() string {
		return strings.Join(call[*assayv1.CompareAnalysesResponse](t, a, "AnalysisService/CompareAnalyses", `{"experiment":"plain"}`).Notes, " ")
	}
	if notes := compare(); strings.Contains(notes, "version") {
		t.Errorf("of one version: %s", notes)
	}

	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	first.MethodVersion = 0 // As the first were stored.
	stored, err := proto.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `UPDATE analyses SET result = $1 WHERE id = $2::uuid`, stored, first.AnalysisId); err != nil {
		t.Fatal(err)
	}
	if notes := compare(); !strings.Contains(notes, "made by version 1 of the statistical methods, and the later one by version 2") {
		t.Errorf("notes %s", notes)
	}
}
