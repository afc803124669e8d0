package server

import (
	"context"
	"math"
	"strconv"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

type auditService struct {
	assayv1.UnimplementedAuditServiceServer
	*services
}

func (s *auditService) ListAuditEvents(ctx context.Context, req *assayv1.ListAuditEventsRequest) (*assayv1.ListAuditEventsResponse, error) {
	before, err := pagePosition(req.PageToken, math.MaxInt64, readNumber)
	if err != nil {
		return nil, err
	}
	limit := pageLimit(req.PageSize)
	list, err := s.DB.AuditEvents(ctx, postgres.AuditFilter{Kind: auditedKinds.from(req.Kind), Key: req.Key, Before: before, Limit: limit})
	if err != nil {
		return nil, err
	}
	resp := &assayv1.ListAuditEventsResponse{}
	list, resp.NextPageToken = cutPage(list, limit, func(e experiment.AuditEvent) string { return strconv.FormatInt(e.ID, 10) })
	for _, e := range list {
		event := &assayv1.AuditEvent{
			Id: e.ID, Time: timestamppb.New(e.Time), Author: e.Author,
			Action: auditActions.to(e.Action), Kind: auditedKinds.to(e.Kind), Key: e.Key,
		}
		if e.Details != nil {
			if event.Details, err = structpb.NewStruct(e.Details); err != nil {
				return nil, err
			}
		}
		resp.Events = append(resp.Events, event)
	}
	return resp, nil
}
