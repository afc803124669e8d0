package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// Override pins a subject to a variant. With an empty variant it unpins.
type Override struct {
	SubjectID  experiment.SubjectID
	Variant    string
	CreateTime time.Time // Set by the database.
}

// MaxOverrides is the most subjects that one experiment can pin; every server
// holds them in memory.
const MaxOverrides = 10_000

// SetOverrides sets the pins, each for a subject of its own, and returns how
// many changed.
//
// An analysis of a moment leaves out who was pinned by then. So pins are
// written on a connection for events, whose transactions SafeTime waits for.
func (db *DB) SetOverrides(ctx context.Context, key, author string, overrides []Override) (int, error) {
	changed := 0
	err := inTx(ctx, db.recording, func(tx pgx.Tx) error {
		e, err := lockExperiment(ctx, tx, key, 0)
		if err != nil {
			return err
		}
		ids, variants := make([][16]byte, len(overrides)), make([]string, len(overrides))
		for i, o := range overrides {
			ids[i], variants[i] = o.SubjectID, o.Variant
		}
		if err := db.checkNotErased(ctx, tx, overrides); err != nil {
			return err
		}
		var unpinned, pinned int
		if err := tx.QueryRow(ctx, `WITH ended AS (
				UPDATE overrides o SET end_time = statement_timestamp() FROM unnest($2::uuid[], $3::text[]) AS w (subject_id, variant)
				WHERE o.experiment_id = $1 AND o.subject_id = w.subject_id AND o.end_time IS NULL AND o.variant <> w.variant
				RETURNING w.variant)
			SELECT count(*) FROM ended WHERE variant = ''`, e.ID, ids, variants).Scan(&unpinned); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `WITH pinned AS (
				INSERT INTO overrides AS p (experiment_id, subject_id, variant)
				SELECT $1, w.subject_id, w.variant FROM unnest($2::uuid[], $3::text[]) AS w (subject_id, variant)
				WHERE w.variant <> '' AND NOT EXISTS (
					SELECT FROM overrides o WHERE o.experiment_id = $1 AND o.subject_id = w.subject_id AND o.end_time IS NULL)
				RETURNING p.subject_id)
			SELECT count(*) FROM pinned`, e.ID, ids, variants).Scan(&pinned); err != nil {
			return err
		}
		changed = unpinned + pinned
		if err := finishOverrides(ctx, tx, e, changed); err != nil || changed == 0 {
			return err
		}
		return audit(ctx, tx, experiment.AuditEvent{
			Author: author, Action: experiment.AuditSetOverrides, Kind: experiment.AuditedExperiment, Key: key,
			Details: map[string]any{"changed": changed},
		})
	})
	return changed, err
}

// checkNotErased refuses to pin a subject that was erased. No erased one is
// pinned, so there is nothing to unpin.
func (db *DB) checkNotErased(ctx context.Context, tx pgx.Tx, overrides []Override) error {
	if err := db.learnErased(ctx, tx); err != nil {
		return err
	}
	for i, o := range overrides {
		if o.Variant != "" && db.isErased(o.SubjectID) {
			return experiment.Errorf(experiment.ErrPrecondition, "SUBJECT_ERASED",
				"the subject of overrides[%d] was erased: nothing of it is stored any more", i)
		}
	}
	return nil
}

// finishOverrides checks the limit and announces the change.
func finishOverrides(ctx context.Context, tx pgx.Tx, e *experiment.Experiment, changed int) error {
	if changed == 0 {
		return nil
	}
	var pinned int
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM overrides WHERE experiment_id = $1 AND end_time IS NULL`, e.ID).Scan(&pinned); err != nil {
		return err
	}
	if pinned > MaxOverrides {
		return experiment.Errorf(experiment.ErrPrecondition, "TOO_MANY_OVERRIDES",
			"the experiment would have %d overrides; %d are allowed", pinned, MaxOverrides)
	}
	return touch(ctx, tx, e)
}

// Overrides lists the pins in force of the experiment by subject id, after the
// given one.
func (db *DB) Overrides(ctx context.Context, id int32, after experiment.SubjectID, limit int) ([]Override, error) {
	rows, err := db.definitions.Query(ctx, `SELECT subject_id, variant, create_time FROM overrides
		WHERE experiment_id = $1 AND end_time IS NULL AND subject_id > $2 ORDER BY subject_id LIMIT $3`,
		id, [16]byte(after), limit)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o Override, err error) {
		err = row.Scan((*[16]byte)(&o.SubjectID), &o.Variant, &o.CreateTime)
		return o, err
	})
	return list, interpret(err)
}

// OverrideAt returns the pin of a subject that was in force at a time, by
// subject id; nothing if it was not pinned.
func (db *DB) OverrideAt(ctx context.Context, id int32, subject experiment.SubjectID, t time.Time) (map[experiment.SubjectID]string, error) {
	var variant string
	err := db.definitions.QueryRow(ctx, `SELECT variant FROM overrides
		WHERE experiment_id = $1 AND subject_id = $2 AND create_time <= $3 AND (end_time IS NULL OR end_time > $3)
		ORDER BY create_time DESC LIMIT 1`, id, [16]byte(subject), t).Scan(&variant)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, interpret(err)
	}
	return map[experiment.SubjectID]string{subject: variant}, nil
}
