// Package localpg runs a private Postgres from the server programs that this
// machine already has. It is for `assayd serve` without a database URL, for
// the demo, and for the tests of every other package, so that a first try
// needs no database administrator and a test meets the real database.
//
// What it promises:
//
//   - The cluster lives in the subdirectory "postgres" of a data directory and
//     survives restarts, kill -9 of this process and kill -9 of the server.
//     It is never deleted and never upgraded: another major version is refused.
//   - It is reached through a Unix socket in a directory of mode 0700 and
//     through nothing else. Inside that directory authentication is "trust":
//     whoever can enter it owns the cluster's files anyway, and "peer" would
//     need a user map that breaks when the directory changes hands or when
//     root is the client.
//   - One process at a time has a data directory, see [OpenDataDir]: a lock on
//     the file "postgres.lock" is held until it is given back, and dies with its
//     process.
//   - [Cluster.Keep] starts the server again for as long as it takes, whatever
//     a start fails with.
//   - Files in the data directory are not trusted blindly: links are not
//     followed, and what somebody else may have put there is refused. Programs
//     are looked up as os/exec does, never in the current directory.
//   - The server ends with its parent. On Linux the kernel sends it SIGINT, a
//     fast shutdown, when the parent dies. Elsewhere, and while that shutdown
//     lasts, the next Start finds what was left over and stops it. Processes
//     are known by the cluster name in their title, which is made from the
//     path of the data directory; no process is signalled for its id alone.
//   - Nothing is printed. Output of the server programs goes to "postgres.log"
//     in the data directory, whose length is bounded.
//
// Postgres refuses to run as root. When this process is root, the server runs
// as the owner of the existing cluster, else as the user postgres, else as
// nobody. Only the cluster and the socket directory belong to that user. On
// Linux the data directory may lie where that user cannot go, such as below
// /root: the server is then handed the open directory, and its socket goes to
// the directory for temporary files.
//
// The programs alone are used, without pg_ctl or a client: the file
// postmaster.pid tells when the server is ready, and the database is created
// in single-user mode before the cluster gets its name.
package localpg

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Errors that Start wraps; the text of each error is a sentence for the operator.
var (
	// ErrNoPostgres means that no server programs of a usable version were found.
	ErrNoPostgres = errors.New("no Postgres server programs, version 14 or newer, were found")
	// ErrVersion means that the cluster was made by a version whose programs were not found.
	ErrVersion = errors.New("the cluster needs another version of Postgres")
	// ErrInUse means that another process has the data directory.
	ErrInUse = errors.New("the data directory is in use")
)

const (
	role     = "assay" // superuser of the cluster
	database = "assay"

	immediateGrace = 10 * time.Second // It writes nothing.
	pollInterval   = 10 * time.Millisecond
)

// fastGrace is how long a fast shutdown may take, which writes a checkpoint; on
// a slow disk that takes long. A variable for tests.
var fastGrace = 30 * time.Second

// Config says where the cluster lives and how much it is worth.
type Config struct {
	// DataDir holds the cluster, its log and its lock; other files in it are
	// left alone. It is created if missing. Empty is allowed only for an
	// ephemeral cluster, which then gets a temporary directory that Stop removes.
	DataDir string

	// Ephemeral trades durability for speed and memory, for tests: nothing is
	// flushed to disk, so a crash of the machine (not of a process) loses data.
	Ephemeral bool
}

// Server is a running Postgres. Its methods are safe for concurrent use.
type Server struct {
	cluster  *Cluster
	cmd      *exec.Cmd
	done     chan struct{}
	err      error // set before done is closed
	stopping atomic.Bool
	stop     func() error
	release  func() error // Gives back what Start took; nil of one that Keep started.

	socketMade, wasReady bool // How far start has come.
}

// Start returns when the server accepts connections and the database exists.
// A new cluster is made if there is none. What an earlier process left running
// on this data directory is stopped first, which ctx bounds as it does the
// whole start. Canceling ctx later does not stop the server: Stop does, and
// must be called.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	temporary := cfg.DataDir == "" && cfg.Ephemeral
	if temporary {
		sweepTemporary(ctx)
		if cfg.DataDir, err = temporaryDir(); err != nil {
			return nil, err
		}
	}
	release := func() (err error) {
		if temporary {
			err = os.RemoveAll(cfg.DataDir)
		}
		return err
	}
	defer func() {
		if err != nil {
			_ = release()
		}
	}()
	d, err := OpenDataDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	removeDir := release
	release = func() error { return errors.Join(removeDir(), d.Close()) }
	c, err := d.Postgres(ctx, cfg.Ephemeral)
	if err != nil {
		return nil, err
	}
	s, err := c.start(ctx)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	s.release = func() error { return errors.Join(c.Close(), release()) }
	return s, nil
}

// start starts a server on the cluster. One that did not get ready is stopped.
func (c *Cluster) start(ctx context.Context) (_ *Server, err error) {
	s := &Server{cluster: c, done: make(chan struct{})}
	s.stop = sync.OnceValue(s.shutdown)
	defer func() {
		if err != nil {
			_ = s.Stop()
		}
	}()
	if err := c.prepare(ctx); err != nil {
		return nil, err
	}
	if err := c.makePrivate(c.socketDir); err != nil {
		return nil, err
	}
	s.socketMade = true
	if err := s.launch(); err != nil {
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	s.wasReady = true
	return s, nil
}

// URL is the connection string of the database, as a superuser. pgx and libpq
// understand it; a caller may put another database name in its path.
func (s *Server) URL() string { return s.cluster.URL() }

// URL is the same of any server on the cluster, whether or not one runs.
func (c *Cluster) URL() string {
	u := url.URL{
		Scheme: "postgres",
		User:   url.User(role),
		Path:   "/" + database,
		// libpq and pgx do not take a plus sign for a space.
		RawQuery: "host=" + strings.ReplaceAll(url.QueryEscape(c.socketDir), "+", "%20") + "&port=" + socketPort,
	}
	return u.String()
}

// PID is the process id of the postmaster.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Done is closed when the postmaster has ended, for whatever reason. After an
// unexpected end the caller calls Stop, and may Start again.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err says why the postmaster ended: nil while it runs and after Stop.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Stop shuts the server down, breaking its connections, and gives the data
// directory back. It returns within about a minute: a server that does not
// end is stopped harder, which loses no committed data, and the error says so.
// Later calls return the same.
func (s *Server) Stop() error { return s.stop() }

// launch starts the postmaster and the goroutine that waits for it.
func (s *Server) launch() error {
	c := s.cluster
	dir, closeDir, err := c.handOver(c.dir())
	if err != nil {
		return err
	}
	defer closeDir()
	s.cmd = c.command("postgres", syscall.SIGINT, dir, c.settings()...)
	started := make(chan error)
	go func() {
		// The kernel counts the thread that forked as the parent: the server
		// would get its signal if that thread ended. So it stays and waits.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := s.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		err = s.cmd.Wait()
		if !s.stopping.Load() {
			s.err = fmt.Errorf("the Postgres server ended unexpectedly (%s)%s", describeExit(err), c.logTail())
		}
		close(s.done)
	}()
	if err := <-started; err != nil {
		s.cmd = nil
		return fmt.Errorf("cannot start Postgres: %w", err)
	}
	return nil
}

// ready waits until the postmaster says in its pid file that it accepts connections.
func (s *Server) ready(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return s.err
		case <-ctx.Done():
			return fmt.Errorf("the Postgres server did not get ready: %w%s", ctx.Err(), s.cluster.logTail())
		case <-tick.C:
			if pid, status := s.cluster.pidFile(); pid == s.PID() && status == "ready" {
				return nil
			}
		}
	}
}

// shutdown also cleans up after a start that failed half-way.
func (s *Server) shutdown() error {
	s.stopping.Store(true)
	var err error
	if s.cmd != nil {
		err = s.end()
	}
	// After a kill of the postmaster its children may still be about.
	ctx, cancel := context.WithTimeout(context.Background(), fastGrace)
	defer cancel()
	err = errors.Join(err, s.cluster.stopLeftovers(ctx))
	if s.socketMade {
		err = errors.Join(err, removeSocket(s.cluster.socketDir), os.Remove(s.cluster.socketDir))
	}
	if s.release != nil {
		err = errors.Join(err, s.release())
	}
	return err
}

// end asks the postmaster to end, harder each time. One that recovers has
// nothing to bring to an end, and may not listen for long.
func (s *Server) end() error {
	steps := []struct {
		signal syscall.Signal
		grace  time.Duration
	}{
		{syscall.SIGINT, fastGrace},
		{syscall.SIGQUIT, immediateGrace},
		{syscall.SIGKILL, immediateGrace},
	}
	if !s.wasReady {
		steps = steps[1:]
	}
	for i, step := range steps {
		_ = s.cmd.Process.Signal(step.signal) // it may have ended already
		timer := time.NewTimer(step.grace)
		defer timer.Stop()
		select {
		case <-s.done:
			if i > 0 {
				return fmt.Errorf("the Postgres server did not shut down in time and was ended by %v; it will recover when it next starts", step.signal)
			}
			return nil
		case <-timer.C:
		}
	}
	return errors.New("the Postgres server did not end after SIGKILL")
}

func describeExit(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// pidFile reads the postmaster's id and status from its pid file; zero values
// if there is none.
func (c *Cluster) pidFile() (pid int, status string) {
	b, err := os.ReadFile(filepath.Join(c.dir(), "postmaster.pid"))
	if err != nil {
		return 0, ""
	}
	lines := strings.Split(string(b), "\n")
	if _, err := fmt.Sscan(lines[0], &pid); err != nil {
		return 0, ""
	}
	if len(lines) > 7 {
		status = strings.TrimSpace(lines[7])
	}
	return pid, status
}
