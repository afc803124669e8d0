package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/assayhq/assay/internal/assign"
)

// flag resolves a flag in a version of the OpenFeature protocol to a type, such
// as "Boolean", for a context as JSON, "" for
// none.
func (a *api) flag(t *testing.T, version int, typ, key, context string) (proto.Message, error) {
	t.Helper()
	quoted, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	request := fmt.Sprintf(`{"flag_key":%s}`, quoted)
	if context != "" {
		request = fmt.Sprintf(`{"flag_key":%s,"context":%s}`, quoted, context)
	}
	return a.invokeFlagd(t, version, "Resolve"+typ, request)
}

func (a *api) invokeFlagd(t *testing.T, version int, method, request string) (proto.Message, error) {
	t.Helper()
	d := flagdMethod(t, version, method)
	resp := newMessage(t, d.Output())
	err := a.conn.Invoke(t.Context(), fmt.Sprintf("/%s/%s", d.Parent().FullName(), d.Name()), parse(t, d.Input(), request), resp)
	return resp, err
}

func flagdMethod(t *testing.T, version int, method string) protoreflect.MethodDescriptor {
	t.Helper()
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(fmt.Sprintf("flagd.evaluation.v%d.Service.%s", version, method)))
	if err != nil {
		t.Fatal(err)
	}
	return d.(protoreflect.MethodDescriptor)
}

// expectFlag resolves a flag in both versions to the same response.
func (a *api) expectFlag(t *testing.T, typ, key, context, response string) {
	t.Helper()
	for version := 1; version <= 2; version++ {
		got, err := a.flag(t, version, typ, key, context)
		if err != nil {
			t.Errorf("version %d: %s of %s: %v", version, typ, key, err)
			continue
		}
		want := parse(t, got.ProtoReflect().Descriptor(), response)
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("version %d: %s of %s (-want +got):\n%s", version, typ, key, diff)
		}
	}
}

// refusesFlag resolves a flag in both versions, which must both refuse it.
func (a *api) refusesFlag(t *testing.T, typ, key, context string, code codes.Code, reason, says string) {
	t.Helper()
	for version := 1; version <= 2; version++ {
		_, err := a.flag(t, version, typ, key, context)
		checkRefusal(t, err, code, reason+": ", reason)
		checkRefusal(t, err, code, says, reason)
	}
}

// run creates an experiment of which everyone gets the variant "b", and starts
// it.
func (a *api) run(t *testing.T, key, payload, patch string) {
	t.Helper()
	b := `{"key":"b"}`
	if payload != "" {
		b = `{"key":"b","payload":` + payload + `}`
	}
	patch = fmt.Sprintf(`"key":%q,"variants":[{"key":"a","control":true,"weight":0},%s]`, key, b) + patch
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(patch))
	a.do(t, "ExperimentService/StartExperiment", fmt.Sprintf(`{"key":%q}`, key))
}

const anyone = `{"targetingKey":"u-1"}`

// typedFlags are experiments with a payload of each type.
var typedFlags = []struct{ key, payload string }{
	{"bool", `{"value":true}`},
	{"false", `{"value":false}`},
	{"string", `{"value":"Pay now","more":1}`},
	{"float", `{"value":1.5}`},
	{"int", `{"value":-9007199254740993}`},
	{"huge", `{"value":9223372036854775808}`},
	{"object", `{"title":"Pay now","sizes":[1,{"x":null}]}`},
	{"nested", `{"value":{"value":true}}`},
	{"null", `{"value":null}`},
	{"empty", `{}`},
	{"bare", ``},
}

func TestFlagValues(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	for _, f := range typedFlags {
		a.run(t, f.key, f.payload, "")
	}
	values := map[string]map[string]string{ // Type → flag → value, where there is one.
		"Boolean": {"bool": `true`, "false": `false`},
		"String":  {"string": `"Pay now"`, "bare": `"b"`},
		"Float":   {"float": `1.5`, "int": `-9007199254740992`, "huge": `9223372036854775808`},
		"Int":     {"int": `"-9007199254740992"`},
		"Object":  {},
	}
	for _, f := range typedFlags {
		if f.payload != "" {
			values["Object"][f.key] = f.payload
		}
	}
	for typ, flags := range values {
		for _, f := range typedFlags {
			if value, ok := flags[f.key]; ok {
				a.expectFlag(t, typ, f.key, anyone, `{"value":`+value+`,"reason":"SPLIT","variant":"b"}`)
			} else {
				a.refusesFlag(t, typ, f.key, anyone, codes.InvalidArgument, "TYPE_MISMATCH", `the variant "b" has no `)
			}
		}
	}
}

func TestFlagReasons(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	const payload = `{"value":"x"}`
	conclude := func(key, more string) {
		t.Helper()
		a.do(t, "ExperimentService/ConcludeExperiment", fmt.Sprintf(`{"key":%q%s}`, key, more))
	}
	const poles = `,"eligibility":"attributes.country == 'PL' && unit == 'account' && !has(attributes.targetingKey)","unit":"account"`
	a.run(t, "eligible", payload, poles)
	a.run(t, "no-traffic", payload, `,"traffic":0`)
	a.do(t, "ExperimentService/SetOverrides", `{"experiment":"no-traffic","overrides":[{"subject_key":"pinned","variant":"b"}]}`)
	a.run(t, "shipped", payload, "")
	conclude("shipped", `,"shipped_variant":"b"`)
	a.run(t, "shipped-to-some", payload, poles)
	conclude("shipped-to-some", `,"shipped_variant":"b"`)
	a.run(t, "concluded", payload, "")
	conclude("concluded", "")
	a.run(t, "archived", payload, "")
	conclude("archived", `,"shipped_variant":"b"`)
	a.do(t, "ExperimentService/ArchiveExperiment", `{"key":"archived"}`)
	a.run(t, "paused", payload, "")
	a.do(t, "ExperimentService/PauseExperiment", `{"key":"paused"}`)
	a.run(t, "external", payload, `,"assignment":"ASSIGNMENT_EXTERNAL"`)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"key":"draft"`))

	const pole, german = `{"targetingKey":"u-1","country":"PL"}`, `{"targetingKey":"u-1","country":"DE"}`
	for _, tt := range []struct{ key, context, reason string }{
		{"eligible", pole, "SPLIT"},
		{"no-traffic", `{"targetingKey":"pinned"}`, "TARGETING_MATCH"},
		{"shipped", german, "STATIC"},
		{"shipped-to-some", pole, "TARGETING_MATCH"},
	} {
		a.expectFlag(t, "String", tt.key, tt.context, fmt.Sprintf(`{"value":"x","reason":%q,"variant":"b"}`, tt.reason))
	}
	// Without a variant the second version leaves out the value, and the first
	// has no such flag: the caller's default holds either way.
	for _, tt := range []struct{ key, context, reason string }{
		{"eligible", german, "DEFAULT"},
		{"eligible", anyone, "DEFAULT"}, // The predicate fails to evaluate.
		{"no-traffic", anyone, "DEFAULT"},
		{"shipped-to-some", german, "DEFAULT"},
		{"concluded", anyone, "DISABLED"},
		{"archived", anyone, "DISABLED"},
		{"paused", anyone, "DISABLED"},
		{"external", anyone, "DISABLED"},
		{"draft", anyone, "DISABLED"},
		{"draft", `{}`, "DISABLED"},
	} {
		for _, typ := range []string{"Boolean", "String", "Float", "Int", "Object"} {
			got, err := a.flag(t, 2, typ, tt.key, tt.context)
			if err != nil {
				t.Errorf("%s of %s: %v", typ, tt.key, err)
				continue
			}
			want := parse(t, got.ProtoReflect().Descriptor(), fmt.Sprintf(`{"reason":%q}`, tt.reason))
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("%s of %s for %s (-want +got):\n%s", typ, tt.key, tt.context, diff)
			}
			_, err = a.flag(t, 1, typ, tt.key, tt.context)
			checkRefusal(t, err, codes.NotFound, "("+tt.reason+")", "FLAG_NOT_FOUND")
		}
	}
}

func TestFlagErrors(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.run(t, "flag", `{"value":"x"}`, "")

	var many strings.Builder
	for i := range assign.MaxAttributes {
		fmt.Fprintf(&many, `,"a%d":%d`, i, i)
	}
	megabyte := strings.Repeat("x", 1<<20)
	for _, tt := range []struct {
		name, key, context string
		code               codes.Code
		reason, says       string
	}{
		{"an unknown flag", "nothing", anyone, codes.NotFound, "FLAG_NOT_FOUND", `"nothing"`},
		{"no flag", "", anyone, codes.NotFound, "FLAG_NOT_FOUND", `""`},
		{"a long flag", megabyte, anyone, codes.NotFound, "FLAG_NOT_FOUND", "xxx…"},
		{"a flag with NUL", "fl\x00ag", anyone, codes.NotFound, "FLAG_NOT_FOUND", `"fl\x00ag"`},
		{"no context", "flag", "", codes.FailedPrecondition, "TARGETING_KEY_MISSING", "no targetingKey"},
		{"no key", "flag", `{"country":"PL"}`, codes.FailedPrecondition, "TARGETING_KEY_MISSING", "no targetingKey"},
		{"an empty key", "flag", `{"targetingKey":""}`, codes.FailedPrecondition, "TARGETING_KEY_MISSING", "no targetingKey"},
		{"a null key", "flag", `{"targetingKey":null}`, codes.FailedPrecondition, "TARGETING_KEY_MISSING", "no targetingKey"},
		{"a number as key", "flag", `{"targetingKey":7}`, codes.FailedPrecondition, "INVALID_CONTEXT", "must be a string"},
		{"an object as key", "flag", `{"targetingKey":{}}`, codes.FailedPrecondition, "INVALID_CONTEXT", "must be a string"},
		{"a long key", "flag", `{"targetingKey":"` + strings.Repeat("é", 129) + `"}`, codes.FailedPrecondition, "INVALID_CONTEXT", "258 bytes"},
		{"a key with NUL", "flag", `{"targetingKey":"u\u0000"}`, codes.FailedPrecondition, "INVALID_CONTEXT", "NUL"},
		{"too many fields", "flag", `{"targetingKey":"u"` + many.String() + `}`, codes.FailedPrecondition, "INVALID_CONTEXT", "1001 fields"},
		{"a large field", "flag", `{"targetingKey":"u","x":"` + megabyte + `"}`, codes.FailedPrecondition, "INVALID_CONTEXT", `context["x"] is 1048576 bytes long; at most 1024 are read`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a.refusesFlag(t, "String", tt.key, tt.context, tt.code, tt.reason, tt.says)
		})
	}
	const value = `{"value":"x","reason":"SPLIT","variant":"b"}`
	a.expectFlag(t, "String", "flag", `{"targetingKey":"`+strings.Repeat("é", 128)+`"}`, value)
	a.expectFlag(t, "String", "flag", `{"targetingKey":"u"`+many.String()[len(`,"a0":0`):]+`}`, value)
	a.expectFlag(t, "String", "flag", `{"targetingKey":"u","country":"P\u0000L"}`, value)
}

func TestResolveAll(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	for _, f := range typedFlags {
		a.run(t, f.key, f.payload, "")
	}
	a.run(t, "account", "", `,"unit":"account","eligibility":"attributes.country == 'PL'"`)
	a.run(t, "shipped", "", "")
	a.do(t, "ExperimentService/ConcludeExperiment", `{"key":"shipped","shipped_variant":"a"}`)
	a.run(t, "paused", "", "")
	a.do(t, "ExperimentService/PauseExperiment", `{"key":"paused"}`)
	a.run(t, "no-traffic", "", `,"traffic":0`)

	want := map[string]string{
		"bool": `"bool_value":true`, "false": `"bool_value":false`, "string": `"string_value":"Pay now"`,
		"float": `"double_value":1.5`, "int": `"double_value":-9007199254740992`, "huge": `"double_value":9223372036854775808`,
		"bare": `"string_value":"b"`,
	}
	for _, f := range typedFlags {
		if want[f.key] == "" {
			want[f.key] = `"object_value":` + f.payload
		}
	}
	for context, accounts := range map[string]bool{anyone: false, `{"targetingKey":"u-1","country":"PL"}`: true} {
		flags := []string{`"shipped":{"reason":"STATIC","variant":"a","string_value":"a"}`}
		for key, value := range want {
			flags = append(flags, fmt.Sprintf(`%q:{"reason":"SPLIT","variant":"b",%s}`, key, value))
		}
		if accounts {
			flags = append(flags, `"account":{"reason":"SPLIT","variant":"b","string_value":"b"}`)
		}
		got, err := a.invokeFlagd(t, 1, "ResolveAll", `{"context":`+context+`}`)
		if err != nil {
			t.Fatal(err)
		}
		all := parse(t, got.ProtoReflect().Descriptor(), `{"flags":{`+strings.Join(flags, ",")+`}}`)
		if diff := cmp.Diff(all, got, protocmp.Transform()); diff != "" {
			t.Errorf("all flags for %s (-want +got):\n%s", context, diff)
		}
	}
	for context, reason := range map[string]string{`{}`: "TARGETING_KEY_MISSING", `{"targetingKey":[]}`: "INVALID_CONTEXT"} {
		_, err := a.invokeFlagd(t, 1, "ResolveAll", `{"context":`+context+`}`)
		checkRefusal(t, err, codes.FailedPrecondition, reason, reason)
	}
}

// TestEventStream follows the changes of an experiment in both versions.
func TestEventStream(t *testing.T) {
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	var streams []func(event string)
	for version := 1; version <= 2; version++ {
		d := flagdMethod(t, version, "EventStream")
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := a.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, fmt.Sprintf("/%s/%s", d.Parent().FullName(), d.Name()))
		if err == nil {
			err = stream.SendMsg(newMessage(t, d.Input()))
		}
		if err == nil {
			err = stream.CloseSend()
		}
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, func(event string) {
			t.Helper()
			got := newMessage(t, d.Output())
			if event == "" { // The client has had enough.
				cancel()
				if err := stream.RecvMsg(got); status.Code(err) != codes.Canceled {
					t.Errorf("version %d: ended with %v", version, err)
				}
				return
			}
			if err := stream.RecvMsg(got); err != nil {
				t.Fatalf("version %d: %v", version, err)
			}
			if diff := cmp.Diff(parse(t, d.Output(), event), got, protocmp.Transform()); diff != "" {
				t.Errorf("version %d: event (-want +got):\n%s", version, diff)
			}
		})
	}
	expect := func(event string) {
		t.Helper()
		for _, next := range streams {
			next(event)
		}
	}
	expect(`{"type":"provider_ready","data":{}}`)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(""))
	expect(`{"type":"configuration_change","data":{"flags":{"plain":{"type":"write"}}}}`)
	for _, call := range []struct{ method, request string }{
		{"StartExperiment", `{"key":"plain"}`},
		{"SetOverrides", `{"experiment":"plain","overrides":[{"subject_key":"u","variant":"b"}]}`},
		{"PauseExperiment", `{"key":"plain"}`},
	} {
		a.do(t, "ExperimentService/"+call.method, call.request)
		expect(`{"type":"configuration_change","data":{"flags":{"plain":{"type":"update"}}}}`)
	}
	expect("")
}
