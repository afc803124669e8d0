package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

func (s *analysisService) PlanExperiment(ctx context.Context, req *assayv1.PlanExperimentRequest) (*assayv1.PlanExperimentResponse, error) {
	planned := metric.Planned{
		Plan:      fromPlan(req.Plan),
		Objective: cmp.Or(objectives.from(req.Objective), experiment.ObjectiveDifference),
		Margin:    fromMagnitude(req.Margin),
		Weights:   req.Weights,
		Subjects:  req.Subjects,
		Effect:    fromMagnitude(req.MinimumEffect),
		Power:     req.Power,
		Looks:     int(req.Looks),
		Pause:     pause(ctx),
	}
	var asOf *timestamppb.Timestamp
	switch b := req.Baseline.(type) {
	case *assayv1.PlanExperimentRequest_Proportion:
		planned.Baseline = metric.RateBaseline(b.Proportion)
	case *assayv1.PlanExperimentRequest_Mean:
		planned.Baseline = metric.Baseline{Field: "mean", Value: b.Mean.Mean, Deviation: b.Mean.StandardDeviation}
	case *assayv1.PlanExperimentRequest_Ratio:
		r := b.Ratio
		planned.Baseline = metric.RatioBaseline(r.NumeratorMean, r.DenominatorMean, r.NumeratorVariance, r.DenominatorVariance, r.Covariance)
	case *assayv1.PlanExperimentRequest_Metric:
		if req.CovariateCorrelation != 0 && len(b.Metric.Covariates) > 0 {
			return nil, experiment.Invalid("covariate_correlation", "is known of the covariates that the metric names")
		}
		var err error
		if planned.Baseline, asOf, err = s.history(ctx, b.Metric); err != nil {
			return nil, err
		}
	}
	if req.CovariateCorrelation != 0 {
		planned.Baseline.Removed = req.CovariateCorrelation * req.CovariateCorrelation
	}
	if req.SubjectsPerDay != nil {
		planned.Baseline.SubjectsPerDay = *req.SubjectsPerDay
	}
	if req.Days != 0 {
		if req.Subjects != 0 {
			return nil, experiment.Invalid("days", "cannot be given beside subjects")
		}
		var err error
		if planned.Subjects, err = planned.Baseline.SubjectsIn(req.Days); err != nil {
			return nil, err
		}
	}
	var sizing *metric.Sizing
	err := inTurn(ctx, func() (err error) {
		sizing, err = planned.Solve()
		return err
	})
	if err != nil {
		return nil, err
	}
	resp := &assayv1.PlanExperimentResponse{
		Subjects: sizing.Subjects, SubjectsByVariant: sizing.SubjectsByVariant,
		AbsoluteEffect: sizing.Effect, RelativeEffect: sizing.RelativeEffect, Power: sizing.Power, Days: sizing.Days,
		Baseline: planned.Baseline.Value, StandardDeviation: sizing.Deviation, Inflation: sizing.Inflation, ExpectedSubjects: sizing.Expected,
		Notes: sizing.Notes, BaselineSubjects: planned.Baseline.Subjects, BaselineAsOfTime: asOf,
		ExposedSubjects: sizing.Exposed,
	}
	if share := planned.Baseline.Counted; share > 0 {
		resp.CountedShare = &share
	}
	return resp, nil
}

// history returns a metric's figures from the control of an experiment, with the
// experiment's traffic, and as of when they are.
func (s *analysisService) history(ctx context.Context, from *assayv1.MetricBaseline) (b metric.Baseline, at *timestamppb.Timestamp, err error) {
	e, err := s.started(ctx, from.Experiment)
	if err != nil {
		return b, nil, err
	}
	def := &e.Current.Definition
	var bad experiment.InvalidError
	for i, name := range from.Covariates {
		if !slices.ContainsFunc(def.Covariates, func(c experiment.Covariate) bool { return c.Name == name }) {
			bad.Add(fmt.Sprintf("metric.covariates[%d]", i), "the experiment has no covariate %q", name)
		}
	}
	if err := bad.Err(); err != nil {
		return b, nil, err
	}
	uses, err := s.currentUses(ctx, []string{from.Metric})
	if err != nil {
		return b, nil, err
	}
	uses[0].Covariates = from.Covariates
	study, err := metric.NewStudy(def, def.Variants, uses, nil)
	if err != nil {
		return b, nil, err
	}
	phases, err := s.DB.Phases(ctx, e.ID)
	if err != nil {
		return b, nil, err
	}
	conduct, err := s.conduct(ctx, e, phases)
	if err != nil {
		return b, nil, err
	}
	asOf, err := s.asOf(ctx, nil)
	if err != nil {
		return b, nil, err
	}
	alive := study.Conducted(conduct).AliveOnly()
	fold, accounted, err := s.folded(ctx, e.ID, alive, asOf)
	if err != nil {
		return b, nil, err
	}
	err = inTurn(ctx, func() error {
		tally, err := told(ctx, alive, fold, accounted)
		if err == nil {
			b, err = study.Pausing(pause(ctx)).Baseline(tally)
		}
		return err
	})
	return b, timestamppb.New(asOf), err
}
