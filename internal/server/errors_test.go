package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/catalog"
	"github.com/assayhq/assay/internal/experiment"
)

func TestToStatus(t *testing.T) {
	var canceled, late context.Context
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	late, cancel = context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer cancel()
	refusal := func(kind error) error { return experiment.Errorf(kind, "A_REASON", "a sentence") }
	secret := errors.New("a secret of the inside")
	crash := recovered(t.Context(), "a secret of the inside")

	for _, tt := range []struct {
		name    string
		ctx     context.Context
		err     error
		code    codes.Code
		message string
		reason  string
		retry   bool
		logged  string
	}{
		{"not found", t.Context(), refusal(experiment.ErrNotFound), codes.NotFound, "a sentence", "A_REASON", false, ""},
		{"exists", t.Context(), refusal(experiment.ErrAlreadyExists), codes.AlreadyExists, "a sentence", "A_REASON", false, ""},
		{"precondition", t.Context(), refusal(experiment.ErrPrecondition), codes.FailedPrecondition, "a sentence", "A_REASON", false, ""},
		{"aborted", t.Context(), refusal(experiment.ErrAborted), codes.Aborted, "a sentence", "A_REASON", false, ""},
		{"exhausted", t.Context(), refusal(experiment.ErrExhausted), codes.ResourceExhausted, "a sentence", "A_REASON", true, ""},
		{"unavailable", t.Context(), refusal(experiment.ErrUnavailable), codes.Unavailable, "a sentence", "A_REASON", true, "WARN"},
		{"with its cause", t.Context(), fmt.Errorf("%w (%w)", refusal(experiment.ErrUnavailable), secret), codes.Unavailable, "a sentence", "A_REASON", true, "WARN"},
		{"no kind", t.Context(), refusal(secret), codes.Internal, "internal error", "", false, "ERROR"},
		{"foreign", t.Context(), secret, codes.Internal, "internal error", "", false, "ERROR"},
		{"panic", t.Context(), crash, codes.Internal, "internal error", "", false, "ERROR"},
		{"panic for a caller who left", canceled, crash, codes.Internal, "internal error", "", false, "ERROR"},
		{"status of another service", t.Context(), status.Error(codes.NotFound, "unknown service"), codes.NotFound, "unknown service", "", false, ""},
		{"invalid", t.Context(), fmt.Errorf("change: %w", experiment.Invalid("a.b", "is %d", 1)), codes.InvalidArgument, "a.b: is 1", "", false, ""},
		{"canceled", canceled, fmt.Errorf("query: %w", context.Canceled), codes.Canceled, "context canceled", "", false, ""},
		{"late", late, refusal(experiment.ErrUnavailable), codes.DeadlineExceeded, "context deadline exceeded", "", false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			err := toStatus(tt.ctx, tt.err, "/assay.v1.S/M", slog.New(slog.NewTextHandler(&log, nil)))
			st := status.Convert(err)
			if st.Code() != tt.code || st.Message() != tt.message {
				t.Errorf("%v %q, want %v %q", st.Code(), st.Message(), tt.code, tt.message)
			}
			var reason string
			retry := false
			for _, d := range st.Details() {
				switch d := d.(type) {
				case *errdetails.ErrorInfo:
					reason = d.Reason
				case *errdetails.RetryInfo:
					retry = d.RetryDelay.AsDuration() > 0
				}
			}
			if reason != tt.reason || retry != tt.retry {
				t.Errorf("reason %q, retry %v, want %q, %v", reason, retry, tt.reason, tt.retry)
			}
			lines := strings.Count(log.String(), "\n")
			if tt.logged == "" && lines != 0 || tt.logged != "" && (lines != 1 || !strings.Contains(log.String(), "level="+tt.logged)) {
				t.Errorf("logged %d lines, want one of level %q: %s", lines, tt.logged, log.String())
			}
			if tt.code == codes.Internal && !strings.Contains(log.String(), "a secret") && tt.name != "no kind" {
				t.Errorf("the log does not say what happened: %s", log.String())
			}
		})
	}
}

func TestManyViolations(t *testing.T) {
	var bad experiment.InvalidError
	for i := range 500 {
		bad.Add(fmt.Sprintf("items[%d]", i), "must not be empty")
	}
	st := status.Convert(invalidStatus(&bad))
	named := len(st.Details()[0].(*errdetails.BadRequest).FieldViolations)
	told := strings.Count(st.Message(), "must not be empty")
	if want := fmt.Sprintf("; and %d more", 500-told); !strings.HasSuffix(st.Message(), want) {
		t.Errorf("the message ends with %q, want %q", st.Message()[len(st.Message())-20:], want)
	}
	if named < 80 || told < 20 {
		t.Errorf("only %d fields are named, and %d in the message", named, told)
	}
}

func TestShorten(t *testing.T) {
	for text, want := range map[string]string{
		"":             "",
		"0123456789":   "0123456789",
		"0123456789a":  "0123456…",
		"012345üüüüü":  "012345…", // No half of a character.
		"01234567890ü": "0123456…",
	} {
		if got := shorten(text, 10); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

// TestBatchAssignEnds holds that the server stops with the caller.
func TestBatchAssignEnds(t *testing.T) {
	validator, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	store := catalog.New(nil, nil, nil, nil, time.Hour, slog.New(slog.DiscardHandler))
	s := &assignmentService{services: &services{Config: Config{Catalog: store, Now: time.Now}, validator: validator, failures: newFailures()}}
	ctx, cancel := context.WithCancel(t.Context())
	req := &assayv1.BatchAssignRequest{Subjects: []*assayv1.Subject{{Key: "u"}}}
	if _, err := s.BatchAssign(ctx, req); err != nil {
		t.Error(err)
	}
	cancel()
	if _, err := s.BatchAssign(ctx, req); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller has gone: %v", err)
	}
}
