package localpg

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
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
	oldLogName  = "postgres.log.1"
	lockName    = "postgres.lock"

	socketDirName = "postgres.socket"
)

// Cluster is the Postgres of a data directory. It uses the directory for as long
// as it is used itself, and close gives back what it took beside that.
type Cluster struct {
	held      *DataDir
	dataDir   string // That of held.
	title     string // cluster_name: marks the server's processes
	ephemeral bool
	log       *os.File
	logStart  atomic.Int64
	owner     owner
	programs  programs
	socketDir string // Made by each start.
}

// Postgres returns the cluster of the directory, which the first start makes if
// there is none. It fails for what an operator must see to: programs that are
// missing, a cluster of another version or of another user. A start may succeed
// later, whatever it fails with.
func (d *DataDir) Postgres(ctx context.Context, ephemeral bool) (_ *Cluster, err error) {
	c := &Cluster{held: d, dataDir: d.path, title: titleOf(d.path), ephemeral: ephemeral}
	version, err := c.version()
	if err != nil {
		return nil, err
	}
	if c.owner, err = findOwner(c.dir()); err != nil {
		return nil, err
	}
	if c.programs, err = findPrograms(ctx, version); err != nil {
		if version != "" {
			return nil, fmt.Errorf("%s: %w", c.dir(), err)
		}
		return nil, err
	}
	if c.socketDir, err = c.chooseSocketDir(); err != nil {
		return nil, err
	}
	if err := c.openLog(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close closes what the cluster has open. It is called once no server runs.
func (c *Cluster) Close() error {
	if c.log == nil {
		return nil
	}
	return c.log.Close()
}

// Exists tells whether the cluster has been made.
func (c *Cluster) Exists() bool {
	_, err := os.Lstat(c.dir())
	return err == nil
}

// titleOf makes the cluster_name of a data directory.
func titleOf(dataDir string) string {
	return fmt.Sprintf("assay-%.8x", sha256.Sum256([]byte(dataDir)))
}

// dir is where the cluster is once it is complete.
func (c *Cluster) dir() string { return filepath.Join(c.dataDir, clusterName) }

// prepare brings the cluster to where a postmaster can be started on it.
func (c *Cluster) prepare(ctx context.Context) error {
	if err := c.stopLeftovers(ctx); err != nil {
		return err
	}
	if err := c.removeHalfMade(ctx); err != nil {
		return err
	}
	if !c.Exists() {
		return c.create(ctx)
	}
	return c.clearPIDFile()
}

// version reads the major version of the cluster; empty if there is none yet.
func (c *Cluster) version() (string, error) {
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
func (c *Cluster) removeHalfMade(ctx context.Context) error {
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
func (c *Cluster) create(ctx context.Context) (err error) {
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
func (c *Cluster) durability() []string {
	if !c.ephemeral {
		return nil
	}
	return []string{"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"}
}

// settings are the postmaster's arguments. They are on the command line so
// that they hold whatever the files in the cluster say.
func (c *Cluster) settings() []string {
	buffers, wal := "256MB", "4GB"
	if c.ephemeral {
		buffers, wal = "32MB", "1GB"
	}
	args := c.durability()
	for _, setting := range []string{
		"cluster_name=" + c.title,
		"listen_addresses=",
		"port=" + socketPort,
		`unix_socket_directories="` + strings.ReplaceAll(c.socketDir, `"`, `""`) + `"`,
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
func (c *Cluster) command(name string, onDeath syscall.Signal, dir handedDir, args ...string) *exec.Cmd {
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
func (c *Cluster) run(ctx context.Context, cmd *exec.Cmd, stdin string) error {
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
		d, err := OpenDataDir(dir)
		if err != nil {
			continue
		}
		c := &Cluster{held: d, dataDir: d.path, title: titleOf(d.path)}
		if c.stopLeftovers(ctx) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = d.Close()
	}
}
