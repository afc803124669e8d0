package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// recorder is an event service that keeps what it gets in memory.
type recorder struct {
	assayv1.UnimplementedEventServiceServer

	fail   func(call int) error // Nil: never.
	reject func(key string) *assayv1.Rejection

	mu        sync.Mutex
	calls     int
	exposures map[string]int // Subject key → times.
	outcomes  map[string]int // Event id → times.
	largest   int            // Items of the largest batch.
}

func (r *recorder) RecordExposures(_ context.Context, req *assayv1.RecordExposuresRequest) (*assayv1.RecordExposuresResponse, error) {
	keys := make([]string, len(req.GetExposures()))
	for i, e := range req.GetExposures() {
		keys[i] = e.GetSubject().GetKey()
	}
	return record(r, &r.exposures, keys, &assayv1.RecordExposuresResponse{}, func(a *assayv1.RecordExposuresResponse) (*int32, *int32, *[]*assayv1.Rejection) {
		return &a.Recorded, &a.Duplicates, &a.Rejected
	})
}

func (r *recorder) RecordOutcomes(_ context.Context, req *assayv1.RecordOutcomesRequest) (*assayv1.RecordOutcomesResponse, error) {
	keys := make([]string, len(req.GetOutcomes()))
	for i, o := range req.GetOutcomes() {
		keys[i] = o.GetEventId()
	}
	return record(r, &r.outcomes, keys, &assayv1.RecordOutcomesResponse{}, func(a *assayv1.RecordOutcomesResponse) (*int32, *int32, *[]*assayv1.Rejection) {
		return &a.Recorded, &a.Duplicates, &a.Rejected
	})
}

func record[A any](r *recorder, into *map[string]int, keys []string, a *A, of func(*A) (*int32, *int32, *[]*assayv1.Rejection)) (*A, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.fail != nil {
		if err := r.fail(r.calls); err != nil {
			return nil, err
		}
	}
	if *into == nil {
		*into = map[string]int{}
	}
	r.largest = max(r.largest, len(keys))
	recorded, duplicates, rejected := of(a)
	for i, key := range keys {
		if r.reject != nil {
			if rejection := r.reject(key); rejection != nil {
				rejection.Index = int32(i)
				*rejected = append(*rejected, rejection)
				continue
			}
		}
		if (*into)[key]++; (*into)[key] == 1 {
			*recorded++
		} else {
			*duplicates++
		}
	}
	return a, nil
}

// listen serves the recorder until the test ends and returns its address.
func (r *recorder) listen(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	assayv1.RegisterEventServiceServer(srv, r)
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	return l.Addr().String()
}

const smallMapping = `
subject: {key: "{id}"}
exposure: {experiment: e, variant: "{variant}", time: 2008-03-01T00:00:00Z}
outcomes:
  - {name: buy, event_id: "buy-{id}", value: "{spend}", time: 2008-03-02T00:00:00Z, when: {column: spend, not: [""]}}
`

// importText runs the command on a file and returns what it printed.
func importText(t *testing.T, target, text string) (stdout string, err error) {
	t.Helper()
	dir := t.TempDir()
	mappingFile, file := filepath.Join(dir, "mapping.yaml"), filepath.Join(dir, "file.csv")
	for name, content := range map[string]string{mappingFile: smallMapping, file: text} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	e := env{getenv: func(string) string { return "" }, stdout: &out, stderr: io.Discard}
	err = run(t.Context(), []string{"import", "--target", target, "--mapping", mappingFile, file}, e)
	return out.String(), err
}

func TestImport(t *testing.T) {
	r := &recorder{}
	target := r.listen(t)
	var file strings.Builder
	file.WriteString("\ufeffid,variant,spend\r\n")
	for i := range 5_001 {
		fmt.Fprintf(&file, "u%d,\"a\",%s\r\n", i, []string{"", "2.5"}[i%2])
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write([]byte(file.String()))
	z.Close()

	out, err := importText(t, target, file.String())
	if err != nil {
		t.Fatal(err)
	}
	want := `5,001 rows read, 0 not understood.

             recorded  duplicates  rejected
  exposures     5,001           0         0
  outcomes      2,500           0         0
`
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if r.largest != batchItems || r.calls != 5 {
		t.Errorf("%d calls, the largest of %d items, want 5 and %d", r.calls, r.largest, batchItems)
	}

	// The same again, compressed: nothing is new.
	out, err = importText(t, target, zipped.String())
	if err != nil {
		t.Fatal(err)
	}
	want = `5,001 rows read, 0 not understood.

             recorded  duplicates  rejected
  exposures         0       5,001         0
  outcomes          0       2,500         0
`
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("report of the second import (-want +got):\n%s", diff)
	}
	for i := range 5_001 {
		key := fmt.Sprintf("u%d", i)
		if r.exposures[key] != 2 || r.outcomes["buy-"+key] != 2*(i%2) {
			t.Fatalf("%s: %d exposures, %d outcomes", key, r.exposures[key], r.outcomes["buy-"+key])
		}
	}
}

func TestImportReportsLines(t *testing.T) {
	r := &recorder{reject: func(key string) *assayv1.Rejection {
		switch key {
		case "u-bad":
			return &assayv1.Rejection{Reason: assayv1.RejectionReason_REJECTION_REASON_VARIANT_NOT_FOUND, Message: "no such variant"}
		case "buy-u-bad":
			return &assayv1.Rejection{Reason: assayv1.RejectionReason_REJECTION_REASON_INVALID_FIELD, Field: "value", Message: "too large"}
		}
		return nil
	}}
	out, err := importText(t, r.listen(t), `id,variant,spend
u1,a,1
u2,a
u3,a,much
"u
4",a,4
u"5,a,5
u-bad,a,6
u7,a,`+strings.Repeat("7", 400)+"\n"+strings.Repeat("x,x\n", 30))
	if want := "import: 34 rows were not understood and 2 items were rejected; everything else is recorded"; err == nil || err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	want := `37 rows read, 34 not understood.

             recorded  duplicates  rejected
  exposures         2           0         1
  outcomes          2           0         1

Rejected items by reason:
  INVALID_FIELD: 1
  VARIANT_NOT_FOUND: 1

Not recorded:
  line 3: row: has 2 fields, the header has 3
  line 4: row: outcomes[0].value: "much" is not a number
  line 7: row: bare " in non-quoted-field
  line 8: exposure: VARIANT_NOT_FOUND: no such variant
  line 8: outcome: INVALID_FIELD: value: too large
  line 9: row: outcomes[0].value: "` + strings.Repeat("7", 400) + `" is not a number
`
	for i := range 14 {
		want += fmt.Sprintf("  line %d: row: has 2 fields, the header has 3\n", 10+i)
	}
	want += "  … and 16 more\n"
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if got := r.outcomes["buy-u\n4"]; got != 1 {
		t.Errorf("the quoted row was recorded %d times", got)
	}
}

func TestImportReportsLinesOfLaterBatches(t *testing.T) {
	r := &recorder{reject: func(key string) *assayv1.Rejection {
		if key != "u4050" {
			return nil
		}
		return &assayv1.Rejection{Reason: assayv1.RejectionReason_REJECTION_REASON_LIMIT, Message: "full"}
	}}
	var file strings.Builder
	file.WriteString("id,variant,spend\n")
	for i := range 4_100 {
		fmt.Fprintf(&file, "u%d,a,\n", i)
	}
	out, err := importText(t, r.listen(t), file.String())
	if want := "  line 4052: exposure: LIMIT: full\n"; err == nil || !strings.Contains(out, want) {
		t.Errorf("error %v, no %q in the report:\n%s", err, want, out)
	}
}

func TestImportSplitsLargeBatches(t *testing.T) {
	r := &recorder{}
	long := strings.Repeat("k", 300_000)
	out, err := importText(t, r.listen(t), "id,variant,spend\n"+
		long+"1,a,\n"+long+"2,a,\n"+long+"3,a,\n"+long+"4,a,\n"+strings.Repeat("k", 1_100_000)+",a,\n"+"small,a,\n")
	if err == nil || !strings.Contains(out, "line 6: exposure: LIMIT: ") {
		t.Errorf("error %v, report:\n%s", err, out)
	}
	if r.calls != 2 || len(r.exposures) != 5 {
		t.Errorf("%d calls brought %d exposures, want 2 and 5", r.calls, len(r.exposures))
	}
}

func TestImportRefusesBeforeSending(t *testing.T) {
	r := &recorder{}
	target := r.listen(t)
	for name, text := range map[string]string{
		"an unknown column": "id,variant,price\nu1,a,1\n",
		"no header":         "",
		"broken gzip":       "\x1f\x8bnothing",
	} {
		if out, err := importText(t, target, text); err == nil {
			t.Errorf("%s: no error; report:\n%s", name, out)
		}
	}
	if r.calls != 0 {
		t.Errorf("%d batches were sent", r.calls)
	}
}

// The rows before the fault of the file itself are recorded and reported.
func TestImportOfCutFile(t *testing.T) {
	r := &recorder{}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	fmt.Fprint(z, "id,variant,spend\nu1,a,1\n")
	z.Close()
	_, err := importText(t, r.listen(t), zipped.String()[:zipped.Len()-6])
	if want := "import: unexpected EOF"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestImportGoesOnAfterAnOutage(t *testing.T) {
	busy, err := status.New(codes.ResourceExhausted, "busy").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{fail: func(call int) error {
		if call%3 != 0 {
			return busy.Err()
		}
		return nil
	}}
	out, err := importText(t, r.listen(t), "id,variant,spend\nu1,a,1\nu2,a,2\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(r.exposures) != 2 || len(r.outcomes) != 2 {
		t.Errorf("recorded %v and %v; report:\n%s", r.exposures, r.outcomes, out)
	}
}

func TestImportStopsAtARefusal(t *testing.T) {
	for name, refusal := range map[string]error{
		"another error":         status.Error(codes.Unimplemented, "no"),
		"a message too large":   status.Error(codes.ResourceExhausted, "no"),
		"a fault of the server": status.Error(codes.Internal, "no"),
	} {
		r := &recorder{fail: func(int) error { return refusal }}
		_, err := importText(t, r.listen(t), "id,variant,spend\nu1,a,\n")
		if want := fmt.Sprintf("import: %v: no", status.Code(refusal)); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
		if r.calls != 1 {
			t.Errorf("%s: %d calls, want 1", name, r.calls)
		}
	}
}

func TestImportIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := &recorder{fail: func(int) error {
		cancel()
		return status.Error(codes.Unavailable, "gone")
	}}
	conn, err := dial(r.listen(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	text := "id,variant,spend\nu1,a,1\n"
	got, err := importRows(ctx, conn, mustParse(t, smallMapping), strings.NewReader(text), int64(len(text)), io.Discard)
	if err == nil || !strings.HasPrefix(err.Error(), "interrupted") {
		t.Errorf("error %v", err)
	}
	if got.rows != 1 {
		t.Errorf("%d rows are reported, want 1", got.rows)
	}
}

func TestPersist(t *testing.T) {
	withInfo := func(code codes.Code, d time.Duration) error {
		s, err := status.New(code, "later").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(d)})
		if err != nil {
			t.Fatal(err)
		}
		return s.Err()
	}
	unavailable := status.Error(codes.Unavailable, "later")
	tests := []struct {
		name string
		err  error
		want []time.Duration // When the first calls come.
		last time.Duration   // No call comes later, if none succeeds.
	}{
		{"pauses grow to a bound", unavailable, []time.Duration{0, 200, 600, 1400, 3000, 6200, 11200, 16200}, patience},
		{"the server's delay", withInfo(codes.ResourceExhausted, 30*time.Second), []time.Duration{0, 30_000, 60_000, 90_000}, patience},
		{"the server's delay, too long", withInfo(codes.Unavailable, time.Hour), []time.Duration{0}, 0},
		{"no answer in time", context.DeadlineExceeded, []time.Duration{0, 200}, patience},
		{"not to be repeated", withInfo(codes.Internal, time.Second), []time.Duration{0}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				var calls []time.Duration
				_, err := persist(t.Context(), func(error) {}, func(context.Context) (answer, error) {
					calls = append(calls, time.Since(begin))
					if tt.err == context.DeadlineExceeded {
						return nil, status.FromContextError(tt.err).Err()
					}
					return nil, tt.err
				})
				if err == nil {
					t.Error("no error")
				}
				for i := range tt.want {
					tt.want[i] *= time.Millisecond
				}
				if diff := cmp.Diff(tt.want, calls[:min(len(tt.want), len(calls))]); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
				if last := calls[len(calls)-1]; last > tt.last {
					t.Errorf("the last call came after %v", last)
				}
			})
		})
	}
}

func TestTallyKeepsTheFirstFaults(t *testing.T) {
	var t1 tally
	for line := range 100 {
		t1.unreadable(100-line, io.ErrNoProgress)
	}
	var lines []int
	for _, f := range t1.first {
		lines = append(lines, f.line)
	}
	want := make([]int, shownFaults)
	for i := range want {
		want[i] = i + 1
	}
	if !slices.Equal(lines, want) || t1.faults() != 100 {
		t.Errorf("lines %v of %d faults, want the first %d of 100", lines, t1.faults(), shownFaults)
	}
}
