package server_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

const compareAnalyses = "AnalysisService/CompareAnalyses"

// buyer is a subject with what it paid: what was recorded before the earlier
// analysis, and after it.
type buyer struct {
	key, variant string
	paid, late   []float64
	isNew        bool   // First exposed after the earlier analysis.
	erased       string // "" for never, "between" the analyses, or "after" both.
}

// buyers are ten subjects of each variant who were there from the beginning.
func buyers() []buyer {
	var list []buyer
	for i := range 20 {
		list = append(list, buyer{
			key: fmt.Sprint("u-", i), variant: []string{"a", "b"}[i%2], paid: []float64{float64(i%7) + 0.5, float64(3 * (i % 5))},
		})
	}
	return list
}

// The metrics of the test: all that was paid, and the number of large orders,
// which its second revision takes to be larger.
func sumPaid(orders []float64) (sum float64) {
	for _, x := range orders {
		sum += x
	}
	return sum
}

func largerThan(least float64) func([]float64) float64 {
	return func(orders []float64) (n float64) {
		for _, x := range orders {
			if x > least {
				n++
			}
		}
		return n
	}
}

// difference compares the means of those buyers that count.
func difference(list []buyer, counts func(*buyer) bool, late bool, of func([]float64) float64) float64 {
	sum, n := map[string]float64{}, map[string]float64{}
	for i := range list {
		b := &list[i]
		if !counts(b) {
			continue
		}
		orders := b.paid
		if late {
			orders = append(slices.Clone(orders), b.late...)
		}
		sum[b.variant] += of(orders)
		n[b.variant]++
	}
	return sum["b"]/n["b"] - sum["a"]/n["a"]
}

func (a *api) exposeBuyers(tb testing.TB, experiment string, list []buyer, isNew bool) {
	tb.Helper()
	var exposures []string
	for _, b := range list {
		if b.isNew == isNew {
			exposures = append(exposures, fmt.Sprintf(`{"experiment":%q,"variant":%q,"subject":{"key":%q},"exposed_time":"2026-01-05T10:00:00Z"}`, experiment, b.variant, b.key))
		}
	}
	a.do(tb, "EventService/RecordExposures", `{"exposures":[`+strings.Join(exposures, ",")+`]}`)
}

func (a *api) pay(tb testing.TB, name string, list []buyer, paid func(*buyer) []float64) {
	tb.Helper()
	outcomes := []string{`{"event_id":"x","subject":{"key":"nobody"},"name":"purchase","occurred_time":"2026-01-05T11:00:00Z"}`}
	for i := range list {
		for j, x := range paid(&list[i]) {
			outcomes = append(outcomes, fmt.Sprintf(`{"event_id":"%s-%d","subject":{"key":%q},"name":"purchase","value":%g,"occurred_time":"2026-01-05T11:00:00Z"}`, name, j, list[i].key, x))
		}
	}
	a.do(tb, "EventService/RecordOutcomes", `{"outcomes":[`+strings.Join(outcomes, ",")+`]}`)
}

func (a *api) eraseBuyers(tb testing.TB, list []buyer, when string) {
	tb.Helper()
	for _, b := range list {
		if b.erased == when {
			a.do(tb, "SubjectService/EraseSubject", fmt.Sprintf(`{"subject":{"key":%q}}`, b.key))
		}
	}
}

// TestCompareAnalyses lets each thing that can change an estimate happen alone
// between two analyses, and all of them together.
func TestCompareAnalyses(t *testing.T) {
	type change func(list []buyer) []buyer
	late := func(list []buyer) []buyer {
		list[1].late, list[3].late, list[4].late = []float64{8}, []float64{20, 3}, []float64{12}
		return list
	}
	newcomers := func(list []buyer) []buyer {
		for i := range 7 {
			list = append(list, buyer{key: fmt.Sprint("new-", i), variant: []string{"a", "b", "b"}[i%3], late: []float64{float64(5 * i)}, isNew: true})
		}
		return list
	}
	erased := func(when string, which ...int) change {
		return func(list []buyer) []buyer {
			for _, i := range which {
				list[i].erased = when
			}
			return list
		}
	}
	cases := []struct {
		name      string
		changes   []change
		redefined bool
	}{
		{"nothing", nil, false},
		{"late", []change{late}, false},
		{"new", []change{newcomers}, false},
		{"redefined", nil, true},
		{"erased-between", []change{erased("between", 5, 6)}, false},
		{"erased-after", []change{erased("after", 5, 6)}, false},
		{"everything", []change{late, newcomers, erased("between", 5, 6, 3), erased("after", 7, 4, 22)}, true},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			a := newAPI(t)
			a.do(t, "MetricService/CreateMetric", revenue)
			large := func(least int) string {
				return fmt.Sprintf(`"formula":{"expression":"n","components":[{"name":"n","outcome":"purchase","aggregate":"AGGREGATE_COUNT","conditions":[{"field":"value","op":"OP_GREATER","values":["%d"]}]}]}`, least)
			}
			a.do(t, "MetricService/CreateMetric", `{"metric":{"key":"large","direction":"DIRECTION_INCREASE",`+large(5)+`}}`)
			a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL","metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"}]`))
			a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
			list := buyers()
			for _, change := range tt.changes {
				list = change(list)
			}
			analyze := func() string {
				return call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain","metrics":["large"]}`).AnalysisId
			}
			a.exposeBuyers(t, "plain", list, false)
			a.pay(t, "early", list, func(b *buyer) []float64 { return b.paid })
			from := analyze()
			if slices.ContainsFunc(list, func(b buyer) bool { return b.isNew }) {
				a.exposeBuyers(t, "plain", list, true)
			}
			a.pay(t, "late", list, func(b *buyer) []float64 { return b.late })
			if tt.redefined {
				a.do(t, "MetricService/UpdateMetric", `{"metric":{"key":"large",`+large(7)+`}}`)
			}
			a.eraseBuyers(t, list, "between")
			to := analyze()
			a.eraseBuyers(t, list, "after")

			got := call[*assayv1.CompareAnalysesResponse](t, a, compareAnalyses, `{"experiment":"plain"}`)
			if got.FromAnalysisId != from || got.ToAnalysisId != to || len(got.Changes) != 2 {
				t.Fatalf("compared %v, want %s with %s", got, from, to)
			}
			byID := call[*assayv1.CompareAnalysesResponse](t, a, compareAnalyses, fmt.Sprintf(`{"from_analysis_id":%q,"to_analysis_id":%q}`, from, to))
			largeAfter := largerThan(5)
			if tt.redefined {
				largeAfter = largerThan(7)
			}
			checkChange(t, got.Changes[0], list, "revenue", sumPaid, sumPaid)
			checkChange(t, got.Changes[1], list, "large", largerThan(5), largeAfter)
			checkChange(t, byID.Changes[1], list, "large", largerThan(5), largeAfter)
			checkNotes(t, got, list, tt.redefined)
		})
	}
}

// checkChange computes the estimates between the analyses, each in its own way.
func checkChange(t *testing.T, c *assayv1.EstimateChange, list []buyer, metric string, before, after func([]float64) float64) {
	t.Helper()
	if c.Metric != metric || c.Variant != "b" {
		t.Fatalf("%s of %s, want %s of b", c.Metric, c.Variant, metric)
	}
	old := func(b *buyer) bool { return !b.isNew && b.erased == "" }
	left := func(b *buyer) bool { return b.erased == "" }
	from := difference(list, func(b *buyer) bool { return !b.isNew }, false, before)
	to := difference(list, func(b *buyer) bool { return b.erased != "between" }, true, after)
	again, redefined := difference(list, old, false, before), difference(list, old, false, after)
	known, all := difference(list, old, true, after), difference(list, left, true, after)
	want := []float64{from, to, again - from + to - all, redefined - again, known - redefined, all - known}
	shares := []*float64{c.From, c.To, c.ByErasures, c.ByDefinition, c.ByLateEvents, c.ByNewSubjects}
	sum := 0.0
	for i, name := range []string{"from", "to", "by erasures", "by definition", "by late events", "by new subjects"} {
		if shares[i] == nil || math.Abs(*shares[i]-want[i]) > 1e-9 || i > 1 && want[i] == 0 && *shares[i] != 0 {
			t.Errorf("%s, %s: %v, want %v", metric, name, shares[i], want[i])
			return
		}
		if i > 1 {
			sum += *shares[i]
		}
	}
	if math.Abs(sum-(to-from)) > 1e-9 {
		t.Errorf("%s: the shares add up to %v, and the estimate changed by %v", metric, sum, to-from)
	}
}

func checkNotes(t *testing.T, got *assayv1.CompareAnalysesResponse, list []buyer, redefined bool) {
	t.Helper()
	var notes, changes []string
	if redefined {
		changes = []string{"The metric large is of revision 2 instead of 1."}
	}
	all, after := 0, 0
	for _, b := range list {
		if b.erased != "" {
			all++
		}
		if b.erased == "after" {
			after++
		}
	}
	if all > 0 {
		notes = []string{fmt.Sprintf("Subjects with an exposure that were erased since the earlier analysis: %d, and since the later one: %d.", all, after)}
	}
	if diff := cmp.Diff(changes, got.DefinitionChanges); diff != "" {
		t.Errorf("definition changes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(notes, got.Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

// TestCompareOtherAnalyses compares what only one of two analyses has, pins, and
// a variant that went.
func TestCompareOtherAnalyses(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", revenue)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL","segments":["country"],
		"variants":[{"key":"a","control":true},{"key":"b"},{"key":"c"}],"metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"}]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	list := buyers()
	list[2].variant = "c"
	a.exposeBuyers(t, "plain", list, false)
	a.pay(t, "early", list, func(b *buyer) []float64 { return b.paid })
	from := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain","segments":["country"]}`).AnalysisId
	a.refuses(t, []refusal{{"one alone", compareAnalyses, `{"experiment":"plain"}`, codes.FailedPrecondition, []string{"TOO_FEW_ANALYSES"}, `"plain" has fewer than two`}})

	a.do(t, updateExperiment, `{"experiment":{"key":"plain","owner":"x","variants":[{"key":"a","control":true},{"key":"b"}]},"allow_movement":true}`)
	a.do(t, "ExperimentService/SetOverrides", `{"experiment":"plain","overrides":[{"subject_key":"u-1","variant":"a"}]}`)
	to := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain","metrics":["purchase_rate"]}`).AnalysisId
	got := call[*assayv1.CompareAnalysesResponse](t, a, compareAnalyses, fmt.Sprintf(`{"from_analysis_id":%q,"to_analysis_id":%q}`, from, to))
	if diff := cmp.Diff([]string{
		`The experiment is of revision 2 instead of 1; changed: owner, variants["c"].`, "Only the earlier analysis is cut by country.",
	}, got.DefinitionChanges); diff != "" {
		t.Errorf("definition changes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"Only the earlier analysis compares c on revenue.", "Only the later analysis has the metric purchase_rate.",
	}, got.Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	before := difference(list, func(*buyer) bool { return true }, false, sumPaid)
	after := difference(list, func(b *buyer) bool { return b.key != "u-1" }, false, sumPaid)
	if c := got.Changes[0]; len(got.Changes) != 1 || math.Abs(c.GetByLateEvents()-(after-before)) > 1e-9 || c.GetByDefinition() != 0 || c.GetByNewSubjects() != 0 || c.GetByErasures() != 0 {
		t.Errorf("changes %v: a pin took a subject away, by which the difference went from %v to %v", got.Changes, before, after)
	}

	// Of two of one moment, that which was made first is the earlier one.
	var made []string
	for _, metrics := range []string{`[]`, `["purchase_rate"]`} {
		request := `{"experiment":"plain","as_of_time":"2026-01-20T00:00:00Z","metrics":` + metrics + `}`
		made = append(made, call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", request).AnalysisId)
	}
	got = call[*assayv1.CompareAnalysesResponse](t, a, compareAnalyses, `{"experiment":"plain"}`)
	if got.FromAnalysisId != made[0] || got.ToAnalysisId != made[1] || len(got.Notes) != 2 || !strings.HasPrefix(got.Notes[0], "b on revenue: There is no estimate") {
		t.Errorf("of one moment, before any subject: %v; want %s with %s", got, made[0], made[1])
	}

	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"key":"other","metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"}]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"other"}`)
	other := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"other"}`).AnalysisId
	a.do(t, createHoldout, newHoldout(`"key":"h","labels":{"x":"y"}`))
	held := call[*assayv1.AnalyzeHoldoutResponse](t, a, "AnalysisService/AnalyzeHoldout", `{"holdout":"h","metrics":["revenue"]}`).AnalysisId
	const nobody = "00000000-0000-4000-8000-000000000000"
	pair := func(from, to string) string {
		return fmt.Sprintf(`{"from_analysis_id":%q,"to_analysis_id":%q}`, from, to)
	}
	a.refuses(t, []refusal{
		{"backwards", compareAnalyses, pair(to, from), codes.InvalidArgument, []string{"from_analysis_id"}, "is of a later moment"},
		{"of two experiments", compareAnalyses, pair(from, other), codes.InvalidArgument, []string{"to_analysis_id"}, "of another experiment"},
		{"to a holdout", compareAnalyses, pair(from, held), codes.InvalidArgument, []string{"to_analysis_id"}, "is of a holdout"},
		{"from a holdout", compareAnalyses, pair(held, to), codes.InvalidArgument, []string{"from_analysis_id"}, "is of a holdout"},
		{"unknown", compareAnalyses, pair(from, nobody), codes.NotFound, []string{"ANALYSIS_NOT_FOUND"}, ""},
		{"unknown experiment", compareAnalyses, `{"experiment":"nothing"}`, codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, ""},
		{"nothing", compareAnalyses, `{}`, codes.InvalidArgument, []string{"from_analysis_id", "to_analysis_id"}, "must be given"},
		{"half", compareAnalyses, `{"from_analysis_id":"` + from + `"}`, codes.InvalidArgument, []string{"to_analysis_id"}, "must be given"},
		{"both ways", compareAnalyses, `{"experiment":"plain","to_analysis_id":"` + to + `"}`, codes.InvalidArgument, []string{"to_analysis_id"}, "must be left out"},
		{"no id", compareAnalyses, pair("x", to), codes.InvalidArgument, []string{"from_analysis_id"}, ""},
	})
}

// Where outcomes have been dropped since, nobody can tell what an erasure did.
func TestCompareDropped(t *testing.T) {
	a, address := newAPIAt(t)
	a.do(t, "MetricService/CreateMetric", revenue)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL","metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"}]`))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	list := buyers()
	list[5].erased, list[6].erased = "between", "after"
	a.exposeBuyers(t, "plain", list, false)
	a.pay(t, "early", list, func(b *buyer) []float64 { return b.paid })
	a.do(t, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"}`)
	a.eraseBuyers(t, list, "between")
	a.do(t, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"}`)
	a.eraseBuyers(t, list, "after")
	compare := func() *assayv1.CompareAnalysesResponse {
		return call[*assayv1.CompareAnalysesResponse](t, a, compareAnalyses, `{"experiment":"plain"}`)
	}
	if got := compare(); got.Changes[0].GetByErasures() == 0 {
		t.Fatalf("before outcomes were dropped: %v", got)
	}
	conn := connect(t, address)
	for _, statement := range []string{`DELETE FROM outcomes`, `INSERT INTO settings VALUES ('outcomes_kept_from', '2026-02-01T00:00:00Z')`} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	got := compare()
	if c := got.Changes[0]; c.From == nil || c.To == nil || c.ByErasures != nil || c.ByNewSubjects != nil || !strings.Contains(got.Notes[0], "outcomes have been dropped") {
		t.Errorf("after outcomes were dropped: %v", got)
	}
}
