package server_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
	"github.com/assayhq/assay/internal/postgres/postgrestest"
)

// startSticky starts a sticky experiment "plain" of those whose country is PL.
func (a *api) startSticky(tb testing.TB, patch string) {
	tb.Helper()
	a.do(tb, "MetricService/CreateMetric", purchaseRate)
	a.do(tb, "ExperimentService/CreateExperiment", newExperiment(`"sticky":true,"eligibility":"attributes.country == 'PL'"`+patch))
	a.do(tb, "ExperimentService/StartExperiment", `{"key":"plain"}`)
}

const pole, german = `{"key":"u-1","attributes":{"country":"PL"}}`, `{"key":"u-1","attributes":{"country":"DE"}}`

// enroll gives a subject its variant and records that it met it.
func (a *api) enroll(tb testing.TB, subject string) string {
	tb.Helper()
	got := call[*assayv1.AssignResponse](tb, a, "AssignmentService/Assign",
		fmt.Sprintf(`{"subject":%s,"experiments":["plain"],"exposure_recording":"EXPOSURE_RECORDING_DURABLE"}`, subject)).Assignments[0]
	if got.Reason != assayv1.Reason_REASON_SPLIT || got.ExposureError != "" {
		tb.Fatalf("enrolling %s: %v", subject, got)
	}
	return got.Variant
}

// checkAssigned asks for the experiment "plain", by Assign and by an
// explanation, whose gates must end as told.
func (a *api) checkAssigned(tb testing.TB, when, subject, want string, gates ...assayv1.Gate_Kind) {
	tb.Helper()
	got := a.assigned(tb, "plain", subject)
	expected := parse(tb, got.ProtoReflect().Descriptor(), with(`{"experiment":"plain"}`, want))
	if diff := cmp.Diff(expected, got, protocmp.Transform(), protocmp.IgnoreFields(got, "revision")); diff != "" {
		tb.Errorf("%s (-want +got):\n%s", when, diff)
	}
	x := call[*assayv1.ExplainAssignmentResponse](tb, a, "AssignmentService/ExplainAssignment", fmt.Sprintf(`{"subject":%s,"experiment":"plain"}`, subject))
	if diff := cmp.Diff(got, x.Assignment, protocmp.Transform()); diff != "" {
		tb.Errorf("%s (-assigned +explained):\n%s", when, diff)
	}
	var kinds []assayv1.Gate_Kind
	for _, g := range x.Gates {
		kinds = append(kinds, g.Kind)
	}
	if len(gates) > 0 && !slices.Equal(kinds, gates) {
		tb.Errorf("%s: gates %v", when, x.Gates)
	}
}

var untilSticky = []assayv1.Gate_Kind{assayv1.Gate_KIND_STATE, assayv1.Gate_KIND_OVERRIDE, assayv1.Gate_KIND_STICKY}

// TestSticky takes one enrolled subject through all that would move it, on two
// servers and by OpenFeature.
func TestSticky(t *testing.T) {
	db := postgrestest.Open(t)
	a, other := serve(t, db, true), serve(t, db, true)
	a.startSticky(t, "")
	a.checkAssigned(t, "before", german, `"reason":"REASON_INELIGIBLE"`,
		append(slices.Clone(untilSticky), assayv1.Gate_KIND_ELIGIBILITY)...)
	variant := a.enroll(t, pole)
	rest := map[string]string{"a": "b", "b": "a"}[variant]
	kept := fmt.Sprintf(`"reason":"REASON_STICKY","variant":%q`, variant)
	// The other server hears of a change when it refreshes: an explanation of the past
	// makes it.
	hear := func() {
		t.Helper()
		call[*assayv1.ExplainAssignmentResponse](t, other, "AssignmentService/ExplainAssignment", fmt.Sprintf(`{"subject":%s,"experiment":"plain","revision":1}`, pole))
	}
	hear()
	update := func(patch string) {
		t.Helper()
		a.do(t, updateExperiment, `{"allow_movement":true,"experiment":{"key":"plain",`+patch+`}}`)
		hear()
	}
	check := func(when string) {
		t.Helper()
		for name, server := range map[string]*api{"one server": a, "the other": other} {
			server.checkAssigned(t, when+", "+name, pole, kept, untilSticky...)
			server.checkAssigned(t, when+", with other attributes, "+name, german, kept, untilSticky...)
		}
		a.expectFlag(t, "String", "plain", `{"targetingKey":"u-1","country":"DE"}`, fmt.Sprintf(`{"value":%q,"variant":%q,"reason":"TARGETING_MATCH"}`, variant, variant))
		all, err := a.invokeFlagd(t, 1, "ResolveAll", `{"context":{"targetingKey":"u-1"}}`)
		want := parse(t, all.ProtoReflect().Descriptor(), fmt.Sprintf(`{"flags":{"plain":{"string_value":%q,"variant":%q,"reason":"TARGETING_MATCH"}}}`, variant, variant))
		if diff := cmp.Diff(want, all, protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("%s: all flags: %v (-want +got):\n%s", when, err, diff)
		}
	}
	check("enrolled")
	update(fmt.Sprintf(`"variants":[{"key":"a","control":true,"weight":%d},{"key":"b","weight":%d}]`, map[string]int{"b": 1}[variant], map[string]int{"a": 1}[variant]))
	check("after its variant was killed")
	newcomer := `{"key":"u-2","attributes":{"country":"PL"}}`
	a.checkAssigned(t, "a newcomer", newcomer, fmt.Sprintf(`"reason":"REASON_SPLIT","variant":%q`, rest))
	update(`"traffic":0.0`)
	check("without traffic")
	a.checkAssigned(t, "a newcomer without traffic", newcomer, `"reason":"REASON_NO_TRAFFIC"`)
	update(`"traffic":1,"intake_closed":true`)
	check("with the intake closed")
	a.checkAssigned(t, "a newcomer with the intake closed", newcomer, `"reason":"REASON_INTAKE_CLOSED"`, untilSticky...)
	a.expectFlagV2(t, "plain", `{"targetingKey":"u-2","country":"PL"}`, `{"reason":"DEFAULT"}`)
	a.do(t, updateExperiment, `{"experiment":{"key":"plain"},"update_mask":"intakeClosed"}`)
	a.checkAssigned(t, "a newcomer with the intake open", newcomer, fmt.Sprintf(`"reason":"REASON_SPLIT","variant":%q`, rest))

	a.do(t, "ExperimentService/SetOverrides", fmt.Sprintf(`{"experiment":"plain","overrides":[{"subject_key":"u-1","variant":%q}]}`, rest))
	a.checkAssigned(t, "pinned", german, fmt.Sprintf(`"reason":"REASON_OVERRIDE","variant":%q`, rest))
	a.do(t, "ExperimentService/SetOverrides", `{"experiment":"plain","overrides":[{"subject_key":"u-1"}]}`)
	update(`"intake_closed":true`)
	a.do(t, "ExperimentService/PauseExperiment", `{"key":"plain"}`)
	a.checkAssigned(t, "paused", pole, `"reason":"REASON_NOT_RUNNING"`)
	a.do(t, "ExperimentService/ConcludeExperiment", fmt.Sprintf(`{"key":"plain","shipped_variant":%q}`, rest))
	a.checkAssigned(t, "concluded", pole, fmt.Sprintf(`"reason":"REASON_CONCLUDED","variant":%q`, rest))
	a.checkAssigned(t, "concluded, a newcomer", newcomer, fmt.Sprintf(`"reason":"REASON_CONCLUDED","variant":%q`, rest))
	a.checkAssigned(t, "concluded, ineligible", german, `"reason":"REASON_INELIGIBLE"`)
}

// expectFlagV2 resolves a flag that has no variant, which version 1 cannot say.
func (a *api) expectFlagV2(t *testing.T, key, context, response string) {
	t.Helper()
	got, err := a.flag(t, 2, "String", key, context)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(parse(t, got.ProtoReflect().Descriptor(), response), got, protocmp.Transform()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", key, diff)
	}
}

// countBatch asks for the experiment "plain" for 1,000 subjects, and counts the
// reasons and the lookups.
func (a *api) countBatch(tb testing.TB, recording assayv1.ExposureRecording) (reasons map[assayv1.Reason]int, lookups int64) {
	tb.Helper()
	req := &assayv1.BatchAssignRequest{Experiments: []string{"plain"}, ExposureRecording: recording}
	for i := range 1000 {
		req.Subjects = append(req.Subjects, parse(tb, (&assayv1.Subject{}).ProtoReflect().Descriptor(), fmt.Sprintf(`{"key":"u-%d","attributes":{"country":"PL"}}`, i)).(*assayv1.Subject))
	}
	before := a.lookups.Load()
	resp, err := a.assign.BatchAssign(tb.Context(), req)
	if err != nil {
		tb.Fatal(err)
	}
	reasons = map[assayv1.Reason]int{}
	for _, result := range resp.Results {
		got := result.Assignments[0]
		reasons[got.Reason]++
		if got.EnrollmentUnknown || got.ExposureError != "" {
			tb.Fatal(got)
		}
	}
	return reasons, a.lookups.Load() - before
}

// TestStickyBatch holds that a call for 1,000 subjects is one query, and none
// once all of them are enrolled and known.
func TestStickyBatch(t *testing.T) {
	a := newAPI(t)
	a.startSticky(t, "")
	const split, sticky = assayv1.Reason_REASON_SPLIT, assayv1.Reason_REASON_STICKY
	for i, step := range []struct {
		recording assayv1.ExposureRecording
		reason    assayv1.Reason
		lookups   int64
	}{
		{assayv1.ExposureRecording_EXPOSURE_RECORDING_NONE, split, 1},
		{assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE, split, 1},
		{assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE, sticky, 1},
		{assayv1.ExposureRecording_EXPOSURE_RECORDING_NONE, sticky, 0},
	} {
		reasons, lookups := a.countBatch(t, step.recording)
		if reasons[step.reason] != 1000 || lookups != step.lookups {
			t.Errorf("call %d: %v, %d lookups", i, reasons, lookups)
		}
	}
}

// TestStickyLookups holds who pays: calls that a sticky, running experiment of
// the subject's unit decides by more than its pins.
func TestStickyLookups(t *testing.T) {
	a := newAPI(t)
	a.startSticky(t, "")
	for _, patch := range []string{`"key":"usual"`, `"key":"second","sticky":true`, `"key":"resting","sticky":true`, `"key":"devices","sticky":true,"unit":"device"`} {
		a.do(t, "ExperimentService/CreateExperiment", newExperiment(patch+`,"labels":{"k":"v"}`))
		a.do(t, "ExperimentService/StartExperiment", `{`+strings.Split(patch, ",")[0]+`}`)
	}
	a.do(t, "ExperimentService/PauseExperiment", `{"key":"resting"}`)
	a.do(t, "ExperimentService/SetOverrides", `{"experiment":"second","overrides":[{"subject_key":"pinned","variant":"a"}]}`)
	for _, tt := range []struct {
		method, request string
		lookups         int64
	}{
		{"Assign", `{"subject":{"key":"u-1"},"experiments":["usual","nothing","resting","devices"]}`, 0},
		{"Assign", `{"subject":{"key":"pinned"},"experiments":["usual","second"]}`, 0},
		{"Assign", `{"subject":{"key":"u-1"},"experiments":["second"]}`, 1},
		{"Assign", `{"subject":{"key":"u-1"},"experiments":["plain","usual","second"]}`, 1},
		{"Assign", `{"subject":{"key":"u-1"}}`, 1},
		{"Assign", `{"subject":{"key":"u-1","unit":"account"}}`, 0},
		{"BatchAssign", `{"subjects":[{"key":"u-1"},{"key":"u-2","unit":"device"},{}],"labels":{"k":"v"}}`, 1},
		{"BatchAssign", `{"subjects":[{"key":"u-1"},{"key":"u-2"}],"experiments":["usual"]}`, 0},
		{"ExplainAssignment", `{"subject":{"key":"u-1"},"experiment":"usual"}`, 0},
		{"ExplainAssignment", `{"subject":{"key":"u-1"},"experiment":"plain"}`, 1},
		{"ExplainAssignment", `{"subject":{"key":"u-1"},"experiment":"resting"}`, 0},
		{"ExplainAssignment", `{"subject":{"key":"u-1"},"experiment":"resting","revision":1}`, 1},
	} {
		before := a.lookups.Load()
		a.do(t, "AssignmentService/"+tt.method, tt.request)
		if got := a.lookups.Load() - before; got != tt.lookups {
			t.Errorf("%s %s: %d lookups, want %d", tt.method, tt.request, got, tt.lookups)
		}
	}
	for _, tt := range []struct {
		method, request string
		lookups         int64
	}{
		{"ResolveString", `{"flag_key":"usual","context":{"targetingKey":"u-1"}}`, 0},
		{"ResolveString", `{"flag_key":"second","context":{"targetingKey":"u-1"}}`, 1},
		{"ResolveAll", `{"context":{"targetingKey":"u-1"}}`, 1},
	} {
		before := a.lookups.Load()
		if _, err := a.invokeFlagd(t, 1, tt.method, tt.request); err != nil {
			t.Error(err)
		}
		if got := a.lookups.Load() - before; got != tt.lookups {
			t.Errorf("%s %s: %d lookups, want %d", tt.method, tt.request, got, tt.lookups)
		}
	}
	a.refusesFlag(t, "String", "second", `{}`, codes.FailedPrecondition, "TARGETING_KEY_MISSING", "targetingKey")
}

// TestStickyExposures reports exposures of a subject to its own variant and to
// another one, after the split has changed. Its first one counts, once.
func TestStickyExposures(t *testing.T) {
	a, address := newAPIAt(t)
	a.startSticky(t, "")
	variant := a.enroll(t, pole)
	rest := map[string]string{"a": "b", "b": "a"}[variant]
	a.do(t, updateExperiment, fmt.Sprintf(`{"allow_movement":true,"experiment":{"key":"plain","variants":[{"key":"a","control":true,"weight":%d},{"key":"b","weight":%d}]}}`,
		map[string]int{"b": 1}[variant], map[string]int{"a": 1}[variant]))
	shown := call[*assayv1.AssignResponse](t, a, "AssignmentService/Assign", `{"subject":{"key":"u-1"},"experiments":["plain"],"exposure_recording":"EXPOSURE_RECORDING_DURABLE"}`).Assignments[0]
	if n := countExposures(t, address); n != 1 || shown.Reason != assayv1.Reason_REASON_STICKY || shown.ExposureError != "" {
		t.Errorf("%d exposures after %v", n, shown)
	}
	exposure := func(subject, variant string) string {
		return fmt.Sprintf(`{"experiment":"plain","variant":%q,"subject":{"key":%q}}`, variant, subject)
	}
	got := a.exposeRaw(t, exposure("u-1", variant), exposure("u-2", variant), exposure("u-1", variant), exposure("u-3", rest))
	if got.Recorded != 1 || got.Duplicates != 2 || len(got.Rejected) != 1 || got.Rejected[0].Index != 1 ||
		got.Rejected[0].Reason != assayv1.RejectionReason_REJECTION_REASON_VARIANT_MISMATCH {
		t.Errorf("exposures: %v", got)
	}
	// What the split gives by now was shown by who could not know better, in an
	// outage. Recorded, it would stand beside the variant that the subject keeps.
	if got := a.exposeRaw(t, exposure("u-1", rest)); len(got.Rejected) != 1 || got.Rejected[0].Field != "variant" ||
		got.Rejected[0].Reason != assayv1.RejectionReason_REJECTION_REASON_VARIANT_MISMATCH || !strings.Contains(got.Rejected[0].Message, "keeps") {
		t.Errorf("the variant of the new split: %v", got)
	}
	a.checkAssigned(t, "after both", german, fmt.Sprintf(`"reason":"REASON_STICKY","variant":%q`, variant))
	// The first split again, in a third phase: the same variant once more.
	a.do(t, updateExperiment, `{"allow_movement":true,"experiment":{"key":"plain","variants":[{"key":"a","control":true},{"key":"b"}]}}`)
	if got := a.exposeRaw(t, exposure("u-1", variant)); len(got.Rejected) != 0 {
		t.Errorf("in the third phase: %v", got)
	}
	analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"}`)
	observed := map[string]int64{variant: 1, rest: 1}
	if diff := cmp.Diff(observed, analysis.SampleRatio.Observed); diff != "" {
		t.Errorf("observed (-want +got):\n%s", diff)
	}
	if slices.ContainsFunc(analysis.Warnings, func(w string) bool { return strings.Contains(w, "two variants") || strings.Contains(w, "crossover") }) {
		t.Errorf("warnings: %q", analysis.Warnings)
	}

	a.do(t, updateExperiment, fmt.Sprintf(`{"allow_movement":true,"experiment":{"key":"plain","variants":[{"key":"a","control":true,"weight":%d},{"key":"b","weight":%d}]}}`,
		map[string]int{"b": 1}[variant], map[string]int{"a": 1}[variant]))
	giveBack := takeAway(t, address)
	const record = "EventService/RecordExposures"
	_, err := a.invoke(t, record, newRequest(t, record, `{"exposures":[`+exposure("u-1", variant)+`]}`))
	checkRefusal(t, err, codes.Unavailable, "the database", "DATABASE_UNAVAILABLE")
	giveBack()
	if got := a.exposeRaw(t, exposure("u-1", variant)); got.Duplicates != 1 {
		t.Errorf("after the outage: %v", got)
	}
}

// countExposures counts the rows that were written.
func countExposures(t *testing.T, address string) (n int) {
	t.Helper()
	conn := connect(t, address)
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM exposures`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestStickyWithoutDatabase takes the database away: those who are known stay,
// the hash answers for the others and says so, and all is as before afterwards.
func TestStickyWithoutDatabase(t *testing.T) {
	a, address := newAPIAt(t)
	a.startSticky(t, "")
	variant := a.enroll(t, pole)
	second := `{"key":"u-2","attributes":{"country":"PL"}}`
	a.enroll(t, second)
	kept := fmt.Sprintf(`"reason":"REASON_STICKY","variant":%q`, variant)
	a.checkAssigned(t, "before", pole, kept)
	a.do(t, updateExperiment, `{"experiment":{"key":"plain","intake_closed":true}}`)

	giveBack := takeAway(t, address)
	before := a.lookups.Load()
	unknown := func(when string) {
		t.Helper()
		a.checkAssigned(t, when, pole, kept, untilSticky...)
		if got := a.assigned(t, "plain", second); got.Reason != assayv1.Reason_REASON_SPLIT || !got.EnrollmentUnknown || got.Variant == "" {
			t.Errorf("%s: not known: %v", when, got)
		}
		if got := a.assigned(t, "plain", `{"key":"u-2"}`); got.Reason != assayv1.Reason_REASON_INELIGIBLE || !got.EnrollmentUnknown {
			t.Errorf("%s: not known and not eligible: %v", when, got)
		}
		x := call[*assayv1.ExplainAssignmentResponse](t, a, "AssignmentService/ExplainAssignment", fmt.Sprintf(`{"subject":%s,"experiment":"plain"}`, second))
		if !x.Assignment.EnrollmentUnknown || !strings.Contains(x.Gates[2].Detail, "could not be read") {
			t.Errorf("%s: explained as %v", when, x)
		}
		a.expectFlag(t, "String", "plain", `{"targetingKey":"u-2","country":"PL"}`,
			fmt.Sprintf(`{"value":%q,"variant":%q,"reason":"SPLIT","metadata":%s}`, x.Assignment.Variant, x.Assignment.Variant, unknownMetadata))
		a.expectFlagV2(t, "plain", `{"targetingKey":"u-2"}`, `{"reason":"DEFAULT","metadata":`+unknownMetadata+`}`)
		_, err := a.flag(t, 1, "String", "plain", `{"targetingKey":"u-2"}`)
		checkRefusal(t, err, codes.NotFound, "could not be read", "FLAG_NOT_FOUND")
	}
	began := time.Now()
	for range 20 {
		unknown("without a database")
	}
	// Some 160 calls, of which one asks the database after 50, 100, 200, 400 and 800
	// milliseconds, and then one in a second.
	if asked, most := a.lookups.Load()-before, int64(time.Since(began)/time.Second)+6; asked == 0 || asked > most {
		t.Errorf("the database was asked %d times, want %d at most", asked, most)
	}
	giveBack()
	for a.assigned(t, "plain", second).EnrollmentUnknown {
		time.Sleep(20 * time.Millisecond)
	}
	if got := a.assigned(t, "plain", second); got.Reason != assayv1.Reason_REASON_STICKY {
		t.Errorf("after the outage: %v", got)
	}
	a.checkAssigned(t, "a newcomer after the outage", `{"key":"u-3"}`, `"reason":"REASON_INTAKE_CLOSED"`)
}

// unknownMetadata is that of flags whose subject may be enrolled.
const unknownMetadata = `{"enrollmentUnknown":true,"enrollmentNote":"Whether the subject is enrolled could not be read: this is what it gets if it is not, and may not be the variant that it keeps."}`

// TestExplainStickyPast asks for the time before a subject was enrolled, and
// after.
func TestExplainStickyPast(t *testing.T) {
	a := newAPI(t)
	a.startSticky(t, "")
	type moment struct {
		time time.Time
		want *assayv1.Assignment
	}
	var moments []moment
	note := func() {
		t.Helper()
		moments = append(moments, moment{time.Now(), a.assigned(t, "plain", pole)})
	}
	note()
	variant := a.assigned(t, "plain", pole).Variant
	a.exposeRaw(t, fmt.Sprintf(`{"experiment":"plain","variant":%q,"subject":{"key":"u-1"}}`, variant))
	note()
	a.do(t, updateExperiment, `{"allow_movement":true,"experiment":{"key":"plain","eligibility":"false","intake_closed":true}}`)
	note()
	a.do(t, "ExperimentService/ConcludeExperiment", `{"key":"plain"}`)
	note()
	var reasons []assayv1.Reason
	for i, m := range moments {
		got := call[*assayv1.ExplainAssignmentResponse](t, a, "AssignmentService/ExplainAssignment",
			fmt.Sprintf(`{"subject":%s,"experiment":"plain","time":%q}`, pole, m.time.UTC().Format(time.RFC3339Nano)))
		if diff := cmp.Diff(m.want, got.Assignment, protocmp.Transform()); diff != "" {
			t.Errorf("moment %d (-assigned +explained):\n%s", i, diff)
		}
		reasons = append(reasons, got.Assignment.Reason)
	}
	if diff := cmp.Diff([]assayv1.Reason{assayv1.Reason_REASON_SPLIT, assayv1.Reason_REASON_STICKY, assayv1.Reason_REASON_STICKY, assayv1.Reason_REASON_NOT_RUNNING}, reasons); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
	x := call[*assayv1.ExplainAssignmentResponse](t, a, "AssignmentService/ExplainAssignment", fmt.Sprintf(`{"subject":%s,"experiment":"plain","revision":1}`, pole))
	if x.Assignment.Reason != assayv1.Reason_REASON_STICKY || x.Assignment.Variant != variant {
		t.Errorf("the first revision: %v", x)
	}
}

// TestStickyUpdates changes what can be changed, reads it in the revisions, and
// previews what would move whom.
func TestStickyUpdates(t *testing.T) {
	a := newAPI(t)
	const create = "ExperimentService/CreateExperiment"
	a.startSticky(t, `,"intake_closed":false`)
	a.do(t, create, newExperiment(`"key":"usual"`))
	a.do(t, create, newExperiment(`"key":"draft"`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"usual"}`)
	a.do(t, "LayerService/CreateLayer", `{"layer":{"key":"l"}}`)
	a.do(t, create, newExperiment(`"key":"layered","layer":"l","sticky":true,"traffic":0.5`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"layered"}`)
	a.refuses(t, []refusal{
		{"intake without sticky", create, newExperiment(`"key":"x","intake_closed":true`), codes.InvalidArgument, []string{"experiment.intake_closed"}, "only a sticky experiment"},
		{"sticky elsewhere", create, newExperiment(`"key":"x","sticky":true,"assignment":"ASSIGNMENT_EXTERNAL"`), codes.InvalidArgument, []string{"experiment.sticky"}, "assigned elsewhere"},
		{"intake of a draft", updateExperiment, `{"experiment":{"key":"draft","intake_closed":true}}`, codes.InvalidArgument, []string{"experiment.intake_closed"}, ""},
		{"intake of a started one", updateExperiment, `{"experiment":{"key":"usual","intake_closed":true}}`, codes.InvalidArgument, []string{"experiment.intake_closed"}, ""},
		{"sticky by now", updateExperiment, `{"experiment":{"key":"usual","sticky":true}}`, codes.FailedPrecondition, []string{"EXPERIMENT_STARTED"}, "sticky"},
		{"no longer sticky", updateExperiment, `{"experiment":{"key":"plain"},"update_mask":"sticky"}`, codes.FailedPrecondition, []string{"EXPERIMENT_STARTED"}, "sticky"},
		{"less traffic in a layer", updateExperiment, `{"experiment":{"key":"layered","traffic":0.4},"allow_movement":true}`, codes.FailedPrecondition, []string{"STICKY_IN_LAYER"}, "cannot fall"},
	})
	a.do(t, updateExperiment, `{"experiment":{"key":"draft","sticky":true,"intake_closed":true}}`)
	if got := a.get(t, "draft"); !got.Sticky || !got.IntakeClosed {
		t.Errorf("the draft: %v", got)
	}
	a.do(t, updateExperiment, `{"experiment":{"key":"layered","traffic":0.6}}`)

	before := a.get(t, "plain")
	a.do(t, updateExperiment, `{"experiment":{"key":"plain","intake_closed":true}}`)
	closed := a.get(t, "plain")
	if closed.Phase != before.Phase || closed.Revision != before.Revision+1 || closed.PlanHash != before.PlanHash || !closed.IntakeClosed || !closed.Sticky {
		t.Errorf("closed: %v", closed)
	}
	a.do(t, updateExperiment, `{"experiment":{"key":"plain"},"update_mask":"intakeClosed"}`)
	list := call[*assayv1.ListExperimentRevisionsResponse](t, a, "ExperimentService/ListExperimentRevisions", `{"key":"plain"}`).Revisions
	for i, want := range []string{`{"changes":[{"path":"intake_closed","before":true}]}`, `{"changes":[{"path":"intake_closed","after":true}]}`} {
		if diff := cmp.Diff(parse(t, list[i].ProtoReflect().Descriptor(), want), &assayv1.ExperimentRevision{Changes: list[i].Changes}, protocmp.Transform()); diff != "" {
			t.Errorf("revision %d (-want +got):\n%s", list[i].Revision, diff)
		}
	}
	list = call[*assayv1.ListExperimentRevisionsResponse](t, a, "ExperimentService/ListExperimentRevisions", `{"key":"draft"}`).Revisions
	if len(list[0].Changes) != 2 || list[0].Changes[0].Path != "sticky" || list[0].Changes[1].Path != "intake_closed" {
		t.Errorf("the draft's second revision: %v", list[0].Changes)
	}
	a.checkStickyPreviews(t)
}

// checkStickyPreviews holds that exposed subjects stay, unless their variant
// goes.
func (a *api) checkStickyPreviews(t *testing.T) {
	t.Helper()
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"key":"moving","sticky":true,"variants":[{"key":"a","control":true},{"key":"b"},{"key":"c"}]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"moving"}`)
	a.expose(t, "moving", a.variants(t, "moving", 300))
	for _, tt := range []struct {
		update  string
		exposed *int64
		stay    bool
	}{
		{`"variants":[{"key":"a","control":true},{"key":"b"},{"key":"c","weight":0}]`, proto.Int64(0), true},
		{`"variants":[{"key":"a","control":true},{"key":"b"},{"key":"c"},{"key":"d"}]`, proto.Int64(0), true},
		{`"eligibility":"false"`, proto.Int64(0), true},
		{`"traffic":0.1`, proto.Int64(0), true},
		{`"variants":[{"key":"a","control":true},{"key":"b"}]`, proto.Int64(100), false},
		{`"eligibility":"false","variants":[{"key":"a","control":true},{"key":"b"}]`, nil, false},
	} {
		got := call[*assayv1.PreviewUpdateResponse](t, a, previewUpdate, `{"experiment":{"key":"moving",`+tt.update+`}}`)
		stay := slices.ContainsFunc(got.Notes, func(n string) bool { return strings.Contains(n, "keep their variants") })
		if diff := cmp.Diff(tt.exposed, got.EstimatedExposedSubjects); diff != "" || !got.NewPhase || stay != tt.stay {
			t.Errorf("%s: %v (-want +got):\n%s", tt.update, got, diff)
		}
	}
}

// TestStickyLocked holds the table of exposures locked, so that a lookup waits.
// The assignment does not.
func TestStickyLocked(t *testing.T) {
	a, address := newAPIAt(t)
	a.startSticky(t, "")
	a.enroll(t, pole)
	conn := connect(t, address)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE exposures`); err != nil {
		t.Fatal(err)
	}
	if got := a.assigned(t, "plain", pole); got.Reason != assayv1.Reason_REASON_SPLIT || !got.EnrollmentUnknown {
		t.Errorf("while the table is locked: %v", got)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for a.assigned(t, "plain", pole).EnrollmentUnknown {
		time.Sleep(20 * time.Millisecond)
	}
	a.checkAssigned(t, "afterwards", german, fmt.Sprintf(`"reason":"REASON_STICKY","variant":%q`, a.assigned(t, "plain", pole).Variant))
}

// moveAway changes the split so that the variant with which a subject is enrolled
// gets nobody any more, and returns the other one.
func (a *api) moveAway(t *testing.T, variant string) (rest string) {
	t.Helper()
	a.do(t, updateExperiment, fmt.Sprintf(`{"allow_movement":true,"experiment":{"key":"plain","variants":[{"key":"a","control":true,"weight":%d},{"key":"b","weight":%d}]}}`,
		map[string]int{"b": 1}[variant], map[string]int{"a": 1}[variant]))
	return map[string]string{"a": "b", "b": "a"}[variant]
}

// assignRecorded asks for the experiment "plain" with a recording.
func (a *api) assignRecorded(ctx context.Context, mode assayv1.ExposureRecording, key string) (*assayv1.Assignment, error) {
	country, err := structpb.NewStruct(map[string]any{"country": "PL"})
	if err != nil {
		return nil, err
	}
	resp, err := a.assign.Assign(ctx, &assayv1.AssignRequest{Subject: &assayv1.Subject{Key: key, Attributes: country},
		Experiments: []string{"plain"}, ExposureRecording: mode})
	if err != nil {
		return nil, err
	}
	return resp.Assignments[0], nil
}

// TestStickyStalled asks a server that knows nobody yet, after the split has
// changed, while the table of exposures is locked. What it answers may be wrong,
// and says so; nothing of it is recorded. Who waits for a commit waits for the
// right answer.
func TestStickyStalled(t *testing.T) {
	address := postgrestest.URL(t)
	db, err := postgres.Open(t.Context(), address, postgrestest.Pepper)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	a := serve(t, db, true)
	a.startSticky(t, "")
	variant := a.enroll(t, pole)
	rest := a.moveAway(t, variant)
	cold := serve(t, db, true)
	for cold.assigned(t, "plain", `{"key":"u-2","attributes":{"country":"PL"}}`).Variant != rest {
		time.Sleep(10 * time.Millisecond)
	}
	tx, err := connect(t, address).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE exposures`); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := cold.assignRecorded(t.Context(), assayv1.ExposureRecording_EXPOSURE_RECORDING_BEST_EFFORT, "u-1")
		if err != nil || got.Variant != rest || !got.EnrollmentUnknown {
			t.Errorf("best effort: %v, %v", got, err)
		}
	}
	if n := cold.lostExposures(t); n != 2 {
		t.Errorf("%v exposures count as lost, of 2", n)
	}
	short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	got, err := cold.assignRecorded(short, assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE, "u-1")
	if err != nil || !got.EnrollmentUnknown || !strings.Contains(got.ExposureError, "could not be read") {
		t.Errorf("durable, in a hurry: %v, %v", got, err)
	}
	var waiting sync.WaitGroup
	asked := cold.lookups.Load()
	for _, key := range []string{"u-1", "u-1", "u-3"} {
		waiting.Go(func() {
			want := map[string]string{"u-1": variant, "u-3": rest}[key]
			got, err := cold.assignRecorded(t.Context(), assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE, key)
			if err != nil || got.Variant != want || got.EnrollmentUnknown || got.ExposureError != "" {
				t.Errorf("durable, for %s: %v, %v", key, got, err)
			}
		})
	}
	for cold.lookups.Load() == asked {
		time.Sleep(time.Millisecond)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	waiting.Wait()
	if n := countExposures(t, address); n != 2 {
		t.Errorf("%d exposures are recorded, of u-1 and u-3", n)
	}
}

// TestStickyCommit lets a subject be enrolled with another variant between the
// lookup and the commit. The answer is that variant, if there still is one.
func TestStickyCommit(t *testing.T) {
	address := postgrestest.URL(t)
	db, err := postgres.Open(t.Context(), address, postgrestest.Pepper)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	a := serve(t, db, true)
	a.startSticky(t, "")
	for key, mode := range map[string]assayv1.ExposureRecording{
		"u-1": assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE,
		"u-2": assayv1.ExposureRecording_EXPOSURE_RECORDING_BEST_EFFORT,
	} {
		lost := a.lostExposures(t)
		split := a.assigned(t, "plain", fmt.Sprintf(`{"key":%q,"attributes":{"country":"PL"}}`, key)).Variant
		other := map[string]string{"a": "b", "b": "a"}[split]
		id := postgrestest.Pepper.SubjectID(experiment.Subject{Unit: "user", Key: key})
		tx, err := connect(t, address).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock(24947, stripe) FROM generate_series(0, 63) AS stripe`); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `INSERT INTO exposures (experiment_id, subject_id, phase, variant, exposed_time) SELECT id, $1, 1, $2, now() FROM experiments`, [16]byte(id), other); err != nil {
			t.Fatal(err)
		}
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			got, err := a.assignRecorded(t.Context(), mode, key)
			want := &assayv1.Assignment{Experiment: "plain", Revision: 1, Variant: other, Reason: assayv1.Reason_REASON_STICKY}
			if mode == assayv1.ExposureRecording_EXPOSURE_RECORDING_BEST_EFFORT { // Which does not wait.
				want.Variant, want.Reason = split, assayv1.Reason_REASON_SPLIT
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); err != nil || diff != "" {
				t.Errorf("%v: %v (-want +got):\n%s", mode, err, diff)
			}
		}()
		for waits := false; !waits; time.Sleep(time.Millisecond) {
			if err := tx.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 24947 AND NOT granted)`).Scan(&waits); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-answered
		for mode == assayv1.ExposureRecording_EXPOSURE_RECORDING_BEST_EFFORT && a.lostExposures(t) == lost {
			time.Sleep(time.Millisecond)
		}
	}
	if n := countExposures(t, address); n != 2 {
		t.Errorf("%d exposures of two subjects", n)
	}
}
