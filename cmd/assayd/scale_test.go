package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/catalog"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

const (
	scaleExperiments = 10_000
	scaleChanges     = 300
)

func scaleKey(i int) string { return fmt.Sprintf("experiment-%05d", i) }

// BenchmarkScale runs two real servers on one database with 10,000 running
// experiments, each with a rule of its own, and prints how long a server takes
// from its start to serving, from Postgres and from disk; how long it takes
// from the return of a commit until a change shows on both servers; and what an
// experiment costs in memory.
func BenchmarkScale(b *testing.B) {
	for b.Loop() {
		benchmarkScale(b)
	}
	b.ReportMetric(0, "ns/op")
}

func benchmarkScale(b *testing.B) {
	cluster := newCluster(b)
	url := cluster.url("assay")
	db, err := postgres.Open(b.Context(), url, experiment.Pepper(testPepper))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	createMany(b, db)
	b.ReportMetric(memoryOf(b, db), "bytes/experiment")

	dir := b.TempDir()
	first, second := serveWith(b, url, dir), serveWith(b, url, b.TempDir())
	servers := []*grpc.ClientConn{connect(b, first.address(b)), connect(b, second.address(b))}
	delays := make([]time.Duration, scaleChanges)
	for i := range delays {
		delays[i] = visible(b, db, servers, scaleKey(i*31%scaleExperiments))
	}
	slices.Sort(delays)
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
	b.ReportMetric(milliseconds(delays[scaleChanges/2]), "ms-visible-median")
	b.ReportMetric(milliseconds(delays[scaleChanges*99/100]), "ms-visible-p99")
	eventually(b, "the catalog is on disk", func() bool {
		_, err := os.Stat(filepath.Join(dir, "catalog.json.gz"))
		return err == nil
	})

	for _, from := range []struct{ name, url string }{{"postgres", url}, {"disk", cluster.url("nowhere")}} {
		began := time.Now()
		p := serveWith(b, from.url, dir)
		p.address(b)
		b.ReportMetric(time.Since(began).Seconds(), "s-start-from-"+from.name)
		p.cmd.Process.Kill() // What it would keep is kept.
		<-p.ended
	}
}

// createMany makes and starts the experiments.
func createMany(b *testing.B, db *postgres.DB) {
	b.Helper()
	g, ctx := errgroup.WithContext(b.Context())
	g.SetLimit(4)
	for i := range scaleExperiments {
		g.Go(func() error {
			variants := []experiment.Variant{{Key: "control", Control: true, Weight: 1}, {Key: "short", Weight: 1, Payload: json.RawMessage(`{"title":"Pay now"}`)}}
			_, err := db.CreateExperiment(ctx, scaleKey(i), "", "", experiment.Definition{
				Unit: experiment.DefaultUnit, Owner: "growth", Description: "A shorter title on the last page of the checkout.",
				Hypothesis:  experiment.Hypothesis{Statement: "A shorter title makes more customers finish the checkout.", Null: "It makes no difference."},
				Variants:    variants,
				Eligibility: fmt.Sprintf(`attributes.country == "PL" && attributes.age >= %d`, i%100),
				Traffic:     1, Salt: scaleKey(i), Labels: map[string]string{"team": "growth"}, Segments: []string{"country"},
				Plan: experiment.Plan{Method: experiment.MethodAlwaysValid, ConfidenceLevel: 0.95, Correction: experiment.CorrectionHolm},
			})
			if err == nil {
				_, err = db.TransitionExperiment(ctx, scaleKey(i), 0, postgres.StateChange{To: experiment.StateRunning})
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

// memoryOf returns the bytes that the catalog holds for each experiment.
func memoryOf(b *testing.B, db *postgres.DB) float64 {
	b.Helper()
	held, _ := heldBy(b, func() *catalog.Store { return loadCatalog(b, db) })
	return float64(held) / scaleExperiments
}

// loadCatalog loads a catalog as a server does when it starts.
func loadCatalog(tb testing.TB, db *postgres.DB) *catalog.Store {
	tb.Helper()
	store := catalog.New(experiment.Pepper(testPepper), db.Histories, db.RosterSubjects, nil, time.Hour, slog.New(slog.NewTextHandler(tb.Output(), nil)))
	if err := store.Refresh(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return store
}

// heldBy returns the bytes that stay in use by what is made.
func heldBy[T any](tb testing.TB, make func() T) (int64, T) {
	tb.Helper()
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // The first leaves what pools hold to the second.
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	made := make()
	held := heap() - before
	runtime.KeepAlive(made)
	return held, made
}

// visible pauses an experiment and returns how long after the commit both
// servers know it.
func visible(b *testing.B, db *postgres.DB, servers []*grpc.ClientConn, key string) time.Duration {
	b.Helper()
	req := &assayv1.AssignRequest{Subject: &assayv1.Subject{Key: "u-1"}, Experiments: []string{key}}
	if _, err := db.TransitionExperiment(b.Context(), key, 0, postgres.StateChange{To: experiment.StatePaused}); err != nil {
		b.Fatal(err)
	}
	committed := time.Now()
	g, ctx := errgroup.WithContext(b.Context())
	for _, conn := range servers {
		g.Go(func() error { return askUntilPaused(ctx, conn, req) })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return time.Since(committed)
}

func askUntilPaused(ctx context.Context, conn *grpc.ClientConn, req *assayv1.AssignRequest) error {
	for {
		resp, err := assayv1.NewAssignmentServiceClient(conn).Assign(ctx, req)
		if err != nil {
			return err
		}
		if resp.Assignments[0].Reason == assayv1.Reason_REASON_NOT_RUNNING {
			return nil
		}
		time.Sleep(time.Millisecond) // The asking itself must not take the machine.
	}
}
