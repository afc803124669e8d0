package localpg

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Names in the data directory. A new cluster is built under a name with
// newPrefix and renamed when it is complete, so that a kill in the middle
// leaves no half cluster.
const (
	clusterName = "postgres"
	newPrefix   = "postgres.new-"
	logName     = "postgres.log"
	lockName    = "postgres.lock"

	socketDirName = "postgres.socket"
)

// cluster is a data directory held by this process.
type cluster struct {
	dataDir   string // absolute, without symbolic links
	title     string // cluster_name: marks the server's processes
	ephemeral bool
	lock      *os.File
	log       *os.File
	logStart  int64
	owner     owner
	programs  programs
}

// openCluster creates the data directory if need be and locks it.
func openCluster(dataDir string, ephemeral bool) (_ *cluster, err error) {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot create the data directory: %w", err)
	}
	if dataDir, err = filepath.Abs(dataDir); err != nil {
		return nil, err
	}
	if dataDir, err = filepath.EvalSymlinks(dataDir); err != nil {
		return nil, err
	}
	c := &cluster{
		dataDir:   dataDir,
		title:     titleOf(dataDir),
		ephemeral: ephemeral,
	}
	if c.lock, err = lockFile(filepath.Join(dataDir, lockName)); err != nil {
		return nil, err
	}
	c.log, err = os.OpenFile(filepath.Join(dataDir, logName), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		c.close()
		return nil, err
	}
	if c.logStart, err = c.log.Seek(0, io.SeekEnd); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// titleOf makes the cluster_name of a data directory.
func titleOf(dataDir string) string {
	return fmt.Sprintf("assay-%.8x", sha256.Sum256([]byte(dataDir)))
}

// close gives the data directory back.
func (c *cluster) close() {
	if c.log != nil {
		_ = c.log.Close()
	}
	_ = c.lock.Close()
}

// lockFile takes the lock or fails at once with ErrInUse. The file is closed
// on exec, so no child keeps the lock when this process is killed.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		}
		var pid int
		_, _ = fmt.Fscan(f, &pid)
		return nil, fmt.Errorf("%w: process %d has %s; stop it or choose another directory", ErrInUse, pid, filepath.Dir(path))
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := fmt.Fprintln(f, os.Getpid()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// dir is where the cluster is once it is complete.
func (c *cluster) dir() string { return filepath.Join(c.dataDir, clusterName) }

// prepare brings the cluster to where a postmaster can be started on it.
func (c *cluster) prepare(ctx context.Context) error {
	version, err := c.version()
	if err != nil {
		return err
	}
	if c.owner, err = findOwner(c.dir()); err != nil {
		return err
	}
	if c.programs, err = findPrograms(ctx, version); err != nil {
		if version != "" {
			return fmt.Errorf("%s: %w", c.dir(), err)
		}
		return err
	}
	if err := c.stopLeftovers(ctx); err != nil {
		return err
	}
	if err := c.removeHalfMade(ctx); err != nil {
		return err
	}
	if version == "" {
		return c.create(ctx)
	}
	return c.clearPIDFile()
}

// version reads the major version of the cluster; empty if there is none yet.
func (c *cluster) version() (string, error) {
	b, err := os.ReadFile(filepath.Join(c.dir(), "PG_VERSION"))
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if _, statErr := os.Lstat(c.dir()); errors.Is(statErr, fs.ErrNotExist) {
		return "", nil
	}
	return "", fmt.Errorf("%s is there but cannot be used as a Postgres cluster; move it away or choose another data directory: %w", c.dir(), err)
}

// removeHalfMade removes what a killed create left. It never was a cluster. Its
// programs end by themselves, and a directory that they still write to is
// tried again until ctx ends.
func (c *cluster) removeHalfMade(ctx context.Context) error {
	entries, err := os.ReadDir(c.dataDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), newPrefix) {
			continue
		}
		for {
			err := os.RemoveAll(filepath.Join(c.dataDir, e.Name()))
			if err == nil {
				break
			}
			if !errors.Is(err, syscall.ENOTEMPTY) {
				return err
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(pollInterval):
			}
		}
	}
	return nil
}

// create makes a cluster with its database. The locale is C, so that the order
// of an index does not depend on the C library's version. Checksums are on: a
// private cluster has nobody else to notice a bad disk.
func (c *cluster) create(ctx context.Context) (err error) {
	tmp, err := os.MkdirTemp(c.dataDir, newPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(tmp)
		}
	}()
	if err := c.owner.own(tmp); err != nil {
		return err
	}
	dir, closeDir, err := c.handOver(tmp)
	if err != nil {
		return err
	}
	defer closeDir()

	args := []string{"--username=" + role, "--encoding=UTF8", "--locale=C", "--data-checksums",
		"--auth-local=trust", "--auth-host=reject", "--no-instructions"}
	if c.ephemeral {
		args = append(args, "--no-sync")
	}
	if err := c.run(ctx, c.command("initdb", syscall.SIGKILL, dir, args...), ""); err != nil {
		return err
	}
	single := c.command("postgres", syscall.SIGKILL, dir, append(c.durability(), "-c", "exit_on_error=on", "postgres")...)
	single.Args = slices.Insert(single.Args, 1, "--single") // Postgres wants it first
	if err := c.run(ctx, single, "CREATE DATABASE "+database+"\n"); err != nil {
		return err
	}
	if err := os.Rename(tmp, c.dir()); err != nil {
		return err
	}
	return syncDir(c.dataDir)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// durability are the settings an ephemeral cluster gives up.
func (c *cluster) durability() []string {
	if !c.ephemeral {
		return nil
	}
	return []string{"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"}
}

// settings are the postmaster's arguments. They are on the command line so
// that they hold whatever the files in the cluster say.
func (c *cluster) settings(socketDir string) []string {
	buffers, wal := "256MB", "4GB"
	if c.ephemeral {
		buffers, wal = "32MB", "1GB"
	}
	args := c.durability()
	for _, setting := range []string{
		"cluster_name=" + c.title,
		"listen_addresses=",
		"port=" + socketPort,
		`unix_socket_directories="` + strings.ReplaceAll(socketDir, `"`, `""`) + `"`,
		"unix_socket_permissions=0700",
		"max_connections=100",
		"shared_buffers=" + buffers,
		"max_wal_size=" + wal,
		"jit=off", // compiling costs more than it saves on these queries
		"timezone=UTC",
		"log_timezone=UTC",
		"logging_collector=off", // standard error is the log
		"log_destination=stderr",
		"log_checkpoints=off",
		// Errors go to the client, which knows what may be logged: keys of
		// subjects must not gather in a file that erasure does not reach.
		"log_min_messages=log",
	} {
		args = append(args, "-c", setting)
	}
	return args
}

// command prepares a server program on the cluster in dir: under the owner's
// credential, in a process group of its own (an interrupt from the terminal is
// for this process, which stops the server in its turn), and with a signal for
// the death of this process.
func (c *cluster) command(name string, onDeath syscall.Signal, dir handedDir, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.programs.dir, name), append([]string{"-D", dir.path}, args...)...)
	cmd.Dir = "/" // the owner may have no access to ours
	cmd.Stdout, cmd.Stderr = c.log, c.log
	if dir.file != nil {
		cmd.ExtraFiles = []*os.File{dir.file}
	}
	// PGCLIENTENCODING and its like are meant for clients, but change the
	// server's defaults too. The locale is that of its messages.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.owner.other {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(c.owner.uid), Gid: uint32(c.owner.gid)}
	}
	tie(cmd.SysProcAttr, onDeath)
	return cmd
}

// run runs a program to its end, or kills it and its children when ctx is done.
func (c *cluster) run(ctx context.Context, cmd *exec.Cmd, stdin string) error {
	name := filepath.Base(cmd.Path)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	if _, err := w.WriteString(stdin); err != nil { // short: it fits in the pipe
		return err
	}
	w.Close()
	cmd.Stdin = r

	runtime.LockOSThread() // see launch
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start %s: %w", name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err = cmd.Wait()
	if !stop() {
		return fmt.Errorf("%s was canceled: %w", name, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("%s failed (%w)%s", name, err, c.logTail())
	}
	return nil
}

// logTail quotes the end of what was logged since this start, for an error.
func (c *cluster) logTail() string {
	const most = 1500
	end, err := c.log.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	b := make([]byte, min(end-c.logStart, most))
	if _, err := c.log.ReadAt(b, end-int64(len(b))); err != nil || len(b) == 0 {
		return ""
	}
	return fmt.Sprintf("; the end of %s:\n%s", c.log.Name(), strings.TrimSpace(string(b)))
}

// Temporary data directories. A process that was killed cannot remove its own,
// so the next one does.
const temporaryPrefix = "assay-postgres-"

func temporaryDir() (string, error) {
	dir, err := os.MkdirTemp("", temporaryPrefix)
	if err != nil {
		return "", err
	}
	if os.Getuid() == 0 { // the server's user must pass through
		err = os.Chmod(dir, 0o711)
	}
	return dir, err
}

// sweepTemporary removes directories whose process is gone, as the free lock
// shows. A young one may be about to be locked and is left alone.
func sweepTemporary(ctx context.Context) {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), temporaryPrefix+"*"))
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || ownerOf(info) != os.Getuid() || time.Since(info.ModTime()) < 10*time.Minute {
			continue
		}
		c, err := openCluster(dir, true)
		if err != nil {
			continue
		}
		if c.stopLeftovers(ctx) == nil {
			_ = os.RemoveAll(dir)
		}
		c.close()
	}
}
