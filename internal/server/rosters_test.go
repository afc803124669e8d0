package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/catalog"
	"github.com/assayhq/assay/internal/postgres/postgrestest"
	"github.com/assayhq/assay/internal/server"
)

// campaign is a draft with three variants, 2 : 1 : 1.
func campaign(key string) string {
	return newExperiment(fmt.Sprintf(`"key":%q,"metrics":[],"variants":[{"key":"none","control":true,"weight":2},{"key":"short","payload":{"title":"Hi"}},{"key":"long"}]`, key))
}

// allocateAll streams messages.
func (a *api) allocateAll(ctx context.Context, messages ...*assayv1.AllocateRosterRequest) (*assayv1.Roster, error) {
	stream, err := assayv1.NewRosterServiceClient(a.conn).AllocateRoster(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		if stream.Send(m) != nil {
			break // The server has answered.
		}
	}
	resp, err := stream.CloseAndRecv()
	return resp.GetRoster(), err
}

// allocate streams messages given as JSON.
func (a *api) allocate(tb testing.TB, messages ...string) (*assayv1.Roster, error) {
	tb.Helper()
	var list []*assayv1.AllocateRosterRequest
	for _, text := range messages {
		list = append(list, newRequest(tb, "RosterService/AllocateRoster", text).(*assayv1.AllocateRosterRequest))
	}
	return a.allocateAll(tb.Context(), list...)
}

// audience is n subjects in messages of 1,000: u-0, u-1, … in three strata of
// unequal size. Each has a "spend", and every second a "visits".
func audience(experiment string, n int) (messages []*assayv1.AllocateRosterRequest) {
	for i := range n {
		if i%1000 == 0 {
			messages = append(messages, new(assayv1.AllocateRosterRequest))
		}
		s := &assayv1.RosterSubject{Key: fmt.Sprint("u-", i), Stratum: stratumOf(i), Covariates: map[string]float64{"spend": float64(i % 1000)}}
		if i%2 == 0 {
			s.Covariates["visits"] = float64(i % 7)
		}
		m := messages[len(messages)-1]
		m.Subjects = append(m.Subjects, s)
	}
	messages[0].Experiment = experiment
	return messages
}

func stratumOf(i int) string {
	return []string{"high", "low", "low", "low", "middle", "middle", "low"}[i%7]
}

// listedArms asks for the subjects u-0 … u-(n-1) and returns the variant of
// each, which the roster must have given.
func (a *api) listedArms(tb testing.TB, experiment string, n int) []string {
	tb.Helper()
	var arms []string
	for first := 0; first < n; first += 1000 {
		req := &assayv1.BatchAssignRequest{Experiments: []string{experiment}}
		for i := range min(1000, n-first) {
			req.Subjects = append(req.Subjects, &assayv1.Subject{Key: fmt.Sprint("u-", first+i)})
		}
		resp, err := a.assign.BatchAssign(tb.Context(), req)
		if err != nil {
			tb.Fatal(err)
		}
		for _, result := range resp.Results {
			if got := result.Assignments[0]; got.Reason != assayv1.Reason_REASON_ROSTER {
				tb.Fatalf("u-%d: %v", len(arms), got)
			} else {
				arms = append(arms, got.Variant)
			}
		}
	}
	return arms
}

// TestRoster allocates 100,000 subjects in three strata and takes the
// experiment to its analysis.
func TestRoster(t *testing.T) {
	const n = 100_000
	db := postgrestest.Open(t)
	a, other := serve(t, db, true), serve(t, db, false)
	a.do(t, "ExperimentService/CreateExperiment", campaign("mailing"))
	before := time.Now()
	made, err := a.allocateAll(metadata.AppendToOutgoingContext(t.Context(), "assay-author", "ann"), audience("mailing", n)...)
	if err != nil {
		t.Fatal(err)
	}
	if got := call[*assayv1.GetRosterResponse](t, other, "RosterService/GetRoster", `{"experiment":"mailing"}`).Roster; !cmp.Equal(made, got, protocmp.Transform()) {
		t.Errorf("read back:\n%s", cmp.Diff(made, got, protocmp.Transform()))
	}
	if made.Experiment != "mailing" || made.Revision != 1 || made.Subjects != n || made.Author != "ann" || made.CreateTime.AsTime().Before(before.Add(-time.Minute)) || made.DeleteTime != nil {
		t.Errorf("allocated %v", made)
	}
	if e := a.get(t, "mailing"); e.RosterSubjects != n {
		t.Errorf("the experiment has a roster of %d", e.RosterSubjects)
	}

	// Who has what, as the roster says, as one server serves, and as another.
	if got := a.assigned(t, "mailing", `{"key":"u-1"}`); got.Reason != assayv1.Reason_REASON_NOT_RUNNING {
		t.Errorf("a draft assigns %v", got)
	}
	a.do(t, "ExperimentService/StartExperiment", `{"key":"mailing"}`)
	other.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"mailing","description":"seen by the other"}}`)
	arms := a.listedArms(t, "mailing", n)
	if !slices.Equal(arms, other.listedArms(t, "mailing", n)) {
		t.Error("another server gives other variants")
	}
	checkCounted(t, made, arms)
	if got := a.assigned(t, "mailing", `{"key":"v-1"}`); got.Reason != assayv1.Reason_REASON_NOT_IN_ROSTER || got.Variant != "" || got.Revision == 0 {
		t.Errorf("not listed: %v", got)
	}
	explained := call[*assayv1.ExplainAssignmentResponse](t, a, "AssignmentService/ExplainAssignment", `{"subject":{"key":"u-1"},"experiment":"mailing"}`)
	if last := explained.Gates[len(explained.Gates)-1]; last.Kind != assayv1.Gate_KIND_ROSTER || !last.Passed || !strings.Contains(last.Detail, arms[1]) {
		t.Errorf("explained by %v", last)
	}
	a.recordListed(t, arms)
}

// checkCounted compares the roster's counts with the arms of its subjects, and
// with the exact shares.
func checkCounted(t *testing.T, made *assayv1.Roster, arms []string) {
	t.Helper()
	weights := map[string]float64{"none": 2, "short": 1, "long": 1}
	counted, sizes := map[string]map[string]int64{}, map[string]int64{}
	for i, arm := range arms {
		s := stratumOf(i)
		if counted[s] == nil {
			counted[s] = map[string]int64{}
		}
		counted[s][arm]++
		sizes[s]++
	}
	told, totals := map[string]map[string]int64{}, map[string]int64{}
	for _, s := range made.Strata {
		told[s.Stratum] = map[string]int64{}
		for i, count := range s.Subjects {
			arm := made.Variants[i].Variant
			told[s.Stratum][arm] = count
			totals[arm] += count
			if exact := float64(sizes[s.Stratum]) * weights[arm] / 4; math.Abs(float64(count)-exact) >= 1 {
				t.Errorf("%s, %s: %d subjects of %v", s.Stratum, arm, count, exact)
			}
		}
	}
	if diff := cmp.Diff(counted, told); diff != "" {
		t.Errorf("-served +told:\n%s", diff)
	}
	for _, v := range made.Variants {
		if totals[v.Variant] != v.Subjects {
			t.Errorf("%s has %d subjects, and in its strata %d", v.Variant, v.Subjects, totals[v.Variant])
		}
	}
	for _, c := range made.Covariates {
		for i, v := range c.Variants {
			if v.Variant != made.Variants[i].Variant || v.Subjects+v.Missing != made.Variants[i].Subjects || (v.StandardizedDifference == nil) != (i == 0) || math.Abs(v.GetStandardizedDifference()) > 0.05 {
				t.Errorf("%s: %v", c.Name, v)
			}
		}
	}
	if len(made.Covariates) != 2 || made.Covariates[0].Variants[0].Missing != 0 || made.Covariates[1].Variants[0].Missing == 0 {
		t.Errorf("covariates: %v", made.Covariates)
	}
}

// recordListed records exposures of a roster and analyses them.
func (a *api) recordListed(t *testing.T, arms []string) {
	t.Helper()
	resp := call[*assayv1.AssignResponse](t, a, "AssignmentService/Assign", `{"subject":{"key":"u-2000"},"experiments":["mailing"],"exposure_recording":"EXPOSURE_RECORDING_DURABLE"}`)
	if resp.Assignments[0].ExposureError != "" || resp.Assignments[0].Variant != arms[2000] {
		t.Errorf("recorded with %v", resp)
	}
	req := &assayv1.RecordExposuresRequest{}
	exposed := map[string]int64{arms[2000]: 1}
	for i, arm := range arms[:2000] {
		exposed[arm]++
		req.Exposures = append(req.Exposures, &assayv1.Exposure{Experiment: "mailing", Variant: arm, Subject: &assayv1.Subject{Key: fmt.Sprint("u-", i)}})
	}
	other := map[string]string{"none": "short", "short": "long", "long": "none"}
	req.Exposures = append(req.Exposures,
		&assayv1.Exposure{Experiment: "mailing", Variant: other[arms[0]], Subject: &assayv1.Subject{Key: "u-0"}},
		&assayv1.Exposure{Experiment: "mailing", Variant: "none", Subject: &assayv1.Subject{Key: "v-1"}})
	recorded, err := a.events.RecordExposures(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if recorded.Recorded != 2000 || len(recorded.Rejected) != 2 ||
		recorded.Rejected[0].Reason != assayv1.RejectionReason_REJECTION_REASON_VARIANT_MISMATCH || recorded.Rejected[1].Index != 2001 {
		t.Errorf("recorded %v", recorded)
	}
	analysis := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"mailing"}`)
	if got := analysis.SampleRatio.Observed; !maps.Equal(exposed, got) {
		t.Errorf("analysed %v, exposed %v", got, exposed)
	}
}

// TestRosterSampleRatio: a list of three subjects cannot be split by 2 : 1 : 1,
// and the analysis expects what the roster holds.
func TestRosterSampleRatio(t *testing.T) {
	a := newAPI(t)
	a.do(t, "ExperimentService/CreateExperiment", campaign("few"))
	made, err := a.allocate(t, `{"experiment":"few","subjects":[{"key":"u-0"},{"key":"u-1"},{"key":"u-2"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	a.do(t, "ExperimentService/StartExperiment", `{"key":"few"}`)
	for i, arm := range a.listedArms(t, "few", 3) {
		a.exposeRaw(t, fmt.Sprintf(`{"experiment":"few","variant":%q,"subject":{"key":"u-%d"}}`, arm, i))
	}
	ratio := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"few"}`).SampleRatio
	for _, v := range made.Variants {
		if v.Subjects != ratio.Observed[v.Variant] || math.Abs(float64(v.Subjects)-ratio.Expected[v.Variant]) > 1e-9 {
			t.Errorf("%v, and the roster has %v", ratio, v)
		}
	}
}

// TestRosterOutlivesTheDatabase: a server that starts from disk serves it.
func TestRosterOutlivesTheDatabase(t *testing.T) {
	db := postgrestest.Open(t)
	a := serve(t, db, true)
	a.do(t, "ExperimentService/CreateExperiment", campaign("mailing"))
	if _, err := a.allocateAll(t.Context(), audience("mailing", 3000)...); err != nil {
		t.Fatal(err)
	}
	a.do(t, "ExperimentService/StartExperiment", `{"key":"mailing"}`)
	want := a.listedArms(t, "mailing", 3000)
	path := filepath.Join(t.TempDir(), "catalog")
	store := catalog.New(postgrestest.Pepper, db.Histories, db.RosterSubjects, nil, time.Hour, slog.New(slog.DiscardHandler))
	if err := store.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := store.Keep(ended, path); err != nil { // It writes a last time.
		t.Fatal(err)
	}
	restored := catalog.New(postgrestest.Pepper, nil, nil, nil, time.Hour, slog.New(slog.DiscardHandler))
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := restored.Restore(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	variants := restored.Current().Experiment("mailing").Current.Definition.Variants
	for i, arm := range want {
		d := restored.Current().Subject("user", fmt.Sprint("u-", i), nil, time.Now()).Assign("mailing")
		if d.Variant < 0 || variants[d.Variant].Key != arm {
			t.Fatalf("u-%d: %+v, want %s", i, d, arm)
		}
	}
}

// TestRosterRepeats: the same list gives the same roster, whatever its order and
// its messages, also after the first was deleted.
func TestRosterRepeats(t *testing.T) {
	a := newAPI(t)
	a.do(t, "ExperimentService/CreateExperiment", campaign("mailing"))
	first, err := a.allocateAll(t.Context(), audience("mailing", 5000)...)
	if err != nil {
		t.Fatal(err)
	}
	a.expect(t, "RosterService/DeleteRoster", `{"experiment":"mailing"}`, `{"subjects":5000}`)
	if e := a.get(t, "mailing"); e.RosterSubjects != 0 {
		t.Errorf("after the deletion: %v", e)
	}
	a.refuses(t, []refusal{
		{"get", "RosterService/GetRoster", `{"experiment":"mailing"}`, codes.NotFound, []string{"ROSTER_NOT_FOUND"}, `"mailing" has no roster`},
		{"delete", "RosterService/DeleteRoster", `{"experiment":"mailing"}`, codes.NotFound, []string{"ROSTER_NOT_FOUND"}, ""},
	})
	messages := audience("mailing", 5000)
	slices.Reverse(messages)
	for _, m := range messages {
		m.Experiment = "mailing"
		slices.Reverse(m.Subjects)
	}
	messages[0].Subjects, messages[1].Subjects = slices.Concat(messages[0].Subjects, messages[1].Subjects), nil
	second, err := a.allocateAll(t.Context(), messages...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.Roster{}, "create_time")); diff != "" {
		t.Errorf("-first +second:\n%s", diff)
	}
}

// TestRosterIsFixed changes what it may and may not, and deletes at the end.
func TestRosterIsFixed(t *testing.T) {
	a := newAPI(t)
	a.do(t, "LayerService/CreateLayer", `{"layer":{"key":"checkout"}}`)
	a.do(t, "ExperimentService/CreateExperiment", campaign("mailing"))
	if _, err := a.allocateAll(t.Context(), audience("mailing", 100)...); err != nil {
		t.Fatal(err)
	}
	const update, preview = "ExperimentService/UpdateExperiment", "ExperimentService/PreviewUpdate"
	fixed := func(name, method, patch, says string) refusal {
		return refusal{name, method, `{"experiment":{"key":"mailing",` + patch + `},"allow_movement":true}`, codes.FailedPrecondition, []string{"ROSTER_FIXED"}, says + " cannot change"}
	}
	const others = `"variants":[{"key":"none","control":true,"weight":2},{"key":"short"},{"key":"longer"}]`
	a.refuses(t, []refusal{
		fixed("another variant", update, others, "variants"),
		fixed("another weight", update, `"variants":[{"key":"none","control":true},{"key":"short"},{"key":"long"}]`, "variants"),
		fixed("another control", update, `"variants":[{"key":"none","weight":2},{"key":"short","control":true},{"key":"long"}]`, "variants"),
		fixed("another unit and salt", update, `"unit":"account","salt":"x"`, "unit, salt"),
		fixed("in a layer", update, `"layer":"checkout"`, "layer"),
		fixed("elsewhere", update, `"assignment":"ASSIGNMENT_EXTERNAL"`, "assignment"),
		fixed("less traffic", update, `"traffic":0.5`, "traffic"),
		{"preview", preview, `{"experiment":{"key":"mailing","traffic":0.5}}`, codes.FailedPrecondition, []string{"ROSTER_FIXED"}, "traffic"},
		{"again", "RosterService/AllocateRoster", `{"experiment":"mailing","subjects":[{"key":"x"}]}`, codes.AlreadyExists, []string{"ROSTER_EXISTS"}, ""},
	})
	a.do(t, update, `{"experiment":{"key":"mailing","description":"d","eligibility":"!has(attributes.out)",
		"variants":[{"key":"long"},{"key":"none","control":true,"weight":2},{"key":"short","payload":{"title":"Hello"}}]}}`)
	a.do(t, "ExperimentService/StartExperiment", `{"key":"mailing"}`)
	running := a.listedArms(t, "mailing", 100)
	a.refuses(t, []refusal{
		fixed("another weight, running", update, `"variants":[{"key":"none","control":true},{"key":"short"},{"key":"long"}]`, "variants"),
		{"reshuffle", update, `{"experiment":{"key":"mailing"},"reshuffle":true,"allow_movement":true}`, codes.FailedPrecondition, []string{"ROSTER_FIXED"}, "reshuffle"},
		{"delete", "RosterService/DeleteRoster", `{"experiment":"mailing"}`, codes.FailedPrecondition, []string{"ROSTER_IN_USE"}, "running"},
	})
	then := time.Now().UTC().Format(time.RFC3339Nano)
	a.do(t, update, `{"experiment":{"key":"mailing","variants":[{"key":"none","control":true,"weight":2},{"key":"short"},{"key":"long","payload":{"title":"A long one"}}]}}`)
	if !slices.Equal(running, a.listedArms(t, "mailing", 100)) {
		t.Error("another payload moved someone")
	}
	a.do(t, "ExperimentService/ConcludeExperiment", `{"key":"mailing","shipped_variant":"long"}`)
	if got := a.assigned(t, "mailing", `{"key":"v-1"}`); got.Variant != "long" || got.Reason != assayv1.Reason_REASON_CONCLUDED {
		t.Errorf("concluded: %v", got)
	}
	past := func() *assayv1.ExplainAssignmentResponse {
		return call[*assayv1.ExplainAssignmentResponse](t, a, "AssignmentService/ExplainAssignment", fmt.Sprintf(`{"subject":{"key":"u-1"},"experiment":"mailing","time":%q}`, then))
	}
	if got := past().Assignment; got.Reason != assayv1.Reason_REASON_ROSTER || got.Variant != running[1] {
		t.Errorf("explained %v, and it was %s", got, running[1])
	}
	a.do(t, "ExperimentService/ArchiveExperiment", `{"key":"mailing"}`)
	before := call[*assayv1.GetRosterResponse](t, a, "RosterService/GetRoster", `{"experiment":"mailing"}`).Roster
	a.expect(t, "RosterService/DeleteRoster", `{"experiment":"mailing"}`, `{"subjects":100}`)
	after := call[*assayv1.GetRosterResponse](t, a, "RosterService/GetRoster", `{"experiment":"mailing"}`).Roster
	if diff := cmp.Diff(before, after, protocmp.Transform(), protocmp.IgnoreFields(&assayv1.Roster{}, "delete_time")); diff != "" || after.DeleteTime == nil {
		t.Errorf("after the deletion: %v\n%s", after, diff)
	}
	if got := past(); got.Assignment.Reason != assayv1.Reason_REASON_NOT_IN_ROSTER || !strings.Contains(got.Gates[len(got.Gates)-1].Detail, "deleted") {
		t.Errorf("explained after the deletion: %v", got)
	}
	a.refuses(t, []refusal{{"delete twice", "RosterService/DeleteRoster", `{"experiment":"mailing"}`, codes.NotFound, []string{"ROSTER_NOT_FOUND"}, ""}})
}

// TestRosterRefused streams what is wrong.
func TestRosterRefused(t *testing.T) {
	a := newAPI(t)
	a.do(t, "LayerService/CreateLayer", `{"layer":{"key":"checkout"}}`)
	a.do(t, "ExperimentService/CreateExperiment", campaign("mailing"))
	a.do(t, "ExperimentService/CreateExperiment", campaign("running"))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"running"}`)
	for key, patch := range map[string]string{"layered": `"layer":"checkout"`, "external": `"assignment":"ASSIGNMENT_EXTERNAL"`, "half": `"traffic":0.5`} {
		a.do(t, "ExperimentService/CreateExperiment", newExperiment(fmt.Sprintf(`"key":%q,"metrics":[],%s`, key, patch)))
	}
	strata := func(from, to int) string {
		var list []string
		for i := from; i < to; i++ {
			list = append(list, fmt.Sprintf(`{"key":"u-%d","stratum":"s-%d"}`, i, i))
		}
		return strings.Join(list, ",")
	}
	covariates := func(from, to int) string {
		var list []string
		for i := from; i < to; i++ {
			list = append(list, fmt.Sprintf(`"c%d":1`, i))
		}
		return strings.Join(list, ",")
	}
	first := `{"experiment":"mailing","subjects":[{"key":"u-1"},{"key":"u-2","stratum":"high"}]}`
	long := strings.Repeat("k", 257)
	for _, tt := range []struct {
		name     string
		messages []string
		code     codes.Code
		details  []string
		says     string
	}{
		{"no message", nil, codes.InvalidArgument, []string{"experiment"}, "there was no message"},
		{"no subject", []string{`{"experiment":"mailing"}`, `{}`}, codes.InvalidArgument, []string{"subjects"}, "no subject"},
		{"no experiment", []string{`{"subjects":[{"key":"u-1"}]}`}, codes.InvalidArgument, []string{"experiment"}, "message 0: must be named"},
		{"unknown experiment", []string{`{"experiment":"nothing","subjects":[{"key":"u-1"}]}`}, codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, "nothing"},
		{"another experiment later", []string{first, `{"experiment":"half"}`}, codes.InvalidArgument, []string{"experiment"}, `message 1: is "half", and in the first message it was "mailing"`},
		{"a running experiment", []string{`{"experiment":"running","subjects":[{"key":"u-1"}]}`}, codes.FailedPrecondition, []string{"ROSTER_NEEDS_DRAFT"}, "running"},
		{"in a layer", []string{`{"experiment":"layered"}`}, codes.FailedPrecondition, []string{"ROSTER_NOT_POSSIBLE"}, "layer"},
		{"external", []string{`{"experiment":"external"}`}, codes.FailedPrecondition, []string{"ROSTER_NOT_POSSIBLE"}, "elsewhere"},
		{"half the traffic", []string{`{"experiment":"half"}`}, codes.FailedPrecondition, []string{"ROSTER_NOT_POSSIBLE"}, "traffic"},
		{"all rules of a subject", []string{first, fmt.Sprintf(`{"experiment":"A","subjects":[{"key":"u-3"},{},{"key":%q},{"key":"\u0000"},{"key":"u-4","stratum":%q},{"key":"u-5","stratum":"\u0000"}]}`, long, long)},
			codes.InvalidArgument, []string{"experiment", "subjects[1].key", "subjects[2].key", "subjects[3].key", "subjects[4].stratum", "subjects[5].stratum"}, "message 1: "},
		{"all rules of covariates", []string{`{"experiment":"mailing","subjects":[{"key":"a","covariates":{"x":"NaN"}},{"key":"b","covariates":{"x":"Infinity"}},{"key":"c","covariates":{"x":-1e101}},{"key":"d","covariates":{"X y":1}},{"key":"e","covariates":{` + covariates(0, 17) + `}}]}`},
			codes.InvalidArgument, []string{`subjects[0].covariates["x"]`, `subjects[0].covariates["x"]`, `subjects[1].covariates["x"]`, `subjects[1].covariates["x"]`, `subjects[2].covariates["x"]`, `subjects[3].covariates["X y"]`, `subjects[4].covariates`}, "message 0: "},
		{"covariates of many", []string{`{"experiment":"mailing","subjects":[{"key":"a","covariates":{` + covariates(0, 16) + `}}]}`, `{"subjects":[{"key":"b"},{"key":"c","covariates":{"other":1}}]}`},
			codes.InvalidArgument, []string{"subjects[1].covariates"}, "message 1: a roster has at most 16 covariates; leave some out"},
		{"1,001 strata", []string{`{"experiment":"mailing","subjects":[` + strata(0, 1000) + `]}`, `{"subjects":[` + strata(0, 2) + `,` + strata(2000, 2001) + `]}`},
			codes.InvalidArgument, []string{"subjects[2].stratum"}, "message 1: a roster has at most 1000 strata; join small ones"},
		{"twice in a message", []string{`{"experiment":"mailing","subjects":[{"key":"a"},{"key":"b"},{"key":"a"}]}`},
			codes.InvalidArgument, []string{"subjects[2].key"}, "message 0: the subject is also subjects[0] of message 0, in the same stratum"},
		{"twice in two strata, thrice, and another", []string{first, `{}`, `{"experiment":"mailing","subjects":[{"key":"u-2","stratum":"low"},{"key":"u-2","stratum":"low"},{"key":"u-3"},{"key":"u-1"}]}`},
			codes.InvalidArgument, []string{"subjects[0].key", "subjects[1].key", "subjects[3].key"}, `message 2: the subject is also subjects[1] of message 0, in the stratum "high", and here in "low"`},
		{"all twice", []string{`{"experiment":"mailing","subjects":[` + strata(0, 50) + `]}`, `{"subjects":[` + strata(0, 50) + `]}`},
			codes.InvalidArgument, nil, "; and "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := a.allocate(t, tt.messages...)
			if tt.details == nil {
				tt.details = refusalDetails(err)
			}
			checkRefusal(t, err, tt.code, tt.says, tt.details...)
		})
	}
	if _, err := a.allocate(t, `{"experiment":"mailing","subjects":[{"key":"a"}]}`); err != nil {
		t.Errorf("after all that: %v", err)
	}
	if e := a.get(t, "mailing"); e.RosterSubjects != 1 {
		t.Errorf("the experiment has a roster of %d", e.RosterSubjects)
	}
}

// TestRosterLimits sends the longest list and one subject more. Meanwhile other
// lists have no room, and afterwards they have.
func TestRosterLimits(t *testing.T) {
	a := newAPI(t)
	for _, key := range []string{"long", "other"} {
		a.do(t, "ExperimentService/CreateExperiment", campaign(key))
	}
	open, err := assayv1.NewRosterServiceClient(a.conn).AllocateRoster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	full := &assayv1.AllocateRosterRequest{Experiment: "long"}
	for range 10_000 {
		full.Subjects = append(full.Subjects, &assayv1.RosterSubject{Key: "same"})
	}
	send := func(m *assayv1.AllocateRosterRequest) {
		t.Helper()
		if err := open.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 {
		send(full)
	}
	other := func() error {
		_, err := a.allocate(t, `{"experiment":"other","subjects":[{"key":"a"},{"key":"a"}]}`)
		return err
	}
	for deadline := time.Now().Add(time.Minute); ; { // The server takes in what was sent in its own time.
		err := other()
		if status.Code(err) == codes.ResourceExhausted {
			checkRefusal(t, err, codes.ResourceExhausted, "2000000 subjects together", "TOO_MANY_ROSTERS")
			break
		}
		if checkRefusal(t, err, codes.InvalidArgument, "", "subjects[1].key"); time.Now().After(deadline) {
			t.Fatal("a list that is as long as all may be together leaves room for others")
		}
	}
	send(&assayv1.AllocateRosterRequest{Subjects: full.Subjects[:1]})
	_, err = open.CloseAndRecv()
	checkRefusal(t, err, codes.InvalidArgument, "message 200: a roster holds at most 2000000 subjects; spread the list", "subjects")
	checkRefusal(t, other(), codes.InvalidArgument, "", "subjects[1].key")
}

// TestStalledRosters has lists that stop in the middle hold all the room. They lose it to
// those that need it, one by one, and no more than is needed.
func TestStalledRosters(t *testing.T) {
	server.SetStreamLimits(t, func(l *server.StreamLimits) { l.RosterPause = time.Millisecond })
	a := newAPI(t)
	a.do(t, "ExperimentService/CreateExperiment", campaign("small"))
	part := &assayv1.AllocateRosterRequest{}
	for i := range 10_000 {
		part.Subjects = append(part.Subjects, &assayv1.RosterSubject{Key: fmt.Sprint(i)})
	}
	stalled := func(experiment string, parts int) assayv1.RosterService_AllocateRosterClient {
		a.do(t, "ExperimentService/CreateExperiment", campaign(experiment))
		stream, err := assayv1.NewRosterServiceClient(a.conn).AllocateRoster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		part.Experiment = experiment
		for range parts {
			if err := stream.Send(part); err != nil {
				t.Fatal(err)
			}
		}
		return stream
	}
	older := stalled("older", 100)
	younger := stalled("younger", 100)
	// What was sent is taken in in its time: until then the small list finds room.
	for i := 0; a.ended(t, "ROSTER_STALLED") == 0; i++ {
		key := fmt.Sprint("small-", i)
		a.do(t, "ExperimentService/CreateExperiment", campaign(key))
		if r, err := a.allocate(t, fmt.Sprintf(`{"experiment":%q,"subjects":[{"key":"a"}]}`, key)); err != nil || r.Subjects != 1 {
			t.Fatalf("a small list: %v, %v", r, err)
		}
	}
	_, err := older.CloseAndRecv()
	checkRefusal(t, err, codes.Unavailable, "too slowly", "ROSTER_STALLED")
	checkRetry(t, err)
	// It is told of its repeats, so it kept its room.
	if _, err := younger.CloseAndRecv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("the other list: %v", err)
	}
}

// TestRosterReference compares a roster with testdata/roster.json: an allocation
// by a program in another language, and its balance by numpy. For each variant's
// values x and the control's c,
//
//	x.mean(), x.std(ddof=1), (x.mean()-c.mean())/numpy.sqrt((x.var(ddof=1)+c.var(ddof=1))/2)
func TestRosterReference(t *testing.T) {
	text, err := os.ReadFile("testdata/roster.json")
	if err != nil {
		t.Fatal(err)
	}
	var reference rosterReference
	if err := json.Unmarshal(text, &reference); err != nil {
		t.Fatal(err)
	}
	a := newAPI(t)
	a.do(t, "ExperimentService/CreateExperiment", campaign("mailing"))
	req := &assayv1.AllocateRosterRequest{Experiment: "mailing"}
	for _, s := range reference.Subjects {
		req.Subjects = append(req.Subjects, &assayv1.RosterSubject{Key: s.Key, Stratum: s.Stratum, Covariates: s.Covariates})
	}
	made, err := a.allocateAll(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	a.do(t, "ExperimentService/StartExperiment", `{"key":"mailing"}`)
	for _, s := range reference.Subjects {
		if got := a.assigned(t, "mailing", fmt.Sprintf(`{"key":%q}`, s.Key)); got.Variant != s.Variant {
			t.Fatalf("%s has %q, and the figures are for %q", s.Key, got.Variant, s.Variant)
		}
	}
	got := map[string]map[string]figures{}
	for _, c := range made.Covariates {
		got[c.Name] = map[string]figures{}
		for _, v := range c.Variants {
			got[c.Name][v.Variant] = figures{v.Subjects, v.Missing, v.Mean, v.StandardDeviation, v.StandardizedDifference}
			if complete := v.Mean != nil && v.StandardDeviation != nil && (v.StandardizedDifference != nil || v.Variant == "none"); complete != (v.Note == "") {
				t.Errorf("%s: a note where nothing is absent, or none where something is: %v", c.Name, v)
			}
		}
	}
	if diff := cmp.Diff(reference.Balance, got, cmpopts.EquateApprox(1e-12, 0)); diff != "" {
		t.Errorf("-numpy +got:\n%s", diff)
	}
}

type rosterReference struct {
	Subjects []struct {
		Key, Stratum, Variant string
		Covariates            map[string]float64
	}
	Balance map[string]map[string]figures
}

type figures struct {
	Subjects, Missing           int64
	Mean, Deviation, Difference *float64
}
