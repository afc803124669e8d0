package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/localpg"
)

var (
	faultsFor  = flag.Duration("faults", 0, "how long TestFaults injects faults, each kind again and again; 0 tries each once, shortly")
	faultsSeed = flag.Uint64("faults-seed", 0, "where TestFaults begins its random choices; 0 takes a new seed, which it prints")
)

// TestFaults holds the promise of recording: what was acknowledged is stored,
// what is stored was sent, and nothing is stored twice, whatever fails. Two
// servers share a Postgres that flushes to disk. Recorders send to both, a
// prober asks both for assignments all the while, and one fault after the other
// is injected, now and then two at a time. After each, the tables are compared
// with what was answered.
//
// The long form is
//
//	go test ./cmd/assayd -run TestFaults -v -faults 20m -timeout 40m
//
// It prints what was tried.
func TestFaults(t *testing.T) {
	seed := *faultsSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("the seed is %d; -faults-seed takes it again", seed)
	total := newFaultTally()
	t.Run("processes and network", func(t *testing.T) {
		d := newDrill(t, seed, localpg.Config{DataDir: temporary(t, "assay-cluster-")}, total)
		kinds := faultKinds
		if *faultsFor == 0 {
			kinds = append(slices.Clone(kinds), fixedPair)
		}
		d.run(kinds, *faultsFor*9/10)
	})
	t.Run("disk", func(t *testing.T) {
		dir, err := smallDisk(t)
		if err != nil {
			total.notTried(diskFull.name, err)
			t.Logf("NOT TRIED: a full disk: %v", err)
			return
		}
		d := newDrill(t, seed+1, localpg.Config{DataDir: dir}, total)
		d.run([]faultKind{diskFull}, *faultsFor/10)
	})
	t.Log("\n" + total.String())
}

// drill is two servers on one database, and what injects faults into them.
type drill struct {
	*testing.T
	random  *rand.Rand // Of the test's goroutine alone.
	db      *cluster
	servers [2]*target
	tally   *faultTally
	trials  int
	stored  []parcel // Some of what earlier trials left, to be sent again.
	ended   totals   // All that earlier trials left.
	shown   *shownLedger
	strike  func() // What strikes while a fault lasts; nil for nothing.
}

// target is a server, behind a proxy of its own.
type target struct {
	*process
	args          []string
	proxy         *proxy
	conn          *grpc.ClientConn
	metricsListen string
	life          atomic.Int64 // Odd while it is meant to be down; each end and start adds one.
}

func newDrill(t *testing.T, seed uint64, config localpg.Config, total *faultTally) *drill {
	d := &drill{T: t, random: rand.New(rand.NewPCG(seed, 0)), db: newClusterWith(t, config), tally: total, shown: newShownLedger()}
	d.requireDurability()
	for i := range d.servers {
		s := &target{proxy: newProxy(t, d.db), metricsListen: freeAddress(t)}
		addr := freeAddress(t)
		s.args = []string{"serve", "--listen", addr, "--metrics-listen", s.metricsListen, "--database-url", s.proxy.url("assay"),
			"--data-dir", t.TempDir(), "--pepper-file", pepperFile(t, testPepper)}
		s.conn = d.dial(addr)
		d.servers[i] = s
		d.up(s)
	}
	d.define()
	// The rules let this value pass.
	d.db.execute(t, "assay", fmt.Sprintf(`ALTER TABLE outcomes ADD CONSTRAINT poison CHECK (value <> %v)`, poisonValue))
	return d
}

// dial connects to a server that comes and goes.
func (d *drill) dial(addr string) *grpc.ClientConn {
	soon := backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: soon, MinConnectTimeout: 5 * time.Second}))
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { conn.Close() })
	return conn
}

// up starts a server and waits until it serves.
func (d *drill) up(s *target) {
	s.process = start(d.T, s.args...)
	s.address(d.T)
	s.life.Store((s.life.Load() + 1) &^ 1) // The next even number, or as it is.
}

// run tries the faults in random orders until the time is over, each at least
// once. In the long form, two at a time are tried after every second.
func (d *drill) run(kinds []faultKind, atLeast time.Duration) {
	began := time.Now()
	defer d.startProbers()()
	var shown shownTotals
	for {
		for n, i := range d.random.Perm(len(kinds)) {
			d.try(kinds[i])
			if *faultsFor > 0 && n%2 == 0 && !d.Failed() {
				d.try(d.anyPair(kinds))
			}
			if d.Failed() {
				return
			}
		}
		d.checkAnalyses()
		d.checkTotals()
		shown = d.checkShown()
		if d.Failed() || time.Since(began) >= atLeast {
			break
		}
	}
	d.tally.shown.asked += shown.asked
	d.tally.shown.stored += shown.stored
	d.tally.seconds += time.Since(began).Seconds()
}

// try injects a fault under load, waits until recording goes on, and compares
// what was answered with what is stored.
func (d *drill) try(f faultKind) {
	began := time.Now()
	since := d.clock()
	l := newLedger(d.stored)
	o := d.startLoad(l)
	defer o.stop() // Also where the test gives up.
	d.awaitAnswers(o, 1)
	time.Sleep(time.Duration(d.random.Int64N(int64(300 * time.Millisecond))))
	injected := f.inject(d, o)
	d.awaitAnswers(o, outcomeRecorders+1) // One of them began after the fault.
	d.awaitStreams(o)
	o.stop()
	d.settle(o)
	d.compare(l, since)
	d.tally.add(f.name, injected, &l.traffic)
	d.Logf("%s: %d times, %d calls, %.1f s", f.name, injected, l.traffic.calls, time.Since(began).Seconds())
}

// awaitAnswers waits until each server has answered so many calls from now on.
func (d *drill) awaitAnswers(o *load, n int64) {
	d.Helper()
	var before [2]int64
	for i := range before {
		before[i] = o.answers[i].Load()
	}
	for i := range before {
		eventually(d.T, fmt.Sprintf("server %d records", i), func() bool { return o.answers[i].Load() >= before[i]+n })
	}
}

// awaitStreams waits until a batch is acknowledged that is sent from now on.
func (d *drill) awaitStreams(o *load) {
	d.Helper()
	round := o.round.Add(1)
	eventually(d.T, "streams are acknowledged", func() bool { return o.caughtUp.Load() == round })
}

// hold lets a fault last: shortly in the short form, else up to the given time.
// In the midst of it another one may strike.
func (d *drill) hold(longest time.Duration) {
	if *faultsFor == 0 {
		longest = 800 * time.Millisecond
	}
	half := time.Duration(d.random.Int64N(int64(longest))) / 2
	time.Sleep(half)
	if d.strike != nil {
		d.strike()
	}
	time.Sleep(half)
}

// several is how many times a fault is injected in one trial.
func (d *drill) several(most int) int {
	if *faultsFor == 0 {
		return 1
	}
	return 1 + d.random.IntN(most)
}

// anyServer is one of the two.
func (d *drill) anyServer() (int, *target) {
	i := d.random.IntN(2)
	return i, d.servers[i]
}

const (
	liveFaults       = "faults-live"        // Split by the servers.
	auditFaults      = "faults-audit"       // Its subjects have all the outcomes.
	bestEffortFaults = "faults-best-effort" // Its exposures are recorded by best effort.
)

// define makes the experiments, known to both servers.
func (d *drill) define() {
	conn := d.servers[0].conn
	for _, c := range [][3]string{
		{"MetricService", "CreateMetric", `{"metric":{"key":"revenue","direction":"DIRECTION_INCREASE","sum":{"outcome":"purchase"}}}`},
		{"ExperimentService", "CreateExperiment", definition(liveFaults, "ASSIGNMENT_NATIVE")},
		{"ExperimentService", "CreateExperiment", definition(auditFaults, "ASSIGNMENT_EXTERNAL")},
		{"ExperimentService", "CreateExperiment", definition(bestEffortFaults, "ASSIGNMENT_NATIVE")},
		{"ExperimentService", "StartExperiment", `{"key":"` + liveFaults + `"}`},
		{"ExperimentService", "StartExperiment", `{"key":"` + auditFaults + `"}`},
		{"ExperimentService", "StartExperiment", `{"key":"` + bestEffortFaults + `"}`},
	} {
		if _, err := call(d.Context(), conn, "assay.v1."+c[0], c[1], c[2]); err != nil {
			d.Fatal(err)
		}
	}
	req := &assayv1.RecordExposuresRequest{}
	for i := range auditSubjects {
		req.Exposures = append(req.Exposures, auditExposure(i))
	}
	if resp, err := assayv1.NewEventServiceClient(conn).RecordExposures(d.Context(), req); err != nil || resp.Recorded != auditSubjects {
		d.Fatal(resp, err)
	}
	eventually(d.T, "the last start shows on the other server", func() bool {
		resp, err := assayv1.NewAssignmentServiceClient(d.servers[1].conn).Assign(d.Context(),
			&assayv1.AssignRequest{Subject: &assayv1.Subject{Key: "u-1"}, Experiments: []string{bestEffortFaults}})
		return err == nil && resp.Assignments[0].Reason == assayv1.Reason_REASON_SPLIT
	})
}

// auditExposure is that of an audited subject, from before all its outcomes.
func auditExposure(i int) *assayv1.Exposure {
	return &assayv1.Exposure{
		Experiment: auditFaults, Variant: []string{"control", "short"}[i%2], Subject: &assayv1.Subject{Key: auditKey(i)},
		ExposedTime: timestamppb.New(time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC)),
	}
}

func definition(key, assignment string) string {
	return `{"experiment":{"key":"` + key + `","unit":"user","owner":"faults","assignment":"` + assignment + `",
		"hypothesis":{"statement":"Nothing is lost.","null_hypothesis":"Something is."},
		"variants":[{"key":"control","control":true,"weight":1},{"key":"short","weight":1}],
		"metrics":[{"metric":"revenue","role":"METRIC_ROLE_PRIMARY"}],
		"plan":{"method":"METHOD_ALWAYS_VALID","confidence_level":0.95}}}`
}
