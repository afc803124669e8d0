package server

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

func manyOutcomes(n int) *assayv1.RecordOutcomesRequest {
	properties, _ := structpb.NewStruct(map[string]any{
		"sku": "A1", "n": 1.5, "no": nil, "yes": true, "deep": map[string]any{"a": map[string]any{}, "é": "😀"},
	})
	req := &assayv1.RecordOutcomesRequest{}
	for range n {
		req.Outcomes = append(req.Outcomes, &assayv1.Outcome{
			EventId: "order-1", Subject: &assayv1.Subject{Unit: "account", Key: "u-1"}, Name: "purchase",
			Value: proto.Float64(-2.5), OccurredTime: &timestamppb.Timestamp{Seconds: -5, Nanos: 7}, Properties: properties,
			CorrectsEventId: "order-0", CorrectsOccurredTime: &timestamppb.Timestamp{Seconds: 1},
		})
	}
	return req
}

// What clients send is decoded here, and not by falling back.
func TestDecodeOutcomes(t *testing.T) {
	for _, req := range []*assayv1.RecordOutcomesRequest{
		{}, {Outcomes: []*assayv1.Outcome{{}}}, manyOutcomes(3), {Outcomes: []*assayv1.Outcome{{
			Subject: &assayv1.Subject{}, OccurredTime: &timestamppb.Timestamp{}, Properties: &structpb.Struct{},
		}}},
	} {
		data, err := proto.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		var got assayv1.RecordOutcomesRequest
		if !decodeOutcomes(string(data), &got) {
			t.Fatalf("%v is left to the library", req)
		}
		if !proto.Equal(&got, req) {
			t.Errorf("decoded as %v, want %v", &got, req)
		}
	}
}

// FuzzDecodeOutcomes holds the decoder to the library.
func FuzzDecodeOutcomes(f *testing.F) {
	for _, n := range []int{0, 1, 3} {
		data, err := proto.Marshal(manyOutcomes(n))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want assayv1.RecordOutcomesRequest
		if !decodeOutcomes(string(data), &got) {
			return
		}
		if err := proto.Unmarshal(data, &want); err != nil {
			t.Fatalf("the library refuses it: %v", err)
		}
		x, _ := proto.MarshalOptions{Deterministic: true}.Marshal(&got) // NaN is not equal to itself.
		y, _ := proto.MarshalOptions{Deterministic: true}.Marshal(&want)
		if string(x) != string(y) {
			t.Fatalf("decoded as %v, by the library as %v", &got, &want)
		}
	})
}

func BenchmarkDecodeOutcomes(b *testing.B) {
	data, err := proto.Marshal(manyOutcomes(1000))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("here", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			decodeOutcomes(string(data), new(assayv1.RecordOutcomesRequest))
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			proto.Unmarshal(data, new(assayv1.RecordOutcomesRequest))
		}
	})
}
