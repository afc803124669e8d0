package postgres

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
)

// This file admits outcome names. Names are kinds of event, not data, and every
// server has all of them in memory. A client that puts data into them is stopped
// before it has taken the room of everybody else's: by a limit of names in one call,
// of those that all servers admit in an hour, and of those that there are. Names that
// nothing uses make room again, see [DB.FreeNames]. A name that a metric or a
// covariate counts was admitted with it, whatever the limits.

// DefaultOutcomeNames is the most outcome names that count, unless [DB.LimitNames] says
// otherwise.
const DefaultOutcomeNames = 10_000

const (
	// Of the most names a call may bring one in so many as new ones,
	callShare = 100
	// and all of an hour one in so many.
	hourShare = 10

	// namesPause is for how long nothing is asked of new names after one was refused for
	// another limit than that of its call. So junk costs no query, a name that has just
	// been freed is admitted soon, and one that another server admits meanwhile is
	// refused for no longer than that.
	namesPause = time.Second

	// namesTimeout bounds the wait for names, as that for a commit is bounded.
	namesTimeout = 10 * time.Second
)

// knownNames are the outcome names that are known to be in use, and what keeps others
// out.
type knownNames struct {
	mu    sync.RWMutex
	most  int
	ids   map[string]int32
	met   limitMet
	again time.Time     // Until then the limit that was met is taken for what it was.
	turn  chan struct{} // Holds one element while the database is asked for names.
}

// limitMet is a limit that kept names out.
type limitMet struct {
	limit experiment.NameLimit // 0 if none did.
	most  int                  // New names, or names, that it allows.
	room  time.Time            // When there is some again, of NamesPerHour.
}

// LimitNames says how many outcome names may count. A hundredth of them may be new in
// one call, and a tenth in one hour. It is called before the database is used.
func (db *DB) LimitNames(most int) {
	db.names.mu.Lock()
	defer db.names.mu.Unlock()
	db.names.most = most
}

// AdmitNames makes the items' names known, so that recording them need not, and admits
// new ones as far as the limits allow. It returns what was not admitted; nil if all was.
//
// Items that are recorded together came in many calls, so this is to be called for
// each of those.
func (db *DB) AdmitNames(ctx context.Context, items []experiment.Outcome) (*experiment.NameRefusal, error) {
	_, missing := db.names.of(items)
	return db.admitNames(ctx, missing)
}

// outcomeNames returns the ids of the items' names. One that is not admitted is absent.
func (db *DB) outcomeNames(ctx context.Context, items []experiment.Outcome) (map[string]int32, error) {
	ids, missing := db.names.of(items)
	if len(missing) == 0 {
		return ids, nil
	}
	if _, err := db.admitNames(ctx, missing); err != nil {
		return nil, err
	}
	ids, _ = db.names.of(items)
	return ids, nil
}

// admitNames makes names known that are not. One call of a server asks the database at
// a time: the others find what it has learnt, and keep no connection from recording.
func (db *DB) admitNames(ctx context.Context, missing []string) (*experiment.NameRefusal, error) {
	n := &db.names
	if len(missing) == 0 {
		return nil, nil
	}
	if refusal := n.refuse(missing); refusal != nil {
		return refusal, nil
	}
	wait, cancel := context.WithTimeout(ctx, namesTimeout)
	defer cancel()
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-wait.Done():
		return nil, interpret(wait.Err())
	}
	if missing = n.unknown(missing); len(missing) == 0 {
		return nil, nil
	}
	if refusal := n.refuse(missing); refusal != nil {
		return refusal, nil
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), namesTimeout) // A caller that leaves costs no connection.
	defer cancel()
	learned, met, err := db.addNames(ctx, missing)
	if err == nil && met.limit > experiment.NamesPerCall {
		learned, err = db.allNames(ctx)
	}
	if err != nil {
		return nil, err
	}
	n.learn(learned, met)
	if missing = n.unknown(missing); len(missing) == 0 {
		return nil, nil
	}
	return met.refusal(missing), nil
}

// addNames returns the ids of names, in order, adding them as far as the limits
// allow, and which of those kept some out.
func (db *DB) addNames(ctx context.Context, names []string) (ids map[string]int32, met limitMet, err error) {
	err = inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		if ids, err = namesInUse(ctx, tx, names); err != nil || len(ids) == len(names) {
			return err
		}
		// One at a time, or what each counts would not be all.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(namesLock)); err != nil {
			return err
		}
		var counted map[string]int32
		if counted, err = readNames(ctx, tx, `SELECT name, id FROM outcome_names WHERE name = ANY($1) AND NOT freed`, names); err != nil {
			return err
		}
		fresh := slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, known := counted[name]; return known })
		var room int
		if room, met, err = db.roomForNames(ctx, tx, len(fresh)); err != nil {
			return err
		}
		for _, admit := range []struct {
			sql   string
			names []string
		}{
			{`UPDATE outcome_names SET unused_time = NULL WHERE name = ANY($1) AND unused_time IS NOT NULL`, slices.Collect(maps.Keys(counted))},
			{`UPDATE outcome_names SET unused_time = NULL, freed = false, admit_time = now() WHERE name = ANY($1) AND freed`, fresh[:room]},
			// In name order, as every server locks them.
			{`INSERT INTO outcome_names (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING`, fresh[:room]},
		} {
			if len(admit.names) == 0 {
				continue
			}
			if _, err := tx.Exec(ctx, admit.sql, admit.names); err != nil {
				return err
			}
		}
		// A statement of its own: it sees what others added meanwhile.
		ids, err = namesInUse(ctx, tx, names)
		return err
	})
	return ids, met, err
}

// roomForNames returns how many of so many new names there is room for, and which limit
// keeps out the others.
func (db *DB) roomForNames(ctx context.Context, tx pgx.Tx, wanted int) (room int, met limitMet, err error) {
	var known, recent int
	var now time.Time
	var oldest *time.Time // Of the recent ones.
	if err := tx.QueryRow(ctx, countNames).Scan(&known, &recent, &oldest, &now); err != nil {
		return 0, met, err
	}
	most := db.names.limit()
	room = wanted
	for _, limit := range []struct {
		left int
		limitMet
	}{
		{perCall(most), limitMet{limit: experiment.NamesPerCall, most: perCall(most)}},
		{perHour(most) - recent, limitMet{limit: experiment.NamesPerHour, most: perHour(most)}},
		{most - known, limitMet{limit: experiment.NamesInAll, most: most}},
	} {
		if left := max(0, limit.left); left < wanted && left <= room {
			room, met = left, limit.limitMet
		}
	}
	if oldest == nil {
		oldest = &now
	}
	// By the clock of this server, as whoever is told goes by a delay.
	met.room = time.Now().Add(oldest.Add(time.Hour).Sub(now))
	return room, met, nil
}

const countNames = `SELECT count(*), count(*) FILTER (WHERE admit_time > statement_timestamp() - interval '1 hour'),
	min(admit_time) FILTER (WHERE admit_time > statement_timestamp() - interval '1 hour'), statement_timestamp() FROM outcome_names WHERE NOT freed`

// namesLock serialises changes of outcome names among servers.
const namesLock = tombstoneLock + 1

func perCall(most int) int { return max(1, most/callShare) }

func perHour(most int) int { return max(1, most/hourShare) }

// NameRoom is how many outcome names there are, and how many more there may be.
type NameRoom struct {
	Known, Limit int
	Left         int // New ones that are still admitted in this hour.
}

// NameRoom counts the outcome names.
func (db *DB) NameRoom(ctx context.Context) (NameRoom, error) {
	r := NameRoom{Limit: db.names.limit()}
	var recent int
	err := db.definitions.QueryRow(ctx, countNames).Scan(&r.Known, &recent, nil, nil)
	r.Left = max(0, min(perHour(r.Limit)-recent, r.Limit-r.Known))
	return r, interpret(err)
}

// nameOutcomes admits the outcome names that a definition counts, and keeps them from
// being freed.
func nameOutcomes(ctx context.Context, tx pgx.Tx, names []string) error {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !experiment.IsOutcomeName(name) })
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 {
		return nil
	}
	ids, err := namesInUse(ctx, tx, names)
	if err != nil || len(ids) == len(names) {
		return err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO outcome_names (name, admit_time) SELECT unnest($1::text[]), NULL::timestamptz ON CONFLICT DO NOTHING`, names); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE outcome_names SET unused_time = NULL, freed = false, admit_time = NULL WHERE name = ANY($1) AND (freed OR unused_time IS NOT NULL)`, names)
	return err
}

// allNames returns the ids of all names in use. The lock waits for those that are
// being added.
func (db *DB) allNames(ctx context.Context) (ids map[string]int32, err error) {
	err = inTx(ctx, db.definitions, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `LOCK TABLE outcome_names IN SHARE MODE`); err != nil {
			return err
		}
		ids, err = readNames(ctx, tx, allNamesInUse)
		return err
	})
	return ids, err
}

const allNamesInUse = `SELECT name, id FROM outcome_names WHERE NOT freed AND unused_time IS NULL`

// namesInUse returns the ids of those of the names that count and are not about to be
// freed.
func namesInUse(ctx context.Context, tx pgx.Tx, names []string) (map[string]int32, error) {
	return readNames(ctx, tx, allNamesInUse+` AND name = ANY($1)`, names)
}

// namesOf returns the ids of those of the names that are recorded.
func namesOf(ctx context.Context, tx pgx.Tx, names []string) (map[string]int32, error) {
	return readNames(ctx, tx, `SELECT name, id FROM outcome_names WHERE name = ANY($1)`, names)
}

func readNames(ctx context.Context, q querier, sql string, args ...any) (map[string]int32, error) {
	rows, err := q.Query(ctx, sql, args...)
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

func (n *knownNames) limit() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.most
}

// of returns the ids of the items' names that are known, and the other names, sorted.
func (n *knownNames) of(items []experiment.Outcome) (ids map[string]int32, missing []string) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	ids = map[string]int32{}
	last := "" // Which is nobody's name.
	for i := range items {
		name := items[i].Name
		if name == last {
			continue
		}
		last = name
		if _, done := ids[name]; done {
			continue
		}
		if id, known := n.ids[name]; known {
			ids[name] = id
		} else {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	return ids, slices.Compact(missing)
}

// unknown returns those of the names that are not known.
func (n *knownNames) unknown(names []string) []string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { _, known := n.ids[name]; return known })
}

// refuse refuses unknown names if the limit that was met lately is likely to be met
// still.
func (n *knownNames) refuse(missing []string) *experiment.NameRefusal {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if time.Now().After(n.again) {
		return nil
	}
	return n.met.refusal(missing)
}

// learn takes in what the database knew.
func (n *knownNames) learn(ids map[string]int32, met limitMet) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.Copy(n.ids, ids)
	if met.limit > experiment.NamesPerCall {
		n.met, n.again = met, time.Now().Add(namesPause)
	}
}

func (l limitMet) refusal(names []string) *experiment.NameRefusal {
	r := &experiment.NameRefusal{Limit: l.limit, Most: l.most, Names: make(map[string]bool, len(names))}
	if l.limit == experiment.NamesPerHour {
		r.Retry = max(time.Second, time.Until(l.room))
	}
	for _, name := range names {
		r.Names[name] = true
	}
	return r
}
