package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// audit writes an event in the transaction of what it tells of. Its id and its
// time are the database's.
func audit(ctx context.Context, tx pgx.Tx, e experiment.AuditEvent) error {
	var details *string
	if e.Details != nil {
		encoded, err := json.Marshal(e.Details)
		if err != nil {
			return err
		}
		text := string(encoded)
		details = &text
	}
	_, err := tx.Exec(ctx, `INSERT INTO audit_events (author, action, kind, key, details) VALUES ($1, $2, $3, $4, $5)`,
		e.Author, e.Action, e.Kind, e.Key, details)
	return err
}

// AuditFilter selects audit events to list. Empty fields select all.
type AuditFilter struct {
	Kind   experiment.AuditedKind
	Key    string
	Before int64 // Ids below this one.
	Limit  int
}

// AuditEvents lists audit events, newest first.
func (db *DB) AuditEvents(ctx context.Context, f AuditFilter) ([]experiment.AuditEvent, error) {
	rows, err := db.definitions.Query(ctx, `SELECT id, time, author, action, kind, key, details FROM audit_events
		WHERE id < $1 AND ($2 = '' OR kind = $2) AND ($3 = '' OR key = $3) ORDER BY id DESC LIMIT $4`, f.Before, f.Kind, f.Key, f.Limit)
	if err != nil {
		return nil, interpret(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e experiment.AuditEvent, err error) {
		var details []byte
		if err := row.Scan(&e.ID, &e.Time, &e.Author, &e.Action, &e.Kind, &e.Key, &details); err != nil {
			return e, err
		}
		if details != nil {
			if err := json.Unmarshal(details, &e.Details); err != nil {
				return e, fmt.Errorf("audit event %d: details: %w", e.ID, err)
			}
		}
		return e, nil
	})
	return list, interpret(err)
}
