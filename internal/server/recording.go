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
	mode        assayv1.ExposureRecording
	items       []experiment.Exposure
	assignments []*assayv1.Assignment
}

// addExposure adds the exposure that a decision about a subject at a time
// causes, if it causes one and the call records. That of an enrolled subject is
// recorded already.
func (s *assignmentService) addExposure(shown *exposures, subject *assign.Subject, at time.Time, attributes *structpb.Struct, d assign.Decision, a *assayv1.Assignment) {
	if shown.mode != bestEffort && shown.mode != durable {
		return
	}
	exposed, ok := subject.Exposed(d)
	if !ok {
		return
	}
	item, err := newExposure(d.Experiment, subject, exposed, a.Variant, at, attributes)
	if err != nil {
		s.notStored(shown, []*assayv1.Assignment{a}, "what the experiment keeps of the attributes "+err.Error())
		return
	}
	shown.items = append(shown.items, item)
	shown.assignments = append(shown.assignments, a)
}

// notStored tells the caller of the exposures that were not stored, or counts
// them where the caller did not want to wait for an answer.
func (s *assignmentService) notStored(shown *exposures, of []*assayv1.Assignment, why string) {
	if shown.mode == bestEffort {
		s.Lost.Add(float64(len(of)))
		return
	}
	for _, a := range of {
		a.ExposureError = why
	}
}

// bestEffortPiece is how many exposures of a call are handed over at once, so
// that a large batch loses only what has no room.
const bestEffortPiece = 1000

// record stores the exposures of a call. It fails no call.
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
			s.notStored(shown, shown.assignments[done:done+len(piece)], "")
		}
		done += len(piece)
	}
}

// recordDurably waits for the commit, but for no more than half of the time
// that the caller still waits: the assignments are to arrive even if the
// exposures cannot be stored.
func (s *assignmentService) recordDurably(ctx context.Context, shown *exposures) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	results, err := s.Exposures.Write(ctx, shown.items)
	if err != nil {
		method, _ := grpc.Method(ctx)
		s.notStored(shown, shown.assignments, status.Convert(toStatus(ctx, err, method, s.Log)).Message())
		return
	}
	for i, result := range results {
		if refusal, refused := refusals[result]; refused {
			s.notStored(shown, shown.assignments[i:i+1], refusal.message)
		}
	}
}
