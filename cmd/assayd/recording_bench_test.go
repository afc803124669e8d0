package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// The benchmarks of recording run the real server with its private Postgres,
// which flushes to disk, and drive it from this process on the same cores.
// What they compare with runs in turns with it: a COPY of the same rows, as
// they are stored, into a table without an index of the same Postgres; or a
// handler that stores nothing.

var recordingGrowth = flag.Int("growth", 0, "BenchmarkRecordingGrowth: millions of outcomes to grow to")

const (
	recordingRounds  = 5
	recordingRound   = 500_000 // Outcomes that are timed at once.
	recordingBatch   = 1_000
	recordingCallers = 16
	singleCallers    = 256
	singleRound      = 60_000
)

// BenchmarkRecording sends outcomes in batches of 1,000, without duplicates and
// with 5 % spread through all batches. It also tells what a COPY into a table with
// the key of outcomes reaches, and the processor time that each of the three
// processes takes for an outcome that is new.
func BenchmarkRecording(b *testing.B) {
	r := newRecording(b)
	for b.Loop() {
		var keyed, clean, duplicates []float64
		var spent processors
		for range recordingRounds {
			raw := r.copyTo(b, "raw", recordingRound)
			keyed = append(keyed, raw/r.copyTo(b, "keyed", recordingRound))
			clean = append(clean, raw/r.send(b, recordingRound, 0))
			for process := range spent {
				spent[process] += r.spent[process]
			}
			duplicates = append(duplicates, raw/r.send(b, recordingRound, 0.05))
			b.Logf("a COPY stores %.0f rows/s; %.3f of that with a key, %.3f through the API, %.3f with duplicates",
				recordingRound/raw, keyed[len(keyed)-1], clean[len(clean)-1], duplicates[len(duplicates)-1])
		}
		b.ReportMetric(middle(keyed), "of-copy-keyed")
		b.ReportMetric(middle(clean), "of-copy")
		b.ReportMetric(middle(duplicates), "of-copy-with-duplicates")
		for process, seconds := range spent {
			b.ReportMetric(seconds*1e6/(recordingRounds*recordingRound), processNames[process]+"-µs")
		}
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRecordingGrowth tells how the speed changes while outcomes gather.
func BenchmarkRecordingGrowth(b *testing.B) {
	if *recordingGrowth == 0 {
		b.Skip("takes minutes, and -growth")
	}
	r := newRecording(b)
	for next := 1; next <= *recordingGrowth; next++ {
		r.fill(b, next*1_000_000-recordingRound)
		raw := r.copyTo(b, "raw", recordingRound)
		took := r.send(b, recordingRound, 0)
		fmt.Printf("%3d million outcomes: %.3f of a COPY, %.0f rows/s\n", next, raw/took, recordingRound/took) // A benchmark's log is cut off after a few lines.
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRecordOne sends single outcomes from 256 callers, in turns to the
// server and to a handler that answers the same message and stores nothing.
func BenchmarkRecordOne(b *testing.B) {
	r := newRecording(b)
	bare := connect(b, startBareRecorder(b))
	var ratios []float64
	for b.Loop() {
		ours := r.sendSingles(b, r.conn)
		theirs := r.sendSingles(b, bare)
		ratios = append(ratios, theirs/ours)
		b.Logf("%.0f calls/s, a bare handler %.0f", singleRound/ours, singleRound/theirs)
	}
	b.ReportMetric(middle(ratios), "of-bare-handler")
	b.ReportMetric(0, "ns/op")
}

func middle(x []float64) float64 {
	sum := 0.0
	low, high := x[0], x[0]
	for _, v := range x {
		sum, low, high = sum+v, min(low, v), max(high, v)
	}
	if len(x) < 3 {
		return sum / float64(len(x))
	}
	return (sum - low - high) / float64(len(x)-2)
}

// recording is a server under load.
type recording struct {
	conn *grpc.ClientConn
	db   *pgx.Conn
	pids [3]string // Of client, server, postmaster.

	sent  int64      // Numbers the outcomes that are new.
	spent processors // By the last send.
}

func newRecording(b *testing.B) *recording {
	dir := temporary(b, "assay-recording-")
	p := start(b, "serve", "--listen", "127.0.0.1:0", "--data-dir", dir)
	r := &recording{conn: connect(b, p.address(b))}
	postmaster, err := os.ReadFile(filepath.Join(dir, "postgres", "postmaster.pid"))
	if err != nil {
		b.Fatal(err)
	}
	r.pids = [3]string{strconv.Itoa(os.Getpid()), strconv.Itoa(p.cmd.Process.Pid), strings.Fields(string(postmaster))[0]}
	if r.db, err = pgx.Connect(b.Context(), socketURL(b, filepath.Clean(dir))); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.db.Close(context.Background()) })
	if _, err := r.db.Exec(b.Context(), `CREATE TABLE raw (LIKE outcomes INCLUDING DEFAULTS); CREATE TABLE keyed (LIKE outcomes INCLUDING ALL)`); err != nil {
		b.Fatal(err)
	}
	r.send(b, recordingBatch*recordingCallers, 0) // Partitions, names, connections.
	return r
}

// recordingEpoch is the time of the first outcome; 200 follow each second.
var recordingEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func outcomeTime(i int64) time.Time {
	return recordingEpoch.Add(time.Duration(i) * 5 * time.Millisecond)
}

// outcomes are the messages of one caller, whose content it sets anew.
type outcomes struct {
	request *assayv1.RecordOutcomesRequest
	values  []float64
}

func newOutcomes(n int) *outcomes {
	o := &outcomes{&assayv1.RecordOutcomesRequest{Outcomes: make([]*assayv1.Outcome, n)}, make([]float64, n)}
	properties := &structpb.Struct{Fields: map[string]*structpb.Value{"sku": structpb.NewStringValue("A1")}}
	for k := range n {
		o.request.Outcomes[k] = &assayv1.Outcome{
			Subject: &assayv1.Subject{}, Name: "purchase", Value: &o.values[k], OccurredTime: &timestamppb.Timestamp{}, Properties: properties,
		}
	}
	return o
}

// set makes the k-th outcome the i-th of all.
func (o *outcomes) set(k int, i int64) {
	out, at := o.request.Outcomes[k], outcomeTime(i)
	out.EventId = "order-" + strconv.FormatInt(i, 10)
	out.Subject.Key = "u-" + strconv.FormatInt(i*7919%5_000_000, 10)
	out.OccurredTime.Seconds, out.OccurredTime.Nanos = at.Unix(), int32(at.Nanosecond())
	o.values[k] = float64(i%10_000) / 100
}

// batches returns n outcomes to send in batches, of which a share stands for
// older ones sent again, and how many are new.
func (r *recording) batches(n int, duplicates float64) (requests []*assayv1.RecordOutcomesRequest, fresh int64) {
	from, again := r.sent, int64(duplicates*recordingBatch)
	for range n / recordingBatch {
		batch := newOutcomes(recordingBatch)
		for k := range int64(recordingBatch) {
			if k < again {
				batch.set(int(k), from-1-(r.sent+k*97)%from)
			} else {
				batch.set(int(k), r.sent+k-again)
			}
		}
		r.sent += recordingBatch - again
		requests = append(requests, batch.request)
	}
	return requests, r.sent - from
}

// send records outcomes, of which a share stands for older ones sent again, and
// returns how long it took in seconds. Its messages are made before, as are the
// rows of copyTo: on either side the clock runs for the encoding and the sending.
func (r *recording) send(b *testing.B, n int, duplicates float64) float64 {
	client := assayv1.NewEventServiceClient(r.conn)
	requests, fresh := r.batches(n, duplicates)
	var next, recorded, known atomic.Int64
	runtime.GC()
	before := r.processors(b)
	began := time.Now()
	var g errgroup.Group
	for range recordingCallers {
		g.Go(func() error {
			for i := next.Add(1) - 1; i < int64(len(requests)); i = next.Add(1) - 1 {
				resp, err := client.RecordOutcomes(b.Context(), requests[i])
				if err != nil {
					return err
				}
				recorded.Add(int64(resp.Recorded))
				known.Add(int64(resp.Duplicates))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	took := time.Since(began).Seconds()
	r.spent = r.processors(b)
	for process := range before {
		r.spent[process] -= before[process]
	}
	if recorded.Load() != fresh || recorded.Load()+known.Load() != int64(n) {
		b.Fatalf("%d outcomes were recorded and %d known; %d of %d were new", recorded.Load(), known.Load(), fresh, n)
	}
	return took
}

// processors is the processor time that client, server and Postgres have taken, in
// seconds.
type processors [3]float64

var processNames = [...]string{"client", "server", "postgres"}

func (r *recording) processors(b *testing.B) (taken processors) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range paths {
		stat, _ := os.ReadFile(path) // Its process may have ended.
		text := string(stat)
		pid, _, _ := strings.Cut(text, " ")
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // State, parent, …; see proc(5).
		process := slices.Index(r.pids[:], pid)
		if len(fields) > 1 && fields[1] == r.pids[2] {
			process = 2 // A child of the postmaster.
		}
		if process < 0 {
			continue
		}
		for _, ticks := range fields[11:13] {
			n, _ := strconv.ParseFloat(ticks, 64)
			taken[process] += n / 100
		}
	}
	return taken
}

// copyTo copies as many rows into an empty table as send stores, as it stores them,
// and returns how long it took in seconds.
func (r *recording) copyTo(b *testing.B, table string, n int) float64 {
	rows := make([][]any, n)
	for i := range rows {
		at := outcomeTime(int64(i))
		var subject [16]byte
		rand.Read(subject[:])
		rows[i] = []any{[16]byte(experiment.NewRowID(at, fmt.Sprintf("order-%d", i))), subject, int32(1), float64(i%10_000) / 100, at, `{"sku":"A1"}`}
	}
	if _, err := r.db.Exec(b.Context(), "TRUNCATE "+table); err != nil {
		b.Fatal(err)
	}
	runtime.GC()
	began := time.Now()
	if _, err := r.db.CopyFrom(b.Context(), pgx.Identifier{table},
		[]string{"row_id", "subject_id", "name_id", "value", "occurred_time", "properties"}, pgx.CopyFromRows(rows)); err != nil {
		b.Fatal(err)
	}
	return time.Since(began).Seconds()
}

// fill records until so many outcomes are stored.
func (r *recording) fill(b *testing.B, until int) {
	if missing := until - int(r.sent); missing > 0 {
		r.send(b, missing/recordingBatch*recordingBatch, 0)
	}
}

// sendSingles records one outcome a call, and returns how long it took.
func (r *recording) sendSingles(b *testing.B, conn *grpc.ClientConn) float64 {
	client := assayv1.NewEventServiceClient(conn)
	var next atomic.Int64
	next.Store(r.sent)
	r.sent += singleRound
	var callers sync.WaitGroup
	began := time.Now()
	for range singleCallers {
		callers.Go(func() {
			batch := newOutcomes(1)
			for i := next.Add(1); i <= r.sent; i = next.Add(1) {
				batch.set(0, i-1)
				resp, err := client.RecordOutcomes(b.Context(), batch.request)
				if err != nil || resp.Recorded != 1 {
					b.Errorf("%v, %v", resp, err)
					return
				}
			}
		})
	}
	callers.Wait()
	return time.Since(began).Seconds()
}

// bareRecorder answers every request alike.
type bareRecorder struct {
	assayv1.UnimplementedEventServiceServer
}

func (bareRecorder) RecordOutcomes(context.Context, *assayv1.RecordOutcomesRequest) (*assayv1.RecordOutcomesResponse, error) {
	return &assayv1.RecordOutcomesResponse{Recorded: 1}, nil
}

// bareVariable makes this binary a server of bareRecorder, in a process of its
// own like the other.
const bareVariable = "ASSAY_BARE_RECORDER"

func runBareRecorder() int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	srv := grpc.NewServer()
	assayv1.RegisterEventServiceServer(srv, bareRecorder{})
	fmt.Println(listener.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin) // Which ends with the benchmark.
		srv.Stop()
	}()
	if err := srv.Serve(listener); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func startBareRecorder(b *testing.B) string {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), bareVariable+"=1", fmt.Sprintf("GOGC=%d", gcPercent))
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
	b.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	address := bufio.NewScanner(stdout)
	address.Scan()
	return address.Text()
}
