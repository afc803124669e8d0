package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// overloadTime is how long each load of BenchmarkOverload lasts.
var overloadTime = flag.Duration("overload", 3*time.Second, "BenchmarkOverload: how long each load lasts")

const (
	overloadBatch   = 1000 // Outcomes in a call.
	overloadCallers = 16   // Of the sustainable load.
	overloadFactor  = 10
	// overloadWaiting bounds the calls that the client has open. A server that
	// refuses late reaches it.
	overloadWaiting = 2000
	// assignPause is the time between two assignments.
	assignPause = 4 * time.Millisecond
)

// BenchmarkOverload runs the real server with a private Postgres that flushes
// to disk, and its client in this process. It records as fast as the server
// takes batches, which is the sustainable load; then it sends ten times as many
// batches a second, whether it is answered or not, and again what was refused.
// All the while it asks for assignments, on a connection of
// their own and at a fixed pace.
func BenchmarkOverload(b *testing.B) {
	for b.Loop() {
		o := newOverload(b)
		o.sustain(b, *overloadTime/3) // Connections, partitions, the collector's pace.
		best := o.measure(b, "sustainable", o.sustain)
		flood := o.measure(b, "10 times", func(b *testing.B, d time.Duration) {
			o.flood(b, d, time.Duration(overloadBatch/(best.rate*overloadFactor)*float64(time.Second)))
		})
		after := o.measure(b, "afterwards", o.sustain)
		// The machine may have been busy with other things before or after.
		best.rate, best.p99 = max(best.rate, after.rate), min(best.p99, after.p99)
		b.ReportMetric(best.rate, "best/s")
		b.ReportMetric(flood.rate, "overloaded/s")
		b.ReportMetric(flood.rate/best.rate, "accepted-ratio")
		b.ReportMetric(best.peak, "MB-best")
		b.ReportMetric(flood.peak, "MB-overloaded")
		b.ReportMetric(best.p99.Seconds()*1e3, "ms-assign-p99-best")
		b.ReportMetric(flood.p99.Seconds()*1e3, "ms-assign-p99-overloaded")
		b.ReportMetric(flood.p99.Seconds()/best.p99.Seconds(), "p99-ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// overload is a server and what was sent to it.
type overload struct {
	server   *process
	records  *grpc.ClientConn
	assigns  *grpc.ClientConn
	next     atomic.Int64 // Number of the next batch.
	accepted atomic.Int64 // Outcomes that the server acknowledged.
	refused  atomic.Int64 // Calls.
}

func newOverload(b *testing.B) *overload {
	p := start(b, "serve", "--listen", "127.0.0.1:0", "--data-dir", temporary(b, "assay-overload-"))
	addr := p.address(b)
	o := &overload{server: p, records: connect(b, addr), assigns: connect(b, addr)}
	for _, c := range [][3]string{
		{"assay.v1.ExperimentService", "CreateExperiment", `{"experiment":{"key":"plain","eligibility":"attributes.age >= 18","variants":[{"key":"a","control":true},{"key":"b"}]}}`},
		{"assay.v1.ExperimentService", "StartExperiment", `{"key":"plain"}`},
	} {
		if _, err := call(b.Context(), o.assigns, c[0], c[1], c[2]); err != nil {
			b.Fatal(err)
		}
	}
	return o
}

// measured is what a load showed.
type measured struct {
	rate float64       // Outcomes acknowledged per second.
	p99  time.Duration // Of assignments.
	peak float64       // Memory of the server, in MB.
}

func (o *overload) measure(b *testing.B, name string, run func(*testing.B, time.Duration)) measured {
	// What counts is the peak of this load alone.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", o.server.cmd.Process.Pid), []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
	accepted, refused := o.accepted.Load(), o.refused.Load()
	stop := o.assign(b)
	began := time.Now()
	run(b, *overloadTime)
	took := time.Since(began)
	times := stop()
	m := measured{rate: float64(o.accepted.Load()-accepted) / took.Seconds(), p99: times[len(times)*99/100], peak: o.peak(b)}
	b.Logf("%-11s %6.0f outcomes/s acknowledged, %4.0f calls/s refused, assignments: median %v, 99 %% within %v (of %d), %.0f MB",
		name, m.rate, float64(o.refused.Load()-refused)/took.Seconds(), times[len(times)/2], m.p99, len(times), m.peak)
	return m
}

// peak returns the most memory that the server held, in MB.
func (o *overload) peak(b *testing.B) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", o.server.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	kB, err := strconv.ParseFloat(string(regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return kB / 1024
}

// assign asks for assignments until it is stopped, and returns how long each
// took, sorted.
func (o *overload) assign(b *testing.B) (stop func() []time.Duration) {
	ctx, cancel := context.WithCancel(b.Context())
	client := assayv1.NewAssignmentServiceClient(o.assigns)
	req := &assayv1.AssignRequest{Subject: &assayv1.Subject{Key: "u-1"}, Experiments: []string{"plain"}}
	var mu sync.Mutex
	var times []time.Duration
	var asking sync.WaitGroup
	asking.Go(func() {
		for tick := time.NewTicker(assignPause); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			asking.Go(func() {
				began := time.Now()
				_, err := client.Assign(b.Context(), req)
				took := time.Since(began)
				if err != nil {
					b.Error(err)
				}
				mu.Lock()
				times = append(times, took)
				mu.Unlock()
			})
		}
	})
	return func() []time.Duration {
		cancel()
		asking.Wait()
		slices.Sort(times)
		return times
	}
}

// sustain has callers send a batch as soon as the last one is acknowledged.
func (o *overload) sustain(b *testing.B, d time.Duration) {
	var callers sync.WaitGroup
	end := time.Now().Add(d)
	for range overloadCallers {
		callers.Go(func() {
			for time.Now().Before(end) {
				if err := o.send(b, o.message(b)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
}

// flood sends a batch every so often. What was refused is sent again when its
// turn comes.
func (o *overload) flood(b *testing.B, d, every time.Duration) {
	var calls sync.WaitGroup
	waiting, again := make(chan struct{}, overloadWaiting), make(chan encoded, overloadWaiting)
	began := time.Now()
	for n := 0; time.Since(began) < d; n++ {
		time.Sleep(time.Until(began.Add(time.Duration(n) * every)))
		waiting <- struct{}{}
		var req encoded
		select {
		case req = <-again:
		default:
			req = o.message(b)
		}
		calls.Go(func() {
			if err := o.send(b, req); status.Code(err) == codes.ResourceExhausted {
				o.refused.Add(1)
				again <- req
			} else if err != nil {
				b.Error(err)
			}
			<-waiting
		})
	}
	calls.Wait()
}

func (o *overload) send(b *testing.B, req encoded) error {
	resp := &assayv1.RecordOutcomesResponse{}
	if err := o.records.Invoke(b.Context(), assayv1.EventService_RecordOutcomes_FullMethodName, req, resp, grpc.ForceCodecV2(encodedCodec{})); err != nil {
		return err
	}
	if resp.Recorded != overloadBatch {
		b.Errorf("%v", resp)
	}
	o.accepted.Add(int64(resp.Recorded))
	return nil
}

// message returns the next batch of outcomes.
func (o *overload) message(b *testing.B) encoded {
	first := o.next.Add(overloadBatch) - overloadBatch
	batch := newOutcomes(overloadBatch)
	for k := range overloadBatch {
		batch.set(k, first+int64(k))
	}
	text, err := proto.Marshal(batch.request)
	if err != nil {
		b.Error(err)
	}
	return text
}

// encoded is a message that is ready to be sent, as often as it takes: the
// client is to take little of the machine.
type encoded []byte

type encodedCodec struct{}

func (encodedCodec) Name() string { return "proto" }

func (encodedCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(encoded))}, nil
}

func (encodedCodec) Unmarshal(data mem.BufferSlice, v any) error {
	return proto.Unmarshal(data.Materialize(), v.(proto.Message))
}
