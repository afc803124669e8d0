package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/assayhq/assay/internal/experiment"
)

// kinds gives each kind of refusal its code.
var kinds = []struct {
	kind  error
	code  codes.Code
	retry time.Duration // How long to wait before trying again; 0: not at all.
}{
	{experiment.ErrNotFound, codes.NotFound, 0},
	{experiment.ErrAlreadyExists, codes.AlreadyExists, 0},
	{experiment.ErrPrecondition, codes.FailedPrecondition, 0},
	{experiment.ErrAborted, codes.Aborted, 0},
	{experiment.ErrExhausted, codes.ResourceExhausted, time.Second},
	{experiment.ErrUnavailable, codes.Unavailable, time.Second},
}

// mapErrors turns what handlers return into statuses.
func mapErrors(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		resp, err := handler(ctx, req)
		if err != nil {
			return nil, toStatus(ctx, err, info.FullMethod, log)
		}
		return resp, nil
	}
}

func toStatus(ctx context.Context, err error, method string, log *slog.Logger) error {
	var invalid *experiment.InvalidError
	if errors.As(err, &invalid) {
		return invalidStatus(invalid)
	}
	var refusal *experiment.Error
	if errors.As(err, &refusal) {
		for _, k := range kinds {
			if errors.Is(refusal, k.kind) {
				if k.code == codes.Unavailable {
					log.WarnContext(ctx, "unavailable", "method", method, "error", err)
				}
				return refusalStatus(refusal, k.code, k.retry)
			}
		}
	}
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case status.Code(err) != codes.Unknown:
		return err
	}
	log.ErrorContext(ctx, "internal error", "method", method, "error", err)
	return status.Error(codes.Internal, "internal error")
}

func invalidStatus(invalid *experiment.InvalidError) error {
	var bad errdetails.BadRequest
	for _, v := range invalid.Violations {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Message})
	}
	return withDetails(status.New(codes.InvalidArgument, invalid.Error()), &bad)
}

func refusalStatus(refusal *experiment.Error, code codes.Code, retry time.Duration) error {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: refusal.Reason, Domain: "assay"}}
	if retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retry)})
	}
	return withDetails(status.New(code, refusal.Message), details...)
}

func withDetails(st *status.Status, details ...protoadapt.MessageV1) error {
	if detailed, err := st.WithDetails(details...); err == nil {
		st = detailed
	}
	return st.Err()
}

// panicError keeps what a panic said for the log; the caller is told INTERNAL.
func panicError(_ context.Context, p any) error {
	return fmt.Errorf("panic: %v\n%s", p, debug.Stack())
}
