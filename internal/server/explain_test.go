package server_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/postgres/postgrestest"
)

// randomStep tries a change of the experiment "plain", which its state may
// forbid, and says what it did.
func (a *api) randomStep(t *testing.T, r *rand.Rand) string {
	t.Helper()
	update := func(patch string) (string, string) {
		return "UpdateExperiment", `{"allow_movement":true,"experiment":{"key":"plain",` + patch + `}}`
	}
	var method, request string
	switch r.IntN(12) {
	case 0, 1, 2:
		variant := []string{"a", "b", ""}[r.IntN(3)]
		method, request = "SetOverrides", fmt.Sprintf(`{"experiment":"plain","overrides":[{"subject_key":"u-%d","variant":%q},{"subject_key":"u-%d"}]}`, r.IntN(3), variant, 3+r.IntN(3))
	case 3:
		method, request = update(fmt.Sprintf(`"owner":"%d"`, r.IntN(100)))
	case 4:
		method, request = update(fmt.Sprintf(`"traffic":%.2f`, r.Float64()))
	case 5:
		method, request = update(fmt.Sprintf(`"variants":[{"key":"a","control":true,"payload":{"n":%d}},{"key":"b"}]`, r.IntN(100)))
	case 6:
		method, request = update(fmt.Sprintf(`"variants":[{"key":"a","control":true,"weight":%d},{"key":"b"}]`, 1+r.IntN(9)))
	case 7:
		method, request = update(fmt.Sprintf(`"eligibility":"attributes.age >= %d.0"`, 10+r.IntN(20)))
	case 8, 9:
		method, request = "StartExperiment", `{"key":"plain"}`
	case 10:
		method, request = "PauseExperiment", `{"key":"plain"}`
	case 11:
		method, request = "ResumeExperiment", `{"key":"plain"}`
	}
	_, err := a.invoke(t, "ExperimentService/"+method, newRequest(t, "ExperimentService/"+method, request))
	return fmt.Sprint(method, request, err)
}

// TestExplainThePast explains, at the end of an experiment's life, what was
// assigned at each time of it.
func TestExplainThePast(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	before := time.Now()
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"eligibility":"attributes.age >= 18.0","traffic":0.5`))
	req := &assayv1.BatchAssignRequest{Experiments: []string{"plain"}}
	for i := range 8 {
		age := structpb.NewNumberValue(float64(10 + 3*i))
		req.Subjects = append(req.Subjects, &assayv1.Subject{Key: fmt.Sprint("u-", i), Attributes: &structpb.Struct{Fields: map[string]*structpb.Value{"age": age}}})
	}
	type asked struct {
		step   string
		time   time.Time
		state  assayv1.State
		answer *assayv1.BatchAssignResponse
	}
	var moments []asked
	ask := func(step string) {
		t.Helper()
		answer, err := a.assign.BatchAssign(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		moments = append(moments, asked{step, time.Now(), a.get(t, "plain").State, answer})
	}
	ask("created")
	r := rand.New(rand.NewPCG(9, 10))
	for range 50 {
		ask(a.randomStep(t, r))
	}
	a.do(t, "ExperimentService/ConcludeExperiment", `{"key":"plain","shipped_variant":"b"}`)
	ask("concluded")
	a.do(t, "ExperimentService/ArchiveExperiment", `{"key":"plain"}`)
	ask("archived")

	reasons := map[assayv1.Reason]bool{}
	for _, m := range moments {
		for i, subject := range req.Subjects {
			want := m.answer.Results[i].Assignments[0]
			got, err := a.assign.ExplainAssignment(t.Context(), &assayv1.ExplainAssignmentRequest{
				Subject: subject, Experiment: "plain", Moment: &assayv1.ExplainAssignmentRequest_Time{Time: timestamppb.New(m.time)},
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got.Assignment, protocmp.Transform()); diff != "" || got.State != m.state || len(got.Gates) == 0 {
				t.Fatalf("%s after %s, %v (-assigned +explained):\n%s", subject.Key, m.step, got.State, diff)
			}
			reasons[want.Reason] = true
		}
	}
	for _, reason := range []assayv1.Reason{assayv1.Reason_REASON_NOT_RUNNING, assayv1.Reason_REASON_OVERRIDE, assayv1.Reason_REASON_SPLIT, assayv1.Reason_REASON_NO_TRAFFIC,
		assayv1.Reason_REASON_INELIGIBLE, assayv1.Reason_REASON_CONCLUDED} {
		if !reasons[reason] {
			t.Errorf("no subject met %v", reason)
		}
	}
	explain := func(moment string) string {
		return `{"subject":{"key":"u-1"},"experiment":"plain",` + moment + `}`
	}
	const method = "AssignmentService/ExplainAssignment"
	a.refuses(t, []refusal{
		{"before it was created", method, explain(`"time":"` + before.UTC().Format(time.RFC3339Nano) + `"`), codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, "created at"},
		{"long before", method, explain(`"time":"0001-01-01T00:00:00Z"`), codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, "created at"},
		{"the future", method, explain(`"time":"9999-12-31T23:59:59Z"`), codes.InvalidArgument, []string{"time"}, "future"},
		{"a revision that is none", method, explain(`"revision":1000`), codes.NotFound, []string{"REVISION_NOT_FOUND"}, "1000"},
		{"revision 0", method, explain(`"revision":0`), codes.InvalidArgument, []string{"revision"}, "greater"},
		{"an unknown experiment", method, `{"subject":{"key":"u-1"},"experiment":"nothing","revision":1}`, codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, "nothing"},
	})
	_, err := a.assign.ExplainAssignment(t.Context(), &assayv1.ExplainAssignmentRequest{
		Subject: req.Subjects[0], Experiment: "plain", Moment: &assayv1.ExplainAssignmentRequest_Time{Time: &timestamppb.Timestamp{Nanos: -1}},
	})
	checkRefusal(t, err, codes.InvalidArgument, "valid timestamp", "time")
}

// TestExplainRevisions asks a server that has not heard of the newest revision.
func TestExplainRevisions(t *testing.T) {
	db := postgrestest.Open(t)
	ahead, behind := serve(t, db, true), serve(t, db, false)
	ahead.createCheckoutCopy(t)
	ahead.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"checkout-copy","eligibility":"attributes.country == 'DE'"}}`)
	explain := func(revision int, want string) {
		t.Helper()
		got := call[*assayv1.ExplainAssignmentResponse](t, behind, "AssignmentService/ExplainAssignment", fmt.Sprintf(
			`{"subject":{"key":"u-1","attributes":{"country":"PL","age":31}},"experiment":"checkout-copy","revision":%d}`, revision))
		if diff := cmp.Diff(parse(t, got.Assignment.ProtoReflect().Descriptor(), want), got.Assignment, protocmp.Transform()); diff != "" {
			t.Errorf("revision %d (-want +got):\n%s", revision, diff)
		}
		if revision == 1 {
			checkGoldenGates(t, got)
		}
	}
	explain(1, `{"experiment":"checkout-copy","variant":"short","reason":"REASON_SPLIT","payload":{"title":"Pay now"},"revision":1}`)
	explain(2, `{"experiment":"checkout-copy","reason":"REASON_INELIGIBLE","revision":2}`)
	ahead.do(t, "ExperimentService/SetOverrides", `{"experiment":"checkout-copy","overrides":[{"subject_key":"u-1","variant":"control"}]}`)
	explain(2, `{"experiment":"checkout-copy","variant":"control","reason":"REASON_OVERRIDE","revision":2}`)
}
