package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/catalog"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

// answers are the assignments of 1,000 subjects, half of them eligible.
func answers(t *testing.T, conn *grpc.ClientConn) *assayv1.BatchAssignResponse {
	t.Helper()
	req := &assayv1.BatchAssignRequest{}
	for i := range 1000 {
		req.Subjects = append(req.Subjects, someone(t, i))
	}
	resp, err := assayv1.NewAssignmentServiceClient(conn).BatchAssign(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// checkSame compares what a server answers now.
func checkSame(t *testing.T, when string, before *assayv1.BatchAssignResponse, conn *grpc.ClientConn) {
	t.Helper()
	if diff := cmp.Diff(before, answers(t, conn), protocmp.Transform()); diff != "" {
		t.Errorf("%s, assignments differ (-before +now):\n%s", when, diff)
	}
}

func someone(t *testing.T, i int) *assayv1.Subject {
	t.Helper()
	attributes, err := structpb.NewStruct(map[string]any{"country": []string{"PL", "DE"}[i%2], "age": 31})
	if err != nil {
		t.Fatal(err)
	}
	return &assayv1.Subject{Key: fmt.Sprint("u-", i), Attributes: attributes}
}

// assignReason is the reason that one eligible subject is given.
func assignReason(t *testing.T, conn *grpc.ClientConn) assayv1.Reason {
	t.Helper()
	resp, err := assayv1.NewAssignmentServiceClient(conn).Assign(t.Context(),
		&assayv1.AssignRequest{Subject: someone(t, 0), Experiments: []string{liveExperiment}})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Assignments[0].Reason
}

// checkHealth waits until health says of each service what it must.
func checkHealth(t *testing.T, conn *grpc.ClientConn, database bool) {
	t.Helper()
	want := grpc_health_v1.HealthCheckResponse_SERVING
	for _, service := range []string{"", "assay.v1.AssignmentService", "assay.v1.EventService", "assay.v1.ExperimentService", "assay.v1.MetricService", "assay.v1.AnalysisService"} {
		if strings.HasSuffix(service, "EventService") && !database { // It and those behind it.
			want = grpc_health_v1.HealthCheckResponse_NOT_SERVING
		}
		eventually(t, fmt.Sprintf("health of %q is %s", service, want), func() bool {
			resp, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
			return err == nil && resp.Status == want
		})
	}
}

const anOutcome = `{"outcomes":[{"event_id":"e-1","subject":{"key":"u-1"},"name":"purchase","occurred_time":"2026-01-05T10:03:00Z"}]}`

// checkUnavailable makes calls that need the database, each of which must say
// when to try again.
func checkUnavailable(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	for _, c := range [][3]string{
		{"EventService", "RecordOutcomes", anOutcome},
		{"EventService", "RecordExposures", `{"exposures":[{"experiment":"hillstrom","variant":"mens","subject":{"key":"u-1"}}]}`},
		{"ExperimentService", "GetExperiment", `{"key":"checkout-copy"}`},
		{"ExperimentService", "PauseExperiment", `{"key":"checkout-copy"}`},
		{"MetricService", "ListMetrics", `{}`},
		{"AnalysisService", "AnalyzeExperiment", `{"experiment":"hillstrom"}`},
	} {
		_, err := call(t.Context(), conn, "assay.v1."+c[0], c[1], c[2])
		if status.Code(err) != codes.Unavailable || !asksToRepeat(err) {
			t.Errorf("%s without a database: %v", c[1], err)
		}
	}
}

// metric reads a metric of a server, -1 if it tells none.
func metric(t *testing.T, addr, name string) float64 {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		return -1 // It starts beside the API, perhaps a moment later.
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(text)
	if m == nil {
		return -1
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// keepAsking calls Assign until it is stopped; every call must be answered.
func keepAsking(t *testing.T, conn *grpc.ClientConn) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	req := &assayv1.AssignRequest{Subject: someone(t, 0), Experiments: []string{liveExperiment}}
	var asker sync.WaitGroup
	asker.Go(func() {
		for ctx.Err() == nil {
			resp, err := assayv1.NewAssignmentServiceClient(conn).Assign(context.WithoutCancel(ctx), req)
			if err != nil || resp.Assignments[0].Reason == assayv1.Reason_REASON_NOT_FOUND {
				t.Errorf("in the outage: %v, %v", resp, err)
				return
			}
		}
	})
	return func() { cancel(); asker.Wait() }
}

// TestOutage kills the Postgres of two servers, starts one of them again
// without it, and gives it back.
func TestOutage(t *testing.T) {
	db := newCluster(t)
	metricsA, dirA, dirB := freeAddress(t), t.TempDir(), t.TempDir()
	a := connect(t, serveWith(t, db.url("assay"), dirA, "--metrics-listen", metricsA).address(t))
	serverB := serveWith(t, db.url("assay"), dirB)
	b := connect(t, serverB.address(t))
	define(t, a)
	running := func(conn *grpc.ClientConn) func() bool {
		return func() bool {
			r := assignReason(t, conn)
			return r == assayv1.Reason_REASON_SPLIT || r == assayv1.Reason_REASON_NO_TRAFFIC
		}
	}
	eventually(t, "the start shows on the other server", running(b))
	checkHealth(t, a, true)
	before := answers(t, b)

	defer keepAsking(t, a)()
	stopAskingB := keepAsking(t, b)
	db.kill(t)
	checkUnavailable(t, a)
	checkUnavailable(t, b)
	checkHealth(t, a, false)
	checkHealth(t, b, false)
	same := func(when string, conn *grpc.ClientConn) { t.Helper(); checkSame(t, when, before, conn) }
	same("without the database", a)
	same("without the database", b)
	_, err := assayv1.NewAssignmentServiceClient(a).BatchAssign(t.Context(), &assayv1.BatchAssignRequest{
		Subjects: []*assayv1.Subject{someone(t, 0), someone(t, 2), someone(t, 4), someone(t, 6), someone(t, 8), someone(t, 10)}, ExposureRecording: assayv1.ExposureRecording_EXPOSURE_RECORDING_BEST_EFFORT,
	})
	if err != nil {
		t.Errorf("assigning with best-effort recording: %v", err)
	}
	eventually(t, "the exposures are given up and counted", func() bool { return metric(t, metricsA, "assay_exposures_lost_total") > 0 })
	if n := metric(t, metricsA, "assay_catalog_experiments"); n != 2 {
		t.Errorf("the catalog has %v experiments", n)
	}
	for _, fault := range catalog.Faults {
		if n := metric(t, metricsA, fmt.Sprintf("assay_catalog_faulty_experiments{fault=%q}", fault)); n != 0 {
			t.Errorf("%v experiments with a faulty %s", n, fault)
		}
	}
	if n := metric(t, metricsA, "assay_enrollment_queries_total"); n != 0 {
		t.Errorf("%v queries for sticky experiments, of which there are none", n)
	}
	stopAskingB()
	serverB.cmd.Process.Signal(syscall.SIGTERM)
	serverB.waitEnd(t)
	metricsB := freeAddress(t)
	b = connect(t, serveWith(t, db.url("assay"), dirB, "--metrics-listen", metricsB).address(t))
	same("started without the database", b)
	checkHealth(t, b, false)
	checkUnavailable(t, b)
	var age float64
	eventually(t, "the catalog has an age", func() bool {
		age = metric(t, metricsB, "assay_catalog_age_seconds")
		return age > 0
	})
	eventually(t, "the catalog ages", func() bool { return metric(t, metricsB, "assay_catalog_age_seconds") > age })
	if _, err := call(t.Context(), b, "assay.v1.AssignmentService", "ExplainAssignment",
		`{"experiment":"checkout-copy","subject":{"key":"u-1"}}`); err != nil {
		t.Errorf("explaining without the database: %v", err)
	}

	db.up(t)
	checkHealth(t, a, true)
	checkHealth(t, b, true)
	if _, err := call(t.Context(), a, "assay.v1.ExperimentService", "PauseExperiment", `{"key":"checkout-copy"}`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a change after the outage shows on the other server", func() bool {
		return assignReason(t, b) == assayv1.Reason_REASON_NOT_RUNNING
	})
	for _, conn := range []*grpc.ClientConn{a, b} {
		reply, err := call(t.Context(), conn, "assay.v1.EventService", "RecordOutcomes", anOutcome)
		if err != nil {
			t.Fatal(err)
		}
		checkRecorded(t, "RecordOutcomes", reply)
	}
}

// snapshotOf runs a server on a database until it has kept the demonstration's
// experiments in the directory.
func snapshotOf(t *testing.T, url, dir string) *assayv1.BatchAssignResponse {
	t.Helper()
	p := serveWith(t, url, dir)
	conn := connect(t, p.address(t))
	define(t, conn)
	resp := answers(t, conn)
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.waitEnd(t)
	return resp
}

// TestStartWithoutDatabase starts servers whose database does not exist yet,
// and then brings it into being: the right one, one of another pepper, and one
// that cannot be migrated.
func TestStartWithoutDatabase(t *testing.T) {
	db := newCluster(t)
	kept := t.TempDir()
	before := snapshotOf(t, db.url("assay"), kept)
	file, err := os.ReadFile(filepath.Join(kept, "catalog.json.gz"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		make func(t *testing.T, database string)
		err  string // What ends the server.
	}{
		{"existing", func(t *testing.T, database string) {
			db.execute(t, "postgres", `CREATE DATABASE `+database+` TEMPLATE assay`)
		}, ""},
		{"other_pepper", func(t *testing.T, database string) {
			db.execute(t, "postgres", `CREATE DATABASE preparing`)
			other, err := postgres.Open(t.Context(), db.url("preparing"), experiment.Pepper("quite another pepper"))
			if err != nil {
				t.Fatal(err)
			}
			other.Close()
			db.execute(t, "postgres", `ALTER DATABASE preparing RENAME TO `+database)
		}, "start with the pepper that it was made with"},
		{"unusable", func(t *testing.T, database string) {
			db.execute(t, "postgres", `CREATE DATABASE preparing`)
			db.execute(t, "preparing", `CREATE TABLE experiments (mine text)`)
			db.execute(t, "postgres", `ALTER DATABASE preparing RENAME TO `+database)
		}, "migrating the database"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "catalog.json.gz"), file, 0o600); err != nil {
				t.Fatal(err)
			}
			p := serveWith(t, db.url(tt.name), dir)
			conn := connect(t, p.address(t))
			if diff := cmp.Diff(before, answers(t, conn), protocmp.Transform()); diff != "" {
				t.Errorf("started from disk, assignments differ (-before +now):\n%s", diff)
			}
			checkUnavailable(t, conn)
			tt.make(t, tt.name)
			if tt.err == "" {
				checkHealth(t, conn, true)
				return
			}
			p.waitEnd(t)
			if p.err == nil || !strings.Contains(p.output.String(), tt.err) {
				t.Errorf("the server ended with %v; want %q", p.err, tt.err)
			}
		})
	}
	t.Run("refused", func(t *testing.T) { testUnusableSnapshots(t, db.url("nowhere"), file) })
}

// testUnusableSnapshots starts servers that have neither a database nor a
// catalog to start from. Each must say so, wait for the database for a while,
// and end.
func testUnusableSnapshots(t *testing.T, url string, file []byte) {
	defer func(patience time.Duration) { firstPatience = patience }(firstPatience)
	firstPatience = 500 * time.Millisecond
	for _, tt := range []struct {
		name, pepper, err string
		content           []byte
		mode              os.FileMode
	}{
		{"none", testPepper, "no such file", nil, 0},
		{"damaged", testPepper, "damaged", file[:len(file)-1], 0o600},
		{"of another pepper", "quite another pepper", "written with the pepper", file, 0o600},
		{"open to all", testPepper, "may be written to by other users", file, 0o666},
	} {
		dir := t.TempDir()
		if tt.content != nil {
			path := filepath.Join(dir, "catalog.json.gz")
			if err := errors.Join(os.WriteFile(path, tt.content, tt.mode), os.Chmod(path, tt.mode)); err != nil {
				t.Fatal(err)
			}
		}
		var printed lines
		err := run(t.Context(), []string{"serve", "--listen", "127.0.0.1:0", "--database-url", url, "--data-dir", dir, "--pepper-file", pepperFile(t, tt.pepper)},
			env{func(string) string { return "" }, io.Discard, &printed})
		for _, want := range []string{"the database cannot be reached", "no catalog of an earlier run can stand in for it", tt.err} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", tt.name, err, want)
			}
		}
		if n := strings.Count(printed.String(), "is waited for"); n > 1 {
			t.Errorf("%s: the wait was said %d times:\n%s", tt.name, n, &printed)
		}
	}
}

// TestDatabaseComesLate starts a server that has no catalog yet before its
// database is there.
func TestDatabaseComesLate(t *testing.T) {
	db := newCluster(t)
	p := serveWith(t, db.url("late"), t.TempDir())
	p.waitFor(t, "the database cannot be reached yet, and is waited for")
	db.execute(t, "postgres", `CREATE DATABASE late`)
	checkHealth(t, connect(t, p.address(t)), true)
}

// TestSecondServerOnDirectory: the catalog of a directory is of one server,
// whatever database each has.
func TestSecondServerOnDirectory(t *testing.T) {
	db := newCluster(t)
	dir := t.TempDir()
	serveWith(t, db.url("assay"), dir).address(t)
	second := serveWith(t, db.url("postgres"), dir)
	second.waitEnd(t)
	if second.err == nil || !strings.Contains(second.output.String(), "the data directory is in use: process ") {
		t.Errorf("%v; printed:\n%s", second.err, second.output)
	}
}

// TestNewerDatabase: a server does not start on a database of a later release.
func TestNewerDatabase(t *testing.T) {
	db := newCluster(t)
	dir := t.TempDir()
	snapshotOf(t, db.url("assay"), dir)
	db.execute(t, "assay", `INSERT INTO goose_db_version (version_id, is_applied) VALUES (1000000, true)`)
	for _, dir := range []string{dir, t.TempDir()} {
		p := serveWith(t, db.url("assay"), dir)
		p.waitEnd(t)
		if p.err == nil || !strings.Contains(p.output.String(), "the database's schema has version 1000000, and this release knows those up to") {
			t.Errorf("%v; printed:\n%s", p.err, p.output)
		}
	}
}

// TestLockedEvents holds that health tells what a database that is there cannot be used
// for, and when it can be again.
func TestLockedEvents(t *testing.T) {
	db := newCluster(t)
	conn := connect(t, serveWith(t, db.url("assay"), t.TempDir()).address(t))
	locker, err := pgx.Connect(t.Context(), db.url("assay"))
	if err != nil {
		t.Fatal(err)
	}
	defer locker.Close(context.Background())
	tx, err := locker.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE outcomes IN SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	health := grpc_health_v1.NewHealthClient(conn)
	become := func(service string, want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		eventually(t, fmt.Sprintf("health of %q is %s", service, want), func() bool {
			resp, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
			return err == nil && resp.Status == want
		})
	}
	become("assay.v1.EventService", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	become("assay.v1.AnalysisService", grpc_health_v1.HealthCheckResponse_SERVING)
	become("", grpc_health_v1.HealthCheckResponse_SERVING)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	become("assay.v1.EventService", grpc_health_v1.HealthCheckResponse_SERVING)
}
