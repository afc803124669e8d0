package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// This file reads what is stored of one subject. Outcomes are looked for in
// whole months where these have no index by subject yet, so all of it runs on
// connections for analyses, whose statements may take their time.

// EraseTime returns when a subject was erased; zero if it was not.
func (db *DB) EraseTime(ctx context.Context, id experiment.SubjectID) (t time.Time, err error) {
	err = db.definitions.QueryRow(ctx, `SELECT erase_time FROM erased_subjects WHERE subject_id = $1`, [16]byte(id)).Scan(&t)
	if errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, nil
	}
	return t, interpret(err)
}

// StoredExposure is an exposure to an experiment, or a side in a holdout.
type StoredExposure struct {
	Experiment   string // The key; empty for a side.
	Holdout      string // The key, of a side.
	Phase        int32
	Variant      string
	ExposedTime  time.Time
	RecordedTime time.Time
	Attributes   json.RawMessage // Nil if none were kept.
}

// SubjectExposures lists a subject's exposures in the order of their recording,
// without the first ones.
func (db *DB) SubjectExposures(ctx context.Context, id experiment.SubjectID, skip, limit int) ([]StoredExposure, error) {
	rows, err := db.analysis.Query(ctx, `SELECT coalesce(e.key, ''), coalesce(h.key, ''), x.phase, x.variant, x.exposed_time, x.recorded_time, x.attributes
		FROM exposures x LEFT JOIN experiments e ON e.id = x.experiment_id LEFT JOIN holdouts h ON h.id = x.experiment_id
		WHERE x.experiment_id = ANY(ARRAY(SELECT id FROM experiments UNION ALL SELECT id FROM holdouts)) AND x.subject_id = $1
		ORDER BY x.recorded_time, x.experiment_id, x.phase, x.variant, x.exposed_time OFFSET $2 LIMIT $3`, [16]byte(id), skip, limit)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[StoredExposure])
	return list, interpret(err)
}

// StoredOverride is a pin, in force or ended.
type StoredOverride struct {
	Experiment string // The key.
	Variant    string
	CreateTime time.Time
	EndTime    time.Time // Zero while it is in force.
}

// SubjectOverrides lists a subject's pins in the order of their making, without
// the first ones.
func (db *DB) SubjectOverrides(ctx context.Context, id experiment.SubjectID, skip, limit int) ([]StoredOverride, error) {
	rows, err := db.analysis.Query(ctx, `SELECT e.key, o.variant, o.create_time, o.end_time
		FROM overrides o JOIN experiments e ON e.id = o.experiment_id WHERE o.subject_id = $1
		ORDER BY o.create_time, o.experiment_id OFFSET $2 LIMIT $3`, [16]byte(id), skip, limit)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o StoredOverride, err error) {
		var end *time.Time
		err = row.Scan(&o.Experiment, &o.Variant, &o.CreateTime, &end)
		if end != nil {
			o.EndTime = *end
		}
		return o, err
	})
	return list, interpret(err)
}

// RosterEntry is a place in the roster of an experiment.
type RosterEntry struct {
	Experiment string // The key.
	Variant    string
}

// SubjectRosters lists a subject's places in rosters in the order of their making,
// without the first ones.
func (db *DB) SubjectRosters(ctx context.Context, id experiment.SubjectID, skip, limit int) ([]RosterEntry, error) {
	rows, err := db.analysis.Query(ctx, `SELECT e.key, r.arms->s.arm->>'Variant'
		FROM roster_subjects s JOIN rosters r ON r.id = s.roster_id JOIN experiments e ON e.id = r.experiment_id
		WHERE s.roster_id = ANY(ARRAY(SELECT id FROM rosters)) AND s.subject_id = $1
		ORDER BY s.roster_id OFFSET $2 LIMIT $3`, [16]byte(id), skip, limit)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[RosterEntry])
	return list, interpret(err)
}

// StoredOutcome is an outcome or a correction of one.
type StoredOutcome struct {
	RowID        experiment.RowID
	Name         string
	Value        *float64
	OccurredTime time.Time
	RecordedTime time.Time
	Properties   json.RawMessage  // Nil if it has none.
	Corrects     experiment.RowID // Zero if it is no correction, and so is:
	AdjustedTime time.Time
}

// SubjectOutcomes lists a subject's outcomes by row id, after the given one.
func (db *DB) SubjectOutcomes(ctx context.Context, id experiment.SubjectID, after experiment.RowID, limit int) ([]StoredOutcome, error) {
	rows, err := db.analysis.Query(ctx, `SELECT o.row_id, n.name, o.value, o.occurred_time, o.recorded_time, o.properties, o.corrects, o.adjusted_time
		FROM outcomes o JOIN outcome_names n ON n.id = o.name_id
		WHERE o.subject_id = $1 AND o.row_id > $2 ORDER BY o.row_id LIMIT $3`, [16]byte(id), [16]byte(after), limit)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o StoredOutcome, err error) {
		var corrects *[16]byte
		var adjusted *time.Time
		err = row.Scan((*[16]byte)(&o.RowID), &o.Name, &o.Value, &o.OccurredTime, &o.RecordedTime, &o.Properties, &corrects, &adjusted)
		if corrects != nil {
			o.Corrects, o.AdjustedTime = *corrects, *adjusted
		}
		return o, err
	})
	return list, interpret(err)
}
