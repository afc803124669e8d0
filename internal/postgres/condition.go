package postgres

import (
	"context"
	"errors"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Condition is what keeps the database from being used, by what it is used for; nil
// where nothing does.
type Condition struct {
	Definitions, Recording, Analysis error
}

// Condition looks whether the database can be reached, and whether events could be
// recorded and analysed: not if it is read-only, has no connections left for that, or
// another program has locked a table of events. It takes ten seconds at most, and
// writes nothing.
func (db *DB) Condition(ctx context.Context) (c Condition) {
	var looks sync.WaitGroup
	looks.Go(func() { c.Definitions = db.Ping(ctx) })
	// Planning takes the locks that the statement itself would.
	looks.Go(func() {
		c.Recording = usable(ctx, db.recording,
			`EXPLAIN INSERT INTO exposures (experiment_id, subject_id, phase, variant, exposed_time) VALUES (0, '00000000-0000-0000-0000-000000000000', 0, '', 'epoch')`,
			`EXPLAIN INSERT INTO outcomes (row_id, subject_id, name_id, occurred_time) VALUES ('00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000', 0, 'epoch')`)
	})
	looks.Go(func() {
		c.Analysis = usable(ctx, db.analysis,
			`EXPLAIN SELECT 1 FROM exposures WHERE experiment_id = 0`,
			`EXPLAIN SELECT 1 FROM outcomes WHERE row_id = '00000000-0000-0000-0000-000000000000'`)
	})
	looks.Wait()
	if c.Definitions != nil {
		return Condition{c.Definitions, c.Definitions, c.Definitions}
	}
	return c
}

// usable says what keeps the statements from being run on a database that can be
// written to. A pool all of whose connections are at work is not out of order.
func usable(ctx context.Context, pool *pgxpool.Pool, statements ...string) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout+lockTimeout)
	defer cancel()
	conn, err := pool.Acquire(ctx)
	if errors.Is(err, context.DeadlineExceeded) && pool.Stat().AcquiredConns() == pool.Config().MaxConns {
		return nil
	}
	if err != nil {
		return interpret(err)
	}
	defer conn.Release()
	var readOnly bool
	if err := conn.QueryRow(ctx, `SELECT current_setting('transaction_read_only')::boolean`).Scan(&readOnly); err != nil {
		return interpret(err)
	}
	if readOnly {
		return unavailable(errors.New("the database is read-only"))
	}
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return interpret(err)
		}
	}
	return nil
}
