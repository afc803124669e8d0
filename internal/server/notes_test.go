package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"google.golang.org/protobuf/proto"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// withoutNotes are messages with optional numbers that need none. Those of all but the
// last are what a caller has set or sent, so that their absence is the caller's own.
// An interval occurs only in a comparison, whose notes speak for it.
var withoutNotes = []protoreflect.FullName{
	"assay.v1.Prior", "assay.v1.Plan", "assay.v1.Variant", "assay.v1.Experiment", "assay.v1.RecordedOutcome", "assay.v1.Interval",
}

// TestOptionalNumbersHaveNotes walks all messages that any call answers with. One with
// a number that may be absent has notes, which say why.
func TestOptionalNumbersHaveNotes(t *testing.T) {
	seen := map[protoreflect.FullName]bool{}
	var walk func(m protoreflect.MessageDescriptor)
	walk = func(m protoreflect.MessageDescriptor) {
		if seen[m.FullName()] || m.ParentFile().Package() != "assay.v1" {
			return
		}
		seen[m.FullName()] = true
		var absent []string
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			switch f.Kind() {
			case protoreflect.MessageKind:
				walk(f.Message())
			case protoreflect.DoubleKind, protoreflect.Int32Kind, protoreflect.Int64Kind:
				if f.HasOptionalKeyword() {
					absent = append(absent, string(f.Name()))
				}
			}
		}
		if len(absent) > 0 && m.Fields().ByName("notes") == nil && m.Fields().ByName("note") == nil && !slices.Contains(withoutNotes, m.FullName()) {
			t.Errorf("%s has no notes to say why %q are absent", m.FullName(), absent)
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("assay.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for k := range methods.Len() {
				walk(methods.Get(k).Output())
			}
		}
		return true
	})
	if len(seen) < 30 {
		t.Errorf("%d messages were walked", len(seen))
	}
}

// needless are the numbers whose absence follows from what was asked for, as the
// field's comment says, and needs no note of its own: a method that has none, a
// metric that is no mean, nothing to correct, no such cap.
var needless = map[protoreflect.FullName]func(method string) bool{
	"assay.v1.ArmResult.total":                          always,
	"assay.v1.ArmResult.largest_share":                  always,
	"assay.v1.ArmResult.informative_subjects":           always,
	"assay.v1.AppliedCap.lower":                         always,
	"assay.v1.AppliedCap.upper":                         always,
	"assay.v1.Comparison.adjusted_p_value":              always,
	"assay.v1.Comparison.variance_reduction":            always,
	"assay.v1.Comparison.smallest_p_value":              always,
	"assay.v1.Comparison.degrees_of_freedom":            always,
	"assay.v1.Comparison.boundary":                      always,
	"assay.v1.Comparison.chance_to_win":                 func(method string) bool { return method != "METHOD_BAYESIAN" },
	"assay.v1.Comparison.expected_loss":                 func(method string) bool { return method != "METHOD_BAYESIAN" },
	"assay.v1.Comparison.statistic":                     func(method string) bool { return method == "METHOD_BAYESIAN" },
	"assay.v1.Comparison.p_value":                       func(method string) bool { return method == "METHOD_BAYESIAN" },
	"assay.v1.PlanExperimentResponse.expected_subjects": always,
	"assay.v1.RosterBalance.standardized_difference":    always,
}

func always(string) bool { return true }

// unexplained lists the numbers of an answer that are absent without a note. An
// interval's are those of its comparison.
func unexplained(m protoreflect.Message, method, path string) (list []string) {
	notes := m.Descriptor().Fields().ByName("notes")
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Kind() != protoreflect.MessageKind || f.IsMap() {
			return true
		}
		where := fmt.Sprint(path, ".", f.Name())
		if !f.IsList() {
			list = append(list, unexplained(v.Message(), method, where)...)
			return true
		}
		for i := range v.List().Len() {
			list = append(list, unexplained(v.List().Get(i).Message(), method, fmt.Sprint(where, "[", i, "]"))...)
		}
		return true
	})
	if notes == nil || m.Get(notes).List().Len() > 0 {
		return list
	}
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if !f.HasOptionalKeyword() || m.Has(f) {
			continue
		}
		if skip := needless[f.FullName()]; skip == nil || !skip(method) {
			list = append(list, fmt.Sprint(path, ".", f.Name()))
		}
	}
	if c, ok := m.Interface().(*assayv1.Comparison); ok && (c.GetDifference().Estimate == nil || c.GetLift().Estimate == nil) {
		list = append(list, path+": an estimate")
	}
	return list
}

// TestAbsentNumbersAreExplained analyses experiments with next to nothing in them, by
// every method: whatever is not there has a note beside it.
func TestAbsentNumbersAreExplained(t *testing.T) {
	a := newAPI(t)
	for _, metric := range []string{
		purchaseRate, revenue, orderValue,
		`{"metric":{"key":"highest","direction":"DIRECTION_DECREASE","window":"1209600s","formula":{"expression":"x","components":[{"name":"x","outcome":"purchase","aggregate":"AGGREGATE_MAX"}]}}}`,
	} {
		a.do(t, "MetricService/CreateMetric", metric)
	}
	buys, nothing := []time.Duration{time.Hour}, []time.Duration{-48 * time.Hour} // Which does not count.
	alike := func(n int, buys []time.Duration, band string) (list []customer) {
		for i := range n {
			list = append(list, customer{variant: []string{"a", "b"}[i%2], exposed: exposedAt, buys: buys, band: band})
		}
		return list
	}
	for what, customers := range map[string][]customer{
		"nobody":           nil,
		"one":              alike(1, buys, "x"),
		"one-each":         alike(2, nothing, "x"),
		"nothing-happens":  alike(60, nothing, "x"),
		"all-alike":        alike(60, buys, "x"),
		"one-of-many-buys": append(alike(59, nil, "x"), customer{variant: "b", exposed: exposedAt, buys: buys, band: "y"}),
		"two-bands":        slices.Concat(alike(60, buys, "x"), alike(60, nil, "y"), alike(6, nil, "")),
	} {
		for _, method := range []string{"METHOD_ALWAYS_VALID", "METHOD_FIXED_HORIZON", "METHOD_GROUP_SEQUENTIAL", "METHOD_BAYESIAN"} {
			key := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(method, "METHOD_"), "_", "-") + "-" + what)
			plan := fmt.Sprintf(`"plan":{"method":%q,"planned_subjects":"1000"}`, method)
			if method == "METHOD_GROUP_SEQUENTIAL" {
				plan = fmt.Sprintf(`"plan":{"method":%q,"planned_subjects":"1000","spending":"SPENDING_POCOCK"}`, method)
			}
			a.do(t, "ExperimentService/CreateExperiment", fmt.Sprintf(`{"experiment":{"key":%q,"owner":"o","assignment":"ASSIGNMENT_EXTERNAL","unit":"user",
				"hypothesis":{"statement":"s","null_hypothesis":"n"},"variants":[{"key":"a","control":true},{"key":"b"}],"segments":["band"],
				"covariates":[{"name":"band","attribute":"band"},{"name":"before","past_outcomes":{"outcome":"purchase","aggregate":"AGGREGATE_COUNT","window":"86400s"}}],
				"metrics":[{"metric":"purchase_rate","role":"METRIC_ROLE_PRIMARY","covariates":["band","before"]},{"metric":"order_value","role":"METRIC_ROLE_SECONDARY"},
					{"metric":"highest","role":"METRIC_ROLE_SECONDARY"},{"metric":"revenue","role":"METRIC_ROLE_GUARDRAIL","margin":{"relative":0.1}}],%s}}`, key, plan))
			a.do(t, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
			if len(customers) > 0 {
				a.sell(t, key, customers)
			}
			requests := []string{fmt.Sprintf(`{"experiment":%q,"segments":["band"]}`, key)}
			if method == "METHOD_GROUP_SEQUENTIAL" && len(customers) > 1 {
				requests = append(requests, fmt.Sprintf(`{"experiment":%q,"segments":["band"],"take_look":true}`, key))
			}
			check := func(answer proto.Message, method string) {
				for _, number := range unexplained(answer.ProtoReflect(), method, "") {
					t.Errorf("%s: %s is absent, and nothing says why", key, number)
				}
			}
			check(call[*assayv1.GetTimelineResponse](t, a, "AnalysisService/GetTimeline", fmt.Sprintf(`{"experiment":%q}`, key)), "METHOD_ALWAYS_VALID")
			for _, request := range requests {
				check(call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", request), method)
			}
		}
	}
}
