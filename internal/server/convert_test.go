package server

import (
	"encoding/json"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

// The definitions of an API message and of the message made of them are equal,
// also when they have been stored in between.

func FuzzExperimentRoundTrip(f *testing.F) {
	validator, err := protovalidate.New()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		`{"key":"e","variants":[{"key":"a","control":true},{"key":"b"}]}`,
		`{"key":"e","unit":"account","owner":"o","description":"d","hypothesis":{"statement":"s","null_hypothesis":"n"},
		  "variants":[{"key":"a","control":true,"weight":0,"description":"<b>"},{"key":"b","weight":1000000,"payload":{"x":[1e300,-0.0,null,"é<\u2028",{"y":{}}],"":true}}],
		  "eligibility":"attributes.country == 'PL'","traffic":0,"salt":"s","assignment":"ASSIGNMENT_EXTERNAL","labels":{"a":"<&>","b":""},"segments":["country"],
		  "covariates":[{"name":"x","attribute":"spend"},{"name":"y","past_outcomes":{"outcome":"o","aggregate":"AGGREGATE_DISTINCT_DAYS","window":"86400.000000001s",
		    "conditions":[{"field":"value","op":"OP_NOT_EQUAL","values":["1","1e-400"]}]}}],
		  "metrics":[{"metric":"m","role":"METRIC_ROLE_GUARDRAIL","objective":"OBJECTIVE_NON_INFERIORITY","covariates":["x","y"],"margin":{"relative":0}},
		    {"metric":"n","role":"METRIC_ROLE_SECONDARY"},{"metric":"o","role":"METRIC_ROLE_PRIMARY","objective":"OBJECTIVE_EQUIVALENCE","margin":{"absolute":1}},
		    {"metric":"q","role":"METRIC_ROLE_SECONDARY","objective":"OBJECTIVE_DIFFERENCE"}],
		  "plan":{"method":"METHOD_FIXED_HORIZON","confidence_level":0.5000000000000001,"correction":"CORRECTION_BENJAMINI_HOCHBERG","minimum_effect":{"absolute":5e-324},"planned_subjects":"1000000000000","smallest_cell":0}}`,
		`{"key":"e","variants":[{"key":"a","control":true},{"key":"b"}],"plan":{"smallest_cell":20}}`,
		`{"key":"e","variants":[{"key":"a","control":true},{"key":"b"}],"plan":{"method":"METHOD_GROUP_SEQUENTIAL","planned_subjects":"1"}}`,
		`{"key":"e","variants":[{"key":"a","control":true},{"key":"b"}],"plan":{"method":"METHOD_GROUP_SEQUENTIAL","spending":"SPENDING_POCOCK","planned_subjects":"7"}}`,
		`{"key":"e","variants":[{"key":"a","control":true},{"key":"b"}],"plan":{"method":"METHOD_BAYESIAN","prior":{"beta":2.5,"lift_mean":-0.1,"lift_standard_deviation":0.3}}}`,
		`{"key":"e","variants":[{"key":"a","control":true},{"key":"b"}],"plan":{"method":"METHOD_BAYESIAN"}}`,
	} {
		f.Add(encode(f, new(assayv1.Experiment), seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var message assayv1.Experiment
		if proto.Unmarshal(data, &message) != nil || checkRules(validator, &message) != nil {
			return
		}
		def, err := definitionOf(&message)
		if err != nil {
			return
		}
		e := &experiment.Experiment{Key: message.Key, State: experiment.StateDraft, Version: 1,
			Current: experiment.Revision{Number: 1, Phase: 1, Definition: *def, Allocation: experiment.FirstAllocation(def.Variants)}}
		once := toExperiment(e)
		if err := checkRules(validator, once); err != nil {
			t.Fatalf("the message breaks its rules: %v", err)
		}
		again, err := definitionOf(once)
		if err != nil || !again.Equal(def) {
			t.Fatalf("the definition has changed: %v\n%s", err, cmp.Diff(def, again))
		}
		e.Current.Definition = stored(t, *def)
		if diff := cmp.Diff(once, toExperiment(e), protocmp.Transform()); diff != "" {
			t.Fatalf("what was stored differs:\n%s", diff)
		}
	})
}

func FuzzMetricRoundTrip(f *testing.F) {
	validator, err := protovalidate.New()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		`{"key":"m","direction":"DIRECTION_INCREASE","proportion":{"outcome":"purchase"}}`,
		`{"key":"m","direction":"DIRECTION_DECREASE","description":"<d>","window":"1.5s","mean":{"outcome":"x","conditions":[{"field":"size","op":"OP_GREATER_OR_EQUAL","values":["1"]}]}}`,
		`{"key":"m","direction":"DIRECTION_INCREASE","sum":{"outcome":"x","conditions":[{"field":"colour","op":"OP_EQUAL","values":["","red"]},{"field":"value","op":"OP_LESS","values":["-0"]}],"cap":{"lower_value":-0.0,"upper_percentile":99.9,"ignore_zeros":true}}}`,
		`{"key":"m","direction":"DIRECTION_INCREASE","formula":{"expression":"a","components":[{"name":"a","outcome":"x","aggregate":"AGGREGATE_MAX","cap":{"lower_percentile":5e-324,"upper_value":1e100}}]}}`,
		`{"key":"m","direction":"DIRECTION_INCREASE","ratio":{"numerator":{"outcome":"x","aggregate":"AGGREGATE_SUM"},"denominator":{"name":"n","outcome":"x","aggregate":"AGGREGATE_ANY"}}}`,
		`{"key":"m","direction":"DIRECTION_INCREASE","formula":{"expression":"-(a + 2.5e3) * b / a","components":[{"name":"a","outcome":"x","aggregate":"AGGREGATE_LAST"},{"name":"b","outcome":"y","aggregate":"AGGREGATE_MIN"}]}}`,
	} {
		f.Add(encode(f, new(assayv1.Metric), seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var message assayv1.Metric
		if proto.Unmarshal(data, &message) != nil || checkRules(validator, &message) != nil {
			return
		}
		def, err := fromMetric(&message)
		if err != nil {
			return
		}
		m := &metric.Metric{Key: message.Key, Revision: 1, Version: 1, Definition: *def}
		once := toMetric(m)
		if err := checkRules(validator, once); err != nil {
			t.Fatalf("the message breaks its rules: %v", err)
		}
		again, err := fromMetric(once)
		if diff := cmp.Diff(def, again); err != nil || diff != "" {
			t.Fatalf("the definition has changed: %v\n%s", err, diff)
		}
		m.Definition = stored(t, *def)
		if diff := cmp.Diff(once, toMetric(m), protocmp.Transform()); diff != "" {
			t.Fatalf("what was stored differs:\n%s", diff)
		}
	})
}

// encode returns the wire form of a message in JSON.
func encode(tb testing.TB, m proto.Message, text string) []byte {
	tb.Helper()
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		tb.Fatal(err)
	}
	data, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// stored returns what is read of a definition that was written.
func stored[D any](tb testing.TB, def D) (read D) {
	tb.Helper()
	data, err := json.Marshal(def)
	if err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(data, &read); err != nil {
		tb.Fatal(err)
	}
	return read
}

// TestEnums converts every value of the API's enums that a definition can hold
// to a noun and back.
func TestEnums(t *testing.T) {
	checkEnum(t, directions)
	checkEnum(t, aggregates)
	checkEnum(t, ops)
	checkEnum(t, states)
	checkEnum(t, roles)
	checkEnum(t, methods)
	checkEnum(t, corrections)
	checkEnum(t, spendings)
	checkEnum(t, sampleRatioVerdicts)
	checkEnum(t, guardrailVerdicts)
	checkEnum(t, actions)
}

func checkEnum[P interface {
	comparable
	protoreflect.Enum
}, D comparable](t *testing.T, e enum[P, D]) {
	t.Helper()
	var zero D
	values := e[0].api.Descriptor().Values()
	for i := range values.Len() {
		if n := values.Get(i).Number(); n != 0 {
			p := e[0].api.Type().New(n).(P)
			if d := e.from(p); d == zero || e.to(d) != p {
				t.Errorf("%v becomes %v and then %v", p, d, e.to(d))
			}
		}
	}
}

// TestDefinitionOf converts an experiment with every field.
func TestDefinitionOf(t *testing.T) {
	var message assayv1.Experiment
	encode(t, &message, `{"key":"e","unit":"account","owner":"o","description":"d","hypothesis":{"statement":"s","null_hypothesis":"n"},
		"variants":[{"key":"a","control":true,"weight":3,"description":"x"},{"key":"b","payload":{"y":[1],"x":"<"}}],
		"eligibility":"unit == 'account'","traffic":0.25,"salt":"z","assignment":"ASSIGNMENT_EXTERNAL","labels":{"k":"v"},"segments":["country"],
		"covariates":[{"name":"x","attribute":"spend"},{"name":"y","past_outcomes":{"outcome":"o","aggregate":"AGGREGATE_MAX","window":"60s","conditions":[{"field":"f","op":"OP_EQUAL","values":["v"]}]}}],
		"metrics":[{"metric":"m","role":"METRIC_ROLE_GUARDRAIL","objective":"OBJECTIVE_NON_INFERIORITY","covariates":["y"],"margin":{"relative":0.1}},
			{"metric":"n","role":"METRIC_ROLE_SECONDARY","objective":"OBJECTIVE_SUPERIORITY"},{"metric":"o","role":"METRIC_ROLE_SECONDARY","objective":"OBJECTIVE_DIFFERENCE"}],
		"plan":{"method":"METHOD_FIXED_HORIZON","confidence_level":0.9,"correction":"CORRECTION_BONFERRONI","minimum_effect":{"absolute":2},"planned_subjects":"5"}}`)
	got, err := definitionOf(&message)
	if err != nil {
		t.Fatal(err)
	}
	want := &experiment.Definition{
		Unit: "account", Owner: "o", Description: "d", Hypothesis: experiment.Hypothesis{Statement: "s", Null: "n"},
		Variants: []experiment.Variant{
			{Key: "a", Control: true, Weight: 3, Description: "x"},
			{Key: "b", Weight: 1, Payload: json.RawMessage(`{"x":"<","y":[1]}`)},
		},
		Eligibility: "unit == 'account'", Traffic: 0.25, Salt: "z", External: true,
		Labels: map[string]string{"k": "v"}, Segments: []string{"country"},
		Covariates: []experiment.Covariate{{Name: "x", Attribute: "spend"}, {Name: "y", Past: &experiment.PastOutcomes{
			Component: experiment.Component{Outcome: "o", Aggregate: experiment.AggregateMax, Conditions: []experiment.Condition{{Field: "f", Op: experiment.OpEqual, Values: []string{"v"}}}},
			Window:    time.Minute,
		}}},
		Metrics: []experiment.MetricUse{
			{Metric: "m", Role: experiment.RoleGuardrail, Covariates: []string{"y"}, Margin: &experiment.Magnitude{Value: 0.1, Relative: true}},
			{Metric: "n", Role: experiment.RoleSecondary, Objective: experiment.ObjectiveSuperiority},
			{Metric: "o", Role: experiment.RoleSecondary},
		},
		Plan: experiment.Plan{Method: experiment.MethodFixedHorizon, ConfidenceLevel: 0.9, Correction: experiment.CorrectionBonferroni,
			MinimumEffect: &experiment.Magnitude{Value: 2}, PlannedSubjects: 5},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("definition (-want +got):\n%s", diff)
	}
}

func TestFromMetric(t *testing.T) {
	var message assayv1.Metric
	encode(t, &message, `{"key":"m","description":"d","direction":"DIRECTION_DECREASE","window":"90s","ratio":{
		"numerator":{"outcome":"x","aggregate":"AGGREGATE_COUNT","conditions":[{"field":"value","op":"OP_LESS","values":["1"]}]},
		"denominator":{"name":"n","outcome":"y","aggregate":"AGGREGATE_ANY"}}}`)
	got, err := fromMetric(&message)
	if err != nil {
		t.Fatal(err)
	}
	want := &metric.Definition{
		Description: "d", Direction: metric.DirectionDecrease, Kind: metric.KindRatio, Expression: "numerator / n", Window: 90 * time.Second,
		Components: []experiment.Component{
			{Name: "numerator", Outcome: "x", Aggregate: experiment.AggregateCount, Conditions: []experiment.Condition{{Field: "value", Op: experiment.OpLess, Values: []string{"1"}}}},
			{Name: "n", Outcome: "y", Aggregate: experiment.AggregateAny},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("definition (-want +got):\n%s", diff)
	}
}

// TestToAnalysis converts an analysis whose numbers are all different.
func TestToAnalysis(t *testing.T) {
	n := 0.0
	next := func() *float64 { n++; return proto.Float64(n) }
	interval := func() metric.Interval { return metric.Interval{Estimate: next(), Lower: next(), Upper: next()} }
	comparison := func() metric.Comparison {
		return metric.Comparison{
			Variant: "b", Baseline: "a", Difference: interval(), Lift: interval(),
			StandardError: next(), Statistic: next(), DegreesOfFreedom: next(), PValue: next(), AdjustedPValue: next(), Significant: true,
			VarianceReduction: next(), Boundary: proto.Float64(-1), ChanceToWin: proto.Float64(0.5), ExpectedLoss: proto.Float64(0.25), Guardrail: metric.GuardrailFailed, Notes: []string{"n"},
		}
	}
	whole, plain := comparison(), comparison()
	whole.Unadjusted = &plain
	got := toAnalysis(&metric.Analysis{
		SampleRatio: metric.SampleRatio{Observed: map[string]int64{"a": 1}, Expected: map[string]float64{"a": 2}, PValue: next(), Verdict: metric.SampleRatioMismatch},
		Exclusions:  metric.Exclusions{Crossovers: 3, Overridden: 4},
		Metrics: []metric.Result{{
			Metric: "m", Revision: 5, Role: experiment.RoleSecondary, Objective: experiment.ObjectiveEquivalence, Margin: &experiment.Magnitude{Value: 7, Relative: true}, Confirmatory: true, PeekingProtected: true, OpenWindows: 6,
			Arms:        []metric.Arm{{Variant: "a", Subjects: 7, Mean: next(), StandardError: next(), Total: next(), Notes: []string{"o"}}},
			Comparisons: []metric.Comparison{whole},
			Segments:    []metric.Segment{{Attribute: "country", Value: "PL", Arms: []metric.Arm{{Variant: "b"}}, Comparisons: []metric.Comparison{{Variant: "c"}}}},
		}},
		Verdict:    metric.Verdict{Action: metric.ActionShip, Variant: "b", Reasons: []string{"r"}},
		Warnings:   []string{"w"},
		Deviations: []experiment.Deviation{{Reason: "D", Message: "d"}},
	})
	var want assayv1.AnalyzeExperimentResponse
	encode(t, &want, `{
		"sampleRatio":{"observed":{"a":"1"},"expected":{"a":2},"pValue":25,"verdict":"SAMPLE_RATIO_VERDICT_MISMATCH"},
		"exclusions":{"crossovers":"3","overridden":"4"},
		"metrics":[{"metric":"m","metricRevision":5,"role":"METRIC_ROLE_SECONDARY","objective":"OBJECTIVE_EQUIVALENCE","margin":{"relative":7},"confirmatory":true,"peekingProtected":true,"openWindowSubjects":"6",
			"arms":[{"variant":"a","subjects":"7","mean":26,"standardError":27,"total":28,"notes":["o"]}],
			"comparisons":[{"variant":"b","baseline":"a","difference":{"estimate":1,"lower":2,"upper":3},"lift":{"estimate":4,"lower":5,"upper":6},
				"standardError":7,"statistic":8,"degreesOfFreedom":9,"pValue":10,"adjustedPValue":11,"significant":true,"varianceReduction":12,"boundary":-1,
				"chanceToWin":0.5,"expectedLoss":0.25,"guardrail":"GUARDRAIL_VERDICT_FAILED","notes":["n"],
				"unadjusted":{"variant":"b","baseline":"a","difference":{"estimate":13,"lower":14,"upper":15},"lift":{"estimate":16,"lower":17,"upper":18},
					"standardError":19,"statistic":20,"degreesOfFreedom":21,"pValue":22,"adjustedPValue":23,"significant":true,"varianceReduction":24,"boundary":-1,
					"chanceToWin":0.5,"expectedLoss":0.25,"guardrail":"GUARDRAIL_VERDICT_FAILED","notes":["n"]}}],
			"segments":[{"attribute":"country","value":"PL","arms":[{"variant":"b"}],"comparisons":[{"variant":"c","difference":{},"lift":{}}],"exploratory":true}]}],
		"verdict":{"action":"VERDICT_ACTION_SHIP","variant":"b","reasons":["r"]},"warnings":["w"],"deviations":[{"reason":"D","message":"d"}]}`)
	if diff := cmp.Diff(&want, got, protocmp.Transform()); diff != "" {
		t.Errorf("analysis (-want +got):\n%s", diff)
	}
}
