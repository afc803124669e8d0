package server

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// FuzzEncodeStruct holds the JSON that is stored to encoding/json, which wrote
// what is stored already.
func FuzzEncodeStruct(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"sku":"A1","n":[1,-0,0.1,1e-7,1.5e-9,123456789.25,1e20,1e21,1.7e308,5e-324,null,true,{"b":{},"a":[]}]}`,
		`{"q\"\\/":"<&>\u0001\u001f\u007f\b\f\n\r\t\u2027\u2028\u2029\u202aé€😀"}`, `{"a":{"a":{"a":[[[[1]]]]}}}`,
	} {
		f.Add(text, 8)
	}
	f.Fuzz(func(t *testing.T, text string, depth int) {
		var s structpb.Struct
		if protojson.Unmarshal([]byte(text), &s) != nil {
			return
		}
		got, err := encodeStruct(&s, structLimits{bytes: math.MaxInt, depth: 1 + depth&15})
		if err != nil {
			if err != errTooDeep && err != errNUL {
				t.Fatalf("%s: %v", text, err)
			}
			return
		}
		var want bytes.Buffer
		encoder := json.NewEncoder(&want)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(s.AsMap()); err != nil {
			t.Fatal(err)
		}
		if string(got)+"\n" != want.String() {
			t.Fatalf("%s:\n%s, encoding/json\n%s", text, got, &want)
		}
	})
}
