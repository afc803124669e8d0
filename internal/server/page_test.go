package server_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// walk reads a list in pages of the given size, and returns its items. No page
// but the last is short.
func (a *api) walk(tb testing.TB, method, request string, size int) (items []proto.Message) {
	tb.Helper()
	fields := findMethod(tb, method).Output().Fields()
	list, next := fields.ByNumber(1), fields.ByName("next_page_token")
	for token := ""; ; {
		resp := call[proto.Message](tb, a, method, with(request, fmt.Sprintf(`"page_size":%d,"page_token":%q`, size, token))).ProtoReflect()
		page := resp.Get(list).List()
		for i := range page.Len() {
			items = append(items, page.Get(i).Message().Interface())
		}
		token = resp.Get(next).String()
		if token == "" || len(items) > 1000 {
			return items
		}
		if page.Len() != size {
			tb.Errorf("%s: a page of %d that is not the last", method, page.Len())
		}
	}
}

func TestPaging(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	for i := range 5 {
		a.do(t, "MetricService/CreateMetric", newMetric(fmt.Sprintf(`"key":"m%d"`, i)))
		a.live(t, fmt.Sprint("e", i), []string{"draft", "running", "paused", "concluded", "archived"}[i])
	}
	for i := range 5 {
		a.do(t, "ExperimentService/UpdateExperiment", fmt.Sprintf(`{"experiment":{"key":"e1","owner":"owner %d","labels":{"n":"%d"}}}`, i, i))
		a.do(t, "ExperimentService/SetOverrides", fmt.Sprintf(`{"experiment":"e1","overrides":[{"subject_key":"u-%d","variant":"a"}]}`, i))
		a.do(t, "AnalysisService/AnalyzeExperiment", `{"experiment":"e1"}`)
	}
	a.do(t, "MetricService/ArchiveMetric", `{"key":"m2"}`)
	for i := range 3 {
		a.do(t, "LayerService/CreateLayer", fmt.Sprintf(`{"layer":{"key":"l%d"}}`, 2-i))
		a.do(t, createHoldout, fmt.Sprintf(`{"holdout":{"key":"h%d","share":0.1,"kind":"KIND_STATUS_QUO","labels":{"n":"x"}}}`, 2-i))
	}

	for _, tt := range []struct {
		name, method, request string
		id                    protoreflect.Name
		want                  []string // Nil: any five, in their order.
	}{
		{"metrics", "MetricService/ListMetrics", `{}`, "key", []string{"m0", "m1", "m3", "m4", "purchase_rate"}},
		{"all metrics", "MetricService/ListMetrics", `{"include_archived":true}`, "key", []string{"m0", "m1", "m2", "m3", "m4", "purchase_rate"}},
		{"layers", "LayerService/ListLayers", `{}`, "key", []string{"l0", "l1", "l2"}},
		{"holdouts", "HoldoutService/ListHoldouts", `{}`, "key", []string{"h0", "h1", "h2"}},
		{"experiments", "ExperimentService/ListExperiments", `{}`, "key", []string{"e0", "e1", "e2", "e3"}},
		{"by states", "ExperimentService/ListExperiments", `{"states":["STATE_ARCHIVED","STATE_DRAFT"]}`, "key", []string{"e0", "e4"}},
		{"by labels", "ExperimentService/ListExperiments", `{"labels":{"n":"4"}}`, "key", []string{"e1"}},
		{"by another label", "ExperimentService/ListExperiments", `{"labels":{"n":"3"}}`, "key", []string{}},
		{"revisions", "ExperimentService/ListExperimentRevisions", `{"key":"e1"}`, "revision", []string{"6", "5", "4", "3", "2", "1"}},
		{"overrides", "ExperimentService/ListOverrides", `{"experiment":"e1"}`, "subject_id", nil},
		{"analyses", "AnalysisService/ListAnalyses", `{"experiment":"e1"}`, "analysis_id", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			whole := a.walk(t, tt.method, tt.request, 0)
			ids := []string{}
			for _, item := range whole {
				m := item.ProtoReflect()
				ids = append(ids, m.Get(m.Descriptor().Fields().ByName(tt.id)).String())
			}
			if tt.want != nil && !slices.Equal(ids, tt.want) {
				t.Errorf("listed %q, want %q", ids, tt.want)
			}
			if tt.want == nil && len(slices.Compact(slices.Sorted(slices.Values(ids)))) != 5 {
				t.Errorf("listed %q", ids)
			}
			for _, size := range []int{1, 2, len(whole), len(whole) + 1} {
				if diff := cmp.Diff(whole, a.walk(t, tt.method, tt.request, size), protocmp.Transform()); diff != "" {
					t.Errorf("in pages of %d (-whole +pages):\n%s", size, diff)
				}
			}
		})
	}
	analyses := a.walk(t, "AnalysisService/ListAnalyses", `{"experiment":"e1"}`, 2)
	for i, item := range analyses {
		s := item.(*assayv1.AnalysisSummary)
		full := call[*assayv1.GetAnalysisResponse](t, a, "AnalysisService/GetAnalysis", fmt.Sprintf(`{"analysis_id":%q}`, s.AnalysisId)).Analysis
		want := &assayv1.AnalysisSummary{AnalysisId: full.AnalysisId, Revision: full.Revision, AsOfTime: full.AsOfTime, CreateTime: full.CreateTime, Verdict: full.Verdict}
		if diff := cmp.Diff(want, s, protocmp.Transform()); diff != "" {
			t.Errorf("summary (-want +got):\n%s", diff)
		}
		if i > 0 && s.CreateTime.AsTime().After(analyses[i-1].(*assayv1.AnalysisSummary).CreateTime.AsTime()) {
			t.Error("a newer analysis comes later")
		}
	}
	revision := a.walk(t, "ExperimentService/ListExperimentRevisions", `{"key":"e1"}`, 0)[4].(*assayv1.ExperimentRevision)
	if revision.Experiment.Revision != 2 || revision.Experiment.Owner != "owner 0" || revision.Phase != 1 || revision.CreateTime == nil {
		t.Errorf("the second revision: %v", revision)
	}
}

// TestRequestIDs repeats creations.
func TestRequestIDs(t *testing.T) {
	a := newAPI(t)
	for _, tt := range []struct{ method, object, other, exists string }{
		{"MetricService/CreateMetric", newMetric(""), newMetric(`"key":"other"`), "METRIC_EXISTS"},
		{"ExperimentService/CreateExperiment", newExperiment(`"metrics":[]`), newExperiment(`"metrics":[],"key":"other"`), "EXPERIMENT_EXISTS"},
		{"LayerService/CreateLayer", `{"layer":{"key":"l"}}`, `{"layer":{"key":"other"}}`, "LAYER_EXISTS"},
		{createHoldout, newHoldout(""), newHoldout(`"key":"other"`), "HOLDOUT_EXISTS"},
	} {
		first := call[proto.Message](t, a, tt.method, with(tt.object, `"request_id":"r-1"`))
		again := call[proto.Message](t, a, tt.method, with(tt.object, `"request_id":"r-1"`))
		if diff := cmp.Diff(first, again, protocmp.Transform()); diff != "" {
			t.Errorf("%s again:\n%s", tt.method, diff)
		}
		a.refuses(t, []refusal{
			{"no id", tt.method, tt.object, codes.AlreadyExists, []string{tt.exists}, ""},
			{"another id", tt.method, with(tt.object, `"request_id":"r-2"`), codes.AlreadyExists, []string{tt.exists}, ""},
			{"another key", tt.method, with(tt.other, `"request_id":"r-1"`), codes.AlreadyExists, []string{tt.exists}, ""},
		})
		a.do(t, tt.method, tt.other)
	}
}
