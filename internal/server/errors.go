package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
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
	{experiment.ErrTooLarge, codes.ResourceExhausted, 0},
	{experiment.ErrDeadline, codes.DeadlineExceeded, 0},
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

// mapStreamErrors does so for streams.
func mapStreamErrors(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		err := handler(srv, stream)
		if err != nil {
			err = toStatus(stream.Context(), err, info.FullMethod, log)
		}
		return err
	}
}

func toStatus(ctx context.Context, err error, method string, log *slog.Logger) error {
	var crash *panicError
	var invalid *experiment.InvalidError
	var refusal *experiment.Error
	switch {
	case errors.As(err, &crash):
	case ctx.Err() != nil: // Whatever went wrong, the caller has gone or was too late.
		return status.FromContextError(ctx.Err()).Err()
	case errors.As(err, &invalid):
		return invalidStatus(invalid)
	case errors.As(err, &refusal):
		for _, k := range kinds {
			if errors.Is(refusal, k.kind) {
				if k.code == codes.Unavailable {
					log.WarnContext(ctx, "unavailable", "method", method, "error", err)
				}
				return refusalStatus(refusal, k.code, k.retry)
			}
		}
	case status.Code(err) != codes.Unknown: // Of a handler that is not ours.
		return err
	}
	log.ErrorContext(ctx, "internal error", "method", method, "error", err)
	return status.Error(codes.Internal, "internal error")
}

// A status travels in headers, of which some clients accept 8 KiB in all, as
// percent-encoded text and again in base64. These bounds keep it below; what
// they cut off is counted at the end of the message.
const (
	maxFieldBytes       = 256
	maxDescriptionBytes = 512
	maxViolationsBytes  = 2560
	maxStatusText       = 1024
)

// inField names the faults of err from a field of the request.
func inField(field string, err error) error {
	var bad experiment.InvalidError
	if err := bad.Join(field, err); err != nil {
		return err
	}
	return bad.Err()
}

func invalidStatus(invalid *experiment.InvalidError) error {
	var bad errdetails.BadRequest
	var text strings.Builder
	size, told := 0, 0
	for i, v := range invalid.Violations {
		field, description := shorten(v.Field, maxFieldBytes), shorten(v.Message, maxDescriptionBytes)
		if size += len(field) + len(description); size > maxViolationsBytes {
			break
		}
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: field, Description: description})
		if told == i && text.Len()+len(field)+len(description) < maxStatusText {
			fmt.Fprintf(&text, "%s: %s; ", field, description)
			told++
		}
	}
	message := strings.TrimSuffix(text.String(), "; ")
	if more := len(invalid.Violations) - told; more > 0 {
		message = fmt.Sprintf("%s; and %d more", message, more)
	}
	return withDetails(status.New(codes.InvalidArgument, message), &bad)
}

// shorten cuts text that is longer than n bytes.
func shorten(text string, n int) string {
	const ellipsis = "…"
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n-len(ellipsis)], "") + ellipsis
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

// panicError is a panic of a handler. It is for the log; the caller is told
// INTERNAL.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.value, e.stack) }

func recovered(_ context.Context, p any) error { return &panicError{p, debug.Stack()} }
