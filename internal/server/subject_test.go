package server_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
	"github.com/assayhq/assay/internal/postgres/postgrestest"
)

const (
	getSubject   = "SubjectService/GetSubject"
	eraseSubject = "SubjectService/EraseSubject"

	erased = assayv1.RejectionReason_REJECTION_REASON_ERASED
)

// serveAt starts a server on the database at a URL.
func serveAt(tb testing.TB, url string) (*api, *postgres.DB) {
	tb.Helper()
	db, err := postgres.Open(context.Background(), url, postgrestest.Pepper)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Close)
	return serve(tb, db, true), db
}

func idOf(key string) experiment.SubjectID {
	return postgrestest.Pepper.SubjectID(experiment.Subject{Unit: "user", Key: key})
}

// leaveTraces records everything that can be recorded of u-1, and something of
// u-2.
func (a *api) leaveTraces(t *testing.T) {
	t.Helper()
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, createHoldout, newHoldout(`"salt":"global-2026","share":0.1`))
	for _, key := range []string{"plain", "pinned"} {
		a.do(t, "ExperimentService/CreateExperiment", newExperiment(fmt.Sprintf(`"key":%q,"segments":["country"],"eligibility":"","traffic":1`, key)))
		a.do(t, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
	}
	a.do(t, "ExperimentService/CreateExperiment", campaign("mailing"))
	if _, err := a.allocate(t, `{"experiment":"mailing","subjects":[{"key":"u-1"},{"key":"u-2"}]}`); err != nil {
		t.Fatal(err)
	}
	a.do(t, "ExperimentService/StartExperiment", `{"key":"mailing"}`)
	for _, variant := range []string{"a", "b"} {
		a.do(t, "ExperimentService/SetOverrides", fmt.Sprintf(`{"experiment":"pinned","overrides":[{"subject_key":"u-1","variant":%q}]}`, variant))
	}
	for _, key := range []string{"u-1", "u-2"} {
		got := call[*assayv1.AssignResponse](t, a, "AssignmentService/Assign", fmt.Sprintf(
			`{"subject":{"key":%q,"attributes":{"country":"PL"}},"experiments":["plain"],"exposure_recording":"EXPOSURE_RECORDING_DURABLE"}`, key))
		if got.Assignments[0].ExposureError != "" {
			t.Fatal(got.Assignments[0].ExposureError)
		}
		a.do(t, "EventService/RecordOutcomes", fmt.Sprintf(`{"outcomes":[
			{"event_id":"order-%[1]s","subject":{"key":"%[1]s"},"name":"purchase","value":50,"occurred_time":"2026-01-05T11:00:00Z","properties":{"sku":"A1"}},
			{"event_id":"visit-%[1]s","subject":{"key":"%[1]s"},"name":"visit","occurred_time":"2026-02-05T11:00:00Z"},
			{"event_id":"refund-%[1]s","subject":{"key":"%[1]s"},"name":"purchase","value":-20,"occurred_time":"2026-03-01T10:00:00Z",
				"corrects_event_id":"order-%[1]s","corrects_occurred_time":"2026-01-05T11:00:00Z"}]}`, key))
	}
}

// tracesOf returns the tables that hold a subject's id or key in any column,
// with the number of their rows that do.
func tracesOf(t *testing.T, url, key string) map[string]int {
	t.Helper()
	conn := connect(t, url)
	rows, err := conn.Query(t.Context(), `SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if len(tables) < 15 {
		t.Fatalf("only the tables %q", tables)
	}
	id := idOf(key)
	signs := []string{id.String(), hex.EncodeToString(id[:]), key}
	for _, sign := range slices.Clone(signs) {
		signs = append(signs, hex.EncodeToString([]byte(sign))) // In a bytea.
	}
	found := map[string]int{}
	for _, table := range tables {
		name := pgx.Identifier{table}.Sanitize()
		var row string
		rows, err := conn.Query(t.Context(), `SELECT `+name+`::text FROM `+name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pgx.ForEachRow(rows, []any{&row}, func() error {
			if slices.ContainsFunc(signs, func(sign string) bool { return strings.Contains(row, sign) }) {
				found[table]++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func checkTraces(t *testing.T, url, key string, want map[string]int) {
	t.Helper()
	if diff := cmp.Diff(want, tracesOf(t, url, key)); diff != "" {
		t.Errorf("traces of %s (-want +got):\n%s", key, diff)
	}
}

// TestEraseSubject erases a subject on one server of two.
func TestEraseSubject(t *testing.T) {
	url := postgrestest.URL(t)
	a, db := serveAt(t, url)
	b, _ := serveAt(t, url)
	a.leaveTraces(t)
	everything := map[string]int{"exposures": 2, "outcomes": 3, "overrides": 2, "roster_subjects": 1}
	checkTraces(t, url, "u-1", everything)

	first := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"}`)
	firstHoldout := call[*assayv1.AnalyzeHoldoutResponse](t, a, "AnalysisService/AnalyzeHoldout", `{"holdout":"global","metrics":["purchase_rate"]}`)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "assay-author", "ana")
	got, err := assayv1.NewSubjectServiceClient(a.conn).EraseSubject(ctx, &assayv1.EraseSubjectRequest{Subject: &assayv1.Subject{Key: "u-1"}})
	if err != nil {
		t.Fatal(err)
	}
	id := idOf("u-1").String()
	want := &assayv1.EraseSubjectResponse{SubjectId: id, EraseTime: got.EraseTime, Exposures: 2, Outcomes: 3, Overrides: 2, RosterEntries: 1}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" || time.Since(got.EraseTime.AsTime()) > time.Minute {
		t.Error(diff, got.EraseTime)
	}
	left := map[string]int{"erased_subjects": 1, "audit_events": 1}
	checkTraces(t, url, "u-1", left)
	checkTraces(t, url, "u-2", map[string]int{"exposures": 2, "outcomes": 3, "roster_subjects": 1})

	for key, s := range map[string]*api{"one": a, "other": b} {
		t.Run(key, func(t *testing.T) { checkForgotten(t, s, key) })
	}
	checkTraces(t, url, "u-1", left)
	checkErasedSince(t, a, first, firstHoldout)

	again := call[*assayv1.EraseSubjectResponse](t, a, eraseSubject, `{"subject":{"key":"u-1"}}`)
	want = &assayv1.EraseSubjectResponse{SubjectId: id, EraseTime: got.EraseTime}
	if diff := cmp.Diff(want, again, protocmp.Transform()); diff != "" {
		t.Errorf("again: %s", diff)
	}
	a.expect(t, getSubject, `{"subject":{"key":"u-1"}}`, fmt.Sprintf(`{"subject_id":%q,"erase_time":%q}`, id, got.EraseTime.AsTime().Format(time.RFC3339Nano)))
	events := call[*assayv1.ListAuditEventsResponse](t, a, listAuditEvents, fmt.Sprintf(`{"kind":"AUDITED_KIND_SUBJECT","key":%q}`, id)).Events
	wantEvents := parse(t, findMethod(t, listAuditEvents).Output(), fmt.Sprintf(`{"events":[
		{"action":"AUDIT_ACTION_ERASE","kind":"AUDITED_KIND_SUBJECT","key":%[1]q,"details":{"exposures":0,"outcomes":0,"overrides":0,"roster_entries":0}},
		{"author":"ana","action":"AUDIT_ACTION_ERASE","kind":"AUDITED_KIND_SUBJECT","key":%[1]q,"details":{"exposures":2,"outcomes":3,"overrides":2,"roster_entries":1}}]}`, id))
	if diff := cmp.Diff(wantEvents.(*assayv1.ListAuditEventsResponse).Events, events, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.AuditEvent{}, "id", "time")); diff != "" {
		t.Error(diff)
	}
	if err := db.Maintain(t.Context(), time.Now(), 0); err != nil {
		t.Error(err)
	}
	checkTraces(t, url, "u-1", map[string]int{"erased_subjects": 1, "audit_events": 2})
}

// checkForgotten sends a server what is late for u-1, beside something new with a
// key, and asks it for assignments.
func checkForgotten(t *testing.T, a *api, key string) {
	visit := fmt.Sprintf(`{"event_id":%q,"subject":{"key":"u-3"},"name":"visit","occurred_time":"2026-02-06T11:00:00Z"}`, key)
	outcomes := call[*assayv1.RecordOutcomesResponse](t, a, "EventService/RecordOutcomes", `{"outcomes":[
		{"event_id":"late","subject":{"key":"u-1"},"name":"visit","occurred_time":"2026-02-06T11:00:00Z"},`+visit+`,
		{"event_id":"order-u-1","subject":{"key":"u-1"},"name":"purchase","value":50,"occurred_time":"2026-01-05T11:00:00Z","properties":{"sku":"A1"}},
		{"event_id":"late","subject":{"key":"u-1"},"name":"visit","occurred_time":"2026-02-06T11:00:00Z"},`+visit+`]}`)
	if outcomes.Recorded != 1 || outcomes.Duplicates != 1 {
		t.Errorf("outcomes: %v", outcomes)
	}
	checkRejected(t, outcomes.Rejected, []*assayv1.Rejection{
		{Index: 0, Reason: erased, Field: "subject"}, {Index: 2, Reason: erased, Field: "subject"}, {Index: 3, Reason: erased, Field: "subject"},
	})
	assigned := func(key string) *assayv1.Assignment {
		return call[*assayv1.AssignResponse](t, a, "AssignmentService/Assign",
			fmt.Sprintf(`{"subject":{"key":%q},"experiments":["plain"],"exposure_recording":"EXPOSURE_RECORDING_DURABLE"}`, key)).Assignments[0]
	}
	got, other := assigned("u-1"), assigned("u-4")
	if got.Variant == "" || !strings.Contains(got.ExposureError, "erased") || other.ExposureError != "" {
		t.Errorf("assigned %v and %v", got, other)
	}
	exposures := a.exposeRaw(t, fmt.Sprintf(`{"experiment":"plain","variant":%q,"subject":{"key":"u-1"}}`, got.Variant),
		fmt.Sprintf(`{"experiment":"plain","variant":%q,"subject":{"key":"u-4"}}`, other.Variant))
	if exposures.Duplicates != 1 {
		t.Errorf("exposures: %v", exposures)
	}
	checkRejected(t, exposures.Rejected, []*assayv1.Rejection{{Index: 0, Reason: erased, Field: "subject"}})
	a.refuses(t, []refusal{{"override", "ExperimentService/SetOverrides", `{"experiment":"pinned","overrides":[{"subject_key":"u-9"},{"subject_key":"u-1","variant":"a"}]}`,
		codes.FailedPrecondition, []string{"SUBJECT_ERASED"}, "overrides[1]"}})
	a.do(t, "ExperimentService/SetOverrides", `{"experiment":"pinned","overrides":[{"subject_key":"u-1"}]}`)
	a.do(t, "ExperimentService/CreateExperiment", campaign(key))
	_, err := a.allocate(t, fmt.Sprintf(`{"experiment":%q,"subjects":[{"key":"u-1"},{"key":"u-2"}]}`, key))
	checkRefusal(t, err, codes.FailedPrecondition, "1 of the subjects", "SUBJECT_ERASED")
	a.eventually(t, assayv1.Reason_REASON_SPLIT, "pinned", subjectOf("u-1"))
	a.eventually(t, assayv1.Reason_REASON_NOT_IN_ROSTER, "mailing", subjectOf("u-1"))
	a.eventually(t, assayv1.Reason_REASON_ROSTER, "mailing", subjectOf("u-2"))
}

// checkErasedSince compares the analyses that were made before u-1 was erased
// with what is said of them now, and with new ones.
func checkErasedSince(t *testing.T, a *api, first *assayv1.AnalyzeExperimentResponse, firstHoldout *assayv1.AnalyzeHoldoutResponse) {
	t.Helper()
	if first.ErasedSince != 0 || firstHoldout.ErasedSince != 0 {
		t.Errorf("at first: %d and %d", first.ErasedSince, firstHoldout.ErasedSince)
	}
	const analyze, analyzeHoldout = "AnalysisService/AnalyzeExperiment", "AnalysisService/AnalyzeHoldout"
	second := call[*assayv1.AnalyzeExperimentResponse](t, a, analyze, `{"experiment":"plain","metrics":["purchase_rate"]}`)
	secondHoldout := call[*assayv1.AnalyzeHoldoutResponse](t, a, analyzeHoldout, `{"holdout":"global","metrics":["purchase_rate"]}`)
	if second.ErasedSince != 0 || secondHoldout.ErasedSince != 0 {
		t.Errorf("later: %d and %d", second.ErasedSince, secondHoldout.ErasedSince)
	}
	for _, observed := range []map[string]int64{first.SampleRatio.Observed, firstHoldout.SampleRatio.Observed, second.SampleRatio.Observed, secondHoldout.SampleRatio.Observed} {
		n := int64(0)
		for _, of := range observed {
			n += of
		}
		if n != 2 { // u-1 and u-2; then u-2 and u-4.
			t.Errorf("%d subjects in %v", n, observed)
		}
	}
	wanted, wantedHoldout := proto.CloneOf(first), proto.CloneOf(firstHoldout)
	wanted.ErasedSince, wantedHoldout.ErasedSince = 1, 1
	get := func(id string) *assayv1.GetAnalysisResponse {
		return call[*assayv1.GetAnalysisResponse](t, a, "AnalysisService/GetAnalysis", fmt.Sprintf(`{"analysis_id":%q}`, id))
	}
	// An explicit moment is another request: it is stored the first time.
	for _, c := range []struct{ want, got proto.Message }{
		{wanted, get(first.AnalysisId).Analysis},
		{wantedHoldout, get(firstHoldout.AnalysisId).HoldoutAnalysis},
	} {
		if diff := cmp.Diff(c.want, c.got, protocmp.Transform()); diff != "" {
			t.Errorf("what was stored (-want +got):\n%s", diff)
		}
	}
	repeated, err := a.analysis.AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: "plain", AsOfTime: first.AsOfTime})
	if err != nil || repeated.AnalysisId != first.AnalysisId || repeated.ErasedSince != 1 {
		t.Errorf("repeated: %v %v", repeated, err)
	}
	repeatedHoldout, err := a.analysis.AnalyzeHoldout(t.Context(), &assayv1.AnalyzeHoldoutRequest{Holdout: "global", Metrics: []string{"purchase_rate"}, AsOfTime: firstHoldout.AsOfTime})
	if err != nil || repeatedHoldout.AnalysisId != firstHoldout.AnalysisId || repeatedHoldout.ErasedSince != 1 {
		t.Errorf("repeated: %v %v", repeatedHoldout, err)
	}
}

// TestEraseSubjectAmongRecorders erases a subject while two servers record
// events of it. None of them is there afterwards, whatever was acknowledged.
func TestEraseSubjectAmongRecorders(t *testing.T) {
	url := postgrestest.URL(t)
	a, _ := serveAt(t, url)
	b, _ := serveAt(t, url)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL","metrics":[]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	var g errgroup.Group
	acknowledged := make([]int, 8)
	begun := make(chan struct{}, len(acknowledged))
	for worker := range acknowledged {
		s := []*api{a, b}[worker%2]
		g.Go(func() error {
			for n := 0; ; n++ {
				recorded, refused, err := s.recordVisit(t.Context(), worker, n)
				if err != nil || refused {
					return err
				}
				acknowledged[worker] += recorded
				if n == 3 {
					begun <- struct{}{}
				}
			}
		})
	}
	for range acknowledged {
		<-begun
	}
	got := call[*assayv1.EraseSubjectResponse](t, a, eraseSubject, subjectRequest("u-1"))
	checkTraces(t, url, "u-1", map[string]int{"erased_subjects": 1, "audit_events": 1})
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	total := int64(0)
	for _, n := range acknowledged {
		total += int64(n)
	}
	if removed := got.Exposures + got.Outcomes; removed != total || total < int64(4*len(acknowledged)) {
		t.Errorf("%d acknowledged, %d removed", total, removed)
	}
	checkTraces(t, url, "u-1", map[string]int{"erased_subjects": 1, "audit_events": 1})
}

// recordVisit records an exposure of u-1, which each time is earlier and so is
// new, and an outcome. It returns how many were recorded, and whether both were
// refused.
func (a *api) recordVisit(ctx context.Context, worker, n int) (recorded int, refused bool, err error) {
	at := timestamppb.New(time.Date(2026, 1, 5, 11, 0, -n, worker*1_000_000, time.UTC))
	subject := &assayv1.Subject{Key: "u-1"}
	outcomes, err := a.events.RecordOutcomes(ctx, &assayv1.RecordOutcomesRequest{Outcomes: []*assayv1.Outcome{
		{EventId: fmt.Sprint(worker), Subject: subject, Name: "visit", OccurredTime: at},
	}})
	if err != nil {
		return 0, false, err
	}
	exposures, err := a.events.RecordExposures(ctx, &assayv1.RecordExposuresRequest{Exposures: []*assayv1.Exposure{
		{Experiment: "plain", Variant: "a", Subject: subject, ExposedTime: at},
	}})
	return int(outcomes.GetRecorded() + exposures.GetRecorded()), len(outcomes.GetRejected()) > 0 && len(exposures.GetRejected()) > 0, err
}

func subjectRequest(key string) string { return fmt.Sprintf(`{"subject":{"key":%q}}`, key) }

// TestEraseEnrolledSubject erases a subject that two servers know to be enrolled.
func TestEraseEnrolledSubject(t *testing.T) {
	url := postgrestest.URL(t)
	a, _ := serveAt(t, url)
	b, _ := serveAt(t, url)
	a.startSticky(t, "")
	a.enroll(t, pole)
	for _, s := range []*api{a, b} {
		s.eventually(t, assayv1.Reason_REASON_STICKY, "plain", german)
	}
	got := call[*assayv1.EraseSubjectResponse](t, a, eraseSubject, subjectRequest("u-1"))
	if got.Exposures != 1 {
		t.Errorf("erased %v", got)
	}
	if got := a.assigned(t, "plain", german); got.Reason != assayv1.Reason_REASON_INELIGIBLE {
		t.Errorf("on the server: %v", got)
	}
	b.eventually(t, assayv1.Reason_REASON_INELIGIBLE, "plain", german)
}

// eventually waits until an assignment has a reason.
func (a *api) eventually(t *testing.T, reason assayv1.Reason, experiment, subject string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); a.assigned(t, experiment, subject).Reason != reason; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never %v: %v", reason, a.assigned(t, experiment, subject))
		}
	}
}

// TestGetSubject reads all of a subject at once and in pages.
func TestGetSubject(t *testing.T) {
	a := newAPI(t)
	a.leaveTraces(t)
	whole := call[*assayv1.GetSubjectResponse](t, a, getSubject, subjectRequest("u-1"))
	want := parse(t, findMethod(t, getSubject).Output(), fmt.Sprintf(`{"subject_id":%q,
		"exposures":[{"experiment":"plain","phase":1,"variant":"a","attributes":{"country":"PL"}},{"holdout":"global","phase":1,"variant":"open"}],
		"overrides":[{"experiment":"pinned","variant":"a"},{"experiment":"pinned","variant":"b"}],
		"roster_entries":[{"experiment":"mailing"}],
		"outcomes":[{"name":"purchase","value":50,"occurred_time":"2026-01-05T11:00:00Z","properties":{"sku":"A1"}},
			{"name":"purchase","value":-20,"occurred_time":"2026-01-05T11:00:00Z","adjusted_time":"2026-03-01T10:00:00Z"},
			{"name":"visit","occurred_time":"2026-02-05T11:00:00Z"}]}`, idOf("u-1")))
	if len(whole.Exposures) != 2 || len(whole.Overrides) != 2 || len(whole.RosterEntries) != 1 || len(whole.Outcomes) != 3 {
		t.Fatal(whole)
	}
	got := proto.CloneOf(whole)
	for _, x := range got.Exposures {
		if time.Since(x.ExposedTime.AsTime()) > time.Minute || time.Since(x.RecordedTime.AsTime()) > time.Minute {
			t.Errorf("times of %v", x)
		}
		if x.Experiment == "plain" {
			x.Variant = "a" // Whichever it is.
		}
		x.ExposedTime, x.RecordedTime = nil, nil
	}
	slices.SortFunc(got.Exposures, func(x, y *assayv1.RecordedExposure) int { return strings.Compare(x.Holdout, y.Holdout) })
	if ended := got.Overrides[0].EndTime; ended == nil || ended.AsTime().After(got.Overrides[1].CreateTime.AsTime()) || got.Overrides[1].EndTime != nil {
		t.Errorf("overrides %v", got.Overrides)
	}
	for _, o := range got.Overrides {
		o.CreateTime, o.EndTime = nil, nil
	}
	if given := a.assigned(t, "mailing", subjectOf("u-1")).Variant; got.RosterEntries[0].Variant != given || given == "" {
		t.Errorf("listed as %v, assigned %q", got.RosterEntries, given)
	}
	got.RosterEntries[0].Variant = ""
	if got.Outcomes[0].CorrectsRowId != "" { // Those of one time are in the order of their hashes.
		got.Outcomes[0], got.Outcomes[1] = got.Outcomes[1], got.Outcomes[0]
	}
	if got.Outcomes[1].CorrectsRowId != got.Outcomes[0].RowId || got.Outcomes[0].RowId == "" {
		t.Errorf("outcomes %v", got.Outcomes)
	}
	for _, o := range got.Outcomes {
		if time.Since(o.RecordedTime.AsTime()) > time.Minute {
			t.Errorf("times of %v", o)
		}
		o.RowId, o.CorrectsRowId, o.RecordedTime = "", "", nil
	}
	if diff := cmp.Diff(want, proto.Message(got), protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for size := 1; size <= 9; size++ {
		paged, pages := &assayv1.GetSubjectResponse{}, 0
		for token := ""; ; pages++ {
			page := call[*assayv1.GetSubjectResponse](t, a, getSubject, with(subjectRequest("u-1"), fmt.Sprintf(`"page_size":%d,"page_token":%q`, size, token)))
			if n := len(page.Exposures) + len(page.Overrides) + len(page.RosterEntries) + len(page.Outcomes); n > size {
				t.Fatalf("a page of %d holds %d", size, n)
			}
			token = page.NextPageToken
			page.NextPageToken = ""
			proto.Merge(paged, page)
			if token == "" || pages > 10 {
				break
			}
		}
		if diff := cmp.Diff(whole, paged, protocmp.Transform()); diff != "" || pages > 8/size+1 {
			t.Errorf("in %d pages of %d: %s", pages, size, diff)
		}
	}
	a.expect(t, getSubject, subjectRequest("nobody"), fmt.Sprintf(`{"subject_id":%q}`, idOf("nobody")))
	a.expect(t, getSubject, `{"subject":{"key":"u-1","unit":"device"}}`,
		fmt.Sprintf(`{"subject_id":%q}`, postgrestest.Pepper.SubjectID(experiment.Subject{Unit: "device", Key: "u-1"})))
}

func TestInvalidSubjects(t *testing.T) {
	a := newAPI(t)
	invalid := func(name, method, request, says string, fields ...string) refusal {
		return refusal{name, method, request, codes.InvalidArgument, fields, says}
	}
	a.refuses(t, []refusal{
		invalid("no subject", getSubject, `{"page_size":-1}`, "", "subject", "page_size"),
		invalid("no key", getSubject, `{"subject":{"unit":"U"}}`, "", "subject.unit", "subject.key"),
		invalid("NUL", getSubject, `{"subject":{"key":"a\u0000b"}}`, "NUL", "subject.key"),
		invalid("page size", getSubject, with(subjectRequest("u"), `"page_size":1001`), "", "page_size"),
		invalid("token", getSubject, with(subjectRequest("u"), `"page_token":"YQ"`), "not a token of this list", "page_token"),
		invalid("no subject to erase", eraseSubject, `{}`, "", "subject"),
		invalid("no key to erase", eraseSubject, `{"subject":{}}`, "", "subject.key"),
		invalid("long key to erase", eraseSubject, subjectRequest(strings.Repeat("é", 129)), "", "subject.key"),
		invalid("kind", listAuditEvents, `{"kind":99}`, "", "kind"),
		invalid("audited key", listAuditEvents, `{"key":"A\u0000"}`, "", "key"),
		invalid("audit page size", listAuditEvents, `{"page_size":1001}`, "", "page_size"),
	})
}
