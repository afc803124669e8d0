package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

const metricColumns = `m.key, r.revision, m.archived, m.version, m.create_time, r.create_time, r.definition`

func scanMetric(row pgx.CollectableRow) (*metric.Metric, error) {
	var m metric.Metric
	var definition []byte
	if err := row.Scan(&m.Key, &m.Revision, &m.Archived, &m.Version, &m.CreateTime, &m.UpdateTime, &definition); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(definition, &m.Definition); err != nil {
		return nil, fmt.Errorf("metric %s: definition: %w", m.Key, err)
	}
	return &m, nil
}

// getMetric reads a metric at a revision, or at the current one if it is 0.
func getMetric(ctx context.Context, q querier, key string, revision int32) (*metric.Metric, error) {
	rows, err := q.Query(ctx, `SELECT `+metricColumns+` FROM metrics m JOIN metric_revisions r ON r.metric_id = m.id
		WHERE m.key = $1 AND r.revision = CASE WHEN $2 = 0 THEN m.revision ELSE $2 END`, key, revision)
	if err != nil {
		return nil, err
	}
	m, err := pgx.CollectExactlyOneRow(rows, scanMetric)
	if errors.Is(err, pgx.ErrNoRows) {
		if revision != 0 {
			return nil, experiment.Errorf(experiment.ErrNotFound, "METRIC_NOT_FOUND", "there is no metric %q with a revision %d", key, revision)
		}
		return nil, experiment.Errorf(experiment.ErrNotFound, "METRIC_NOT_FOUND", "there is no metric %q", key)
	}
	return m, err
}

// Metric returns a metric at a revision, or at the current one if it is 0.
func (db *DB) Metric(ctx context.Context, key string, revision int32) (*metric.Metric, error) {
	m, err := getMetric(ctx, db.definitions, key, revision)
	return m, interpret(err)
}

// Metrics lists metrics by key, after the given one.
func (db *DB) Metrics(ctx context.Context, after string, limit int, archived bool) ([]*metric.Metric, error) {
	rows, err := db.definitions.Query(ctx, `SELECT `+metricColumns+`
		FROM metrics m JOIN metric_revisions r ON r.metric_id = m.id AND r.revision = m.revision
		WHERE m.key > $1 AND (NOT m.archived OR $2) ORDER BY m.key LIMIT $3`, after, archived, limit)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, scanMetric)
	return list, interpret(err)
}

// CreateMetric stores a metric. A request id that made a metric before returns
// that one.
func (db *DB) CreateMetric(ctx context.Context, key, requestID, author string, def metric.Definition) (*metric.Metric, error) {
	var created *metric.Metric
	err := inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		var id int32
		err := tx.QueryRow(ctx, `INSERT INTO metrics (key, revision, request_id) VALUES ($1, 1, nullif($2, ''))
			ON CONFLICT DO NOTHING RETURNING id`, key, requestID).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) {
			var madeKey string
			err = tx.QueryRow(ctx, `SELECT key FROM metrics WHERE request_id = $1`, requestID).Scan(&madeKey)
			if errors.Is(err, pgx.ErrNoRows) || err == nil && madeKey != key {
				return experiment.Errorf(experiment.ErrAlreadyExists, "METRIC_EXISTS", "there is a metric %q already, or the request id made another one", key)
			}
		} else if err == nil {
			err = insertMetric(ctx, tx, author, key, &def)
		}
		if err != nil {
			return err
		}
		created, err = getMetric(ctx, tx, key, 0)
		return err
	})
	return created, err
}

// insertMetric adds the first revision of a new metric.
func insertMetric(ctx context.Context, tx pgx.Tx, author, key string, def *metric.Definition) error {
	if err := insertMetricRevision(ctx, tx, key, 1, def); err != nil {
		return err
	}
	return audit(ctx, tx, experiment.AuditEvent{Author: author, Action: experiment.AuditCreate, Kind: experiment.AuditedMetric, Key: key})
}

// UpdateMetric stores the definition that change makes of the metric as it is
// under its row's lock, as a new revision. An etag (the version) that is not 0
// must be the current one. A definition that does not change makes no revision.
func (db *DB) UpdateMetric(ctx context.Context, key, author string, etag int64, change func(*metric.Metric) (metric.Definition, error)) (*metric.Metric, error) {
	var updated *metric.Metric
	err := inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		m, err := lockMetric(ctx, tx, key, etag)
		if err != nil {
			return err
		}
		if m.Archived {
			return experiment.Errorf(experiment.ErrPrecondition, "METRIC_ARCHIVED", "the metric %q is archived", key)
		}
		def, err := change(m)
		if err != nil {
			return err
		}
		if reflect.DeepEqual(def, m.Definition) {
			updated = m
			return nil
		}
		if err := insertMetricRevision(ctx, tx, key, m.Revision+1, &def); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE metrics SET revision = $2, version = (SELECT nextval('definition_version')) WHERE key = $1`, key, m.Revision+1); err != nil {
			return err
		}
		if err := audit(ctx, tx, experiment.AuditEvent{
			Author: author, Action: experiment.AuditUpdate, Kind: experiment.AuditedMetric, Key: key,
			Details: map[string]any{"revision": m.Revision + 1},
		}); err != nil {
			return err
		}
		updated, err = getMetric(ctx, tx, key, 0)
		return err
	})
	return updated, err
}

// ArchiveMetric keeps a metric out of new experiments.
func (db *DB) ArchiveMetric(ctx context.Context, key, author string, etag int64) (*metric.Metric, error) {
	var archived *metric.Metric
	err := inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		m, err := lockMetric(ctx, tx, key, etag)
		if err != nil || m.Archived {
			archived = m
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE metrics SET archived = true, version = (SELECT nextval('definition_version')) WHERE key = $1`, key); err != nil {
			return err
		}
		if err := audit(ctx, tx, experiment.AuditEvent{Author: author, Action: experiment.AuditArchive, Kind: experiment.AuditedMetric, Key: key}); err != nil {
			return err
		}
		archived, err = getMetric(ctx, tx, key, 0)
		return err
	})
	return archived, err
}

// lockMetric reads a metric under a lock on its row, as lockExperiment does.
func lockMetric(ctx context.Context, tx pgx.Tx, key string, etag int64) (*metric.Metric, error) {
	if _, err := tx.Exec(ctx, `SELECT FROM metrics WHERE key = $1 FOR NO KEY UPDATE`, key); err != nil {
		return nil, err
	}
	m, err := getMetric(ctx, tx, key, 0)
	if err == nil && etag != 0 && etag != m.Version {
		return nil, experiment.Errorf(experiment.ErrAborted, "ETAG_MISMATCH", "the metric has changed since it was read")
	}
	return m, err
}

func insertMetricRevision(ctx context.Context, tx pgx.Tx, key string, revision int32, def *metric.Definition) error {
	definition, err := json.Marshal(def)
	if err != nil {
		return err
	}
	if _, err = tx.Exec(ctx, `INSERT INTO metric_revisions (metric_id, revision, definition) SELECT id, $2, $3 FROM metrics WHERE key = $1`,
		key, revision, string(definition)); err != nil {
		return err
	}
	return nameOutcomes(ctx, tx, countedNames(def.Components, nil))
}
