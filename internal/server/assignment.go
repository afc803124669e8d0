package server

import (
	"context"

	"google.golang.org/protobuf/types/known/structpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
)

type assignmentService struct {
	assayv1.UnimplementedAssignmentServiceServer
	*services
}

// maxAttributes bounds what one call can make the server convert.
const maxAttributes = 10_000

func (s *assignmentService) Assign(ctx context.Context, req *assayv1.AssignRequest) (*assayv1.AssignResponse, error) {
	if err := checkAttributes(req.Subject); err != nil {
		return nil, inField("subject", err)
	}
	var resp assayv1.AssignResponse
	shown := exposures{mode: req.ExposureRecording}
	resp.Assignments, resp.Truncated = s.assign(s.Catalog.Current(), req.Subject, req, &shown)
	s.record(ctx, &shown)
	return &resp, nil
}

func (s *assignmentService) BatchAssign(ctx context.Context, req *assayv1.BatchAssignRequest) (*assayv1.BatchAssignResponse, error) {
	snapshot := s.Catalog.Current()
	resp := &assayv1.BatchAssignResponse{Results: make([]*assayv1.BatchAssignResult, len(req.Subjects))}
	shown := exposures{mode: req.ExposureRecording}
	for i, subject := range req.Subjects {
		if err := ctx.Err(); err != nil { // A large batch of costly predicates takes a while.
			return nil, err
		}
		var result assayv1.BatchAssignResult
		err := checkRules(s.validator, subject)
		if err == nil {
			err = checkAttributes(subject)
		}
		if err != nil {
			result.Error = err.Error()
		} else {
			result.Assignments, result.Truncated = s.assign(snapshot, subject, req, &shown)
		}
		resp.Results[i] = &result
	}
	s.record(ctx, &shown)
	return resp, nil
}

// assignmentQuery is what Assign and BatchAssign ask beside the subject.
type assignmentQuery interface {
	GetExperiments() []string
	GetLabels() map[string]string
}

// assign decides for one subject, and adds to shown what is to be recorded.
func (s *assignmentService) assign(snapshot *assign.Catalog, from *assayv1.Subject, q assignmentQuery, shown *exposures) (assignments []*assayv1.Assignment, truncated bool) {
	subject := snapshot.Subject(unitOf(from.Unit), from.Key, from.Attributes.AsMap())
	var decisions []assign.Decision
	if keys := q.GetExperiments(); len(keys) > 0 {
		decisions = make([]assign.Decision, len(keys))
		assignments = make([]*assayv1.Assignment, len(keys))
		for i, key := range keys {
			decisions[i] = subject.Assign(key)
			assignments[i] = toAssignment(key, decisions[i])
		}
	} else {
		var running []*assign.Experiment
		running, truncated = snapshot.Running(subject.Unit, q.GetLabels())
		decisions = make([]assign.Decision, len(running))
		assignments = make([]*assayv1.Assignment, len(running))
		for i, e := range running {
			decisions[i] = subject.Decide(e)
			assignments[i] = toAssignment(e.Key, decisions[i])
		}
	}
	s.addSplits(shown, subject, from.Attributes, decisions, assignments)
	return assignments, truncated
}

var reasons = map[assign.Reason]assayv1.Reason{
	assign.ReasonNotFound:     assayv1.Reason_REASON_NOT_FOUND,
	assign.ReasonUnitMismatch: assayv1.Reason_REASON_UNIT_MISMATCH,
	assign.ReasonExternal:     assayv1.Reason_REASON_EXTERNAL,
	assign.ReasonNotRunning:   assayv1.Reason_REASON_NOT_RUNNING,
	assign.ReasonOverride:     assayv1.Reason_REASON_OVERRIDE,
	assign.ReasonIneligible:   assayv1.Reason_REASON_INELIGIBLE,
	assign.ReasonConcluded:    assayv1.Reason_REASON_CONCLUDED,
	assign.ReasonNoTraffic:    assayv1.Reason_REASON_NO_TRAFFIC,
	assign.ReasonSplit:        assayv1.Reason_REASON_SPLIT,
}

func toAssignment(key string, d assign.Decision) *assayv1.Assignment {
	a := &assayv1.Assignment{Experiment: key, Reason: reasons[d.Reason], Revision: d.Revision}
	if d.Variant >= 0 {
		a.Variant = d.Experiment.Current.Definition.Variants[d.Variant].Key
		a.Payload = d.Experiment.Derived(payloads).([]*structpb.Struct)[d.Variant]
	}
	return a
}

// payloads makes the messages of an experiment's payloads once; assignments
// share them.
func payloads(e *assign.Experiment) any {
	list := make([]*structpb.Struct, len(e.Current.Definition.Variants))
	for i, v := range e.Current.Definition.Variants {
		list[i] = decodeStruct(v.Payload)
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

// checkAttributes refuses a subject with more attributes than are read.
func checkAttributes(subject *assayv1.Subject) error {
	if n := len(subject.GetAttributes().GetFields()); n > maxAttributes {
		return experiment.Invalid("attributes", "has %d fields; at most %d are read", n, maxAttributes)
	}
	return nil
}
