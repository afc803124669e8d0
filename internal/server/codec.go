package server

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	pb "google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// codec is grpc's own, but for the one message of which there is much: batches
// of outcomes. What decodeOutcomes does not know it leaves to the library.
type codec struct {
	encoding.CodecV2
}

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if batch, ok := v.(*assayv1.RecordOutcomesRequest); ok {
		buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
		defer buffer.Free()
		if decodeOutcomes(string(buffer.ReadOnlyData()), batch) {
			return nil
		}
		// Unknown fields would take memory that outcomesBytes does not see.
		batch.Reset()
		return pb.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(buffer.ReadOnlyData(), batch)
	}
	return c.CodecV2.Unmarshal(data, v)
}
