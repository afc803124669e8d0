package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// This file removes subjects. That nothing of one remains needs no lock that
// recorders would wait for:
//
//  1. The tombstone is committed. Every transaction that writes something of
//     subjects reads first what tombstones there are ([DB.learnErased]).
//  2. What began before that, and may have missed it, is waited for, as an
//     analysis waits for the moment that it looks at ([DB.Settle]).
//  3. Everything of the subject is removed in one transaction. (On Citus its
//     events lie on one node and the rest on all: they commit in two phases.)
//
// An erasure that was cut off after the first step is finished by Maintain,
// which repeats each of them once. That also removes what a server of an earlier
// release, which knows no tombstones, recorded meanwhile.

// Erasure tells what was removed of a subject.
type Erasure struct {
	EraseTime time.Time // That of the tombstone.
	Removed
}

// Removed counts rows that were removed.
type Removed struct {
	Exposures int64 // With sides in holdouts.
	Outcomes  int64
	Overrides int64 // With those that had ended.
	Rosters   int64 // Places in them.
}

// EraseSubject removes every trace of a subject and refuses whatever comes later.
func (db *DB) EraseSubject(ctx context.Context, id experiment.SubjectID, author string) (*Erasure, error) {
	var e Erasure
	if err := inTx(ctx, db.definitions, func(tx pgx.Tx) (err error) {
		e.EraseTime, err = insertTombstone(ctx, tx, id)
		return err
	}); err != nil {
		return nil, err
	}
	err := db.removeSubjects(ctx, []experiment.SubjectID{id}, func(tx pgx.Tx, removed Removed) error {
		e.Removed = removed
		return audit(ctx, tx, experiment.AuditEvent{
			Author: author, Action: experiment.AuditErase, Kind: experiment.AuditedSubject, Key: id.String(),
			Details: map[string]any{"exposures": removed.Exposures, "outcomes": removed.Outcomes, "overrides": removed.Overrides, "roster_entries": removed.Rosters},
		})
	})
	return &e, err
}

// sweepLimit is how many erasures one transaction repeats.
const sweepLimit = 1000

// sweepErased repeats the erasures that were not repeated yet.
func (db *DB) sweepErased(ctx context.Context) error {
	for {
		rows, err := db.definitions.Query(ctx, `SELECT subject_id FROM erased_subjects WHERE NOT swept ORDER BY erase_time LIMIT $1`, sweepLimit)
		if err != nil {
			return interpret(err)
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
		if err != nil || len(ids) == 0 {
			return interpret(err)
		}
		subjects := make([]experiment.SubjectID, len(ids))
		for i, id := range ids {
			subjects[i] = id
		}
		if err := db.removeSubjects(ctx, subjects, func(tx pgx.Tx, _ Removed) error {
			_, err := tx.Exec(ctx, `UPDATE erased_subjects SET swept = true WHERE subject_id = ANY($1)`, ids)
			return err
		}); err != nil {
			return err
		}
	}
}

// removeSubjects removes everything of subjects that have tombstones, and calls
// finish before it commits.
//
// Months of outcomes that are not closed have no index by subject and are read
// whole. So it runs on a connection for analyses, whose statements may take their
// time, but on one at a time, to leave them the others. [DB.SafeTime] need not
// wait for it: what it removes, it removes from the past as well.
func (db *DB) removeSubjects(ctx context.Context, subjects []experiment.SubjectID, finish func(pgx.Tx, Removed) error) error {
	select {
	case db.removing <- struct{}{}:
		defer func() { <-db.removing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var now time.Time
	if err := db.definitions.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return interpret(err)
	}
	if err := db.Settle(ctx, now); err != nil {
		return err
	}
	ids := make([][16]byte, len(subjects))
	for i, id := range subjects {
		ids[i] = id
	}
	return inTx(ctx, db.analysis, func(tx pgx.Tx) error {
		var removed Removed
		if err := tx.QueryRow(ctx, `WITH gone AS (DELETE FROM outcomes WHERE subject_id = ANY($1) RETURNING 1)
			SELECT count(*) FROM gone`, ids).Scan(&removed.Outcomes); err != nil {
			return err
		}
		var err error
		if removed.Exposures, err = removeExposures(ctx, tx, ids); err != nil {
			return err
		}
		if err := lockRosters(ctx, tx, lockToErase); err != nil {
			return err
		}
		if removed.Overrides, err = removeOverrides(ctx, tx, ids); err != nil {
			return err
		}
		if removed.Rosters, err = removeFromRosters(ctx, tx, ids); err != nil {
			return err
		}
		return finish(tx, removed)
	})
}

// removeExposures removes exposures, and counts their subjects as erased by
// experiment and holdout. Exposures are found by experiment.
func removeExposures(ctx context.Context, tx pgx.Tx, ids [][16]byte) (removed int64, err error) {
	rows, err := tx.Query(ctx, `SELECT id FROM experiments UNION ALL SELECT id FROM holdouts`)
	if err != nil {
		return 0, err
	}
	experiments, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return 0, err
	}
	if rows, err = tx.Query(ctx, `WITH gone AS (
			DELETE FROM exposures WHERE experiment_id = ANY($1) AND subject_id = ANY($2) RETURNING experiment_id, subject_id)
		SELECT experiment_id, count(DISTINCT subject_id), count(*) FROM gone GROUP BY experiment_id ORDER BY experiment_id`, experiments, ids); err != nil {
		return 0, err
	}
	var exposed []int32
	var subjects []int64
	var id int32
	var n, exposures int64
	if _, err = pgx.ForEachRow(rows, []any{&id, &n, &exposures}, func() error {
		exposed, subjects = append(exposed, id), append(subjects, n)
		removed += exposures
		return nil
	}); err != nil {
		return 0, err
	}
	_, err = tx.Exec(ctx, `INSERT INTO erasures AS e (experiment_id, subjects) SELECT * FROM unnest($1::integer[], $2::bigint[])
		ON CONFLICT (experiment_id) DO UPDATE SET subjects = e.subjects + excluded.subjects`, exposed, subjects)
	return removed, err
}

// removeOverrides removes overrides, and makes servers forget them. The
// experiments are locked first, as by whoever sets overrides.
func removeOverrides(ctx context.Context, tx pgx.Tx, ids [][16]byte) (removed int64, err error) {
	rows, err := tx.Query(ctx, `SELECT id FROM experiments WHERE id IN (SELECT experiment_id FROM overrides WHERE subject_id = ANY($1))
		ORDER BY id FOR NO KEY UPDATE`, ids)
	if err != nil {
		return 0, err
	}
	experiments, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil || len(experiments) == 0 {
		return 0, err
	}
	if err := tx.QueryRow(ctx, `WITH gone AS (DELETE FROM overrides WHERE subject_id = ANY($1) RETURNING 1)
		SELECT count(*) FROM gone`, ids).Scan(&removed); err != nil {
		return 0, err
	}
	return removed, renew(ctx, tx, experiments)
}

// removeFromRosters removes places in rosters. Subjects are found by roster.
func removeFromRosters(ctx context.Context, tx pgx.Tx, ids [][16]byte) (removed int64, err error) {
	rows, err := tx.Query(ctx, `SELECT id FROM rosters`)
	if err != nil {
		return 0, err
	}
	rosters, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return 0, err
	}
	if rows, err = tx.Query(ctx, `WITH gone AS (DELETE FROM roster_subjects WHERE roster_id = ANY($1) AND subject_id = ANY($2) RETURNING roster_id)
		SELECT roster_id, count(*) FROM gone GROUP BY roster_id`, rosters, ids); err != nil {
		return 0, err
	}
	var touched []int32
	var places []int64
	var id int32
	var n int64
	if _, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error {
		touched, places = append(touched, id), append(places, n)
		removed += n
		return nil
	}); err != nil || removed == 0 {
		return 0, err
	}
	if rows, err = tx.Query(ctx, `UPDATE rosters r SET erased = r.erased + g.places FROM unnest($1::integer[], $2::bigint[]) AS g (id, places)
		WHERE r.id = g.id RETURNING r.experiment_id`, touched, places); err != nil {
		return 0, err
	}
	experiments, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return 0, err
	}
	return removed, renew(ctx, tx, experiments)
}

// renew gives experiments another version, so that servers read them again. They
// keep their times: that of an erasure would tell who was part of them.
func renew(ctx context.Context, tx pgx.Tx, ids []int32) error {
	rows, err := tx.Query(ctx, `UPDATE experiments SET version = (SELECT nextval('definition_version')) WHERE id = ANY($1) RETURNING key`, ids)
	if err != nil {
		return err
	}
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := announce(ctx, tx, key); err != nil {
			return err
		}
	}
	return nil
}

// Erasures returns how many exposed subjects of an experiment or a holdout were
// erased so far.
func (db *DB) Erasures(ctx context.Context, id int32) (n int64, err error) {
	err = db.definitions.QueryRow(ctx, `SELECT coalesce((SELECT subjects FROM erasures WHERE experiment_id = $1), 0)`, id).Scan(&n)
	return n, interpret(err)
}
