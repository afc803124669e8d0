package server

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
)

type assignmentService struct {
	assayv1.UnimplementedAssignmentServiceServer
	*services
}

// maxBatchAssignments bounds the answer of a batch, so that it stays below the
// 4 MiB that clients accept by default as long as payloads are small.
const maxBatchAssignments = 10_000

func (s *assignmentService) Assign(ctx context.Context, req *assayv1.AssignRequest) (*assayv1.AssignResponse, error) {
	if err := checkAttributes("subject.attributes", req.Subject.GetAttributes()); err != nil {
		return nil, err
	}
	var resp assayv1.AssignResponse
	q := assignmentQuery{snapshot: s.Catalog.Current(), at: s.Now(), keys: req.Experiments, labels: req.Labels}
	shown := exposures{mode: req.ExposureRecording}
	resp.Assignments, resp.Truncated = s.assign(ctx, &q, req.Subject, &shown)
	if err := s.finish(ctx, &q, &shown); err != nil {
		return nil, err
	}
	return &resp, nil
}

func (s *assignmentService) BatchAssign(ctx context.Context, req *assayv1.BatchAssignRequest) (*assayv1.BatchAssignResponse, error) {
	q := assignmentQuery{snapshot: s.Catalog.Current(), at: s.Now(), keys: req.Experiments, labels: req.Labels}
	if n := q.size(req.Subjects); n > maxBatchAssignments {
		return nil, experiment.Invalid("subjects", "ask for %d assignments in all, where a batch answers at most %d; "+
			"send fewer subjects or name fewer experiments", n, maxBatchAssignments)
	}
	results := make([]assayv1.BatchAssignResult, len(req.Subjects))
	resp := &assayv1.BatchAssignResponse{Results: make([]*assayv1.BatchAssignResult, len(req.Subjects))}
	shown := exposures{mode: req.ExposureRecording}
	for i, subject := range req.Subjects {
		if err := ctx.Err(); err != nil { // A large batch of costly predicates takes a while.
			return nil, err
		}
		result := &results[i]
		err := checkRules(s.validator, subject)
		if err == nil {
			err = checkAttributes("attributes", subject.Attributes)
		}
		if err != nil {
			result.Error = err.Error()
		} else {
			result.Assignments, result.Truncated = s.assign(ctx, &q, subject, &shown)
		}
		resp.Results[i] = result
	}
	if err := s.finish(ctx, &q, &shown); err != nil {
		return nil, err
	}
	return resp, nil
}

// assignmentQuery is what Assign and BatchAssign ask beside the subject, and
// what the subjects so far have left open.
type assignmentQuery struct {
	snapshot *assign.Catalog
	at       time.Time
	keys     []string
	labels   map[string]string
	lists    map[string]runningList // By unit, once they are asked for.
	open     []decided
	failed   []assign.Decision // For which the predicate failed to evaluate.
}

// runningList is the answer of Catalog.Running.
type runningList struct {
	experiments []*assign.Experiment
	truncated   bool
}

// running lists the experiments that a query without keys asks for.
func (q *assignmentQuery) running(unit string) runningList {
	list, ok := q.lists[unit]
	if !ok {
		list.experiments, list.truncated = q.snapshot.Running(unit, q.labels)
		if q.lists == nil {
			q.lists = map[string]runningList{}
		}
		q.lists[unit] = list
	}
	return list
}

// size returns how many assignments the subjects ask for.
func (q *assignmentQuery) size(subjects []*assayv1.Subject) int {
	if len(q.keys) > 0 {
		return len(subjects) * len(q.keys)
	}
	n := 0
	for _, subject := range subjects {
		n += len(q.running(unitOf(subject.GetUnit())).experiments)
	}
	return n
}

// assign decides for one subject, and adds to shown what is to be recorded.
func (s *assignmentService) assign(ctx context.Context, q *assignmentQuery, from *assayv1.Subject, shown *exposures) (assignments []*assayv1.Assignment, truncated bool) {
	subject := q.snapshot.SubjectWith(unitOf(from.Unit), from.Key, structAttributes{from.Attributes}, q.at)
	subject.Within(ctx)
	var few [4]assign.Decision // Spares most calls an allocation.
	decisions := few[:0]
	if len(q.keys) > 0 {
		for _, key := range q.keys {
			decisions = append(decisions, subject.Assign(key))
		}
	} else {
		list := q.running(subject.Unit)
		truncated = list.truncated
		for _, e := range list.experiments {
			decisions = append(decisions, subject.Decide(e))
		}
	}
	assignments = toAssignments(q.keys, decisions)
	for i, d := range decisions {
		of := decided{subject, from.Attributes, d.Experiment, assignments[i]}
		switch {
		case d.EnrollmentUnknown():
			q.open = append(q.open, of)
		case d.Failed():
			q.failed = append(q.failed, d)
		default:
			s.addExposure(shown, of, q.at, d)
		}
	}
	return assignments, truncated
}

// countFailed counts decisions for which the predicate failed to evaluate. If
// the call has ended, which may be why they did, it returns that instead.
func (s *services) countFailed(ctx context.Context, failed ...assign.Decision) error {
	if len(failed) > 0 && ctx.Err() != nil {
		return ctx.Err()
	}
	for _, d := range failed {
		s.failures.of(d.Experiment.Key).Inc()
	}
	return nil
}

var reasons = [...]assayv1.Reason{
	assign.ReasonNotFound:     assayv1.Reason_REASON_NOT_FOUND,
	assign.ReasonUnitMismatch: assayv1.Reason_REASON_UNIT_MISMATCH,
	assign.ReasonExternal:     assayv1.Reason_REASON_EXTERNAL,
	assign.ReasonNotRunning:   assayv1.Reason_REASON_NOT_RUNNING,
	assign.ReasonOverride:     assayv1.Reason_REASON_OVERRIDE,
	assign.ReasonIneligible:   assayv1.Reason_REASON_INELIGIBLE,
	assign.ReasonConcluded:    assayv1.Reason_REASON_CONCLUDED,
	assign.ReasonNoTraffic:    assayv1.Reason_REASON_NO_TRAFFIC,
	assign.ReasonSplit:        assayv1.Reason_REASON_SPLIT,
	assign.ReasonHoldout:      assayv1.Reason_REASON_HOLDOUT,
	assign.ReasonSticky:       assayv1.Reason_REASON_STICKY,
	assign.ReasonIntakeClosed: assayv1.Reason_REASON_INTAKE_CLOSED,
	assign.ReasonRoster:       assayv1.Reason_REASON_ROSTER,
	assign.ReasonNotInRoster:  assayv1.Reason_REASON_NOT_IN_ROSTER,
}

// toAssignments converts the decisions of one subject. The keys are those that
// were asked for, if any: an experiment that was not found has no other.
func toAssignments(keys []string, decisions []assign.Decision) []*assayv1.Assignment {
	assignments := make([]assayv1.Assignment, len(decisions))
	list := make([]*assayv1.Assignment, len(decisions))
	for i, d := range decisions {
		list[i] = &assignments[i]
		if d.Experiment != nil {
			fillAssignment(list[i], d.Experiment.Key, d)
		} else {
			fillAssignment(list[i], keys[i], d)
		}
	}
	return list
}

func toAssignment(key string, d assign.Decision) *assayv1.Assignment {
	var a assayv1.Assignment
	fillAssignment(&a, key, d)
	return &a
}

func fillAssignment(a *assayv1.Assignment, key string, d assign.Decision) {
	a.Experiment, a.Reason, a.Revision, a.EnrollmentUnknown = key, reasons[d.Reason], d.Revision(), d.EnrollmentUnknown()
	if d.Variant >= 0 {
		a.Variant = d.Experiment.Current.Definition.Variants[d.Variant].Key
		if p := payloadOf(d); len(p.field) > 0 {
			a.ProtoReflect().SetUnknown(p.field)
		}
	}
}

// payload is what a variant carries, made once for an experiment. All assignments
// share it.
type payload struct {
	message *structpb.Struct // Nil for none.
	// field is the field payload of an Assignment, encoded. In place of the message
	// it goes into answers as a field that is not known here: for those who receive
	// it this is the same, and to encode each answer's message anew took a sixth of
	// the server's time.
	field protoreflect.RawFields
}

// payloadOf returns the payload of the variant that was decided.
func payloadOf(d assign.Decision) payload {
	return d.Experiment.Derived(payloads).([]payload)[d.Variant]
}

func payloads(e *assign.Experiment) any {
	list := make([]payload, len(e.Current.Definition.Variants))
	for i, v := range e.Current.Definition.Variants {
		list[i].message = decodeStruct(v.Payload)
		field, err := proto.MarshalOptions{Deterministic: true}.Marshal(&assayv1.Assignment{Payload: list[i].message})
		if err != nil {
			panic(fmt.Sprintf("server: a stored payload that cannot be encoded: %v", err)) // It was received.
		}
		list[i].field = field
	}
	return list
}

func toRanges(ranges []experiment.Range) []*assayv1.BucketRange {
	list := make([]*assayv1.BucketRange, len(ranges))
	for i, r := range ranges {
		list[i] = toRange(r)
	}
	return list
}

func toRange(r experiment.Range) *assayv1.BucketRange {
	return &assayv1.BucketRange{From: r.From, To: r.To, Variant: r.Variant}
}

func unitOf(unit string) string {
	if unit == "" {
		return experiment.DefaultUnit
	}
	return unit
}
