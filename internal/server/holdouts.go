package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

type holdoutService struct {
	assayv1.UnimplementedHoldoutServiceServer
	*services
}

func (s *holdoutService) CreateHoldout(ctx context.Context, req *assayv1.CreateHoldoutRequest) (*assayv1.CreateHoldoutResponse, error) {
	from, err := fromHoldout(req.Holdout)
	if err != nil {
		return nil, inField("holdout", err)
	}
	h, err := s.DB.CreateHoldout(ctx, req.RequestId, authorOf(ctx), from, runningExperiments.from(req.RunningExperiments))
	if err != nil {
		return nil, inField("holdout", err)
	}
	s.refreshed(ctx)
	return &assayv1.CreateHoldoutResponse{Holdout: toHoldout(h)}, nil
}

func (s *holdoutService) GetHoldout(ctx context.Context, req *assayv1.GetHoldoutRequest) (*assayv1.GetHoldoutResponse, error) {
	h, err := s.DB.Holdout(ctx, req.Key)
	if err != nil {
		return nil, err
	}
	return &assayv1.GetHoldoutResponse{Holdout: toHoldout(h)}, nil
}

func (s *holdoutService) ListHoldouts(ctx context.Context, req *assayv1.ListHoldoutsRequest) (*assayv1.ListHoldoutsResponse, error) {
	after, err := pagePosition(req.PageToken, "", readKey)
	if err != nil {
		return nil, err
	}
	list := listing[*experiment.Holdout, string, *assayv1.Holdout]{
		read:     func(after string, n int) ([]*experiment.Holdout, error) { return s.DB.Holdouts(ctx, after, n) },
		position: func(h *experiment.Holdout) string { return h.Key },
		convert:  func(h *experiment.Holdout) (*assayv1.Holdout, error) { return toHoldout(h), nil },
	}
	resp := &assayv1.ListHoldoutsResponse{}
	resp.Holdouts, resp.NextPageToken, err = list.page(req.PageSize, after)
	return resp, err
}

// holdoutFields are the fields that an update may name.
var holdoutFields = []string{"description", "share", "salt", "labels", "kind", "start_time", "end_time"}

func (s *holdoutService) UpdateHoldout(ctx context.Context, req *assayv1.UpdateHoldoutRequest) (*assayv1.UpdateHoldoutResponse, error) {
	etag, err := checkUpdate("holdout", req.GetHoldout().GetKey(), req.GetHoldout().GetEtag())
	if err != nil {
		return nil, err
	}
	fields, err := changedFields(req.Holdout, req.UpdateMask, holdoutFields)
	if err != nil {
		return nil, err
	}
	h, err := s.DB.UpdateHoldout(ctx, req.Holdout.Key, authorOf(ctx), etag, func(now *experiment.Holdout) (experiment.Holdout, error) {
		next := toHoldout(now)
		replaceFields(next, req.Holdout, fields)
		if err := checkRules(s.validator, next); err != nil {
			return experiment.Holdout{}, err
		}
		return fromHoldout(next)
	})
	if err != nil {
		return nil, inField("holdout", err)
	}
	s.refreshed(ctx)
	return &assayv1.UpdateHoldoutResponse{Holdout: toHoldout(h)}, nil
}

// fromHoldout returns a holdout with the defaults filled in, but for the start,
// which depends on the time.
func fromHoldout(p *assayv1.Holdout) (experiment.Holdout, error) {
	h := experiment.Holdout{
		Key: p.Key, Unit: unitOf(p.Unit), Description: p.Description, Share: p.Share, Salt: p.Salt,
		Labels: p.Labels, Kind: holdoutKinds.from(p.Kind),
	}
	if h.Salt == "" {
		h.Salt = h.Key
	}
	var bad experiment.InvalidError
	h.StartTime = fromOptionalTime(&bad, "start_time", p.StartTime)
	h.EndTime = fromOptionalTime(&bad, "end_time", p.EndTime)
	return h, bad.Err()
}

// fromOptionalTime returns the time as the database keeps it, zero if there is
// none.
func fromOptionalTime(bad *experiment.InvalidError, field string, ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		return time.Time{}
	}
	if ts.CheckValid() != nil {
		bad.Add(field, "is not a valid timestamp")
	}
	return ts.AsTime().Truncate(time.Microsecond)
}

func toHoldout(h *experiment.Holdout) *assayv1.Holdout {
	return &assayv1.Holdout{
		Key:         h.Key,
		Unit:        h.Unit,
		Description: h.Description,
		Share:       h.Share,
		Salt:        h.Salt,
		Labels:      h.Labels,
		Kind:        holdoutKinds.to(h.Kind),
		StartTime:   timestamppb.New(h.StartTime),
		EndTime:     optionalTime(h.EndTime),
		Experiments: h.Experiments,
		Etag:        formatEtag(h.Version),
		CreateTime:  timestamppb.New(h.CreateTime),
		UpdateTime:  timestamppb.New(h.UpdateTime),
	}
}
