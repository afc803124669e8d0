package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// TestPrivatePostgresKilledInPairs kills the private Postgres, and again soon
// after that, while it recovers or has just done so. The server lives on and
// goes on assigning, and nothing that it acknowledged is lost. The long form
// takes a tenth of the time of -faults.
func TestPrivatePostgresKilledInPairs(t *testing.T) {
	dir := dataDir(t)
	p, addr := serveIn(t, dir, "")
	conn := connect(t, addr)
	define(t, conn)
	stopAsking := keepAsking(t, conn)
	defer stopAsking()
	acknowledged := 0
	began := time.Now()
	for pair := 0; pair < 3 || time.Since(began) < *faultsFor/10; pair++ {
		acknowledged += recordUntilKept(t, conn, pair)
		first := killPostmaster(t, dir, 0)
		if pair == 0 {
			killPostmaster(t, dir, first) // As soon as there is another.
		} else {
			time.Sleep(250*time.Millisecond + time.Duration(rand.Int64N(int64(2750*time.Millisecond))))
			killPostmaster(t, dir, 0)
		}
		select {
		case <-p.ended:
			t.Fatalf("pair %d ended the server: %v\n%s", pair, p.err, p.output)
		default:
		}
	}
	acknowledged += recordUntilKept(t, conn, -1)
	checkHealth(t, conn, true)
	checkStored(t, dir, acknowledged)
	if n, m := strings.Count(p.output.String(), "the private Postgres ended"), strings.Count(p.output.String(), "the private Postgres runs again"); n == 0 || n != m {
		t.Errorf("the log says %d times that it ended and %d times that it runs again:\n%s", n, m, p.output)
	}
}

// killPostmaster kills the postmaster that the pid file names, if it runs, once
// it is not the other one. It returns its id.
func killPostmaster(t *testing.T, dir string, other int) (pid int) {
	t.Helper()
	eventually(t, "a postmaster to kill", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "postgres", "postmaster.pid"))
		if err != nil {
			return false
		}
		_, err = fmt.Sscan(string(text), &pid)
		return err == nil && pid != other
	})
	// The file may be that of a postmaster which has ended.
	if args, err := os.ReadFile(fmt.Sprint("/proc/", pid, "/cmdline")); err == nil && !bytes.Contains(args, []byte("cluster_name=assay-")) {
		return pid
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
	return pid
}

// recordUntilKept records outcomes of one name, again until they are
// acknowledged, and returns their number.
func recordUntilKept(t *testing.T, conn *grpc.ClientConn, batch int) int {
	t.Helper()
	req := &assayv1.RecordOutcomesRequest{}
	for i := range 100 {
		req.Outcomes = append(req.Outcomes, &assayv1.Outcome{EventId: fmt.Sprint("e-", batch, "-", i), Name: "kept",
			Subject: &assayv1.Subject{Key: fmt.Sprint("u-", i)}, OccurredTime: timestamppb.New(time.Date(2026, 1, 5, 10, 3, 0, 0, time.UTC))})
	}
	eventually(t, "outcomes are recorded", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), callPatience)
		defer cancel()
		resp, err := assayv1.NewEventServiceClient(conn).RecordOutcomes(ctx, req)
		if err != nil {
			if !asksToRepeat(err) && ctx.Err() == nil {
				t.Fatal(err)
			}
			return false
		}
		return int(resp.Recorded+resp.Duplicates) == len(req.Outcomes)
	})
	return len(req.Outcomes)
}

func checkStored(t *testing.T, dir string, want int) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), socketURL(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	var n int
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM outcomes`).Scan(&n); err != nil || n != want {
		t.Errorf("%d outcomes are stored, %v; %d were acknowledged", n, err, want)
	}
}

// TestPrivatePostgresOnFullDisk fills the disk and crashes the private Postgres,
// which then cannot start. The server goes on assigning, and so does one that
// starts meanwhile. Once there is room, both record again without being told.
func TestPrivatePostgresOnFullDisk(t *testing.T) {
	disk, err := smallDisk(t)
	if err != nil {
		t.Logf("NOT TRIED: a full disk under a private Postgres: %v", err)
		t.Skip("needs root on Linux, to mount a small disk")
	}
	dir := filepath.Join(disk, "data")
	p, addr := serveIn(t, dir, "")
	conn := connect(t, addr)
	define(t, conn)
	defined := time.Now()
	acknowledged := recordUntilKept(t, conn, 0)
	before := answers(t, conn)
	eventually(t, "the catalog is kept as it was after that", func() bool {
		info, err := os.Stat(filepath.Join(dir, snapshotName))
		return err == nil && info.ModTime().After(defined) // It is the time of a load.
	})
	stopAsking := keepAsking(t, conn)
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	killPostmaster(t, dir, 0)
	p.waitFor(t, "the private Postgres does not start; it is tried again until it does")
	checkHealth(t, conn, false)
	stopAsking()
	checkSame(t, "without room", before, conn)

	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.waitEnd(t)
	p, addr = serveIn(t, dir, "")
	p.waitFor(t, "assigning from the last catalog on disk")
	conn = connect(t, addr)
	checkSame(t, "started without room", before, conn)
	checkHealth(t, conn, false)
	checkUnavailable(t, conn)

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	acknowledged += recordUntilKept(t, conn, 1)
	checkHealth(t, conn, true)
	checkStored(t, dir, acknowledged)
	for _, line := range []string{"the private Postgres does not start", "the private Postgres runs again"} {
		if n := strings.Count(p.output.String(), line); n != 1 {
			t.Errorf("the log says %d times %q:\n%s", n, line, p.output)
		}
	}
}

// fill leaves no room on a disk.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for piece := make([]byte, 1<<16); err == nil; {
		_, err = f.Write(piece)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}
