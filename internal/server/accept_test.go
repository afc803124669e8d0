package server

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// acceptable holds, of each kind of message that accepts knows, one that it
// must accept, or the validator would be asked every time.
func acceptable(tb testing.TB) []proto.Message {
	tb.Helper()
	long := strings.Repeat("k", 256)
	subject := `{"unit":"user","key":"u-1","attributes":{"country":"PL","age":31,"tags":["a",null,{"b":true}]}}`
	list := []struct {
		m    proto.Message
		text string
	}{
		{&assayv1.Subject{}, subject},
		{&assayv1.Subject{}, `{"key":"` + long + `"}`},
		{&assayv1.AssignRequest{}, `{"subject":` + subject + `,"experiments":["a","b0_-"],"exposureRecording":"EXPOSURE_RECORDING_DURABLE"}`},
		{&assayv1.AssignRequest{}, `{"subject":{"key":"Łódź"},"labels":{"team":"growth"}}`},
		{&assayv1.BatchAssignRequest{}, `{"subjects":[` + subject + `,{}],"experiments":["a"],"labels":{"":""}}`},
		{&assayv1.RecordExposuresRequest{}, `{"exposures":[{}]}`},
		{&assayv1.Exposure{}, `{"experiment":"a","variant":"b","subject":` + subject + `,"exposedTime":"2026-01-05T10:00:00Z","revision":1}`},
		{&assayv1.AllocateRosterRequest{}, `{"experiment":"a","subjects":[{"key":"Łódź","stratum":"` + long + `","covariates":{"past_spend":-1e100,"x0":0}},{"key":"` + long + `"}]}`},
		{&assayv1.RecordOutcomesRequest{}, `{"outcomes":[{}]}`},
		{&assayv1.StreamEventsRequest{}, `{"sequence":"1","exposures":[{}],"outcomes":[{}]}`},
		{&assayv1.Outcome{}, `{"eventId":"e","subject":` + subject + `,"name":"purchase \u0080","value":-1e100,"occurredTime":"2026-01-05T10:00:00Z","properties":{"sku":"A1"}}`},
	}
	messages := make([]proto.Message, len(list))
	for i, x := range list {
		if err := protojson.Unmarshal([]byte(x.text), x.m); err != nil {
			tb.Fatal(err)
		}
		messages[i] = x.m
	}
	return messages
}

func newValidator(tb testing.TB) protovalidate.Validator {
	tb.Helper()
	v, err := protovalidate.New()
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// checkAccepted holds that the validator accepts what accepts does.
func checkAccepted(tb testing.TB, v protovalidate.Validator, m proto.Message) (accepted, valid bool) {
	tb.Helper()
	err := v.Validate(m)
	if accepts(m) {
		accepted = true
		if err != nil {
			tb.Fatalf("%.2000v is accepted; the validator says %v", m, err)
		}
	}
	return accepted, err == nil
}

// TestAccepts puts random values, among them those at the edges of the rules,
// into messages that hold to all of them. A rule that joins the schema and is
// forgotten here shows: half of the values of a field are then invalid.
func TestAccepts(t *testing.T) {
	v, r := newValidator(t), rand.New(rand.NewPCG(1, 2))
	for _, m := range acceptable(t) {
		if !accepts(m) {
			t.Errorf("%v is not accepted", m)
		}
		accepted, valid, invalid := 0, 0, 0
		for range 3000 {
			edited := proto.Clone(m)
			for range 1 + r.IntN(2) {
				edit(edited.ProtoReflect(), r)
			}
			yes, ok := checkAccepted(t, v, edited)
			switch {
			case yes:
				accepted++
			case ok:
				valid++
			default:
				invalid++
			}
		}
		if accepted < 100 || invalid < 100 || valid > accepted {
			t.Errorf("%T: %d accepted, %d left to the validator and valid, %d invalid", m, accepted, valid, invalid)
		}
	}
}

func TestIsKeyAndText(t *testing.T) {
	v := newValidator(t)
	for c := rune(0); c < 0x300; c++ {
		for _, s := range []string{string(c), "a" + string(c), string(c) + "a", strings.Repeat("a", 62) + string(c), strings.Repeat("a", 255) + string(c)} {
			for _, m := range []proto.Message{
				&assayv1.Subject{Key: "k", Unit: s}, &assayv1.Subject{Key: s},
				&assayv1.AssignRequest{Subject: &assayv1.Subject{Key: "k"}, Experiments: []string{s}},
			} {
				if accepted, valid := checkAccepted(t, v, m); accepted != valid {
					t.Errorf("%q: accepted %v, valid %v", s, accepted, valid)
				}
			}
		}
	}
}

// edit changes one field of a message or of one below it at random.
func edit(m protoreflect.Message, r *rand.Rand) {
	fields := m.Descriptor().Fields()
	fd := fields.Get(r.IntN(fields.Len()))
	switch {
	case fd.IsMap():
		values := m.Mutable(fd).Map()
		for range []int{1, 64, 65}[r.IntN(3)] {
			values.Set(randomValue(fd.MapKey(), values.NewValue(), r).MapKey(), values.NewValue())
		}
	case fd.IsList():
		list := m.Mutable(fd).List()
		list.Truncate(r.IntN(list.Len() + 1))
		for range r.IntN(4) * r.IntN(8) {
			list.Append(randomValue(fd, list.NewElement(), r))
		}
		if list.Len() > 0 && r.IntN(3) == 0 {
			list.Append(list.Get(r.IntN(list.Len())))
		}
	case fd.Kind() == protoreflect.MessageKind && r.IntN(3) > 0:
		if inner := m.Mutable(fd).Message(); inner.Descriptor().Fields().Len() > 0 {
			edit(inner, r)
		}
	case r.IntN(4) == 0:
		m.Clear(fd)
	default:
		m.Set(fd, randomValue(fd, m.NewField(fd), r))
	}
}

func randomValue(fd protoreflect.FieldDescriptor, empty protoreflect.Value, r *rand.Rand) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(randomText(r))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum([]protoreflect.EnumNumber{0, 1, 2, 3, 4, 99, -1, math.MinInt32}[r.IntN(8)])
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32([]int32{0, 1, 2, -1, math.MaxInt32, math.MinInt32}[r.IntN(6)])
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(r.Int64() - r.Int64())
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64([]float64{
			0, 1, -1, 1e100, -1e100, math.Nextafter(1e100, 2e100), math.Nextafter(-1e100, -2e100), math.NaN(), math.Inf(1), math.Inf(-1),
		}[r.IntN(10)])
	}
	return empty
}

// randomText returns text at the edges of the rules: of 0, 1, 63, 64, 128, 256
// and so on bytes, in whose middle or at whose end stands any character.
func randomText(r *rand.Rand) string {
	n := []int{0, 1, 5, 62, 63, 64, 127, 128, 129, 255, 256, 257}[r.IntN(12)]
	odd := []string{"", "", "", "", "\x00", "\n", "\x7f", "\x1f", "\u0080", "Ł", "A", "-", "_", "9", " ", "\U0001F600", "\u2028"}
	c := odd[r.IntN(len(odd))]
	text := strings.Repeat(string(rune('a'+r.IntN(26))), max(0, n-len(c)))
	at := []int{0, len(text) / 2, len(text)}[r.IntN(3)]
	return text[:at] + c + text[at:]
}

// FuzzAccepts looks for messages that are accepted and break a rule.
func FuzzAccepts(f *testing.F) {
	kinds := acceptable(f)
	for i, m := range kinds {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), data)
	}
	v := newValidator(f)
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		m := kinds[int(kind)%len(kinds)].ProtoReflect().New().Interface()
		if proto.Unmarshal(data, m) == nil {
			checkAccepted(t, v, m)
		}
	})
}
