package server_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/testing/protocmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// TestRevisionChanges updates a draft and then the running experiment, and
// reads what each revision changed.
func TestRevisionChanges(t *testing.T) {
	a := newAPI(t)
	a.createCheckoutCopy(t)
	steps := []struct{ update, changes string }{
		{`{"experiment":{"key":"checkout-copy","owner":"checkout","traffic":0.25}}`,
			`{"path":"owner","before":"growth","after":"checkout"},{"path":"traffic","before":0.5,"after":0.25}`},
		{`{"experiment":{"key":"checkout-copy"},"update_mask":"owner,eligibility"}`,
			`{"path":"owner","before":"checkout"},{"path":"eligibility","before":"attributes.country == 'PL' && attributes.age >= 18"}`},
		{`{"experiment":{"key":"checkout-copy","labels":{"team":"checkout","tier":"1"},"segments":["country","device"]}}`,
			`{"path":"labels[\"team\"]","before":"growth","after":"checkout"},{"path":"labels[\"tier\"]","after":"1"},
			{"path":"segments","before":["country"],"after":["country","device"]}`},
		{`{"experiment":{"key":"checkout-copy","labels":{"tier":"1"},"hypothesis":{"statement":"s"}},"update_mask":"labels,hypothesis"}`,
			`{"path":"hypothesis.statement","before":"…","after":"s"},{"path":"hypothesis.null_hypothesis","before":"…"},{"path":"labels[\"team\"]","before":"checkout"}`},
		{`{"experiment":{"key":"checkout-copy","variants":[{"key":"long"},{"key":"short","weight":3,"payload":{"title":"Pay","lines":[1]}},{"key":"control","control":true}]}}`,
			`{"path":"variants[\"long\"]","after":{"key":"long","weight":1}},
			{"path":"variants[\"short\"].weight","before":1,"after":3},
			{"path":"variants[\"short\"].payload","before":{"title":"Pay now"},"after":{"title":"Pay","lines":[1]}},
			{"path":"variants","before":["control","short"],"after":["long","short","control"]}`},
		{`{"experiment":{"key":"checkout-copy","plan":{"method":"METHOD_FIXED_HORIZON","minimum_effect":{"absolute":0.01},"planned_subjects":"20000"}}}`,
			`{"path":"plan.method","before":"METHOD_ALWAYS_VALID","after":"METHOD_FIXED_HORIZON"},
			{"path":"plan.minimum_effect.absolute","after":0.01},{"path":"plan.minimum_effect.relative","before":0.02}`},
		{`{"experiment":{"key":"checkout-copy","covariates":[{"name":"past_spend","past_outcomes":{"outcome":"purchase","aggregate":"AGGREGATE_SUM","window":"60s"}}],
			"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY"},{"metric":"refund_rate","role":"METRIC_ROLE_GUARDRAIL","margin":{"absolute":0.02}}]}}`,
			`{"path":"covariates[\"past_spend\"].attribute","before":"past_spend"},
			{"path":"covariates[\"past_spend\"].past_outcomes","after":{"outcome":"purchase","aggregate":"AGGREGATE_SUM","window":"60s"}},
			{"path":"metrics[\"refund_rate\"].margin.absolute","before":0.01,"after":0.02},
			{"path":"metrics[\"revenue\"]","before":{"metric":"revenue","role":"METRIC_ROLE_SECONDARY","objective":"OBJECTIVE_DIFFERENCE","covariates":["past_spend"]}}`},
		{`{"experiment":{"key":"checkout-copy","unit":"account","salt":"s","assignment":"ASSIGNMENT_NATIVE"}}`,
			`{"path":"unit","before":"user","after":"account"},{"path":"salt","before":"checkout-copy","after":"s"}`},
	}
	for _, step := range steps {
		a.do(t, "ExperimentService/UpdateExperiment", step.update)
	}
	a.do(t, "ExperimentService/StartExperiment", `{"key":"checkout-copy"}`)
	a.do(t, "ExperimentService/UpdateExperiment", `{"experiment":{"key":"checkout-copy"},"reshuffle":true,"allow_movement":true}`)

	list := call[*assayv1.ListExperimentRevisionsResponse](t, a, "ExperimentService/ListExperimentRevisions", `{"key":"checkout-copy"}`).Revisions
	if len(list) != len(steps)+2 {
		t.Fatalf("%d revisions", len(list))
	}
	reshuffled := list[0].Changes
	if len(reshuffled) != 1 || reshuffled[0].Path != "split_salt" || reshuffled[0].Before != nil || reshuffled[0].After.GetStringValue() != list[0].Experiment.SplitSalt {
		t.Errorf("the reshuffle: %v", reshuffled)
	}
	for i, step := range steps {
		got := list[len(list)-2-i]
		want := parse(t, got.ProtoReflect().Descriptor(), `{"changes":[`+step.changes+`]}`)
		if diff := cmp.Diff(want, &assayv1.ExperimentRevision{Changes: got.Changes}, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.update, diff)
		}
	}
	if first := list[len(list)-1]; first.Revision != 1 || len(first.Changes) != 0 {
		t.Errorf("the first revision: %v", first)
	}
	// The last revision of a page is compared with one that is not on it.
	page := call[*assayv1.ListExperimentRevisionsResponse](t, a, "ExperimentService/ListExperimentRevisions", `{"key":"checkout-copy","page_size":1}`).Revisions
	if diff := cmp.Diff(list[:1], page, protocmp.Transform()); diff != "" {
		t.Errorf("a page of one (-of all +alone):\n%s", diff)
	}
}

// TestAuthors names the authors of changes, well and badly.
func TestAuthors(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	long := strings.Repeat("x", 257)
	authors := []struct {
		sent []string
		kept string
	}{
		{[]string{"assay-author", "ana@example.com"}, "ana@example.com"},
		{nil, ""},
		{[]string{"Assay-Author", "Ben"}, "Ben"},
		{[]string{"assay-author", long}, ""},
		{[]string{"assay-author", long[1:]}, long[1:]},
		{[]string{"assay-author", "Ana", "assay-author", "Ben"}, ""},
		{[]string{"assay-author", ""}, ""},
		{[]string{"author", "Ana"}, ""},
	}
	for i, author := range authors {
		ctx := metadata.AppendToOutgoingContext(t.Context(), author.sent...)
		var err error
		if i == 0 {
			req := newRequest(t, "ExperimentService/CreateExperiment", newExperiment("")).(*assayv1.CreateExperimentRequest)
			_, err = a.experiments.CreateExperiment(ctx, req)
		} else {
			_, err = a.experiments.UpdateExperiment(ctx, &assayv1.UpdateExperimentRequest{
				Experiment: &assayv1.Experiment{Key: "plain", Description: strings.Repeat("d", i)},
			})
		}
		if err != nil {
			t.Fatalf("%q: %v", author.sent, err)
		}
	}
	list := call[*assayv1.ListExperimentRevisionsResponse](t, a, "ExperimentService/ListExperimentRevisions", `{"key":"plain"}`).Revisions
	for i, author := range authors {
		if got := list[len(list)-1-i]; got.Author != author.kept || got.AuthorVerified {
			t.Errorf("%.20q: %q, verified %v", author.sent, got.Author, got.AuthorVerified)
		}
	}
}
