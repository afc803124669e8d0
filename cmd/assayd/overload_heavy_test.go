package main

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// heavyCallers is how many ask for comparisons at once.
const heavyCallers = 16

// BenchmarkOverloadComputing asks the real server for assignments, on a connection of
// their own and at a fixed pace, while sixteen callers ask for comparisons of 64 arms of
// 1,000 strata, each of which takes a processor seconds; before that without them, and
// beside messages of the same length that are refused for what they begin with, which
// shows what it takes to send so much on this machine; and afterwards, when their callers
// have left, again.
func BenchmarkOverloadComputing(b *testing.B) {
	text, err := proto.Marshal(heavySummaries())
	if err != nil {
		b.Fatal(err)
	}
	begin, err := proto.Marshal(&assayv1.CompareSummariesRequest{Components: make([]string, 33)})
	if err != nil {
		b.Fatal(err)
	}
	refused := append(begin, text[:len(text)-len(begin)]...)
	for b.Loop() {
		o := newOverload(b)
		alone := o.measure(b, "alone", idle)
		sent := o.measure(b, "refused", func(b *testing.B, d time.Duration) { o.compare(b, d, refused) })
		beside := o.measure(b, "comparisons", func(b *testing.B, d time.Duration) { o.compare(b, d, text) })
		left := o.measure(b, "they left", idle)
		b.ReportMetric(float64(len(text))/1e6, "MB-message")
		b.ReportMetric(alone.p99.Seconds()*1e3, "ms-assign-p99-alone")
		b.ReportMetric(sent.p99.Seconds()*1e3, "ms-assign-p99-refused")
		b.ReportMetric(beside.p99.Seconds()*1e3, "ms-assign-p99-beside")
		b.ReportMetric(beside.p99.Seconds()/alone.p99.Seconds(), "p99-ratio")
		b.ReportMetric(beside.p99.Seconds()/sent.p99.Seconds(), "p99-ratio-to-refused")
		b.ReportMetric(left.p99.Seconds()/alone.p99.Seconds(), "p99-ratio-left")
		b.ReportMetric(beside.peak, "MB-beside")
	}
	b.ReportMetric(0, "ns/op")
}

func idle(_ *testing.B, d time.Duration) { time.Sleep(d) }

// heavySummaries is a request that takes the server's computing as long as one may.
func heavySummaries() *assayv1.CompareSummariesRequest {
	req := &assayv1.CompareSummariesRequest{Components: []string{"x"}}
	for v := range 64 {
		arm := &assayv1.SummaryArm{Variant: fmt.Sprintf("v%d", v), Control: v == 0}
		for s := range 1000 {
			arm.Strata = append(arm.Strata, &assayv1.SummaryStratum{
				Stratum: fmt.Sprint(s), Subjects: int64(1000 + s), Means: []float64{1 + float64(v*7+s*3)/100}, Covariances: []float64{3},
			})
		}
		req.Arms = append(req.Arms, arm)
	}
	return req
}

// compare has callers ask for comparisons until the time is over, when they leave.
func (o *overload) compare(b *testing.B, d time.Duration, text encoded) {
	ctx, leave := context.WithTimeout(b.Context(), d)
	defer leave()
	var callers sync.WaitGroup
	for range heavyCallers {
		callers.Go(func() {
			for ctx.Err() == nil {
				var resp assayv1.CompareSummariesResponse
				err := o.records.Invoke(ctx, assayv1.AnalysisService_CompareSummaries_FullMethodName, text, &resp, grpc.ForceCodecV2(encodedCodec{}))
				switch status.Code(err) {
				case codes.OK:
					o.accepted.Add(1)
				case codes.ResourceExhausted, codes.InvalidArgument:
					o.refused.Add(1)
					select { // As the server asks of them.
					case <-ctx.Done():
					case <-time.After(time.Second):
					}
				case codes.DeadlineExceeded, codes.Canceled:
				default:
					b.Error(err)
				}
			}
		})
	}
	callers.Wait()
}
