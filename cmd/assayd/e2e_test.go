package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/dynamicpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// define creates and starts the demonstration's experiments.
func define(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	d := demo{
		metrics:     assayv1.NewMetricServiceClient(conn),
		experiments: assayv1.NewExperimentServiceClient(conn),
		analysis:    assayv1.NewAnalysisServiceClient(conn),
	}
	if err := errors.Join(d.createMetrics(t.Context()), d.startExperiments(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func analyze(t *testing.T, conn *grpc.ClientConn) *assayv1.AnalyzeExperimentResponse {
	t.Helper()
	a, err := assayv1.NewAnalysisServiceClient(conn).AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{
		Experiment: pastExperiment, Segments: []string{"newbie", "zip_code"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// importFile runs the import command, which must succeed, and returns what it
// printed.
func importFile(t *testing.T, addr string) string {
	t.Helper()
	p := start(t, "import", "--target", addr, "--mapping", "demo/hillstrom.yaml", "demo/hillstrom.csv.gz")
	p.waitEnd(t)
	if p.err != nil {
		t.Fatalf("import: %v\n%s", p.err, p.output)
	}
	return p.output.String()
}

// TestMainJob takes 64,000 real customers through the API: imported, imported
// again, cut off by a killed server, and imported after that. The figures are
// those of the raw file, computed apart from this project, to every digit that
// they are given with.
func TestMainJob(t *testing.T) {
	_, addr := serveIn(t, dataDir(t), "")
	conn := connect(t, addr)
	define(t, conn)
	importFile(t, addr)
	undisturbed := analyze(t, conn)
	checkHillstrom(t, undisturbed)

	again := importFile(t, addr)
	if !regexp.MustCompile(`exposures +0 +64,000 +0`).MatchString(again) || !regexp.MustCompile(`outcomes +0 +10,550 +0`).MatchString(again) {
		t.Errorf("the second import recorded something:\n%s", again)
	}
	compareAnalyses(t, "after the second import", undisturbed, analyze(t, conn))

	t.Run("killed", func(t *testing.T) { testKilledImport(t, undisturbed) })
}

// testKilledImport kills the server in the middle of an import.
func testKilledImport(t *testing.T, undisturbed *assayv1.AnalyzeExperimentResponse) {
	dir := dataDir(t)
	server, addr := serveIn(t, dir, "")
	conn := connect(t, addr)
	define(t, conn)
	cut := start(t, "import", "--target", addr, "--mapping", "demo/hillstrom.yaml", "demo/hillstrom.csv.gz")
	for exposed(t, conn) < 4000 {
		select {
		case <-cut.ended:
			t.Fatal("the import ended before the server could be killed")
		default:
		}
	}
	if err := server.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cut.cmd.Process.Kill()
	<-server.ended
	<-cut.ended

	_, addr = serveIn(t, dir, addr)
	conn = connect(t, addr)
	if n := exposed(t, conn); n < 4000 || n >= 64000 {
		t.Errorf("%d subjects after the restart: those acknowledged before it were at least 4,000, and the import was cut off", n)
	}
	importFile(t, addr)
	compareAnalyses(t, "after a kill", undisturbed, analyze(t, conn))
}

// exposed returns how many subjects are recorded.
func exposed(t *testing.T, conn *grpc.ClientConn) (n int64) {
	t.Helper()
	for _, count := range analyze(t, conn).SampleRatio.Observed {
		n += count
	}
	return n
}

// compareAnalyses compares all but identity and time. The last digits of sums
// depend on the order of the subjects, which depends on the pepper.
func compareAnalyses(t *testing.T, when string, want, got *assayv1.AnalyzeExperimentResponse) {
	t.Helper()
	diff := cmp.Diff(want, got, protocmp.Transform(), cmpopts.EquateApprox(1e-9, 1e-12),
		protocmp.IgnoreFields(&assayv1.AnalyzeExperimentResponse{}, "analysis_id", "as_of_time", "create_time"))
	if diff != "" {
		t.Errorf("the analysis %s differs (-undisturbed +now):\n%s", when, diff)
	}
}

// checkHillstrom compares an analysis with figures computed from the raw file:
// the means of its columns by treatment, and of spend the standard error of a
// difference, which is that by both treatments' pooled variance, as it is more than
// Welch's, with the t of that: in R sqrt(((n-1)*var(x) + (m-1)*var(y))/(n+m-2)*(1/n+1/m)).
func checkHillstrom(t *testing.T, a *assayv1.AnalyzeExperimentResponse) {
	t.Helper()
	// The references are rounded to 7 decimals, those of t to 5: half of the
	// last one is allowed.
	within := func(what string, got *float64, want, tolerance float64) {
		t.Helper()
		if got == nil || math.Abs(*got-want) > tolerance {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	close := func(what string, got *float64, want float64) { t.Helper(); within(what, got, want, 0.501e-7) }
	subjects := map[string]int64{"none": 21306, "mens": 21307, "womens": 21387}
	means := map[string]map[string]float64{
		"visit":      {"none": 0.1061673, "mens": 0.1827568, "womens": 0.1514004},
		"conversion": {"none": 0.0057261, "mens": 0.0125311, "womens": 0.0088371},
		"spend":      {"none": 0.6527894, "mens": 1.4226165, "womens": 1.0772016},
	}
	for _, m := range a.Metrics {
		for _, arm := range m.Arms {
			if arm.Subjects != subjects[arm.Variant] {
				t.Errorf("%s, %s: %d subjects, want %d", m.Metric, arm.Variant, arm.Subjects, subjects[arm.Variant])
			}
			close(m.Metric+" of "+arm.Variant, arm.Mean, means[m.Metric][arm.Variant])
		}
		for _, c := range m.Comparisons {
			name := m.Metric + ", " + c.Variant
			switch name {
			case "spend, mens":
				close(name+": difference", c.Unadjusted.Difference.Estimate, 0.7698272)
				close(name+": standard error", c.Unadjusted.StandardError, 0.1452479)
				within(name+": t", c.Unadjusted.Statistic, 5.30009, 0.501e-5)
			case "spend, womens":
				close(name+": difference", c.Unadjusted.Difference.Estimate, 0.4244122)
				close(name+": standard error", c.Unadjusted.StandardError, 0.1303971)
				within(name+": t", c.Unadjusted.Statistic, 3.25477, 0.501e-5)
			case "visit, mens":
				close(name+": difference", c.Difference.Estimate, 0.0765896)
				close(name+": standard error", c.StandardError, 0.0033859)
			}
		}
	}
	if len(a.Metrics) != len(means) {
		t.Errorf("%d metrics, want %d", len(a.Metrics), len(means))
	}
	if a.Verdict.Action != assayv1.VerdictAction_VERDICT_ACTION_SHIP || a.Verdict.Variant != "mens" {
		t.Errorf("the verdict is %v", a.Verdict)
	}
	if a.SampleRatio.Verdict != assayv1.SampleRatioVerdict_SAMPLE_RATIO_VERDICT_OK {
		t.Errorf("the sample ratio is %v", a.SampleRatio)
	}
}

// TestDemo runs the demonstration, and then every call that the README and the
// demonstration itself tell a newcomer to make.
func TestDemo(t *testing.T) {
	addr := freeAddress(t)
	dir := dataDir(t)
	p := start(t, "demo", "--listen", addr, "--data-dir", dir)
	p.waitFor(t, "Ctrl-C stops it")
	printed := p.output.String()
	// The last four are R's: with theta the coefficient of history in
	// lm(spend ~ treatment + history), a = spend - theta * (history - mean(history)) and
	// x, y that of "Mens E-Mail" and "No E-Mail", by internal/stats/testdata/judge.R with
	// bx, by the customers who spent, the interval of judge(x, y), the p-value of
	// judge(x, y, mu = 1, alternative = "less") and the bound of
	// judge(x, y, mu = -0.1, alternative = "greater").
	for _, want := range []string{"0.6527894", "1.4226165", "1.0772016", "0.7698272", "0.1452479", "Verdict: SHIP mens",
		"0.4818306", "1.0528561", "0.0550", "0.5279099"} {
		if !strings.Contains(printed, want) {
			t.Errorf("the demonstration does not print %s", want)
		}
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	checkExcerpt(t, string(readme), printed)
	conn := connect(t, addr)
	if calls := runCalls(t, conn, printed); calls != 2 {
		t.Errorf("the demonstration prints %d calls beside the list, want 2", calls)
	}
	if calls := runCalls(t, conn, string(readme)); calls < 10 {
		t.Errorf("the README shows %d calls; did their form change?", calls)
	}

	p.cmd.Process.Signal(os.Interrupt)
	p.waitEnd(t)
	if p.err != nil {
		t.Errorf("Ctrl-C ended the demonstration with %v", p.err)
	}
	second := start(t, "demo", "--listen", addr, "--data-dir", dir)
	second.waitFor(t, "Ctrl-C stops it")
	if !regexp.MustCompile(`exposures +0 +64,000 +0`).MatchString(second.output.String()) {
		t.Error("the second demonstration imported something anew")
	}
}

// checkExcerpt holds what the README shows of the demonstration to what that prints: the
// same lines in the same order, each after the one before unless "…" stands between.
func checkExcerpt(t *testing.T, readme, printed string) {
	t.Helper()
	_, excerpt, _ := strings.Cut(readme, "```\nSample ratio: ok")
	excerpt, _, found := strings.Cut("Sample ratio: ok"+excerpt, "\n```\n")
	parts := strings.Split("\n"+excerpt+"\n", "…\n")
	if !found || len(parts) < 5 {
		t.Fatalf("the README's excerpt of the demonstration has %d parts; did its form change?", len(parts))
	}
	for _, part := range parts {
		part = strings.TrimSuffix(part, "  ") // What stands before the dots.
		_, rest, found := strings.Cut(printed, part)
		if !found {
			t.Errorf("the demonstration does not print, or not there, what the README shows:\n%s", part)
			continue
		}
		printed = "\n" + rest
	}
}

// runCalls makes the calls that a text shows as grpcurl commands, each of which
// must succeed, and returns how many there were.
func runCalls(t *testing.T, conn *grpc.ClientConn, text string) int {
	t.Helper()
	calls := 0
	re := regexp.MustCompile(`(?s)grpcurl -plaintext -d '(.*?)'\s+\\?\s*\S+:8?\d+ (assay\.v1\.\w+)/(\w+)`)
	for _, m := range re.FindAllStringSubmatch(text, -1) {
		calls++
		err := stream(t.Context(), conn, m[2], m[3], m[1], func(reply proto.Message) { checkRecorded(t, m[3], reply) })
		if err != nil {
			t.Errorf("%s/%s %s: %v", m[2], m[3], m[1], err)
		}
	}
	return calls
}

// checkRecorded refuses an answer that rejects what a document says to record.
func checkRecorded(t *testing.T, method string, reply proto.Message) {
	t.Helper()
	reply.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if strings.HasPrefix(string(fd.Name()), "rejected") {
			t.Errorf("%s rejected something: %v", method, reply)
		}
		return true
	})
}

// call makes a call with a request in JSON, and returns its last reply.
func call(ctx context.Context, conn *grpc.ClientConn, service, method, request string) (reply proto.Message, err error) {
	err = stream(ctx, conn, service, method, request, func(m proto.Message) { reply = m })
	return reply, err
}

// stream sends requests in JSON, one after the other, and visits the replies.
// With one request it is on the wire like a unary call.
func stream(ctx context.Context, conn *grpc.ClientConn, service, method, requests string, visit func(proto.Message)) error {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return err
	}
	m := d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(method))
	if m == nil {
		return fmt.Errorf("there is no method %s", method)
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/"+service+"/"+method)
	if err != nil {
		return err
	}
	for input := json.NewDecoder(strings.NewReader(requests)); input.More(); {
		var text json.RawMessage
		if err := input.Decode(&text); err != nil {
			return err
		}
		req := dynamicpb.NewMessage(m.Input())
		if err := protojson.Unmarshal(text, req); err != nil {
			return err
		}
		if err := s.SendMsg(req); err != nil && !errors.Is(err, io.EOF) { // EOF: receiving tells why.
			return err
		}
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	for {
		reply := dynamicpb.NewMessage(m.Output())
		if err := s.RecvMsg(reply); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		visit(reply)
	}
}

// TestServeSettings holds what serve refuses, and the table of the README.
func TestServeSettings(t *testing.T) {
	for _, tt := range []struct {
		args []string
		err  string
	}{
		{[]string{"serve", "--database-url", "postgres:///x"}, "a database URL needs a pepper"},
		{[]string{"serve", "--database-url", "postgres:///x", "--pepper-file", "/nonexistent"}, "the pepper: open /nonexistent"},
		{[]string{"serve", "--catalog-poll", "0s"}, "--catalog-poll must be greater than 0"},
		{[]string{"serve", "--analysis-retention", "-1s"}, "--analysis-retention must not be negative"},
		{[]string{"serve", "--outcome-names", "0"}, "--outcome-names must be from 1 to 100000"},
		{[]string{"serve", "--outcome-names", "100001"}, "--outcome-names must be from 1 to 100000"},
		{[]string{"serve", "--retention", "-1h"}, "--retention must not be negative"},
		{[]string{"serve", "extra"}, `unexpected argument "extra"`},
	} {
		p := start(t, tt.args...)
		p.waitEnd(t)
		if p.err == nil || !strings.Contains(p.output.String(), tt.err) {
			t.Errorf("assayd %v: %v, printed %q; want %q", tt.args, p.err, p.output, tt.err)
		}
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	help := start(t, "serve", "--help")
	help.waitEnd(t)
	flags := regexp.MustCompile(`(?m)^  -([a-z-]+)`).FindAllStringSubmatch(help.output.String(), -1)
	if len(flags) == 0 {
		t.Errorf("no flags in %q", help.output)
	}
	for _, f := range flags {
		if !strings.Contains(string(readme), "| `--"+f[1]+"` | `"+variable(f[1])+"` |") {
			t.Errorf("the README's table lacks --%s", f[1])
		}
	}
}

// TestTwoServers runs two servers on one database: both may start at once, a
// change made on one shows on the other, and another pepper is refused.
func TestTwoServers(t *testing.T) {
	dir := dataDir(t)
	_, owner := serveIn(t, dir, "")
	url := socketURL(t, dir)
	pepper := filepath.Join(dir, "pepper")
	second := start(t, "serve", "--listen", "127.0.0.1:0", "--database-url", url, "--data-dir", t.TempDir(), "--pepper-file", pepper, "--catalog-poll", "1h")
	third := start(t, "serve", "--listen", "127.0.0.1:0", "--database-url", url, "--data-dir", t.TempDir(), "--pepper-file", pepper, "--catalog-poll", "1h")
	a := connect(t, second.waitFor(t, `serving address=(\S+)`)[1])
	b := connect(t, third.waitFor(t, `serving address=(\S+)`)[1])
	health, err := grpc_health_v1.NewHealthClient(connect(t, owner)).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", health, err)
	}

	define(t, a)
	req := &assayv1.AssignRequest{
		Subject: &assayv1.Subject{Key: "u-1"}, Experiments: []string{liveExperiment},
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		resp, err := assayv1.NewAssignmentServiceClient(b).Assign(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Assignments[0].Reason == assayv1.Reason_REASON_INELIGIBLE {
			break // It runs: the subject has no country.
		}
		if time.Now().After(deadline) {
			t.Fatalf("the start on one server did not show on the other: %v", resp)
		}
	}

	other := filepath.Join(t.TempDir(), "pepper")
	if err := os.WriteFile(other, []byte("quite another pepper"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := start(t, "serve", "--listen", "127.0.0.1:0", "--database-url", url, "--data-dir", t.TempDir(), "--pepper-file", other)
	refused.waitEnd(t)
	if refused.err == nil || !strings.Contains(refused.output.String(), "start with the pepper that it was made with") {
		t.Errorf("another pepper: %v, %s", refused.err, refused.output)
	}
	same := start(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", dir)
	same.waitEnd(t)
	if same.err == nil || !strings.Contains(same.output.String(), "in use") {
		t.Errorf("a second server on one data directory: %v, %s", same.err, same.output)
	}
}

// TestMigrate brings a database up to date without a server, and again.
func TestMigrate(t *testing.T) {
	dir := dataDir(t)
	for range 2 {
		p := start(t, "migrate", "--data-dir", dir)
		p.waitEnd(t)
		if p.err != nil {
			t.Fatalf("migrate: %v\n%s", p.err, p.output)
		}
	}
	_, addr := serveIn(t, dir, "")
	define(t, connect(t, addr))
}

// socketURL is the connection string of a data directory's Postgres, from the
// file in which it says where it listens.
func socketURL(t testing.TB, dir string) string {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "postgres", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var fields []string
	for s := bufio.NewScanner(f); s.Scan(); {
		fields = append(fields, strings.TrimSpace(s.Text()))
	}
	if len(fields) < 5 { // Line 4 is the port, line 5 the socket's directory.
		t.Fatalf("postmaster.pid: %q", fields)
	}
	return "host=" + fields[4] + " port=" + fields[3] + " user=assay dbname=assay"
}

// TestDatabaseDies kills the private Postgres under the server, which goes on
// assigning, starts it again, and has all that was acknowledged.
func TestDatabaseDies(t *testing.T) {
	dir := dataDir(t)
	p, addr := serveIn(t, dir, "")
	conn := connect(t, addr)
	define(t, conn)
	if _, err := call(t.Context(), conn, "assay.v1.EventService", "RecordExposures",
		`{"exposures":[{"experiment":"hillstrom","variant":"mens","subject":{"key":"a"},"exposed_time":"2026-01-05T10:00:00Z"}]}`); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		before := postmaster(t, dir)
		if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		assigns := assayv1.NewAssignmentServiceClient(conn)
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
			if _, err := assigns.Assign(t.Context(), &assayv1.AssignRequest{Subject: &assayv1.Subject{Key: "u-1"}}); err != nil {
				t.Fatalf("assignment did not go on: %v", err)
			}
			a, err := assayv1.NewAnalysisServiceClient(conn).AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: pastExperiment})
			if err == nil && postmaster(t, dir) != before {
				if n := a.SampleRatio.Observed["mens"]; n != 1 {
					t.Errorf("round %d: %d subjects, want the 1 that was acknowledged", round, n)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("round %d: the database did not come back: %v", round, err)
			}
			select {
			case <-p.ended:
				t.Fatalf("the server ended with %v", p.err)
			default:
			}
		}
	}
}

// postmaster returns the process id of a data directory's Postgres, 0 while
// there is none.
func postmaster(t *testing.T, dir string) (pid int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "postgres", "postmaster.pid"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	fmt.Sscan(string(text), &pid) // An unfinished file holds none yet.
	return pid
}
