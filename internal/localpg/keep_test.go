package localpg

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// kept is a cluster that Keep runs until the end of the test.
type kept struct {
	*Cluster
	told chan error
}

func keep(t *testing.T, dataDir string) *kept {
	t.Helper()
	d, err := OpenDataDir(dataDir)
	check(t, err)
	c, err := d.Postgres(t.Context(), false)
	check(t, err)
	k := &kept{Cluster: c, told: make(chan error, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Keep(ctx, func(err error) { k.told <- err }) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, c.Close(), d.Close()); err != nil {
			t.Error(err)
		}
		if n := running(t, dataDir); n != 0 {
			t.Errorf("%d processes were left", n)
		}
	})
	return k
}

// next waits for news: that the server runs, or does not.
func (k *kept) next(t *testing.T, runs bool) error {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		select {
		case err := <-k.told:
			if (err == nil) == runs {
				return err
			}
		case <-deadline:
			t.Fatalf("never told that it runs: %t", runs)
		}
	}
}

// TestKeepThroughWhateverFails: what keeps a server from starting may go away
// after many attempts, and then it runs again, with what it had, at the same
// place. Nobody else gets the directory meanwhile.
func TestKeepThroughWhateverFails(t *testing.T) {
	dataDir := t.TempDir()
	k := keep(t, dataDir)
	k.next(t, true)
	exec1(t, k.URL(), "CREATE TABLE kept AS SELECT 'row' AS v")
	conf := filepath.Join(k.dir(), "postgresql.conf")
	sound, err := os.ReadFile(conf)
	check(t, err)
	check(t, os.WriteFile(conf, []byte("work_mem = lots\n"), 0o600))
	killLeader(t, k.Cluster)
	k.next(t, false)
	for range 3 {
		if err := k.next(t, false); !strings.Contains(err.Error(), "work_mem") {
			t.Errorf("got %v", err)
		}
	}
	if _, err := OpenDataDir(dataDir); !errors.Is(err, ErrInUse) {
		t.Errorf("another server gets the directory: %v", err)
	}
	check(t, os.WriteFile(conf, sound, 0o600))
	k.next(t, true)
	if got := query(t, k.URL(), "SELECT v FROM kept"); got != "row" {
		t.Errorf("got %q", got)
	}
}

// TestKeepThroughKillsOfAllAges kills each postmaster at another age: before it
// has written its pid file, while it recovers, when it has just got ready.
func TestKeepThroughKillsOfAllAges(t *testing.T) {
	k := keep(t, t.TempDir())
	k.next(t, true)
	exec1(t, k.URL(), "CREATE TABLE kept AS SELECT 'row' AS v")
	before := 0
	for age := range 8 {
		eventually(t, "another postmaster", func() bool {
			pid := leaderOf(t, k.Cluster)
			fresh := pid != 0 && pid != before
			if fresh {
				time.Sleep(time.Duration(age*age) * 4 * time.Millisecond) // Up to 200 ms.
				before = pid
			}
			return fresh
		})
		_ = syscall.Kill(before, syscall.SIGKILL) // It may have ended.
	}
	eventually(t, "it runs", func() bool { return leaderOf(t, k.Cluster) != before && serving(t, k.Cluster) })
	if got := query(t, k.URL(), "SELECT v FROM kept"); got != "row" {
		t.Errorf("got %q", got)
	}
}

// serving tells whether a postmaster is ready. What one that was killed has left
// in the pid file does not count.
func serving(t *testing.T, c *Cluster) bool {
	pid, status := c.pidFile()
	return status == "ready" && pid == leaderOf(t, c)
}

// leaderOf finds the postmaster, 0 if there is none: it is a leader of its group
// of processes.
func leaderOf(t *testing.T, c *Cluster) int {
	t.Helper()
	all, err := processes()
	check(t, err)
	for _, p := range all {
		if group, err := syscall.Getpgid(p.pid); err == nil && group == p.pid && c.isPostmaster(p) {
			return p.pid
		}
	}
	return 0
}

func killLeader(t *testing.T, c *Cluster) {
	t.Helper()
	check(t, syscall.Kill(leaderOf(t, c), syscall.SIGKILL))
}

// TestLeftoverThatRecovers: a postmaster whose parent was killed while it
// recovered, and which hears of no shutdown for now, is not waited for.
func TestLeftoverThatRecovers(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("it is found by the titles of its processes in /proc")
	}
	dataDir := filepath.Join(openDir(t), "data")
	s := start(t, Config{DataDir: dataDir})
	exec1(t, s.URL(), "CREATE TABLE kept AS SELECT 'row' AS v")
	c := s.cluster
	for frozen := false; !frozen; {
		if pid := leaderOf(t, c); pid != 0 {
			check(t, syscall.Kill(pid, syscall.SIGKILL))
			eventually(t, "it ends", func() bool { return leaderOf(t, c) == 0 })
		}
		_ = s.Stop()
		h := helper(t, os.Getuid(), "serve", dataDir)
		check(t, h.Start())
		eventually(t, "it recovers, or has done so", func() bool {
			all, err := processes()
			check(t, err)
			for _, p := range all {
				if c.isRecovering(p) && syscall.Kill(p.pid, syscall.SIGSTOP) == nil {
					frozen = leaderOf(t, c) != 0
					t.Cleanup(func() { _ = syscall.Kill(p.pid, syscall.SIGCONT) }) // Of a broken test.
					return true
				}
			}
			return serving(t, c)
		})
		_ = h.Process.Kill()
		_ = h.Wait()
	}
	defer func(grace time.Duration) { fastGrace = grace }(fastGrace)
	fastGrace = 3 * time.Minute                                    // More than the start has.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // For a broken test only.
	defer cancel()
	again, err := Start(ctx, Config{DataDir: dataDir})
	check(t, err)
	defer again.Stop()
	if got := query(t, again.URL(), "SELECT v FROM kept"); got != "row" {
		t.Errorf("got %q", got)
	}
}
