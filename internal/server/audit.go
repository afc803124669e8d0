package server

import (
	"context"
	"math"

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
	list := listing[experiment.AuditEvent, int64, *assayv1.AuditEvent]{
		read: func(before int64, n int) ([]experiment.AuditEvent, error) {
			return s.DB.AuditEvents(ctx, postgres.AuditFilter{Kind: auditedKinds.from(req.Kind), Key: req.Key, Before: before, Limit: n})
		},
		position: func(e experiment.AuditEvent) int64 { return e.ID },
		convert:  toAuditEvent,
	}
	resp := &assayv1.ListAuditEventsResponse{}
	resp.Events, resp.NextPageToken, err = list.page(req.PageSize, before)
	return resp, err
}

func toAuditEvent(e experiment.AuditEvent) (event *assayv1.AuditEvent, err error) {
	event = &assayv1.AuditEvent{
		Id: e.ID, Time: timestamppb.New(e.Time), Author: e.Author,
		Action: auditActions.to(e.Action), Kind: auditedKinds.to(e.Kind), Key: e.Key,
	}
	if e.Details != nil {
		event.Details, err = structpb.NewStruct(e.Details)
	}
	return event, err
}
