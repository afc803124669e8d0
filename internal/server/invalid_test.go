package server_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// with returns the JSON object base with the members of patch in place of its
// own.
func with(base, patch string) string {
	object := map[string]json.RawMessage{}
	for _, text := range []string{base, "{" + patch + "}"} {
		if err := json.Unmarshal([]byte(text), &object); err != nil {
			panic(fmt.Sprintf("%s: %v", text, err))
		}
	}
	b, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// plain is an experiment of two variants that measures purchase_rate.
const plain = `{"key":"plain","variants":[{"key":"a","control":true},{"key":"b"}],"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY"}]}`

func newExperiment(patch string) string { return `{"experiment":` + with(plain, patch) + `}` }

// proportion is a metric like any other.
const proportion = `{"key":"m","direction":"DIRECTION_INCREASE","proportion":{"outcome":"purchase"}}`

func newMetric(patch string) string { return `{"metric":` + with(proportion, patch) + `}` }

// newFormula is a metric by a formula, with the components in place of a and b.
func newFormula(expression, components string) string {
	if components == "" {
		components = `{"name":"a","outcome":"x","aggregate":"AGGREGATE_COUNT"},{"name":"b","outcome":"y","aggregate":"AGGREGATE_SUM"}`
	}
	return fmt.Sprintf(`{"metric":{"key":"m","direction":"DIRECTION_INCREASE","formula":{"expression":%q,"components":[%s]}}}`, expression, components)
}

// newSum is a metric of sums with a cap.
func newSum(limit string) string {
	return `{"metric":{"key":"m","direction":"DIRECTION_INCREASE","sum":{"outcome":"purchase","cap":` + limit + `}}}`
}

func TestInvalidMetrics(t *testing.T) {
	const create = "MetricService/CreateMetric"
	invalid := func(name, request, says string, fields ...string) refusal {
		return refusal{name, create, request, codes.InvalidArgument, fields, says}
	}
	a := newAPI(t)
	a.refuses(t, []refusal{
		invalid("no metric", `{}`, "", "metric"),
		invalid("empty metric", `{"metric":{}}`, "", "metric.key", "metric.direction", "metric.definition"),
		invalid("key", newMetric(`"key":"Purchase Rate"`), "", "metric.key"),
		invalid("key too long", newMetric(fmt.Sprintf(`"key":%q`, strings.Repeat("k", 64))), "", "metric.key"),
		invalid("key with a line feed at its end", newMetric(`"key":"k\n"`), "", "metric.key"),
		invalid("unknown direction", newMetric(`"direction":7`), "", "metric.direction"),
		invalid("description too long", newMetric(fmt.Sprintf(`"description":%q`, strings.Repeat("é", 2049))), "", "metric.description"),
		invalid("description with NUL", newMetric(`"description":"a\u0000b"`), "NUL", "metric.description"),
		invalid("request id too long", `{"request_id":"`+strings.Repeat("r", 65)+`","metric":`+proportion+`}`, "", "request_id"),
		invalid("window too short", newMetric(`"window":"0.5s"`), "", "metric.window"),
		invalid("window too long", newMetric(`"window":"315360001s"`), "", "metric.window"),
		invalid("window negative", newMetric(`"window":"-1s"`), "", "metric.window"),
		invalid("no outcome", newMetric(`"proportion":{}`), "", "metric.proportion.outcome"),
		invalid("outcome too long", newMetric(fmt.Sprintf(`"proportion":{"outcome":%q}`, strings.Repeat("o", 129))), "", "metric.proportion.outcome"),
		invalid("condition", newMetric(`"proportion":{"outcome":"x","conditions":[{}]}`), "",
			"metric.proportion.conditions[0].field", "metric.proportion.conditions[0].op", "metric.proportion.conditions[0].values"),
		invalid("unknown operator", newMetric(`"proportion":{"outcome":"x","conditions":[{"field":"f","op":99,"values":["1"]}]}`), "", "metric.proportion.conditions[0].op"),
		invalid("two values for one", newMetric(`"proportion":{"outcome":"x","conditions":[{"field":"f","op":"OP_LESS","values":["1","2"]}]}`),
			"exactly one value", "metric.proportion.conditions[0].values"),
		invalid("no number", newMetric(`"proportion":{"outcome":"x","conditions":[{"field":"value","op":"OP_EQUAL","values":["1","red"]}]}`),
			`"red" is not a number`, "metric.proportion.conditions[0].values[1]"),
		invalid("ratio without components", `{"metric":{"key":"m","direction":"DIRECTION_INCREASE","ratio":{}}}`, "", "metric.ratio.numerator", "metric.ratio.denominator"),
		invalid("ratio of one name", `{"metric":{"key":"m","direction":"DIRECTION_INCREASE","ratio":{
			"numerator":{"name":"a","outcome":"x","aggregate":"AGGREGATE_SUM"},"denominator":{"name":"a","outcome":"x","aggregate":"AGGREGATE_COUNT"}}}}`,
			`"a" is the name of an earlier component`, "metric.ratio.denominator.name"),
		invalid("cap without a bound", newSum(`{"ignore_zeros":true}`), "needs a bound", "metric.sum.cap"),
		invalid("cap upside down", newSum(`{"lower_value":2,"upper_value":1.5}`), "must not be below the lower one, 2", "metric.sum.cap.upper_value"),
		invalid("cap at one percentile", newSum(`{"lower_percentile":50,"upper_percentile":50}`), "must be above the lower one, 50", "metric.sum.cap.upper_percentile"),
		invalid("zeros ignored by numbers", newSum(`{"upper_value":1,"ignore_zeros":true}`), "only percentiles", "metric.sum.cap.ignore_zeros"),
		invalid("percentiles 0 and 100", newSum(`{"lower_percentile":0,"upper_percentile":100}`), "", "metric.sum.cap.lower_percentile", "metric.sum.cap.upper_percentile"),
		invalid("percentile NaN", newSum(`{"upper_percentile":"NaN"}`), "", "metric.sum.cap.upper_percentile"),
		invalid("endless caps", newSum(`{"lower_value":"-Infinity","upper_value":1.1e100}`), "", "metric.sum.cap.lower_value", "metric.sum.cap.upper_value"),
		invalid("cap of a component", newFormula("a", `{"name":"a","outcome":"x","aggregate":"AGGREGATE_COUNT","cap":{"lower_value":2,"upper_value":1}}`),
			"", "metric.formula.components[0].cap.upper_value"),
		invalid("unknown aggregate", newFormula("a", `{"name":"a","outcome":"x","aggregate":42}`), "", "metric.formula.components[0].aggregate"),
		invalid("formula without components", newFormula("1", " "), "", "metric.formula.components"),
		invalid("component without a name", newFormula("a", `{"name":"a","outcome":"x","aggregate":"AGGREGATE_COUNT"},{"outcome":"y","aggregate":"AGGREGATE_COUNT"}`),
			"must not be empty", "metric.formula.components[1].name"),
		invalid("unknown component", newFormula("a / b + c", ""), `there is no component "c"`, "metric.formula.expression"),
		invalid("unused component", newFormula("a + 1", ""), `does not use "b"`, "metric.formula.components[1].name"),
		invalid("syntax error", newFormula("a / / b", ""), `at character 5: expected`, "metric.formula.expression"),
		invalid("foreign character", newFormula("a × b", ""), "at character 3", "metric.formula.expression"),
		invalid("too deep", newFormula(strings.Repeat("(", 500)+"a"+strings.Repeat(")", 500)+"+b", ""), "more than 64 deep", "metric.formula.expression"),
		invalid("1,000 parentheses", newFormula(strings.Repeat("(", 1000)+"a"+strings.Repeat(")", 1000), ""), "1024 bytes", "metric.formula.expression"),
		invalid("constant", newFormula("1 / 2", ""), "names no component", "metric.formula.expression"),
		{"unknown metric", "MetricService/GetMetric", `{"key":"nothing"}`, codes.NotFound, []string{"METRIC_NOT_FOUND"}, `"nothing"`},
		{"key to get", "MetricService/GetMetric", `{"key":""}`, codes.InvalidArgument, []string{"key"}, ""},
		{"revision 0", "MetricService/GetMetric", `{"key":"m","revision":0}`, codes.InvalidArgument, []string{"revision"}, ""},
		{"unknown metric to archive", "MetricService/ArchiveMetric", `{"key":"nothing"}`, codes.NotFound, []string{"METRIC_NOT_FOUND"}, ""},
		{"malformed etag", "MetricService/ArchiveMetric", `{"key":"nothing","etag":"!"}`, codes.InvalidArgument, []string{"etag"}, "not an etag"},
		{"page size", "MetricService/ListMetrics", `{"page_size":1001}`, codes.InvalidArgument, []string{"page_size"}, ""},
		{"negative page size", "MetricService/ListMetrics", `{"page_size":-1}`, codes.InvalidArgument, []string{"page_size"}, ""},
		{"page token", "MetricService/ListMetrics", `{"page_token":"?"}`, codes.InvalidArgument, []string{"page_token"}, ""},
	})
	a.do(t, create, newMetric(""))
	a.refuses(t, []refusal{
		{"taken key", create, newMetric(""), codes.AlreadyExists, []string{"METRIC_EXISTS"}, ""},
		{"unknown revision", "MetricService/GetMetric", `{"key":"m","revision":2}`, codes.NotFound, []string{"METRIC_NOT_FOUND"}, "revision 2"},
	})
}

func TestInvalidExperiments(t *testing.T) {
	const create = "ExperimentService/CreateExperiment"
	invalid := func(name, patch, says string, fields ...string) refusal {
		for i := range fields {
			fields[i] = strings.TrimSuffix("experiment."+fields[i], ".")
		}
		return refusal{name, create, newExperiment(patch), codes.InvalidArgument, fields, says}
	}
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.refuses(t, []refusal{
		{"no experiment", create, `{}`, codes.InvalidArgument, []string{"experiment"}, ""},
		{"empty experiment", create, `{"experiment":{}}`, codes.InvalidArgument, []string{"experiment.key", "experiment.variants"}, ""},
		invalid("key", `"key":"-"`, "", "key"),
		invalid("unit", `"unit":"User"`, "", "unit"),
		invalid("owner too long", fmt.Sprintf(`"owner":%q`, strings.Repeat("o", 257)), "", "owner"),
		invalid("owner with NUL", `"owner":"\u0000"`, "NUL", "owner"),
		invalid("statement too long", fmt.Sprintf(`"hypothesis":{"statement":%q}`, strings.Repeat("s", 4097)), "", "hypothesis.statement"),
		invalid("one variant", `"variants":[{"key":"a","control":true}]`, "", "variants"),
		invalid("no control", `"variants":[{"key":"a"},{"key":"b"}]`, "exactly one variant must be the control; none is", "variants"),
		invalid("two controls", `"variants":[{"key":"a","control":true},{"key":"b","control":true}]`, "2 are", "variants"),
		invalid("duplicate variants", `"variants":[{"key":"a","control":true},{"key":"b"},{"key":"a"}]`, `"a" is the key of an earlier variant`, "variants[2].key"),
		invalid("no weight at all", `"variants":[{"key":"a","control":true,"weight":0},{"key":"b","weight":0}]`, "weights add up to 0", "variants"),
		invalid("negative weight", `"variants":[{"key":"a","control":true,"weight":-1},{"key":"b"}]`, "", "variants[0].weight"),
		invalid("huge weight", `"variants":[{"key":"a","control":true,"weight":1000001},{"key":"b"}]`, "", "variants[0].weight"),
		invalid("payload too large", fmt.Sprintf(`"variants":[{"key":"a","control":true},{"key":"b","payload":{"x":%q}}]`, strings.Repeat("p", 16<<10)), "16384", "variants[1].payload"),
		invalid("payload too deep", fmt.Sprintf(`"variants":[{"key":"a","control":true},{"key":"b","payload":{"x":%s}}]`, strings.Repeat("[", 40)+strings.Repeat("]", 40)), "too deep", "variants[1].payload"),
		invalid("traffic", `"traffic":1.01`, "", "traffic"),
		invalid("negative traffic", `"traffic":-0.01`, "", "traffic"),
		invalid("traffic NaN", `"traffic":"NaN"`, "", "traffic"),
		invalid("salt too long", fmt.Sprintf(`"salt":%q`, strings.Repeat("s", 129)), "", "salt"),
		invalid("unknown assignment", `"assignment":9`, "", "assignment"),
		invalid("label", `"labels":{"Team":"x"}`, "", `labels["Team"]`),
		invalid("segments twice", `"segments":["x","x"]`, "", "segments"),
		invalid("empty segment", `"segments":[""]`, "", "segments[0]"),
		invalid("unnamed covariate", `"covariates":[{"attribute":"x"}]`, "", "covariates[0].name"),
		invalid("covariate without a source", `"covariates":[{"name":"x"}]`, "", "covariates[0].source"),
		invalid("covariates of one name", `"covariates":[{"name":"x","attribute":"x"},{"name":"x","attribute":"y"}]`, "earlier covariate", "covariates[1].name"),
		invalid("past outcomes", `"covariates":[{"name":"x","past_outcomes":{}}]`, "",
			"covariates[0].past_outcomes.outcome", "covariates[0].past_outcomes.aggregate", "covariates[0].past_outcomes.window"),
		invalid("past condition", `"covariates":[{"name":"x","past_outcomes":{"outcome":"x","aggregate":"AGGREGATE_SUM","window":"60s","conditions":[{"field":"value","op":"OP_LESS","values":["x"]}]}}]`,
			"not a number", "covariates[0].past_outcomes.conditions[0].values[0]"),
		invalid("unknown metric", `"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY"},{"metric":"nothing","role":"METRIC_ROLE_SECONDARY"}]`,
			`there is no metric "nothing"`, "metrics[1].metric"),
		invalid("metric without a role", `"metrics":[{"metric":"purchase_rate"}]`, "", "metrics[0].role"),
		invalid("unknown role", `"metrics":[{"metric":"purchase_rate","role":8}]`, "", "metrics[0].role"),
		invalid("metric twice", `"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY"},{"metric":"purchase_rate","role":"METRIC_ROLE_SECONDARY"}]`,
			"listed twice", "metrics[1].metric"),
		invalid("two primaries", `"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY"},{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"}]`,
			"only one metric can be the primary", "metrics[1].role"),
		invalid("guardrail without margin", `"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_GUARDRAIL"}]`, "needs a margin", "metrics[0].margin"),
		invalid("margin without guardrail", `"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY","margin":{"absolute":1}}]`, "only guardrails", "metrics[0].margin"),
		invalid("non-inferiority without margin", `"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY","objective":"OBJECTIVE_NON_INFERIORITY"}]`, "margin greater than 0", "metrics[0].margin"),
		invalid("equivalence with margin 0", `"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY","objective":"OBJECTIVE_EQUIVALENCE","margin":{"relative":0}}]`, "margin greater than 0", "metrics[0].margin"),
		invalid("guardrail for equivalence", `"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_GUARDRAIL","objective":"OBJECTIVE_EQUIVALENCE","margin":{"relative":0.1}}]`, "non-inferiority", "metrics[0].objective"),
		invalid("unknown objective", `"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY","objective":9}]`, "", "metrics[0].objective"),
		invalid("negative margin", `"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_GUARDRAIL","margin":{"absolute":-1}}]`, "", "metrics[0].margin.absolute"),
		invalid("margin without a scale", `"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_GUARDRAIL","margin":{}}]`, "", "metrics[0].margin.scale"),
		invalid("unknown covariate", `"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY","covariates":["spend"]}]`,
			`no covariate "spend"`, "metrics[0].covariates[0]"),
		invalid("unknown method", `"plan":{"method":5}`, "", "plan.method"),
		invalid("unknown correction", `"plan":{"correction":5}`, "", "plan.correction"),
		invalid("confidence", `"plan":{"confidence_level":0.5}`, "", "plan.confidence_level"),
		invalid("prior of another method", `"plan":{"method":"METHOD_FIXED_HORIZON","prior":{"lift_standard_deviation":0.1}}`, "only a Bayesian plan", "plan.prior"),
		invalid("prior of a lift without doubt", `"plan":{"method":"METHOD_BAYESIAN","prior":{"lift_mean":0.1}}`, "lift_standard_deviation", "plan.prior.lift_mean"),
		invalid("certainty", `"plan":{"confidence_level":1}`, "", "plan.confidence_level"),
		invalid("confidence 0", `"plan":{"confidence_level":0}`, "", "plan.confidence_level"),
		invalid("no minimum effect", `"plan":{"minimum_effect":{"relative":0}}`, "greater than 0", "plan.minimum_effect"),
		invalid("infinite minimum effect", `"plan":{"minimum_effect":{"relative":"Infinity"}}`, "", "plan.minimum_effect.relative"),
		invalid("stratum that is not kept", `"segments":["country"],"covariates":[{"name":"age","attribute":"years"}],"plan":{"stratify_by":"age"}`, `"age" is not kept`, "plan.stratify_by"),
		invalid("negative smallest cell", `"plan":{"smallest_cell":-1}`, "", "plan.smallest_cell"),
		invalid("huge smallest cell", `"plan":{"smallest_cell":1000001}`, "", "plan.smallest_cell"),
		invalid("group-sequential plan without a size", `"plan":{"method":"METHOD_GROUP_SEQUENTIAL"}`, "shares of them", "plan.planned_subjects"),
		invalid("spending of another method", `"plan":{"method":"METHOD_FIXED_HORIZON","spending":"SPENDING_POCOCK"}`, "only a group-sequential plan", "plan.spending"),
		invalid("negative plan", `"plan":{"planned_subjects":"-1"}`, "", "plan.planned_subjects"),
		invalid("predicate that does not parse", `"eligibility":"attributes.country = 'PL'"`, "does not parse", "eligibility"),
		invalid("predicate that is no bool", `"eligibility":"unit + 'x'"`, "must be a bool", "eligibility"),
		invalid("predicate of wrong types", `"eligibility":"unit > 5"`, "types do not check", "eligibility"),
		invalid("predicate of a foreign variable", `"eligibility":"country == 'PL'"`, "undeclared reference", "eligibility"),
		invalid("predicate too costly", `"eligibility":"attributes.all(a, attributes.all(b, attributes.all(c, a != b || b != c)))"`, "too costly", "eligibility"),
		invalid("predicate too deep", fmt.Sprintf(`"eligibility":"%strue%s"`, strings.Repeat("(", 1000), strings.Repeat(")", 1000)), "too deep", "eligibility"),
		invalid("many faults at once", `"eligibility":"1","variants":[{"key":"a"},{"key":"a"}],"covariates":[{"name":"x","attribute":"x"},{"name":"x","attribute":"x"}]`, "",
			"eligibility", "variants", "variants[1].key", "covariates[1].name"),
		{"NUL in a payload", create, newExperiment(`"variants":[{"key":"a","control":true,"payload":{"x":["\u0000"]}},{"key":"b"}]`), codes.InvalidArgument,
			[]string{`experiment.variants[0].payload.fields["x"].list_value.values[0].string_value`}, "NUL"},
		{"states", "ExperimentService/ListExperiments", `{"states":["STATE_UNSPECIFIED"]}`, codes.InvalidArgument, []string{"states[0]"}, ""},
		{"unknown state", "ExperimentService/ListExperiments", `{"states":[77]}`, codes.InvalidArgument, []string{"states[0]"}, ""},
		{"page token of an odd key", "ExperimentService/ListExperiments", `{"page_token":"AAAA"}`, codes.InvalidArgument, []string{"page_token"}, ""},
	})
	a.do(t, create, newExperiment(""))
	a.refuses(t, []refusal{
		{"taken key", create, newExperiment(""), codes.AlreadyExists, []string{"EXPERIMENT_EXISTS"}, ""},
		{"unknown revision", "ExperimentService/GetExperiment", `{"key":"plain","revision":2147483647}`, codes.NotFound, []string{"REVISION_NOT_FOUND"}, ""},
		{"no overrides", "ExperimentService/SetOverrides", `{"experiment":"plain"}`, codes.InvalidArgument, []string{"overrides"}, ""},
		{"overrides", "ExperimentService/SetOverrides", `{"experiment":"plain","overrides":[{},{"subject_key":"u","variant":"V"},{"subject_key":"\u0000"}]}`, codes.InvalidArgument,
			[]string{"overrides[0].subject_key", "overrides[1].variant", "overrides[2].subject_key"}, ""},
		{"unknown variant", "ExperimentService/SetOverrides", `{"experiment":"plain","overrides":[{"subject_key":"u","variant":"c"},{"subject_key":"u"}]}`, codes.InvalidArgument,
			[]string{"overrides[0].variant", "overrides[1].subject_key"}, `no variant "c"`},
	})
}

// TestNotFound asks everything about an experiment that does not exist.
func TestNotFound(t *testing.T) {
	a := newAPI(t)
	var cases []refusal
	for method, field := range map[string]string{
		"GetExperiment": "key", "StartExperiment": "key", "PauseExperiment": "key", "ResumeExperiment": "key", "ConcludeExperiment": "key",
		"ArchiveExperiment": "key", "ListExperimentRevisions": "key", "ListOverrides": "experiment",
	} {
		method = "ExperimentService/" + method
		cases = append(cases,
			refusal{method, method, fmt.Sprintf(`{%q:"nothing"}`, field), codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, `"nothing"`},
			refusal{method + " bad", method, fmt.Sprintf(`{%q:"Nothing!"}`, field), codes.InvalidArgument, []string{field}, ""})
	}
	a.refuses(t, append(cases, []refusal{
		{"update", "ExperimentService/UpdateExperiment", `{"experiment":{"key":"nothing"}}`, codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, ""},
		{"override", "ExperimentService/SetOverrides", `{"experiment":"nothing","overrides":[{"subject_key":"u"}]}`, codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, ""},
		{"explain", "AssignmentService/ExplainAssignment", `{"experiment":"nothing","subject":{"key":"u"}}`, codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, ""},
		{"analyze", "AnalysisService/AnalyzeExperiment", `{"experiment":"nothing"}`, codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, ""},
		{"analyses", "AnalysisService/ListAnalyses", `{"experiment":"nothing"}`, codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, ""},
		{"analysis", "AnalysisService/GetAnalysis", `{"analysis_id":"00000000-0000-4000-8000-000000000000"}`, codes.NotFound, []string{"ANALYSIS_NOT_FOUND"}, ""},
		{"metric", "MetricService/UpdateMetric", `{"metric":{"key":"nothing"}}`, codes.NotFound, []string{"METRIC_NOT_FOUND"}, ""},
	}...))
}

func TestInvalidAssignments(t *testing.T) {
	const assign, batch, explain = "AssignmentService/Assign", "AssignmentService/BatchAssign", "AssignmentService/ExplainAssignment"
	a := newAPI(t)
	a.refuses(t, []refusal{
		{"no subject", assign, `{}`, codes.InvalidArgument, []string{"subject"}, ""},
		{"no key", assign, `{"subject":{}}`, codes.InvalidArgument, []string{"subject.key"}, ""},
		{"long key", assign, fmt.Sprintf(`{"subject":{"key":%q}}`, strings.Repeat("é", 129)), codes.InvalidArgument, []string{"subject.key"}, ""},
		{"NUL", assign, `{"subject":{"key":"a\u0000"}}`, codes.InvalidArgument, []string{"subject.key"}, "NUL"},
		{"unit", assign, `{"subject":{"key":"u","unit":"U"}}`, codes.InvalidArgument, []string{"subject.unit"}, ""},
		{"experiment", assign, `{"subject":{"key":"u"},"experiments":["a","B"]}`, codes.InvalidArgument, []string{"experiments[1]"}, ""},
		{"experiment twice", assign, `{"subject":{"key":"u"},"experiments":["a","a"]}`, codes.InvalidArgument, []string{"experiments"}, ""},
		{"recording", assign, `{"subject":{"key":"u"},"exposure_recording":99}`, codes.InvalidArgument, []string{"exposure_recording"}, ""},
		{"no subjects", batch, `{}`, codes.InvalidArgument, []string{"subjects"}, ""},
		{"no experiment to explain", explain, `{"subject":{"key":"u"}}`, codes.InvalidArgument, []string{"experiment"}, ""},
	})
	crowd := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for i := range 1001 {
		crowd.Fields[fmt.Sprint(i)] = structpb.NewNullValue()
	}
	subject := &assayv1.Subject{Key: "u", Attributes: crowd}
	_, err := a.assign.Assign(t.Context(), &assayv1.AssignRequest{Subject: subject})
	checkRefusal(t, err, codes.InvalidArgument, "1001", "subject.attributes")
	_, err = a.assign.ExplainAssignment(t.Context(), &assayv1.ExplainAssignmentRequest{Subject: subject, Experiment: "plain"})
	checkRefusal(t, err, codes.InvalidArgument, "1001", "subject.attributes")
	_, err = a.assign.BatchAssign(t.Context(), &assayv1.BatchAssignRequest{Subjects: make([]*assayv1.Subject, 1001)})
	checkRefusal(t, err, codes.InvalidArgument, "", "subjects")
}

func TestInvalidAnalyses(t *testing.T) {
	const analyze, compare = "AnalysisService/AnalyzeExperiment", "AnalysisService/CompareSummaries"
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"segments":["country"]`))
	a.refuses(t, []refusal{
		{"draft", analyze, `{"experiment":"plain"}`, codes.FailedPrecondition, []string{"EXPERIMENT_NOT_STARTED"}, ""},
	})
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	arms := func(control, short string) string {
		return fmt.Sprintf(`"arms":[{"variant":"control","control":true,"strata":[%s]},{"variant":"short","strata":[%s]}]`, control, short)
	}
	const stratum = `{"subjects":"10","means":[1],"covariances":[2]}`
	summary := func(patch string) string {
		return with(`{"components":["x"],`+arms(stratum, stratum)+`}`, patch)
	}
	weighted := func(control, short string) string {
		return strings.NewReplacer(`"control":true`, `"control":true,"weight":`+control, `"variant":"short"`, `"variant":"short","weight":`+short).Replace(arms(stratum, stratum))
	}
	a.do(t, compare, summary(""))
	invalid := func(name, patch, says string, fields ...string) refusal {
		return refusal{name, compare, summary(patch), codes.InvalidArgument, fields, says}
	}
	a.refuses(t, []refusal{
		{"unknown segment", analyze, `{"experiment":"plain","segments":["country","city"]}`, codes.InvalidArgument, []string{"segments[1]"}, `"city"`},
		{"segments twice", analyze, `{"experiment":"plain","segments":["country","country"]}`, codes.InvalidArgument, []string{"segments"}, ""},
		{"unknown extra metric", analyze, `{"experiment":"plain","metrics":["nothing"]}`, codes.NotFound, []string{"METRIC_NOT_FOUND"}, `"nothing"`},
		{"metric key", analyze, `{"experiment":"plain","metrics":["-"]}`, codes.InvalidArgument, []string{"metrics[0]"}, ""},
		{"future", analyze, `{"experiment":"plain","as_of_time":"9999-12-31T23:59:59Z"}`, codes.InvalidArgument, []string{"as_of_time"}, "future"},
		{"before 1970", analyze, `{"experiment":"plain","as_of_time":"1969-12-31T23:59:59Z"}`, codes.InvalidArgument, []string{"as_of_time"}, "1970"},
		{"no id", "AnalysisService/GetAnalysis", `{}`, codes.InvalidArgument, []string{"analysis_id"}, ""},
		{"no UUID", "AnalysisService/GetAnalysis", `{"analysis_id":"00000000-0000-4000-8000-0000000000000"}`, codes.InvalidArgument, []string{"analysis_id"}, ""},

		{"empty summaries", compare, `{}`, codes.InvalidArgument, []string{"components", "arms"}, ""},
		invalid("component", `"components":["X-1"]`, "", "components[0]"),
		invalid("unknown component", `"formula":"x + y"`, `no component "y"`, "formula"),
		invalid("syntax", `"formula":"x +"`, "at character 4", "formula"),
		invalid("unknown covariate", `"covariates":["y"]`, `no component "y"`, "covariates[0]"),
		invalid("covariate in the formula", `"covariates":["x"]`, "the formula names", "covariates[0]"),
		invalid("no control", `"arms":[{"variant":"a","strata":[`+stratum+`]},{"variant":"b","strata":[`+stratum+`]}]`, "exactly one arm", "arms"),
		invalid("variants", `"arms":[{"variant":"a","control":true,"strata":[`+stratum+`]},{"variant":"a","strata":[`+stratum+`]}]`, "earlier arm", "arms[1].variant"),
		invalid("one arm", `"arms":[{"variant":"a","control":true,"strata":[`+stratum+`]}]`, "", "arms"),
		invalid("no strata", `"arms":[{"variant":"a","control":true},{"variant":"b"}]`, "", "arms[0].strata", "arms[1].strata"),
		invalid("strata differ", arms(stratum, `{"stratum":"s","subjects":"10","means":[1],"covariances":[2]}`), `no stratum "s"`, "arms[1].strata[0].stratum"),
		invalid("strata missing", arms(stratum+`,{"stratum":"s","subjects":"10","means":[1],"covariances":[2]}`, stratum), "", "arms[1].strata"),
		invalid("means missing", arms(stratum, `{"subjects":"10","covariances":[2]}`), "", "arms[1].strata[0].means"),
		invalid("covariances missing", arms(stratum, `{"subjects":"10","means":[1]}`), "", "arms[1].strata[0].covariances"),
		invalid("negative variance", arms(stratum, `{"subjects":"10","means":[1],"covariances":[-2]}`), "", "arms[1].strata[0].covariances[0]"),
		invalid("mean NaN", arms(stratum, `{"subjects":"10","means":["NaN"],"covariances":[2]}`), "", "arms[1].strata[0].means[0]"),
		invalid("covariance infinite", arms(stratum, `{"subjects":"10","means":[1],"covariances":["Infinity"]}`), "", "arms[1].strata[0].covariances[0]"),
		invalid("negative subjects", arms(stratum, `{"subjects":"-1","means":[1],"covariances":[2]}`), "", "arms[1].strata[0].subjects"),
		invalid("too many subjects", arms(stratum, `{"subjects":"9223372036854775807","means":[1],"covariances":[2]}`), "", "arms[1].strata[0].subjects"),
		invalid("alternative", `"alternative":5`, "", "alternative"),
		invalid("equivalence without a margin", `"alternative":"ALTERNATIVE_EQUIVALENT"`, "greater than 0", "margin"),
		invalid("confidence 0", `"plan":{"confidence_level":0}`, "", "plan.confidence_level"),
		invalid("confidence a half", `"plan":{"confidence_level":0.5}`, "", "plan.confidence_level"),
		invalid("certainty", `"plan":{"confidence_level":1}`, "", "plan.confidence_level"),
		invalid("more than certainty", `"plan":{"confidence_level":1.5}`, "", "plan.confidence_level"),
		invalid("no covariance matrix", `"components":["x","y"],`+arms(`{"subjects":"10","means":[1,1],"covariances":[1,5,1]}`, `{"subjects":"10","means":[1,1],"covariances":[1,0.5,1]}`),
			"more than their variances allow", "arms[0].strata[0].covariances[1]"),
		invalid("1,000 parentheses", fmt.Sprintf(`"formula":"%sx%s"`, strings.Repeat("(", 1000), strings.Repeat(")", 1000)), "", "formula"),
		invalid("500 parentheses", fmt.Sprintf(`"formula":"%sx%s"`, strings.Repeat("(", 500), strings.Repeat(")", 500)), "more than 64 deep", "formula"),
		invalid("weights of 0", weighted("0", "0"), "sum of the weights", "arms"),
		invalid("weight below 0", weighted("1", "-1"), "", "arms[1].weight"),
		invalid("endless weight", weighted(`"Infinity"`, "1"), "", "arms[0].weight"),
		invalid("weights too large to add", weighted("1.7e308", "1.7e308"), "sum of the weights", "arms"),
		invalid("margin", `"margin":{"relative":"-Infinity"}`, "", "margin.relative"),
		invalid("margin without a scale", `"margin":{}`, "", "margin.scale"),
		invalid("no looks", `"plan":{"method":"METHOD_GROUP_SEQUENTIAL"}`, "judged at its looks", "looks"),
		invalid("looks of another method", `"looks":[0.5]`, "only a group-sequential plan", "looks"),
		invalid("spending of another method", `"plan":{"spending":"SPENDING_POCOCK"}`, "only a group-sequential plan", "plan.spending"),
		invalid("looks out of order", `"plan":{"method":"METHOD_GROUP_SEQUENTIAL"},"looks":[0.2,0.5,0.5,0.4]`, "times rise", "looks[2]", "looks[3]"),
		invalid("a look after the last", `"plan":{"method":"METHOD_GROUP_SEQUENTIAL"},"looks":[0.2,1,1.5]`, "the last one", "looks[1]"),
		invalid("a look at nothing", `"plan":{"method":"METHOD_GROUP_SEQUENTIAL"},"looks":[0,1]`, "", "looks[0]"),
		invalid("an infinite look", `"plan":{"method":"METHOD_GROUP_SEQUENTIAL"},"looks":[0.5,"Infinity"]`, "", "looks[1]"),
		invalid("prior of another method", `"plan":{"prior":{"lift_standard_deviation":0.3}}`, "only a Bayesian plan", "plan.prior"),
		invalid("prior out of range", `"plan":{"method":"METHOD_BAYESIAN","prior":{"alpha":0.09,"beta":1e10,"lift_mean":"NaN","lift_standard_deviation":0}}`, "",
			"plan.prior.alpha", "plan.prior.beta", "plan.prior.lift_mean", "plan.prior.lift_standard_deviation"),
		invalid("prior of a lift without doubt", `"plan":{"method":"METHOD_BAYESIAN","prior":{"lift_mean":0.1}}`, "lift_standard_deviation", "plan.prior.lift_mean"),
		invalid("prior of a rate for a formula", `"formula":"x + 1","plan":{"method":"METHOD_BAYESIAN","prior":{"alpha":1}}`, "must be one component", "formula"),
		invalid("prior of a rate for no proportion", `"plan":{"method":"METHOD_BAYESIAN","prior":{"beta":1}}`, "0 or 1", "arms[0].strata[0].covariances[0]", "arms[1].strata[0].covariances[0]"),
		invalid("plan", `"plan":{"confidence_level":0.4,"method":17}`, "", "plan.confidence_level", "plan.method"),
	})
	// What JSON cannot say.
	for _, at := range []*timestamppb.Timestamp{{Seconds: math.MaxInt64}, {Seconds: 1, Nanos: -1}, {Seconds: math.MinInt64}} {
		_, err := a.analysis.AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: "plain", AsOfTime: at})
		checkRefusal(t, err, codes.InvalidArgument, "valid timestamp", "as_of_time")
	}
	nan := newRequest(t, "ExperimentService/CreateExperiment", newExperiment("")).(*assayv1.CreateExperimentRequest)
	nan.Experiment.Variants[0].Payload = &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewNumberValue(math.NaN())}}
	nan.Experiment.Variants[1].Payload = &structpb.Struct{Fields: map[string]*structpb.Value{"x": {}}}
	_, err := a.experiments.CreateExperiment(t.Context(), nan)
	checkRefusal(t, err, codes.InvalidArgument, "NaN", "experiment.variants[0].payload", "experiment.variants[1].payload")
	window := newRequest(t, "MetricService/CreateMetric", newMetric("")).(*assayv1.CreateMetricRequest)
	window.Metric.Window = &durationpb.Duration{Seconds: math.MaxInt64, Nanos: -1}
	_, err = a.metrics.CreateMetric(t.Context(), window)
	checkRefusal(t, err, codes.InvalidArgument, "", "metric.window")
}

func TestPageTokens(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(""))
	requests := map[string]string{
		"MetricService/ListMetrics": `{}`, "LayerService/ListLayers": `{}`, "HoldoutService/ListHoldouts": `{}`, "ExperimentService/ListExperiments": `{}`,
		"ExperimentService/ListExperimentRevisions": `{"key":"plain"}`, "ExperimentService/ListOverrides": `{"experiment":"plain"}`,
		"AnalysisService/ListAnalyses": `{"experiment":"plain"}`, listAuditEvents: `{}`, getSubject: `{"subject":{"key":"u"}}`,
	}
	positions := []string{"\x00", "ü", "-", "A B", "9223372036854775807 00000000000040008000000000000000", "-9223372036854775808 00000000000040008000000000000000",
		"1 0000000000004000800000000000000", "1 00000000000040008000000000000000 and more", "99999999999999999999", "9 0 00000000000000000000000000000000", "0 -1 00000000000000000000000000000000", "0000000000004000800000000000000000", strings.Repeat("x", 700)}
	for _, method := range slices.Sorted(maps.Keys(requests)) {
		for _, position := range positions {
			token := base64.RawURLEncoding.EncodeToString([]byte(position))
			_, err := a.invoke(t, method, newRequest(t, method, with(requests[method], fmt.Sprintf(`"page_token":%q`, token))))
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s with a token of %q: %v", method, position, err)
			}
		}
		_, err := a.invoke(t, method, newRequest(t, method, with(requests[method], `"page_token":"not base64!"`)))
		checkRefusal(t, err, codes.InvalidArgument, "not a token of this list", "page_token")
		_, err = a.invoke(t, method, newRequest(t, method, with(requests[method], fmt.Sprintf(`"page_token":%q`, strings.Repeat("x", 1025)))))
		checkRefusal(t, err, codes.InvalidArgument, "", "page_token")
	}
}

// TestLargeRefusal is refused at thousands of fields with long names. What a
// status says travels in a header, of which clients accept 8 KiB.
func TestLargeRefusal(t *testing.T) {
	a := newAPI(t)
	mask := &fieldmaskpb.FieldMask{}
	for i := range 1000 {
		mask.Paths = append(mask.Paths, fmt.Sprintf("ü%d%s", i, strings.Repeat("ü", 500)))
	}
	_, err := a.metrics.UpdateMetric(t.Context(), &assayv1.UpdateMetricRequest{Metric: &assayv1.Metric{Key: "m"}, UpdateMask: mask})
	st := status.Convert(err)
	if st.Code() != codes.InvalidArgument || !strings.Contains(st.Message(), "more") {
		t.Errorf("refused with %.1000s", err)
	}
	size := proto.Size(st.Proto())*4/3 + 3*len(st.Message())
	if size > 8<<10 {
		t.Errorf("the status takes up to %d bytes", size)
	}
	if len(refusalDetails(err)) < 3 {
		t.Errorf("only %d fields are named", len(refusalDetails(err)))
	}
}
