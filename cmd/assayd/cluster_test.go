package main

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/localpg"
)

// cluster is a Postgres that a test takes away and gives back at the same
// place, which is a link to its socket.
type cluster struct {
	config localpg.Config
	link   string
	server *localpg.Server
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	return newClusterWith(t, localpg.Config{DataDir: temporary(t, "assay-cluster-"), Ephemeral: true})
}

func newClusterWith(t testing.TB, config localpg.Config) *cluster {
	t.Helper()
	c := &cluster{config: config, link: filepath.Join(temporary(t, "assay-"), "pg")}
	c.up(t)
	t.Cleanup(func() {
		if err := c.server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// temporary is a directory with a short path: sockets need one.
func temporary(t testing.TB, pattern string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (c *cluster) up(t testing.TB) {
	t.Helper()
	var err error
	if c.server, err = localpg.Start(context.Background(), c.config); err != nil {
		t.Fatal(err)
	}
	config, err := pgx.ParseConfig(c.server.URL())
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(c.link)
	if err := os.Symlink(config.Host, c.link); err != nil {
		t.Fatal(err)
	}
}

// kill ends Postgres without warning.
func (c *cluster) kill(t testing.TB) {
	t.Helper()
	if err := syscall.Kill(c.server.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-c.server.Done()
	if err := c.server.Stop(); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) url(database string) string {
	return "host=" + c.link + " user=assay dbname=" + database
}

func (c *cluster) execute(t testing.TB, database string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.url(database))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}
