package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/catalog"
	"github.com/assayhq/assay/internal/event"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres/postgrestest"
	"github.com/assayhq/assay/internal/server"
)

// The benchmark runs two servers in processes of their own, so that their CPU
// time can be told from the client's: this one, with all interceptors of the
// default server, and a bare grpc-go handler that answers the same message
// without looking at the request. They take turns; the ratio of a round is
// that of their CPU time for the same number of calls, and the median of the
// rounds is reported.

const (
	benchVariable = "ASSAY_BENCH_SERVER" // Holds benchAssay or benchBare in a child.
	benchAssay    = "assay"
	benchBare     = "bare"

	benchCallers = 64
	benchCalls   = 20_000 // Of each server in a round.
)

// BenchmarkAssign asks for one experiment with one rule, with three attributes
// of the subject. One iteration is a round. It then runs the stages of the
// server alone in this process, and prints the share of the server's CPU that
// each takes, that of the transport, which is all that the bare handler does,
// and what remains: in the server the stages share the caches and the garbage
// collector with the transport.
func BenchmarkAssign(b *testing.B) {
	call := func(ctx context.Context, c *grpc.ClientConn) error {
		resp, err := assayv1.NewAssignmentServiceClient(c).Assign(ctx, &assayv1.AssignRequest{Subject: benchSubject(), Experiments: []string{"checkout-copy"}})
		if err == nil && resp.Assignments[0].Variant != "short" {
			err = fmt.Errorf("unexpected answer %v", resp)
		}
		return err
	}
	total, transport := compareCPU(b, benchCalls, call)
	config, err := newBenchConfig()
	if err != nil {
		b.Fatal(err)
	}
	stages, err := server.AssignStages(config, &assayv1.AssignRequest{Subject: benchSubject(), Experiments: []string{"checkout-copy"}})
	if err != nil {
		b.Fatal(err)
	}
	var shares strings.Builder
	share := func(of string, us float64) { fmt.Fprintf(&shares, "\n%-20s %6.2f µs %5.1f %%", of, us, 100*us/total) }
	rest := total - transport
	share("transport", transport)
	for _, stage := range stages {
		us := s2us(stageCPU(b, stage.Run), benchCalls)
		if !strings.HasSuffix(stage.Name, "-spared") {
			rest -= us
		}
		share(stage.Name, us)
	}
	share("rest", rest)
	b.Log(shares.String())
}

// stageCPU returns the CPU time of this process for as many runs as a round
// has calls, the least of five times.
func stageCPU(b *testing.B, run func()) time.Duration {
	least := time.Hour
	for range 5 {
		before := processCPU(b)
		for range benchCalls {
			run()
		}
		least = min(least, processCPU(b)-before)
	}
	return least
}

func processCPU(b *testing.B) time.Duration {
	used, err := cpuTime()
	if err != nil {
		b.Fatal(err)
	}
	return used
}

// cpuTime returns the CPU time that this process has taken.
func cpuTime() (time.Duration, error) {
	var usage syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), err
}

// BenchmarkBatchAssign is BenchmarkAssign with 100 subjects in each call.
func BenchmarkBatchAssign(b *testing.B) {
	req := &assayv1.BatchAssignRequest{Experiments: []string{"checkout-copy"}}
	for range 100 {
		req.Subjects = append(req.Subjects, benchSubject())
	}
	compareCPU(b, benchCalls/50, func(ctx context.Context, c *grpc.ClientConn) error {
		resp, err := assayv1.NewAssignmentServiceClient(c).BatchAssign(ctx, req)
		if err == nil && resp.Results[99].Assignments[0].Variant != "short" {
			err = fmt.Errorf("unexpected answer %v", resp.Results[99])
		}
		return err
	})
}

// BenchmarkRecordOutcomes is BenchmarkAssign with 100 outcomes in each call, which
// are stored nowhere.
func BenchmarkRecordOutcomes(b *testing.B) {
	req := &assayv1.RecordOutcomesRequest{}
	for i := range 100 {
		req.Outcomes = append(req.Outcomes, &assayv1.Outcome{
			EventId: fmt.Sprint("order-", i), Subject: &assayv1.Subject{Key: fmt.Sprint("u-", i)}, Name: "purchase", Value: proto.Float64(49.9),
			OccurredTime: timestamppb.Now(), Properties: &structpb.Struct{Fields: map[string]*structpb.Value{"sku": structpb.NewStringValue("A1")}},
		})
	}
	compareCPU(b, benchCalls/50, func(ctx context.Context, c *grpc.ClientConn) error {
		resp, err := assayv1.NewEventServiceClient(c).RecordOutcomes(ctx, req)
		return recordedAll(resp, err)
	})
}

// BenchmarkRecordExposures is BenchmarkRecordOutcomes with exposures.
func BenchmarkRecordExposures(b *testing.B) {
	req := &assayv1.RecordExposuresRequest{}
	for range 100 {
		req.Exposures = append(req.Exposures, &assayv1.Exposure{Experiment: "checkout-copy", Variant: "short", Subject: benchSubject()})
	}
	compareCPU(b, benchCalls/50, func(ctx context.Context, c *grpc.ClientConn) error {
		resp, err := assayv1.NewEventServiceClient(c).RecordExposures(ctx, req)
		return recordedAll(resp, err)
	})
}

func recordedAll(resp interface{ GetRecorded() int32 }, err error) error {
	if err == nil && resp.GetRecorded() != 100 {
		err = fmt.Errorf("unexpected answer %v", resp)
	}
	return err
}

type benchCall func(context.Context, *grpc.ClientConn) error

// compareCPU reports the CPU time of a call, in microseconds, of both servers, and
// how often a call allocates in ours.
func compareCPU(b *testing.B, calls int, call benchCall) (assayTime, bareTime float64) {
	assay, bare := startBenchServer(b, benchAssay), startBenchServer(b, benchBare)
	for _, s := range []*benchServer{assay, bare} {
		s.round(b, calls/4, call) // Warm up.
	}
	var ratios, ours, theirs, allocations []float64
	for b.Loop() {
		our, their := assay.round(b, calls, call), bare.round(b, calls, call)
		x, y := s2us(our.cpu, calls), s2us(their.cpu, calls)
		ratios, ours, theirs = append(ratios, x/y), append(ours, x), append(theirs, y)
		allocations = append(allocations, float64(our.allocations)/float64(calls))
	}
	b.ReportMetric(0, "ns/op") // A round's wall time says nothing.
	assayTime, bareTime = median(ours), median(theirs)
	b.ReportMetric(assayTime, "assay-cpu-µs/call")
	b.ReportMetric(bareTime, "bare-cpu-µs/call")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(allocations), "assay-allocs/call")
	return assayTime, bareTime
}

func s2us(d time.Duration, calls int) float64 {
	return float64(d.Nanoseconds()) / 1000 / float64(calls)
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

// benchServer is a server in another process.
type benchServer struct {
	conn   *grpc.ClientConn
	stdin  io.Writer
	stdout *bufio.Scanner
}

func startBenchServer(b *testing.B, kind string) *benchServer {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchVariable+"="+kind)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	s := &benchServer{stdin: stdin, stdout: bufio.NewScanner(stdout)}
	s.stdout.Scan() // Its address.
	if s.conn, err = grpc.NewClient(s.stdout.Text(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		s.conn.Close()
		stdin.Close() // Which ends it.
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// usage is what a server has taken.
type usage struct {
	cpu         time.Duration
	allocations int64
}

func (s *benchServer) usage(b *testing.B) (u usage) {
	fmt.Fprintln(s.stdin)
	if !s.stdout.Scan() {
		b.Fatal("the server ended")
	}
	if _, err := fmt.Sscan(s.stdout.Text(), (*int64)(&u.cpu), &u.allocations); err != nil {
		b.Fatal(err)
	}
	return u
}

// round makes the calls and returns what they took the server.
func (s *benchServer) round(b *testing.B, calls int, call benchCall) usage {
	before := s.usage(b)
	var left atomic.Int64
	left.Store(int64(calls))
	var callers sync.WaitGroup
	for range benchCallers {
		callers.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(context.Background(), s.conn); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
	after := s.usage(b)
	return usage{after.cpu - before.cpu, after.allocations - before.allocations}
}

// runBenchServer is the child: it prints its address, then its CPU time and how
// often it has allocated for each line it reads, and ends with its input.
func runBenchServer(kind string) int {
	serve := newBenchServer
	if kind == benchBare {
		serve = newBareServer
	}
	srv, listener, err := serve()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go srv.Serve(listener)
	fmt.Println(listener.Addr())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		used, err := cpuTime()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		fmt.Println(used.Nanoseconds(), memory.Mallocs)
	}
	srv.Stop()
	return 0
}

// bare answers every request with the same message.
type bare struct {
	assayv1.UnimplementedAssignmentServiceServer
	one   *assayv1.AssignResponse
	batch *assayv1.BatchAssignResponse
}

func newBare() *bare {
	payload, _ := structpb.NewStruct(map[string]any{"title": "Pay now"})
	one := &assayv1.AssignResponse{Assignments: []*assayv1.Assignment{{
		Experiment: "checkout-copy", Variant: "short", Reason: assayv1.Reason_REASON_SPLIT, Payload: payload, Revision: 1,
	}}}
	batch := &assayv1.BatchAssignResponse{}
	for range 100 {
		batch.Results = append(batch.Results, &assayv1.BatchAssignResult{Assignments: one.Assignments})
	}
	return &bare{one: one, batch: batch}
}

func (s *bare) Assign(context.Context, *assayv1.AssignRequest) (*assayv1.AssignResponse, error) {
	return s.one, nil
}

func (s *bare) BatchAssign(context.Context, *assayv1.BatchAssignRequest) (*assayv1.BatchAssignResponse, error) {
	return s.batch, nil
}

// bareEvents answers that 100 items were recorded.
type bareEvents struct {
	assayv1.UnimplementedEventServiceServer
}

func (bareEvents) RecordOutcomes(context.Context, *assayv1.RecordOutcomesRequest) (*assayv1.RecordOutcomesResponse, error) {
	return &assayv1.RecordOutcomesResponse{Recorded: 100}, nil
}

func (bareEvents) RecordExposures(context.Context, *assayv1.RecordExposuresRequest) (*assayv1.RecordExposuresResponse, error) {
	return &assayv1.RecordExposuresResponse{Recorded: 100}, nil
}

func newBareServer() (*grpc.Server, net.Listener, error) {
	srv := grpc.NewServer()
	assayv1.RegisterAssignmentServiceServer(srv, newBare())
	assayv1.RegisterEventServiceServer(srv, bareEvents{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	return srv, l, err
}

// newBenchServer is the default server, and the listener that it has.
func newBenchServer() (*grpc.Server, net.Listener, error) {
	config, err := newBenchConfig()
	if err != nil {
		return nil, nil, err
	}
	srv, _, err := server.New(config)
	if err != nil {
		return nil, nil, err
	}
	bounded, err := server.Listen("127.0.0.1:0", server.ListenerConfig{Most: 1000, Metrics: config.Metrics, Log: config.Log})
	if err != nil {
		return nil, nil, err
	}
	go config.Exposures.Run(context.Background())
	go config.Outcomes.Run(context.Background())
	return srv, bounded, nil
}

// storeNothing stands for the database in recording.
func storeNothing[T any](_ context.Context, items []T) ([]experiment.Result, error) {
	results := make([]experiment.Result, len(items))
	for i := range results {
		results[i] = experiment.Recorded
	}
	return results, nil
}

// newBenchConfig has a catalog of one experiment. Assignment needs no database,
// so there is none.
func newBenchConfig() (server.Config, error) {
	def := experiment.Definition{
		Unit: "user", Traffic: 0.5, Salt: "checkout-copy",
		Eligibility: "attributes.country == 'PL' && attributes.age >= 18",
		Variants: []experiment.Variant{
			{Key: "control", Control: true, Weight: 1},
			{Key: "short", Weight: 1, Payload: []byte(`{"title":"Pay now"}`)},
		},
	}
	revision := experiment.Revision{Number: 1, Phase: 1, Definition: def, Allocation: experiment.FirstAllocation(def.Variants)}
	history := experiment.History{
		Experiment:  experiment.Experiment{ID: 1, Key: "checkout-copy", State: experiment.StateRunning, Version: 1, Current: revision},
		Revisions:   []experiment.Terms{revision.Terms()},
		Transitions: []experiment.Transition{{State: experiment.StateRunning}},
	}
	load := func(context.Context, map[string]*experiment.History) ([]experiment.History, bool, error) {
		return []experiment.History{history}, false, nil
	}
	log := slog.New(slog.DiscardHandler)
	store := catalog.New(postgrestest.Pepper, load, nil, nil, time.Hour, log)
	if err := store.Refresh(context.Background()); err != nil {
		return server.Config{}, err
	}
	return server.Config{
		Catalog: store, Pepper: postgrestest.Pepper, Exposures: event.NewWriter(storeNothing[experiment.Exposure], func(int) {}),
		Outcomes: event.NewWriter(storeNothing[experiment.Outcome], func(int) {}),
		Names:    func(context.Context, []experiment.Outcome) (*experiment.NameRefusal, error) { return nil, nil },
		Months:   func(context.Context, []experiment.Outcome) error { return nil },
		Lost:     prometheus.NewCounter(prometheus.CounterOpts{Name: "lost"}),
		Metrics:  prometheus.NewRegistry(), Log: log, Now: time.Now,
	}, nil
}

func benchSubject() *assayv1.Subject {
	attributes, _ := structpb.NewStruct(map[string]any{"country": "PL", "age": 31, "plan": "pro"})
	return &assayv1.Subject{Key: "u-1", Attributes: attributes}
}
