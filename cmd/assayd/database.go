package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/localpg"
	"github.com/assayhq/assay/internal/postgres"
)

// database is where a server keeps its data.
type database struct {
	url    string
	pepper experiment.Pepper
	dir    *localpg.DataDir
	local  *private // Nil with a database of the operator's.
}

// snapshotName is the file in the data directory with the last catalog, to start
// from while the database is down.
const snapshotName = "catalog.json.gz"

func (d *database) snapshot() string { return filepath.Join(d.dir.Path(), snapshotName) }

// openDatabase takes the data directory, and the database that the settings
// name; or else it begins to start the private one. It fails for what an
// operator must see to. The caller calls close.
func openDatabase(ctx context.Context, s *settings) (_ *database, err error) {
	d := &database{url: s.databaseURL}
	if d.pepper, err = s.givenPepper(); err != nil {
		return nil, err
	}
	if d.url != "" && d.pepper == nil {
		return nil, errors.New("a database URL needs a pepper: set ASSAY_PEPPER or --pepper-file to a secret that you keep for as long as the data")
	}
	if d.dir, err = localpg.OpenDataDir(s.dataDir); err != nil {
		return nil, err
	}
	if d.url == "" {
		err = d.openPrivate(ctx, s.log)
	}
	if err != nil {
		return nil, errors.Join(err, d.dir.Close())
	}
	return d, nil
}

// openPrivate sees to the pepper before there is a cluster.
func (d *database) openPrivate(ctx context.Context, log *slog.Logger) error {
	cluster, err := d.dir.Postgres(ctx, false)
	if err != nil {
		return err
	}
	if d.pepper == nil {
		if d.pepper, err = storedPepper(d.dir, cluster.Exists()); err != nil {
			return errors.Join(err, cluster.Close())
		}
	}
	d.url, d.local = cluster.URL(), keepPrivate(ctx, cluster, log)
	return nil
}

// close stops the private Postgres and gives the data directory back.
func (d *database) close() error {
	var err error
	if d.local != nil {
		err = d.local.close()
	}
	return errors.Join(err, d.dir.Close())
}

// private is a Postgres of the server's own, kept running until close. It needs
// more time than calls that are under way when the server is told to end.
type private struct {
	cluster *localpg.Cluster
	log     *slog.Logger
	stop    context.CancelFunc
	stopped chan error

	ran  chan struct{} // Closed when it runs for the first time.
	once sync.Once     // Closes it.

	mu      sync.Mutex
	tried   bool  // Whether a start has succeeded or failed yet.
	err     error // Of the last end or start.
	running bool
	failing bool // A start failed, and none has succeeded since.
}

func keepPrivate(ctx context.Context, cluster *localpg.Cluster, log *slog.Logger) *private {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	p := &private{cluster: cluster, log: log, stop: stop, stopped: make(chan error, 1), ran: make(chan struct{})}
	go func() { p.stopped <- cluster.Keep(ctx, func(err error) { p.tell(ctx, err) }) }()
	return p
}

func (p *private) close() error {
	p.stop()
	return errors.Join(<-p.stopped, p.cluster.Close())
}

// tell learns that Postgres runs, or why it does not. What changes is logged:
// its end, the first start that fails, and that it runs again.
func (p *private) tell(ctx context.Context, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil && p.err != nil:
		p.log.InfoContext(ctx, "the private Postgres runs again")
	case err != nil && p.running:
		p.log.ErrorContext(ctx, "the private Postgres ended and is started again", "error", err)
	case err != nil && !p.failing:
		p.failing = true
		p.log.ErrorContext(ctx, "the private Postgres does not start; it is tried again until it does", "error", err)
	}
	p.tried, p.err, p.running, p.failing = true, err, err == nil, err != nil && p.failing
	if p.running {
		p.once.Do(func() { close(p.ran) })
	}
}

// await waits until Postgres has run, but no longer than patience.
func (p *private) await(ctx context.Context, patience time.Duration) {
	select {
	case <-p.ran:
	case <-ctx.Done():
	case <-time.After(patience):
	}
}

// fault says why Postgres does not run, nil if it does or has not been tried:
// recovery may take long.
func (p *private) fault() (tried bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tried, p.err
}

// runMigrate brings a database up to date without serving. A database of the
// operator's may have servers at work, in whose data directory it has no part.
func runMigrate(ctx context.Context, args []string, e env) (err error) {
	s, err := parseSettings("migrate", args, e)
	if err != nil {
		return err
	}
	if s.databaseURL != "" {
		return postgres.Migrate(ctx, s.databaseURL)
	}
	d, err := openDatabase(ctx, &s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	for tried := false; !tried && ctx.Err() == nil; {
		d.local.await(ctx, firstPatience)
		if tried, err = d.local.fault(); err != nil {
			return err
		}
	}
	return postgres.Migrate(ctx, d.url)
}
