package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/health/grpc_health_v1"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// faultKind is a kind of fault. It is injected under load, lifted again, and
// tells how many times it struck.
type faultKind struct {
	name   string
	inject func(*drill, *load) int
	// What may strike while it lasts.
	strokes []stroke
}

var faultKinds = []faultKind{
	{"a server killed (kill -9) and started again", (*drill).killServer, []stroke{connectionsCut, backendKilled, postmasterKilled}},
	{"a server stopped (SIGTERM) with calls under way", (*drill).stopServer, nil},
	{"the postmaster killed (kill -9)", (*drill).killPostmaster, []stroke{serverKilled}},
	{"a backend killed (kill -9)", (*drill).killBackends, nil},
	{"a backend's connection ended by Postgres", (*drill).terminateBackends, nil},
	{"Postgres shut down at once, and started later", (*drill).shutPostgres, []stroke{serverKilled}},
	{"Postgres frozen for a while", (*drill).freezePostgres, []stroke{connectionsCut, serverKilled}},
	{"connections to Postgres cut", (*drill).cutConnections, nil},
	{"a connection cut before its COMMIT arrived", atCommit(cutBefore), nil},
	{"a connection cut after its COMMIT arrived", atCommit(cutAfter), nil},
	{"the answer to a COMMIT swallowed", atCommit(swallowAnswer), []stroke{connectionsCut, backendKilled, postmasterKilled}},
	{"the network to Postgres slow", (*drill).slowNetwork, allStrokes},
	{"a black hole to or from Postgres", (*drill).blackHole, allStrokes},
	outcomesLocked,
	{"a lock on exposures held by a stranger", (*drill).lockExposures, allStrokes},
	{"the analysis pool full of analyses that hang", (*drill).fillAnalysisPool, nil},
}

var outcomesLocked = faultKind{"a lock on outcomes held by a stranger", (*drill).lockOutcomes, allStrokes}

func (d *drill) killServer(*load) int {
	_, s := d.anyServer()
	s.life.Add(1)
	if err := s.cmd.Process.Kill(); err != nil {
		d.Fatal(err)
	}
	<-s.ended
	d.hold(10 * time.Second)
	d.up(s)
	return 1
}

// stopServer stops a server in the midst of a commit, with more calls waiting.
// Each of them must be answered, and the server end in order.
func (d *drill) stopServer(o *load) int {
	const waiting = 16
	i, s := d.anyServer()
	r := o.recorder("stop", d.random.Uint64())
	o.calls.Lock() // What the servers are asked from here on is what is asked here.
	unlock := d.lock("outcomes")
	before := metric(d.T, s.metricsListen, outcomeCallsStarted)
	var calls sync.WaitGroup
	errs := make([]error, waiting)
	for n := range waiting {
		parcels := r.compose()
		calls.Go(func() { errs[n] = o.callOutcomes(i, parcels, callPatience) })
	}
	eventually(d.T, "the calls are under way", func() bool {
		return metric(d.T, s.metricsListen, outcomeCallsStarted) >= before+waiting
	})
	s.life.Add(1)
	s.cmd.Process.Signal(syscall.SIGTERM)
	o.calls.Unlock()
	eventually(d.T, "the server says that it leaves", func() bool {
		resp, err := grpc_health_v1.NewHealthClient(s.conn).Check(d.Context(), &grpc_health_v1.HealthCheckRequest{})
		return err != nil || resp.Status == grpc_health_v1.HealthCheckResponse_NOT_SERVING
	})
	unlock()
	calls.Wait()
	for _, err := range errs {
		if err != nil && !asksToRepeat(err) {
			d.Errorf("a call was under way when the server was stopped, and got no answer: %v", err)
		}
	}
	s.waitEnd(d.T)
	if s.err != nil {
		d.Errorf("SIGTERM ended the server with %v", s.err)
	}
	d.up(s)
	return 1
}

const outcomeCallsStarted = `grpc_server_started_total\{[^}]*grpc_method="RecordOutcomes"[^}]*\}`

func (d *drill) killPostmaster(*load) int {
	d.db.kill(d.T)
	d.hold(10 * time.Second)
	d.db.up(d.T)
	return 1
}

// shutPostgres leaves the servers without a Postgres for up to a minute.
func (d *drill) shutPostgres(*load) int {
	if err := syscall.Kill(d.db.server.PID(), syscall.SIGQUIT); err != nil {
		d.Fatal(err)
	}
	<-d.db.server.Done()
	if err := d.db.server.Stop(); err != nil {
		d.Fatal(err)
	}
	d.hold(time.Minute)
	d.db.up(d.T)
	return 1
}

// recorderBackends are the backends that write events, the busy ones first.
const recorderBackends = `SELECT pid FROM pg_stat_activity WHERE application_name = 'assay-record' ORDER BY state = 'idle', random()`

// killBackends kills backends, one at a time. Postgres ends all others each time,
// and recovers.
func (d *drill) killBackends(o *load) (n int) {
	for range d.several(3) {
		if pids := query(d, pgx.RowTo[int], recorderBackends); len(pids) > 0 && syscall.Kill(pids[0], syscall.SIGKILL) == nil {
			n++
		}
		eventually(d.T, "Postgres recovers", d.letsIn)
		d.awaitAnswers(o, 1)
	}
	return n
}

func (d *drill) terminateBackends(o *load) (n int) {
	for range d.several(5) {
		n += len(query(d, pgx.RowTo[bool], `SELECT pg_terminate_backend(pid) FROM (`+recorderBackends+` LIMIT 1) AS r`))
		d.awaitAnswers(o, 1)
	}
	return n
}

// letsIn says whether Postgres lets anyone in.
func (d *drill) letsIn() bool {
	conn, err := pgx.Connect(d.Context(), d.db.url("assay"))
	return err == nil && conn.Close(d.Context()) == nil
}

// freezePostgres stops all processes of Postgres where they are, for up to a
// minute: its sockets accept, and nobody answers.
func (d *drill) freezePostgres(*load) int {
	conn, err := pgx.Connect(d.Context(), d.db.url("assay"))
	if err != nil {
		d.Fatal(err)
	}
	defer conn.Close(d.Context())
	processes := []int{d.db.server.PID()}
	signal := func(s syscall.Signal) {
		for _, pid := range processes {
			syscall.Kill(pid, s) // It may have ended.
		}
	}
	signal(syscall.SIGSTOP) // From here on there are no new ones.
	defer func() { signal(syscall.SIGCONT) }()
	rows, err := conn.Query(d.Context(), `SELECT pid FROM pg_stat_activity`)
	if err != nil {
		d.Fatal(err)
	}
	children, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		d.Fatal(err)
	}
	processes = append(processes, children...)
	signal(syscall.SIGSTOP)
	d.hold(time.Minute)
	return 1
}

func (d *drill) cutConnections(o *load) (n int) {
	for range d.several(5) {
		_, s := d.anyServer()
		n += s.proxy.cut()
		d.awaitAnswers(o, 1)
	}
	return n
}

// atCommit lets one or more commits meet their fate.
func atCommit(f commitFate) func(*drill, *load) int {
	return func(d *drill, _ *load) int {
		_, s := d.anyServer()
		wanted := 1
		if f != swallowAnswer { // After which nothing may happen for long.
			wanted = d.several(5)
		}
		s.proxy.set(weather{atCommit: f, commitsSpared: d.random.IntN(5)})
		eventually(d.T, "commits meet their fate", func() bool { return s.proxy.strikes() >= wanted })
		if f == swallowAnswer {
			d.hold(15 * time.Second)
		}
		n := s.proxy.strikes()
		s.proxy.set(weather{})
		return n
	}
}

func (d *drill) slowNetwork(*load) int {
	for _, s := range d.servers {
		s.proxy.set(weather{delay: time.Duration(1+d.random.IntN(200)) * time.Millisecond})
		defer s.proxy.set(weather{})
	}
	d.hold(10 * time.Second)
	return 1
}

func (d *drill) blackHole(*load) int {
	_, s := d.anyServer()
	n := 1 + d.random.IntN(3)
	s.proxy.set(weather{swallowUp: n&1 > 0, swallowDown: n&2 > 0})
	defer s.proxy.set(weather{})
	eventually(d.T, "something vanishes", s.proxy.hasSwallowed)
	d.hold(20 * time.Second)
	return 1
}

// lock takes a table away from everyone until unlock is called.
func (d *drill) lock(table string) (unlock func()) {
	conn, err := pgx.Connect(d.Context(), d.db.url("assay"))
	if err != nil {
		d.Fatal(err)
	}
	if _, err := conn.Exec(d.Context(), `BEGIN; LOCK TABLE `+table); err != nil {
		d.Fatal(err)
	}
	return sync.OnceFunc(func() { conn.Close(d.Context()) })
}

// awaitWaiting waits until so many connections of a name wait for a lock.
func (d *drill) awaitWaiting(name string, n int) {
	eventually(d.T, fmt.Sprintf("%d connections of %s wait", n, name), func() bool {
		return query(d, pgx.RowTo[int], `SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'`, name)[0] >= n
	})
}

func (d *drill) lockOutcomes(*load) int {
	unlock := d.lock("outcomes")
	defer unlock()
	d.awaitWaiting("assay-record", 1)
	d.hold(20 * time.Second)
	return 1
}

// lockExposures also holds that assignments do not wait for their exposures:
// many are answered while one commit waits.
func (d *drill) lockExposures(o *load) int {
	unlock := d.lock("exposures")
	defer unlock()
	r := o.recorder("unhindered", d.random.Uint64())
	eventually(d.T, "assignments are answered while a commit of exposures waits", func() bool {
		before := d.waitingCommits()
		for i := range 20 {
			r.show(i % 2)
		}
		after := d.waitingCommits()
		return slices.ContainsFunc(before, func(c string) bool { return slices.Contains(after, c) })
	})
	d.hold(20 * time.Second)
	return 1
}

// waitingCommits names the transactions of recorders that wait for a lock.
func (d *drill) waitingCommits() []string {
	return query(d, pgx.RowTo[string], `SELECT pid || ' ' || xact_start FROM pg_stat_activity
		WHERE application_name = 'assay-record' AND wait_event_type = 'Lock'`)
}

// fillAnalysisPool lets analyses hang on all connections that they may have, and
// more wait for one. Recording goes on meanwhile.
func (d *drill) fillAnalysisPool(o *load) int {
	const each, connections = 12, 4
	unlock := d.lock("overrides") // Analyses read it, and recording does not.
	var analyses sync.WaitGroup
	defer analyses.Wait()
	defer unlock()
	for i, s := range d.servers {
		for range each {
			analyses.Go(func() {
				_, err := assayv1.NewAnalysisServiceClient(s.conn).AnalyzeExperiment(d.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: auditFaults})
				if err != nil {
					d.Errorf("an analysis on server %d, after it could go on: %v", i, err)
				}
			})
		}
	}
	d.awaitWaiting("assay-analyze", len(d.servers)*connections)
	d.awaitAnswers(o, outcomeRecorders+1)
	return len(d.servers) * each
}

// diskFull needs a disk of its own.
var diskFull = faultKind{"the disk full, and freed", (*drill).fillDisk, []stroke{connectionsCut, backendKilled, serverKilled}}

// smallDisk mounts a file system in memory that can be filled.
func smallDisk(t *testing.T) (dir string, err error) {
	dir = temporary(t, "assay-disk-")
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=600m,mode=0755", "assay-disk", dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("mounting a small disk: %w: %s", err, strings.TrimSpace(string(out)))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir, nil
}

// fillDisk leaves no room until recording fails for it, and frees it again.
// Postgres may have ended for want of it: recovery needs some.
func (d *drill) fillDisk(o *load) int {
	path := filepath.Join(d.db.config.DataDir, "ballast")
	fill(d.T, path)
	before := o.refusals()
	eventually(d.T, "recording fails for the disk", func() bool { return o.refusals() > before })
	d.hold(10 * time.Second)
	if err := os.Remove(path); err != nil {
		d.Fatal(err)
	}
	d.revivePostgres()
	d.db.execute(d.T, "assay", `CHECKPOINT`) // The log must not fill the disk by itself.
	return 1
}

// revivePostgres starts Postgres again if it has ended, or is about to.
func (d *drill) revivePostgres() {
	eventually(d.T, "Postgres has room again", func() bool {
		select {
		case <-d.db.server.Done():
			d.db.server.Stop()
			d.db.up(d.T)
		default:
		}
		return d.letsIn()
	})
}
