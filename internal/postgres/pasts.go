package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/metric"
)

// deadPasts are those of the study's covariates in which nobody of the unit had an
// outcome.
func (a *accounting) deadPasts(ctx context.Context, tx pgx.Tx) (dead []metric.DeadPast, err error) {
	var first, last *time.Time
	if err := tx.QueryRow(ctx, `SELECT min(exposed_time), max(exposed_time) FROM exposures WHERE experiment_id = $1 AND recorded_time <= $2`,
		a.args[0], a.asOf).Scan(&first, &last); err != nil || first == nil {
		return nil, err
	}
	for _, past := range a.Pasts {
		from := first.Add(-past.Window)
		alive, err := a.anybody(ctx, tx, past.Outcome, from, *last)
		if err != nil {
			return nil, err
		}
		if alive {
			continue
		}
		similar, err := a.similar(ctx, tx, []string{past.Outcome}, map[string]bool{past.Outcome: true}, from)
		if err != nil {
			return nil, err
		}
		dead = append(dead, metric.DeadPast{Past: past, Similar: similar[past.Outcome]})
	}
	return dead, nil
}

// anybody says whether somebody of the unit has an outcome of a name in a stretch.
func (a *accounting) anybody(ctx context.Context, tx pgx.Tx, name string, from, to time.Time) (alive bool, err error) {
	id, recorded := a.names[name]
	if !recorded {
		return false, nil
	}
	q := accounting{subjectQuery: subjectQuery{args: []any{id, a.asOf, from, to}, study: a.study}, since: a.since}
	err = tx.QueryRow(ctx, fmt.Sprintf(`SELECT EXISTS (SELECT 1 FROM outcomes o WHERE corrects IS NULL AND name_id = $1 AND recorded_time <= $2
		AND occurred_time >= $3 AND occurred_time < $4%s AND row_id < '%s' AND NOT coalesce(%s, false))`,
		bounds(from), lowestRowID(to.Add(time.Millisecond)), q.foreign()), q.args...).Scan(&alive)
	return alive, err
}
