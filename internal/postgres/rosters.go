package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// rosterChunk is how many subjects one statement writes, so that each ends well
// within its time.
const rosterChunk = 100_000

// CreateRoster stores the roster of a draft at the given revision, whole or not
// at all. Of the roster, the arms, the balance and the author count.
func (db *DB) CreateRoster(ctx context.Context, key string, r *experiment.Roster, subjects *experiment.RosterSubjects) (*experiment.Roster, error) {
	arms, err := json.Marshal(r.Arms)
	if err != nil {
		return nil, err
	}
	balance, err := json.Marshal(r.Balance)
	if err != nil {
		return nil, err
	}
	var created *experiment.Roster
	err = inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		if err := lockRosters(ctx, tx, lockToAllocate); err != nil {
			return err
		}
		if err := db.checkNoneErased(ctx, tx, subjects.IDs); err != nil {
			return err
		}
		e, err := lockExperiment(ctx, tx, key, 0)
		if err != nil {
			return err
		}
		if err := e.CheckRoster(); err != nil {
			return err
		}
		if e.Current.Number != r.Revision {
			return experiment.Errorf(experiment.ErrAborted, "EXPERIMENT_CHANGED",
				"the experiment %q has changed while the roster came in: its revision was %d and is %d", key, r.Revision, e.Current.Number)
		}
		var id int32
		if err := tx.QueryRow(ctx, `INSERT INTO rosters (experiment_id, revision, arms, balance, author) VALUES ($1, $2, $3, $4, $5) RETURNING id`,
			e.ID, r.Revision, string(arms), string(balance), r.Author).Scan(&id); err != nil {
			return err
		}
		if err := touch(ctx, tx, e); err != nil {
			return err
		}
		if err := audit(ctx, tx, experiment.AuditEvent{
			Author: r.Author, Action: experiment.AuditAllocateRoster, Kind: experiment.AuditedExperiment, Key: key,
			Details: map[string]any{"subjects": r.Subjects()},
		}); err != nil {
			return err
		}
		// Last: on Citus it goes to all nodes at once, after which no definition can
		// be changed.
		if err := copyRoster(ctx, tx, id, subjects); err != nil {
			return err
		}
		created, err = getRoster(ctx, tx, e)
		return err
	})
	return created, err
}

// lockRosters keeps rosters that are made or deleted and erasures of subjects from
// each other, so that a roster with a subject that is erased meanwhile is either
// refused or seen by the erasure. It is the first lock, before those of
// experiments.
func lockRosters(ctx context.Context, tx pgx.Tx, mode string) error {
	_, err := tx.Exec(ctx, `LOCK TABLE rosters IN `+mode+` MODE`)
	return err
}

// The modes of lockRosters.
const (
	lockToAllocate = "ROW EXCLUSIVE"
	lockToErase    = "SHARE ROW EXCLUSIVE"
)

// checkNoneErased refuses a roster that lists subjects that were erased.
func (db *DB) checkNoneErased(ctx context.Context, tx pgx.Tx, ids []experiment.SubjectID) error {
	if err := db.learnErased(ctx, tx); err != nil {
		return err
	}
	n := 0
	for _, id := range ids {
		if db.isErased(id) {
			n++
		}
	}
	if n > 0 {
		return experiment.Errorf(experiment.ErrPrecondition, "SUBJECT_ERASED",
			"%d of the subjects were erased: nothing of them is stored any more, so leave them out; GetSubject tells who was erased", n)
	}
	return nil
}

func copyRoster(ctx context.Context, tx pgx.Tx, id int32, subjects *experiment.RosterSubjects) error {
	for from := 0; from < len(subjects.IDs); from += rosterChunk {
		n := min(rosterChunk, len(subjects.IDs)-from)
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"roster_subjects"}, []string{"roster_id", "subject_id", "arm"},
			pgx.CopyFromSlice(n, func(i int) ([]any, error) {
				return []any{id, [16]byte(subjects.IDs[from+i]), int16(subjects.Arms[from+i])}, nil
			})); err != nil {
			return err
		}
	}
	return nil
}

// rosterObject is a roster without its balance, as JSON.
const rosterObject = `json_build_object('ID', ro.id, 'Revision', ro.revision, 'Arms', ro.arms, 'Author', ro.author,
	'CreateTime', ro.create_time, 'DeleteTime', ro.delete_time, 'Erased', ro.erased)`

func getRoster(ctx context.Context, q querier, e *experiment.Experiment) (*experiment.Roster, error) {
	rows, err := q.Query(ctx, `SELECT `+rosterObject+`, ro.balance FROM rosters ro WHERE ro.experiment_id = $1`, e.ID)
	if err != nil {
		return nil, err
	}
	r, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (*experiment.Roster, error) {
		var object, balance []byte
		if err := row.Scan(&object, &balance); err != nil {
			return nil, err
		}
		var r experiment.Roster
		if err := errors.Join(json.Unmarshal(object, &r), json.Unmarshal(balance, &r.Balance)); err != nil {
			return nil, fmt.Errorf("the roster of %s: %w", e.Key, err)
		}
		return &r, nil
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, noRoster(e)
	}
	return r, err
}

func noRoster(e *experiment.Experiment) error {
	return experiment.Errorf(experiment.ErrNotFound, "ROSTER_NOT_FOUND", "the experiment %q has no roster", e.Key)
}

// Roster returns the roster of an experiment with its balance.
func (db *DB) Roster(ctx context.Context, key string) (*experiment.Roster, error) {
	e, err := db.Experiment(ctx, key)
	if err != nil {
		return nil, err
	}
	r, err := getRoster(ctx, db.definitions, e)
	return r, interpret(err)
}

// DeleteRoster deletes the roster of a draft, or the subjects of that of an
// experiment that is archived, and returns how many they were.
func (db *DB) DeleteRoster(ctx context.Context, key, author string) (int64, error) {
	subjects := int64(0)
	err := inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		if err := lockRosters(ctx, tx, lockToAllocate); err != nil {
			return err
		}
		e, err := lockExperiment(ctx, tx, key, 0)
		if err != nil {
			return err
		}
		if !e.Roster.HasSubjects() {
			return noRoster(e)
		}
		forget := `DELETE FROM rosters WHERE id = $1`
		switch e.State {
		case experiment.StateDraft:
		case experiment.StateArchived:
			forget = `UPDATE rosters SET delete_time = statement_timestamp() WHERE id = $1`
		default:
			return experiment.Errorf(experiment.ErrPrecondition, "ROSTER_IN_USE",
				"the experiment is %s: only the roster of a draft or of an archived experiment can be deleted", e.State)
		}
		subjects = e.Roster.Subjects()
		if _, err := tx.Exec(ctx, forget, e.Roster.ID); err != nil {
			return err
		}
		if err := touch(ctx, tx, e); err != nil {
			return err
		}
		if err := audit(ctx, tx, experiment.AuditEvent{
			Author: author, Action: experiment.AuditDeleteRoster, Kind: experiment.AuditedExperiment, Key: key,
			Details: map[string]any{"subjects": subjects},
		}); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM roster_subjects WHERE roster_id = $1`, e.Roster.ID)
		return err
	})
	return subjects, err
}

// RosterSubjects returns the subjects of the roster with an id: none if it was
// deleted.
func (db *DB) RosterSubjects(ctx context.Context, r *experiment.Roster) (*experiment.RosterSubjects, error) {
	rows, err := db.definitions.Query(ctx, `SELECT subject_id, arm FROM roster_subjects WHERE roster_id = $1 ORDER BY subject_id`, r.ID)
	if err != nil {
		return nil, interpret(err)
	}
	subjects := &experiment.RosterSubjects{IDs: make([]experiment.SubjectID, 0, r.Subjects()), Arms: make([]uint8, 0, r.Subjects())}
	var id [16]byte
	var arm int16
	_, err = pgx.ForEachRow(rows, []any{&id, &arm}, func() error {
		subjects.IDs, subjects.Arms = append(subjects.IDs, id), append(subjects.Arms, uint8(arm))
		return nil
	})
	return subjects, interpret(err)
}
