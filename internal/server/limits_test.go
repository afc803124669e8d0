package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
	"github.com/assayhq/assay/internal/postgres/postgrestest"
)

// heavy is so many variants beside the control, each with a payload.
func heavy(n int, payload string) string {
	variants := []string{`{"key":"a","control":true}`}
	for i := range n {
		variants = append(variants, fmt.Sprintf(`{"key":"v%d","payload":%s}`, i, payload))
	}
	return `"variants":[` + strings.Join(variants, ",") + `]`
}

// text is a payload of so many bytes.
func text(bytes int) string {
	return `{"t":"` + strings.Repeat("x", bytes-len(`{"t":""}`)) + `"}`
}

// TestDefinitionTooLarge: a definition that is too large as stored is refused with its
// size and the limit, whichever way it comes.
func TestDefinitionTooLarge(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	large, many := heavy(16, text(16<<10)), heavy(8, `{"l":[`+strings.Repeat("1,", 1499)+`1]}`)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(heavy(15, text(16<<10)))) // Almost 240 KiB.
	reason := []string{"DEFINITION_TOO_LARGE"}
	var refusals []refusal
	for _, method := range []string{"CreateExperiment", "UpdateExperiment", "PreviewUpdate"} {
		refusals = append(refusals,
			refusal{method + " of many bytes", "ExperimentService/" + method, newExperiment(large), codes.ResourceExhausted, reason, "bytes as stored, and may take 262144"},
			refusal{method + " of many values", "ExperimentService/" + method, newExperiment(many), codes.ResourceExhausted, reason, "would hold 12016 values, and may hold 10000"})
	}
	values := `"` + strings.Repeat("x", 255) + `"` + strings.Repeat(`,"`+strings.Repeat("y", 256)+`"`, 99)
	component := func(name string) string {
		condition := `{"field":"p","op":"OP_EQUAL","values":[` + values + `]}`
		return `{"name":"` + name + `","outcome":"x","aggregate":"AGGREGATE_COUNT","conditions":[` + condition + strings.Repeat(","+condition, 5) + `]}`
	}
	large = newFormula("a + b", component("a")+","+component("b"))
	a.do(t, "MetricService/CreateMetric", newFormula("a", component("a")))
	for _, method := range []string{"CreateMetric", "UpdateMetric"} {
		refusals = append(refusals, refusal{method, "MetricService/" + method, large, codes.ResourceExhausted, reason, "the metric would take"})
	}
	a.refuses(t, refusals)
	if e := a.get(t, "plain"); e.Revision != 1 {
		t.Errorf("there is a revision %d", e.Revision)
	}
}

// TestLargeDefinitionFromBefore: an experiment that was made before the limit can
// change as long as it does not grow, so that it can still lose a variant's traffic.
func TestLargeDefinitionFromBefore(t *testing.T) {
	db := postgrestest.Open(t)
	a := serve(t, db, true)
	def := experiment.Definition{Unit: "user", Traffic: 1, Salt: "old", Plan: experiment.Plan{Method: experiment.MethodAlwaysValid, ConfidenceLevel: 0.95, Correction: experiment.CorrectionHolm}}
	for i := range 20 {
		def.Variants = append(def.Variants, experiment.Variant{Key: fmt.Sprint("v", i), Control: i == 0, Weight: 1, Payload: []byte(text(16 << 10))})
	}
	if _, err := db.CreateExperiment(t.Context(), "old", "", "", def); err != nil {
		t.Fatal(err)
	}
	a.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"old","traffic":0}}`)
	a.refuses(t, []refusal{{"longer", "ExperimentService/UpdateExperiment", `{"experiment":{"key":"old","description":"longer"}}`, codes.ResourceExhausted, []string{"DEFINITION_TOO_LARGE"}, ""}})
}

// TestTooManyRevisions refuses a revision that servers would have to hold, also in a
// preview, and changes nothing.
func TestTooManyRevisions(t *testing.T) {
	a, address := newAPIAt(t)
	conn := connect(t, address)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.live(t, "plain", "running")
	if _, err := conn.Exec(t.Context(), `WITH more AS (
			INSERT INTO experiment_revisions (experiment_id, revision, phase, definition, allocation, create_time, terms)
			SELECT experiment_id, n, phase, definition, allocation, now(), terms FROM experiment_revisions, generate_series(2, $1) n
			WHERE revision = 1 RETURNING revision)
		UPDATE experiments SET revision = (SELECT max(revision) FROM more), version = nextval('definition_version')`, experiment.MaxLiveRevisions-1); err != nil {
		t.Fatal(err)
	}
	const change = `{"experiment":{"key":"plain","description":"%s"}}`
	a.do(t, "ExperimentService/UpdateExperiment", fmt.Sprintf(change, "the last one"))
	reason := []string{"TOO_MANY_REVISIONS"}
	a.refuses(t, []refusal{
		{"an update", "ExperimentService/UpdateExperiment", fmt.Sprintf(change, "more"), codes.FailedPrecondition, reason, "conclude it and go on with another"},
		{"a preview", "ExperimentService/PreviewUpdate", fmt.Sprintf(change, "more"), codes.FailedPrecondition, reason, "has 1000 revisions since its start, and may have 1000"},
		{"a phase for a holdout", "HoldoutService/CreateHoldout", `{"holdout":{"key":"h","share":0.1,"kind":"KIND_STATUS_QUO"},"running_experiments":"RUNNING_EXPERIMENTS_NEW_PHASE"}`, codes.FailedPrecondition, reason, `"plain"`},
	})
	a.do(t, "ExperimentService/UpdateExperiment", fmt.Sprintf(change, "the last one")) // Changes nothing.
	a.do(t, "ExperimentService/PauseExperiment", `{"key":"plain"}`)
}

// TestUnreadableExperiment: one that cannot be decoded is not running, at any moment,
// and keeps no change of another from taking effect.
func TestUnreadableExperiment(t *testing.T) {
	a, address := newAPIAt(t)
	conn := connect(t, address)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.live(t, "odd", "running")
	a.live(t, "other", "running")
	if _, err := conn.Exec(t.Context(), `UPDATE experiment_revisions SET definition = '[]' WHERE experiment_id = (SELECT id FROM experiments WHERE key = 'odd')`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `UPDATE experiments SET version = nextval('definition_version') WHERE key = 'odd'`); err != nil {
		t.Fatal(err)
	}
	a.do(t, "ExperimentService/PauseExperiment", `{"key":"other"}`)
	got := call[*assayv1.AssignResponse](t, a, "AssignmentService/Assign", `{"subject":{"key":"u-1"},"experiments":["odd","other"]}`)
	for _, x := range got.Assignments {
		if x.Reason != assayv1.Reason_REASON_NOT_RUNNING {
			t.Errorf("%s: %v", x.Experiment, x.Reason)
		}
	}
	for _, moment := range []string{"", `,"revision":1`, `,"time":"` + time.Now().UTC().Format(time.RFC3339Nano) + `"`} {
		x := call[*assayv1.ExplainAssignmentResponse](t, a, "AssignmentService/ExplainAssignment", `{"subject":{"key":"u-1"},"experiment":"odd"`+moment+`}`)
		if x.Assignment.Reason != assayv1.Reason_REASON_NOT_RUNNING || !strings.Contains(x.Gates[0].Detail, "could not be loaded: revision 1: definition") {
			t.Errorf("%s: %v", moment, x)
		}
	}
	if n := a.internal.Swap(0); n != 1 { // It is logged.
		t.Errorf("%d errors were logged", n)
	}
}

// TestRosterOutOfReach: a server that cannot load a roster serves the others, and
// neither accepts nor rejects exposures of its experiment.
func TestRosterOutOfReach(t *testing.T) {
	address := postgrestest.URL(t)
	open := func() *postgres.DB {
		db, err := postgres.Open(t.Context(), address, postgrestest.Pepper)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		return db
	}
	a := serve(t, open(), true)
	a.do(t, "ExperimentService/CreateExperiment", campaign("mailing"))
	if _, err := a.allocateAll(t.Context(), audience("mailing", 10)...); err != nil {
		t.Fatal(err)
	}
	a.do(t, "ExperimentService/StartExperiment", `{"key":"mailing"}`)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.live(t, "other", "running")
	if _, err := connect(t, address).Exec(t.Context(), `ALTER TABLE roster_subjects RENAME TO out_of_reach`); err != nil {
		t.Fatal(err)
	}

	b := serve(t, open(), true)
	b.do(t, "ExperimentService/PauseExperiment", `{"key":"other"}`)
	b.do(t, "ExperimentService/ResumeExperiment", `{"key":"other"}`)
	got := call[*assayv1.AssignResponse](t, b, "AssignmentService/Assign", `{"subject":{"key":"u-1"},"experiments":["mailing","other"]}`)
	if got.Assignments[0].Reason != assayv1.Reason_REASON_NOT_RUNNING || got.Assignments[1].Reason != assayv1.Reason_REASON_SPLIT {
		t.Errorf("assigned %v", got)
	}
	exposure := func(of, variant string) *assayv1.RecordExposuresRequest {
		return &assayv1.RecordExposuresRequest{Exposures: []*assayv1.Exposure{{
			Experiment: of, Variant: variant, Subject: &assayv1.Subject{Key: "u-1"}, ExposedTime: timestamppb.Now(),
		}}}
	}
	if _, err := b.events.RecordExposures(t.Context(), exposure("other", got.Assignments[1].Variant)); err != nil {
		t.Error(err)
	}
	_, err := b.events.RecordExposures(t.Context(), exposure("mailing", "control"))
	checkRefusal(t, err, codes.Unavailable, "mailing: the roster", "ROSTER_NOT_LOADED")
	if n := b.internal.Swap(0); n != 1 {
		t.Errorf("%d errors were logged", n)
	}
}
