package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// ExperimentRevisions lists an experiment's revisions numbered below `before`,
// newest first.
func (db *DB) ExperimentRevisions(ctx context.Context, id int32, before int32, limit int) ([]experiment.Revision, error) {
	rows, err := db.definitions.Query(ctx, `SELECT revision, phase, definition, allocation, create_time, author FROM experiment_revisions
		WHERE experiment_id = $1 AND revision < $2 ORDER BY revision DESC LIMIT $3`, id, before, limit)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, scanRevision)
	return list, interpret(err)
}

func scanRevision(row pgx.CollectableRow) (experiment.Revision, error) {
	var r experiment.Revision
	var definition, allocation []byte
	if err := row.Scan(&r.Number, &r.Phase, &definition, &allocation, &r.CreateTime, &r.Author); err != nil {
		return r, err
	}
	return r, decodeRevision(&r, definition, allocation)
}

// Phases returns the last revision of every phase of an experiment, by phase.
// The split is the same throughout a phase; the first one's is that with which
// the plan was sealed.
func (db *DB) Phases(ctx context.Context, id int32) ([]experiment.Revision, error) {
	rows, err := db.definitions.Query(ctx, `SELECT DISTINCT ON (phase) revision, phase, definition, allocation, create_time, author
		FROM experiment_revisions WHERE experiment_id = $1 ORDER BY phase, revision DESC`, id)
	if err != nil {
		return nil, interpret(err)
	}
	phases, err := pgx.CollectRows(rows, scanRevision)
	return phases, interpret(err)
}

// PhaseStarts returns the first revision of every phase of an experiment, by
// phase.
func (db *DB) PhaseStarts(ctx context.Context, id int32) ([]experiment.Revision, error) {
	rows, err := db.definitions.Query(ctx, `SELECT DISTINCT ON (phase) revision, phase, definition, allocation, create_time, author
		FROM experiment_revisions WHERE experiment_id = $1 ORDER BY phase, revision`, id)
	if err != nil {
		return nil, interpret(err)
	}
	starts, err := pgx.CollectRows(rows, scanRevision)
	return starts, interpret(err)
}

// RevisionAt returns the revision of an experiment that was in force at a time, the
// first one at any time before it.
func (db *DB) RevisionAt(ctx context.Context, id int32, t time.Time) (*experiment.Revision, error) {
	rows, err := db.definitions.Query(ctx, `SELECT revision, phase, definition, allocation, create_time, author FROM experiment_revisions
		WHERE experiment_id = $1 AND (create_time <= $2 OR revision = 1) ORDER BY revision DESC LIMIT 1`, id, t)
	if err != nil {
		return nil, interpret(err)
	}
	r, err := pgx.CollectExactlyOneRow(rows, scanRevision)
	return &r, interpret(err)
}

// RevisionReplaced returns a revision of an experiment and when the next one
// replaced it, which is zero if none has; nil if there is no such revision.
func (db *DB) RevisionReplaced(ctx context.Context, id, number int32) (r *experiment.Revision, replaced time.Time, err error) {
	rows, err := db.definitions.Query(ctx, `SELECT revision, phase, definition, allocation, create_time, author FROM experiment_revisions
		WHERE experiment_id = $1 AND revision = $2`, id, number)
	if err != nil {
		return nil, replaced, interpret(err)
	}
	found, err := pgx.CollectExactlyOneRow(rows, scanRevision)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, replaced, nil
	}
	if err != nil {
		return nil, replaced, interpret(err)
	}
	err = db.definitions.QueryRow(ctx, `SELECT create_time FROM experiment_revisions WHERE experiment_id = $1 AND revision = $2`, id, number+1).Scan(&replaced)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return &found, replaced, interpret(err)
}

// CheckRevisions refuses another revision of an experiment that has as many as it
// may have since its start.
func (db *DB) CheckRevisions(ctx context.Context, e *experiment.Experiment) error {
	return interpret(checkRevisions(ctx, db.definitions, e))
}

func checkRevisions(ctx context.Context, q querier, e *experiment.Experiment) error {
	if e.StartTime.IsZero() || e.Current.Number < experiment.MaxLiveRevisions {
		return nil
	}
	rows, err := q.Query(ctx, `SELECT e.revision - `+firstLive+` + 1 FROM experiments e WHERE e.id = $1`, e.ID)
	if err != nil {
		return err
	}
	live, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	if err != nil {
		return err
	}
	return experiment.CheckRevisions(e.Key, live)
}

// storedTerms is the form of a revision's terms, beside their columns.
type storedTerms struct {
	Traffic int32             `json:"traffic"`
	Rules   *experiment.Rules `json:"rules"`
}

func encodeTerms(r *experiment.Revision) ([]byte, error) {
	t := r.Terms()
	return json.Marshal(storedTerms{t.Traffic, t.Rules})
}

func decodeTerms(number int32, terms []byte) (t storedTerms, err error) {
	if err := json.Unmarshal(terms, &t); err != nil {
		return t, fmt.Errorf("revision %d: terms: %w", number, err)
	}
	if t.Rules == nil {
		return t, fmt.Errorf("revision %d: terms: there are no rules", number)
	}
	return t, nil
}

// termsPage is how many revisions fillMissingTerms completes at once.
const termsPage = 20

// fillMissingTerms stores the terms of revisions that have none, since a release
// from before made them, so that servers need not read their definitions. What
// cannot be decoded stays as it is.
func (db *DB) fillMissingTerms(ctx context.Context) error {
	type revision struct {
		id, number             int32
		definition, allocation []byte
	}
	for last := (revision{}); ; {
		rows, err := db.definitions.Query(ctx, `SELECT experiment_id, revision, definition, allocation FROM experiment_revisions
			WHERE terms IS NULL AND (experiment_id, revision) > ($1, $2) ORDER BY experiment_id, revision LIMIT $3`, last.id, last.number, termsPage)
		if err != nil {
			return interpret(err)
		}
		page, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r revision, err error) {
			err = row.Scan(&r.id, &r.number, &r.definition, &r.allocation)
			return r, err
		})
		if err != nil || len(page) == 0 {
			return interpret(err)
		}
		for _, last = range page {
			r := experiment.Revision{Number: last.number}
			if decodeRevision(&r, last.definition, last.allocation) != nil {
				continue
			}
			terms, err := encodeTerms(&r)
			if err != nil {
				return err
			}
			if _, err := db.definitions.Exec(ctx, `UPDATE experiment_revisions SET terms = $3 WHERE experiment_id = $1 AND revision = $2`, last.id, last.number, string(terms)); err != nil {
				return interpret(err)
			}
		}
	}
}
