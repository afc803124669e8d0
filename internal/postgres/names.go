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
// MaxOutcomeNames. A name that was not added is absent.
func (db *DB) outcomeNames(ctx context.Context, items []experiment.Outcome) (map[string]int32, error) {
	ids, missing := db.knownNames(items)
	if len(missing) == 0 {
		return ids, nil
	}
	learned := map[string]int32{}
	err := inTx(ctx, db.recording, func(tx pgx.Tx) error {
		clear(learned)
		// In name order, as every server locks them.
		if _, err := tx.Exec(ctx, `INSERT INTO outcome_names (name)
			SELECT n.name FROM unnest($1::text[]) AS n (name)
			WHERE NOT EXISTS (SELECT FROM outcome_names o WHERE o.name = n.name)
			ORDER BY n.name LIMIT greatest(0, $2 - (SELECT count(*) FROM outcome_names))
			ON CONFLICT DO NOTHING`, missing, MaxOutcomeNames); err != nil {
			return err
		}
		// A statement of its own: it sees what others added meanwhile.
		rows, err := tx.Query(ctx, `SELECT name, id FROM outcome_names WHERE name = ANY($1)`, missing)
		if err != nil {
			return err
		}
		var name string
		var id int32
		_, err = pgx.ForEachRow(rows, []any{&name, &id}, func() error {
			learned[name] = id
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	maps.Copy(db.names, learned)
	maps.Copy(ids, learned)
	return ids, nil
}

// knownNames returns the ids of the items' names that are in memory, and the
// other names, sorted.
func (db *DB) knownNames(items []experiment.Outcome) (ids map[string]int32, missing []string) {
	db.mu.Lock()
	defer db.mu.Unlock()
	ids = map[string]int32{}
	for i := range items {
		name := items[i].Name
		if id, ok := db.names[name]; ok {
			ids[name] = id
		} else {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	return ids, slices.Compact(missing)
}
