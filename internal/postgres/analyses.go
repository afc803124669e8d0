package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/assayhq/assay/internal/experiment"
)

// Analysis is a stored analysis of an experiment or a holdout. What it says is opaque here.
type Analysis struct {
	ID           [16]byte
	ExperimentID int32 // Or the holdout's.
	Revision     int32 // 0 for a holdout.
	AsOfTime     time.Time
	CreateTime   time.Time // To the microsecond.
	RequestHash  []byte    // Of the request with its resolved moment, or of its id.
	Result       []byte
	Moments      []byte // JSON.
	Analysed     int64  // How many subjects of the primary metric; set to save it.
	Erased       int64  // How many of its exposed subjects were erased before; set to save it.
	ErasedSince  int64  // And since; set where it is read.
	Look         *Look  // That it takes and is saved with; nil for none. Not read.
}

// analysisColumns are what scanAnalysis reads.
const analysisColumns = `id, experiment_id, revision, as_of_time, create_time, result,
	coalesce((SELECT subjects FROM erasures e WHERE e.experiment_id = analyses.experiment_id), 0) - erased`

// SaveAnalysis stores an analysis and returns what is stored for its request:
// another server may have stored its own first. An analysis that takes a look is
// refused if somebody else has taken that look meanwhile.
func (db *DB) SaveAnalysis(ctx context.Context, a *Analysis) (*Analysis, error) {
	var err error
	if a.Look == nil {
		err = interpret(insertAnalysis(ctx, db.definitions, a))
	} else {
		err = db.saveLook(ctx, a)
	}
	if err != nil {
		return nil, err
	}
	return db.FindAnalysis(ctx, a.ExperimentID, a.RequestHash)
}

// ForgetAnalyses empties the analyses from before a moment. Their rows stay, as what was
// looked at when decides how later analyses are judged. Kept are those that a decision
// rests on, which are the looks and those that conclusions name, and the newest of each
// experiment and holdout.
func (db *DB) ForgetAnalyses(ctx context.Context, before time.Time) error {
	const atOnce = 1000 // Some tens of MB, so that each statement takes a moment.
	for {
		rows, err := db.definitions.Query(ctx, `UPDATE analyses SET result = '', moments = '{}' WHERE id IN (
			SELECT id FROM analyses a WHERE create_time < $1 AND octet_length(result) > 0
				AND NOT EXISTS (SELECT FROM looks l WHERE l.analysis_id = a.id)
				AND NOT EXISTS (SELECT FROM experiments e WHERE e.conclusion->>'analysis_id' = a.id::text)
				AND EXISTS (SELECT FROM analyses n WHERE n.experiment_id = a.experiment_id AND (n.create_time, n.id) > (a.create_time, a.id))
			LIMIT $2) RETURNING id`, before, atOnce)
		if err != nil {
			return interpret(err)
		}
		forgotten, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
		if err != nil || len(forgotten) == 0 {
			return interpret(err)
		}
	}
}

// executor is a pool or a transaction.
type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// insertAnalysis stores an analysis, unless its request has one.
func insertAnalysis(ctx context.Context, e executor, a *Analysis) error {
	_, err := e.Exec(ctx, `INSERT INTO analyses (id, experiment_id, revision, as_of_time, request_hash, create_time, result, moments, erased, analysed)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING`,
		a.ID, a.ExperimentID, a.Revision, a.AsOfTime, a.RequestHash, a.CreateTime, a.Result, string(a.Moments), a.Erased, a.Analysed)
	return err
}

// FindAnalysis returns the analysis stored for a request, or nil.
func (db *DB) FindAnalysis(ctx context.Context, experimentID int32, requestHash []byte) (*Analysis, error) {
	rows, err := db.definitions.Query(ctx, `SELECT `+analysisColumns+` FROM analyses
		WHERE experiment_id = $1 AND request_hash = $2`, experimentID, requestHash)
	if err != nil {
		return nil, interpret(err)
	}
	a, err := pgx.CollectExactlyOneRow(rows, scanAnalysis)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return a.unlessForgotten(interpret(err))
}

// Analysis returns a stored analysis by its id.
func (db *DB) Analysis(ctx context.Context, id [16]byte) (*Analysis, error) {
	rows, err := db.definitions.Query(ctx, `SELECT `+analysisColumns+` FROM analyses WHERE id = $1`, id)
	if err != nil {
		return nil, interpret(err)
	}
	a, err := pgx.CollectExactlyOneRow(rows, scanAnalysis)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, experiment.Errorf(experiment.ErrNotFound, "ANALYSIS_NOT_FOUND", "there is no such analysis")
	}
	return a.unlessForgotten(interpret(err))
}

// unlessForgotten refuses an analysis that was emptied.
func (a *Analysis) unlessForgotten(err error) (*Analysis, error) {
	if err != nil {
		return nil, err
	}
	if len(a.Result) == 0 {
		return nil, experiment.Errorf(experiment.ErrNotFound, "ANALYSIS_EXPIRED",
			"the analysis %s of %s is not kept any more; to analyse anew, ask with another as_of_time, or another request_id if there was one",
			experiment.SubjectID(a.ID), a.CreateTime.UTC().Format(time.RFC3339))
	}
	return a, nil
}

// Analyses lists an experiment's analyses, newest first, after the one that
// was created at the given moment with the given id. A zero moment starts with
// the newest. Those that were emptied are left out.
func (db *DB) Analyses(ctx context.Context, experimentID int32, created time.Time, id [16]byte, limit int) ([]*Analysis, error) {
	rows, err := db.definitions.Query(ctx, `SELECT `+analysisColumns+` FROM analyses
		WHERE experiment_id = $1 AND octet_length(result) > 0 AND ($2 OR (create_time, id) < ($3, $4)) ORDER BY create_time DESC, id DESC LIMIT $5`,
		experimentID, created.IsZero(), created, id, limit)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, scanAnalysis)
	return list, interpret(err)
}

// EarlyLooks counts the moments, other than that of the present analysis, that an
// experiment's analyses looked at before any had as many subjects of the primary
// metric as planned; 0 means that none are planned. One without subjects has not
// looked at anything.
func (db *DB) EarlyLooks(ctx context.Context, experimentID int32, planned int64, present time.Time) (n int64, err error) {
	err = db.definitions.QueryRow(ctx, `SELECT count(DISTINCT as_of_time) FROM analyses
		WHERE experiment_id = $1 AND as_of_time <> $3 AND analysed > 0 AND ($2 = 0 OR analysed < $2 AND create_time <
			coalesce((SELECT min(create_time) FROM analyses WHERE experiment_id = $1 AND analysed >= $2), 'infinity'))`,
		experimentID, planned, present).Scan(&n)
	return n, interpret(err)
}

func scanAnalysis(row pgx.CollectableRow) (*Analysis, error) {
	var a Analysis
	err := row.Scan(&a.ID, &a.ExperimentID, &a.Revision, &a.AsOfTime, &a.CreateTime, &a.Result, &a.ErasedSince)
	return &a, err
}
