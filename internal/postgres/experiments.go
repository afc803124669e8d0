package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// catalogChannel is where a change of any experiment is announced.
const catalogChannel = "assay_catalog"

// experimentColumns are what scanExperiment reads.
const experimentColumns = `e.id, e.key, e.state, e.version, e.pins, e.plan_hash, e.shipped_variant, e.rationale, e.conclusion,
	e.create_time, e.update_time, e.start_time, e.conclude_time,
	r.revision, r.phase, r.definition, r.allocation, r.create_time, r.author,
	(SELECT json_build_object('salt', l.salt, 'ranges', json_agg(json_build_object('from', s.from_bucket, 'to', s.to_bucket) ORDER BY s.from_bucket))
		FROM layer_slots s JOIN layers l ON l.id = s.layer_id WHERE s.experiment_id = e.id AND s.end_time IS NULL GROUP BY l.salt),
	(SELECT array_agg(h.key ORDER BY h.key) FROM holdout_coverage c JOIN holdouts h ON h.id = c.holdout_id
		WHERE c.experiment_id = e.id AND (h.end_time IS NULL OR h.end_time > statement_timestamp())),
	(SELECT ` + rosterObject + ` FROM rosters ro WHERE ro.experiment_id = e.id)`

// scanExperiment returns an undecodableError, with what has been decoded, for an
// experiment whose JSON is not as this release knows it.
func scanExperiment(row pgx.CollectableRow) (*experiment.Experiment, error) {
	var e experiment.Experiment
	var pins, conclusion, definition, allocation, slot, roster []byte
	var start, conclude *time.Time
	r := &e.Current
	if err := row.Scan(&e.ID, &e.Key, &e.State, &e.Version, &pins, &e.PlanHash, &e.ShippedVariant, &e.Rationale, &conclusion,
		&e.CreateTime, &e.UpdateTime, &start, &conclude,
		&r.Number, &r.Phase, &definition, &allocation, &r.CreateTime, &r.Author, &slot, &e.Holdouts, &roster); err != nil {
		return nil, err
	}
	if start != nil {
		e.StartTime = *start
	}
	if conclude != nil {
		e.ConcludeTime = *conclude
	}
	for _, part := range []struct {
		name string
		text []byte
		to   any
	}{{"pins", pins, &e.Pins}, {"conclusion", conclusion, &e.Conclusion}, {"slot", slot, &e.Slot}, {"roster", roster, &e.Roster}} {
		if part.text == nil {
			continue
		}
		if err := json.Unmarshal(part.text, part.to); err != nil {
			return &e, &undecodableError{fmt.Errorf("experiment %s: %s: %w", e.Key, part.name, err)}
		}
	}
	return &e, decodeRevision(r, definition, allocation)
}

func decodeRevision(r *experiment.Revision, definition, allocation []byte) error {
	if err := json.Unmarshal(definition, &r.Definition); err != nil {
		return &undecodableError{fmt.Errorf("revision %d: definition: %w", r.Number, err)}
	}
	if err := json.Unmarshal(allocation, &r.Allocation); err != nil {
		return &undecodableError{fmt.Errorf("revision %d: allocation: %w", r.Number, err)}
	}
	return nil
}

// undecodableError is of stored JSON that this release does not understand.
type undecodableError struct{ error }

func (e *undecodableError) Unwrap() error { return e.error }

// querier is what a pool and a transaction have in common.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func getExperiment(ctx context.Context, q querier, key string) (*experiment.Experiment, error) {
	rows, err := q.Query(ctx, `SELECT `+experimentColumns+`
		FROM experiments e JOIN experiment_revisions r ON r.experiment_id = e.id AND r.revision = e.revision
		WHERE e.key = $1`, key)
	if err != nil {
		return nil, err
	}
	e, err := pgx.CollectExactlyOneRow(rows, scanExperiment)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, experiment.Errorf(experiment.ErrNotFound, "EXPERIMENT_NOT_FOUND", "there is no experiment %q", key)
	}
	return e, err
}

// Experiment returns an experiment with its current revision.
func (db *DB) Experiment(ctx context.Context, key string) (*experiment.Experiment, error) {
	e, err := getExperiment(ctx, db.definitions, key)
	return e, interpret(err)
}

// ExperimentFilter selects experiments to list. Empty fields select all.
type ExperimentFilter struct {
	States []experiment.State
	Labels map[string]string
	After  string // Keys after this one.
	Limit  int
}

// Experiments lists experiments by key.
func (db *DB) Experiments(ctx context.Context, f ExperimentFilter) ([]*experiment.Experiment, error) {
	labels, err := json.Marshal(f.Labels)
	if err != nil {
		return nil, err
	}
	rows, err := db.definitions.Query(ctx, `SELECT `+experimentColumns+`
		FROM experiments e JOIN experiment_revisions r ON r.experiment_id = e.id AND r.revision = e.revision
		WHERE e.key > $1 AND ($2::text[] IS NULL OR e.state = ANY($2))
		AND ($3::text IN ('null', '{}') OR coalesce(r.definition->'labels', '{}')::jsonb @> $3::jsonb)
		ORDER BY e.key LIMIT $4`, f.After, f.States, string(labels), f.Limit)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, scanExperiment)
	return list, interpret(err)
}

// CreateExperiment stores a draft. A request id that made an experiment before
// returns that one.
func (db *DB) CreateExperiment(ctx context.Context, key, requestID, author string, def experiment.Definition) (*experiment.Experiment, error) {
	var created *experiment.Experiment
	err := inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		if err := checkReferences(ctx, tx, &def, nil); err != nil {
			return err
		}
		var id int32
		err := tx.QueryRow(ctx, `INSERT INTO experiments (key, state, revision, request_id)
			VALUES ($1, $2, 1, nullif($3, '')) ON CONFLICT DO NOTHING RETURNING id`,
			key, experiment.StateDraft, requestID).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) {
			created, err = existing(ctx, tx, key, requestID)
			return err
		}
		if err != nil {
			return err
		}
		if err := insertTransition(ctx, tx, id, experiment.StateDraft); err != nil {
			return err
		}
		if err := insertRevision(ctx, tx, id, &experiment.Revision{
			Number: 1, Phase: 1, Definition: def, Allocation: experiment.FirstAllocation(def.Variants), Author: author,
		}); err != nil {
			return err
		}
		if err := announce(ctx, tx, key); err != nil {
			return err
		}
		if err := audit(ctx, tx, experiment.AuditEvent{Author: author, Action: experiment.AuditCreate, Kind: experiment.AuditedExperiment, Key: key}); err != nil {
			return err
		}
		created, err = getExperiment(ctx, tx, key)
		return err
	})
	return created, err
}

// existing returns what an earlier request with the same id made.
func existing(ctx context.Context, tx pgx.Tx, key, requestID string) (*experiment.Experiment, error) {
	var madeKey string
	err := tx.QueryRow(ctx, `SELECT key FROM experiments WHERE request_id = $1`, requestID).Scan(&madeKey)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && madeKey != key {
		return nil, experiment.Errorf(experiment.ErrAlreadyExists, "EXPERIMENT_EXISTS", "there is an experiment %q already, or the request id made another one", key)
	}
	if err != nil {
		return nil, err
	}
	return getExperiment(ctx, tx, key)
}

// UpdateExperiment stores the revision that change makes of the experiment as
// it is under its row's lock. An etag (the version) that is not 0 must be the
// current one. A definition that does not change makes no revision.
func (db *DB) UpdateExperiment(ctx context.Context, key string, etag int64, change func(*experiment.Experiment) (experiment.Revision, error)) (*experiment.Experiment, error) {
	var updated *experiment.Experiment
	err := inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		e, err := lockExperiment(ctx, tx, key, etag)
		if err != nil {
			return err
		}
		next, err := change(e)
		if err != nil {
			return err
		}
		if next.Number == e.Current.Number {
			updated = e
			return nil
		}
		if err := checkReferences(ctx, tx, &next.Definition, e.Current.Definition.Metrics); err != nil {
			return err
		}
		if err := checkRevisions(ctx, tx, e); err != nil {
			return err
		}
		if err := lockLayer(ctx, tx, e.Current.Definition.Layer); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE experiments SET revision = $2, version = (SELECT nextval('definition_version')), update_time = statement_timestamp()
			WHERE id = $1`, e.ID, next.Number); err != nil {
			return err
		}
		if err := insertRevision(ctx, tx, e.ID, &next); err != nil {
			return err
		}
		if e.State.Started() {
			if err := resizeSlot(ctx, tx, e, next.Definition.TrafficBuckets()); err != nil {
				return err
			}
		}
		if err := announce(ctx, tx, key); err != nil {
			return err
		}
		if err := audit(ctx, tx, experiment.AuditEvent{
			Author: next.Author, Action: experiment.AuditUpdate, Kind: experiment.AuditedExperiment, Key: key,
			Details: map[string]any{"revision": next.Number},
		}); err != nil {
			return err
		}
		updated, err = getExperiment(ctx, tx, key)
		return err
	})
	return updated, err
}

// lockExperiment reads an experiment under a lock on its row. The lock is a
// statement of its own: one that locked and joined would find no row if the
// experiment got another revision while it waited.
//
// What is then written takes its time from a statement after the lock, not
// from the start of the transaction, so that times follow the order of changes.
func lockExperiment(ctx context.Context, tx pgx.Tx, key string, etag int64) (*experiment.Experiment, error) {
	if _, err := tx.Exec(ctx, `SELECT FROM experiments WHERE key = $1 FOR NO KEY UPDATE`, key); err != nil {
		return nil, err
	}
	e, err := getExperiment(ctx, tx, key)
	if err != nil {
		return nil, err
	}
	return e, e.CheckVersion(etag)
}

// checkReferences refuses a definition for what it names: its metrics and its
// layer.
func checkReferences(ctx context.Context, tx pgx.Tx, def *experiment.Definition, inUse []experiment.MetricUse) error {
	var bad experiment.InvalidError
	if err := bad.Join("", checkMetrics(ctx, tx, def, inUse)); err != nil {
		return err
	}
	if err := bad.Join("", checkLayer(ctx, tx, def)); err != nil {
		return err
	}
	return bad.Err()
}

// checkMetrics refuses a definition that names a metric that does not exist, or
// one that is archived and not in use already.
func checkMetrics(ctx context.Context, tx pgx.Tx, def *experiment.Definition, inUse []experiment.MetricUse) error {
	keys := make([]string, len(def.Metrics))
	for i, m := range def.Metrics {
		keys[i] = m.Metric
	}
	rows, err := tx.Query(ctx, `SELECT key, archived FROM metrics WHERE key = ANY($1)`, keys)
	if err != nil {
		return err
	}
	isArchived := map[string]bool{}
	var found string
	var archived bool
	if _, err := pgx.ForEachRow(rows, []any{&found, &archived}, func() error {
		isArchived[found] = archived
		return nil
	}); err != nil {
		return err
	}
	var bad experiment.InvalidError
	for i, key := range keys {
		archived, known := isArchived[key]
		used := slices.ContainsFunc(inUse, func(u experiment.MetricUse) bool { return u.Metric == key })
		switch {
		case !known:
			bad.Add(fmt.Sprintf("metrics[%d].metric", i), "there is no metric %q", key)
		case archived && !used:
			bad.Add(fmt.Sprintf("metrics[%d].metric", i), "the metric %q is archived", key)
		}
	}
	return bad.Err()
}

func insertRevision(ctx context.Context, tx pgx.Tx, id int32, r *experiment.Revision) error {
	definition, err := json.Marshal(&r.Definition)
	if err != nil {
		return err
	}
	allocation, err := json.Marshal(r.Allocation)
	if err != nil {
		return err
	}
	terms, err := encodeTerms(r)
	if err != nil {
		return err
	}
	if _, err = tx.Exec(ctx, `INSERT INTO experiment_revisions (experiment_id, revision, phase, definition, allocation, create_time, author, terms)
		SELECT id, $2, $3, $4, $5, update_time, $6, $7 FROM experiments WHERE id = $1`, id, r.Number, r.Phase, string(definition), string(allocation), r.Author, string(terms)); err != nil {
		return err
	}
	return nameOutcomes(ctx, tx, countedNames(nil, r.Definition.Covariates))
}

// touch gives an experiment another version, so that servers learn of a change
// that made no revision.
func touch(ctx context.Context, tx pgx.Tx, e *experiment.Experiment) error {
	if _, err := tx.Exec(ctx, `UPDATE experiments SET version = (SELECT nextval('definition_version')), update_time = statement_timestamp() WHERE id = $1`, e.ID); err != nil {
		return err
	}
	return announce(ctx, tx, e.Key)
}

func announce(ctx context.Context, tx pgx.Tx, key string) error {
	_, err := tx.Exec(ctx, `SELECT pg_notify($1, $2)`, catalogChannel, key)
	return err
}
