package postgres

import (
	"context"
)

// ListenCatalog calls notify once it is listening, and after every announced
// change of an experiment.
// It blocks until the context ends or the connection is lost; changes between
// two calls are not announced to either.
func (db *DB) ListenCatalog(ctx context.Context, notify func()) error {
	if err := db.checkPrepared(); err != nil {
		return err
	}
	conn, err := db.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, `LISTEN `+catalogChannel); err != nil {
		return interpret(err)
	}
	notify() // What changed before the LISTEN was not heard.
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return interpret(err)
		}
		notify()
	}
}
