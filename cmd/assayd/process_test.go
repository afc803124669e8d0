package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// Tests that run the real binary in a process of its own, and talk to it over
// a real connection, share what is here.

// binary builds assayd once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "assayd-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "assayd")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	if os.Getenv(bareVariable) != "" {
		os.Exit(runBareRecorder())
	}
	code := m.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// process is a running assayd.
type process struct {
	cmd    *exec.Cmd
	output *lines
	ended  chan struct{}
	err    error // How it ended; read after ended.
}

// lines is the output of a process.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start runs assayd with the arguments. A process that still runs at the end
// of the test is asked to stop, and must.
func start(t testing.TB, args ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return startCommand(t, exec.Command(path, args...))
}

// startCommand runs a command that ends up as assayd.
func startCommand(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, output: &lines{}, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Signal(syscall.SIGTERM)
		p.waitEnd(t)
		if t.Failed() {
			t.Logf("%s printed:\n%s", cmd, p.output)
		}
	})
	return p
}

func (p *process) waitEnd(t testing.TB) {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(2 * time.Minute):
		p.cmd.Process.Kill()
		t.Errorf("assayd did not end; it printed:\n%s", p.output)
	}
}

// waitFor returns the first match of the pattern in the process's output.
func (p *process) waitFor(t testing.TB, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if m := re.FindStringSubmatch(p.output.String()); m != nil {
			return m
		}
		select {
		case <-p.ended:
			t.Fatalf("assayd ended (%v) without printing %q:\n%s", p.err, pattern, p.output)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("assayd did not print %q:\n%s", pattern, p.output)
		}
	}
}

// serveIn starts a server on a data directory and returns it with its address.
// An address of "" asks for any port.
func serveIn(t *testing.T, dir, addr string) (*process, string) {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	p := start(t, "serve", "--listen", addr, "--data-dir", dir)
	return p, p.waitFor(t, `serving address=(\S+)`)[1]
}

const testPepper = "a pepper for outages"

// serveWith starts a server on a database, whose only notices are those of the
// database: it polls once an hour.
func serveWith(t testing.TB, url, dir string, more ...string) *process {
	t.Helper()
	return start(t, append([]string{"serve", "--listen", "127.0.0.1:0", "--database-url", url, "--data-dir", dir,
		"--pepper-file", pepperFile(t, testPepper), "--catalog-poll", "1h"}, more...)...)
}

func pepperFile(t testing.TB, pepper string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pepper")
	if err := os.WriteFile(path, []byte(pepper), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// address waits until the server serves.
func (p *process) address(t testing.TB) string {
	t.Helper()
	return p.waitFor(t, `serving address=(\S+)`)[1]
}

func connect(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// dataDir is a directory that the user of the private Postgres can enter.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "assayd-data-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// asksToRepeat says whether an error is the server's own and says when to try
// again.
func asksToRepeat(err error) bool {
	return slices.ContainsFunc(status.Convert(err).Details(), func(d any) bool {
		info, ok := d.(*errdetails.RetryInfo)
		return ok && info.RetryDelay.AsDuration() > 0
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually waits for what may take a while, and fails if it never comes.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}
