package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// holdoutColumns are what scanHoldout reads.
const holdoutColumns = `h.id, h.key, h.unit, h.description, h.share, h.salt, h.labels, h.kind, h.start_time, h.end_time,
	h.version, h.create_time, h.update_time,
	(SELECT array_agg(e.key ORDER BY e.key) FROM holdout_coverage c JOIN experiments e ON e.id = c.experiment_id
		WHERE c.holdout_id = h.id AND e.state <> 'archived')`

func scanHoldout(row pgx.CollectableRow) (*experiment.Holdout, error) {
	var h experiment.Holdout
	var labels []byte
	var end *time.Time
	if err := row.Scan(&h.ID, &h.Key, &h.Unit, &h.Description, &h.Share, &h.Salt, &labels, &h.Kind, &h.StartTime, &end,
		&h.Version, &h.CreateTime, &h.UpdateTime, &h.Experiments); err != nil {
		return nil, err
	}
	if end != nil {
		h.EndTime = *end
	}
	if err := json.Unmarshal(labels, &h.Labels); err != nil {
		return nil, fmt.Errorf("holdout %s: labels: %w", h.Key, err)
	}
	return &h, nil
}

func getHoldout(ctx context.Context, q querier, key string) (*experiment.Holdout, error) {
	rows, err := q.Query(ctx, `SELECT `+holdoutColumns+` FROM holdouts h WHERE h.key = $1`, key)
	if err != nil {
		return nil, err
	}
	h, err := pgx.CollectExactlyOneRow(rows, scanHoldout)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, experiment.Errorf(experiment.ErrNotFound, "HOLDOUT_NOT_FOUND", "there is no holdout %q", key)
	}
	return h, err
}

// Holdout returns a holdout with the experiments that it covers.
func (db *DB) Holdout(ctx context.Context, key string) (*experiment.Holdout, error) {
	h, err := getHoldout(ctx, db.definitions, key)
	return h, interpret(err)
}

// Holdouts lists holdouts by key, after the given one.
func (db *DB) Holdouts(ctx context.Context, after string, limit int) ([]*experiment.Holdout, error) {
	rows, err := db.definitions.Query(ctx, `SELECT `+holdoutColumns+` FROM holdouts h WHERE h.key > $1 ORDER BY h.key LIMIT $2`, after, limit)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, scanHoldout)
	return list, interpret(err)
}

// lockHoldouts keeps starts of experiments and changes of holdouts from each
// other, so that an experiment that starts while a holdout is created is either
// covered by it or known to be running. Starts do not wait for each other. It
// is the first lock of a transaction, before those of experiments: from there on
// no further experiment starts.
func lockHoldouts(ctx context.Context, tx pgx.Tx, mode string) error {
	_, err := tx.Exec(ctx, `LOCK TABLE holdouts IN `+mode+` MODE`)
	return err
}

// The modes of lockHoldouts.
const (
	lockToStart  = "SHARE"
	lockToChange = "SHARE ROW EXCLUSIVE"
)

// statementTime returns the time of a statement after the locks, so that times
// follow the order of changes.
func statementTime(ctx context.Context, tx pgx.Tx) (now time.Time, err error) {
	err = tx.QueryRow(ctx, `SELECT statement_timestamp()`).Scan(&now)
	return now, err
}

// CreateHoldout stores a holdout. A request id that made a holdout before
// returns that one. The author is of the revisions with which new phases begin.
func (db *DB) CreateHoldout(ctx context.Context, requestID, author string, h experiment.Holdout, running experiment.RunningExperiments) (*experiment.Holdout, error) {
	var created *experiment.Holdout
	err := inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		if err := lockHoldouts(ctx, tx, lockToChange); err != nil {
			return err
		}
		made, err := madeHoldout(ctx, tx, h.Key, requestID)
		if err != nil {
			return err
		}
		if made {
			created, err = getHoldout(ctx, tx, h.Key)
			return err
		}
		if err := checkHoldouts(ctx, tx, h.Unit); err != nil {
			return err
		}
		begun := h
		now, err := statementTime(ctx, tx)
		if err != nil {
			return err
		}
		if err := begun.Begin(now); err != nil {
			return err
		}
		if running == experiment.RunningNewPhase && begun.StartTime.After(now) {
			return experiment.Invalid("start_time", "must not be in the future if running experiments are to begin a new phase")
		}
		if begun.ID, err = insertHoldout(ctx, tx, requestID, &begun); err != nil {
			return err
		}
		if err := coverRunning(ctx, tx, author, &begun, running); err != nil {
			return err
		}
		if err := audit(ctx, tx, experiment.AuditEvent{Author: author, Action: experiment.AuditCreate, Kind: experiment.AuditedHoldout, Key: h.Key}); err != nil {
			return err
		}
		created, err = getHoldout(ctx, tx, h.Key)
		return err
	})
	return created, err
}

// checkHoldouts refuses another holdout of a unit that has as many as it may have.
func checkHoldouts(ctx context.Context, tx pgx.Tx, unit string) error {
	var n int
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM holdouts WHERE unit = $1 AND (end_time IS NULL OR end_time > statement_timestamp())`, unit).Scan(&n); err != nil {
		return err
	}
	if n >= experiment.MaxHoldouts {
		return experiment.Errorf(experiment.ErrPrecondition, "TOO_MANY_HOLDOUTS",
			"there are %d holdouts of the unit %q that have not ended, and may be %d, as every exposure can count in each: end some", n, unit, experiment.MaxHoldouts)
	}
	return nil
}

// madeHoldout says whether an earlier request with the same id made the holdout
// of the key, and refuses a key or an id that made another.
func madeHoldout(ctx context.Context, tx pgx.Tx, key, requestID string) (bool, error) {
	var exists, made bool
	if err := tx.QueryRow(ctx, `SELECT count(*) > 0, coalesce(bool_and(key = $1 AND request_id = $2), false) FROM holdouts
		WHERE key = $1 OR request_id = $2`, key, requestID).Scan(&exists, &made); err != nil {
		return false, err
	}
	if exists && !made {
		return false, experiment.Errorf(experiment.ErrAlreadyExists, "HOLDOUT_EXISTS", "there is a holdout %q already, or the request id made another one", key)
	}
	return made, nil
}

func insertHoldout(ctx context.Context, tx pgx.Tx, requestID string, h *experiment.Holdout) (id int32, err error) {
	labels, err := json.Marshal(h.Labels)
	if err != nil {
		return 0, err
	}
	err = tx.QueryRow(ctx, `INSERT INTO holdouts (id, key, unit, description, share, salt, labels, kind, start_time, end_time, request_id)
		VALUES (nextval('experiments_id_seq'), $1, $2, $3, $4, $5, $6, $7, $8, $9, nullif($10, '')) RETURNING id`,
		h.Key, h.Unit, h.Description, h.Share, h.Salt, string(labels), h.Kind, h.StartTime, nullTime(h.EndTime), requestID).Scan(&id)
	return id, err
}

func nullTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// maxNamed is how many experiments a refusal names.
const maxNamed = 10

// coverRunning deals with the started experiments that a new holdout would
// cover.
func coverRunning(ctx context.Context, tx pgx.Tx, author string, h *experiment.Holdout, running experiment.RunningExperiments) error {
	if running == experiment.RunningLeave {
		return nil
	}
	keys, err := startedOf(ctx, tx, h)
	if err != nil || len(keys) == 0 {
		return err
	}
	if running == experiment.RunningNewPhase {
		for _, key := range keys {
			if err := coverInNewPhase(ctx, tx, author, h, key); err != nil {
				return err
			}
		}
		return nil
	}
	named, more := keys, ""
	if n := len(keys) - maxNamed; n > 0 {
		named, more = keys[:maxNamed], fmt.Sprintf(" and %d more", n)
	}
	return experiment.Errorf(experiment.ErrPrecondition, "HOLDOUT_COVERS_RUNNING",
		"the holdout would cover experiments that run: %s%s; say in running_experiments whether to leave them or to begin a new phase",
		strings.Join(named, ", "), more)
}

// startedOf returns the keys of the running and paused experiments that the
// holdout would cover if they started now, in order.
func startedOf(ctx context.Context, tx pgx.Tx, h *experiment.Holdout) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT `+experimentColumns+`
		FROM experiments e JOIN experiment_revisions r ON r.experiment_id = e.id AND r.revision = e.revision
		WHERE e.state IN ('running', 'paused') ORDER BY e.key`)
	if err != nil {
		return nil, err
	}
	started, err := pgx.CollectRows(rows, scanExperiment)
	var keys []string
	for _, e := range started {
		if h.Covers(&e.Current.Definition) {
			keys = append(keys, e.Key)
		}
	}
	return keys, err
}

// coverInNewPhase begins a new phase of an experiment, which the holdout covers,
// unless the experiment has been concluded or has lost its labels meanwhile.
func coverInNewPhase(ctx context.Context, tx pgx.Tx, author string, h *experiment.Holdout, key string) error {
	e, err := lockExperiment(ctx, tx, key, 0)
	if err != nil {
		return err
	}
	if e.State == experiment.StateConcluded || e.State == experiment.StateArchived || !h.Covers(&e.Current.Definition) {
		return nil
	}
	if err := checkRevisions(ctx, tx, e); err != nil {
		return err
	}
	next := e.Current
	next.Number, next.Phase, next.Author = next.Number+1, next.Phase+1, author
	if _, err := tx.Exec(ctx, `UPDATE experiments SET revision = $2, version = (SELECT nextval('definition_version')), update_time = statement_timestamp()
		WHERE id = $1`, e.ID, next.Number); err != nil {
		return err
	}
	if err := insertRevision(ctx, tx, e.ID, &next); err != nil {
		return err
	}
	if err := insertCoverage(ctx, tx, e.ID, h.ID); err != nil {
		return err
	}
	if err := audit(ctx, tx, experiment.AuditEvent{
		Author: author, Action: experiment.AuditUpdate, Kind: experiment.AuditedExperiment, Key: key,
		Details: map[string]any{"revision": next.Number},
	}); err != nil {
		return err
	}
	return announce(ctx, tx, key)
}

// coverStart covers an experiment that starts by the holdouts in force.
func coverStart(ctx context.Context, tx pgx.Tx, e *experiment.Experiment) error {
	rows, err := tx.Query(ctx, `SELECT `+holdoutColumns+` FROM holdouts h JOIN experiments e ON e.id = $1
		WHERE h.start_time <= e.update_time AND (h.end_time IS NULL OR h.end_time > e.update_time) ORDER BY h.key`, e.ID)
	if err != nil {
		return err
	}
	holdouts, err := pgx.CollectRows(rows, scanHoldout)
	if err != nil {
		return err
	}
	for _, h := range holdouts {
		if h.Covers(&e.Current.Definition) {
			if err := insertCoverage(ctx, tx, e.ID, h.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// insertCoverage covers an experiment from the time of its last change on.
func insertCoverage(ctx context.Context, tx pgx.Tx, experimentID, holdoutID int32) error {
	_, err := tx.Exec(ctx, `INSERT INTO holdout_coverage (experiment_id, holdout_id, from_time)
		SELECT id, $2, update_time FROM experiments WHERE id = $1`, experimentID, holdoutID)
	return err
}

// UpdateHoldout stores what change makes of the holdout, as far as it may change
// now. An etag (the version) that is not 0 must be the current one. A holdout
// that does not change keeps its version.
func (db *DB) UpdateHoldout(ctx context.Context, key, author string, etag int64, change func(*experiment.Holdout) (experiment.Holdout, error)) (*experiment.Holdout, error) {
	var updated *experiment.Holdout
	err := inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		if err := lockHoldouts(ctx, tx, lockToChange); err != nil {
			return err
		}
		h, err := getHoldout(ctx, tx, key)
		if err != nil {
			return err
		}
		if etag != 0 && etag != h.Version {
			return experiment.Errorf(experiment.ErrAborted, "ETAG_MISMATCH", "the holdout has changed since it was read")
		}
		next, err := change(h)
		if err != nil {
			return err
		}
		now, err := statementTime(ctx, tx)
		if err != nil {
			return err
		}
		if next, err = h.Next(next, now); err != nil {
			return err
		}
		if err := storeHoldout(ctx, tx, author, h, &next); err != nil {
			return err
		}
		updated, err = getHoldout(ctx, tx, key)
		return err
	})
	return updated, err
}

// storeHoldout stores a changed holdout. Another end makes the covered
// experiments be compiled anew.
func storeHoldout(ctx context.Context, tx pgx.Tx, author string, h, next *experiment.Holdout) error {
	if h.Equal(next) {
		return nil
	}
	labels, err := json.Marshal(next.Labels)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE holdouts SET description = $2, share = $3, salt = $4, labels = $5, kind = $6, start_time = $7, end_time = $8,
		version = (SELECT nextval('definition_version')), update_time = statement_timestamp() WHERE id = $1`,
		h.ID, next.Description, next.Share, next.Salt, string(labels), next.Kind, next.StartTime, nullTime(next.EndTime)); err != nil {
		return err
	}
	if err := audit(ctx, tx, experiment.AuditEvent{Author: author, Action: experiment.AuditUpdate, Kind: experiment.AuditedHoldout, Key: h.Key}); err != nil {
		return err
	}
	if h.EndTime.Equal(next.EndTime) {
		return nil
	}
	rows, err := tx.Query(ctx, `UPDATE experiments e SET version = (SELECT nextval('definition_version')), update_time = statement_timestamp()
		FROM holdout_coverage c WHERE c.experiment_id = e.id AND c.holdout_id = $1 RETURNING e.key`, h.ID)
	if err != nil {
		return err
	}
	covered, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, key := range covered {
		if err := announce(ctx, tx, key); err != nil {
			return err
		}
	}
	return nil
}
