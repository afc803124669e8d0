package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

type layerService struct {
	assayv1.UnimplementedLayerServiceServer
	*services
}

func (s *layerService) CreateLayer(ctx context.Context, req *assayv1.CreateLayerRequest) (*assayv1.CreateLayerResponse, error) {
	l, err := s.DB.CreateLayer(ctx, req.RequestId, authorOf(ctx), fromLayer(req.Layer))
	if err != nil {
		return nil, err
	}
	return &assayv1.CreateLayerResponse{Layer: toLayer(l)}, nil
}

func (s *layerService) GetLayer(ctx context.Context, req *assayv1.GetLayerRequest) (*assayv1.GetLayerResponse, error) {
	l, err := s.DB.Layer(ctx, req.Key)
	if err != nil {
		return nil, err
	}
	return &assayv1.GetLayerResponse{Layer: toLayer(l)}, nil
}

func (s *layerService) ListLayers(ctx context.Context, req *assayv1.ListLayersRequest) (*assayv1.ListLayersResponse, error) {
	after, err := pagePosition(req.PageToken, "", readKey)
	if err != nil {
		return nil, err
	}
	list := listing[*experiment.Layer, string, *assayv1.Layer]{
		read:     func(after string, n int) ([]*experiment.Layer, error) { return s.DB.Layers(ctx, after, n) },
		position: func(l *experiment.Layer) string { return l.Key },
		convert:  func(l *experiment.Layer) (*assayv1.Layer, error) { return toLayer(l), nil },
	}
	resp := &assayv1.ListLayersResponse{}
	resp.Layers, resp.NextPageToken, err = list.page(req.PageSize, after)
	return resp, err
}

// layerFields are the fields that an update may name.
var layerFields = []string{"description", "salt"}

func (s *layerService) UpdateLayer(ctx context.Context, req *assayv1.UpdateLayerRequest) (*assayv1.UpdateLayerResponse, error) {
	etag, err := checkUpdate("layer", req.GetLayer().GetKey(), req.GetLayer().GetEtag())
	if err != nil {
		return nil, err
	}
	fields, err := changedFields(req.Layer, req.UpdateMask, layerFields)
	if err != nil {
		return nil, err
	}
	l, err := s.DB.UpdateLayer(ctx, req.Layer.Key, authorOf(ctx), etag, func(now *experiment.Layer) (experiment.Layer, error) {
		next := toLayer(now)
		replaceFields(next, req.Layer, fields)
		if err := checkRules(s.validator, next); err != nil {
			return experiment.Layer{}, err
		}
		return fromLayer(next), nil
	})
	if err != nil {
		return nil, inField("layer", err)
	}
	return &assayv1.UpdateLayerResponse{Layer: toLayer(l)}, nil
}

// fromLayer returns a layer with the defaults filled in.
func fromLayer(p *assayv1.Layer) experiment.Layer {
	l := experiment.Layer{Key: p.Key, Unit: unitOf(p.Unit), Description: p.Description, Salt: p.Salt}
	if l.Salt == "" {
		l.Salt = l.Key
	}
	return l
}

func toLayer(l *experiment.Layer) *assayv1.Layer {
	p := &assayv1.Layer{
		Key:         l.Key,
		Unit:        l.Unit,
		Description: l.Description,
		Salt:        l.Salt,
		FreeShare:   float64(l.Free()) / experiment.Buckets,
		Etag:        formatEtag(l.Version),
		CreateTime:  timestamppb.New(l.CreateTime),
		UpdateTime:  timestamppb.New(l.UpdateTime),
	}
	for _, s := range l.Slots {
		p.Slots = append(p.Slots, &assayv1.LayerSlot{Experiment: s.Experiment, Ranges: toRanges(s.Ranges)})
	}
	return p
}
