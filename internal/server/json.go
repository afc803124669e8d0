package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
)

// structLimits bound a struct that is stored.
type structLimits struct {
	bytes int // As JSON.
	depth int
}

// encodeStruct returns the JSON of what a client brings, with sorted keys, so
// that equal content is equal bytes; nil for nil. It refuses what is too large
// or too deep, and what Postgres cannot store.
func encodeStruct(s *structpb.Struct, limits structLimits) (json.RawMessage, error) {
	if s == nil {
		return nil, nil
	}
	text, err := appendStruct(make([]byte, 0, 64), s, limits.depth)
	if err != nil {
		return nil, err
	}
	if len(text) > limits.bytes {
		return nil, fmt.Errorf("takes %d bytes as JSON; at most %d are stored", len(text), limits.bytes)
	}
	return text, nil
}

var (
	errTooDeep = errors.New("is nested too deep")
	errNUL     = errors.New("must not contain NUL")
	errNumber  = errors.New("must not contain NaN or an infinity")
	errNoValue = errors.New("contains a value of no kind")
)

// appendStruct appends the JSON of a struct that has at most so many levels, as
// encoding/json writes it. Events bring many, and the library's way, over a map
// of any, took a fifth of the server's time in recording.
func appendStruct(to []byte, s *structpb.Struct, depth int) ([]byte, error) {
	if depth == 0 {
		return nil, errTooDeep
	}
	var few [8]string // Spares most structs an allocation.
	names := few[:0]
	for name := range s.GetFields() {
		names = append(names, name)
	}
	slices.Sort(names)
	to = append(to, '{')
	for i, name := range names {
		if i > 0 {
			to = append(to, ',')
		}
		var err error
		if to, err = appendText(to, name); err != nil {
			return nil, err
		}
		to = append(to, ':')
		if to, err = appendValue(to, s.Fields[name], depth); err != nil {
			return nil, err
		}
	}
	return append(to, '}'), nil
}

func appendValue(to []byte, v *structpb.Value, depth int) ([]byte, error) {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_NullValue:
		return append(to, "null"...), nil
	case *structpb.Value_BoolValue:
		return strconv.AppendBool(to, kind.BoolValue), nil
	case *structpb.Value_NumberValue:
		if math.IsNaN(kind.NumberValue) || math.IsInf(kind.NumberValue, 0) {
			return nil, errNumber
		}
		return appendNumber(to, kind.NumberValue), nil
	case *structpb.Value_StringValue:
		return appendText(to, kind.StringValue)
	case *structpb.Value_StructValue:
		return appendStruct(to, kind.StructValue, depth-1)
	case *structpb.Value_ListValue:
		return appendList(to, kind.ListValue.GetValues(), depth-1)
	}
	return nil, errNoValue
}

func appendList(to []byte, values []*structpb.Value, depth int) ([]byte, error) {
	if depth == 0 {
		return nil, errTooDeep
	}
	to = append(to, '[')
	for i, v := range values {
		if i > 0 {
			to = append(to, ',')
		}
		var err error
		if to, err = appendValue(to, v, depth); err != nil {
			return nil, err
		}
	}
	return append(to, ']'), nil
}

// appendNumber appends a number as encoding/json writes it.
func appendNumber(to []byte, x float64) []byte {
	if size := math.Abs(x); size == 0 || 1e-6 <= size && size < 1e21 {
		return strconv.AppendFloat(to, x, 'f', -1, 64)
	}
	to = strconv.AppendFloat(to, x, 'e', -1, 64)
	if n := len(to); to[n-4] == 'e' && to[n-3] == '-' && to[n-2] == '0' {
		return append(to[:n-2], to[n-1]) // Of e-09 the 0.
	}
	return to
}

// appendText appends text as encoding/json writes it. The message that it comes
// from is valid UTF-8, or it would not have been decoded.
func appendText(to []byte, s string) ([]byte, error) {
	to = append(to, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == 0:
			return nil, errNUL
		case c == '"', c == '\\':
			to = append(to, '\\', c)
		case c < ' ':
			to = appendControl(to, c)
		case c == 0xe2 && (strings.HasPrefix(s[i:], "\u2028") || strings.HasPrefix(s[i:], "\u2029")):
			to = append(to, `\u202`...)
			to = append(to, s[i+2]-0xa8+'8')
			i += 2
		default:
			to = append(to, c)
		}
	}
	return append(to, '"'), nil
}

func appendControl(to []byte, c byte) []byte {
	if i := strings.IndexByte("\b\f\n\r\t", c); i >= 0 {
		return append(to, '\\', "bfnrt"[i])
	}
	return fmt.Appendf(to, `\u%04x`, c)
}

// decodeStruct returns the message of a stored JSON object, nil if there is
// none.
func decodeStruct(raw json.RawMessage) *structpb.Struct {
	if raw == nil {
		return nil
	}
	var s structpb.Struct
	if err := s.UnmarshalJSON(raw); err != nil {
		panic(fmt.Sprintf("server: a stored object that is no object: %v", err)) // It was made from a Struct.
	}
	return &s
}
