package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

func (s *analysisService) GetTimeline(ctx context.Context, req *assayv1.GetTimelineRequest) (*assayv1.GetTimelineResponse, error) {
	e, err := s.started(ctx, req.Experiment)
	if err != nil {
		return nil, err
	}
	asOf, err := s.asOf(ctx, req.AsOfTime)
	if err != nil {
		return nil, err
	}
	use, err := s.timelineUse(ctx, e, req.Metric)
	if err != nil {
		return nil, err
	}
	e, phases, err := s.definedAt(ctx, e, asOf)
	if err != nil {
		return nil, err
	}
	study, err := metric.NewTimeline(&e.Current.Definition, phases[0].Definition.Variants, use)
	if err != nil {
		return nil, err
	}
	conduct, err := s.conduct(ctx, e, phases)
	if err != nil {
		return nil, err
	}
	conduct.ExcludePauses = req.ExcludePauses
	study = study.Conducted(conduct)
	fold, accounted, err := s.folded(ctx, e.ID, study, asOf)
	if err != nil {
		return nil, err
	}
	var timeline *metric.Timeline
	if err := inTurn(ctx, func() error {
		tally, err := told(ctx, study, fold, accounted)
		if err == nil {
			timeline, err = study.Pausing(pause(ctx)).Timeline(tally)
		}
		return err
	}); err != nil {
		return nil, err
	}
	return &assayv1.GetTimelineResponse{
		Experiment: e.Key, Metric: use.Metric.Key, MetricRevision: use.Metric.Revision, AsOfTime: timestamppb.New(asOf),
		Cumulative:    convert(timeline.Cumulative, toDayPoint),
		SinceExposure: convert(timeline.SinceExposure, toPoint),
		Cohorts:       convert(timeline.Cohorts, toDayPoint),
		Notes:         timeline.Notes,
	}, nil
}

// timelineUse returns the metric as the plan has it, or any other at its current
// revision. No key names the primary metric.
func (s *analysisService) timelineUse(ctx context.Context, e *experiment.Experiment, key string) (metric.Use, error) {
	for _, use := range e.Current.Definition.Metrics {
		if use.Metric == key || key == "" && use.Role == experiment.RolePrimary {
			return s.plannedUse(ctx, e, use)
		}
	}
	if key == "" {
		return metric.Use{}, experiment.Invalid("metric", "must be given, as the experiment has no primary metric")
	}
	uses, err := s.currentUses(ctx, []string{key})
	if err != nil {
		return metric.Use{}, err
	}
	return uses[0], nil
}

func toPoint(p *metric.Point) *assayv1.TimelinePoint {
	return &assayv1.TimelinePoint{
		DaysSinceExposure: int32(p.Since), Days: int32(p.Days),
		Arms: convert(p.Arms, toArm), Comparisons: convert(p.Comparisons, toComparison),
		Withheld: p.Withheld,
	}
}

func toDayPoint(p *metric.Point) *assayv1.TimelinePoint {
	point := toPoint(p)
	point.Day = p.Day.Format(time.DateOnly)
	return point
}
