package localpg

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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
func (c *cluster) isPostmaster(p process) bool {
	program, _, ok := strings.Cut(p.args, " -D ")
	return ok && filepath.Base(program) == "postgres" && strings.Contains(p.args, "cluster_name="+c.title)
}

// isOurs tells whether p is such a postmaster or a child of one.
func (c *cluster) isOurs(p process) bool {
	return c.isPostmaster(p) || strings.HasPrefix(p.args, "postgres: "+c.title+":")
}

// stopLeftovers ends what an earlier process left running on this cluster.
// The lock is ours, so nobody uses it. A postmaster is shut down. Children
// whose postmaster was killed are ended at once: most would end by themselves,
// but one that is deep in a query may not notice for long, and Postgres
// refuses to start while it lives.
func (c *cluster) stopLeftovers(ctx context.Context) error {
	if err := c.endAll(ctx, c.isPostmaster, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL); err != nil {
		return err
	}
	return c.endAll(ctx, c.isOurs, syscall.SIGQUIT, syscall.SIGKILL)
}

// endAll signals the processes that match, and goes on to the next signal when
// some are still there after a while.
func (c *cluster) endAll(ctx context.Context, match func(process) bool, signals ...syscall.Signal) error {
	var found []process
	for _, signal := range signals {
		grace := immediateGrace
		if signal == syscall.SIGINT {
			grace = fastGrace
		}
		deadline := time.Now().Add(grace)
		for sent := false; ; sent = true {
			all, err := processes()
			if err != nil {
				return fmt.Errorf("cannot list processes: %w", err)
			}
			found = found[:0]
			for _, p := range all {
				if match(p) {
					found = append(found, p)
				}
			}
			if len(found) == 0 {
				return nil
			}
			if !sent {
				for _, p := range found {
					_ = syscall.Kill(p.pid, signal) // it may be gone
				}
			}
			if time.Now().After(deadline) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("the Postgres process %d, left over on %s, did not end: %w", found[0].pid, c.dir(), ctx.Err())
			case <-time.After(pollInterval):
			}
		}
	}
	return fmt.Errorf("the Postgres process %d, left over on %s, does not end", found[0].pid, c.dir())
}

// clearPIDFile removes a stale pid file whose number is taken all the same:
// Postgres compares only numbers, and would refuse to start. The number is
// another program's when a container starts again; it is a zombie's when
// process 1 does not collect the dead. A Postgres that somebody else runs on
// the cluster is left alone.
func (c *cluster) clearPIDFile() error {
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
