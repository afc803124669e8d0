package server

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	pb "google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// codec is grpc's own, but that it admits what it decodes, takes replies that are
// encoded, and knows the one message of which there is much: batches of outcomes.
// What decodeOutcomes does not know it leaves to the library.
type codec struct {
	encoding.CodecV2
}

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch v := v.(type) {
	case *incoming:
		return v.decode(data)
	case pb.Message:
		buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
		defer buffer.Free()
		return decode(buffer.ReadOnlyData(), v)
	}
	return fmt.Errorf("%T is not a message", v)
}

func decode(data []byte, m pb.Message) error {
	batch, ok := m.(*assayv1.RecordOutcomesRequest)
	if !ok {
		return pb.Unmarshal(data, m)
	}
	if decodeOutcomes(string(data), batch) {
		return nil
	}
	batch.Reset()
	return pb.Unmarshal(data, batch)
}

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*encodedReply); ok {
		return r.buffer[:], nil
	}
	return c.CodecV2.Marshal(v)
}
