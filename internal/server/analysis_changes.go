package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
	"github.com/assayhq/assay/internal/postgres"
)

// earlierAndLater are two stored analyses of one experiment.
type earlierAndLater struct {
	experiment *experiment.Experiment
	from, to   storedAnalysis
}

// storedAnalysis is a stored analysis and what it says.
type storedAnalysis struct {
	*postgres.Analysis
	says *assayv1.AnalyzeExperimentResponse
}

func (s *analysisService) CompareAnalyses(ctx context.Context, req *assayv1.CompareAnalysesRequest) (*assayv1.CompareAnalysesResponse, error) {
	p, err := s.analysisPair(ctx, req)
	if err != nil {
		return nil, err
	}
	erased, err := s.DB.Erasures(ctx, p.experiment.ID)
	if err != nil {
		return nil, err
	}
	again, err := s.again(ctx, p)
	if err != nil {
		return nil, err
	}
	if now, err := s.DB.Erasures(ctx, p.experiment.ID); err != nil || now != erased {
		if err == nil {
			err = experiment.Errorf(experiment.ErrAborted, "SUBJECT_ERASED", "a subject of the experiment %q was erased meanwhile", p.experiment.Key)
		}
		return nil, err
	}
	resp := &assayv1.CompareAnalysesResponse{FromAnalysisId: p.from.says.AnalysisId, ToAnalysisId: p.to.says.AnalysisId}
	if resp.DefinitionChanges, err = s.definitionChanges(ctx, p); err != nil {
		return nil, err
	}
	changes, notes := again.Changes(
		&metric.Stored{Results: storedResults(p.from.says), Erased: p.from.ErasedSince},
		&metric.Stored{Results: storedResults(p.to.says), Erased: p.to.ErasedSince})
	if n := p.from.ErasedSince; n > 0 {
		notes = append(notes, fmt.Sprintf("Subjects with an exposure that were erased since the earlier analysis: %d, and since the later one: %d.", n, p.to.ErasedSince))
	}
	if before, after := methodVersion(p.from.says), methodVersion(p.to.says); before != after {
		notes = append(notes, fmt.Sprintf("The earlier analysis was made by version %d of the statistical methods, and the later one by version %d. Here both are made anew by version %d; a share that cannot be told for that is absent.", before, after, metric.MethodVersion))
	}
	resp.Changes, resp.Notes = convert(changes, toEstimateChange), notes
	return resp, nil
}

// methodVersion is the version of the methods by which a stored analysis was made.
func methodVersion(says *assayv1.AnalyzeExperimentResponse) int32 { return max(1, says.MethodVersion) }

// analysisPair finds the analyses that a request names.
func (s *analysisService) analysisPair(ctx context.Context, req *assayv1.CompareAnalysesRequest) (*earlierAndLater, error) {
	if err := checkPairFields(req); err != nil {
		return nil, err
	}
	from, to, err := s.twoAnalyses(ctx, req)
	if err != nil {
		return nil, err
	}
	switch {
	case isOfHoldout(from):
		return nil, experiment.Invalid("from_analysis_id", "is of a holdout; only analyses of experiments can be compared")
	case isOfHoldout(to):
		return nil, experiment.Invalid("to_analysis_id", "is of a holdout; only analyses of experiments can be compared")
	case from.ExperimentID != to.ExperimentID:
		return nil, experiment.Invalid("to_analysis_id", "is of another experiment than from_analysis_id")
	case from.AsOfTime.After(to.AsOfTime):
		return nil, experiment.Invalid("from_analysis_id", "is of a later moment than to_analysis_id")
	}
	p := &earlierAndLater{from: storedAnalysis{Analysis: from}, to: storedAnalysis{Analysis: to}}
	if p.from.says, err = decodeAnalysis(from); err != nil {
		return nil, err
	}
	if p.to.says, err = decodeAnalysis(to); err != nil {
		return nil, err
	}
	p.experiment, err = s.DB.Experiment(ctx, p.from.says.Experiment)
	return p, err
}

// checkPairFields holds that a request names analyses in one way.
func checkPairFields(req *assayv1.CompareAnalysesRequest) error {
	var bad experiment.InvalidError
	check := func(field, id string) {
		switch {
		case req.Experiment == "" && id == "":
			bad.Add(field, "must be given, or the experiment in place of both")
		case req.Experiment != "" && id != "":
			bad.Add(field, "must be left out if the experiment is given")
		}
	}
	check("from_analysis_id", req.FromAnalysisId)
	check("to_analysis_id", req.ToAnalysisId)
	return bad.Err()
}

// twoAnalyses reads the analyses that a request names, the earlier one first.
func (s *analysisService) twoAnalyses(ctx context.Context, req *assayv1.CompareAnalysesRequest) (from, to *postgres.Analysis, err error) {
	if req.Experiment == "" {
		if from, err = s.analysis(ctx, "from_analysis_id", req.FromAnalysisId); err != nil {
			return nil, nil, err
		}
		to, err = s.analysis(ctx, "to_analysis_id", req.ToAnalysisId)
		return from, to, err
	}
	e, err := s.DB.Experiment(ctx, req.Experiment)
	if err != nil {
		return nil, nil, err
	}
	newest, err := s.DB.Analyses(ctx, e.ID, time.Time{}, [16]byte{}, 2)
	if err != nil {
		return nil, nil, err
	}
	if len(newest) < 2 {
		return nil, nil, experiment.Errorf(experiment.ErrPrecondition, "TOO_FEW_ANALYSES", "the experiment %q has fewer than two stored analyses", e.Key)
	}
	slices.Reverse(newest)
	slices.SortStableFunc(newest, func(a, b *postgres.Analysis) int { return a.AsOfTime.Compare(b.AsOfTime) })
	return newest[0], newest[1], nil
}

// again makes both analyses again, and what lies between them.
func (s *analysisService) again(ctx context.Context, p *earlierAndLater) (*metric.Again, error) {
	before, err := s.remade(ctx, p.experiment, p.from.says)
	if err != nil {
		return nil, err
	}
	after, err := s.remade(ctx, p.experiment, p.to.says)
	if err != nil {
		return nil, err
	}
	var again metric.Again
	if again.From, err = s.analyzeAgain(ctx, before, p.from.AsOfTime, &again); err != nil {
		return nil, err
	}
	again.Redefined = again.From
	if !sameDefinition(p.from.says, p.to.says) {
		if again.Redefined, err = s.analyzeAgain(ctx, after, p.from.AsOfTime, &again); err != nil {
			return nil, err
		}
	}
	after.study = after.study.Since(p.from.AsOfTime)
	all, known := after.study.NewFold(p.to.AsOfTime), after.study.NewFold(p.to.AsOfTime)
	known.OnlyKnown = true
	if _, err := s.fold(ctx, p.experiment.ID, after.study, p.to.AsOfTime, all, known); err != nil {
		return nil, err
	}
	err = inTurn(ctx, func() (err error) {
		if again.Known, err = after.analyze(ctx, known, &again); err == nil {
			again.To, err = after.analyze(ctx, all, &again)
		}
		return err
	})
	return &again, err
}

// remade is the definition of a stored analysis, by which it can be made again.
type remade struct {
	experimentID int32
	study        *metric.Study
	shares       map[int32][]float64
}

// remade returns the definition of a stored analysis: that of its revision, and
// the metrics at their revisions. Of segments none is compared.
func (s *analysisService) remade(ctx context.Context, e *experiment.Experiment, says *assayv1.AnalyzeExperimentResponse) (*remade, error) {
	then := *e
	var err error
	if then.Current, err = s.revision(ctx, e, says.Revision); err != nil {
		return nil, err
	}
	uses, err := s.metricUses(ctx, &then, nil)
	if err != nil {
		return nil, err
	}
	for _, m := range says.Metrics {
		if m.Role == assayv1.MetricRole_METRIC_ROLE_UNSPECIFIED {
			asked, err := s.DB.Metric(ctx, m.Metric, m.MetricRevision)
			if err != nil {
				return nil, err
			}
			uses = append(uses, metric.Use{Metric: *asked})
		}
	}
	phases, err := s.DB.Phases(ctx, e.ID)
	if err != nil {
		return nil, err
	}
	study, err := metric.NewStudy(&then.Current.Definition, phases[0].Definition.Variants, uses, nil)
	if err != nil {
		return nil, err
	}
	conduct, err := s.conduct(ctx, &then, phases)
	conduct.ExcludePauses = slices.ContainsFunc(says.Deviations, func(d *assayv1.Deviation) bool { return d.Reason == "PAUSES_EXCLUDED" })
	return &remade{e.ID, study.Conducted(conduct).Unaccounted().Pausing(pause(ctx)), sharesOf(&then, phases)}, err
}

// analyzeAgain analyses what is known of a moment.
func (s *analysisService) analyzeAgain(ctx context.Context, r *remade, asOf time.Time, again *metric.Again) (analysis *metric.Analysis, err error) {
	fold := r.study.NewFold(asOf)
	if _, err := s.fold(ctx, r.experimentID, r.study, asOf, fold); err != nil {
		return nil, err
	}
	err = inTurn(ctx, func() (err error) {
		analysis, err = r.analyze(ctx, fold, again)
		return err
	})
	return analysis, err
}

// analyze ends a fold of the definition's study, and notes whether some of its
// outcomes have been dropped.
func (r *remade) analyze(ctx context.Context, fold *metric.Fold, again *metric.Again) (*metric.Analysis, error) {
	tally, err := told(ctx, r.study, fold, beside{})
	if err != nil {
		return nil, err
	}
	again.Cut = again.Cut || tally.Cut > 0
	return r.study.Analyze(tally, r.shares)
}

// sameDefinition tells whether two analyses define alike all that both have.
func sameDefinition(from, to *assayv1.AnalyzeExperimentResponse) bool {
	return from.Revision == to.Revision && len(metricChanges(from, to)) == 0
}

// metricChanges says which metrics two analyses have at different revisions.
func metricChanges(from, to *assayv1.AnalyzeExperimentResponse) (changes []string) {
	revisions := map[string]int32{}
	for _, m := range from.Metrics {
		revisions[m.Metric] = m.MetricRevision
	}
	for _, m := range to.Metrics {
		if before, ok := revisions[m.Metric]; ok && before != m.MetricRevision {
			changes = append(changes, fmt.Sprintf("The metric %s is of revision %d instead of %d.", m.Metric, m.MetricRevision, before))
		}
	}
	return changes
}

// definitionChanges says what differs between the definitions of two analyses
// and between what was asked for.
func (s *analysisService) definitionChanges(ctx context.Context, p *earlierAndLater) ([]string, error) {
	var list []string
	from, to := p.from.says, p.to.says
	if from.Revision != to.Revision {
		before, err := s.revision(ctx, p.experiment, from.Revision)
		if err != nil {
			return nil, err
		}
		after, err := s.revision(ctx, p.experiment, to.Revision)
		if err != nil {
			return nil, err
		}
		var paths []string
		for _, change := range changesBetween(atRevision(p.experiment, before), atRevision(p.experiment, after)) {
			paths = append(paths, change.Path)
		}
		if len(paths) == 0 {
			paths = []string{"nothing but the phase"}
		}
		list = append(list, fmt.Sprintf("The experiment is of revision %d instead of %d; changed: %s.", to.Revision, from.Revision, strings.Join(paths, ", ")))
	}
	list = append(list, metricChanges(from, to)...)
	before, after := segmentsOf(from), segmentsOf(to)
	for _, name := range before {
		if !slices.Contains(after, name) {
			list = append(list, fmt.Sprintf("Only the earlier analysis is cut by %s.", name))
		}
	}
	for _, name := range after {
		if !slices.Contains(before, name) {
			list = append(list, fmt.Sprintf("Only the later analysis is cut by %s.", name))
		}
	}
	return list, nil
}

// segmentsOf lists the attributes that an analysis is cut by, as far as it has
// figures for them.
func segmentsOf(says *assayv1.AnalyzeExperimentResponse) (names []string) {
	for _, m := range says.Metrics {
		for _, segment := range m.Segments {
			if !slices.Contains(names, segment.Attribute) {
				names = append(names, segment.Attribute)
			}
		}
	}
	return names
}

func toEstimateChange(c *metric.Change) *assayv1.EstimateChange {
	return &assayv1.EstimateChange{
		Metric: c.Metric, Variant: c.Variant, From: c.From, To: c.To,
		ByErasures: c.ByErasures, ByDefinition: c.ByDefinition, ByLateEvents: c.ByLateEvents, ByNewSubjects: c.ByNewSubjects, Notes: c.Notes,
	}
}
