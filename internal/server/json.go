package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
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
	if err := checkStruct(s, limits.depth); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // It would count "<" as six bytes.
	if err := encoder.Encode(s.AsMap()); err != nil {
		return nil, err
	}
	text := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
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

func checkStruct(s *structpb.Struct, depth int) error {
	if depth == 0 {
		return errTooDeep
	}
	for name, v := range s.GetFields() {
		if strings.ContainsRune(name, 0) {
			return errNUL
		}
		if err := checkValue(v, depth); err != nil {
			return err
		}
	}
	return nil
}

func checkValue(v *structpb.Value, depth int) error {
	switch kind := v.GetKind().(type) {
	case nil:
		return errNoValue
	case *structpb.Value_StringValue:
		if strings.ContainsRune(kind.StringValue, 0) {
			return errNUL
		}
	case *structpb.Value_NumberValue:
		if math.IsNaN(kind.NumberValue) || math.IsInf(kind.NumberValue, 0) {
			return errNumber
		}
	case *structpb.Value_StructValue:
		return checkStruct(kind.StructValue, depth-1)
	case *structpb.Value_ListValue:
		if depth == 1 {
			return errTooDeep
		}
		for _, item := range kind.ListValue.GetValues() {
			if err := checkValue(item, depth-1); err != nil {
				return err
			}
		}
	}
	return nil
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
