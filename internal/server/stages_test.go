package server

import (
	"context"

	"buf.build/go/protovalidate"
	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/assign"
)

// Stage is a part of what an Assign costs beside the transport.
type Stage struct {
	Name string
	Run  func()
}

// AssignStages takes an Assign apart for the benchmark.
func AssignStages(c Config, req *assayv1.AssignRequest) ([]Stage, error) {
	validator, err := protovalidate.New()
	if err != nil {
		return nil, err
	}
	info := &grpc.UnaryServerInfo{FullMethod: assayv1.AssignmentService_Assign_FullMethodName}
	nothing := func(context.Context, any) (any, error) { return nil, nil }
	through := func(i grpc.UnaryServerInterceptor) func() {
		return func() { i(context.Background(), req, info, nothing) }
	}
	recoverer := recovery.UnaryServerInterceptor(recovery.WithRecoveryHandlerContext(recovered))
	mapped, recovering := through(mapErrors(c.Log)), through(recoverer)
	q := assignmentQuery{snapshot: c.Catalog.Current(), at: c.Now(), keys: req.Experiments}
	decisions := []assign.Decision{q.snapshot.Subject("user", req.Subject.Key, req.Subject.Attributes.AsMap(), q.at).Assign(req.Experiments[0])}
	return []Stage{
		{"metrics", through(grpcprom.NewServerMetrics().UnaryServerInterceptor())},
		{"errors, recovery", func() { mapped(); recovering() }},
		{"validation", through(validate(validator))},
		{"decision", func() {
			q.snapshot.SubjectWith("user", req.Subject.Key, structAttributes{req.Subject.Attributes}, q.at).Assign(q.keys[0])
		}},
		{"reply", func() { toAssignments(q.keys, decisions) }},
		{"conversion-spared", func() { req.Subject.Attributes.AsMap() }},
		{"protovalidate-spared", func() { validator.Validate(req) }},
	}, nil
}
