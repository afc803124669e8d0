package server_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// Whatever decodes as a request is answered or refused: it never ends in
// INTERNAL, UNKNOWN or a panic, and no number of an answer is NaN or infinite.

// requests are those with which the search begins. They stand in an order in
// which all of them succeed.
var requests = []struct{ method, request string }{
	{"MetricService/CreateMetric", purchaseRate},
	{"MetricService/CreateMetric", revenue},
	{"MetricService/CreateMetric", orderValue},
	{"MetricService/CreateMetric", refundRate},
	{"MetricService/CreateMetric", `{"request_id":"r","metric":{"key":"mean-size","direction":"DIRECTION_INCREASE","mean":{"outcome":"purchase","conditions":[{"field":"sku","op":"OP_EQUAL","values":["A1","B2"]}]}}}`},
	{"MetricService/CreateMetric", `{"metric":{"key":"days","direction":"DIRECTION_INCREASE","ratio":{"numerator":{"outcome":"purchase","aggregate":"AGGREGATE_DISTINCT_DAYS","cap":{"lower_value":0,"upper_percentile":99}},"denominator":{"name":"d","outcome":"visit","aggregate":"AGGREGATE_LAST"}}}}`},
	{"MetricService/UpdateMetric", `{"metric":{"key":"days","window":"60s","description":"d"},"update_mask":"window,description"}`},
	{"MetricService/GetMetric", `{"key":"days","revision":1}`},
	{"MetricService/ListMetrics", `{"page_size":2,"page_token":"bTA","include_archived":true}`},
	{"LayerService/CreateLayer", `{"request_id":"l","layer":{"key":"checkout","unit":"user","description":"d"}}`},
	{"LayerService/UpdateLayer", `{"layer":{"key":"checkout","salt":"s"},"update_mask":"salt"}`},
	{"LayerService/ListLayers", `{"page_size":1,"page_token":"YQ"}`},
	{"ExperimentService/CreateExperiment", `{"experiment":{"key":"layered","layer":"checkout","traffic":0.3,"variants":[{"key":"a","control":true},{"key":"b"}]}}`},
	{"ExperimentService/StartExperiment", `{"key":"layered"}`},
	{"ExperimentService/UpdateExperiment", `{"experiment":{"key":"layered","traffic":0.4}}`},
	{"LayerService/GetLayer", `{"key":"checkout"}`},
	{"AssignmentService/ExplainAssignment", `{"subject":{"key":"u-1"},"experiment":"layered"}`},
	{"HoldoutService/CreateHoldout", `{"request_id":"h","holdout":{"key":"global","share":0.2,"kind":"KIND_NO_PERSONALISATION","labels":{"team":"growth"},"end_time":"2100-01-01T00:00:00Z"},"running_experiments":"RUNNING_EXPERIMENTS_LEAVE"}`},
	{"HoldoutService/CreateHoldout", `{"holdout":{"key":"later","share":0.1,"kind":"KIND_STATUS_QUO","labels":{"team":"x"},"start_time":"2090-01-01T00:00:00Z"}}`},
	{"HoldoutService/UpdateHoldout", `{"holdout":{"key":"later","share":0.3,"salt":"s","description":"d"},"update_mask":"share,salt,description"}`},
	{"HoldoutService/UpdateHoldout", `{"holdout":{"key":"global","end_time":"2099-01-01T00:00:00Z"}}`},
	{"HoldoutService/GetHoldout", `{"key":"global"}`},
	{"HoldoutService/ListHoldouts", `{"page_size":1,"page_token":"YQ"}`},
	{"ExperimentService/CreateExperiment", `{"experiment":{"key":"sticky","sticky":true,"variants":[{"key":"a","control":true},{"key":"b"}]}}`},
	{"ExperimentService/StartExperiment", `{"key":"sticky"}`},
	{"AssignmentService/Assign", `{"subject":{"key":"u-1"},"experiments":["sticky"],"exposure_recording":"EXPOSURE_RECORDING_DURABLE"}`},
	{"EventService/RecordExposures", `{"exposures":[{"experiment":"sticky","variant":"a","subject":{"key":"u-1"}},{"experiment":"sticky","variant":"b","subject":{"key":"u-1"}}]}`},
	{"ExperimentService/UpdateExperiment", `{"experiment":{"key":"sticky","intake_closed":true}}`},
	{"AssignmentService/ExplainAssignment", `{"subject":{"key":"u-1"},"experiment":"sticky"}`},
	{"AssignmentService/BatchAssign", `{"subjects":[{"key":"u-1"},{"key":"u-2"}],"experiments":["sticky","layered"]}`},
	{"ExperimentService/CreateExperiment", checkoutCopy},
	{"ExperimentService/CreateExperiment", `{"request_id":"s","experiment":{"key":"draft","variants":[{"key":"a","control":true},{"key":"b","weight":2}],
		"segments":["band"],"plan":{"stratify_by":"band"},
		"covariates":[{"name":"past","past_outcomes":{"outcome":"purchase","aggregate":"AGGREGATE_SUM","window":"86400s","conditions":[{"field":"value","op":"OP_LESS","values":["5"]}]}}],
		"metrics":[{"metric":"order_value","role":"METRIC_ROLE_PRIMARY","covariates":["past"],"objective":"OBJECTIVE_EQUIVALENCE","margin":{"relative":0.1}}]}}`},
	{"ExperimentService/UpdateExperiment", `{"experiment":{"key":"draft","owner":"x","variants":[{"key":"a","control":true,"payload":{"x":[1]}},{"key":"b"}],"labels":{"team":"x"}},"update_mask":"owner,variants,labels"}`},
	{"ExperimentService/SetOverrides", `{"experiment":"checkout-copy","overrides":[{"subject_key":"u-9","variant":"short"}]}`},
	{"ExperimentService/ListOverrides", `{"experiment":"checkout-copy","page_size":1,"page_token":"MDAwMDAwMDAwMDAwNDAwMDgwMDAwMDAwMDAwMDAwMDA"}`},
	{"ExperimentService/StartExperiment", `{"key":"checkout-copy"}`},
	{"ExperimentService/PreviewUpdate", `{"experiment":{"key":"checkout-copy","traffic":0.25,"variants":[{"key":"control","control":true},{"key":"short","weight":3},{"key":"long"}]},"update_mask":"traffic,variants","reshuffle":true}`},
	{"ExperimentService/UpdateExperiment", `{"experiment":{"key":"checkout-copy","eligibility":""},"update_mask":"eligibility","allow_movement":true}`},
	{"ExperimentService/GetExperiment", `{"key":"checkout-copy","revision":1}`},
	{"ExperimentService/ListExperiments", `{"page_size":1,"page_token":"YQ","states":["STATE_RUNNING"],"labels":{"team":"growth"}}`},
	{"ExperimentService/ListExperimentRevisions", `{"key":"checkout-copy","page_size":1,"page_token":"Mg"}`},
	{"AssignmentService/Assign", `{"subject":{"key":"u-1","unit":"user","attributes":{"country":"PL","age":31}},"experiments":["checkout-copy"],"exposure_recording":"EXPOSURE_RECORDING_BEST_EFFORT"}`},
	{"AssignmentService/Assign", `{"subject":{"key":"u-1"},"labels":{"team":"growth"}}`},
	{"AssignmentService/BatchAssign", `{"subjects":[{"key":"u-1","attributes":{"country":"PL","age":31}},{}],"experiments":["checkout-copy"],"exposure_recording":"EXPOSURE_RECORDING_BEST_EFFORT"}`},
	{"AssignmentService/ExplainAssignment", `{"subject":{"key":"u-1","attributes":{"country":["PL",{}],"age":31}},"experiment":"checkout-copy"}`},
	{"AssignmentService/ExplainAssignment", `{"subject":{"key":"u-1"},"experiment":"checkout-copy","revision":1}`},
	{"AssignmentService/Assign", `{"subject":{"key":"u-2","attributes":{"country":"PL","age":31}},"experiments":["checkout-copy"],"exposure_recording":"EXPOSURE_RECORDING_DURABLE"}`},
	{"EventService/RecordExposures", `{"exposures":[{"experiment":"checkout-copy","variant":"short","subject":{"key":"u-1","attributes":{"country":"PL","past_spend":7}},"exposed_time":"2026-01-05T10:00:00Z","revision":1}]}`},
	{"EventService/RecordOutcomes", `{"outcomes":[{"event_id":"order-991","subject":{"key":"u-1"},"name":"purchase","value":49.9,"occurred_time":"2026-01-05T10:03:00Z","properties":{"sku":"A1","n":[1,{"x":null}]}}]}`},
	{"EventService/StreamEvents", `{"sequence":"1","exposures":[{"experiment":"checkout-copy","variant":"short","subject":{"key":"u-3"}}],"outcomes":[{"event_id":"order-992","subject":{"key":"u-1"},"name":"purchase","occurred_time":"2026-01-05T10:03:00Z"}]}`},
	{"AnalysisService/AnalyzeExperiment", `{"experiment":"checkout-copy","segments":["country"],"metrics":["order_value","days"],"as_of_time":"2026-01-20T00:00:00Z"}`},
	{"AnalysisService/AnalyzeExperiment", `{"experiment":"checkout-copy","segments":["country"]}`},
	{"AnalysisService/CompareAnalyses", `{"experiment":"checkout-copy"}`},
	{"AnalysisService/CompareAnalyses", `{"from_analysis_id":"00000000-0000-4000-8000-000000000000","to_analysis_id":"00000000-0000-4000-8000-000000000000"}`},
	{"AnalysisService/AnalyzeHoldout", `{"holdout":"global","metrics":["revenue","purchase_rate"],"as_of_time":"2026-01-20T00:00:00Z","confidence_level":0.9}`},
	{"AnalysisService/AnalyzeHoldout", `{"holdout":"global","metrics":["order_value"]}`},
	{"AnalysisService/GetTimeline", `{"experiment":"checkout-copy","metric":"revenue","as_of_time":"2026-01-20T00:00:00Z"}`},
	{"AnalysisService/GetTimeline", `{"experiment":"checkout-copy"}`},
	{"AnalysisService/GetAnalysis", `{"analysis_id":"00000000-0000-4000-8000-000000000000"}`},
	{"AnalysisService/ListAnalyses", `{"experiment":"checkout-copy","page_size":1,"page_token":"MSAwMDAwMDAwMDAwMDA0MDAwODAwMDAwMDAwMDAwMDAwMA"}`},
	{"AnalysisService/CompareSummaries", compareSummaries},
	{"AnalysisService/CompareSummaries", `{"components":["x"],"arms":[{"variant":"a","control":true,"strata":[{"stratum":"s","subjects":"9","means":[1],"covariances":[2]},{"stratum":"t","means":[0],"covariances":[0]}]},
		{"variant":"b","strata":[{"stratum":"t","subjects":"1","means":[0],"covariances":[0]},{"stratum":"s","subjects":"8","means":[2],"covariances":[3]}]}],"margin":{"relative":-0.1},"alternative":"ALTERNATIVE_GREATER"}`},
	{"AnalysisService/CompareSummaries", `{"components":["x"],"arms":[{"variant":"a","control":true,"strata":[{"subjects":"9","means":[0.5],"covariances":[0.28125]}]},
		{"variant":"b","strata":[{"subjects":"5","means":[0.2],"covariances":[0.2]}]}],"margin":{"relative":0.1},"plan":{"method":"METHOD_BAYESIAN","prior":{"alpha":0.5,"beta":2}}}`},
	{"AnalysisService/CompareSummaries", `{"components":["x"],"arms":[{"variant":"a","control":true,"strata":[{"subjects":"9","means":[1],"covariances":[2]}]},
		{"variant":"b","strata":[{"subjects":"8","means":[2],"covariances":[3]}]}],"alternative":"ALTERNATIVE_LESS","plan":{"method":"METHOD_BAYESIAN","prior":{"lift_mean":0.1,"lift_standard_deviation":0.3}}}`},
	{"AnalysisService/CompareSummaries", `{"components":["x"],"arms":[{"variant":"a","control":true,"strata":[{"subjects":"9","means":[1],"covariances":[2]}]},
		{"variant":"b","strata":[{"subjects":"8","means":[2],"covariances":[3]}]}],"margin":{"absolute":0.1},"alternative":"ALTERNATIVE_EQUIVALENT"}`},
	{"AnalysisService/PlanExperiment", `{"proportion":0.1,"minimum_effect":{"relative":0.2},"power":0.8,"plan":{"correction":"CORRECTION_BONFERRONI"},"weights":[2,1,1],"subjects_per_day":100}`},
	{"AnalysisService/PlanExperiment", `{"mean":{"mean":-2,"standard_deviation":5},"objective":"OBJECTIVE_EQUIVALENCE","margin":{"relative":0.3},"minimum_effect":{"absolute":0.1},"subjects":"900","covariate_correlation":0.5}`},
	{"AnalysisService/PlanExperiment", `{"ratio":{"numerator_mean":2,"denominator_mean":5,"numerator_variance":3,"denominator_variance":4,"covariance":1},"objective":"OBJECTIVE_SUPERIORITY","subjects":"900","power":0.7,"plan":{"method":"METHOD_FIXED_HORIZON","confidence_level":0.9}}`},
	{"AnalysisService/CompareSummaries", `{"components":["x","before"],"covariates":["before"],"plan":{"smallest_cell":0},"arms":[
		{"variant":"a","control":true,"weight":0.5,"strata":[{"stratum":"s","subjects":"9","means":[1,2],"covariances":[2,1,1]},{"stratum":"t","subjects":"9","means":[0,2],"covariances":[1,0,3]}]},
		{"variant":"b","weight":1e-320,"strata":[{"stratum":"t","subjects":"2","means":[0,1],"covariances":[0,0,0]},{"stratum":"s","subjects":"8","means":[2,3],"covariances":[3,0,1]}]}]}`},
	{"AnalysisService/CompareSummaries", `{"components":["x"],"plan":{"method":"METHOD_GROUP_SEQUENTIAL","spending":"SPENDING_POCOCK"},"looks":[0.2,0.5,1],
		"arms":[{"variant":"a","control":true,"strata":[{"subjects":"9","means":[1],"covariances":[2]}]},{"variant":"b","strata":[{"subjects":"8","means":[2],"covariances":[3]}]}]}`},
	{"ExperimentService/CreateExperiment", `{"experiment":{"key":"looks","variants":[{"key":"a","control":true},{"key":"b"}],"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY"}],
		"plan":{"method":"METHOD_GROUP_SEQUENTIAL","spending":"SPENDING_O_BRIEN_FLEMING","planned_subjects":"10"}}}`},
	{"ExperimentService/StartExperiment", `{"key":"looks"}`},
	{"EventService/RecordExposures", `{"exposures":[{"experiment":"looks","variant":"b","subject":{"key":"u-1"},"exposed_time":"2026-01-05T10:00:00Z","revision":1}]}`},
	{"AnalysisService/AnalyzeExperiment", `{"experiment":"looks","take_look":true}`},
	{"AnalysisService/PlanExperiment", `{"proportion":0.7,"minimum_effect":{"absolute":0.01},"power":0.9,"plan":{"method":"METHOD_GROUP_SEQUENTIAL","spending":"SPENDING_POCOCK"},"looks":3}`},
	{"AnalysisService/PlanExperiment", `{"proportion":0.7,"minimum_effect":{"absolute":0.01},"power":0.9,"plan":{"method":"METHOD_BAYESIAN","prior":{"alpha":7,"beta":3,"lift_standard_deviation":0.2}}}`},
	{"ExperimentService/PauseExperiment", `{"key":"checkout-copy"}`},
	{"ExperimentService/ResumeExperiment", `{"key":"checkout-copy"}`},
	{"ExperimentService/ConcludeExperiment", `{"key":"layered","analysis_id":"00000000-0000-4000-8000-000000000000"}`},
	{"ExperimentService/ConcludeExperiment", `{"key":"checkout-copy","shipped_variant":"short","rationale":"r"}`},
	{"ExperimentService/ArchiveExperiment", `{"key":"draft","etag":""}`},
	{"ExperimentService/CreateExperiment", `{"experiment":{"key":"mailing","variants":[{"key":"a","control":true,"weight":2},{"key":"b"}]}}`},
	{"RosterService/AllocateRoster", `{"experiment":"mailing","subjects":[{"key":"u-1","stratum":"PL","covariates":{"spend":7.5,"visits":2}},{"key":"u-2"},{"key":"u-3","stratum":"PL","covariates":{"spend":-1e100}}]}`},
	{"RosterService/GetRoster", `{"experiment":"mailing"}`},
	{"ExperimentService/UpdateExperiment", `{"experiment":{"key":"mailing","description":"d"}}`},
	{"AssignmentService/ExplainAssignment", `{"subject":{"key":"u-1"},"experiment":"mailing"}`},
	{"RosterService/DeleteRoster", `{"experiment":"mailing"}`},
	{"MetricService/ArchiveMetric", `{"key":"days"}`},
	{"SubjectService/GetSubject", `{"subject":{"key":"u-1","unit":"user","attributes":{"x":1}},"page_size":2,"page_token":"MyAwIDAwMDAwMDAwMDAwMDQwMDA4MDAwMDAwMDAwMDAwMDAw"}`},
	{"SubjectService/EraseSubject", `{"subject":{"key":"u-1"}}`},
	{"SubjectService/GetSubject", `{"subject":{"key":"u-2"},"page_size":1,"page_token":"MCAxIDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw"}`},
	{"AuditService/ListAuditEvents", `{"kind":"AUDITED_KIND_EXPERIMENT","key":"checkout-copy","page_size":2,"page_token":"MTAwMA"}`},
}

// checkAnswer makes a call with a request that decodes.
func (a *api) checkAnswer(tb testing.TB, method string, req proto.Message) {
	tb.Helper()
	resp, err := a.invoke(tb, method, req)
	switch status.Code(err) {
	case codes.Internal, codes.Unknown:
		tb.Errorf("%s %.2000v: %v", method, req, err)
	case codes.InvalidArgument:
		if len(refusalDetails(err)) == 0 {
			tb.Errorf("%s %.2000v: names no field: %v", method, req, err)
		}
	case codes.OK:
		if path := findNotFinite(resp.ProtoReflect()); path != "" {
			tb.Errorf("%s %.2000v: %s is not finite", method, req, path)
		}
		checkCounts(tb, req, resp)
	}
}

// checkCounts holds that every item of a batch is accounted for.
func checkCounts(tb testing.TB, req, resp proto.Message) {
	tb.Helper()
	var items, counted int
	switch req := req.(type) {
	case *assayv1.RecordExposuresRequest:
		r := resp.(*assayv1.RecordExposuresResponse)
		items, counted = len(req.Exposures), int(r.Recorded)+int(r.Duplicates)+len(r.Rejected)
	case *assayv1.RecordOutcomesRequest:
		r := resp.(*assayv1.RecordOutcomesResponse)
		items, counted = len(req.Outcomes), int(r.Recorded)+int(r.Duplicates)+len(r.Rejected)
	case *assayv1.StreamEventsRequest:
		r := resp.(*assayv1.StreamEventsResponse)
		items, counted = len(req.Exposures)+len(req.Outcomes), int(r.Recorded)+int(r.Duplicates)+len(r.RejectedExposures)+len(r.RejectedOutcomes)
	case *assayv1.BatchAssignRequest:
		items, counted = len(req.Subjects), len(resp.(*assayv1.BatchAssignResponse).Results)
	case *assayv1.AllocateRosterRequest:
		items, counted = len(req.Subjects), int(resp.(*assayv1.AllocateRosterResponse).Roster.Subjects)
	case *assayv1.AssignRequest:
		if len(req.Experiments) > 0 {
			items, counted = len(req.Experiments), len(resp.(*assayv1.AssignResponse).Assignments)
		}
	}
	if items != counted {
		tb.Errorf("%.2000v: %d items are answered by %d", req, items, counted)
	}
}

// unaryMethods lists the methods of the API. A stream of one message is on the
// wire like a unary call.
func unaryMethods() (methods []string) {
	protoregistry.GlobalFiles.RangeFilesByPackage("assay.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				methods = append(methods, fmt.Sprintf("%s/%s", service.Name(), service.Methods().Get(j).Name()))
			}
		}
		return true
	})
	slices.Sort(methods)
	return methods
}

func FuzzRequests(f *testing.F) {
	a := newAPI(f)
	methods := unaryMethods()
	seeded := map[string]bool{}
	for _, r := range requests {
		req := newRequest(f, r.method, r.request)
		if _, err := a.invoke(f, r.method, req); err != nil && status.Code(err) != codes.NotFound {
			f.Fatalf("%s: %v", r.method, err)
		}
		data, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(slices.Index(methods, r.method)), data)
		seeded[r.method] = true
	}
	if len(seeded) != len(methods) {
		f.Errorf("requests for %d of the %d methods", len(seeded), len(methods))
	}
	f.Fuzz(func(t *testing.T, n uint8, data []byte) {
		method := methods[int(n)%len(methods)]
		req := newMessage(t, findMethod(t, method).Input())
		if proto.Unmarshal(data, req) == nil {
			a.checkAnswer(t, method, req)
		}
	})
}

// TestExtremeRequests puts an extreme value in the place of every field of
// every request, one at a time.
func TestExtremeRequests(t *testing.T) {
	a := newAPI(t)
	calls := 0
	for _, r := range requests {
		original := newRequest(t, r.method, r.request)
		a.checkAnswer(t, r.method, original)
		edit := proto.Clone(original)
		forEachEdit(edit.ProtoReflect(), func() {
			calls++
			a.checkAnswer(t, r.method, edit)
		})
		if !proto.Equal(original, edit) {
			t.Fatalf("the edits of %s were not undone", r.method)
		}
	}
	if calls < 2000 {
		t.Errorf("only %d calls", calls)
	}
}

// extremes are the values to try for a kind of field.
func extremes(fd protoreflect.FieldDescriptor) (values []protoreflect.Value) {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return []protoreflect.Value{protoreflect.ValueOfBool(true), protoreflect.ValueOfBool(false)}
	case protoreflect.EnumKind:
		return []protoreflect.Value{protoreflect.ValueOfEnum(0), protoreflect.ValueOfEnum(2), protoreflect.ValueOfEnum(99), protoreflect.ValueOfEnum(math.MinInt32)}
	case protoreflect.Int32Kind:
		for _, x := range []int32{0, 1, -1, math.MaxInt32, math.MinInt32} {
			values = append(values, protoreflect.ValueOfInt32(x))
		}
	case protoreflect.Int64Kind:
		for _, x := range []int64{0, 1, -1, 253402300799, math.MaxInt64, math.MinInt64} {
			values = append(values, protoreflect.ValueOfInt64(x))
		}
	case protoreflect.DoubleKind:
		for _, x := range []float64{0, math.Copysign(0, -1), 1, -1, 1e101, math.MaxFloat64, math.SmallestNonzeroFloat64, math.NaN(), math.Inf(1), math.Inf(-1)} {
			values = append(values, protoreflect.ValueOfFloat64(x))
		}
	case protoreflect.StringKind:
		for _, s := range []string{"", "\x00", "a\n", "-", "draft", "revenue", "revenue / 0", "purchase_rate", "value", "1e-400", "Ω'\"\\%s$1\U0001F600", strings.Repeat("(", 5000)} {
			values = append(values, protoreflect.ValueOfString(s))
		}
	}
	return values
}

// forEachEdit calls visit after each of the edits, and undoes it.
func forEachEdit(m protoreflect.Message, visit func()) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case fd.IsMap():
			editMap(m, fd, visit)
		case fd.IsList():
			editList(m, fd, visit)
		default:
			had, old := m.Has(fd), m.Get(fd)
			if had && fd.Kind() == protoreflect.MessageKind {
				forEachEdit(m.Mutable(fd).Message(), visit)
			}
			var other protoreflect.FieldDescriptor // The member of the oneof that is set now.
			var value protoreflect.Value
			if one := fd.ContainingOneof(); one != nil && m.WhichOneof(one) != nil {
				other = m.WhichOneof(one)
				value = m.Get(other)
			}
			for _, v := range extremes(fd) {
				m.Set(fd, v)
				visit()
			}
			if fd.Kind() == protoreflect.MessageKind {
				m.Set(fd, m.NewField(fd))
				visit()
			}
			m.Clear(fd)
			visit()
			switch {
			case had:
				m.Set(fd, old)
			case other != nil:
				m.Set(other, value)
			}
		}
	}
}

func editList(m protoreflect.Message, fd protoreflect.FieldDescriptor, visit func()) {
	list := m.Mutable(fd).List()
	n := list.Len()
	for i := range n {
		if fd.Kind() == protoreflect.MessageKind {
			forEachEdit(list.Get(i).Message(), visit)
			continue
		}
		old := list.Get(i)
		for _, v := range extremes(fd) {
			list.Set(i, v)
			visit()
		}
		list.Set(i, old)
	}
	list.Append(list.NewElement())
	visit()
	if n > 0 {
		list.Set(n, list.Get(0))
		visit()
	}
	list.Truncate(n)
}

func editMap(m protoreflect.Message, fd protoreflect.FieldDescriptor, visit func()) {
	values := m.Mutable(fd).Map()
	if fd.MapValue().Kind() == protoreflect.MessageKind {
		values.Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
			forEachEdit(v.Message(), visit)
			return true
		})
	}
	for _, key := range extremes(fd.MapKey()) {
		k := key.MapKey()
		if values.Has(k) {
			continue
		}
		values.Set(k, values.NewValue())
		visit()
		values.Clear(k)
	}
}
