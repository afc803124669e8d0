package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// startProbers asks each server for assignments until they are stopped. While a
// server is meant to be up, each question must be answered, and the answer must
// be that of a server that nothing has befallen.
func (d *drill) startProbers() (stop func()) {
	const subjects = 100
	req := &assayv1.BatchAssignRequest{Experiments: []string{liveFaults}}
	for i := range subjects {
		req.Subjects = append(req.Subjects, &assayv1.Subject{Key: fmt.Sprint("probe-", i)})
	}
	want, err := assayv1.NewAssignmentServiceClient(d.servers[0].conn).BatchAssign(d.Context(), req)
	if err != nil {
		d.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var probers sync.WaitGroup
	for i, s := range d.servers {
		probers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				subject := n % subjects
				if err := d.probe(s, req.Subjects[subject], want.Results[subject].Assignments[0].Variant); err != nil {
					d.Errorf("server %d was asked for an assignment: %v", i, err)
					return
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	return func() { cancel(); probers.Wait() }
}

// probe asks once.
func (d *drill) probe(s *target, subject *assayv1.Subject, variant string) error {
	var resp *assayv1.AssignResponse
	answered, err := d.tally.ask(s, func(ctx context.Context) (err error) {
		resp, err = assayv1.NewAssignmentServiceClient(s.conn).Assign(ctx,
			&assayv1.AssignRequest{Subject: subject, Experiments: []string{liveFaults}}, grpc.WaitForReady(true))
		return err
	})
	if answered && resp.Assignments[0].Variant != variant {
		return fmt.Errorf("%s got %v, not %s", subject.Key, resp.Assignments[0], variant)
	}
	return err
}

// ask asks a server for assignments, if it is meant to be up, and waits for one
// that starts. Only one that was killed or stopped meanwhile may owe the answer.
func (c *faultTally) ask(s *target, question func(context.Context) error) (answered bool, err error) {
	life := s.life.Load()
	if life%2 == 1 {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callPatience)
	defer cancel()
	c.asked.Add(1)
	if err = question(ctx); err != nil && s.life.Load() != life {
		c.unanswered.Add(1)
		return false, nil
	}
	return err == nil, err
}
