package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/assayhq/assay/internal/experiment"
)

// partitionLock serialises the making of partitions among servers.
const partitionLock = 0x6173736179 // "assay"

// ensurePartitions makes the partitions of outcomes for the months (each its
// first instant, UTC) that have none yet.
//
// A partition is made apart and then attached: attaching takes a lock that
// lets reads and writes of the other months go on, while CREATE TABLE …
// PARTITION OF would wait for every running analysis.
func (db *DB) ensurePartitions(ctx context.Context, months map[time.Time]bool) error {
	db.mu.Lock()
	missing := slices.SortedFunc(maps.Keys(months), time.Time.Compare)
	missing = slices.DeleteFunc(missing, func(month time.Time) bool { return db.partitions[month] })
	db.mu.Unlock()
	for _, month := range missing {
		err := inTx(ctx, db.recording, func(tx pgx.Tx) error { return createPartition(ctx, tx, month) })
		if err != nil {
			return fmt.Errorf("partition for %s: %w", month.Format("2006-01"), err)
		}
		db.mu.Lock()
		db.partitions[month] = true
		db.mu.Unlock()
	}
	return nil
}

func (db *DB) forgetPartitions() {
	db.mu.Lock()
	defer db.mu.Unlock()
	clear(db.partitions)
}

func createPartition(ctx context.Context, tx pgx.Tx, month time.Time) error {
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
