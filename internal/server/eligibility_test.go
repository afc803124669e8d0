package server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// TestHostileAttributes sends attributes for whose size no predicate is priced
// by every way that leads to one.
func TestHostileAttributes(t *testing.T) {
	a := newAPI(t)
	const growing = `[1,2,3,4,5,6,7,8,9,10].map(x, attributes.a+attributes.a+attributes.a+attributes.a).map(y, y+y+y+y).map(z, z+z+z+z).exists(w, w == 'x')`
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(fmt.Sprintf(`"eligibility":%q,"metrics":[]`, growing)))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	huge := strings.Repeat("x", 3_900_000)
	subject := fmt.Sprintf(`{"key":"u","attributes":{"a":%q}}`, huge)
	says := "is 3900000 bytes long; at most 1024 are read"
	a.refuses(t, []refusal{
		{"Assign", "AssignmentService/Assign", `{"subject":` + subject + `}`, codes.InvalidArgument, []string{`subject.attributes["a"]`}, says},
		{"Assign what needs none", "AssignmentService/Assign", `{"subject":` + subject + `,"experiments":["none"]}`, codes.InvalidArgument, []string{`subject.attributes["a"]`}, says},
		{"ExplainAssignment", "AssignmentService/ExplainAssignment", `{"subject":` + subject + `,"experiment":"plain"}`, codes.InvalidArgument, []string{`subject.attributes["a"]`}, says},
	})
	batch := call[*assayv1.BatchAssignResponse](t, a, "AssignmentService/BatchAssign", `{"subjects":[`+subject+`,{"key":"u","attributes":{"a":"x"}}]}`)
	if r := batch.Results[0]; r.Error != `attributes["a"]: `+says || r.Assignments != nil {
		t.Errorf("the subject at fault: %v", r)
	}
	if r := batch.Results[1]; r.Error != "" || len(r.Assignments) != 1 || r.Assignments[0].Reason != assayv1.Reason_REASON_INELIGIBLE {
		t.Errorf("the other subject: %v", r)
	}
	flags := fmt.Sprintf(`{"targetingKey":"u","a":%q}`, huge)
	a.refusesFlag(t, "String", "plain", flags, codes.FailedPrecondition, "INVALID_CONTEXT", `context["a"] `+says)
	_, err := a.invokeFlagd(t, 1, "ResolveAll", `{"context":`+flags+`}`)
	checkRefusal(t, err, codes.FailedPrecondition, `context["a"] `+says, "INVALID_CONTEXT")
}

// eligibilityFailures reads the counter of an experiment's predicate.
func (a *api) eligibilityFailures(tb testing.TB, experiment string) (n float64, found bool) {
	tb.Helper()
	families, err := a.registry.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "assay_eligibility_failures_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == experiment {
				return m.GetCounter().GetValue(), true
			}
		}
	}
	return 0, false
}

// TestEligibilityFailures counts decisions whose predicate failed to evaluate,
// by every way that serves decisions, and once each.
func TestEligibilityFailures(t *testing.T) {
	a := newAPI(t)
	for _, key := range []string{"adults", "kept", "fine"} {
		patch := fmt.Sprintf(`"key":%q,"metrics":[],"eligibility":"attributes.age >= 18","sticky":%t`, key, key == "kept")
		if key == "fine" {
			patch = `"key":"fine","metrics":[],"eligibility":"has(attributes.age)"`
		}
		a.do(t, "ExperimentService/CreateExperiment", newExperiment(patch))
		a.do(t, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
	}
	check := func(after string, want float64) {
		t.Helper()
		for _, key := range []string{"adults", "kept"} {
			if n, found := a.eligibilityFailures(t, key); n != want || found != (want > 0) {
				t.Errorf("after %s: %v failures of %s, want %v", after, n, key, want)
			}
		}
		if n, found := a.eligibilityFailures(t, "fine"); found {
			t.Errorf("after %s: %v failures of a predicate that never failed", after, n)
		}
	}
	call[*assayv1.AssignResponse](t, a, "AssignmentService/Assign", `{"subject":{"key":"u","attributes":{"age":17}}}`)
	check("a subject that is not eligible", 0)
	call[*assayv1.AssignResponse](t, a, "AssignmentService/Assign", `{"subject":{"key":"u"}}`)
	check("Assign", 1)
	call[*assayv1.BatchAssignResponse](t, a, "AssignmentService/BatchAssign", `{"subjects":[{"key":"u"},{"key":"v","attributes":{"age":"x"}},{"key":"w","attributes":{"age":18}}]}`)
	check("BatchAssign", 3)
	if _, err := a.flag(t, 2, "String", "adults", anyone); err != nil {
		t.Fatal(err)
	}
	if _, err := a.flag(t, 2, "String", "kept", anyone); err != nil {
		t.Fatal(err)
	}
	check("a flag", 4)
	if _, err := a.invokeFlagd(t, 1, "ResolveAll", `{"context":`+anyone+`}`); err != nil {
		t.Fatal(err)
	}
	check("all flags", 5)
	for _, key := range []string{"adults", "kept"} {
		call[*assayv1.ExplainAssignmentResponse](t, a, "AssignmentService/ExplainAssignment", fmt.Sprintf(`{"subject":{"key":"u"},"experiment":%q}`, key))
	}
	check("explanations, which decide nothing", 5)
}

// TestStoredPattern holds that an experiment whose predicate takes a pattern
// from the subject, as was once accepted, is loaded, assigns nobody and says
// why. None can be created.
func TestStoredPattern(t *testing.T) {
	a, address := newAPIAt(t)
	a.refuses(t, []refusal{{"new", "ExperimentService/CreateExperiment", newExperiment(`"metrics":[],"eligibility":"attributes.a.matches(attributes.b)"`),
		codes.InvalidArgument, []string{"experiment.eligibility"}, "a pattern of matches must be a constant"}})
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"metrics":[],"eligibility":"attributes.a.matches('x')"`))
	conn := connect(t, address)
	tag, err := conn.Exec(context.Background(), `UPDATE experiment_revisions SET definition = jsonb_set(definition::jsonb, '{eligibility}', '"attributes.a.matches(attributes.b)"')::json`)
	if err != nil || tag.RowsAffected() != 1 {
		t.Fatal(tag, err)
	}
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	const subject = `"subject":{"key":"u","attributes":{"a":"x","b":"x"}}`
	got := call[*assayv1.AssignResponse](t, a, "AssignmentService/Assign", `{`+subject+`,"experiments":["plain"]}`).Assignments[0]
	if got.Reason != assayv1.Reason_REASON_INELIGIBLE || got.Variant != "" {
		t.Errorf("assigned %v", got)
	}
	x := call[*assayv1.ExplainAssignmentResponse](t, a, "AssignmentService/ExplainAssignment", `{`+subject+`,"experiment":"plain"}`)
	if detail := x.Gates[len(x.Gates)-1].Detail; !strings.Contains(detail, "failed to evaluate: a pattern of matches must be a constant") {
		t.Errorf("explained: %s", detail)
	}
	if n, _ := a.eligibilityFailures(t, "plain"); n != 1 {
		t.Errorf("%v failures counted", n)
	}
}
