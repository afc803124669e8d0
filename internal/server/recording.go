package server

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
)

const (
	bestEffort = assayv1.ExposureRecording_EXPOSURE_RECORDING_BEST_EFFORT
	durable    = assayv1.ExposureRecording_EXPOSURE_RECORDING_DURABLE
)

// exposures are those that the assignments of one call cause, each beside the
// assignment that tells what became of it.
type exposures struct {
	mode  assayv1.ExposureRecording
	items []experiment.Exposure
	of    []decided
}

// decided is an assignment, and what it came from.
type decided struct {
	subject    *assign.Subject
	attributes *structpb.Struct
	experiment *assign.Experiment
	answer     *assayv1.Assignment
}

const (
	enrollmentUnread = "whether the subject is enrolled could not be read, and an exposure to another variant than its own must not be recorded"
	keptMeanwhile    = "the subject was enrolled with another variant meanwhile, which could not be read"
)

// addExposure adds the exposure that a decision at a time causes, if it causes
// one and the call records. That of an enrolled subject is recorded already. Where
// it is not known whether it is enrolled, nothing is recorded: the decision may be
// for another variant than the subject's own.
func (s *assignmentService) addExposure(shown *exposures, of decided, at time.Time, d assign.Decision) {
	if shown.mode != bestEffort && shown.mode != durable {
		return
	}
	exposed, ok := of.subject.Exposed(d)
	if !ok {
		return
	}
	if d.EnrollmentUnknown() {
		s.notStored(shown, []decided{of}, enrollmentUnread)
		return
	}
	item, err := newExposure(d.Experiment, of.subject, exposed, of.answer.Variant, at, of.attributes)
	if err != nil {
		s.notStored(shown, []decided{of}, "what the experiment keeps of the attributes "+err.Error())
		return
	}
	shown.items = append(shown.items, item)
	shown.of = append(shown.of, of)
}

// notStored tells the caller of the exposures that were not stored, or counts
// them where the caller did not want to wait for an answer.
func (s *assignmentService) notStored(shown *exposures, of []decided, why string) {
	if shown.mode == bestEffort {
		s.Lost.Add(float64(len(of)))
		return
	}
	for i := range of {
		of[i].answer.ExposureError = why
	}
}

// bestEffortPiece is how many exposures of a call are handed over at once, so
// that a large batch loses only what has no room.
const bestEffortPiece = 1000

// finish decides what a call has left open, and stores its exposures. It fails a
// call only if that has ended while predicates were evaluated. Recorded durably,
// it takes no more than half of the time that the caller still waits: the
// assignments are to arrive even if the exposures cannot be stored.
func (s *assignmentService) finish(call context.Context, q *assignmentQuery, shown *exposures) error {
	ctx := call
	if deadline, ok := ctx.Deadline(); ok && shown.mode == durable && len(q.open)+len(shown.items) > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	s.settle(ctx, q, shown)
	if err := s.countFailed(call, q.failed...); err != nil {
		return err
	}
	s.record(ctx, shown)
	return nil
}

// record stores the exposures of a call.
func (s *assignmentService) record(ctx context.Context, shown *exposures) {
	if len(shown.items) == 0 {
		return
	}
	if shown.mode == durable {
		s.recordDurably(ctx, shown)
		return
	}
	done := 0
	for piece := range slices.Chunk(shown.items, bestEffortPiece) {
		if !s.Exposures.TryWrite(piece) {
			s.notStored(shown, shown.of[done:done+len(piece)], "")
		}
		done += len(piece)
	}
}

// recordDurably waits for the commit. Whom it found to keep another variant is
// answered with that.
func (s *assignmentService) recordDurably(ctx context.Context, shown *exposures) {
	results, err := s.Exposures.Write(ctx, shown.items)
	if err != nil {
		method, _ := grpc.Method(ctx)
		s.notStored(shown, shown.of, status.Convert(toStatus(ctx, err, method, s.Log)).Message())
		return
	}
	var kept []decided
	for i, result := range results {
		if result == experiment.Kept {
			kept = append(kept, shown.of[i])
		} else if refusal, refused := refusals[result]; refused {
			s.notStored(shown, shown.of[i:i+1], refusal.message)
		}
	}
	s.decideKept(ctx, shown, kept)
}
