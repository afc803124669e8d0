package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/assayhq/assay/internal/experiment"
)

// TestFailedCallsAreSampled: while the database is away, the log tells of one call of a
// method in each period, and how many it left out; faults of our own it always tells.
func TestFailedCallsAreSampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		failing := mapErrors(sampled(slog.New(slog.NewTextHandler(&log, nil))))
		fail := func(method string, err error, times int) (lines int) {
			log.Reset()
			for range times {
				failing(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { return nil, err })
			}
			return strings.Count(log.String(), "\n")
		}
		away := experiment.Errorf(experiment.ErrUnavailable, "DATABASE_UNAVAILABLE", "the database is away")
		if n := fail("/a", away, 4000); n != 1 {
			t.Errorf("4000 failed calls are told in %d lines", n)
		}
		if n := fail("/b", away, 1); n != 1 {
			t.Errorf("a failed call of another method is told in %d lines", n)
		}
		time.Sleep(samplePeriod)
		if n := fail("/a", away, 2); n != 1 || !strings.Contains(log.String(), "left_out=3999") {
			t.Errorf("later, in %d lines: %s", n, log.String())
		}
		if n := fail("/a", errors.New("a fault"), 3); n != 3 {
			t.Errorf("three faults are told in %d lines", n)
		}
	})
}
