package server_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

const listAuditEvents = "AuditService/ListAuditEvents"

// TestAudit makes every kind of change, and others that change nothing.
func TestAudit(t *testing.T) {
	a := newAPI(t)
	a.do(t, "LayerService/CreateLayer", `{"layer":{"key":"unsigned"}}`)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "assay-author", "ana")
	steps := []struct{ method, request, want string }{ // The events that a step leaves, newest first; "" for none.
		{"MetricService/CreateMetric", newMetric(`"key":"m"`), `"action":"AUDIT_ACTION_CREATE","kind":"AUDITED_KIND_METRIC","key":"m"`},
		{"MetricService/UpdateMetric", `{"metric":{"key":"m","description":"d"}}`, `"action":"AUDIT_ACTION_UPDATE","kind":"AUDITED_KIND_METRIC","key":"m","details":{"revision":2}`},
		{"MetricService/UpdateMetric", `{"metric":{"key":"m","description":"d"}}`, ""},
		{"MetricService/ArchiveMetric", `{"key":"m"}`, `"action":"AUDIT_ACTION_ARCHIVE","kind":"AUDITED_KIND_METRIC","key":"m"`},
		{"MetricService/ArchiveMetric", `{"key":"m"}`, ""},
		{"LayerService/CreateLayer", `{"request_id":"l","layer":{"key":"l"}}`, `"action":"AUDIT_ACTION_CREATE","kind":"AUDITED_KIND_LAYER","key":"l"`},
		{"LayerService/CreateLayer", `{"request_id":"l","layer":{"key":"l"}}`, ""},
		{"LayerService/UpdateLayer", `{"layer":{"key":"l","description":"d"}}`, `"action":"AUDIT_ACTION_UPDATE","kind":"AUDITED_KIND_LAYER","key":"l"`},
		{"LayerService/UpdateLayer", `{"layer":{"key":"l","description":"d"}}`, ""},
		{createHoldout, newHoldout(`"key":"h","labels":{"x":"y"}`), `"action":"AUDIT_ACTION_CREATE","kind":"AUDITED_KIND_HOLDOUT","key":"h"`},
		{updateHoldout, `{"holdout":{"key":"h","description":"d"}}`, `"action":"AUDIT_ACTION_UPDATE","kind":"AUDITED_KIND_HOLDOUT","key":"h"`},
		{updateHoldout, `{"holdout":{"key":"h","description":"d"}}`, ""},
		{"ExperimentService/CreateExperiment", `{"request_id":"e","experiment":{"key":"e","variants":[{"key":"a","control":true},{"key":"b"}]}}`,
			`"action":"AUDIT_ACTION_CREATE","kind":"AUDITED_KIND_EXPERIMENT","key":"e"`},
		{"ExperimentService/CreateExperiment", `{"request_id":"e","experiment":{"key":"e","variants":[{"key":"a","control":true},{"key":"b"}]}}`, ""},
		{"ExperimentService/UpdateExperiment", `{"experiment":{"key":"e","owner":"x"}}`,
			`"action":"AUDIT_ACTION_UPDATE","kind":"AUDITED_KIND_EXPERIMENT","key":"e","details":{"revision":2}`},
		{"ExperimentService/UpdateExperiment", `{"experiment":{"key":"e","owner":"x"}}`, ""},
		{"ExperimentService/StartExperiment", `{"key":"e"}`, `"action":"AUDIT_ACTION_START","kind":"AUDITED_KIND_EXPERIMENT","key":"e"`},
		{createHoldout, with(newHoldout(`"key":"later"`), `"running_experiments":"RUNNING_EXPERIMENTS_NEW_PHASE"`),
			`"action":"AUDIT_ACTION_CREATE","kind":"AUDITED_KIND_HOLDOUT","key":"later"},
			{"author":"ana","action":"AUDIT_ACTION_UPDATE","kind":"AUDITED_KIND_EXPERIMENT","key":"e","details":{"revision":3}`},
		{"ExperimentService/SetOverrides", `{"experiment":"e","overrides":[{"subject_key":"u-1","variant":"a"},{"subject_key":"u-2"}]}`,
			`"action":"AUDIT_ACTION_SET_OVERRIDES","kind":"AUDITED_KIND_EXPERIMENT","key":"e","details":{"changed":1}`},
		{"ExperimentService/SetOverrides", `{"experiment":"e","overrides":[{"subject_key":"u-1","variant":"a"},{"subject_key":"u-2"}]}`, ""},
		{"ExperimentService/PauseExperiment", `{"key":"e"}`, `"action":"AUDIT_ACTION_PAUSE","kind":"AUDITED_KIND_EXPERIMENT","key":"e"`},
		{"ExperimentService/ResumeExperiment", `{"key":"e"}`, `"action":"AUDIT_ACTION_RESUME","kind":"AUDITED_KIND_EXPERIMENT","key":"e"`},
		{"ExperimentService/ConcludeExperiment", `{"key":"e","shipped_variant":"b"}`,
			`"action":"AUDIT_ACTION_CONCLUDE","kind":"AUDITED_KIND_EXPERIMENT","key":"e","details":{"shipped_variant":"b","objections":["There is no analysis that the decision could rest on."]}`},
		{"ExperimentService/ArchiveExperiment", `{"key":"e"}`, `"action":"AUDIT_ACTION_ARCHIVE","kind":"AUDITED_KIND_EXPERIMENT","key":"e"`},
	}
	text := `{"action":"AUDIT_ACTION_CREATE","kind":"AUDITED_KIND_LAYER","key":"unsigned"}`
	for _, s := range steps {
		req := newRequest(t, s.method, s.request)
		if err := a.conn.Invoke(ctx, "/assay.v1."+s.method, req, newMessage(t, findMethod(t, s.method).Output())); err != nil {
			t.Fatalf("%s %s: %v", s.method, s.request, err)
		}
		if s.want != "" {
			text = `{"author":"ana",` + s.want + `},` + text
		}
	}
	a.do(t, "ExperimentService/CreateExperiment", campaign("mailing"))
	if _, err := a.allocateAll(ctx, audience("mailing", 3)...); err != nil {
		t.Fatal(err)
	}
	a.do(t, "RosterService/DeleteRoster", `{"experiment":"mailing"}`)
	text = `{"action":"AUDIT_ACTION_DELETE_ROSTER","kind":"AUDITED_KIND_EXPERIMENT","key":"mailing","details":{"subjects":3}},
		{"author":"ana","action":"AUDIT_ACTION_ALLOCATE_ROSTER","kind":"AUDITED_KIND_EXPERIMENT","key":"mailing","details":{"subjects":3}},
		{"action":"AUDIT_ACTION_CREATE","kind":"AUDITED_KIND_EXPERIMENT","key":"mailing"},` + text
	want := parse(t, findMethod(t, listAuditEvents).Output(), `{"events":[`+text+`]}`).(*assayv1.ListAuditEventsResponse).Events
	got := call[*assayv1.ListAuditEventsResponse](t, a, listAuditEvents, `{}`).Events
	ignored := protocmp.IgnoreFields(&assayv1.AuditEvent{}, "id", "time")
	if diff := cmp.Diff(want, got, protocmp.Transform(), ignored); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for i, e := range got {
		if i > 0 && (e.Id >= got[i-1].Id || e.Time.AsTime().After(got[i-1].Time.AsTime())) || time.Since(e.Time.AsTime()) > time.Minute {
			t.Errorf("out of order: %v", e)
		}
	}
	paged := a.walk(t, listAuditEvents, `{}`, 4)
	if len(paged) != len(got) || !proto.Equal(paged[len(paged)-1], got[len(got)-1]) {
		t.Errorf("%d in pages, %d at once", len(paged), len(got))
	}
	for filter, n := range map[string]int{`"kind":"AUDITED_KIND_HOLDOUT"`: 3, `"key":"h"`: 2, `"kind":"AUDITED_KIND_METRIC","key":"m"`: 3, `"kind":"AUDITED_KIND_METRIC","key":"e"`: 0} {
		if got := call[*assayv1.ListAuditEventsResponse](t, a, listAuditEvents, fmt.Sprintf(`{%s}`, filter)).Events; len(got) != n {
			t.Errorf("%s: %d events, want %d", filter, len(got), n)
		}
	}
}
