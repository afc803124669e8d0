package server

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/event"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

type eventService struct {
	assayv1.UnimplementedEventServiceServer
	*services
	admission *admission
	open      *openStreams
	checking  chan struct{} // Holds a token for each large batch that is being checked.
	ahead     *byExperiment
	newNames  *prometheus.CounterVec // Those that were refused.
}

func newEventService(s *services, a *admission, open *openStreams) (*eventService, error) {
	ahead := newByExperiment("assay_exposures_ahead_total",
		"Exposures of a time that is seconds ahead of the server's clock, by experiment: until then the subject's outcomes do not count.")
	newNames := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "assay_outcome_names_refused_total",
		Help: "Outcomes that were rejected because their name is new and met a limit, by reason.",
	}, []string{"reason"})
	return &eventService{services: s, admission: a, open: open, checking: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), ahead: ahead, newNames: newNames},
		errors.Join(s.Metrics.Register(ahead), s.Metrics.Register(newNames))
}

// smallBatch is how many items are checked without waiting. The check of a
// large batch takes milliseconds, and when many come at once everything else
// would wait for all of them: so they take turns, on half of the processors.
const smallBatch = 100

// maxBatchItems is the most exposures and outcomes of one message.
const maxBatchItems = 10_000

// timeResolution is that of all events. It is the same for exposures and
// outcomes: cut off more coarsely than its exposure, an outcome of the same
// moment would come before it and not count.
const timeResolution = time.Millisecond

// maxAhead is how far the time of an event may be ahead of the server's clock.
const maxAhead = 5 * time.Minute

// eventLimits bound the properties and the kept attributes of an event.
var eventLimits = structLimits{bytes: 8 << 10, depth: 8}

func (s *eventService) RecordExposures(ctx context.Context, req *assayv1.RecordExposuresRequest) (*assayv1.RecordExposuresResponse, error) {
	b, err := s.recordExposures(ctx, req.Exposures)
	if err != nil {
		return nil, err
	}
	return &assayv1.RecordExposuresResponse{Recorded: b.recorded, Duplicates: b.duplicates, Rejected: b.rejected}, nil
}

func (s *eventService) RecordOutcomes(ctx context.Context, req *assayv1.RecordOutcomesRequest) (*assayv1.RecordOutcomesResponse, error) {
	b, err := s.recordOutcomes(ctx, req.Outcomes)
	if err != nil {
		return nil, err
	}
	return &assayv1.RecordOutcomesResponse{Recorded: b.recorded, Duplicates: b.duplicates, Rejected: b.rejected}, nil
}

// recordExposures checks exposures and stores those that keep the rules.
func (s *eventService) recordExposures(ctx context.Context, exposures []*assayv1.Exposure) (*batch[experiment.Exposure], error) {
	b, err := s.checkExposures(ctx, exposures)
	if err != nil {
		return nil, err
	}
	if b.mayBeStale() {
		// The catalog may be older than the start that makes these valid. If
		// that cannot be known, nothing may be rejected for good.
		if err := s.Catalog.Refresh(ctx); err != nil {
			return nil, err
		}
		if b, err = s.checkExposures(ctx, exposures); err != nil {
			return nil, err
		}
	}
	for key, n := range b.ahead {
		s.ahead.of(key).Add(n)
	}
	return b, b.store(ctx, s.Exposures)
}

// recordOutcomes checks outcomes and stores those that keep the rules.
func (s *eventService) recordOutcomes(ctx context.Context, outcomes []*assayv1.Outcome) (*batch[experiment.Outcome], error) {
	now := s.Now()
	b := checkBatch(s.checking, outcomes, func(o *assayv1.Outcome) (experiment.Outcome, *assayv1.Rejection) { return s.checkOutcome(o, now) })
	refusal, err := s.Names(ctx, b.accepted)
	if err != nil {
		return nil, err
	}
	if refusal != nil {
		b = s.withoutNames(b, refusal)
	}
	if err := s.Months(ctx, b.accepted); err != nil {
		return nil, err
	}
	return b, b.store(ctx, s.Outcomes)
}

// batch is the items of a request and what became of them.
type batch[T any] struct {
	accepted             []T
	indices              []int32 // Of the accepted ones in the request.
	recorded, duplicates int32
	rejected             []*assayv1.Rejection
	ahead                map[string]float64 // Accepted exposures whose clock is ahead, by experiment.
}

func checkBatch[P, T any](checking chan struct{}, items []P, check func(P) (T, *assayv1.Rejection)) *batch[T] {
	if len(items) > smallBatch {
		checking <- struct{}{}
		defer func() { <-checking }()
	}
	b := batch[T]{accepted: make([]T, 0, len(items)), indices: make([]int32, 0, len(items))}
	for i, from := range items {
		item, rejection := check(from)
		if rejection == nil {
			b.accepted, b.indices = append(b.accepted, item), append(b.indices, int32(i))
			continue
		}
		rejection.Index = int32(i)
		b.rejected = append(b.rejected, rejection)
	}
	return &b
}

// store writes the accepted items, and adds what the store refuses to the
// rejected ones. It waits for the commit even if the caller has gone: until
// then the items take memory, and their call must count.
func (b *batch[T]) store(ctx context.Context, w *event.Writer[T]) error {
	results, err := w.Write(context.WithoutCancel(ctx), b.accepted)
	if err != nil {
		return err
	}
	for i, result := range results {
		switch result {
		case experiment.Recorded:
			b.recorded++
		case experiment.Duplicate:
			b.duplicates++
		default:
			rejection := refusals[result]
			b.rejected = append(b.rejected, &assayv1.Rejection{
				Index: b.indices[i], Reason: rejection.reason, Field: rejection.field, Message: rejection.message,
			})
		}
	}
	slices.SortFunc(b.rejected, func(x, y *assayv1.Rejection) int { return cmp.Compare(x.Index, y.Index) })
	return nil
}

// refusals are the results by which the store refuses an item.
var refusals = map[experiment.Result]struct {
	reason         assayv1.RejectionReason
	field, message string
}{
	experiment.Conflict:   {assayv1.RejectionReason_REJECTION_REASON_CONFLICT, "event_id", "an outcome of this identity is recorded with another name, value or properties"},
	experiment.Limited:    {assayv1.RejectionReason_REJECTION_REASON_LIMIT, "name", "there are as many outcome names as there may be"},
	experiment.Refused:    {assayv1.RejectionReason_REJECTION_REASON_INVALID_FIELD, "", "the database refused this item's data"},
	experiment.Recorrects: {assayv1.RejectionReason_REJECTION_REASON_INVALID_FIELD, "corrects_event_id", "names a correction, which cannot be corrected: correct the original again"},
	experiment.Kept:       {assayv1.RejectionReason_REJECTION_REASON_VARIANT_MISMATCH, "variant", "the experiment is sticky, and the subject keeps another variant: that of its first recorded exposure"},
	experiment.Erased:     {assayv1.RejectionReason_REJECTION_REASON_ERASED, "subject", "the subject was erased: nothing of it is recorded any more"},
}

// mayBeStale says whether a newer catalog could accept what was rejected.
func (b *batch[T]) mayBeStale() bool {
	return slices.ContainsFunc(b.rejected, func(r *assayv1.Rejection) bool {
		return r.Reason != assayv1.RejectionReason_REJECTION_REASON_INVALID_FIELD &&
			r.Reason != assayv1.RejectionReason_REJECTION_REASON_BEFORE_RETENTION
	})
}

func (s *eventService) checkExposures(ctx context.Context, exposures []*assayv1.Exposure) (*batch[experiment.Exposure], error) {
	snapshot, now := s.Catalog.Current(), s.Now()
	b := checkBatch(s.checking, exposures, func(x *assayv1.Exposure) (experiment.Exposure, *assayv1.Rejection) {
		return s.checkExposure(snapshot, x, now)
	})
	for _, r := range b.rejected {
		if r.Reason == notLoaded { // It may be valid, and cannot be known.
			return nil, experiment.Errorf(experiment.ErrUnavailable, "ROSTER_NOT_LOADED", "%s: %s", exposures[r.Index].Experiment, r.Message)
		}
	}
	for i := range b.accepted {
		if b.accepted[i].ExposedTime.Sub(now) > metric.ClockAhead {
			if b.ahead == nil {
				b.ahead = map[string]float64{}
			}
			b.ahead[exposures[b.indices[i]].Experiment]++
		}
	}
	return b, s.admitEnrolled(ctx, snapshot, exposures, b)
}

var rejections = map[assign.RejectionReason]assayv1.RejectionReason{
	assign.RejectNotRunning:       assayv1.RejectionReason_REJECTION_REASON_EXPERIMENT_NOT_RUNNING,
	assign.RejectUnitMismatch:     assayv1.RejectionReason_REJECTION_REASON_UNIT_MISMATCH,
	assign.RejectRevisionNotFound: assayv1.RejectionReason_REJECTION_REASON_REVISION_NOT_FOUND,
	assign.RejectVariantNotFound:  assayv1.RejectionReason_REJECTION_REASON_VARIANT_NOT_FOUND,
	assign.RejectVariantMismatch:  assayv1.RejectionReason_REJECTION_REASON_VARIANT_MISMATCH,
	assign.RejectNotLoaded:        notLoaded,
}

// notLoaded is of an exposure that is not rejected: its call fails.
const notLoaded = assayv1.RejectionReason_REJECTION_REASON_UNSPECIFIED

func (s *eventService) checkExposure(snapshot *assign.Catalog, from *assayv1.Exposure, now time.Time) (x experiment.Exposure, r *assayv1.Rejection) {
	if err := checkRules(s.validator, from); err != nil {
		return x, invalidItem(err)
	}
	exposed := now
	if from.ExposedTime != nil {
		var err error
		if exposed, err = eventTime("exposed_time", from.ExposedTime, now); err != nil {
			return x, invalidItem(err)
		}
		if s.expired(exposed, now) {
			return x, expiredItem("exposed_time")
		}
	}
	e := snapshot.Experiment(from.Experiment)
	if e == nil {
		return x, &assayv1.Rejection{Reason: assayv1.RejectionReason_REJECTION_REASON_EXPERIMENT_NOT_FOUND, Field: "experiment",
			Message: "there is no experiment " + from.Experiment}
	}
	subject := snapshot.Subject(unitOf(from.Subject.Unit), from.Subject.Key, nil, now)
	counts, refusal := subject.CheckExposure(e, from.Variant, exposed, from.GetRevision())
	if refusal != nil {
		return x, &assayv1.Rejection{Reason: rejections[refusal.Reason], Field: refusal.Field, Message: refusal.Message}
	}
	x, err := newExposure(e, subject, counts, from.Variant, exposed, from.Subject.Attributes)
	if err != nil {
		return x, invalidItem(experiment.Invalid("subject.attributes", "what the experiment keeps of them %s", err))
	}
	return x, nil
}

// newExposure returns what is stored of an exposure. An error is about what the
// experiment keeps of the attributes.
func newExposure(e *assign.Experiment, subject *assign.Subject, counts assign.Exposed, variant string, exposed time.Time, attributes *structpb.Struct) (experiment.Exposure, error) {
	kept, err := keptAttributes(counts.Revision.Rules.Kept, attributes)
	x := experiment.Exposure{
		ExperimentID: e.ID,
		Phase:        counts.Revision.Phase,
		SubjectID:    subject.ID(),
		Variant:      variant,
		ExposedTime:  exposed.UTC().Truncate(timeResolution),
		Bucket:       counts.Bucket,
		Attributes:   kept,
		HeldOut:      counts.HeldOut,
		Sides:        counts.Sides,
	}
	if counts.Sticky {
		x.Sticky = &e.Current.Definition
	}
	return x, err
}

func (s *eventService) checkOutcome(from *assayv1.Outcome, now time.Time) (o experiment.Outcome, r *assayv1.Rejection) {
	if err := checkRules(s.validator, from); err != nil {
		return o, invalidItem(err)
	}
	occurred, err := eventTime("occurred_time", from.OccurredTime, now)
	if err != nil {
		return o, invalidItem(err)
	}
	properties, err := encodeStruct(from.Properties, eventLimits)
	if err != nil {
		return o, invalidItem(experiment.Invalid("properties", "%s", err))
	}
	unit := unitOf(from.Subject.Unit)
	o = experiment.Outcome{
		SubjectID:    s.Pepper.SubjectID(experiment.Subject{Unit: unit, Key: from.Subject.Key}),
		Unit:         unit,
		Name:         from.Name,
		Value:        from.Value,
		OccurredTime: occurred.UTC().Truncate(timeResolution),
		Properties:   properties,
	}
	if from.CorrectsEventId != "" || from.CorrectsOccurredTime != nil {
		if err := correct(&o, from, now); err != nil {
			return o, invalidItem(err)
		}
	}
	if s.expired(o.OccurredTime, now) {
		if o.IsCorrection() {
			return o, expiredItem("corrects_occurred_time")
		}
		return o, expiredItem("occurred_time")
	}
	o.RowID = experiment.NewRowID(o.OccurredTime, from.EventId)
	return o, nil
}

// expired says whether events of that time are no longer kept.
func (s *services) expired(t, now time.Time) bool {
	return s.Retention > 0 && t.Before(now.Add(-s.Retention))
}

func expiredItem(field string) *assayv1.Rejection {
	return &assayv1.Rejection{Reason: assayv1.RejectionReason_REJECTION_REASON_BEFORE_RETENTION, Field: field,
		Message: "events of that time are no longer kept"}
}

// correct makes the outcome a correction of another one, beside which it is
// stored.
func correct(o *experiment.Outcome, from *assayv1.Outcome, now time.Time) error {
	switch {
	case from.CorrectsEventId == "":
		return experiment.Invalid("corrects_event_id", "must name the corrected outcome, as corrects_occurred_time does")
	case from.CorrectsOccurredTime == nil:
		return experiment.Invalid("corrects_occurred_time", "must be that of the corrected outcome")
	case from.CorrectsEventId == from.EventId:
		return experiment.Invalid("corrects_event_id", "must be another event's")
	case from.Value == nil:
		return experiment.Invalid("value", "must be what is added to the corrected outcome's value")
	}
	corrected, err := eventTime("corrects_occurred_time", from.CorrectsOccurredTime, now)
	if err != nil {
		return err
	}
	o.AdjustedTime, o.OccurredTime = o.OccurredTime, corrected.UTC().Truncate(timeResolution)
	o.Corrects = experiment.NewRowID(o.OccurredTime, from.CorrectsEventId)
	return nil
}

// invalidItem rejects an item for what is wrong with its fields: it names the
// first and tells of all.
func invalidItem(err error) *assayv1.Rejection {
	r := &assayv1.Rejection{Reason: assayv1.RejectionReason_REJECTION_REASON_INVALID_FIELD, Message: err.Error()}
	if invalid, ok := err.(*experiment.InvalidError); ok {
		r.Field = invalid.Violations[0].Field
	}
	return r
}

// eventTime checks the time of an event.
func eventTime(field string, ts *timestamppb.Timestamp, now time.Time) (t time.Time, err error) {
	if err := ts.CheckValid(); err != nil {
		return t, experiment.Invalid(field, "is not a valid timestamp")
	}
	switch t = ts.AsTime(); {
	case t.Before(time.Unix(0, 0)):
		return t, experiment.Invalid(field, "is before 1970")
	case t.After(now.Add(maxAhead)):
		return t, experiment.Invalid(field, "is more than 5 minutes ahead of the server's clock")
	}
	return t, nil
}

// keptAttributes returns those of the attributes that the definition keeps, as
// JSON; nil if there are none.
func keptAttributes(names []string, attributes *structpb.Struct) ([]byte, error) {
	var kept *structpb.Struct
	for _, name := range names {
		if v, ok := attributes.GetFields()[name]; ok {
			if kept == nil {
				kept = &structpb.Struct{Fields: map[string]*structpb.Value{}}
			}
			kept.Fields[name] = v
		}
	}
	return encodeStruct(kept, eventLimits)
}
