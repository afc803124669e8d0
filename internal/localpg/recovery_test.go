package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

var longAgo = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// After kill -9 of the process that serves, of its server, or of both, the
// next start finds every committed row, and nothing of the old server runs.
func TestKilled(t *testing.T) {
	for user, uid := range users(t) {
		for _, who := range []string{"parent", "postmaster", "both"} {
			t.Run(who+" as "+user, func(t *testing.T) {
				dataDir := filepath.Join(openDir(t), "data")
				h := serve(t, uid, dataDir)
				exec1(t, h.url, "CREATE TABLE kept AS SELECT 'row' AS v")
				if who != "parent" {
					if err := syscall.Kill(h.pid, syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
				}
				if who != "postmaster" {
					h.kill(t)
				} else {
					h.stdin.Close()
					_ = h.cmd.Wait()
				}
				again := serve(t, uid, dataDir)
				if again.pid == h.pid {
					t.Error("the old server still runs")
				}
				if got := query(t, again.url, "SELECT v FROM kept"); got != "row" {
					t.Errorf("got %q", got)
				}
				again.stdin.Close()
				if err := again.cmd.Wait(); err != nil {
					t.Error(err)
				}
				if n := running(t, dataDir); n != 0 {
					t.Errorf("%d processes were left", n)
				}
			})
		}
	}
}

func TestServerEndsWithItsParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has a signal for the death of a parent")
	}
	for user, uid := range users(t) {
		t.Run(user, func(t *testing.T) {
			dataDir := filepath.Join(openDir(t), "data")
			h := serve(t, uid, dataDir)
			h.kill(t)
			eventually(t, "the server ends", func() bool { return running(t, dataDir) == 0 })
			// It was a fast shutdown, which takes the pid file away.
			if _, err := os.Stat(filepath.Join(dataDir, clusterName, "postmaster.pid")); !os.IsNotExist(err) {
				t.Errorf("the server did not shut down cleanly: %v", err)
			}
			stop(t, start(t, Config{DataDir: dataDir})) // takes the socket directory away
		})
	}
}

// A backend that is deep in a computation does not notice that its postmaster
// is gone, and holds the shared memory.
func TestPostmasterKilledUnderABusyBackend(t *testing.T) {
	dataDir := t.TempDir()
	s := start(t, Config{DataDir: dataDir})
	exec1(t, s.URL(), "CREATE TABLE kept AS SELECT 'row' AS v")
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	busy := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "DO $$ BEGIN LOOP END LOOP; END $$")
		busy <- err
	}()
	eventually(t, "the backend is busy", func() bool {
		return query(t, s.URL(), fmt.Sprintf("SELECT state FROM pg_stat_activity WHERE pid = %d", conn.PgConn().PID())) == "active"
	})
	if err := syscall.Kill(s.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if err := s.Err(); err == nil {
		t.Error("an unexpected end is not reported")
	}
	stop(t, s)
	if err := <-busy; err == nil {
		t.Error("an endless loop ended")
	}
	if n := running(t, dataDir); n != 0 {
		t.Errorf("%d processes were left", n)
	}
	again := start(t, Config{DataDir: dataDir})
	if got := query(t, again.URL(), "SELECT v FROM kept"); got != "row" {
		t.Errorf("got %q", got)
	}
}

func TestKilledWhileTheClusterIsMade(t *testing.T) {
	dataDir := filepath.Join(openDir(t), "data")
	cmd := helper(t, os.Getuid(), "serve", dataDir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(dataDir, newPrefix+"*")
	eventually(t, "initdb at work", func() bool {
		found, _ := filepath.Glob(filepath.Join(half, "base", "1"))
		return len(found) > 0
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if found, _ := filepath.Glob(half); len(found) != 1 {
		t.Fatalf("want one half cluster, got %v", found)
	}
	if _, err := os.Stat(filepath.Join(dataDir, clusterName)); !os.IsNotExist(err) {
		t.Fatalf("a half cluster has the name of a whole one: %v", err)
	}
	s := start(t, Config{DataDir: dataDir})
	if got := query(t, s.URL(), "SELECT current_database()"); got != database {
		t.Errorf("got %q", got)
	}
	if found, _ := filepath.Glob(half); len(found) != 0 {
		t.Errorf("left: %v", found)
	}
}

// A pid file can outlive its server and name a process that came later.
func TestPIDOfAnotherProgram(t *testing.T) {
	dataDir := t.TempDir()
	stop(t, start(t, Config{DataDir: dataDir}))
	other := asServer(t, dataDir, "sleep", "1000")
	writePIDFile(t, dataDir, other.Process.Pid)
	stop(t, start(t, Config{DataDir: dataDir}))
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the other program was ended: %v", err)
	}
}

func TestPostgresOfSomebodyElse(t *testing.T) {
	dataDir := openDir(t)
	stop(t, start(t, Config{DataDir: dataDir}))
	p, err := findPrograms(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	cluster := filepath.Join(dataDir, clusterName)
	other := asServer(t, dataDir, filepath.Join(p.dir, "postgres"), "-D", cluster, "-c", "listen_addresses=", "-c", "unix_socket_directories="+openDir(t))
	pidFile := filepath.Join(cluster, "postmaster.pid")
	eventually(t, "the other server is ready", func() bool {
		b, _ := os.ReadFile(pidFile)
		return strings.Contains(string(b), "ready")
	})
	if _, err := Start(t.Context(), Config{DataDir: dataDir}); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the other server was ended: %v", err)
	}
}

// asServer runs a program as the user who owns the cluster.
func asServer(t *testing.T, dataDir, name string, args ...string) *exec.Cmd {
	t.Helper()
	o, err := findOwner(filepath.Join(dataDir, clusterName))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	if o.other {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	return cmd
}

func writePIDFile(t *testing.T, dataDir string, pid int) {
	t.Helper()
	cluster := filepath.Join(dataDir, clusterName)
	path := filepath.Join(cluster, "postmaster.pid")
	content := fmt.Sprintf("%d\n%s\n1600000000\n5432\n/nowhere\n\n  1234567         0\nready   \n", pid, cluster)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := findOwner(cluster)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.own(path); err != nil {
		t.Fatal(err)
	}
}

// The programs of a killed create end by themselves, and may write until they
// do.
func TestHalfMadeClusterStillWritten(t *testing.T) {
	for range 20 {
		c := &Cluster{dataDir: t.TempDir()}
		half := filepath.Join(c.dataDir, newPrefix+"1", "base")
		if err := os.MkdirAll(half, 0o700); err != nil {
			t.Fatal(err)
		}
		written := make(chan struct{})
		var writer sync.WaitGroup
		writer.Go(func() {
			for i := range 5000 {
				if err := os.WriteFile(filepath.Join(half, fmt.Sprint(i)), nil, 0o600); err != nil {
					return // The directory is gone.
				}
				if i == 100 {
					close(written)
				}
			}
		})
		<-written
		if err := c.removeHalfMade(t.Context()); err != nil {
			t.Error(err)
		}
		if found, _ := filepath.Glob(filepath.Join(c.dataDir, newPrefix+"*")); len(found) != 0 {
			t.Errorf("left: %v", found)
		}
		writer.Wait()
	}
}
