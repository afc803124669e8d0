package localpg

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// process is a process with its arguments, or the title it gave itself, joined
// by spaces. A zombie has none.
type process struct {
	pid  int
	args string
}

// isPostmaster tells whether p is a postmaster that we started on this cluster.
func (c *Cluster) isPostmaster(p process) bool {
	program, _, ok := strings.Cut(p.args, " -D ")
	return ok && filepath.Base(program) == "postgres" && strings.Contains(p.args, "cluster_name="+c.title)
}

// isOurs tells whether p is such a postmaster or a child of one.
func (c *Cluster) isOurs(p process) bool {
	return c.isPostmaster(p) || strings.HasPrefix(p.args, "postgres: "+c.title+":")
}

// isRecovering tells whether p is the child that brings the cluster in order
// after a crash, before anybody is let in.
func (c *Cluster) isRecovering(p process) bool {
	return strings.HasPrefix(p.args, "postgres: "+c.title+": startup")
}

// stopLeftovers ends what an earlier process left running on this cluster.
// The lock is ours, so nobody uses it. A postmaster is shut down; but one that
// recovers is ended at once: it has nothing to bring to an end, and while it
// flushes what it finds, or writes a checkpoint, it hears of no shutdown, which
// took half a minute and more. So are children whose postmaster was killed: most
// would end by themselves, but one that is deep in a query may not notice for
// long, and Postgres refuses to start while it lives. Of these one that has just
// been forked has its postmaster's title: the pid file tells them apart.
func (c *Cluster) stopLeftovers(ctx context.Context) error {
	leader, _ := c.pidFile()
	isLeader := func(p process) bool { return p.pid == leader && c.isPostmaster(p) }
	if _, err := c.end(ctx, isLeader, syscall.SIGINT, fastGrace); err != nil {
		return err
	}
	left, err := c.end(ctx, c.isOurs, syscall.SIGQUIT, immediateGrace)
	if err == nil && left != 0 {
		left, err = c.end(ctx, c.isOurs, syscall.SIGKILL, immediateGrace)
	}
	if err == nil && left != 0 {
		err = fmt.Errorf("the Postgres process %d, left over on %s, does not end", left, c.dir())
	}
	return err
}

// end signals the processes that match, and waits for a while until all have
// ended. It returns one that has not. Nobody waits for a shutdown that comes
// while the cluster recovers.
func (c *Cluster) end(ctx context.Context, match func(process) bool, signal syscall.Signal, grace time.Duration) (left int, err error) {
	deadline := time.Now().Add(grace)
	for sent := false; ; sent = true {
		all, err := processes()
		if err != nil {
			return 0, fmt.Errorf("cannot list processes: %w", err)
		}
		found := slices.DeleteFunc(slices.Clone(all), func(p process) bool { return !match(p) })
		if len(found) == 0 {
			return 0, nil
		}
		left = found[0].pid
		if time.Now().After(deadline) || signal == syscall.SIGINT && slices.ContainsFunc(all, c.isRecovering) {
			return left, nil
		}
		if !sent {
			for _, p := range found {
				_ = syscall.Kill(p.pid, signal) // it may be gone
			}
		}
		select {
		case <-ctx.Done():
			return left, fmt.Errorf("the Postgres process %d, left over on %s, did not end: %w", left, c.dir(), ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}

// clearPIDFile removes a stale pid file whose number is taken all the same:
// Postgres compares only numbers, and would refuse to start. The number is
// another program's when a container starts again; it is a zombie's when
// process 1 does not collect the dead. A Postgres that somebody else runs on
// the cluster is left alone.
func (c *Cluster) clearPIDFile() error {
	pid, _ := c.pidFile()
	if pid == 0 {
		return nil
	}
	all, err := processes()
	if err != nil {
		return fmt.Errorf("cannot list processes: %w", err)
	}
	for _, p := range all {
		if p.pid != pid {
			continue
		}
		program, _, _ := strings.Cut(p.args, " ")
		if base := filepath.Base(program); strings.HasPrefix(base, "postgres") || base == "postmaster" {
			return fmt.Errorf("%w: Postgres process %d, which was not started by Assay, may be using %s; stop it first", ErrInUse, pid, c.dir())
		}
		return os.Remove(filepath.Join(c.dir(), "postmaster.pid"))
	}
	return nil
}
