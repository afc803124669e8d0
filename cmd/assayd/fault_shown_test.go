package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// shownLedger remembers, over all trials, the assignments whose exposures were
// recorded by best effort. Such an exposure may be lost, and may be stored long
// after its assignment; it is never stored twice.
type shownLedger struct {
	mu    sync.Mutex
	shown map[experiment.SubjectID]*shownAssignment
}

func newShownLedger() *shownLedger {
	return &shownLedger{shown: map[experiment.SubjectID]*shownAssignment{}}
}

// shownAssignment is that of a subject, which is asked for once.
type shownAssignment struct {
	asked    time.Time
	answered time.Time // Zero if a server owes the answer.
	variant  string
}

// showSubjects asks for the variants of new subjects until ctx ends, and leaves
// it to the servers to record that they met them.
func (r *eventRecorder) showSubjects(ctx context.Context) {
	for ctx.Err() == nil {
		r.show(r.random.IntN(2))
		r.pause(40 * time.Millisecond)
	}
}

// show asks a server once. It must answer, whatever becomes of the exposures.
func (r *eventRecorder) show(server int) {
	req := &assayv1.BatchAssignRequest{Experiments: []string{bestEffortFaults}, ExposureRecording: assayv1.ExposureRecording_EXPOSURE_RECORDING_BEST_EFFORT}
	subjects := make([]experiment.SubjectID, 1+r.random.IntN(20))
	for i := range subjects {
		r.made++
		s := &assayv1.Subject{Key: fmt.Sprintf("shown-%s-%d", r.name, r.made)}
		subjects[i], req.Subjects = subjectID(s.Key), append(req.Subjects, s)
	}
	r.shown.ask(subjects, time.Now())
	s := r.servers[server]
	var resp *assayv1.BatchAssignResponse
	answered, err := r.tally.ask(s, func(ctx context.Context) (err error) {
		resp, err = assayv1.NewAssignmentServiceClient(s.conn).BatchAssign(ctx, req, grpc.WaitForReady(true))
		return err
	})
	switch {
	case err != nil:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.complain("an assignment whose exposure is recorded by best effort failed: %v", err)
	case answered:
		for i, id := range subjects {
			r.shown.answer(id, resp.Results[i].Assignments[0].Variant, time.Now())
		}
	}
}

// ask enters subjects before their variants are asked for.
func (l *shownLedger) ask(subjects []experiment.SubjectID, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range subjects {
		l.shown[id] = &shownAssignment{asked: now}
	}
}

func (l *shownLedger) answer(id experiment.SubjectID, variant string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shown[id].answered, l.shown[id].variant = now, variant
}

// compare holds the ledger to the rows that are stored so far, and returns what
// is wrong with them.
func (l *shownLedger) compare(rows []exposureRow) (faults []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	stored := make(map[experiment.SubjectID]bool, len(rows))
	for _, r := range rows {
		a := l.shown[r.subject]
		switch {
		case a == nil:
			faults = append(faults, fmt.Sprintf("an exposure of %v is stored, whose variant was never asked for", r.subject))
		case stored[r.subject]:
			faults = append(faults, fmt.Sprintf("the exposure of %v is stored twice", r.subject))
		case r.at.Before(a.asked.Truncate(time.Millisecond)):
			faults = append(faults, fmt.Sprintf("the exposure of %v at %v is stored, which was asked for at %v", r.subject, r.at, a.asked))
		case !a.answered.IsZero() && (r.variant != a.variant || r.at.After(a.answered)):
			faults = append(faults, fmt.Sprintf("the exposure of %v to %s at %v is stored, which was answered with %s at %v", r.subject, r.variant, r.at, a.variant, a.answered))
		}
		stored[r.subject] = true
	}
	return faults
}

// shownTotals counts exposures by best effort.
type shownTotals struct{ asked, stored int }

// checkShown holds what was recorded by best effort to what was asked for, as
// far as it is stored by now.
func (d *drill) checkShown() shownTotals {
	rows := query(d, toExposureRow, `SELECT subject_id, variant, exposed_time FROM exposures
		WHERE experiment_id = (SELECT id FROM experiments WHERE key = $1)`, bestEffortFaults)
	for _, fault := range d.shown.compare(rows) {
		d.Error(fault)
	}
	if len(rows) == 0 {
		d.Error("nothing was recorded by best effort")
	}
	return shownTotals{asked: len(d.shown.shown), stored: len(rows)}
}
