package localpg

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// The test binary plays other processes, as this variable tells it.
const helperVariable = "LOCALPG_TEST_HELPER"

func TestMain(m *testing.M) {
	if mode, arg, ok := strings.Cut(os.Getenv(helperVariable), " "); ok {
		os.Exit(playHelper(mode, arg))
	}
	goleak.VerifyTestMain(m)
}

// playHelper either serves a data directory until its standard input ends, or
// tries to connect to a socket.
func playHelper(mode, arg string) int {
	switch mode {
	case "serve":
		s, err := Start(context.Background(), Config{DataDir: arg})
		if err != nil {
			fmt.Println("error:", err)
			return 1
		}
		fmt.Println("ready:", s.PID(), s.URL())
		_, _ = io.Copy(io.Discard, os.Stdin)
		if err := s.Stop(); err != nil {
			fmt.Println("error:", err)
			return 1
		}
		return 0
	case "connect":
		conn, err := net.Dial("unix", arg)
		if err != nil {
			fmt.Println("error:", err)
			return 1
		}
		conn.Close()
		return 0
	}
	return 2
}

// helper runs the test binary as another process, and as another user if uid
// is not this one's.
func helper(t *testing.T, uid int, mode, arg string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	if uid != os.Getuid() {
		// The go command keeps its binaries where only this user can go.
		b, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path = filepath.Join(openDir(t), "helper")
		if err := os.WriteFile(cmd.Path, b, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		cmd.Dir = "/"
	}
	cmd.Env = append(os.Environ(), helperVariable+"="+mode+" "+arg)
	cmd.Stderr = os.Stderr
	return cmd
}

// served is a server that a helper runs.
type served struct {
	cmd   *exec.Cmd
	stdin io.Closer
	pid   int
	url   string
}

func serve(t *testing.T, uid int, dataDir string) *served {
	t.Helper()
	cmd := helper(t, uid, "serve", dataDir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &served{cmd: cmd, stdin: stdin}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	out := bufio.NewReader(stdout)
	line, _ := out.ReadString('\n')
	if _, err := fmt.Sscanf(line, "ready: %d %s", &h.pid, &h.url); err != nil {
		rest, _ := io.ReadAll(out)
		t.Fatalf("the helper did not serve: %s%s", line, rest)
	}
	return h
}

// kill is kill -9.
func (h *served) kill(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = h.cmd.Wait()
}

func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop() })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
}

func exec1(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var v string
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// openDir is a directory that every user can pass through and make another in,
// as in /tmp: t.TempDir lies where only this user can go. Others may write to
// it, and it is none to be a data directory, unless that is empty.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "localpg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return dir
}

// eventually polls until ok; the deadline is for a broken test only.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// running counts the server processes of a data directory.
func running(t *testing.T, dataDir string) int {
	t.Helper()
	real, err := filepath.EvalSymlinks(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{title: titleOf(real)}
	all, err := processes()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range all {
		if c.isOurs(p) {
			n++
		}
	}
	return n
}

// users are the ones to run as: this one, and an ordinary one if this is root.
func users(t *testing.T) map[string]int {
	t.Helper()
	m := map[string]int{"this user": os.Getuid()}
	if os.Getuid() == 0 {
		m["nobody"] = uidOf(t, "nobody")
	}
	return m
}

func uidOf(t *testing.T, name string) int {
	t.Helper()
	out, err := exec.Command("id", "-u", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return uid
}
