package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/event"
	"github.com/assayhq/assay/internal/experiment"
)

type eventService struct {
	assayv1.UnimplementedEventServiceServer
	*services
}

// What an event may hold, beside the rules of the schema.
const (
	timeResolution = time.Millisecond
	maxAhead       = 5 * time.Minute // Of the server's clock.
	maxJSONBytes   = 8 << 10
	maxJSONDepth   = 8
)

func (s *eventService) RecordExposures(ctx context.Context, req *assayv1.RecordExposuresRequest) (*assayv1.RecordExposuresResponse, error) {
	items, rejected := s.checkExposures(req.Exposures)
	if mayBeStale(rejected) {
		// The catalog may be older than the start that makes these valid.
		s.refreshed(ctx)
		items, rejected = s.checkExposures(req.Exposures)
	}
	results, err := write(ctx, s.Exposures, items)
	if err != nil {
		return nil, err
	}
	resp := &assayv1.RecordExposuresResponse{}
	resp.Recorded, resp.Duplicates, resp.Rejected = tally(items, results, rejected)
	return resp, nil
}

func (s *eventService) RecordOutcomes(ctx context.Context, req *assayv1.RecordOutcomesRequest) (*assayv1.RecordOutcomesResponse, error) {
	var items []item[experiment.Outcome]
	var rejected []*assayv1.Rejection
	now := s.Now()
	for i, from := range req.Outcomes {
		outcome, r := s.checkOutcome(from, now)
		if r != nil {
			r.Index = int32(i)
			rejected = append(rejected, r)
			continue
		}
		items = append(items, item[experiment.Outcome]{i, *outcome})
	}
	results, err := write(ctx, s.Outcomes, items)
	if err != nil {
		return nil, err
	}
	resp := &assayv1.RecordOutcomesResponse{}
	resp.Recorded, resp.Duplicates, resp.Rejected = tally(items, results, rejected)
	return resp, nil
}

// item is an accepted item with its place in the request.
type item[T any] struct {
	index int
	event T
}

func write[T any](ctx context.Context, w *event.Writer[T], items []item[T]) ([]experiment.Result, error) {
	if len(items) == 0 {
		return nil, nil
	}
	events := make([]T, len(items))
	for i := range items {
		events[i] = items[i].event
	}
	return w.Write(ctx, events)
}

// tally counts the results, and adds what the store refused to the rejected.
func tally[T any](items []item[T], results []experiment.Result, rejected []*assayv1.Rejection) (recorded, duplicates int32, all []*assayv1.Rejection) {
	for i, r := range results {
		index := int32(items[i].index)
		switch r {
		case experiment.Recorded:
			recorded++
		case experiment.Duplicate:
			duplicates++
		case experiment.Conflict:
			rejected = append(rejected, &assayv1.Rejection{Index: index, Reason: assayv1.RejectionReason_REJECTION_REASON_CONFLICT, Field: "event_id",
				Message: "an outcome of this identity is recorded with another name, value or properties"})
		case experiment.Limited:
			rejected = append(rejected, &assayv1.Rejection{Index: index, Reason: assayv1.RejectionReason_REJECTION_REASON_LIMIT, Field: "name",
				Message: "the number of distinct outcome names has reached its limit"})
		case experiment.Refused:
			rejected = append(rejected, &assayv1.Rejection{Index: index, Reason: assayv1.RejectionReason_REJECTION_REASON_INVALID_FIELD,
				Message: "the database refused this item's data"})
		}
	}
	return recorded, duplicates, rejected
}

func (s *eventService) checkExposures(exposures []*assayv1.Exposure) (items []item[experiment.Exposure], rejected []*assayv1.Rejection) {
	snapshot, now := s.Catalog.Current(), s.Now()
	for i, from := range exposures {
		exposure, r := s.checkExposure(snapshot, from, now)
		if r != nil {
			r.Index = int32(i)
			rejected = append(rejected, r)
			continue
		}
		items = append(items, item[experiment.Exposure]{i, *exposure})
	}
	return items, rejected
}

var rejections = map[assign.RejectionReason]assayv1.RejectionReason{
	assign.RejectNotRunning:       assayv1.RejectionReason_REJECTION_REASON_EXPERIMENT_NOT_RUNNING,
	assign.RejectUnitMismatch:     assayv1.RejectionReason_REJECTION_REASON_UNIT_MISMATCH,
	assign.RejectRevisionNotFound: assayv1.RejectionReason_REJECTION_REASON_REVISION_NOT_FOUND,
	assign.RejectVariantNotFound:  assayv1.RejectionReason_REJECTION_REASON_VARIANT_NOT_FOUND,
	assign.RejectVariantMismatch:  assayv1.RejectionReason_REJECTION_REASON_VARIANT_MISMATCH,
}

// mayBeStale says whether a newer catalog could accept what was rejected.
func mayBeStale(rejected []*assayv1.Rejection) bool {
	for _, r := range rejected {
		if r.Reason != assayv1.RejectionReason_REJECTION_REASON_INVALID_FIELD && r.Reason != assayv1.RejectionReason_REJECTION_REASON_UNIT_MISMATCH {
			return true
		}
	}
	return false
}

func (s *eventService) checkExposure(snapshot *assign.Catalog, from *assayv1.Exposure, now time.Time) (*experiment.Exposure, *assayv1.Rejection) {
	if r := s.checkItem(from); r != nil {
		return nil, r
	}
	exposed := now
	if from.ExposedTime != nil {
		var r *assayv1.Rejection
		if exposed, r = eventTime("exposed_time", from.ExposedTime, now); r != nil {
			return nil, r
		}
	}
	e := snapshot.Experiment(from.Experiment)
	if e == nil {
		return nil, &assayv1.Rejection{Reason: assayv1.RejectionReason_REJECTION_REASON_EXPERIMENT_NOT_FOUND, Field: "experiment",
			Message: "there is no experiment " + from.Experiment}
	}
	subject := snapshot.Subject(unitOf(from.Subject.Unit), from.Subject.Key, nil)
	revision, refusal := subject.CheckExposure(e, from.Variant, exposed, from.GetRevision())
	if refusal != nil {
		return nil, &assayv1.Rejection{Reason: rejections[refusal.Reason], Field: refusal.Field, Message: refusal.Message}
	}
	attributes, err := keptAttributes(&revision.Definition, from.Subject.Attributes)
	if err != nil {
		return nil, invalidItem("subject.attributes", err.Error())
	}
	return &experiment.Exposure{
		ExperimentID: e.ID,
		Phase:        revision.Phase,
		SubjectID:    subject.ID(),
		Variant:      from.Variant,
		ExposedTime:  exposed.UTC().Truncate(timeResolution),
		Attributes:   attributes,
	}, nil
}

func (s *eventService) checkOutcome(from *assayv1.Outcome, now time.Time) (*experiment.Outcome, *assayv1.Rejection) {
	if r := s.checkItem(from); r != nil {
		return nil, r
	}
	occurred, r := eventTime("occurred_time", from.OccurredTime, now)
	if r != nil {
		return nil, r
	}
	properties, err := canonicalJSON(from.Properties)
	if err != nil {
		return nil, invalidItem("properties", err.Error())
	}
	occurred = occurred.UTC().Truncate(timeResolution)
	return &experiment.Outcome{
		RowID:        experiment.NewRowID(occurred, from.EventId),
		SubjectID:    s.Pepper.SubjectID(experiment.Subject{Unit: unitOf(from.Subject.Unit), Key: from.Subject.Key}),
		Name:         from.Name,
		Value:        from.Value,
		OccurredTime: occurred,
		Properties:   properties,
	}, nil
}

// checkItem checks an item against the rules of the schema.
func (s *eventService) checkItem(m proto.Message) *assayv1.Rejection {
	err := checkRules(s.validator, m)
	if err == nil {
		return nil
	}
	if invalid, ok := err.(*experiment.InvalidError); ok {
		return invalidItem(invalid.Violations[0].Field, invalid.Error())
	}
	return invalidItem("", err.Error())
}

func invalidItem(field, message string) *assayv1.Rejection {
	return &assayv1.Rejection{Reason: assayv1.RejectionReason_REJECTION_REASON_INVALID_FIELD, Field: field, Message: message}
}

// eventTime checks the time of an event.
func eventTime(field string, ts *timestamppb.Timestamp, now time.Time) (time.Time, *assayv1.Rejection) {
	if err := ts.CheckValid(); err != nil {
		return time.Time{}, invalidItem(field, field+": is not a valid timestamp")
	}
	t := ts.AsTime()
	switch {
	case t.Before(time.Unix(0, 0)):
		return time.Time{}, invalidItem(field, field+": is before 1970")
	case t.After(now.Add(maxAhead)):
		return time.Time{}, invalidItem(field, field+": is more than 5 minutes ahead of the server's clock")
	}
	return t, nil
}

// keptAttributes returns those of the attributes that the definition keeps, as
// JSON; nil if there are none.
func keptAttributes(def *experiment.Definition, attributes *structpb.Struct) ([]byte, error) {
	var kept *structpb.Struct
	for _, name := range def.KeptAttributes() {
		if v, ok := attributes.GetFields()[name]; ok {
			if kept == nil {
				kept = &structpb.Struct{Fields: map[string]*structpb.Value{}}
			}
			kept.Fields[name] = v
		}
	}
	return canonicalJSON(kept)
}
