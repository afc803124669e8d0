package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
)

// canonicalJSON returns the JSON of what an event brings, with sorted keys, so
// that equal content is equal bytes; nil for nil. It refuses what is too large
// or too deep, and what Postgres cannot store.
func canonicalJSON(s *structpb.Struct) ([]byte, error) {
	if s == nil {
		return nil, nil
	}
	if err := checkStruct(s, maxJSONDepth); err != nil {
		return nil, err
	}
	b, err := json.Marshal(s.AsMap())
	if err != nil {
		return nil, err
	}
	if len(b) > maxJSONBytes {
		return nil, fmt.Errorf("takes %d bytes as JSON; at most %d are stored", len(b), maxJSONBytes)
	}
	return b, nil
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
