package server_test

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/assayhq/assay/internal/server"
)

// TestPanic calls a server without a catalog, on which Assign panics.
func TestPanic(t *testing.T) {
	logged := new(atomic.Int64)
	srv, _, err := server.New(server.Config{
		Metrics: prometheus.NewRegistry(),
		Log:     slog.New(&errorCounter{Handler: slog.NewTextHandler(t.Output(), nil), count: logged}),
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(listener)
	defer srv.Stop()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a := &api{conn: conn}
	for range 2 {
		_, err = a.invoke(t, "AssignmentService/Assign", newRequest(t, "AssignmentService/Assign", `{"subject":{"key":"u"}}`))
		if st := status.Convert(err); st.Code() != codes.Internal || st.Message() != "internal error" || len(st.Details()) != 0 {
			t.Errorf("a panic is answered with %v", err)
		}
	}
	if n := logged.Load(); n != 2 {
		t.Errorf("two panics were logged %d times", n)
	}
	a.do(t, "AnalysisService/CompareSummaries", compareSummaries)
}

// TestDatabaseDown takes the database away and gives it back.
func TestDatabaseDown(t *testing.T) {
	a, address := newAPIAt(t)
	a.createCheckoutCopy(t)
	a.do(t, "ExperimentService/StartExperiment", `{"key":"checkout-copy"}`)

	giveBack := takeAway(t, address)
	const outcome = `{"outcomes":[{"event_id":"e","subject":{"key":"u-1"},"name":"purchase","occurred_time":"2026-01-05T10:03:00Z"}]}`
	for _, call := range [][2]string{
		{"EventService/RecordOutcomes", outcome},
		{"EventService/RecordExposures", `{"exposures":[{"experiment":"checkout-copy","variant":"short","subject":{"key":"u-1"}}]}`},
		// A newer catalog might know it, so it is not rejected for good.
		{"EventService/RecordExposures", `{"exposures":[{"experiment":"nothing","variant":"short","subject":{"key":"u-1"}}]}`},
		{"ExperimentService/GetExperiment", `{"key":"checkout-copy"}`},
		{"ExperimentService/CreateExperiment", newExperiment("")},
		{"AnalysisService/AnalyzeExperiment", `{"experiment":"checkout-copy"}`},
	} {
		for range 2 { // On a broken connection, and without one.
			_, err := a.invoke(t, call[0], newRequest(t, call[0], call[1]))
			checkRefusal(t, err, codes.Unavailable, "the database", "DATABASE_UNAVAILABLE")
			checkRetry(t, err)
		}
	}
	if got := a.assigned(t, "checkout-copy", `{"key":"u-1","attributes":{"country":"PL","age":31}}`); got.Variant != "short" {
		t.Errorf("without a database: %v", got)
	}
	giveBack()
	a.expect(t, "EventService/RecordOutcomes", outcome, `{"recorded":1}`)
}

// takeAway makes a database unreachable until it is given back.
func takeAway(t *testing.T, address string) (giveBack func()) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	u.Path = "/postgres"
	admin, err := pgx.Connect(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close(context.Background()) })
	execute := func(sql string, args ...any) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	execute(`ALTER DATABASE ` + name + ` ALLOW_CONNECTIONS false`)
	execute(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, name)
	return func() { execute(`ALTER DATABASE ` + name + ` ALLOW_CONNECTIONS true`) }
}
