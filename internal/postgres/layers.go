package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// layerColumns are what scanLayer reads.
const layerColumns = `l.id, l.key, l.unit, l.description, l.salt, l.version, l.create_time, l.update_time,
	(SELECT json_agg(json_build_object('experiment', s.key, 'ranges', s.ranges) ORDER BY s.key) FROM (
		SELECT e.key, json_agg(json_build_object('from', h.from_bucket, 'to', h.to_bucket) ORDER BY h.from_bucket) AS ranges
		FROM layer_slots h JOIN experiments e ON e.id = h.experiment_id
		WHERE h.layer_id = l.id AND h.end_time IS NULL GROUP BY e.key) s)`

func scanLayer(row pgx.CollectableRow) (*experiment.Layer, error) {
	var l experiment.Layer
	var slots []byte
	if err := row.Scan(&l.ID, &l.Key, &l.Unit, &l.Description, &l.Salt, &l.Version, &l.CreateTime, &l.UpdateTime, &slots); err != nil {
		return nil, err
	}
	if slots != nil {
		if err := json.Unmarshal(slots, &l.Slots); err != nil {
			return nil, fmt.Errorf("layer %s: slots: %w", l.Key, err)
		}
	}
	return &l, nil
}

func getLayer(ctx context.Context, q querier, key string) (*experiment.Layer, error) {
	rows, err := q.Query(ctx, `SELECT `+layerColumns+` FROM layers l WHERE l.key = $1`, key)
	if err != nil {
		return nil, err
	}
	l, err := pgx.CollectExactlyOneRow(rows, scanLayer)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, experiment.Errorf(experiment.ErrNotFound, "LAYER_NOT_FOUND", "there is no layer %q", key)
	}
	return l, err
}

// Layer returns a layer with the slots in use.
func (db *DB) Layer(ctx context.Context, key string) (*experiment.Layer, error) {
	l, err := getLayer(ctx, db.definitions, key)
	return l, interpret(err)
}

// Layers lists layers by key, after the given one.
func (db *DB) Layers(ctx context.Context, after string, limit int) ([]*experiment.Layer, error) {
	rows, err := db.definitions.Query(ctx, `SELECT `+layerColumns+` FROM layers l WHERE l.key > $1 ORDER BY l.key LIMIT $2`, after, limit)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, scanLayer)
	return list, interpret(err)
}

// CreateLayer stores a layer. A request id that made a layer before returns
// that one.
func (db *DB) CreateLayer(ctx context.Context, requestID, author string, l experiment.Layer) (*experiment.Layer, error) {
	var created *experiment.Layer
	err := inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		var id int32
		err := tx.QueryRow(ctx, `INSERT INTO layers (key, unit, description, salt, request_id) VALUES ($1, $2, $3, $4, nullif($5, ''))
			ON CONFLICT DO NOTHING RETURNING id`, l.Key, l.Unit, l.Description, l.Salt, requestID).Scan(&id)
		if errors.Is(err, pgx.ErrNoRows) {
			var madeKey string
			err = tx.QueryRow(ctx, `SELECT key FROM layers WHERE request_id = $1`, requestID).Scan(&madeKey)
			if errors.Is(err, pgx.ErrNoRows) || err == nil && madeKey != l.Key {
				return experiment.Errorf(experiment.ErrAlreadyExists, "LAYER_EXISTS", "there is a layer %q already, or the request id made another one", l.Key)
			}
		} else if err == nil {
			err = audit(ctx, tx, experiment.AuditEvent{Author: author, Action: experiment.AuditCreate, Kind: experiment.AuditedLayer, Key: l.Key})
		}
		if err != nil {
			return err
		}
		created, err = getLayer(ctx, tx, l.Key)
		return err
	})
	return created, err
}

// UpdateLayer stores the description and the salt that change makes of the
// layer as it is under its row's lock. An etag (the version) that is not 0 must
// be the current one. A layer that does not change keeps its version.
func (db *DB) UpdateLayer(ctx context.Context, key, author string, etag int64, change func(*experiment.Layer) (experiment.Layer, error)) (*experiment.Layer, error) {
	var updated *experiment.Layer
	err := inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		if err := lockLayer(ctx, tx, key); err != nil {
			return err
		}
		l, err := getLayer(ctx, tx, key)
		if err != nil {
			return err
		}
		if etag != 0 && etag != l.Version {
			return experiment.Errorf(experiment.ErrAborted, "ETAG_MISMATCH", "the layer has changed since it was read")
		}
		next, err := change(l)
		if err != nil {
			return err
		}
		if next.Description == l.Description && next.Salt == l.Salt {
			updated = l
			return nil
		}
		if next.Salt != l.Salt {
			if err := checkUnused(ctx, tx, l); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, `UPDATE layers SET description = $2, salt = $3, version = (SELECT nextval('definition_version')), update_time = statement_timestamp()
			WHERE id = $1`, l.ID, next.Description, next.Salt); err != nil {
			return err
		}
		if err := audit(ctx, tx, experiment.AuditEvent{Author: author, Action: experiment.AuditUpdate, Kind: experiment.AuditedLayer, Key: key}); err != nil {
			return err
		}
		updated, err = getLayer(ctx, tx, key)
		return err
	})
	return updated, err
}

// checkUnused refuses a layer that has ever handed out a slot: under another
// salt, subjects that were in one experiment could be in another, and no past
// assignment could be explained.
func checkUnused(ctx context.Context, tx pgx.Tx, l *experiment.Layer) error {
	var used bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM layer_slots WHERE layer_id = $1)`, l.ID).Scan(&used); err != nil {
		return err
	}
	if used {
		return experiment.Errorf(experiment.ErrPrecondition, "LAYER_USED", "the layer %q has handed out slots: its salt cannot change, as that would move subjects", l.Key)
	}
	return nil
}

// lockLayer locks a layer's row, if there is one, as lockExperiment does. It
// comes after the lock of an experiment and before its change gets a time, so
// that a slot ends before its buckets begin to be another's.
func lockLayer(ctx context.Context, tx pgx.Tx, key string) error {
	if key == "" {
		return nil
	}
	_, err := tx.Exec(ctx, `SELECT FROM layers WHERE key = $1 FOR NO KEY UPDATE`, key)
	return err
}

// checkLayer refuses a definition whose layer does not exist or is of another
// unit. No layer is ever deleted or changes its unit.
func checkLayer(ctx context.Context, tx pgx.Tx, def *experiment.Definition) error {
	if def.Layer == "" {
		return nil
	}
	l, err := getLayer(ctx, tx, def.Layer)
	switch {
	case errors.Is(err, experiment.ErrNotFound):
		return experiment.Invalid("layer", "there is no layer %q", def.Layer)
	case err == nil && l.Unit != def.Unit:
		return experiment.Invalid("layer", "the layer %q is of the unit %q, and the experiment of %q", def.Layer, l.Unit, def.Unit)
	}
	return err
}

// resizeSlot gives an experiment a slot of the width in the layer of its
// definition, under the layer's lock. Slots take the time and the version of
// the experiment's change, which has been made.
func resizeSlot(ctx context.Context, tx pgx.Tx, e *experiment.Experiment, width int32) error {
	if e.Current.Definition.Layer == "" || width == e.Slot.Width() {
		return nil
	}
	var now []experiment.Range
	if e.Slot != nil {
		now = e.Slot.Ranges
	}
	l, err := getLayer(ctx, tx, e.Current.Definition.Layer)
	if err != nil {
		return err
	}
	slot, fits := experiment.ResizeSlot(now, l.Others(e.Key), width)
	if !fits {
		return experiment.Errorf(experiment.ErrPrecondition, "LAYER_FULL",
			"the layer %q has room for another %g %% of its subjects, and this needs %g %%",
			l.Key, percent(l.Free()), percent(width-e.Slot.Width()))
	}
	if _, err := tx.Exec(ctx, `UPDATE layer_slots s SET end_time = e.update_time FROM experiments e
		WHERE e.id = $1 AND s.experiment_id = e.id AND s.end_time IS NULL`, e.ID); err != nil {
		return err
	}
	from, to := make([]int32, len(slot)), make([]int32, len(slot))
	for i, r := range slot {
		from[i], to[i] = r.From, r.To
	}
	_, err = tx.Exec(ctx, `INSERT INTO layer_slots (experiment_id, version, layer_id, from_bucket, to_bucket, from_time)
		SELECT e.id, e.version, $2, w.from_bucket, w.to_bucket, e.update_time
		FROM experiments e, unnest($3::integer[], $4::integer[]) AS w (from_bucket, to_bucket) WHERE e.id = $1`, e.ID, l.ID, from, to)
	return err
}

func percent(buckets int32) float64 { return float64(buckets) * 100 / experiment.Buckets }
