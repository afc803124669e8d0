package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/assayhq/assay/internal/experiment"
)

// RecordOutcomes commits the outcomes that are new. An outcome whose identity
// (subject, row id) is known is a duplicate if its name, value and properties
// are those recorded, else a conflict; neither writes anything. One whose name
// is not admitted is limited (see [DB.AdmitNames], after which none is), and one whose
// subject was erased is erased.
// The results are in the order of the items.
//
// The new ones are copied, which costs half of an INSERT … ON CONFLICT. A COPY
// fails as a whole upon a known identity, so the known ones are looked up first,
// which takes half as long again; but while batches hold none, that is spared
// until a COPY fails. A batch whose identities others record at the same moment
// may fail even then, and is inserted at last.
func (db *DB) RecordOutcomes(ctx context.Context, items []experiment.Outcome) ([]experiment.Result, error) {
	results := make([]experiment.Result, len(items))
	names, err := db.outcomeNames(ctx, items)
	if err != nil {
		return nil, err
	}
	batch := newOutcomeBatch(items, names, results)
	way := copyAll
	if db.repeated.Load() {
		way = copyUnknown
	}
	for attempt := 0; ; attempt++ {
		if err := db.ensurePartitions(ctx, batch.months(), math.MaxInt); err != nil {
			return nil, err
		}
		err := inTx(ctx, db.recording, func(tx pgx.Tx) error { return db.insertOutcomes(ctx, tx, batch, way, results) })
		switch {
		case err == nil:
			return results, nil
		case attempt < maxPartitionAttempts && isMissingPartition(err):
			db.forgetPartitions() // One was dropped behind our back.
		case way < insertUnknown && isKnownIdentity(err):
			db.repeated.Store(true)
			way++
		default:
			return nil, err
		}
	}
}

// The ways to write a batch, from the fastest to the one that nothing stops.
const (
	copyAll       = iota // Fails upon a known identity.
	copyUnknown          // Fails upon one that becomes known meanwhile.
	insertUnknown        // ON CONFLICT DO NOTHING.
)

// maxPartitionAttempts is how often a batch is tried again for want of a
// partition.
const maxPartitionAttempts = 3

func isMissingPartition(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23514" && pg.ConstraintName == ""
}

// isKnownIdentity says whether a COPY may have met a known identity: a
// coordinator of Citus tells it as an internal error.
func isKnownIdentity(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "23505" || pg.Code == "XX000")
}

type outcomeKey struct {
	row     experiment.RowID
	subject experiment.SubjectID
}

func (k outcomeKey) compare(other outcomeKey) int {
	if c := bytes.Compare(k.row[:], other.row[:]); c != 0 {
		return c
	}
	return bytes.Compare(k.subject[:], other.subject[:])
}

// outcomeBatch is the part of a batch that goes to the table: one item for
// each identity, in key order, so that concurrent batches take their locks in
// one order.
type outcomeBatch struct {
	items   []experiment.Outcome
	names   map[string]int32
	indices []int
	repeats []int // Items whose identity an earlier item has.
}

func newOutcomeBatch(items []experiment.Outcome, names map[string]int32, results []experiment.Result) *outcomeBatch {
	b := &outcomeBatch{items: items, names: names, indices: make([]int, 0, len(items))}
	for i := range items {
		if _, ok := names[items[i].Name]; ok {
			b.indices = append(b.indices, i)
		} else {
			results[i] = experiment.Limited
		}
	}
	slices.SortFunc(b.indices, func(x, y int) int {
		if c := b.key(x).compare(b.key(y)); c != 0 {
			return c
		}
		return cmp.Compare(x, y)
	})
	kept := b.indices[:0]
	for _, i := range b.indices {
		if n := len(kept); n > 0 && b.key(kept[n-1]) == b.key(i) {
			b.repeats = append(b.repeats, i)
		} else {
			kept = append(kept, i)
		}
	}
	b.indices = kept
	return b
}

func (b *outcomeBatch) key(i int) outcomeKey {
	return outcomeKey{b.items[i].RowID, b.items[i].SubjectID}
}

// find returns the item that stands for an identity, if one does.
func (b *outcomeBatch) find(key outcomeKey) (item int, ok bool) {
	k, ok := slices.BinarySearchFunc(b.indices, key, func(i int, key outcomeKey) int { return b.key(i).compare(key) })
	if !ok {
		return 0, false
	}
	return b.indices[k], true
}

// insertOutcomes writes a batch in one of the ways.
func (db *DB) insertOutcomes(ctx context.Context, tx pgx.Tx, b *outcomeBatch, way int, results []experiment.Result) error {
	if err := db.learnErased(ctx, tx); err != nil {
		return err
	}
	b = db.withoutErased(b, results)
	b, err := b.withoutRecorrections(ctx, tx, results)
	if err != nil {
		return err
	}
	fresh, known := b.indices, b.repeats
	if way > copyAll && len(b.indices) > 0 {
		if fresh, known, err = b.divide(ctx, tx); err != nil {
			return err
		}
		db.repeated.Store(len(fresh) < len(b.indices))
	}
	if len(fresh) > 0 {
		if way < insertUnknown {
			_, err = tx.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(b.encode(fresh)), copyOutcomes)
		} else {
			fresh, known, err = b.insert(ctx, tx, fresh, known)
		}
		if err != nil {
			return err
		}
	}
	for _, i := range fresh {
		results[i] = experiment.Recorded
	}
	return b.compare(ctx, tx, known, results)
}

// insert inserts the items that are still unknown, of those at the indices. The
// others join the known ones.
func (b *outcomeBatch) insert(ctx context.Context, tx pgx.Tx, indices, known []int) (inserted, rest []int, err error) {
	times := make([]time.Time, len(indices))
	for k, i := range indices {
		times[k] = b.items[i].OccurredTime
	}
	rows, err := tx.Query(ctx, `INSERT INTO outcomes (row_id, subject_id, name_id, value, properties, corrects, adjusted_time, unit, occurred_time)
		SELECT row_id, subject_id, name_id, value, properties::jsonb, corrects, adjusted_time, unit, occurred_time
		FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::float8[], $5::text[], $6::uuid[], $7::timestamptz[], $8::text[], $9::timestamptz[])
			AS o (row_id, subject_id, name_id, value, properties, corrects, adjusted_time, unit, occurred_time)
		ON CONFLICT DO NOTHING RETURNING row_id, subject_id`, append(b.columns(indices), b.units(indices), times)...)
	if err != nil {
		return nil, nil, err
	}
	isIn := map[int]bool{}
	var key outcomeKey
	if _, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&key.row), (*[16]byte)(&key.subject)}, func() error {
		i, _ := b.find(key)
		isIn[i] = true
		return nil
	}); err != nil {
		return nil, nil, err
	}
	for _, i := range indices {
		if isIn[i] {
			inserted = append(inserted, i)
		} else {
			known = append(known, i)
		}
	}
	return inserted, known, nil
}

// withoutErased returns the batch without the items of erased subjects.
func (db *DB) withoutErased(b *outcomeBatch, results []experiment.Result) *outcomeBatch {
	return b.without(func(i int) bool {
		if db.isErased(b.items[i].SubjectID) {
			results[i] = experiment.Erased
			return true
		}
		return false
	})
}

// without returns the batch without some items.
func (b *outcomeBatch) without(item func(int) bool) *outcomeBatch {
	rest := *b
	rest.indices = slices.DeleteFunc(slices.Clone(b.indices), item)
	rest.repeats = slices.DeleteFunc(slices.Clone(b.repeats), item)
	return &rest
}

// divide tells the items that stand for a new identity from all whose identity
// is known or that repeat one of the batch.
func (b *outcomeBatch) divide(ctx context.Context, tx pgx.Tx) (fresh, known []int, err error) {
	ids := make([][16]byte, len(b.indices))
	for k, i := range b.indices {
		ids[k] = b.items[i].RowID
	}
	rows, err := tx.Query(ctx, `SELECT row_id, subject_id FROM outcomes WHERE row_id = ANY($1)`, ids)
	if err != nil {
		return nil, nil, err
	}
	stored := map[int]bool{}
	var key outcomeKey
	if _, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&key.row), (*[16]byte)(&key.subject)}, func() error {
		if i, ok := b.find(key); ok { // Other subjects may have an event of the same id and time.
			stored[i] = true
		}
		return nil
	}); err != nil {
		return nil, nil, err
	}
	known = slices.Clone(b.repeats)
	for _, i := range b.indices {
		if stored[i] {
			known = append(known, i)
		} else {
			fresh = append(fresh, i)
		}
	}
	return fresh, known, nil
}

const copyOutcomes = `COPY outcomes (row_id, subject_id, name_id, value, occurred_time, properties, corrects, adjusted_time, unit) FROM STDIN BINARY`

// encode returns the items at the indices as rows to copy.
func (b *outcomeBatch) encode(indices []int) []byte {
	rows := newCopyRows(128 * len(indices))
	for _, i := range indices {
		o := &b.items[i]
		rows.row(9)
		rows.uuid(o.RowID)
		rows.uuid(o.SubjectID)
		rows.integer(b.names[o.Name])
		if o.Value != nil {
			rows.double(*o.Value)
		} else {
			rows.null()
		}
		rows.timestamp(o.OccurredTime)
		if o.Properties != nil {
			rows.jsonb(o.Properties)
		} else {
			rows.null()
		}
		if o.IsCorrection() {
			rows.uuid(o.Corrects)
			rows.timestamp(o.AdjustedTime)
		} else {
			rows.null()
			rows.null()
		}
		if unit := storedUnit(o); unit != nil {
			rows.text(*unit)
		} else {
			rows.null()
		}
	}
	return rows.end()
}

// compare tells the duplicates among the items of known identity from the
// conflicts.
func (b *outcomeBatch) compare(ctx context.Context, tx pgx.Tx, known []int, results []experiment.Result) error {
	if len(known) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `SELECT n.item, o.name_id = n.name_id
			AND o.value IS NOT DISTINCT FROM n.value AND o.properties IS NOT DISTINCT FROM n.properties::jsonb
			AND o.corrects IS NOT DISTINCT FROM n.corrects AND o.adjusted_time IS NOT DISTINCT FROM n.adjusted_time
		FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::float8[], $5::text[], $6::uuid[], $7::timestamptz[], $8::bigint[])
			AS n (row_id, subject_id, name_id, value, properties, corrects, adjusted_time, item)
		JOIN outcomes o ON o.row_id = n.row_id AND o.subject_id = n.subject_id`, append(b.columns(known), known)...)
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

// storedUnit is what is stored of the unit of an outcome's subject: nothing for the
// default one, which then costs nothing.
func storedUnit(o *experiment.Outcome) *string {
	if o.Unit == "" || o.Unit == experiment.DefaultUnit {
		return nil
	}
	return &o.Unit
}

// units returns what is stored of the items' units.
func (b *outcomeBatch) units(indices []int) []*string {
	units := make([]*string, len(indices))
	for k, i := range indices {
		units[k] = storedUnit(&b.items[i])
	}
	return units
}

// columns returns the items at the indices as arrays: row ids, subject ids,
// name ids, values, properties, corrected row ids, times of correction.
func (b *outcomeBatch) columns(indices []int) []any {
	n := len(indices)
	rows, subjects, names := make([][16]byte, n), make([][16]byte, n), make([]int32, n)
	values, properties := make([]*float64, n), make([]*string, n)
	corrects, times := make([]*[16]byte, n), make([]*time.Time, n)
	for k, i := range indices {
		o := &b.items[i]
		rows[k], subjects[k], names[k], values[k] = o.RowID, o.SubjectID, b.names[o.Name], o.Value
		if o.Properties != nil {
			s := string(o.Properties)
			properties[k] = &s
		}
		if o.IsCorrection() {
			corrects[k], times[k] = (*[16]byte)(&o.Corrects), &o.AdjustedTime
		}
	}
	return []any{rows, subjects, names, values, properties, corrects, times}
}

func (b *outcomeBatch) months() map[time.Time]bool {
	months := map[time.Time]bool{}
	var month, next time.Time
	for _, i := range b.indices {
		if t := b.items[i].OccurredTime; t.Before(month) || !t.Before(next) { // They are in order of time.
			month = monthOf(t)
			next = month.AddDate(0, 1, 0)
			months[month] = true
		}
	}
	return months
}
