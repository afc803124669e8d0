package server

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

type rosterService struct {
	assayv1.UnimplementedRosterServiceServer
	*services
	// held is the number of subjects in the lists that are coming in. Together
	// they hold no more than one list may: a bound of time or of lists would let
	// one client that stops in the middle keep out all others.
	held atomic.Int64
}

func (s *rosterService) AllocateRoster(stream grpc.ClientStreamingServer[assayv1.AllocateRosterRequest, assayv1.AllocateRosterResponse]) error {
	ctx := stream.Context()
	held := int64(0)
	defer func() { s.held.Add(-held) }()
	list, err := s.takeIn(ctx, stream, &held)
	if err != nil {
		return err
	}
	order := list.Order()
	if err := list.checkUnique(order); err != nil {
		return err
	}
	e := list.experiment
	variants := e.Current.Definition.Variants
	given := list.Allocate(variants)
	roster := &experiment.Roster{
		Revision: e.Current.Number,
		Arms:     armsOf(variants, given),
		Balance:  list.balance(order, given),
		Author:   authorOf(ctx),
	}
	subjects := list.Subjects(order, given)
	list, order, given = nil, nil, nil // They are larger than what is kept.
	created, err := s.DB.CreateRoster(ctx, e.Key, roster, subjects)
	if err != nil {
		return err
	}
	s.refreshed(ctx)
	return stream.SendAndClose(&assayv1.AllocateRosterResponse{Roster: toRoster(e.Key, created)})
}

// takeIn receives a list. It adds to held what it has of the service's.
func (s *rosterService) takeIn(ctx context.Context, stream grpc.ClientStreamingServer[assayv1.AllocateRosterRequest, assayv1.AllocateRosterResponse], held *int64) (*rosterList, error) {
	var list *rosterList
	for number := 0; ; number++ {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := checkRules(s.validator, req); err != nil {
			return nil, inMessage(number, err)
		}
		if list == nil {
			if list, err = s.newRosterList(ctx, req.Experiment); err != nil {
				return nil, inMessage(number, err)
			}
		}
		n := int64(len(req.Subjects))
		*held += n
		if s.held.Add(n) > experiment.MaxRosterSubjects && *held <= experiment.MaxRosterSubjects {
			return nil, experiment.Errorf(experiment.ErrExhausted, "TOO_MANY_ROSTERS",
				"the rosters that this server takes in at the moment hold %d subjects together; try again when one of them is done", experiment.MaxRosterSubjects)
		}
		if err := list.add(req); err != nil {
			return nil, inMessage(number, err)
		}
	}
	switch {
	case list == nil:
		return nil, experiment.Invalid("experiment", "there was no message; the first one must name the experiment")
	case list.Len() == 0:
		return nil, experiment.Invalid("subjects", "there was no subject in any message")
	}
	return list, nil
}

// newRosterList begins a list for an experiment, if that can have a roster.
func (s *rosterService) newRosterList(ctx context.Context, key string) (*rosterList, error) {
	if key == "" {
		return nil, experiment.Invalid("experiment", "must be named")
	}
	e, err := s.DB.Experiment(ctx, key)
	if err != nil {
		return nil, err
	}
	if err := e.CheckRoster(); err != nil {
		return nil, err
	}
	return newRosterList(s.Pepper, e), nil
}

func (s *rosterService) GetRoster(ctx context.Context, req *assayv1.GetRosterRequest) (*assayv1.GetRosterResponse, error) {
	r, err := s.DB.Roster(ctx, req.Experiment)
	if err != nil {
		return nil, err
	}
	return &assayv1.GetRosterResponse{Roster: toRoster(req.Experiment, r)}, nil
}

func (s *rosterService) DeleteRoster(ctx context.Context, req *assayv1.DeleteRosterRequest) (*assayv1.DeleteRosterResponse, error) {
	n, err := s.DB.DeleteRoster(ctx, req.Experiment, authorOf(ctx))
	if err != nil {
		return nil, err
	}
	s.refreshed(ctx)
	return &assayv1.DeleteRosterResponse{Subjects: n}, nil
}

// armsOf counts the subjects of each variant.
func armsOf(variants []experiment.Variant, given []uint8) []experiment.RosterArm {
	arms := make([]experiment.RosterArm, len(variants))
	for i, v := range variants {
		arms[i].Variant = v.Key
	}
	for _, v := range given {
		arms[v].Subjects++
	}
	return arms
}

func toRoster(key string, r *experiment.Roster) *assayv1.Roster {
	p := &assayv1.Roster{
		Experiment: key, Revision: r.Revision, Subjects: r.Subjects(), Author: r.Author,
		CreateTime: timestamppb.New(r.CreateTime), DeleteTime: optionalTime(r.DeleteTime),
	}
	for _, arm := range r.Arms {
		p.Variants = append(p.Variants, &assayv1.RosterVariant{Variant: arm.Variant, Subjects: arm.Subjects})
	}
	for _, s := range r.Balance.Strata {
		p.Strata = append(p.Strata, &assayv1.RosterStratum{Stratum: s.Stratum, Subjects: s.Subjects})
	}
	for _, c := range r.Balance.Covariates {
		covariate := &assayv1.RosterCovariate{Name: c.Name}
		for i, arm := range c.Arms {
			covariate.Variants = append(covariate.Variants, &assayv1.RosterBalance{
				Variant: r.Arms[i].Variant, Subjects: arm.Subjects, Missing: arm.Missing,
				Mean: arm.Mean, StandardDeviation: arm.Deviation, StandardizedDifference: arm.Difference, Note: arm.Note,
			})
		}
		p.Covariates = append(p.Covariates, covariate)
	}
	return p
}
