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

// begin prepares the database and loads the catalog. Where the database cannot
// be reached, the snapshot stands in for both; prepared then says what is left
// to do. Any other fault is the operator's, and so is the lack of a snapshot.
func begin(ctx context.Context, db *postgres.DB, store *catalog.Store, snapshot string, log *slog.Logger) (prepared bool, err error) {
	if err = db.Prepare(ctx); err == nil {
		prepared = true
		err = store.Refresh(ctx)
	}
	if err == nil || snapshot == "" || !errors.Is(err, experiment.ErrUnavailable) {
		return prepared, err
	}
	if missing := store.Restore(ctx, snapshot); missing != nil {
		return prepared, fmt.Errorf("%w; and no catalog of an earlier run can stand in for it: %w", err, missing)
	}
	log.WarnContext(ctx, "the database cannot be reached; assigning from the last catalog on disk",
		"experiments", store.Len(), "last_current", store.LoadedAt(), "error", err)
	return prepared, nil
}

// watchDatabase keeps health true to whether the database can be reached, and
// prepares it if the server started without. A database that must not be used
// ends the server. The catalog sees to itself.
func watchDatabase(ctx context.Context, p parts, log *slog.Logger) error {
	for reachable := p.prepared; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(databasePause):
		}
		look := p.db.Ping
		if !p.prepared {
			look = p.db.Prepare
		}
		err := look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			p.prepared = true
		case !p.prepared && !errors.Is(err, experiment.ErrUnavailable):
			return err
		}
		if now := err == nil; now != reachable {
			reachable = now
			server.SetDatabase(p.srv, p.state, reachable)
			logReachable(ctx, log, err)
		}
	}
}

func logReachable(ctx context.Context, log *slog.Logger, err error) {
	if err != nil {
		log.WarnContext(ctx, "the database cannot be reached; assignment goes on", "error", err)
		return
	}
	log.InfoContext(ctx, "the database can be reached again")
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
}
