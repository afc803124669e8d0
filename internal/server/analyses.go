package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
	"github.com/assayhq/assay/internal/postgres"
)

type analysisService struct {
	assayv1.UnimplementedAnalysisServiceServer
	*services
}

func (s *analysisService) AnalyzeExperiment(ctx context.Context, req *assayv1.AnalyzeExperimentRequest) (*assayv1.AnalyzeExperimentResponse, error) {
	e, err := s.started(ctx, req.Experiment)
	if err != nil {
		return nil, err
	}
	stored, err := s.storedOr(ctx, req, req.RequestId, e.ID, func(asOf time.Time) (*postgres.Analysis, error) {
		return s.analyze(ctx, e, req, asOf)
	})
	if err != nil {
		return nil, err
	}
	return decodeAnalysis(stored)
}

// started returns an experiment that has ever run.
func (s *analysisService) started(ctx context.Context, key string) (*experiment.Experiment, error) {
	e, err := s.DB.Experiment(ctx, key)
	if err == nil && e.StartTime.IsZero() {
		err = experiment.Errorf(experiment.ErrPrecondition, "EXPERIMENT_NOT_STARTED", "the experiment %q has never started", key)
	}
	return e, err
}

// analysisRequest is what the requests for analyses have in common.
type analysisRequest interface {
	proto.Message
	GetAsOfTime() *timestamppb.Timestamp
}

// storedOr returns the analysis that is stored for a request about an experiment
// or a holdout, or for its id if it has one. If there is none it stores what
// compute returns for the request's moment.
func (s *analysisService) storedOr(ctx context.Context, req analysisRequest, requestID string, id int32, compute func(asOf time.Time) (*postgres.Analysis, error)) (*postgres.Analysis, error) {
	asOf, err := s.moment(ctx, req.GetAsOfTime())
	if err != nil {
		return nil, err
	}
	hash, err := requestHash(req, requestID, asOf)
	if err != nil {
		return nil, err
	}
	stored, err := s.DB.FindAnalysis(ctx, id, hash)
	if err != nil || stored != nil {
		return stored, err
	}
	if err := s.DB.Settle(ctx, asOf); err != nil {
		return nil, err
	}
	computed, err := compute(asOf)
	if errors.Is(err, experiment.ErrPrecondition) {
		// A look that the same request took meanwhile cannot be taken again.
		if stored, findErr := s.DB.FindAnalysis(ctx, id, hash); findErr != nil || stored != nil {
			return stored, findErr
		}
	}
	if err != nil {
		return nil, err
	}
	computed.RequestHash = hash
	return s.DB.SaveAnalysis(ctx, computed)
}

// asOf returns the moment of an analysis, at which nothing can change any more:
// one just past waits for the writes that began before it.
func (s *analysisService) asOf(ctx context.Context, asked *timestamppb.Timestamp) (time.Time, error) {
	asOf, err := s.moment(ctx, asked)
	if err != nil {
		return asOf, err
	}
	return asOf, s.DB.Settle(ctx, asOf)
}

// moment returns the moment that is asked for, which writes may still change, or
// one which they cannot.
func (s *analysisService) moment(ctx context.Context, asked *timestamppb.Timestamp) (time.Time, error) {
	if asked == nil {
		safe, err := s.DB.SafeTime(ctx)
		return safe.Truncate(time.Microsecond), err
	}
	if err := asked.CheckValid(); err != nil {
		return time.Time{}, experiment.Invalid("as_of_time", "is not a valid timestamp")
	}
	asOf := asked.AsTime().Truncate(time.Microsecond)
	if asOf.Before(time.Unix(0, 0)) {
		return time.Time{}, experiment.Invalid("as_of_time", "is before 1970")
	}
	if asOf.After(s.Now()) {
		return time.Time{}, experiment.Invalid("as_of_time", "is in the future")
	}
	return asOf, nil
}

// requestHash identifies what was asked for: by the request's own id if it has
// one, else the request at its resolved moment.
func requestHash(req analysisRequest, requestID string, asOf time.Time) ([]byte, error) {
	resolved := proto.Clone(req)
	if requestID != "" {
		resolved = &assayv1.AnalyzeExperimentRequest{RequestId: requestID} // Which no request is, as it has no experiment.
	} else {
		m := resolved.ProtoReflect()
		m.Set(m.Descriptor().Fields().ByName("as_of_time"), protoreflect.ValueOf(timestamppb.New(asOf).ProtoReflect()))
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(resolved)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	return sum[:], nil
}

// analyze computes an analysis.
func (s *analysisService) analyze(ctx context.Context, e *experiment.Experiment, req *assayv1.AnalyzeExperimentRequest, asOf time.Time) (*postgres.Analysis, error) {
	uses, err := s.metricUses(ctx, e, req.Metrics)
	if err != nil {
		return nil, err
	}
	e, phases, err := s.definedAt(ctx, e, asOf)
	if err != nil {
		return nil, err
	}
	def := &e.Current.Definition
	study, err := metric.NewStudy(def, phases[0].Definition.Variants, uses, req.Segments)
	if err != nil {
		return nil, err
	}
	conduct, err := s.conduct(ctx, e, phases)
	if err != nil {
		return nil, err
	}
	conduct.ExcludePauses = req.ExcludePauses
	study, looks, err := s.atLook(ctx, e, req, study.Conducted(conduct).CountingSegments(), asOf)
	if err != nil {
		return nil, err
	}
	shares := sharesOf(e, phases)
	analysis, record, err := s.runStudy(ctx, e.ID, study, shares, asOf)
	if err != nil {
		return nil, err
	}
	course, err := s.course(ctx, e, phases, asOf)
	if err != nil {
		return nil, err
	}
	analysis.Deviations = study.Deviations(analysis, course)
	record.Revision, record.Analysed = e.Current.Number, analysis.Analysed()
	if analysis.Look != nil {
		record.Look = &postgres.Look{Look: *analysis.Look, AnalysisID: record.ID, AsOfTime: asOf, CreateTime: record.CreateTime, Author: authorOf(ctx)}
		looks = append(looks, *record.Look)
	}
	resp := toAnalysis(analysis)
	if resp.Looks, err = toLooks(study, looks); err != nil {
		return nil, err
	}
	resp.AnalysisId = formatUUID(record.ID)
	resp.Experiment = e.Key
	resp.Revision = e.Current.Number
	resp.AsOfTime = timestamppb.New(asOf)
	resp.CreateTime = timestamppb.New(record.CreateTime)
	resp.PlanHash = e.PlanHash
	resp.MethodVersion = metric.MethodVersion
	resp.Plan = toPlan(&def.Plan)
	record.Result, err = proto.Marshal(resp)
	return record, err
}

// conduct is how an experiment was conducted. phases are the last revisions of its
// phases.
func (s *analysisService) conduct(ctx context.Context, e *experiment.Experiment, phases []experiment.Revision) (metric.Conduct, error) {
	transitions, err := s.DB.Transitions(ctx, e.ID)
	if err != nil {
		return metric.Conduct{}, err
	}
	begun, err := s.DB.PhaseStarts(ctx, e.ID)
	c := metric.ConductOf(e, e.Phases(phases, begun), transitions)
	for i := range phases {
		for _, v := range phases[i].Definition.Variants {
			if e.Current.Definition.Variant(v.Key) < 0 && !slices.Contains(c.Removed, v.Key) {
				c.Removed = append(c.Removed, v.Key)
			}
		}
	}
	return c, err
}

// definedAt is an experiment as it was at a moment, as far as variants of it have been
// removed since, with the last revisions of its phases.
func (s *analysisService) definedAt(ctx context.Context, e *experiment.Experiment, moment time.Time) (*experiment.Experiment, []experiment.Revision, error) {
	last, err := s.DB.Phases(ctx, e.ID)
	if err != nil {
		return nil, nil, err
	}
	first, err := s.DB.PhaseStarts(ctx, e.ID)
	return e.DefinedAt(moment, last, first), last, err
}

// sharesOf returns the shares that the experiment's variants are due in each
// phase, of which it is given the last revisions.
func sharesOf(e *experiment.Experiment, phases []experiment.Revision) map[int32][]float64 {
	shares := map[int32][]float64{}
	for i := range phases {
		shares[phases[i].Phase] = e.SharesOf(&phases[i])
	}
	return shares
}

// runStudy folds what was recorded of an experiment or a holdout and analyses
// it, by the shares that the variants are due in each phase. It also returns the
// analysis as it is to be stored, without its result. Of a subject that is erased
// meanwhile nobody can say whether it counted; it is told as erased since.
func (s *analysisService) runStudy(ctx context.Context, id int32, study *metric.Study, shares map[int32][]float64, asOf time.Time) (*metric.Analysis, *postgres.Analysis, error) {
	erased, err := s.DB.Erasures(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	fold, accounted, err := s.folded(ctx, id, study, asOf)
	if err != nil {
		return nil, nil, err
	}
	var analysis *metric.Analysis
	var moments []byte
	err = inTurn(ctx, func() error {
		tally, err := told(ctx, study, fold, accounted)
		if err != nil {
			return err
		}
		if analysis, err = study.Pausing(pause(ctx)).Analyze(tally, shares); err != nil {
			return err
		}
		moments, err = json.Marshal(tally)
		return err
	})
	return analysis, s.newAnalysis(id, asOf, moments, erased), err
}

// beside is what is counted of the outcomes and subjects that a fold does not see.
type beside struct {
	pinned   []metric.Excluded // Who were ever pinned.
	outcomes *metric.Accounted
}

// folded folds what was recorded of an experiment or a holdout. Where a segment has
// too many values it does so again, with those that have most subjects.
func (s *analysisService) folded(ctx context.Context, id int32, study *metric.Study, asOf time.Time) (fold *metric.Fold, b beside, err error) {
	fold = study.NewFold(asOf)
	if b, err = s.fold(ctx, id, study, asOf, fold); err != nil {
		return nil, b, err
	}
	if over := fold.Overflown(); len(over) > 0 {
		fold = study.NewFold(asOf)
		for attribute, most := range over {
			values, err := s.DB.LargestValues(ctx, id, asOf, study, attribute, most)
			if err != nil {
				return nil, b, err
			}
			fold.Show(attribute, values)
		}
		b, err = s.fold(ctx, id, study, asOf, fold)
	}
	return fold, b, err
}

// told is what a fold of a study tells, unless what is to be made of it would take too
// much memory.
func told(ctx context.Context, study *metric.Study, fold *metric.Fold, b beside) (*metric.Tally, error) {
	tally := fold.Tally()
	if err := fold.Err(); err != nil {
		return nil, err
	}
	if bytes, budget := fold.Bytes()+study.ResultBytes(tally), budgetOf(ctx); bytes > budget {
		return nil, errTooLarge(bytes, budget)
	}
	tally.Excluded = append(tally.Excluded, b.pinned...)
	if b.outcomes != nil {
		study.Account(tally, b.outcomes)
	}
	return tally, nil
}

// fold adds what was recorded to folds of one study, in one pass.
func (s *analysisService) fold(ctx context.Context, id int32, study *metric.Study, asOf time.Time, folds ...*metric.Fold) (b beside, err error) {
	if err := s.enterLane(ctx, id, study); err != nil {
		return b, err
	}
	keptFrom, err := s.DB.KeptFrom(ctx)
	if err != nil {
		return b, err
	}
	step := within(ctx, folds)
	for _, f := range folds {
		f.KeptFrom, f.Pause = keptFrom, step
	}
	rows := 0
	b.pinned, b.outcomes, err = s.DB.Subjects(ctx, id, asOf, study, func(row *metric.Row) error {
		for _, f := range folds {
			f.Add(row)
		}
		if rows++; rows%foldStep == 0 {
			return step()
		}
		return nil
	})
	return b, err
}

// newAnalysis returns the record of an analysis that is made now, under an id
// of its own and without its result.
func (s *analysisService) newAnalysis(id int32, asOf time.Time, moments []byte, erased int64) *postgres.Analysis {
	record := &postgres.Analysis{
		ExperimentID: id, AsOfTime: asOf,
		CreateTime: s.Now().UTC().Truncate(time.Microsecond), Moments: moments, Erased: erased,
	}
	rand.Read(record.ID[:])
	record.ID[6], record.ID[8] = record.ID[6]&0x0f|0x40, record.ID[8]&0x3f|0x80 // A random UUID.
	return record
}

// metricUses returns the experiment's metrics at their pinned revisions, and
// the extra ones at their current.
func (s *analysisService) metricUses(ctx context.Context, e *experiment.Experiment, extra []string) ([]metric.Use, error) {
	var uses []metric.Use
	for _, use := range e.Current.Definition.Metrics {
		planned, err := s.plannedUse(ctx, e, use)
		if err != nil {
			return nil, err
		}
		uses = append(uses, planned)
	}
	unplanned, err := s.currentUses(ctx, extra)
	return append(uses, unplanned...), err
}

// plannedUse returns a metric of the experiment at its pinned revision.
func (s *analysisService) plannedUse(ctx context.Context, e *experiment.Experiment, use experiment.MetricUse) (metric.Use, error) {
	m, err := s.DB.Metric(ctx, use.Metric, e.Pins[use.Metric])
	if err != nil {
		return metric.Use{}, err
	}
	return metric.Use{Metric: *m, Role: use.Role, Objective: use.Objective, Covariates: use.Covariates, Margin: use.Margin}, nil
}

// currentUses returns metrics that no plan names, at their current revisions.
func (s *analysisService) currentUses(ctx context.Context, keys []string) ([]metric.Use, error) {
	var uses []metric.Use
	for _, key := range keys {
		m, err := s.DB.Metric(ctx, key, 0)
		if err != nil {
			return nil, err
		}
		uses = append(uses, metric.Use{Metric: *m})
	}
	return uses, nil
}

func decodeAnalysis(a *postgres.Analysis) (*assayv1.AnalyzeExperimentResponse, error) {
	var resp assayv1.AnalyzeExperimentResponse
	if err := proto.Unmarshal(a.Result, &resp); err != nil {
		return nil, fmt.Errorf("stored analysis %s: %w", formatUUID(a.ID), err)
	}
	resp.ErasedSince = a.ErasedSince
	return &resp, nil
}

func (s *analysisService) GetAnalysis(ctx context.Context, req *assayv1.GetAnalysisRequest) (*assayv1.GetAnalysisResponse, error) {
	a, err := s.analysis(ctx, "analysis_id", req.AnalysisId)
	if err != nil {
		return nil, err
	}
	resp := new(assayv1.GetAnalysisResponse)
	if isOfHoldout(a) {
		resp.HoldoutAnalysis, err = decodeHoldoutAnalysis(a)
	} else {
		resp.Analysis, err = decodeAnalysis(a)
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (s *analysisService) ListAnalyses(ctx context.Context, req *assayv1.ListAnalysesRequest) (*assayv1.ListAnalysesResponse, error) {
	after, err := pagePosition(req.PageToken, analysisPosition{}, readAnalysis)
	if err != nil {
		return nil, err
	}
	e, err := s.DB.Experiment(ctx, req.Experiment)
	if err != nil {
		return nil, err
	}
	list := listing[*postgres.Analysis, analysisPosition, *assayv1.AnalysisSummary]{
		read: func(after analysisPosition, n int) ([]*postgres.Analysis, error) {
			return s.DB.Analyses(ctx, e.ID, after.created, after.id, n)
		},
		position: func(a *postgres.Analysis) analysisPosition { return analysisPosition{a.CreateTime, a.ID} },
		convert:  toAnalysisSummary,
		slice:    firstSlice,
	}
	resp := &assayv1.ListAnalysesResponse{}
	resp.Analyses, resp.NextPageToken, err = list.page(req.PageSize, after)
	return resp, err
}

func toAnalysisSummary(a *postgres.Analysis) (*assayv1.AnalysisSummary, error) {
	full, err := decodeAnalysis(a)
	if err != nil {
		return nil, err
	}
	return &assayv1.AnalysisSummary{
		AnalysisId: full.AnalysisId, Revision: full.Revision, AsOfTime: full.AsOfTime, CreateTime: full.CreateTime, Verdict: full.Verdict,
	}, nil
}

// analysis returns the stored analysis that a field of a request names.
func (s *services) analysis(ctx context.Context, field, text string) (*postgres.Analysis, error) {
	id, ok := readID(strings.ReplaceAll(text, "-", ""))
	if !ok {
		return nil, experiment.Invalid(field, "is not a UUID")
	}
	return s.DB.Analysis(ctx, id)
}

// analysisOf does so for one that must be of the experiment.
func (s *services) analysisOf(ctx context.Context, e *experiment.Experiment, field, text string) (*postgres.Analysis, error) {
	a, err := s.analysis(ctx, field, text)
	if err == nil && a.ExperimentID != e.ID {
		err = experiment.Invalid(field, "is not an analysis of the experiment %q", e.Key)
	}
	return a, err
}

func formatUUID(id [16]byte) string { return experiment.SubjectID(id).String() }
