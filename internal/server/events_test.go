package server_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/postgres/postgrestest"
)

const (
	invalidField = assayv1.RejectionReason_REJECTION_REASON_INVALID_FIELD
	notFound     = assayv1.RejectionReason_REJECTION_REASON_EXPERIMENT_NOT_FOUND
	notRunning   = assayv1.RejectionReason_REJECTION_REASON_EXPERIMENT_NOT_RUNNING
	noVariant    = assayv1.RejectionReason_REJECTION_REASON_VARIANT_NOT_FOUND
	mismatch     = assayv1.RejectionReason_REJECTION_REASON_VARIANT_MISMATCH
	unitMismatch = assayv1.RejectionReason_REJECTION_REASON_UNIT_MISMATCH
	noRevision   = assayv1.RejectionReason_REJECTION_REASON_REVISION_NOT_FOUND
	conflict     = assayv1.RejectionReason_REJECTION_REASON_CONFLICT
	limited      = assayv1.RejectionReason_REJECTION_REASON_LIMIT
)

// checkRejected compares the rejections, but for their messages, of which each
// must have one.
func checkRejected(tb testing.TB, got, want []*assayv1.Rejection) {
	tb.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.Rejection{}, "message")); diff != "" {
		tb.Errorf("rejected (-want +got):\n%s", diff)
	}
	for _, r := range got {
		if r.Message == "" {
			tb.Errorf("the rejection of item %d says nothing", r.Index)
		}
	}
}

func listOf(values ...*structpb.Value) *structpb.Value {
	return structpb.NewListValue(&structpb.ListValue{Values: values})
}

// nested returns a struct of the given depth, in which lists and structs take
// turns.
func nested(depth int) *structpb.Struct {
	v := structpb.NewBoolValue(true)
	for i := range depth - 1 {
		if i%2 == 0 {
			v = listOf(v)
		} else {
			v = structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"x": v}})
		}
	}
	return &structpb.Struct{Fields: map[string]*structpb.Value{"x": v}}
}

func TestRejectedOutcomes(t *testing.T) {
	a := newAPI(t)
	cases := []struct {
		field  string // At fault; "" if it is accepted.
		change func(*assayv1.Outcome)
	}{
		{"", func(*assayv1.Outcome) {}},
		{"event_id", func(o *assayv1.Outcome) { o.EventId = "" }},
		{"event_id", func(o *assayv1.Outcome) { o.EventId = strings.Repeat("e", 257) }},
		{"", func(o *assayv1.Outcome) { o.EventId = strings.Repeat("e", 256) }},
		{"event_id", func(o *assayv1.Outcome) { o.EventId += "\x00" }},
		{"subject", func(o *assayv1.Outcome) { o.Subject = nil }},
		{"subject.key", func(o *assayv1.Outcome) { o.Subject.Key = "" }},
		{"subject.key", func(o *assayv1.Outcome) { o.Subject.Key = "a\x00b" }},
		{"subject.key", func(o *assayv1.Outcome) { o.Subject.Key = strings.Repeat("é", 129) }},
		{"", func(o *assayv1.Outcome) { o.Subject.Key = strings.Repeat("é", 128) }},
		{"subject.unit", func(o *assayv1.Outcome) { o.Subject.Unit = "A" }},
		{"name", func(o *assayv1.Outcome) { o.Name = "" }},
		{"name", func(o *assayv1.Outcome) { o.Name = "a\nb" }},
		{"name", func(o *assayv1.Outcome) { o.Name = "a\n" }},
		{"name", func(o *assayv1.Outcome) { o.Name = "\x00" }},
		{"name", func(o *assayv1.Outcome) { o.Name = strings.Repeat("n", 129) }},
		{"", func(o *assayv1.Outcome) { o.Name = "Größe '%s' \"\\" }},
		{"", func(o *assayv1.Outcome) { o.Value = nil }},
		{"", func(o *assayv1.Outcome) { o.Value = proto.Float64(-1e100) }},
		{"", func(o *assayv1.Outcome) { o.Value = proto.Float64(math.Copysign(0, -1)) }},
		{"", func(o *assayv1.Outcome) { o.Value = proto.Float64(math.SmallestNonzeroFloat64) }},
		{"value", func(o *assayv1.Outcome) { o.Value = proto.Float64(math.Nextafter(1e100, 2e100)) }},
		{"value", func(o *assayv1.Outcome) { o.Value = proto.Float64(math.Nextafter(-1e100, -2e100)) }},
		{"value", func(o *assayv1.Outcome) { o.Value = proto.Float64(math.NaN()) }},
		{"value", func(o *assayv1.Outcome) { o.Value = proto.Float64(math.Inf(-1)) }},
		{"occurred_time", func(o *assayv1.Outcome) { o.OccurredTime = nil }},
		{"", func(o *assayv1.Outcome) { o.OccurredTime = timestamppb.New(time.Now().Add(4 * time.Minute)) }},
		{"occurred_time", func(o *assayv1.Outcome) { o.OccurredTime = timestamppb.New(time.Now().Add(6 * time.Minute)) }},
		{"", func(o *assayv1.Outcome) { o.OccurredTime = &timestamppb.Timestamp{} }},
		{"occurred_time", func(o *assayv1.Outcome) { o.OccurredTime = &timestamppb.Timestamp{Seconds: -1, Nanos: 999_999_999} }},
		{"occurred_time", func(o *assayv1.Outcome) { o.OccurredTime = &timestamppb.Timestamp{Nanos: 1_000_000_000} }},
		{"occurred_time", func(o *assayv1.Outcome) { o.OccurredTime = &timestamppb.Timestamp{Nanos: -1} }},
		{"occurred_time", func(o *assayv1.Outcome) {
			o.OccurredTime = timestamppb.New(time.Date(300000, 1, 1, 0, 0, 0, 0, time.UTC))
		}},
		{"occurred_time", func(o *assayv1.Outcome) { o.OccurredTime = &timestamppb.Timestamp{Seconds: math.MaxInt64} }},
		{"", func(o *assayv1.Outcome) { o.Properties = nested(8) }},
		{"properties", func(o *assayv1.Outcome) { o.Properties = nested(9) }},
		{"", func(o *assayv1.Outcome) { o.Properties = &structpb.Struct{} }},
		{"", func(o *assayv1.Outcome) {
			o.Properties = &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewStringValue(strings.Repeat("<", 8<<10-len(`{"x":""}`)))}}
		}},
		{"properties", func(o *assayv1.Outcome) {
			o.Properties = &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewStringValue(strings.Repeat("<", 8<<10-len(`{"x":""}`)+1))}}
		}},
		{"properties", func(o *assayv1.Outcome) {
			o.Properties = &structpb.Struct{Fields: map[string]*structpb.Value{"x": listOf(structpb.NewStringValue("\x00"))}}
		}},
		{"properties", func(o *assayv1.Outcome) {
			o.Properties = &structpb.Struct{Fields: map[string]*structpb.Value{"\x00": structpb.NewNullValue()}}
		}},
		{"properties", func(o *assayv1.Outcome) {
			o.Properties = &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewNumberValue(math.NaN())}}
		}},
		{"properties", func(o *assayv1.Outcome) {
			o.Properties = &structpb.Struct{Fields: map[string]*structpb.Value{"x": listOf(structpb.NewNumberValue(math.Inf(1)))}}
		}},
		{"properties", func(o *assayv1.Outcome) {
			o.Properties = &structpb.Struct{Fields: map[string]*structpb.Value{"x": listOf(&structpb.Value{})}}
		}},
		{"", func(o *assayv1.Outcome) {
			o.Properties = &structpb.Struct{Fields: map[string]*structpb.Value{"": structpb.NewNumberValue(math.MaxFloat64), `\u0000"`: structpb.NewStringValue("\\u0000\ufffe\U0001F600")}}
		}},
	}
	req := &assayv1.RecordOutcomesRequest{}
	var rejected []*assayv1.Rejection
	for i, tt := range cases {
		o := &assayv1.Outcome{EventId: fmt.Sprint(i), Subject: &assayv1.Subject{Key: "u"}, Name: "purchase", Value: proto.Float64(1), OccurredTime: timestamppb.New(exposedAt)}
		tt.change(o)
		req.Outcomes = append(req.Outcomes, o)
		if tt.field != "" {
			rejected = append(rejected, &assayv1.Rejection{Index: int32(i), Reason: invalidField, Field: tt.field})
		}
	}
	accepted := int32(len(cases) - len(rejected))
	for _, want := range []*assayv1.RecordOutcomesResponse{{Recorded: accepted}, {Duplicates: accepted}} {
		got, err := a.events.RecordOutcomes(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if got.Recorded != want.Recorded || got.Duplicates != want.Duplicates {
			t.Errorf("recorded %d, duplicates %d, want %d and %d", got.Recorded, got.Duplicates, want.Recorded, want.Duplicates)
		}
		checkRejected(t, got.Rejected, rejected)
	}
}

// TestConflicts sends identities again with another content, among them one
// that is invalid: rejections come in the order of the items.
func TestConflicts(t *testing.T) {
	a := newAPI(t)
	outcome := func(patch string) string {
		return with(`{"event_id":"e","subject":{"key":"u"},"name":"purchase","value":1,"occurred_time":"2026-01-05T10:03:00.0015Z","properties":{"a":1,"b":[2]}}`, patch)
	}
	first := call[*assayv1.RecordOutcomesResponse](t, a, "EventService/RecordOutcomes", `{"outcomes":[`+outcome(``)+`,`+outcome(`"value":2`)+`]}`)
	if first.Recorded != 1 {
		t.Errorf("recorded %d", first.Recorded)
	}
	checkRejected(t, first.Rejected, []*assayv1.Rejection{{Index: 1, Reason: conflict, Field: "event_id"}})
	items := []string{
		outcome(`"value":2`),
		outcome(`"name":""`),
		outcome(`"occurred_time":"2026-01-05T10:03:00.001Z","properties":{"b":[2.0],"a":1}`), // The same.
		outcome(`"name":"refund"`),
		outcome(`"properties":{"a":1}`),
		outcome(`"event_id":"f"`),
		outcome(`"subject":{"key":"u","unit":"account"}`),
		outcome(`"occurred_time":"2026-01-05T10:03:00.002Z"`),
		outcome(`"value":null`),
	}
	got := call[*assayv1.RecordOutcomesResponse](t, a, "EventService/RecordOutcomes", `{"outcomes":[`+strings.Join(items, ",")+`]}`)
	if got.Recorded != 3 || got.Duplicates != 1 {
		t.Errorf("recorded %d, duplicates %d, want 3 and 1", got.Recorded, got.Duplicates)
	}
	checkRejected(t, got.Rejected, []*assayv1.Rejection{
		{Index: 0, Reason: conflict, Field: "event_id"}, {Index: 1, Reason: invalidField, Field: "name"}, {Index: 3, Reason: conflict, Field: "event_id"},
		{Index: 4, Reason: conflict, Field: "event_id"}, {Index: 8, Reason: conflict, Field: "event_id"},
	})
}

func TestBatchSizes(t *testing.T) {
	a := newAPI(t)
	for _, tt := range []struct {
		field string
		send  func(n int) ([]*assayv1.Rejection, error)
	}{
		{"exposures", func(n int) ([]*assayv1.Rejection, error) {
			resp, err := a.events.RecordExposures(t.Context(), &assayv1.RecordExposuresRequest{Exposures: make([]*assayv1.Exposure, n)})
			return resp.GetRejected(), err
		}},
		{"outcomes", func(n int) ([]*assayv1.Rejection, error) {
			resp, err := a.events.RecordOutcomes(t.Context(), &assayv1.RecordOutcomesRequest{Outcomes: make([]*assayv1.Outcome, n)})
			return resp.GetRejected(), err
		}},
	} {
		for _, n := range []int{0, 10_001} {
			_, err := tt.send(n)
			checkRefusal(t, err, codes.InvalidArgument, "", tt.field)
		}
		// The answer must not be larger than what clients accept, 4 MiB.
		rejected, err := tt.send(10_000)
		if err != nil || len(rejected) != 10_000 || rejected[9999].Index != 9999 || rejected[9999].Reason != invalidField {
			t.Errorf("%d of 10,000 empty items rejected: %v", len(rejected), err)
		}
	}
}

// exposeRaw sends exposures as JSON.
func (a *api) exposeRaw(tb testing.TB, exposures ...string) *assayv1.RecordExposuresResponse {
	tb.Helper()
	return call[*assayv1.RecordExposuresResponse](tb, a, "EventService/RecordExposures", `{"exposures":[`+strings.Join(exposures, ",")+`]}`)
}

func TestRejectedExposures(t *testing.T) {
	a := newAPI(t)
	a.createCheckoutCopy(t)
	a.live(t, "draft", "draft")
	// Revision 1 is never in force: the draft gets another variant before it starts.
	a.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"checkout-copy","variants":[{"key":"control","control":true},{"key":"short"},{"key":"off","weight":0}]}}`)
	a.do(t, "ExperimentService/StartExperiment", `{"key":"checkout-copy"}`)
	a.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"checkout-copy","owner":"x"}}`)
	exposure := func(patch string) string {
		return with(`{"experiment":"checkout-copy","variant":"short","subject":{"key":"u-1","attributes":{"country":"DE"}},"exposed_time":"2026-01-05T10:00:00Z"}`, patch)
	}
	big := strings.Repeat("x", 8<<10)
	cases := []struct {
		patch  string
		reason assayv1.RejectionReason // 0 if it is accepted.
		field  string
	}{
		{``, 0, ""},
		{`"experiment":""`, invalidField, "experiment"},
		{`"experiment":"nothing"`, notFound, "experiment"},
		{`"experiment":"draft","variant":"a"`, notRunning, "experiment"},
		{`"variant":"SHORT"`, invalidField, "variant"},
		{`"variant":"long"`, noVariant, "variant"},
		{`"variant":"control"`, mismatch, "variant"},
		{`"variant":"off"`, mismatch, "variant"},
		{`"subject":null`, invalidField, "subject"},
		{`"subject":{"key":"u\u0000"}`, invalidField, "subject.key"},
		{`"subject":{"key":"u-1","unit":"account"}`, unitMismatch, "subject.unit"},
		{`"subject":{"key":"u-1","unit":"user"},"exposed_time":"2026-01-05T09:00:00Z"`, 0, ""},
		{`"exposed_time":"1969-12-31T23:59:59.999Z"`, invalidField, "exposed_time"},
		{`"exposed_time":"9999-01-01T00:00:00Z"`, invalidField, "exposed_time"},
		{`"revision":0`, invalidField, "revision"},
		{`"revision":1`, noRevision, "revision"},
		{`"revision":2,"exposed_time":"2026-01-05T08:00:00Z"`, 0, ""},
		{`"revision":3,"exposed_time":"2026-01-05T07:00:00Z"`, 0, ""},
		{`"revision":4`, noRevision, "revision"},
		{`"revision":2147483647`, noRevision, "revision"},
		{`"subject":{"key":"u-1","attributes":{"country":"` + big + `"}}`, invalidField, "subject.attributes"},
		{`"subject":{"key":"u-1","attributes":{"past_spend":"\u0000"}}`, invalidField, "subject.attributes"},
		{`"subject":{"key":"u-1","attributes":{"other":"\u0000` + big + `"}},"exposed_time":"2026-01-05T06:00:00Z"`, 0, ""},
	}
	var items []string
	var rejected []*assayv1.Rejection
	for i, tt := range cases {
		items = append(items, exposure(tt.patch))
		if tt.reason != 0 {
			rejected = append(rejected, &assayv1.Rejection{Index: int32(i), Reason: tt.reason, Field: tt.field})
		}
	}
	got := a.exposeRaw(t, items...)
	checkRejected(t, got.Rejected, rejected)
	// Of the exposures of one subject to one variant, the earliest is recorded.
	if got.Recorded != 1 || int(got.Duplicates) != len(cases)-len(rejected)-1 {
		t.Errorf("recorded %d, duplicates %d", got.Recorded, got.Duplicates)
	}
}

// TestExposuresFollowTheState records exposures from before and after each
// change of state, whatever the state is now.
func TestExposuresFollowTheState(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.live(t, "plain", "running")
	next := 0
	var variants []*assayv1.BatchAssignResult
	subjects := &assayv1.BatchAssignRequest{Experiments: []string{"plain"}}
	for i := range 10 {
		subjects.Subjects = append(subjects.Subjects, &assayv1.Subject{Key: fmt.Sprint("u-", i)})
	}
	if resp, err := a.assign.BatchAssign(t.Context(), subjects); err != nil {
		t.Fatal(err)
	} else {
		variants = resp.Results
	}
	// expect exposes the next subject at a time, or now.
	expect := func(what string, at *timestamppb.Timestamp, ok bool) {
		t.Helper()
		got, err := a.events.RecordExposures(t.Context(), &assayv1.RecordExposuresRequest{Exposures: []*assayv1.Exposure{{
			Experiment: "plain", Variant: variants[next].Assignments[0].Variant, Subject: subjects.Subjects[next], ExposedTime: at,
		}}})
		next++
		if err != nil || (got.Recorded == 1) != ok {
			t.Errorf("%s: %v, %v", what, got, err)
		}
		if !ok {
			checkRejected(t, got.Rejected, []*assayv1.Rejection{{Reason: notRunning, Field: "exposed_time"}})
		}
	}
	expect("long before the start", timestamppb.New(exposedAt), true)
	a.do(t, "ExperimentService/PauseExperiment", `{"key":"plain"}`)
	paused := a.get(t, "plain")
	expect("before the pause, during it", paused.StartTime, true)
	expect("at the pause", paused.UpdateTime, false)
	expect("now, during the pause", nil, false)
	a.do(t, "ExperimentService/ResumeExperiment", `{"key":"plain"}`)
	expect("after the pause", nil, true)
	expect("at the pause, after it", paused.UpdateTime, false)
	a.do(t, "ExperimentService/ConcludeExperiment", `{"key":"plain","shipped_variant":"b"}`)
	concluded := a.get(t, "plain")
	expect("after the conclusion", nil, false)
	expect("at the conclusion", concluded.ConcludeTime, false)
	expect("before the conclusion, after it", concluded.StartTime, true)
	a.do(t, "ExperimentService/ArchiveExperiment", `{"key":"plain"}`)
	expect("before the conclusion, in the archive", concluded.StartTime, true)
}

// TestExternalExposures takes the word of whoever assigns.
func TestExternalExposures(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL"`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	a.expect(t, "AssignmentService/Assign", `{"subject":{"key":"u"},"experiments":["plain"]}`,
		`{"assignments":[{"experiment":"plain","reason":"REASON_EXTERNAL","revision":1}]}`)
	got := a.exposeRaw(t, `{"experiment":"plain","variant":"a","subject":{"key":"u"}}`, `{"experiment":"plain","variant":"b","subject":{"key":"u"}}`,
		`{"experiment":"plain","variant":"a","subject":{"key":"v"}}`, `{"experiment":"plain","variant":"c","subject":{"key":"v"}}`)
	if got.Recorded != 3 {
		t.Errorf("recorded %d, want 3", got.Recorded)
	}
	checkRejected(t, got.Rejected, []*assayv1.Rejection{{Index: 3, Reason: noVariant, Field: "variant"}})
	analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"}`)
	if diff := cmp.Diff(map[string]int64{"a": 1, "b": 0}, analysis.SampleRatio.Observed); diff != "" || analysis.Exclusions.Crossovers != 1 {
		t.Errorf("%d crossovers, want 1; subjects (-want +got):\n%s", analysis.Exclusions.Crossovers, diff)
	}
}

// TestOneMomentCounts records an outcome 200 µs after its exposure.
func TestOneMomentCounts(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL"`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	a.exposeRaw(t, `{"experiment":"plain","variant":"a","subject":{"key":"u"},"exposed_time":"2026-01-05T10:00:00.0007Z"}`)
	a.expect(t, "EventService/RecordOutcomes", `{"outcomes":[{"event_id":"e","subject":{"key":"u"},"name":"purchase","occurred_time":"2026-01-05T10:00:00.0009Z"}]}`, `{"recorded":1}`)
	analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"}`)
	if got := analysis.Metrics[0].Arms[0].GetMean(); got != 1 {
		t.Errorf("purchase rate %v, want 1", got)
	}
}

// TestStaleCatalog records exposures on a server that has heard of the
// experiment as a draft, and not of its start.
func TestStaleCatalog(t *testing.T) {
	db := postgrestest.Open(t)
	ahead, behind := serve(t, db, true), serve(t, db, false)
	ahead.do(t, "MetricService/CreateMetric", purchaseRate)
	ahead.do(t, "ExperimentService/CreateExperiment", newExperiment(`"unit":"account"`))
	exposure := func(variant string) string {
		return fmt.Sprintf(`{"experiment":"plain","variant":%q,"subject":{"key":"u"}}`, variant)
	}
	got := behind.exposeRaw(t, exposure("b"))
	checkRejected(t, got.Rejected, []*assayv1.Rejection{{Reason: unitMismatch, Field: "subject.unit"}})

	ahead.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"plain","unit":"user","variants":[{"key":"b","control":true},{"key":"c","weight":0}]}}`)
	ahead.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	if got = behind.exposeRaw(t, exposure("b")); got.Recorded != 1 {
		t.Errorf("on the server that is behind: %v", got)
	}
	if got = ahead.exposeRaw(t, exposure("b")); got.Duplicates != 1 {
		t.Errorf("on the other one: %v", got)
	}
}

// TestBestEffort assigns with recording, and finds the subjects in the
// analysis. Exposures are written in the order of their coming, so that once
// one that was waited for is stored, those before it are.
func TestBestEffort(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"eligibility":"attributes.age >= 18.0","segments":["age"]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	a.do(t, "ExperimentService/SetOverrides", `{"experiment":"plain","overrides":[{"subject_key":"pinned","variant":"a"}]}`)
	exposed := map[string]string{} // Subject → variant.
	check := func(key string, got *assayv1.Assignment, reason assayv1.Reason) {
		t.Helper()
		if got.Reason != reason {
			t.Errorf("%s is assigned with %v, want %v", key, got.Reason, reason)
		}
		if reason == assayv1.Reason_REASON_SPLIT {
			exposed[key] = got.Variant
		}
	}
	ask := func(key string, age int, recording string) *assayv1.Assignment {
		t.Helper()
		return call[*assayv1.AssignResponse](t, a, "AssignmentService/Assign", fmt.Sprintf(
			`{"subject":{"key":%q,"attributes":{"age":%d}},"exposure_recording":"EXPOSURE_RECORDING_%s"}`, key, age, recording)).Assignments[0]
	}
	check("one", ask("one", 30, "BEST_EFFORT"), assayv1.Reason_REASON_SPLIT)
	check("one", ask("one", 30, "BEST_EFFORT"), assayv1.Reason_REASON_SPLIT)
	check("child", ask("child", 3, "BEST_EFFORT"), assayv1.Reason_REASON_INELIGIBLE)
	check("pinned", ask("pinned", 30, "BEST_EFFORT"), assayv1.Reason_REASON_OVERRIDE)
	ask("unrecorded", 30, "NONE")
	ask("unspecified", 30, "UNSPECIFIED")
	batch := call[*assayv1.BatchAssignResponse](t, a, "AssignmentService/BatchAssign",
		`{"subjects":[{"key":"two","attributes":{"age":40}},{},{"key":"three","attributes":{"age":50}}],"experiments":["nothing","plain"],"exposure_recording":"EXPOSURE_RECORDING_BEST_EFFORT"}`)
	check("two", batch.Results[0].Assignments[1], assayv1.Reason_REASON_SPLIT)
	check("three", batch.Results[2].Assignments[1], assayv1.Reason_REASON_SPLIT)
	if batch.Results[1].Error == "" || len(batch.Results[1].Assignments) != 0 || batch.Results[0].Error != "" || batch.Results[0].Assignments[0].Reason != assayv1.Reason_REASON_NOT_FOUND {
		t.Errorf("results %v", batch.Results)
	}

	check("last", ask("last", 20, "NONE"), assayv1.Reason_REASON_SPLIT)
	a.exposeRaw(t, fmt.Sprintf(`{"experiment":"plain","variant":%q,"subject":{"key":"last","attributes":{"age":20}}}`, exposed["last"]))
	want := map[string]int64{"a": 0, "b": 0}
	for _, variant := range exposed {
		want[variant]++
	}
	analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain","segments":["age"]}`)
	if diff := cmp.Diff(want, analysis.SampleRatio.Observed); diff != "" {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}
	if analysis.Exclusions.Overridden != 0 {
		t.Error("a pinned subject was recorded")
	}
	if ages := len(analysis.Metrics[0].Segments); len(exposed) != 4 || ages != 4 {
		t.Errorf("%d subjects of %d ages, want 4", len(exposed), ages)
	}
}
