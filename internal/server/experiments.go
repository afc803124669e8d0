package server

import (
	"context"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/assign"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

type experimentService struct {
	assayv1.UnimplementedExperimentServiceServer
	*services
}

func (s *experimentService) CreateExperiment(ctx context.Context, req *assayv1.CreateExperimentRequest) (*assayv1.CreateExperimentResponse, error) {
	def, err := definitionOf(req.Experiment)
	if err != nil {
		return nil, inField("experiment", err)
	}
	first := experiment.Revision{Definition: *def, Allocation: experiment.FirstAllocation(def.Variants)}
	if err := first.CheckSize(nil); err != nil {
		return nil, err
	}
	e, err := s.DB.CreateExperiment(ctx, req.Experiment.Key, req.RequestId, authorOf(ctx), *def)
	if err != nil {
		return nil, inField("experiment", err)
	}
	s.refreshed(ctx)
	return &assayv1.CreateExperimentResponse{Experiment: toExperiment(e)}, nil
}

// definitionOf converts an experiment that keeps the schema's rules, and checks
// the rules across its fields.
func definitionOf(p *assayv1.Experiment) (*experiment.Definition, error) {
	def, err := fromExperiment(p)
	var bad experiment.InvalidError
	for _, err := range []error{err, def.Validate(), assign.CheckEligibility(def.Eligibility)} {
		if err := bad.Join("", err); err != nil {
			return nil, err
		}
	}
	return def, bad.Err()
}

func (s *experimentService) GetExperiment(ctx context.Context, req *assayv1.GetExperimentRequest) (*assayv1.GetExperimentResponse, error) {
	e, err := s.DB.Experiment(ctx, req.Key)
	if err != nil {
		return nil, err
	}
	if number := req.GetRevision(); number != 0 && number != e.Current.Number {
		if e.Current, err = s.revision(ctx, e, number); err != nil {
			return nil, err
		}
	}
	return &assayv1.GetExperimentResponse{Experiment: toExperiment(e)}, nil
}

func (s *experimentService) ListExperiments(ctx context.Context, req *assayv1.ListExperimentsRequest) (*assayv1.ListExperimentsResponse, error) {
	after, err := pagePosition(req.PageToken, "", readKey)
	if err != nil {
		return nil, err
	}
	filter := postgres.ExperimentFilter{Labels: req.Labels}
	for _, state := range req.States {
		filter.States = append(filter.States, states.from(state))
	}
	if len(filter.States) == 0 {
		filter.States = []experiment.State{experiment.StateDraft, experiment.StateRunning, experiment.StatePaused, experiment.StateConcluded}
	}
	list := listing[*experiment.Experiment, string, *assayv1.Experiment]{
		read: func(after string, n int) ([]*experiment.Experiment, error) {
			filter.After, filter.Limit = after, n
			return s.DB.Experiments(ctx, filter)
		},
		position: func(e *experiment.Experiment) string { return e.Key },
		convert:  func(e *experiment.Experiment) (*assayv1.Experiment, error) { return toExperiment(e), nil },
	}
	resp := &assayv1.ListExperimentsResponse{}
	resp.Experiments, resp.NextPageToken, err = list.page(req.PageSize, after)
	return resp, err
}

// transition changes an experiment's state on behalf of the RPCs that do so.
func (s *experimentService) transition(ctx context.Context, key, etag string, change postgres.StateChange) (*assayv1.Experiment, error) {
	version, err := parseEtag("etag", etag)
	if err != nil {
		return nil, err
	}
	change.Author = authorOf(ctx)
	e, err := s.DB.TransitionExperiment(ctx, key, version, change)
	if err != nil {
		return nil, err
	}
	s.refreshed(ctx)
	return toExperiment(e), nil
}

func (s *experimentService) StartExperiment(ctx context.Context, req *assayv1.StartExperimentRequest) (*assayv1.StartExperimentResponse, error) {
	e, err := s.transition(ctx, req.Key, req.Etag, postgres.StateChange{From: experiment.StateDraft, To: experiment.StateRunning})
	return &assayv1.StartExperimentResponse{Experiment: e}, err
}

func (s *experimentService) PauseExperiment(ctx context.Context, req *assayv1.PauseExperimentRequest) (*assayv1.PauseExperimentResponse, error) {
	e, err := s.transition(ctx, req.Key, req.Etag, postgres.StateChange{To: experiment.StatePaused})
	return &assayv1.PauseExperimentResponse{Experiment: e}, err
}

func (s *experimentService) ResumeExperiment(ctx context.Context, req *assayv1.ResumeExperimentRequest) (*assayv1.ResumeExperimentResponse, error) {
	e, err := s.transition(ctx, req.Key, req.Etag, postgres.StateChange{From: experiment.StatePaused, To: experiment.StateRunning})
	return &assayv1.ResumeExperimentResponse{Experiment: e}, err
}

func (s *experimentService) ArchiveExperiment(ctx context.Context, req *assayv1.ArchiveExperimentRequest) (*assayv1.ArchiveExperimentResponse, error) {
	e, err := s.transition(ctx, req.Key, req.Etag, postgres.StateChange{To: experiment.StateArchived})
	return &assayv1.ArchiveExperimentResponse{Experiment: e}, err
}
