package server

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// experimentFields are the fields that an update may name.
var experimentFields = []string{"unit", "owner", "description", "hypothesis", "variants", "eligibility", "traffic", "salt", "layer",
	"sticky", "intake_closed", "assignment", "labels", "segments", "covariates", "metrics", "plan"}

// update is what UpdateExperiment and PreviewUpdate are asked for.
type update struct {
	from      *assayv1.Experiment
	fields    []protoreflect.FieldDescriptor
	etag      int64
	reshuffle bool
}

func newUpdate(from *assayv1.Experiment, mask *fieldmaskpb.FieldMask, reshuffle bool) (*update, error) {
	etag, err := checkUpdate("experiment", from.GetKey(), from.GetEtag())
	if err != nil {
		return nil, err
	}
	fields, err := changedFields(from, mask, experimentFields)
	if err != nil {
		return nil, err
	}
	return &update{from, fields, etag, reshuffle}, nil
}

func (s *experimentService) UpdateExperiment(ctx context.Context, req *assayv1.UpdateExperimentRequest) (*assayv1.UpdateExperimentResponse, error) {
	u, err := newUpdate(req.Experiment, req.UpdateMask, req.Reshuffle)
	if err != nil {
		return nil, err
	}
	e, err := s.DB.UpdateExperiment(ctx, req.Experiment.Key, u.etag, func(now *experiment.Experiment) (experiment.Revision, error) {
		next, movement, err := s.nextRevision(now, u)
		if err != nil {
			return next, err
		}
		next.Author = authorOf(ctx)
		return next, movement.Allow(req.AllowMovement)
	})
	if err != nil {
		return nil, inField("experiment", err)
	}
	s.refreshed(ctx)
	return &assayv1.UpdateExperimentResponse{Experiment: toExperiment(e)}, nil
}

// nextRevision is the revision that an update makes of an experiment, or its
// current one if nothing changes, and whom it moves.
func (s *experimentService) nextRevision(now *experiment.Experiment, u *update) (next experiment.Revision, movement experiment.Movement, err error) {
	if now.State == experiment.StateConcluded || now.State == experiment.StateArchived {
		return next, movement, experiment.Errorf(experiment.ErrPrecondition, "STATE_FORBIDS", "an experiment that is %s does not change", now.State)
	}
	target := toExperiment(now)
	replaceFields(target, u.from, u.fields)
	if err := checkRules(s.validator, target); err != nil {
		return next, movement, err
	}
	def, err := definitionOf(target)
	if err != nil {
		return next, movement, err
	}
	if err := now.CheckRosterFixed(def, u.reshuffle); err != nil {
		return next, movement, err
	}
	current := &now.Current
	switch {
	case now.State == experiment.StateDraft && u.reshuffle:
		return next, movement, experiment.Errorf(experiment.ErrPrecondition, "STATE_FORBIDS", "a draft has no subjects to reshuffle")
	case now.State == experiment.StateDraft:
		next = experiment.Revision{
			Number: current.Number + 1, Phase: current.Phase, Definition: *def, Allocation: experiment.FirstAllocation(def.Variants),
		}
	default:
		if next, movement, err = current.Next(*def, u.reshuffle); err != nil {
			return next, movement, err
		}
	}
	if next.Definition.Equal(&current.Definition) {
		next = *current
	}
	return next, movement, next.CheckSize(current)
}

func (s *experimentService) PreviewUpdate(ctx context.Context, req *assayv1.PreviewUpdateRequest) (*assayv1.PreviewUpdateResponse, error) {
	u, err := newUpdate(req.Experiment, req.UpdateMask, req.Reshuffle)
	if err != nil {
		return nil, err
	}
	e, err := s.DB.Experiment(ctx, req.Experiment.Key)
	if err != nil {
		return nil, err
	}
	if err := e.CheckVersion(u.etag); err != nil {
		return nil, err
	}
	next, movement, err := s.nextRevision(e, u)
	if err != nil {
		return nil, inField("experiment", err)
	}
	if next.Number != e.Current.Number {
		if err := s.DB.CheckRevisions(ctx, e); err != nil {
			return nil, err
		}
	}
	resp := &assayv1.PreviewUpdateResponse{
		NewPhase:         next.Phase != e.Current.Phase,
		AllocationBefore: toRanges(e.Current.Allocation),
		AllocationAfter:  toRanges(next.Allocation),
		Movement:         toMovement(&movement),
	}
	switch {
	case exposedStay(&e.Current.Definition, &next.Definition):
		resp.EstimatedExposedSubjects = proto.Int64(0)
		resp.Notes = append(resp.Notes, "The experiment is sticky: its exposed subjects keep their variants, and the shares are of all others.")
	case movement.EligibilityChanged:
		resp.Notes = append(resp.Notes, "The eligibility changes: nobody knows how many subjects that lets in or out, so the exposed subjects among them are not estimated.")
	default:
		exposed, err := s.DB.ExposedSubjects(ctx, e.ID, e.Current.Phase)
		if err != nil {
			return nil, err
		}
		resp.EstimatedExposedSubjects = proto.Int64(movement.Among(exposed))
	}
	if e.Current.Definition.External {
		resp.Notes = append(resp.Notes, "The experiment is assigned elsewhere: the shares are those of the split that the analysis expects.")
	}
	return resp, nil
}

// exposedStay says that whoever is exposed keeps its variant whatever moves: the
// experiment is sticky and loses no variant.
func exposedStay(now, next *experiment.Definition) bool {
	return now.Sticky && !slices.ContainsFunc(now.Variants, func(v experiment.Variant) bool { return next.Variant(v.Key) < 0 })
}

func toMovement(m *experiment.Movement) *assayv1.Movement {
	p := &assayv1.Movement{ChangeVariant: m.Change, Enter: m.Enter, Leave: m.Leave, SplitChange: m.SplitChange}
	for _, f := range m.Flows {
		p.Variants = append(p.Variants, &assayv1.VariantMovement{
			FromVariant: f.From, ToVariant: f.To, Share: f.Share, SplitShare: f.SplitShare,
		})
	}
	return p
}
