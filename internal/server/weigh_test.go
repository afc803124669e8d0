package server

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// requestTypes returns every message that a method of this API receives.
func requestTypes() (list []protoreflect.MessageType) {
	seen := map[protoreflect.FullName]bool{}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for k := range methods.Len() {
				name := methods.Get(k).Input().FullName()
				mt, err := protoregistry.GlobalTypes.FindMessageByName(name)
				if err == nil && !seen[name] {
					seen[name] = true
					list = append(list, mt)
				}
			}
		}
		return true
	})
	slices.SortFunc(list, func(a, b protoreflect.MessageType) int {
		return strings.Compare(string(a.Descriptor().FullName()), string(b.Descriptor().FullName()))
	})
	return list
}

// worstMessages returns encodings of about n bytes that take as much memory as
// can be: for every list and map that the message leads to and that is not in
// known, one that has nothing but its smallest elements, and for texts and numbers
// the same.
func worstMessages(md protoreflect.MessageDescriptor, n int, known map[protoreflect.FullName]bool) map[string][]byte {
	worst := map[string][]byte{}
	var visit func(md protoreflect.MessageDescriptor, path string, wrap func([]byte) []byte, seen []protoreflect.FullName)
	visit = func(md protoreflect.MessageDescriptor, path string, wrap func([]byte) []byte, seen []protoreflect.FullName) {
		if slices.Contains(seen, md.FullName()) || len(seen) > 8 {
			return
		}
		seen = append(slices.Clone(seen), md.FullName())
		for i := range md.Fields().Len() {
			fd := md.Fields().Get(i)
			name := path + "." + string(fd.Name())
			for k, element := range smallest(fd) {
				if known[fd.FullName()] {
					break
				}
				var content []byte
				for j := 0; len(content) < n; j++ {
					content = append(content, element(j)...)
				}
				worst[fmt.Sprintf("%s/%d", name, k)] = wrap(content)
			}
			known[fd.FullName()] = true
			if fd.Message() != nil {
				visit(fd.Message(), name, func(content []byte) []byte {
					return wrap(protowire.AppendBytes(protowire.AppendTag(nil, fd.Number(), protowire.BytesType), content))
				}, seen)
			}
		}
	}
	visit(md, "", func(content []byte) []byte { return content }, nil)
	return worst
}

// smallest returns how the smallest elements of a field are encoded.
func smallest(fd protoreflect.FieldDescriptor) (elements []func(i int) []byte) {
	of := func(kind protowire.Type, content []byte) []byte {
		b := protowire.AppendTag(nil, fd.Number(), kind)
		if kind == protowire.BytesType {
			return protowire.AppendBytes(b, content)
		}
		return append(b, content...)
	}
	key := func(i int) []byte { // Of an entry, each another one.
		return protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), fmt.Sprint(i))
	}
	switch {
	case fd.IsMap():
		return []func(int) []byte{
			func(i int) []byte { return of(protowire.BytesType, key(i)) },
			func(i int) []byte { return of(protowire.BytesType, append(key(i), 0x12, 0)) },
		}
	case fd.Message() != nil, fd.Kind() == protoreflect.StringKind, fd.Kind() == protoreflect.BytesKind:
		return []func(int) []byte{
			func(int) []byte { return of(protowire.BytesType, nil) },
			func(int) []byte { return of(protowire.BytesType, []byte{0x0a, 0}) },
		}
	case fd.IsList() && fd.IsPacked():
		return []func(int) []byte{
			func(int) []byte { return of(protowire.BytesType, make([]byte, 8)) },
			func(int) []byte { return of(protowire.BytesType, make([]byte, 1<<16)) },
		}
	}
	switch fd.Kind() {
	case protoreflect.DoubleKind, protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
		return []func(int) []byte{func(int) []byte { return of(protowire.Fixed64Type, make([]byte, 8)) }}
	case protoreflect.FloatKind, protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind:
		return []func(int) []byte{func(int) []byte { return of(protowire.Fixed32Type, make([]byte, 4)) }}
	}
	return []func(int) []byte{func(int) []byte { return of(protowire.VarintType, []byte{1}) }}
}

// heldBy returns how many bytes decoding leaves in memory, as the server decodes: by
// so many copies, since what else the process does would show in a small one.
func heldBy(t *testing.T, mt protoreflect.MessageType, data []byte, copies int) int64 {
	t.Helper()
	var before, after runtime.MemStats
	decoded := make([]proto.Message, copies)
	runtime.GC() // What earlier tests left in pools goes at the second time.
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range decoded {
		decoded[i] = mt.New().Interface()
		if err := decode(data, decoded[i]); err != nil && !strings.Contains(err.Error(), "invalid UTF-8") {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(decoded)
	return (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / int64(copies)
}

// checkWeight holds what a message is said to take to what it does, by the least of a
// few measurements, with its encoding. What a batch of outcomes has in reserve is as
// little as the room that each call has beside its message.
func checkWeight(t *testing.T, name string, mt protoreflect.MessageType, data []byte, bytes int64) (held int64) {
	t.Helper()
	held = math.MaxInt64
	reserve := int64(0)
	if mt.Descriptor().Name() == "RecordOutcomesRequest" {
		reserve = callBytes / 2
	}
	for range 4 {
		held = min(held, int64(len(data))+heldBy(t, mt, data, 1+20_000/(len(data)+1)))
		if held <= bytes+reserve {
			return held
		}
	}
	t.Errorf("%s: %d bytes of the wire take %d with them, and are said to take %d: %.80x", name, len(data), held, bytes, data)
	return held
}

// What a message is said to take is what it takes, or somewhat more, whatever
// there is most of in it: each list, map, text and number of each kind of message
// that requests lead to.
func TestWeigh(t *testing.T) {
	const size = 1 << 15
	seen := map[protoreflect.FullName]bool{}
	for _, mt := range requestTypes() {
		for path, data := range worstMessages(mt.Descriptor(), size, seen) {
			bytes, err := weigh(data, mt.Zero().Interface(), 1<<40)
			if err != nil { // Of more items than the schema admits.
				continue
			}
			held := checkWeight(t, string(mt.Descriptor().FullName())+path, mt, data, bytes)
			if held > 1<<18 && bytes > 4*held {
				t.Errorf("%s%s: %d bytes of the wire take %d, and are said to take as much as %d", mt.Descriptor().FullName(), path, len(data), held, bytes)
			}
		}
	}
	if len(seen) < 100 {
		t.Errorf("there were %d kinds of messages", len(seen))
	}
}

// The usual messages are not said to take much more than they do.
func TestWeighUsual(t *testing.T) {
	for _, m := range []proto.Message{manyOutcomes(1000), usualExposures(1000)} {
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		bytes, err := weigh(data, m, 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		mt := m.ProtoReflect().Type()
		checkWeight(t, fmt.Sprintf("%T", m), mt, data, bytes)
		held := int64(0) // What else is freed meanwhile makes it less.
		for range 4 {
			held = max(held, heldBy(t, mt, data, 8))
		}
		if bytes > 3*held {
			t.Errorf("%T of %d bytes takes %d, and is said to take %d", m, len(data), held, bytes)
		}
	}
}

func usualExposures(n int) *assayv1.RecordExposuresRequest {
	attributes, _ := structpb.NewStruct(map[string]any{"country": "PL", "age": 31})
	req := &assayv1.RecordExposuresRequest{}
	for i := range n {
		req.Exposures = append(req.Exposures, &assayv1.Exposure{
			Experiment: "checkout-copy", Variant: "short", ExposedTime: timestamppb.Now(),
			Subject: &assayv1.Subject{Key: fmt.Sprintf("u-%d", i), Attributes: attributes},
		})
	}
	return req
}

// Random messages take what they are said to: with fields that stand again and again,
// unknown ones, groups, numbers in packed lists and out of them, and known fields in
// another encoding.
func TestWeighRandom(t *testing.T) {
	r := randomMessages{rand.New(rand.NewPCG(1, 2))}
	for i, mt := range requestTypes() {
		for _, size := range []int{600, 600, 8000} {
			data := r.message(mt.Descriptor(), size, 0)
			bytes, err := weigh(data, mt.Zero().Interface(), 1<<40)
			if err != nil || proto.Unmarshal(data, mt.New().Interface()) != nil {
				continue // It has too many items, or is too deep, or a map's key is repeated wrongly.
			}
			checkWeight(t, fmt.Sprintf("%d, %s", i, mt.Descriptor().FullName()), mt, data, bytes)
		}
	}
}

// randomMessages are encodings of messages.
type randomMessages struct{ *rand.Rand }

// message returns about n bytes, mostly of two of the fields.
func (r randomMessages) message(md protoreflect.MessageDescriptor, n, depth int) (data []byte) {
	fields := md.Fields()
	if fields.Len() == 0 {
		return nil
	}
	often := []int{r.IntN(fields.Len()), r.IntN(fields.Len())}
	for len(data) < n {
		fd := fields.Get(often[r.IntN(2)])
		if r.IntN(8) == 0 {
			fd = fields.Get(r.IntN(fields.Len()))
		}
		one := r.field(fd, n-len(data), depth)
		for range 1 + r.IntN(2)*r.IntN(64) {
			data = append(data, one...)
		}
	}
	return data
}

func (r randomMessages) field(fd protoreflect.FieldDescriptor, n, depth int) []byte {
	number, kind := fd.Number(), wireType(fd)
	if r.IntN(10) == 0 {
		number = protowire.Number(1 + r.IntN(1<<r.IntN(20)))
	}
	if r.IntN(20) == 0 {
		kind = []protowire.Type{protowire.VarintType, protowire.Fixed32Type, protowire.Fixed64Type, protowire.BytesType, protowire.StartGroupType}[r.IntN(5)]
	}
	if fd.IsList() && fd.Message() == nil && r.IntN(2) == 0 {
		kind = protowire.BytesType
	}
	data := protowire.AppendTag(nil, number, kind)
	switch kind {
	case protowire.VarintType:
		return protowire.AppendVarint(data, r.Uint64()>>r.IntN(64))
	case protowire.Fixed32Type:
		return protowire.AppendFixed32(data, r.Uint32())
	case protowire.Fixed64Type:
		return protowire.AppendFixed64(data, r.Uint64())
	case protowire.StartGroupType:
		data = protowire.AppendVarint(protowire.AppendTag(data, 1, protowire.VarintType), 1)
		return protowire.AppendTag(data, number, protowire.EndGroupType)
	}
	content := bytes.Repeat([]byte{'a'}, 8*r.IntN(1+min(n, 1<<r.IntN(11))/8))
	if fd.Message() != nil && number == fd.Number() {
		content = nil
		if depth < 20 && r.IntN(3) > 0 {
			content = r.message(fd.Message(), min(n, 1<<r.IntN(13)), depth+1)
		}
	}
	return protowire.AppendBytes(data, content)
}

// No small message takes more than smallFactor times its encoding: those that are made
// of one element over and over, which is worst. Requests to record are weighed however
// small they are.
func TestSmallFactor(t *testing.T) {
	for _, mt := range requestTypes() {
		switch mt.Zero().Interface().(type) {
		case *assayv1.RecordOutcomesRequest, *assayv1.RecordExposuresRequest, *assayv1.StreamEventsRequest:
			continue
		}
		var worst []byte
		var most int64
		for _, data := range smallMessages(mt.Descriptor(), func(content []byte) []byte { return content }, 0) {
			if bytes, err := weigh(data, mt.Zero().Interface(), 1<<40); err == nil && bytes > most {
				worst, most = data, bytes
			}
		}
		if worst != nil {
			checkWeight(t, string(mt.Descriptor().FullName()), mt, worst, smallFactor*int64(len(worst)))
		}
	}
}

// smallMessages returns encodings that are as long as small ones may be, for each list
// and map that a kind of message leads to.
func smallMessages(md protoreflect.MessageDescriptor, wrap func([]byte) []byte, depth int) (list [][]byte) {
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if fd.Message() == nil || depth > 4 {
			continue
		}
		field := func(content []byte) []byte {
			return protowire.AppendBytes(protowire.AppendTag(nil, fd.Number(), protowire.BytesType), content)
		}
		if fd.IsList() || fd.IsMap() {
			for _, element := range smallElements(fd.Message(), 4) {
				var content []byte
				for k := 0; ; k++ {
					one := field(element)
					if fd.IsMap() {
						one = field(append([]byte{0x0a, 1, byte(k % 127)}, element...))
					}
					if len(wrap(append(content, one...))) > smallMessage {
						break
					}
					content = append(content, one...)
				}
				list = append(list, wrap(content))
			}
		}
		list = append(list, smallMessages(fd.Message(), func(content []byte) []byte { return wrap(field(content)) }, depth+1)...)
	}
	return list
}

// smallElements returns an empty message, those with one message in them, and that
// with each of its messages.
func smallElements(md protoreflect.MessageDescriptor, depth int) [][]byte {
	list := [][]byte{nil}
	var all []byte
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if fd.Message() == nil || depth == 0 {
			continue
		}
		for k, inner := range smallElements(fd.Message(), depth-1) {
			one := protowire.AppendBytes(protowire.AppendTag(nil, fd.Number(), protowire.BytesType), inner)
			if list = append(list, one); k == 0 {
				all = append(all, one...)
			}
		}
	}
	return append(list, all)[:min(len(list)+1, 40)]
}

// What a message would take is more than there will ever be for it, whatever takes it
// there: not only what lies in messages of its own.
func TestWeighRefusesAtTheEnd(t *testing.T) {
	for _, tt := range []struct {
		m    proto.Message
		data []byte
	}{
		{&assayv1.RecordOutcomesRequest{}, bytes.Repeat([]byte{0x78, 1}, 1<<16)}, // Unknown fields.
	} {
		_, err := weigh(tt.data, tt.m, 1<<20)
		var invalid *experiment.InvalidError
		if !errors.As(err, &invalid) || !strings.Contains(invalid.Violations[0].Message, "takes the message over the 1048576 bytes") {
			t.Errorf("%T is not refused: %v", tt.m, err)
		}
	}
}

// What may not be decoded is refused by the field at fault.
func TestWeighRefuses(t *testing.T) {
	deep := structpb.NewNullValue()
	for range 60 {
		deep = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{deep}})
	}
	many := structpb.NewListValue(&structpb.ListValue{Values: slices.Repeat([]*structpb.Value{{}}, 100_000)})
	subject := func(v *structpb.Value) *assayv1.Subject {
		return &assayv1.Subject{Attributes: &structpb.Struct{Fields: map[string]*structpb.Value{"a": v}}}
	}
	strata := slices.Repeat([]*assayv1.SummaryStratum{{}}, 1001)
	for _, tt := range []struct {
		m           proto.Message
		path, fault string
	}{
		{&assayv1.BatchAssignRequest{Subjects: slices.Repeat([]*assayv1.Subject{{}}, 1001)}, "subjects", "must contain no more than 1000 item(s)"},
		{&assayv1.CompareSummariesRequest{Arms: []*assayv1.SummaryArm{{}, {Strata: strata}}}, "arms[1].strata", "must contain no more than 1000 item(s)"},
		{&assayv1.AssignRequest{Subject: subject(deep)}, "", "lies more than 100 levels deep"},
		{&assayv1.AssignRequest{Subject: subject(many)}, "", "takes the message over the 1048576 bytes"},
		{&assayv1.BatchAssignRequest{Subjects: []*assayv1.Subject{{}, subject(many)}}, "subjects[1].attributes.fields.value.list_value.values", "takes the message over"},
	} {
		data, err := proto.Marshal(tt.m)
		if err != nil {
			t.Fatal(err)
		}
		_, err = weigh(data, tt.m, 1<<20)
		var invalid *experiment.InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("%T is not refused: %v", tt.m, err)
		} else if v := invalid.Violations[0]; !strings.HasPrefix(v.Field, tt.path) || !strings.Contains(v.Message, tt.fault) {
			t.Errorf("%T is refused at %q: %s", tt.m, v.Field, v.Message)
		}
	}
}

// FuzzWeigh has weigh go through anything.
func FuzzWeigh(f *testing.F) {
	data, err := proto.Marshal(manyOutcomes(2))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("\x0a\x02\x0a\x80"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range []proto.Message{&assayv1.RecordOutcomesRequest{}, &assayv1.CreateExperimentRequest{}, &assayv1.CompareSummariesRequest{}} {
			if n, err := weigh(data, m, 1<<40); err == nil && n < 2*int64(len(data)) {
				t.Errorf("%T of %d bytes is said to take %d", m, len(data), n)
			}
		}
	})
}
