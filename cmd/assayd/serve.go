package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"github.com/assayhq/assay/internal/catalog"
	"github.com/assayhq/assay/internal/enrollment"
	"github.com/assayhq/assay/internal/event"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
	"github.com/assayhq/assay/internal/server"
)

const (
	// leaveTime is how long the server still accepts calls after it has said
	// that it is leaving, so that load balancers notice.
	leaveTime = 200 * time.Millisecond
	// stopTime is how long calls under way may take after that.
	stopTime = 10 * time.Second
)

// maxEnrollments is how many enrolled subjects of sticky experiments are kept in
// memory: at most some 220 MB.
const maxEnrollments = 1_000_000

// gcPercent is Go's GOGC for a server, where the environment sets none. Little
// lives long in one and much is made by every request; at Go's own 100 the
// collector takes a quarter of the server's CPU in recording.
const gcPercent = 400

func runServe(ctx context.Context, args []string, e env) error {
	s, err := parseSettings("serve", args, e)
	if err != nil {
		return err
	}
	if e.getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	limitMemory(s.databaseURL == "", e.getenv("GOMEMLIMIT"), s.log)
	return serve(ctx, s, func(addr string) { s.log.Info("serving", "address", addr) })
}

// serve runs the server until ctx ends, and then stops it in order: no new
// calls, calls under way, writers, database. It calls ready with the address
// once it answers.
func serve(ctx context.Context, s settings, ready func(addr string)) (err error) {
	database, err := openDatabase(ctx, &s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.close()) }()
	db, err := postgres.New(database.url, database.pepper)
	if err != nil {
		return err
	}
	defer db.Close()
	db.LimitNames(s.outcomeNames)
	enrollments := enrollment.New(db.Enrollments, maxEnrollments, time.Now)
	db.OnErasure(enrollments.Forget)
	store := catalog.New(database.pepper, db.Histories, db.RosterSubjects, db.ListenCatalog, s.catalogPoll, s.log)
	prepared, err := begin(ctx, database, db, store, s.log)
	if err != nil {
		return err
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	lost := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "assay_exposures_lost_total",
		Help: "Exposures of assignments that could not be recorded.",
	})
	registry.MustRegister(lost)
	registerCatalog(registry, store)
	exposures := event.NewWriter(flushOf(db.RecordExposures, s.log), func(n int) { lost.Add(float64(n)) })
	outcomes := event.NewWriter(flushOf(db.RecordOutcomes, s.log), func(int) {})
	registerEnrollments(registry, enrollments)
	registry.MustRegister(nameRoom{db})
	stopping := make(chan struct{})
	srv, state, err := server.New(server.Config{
		DB: db, Catalog: store, Enrollments: enrollments, Exposures: exposures, Outcomes: outcomes, Names: db.AdmitNames, Months: db.PrepareMonths, Pepper: database.pepper,
		Lost: lost, Metrics: registry, Log: s.log, Now: time.Now, Retention: s.retention, BehindProxy: s.behindProxy, Stopping: stopping,
	})
	if err != nil {
		return err
	}
	server.SetDatabase(srv, state, server.Database{Definitions: prepared, Recording: prepared, Analysis: prepared})
	listener, err := listen(&s, registry)
	if err != nil {
		return err
	}
	return runAll(ctx, &s, parts{
		database: database, db: db, prepared: prepared, store: store, exposures: exposures, outcomes: outcomes,
		srv: srv, state: state, stopping: stopping, listener: listener, registry: registry,
	}, ready)
}

// flushOf maps the store's refusal of data to the writer's word for it, and
// logs the item at fault once it is alone: the rules at the door let it pass,
// which is a fault of theirs.
func flushOf[T any](record func(context.Context, []T) ([]experiment.Result, error), log *slog.Logger) event.Flush[T] {
	return func(ctx context.Context, items []T) ([]experiment.Result, error) {
		results, err := record(ctx, items)
		if errors.Is(err, postgres.ErrBadData) {
			if len(items) == 1 {
				log.ErrorContext(ctx, "the database refused an item", "error", err)
			}
			err = fmt.Errorf("%w: %w", event.ErrPoison, err)
		}
		return results, err
	}
}

// registerEnrollments adds the metrics by which an operator sees what sticky
// experiments ask of the database.
func registerEnrollments(registry *prometheus.Registry, enrollments *enrollment.Cache) {
	for _, m := range []struct {
		name, help string
		count      func(enrollment.Counts) int64
	}{
		{"hits", "Enrolled subjects that were known from memory.", func(c enrollment.Counts) int64 { return c.Hits }},
		{"queries", "Queries for enrolled subjects, each for many.", func(c enrollment.Counts) int64 { return c.Queries }},
		{"failures", "Queries for enrolled subjects that failed or took too long.", func(c enrollment.Counts) int64 { return c.Failures }},
		{"unknown", "Subjects that were answered for without knowing whether they are enrolled.", func(c enrollment.Counts) int64 { return c.Unknown }},
	} {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "assay_enrollment_" + m.name + "_total",
			Help: m.help,
		}, func() float64 { return float64(m.count(enrollments.Counts())) }))
	}
}

// parts are what runs while the server serves.
type parts struct {
	database  *database
	db        *postgres.DB
	prepared  bool // Whether db is.
	store     *catalog.Store
	exposures *event.Writer[experiment.Exposure]
	outcomes  *event.Writer[experiment.Outcome]
	srv       *grpc.Server
	state     *health.Server
	stopping  chan struct{} // Closed to end the streams of events.
	listener  net.Listener
	registry  *prometheus.Registry
}

func runAll(ctx context.Context, s *settings, p parts, ready func(addr string)) error {
	// The writers outlive the calls: their context ends when the server has
	// stopped.
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWriting()
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return p.exposures.Run(writing) })
	g.Go(func() error { return p.outcomes.Run(writing) })
	g.Go(func() error { return p.store.Run(running) })
	g.Go(func() error { return p.store.Keep(running, p.database.snapshot()) })
	g.Go(func() error { return watchDatabase(running, p, s.log) })
	g.Go(func() error { return maintain(running, p.db, s) })
	g.Go(func() error { return p.srv.Serve(p.listener) })
	g.Go(func() error {
		<-running.Done()
		defer stopWriting()
		stop(&p)
		return nil
	})
	if s.metricsListen != "" {
		g.Go(func() error { return serveMetrics(running, s.metricsListen, p.registry) })
	}
	ready(p.listener.Addr().String())
	return g.Wait()
}

// maintenancePause is the time between two rounds of maintenance.
const maintenancePause = time.Hour

// maintain keeps the partitions, the outcome names and the analyses of the database in order until ctx ends. What
// fails is tried again with the next round, but soon while the database is away.
func maintain(ctx context.Context, db *postgres.DB, s *settings) error {
	for {
		pause := maintenancePause
		err := db.FreeNames(ctx, time.Now()) // Before what may take long: it also makes this server forget some.
		err = errors.Join(err, db.Maintain(ctx, time.Now(), s.retention))
		if s.keepAnalyses > 0 {
			err = errors.Join(err, db.ForgetAnalyses(ctx, time.Now().Add(-s.keepAnalyses)))
		}
		if err != nil && ctx.Err() == nil {
			if errors.Is(err, experiment.ErrUnavailable) {
				pause = time.Minute
			}
			s.log.WarnContext(ctx, "maintenance of the database is not complete", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// stop ends the server: it says that it is leaving, ends the streams of events,
// lets calls under way finish, and then breaks those that remain.
func stop(p *parts) {
	p.state.Shutdown()
	time.Sleep(leaveTime)
	timer := time.AfterFunc(stopTime, p.srv.Stop)
	defer timer.Stop()
	close(p.stopping)
	p.srv.GracefulStop()
}

func serveMetrics(ctx context.Context, addr string, registry *prometheus.Registry) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	if err := srv.Serve(netutil.LimitListener(listener, maxMetricsConnections)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
