package server

import (
	"encoding/json"
	"math"
	"testing"

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
		  "metrics":[{"metric":"m","role":"METRIC_ROLE_GUARDRAIL","covariates":["x","y"],"margin":{"relative":0}},{"metric":"n","role":"METRIC_ROLE_SECONDARY"}],
		  "plan":{"method":"METHOD_FIXED_HORIZON","confidence_level":0.5000000000000001,"correction":"CORRECTION_BENJAMINI_HOCHBERG","minimum_effect":{"absolute":5e-324},"planned_subjects":"1000000000000"}}`,
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
		`{"key":"m","direction":"DIRECTION_INCREASE","sum":{"outcome":"x","conditions":[{"field":"colour","op":"OP_EQUAL","values":["","red"]},{"field":"value","op":"OP_LESS","values":["-0"]}]}}`,
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

// TestNothingIsNumber holds that an absent number stays absent.
func TestNothingIsNumber(t *testing.T) {
	got := toComparison(&metric.Comparison{Variant: "b", Baseline: "a", Notes: []string{"n"}, PValue: proto.Float64(math.SmallestNonzeroFloat64)})
	want := &assayv1.Comparison{Variant: "b", Baseline: "a", Difference: &assayv1.Interval{}, Lift: &assayv1.Interval{}, Notes: []string{"n"}, PValue: proto.Float64(math.SmallestNonzeroFloat64)}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}
