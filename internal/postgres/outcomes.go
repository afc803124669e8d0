package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/assayhq/assay/internal/experiment"
)

// RecordOutcomes commits the outcomes that are new. An outcome whose identity
// (subject, row id) is known is a duplicate if its name, value and properties
// are those recorded, else a conflict; neither writes anything. One whose name
// would be a name too many is limited. The results are in the order of the
// items.
func (db *DB) RecordOutcomes(ctx context.Context, items []experiment.Outcome) ([]experiment.Result, error) {
	results := make([]experiment.Result, len(items))
	names, err := db.outcomeNames(ctx, items)
	if err != nil {
		return nil, err
	}
	batch := newOutcomeBatch(items, names, results)
	for attempt := 0; ; attempt++ {
		if err := db.ensurePartitions(ctx, batch.months()); err != nil {
			return nil, err
		}
		err := inTx(ctx, db.recording, func(tx pgx.Tx) error { return batch.insert(ctx, tx, results) })
		if attempt == 0 && isMissingPartition(err) {
			db.forgetPartitions() // One was dropped behind our back.
			continue
		}
		if err != nil {
			return nil, err
		}
		return results, nil
	}
}

func isMissingPartition(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23514" && pg.ConstraintName == ""
}

type outcomeKey struct {
	row     experiment.RowID
	subject experiment.SubjectID
}

// outcomeBatch is the part of a batch that goes to the table: one item for
// each identity, in key order, so that concurrent batches take their locks in
// one order.
type outcomeBatch struct {
	items   []experiment.Outcome
	names   map[string]int32
	indices []int
	first   map[outcomeKey]int // The item that stands for its identity.
	repeats []int              // Items whose identity an earlier item has.
}

func newOutcomeBatch(items []experiment.Outcome, names map[string]int32, results []experiment.Result) *outcomeBatch {
	b := &outcomeBatch{items: items, names: names, first: make(map[outcomeKey]int, len(items))}
	for i := range items {
		if _, ok := names[items[i].Name]; !ok {
			results[i] = experiment.Limited
			continue
		}
		key := outcomeKey{items[i].RowID, items[i].SubjectID}
		if _, ok := b.first[key]; ok {
			b.repeats = append(b.repeats, i)
			continue
		}
		b.first[key] = i
		b.indices = append(b.indices, i)
	}
	slices.SortFunc(b.indices, func(x, y int) int {
		return cmp.Or(bytes.Compare(items[x].RowID[:], items[y].RowID[:]), bytes.Compare(items[x].SubjectID[:], items[y].SubjectID[:]))
	})
	return b
}

func (b *outcomeBatch) insert(ctx context.Context, tx pgx.Tx, results []experiment.Result) error {
	if len(b.indices) == 0 {
		return nil
	}
	args := b.columns(b.indices)
	rows, err := tx.Query(ctx, `INSERT INTO outcomes (row_id, subject_id, name_id, value, occurred_time, properties)
		SELECT row_id, subject_id, name_id, value, occurred_time, properties::jsonb
		FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::float8[], $5::text[], $6::timestamptz[])
			AS o (row_id, subject_id, name_id, value, properties, occurred_time)
		ON CONFLICT DO NOTHING RETURNING row_id, subject_id`, args...)
	if err != nil {
		return err
	}
	inserted := make(map[int]bool, len(b.indices))
	var key outcomeKey
	if _, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&key.row), (*[16]byte)(&key.subject)}, func() error {
		inserted[b.first[key]] = true
		return nil
	}); err != nil {
		return err
	}
	known := slices.Clone(b.repeats)
	for _, i := range b.indices {
		if inserted[i] {
			results[i] = experiment.Recorded
		} else {
			known = append(known, i)
		}
	}
	return b.compare(ctx, tx, known, results)
}

// compare tells the duplicates among the items of known identity from the
// conflicts.
func (b *outcomeBatch) compare(ctx context.Context, tx pgx.Tx, known []int, results []experiment.Result) error {
	if len(known) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `SELECT n.item, o.name_id = n.name_id
			AND o.value IS NOT DISTINCT FROM n.value AND o.properties IS NOT DISTINCT FROM n.properties::jsonb
		FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::float8[], $5::text[], $6::bigint[])
			AS n (row_id, subject_id, name_id, value, properties, item)
		JOIN outcomes o ON o.row_id = n.row_id AND o.subject_id = n.subject_id`, append(b.columns(known)[:5], known)...)
	if err != nil {
		return err
	}
	compared := 0
	var item int
	var same bool
	if _, err = pgx.ForEachRow(rows, []any{&item, &same}, func() error {
		compared++
		if results[item] = experiment.Conflict; same {
			results[item] = experiment.Duplicate
		}
		return nil
	}); err != nil {
		return err
	}
	if compared != len(known) {
		return unavailable(errors.New("known outcomes were removed before they could be compared"))
	}
	return nil
}

// columns returns the items at the indices as arrays: row ids, subject ids,
// name ids, values, properties, times.
func (b *outcomeBatch) columns(indices []int) []any {
	n := len(indices)
	rows, subjects, names := make([][16]byte, n), make([][16]byte, n), make([]int32, n)
	values, properties, times := make([]*float64, n), make([]*string, n), make([]time.Time, n)
	for k, i := range indices {
		o := &b.items[i]
		rows[k], subjects[k], names[k], values[k], times[k] = o.RowID, o.SubjectID, b.names[o.Name], o.Value, o.OccurredTime
		if o.Properties != nil {
			s := string(o.Properties)
			properties[k] = &s
		}
	}
	return []any{rows, subjects, names, values, properties, times}
}

func (b *outcomeBatch) months() map[time.Time]bool {
	months := map[time.Time]bool{}
	for _, i := range b.indices {
		t := b.items[i].OccurredTime.UTC()
		months[time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)] = true
	}
	return months
}
