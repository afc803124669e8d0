package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// recentExposure is how long a write that counts as earlier may still take to
// commit: a recorder's statement, its wait for the next one and its commit are
// each bounded by statementTimeout.
const recentExposure = 4 * statementTimeout

// Enrollments returns those that are enrolled, with the variant of their first
// recorded exposure. It may return others that the names combine to.
//
// It is for assignment: it has connections of its own, so that it waits for no
// other work.
func (db *DB) Enrollments(ctx context.Context, names []experiment.Enrollment) ([]experiment.Enrolled, error) {
	return enrollments(ctx, db.assignment, names, nil)
}

// EnrollmentsAt is Enrollments as recorded by a time, or by now if it is zero,
// for calls that can wait.
func (db *DB) EnrollmentsAt(ctx context.Context, names []experiment.Enrollment, t time.Time) ([]experiment.Enrolled, error) {
	if t.IsZero() {
		return enrollments(ctx, db.recording, names, nil)
	}
	return enrollments(ctx, db.recording, names, &t)
}

// enrollments finds the first recorded exposures. They are of one statement
// each and never change; those of one statement are told apart by their own
// times, and then by their variants. Of a subject that is being erased nothing is
// found: it is forgotten only once.
func enrollments(ctx context.Context, q querier, names []experiment.Enrollment, by *time.Time) ([]experiment.Enrolled, error) {
	seen := map[int32]bool{}
	var experiments []int32
	subjects := make([][16]byte, len(names))
	for i, n := range names {
		if !seen[n.ExperimentID] {
			seen[n.ExperimentID] = true
			experiments = append(experiments, n.ExperimentID)
		}
		subjects[i] = n.SubjectID
	}
	rows, err := q.Query(ctx, `SELECT DISTINCT ON (subject_id, experiment_id) experiment_id, subject_id, variant,
			recorded_time > statement_timestamp() - $4::interval
		FROM exposures x WHERE experiment_id = ANY($1) AND subject_id = ANY($2) AND recorded_time <= coalesce($3, 'infinity'::timestamptz)
		AND NOT EXISTS (SELECT FROM erased_subjects s WHERE s.subject_id = x.subject_id)
		ORDER BY subject_id, experiment_id, recorded_time, exposed_time, variant`, experiments, subjects, by, recentExposure)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e experiment.Enrolled, err error) {
		err = row.Scan(&e.ExperimentID, (*[16]byte)(&e.SubjectID), &e.Variant, &e.Recent)
		return e, err
	})
	return list, interpret(err)
}
