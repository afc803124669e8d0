package server

import (
	"context"
	"slices"
	"time"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

// course tells what happened to an experiment up to the moment of an analysis.
// phases are the last revisions of its phases.
func (s *analysisService) course(ctx context.Context, e *experiment.Experiment, phases []experiment.Revision, asOf time.Time) (metric.Course, error) {
	begun, err := s.DB.PhaseStarts(ctx, e.ID)
	if err != nil {
		return metric.Course{}, err
	}
	begun = slices.DeleteFunc(begun, func(r experiment.Revision) bool { return r.CreateTime.After(asOf) })
	course := metric.Course{
		Changes:   experiment.Deviations(phases, begun),
		Concluded: !e.ConcludeTime.IsZero() && !e.ConcludeTime.After(asOf),
	}
	course.EarlyLooks, err = s.DB.EarlyLooks(ctx, e.ID, e.Current.Definition.Plan.PlannedSubjects, asOf)
	return course, err
}

func toDeviation(d *experiment.Deviation) *assayv1.Deviation {
	return &assayv1.Deviation{Reason: d.Reason, Message: d.Message}
}
