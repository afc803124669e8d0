// Package server speaks the API: it converts requests to the nouns of the
// other packages, calls them, and converts the answers back.
//
// What it promises to every caller: a request that breaks rules is told every
// field at fault, as far as a status has room; an error's code follows from
// its kind in one table; nothing of the inside leaves with an INTERNAL, which
// is logged once; a panic costs one call and not the server.
//
// Rules on single fields stand in the API's schema and are checked by one
// interceptor, for the most frequent messages by hand first. Rules across
// fields are package experiment's and metric's; they are checked where the
// rules on fields hold, since they rely on them.
package server

import (
	"context"
	"log/slog"
	"time"

	"buf.build/go/protovalidate"
	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	flagdv1 "github.com/assayhq/assay/gen/flagd/evaluation/v1"
	flagdv2 "github.com/assayhq/assay/gen/flagd/evaluation/v2"
	"github.com/assayhq/assay/internal/catalog"
	"github.com/assayhq/assay/internal/enrollment"
	"github.com/assayhq/assay/internal/event"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

// Config is what the handlers work with.
type Config struct {
	DB          *postgres.DB
	Catalog     *catalog.Store
	Enrollments *enrollment.Cache
	Exposures   *event.Writer[experiment.Exposure]
	Outcomes    *event.Writer[experiment.Outcome]
	// Names admits the outcome names of a call, and Months makes room for its outcomes.
	Names       func(context.Context, []experiment.Outcome) (*experiment.NameRefusal, error)
	Months      func(context.Context, []experiment.Outcome) error
	Pepper      experiment.Pepper
	Lost        prometheus.Counter // Exposures of assignments that were not recorded.
	Metrics     prometheus.Registerer
	Log         *slog.Logger
	Now         func() time.Time
	Retention   time.Duration   // How long events are kept; 0 for ever.
	BehindProxy bool            // Whether many clients share an address.
	Stopping    <-chan struct{} // Closed when the server begins to stop, which ends the streams that would go on.
}

// Limits of the transport. A connection that never speaks, or a client that
// opens streams without end, costs little and ends soon.
const (
	connectionTimeout    = 5 * time.Second
	maxConcurrentStreams = 250
	maxHeaderListBytes   = 16 << 10
	maxMessageBytes      = 4 << 20
	// unansweredTime is how long a client may leave a ping, or what else is sent to
	// it, unanswered.
	unansweredTime = 20 * time.Second
	// The windows stay as they are, or gRPC lets both grow to 16 MiB: a stream
	// that is not read holds one window. A message that is longer has a window of
	// its length as soon as it is read. See maxUploadBytes for those.
	streamWindow     = 256 << 10
	connectionWindow = 1 << 20
	// streamWorkers is how many goroutines are kept for the next calls: on a new one a
	// call's stack grows twice, which took an eighth of the processor of Assign. When
	// none is free, as streams that stay take them for good, calls have new ones.
	streamWorkers = 64
)

// New returns a gRPC server with every service registered, and its health,
// in which every service is SERVING until it is told otherwise.
func New(c Config) (*grpc.Server, *health.Server, error) {
	c.Log = sampled(c.Log)
	validator, err := protovalidate.New()
	if err != nil {
		return nil, nil, err
	}
	calls := grpcprom.NewServerMetrics()
	if err := c.Metrics.Register(calls); err != nil {
		return nil, nil, err
	}
	admission, err := newAdmission(c.Metrics, c.Log)
	if err != nil {
		return nil, nil, err
	}
	work, err := newWork(c.Metrics)
	if err != nil {
		return nil, nil, err
	}
	limits := defaultStreamLimits
	open, err := newOpenStreams(limits, c.Metrics)
	if err != nil {
		return nil, nil, err
	}
	recoverer := recovery.WithRecoveryHandlerContext(recovered)
	srv := grpc.NewServer(
		grpc.ForceServerCodecV2(newCodec()),
		grpc.ConnectionTimeout(connectionTimeout),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.MaxConcurrentStreams(maxConcurrentStreams),
		grpc.MaxHeaderListSize(maxHeaderListBytes),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.InitialConnWindowSize(connectionWindow),
		grpc.InitialWindowSize(streamWindow),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: unansweredTime, MaxConnectionIdle: limits.idle, MaxConnectionAge: time.Hour, MaxConnectionAgeGrace: time.Minute}),
		grpc.InTapHandle(admission.arrive),
		grpc.ChainUnaryInterceptor(calls.UnaryServerInterceptor(), mapErrors(c.Log), recovery.UnaryServerInterceptor(recoverer), work.admit, validate(validator), admission.encodeReply),
		grpc.ChainStreamInterceptor(calls.StreamServerInterceptor(), mapStreamErrors(c.Log), recovery.StreamServerInterceptor(recoverer), open.boundStreams(newShares(limits.standing, c.BehindProxy)), admission.admitStream),
	)
	s := &services{Config: c, validator: validator, failures: newFailures()}
	if err := c.Metrics.Register(s.failures); err != nil {
		return nil, nil, err
	}
	recording, err := newEventService(s, admission, open)
	if err != nil {
		return nil, nil, err
	}
	registered := registrar{srv, admission, work}
	assayv1.RegisterAssignmentServiceServer(registered, &assignmentService{services: s})
	assayv1.RegisterEventServiceServer(registered, recording)
	assayv1.RegisterExperimentServiceServer(registered, &experimentService{services: s})
	assayv1.RegisterHoldoutServiceServer(registered, &holdoutService{services: s})
	assayv1.RegisterLayerServiceServer(registered, &layerService{services: s})
	assayv1.RegisterRosterServiceServer(registered, newRosterService(s, open))
	assayv1.RegisterMetricServiceServer(registered, &metricService{services: s})
	assayv1.RegisterAnalysisServiceServer(registered, &analysisService{services: s})
	assayv1.RegisterSubjectServiceServer(registered, &subjectService{services: s})
	assayv1.RegisterAuditServiceServer(registered, &auditService{services: s})
	events := &flagEvents{catalog: c.Catalog, stopping: c.Stopping}
	flagdv1.RegisterServiceServer(registered, &flagdV1{services: s, events: events})
	flagdv2.RegisterServiceServer(registered, &flagdV2{services: s, events: events})
	h := health.NewServer()
	grpc_health_v1.RegisterHealthServer(registered, h)
	reflection.Register(srv)
	SetDatabase(srv, h, Database{true, true, true})
	calls.InitializeMetrics(srv)
	return srv, h, nil
}

// services is what the handlers share.
type services struct {
	Config
	validator protovalidate.Validator
	failures  *byExperiment // Of predicates, by the experiment's key.
}

// newFailures makes the counter of predicates that failed to evaluate.
func newFailures() *byExperiment {
	return newByExperiment("assay_eligibility_failures_total",
		"Decisions for which an experiment's predicate failed to evaluate, so that the subject did not take part.")
}

// refreshed makes the server that made a change see it at once. The change is
// committed: if the refresh fails, the notice or the next poll brings it.
func (s *services) refreshed(ctx context.Context) {
	if err := s.Catalog.Refresh(ctx); err != nil {
		s.Log.WarnContext(ctx, "the catalog could not be refreshed after a change", "error", err)
	}
}
