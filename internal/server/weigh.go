package server

import (
	"fmt"
	"reflect"
	"sync"
	"unsafe"

	schema "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// maxNesting is how deep messages may lie in each other: a hundred, as other
// implementations of protobuf have it. A level of a Struct is three.
const maxNesting = 100

// layout is what must be known of a kind of message to tell from its encoding
// how much memory it takes once it is decoded.
type layout struct {
	bytes  int64          // Of the message itself.
	fields []*fieldLayout // By number; nil where there is none.
}

// fieldLayout is the layout of a field. The bytes are counted for each time that
// it stands in the encoding, beside those of its text or its message.
type fieldLayout struct {
	name    string
	kind    protowire.Type // In the encoding; packed lists are bytes as well.
	plain   bool           // Neither a message nor counted: there are but the bytes.
	bytes   int64
	first   int64   // And for the first time.
	packed  int64   // Bytes of a number in a packed list; 0 if it cannot be one.
	fixed   int     // How long each of these numbers is; 0 if that varies.
	message *layout // Of a field with messages, or of a map.
	counted int     // Where it is counted, from 1; 0 if it is not.
	most    int32   // How many the schema admits; 0 for any number.
}

// maxCounted bounds the lists and maps of a kind of message.
const maxCounted = 16

// What the Go runtime takes beside the content: the room that a growing list has
// in reserve together with the one it leaves behind, in quarters; a block of
// memory for a text or a number; and a map, empty and with each entry. Their
// sum is held to what decoding really takes by a test, for every request.
const (
	growthQuarters = 9
	blockBytes     = 16
	mapBytes       = 64
	mapGroup       = 8 // Entries that a map has room for from the first.
	mapQuarters    = 14
)

var layouts = struct {
	sync.Mutex
	ready sync.Map // protoreflect.FullName → *layout, with all that it leads to.
	known map[protoreflect.FullName]*layout
}{known: map[protoreflect.FullName]*layout{}}

// layoutOf returns the layout of a kind of message.
func layoutOf(md protoreflect.MessageDescriptor) *layout {
	if l, ok := layouts.ready.Load(md.FullName()); ok {
		return l.(*layout)
	}
	layouts.Lock()
	defer layouts.Unlock()
	l := makeLayout(md)
	layouts.ready.Store(md.FullName(), l)
	return l
}

// makeLayout makes a layout and those that it leads to. The caller holds the lock.
func makeLayout(md protoreflect.MessageDescriptor) *layout {
	if l, ok := layouts.known[md.FullName()]; ok {
		return l
	}
	l := &layout{bytes: structSize(md)}
	layouts.known[md.FullName()] = l
	counted := 0
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		f := makeField(fd)
		if f.first > 0 || f.most > 0 {
			if counted++; counted > maxCounted {
				panic(fmt.Sprintf("%s has more than %d lists and maps", md.FullName(), maxCounted))
			}
			f.counted = counted
		}
		f.plain = f.counted == 0 && f.message == nil && f.packed == 0
		if n := int(fd.Number()); n >= len(l.fields) {
			l.fields = append(l.fields, make([]*fieldLayout, n+1-len(l.fields))...)
		}
		l.fields[fd.Number()] = f
	}
	if md.FullName() == outcomeName {
		l.bytes = allocated(int64(unsafe.Sizeof(outcomeRoom{})))
		for _, f := range l.fields {
			if f != nil && (f.name == "subject" || f.name == "occurred_time") {
				f.message = &layout{fields: f.message.fields} // Its struct is in the room.
			}
		}
	}
	return l
}

// outcomeName is of the message for which decodeOutcomes makes an outcomeRoom.
var outcomeName = new(assayv1.Outcome).ProtoReflect().Descriptor().FullName()

func makeField(fd protoreflect.FieldDescriptor) *fieldLayout {
	f := &fieldLayout{name: string(fd.Name()), kind: wireType(fd), bytes: contentBytes(fd)}
	rules, _ := proto.GetExtension(fd.Options(), schema.E_Field).(*schema.FieldRules)
	switch {
	case fd.IsMap():
		entry := inlineBytes(fd.MapKey()) + inlineBytes(fd.MapValue()) + 1
		f.first = mapBytes + mapGroup*entry
		f.message = makeLayout(fd.Message())
		f.message.bytes = entry * mapQuarters / 4
		if value := fd.MapValue(); value.Message() != nil { // It is made where the encoding has none, too.
			f.message.bytes += makeLayout(value.Message()).bytes
		}
		f.most = int32(rules.GetMap().GetMaxPairs())
	case fd.IsList():
		f.bytes += inlineBytes(fd) * growthQuarters / 4
		f.most = int32(rules.GetRepeated().GetMaxItems())
		f.packed, f.fixed = packedBytes(fd)
	case fd.ContainingOneof() != nil, fd.HasPresence() && fd.Message() == nil:
		f.bytes += inlineBytes(fd) + blockBytes
	}
	if fd.Message() != nil && !fd.IsMap() {
		f.message = makeLayout(fd.Message())
	}
	return f
}

// structSize returns the size of the Go type of a message, as it is allocated.
func structSize(md protoreflect.MessageDescriptor) int64 {
	size := int64(256) // Of a kind that is not generated, which we have none of.
	if mt, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName()); err == nil {
		size = int64(reflect.TypeOf(mt.Zero().Interface()).Elem().Size())
	}
	return allocated(size)
}

// allocated is what something of a size takes: an eighth at most is lost to the sizes
// that are allocated.
func allocated(size int64) int64 {
	return (size + size/8 + blockBytes - 1) / blockBytes * blockBytes
}

// contentBytes is what a value takes outside of the message that it lies in,
// beside its text or message.
func contentBytes(fd protoreflect.FieldDescriptor) int64 {
	if k := fd.Kind(); k == protoreflect.StringKind || k == protoreflect.BytesKind {
		return blockBytes
	}
	return 0
}

// inlineBytes is what a value takes in a list or a map.
func inlineBytes(fd protoreflect.FieldDescriptor) int64 {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return 16
	case protoreflect.BytesKind:
		return 24
	}
	return 8
}

// packedBytes is what a number of a packed list takes, and how long it is in the
// encoding if that is always the same.
func packedBytes(fd protoreflect.FieldDescriptor) (bytes int64, fixed int) {
	switch fd.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind, protoreflect.GroupKind:
		return 0, 0
	}
	switch wireType(fd) {
	case protowire.Fixed64Type:
		fixed = 8
	case protowire.Fixed32Type:
		fixed = 4
	}
	return 8 * growthQuarters / 4, fixed
}

// wireType is how a field that is not a packed list is encoded.
func wireType(fd protoreflect.FieldDescriptor) protowire.Type {
	switch fd.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return protowire.BytesType
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.GroupKind:
		return protowire.StartGroupType
	}
	return protowire.VarintType
}

// weighing goes through an encoded message, without decoding it, and adds up
// what it takes when it is decoded.
type weighing struct {
	bytes int64
	most  int64  // With more bytes it stops.
	path  string // Of the field at fault, if it has stopped.
	fault string // And what is wrong with it.
}

// weigh returns how many bytes an encoded message of m's kind takes, with those
// of the encoding; or an InvalidError if they are more than most, or if it has more
// of something than the schema admits, and then what it has taken to see that.
// What is not well-formed counts as far as it is: its decoder gets no further.
func weigh(data []byte, m proto.Message, most int64) (int64, error) {
	n := int64(len(data))
	w := weighing{bytes: 2*n + n/6, most: most} // A sixth of a text may be lost to the sizes that are allocated.
	if w.message(data, layoutOf(m.ProtoReflect().Descriptor()), maxNesting) && w.add(0) {
		return w.bytes, nil
	}
	return int64(len(data)), experiment.Invalid(w.path, "%s", w.fault)
}

// message adds a message, and returns false if it may not be decoded.
func (w *weighing) message(data []byte, l *layout, depth int) bool {
	if depth == 0 {
		return w.refuse("lies more than %d levels deep", maxNesting)
	}
	if !w.add(l.bytes) {
		return false
	}
	var counts [maxCounted]int32
	for i := 0; i < len(data); {
		// The lengths of tags and contents are one byte each nearly always.
		number, kind := protowire.Number(data[i]>>3), protowire.Type(data[i]&7)
		if data[i] < 0x80 {
			i++
		} else {
			var n int
			if number, kind, n = protowire.ConsumeTag(data[i:]); n < 0 {
				return true
			}
			i += n
		}
		var end int
		switch {
		case kind == protowire.BytesType && i < len(data) && data[i] < 0x80:
			end = i + 1 + int(data[i])
			i++
		case kind == protowire.BytesType:
			length, n := protowire.ConsumeVarint(data[i:])
			if n < 0 || length > uint64(len(data)) {
				return true
			}
			i += n
			end = i + int(length)
		case kind == protowire.Fixed64Type:
			end = i + 8
		case kind == protowire.VarintType && i < len(data) && data[i] < 0x80:
			end = i + 1
		default:
			n := protowire.ConsumeFieldValue(number, kind, data[i:])
			if n < 0 {
				return true
			}
			end = i + n
		}
		if end > len(data) {
			return true
		}
		var f *fieldLayout
		if int(number) < len(l.fields) {
			f = l.fields[number]
		}
		switch {
		case f == nil, kind != f.kind && (kind != protowire.BytesType || f.packed == 0):
			w.bytes += blockBytes + int64(end-i)*growthQuarters/4 // What is unknown is kept as it is.
		case f.plain:
			w.bytes += f.bytes
		case !w.field(data[i:end], kind, f, &counts, depth):
			return false
		}
		i = end
	}
	return true
}

// field adds a field with a content.
func (w *weighing) field(content []byte, kind protowire.Type, f *fieldLayout, counts *[maxCounted]int32, depth int) bool {
	w.bytes += f.bytes
	if f.counted > 0 {
		count := &counts[f.counted-1]
		if *count == 0 {
			w.bytes += f.first
		}
		if *count++; f.most > 0 && *count > f.most {
			return w.refuse("must contain no more than %d item(s)", f.most) || w.at(f, counts)
		}
	}
	switch {
	case kind != protowire.BytesType:
	case f.message != nil:
		if !w.message(content, f.message, depth-1) {
			return w.at(f, counts)
		}
	case f.packed > 0:
		n := packedCount(content, f.fixed)
		if f.most > 0 && n > int(f.most) {
			return w.refuse("must contain no more than %d item(s)", f.most) || w.at(f, counts)
		}
		if !w.add(int64(n) * f.packed) {
			return w.at(f, counts)
		}
	}
	return true
}

// add adds bytes, and returns false if they are too many.
func (w *weighing) add(n int64) bool {
	w.bytes += n
	return w.bytes <= w.most || w.refuse("takes the message over the %d bytes that one may take when it is decoded; send less at once", w.most)
}

func packedCount(content []byte, fixed int) int {
	if fixed > 0 {
		return len(content) / fixed
	}
	n := 0
	for _, b := range content {
		if b < 0x80 {
			n++
		}
	}
	return n
}

func (w *weighing) refuse(format string, args ...any) bool {
	w.fault = fmt.Sprintf(format, args...)
	return false
}

// at adds the field to the path of the fault.
func (w *weighing) at(f *fieldLayout, counts *[maxCounted]int32) bool {
	name := f.name
	if f.most > 0 && counts[f.counted-1] <= f.most {
		name = fmt.Sprintf("%s[%d]", name, counts[f.counted-1]-1)
	}
	if w.path != "" {
		name += "." + w.path
	}
	w.path = name
	return false
}
