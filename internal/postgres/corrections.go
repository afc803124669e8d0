package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// A correction adjusts an outcome, and never another correction, whose amount is
// added as it was recorded: what corrects one would count nowhere. A client may name
// it by the time of the outcome that it corrects, as it is stored, or by its own.

// withoutRecorrections returns the batch without the items that correct what is
// known, or comes in the same batch, as a correction. A correction that comes before
// the one that it names cannot be told from any other that comes before its outcome:
// analyses count it among those with nothing to correct. A batch without corrections
// costs nothing.
func (b *outcomeBatch) withoutRecorrections(ctx context.Context, tx pgx.Tx, results []experiment.Result) (*outcomeBatch, error) {
	var corrections []int
	for _, i := range slices.Concat(b.indices, b.repeats) {
		if b.items[i].IsCorrection() {
			corrections = append(corrections, i)
		}
	}
	if corrections == nil {
		return b, nil
	}
	refused := map[int]bool{}
	b.recorrectionsAmong(corrections, refused)
	if err := b.recorrectionsOfStored(ctx, tx, corrections, refused); err != nil {
		return nil, err
	}
	return b.without(func(i int) bool {
		if refused[i] {
			results[i] = experiment.Recorrects
		}
		return refused[i]
	}), nil
}

// recorrectionsAmong finds those that correct a correction of the batch.
func (b *outcomeBatch) recorrectionsAmong(corrections []int, refused map[int]bool) {
	named := map[outcomeKey]bool{} // By either time.
	for _, i := range corrections {
		o := &b.items[i]
		named[outcomeKey{o.RowID, o.SubjectID}] = true
		named[outcomeKey{o.RowID.At(o.AdjustedTime), o.SubjectID}] = true
	}
	for _, i := range corrections {
		corrected := outcomeKey{b.items[i].Corrects, b.items[i].SubjectID}
		original, ok := b.find(corrected)
		refused[i] = named[corrected] && (!ok || b.items[original].IsCorrection())
	}
}

// recorrectionsOfStored finds those that correct a stored correction: the index of
// corrections by subject holds no others.
func (b *outcomeBatch) recorrectionsOfStored(ctx context.Context, tx pgx.Tx, corrections []int, refused map[int]bool) error {
	var subjects, corrects [][16]byte
	var times []time.Time
	for _, i := range corrections {
		o := &b.items[i]
		subjects, corrects, times = append(subjects, o.SubjectID), append(corrects, o.Corrects), append(times, o.OccurredTime)
	}
	rows, err := tx.Query(ctx, `SELECT n.item FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::bigint[]) AS n (subject_id, corrects, occurred_time, item)
		JOIN outcomes o ON o.subject_id = n.subject_id AND o.corrects IS NOT NULL AND (o.row_id = n.corrects OR
			o.adjusted_time = n.occurred_time AND substring(uuid_send(o.row_id) FROM 7) = substring(uuid_send(n.corrects) FROM 7)
			AND NOT EXISTS (SELECT FROM outcomes x WHERE x.subject_id = o.subject_id AND x.row_id = n.corrects))`,
		subjects, corrects, times, corrections)
	if err != nil {
		return err
	}
	var item int
	_, err = pgx.ForEachRow(rows, []any{&item}, func() error {
		refused[item] = true
		return nil
	})
	return err
}
