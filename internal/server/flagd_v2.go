package server

import (
	"context"

	"google.golang.org/protobuf/types/known/structpb"

	flagdv2 "github.com/assayhq/assay/gen/flagd/evaluation/v2"
)

// flagdV2 is the second version of the OpenFeature protocol. A reply without a
// variant has no value either.
type flagdV2 struct {
	flagdv2.UnimplementedServiceServer
	*services
	events *flagEvents
}

// resolveV2 resolves a flag; variant and value are nil if it has none.
func resolveV2[T any](ctx context.Context, s *services, req flagRequest, value func(resolution) (T, error)) (v *T, variant *string, r resolution, err error) {
	got, r, err := resolveFlag(ctx, s, req, value)
	if err != nil || r.variant == "" {
		return nil, nil, r, err
	}
	return &got, &r.variant, r, nil
}

func (s *flagdV2) ResolveBoolean(ctx context.Context, req *flagdv2.ResolveBooleanRequest) (*flagdv2.ResolveBooleanResponse, error) {
	v, variant, r, err := resolveV2(ctx, s.services, req, boolOf)
	if err != nil {
		return nil, err
	}
	return &flagdv2.ResolveBooleanResponse{Value: v, Reason: r.reason, Variant: variant, Metadata: r.metadata}, nil
}

func (s *flagdV2) ResolveString(ctx context.Context, req *flagdv2.ResolveStringRequest) (*flagdv2.ResolveStringResponse, error) {
	v, variant, r, err := resolveV2(ctx, s.services, req, stringOf)
	if err != nil {
		return nil, err
	}
	return &flagdv2.ResolveStringResponse{Value: v, Reason: r.reason, Variant: variant, Metadata: r.metadata}, nil
}

func (s *flagdV2) ResolveFloat(ctx context.Context, req *flagdv2.ResolveFloatRequest) (*flagdv2.ResolveFloatResponse, error) {
	v, variant, r, err := resolveV2(ctx, s.services, req, floatOf)
	if err != nil {
		return nil, err
	}
	return &flagdv2.ResolveFloatResponse{Value: v, Reason: r.reason, Variant: variant, Metadata: r.metadata}, nil
}

func (s *flagdV2) ResolveInt(ctx context.Context, req *flagdv2.ResolveIntRequest) (*flagdv2.ResolveIntResponse, error) {
	v, variant, r, err := resolveV2(ctx, s.services, req, intOf)
	if err != nil {
		return nil, err
	}
	return &flagdv2.ResolveIntResponse{Value: v, Reason: r.reason, Variant: variant, Metadata: r.metadata}, nil
}

func (s *flagdV2) ResolveObject(ctx context.Context, req *flagdv2.ResolveObjectRequest) (*flagdv2.ResolveObjectResponse, error) {
	v, variant, r, err := resolveV2(ctx, s.services, req, objectOf)
	if err != nil {
		return nil, err
	}
	resp := &flagdv2.ResolveObjectResponse{Reason: r.reason, Variant: variant, Metadata: r.metadata}
	if v != nil {
		resp.Value = *v
	}
	return resp, nil
}

func (s *flagdV2) EventStream(_ *flagdv2.EventStreamRequest, stream flagdv2.Service_EventStreamServer) error {
	return s.events.follow(stream.Context(), func(kind string, data *structpb.Struct) error {
		return stream.Send(&flagdv2.EventStreamResponse{Type: kind, Data: data})
	})
}
