package localpg

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRestartKeepsData(t *testing.T) {
	for name, dataDir := range map[string]string{
		"where every user can go":    openDir(t),
		"where only this user goes":  filepath.Join(t.TempDir(), "new", "data"),
		"a name with odd characters": filepath.Join(openDir(t), `a b"c'%+&`),
		"a name with a comma":        filepath.Join(openDir(t), "a,b"),
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "a name") {
				if err := os.Mkdir(dataDir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			s := start(t, Config{DataDir: dataDir})
			exec1(t, s.URL(), "CREATE TABLE kept AS SELECT 'row' AS v")
			first := s.URL()
			stop(t, s)
			select {
			case <-s.Done():
			default:
				t.Error("Stop returned before the server had ended")
			}
			if err := s.Err(); err != nil {
				t.Errorf("a wanted end is reported as unexpected: %v", err)
			}
			if n := running(t, dataDir); n != 0 {
				t.Errorf("%d processes were left", n)
			}
			if _, err := os.Stat(socketDirOf(t, first)); !os.IsNotExist(err) {
				t.Errorf("the socket directory was left: %v", err)
			}

			s = start(t, Config{DataDir: dataDir})
			if got := query(t, s.URL(), "SELECT v FROM kept"); got != "row" {
				t.Errorf("got %q", got)
			}
			if s.URL() != first {
				t.Errorf("the URL changed from %s to %s", first, s.URL())
			}
			stop(t, s)
			left, err := filepath.Glob(filepath.Join(dataDir, "*"))
			if err != nil {
				t.Fatal(err)
			}
			want := []string{filepath.Join(dataDir, clusterName), filepath.Join(dataDir, lockName), filepath.Join(dataDir, logName)}
			if diff := cmp.Diff(want, left); diff != "" {
				t.Errorf("data directory: %s", diff)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	t.Setenv("PGPORT", "6543")
	t.Setenv("PGDATA", "/nowhere")
	t.Setenv("PGCLIENTENCODING", "LATIN1")
	durable := start(t, Config{DataDir: t.TempDir()}).URL()
	ephemeral := start(t, Config{Ephemeral: true}).URL()
	for _, test := range []struct{ name, durable, ephemeral string }{
		{"listen_addresses", "", ""},
		{"data_checksums", "on", "on"},
		{"server_encoding", "UTF8", "UTF8"},
		{"client_encoding", "UTF8", "UTF8"},
		{"timezone", "UTC", "UTC"},
		{"fsync", "on", "off"},
		{"full_page_writes", "on", "off"},
		{"synchronous_commit", "on", "off"},
		{"shared_buffers", "256MB", "32MB"},
	} {
		if got := query(t, durable, "SHOW "+test.name); got != test.durable {
			t.Errorf("durable: %s = %q, want %q", test.name, got, test.durable)
		}
		if got := query(t, ephemeral, "SHOW "+test.name); got != test.ephemeral {
			t.Errorf("ephemeral: %s = %q, want %q", test.name, got, test.ephemeral)
		}
	}
	if got := query(t, durable, "SELECT current_database() || ' ' || datcollate FROM pg_database WHERE datname = current_database()"); got != "assay C" {
		t.Errorf("database and collation: %q", got)
	}
}

func TestEphemeralLeavesNothing(t *testing.T) {
	dir := openDir(t)
	t.Setenv("TMPDIR", dir)
	s := start(t, Config{Ephemeral: true})
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Fatalf("want the cluster in the directory for temporary files, got %v", entries)
	}
	stop(t, s)
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

func TestEphemeralSweepsWhatTheKilledLeft(t *testing.T) {
	dir := openDir(t)
	t.Setenv("TMPDIR", dir)
	long := make(map[string]bool) // name → must be kept
	for name, keep := range map[string]bool{"dead": false, "young": true, "held": true} {
		name := filepath.Join(dir, temporaryPrefix+name)
		if err := os.MkdirAll(filepath.Join(name, clusterName), 0o700); err != nil {
			t.Fatal(err)
		}
		long[name] = keep
	}
	held, err := OpenDataDir(filepath.Join(dir, temporaryPrefix+"held"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for name := range long {
		if !strings.HasSuffix(name, "young") {
			if err := os.Chtimes(name, longAgo, longAgo); err != nil {
				t.Fatal(err)
			}
		}
	}
	start(t, Config{Ephemeral: true})
	for name, keep := range long {
		if _, err := os.Stat(name); (err == nil) != keep {
			t.Errorf("%s: kept %t, want %t", name, err == nil, keep)
		}
	}
}

func TestNoDataDir(t *testing.T) {
	if s, err := Start(t.Context(), Config{}); err == nil {
		stop(t, s)
		t.Error("a durable cluster was started nowhere")
	}
}

func TestSecondStartIsRefused(t *testing.T) {
	dataDir := t.TempDir()
	first := start(t, Config{DataDir: dataDir})
	if _, err := Start(t.Context(), Config{DataDir: dataDir}); !errors.Is(err, ErrInUse) {
		t.Errorf("in this process: %v", err)
	}
	out, err := helper(t, os.Getuid(), "serve", dataDir).Output()
	if err == nil || !strings.Contains(string(out), ErrInUse.Error()) {
		t.Errorf("in another process: %v: %s", err, out)
	}
	if got := query(t, first.URL(), "SELECT 'alive'"); got != "alive" {
		t.Errorf("the first server answers %q", got)
	}
	stop(t, first)
	stop(t, start(t, Config{DataDir: dataDir}))
}

func TestCanceledStartLeavesNothing(t *testing.T) {
	dataDir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan error, 1)
	go func() {
		_, err := Start(ctx, Config{DataDir: dataDir})
		result <- err
	}()
	half := filepath.Join(dataDir, newPrefix+"*")
	eventually(t, "initdb at work", func() bool {
		found, _ := filepath.Glob(filepath.Join(half, "base"))
		return len(found) > 0
	})
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if found, _ := filepath.Glob(half); len(found) > 0 {
		t.Errorf("left: %v", found)
	}
	stop(t, start(t, Config{DataDir: dataDir}))
}

// Canceling ends a program that hangs, and the children it made.
func TestCanceledStartKillsWhatHangs(t *testing.T) {
	bin := openDir(t)
	const hang = "98765.4321" // seconds; marks the process
	for name, script := range map[string]string{
		"postgres": "echo 'postgres (PostgreSQL) 15.1'",
		"initdb":   "sleep " + hang + "; true",
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	dataDir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan error, 1)
	go func() {
		_, err := Start(ctx, Config{DataDir: dataDir})
		result <- err
	}()
	hanging := func() bool {
		all, err := processes()
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(all, func(p process) bool { return p.args == "sleep "+hang })
	}
	eventually(t, "initdb hangs", hanging)
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	eventually(t, "the child ends", func() bool { return !hanging() })
}

func TestErrorQuotesTheLog(t *testing.T) {
	dataDir := t.TempDir()
	stop(t, start(t, Config{DataDir: dataDir}))
	conf := filepath.Join(dataDir, clusterName, "postgresql.conf")
	if err := os.WriteFile(conf, []byte("work_mem = lots\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Config{DataDir: dataDir})
	if err == nil || !strings.Contains(err.Error(), "work_mem") {
		t.Errorf("got %v", err)
	}
}

func socketDirOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("host")
}
