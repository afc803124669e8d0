package server

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/assign"
)

// TestEveryMethodHasAClass walks what is served.
func TestEveryMethodHasAClass(t *testing.T) {
	srv, _, err := New(Config{Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for service, info := range srv.GetServiceInfo() {
		for _, m := range info.Methods {
			name := "/" + service + "/" + m.Name
			served[name] = true
			if c, ok := classes[name]; !ok || (c == classStream) != (m.IsClientStream || m.IsServerStream) {
				t.Errorf("%s is of class %q", name, c)
			}
		}
	}
	for name := range classes {
		if !served[name] {
			t.Errorf("%s is not served", name)
		}
	}
}

func newTestWork(t *testing.T) *work {
	t.Helper()
	w, err := newWork(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// callOf plays a call of a method through the interceptors that say its fate.
func callOf(ctx context.Context, w *work, method string, handler func(context.Context) error) error {
	info := &grpc.UnaryServerInfo{FullMethod: method}
	_, err := w.admit(ctx, struct{}{}, info, func(ctx context.Context, _ any) (any, error) { return nil, handler(ctx) })
	if err != nil {
		err = toStatus(ctx, err, method, slog.New(slog.DiscardHandler))
	}
	return err
}

// TestDeadlines holds that a call ends at the deadline of its class, whether it waits or
// works, and earlier if that is the caller's.
func TestDeadlines(t *testing.T) {
	for class, b := range boundsOf() {
		method := ""
		for name, c := range classes {
			if c == class {
				method = name
			}
		}
		synctest.Test(t, func(t *testing.T) {
			w := newTestWork(t)
			began := time.Now()
			hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
			for range b.atOnce {
				go callOf(t.Context(), w, method, hang)
			}
			synctest.Wait()
			if b.queue > 0 {
				own, cancel := context.WithTimeout(t.Context(), b.deadline/2)
				defer cancel()
				if err := callOf(own, w, method, hang); status.Code(err) != codes.DeadlineExceeded || len(status.Convert(err).Details()) != 0 || time.Since(began) != b.deadline/2 {
					t.Errorf("%s, by the caller's deadline: %v after %v", class, err, time.Since(began))
				}
			}
			synctest.Wait()
			var refused error
			for range b.queue + 1 {
				go func() {
					if err := callOf(t.Context(), w, method, hang); status.Code(err) == codes.ResourceExhausted {
						refused = err
					}
				}()
			}
			synctest.Wait()
			if refused == nil || reasonOf(refused) != "QUEUE_FULL" {
				t.Errorf("%s: one more than the queue holds: %v", class, refused)
			}
			time.Sleep(b.deadline)
			synctest.Wait()
			began = time.Now()
			if err := callOf(t.Context(), w, method, hang); status.Code(err) != codes.DeadlineExceeded || reasonOf(err) != "SERVER_DEADLINE" || time.Since(began) != b.deadline {
				t.Errorf("%s, by the server's deadline: %v after %v", class, err, time.Since(began))
			}
		})
	}
}

// TestBoundsAreSaid holds the operator's page to the bounds there are.
func TestBoundsAreSaid(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.Join(strings.Fields(string(text)), " ")
	of := boundsOf()
	definitions, subjects := of[classDefinitions], of[classSubjects]
	for _, said := range []string{
		fmt.Sprintf("definitions %d at once and %.0f seconds, subjects %d and %.0f minutes, analyses %.0f minutes, and computations, which are `CompareSummaries`, a minute",
			definitions.atOnce, definitions.deadline.Seconds(), subjects.atOnce, subjects.deadline.Minutes(), of[classAnalysis].deadline.Minutes()),
		fmt.Sprintf("the decoding of requests of more than %d KiB in these classes take turns on all processors but one", longMessage>>10),
		"Two analyses read events at once, one of them at most of more than 20,000 subjects",
		fmt.Sprintf("may take an eighth of the memory limit, or %d GiB without one", defaultAnalysisBytes>>30),
		fmt.Sprintf("Requests to record may take %d MiB of memory", recordingBytes>>20),
		fmt.Sprintf("other requests than those to record have %d MiB, those below %d bytes %d MiB of their own, and answers that their callers have not read %d MiB", requestBytes>>20, smallMessage, smallBytes>>20, replyBytes>>20),
		fmt.Sprintf("A message may hold %d MiB and 10,000 items", maxMessageBytes>>20),
		fmt.Sprintf("lies more than %d levels deep", maxNesting),
		fmt.Sprintf("A page of a list is at most %d MiB", maxPageBytes>>20),
		"they share three eighths of the memory limit",
		fmt.Sprintf("A subject may have 1,000 attributes, 1,024 bytes in a text or a name, 1,024 elements in a list or a map, %d levels, and %d KiB in all, with %d bytes for each value", assign.MaxAttributeDepth, assign.MaxAttributeBytes>>10, assign.AttributeWeight),
	} {
		if !strings.Contains(page, said) {
			t.Errorf("the page does not say: %s", said)
		}
	}
	if of[classComputing].deadline != time.Minute || analysesAtOnce != 2 || largeAtOnce != 1 || smallSubjects != 20_000 || memoryShare != 8 || budgetShare != 3./8 || maxBatchItems != 10_000 ||
		assign.MaxAttributes != 1000 || assign.MaxAttributeText != 1024 || assign.MaxAttributeItems != 1024 {
		t.Error("a bound is another than what the page says")
	}
}

// TestLanes holds that a small analysis waits for small ones alone, and that one keeps
// its place until its call ends.
func TestLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTestWork(t)
		reading := map[string]chan struct{}{} // Closed to end the call.
		begin := func(name string, large bool) {
			end := make(chan struct{})
			go callOf(t.Context(), w, assayv1.AnalysisService_AnalyzeExperiment_FullMethodName, func(ctx context.Context) error {
				if err := ctx.Value(placeKey{}).(*place).enterLane(ctx, large); err != nil {
					return err
				}
				reading[name] = end
				<-end
				delete(reading, name)
				return nil
			})
			synctest.Wait()
		}
		check := func(names ...string) {
			t.Helper()
			synctest.Wait()
			if len(reading) != len(names) {
				t.Errorf("%d read, want %q", len(reading), names)
			}
			for _, name := range names {
				if reading[name] == nil {
					t.Errorf("%s does not read", name)
				}
			}
		}
		for _, name := range []string{"large 1", "large 2", "large 3", "large 4"} {
			begin(name, true)
		}
		check("large 1")
		begin("small 1", false)
		begin("small 2", false)
		check("large 1", "small 1")
		close(reading["small 1"])
		check("large 1", "small 2")
		close(reading["large 1"])
		check("large 2", "small 2")
		for len(reading) > 0 {
			for _, end := range reading {
				close(end)
				break
			}
			synctest.Wait()
		}
	})
}

// TestAnalysesComputeInTurn holds that the computing parts of analyses take turns with all
// that compute.
func TestAnalysesComputeInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTestWork(t)
		working, most := int64(0), int64(0)
		step := func() error {
			working++
			most = max(most, working)
			time.Sleep(time.Millisecond)
			working--
			return nil
		}
		for range 20 {
			go callOf(t.Context(), w, assayv1.AnalysisService_CompareSummaries_FullMethodName, func(context.Context) error { return step() })
			go callOf(t.Context(), w, assayv1.AnalysisService_PlanExperiment_FullMethodName, func(ctx context.Context) error { return inTurn(ctx, step) })
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if working != 0 || most != turnsAtOnce() {
			t.Errorf("%d computed at once, %d still do", most, working)
		}
	})
}

func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return ""
}
