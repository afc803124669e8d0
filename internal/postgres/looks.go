package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

// Look is a look of a group-sequential plan, as it is stored: without its
// verdict, which is its analysis's.
type Look struct {
	metric.Look
	AnalysisID [16]byte // This and the times are those of the analysis that takes it.
	AsOfTime   time.Time
	CreateTime time.Time
	Author     string // For the audit; not read.
}

// Looks lists the looks that were taken of an experiment, in order.
func (db *DB) Looks(ctx context.Context, experimentID int32) ([]Look, error) {
	rows, err := db.definitions.Query(ctx, `SELECT number, analysis_id, as_of_time, create_time, subjects FROM looks
		WHERE experiment_id = $1 ORDER BY number`, experimentID)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Look, err error) {
		var subjects []byte
		if err := row.Scan(&l.Number, &l.AnalysisID, &l.AsOfTime, &l.CreateTime, &subjects); err != nil {
			return l, err
		}
		if err := json.Unmarshal(subjects, &l.Subjects); err != nil {
			return l, fmt.Errorf("look %d of experiment %d: %w", l.Number, experimentID, err)
		}
		return l, nil
	})
	return list, interpret(err)
}

// saveLook stores an analysis with the look that it takes, unless its request
// has one.
func (db *DB) saveLook(ctx context.Context, a *Analysis) error {
	return inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		var key string
		if err := tx.QueryRow(ctx, `SELECT key FROM experiments WHERE id = $1 FOR NO KEY UPDATE`, a.ExperimentID).Scan(&key); err != nil {
			return err
		}
		var known bool
		var taken int32
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM analyses WHERE experiment_id = $1 AND request_hash = $2),
			(SELECT count(*) FROM looks WHERE experiment_id = $1)`, a.ExperimentID, a.RequestHash).Scan(&known, &taken); err != nil || known {
			return err
		}
		if taken != a.Look.Number-1 {
			return experiment.Errorf(experiment.ErrAborted, "LOOK_TAKEN", "somebody else has taken look %d meanwhile", a.Look.Number)
		}
		if err := insertAnalysis(ctx, tx, a); err != nil {
			return err
		}
		if err := insertLook(ctx, tx, a); err != nil {
			return err
		}
		return audit(ctx, tx, experiment.AuditEvent{
			Author: a.Look.Author, Action: experiment.AuditTakeLook, Kind: experiment.AuditedExperiment, Key: key,
			Details: map[string]any{"look": a.Look.Number},
		})
	})
}

func insertLook(ctx context.Context, tx pgx.Tx, a *Analysis) error {
	subjects, err := json.Marshal(a.Look.Subjects)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO looks (experiment_id, number, analysis_id, as_of_time, create_time, subjects)
		VALUES ($1, $2, $3, $4, $5, $6)`, a.ExperimentID, a.Look.Number, a.ID, a.AsOfTime, a.CreateTime, string(subjects))
	return err
}
