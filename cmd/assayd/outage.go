package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/assayhq/assay/internal/catalog"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
	"github.com/assayhq/assay/internal/server"
)

// What a server does while its database cannot be reached: it starts from the
// last catalog on disk, keeps trying, and tells its health.

// databasePause is the time between two looks at the database.
const databasePause = time.Second

// Variables, for tests.
var (
	// firstPatience is how long a server without a catalog to start from waits
	// for its database: one that is started along with it, or whose address is
	// still on its way through the network, is there by then, and who waits for
	// the server is told of a mistake in the URL soon enough.
	firstPatience = 30 * time.Second
	// privatePatience is how long the private Postgres may take to start before
	// the catalog on disk stands in for it. Without much to recover it takes a
	// second or two.
	privatePatience = 10 * time.Second
)

// begin prepares the database and loads the catalog. Where the database cannot
// be reached, the snapshot stands in for both; prepared then says what is left
// to do. Where there is none, begin waits for the database, for a while, and a
// private one that recovers for as long as that takes. Any other fault is the
// operator's.
func begin(ctx context.Context, d *database, db *postgres.DB, store *catalog.Store, log *slog.Logger) (prepared bool, err error) {
	said := false
	for deadline := time.Now().Add(firstPatience); ; {
		recovering := d.awaitPrivate(ctx)
		if err = db.Prepare(ctx); err == nil {
			prepared = true
			err = store.Refresh(ctx)
		}
		if err == nil || !errors.Is(err, experiment.ErrUnavailable) {
			return prepared, err
		}
		missing := d.restore(ctx, store)
		if missing == nil {
			log.WarnContext(ctx, "the database cannot be reached; assigning from the last catalog on disk",
				"experiments", store.Len(), "last_current", store.LoadedAt(), "error", err)
			return prepared, nil
		}
		if d.local != nil {
			_, fault := d.local.fault()
			err = errors.Join(fault, err)
		}
		err = fmt.Errorf("%w; and no catalog of an earlier run can stand in for it: %w", err, missing)
		if ctx.Err() != nil || !recovering && time.Now().After(deadline) {
			return prepared, err
		}
		if !said {
			log.WarnContext(ctx, "the database cannot be reached yet, and is waited for", "at_most", firstPatience, "error", err)
		}
		said = true
		select {
		case <-ctx.Done():
		case <-time.After(databasePause):
		}
	}
}

// awaitPrivate gives the private Postgres, if there is one, time to start, and
// says whether its first start goes on.
func (d *database) awaitPrivate(ctx context.Context) (recovering bool) {
	if d.local == nil {
		return false
	}
	d.local.await(ctx, privatePatience)
	tried, _ := d.local.fault()
	return !tried
}

// restore makes the snapshot the current catalog.
func (d *database) restore(ctx context.Context, store *catalog.Store) error {
	f, err := d.dir.Open(snapshotName)
	if err != nil {
		return err
	}
	defer f.Close()
	return store.Restore(ctx, f)
}

// watchDatabase keeps health true to what the database can be used for, and
// prepares it if the server started without. A database that must not be used
// ends the server. The catalog sees to itself.
func watchDatabase(ctx context.Context, p parts, log *slog.Logger) error {
	for known := (server.Database{Definitions: p.prepared, Recording: p.prepared, Analysis: p.prepared}); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(databasePause):
		}
		var c postgres.Condition
		if p.prepared {
			c = p.db.Condition(ctx)
		} else if err := p.db.Prepare(ctx); err != nil {
			c = postgres.Condition{Definitions: err, Recording: err, Analysis: err}
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case c.Definitions == nil:
			p.prepared = true
		case !p.prepared && !errors.Is(c.Definitions, experiment.ErrUnavailable):
			return c.Definitions
		}
		now := server.Database{Definitions: c.Definitions == nil, Recording: c.Recording == nil, Analysis: c.Analysis == nil}
		if now != known {
			server.SetDatabase(p.srv, p.state, now)
			logCondition(ctx, log, known, now, c)
			known = now
		}
	}
}

// logCondition says what has changed. Where the database has gone or come back as a
// whole, the rest goes without saying.
func logCondition(ctx context.Context, log *slog.Logger, before, now server.Database, c postgres.Condition) {
	switch {
	case before.Definitions && !now.Definitions:
		log.WarnContext(ctx, "the database cannot be reached; assignment goes on", "error", c.Definitions)
		return
	case !before.Definitions && now.Definitions:
		log.InfoContext(ctx, "the database can be reached again")
		before.Recording, before.Analysis = true, true
	}
	for _, part := range []struct {
		what        string
		before, now bool
		err         error
	}{{"recorded", before.Recording, now.Recording, c.Recording}, {"analysed", before.Analysis, now.Analysis, c.Analysis}} {
		switch {
		case part.before && !part.now:
			log.WarnContext(ctx, "the database is there, but events cannot be "+part.what, "error", part.err)
		case !part.before && part.now:
			log.InfoContext(ctx, "events can be "+part.what+" again")
		}
	}
}

// registerCatalog adds the metrics by which an operator sees that assignment
// lives on an old catalog.
func registerCatalog(registry *prometheus.Registry, store *catalog.Store) {
	registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "assay_catalog_age_seconds",
			Help: "Time since the catalog was last known to be current.",
		}, func() float64 { return max(0, time.Since(store.LoadedAt()).Seconds()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "assay_catalog_experiments",
			Help: "Experiments in the catalog, of whatever state.",
		}, func() float64 { return float64(store.Len()) }),
	)
	for _, fault := range catalog.Faults {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "assay_catalog_faulty_experiments",
			Help:        "Experiments that are not served as they are stored, by what cannot be read: those with a faulty definition are not running.",
			ConstLabels: prometheus.Labels{"fault": string(fault)},
		}, func() float64 { return float64(store.Faulty(fault)) }))
	}
}
