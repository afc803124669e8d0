package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/assayhq/assay/internal/experiment"
)

// partitionLock serialises the making of partitions among servers.
const partitionLock = 0x6173736179 // "assay"

// maxNewMonths is how many months one call of [DB.PrepareMonths] makes: ten years,
// which takes a second or two. Its caller may hold room that others wait for.
const maxNewMonths = 120

// PrepareMonths makes the partitions that the outcomes need, so that recording
// them makes none: there, all that is recorded with them would wait. It makes so
// many at most, and then fails with ErrUnavailable; called again, it goes on.
func (db *DB) PrepareMonths(ctx context.Context, items []experiment.Outcome) error {
	months := map[time.Time]bool{}
	var month, next time.Time
	for i := range items {
		if t := items[i].OccurredTime; t.Before(month) || !t.Before(next) { // Most are of the month of the one before.
			month = monthOf(t)
			next = month.AddDate(0, 1, 0)
			months[month] = true
		}
	}
	return db.ensurePartitions(ctx, months, maxNewMonths)
}

// monthOf is the first instant of a time's month, UTC.
func monthOf(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

// ensurePartitions makes the partitions of outcomes for the months (each its
// first instant, UTC) that have none yet, but no more than so many. Servers and
// callers take turns, month by month, so that who needs one does not wait for who
// needs many.
//
// A partition is made apart and then attached: attaching takes a lock that
// lets reads and writes of the other months go on, while CREATE TABLE …
// PARTITION OF would wait for every running analysis.
func (db *DB) ensurePartitions(ctx context.Context, months map[time.Time]bool, most int) error {
	missing := db.unknownMonths(months)
	if len(missing) == 0 {
		return nil
	}
	if err := db.learnPartitions(ctx); err != nil {
		return err
	}
	missing = db.unknownMonths(months)
	for made, month := range missing {
		if made == most {
			return experiment.Errorf(experiment.ErrUnavailable, "MONTHS_BEING_MADE",
				"outcomes are stored by month: these are of %d months that had none, of which room was made for %d; send them again for the others", len(missing), made)
		}
		if err := db.ensurePartition(ctx, month); err != nil {
			return fmt.Errorf("partition for %s: %w", month.Format("2006-01"), err)
		}
	}
	return nil
}

// unknownMonths returns those of the months that are not known to have a
// partition.
func (db *DB) unknownMonths(months map[time.Time]bool) []time.Time {
	db.mu.Lock()
	defer db.mu.Unlock()
	var unknown []time.Time
	for month := range months {
		if !db.partitions[month] {
			unknown = append(unknown, month)
		}
	}
	slices.SortFunc(unknown, time.Time.Compare)
	return unknown
}

// learnPartitions makes all partitions known.
func (db *DB) learnPartitions(ctx context.Context) error {
	months, err := partitionMonths(ctx, db.recording)
	if err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	for _, month := range months {
		db.partitions[month] = true
	}
	return nil
}

// ensurePartition makes one partition, once it is the caller's turn.
func (db *DB) ensurePartition(ctx context.Context, month time.Time) error {
	select {
	case db.making <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-db.making }()
	if err := inTx(ctx, db.recording, func(tx pgx.Tx) error { return createPartition(ctx, tx, month) }); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.partitions[month] = true
	return nil
}

func (db *DB) forgetPartitions() {
	db.mu.Lock()
	defer db.mu.Unlock()
	clear(db.partitions)
}

// createPartition waits for another server that makes or drops one, and for what
// else forbids it, but not for long: whoever comes later would wait behind it.
func createPartition(ctx context.Context, tx pgx.Tx, month time.Time) error {
	if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '2s'`); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(partitionLock)); err != nil {
		return err
	}
	name := partitionName(month)
	var attached bool // A table of the name that was detached does not count.
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_inherits
		WHERE inhparent = 'outcomes'::regclass AND inhrelid = to_regclass($1))`, name).Scan(&attached); err != nil || attached {
		return err
	}
	table := pgx.Identifier{name}.Sanitize()
	if _, err := tx.Exec(ctx, `CREATE TABLE `+table+` (LIKE outcomes INCLUDING ALL)`); err != nil {
		return err
	}
	// Bounds are part of the statement: DDL takes no parameters. They are
	// hexadecimal digits made here.
	_, err := tx.Exec(ctx, fmt.Sprintf(`ALTER TABLE outcomes ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')`,
		table, lowestRowID(month), lowestRowID(month.AddDate(0, 1, 0))))
	return err
}

// lowestRowID is the lowest row id of outcomes at or after t, as a UUID. No
// outcome is from before 1970, where row ids have no place.
func lowestRowID(t time.Time) string {
	if t.Before(time.UnixMilli(0)) {
		t = time.UnixMilli(0)
	}
	id := experiment.NewRowID(t, "")
	for i := 6; i < len(id); i++ {
		id[i] = 0
	}
	return pgtype.UUID{Bytes: id, Valid: true}.String()
}
