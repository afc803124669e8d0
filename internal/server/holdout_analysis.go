package server

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
	"github.com/assayhq/assay/internal/postgres"
)

// AnalyzeHoldout analyses a holdout as an experiment of two arms, with whose
// exposures its own are kept.
func (s *analysisService) AnalyzeHoldout(ctx context.Context, req *assayv1.AnalyzeHoldoutRequest) (*assayv1.AnalyzeHoldoutResponse, error) {
	h, err := s.DB.Holdout(ctx, req.Holdout)
	if err != nil {
		return nil, err
	}
	if h.StartTime.After(s.Now()) {
		return nil, experiment.Errorf(experiment.ErrPrecondition, "HOLDOUT_NOT_STARTED", "the holdout %q has not started", req.Holdout)
	}
	stored, err := s.storedOr(ctx, req, "", h.ID, func(asOf time.Time) (*postgres.Analysis, error) {
		return s.analyzeHoldout(ctx, h, req, asOf)
	})
	if err != nil {
		return nil, err
	}
	return decodeHoldoutAnalysis(stored)
}

func (s *analysisService) analyzeHoldout(ctx context.Context, h *experiment.Holdout, req *assayv1.AnalyzeHoldoutRequest, asOf time.Time) (*postgres.Analysis, error) {
	level := experiment.DefaultConfidenceLevel
	if req.ConfidenceLevel != nil {
		level = *req.ConfidenceLevel
	}
	uses, err := s.currentUses(ctx, req.Metrics)
	if err != nil {
		return nil, err
	}
	def := h.AsDefinition(level)
	study, err := metric.NewStudy(def, def.Variants, uses, nil)
	if err != nil {
		return nil, err
	}
	study = study.Conducted(metric.Conduct{End: h.EndTime})
	split := experiment.Revision{Phase: experiment.HoldoutPhase, Allocation: experiment.FirstAllocation(def.Variants)}
	analysis, record, err := s.runStudy(ctx, h.ID, study, map[int32][]float64{split.Phase: split.SharesOf(def)}, asOf)
	if err != nil {
		return nil, err
	}
	all := toAnalysis(analysis)
	record.Result, err = proto.Marshal(&assayv1.AnalyzeHoldoutResponse{
		AnalysisId: formatUUID(record.ID), Holdout: h.Key,
		AsOfTime: timestamppb.New(asOf), CreateTime: timestamppb.New(record.CreateTime), ConfidenceLevel: level,
		SampleRatio: all.SampleRatio, Exclusions: all.Exclusions, Metrics: all.Metrics, Warnings: all.Warnings, MethodVersion: metric.MethodVersion,
		CountingEndTime: all.CountingEndTime,
	})
	return record, err
}

// isOfHoldout says whether a stored analysis is a holdout's, which has no
// revisions.
func isOfHoldout(a *postgres.Analysis) bool { return a.Revision == 0 }

func decodeHoldoutAnalysis(a *postgres.Analysis) (*assayv1.AnalyzeHoldoutResponse, error) {
	var resp assayv1.AnalyzeHoldoutResponse
	if err := proto.Unmarshal(a.Result, &resp); err != nil {
		return nil, fmt.Errorf("stored analysis %s: %w", formatUUID(a.ID), err)
	}
	resp.ErasedSince = a.ErasedSince
	return &resp, nil
}
