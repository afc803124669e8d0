package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// closedAge is how long after its end a month of outcomes counts as closed: few
// events come that late, so an index more costs little from then on.
const closedAge = 7 * 24 * time.Hour

// keptFrom names the setting that holds since when outcomes are kept.
const keptFrom = "outcomes_kept_from"

// Maintain does what is to be done to the partitions of outcomes from time to
// time: it makes those of this month and the next, so that no event waits for
// one; it drops those that ended longer than retention ago, if that is not 0;
// and it gives the closed ones an index by subject. It also repeats erasures of
// subjects, and completes revisions that an earlier release made. Many servers may do so at once, and what one of them cannot do now is
// done the next time.
func (db *DB) Maintain(ctx context.Context, now time.Time, retention time.Duration) error {
	this := time.Date(now.UTC().Year(), now.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
	errs := []error{db.ensurePartitions(ctx, map[time.Time]bool{this: true, this.AddDate(0, 1, 0): true}, 2)}
	months, err := partitionMonths(ctx, db.definitions)
	errs = append(errs, err)
	for _, month := range months {
		switch age := now.Sub(month.AddDate(0, 1, 0)); {
		case retention > 0 && age >= retention:
			errs = append(errs, db.dropPartition(ctx, month))
		case age >= closedAge:
			errs = append(errs, db.indexPartition(ctx, month))
		}
	}
	return errors.Join(append(errs, db.sweepErased(ctx), db.fillMissingTerms(ctx))...)
}

func partitionName(month time.Time) string { return month.Format("outcomes_2006_01") }

// partitionMonths lists the months that have a partition, each by its first
// instant.
func partitionMonths(ctx context.Context, q querier) ([]time.Time, error) {
	rows, err := q.Query(ctx, `SELECT to_timestamp(right(c.relname, 7) || '_01', 'YYYY_MM_DD') FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'outcomes'::regclass AND c.relname ~ '^outcomes_\d{4}_\d{2}$' ORDER BY 1`)
	if err != nil {
		return nil, interpret(err)
	}
	months, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (month time.Time, err error) {
		err = row.Scan(&month)
		return month.UTC(), err
	})
	return months, interpret(err)
}

// dropPartition drops a month, and remembers it in the same transaction, since
// analyses must tell what they can no longer see. It waits for running analyses
// only for a moment, as whoever comes later waits behind it.
func (db *DB) dropPartition(ctx context.Context, month time.Time) error {
	table := pgx.Identifier{partitionName(month)}.Sanitize()
	err := inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '2s'`); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(partitionLock)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET value = greatest(settings.value, excluded.value)`,
			keptFrom, month.AddDate(0, 1, 0).Format(time.RFC3339)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DROP TABLE IF EXISTS `+table)
		return err
	})
	if err == nil {
		db.mu.Lock()
		delete(db.partitions, month)
		db.mu.Unlock()
	}
	return err
}

// KeptFrom returns the moment before which outcomes have been dropped; zero if
// none have.
func (db *DB) KeptFrom(ctx context.Context) (time.Time, error) {
	var text string
	err := db.definitions.QueryRow(ctx, `SELECT value FROM settings WHERE name = $1`, keptFrom).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, interpret(err)
	}
	return time.Parse(time.RFC3339, text)
}

// indexPartition gives a month its index by subject, without holding up late
// events. An index whose making was cut off is made anew. Only one server at a
// time makes indexes; the others leave it to it.
func (db *DB) indexPartition(ctx context.Context, month time.Time) error {
	table := partitionName(month)
	index := table + "_subject"
	conn, err := db.analysis.Acquire(ctx)
	if err != nil {
		return interpret(err)
	}
	defer conn.Release()
	// Its statements may take as long as they need, and wait for transactions that are
	// under way: they hold nobody up.
	if _, err := conn.Exec(ctx, `SET statement_timeout = 0; SET lock_timeout = 0`); err != nil {
		return interpret(err)
	}
	defer conn.Exec(context.WithoutCancel(ctx), `RESET statement_timeout; RESET lock_timeout`)
	var valid bool
	err = conn.QueryRow(ctx, `SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)`, index).Scan(&valid)
	if err == nil && valid {
		return nil
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return interpret(err)
	}
	var mine bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, int64(indexLock)).Scan(&mine); err != nil || !mine {
		return interpret(err)
	}
	defer conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, int64(indexLock))
	for _, statement := range []string{
		`DROP INDEX CONCURRENTLY IF EXISTS ` + pgx.Identifier{index}.Sanitize(),
		`CREATE INDEX CONCURRENTLY ` + pgx.Identifier{index}.Sanitize() + ` ON ` + pgx.Identifier{table}.Sanitize() + ` (subject_id)`,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("index of %s: %w", table, interpret(err))
		}
	}
	return nil
}

// indexLock serialises the making of indexes among servers.
const indexLock = partitionLock + 1
