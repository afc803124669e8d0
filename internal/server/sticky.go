package server

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
)

// This file holds what sticky experiments ask of storage. A decision that one
// of them leaves open says so itself, so that calls that touch none pay nothing.

// settle decides all that a call has left open, with one lookup, and adds to
// shown what is to be recorded. A call that waits for its commit waits for the
// lookup as well.
func (s *assignmentService) settle(ctx context.Context, q *assignmentQuery, shown *exposures) {
	if len(q.open) == 0 {
		return
	}
	lookup := s.Enrollments.Lookup
	if shown.mode == durable {
		lookup = s.Enrollments.Await
	}
	for i, d := range decideAgain(ctx, q.open, lookup) {
		if d.Failed() {
			q.failed = append(q.failed, d)
		}
		s.addExposure(shown, q.open[i], q.at, d)
	}
}

// decideAgain decides assignments by who is enrolled.
func decideAgain(ctx context.Context, open []decided, lookup func(context.Context, []experiment.Enrollment) (map[experiment.Enrollment]string, bool)) []assign.Decision {
	wanted := make([]experiment.Enrollment, len(open))
	for i, o := range open {
		wanted[i] = o.subject.Enrollment(o.experiment)
	}
	enrolled, complete := lookup(ctx, wanted)
	decisions := make([]assign.Decision, len(open))
	for i, o := range open {
		o.subject.Enroll(enrolled, complete)
		decisions[i] = o.subject.Decide(o.experiment)
		proto.Reset(o.answer)
		fillAssignment(o.answer, o.experiment.Key, decisions[i])
	}
	return decisions
}

// decideKept decides again where the commit found that another variant had been
// recorded since the lookup.
func (s *assignmentService) decideKept(ctx context.Context, shown *exposures, kept []decided) {
	if len(kept) == 0 {
		return
	}
	for i, d := range decideAgain(ctx, kept, s.Enrollments.Await) {
		if d.Reason != assign.ReasonSticky {
			kept[i].answer.EnrollmentUnknown = true
			s.notStored(shown, kept[i:i+1], keptMeanwhile)
		}
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
