package server

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
)

// This file holds what sticky experiments ask of storage. A decision that one
// of them leaves open says so itself, so that calls that touch none pay nothing.

// openAssignment is an assignment to decide again, once it is known whether its
// subject is enrolled.
type openAssignment struct {
	subject    *assign.Subject
	attributes *structpb.Struct
	experiment *assign.Experiment
	answer     *assayv1.Assignment
}

// settle decides all that a call has left open, with one lookup, and adds to
// shown what is to be recorded.
func (s *assignmentService) settle(ctx context.Context, q *assignmentQuery, shown *exposures) {
	if len(q.open) == 0 {
		return
	}
	wanted := make([]experiment.Enrollment, len(q.open))
	for i, o := range q.open {
		wanted[i] = o.subject.Enrollment(o.experiment)
	}
	enrolled, complete := s.Enrollments.Lookup(ctx, wanted)
	for _, o := range q.open {
		o.subject.Enroll(enrolled, complete)
		d := o.subject.Decide(o.experiment)
		proto.Reset(o.answer)
		fillAssignment(o.answer, o.experiment.Key, d)
		s.addExposure(shown, o.subject, q.at, o.attributes, d, o.answer)
	}
}

// enroll hands over to a flag's subject whether it is enrolled in the sticky
// ones of the experiments with the keys, with one lookup.
func (s *services) enroll(ctx context.Context, f *flagSubject, keys ...string) {
	var wanted []experiment.Enrollment
	for _, key := range keys {
		if e := f.snapshot.Experiment(key); e != nil && e.Sticky() {
			wanted = append(wanted, f.subject(e).Enrollment(e))
		}
	}
	if len(wanted) == 0 || f.key == "" {
		return
	}
	enrolled, complete := s.Enrollments.Lookup(ctx, wanted)
	for _, subject := range f.units {
		subject.Enroll(enrolled, complete)
	}
}

// enrolledAt is who of the wanted was enrolled by a time, or is now if it is
// zero, straight from storage.
func (s *services) enrolledAt(ctx context.Context, wanted []experiment.Enrollment, t time.Time) (map[experiment.Enrollment]string, error) {
	list, err := s.DB.EnrollmentsAt(ctx, wanted, t)
	enrolled := make(map[experiment.Enrollment]string, len(list))
	for _, e := range list {
		enrolled[e.Enrollment] = e.Variant
	}
	return enrolled, err
}

// admitEnrolled takes exposures to the variant with which a sticky experiment
// has enrolled the subject for what they are: duplicates of the first one, also
// where the split gives another variant by now.
func (s *eventService) admitEnrolled(ctx context.Context, snapshot *assign.Catalog, exposures []*assayv1.Exposure, b *batch[experiment.Exposure]) error {
	candidates := map[int32]experiment.Enrollment{} // By their index in the request.
	var wanted []experiment.Enrollment
	for _, r := range b.rejected {
		from := exposures[r.Index]
		e := snapshot.Experiment(from.Experiment)
		if r.Reason != assayv1.RejectionReason_REJECTION_REASON_VARIANT_MISMATCH || !e.Current.Definition.Sticky {
			continue
		}
		id := s.Pepper.SubjectID(experiment.Subject{Unit: unitOf(from.Subject.Unit), Key: from.Subject.Key})
		candidates[r.Index] = experiment.Enrollment{ExperimentID: e.ID, SubjectID: id}
		wanted = append(wanted, candidates[r.Index])
	}
	if len(wanted) == 0 {
		return nil
	}
	enrolled, err := s.enrolledAt(ctx, wanted, time.Time{})
	if err != nil {
		return err // Nothing may be rejected for good.
	}
	b.rejected = slices.DeleteFunc(b.rejected, func(r *assayv1.Rejection) bool {
		name, ok := candidates[r.Index]
		known := ok && enrolled[name] == exposures[r.Index].Variant
		if known {
			b.duplicates++
		}
		return known
	})
	return nil
}
