package server

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
)

func (s *assignmentService) ExplainAssignment(ctx context.Context, req *assayv1.ExplainAssignmentRequest) (*assayv1.ExplainAssignmentResponse, error) {
	if err := checkAttributes("subject.attributes", req.Subject.GetAttributes()); err != nil {
		return nil, err
	}
	if req.Moment != nil {
		// What was decided at a moment is in the database, and this server may
		// not have heard of all of it yet.
		if err := s.Catalog.Refresh(ctx); err != nil {
			return nil, err
		}
	}
	at := s.Now()
	if past, ok := req.Moment.(*assayv1.ExplainAssignmentRequest_Time); ok {
		var err error
		if at, err = pastTime("time", past.Time, at); err != nil {
			return nil, err
		}
	}
	snapshot := s.Catalog.Current()
	subject := snapshot.Subject(unitOf(req.Subject.Unit), req.Subject.Key, req.Subject.Attributes.AsMap(), at)
	subject.Within(ctx)
	e, err := s.atMoment(ctx, snapshot.Experiment(req.Experiment), subject, at, req)
	if err != nil {
		return nil, err
	}
	x, err := s.explain(ctx, subject, e, req)
	if err == nil && x.Failed() {
		err = ctx.Err() // Which may be why.
	}
	if err != nil {
		return nil, err
	}
	resp := &assayv1.ExplainAssignmentResponse{Assignment: toAssignment(e.Key, x.Decision), State: states.to(e.State)}
	for _, g := range x.Gates {
		gate, err := toGate(g)
		if err != nil {
			return nil, err
		}
		resp.Gates = append(resp.Gates, gate)
	}
	return resp, nil
}

// explain explains a decision, with what is known of the subject's enrolment in
// a sticky experiment at the moment that the request asks about.
func (s *assignmentService) explain(ctx context.Context, subject *assign.Subject, e *assign.Experiment, req *assayv1.ExplainAssignmentRequest) (assign.Explanation, error) {
	x := subject.Explain(e)
	if !x.EnrollmentUnknown() {
		return x, nil
	}
	wanted := []experiment.Enrollment{subject.Enrollment(e)}
	if past, ok := req.Moment.(*assayv1.ExplainAssignmentRequest_Time); ok {
		enrolled, err := s.enrolledAt(ctx, wanted, past.Time.AsTime())
		if err != nil {
			return x, err
		}
		subject.Enroll(enrolled, true)
	} else {
		subject.Enroll(s.Enrollments.Lookup(ctx, wanted))
	}
	return subject.Explain(e), nil
}

// atMoment returns the experiment as it is at the moment that the request asks
// about, whose time is at unless it is a revision.
func (s *assignmentService) atMoment(ctx context.Context, e *assign.Experiment, subject *assign.Subject, at time.Time, req *assayv1.ExplainAssignmentRequest) (*assign.Experiment, error) {
	if e == nil {
		return nil, experiment.Errorf(experiment.ErrNotFound, "EXPERIMENT_NOT_FOUND", "there is no experiment %q", req.Experiment)
	}
	if e.Broken() {
		return e, nil // Whatever the moment, its explanation says so.
	}
	switch moment := req.Moment.(type) {
	case *assayv1.ExplainAssignmentRequest_Revision:
		r, replaced, err := s.DB.RevisionReplaced(ctx, e.ID, moment.Revision)
		if err != nil {
			return nil, err
		}
		if r == nil {
			return nil, noRevision(req.Experiment, moment.Revision)
		}
		return e.AtRevision(r, replaced), nil
	case *assayv1.ExplainAssignmentRequest_Time:
		r, err := s.DB.RevisionAt(ctx, e.ID, at)
		if err != nil {
			return nil, err
		}
		overrides, err := s.DB.OverrideAt(ctx, e.ID, subject.ID(), at)
		if err != nil {
			return nil, err
		}
		then := e.AsOf(at, r, overrides)
		if then == nil {
			return nil, experiment.Errorf(experiment.ErrNotFound, "EXPERIMENT_NOT_FOUND", "there was no experiment %q at that time: it was created at %s",
				req.Experiment, e.CreateTime.UTC().Format(time.RFC3339Nano))
		}
		return then, nil
	}
	return e, nil
}

// pastTime checks a time that must not be in the future.
func pastTime(field string, ts *timestamppb.Timestamp, now time.Time) (t time.Time, err error) {
	if err := ts.CheckValid(); err != nil {
		return t, experiment.Invalid(field, "is not a valid timestamp")
	}
	if t = ts.AsTime(); t.After(now) {
		return t, experiment.Invalid(field, "is in the future")
	}
	return t, nil
}

var gateKinds = map[assign.GateKind]assayv1.Gate_Kind{
	assign.GateState:       assayv1.Gate_KIND_STATE,
	assign.GateOverride:    assayv1.Gate_KIND_OVERRIDE,
	assign.GateSticky:      assayv1.Gate_KIND_STICKY,
	assign.GateEligibility: assayv1.Gate_KIND_ELIGIBILITY,
	assign.GateHoldout:     assayv1.Gate_KIND_HOLDOUT,
	assign.GateLayer:       assayv1.Gate_KIND_LAYER,
	assign.GateTraffic:     assayv1.Gate_KIND_TRAFFIC,
	assign.GateSplit:       assayv1.Gate_KIND_SPLIT,
	assign.GateRoster:      assayv1.Gate_KIND_ROSTER,
}

func toGate(g assign.Gate) (*assayv1.Gate, error) {
	gate := &assayv1.Gate{Kind: gateKinds[g.Kind], Passed: g.Passed, Detail: g.Detail, Predicate: g.Predicate}
	if g.Attributes != nil {
		attributes, err := structpb.NewStruct(g.Attributes)
		if err != nil {
			return nil, fmt.Errorf("attributes of a gate: %w", err)
		}
		gate.Attributes = attributes
	}
	if b := g.Bucketing; b != nil {
		gate.Bucketing = &assayv1.Bucketing{Purpose: b.Purpose, Salt: b.Salt, Hash: fmt.Sprintf("%016x", b.Hash), Bucket: b.Bucket}
		if b.Range != nil {
			gate.Bucketing.Range = toRange(*b.Range)
		}
	}
	return gate, nil
}
