package postgres

import (
	"context"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// MaxOutcomeNames is the most distinct outcome names that are recorded. Names
// are kinds of event, not data; a client that puts data into them is stopped
// here before its names fill the memory of every server. Servers that add names
// at the same moment may pass it by what they add.
const MaxOutcomeNames = 10_000

// outcomeNames returns the ids of the items' names, adding new names up to
// MaxOutcomeNames. A name that was not added is absent. Once the limit is
// reached no name is ever added, so all are kept in memory, and names that are
// too many cost no query.
func (db *DB) outcomeNames(ctx context.Context, items []experiment.Outcome) (map[string]int32, error) {
	ids, missing := db.knownNames(items)
	if len(missing) == 0 {
		return ids, nil
	}
	learned, err := db.addNames(ctx, missing)
	full := err == nil && len(learned) < len(missing)
	if full {
		learned, err = db.allNames(ctx)
	}
	if err != nil {
		return nil, err
	}
	db.mu.Lock()
	maps.Copy(db.names, learned)
	db.namesFull = db.namesFull || full
	db.mu.Unlock()
	ids, _ = db.knownNames(items)
	return ids, nil
}

// addNames returns the ids of names, in order, adding them as far as the limit
// allows.
func (db *DB) addNames(ctx context.Context, names []string) (ids map[string]int32, err error) {
	err = inTx(ctx, db.recording, func(tx pgx.Tx) error {
		if ids, err = namesOf(ctx, tx, names); err != nil {
			return err
		}
		var room int
		if err := tx.QueryRow(ctx, `SELECT greatest(0, $1 - count(*)) FROM outcome_names`, MaxOutcomeNames).Scan(&room); err != nil {
			return err
		}
		fresh := slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, known := ids[name]; return known })
		fresh = fresh[:min(len(fresh), room)]
		if len(fresh) == 0 {
			return nil
		}
		// In name order, as every server locks them.
		if _, err := tx.Exec(ctx, `INSERT INTO outcome_names (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING`, fresh); err != nil {
			return err
		}
		// A statement of its own: it sees what others added meanwhile.
		ids, err = namesOf(ctx, tx, names)
		return err
	})
	return ids, err
}

// allNames returns the ids of all names. The lock waits for those that are
// being added.
func (db *DB) allNames(ctx context.Context) (ids map[string]int32, err error) {
	err = inTx(ctx, db.recording, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `LOCK TABLE outcome_names IN SHARE MODE`); err != nil {
			return err
		}
		ids, err = readNames(ctx, tx, `SELECT name, id FROM outcome_names`)
		return err
	})
	return ids, err
}

// namesOf returns the ids of those of the names that are recorded.
func namesOf(ctx context.Context, tx pgx.Tx, names []string) (map[string]int32, error) {
	return readNames(ctx, tx, `SELECT name, id FROM outcome_names WHERE name = ANY($1)`, names)
}

func readNames(ctx context.Context, tx pgx.Tx, sql string, args ...any) (map[string]int32, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	ids := map[string]int32{}
	var name string
	var id int32
	_, err = pgx.ForEachRow(rows, []any{&name, &id}, func() error {
		ids[name] = id
		return nil
	})
	return ids, err
}

// knownNames returns the ids of the items' names that are in memory, and the
// other names that may yet have one, sorted.
func (db *DB) knownNames(items []experiment.Outcome) (ids map[string]int32, missing []string) {
	db.mu.Lock()
	defer db.mu.Unlock()
	ids = map[string]int32{}
	for i := range items {
		name := items[i].Name
		if id, ok := db.names[name]; ok {
			ids[name] = id
		} else if !db.namesFull {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	return ids, slices.Compact(missing)
}
