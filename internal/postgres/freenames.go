package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/assayhq/assay/internal/experiment"
)

// This file frees outcome names that nothing uses, so that others have room. Nobody who
// records waits for it, and no outcome ever has a name that is not its own:
//
//  1. A name of which there is no outcome, and that no definition counts, is marked as
//     unused. It still counts.
//  2. Every server reads what is marked within the hour ([DB.relearnNames]), and no
//     longer knows it. If an outcome of that name comes it is asked for, and is no
//     longer marked.
//  3. A day later a name that is still marked, and still has no outcome, is freed: it
//     counts no more. Its row and its id stay, and it is admitted again under them.
//
// So a server that has not read what was marked, or that is of an earlier release,
// records under the right name also what was freed; it is found in use the next time.

// looksAtNames is the least time between two looks at which names are in use, for which
// outcomes are read.
const looksAtNames = 23 * time.Hour

// namesLookedAt names the setting that holds when that was.
const namesLookedAt = "outcome_names_looked_at"

// FreeNames learns which outcome names are in use, and once a day, while more than half
// of the limit are taken, frees those that were unused a day ago and still are. Many
// servers may call it at once; one of them does it.
func (db *DB) FreeNames(ctx context.Context, now time.Time) error {
	if err := db.relearnNames(ctx); err != nil {
		return err
	}
	conn, err := db.analysis.Acquire(ctx)
	if err != nil {
		return interpret(err)
	}
	defer conn.Release()
	var mine bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, int64(namesLookLock)).Scan(&mine); err != nil || !mine {
		return interpret(err)
	}
	defer conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, int64(namesLookLock))
	due, err := db.namesAreDue(ctx, conn, now)
	if err != nil || !due {
		return interpret(err)
	}
	counted, err := readNames(ctx, conn, `SELECT name, id FROM outcome_names WHERE NOT freed`)
	if err != nil {
		return interpret(err)
	}
	used, err := namesWithOutcomes(ctx, conn, slices.Collect(maps.Values(counted)))
	if err != nil {
		return interpret(err)
	}
	defined, err := definedNames(ctx, conn)
	if err != nil {
		return interpret(err)
	}
	return db.keepNames(ctx, now, slices.Collect(maps.Values(counted)), used, defined)
}

// namesLookLock lets one server at a time look at which names are in use.
const namesLookLock = namesLock + 1

// relearnNames learns all names that are in use, and forgets those that no longer are.
func (db *DB) relearnNames(ctx context.Context) error {
	n := &db.names
	n.mu.RLock()
	before := slices.Collect(maps.Keys(n.ids)) // What is learnt meanwhile is in use.
	n.mu.RUnlock()
	ids, err := readNames(ctx, db.definitions, allNamesInUse)
	if err != nil {
		return interpret(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range before {
		if _, used := ids[name]; !used {
			delete(n.ids, name)
		}
	}
	maps.Copy(n.ids, ids)
	return nil
}

// namesAreDue says whether it is time to look at which names are in use.
func (db *DB) namesAreDue(ctx context.Context, conn *pgxpool.Conn, now time.Time) (bool, error) {
	var known int
	if err := conn.QueryRow(ctx, countNames).Scan(&known, nil, nil, nil); err != nil || 2*known <= db.names.limit() {
		return false, err
	}
	var text string
	err := conn.QueryRow(ctx, `SELECT value FROM settings WHERE name = $1`, namesLookedAt).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	last, err := time.Parse(time.RFC3339, text)
	return now.Sub(last) >= looksAtNames, err
}

// namesWithOutcomes returns the ids under which there are outcomes. It reads month after
// month from the newest, until there are some of each of those that count.
func namesWithOutcomes(ctx context.Context, q querier, counted []int32) ([]int32, error) {
	months, err := partitionMonths(ctx, q)
	if err != nil {
		return nil, err
	}
	missing := map[int32]bool{}
	for _, id := range counted {
		missing[id] = true
	}
	used := []int32{}
	for _, month := range slices.Backward(months) {
		if len(missing) == 0 {
			break
		}
		found, err := otherNamesIn(ctx, q, month, used)
		if err != nil {
			return nil, err
		}
		for _, id := range found {
			delete(missing, id)
		}
		used = append(used, found...)
	}
	return used, nil
}

// otherNamesIn returns the ids of outcomes of a month but for some. A month that was
// dropped has none.
func otherNamesIn(ctx context.Context, q querier, month time.Time, but []int32) ([]int32, error) {
	rows, err := q.Query(ctx, `SELECT name_id FROM `+pgx.Identifier{partitionName(month)}.Sanitize()+` WHERE name_id <> ALL($1) GROUP BY name_id`, but)
	if err != nil {
		return nil, unlessDropped(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	return found, unlessDropped(err)
}

func unlessDropped(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42P01" {
		return nil
	}
	return err
}

// keepNames takes the mark from names that are in use, frees those of the others that
// counted and were marked before, and marks the rest.
func (db *DB) keepNames(ctx context.Context, now time.Time, counted, used []int32, defined []string) error {
	return inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(namesLock)); err != nil {
			return err
		}
		if err := nameOutcomes(ctx, tx, defined); err != nil { // Of a definition that an earlier release made.
			return err
		}
		for _, statement := range []struct {
			sql  string
			args []any
		}{
			{`UPDATE outcome_names SET unused_time = NULL, freed = false WHERE id = ANY($1) AND (freed OR unused_time IS NOT NULL)`, []any{used}},
			{`UPDATE outcome_names SET freed = true WHERE ` + unusedNames + ` AND unused_time < $4 AND NOT freed`, []any{counted, used, defined, now}},
			{`UPDATE outcome_names SET unused_time = $4 WHERE ` + unusedNames + ` AND unused_time IS NULL`, []any{counted, used, defined, now}},
			{`INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, []any{namesLookedAt, now.UTC().Format(time.RFC3339)}},
		} {
			if _, err := tx.Exec(ctx, statement.sql, statement.args...); err != nil {
				return err
			}
		}
		return nil
	})
}

const unusedNames = `id = ANY($1) AND id <> ALL($2) AND name <> ALL($3)`

// definedNames returns the outcome names that metrics and the covariates of experiments
// count, in whatever revision.
func definedNames(ctx context.Context, q querier) ([]string, error) {
	rows, err := q.Query(ctx, `SELECT definition FROM metric_revisions UNION ALL SELECT definition FROM experiment_revisions`)
	if err != nil {
		return nil, err
	}
	names, seen := []string{}, map[string]bool{}
	var definition []byte
	_, err = pgx.ForEachRow(rows, []any{&definition}, func() error {
		var counts struct {
			Components []experiment.Component
			Covariates []experiment.Covariate
		}
		if err := json.Unmarshal(definition, &counts); err != nil {
			return err
		}
		for _, name := range countedNames(counts.Components, counts.Covariates) {
			if !seen[name] && experiment.IsOutcomeName(name) {
				names, seen[name] = append(names, name), true
			}
		}
		return nil
	})
	return names, err
}

// countedNames returns the names of the outcomes that a definition counts.
func countedNames(components []experiment.Component, covariates []experiment.Covariate) (names []string) {
	for i := range components {
		names = append(names, components[i].Outcome)
	}
	for i := range covariates {
		if past := covariates[i].Past; past != nil {
			names = append(names, past.Outcome)
		}
	}
	return names
}
