package server

import (
	"context"
	"time"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
	"github.com/assayhq/assay/internal/postgres"
)

func (s *experimentService) ConcludeExperiment(ctx context.Context, req *assayv1.ConcludeExperimentRequest) (*assayv1.ConcludeExperimentResponse, error) {
	e, err := s.DB.Experiment(ctx, req.Key)
	if err != nil {
		return nil, err
	}
	conclusion, err := s.conclusion(ctx, e, req)
	if err != nil {
		return nil, err
	}
	concluded, err := s.transition(ctx, req.Key, req.Etag, postgres.StateChange{
		To: experiment.StateConcluded, Shipped: req.ShippedVariant, Rationale: req.Rationale, Conclusion: conclusion,
	})
	return &assayv1.ConcludeExperimentResponse{Experiment: concluded}, err
}

// conclusion says what the decision rests on, and how it goes against that.
func (s *experimentService) conclusion(ctx context.Context, e *experiment.Experiment, req *assayv1.ConcludeExperimentRequest) (*experiment.Conclusion, error) {
	def := &e.Current.Definition
	var bad experiment.InvalidError
	if err := bad.Join("", def.CheckShipped(req.ShippedVariant)); err != nil {
		return nil, err
	}
	stored, err := s.analysisFor(ctx, e, req.AnalysisId)
	if err := bad.Join("", err); err != nil {
		return nil, err
	}
	if err := bad.Err(); err != nil {
		return nil, err
	}
	c := &experiment.Conclusion{Author: authorOf(ctx)}
	var basis *metric.Basis
	if stored != nil {
		analysis, err := decodeAnalysis(stored)
		if err != nil {
			return nil, err
		}
		if basis, err = s.basis(ctx, e, stored, analysis); err != nil {
			return nil, err
		}
		c.AnalysisID, c.Verdict, c.VerdictVariant = analysis.AnalysisId, string(basis.Verdict.Action), basis.Verdict.Variant
	}
	c.Objections = metric.Objections(req.ShippedVariant, def.Variants[def.Control()].Key, basis)
	return c, nil
}

// analysisFor returns the experiment's analysis with the id, or without one its
// newest, nil if it has none.
func (s *experimentService) analysisFor(ctx context.Context, e *experiment.Experiment, id string) (*postgres.Analysis, error) {
	if id != "" {
		return s.analysisOf(ctx, e, "analysis_id", id)
	}
	newest, err := s.DB.Analyses(ctx, e.ID, time.Time{}, [16]byte{}, 1)
	if err != nil || len(newest) == 0 {
		return nil, err
	}
	return newest[0], nil
}

// basis reads from a stored analysis what may speak against a decision.
func (s *experimentService) basis(ctx context.Context, e *experiment.Experiment, stored *postgres.Analysis, analysis *assayv1.AnalyzeExperimentResponse) (*metric.Basis, error) {
	judging, err := s.judging(ctx, analysis)
	if err != nil {
		return nil, err
	}
	basis := &metric.Basis{
		Verdict:     metric.Verdict{Action: actions.from(analysis.GetVerdict().GetAction()), Variant: analysis.GetVerdict().GetVariant()},
		SampleRatio: sampleRatioVerdicts.from(analysis.GetSampleRatio().GetVerdict()),
		Results:     storedResults(judging),
	}
	for _, observed := range analysis.GetSampleRatio().GetObserved() {
		basis.Subjects += observed
	}
	for _, m := range analysis.Metrics {
		if m.Role == assayv1.MetricRole_METRIC_ROLE_PRIMARY {
			primary, err := s.DB.Metric(ctx, m.Metric, m.MetricRevision)
			if err != nil {
				return nil, err
			}
			basis.Direction = primary.Definition.Direction
		}
	}
	basis.Newer, err = s.DB.ExposedSince(ctx, e.ID, stored.AsOfTime)
	return basis, err
}

// judging returns the analysis whose figures judge: under a group-sequential plan
// that of the latest look, as one between looks judges nothing. It is nil if there
// was no look.
func (s *experimentService) judging(ctx context.Context, analysis *assayv1.AnalyzeExperimentResponse) (*assayv1.AnalyzeExperimentResponse, error) {
	if analysis.GetPlan().GetMethod() != assayv1.Method_METHOD_GROUP_SEQUENTIAL {
		return analysis, nil
	}
	if len(analysis.Looks) == 0 {
		return nil, nil
	}
	latest := analysis.Looks[len(analysis.Looks)-1].AnalysisId
	if latest == analysis.AnalysisId {
		return analysis, nil
	}
	stored, err := s.analysis(ctx, "analysis_id", latest)
	if err != nil {
		return nil, err
	}
	return decodeAnalysis(stored)
}

// storedResults reads back what a stored analysis says of its metrics, as far as
// decisions and later analyses go by it.
func storedResults(analysis *assayv1.AnalyzeExperimentResponse) []metric.Result {
	var results []metric.Result
	for _, m := range analysis.GetMetrics() {
		result := metric.Result{Metric: m.Metric, Role: roles.from(m.Role), Objective: objectives.from(m.Objective)}
		for _, c := range m.Comparisons {
			result.Comparisons = append(result.Comparisons, metric.Comparison{
				Variant: c.Variant, Difference: metric.Interval{Estimate: c.GetDifference().Estimate}, StandardError: c.StandardError,
				Significant: c.Significant, Guardrail: guardrailVerdicts.from(c.Guardrail),
			})
		}
		results = append(results, result)
	}
	return results
}

// toConclusion returns how an experiment ended, nil if it has not.
func toConclusion(e *experiment.Experiment) *assayv1.Conclusion {
	if e.ConcludeTime.IsZero() {
		return nil
	}
	p := &assayv1.Conclusion{ShippedVariant: e.ShippedVariant, Rationale: e.Rationale}
	if c := e.Conclusion; c != nil {
		p.Author, p.AnalysisId, p.Objections = c.Author, c.AnalysisID, c.Objections
		p.Verdict, p.VerdictVariant = actions.to(metric.Action(c.Verdict)), c.VerdictVariant
	}
	return p
}
