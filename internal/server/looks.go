package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
	"github.com/assayhq/assay/internal/postgres"
)

// atLook prepares the study of an analysis for the looks of a group-sequential
// plan, and returns those that it follows.
func (s *analysisService) atLook(ctx context.Context, e *experiment.Experiment, req *assayv1.AnalyzeExperimentRequest, study *metric.Study, asOf time.Time) (*metric.Study, []postgres.Look, error) {
	looks, err := s.DB.Looks(ctx, e.ID)
	if err != nil {
		return nil, nil, err
	}
	n := len(looks)
	for n > 0 && asOf.Before(looks[n-1].AsOfTime) {
		n--
	}
	if req.TakeLook && n < len(looks) {
		last := &looks[len(looks)-1]
		return nil, nil, experiment.Errorf(experiment.ErrPrecondition, "LOOK_OUT_OF_ORDER", "look %d was taken as of %s, and the next cannot be as of an earlier time",
			last.Number, last.AsOfTime.UTC().Format(time.RFC3339Nano))
	}
	looks = looks[:n]
	earlier := plainLooks(study, looks)
	if n > 0 && !req.TakeLook {
		if earlier[n-1].Verdict, err = s.verdictOf(ctx, &looks[n-1]); err != nil {
			return nil, nil, err
		}
	}
	study, err = study.AtLook(earlier, req.TakeLook)
	return study, looks, err
}

// verdictOf is what a look decided.
func (s *analysisService) verdictOf(ctx context.Context, l *postgres.Look) (metric.Verdict, error) {
	stored, err := s.DB.Analysis(ctx, l.AnalysisID)
	if err != nil {
		return metric.Verdict{}, err
	}
	analysis, err := decodeAnalysis(stored)
	if err != nil {
		return metric.Verdict{}, err
	}
	v := analysis.GetVerdict()
	return metric.Verdict{Action: actions.from(v.GetAction()), Variant: v.GetVariant(), Reasons: v.GetReasons()}, nil
}

func toLooks(study *metric.Study, looks []postgres.Look) ([]*assayv1.Look, error) {
	plain := plainLooks(study, looks)
	boundaries, err := study.Boundaries(plain)
	if err != nil {
		return nil, err
	}
	list := make([]*assayv1.Look, len(looks))
	for i := range looks {
		l := &looks[i]
		list[i] = &assayv1.Look{
			Number: l.Number, Information: study.Information(&l.Look), Spent: study.Spent(&plain[i]),
			AnalysisId: formatUUID(l.AnalysisID), CreateTime: timestamppb.New(l.CreateTime),
		}
		if list[i].Boundary = boundaries[i]; boundaries[i] == nil {
			list[i].Notes = []string{"The look spends so little of the error rate, or nothing as the plan decides at a later one, that no result could be significant: it has no boundary."}
		}
	}
	return list, nil
}

// plainLooks leaves out where looks are stored.
func plainLooks(study *metric.Study, looks []postgres.Look) []metric.Look {
	plain := make([]metric.Look, len(looks))
	for i := range looks {
		plain[i] = looks[i].Look
		plain[i].Ended = !study.CountingEnd(looks[i].AsOfTime).IsZero()
	}
	return plain
}
