package postgrestest

import (
	"context"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/postgres"
)

// citus is a cluster in whose place no Postgres is started: databases are made on all
// of its nodes, and migrated one by one, for a distributed one cannot be copied.
type citus struct {
	coordinator *url.URL
	workers     []*url.URL
}

// findCitus asks the coordinator for its workers, which have the same user.
func findCitus(ctx context.Context, coordinator string) (*citus, error) {
	u, err := url.Parse(coordinator)
	if err != nil {
		return nil, err
	}
	c := &citus{coordinator: u}
	conn, err := pgx.Connect(ctx, coordinator)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT format('%s:%s', nodename, nodeport) FROM pg_dist_node WHERE groupid > 0`)
	if err != nil {
		return nil, err
	}
	hosts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, host := range hosts {
		worker := *u
		worker.Host = host
		c.workers = append(c.workers, &worker)
	}
	return c, err
}

// in is the connection string of a database on a node.
func in(node *url.URL, database string) string {
	u := *node
	u.Path = "/" + database
	return u.String()
}

func (c *citus) create(ctx context.Context, database string) error {
	for _, node := range append(c.workers, c.coordinator) {
		if err := run(ctx, node.String(), `CREATE DATABASE `+database); err != nil {
			return err
		}
		if err := run(ctx, in(node, database), `CREATE EXTENSION citus`); err != nil {
			return err
		}
	}
	at := in(c.coordinator, database)
	add := []string{fmt.Sprintf(`SELECT citus_set_coordinator_host('%s', %s)`, c.coordinator.Hostname(), c.coordinator.Port())}
	for _, w := range c.workers {
		add = append(add, fmt.Sprintf(`SELECT citus_add_node('%s', %s)`, w.Hostname(), w.Port()))
	}
	for _, sql := range add {
		if err := run(ctx, at, sql); err != nil {
			return err
		}
	}
	return postgres.Migrate(ctx, at)
}

func (c *citus) drop(ctx context.Context, database string) error {
	for _, node := range append([]*url.URL{c.coordinator}, c.workers...) {
		if err := run(ctx, node.String(), `DROP DATABASE `+database+` WITH (FORCE)`); err != nil {
			return err
		}
	}
	return nil
}
