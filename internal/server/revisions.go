package server

import (
	"context"
	"math"
	"strings"
	"unicode"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

const (
	authorKey      = "assay-author"
	maxAuthorBytes = 256
)

// authorOf returns what the call's metadata names as the author of its changes,
// or nothing where that is not printable text.
func authorOf(ctx context.Context) string {
	values := metadata.ValueFromIncomingContext(ctx, authorKey)
	if len(values) != 1 || len(values[0]) > maxAuthorBytes {
		return ""
	}
	if strings.ContainsFunc(values[0], func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }) {
		return ""
	}
	return values[0]
}

func (s *experimentService) ListExperimentRevisions(ctx context.Context, req *assayv1.ListExperimentRevisionsRequest) (*assayv1.ListExperimentRevisionsResponse, error) {
	before, err := pagePosition(req.PageToken, math.MaxInt32, readRevision)
	if err != nil {
		return nil, err
	}
	e, err := s.DB.Experiment(ctx, req.Key)
	if err != nil {
		return nil, err
	}
	list := listing[revisionPair, int32, *assayv1.ExperimentRevision]{
		read:     func(before int32, n int) ([]revisionPair, error) { return s.revisionPairs(ctx, e, before, n) },
		position: func(r revisionPair) int32 { return r.Number },
		convert:  func(r revisionPair) (*assayv1.ExperimentRevision, error) { return toRevision(e, r), nil },
	}
	resp := &assayv1.ListExperimentRevisionsResponse{}
	resp.Revisions, resp.NextPageToken, err = list.page(req.PageSize, before)
	return resp, err
}

// revisionPair is a revision and the one before it, nil before the first.
type revisionPair struct {
	experiment.Revision
	before *experiment.Revision
}

func (s *services) revisionPairs(ctx context.Context, e *experiment.Experiment, before int32, n int) ([]revisionPair, error) {
	all, err := s.DB.ExperimentRevisions(ctx, e.ID, before, n+1)
	if err != nil {
		return nil, err
	}
	pairs := make([]revisionPair, min(n, len(all)))
	for i := range pairs {
		pairs[i].Revision = all[i]
		if i+1 < len(all) {
			pairs[i].before = &all[i+1]
		}
	}
	return pairs, nil
}

func toRevision(e *experiment.Experiment, r revisionPair) *assayv1.ExperimentRevision {
	revision := &assayv1.ExperimentRevision{
		Revision: r.Number, Phase: r.Phase, CreateTime: timestamppb.New(r.CreateTime), Author: r.Author, Experiment: atRevision(e, r.Revision),
	}
	if r.before != nil {
		revision.Changes = changesBetween(atRevision(e, *r.before), revision.Experiment)
	}
	return revision
}

// revision returns one of an experiment's revisions.
func (s *services) revision(ctx context.Context, e *experiment.Experiment, number int32) (experiment.Revision, error) {
	revisions, err := s.DB.ExperimentRevisions(ctx, e.ID, number+1, 1)
	if err != nil {
		return experiment.Revision{}, err
	}
	if len(revisions) == 0 || revisions[0].Number != number {
		return experiment.Revision{}, noRevision(e.Key, number)
	}
	return revisions[0], nil
}

func noRevision(key string, number int32) error {
	return experiment.Errorf(experiment.ErrNotFound, "REVISION_NOT_FOUND", "the experiment %q has no revision %d", key, number)
}

func atRevision(e *experiment.Experiment, r experiment.Revision) *assayv1.Experiment {
	of := *e
	of.Current = r
	return toExperiment(&of)
}
