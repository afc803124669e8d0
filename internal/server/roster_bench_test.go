package server_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/postgres"
	"github.com/assayhq/assay/internal/postgres/postgrestest"
)

// BenchmarkAllocateRoster streams a million subjects in three strata with two
// covariates, and compares that with a raw COPY of as many rows of the same kind
// into a table with the same key. The heap is that of the server and of the
// client, whose messages are made one by one.
func BenchmarkAllocateRoster(b *testing.B) {
	const n, size = 1_000_000, 10_000
	url := postgrestest.URL(b)
	db, err := postgres.Open(b.Context(), url, postgrestest.Pepper)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(db.Close)
	a := serve(b, db, true)
	var ours, theirs time.Duration
	grown := uint64(0)
	for i := 0; b.Loop(); i++ {
		key := fmt.Sprint("campaign-", i)
		a.do(b, "ExperimentService/CreateExperiment", campaign(key))
		before, peak := heapBytes(), watchHeap(b)
		began := time.Now()
		stream, err := assayv1.NewRosterServiceClient(a.conn).AllocateRoster(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for from := 0; from < n; from += size {
			m := &assayv1.AllocateRosterRequest{Experiment: key, Subjects: make([]*assayv1.RosterSubject, size)}
			for j := range m.Subjects {
				m.Subjects[j] = &assayv1.RosterSubject{Key: fmt.Sprint("u-", from+j), Stratum: stratumOf(from + j), Covariates: map[string]float64{"spend": float64(j), "visits": float64(j % 7)}}
			}
			if err := stream.Send(m); err != nil {
				break // The reply says why.
			}
		}
		if _, err := stream.CloseAndRecv(); err != nil {
			b.Fatal(err)
		}
		ours += time.Since(began)
		grown = max(grown, peak()-before)
		theirs += rawCopy(b, url, n)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours.Seconds()/float64(b.N), "s/roster")
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "roster/copy")
	b.ReportMetric(float64(grown)/1e6, "MB-heap-growth")
}

func heapBytes() uint64 {
	runtime.GC()
	return readHeap()
}

func readHeap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// watchHeap measures the heap until the function that is returned is called,
// which returns the largest size seen.
func watchHeap(b *testing.B) (peak func() uint64) {
	ctx, cancel := context.WithCancel(b.Context())
	largest := make(chan uint64)
	go func() {
		most := uint64(0)
		for ctx.Err() == nil {
			most = max(most, readHeap())
			time.Sleep(5 * time.Millisecond)
		}
		largest <- most
	}()
	return func() uint64 {
		cancel()
		return <-largest
	}
}

// rawCopy times a COPY of n rows in the order of their ids.
func rawCopy(b *testing.B, url string, n int) time.Duration {
	b.Helper()
	conn := connect(b, url)
	if _, err := conn.Exec(b.Context(), `CREATE TABLE IF NOT EXISTS raw (LIKE roster_subjects INCLUDING ALL)`); err != nil {
		b.Fatal(err)
	}
	if _, err := conn.Exec(b.Context(), `TRUNCATE raw`); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	if _, err := conn.CopyFrom(b.Context(), pgx.Identifier{"raw"}, []string{"roster_id", "subject_id", "arm"}, pgx.CopyFromSlice(n, func(i int) ([]any, error) {
		var id [16]byte
		binary.BigEndian.PutUint64(id[:], uint64(i)<<40)
		return []any{int32(1), id, int16(i % 3)}, nil
	})); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}
