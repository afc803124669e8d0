package server_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/catalog"
	"github.com/assayhq/assay/internal/enrollment"
	"github.com/assayhq/assay/internal/event"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
	"github.com/assayhq/assay/internal/postgres/postgrestest"
	"github.com/assayhq/assay/internal/server"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(benchVariable); kind != "" {
		os.Exit(runBenchServer(kind))
	}
	os.Exit(postgrestest.Main(m))
}

// api is a real client of a real server with a database of its own.
type api struct {
	assign      assayv1.AssignmentServiceClient
	events      assayv1.EventServiceClient
	experiments assayv1.ExperimentServiceClient
	metrics     assayv1.MetricServiceClient
	analysis    assayv1.AnalysisServiceClient
	conn        *grpc.ClientConn
	stopping    chan struct{}
	internal    *atomic.Int64      // INTERNAL errors that the server logged, which the test must expect.
	lost        prometheus.Counter // Exposures that it gave up.
	lookups     *atomic.Int64      // Queries for enrolled subjects.
	registry    *prometheus.Registry
}

// newAPI starts a server with a database of its own.
func newAPI(tb testing.TB) *api {
	tb.Helper()
	return serve(tb, postgrestest.Open(tb), true)
}

// newAPIAt starts a server with a database of its own, and returns its address.
func newAPIAt(tb testing.TB) (a *api, address string) {
	tb.Helper()
	address = postgrestest.URL(tb)
	db, err := postgres.Open(context.Background(), address, postgrestest.Pepper)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Close)
	return serve(tb, db, true), address
}

// connect connects to a database, until the end of the test.
func connect(tb testing.TB, address string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// serve starts a server on a loopback port, and stops it with the test. One
// that is not attentive learns of changes by others only when it asks.
func serve(tb testing.TB, db *postgres.DB, attentive bool) *api {
	tb.Helper()
	a := &api{stopping: make(chan struct{}), internal: new(atomic.Int64), lookups: new(atomic.Int64), registry: prometheus.NewRegistry(), lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "lost"})}
	log := slog.New(&errorCounter{Handler: slog.NewTextHandler(tb.Output(), nil), count: a.internal})
	listen, poll := db.ListenCatalog, time.Second
	if !attentive {
		listen = func(ctx context.Context, _ func()) error { <-ctx.Done(); return ctx.Err() }
		poll = time.Hour
	}
	store := catalog.New(postgrestest.Pepper, db.Histories, db.RosterSubjects, listen, poll, log)
	exposures := event.NewWriter(flushOf(db.RecordExposures), func(n int) { a.lost.Add(float64(n)) })
	outcomes := event.NewWriter(flushOf(db.RecordOutcomes), func(int) {})
	enrollments := enrollment.New(func(ctx context.Context, names []experiment.Enrollment) ([]experiment.Enrolled, error) {
		a.lookups.Add(1)
		return db.Enrollments(ctx, names)
	}, 10_000, time.Now)
	db.OnErasure(enrollments.Forget)
	srv, _, err := server.New(server.Config{
		DB: db, Catalog: store, Enrollments: enrollments, Exposures: exposures, Outcomes: outcomes, Names: db.AdmitNames, Months: db.PrepareMonths, Pepper: postgrestest.Pepper,
		Lost: a.lost, Metrics: a.registry, Log: log, Now: time.Now, Stopping: a.stopping,
	})
	if err != nil {
		tb.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return store.Run(ctx) })
	g.Go(func() error { return exposures.Run(ctx) })
	g.Go(func() error { return outcomes.Run(ctx) })
	g.Go(func() error { return srv.Serve(listener) })
	if a.conn, err = grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		a.conn.Close()
		srv.GracefulStop()
		cancel()
		if err := g.Wait(); err != nil {
			tb.Error(err)
		}
		if n := a.internal.Load(); n != 0 {
			tb.Errorf("the server logged %d errors", n)
		}
	})
	a.assign = assayv1.NewAssignmentServiceClient(a.conn)
	a.events = assayv1.NewEventServiceClient(a.conn)
	a.experiments = assayv1.NewExperimentServiceClient(a.conn)
	a.metrics = assayv1.NewMetricServiceClient(a.conn)
	a.analysis = assayv1.NewAnalysisServiceClient(a.conn)
	return a
}

// flushOf is the wiring of the real binary.
func flushOf[T any](record func(context.Context, []T) ([]experiment.Result, error)) event.Flush[T] {
	return func(ctx context.Context, items []T) ([]experiment.Result, error) {
		results, err := record(ctx, items)
		if errors.Is(err, postgres.ErrBadData) {
			err = fmt.Errorf("%w: %w", event.ErrPoison, err)
		}
		return results, err
	}
}

// errorCounter counts what is logged as an error, which is what the server
// does with each INTERNAL.
type errorCounter struct {
	slog.Handler
	count *atomic.Int64
}

func (h *errorCounter) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		h.count.Add(1)
	}
	return h.Handler.Handle(ctx, r)
}
