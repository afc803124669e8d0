package server

import (
	"context"

	"google.golang.org/protobuf/types/known/structpb"

	flagdv1 "github.com/assayhq/assay/gen/flagd/evaluation/v1"
)

// flagdV1 is the first version of the OpenFeature protocol. Its replies cannot
// leave a value out, so that a flag without a variant is not found.
type flagdV1 struct {
	flagdv1.UnimplementedServiceServer
	*services
	events *flagEvents
}

// resolveV1 resolves a flag that must have a variant.
func resolveV1[T any](ctx context.Context, s *services, req flagRequest, value func(resolution) (T, error)) (T, resolution, error) {
	v, r, err := resolveFlag(ctx, s, req, value)
	if err == nil && r.variant == "" {
		err = noFlagValue(req.GetFlagKey(), r)
	}
	return v, r, err
}

func (s *flagdV1) ResolveAll(ctx context.Context, req *flagdv1.ResolveAllRequest) (*flagdv1.ResolveAllResponse, error) {
	resp := &flagdv1.ResolveAllResponse{Flags: map[string]*flagdv1.AnyFlag{}}
	err := s.resolveAll(ctx, req.Context, func(key string, r resolution) { resp.Flags[key] = anyFlag(r) })
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// anyFlag gives a flag the type of its payload.
func anyFlag(r resolution) *flagdv1.AnyFlag {
	flag := &flagdv1.AnyFlag{Reason: r.reason, Variant: r.variant, Metadata: r.metadata}
	if r.payload == nil {
		flag.Value = &flagdv1.AnyFlag_StringValue{StringValue: r.variant}
		return flag
	}
	switch v := r.payload.Fields["value"].GetKind().(type) {
	case *structpb.Value_BoolValue:
		flag.Value = &flagdv1.AnyFlag_BoolValue{BoolValue: v.BoolValue}
	case *structpb.Value_StringValue:
		flag.Value = &flagdv1.AnyFlag_StringValue{StringValue: v.StringValue}
	case *structpb.Value_NumberValue:
		flag.Value = &flagdv1.AnyFlag_DoubleValue{DoubleValue: v.NumberValue}
	default:
		flag.Value = &flagdv1.AnyFlag_ObjectValue{ObjectValue: r.payload}
	}
	return flag
}

func (s *flagdV1) ResolveBoolean(ctx context.Context, req *flagdv1.ResolveBooleanRequest) (*flagdv1.ResolveBooleanResponse, error) {
	v, r, err := resolveV1(ctx, s.services, req, boolOf)
	if err != nil {
		return nil, err
	}
	return &flagdv1.ResolveBooleanResponse{Value: v, Reason: r.reason, Variant: r.variant, Metadata: r.metadata}, nil
}

func (s *flagdV1) ResolveString(ctx context.Context, req *flagdv1.ResolveStringRequest) (*flagdv1.ResolveStringResponse, error) {
	v, r, err := resolveV1(ctx, s.services, req, stringOf)
	if err != nil {
		return nil, err
	}
	return &flagdv1.ResolveStringResponse{Value: v, Reason: r.reason, Variant: r.variant, Metadata: r.metadata}, nil
}

func (s *flagdV1) ResolveFloat(ctx context.Context, req *flagdv1.ResolveFloatRequest) (*flagdv1.ResolveFloatResponse, error) {
	v, r, err := resolveV1(ctx, s.services, req, floatOf)
	if err != nil {
		return nil, err
	}
	return &flagdv1.ResolveFloatResponse{Value: v, Reason: r.reason, Variant: r.variant, Metadata: r.metadata}, nil
}

func (s *flagdV1) ResolveInt(ctx context.Context, req *flagdv1.ResolveIntRequest) (*flagdv1.ResolveIntResponse, error) {
	v, r, err := resolveV1(ctx, s.services, req, intOf)
	if err != nil {
		return nil, err
	}
	return &flagdv1.ResolveIntResponse{Value: v, Reason: r.reason, Variant: r.variant, Metadata: r.metadata}, nil
}

func (s *flagdV1) ResolveObject(ctx context.Context, req *flagdv1.ResolveObjectRequest) (*flagdv1.ResolveObjectResponse, error) {
	v, r, err := resolveV1(ctx, s.services, req, objectOf)
	if err != nil {
		return nil, err
	}
	return &flagdv1.ResolveObjectResponse{Value: v, Reason: r.reason, Variant: r.variant, Metadata: r.metadata}, nil
}

func (s *flagdV1) EventStream(_ *flagdv1.EventStreamRequest, stream flagdv1.Service_EventStreamServer) error {
	return s.events.follow(stream.Context(), func(kind string, data *structpb.Struct) error {
		return stream.Send(&flagdv1.EventStreamResponse{Type: kind, Data: data})
	})
}
