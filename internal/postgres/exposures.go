package postgres

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// RecordExposures commits the exposures that bring something new: a first
// exposure of a subject to a variant in a phase, or an earlier one, or such a
// side in a holdout. Those whose subject was erased are erased, and those whose
// subject keeps another variant of a sticky experiment are kept from it. All others
// are duplicates. None of these writes anything. The results are in the order of
// the items.
//
// Two commits that record the same subject at once, of one server or of two, may
// both append; readers take the earliest row, so that a row too many changes
// nothing. In a sticky experiment they wait for each other, as a row of another
// variant would.
func (db *DB) RecordExposures(ctx context.Context, items []experiment.Exposure) ([]experiment.Result, error) {
	rows, of := exposureRows(items)
	results := make([]experiment.Result, len(items))
	earliest := earliestExposures(rows)
	err := inTx(ctx, db.recording, func(tx pgx.Tx) error {
		if err := db.learnErased(ctx, tx); err != nil {
			return err
		}
		for i := range results {
			results[i] = experiment.Duplicate
			if db.isErased(items[i].SubjectID) {
				results[i] = experiment.Erased
			}
		}
		kept := slices.DeleteFunc(slices.Clone(earliest), func(row int) bool { return results[of[row]] == experiment.Erased })
		fresh, err := newExposures(ctx, tx, rows, kept)
		if err != nil {
			return err
		}
		if fresh, err = withoutKept(ctx, tx, rows, of, fresh, results); err != nil || len(fresh) == 0 {
			return err
		}
		return insertExposures(ctx, tx, rows, fresh, func(row int) { results[of[row]] = experiment.Recorded })
	})
	return results, err
}

// exposureRows returns the rows that the items come to, and the index of the
// item of each: its own, unless the subject is held out, and one for each side,
// as of an exposure to the holdout.
func exposureRows(items []experiment.Exposure) (rows []experiment.Exposure, of []int) {
	for i := range items {
		e := &items[i]
		if !e.HeldOut {
			rows, of = append(rows, *e), append(of, i)
		}
		for _, side := range e.Sides {
			rows, of = append(rows, experiment.Exposure{
				ExperimentID: side.HoldoutID, Phase: experiment.HoldoutPhase, SubjectID: e.SubjectID,
				Variant: side.Variant(), ExposedTime: e.ExposedTime,
			}), append(of, i)
		}
	}
	return rows, of
}

// stickyLock, with a stripe of subjects, is held while a first exposure of one of
// them to a sticky experiment is committed. A commit of 10,000 subjects takes all
// stripes, which Postgres has room for; of two with few subjects, one seldom waits.
const (
	stickyLock    = 0x6173 // "as"
	stickyStripes = 64
)

// withoutKept returns those of the rows at the indices that are not of a subject
// which keeps another variant of a sticky experiment: the one recorded first, or
// in this batch the first item's. It waits for the commits that may decide that.
func withoutKept(ctx context.Context, tx pgx.Tx, rows []experiment.Exposure, of, fresh []int, results []experiment.Result) ([]int, error) {
	kept := map[experiment.Enrollment]string{} // Empty for whom nothing is recorded.
	stripes := map[int32]bool{}
	for _, i := range fresh {
		if rows[i].Sticky != nil {
			kept[enrollmentOf(&rows[i])] = ""
			stripes[int32(rows[i].SubjectID[0])%stickyStripes] = true
		}
	}
	if len(kept) == 0 {
		return fresh, nil
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1, stripe) FROM unnest($2::integer[]) AS stripe`,
		stickyLock, slices.Sorted(maps.Keys(stripes))); err != nil { // In one order, so that none waits for one that waits for it.
		return nil, err
	}
	enrolled, err := enrollments(ctx, tx, slices.Collect(maps.Keys(kept)), nil)
	if err != nil {
		return nil, err
	}
	for _, e := range enrolled {
		if _, asked := kept[e.Enrollment]; asked {
			kept[e.Enrollment] = e.Variant
		}
	}
	for i := range rows {
		row, name := &rows[i], enrollmentOf(&rows[i])
		variant, asked := kept[name]
		switch {
		case row.Sticky == nil || !asked || variant == row.Variant || results[of[i]] == experiment.Erased:
		case row.Sticky.Variant(variant) < 0: // None, or one that has been removed.
			kept[name] = row.Variant
		default:
			results[of[i]] = experiment.Kept
		}
	}
	return slices.DeleteFunc(fresh, func(row int) bool { return results[of[row]] == experiment.Kept }), nil
}

func enrollmentOf(e *experiment.Exposure) experiment.Enrollment {
	return experiment.Enrollment{ExperimentID: e.ExperimentID, SubjectID: e.SubjectID}
}

type exposureKey struct {
	subject    experiment.SubjectID
	experiment int32
	phase      int32
	variant    string
}

func keyOf(e *experiment.Exposure) exposureKey {
	return exposureKey{e.SubjectID, e.ExperimentID, e.Phase, e.Variant}
}

// earliestExposures returns the indices of the earliest exposure of each key,
// in key order, so that concurrent batches take their locks in one order.
func earliestExposures(items []experiment.Exposure) []int {
	first := make(map[exposureKey]int, len(items))
	for i := range items {
		key := keyOf(&items[i])
		if j, ok := first[key]; !ok || items[i].ExposedTime.Before(items[j].ExposedTime) {
			first[key] = i
		}
	}
	indices := make([]int, 0, len(first))
	for _, i := range first {
		indices = append(indices, i)
	}
	slices.SortFunc(indices, func(a, b int) int {
		x, y := &items[a], &items[b]
		return cmp.Or(cmp.Compare(x.ExperimentID, y.ExperimentID), bytes.Compare(x.SubjectID[:], y.SubjectID[:]),
			cmp.Compare(x.Phase, y.Phase), cmp.Compare(x.Variant, y.Variant))
	})
	return indices
}

// newExposures returns those of the indices whose exposure is not known at its
// time or earlier.
func newExposures(ctx context.Context, tx pgx.Tx, items []experiment.Exposure, indices []int) ([]int, error) {
	experiments, subjects := map[int32]bool{}, make([][16]byte, len(indices))
	for n, i := range indices {
		experiments[items[i].ExperimentID] = true
		subjects[n] = items[i].SubjectID
	}
	ids := make([]int32, 0, len(experiments))
	for id := range experiments {
		ids = append(ids, id)
	}
	rows, err := tx.Query(ctx, `SELECT subject_id, experiment_id, phase, variant, min(exposed_time) FROM exposures
		WHERE experiment_id = ANY($1) AND subject_id = ANY($2)
		GROUP BY subject_id, experiment_id, phase, variant`, ids, subjects)
	if err != nil {
		return nil, err
	}
	known := map[exposureKey]time.Time{}
	var key exposureKey
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&key.subject), &key.experiment, &key.phase, &key.variant, &at}, func() error {
		known[key] = at
		return nil
	}); err != nil {
		return nil, err
	}
	var fresh []int
	for _, i := range indices {
		if at, ok := known[keyOf(&items[i])]; !ok || items[i].ExposedTime.Before(at) {
			fresh = append(fresh, i)
		}
	}
	return fresh, nil
}

// insertExposures inserts those of the indices, and calls recorded with the
// index of each that no other server has inserted meanwhile.
func insertExposures(ctx context.Context, tx pgx.Tx, items []experiment.Exposure, indices []int, recorded func(int)) error {
	n := len(indices)
	experiments, subjects, phases := make([]int32, n), make([][16]byte, n), make([]int32, n)
	variants, times, buckets, attributes := make([]string, n), make([]time.Time, n), make([]*int32, n), make([]*string, n)
	byKey := make(map[exposureKey]int, n)
	for k, i := range indices {
		e := &items[i]
		experiments[k], subjects[k], phases[k], variants[k] = e.ExperimentID, e.SubjectID, e.Phase, e.Variant
		times[k], buckets[k] = e.ExposedTime, e.Bucket
		if e.Attributes != nil {
			s := string(e.Attributes)
			attributes[k] = &s
		}
		byKey[keyOf(e)] = i
	}
	rows, err := tx.Query(ctx, `INSERT INTO exposures (experiment_id, subject_id, phase, variant, exposed_time, bucket, attributes)
		SELECT experiment_id, subject_id, phase, variant, exposed_time, bucket, attributes::jsonb
		FROM unnest($1::integer[], $2::uuid[], $3::integer[], $4::text[], $5::timestamptz[], $6::integer[], $7::text[])
			AS e (experiment_id, subject_id, phase, variant, exposed_time, bucket, attributes)
		ON CONFLICT DO NOTHING RETURNING subject_id, experiment_id, phase, variant`,
		experiments, subjects, phases, variants, times, buckets, attributes)
	if err != nil {
		return err
	}
	var key exposureKey
	_, err = pgx.ForEachRow(rows, []any{(*[16]byte)(&key.subject), &key.experiment, &key.phase, &key.variant}, func() error {
		recorded(byKey[key])
		return nil
	})
	return err
}

// ExposedSince counts the subjects of an experiment whose first exposure was
// recorded after a moment.
func (db *DB) ExposedSince(ctx context.Context, id int32, t time.Time) (n int64, err error) {
	err = db.analysis.QueryRow(ctx, `SELECT count(*) FROM (
		SELECT FROM exposures WHERE experiment_id = $1 GROUP BY subject_id HAVING min(recorded_time) > $2) newer`, id, t).Scan(&n)
	return n, interpret(err)
}

// ExposedSubjects counts the subjects with a recorded exposure in a phase of an
// experiment, but for those that are pinned now.
func (db *DB) ExposedSubjects(ctx context.Context, id, phase int32) (int64, error) {
	var n int64
	err := db.analysis.QueryRow(ctx, `SELECT count(DISTINCT subject_id) FROM exposures x
		WHERE experiment_id = $1 AND phase = $2 AND NOT EXISTS (
			SELECT FROM overrides o WHERE o.experiment_id = $1 AND o.subject_id = x.subject_id AND o.end_time IS NULL)`, id, phase).Scan(&n)
	return n, interpret(err)
}
