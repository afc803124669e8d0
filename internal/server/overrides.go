package server

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

func (s *experimentService) SetOverrides(ctx context.Context, req *assayv1.SetOverridesRequest) (*assayv1.SetOverridesResponse, error) {
	e, err := s.DB.Experiment(ctx, req.Experiment)
	if err != nil {
		return nil, err
	}
	def := &e.Current.Definition
	overrides := make([]postgres.Override, len(req.Overrides))
	seen := map[string]bool{}
	var bad experiment.InvalidError
	for i, o := range req.Overrides {
		if seen[o.SubjectKey] {
			bad.Add(fmt.Sprintf("overrides[%d].subject_key", i), "is listed twice")
		}
		seen[o.SubjectKey] = true
		if o.Variant != "" && def.Variant(o.Variant) < 0 {
			bad.Add(fmt.Sprintf("overrides[%d].variant", i), "the experiment has no variant %q", o.Variant)
		}
		overrides[i] = postgres.Override{
			SubjectID: s.Pepper.SubjectID(experiment.Subject{Unit: def.Unit, Key: o.SubjectKey}),
			Variant:   o.Variant,
		}
	}
	if err := bad.Err(); err != nil {
		return nil, err
	}
	changed, err := s.DB.SetOverrides(ctx, req.Experiment, authorOf(ctx), overrides)
	if err != nil {
		return nil, err
	}
	s.refreshed(ctx)
	return &assayv1.SetOverridesResponse{Changed: int32(changed)}, nil
}

func (s *experimentService) ListOverrides(ctx context.Context, req *assayv1.ListOverridesRequest) (*assayv1.ListOverridesResponse, error) {
	after, err := pagePosition(req.PageToken, [16]byte{}, readID)
	if err != nil {
		return nil, err
	}
	e, err := s.DB.Experiment(ctx, req.Experiment)
	if err != nil {
		return nil, err
	}
	list := listing[postgres.Override, idPosition, *assayv1.PinnedSubject]{
		read: func(after idPosition, n int) ([]postgres.Override, error) {
			return s.DB.Overrides(ctx, e.ID, experiment.SubjectID(after), n)
		},
		position: func(o postgres.Override) idPosition { return idPosition(o.SubjectID) },
		convert: func(o postgres.Override) (*assayv1.PinnedSubject, error) {
			return &assayv1.PinnedSubject{SubjectId: o.SubjectID.String(), Variant: o.Variant, CreateTime: timestamppb.New(o.CreateTime)}, nil
		},
	}
	resp := &assayv1.ListOverridesResponse{}
	resp.Overrides, resp.NextPageToken, err = list.page(req.PageSize, after)
	return resp, err
}
