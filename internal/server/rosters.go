package server

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

type rosterService struct {
	assayv1.UnimplementedRosterServiceServer
	*services
	room *rosterRoom
}

func (s *rosterService) AllocateRoster(stream grpc.ClientStreamingServer[assayv1.AllocateRosterRequest, assayv1.AllocateRosterResponse]) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	place := s.room.enter(cancel)
	defer s.room.leave(place)
	list, err := s.takeInUnless(ctx, stream, place)
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

// takeInUnless receives a list, unless ctx ends before. Then it leaves a goroutine
// behind that gRPC ends when the call has returned.
func (s *rosterService) takeInUnless(ctx context.Context, stream rosterStream, place *rosterPlace) (*rosterList, error) {
	type taken struct {
		list *rosterList
		err  error
	}
	done := make(chan taken, 1)
	go func() {
		var t taken
		defer func() {
			if p := recover(); p != nil {
				t = taken{err: recovered(ctx, p)}
			}
			done <- t
		}()
		t.list, t.err = s.takeIn(ctx, stream, place)
	}()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case t := <-done:
		if t.err == nil && !s.room.complete(place) {
			return nil, context.Cause(ctx)
		}
		return t.list, t.err
	}
}

type rosterStream = grpc.ClientStreamingServer[assayv1.AllocateRosterRequest, assayv1.AllocateRosterResponse]

// takeIn receives a list.
func (s *rosterService) takeIn(ctx context.Context, stream rosterStream, place *rosterPlace) (*rosterList, error) {
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
		if list.Len()+len(req.Subjects) <= experiment.MaxRosterSubjects { // Or add refuses it.
			if err := s.room.take(place, len(req.Subjects)); err != nil {
				return nil, err
			}
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
