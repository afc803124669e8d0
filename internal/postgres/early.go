package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/metric"
)

// early counts what lies shortly before exposure and after it, by variant, with the
// subjects, of those names of which it may be uneven. Few are, so that the pass over
// their outcomes is seldom made twice.
func (a *accounting) early(ctx context.Context, tx pgx.Tx, placed []metric.Placed) (map[string][]metric.EarlyOutcomes, error) {
	var uneven []string
	var exposed []int64
	for _, name := range a.Names {
		if !metric.HasEarly(placed, name) {
			continue
		}
		if exposed == nil {
			var err error
			if exposed, err = a.exposedByVariant(ctx, tx); err != nil {
				return nil, err
			}
		}
		if metric.LooksUneven(placed, name, exposed) {
			uneven = append(uneven, name)
		}
	}
	all := map[string][]metric.EarlyOutcomes{}
	for _, name := range uneven {
		var err error
		if all[name], err = a.earlyOf(ctx, tx, a.names[name]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// exposedByVariant counts the exposed subjects by variant, roughly: of those who met several
// each.
func (a *accounting) exposedByVariant(ctx context.Context, tx pgx.Tx) ([]int64, error) {
	rows, err := tx.Query(ctx, `SELECT variant, count(*) FROM exposures WHERE experiment_id = $1 AND recorded_time <= $2 GROUP BY variant`, a.args[0], a.asOf)
	if err != nil {
		return nil, err
	}
	counts := map[string]int64{}
	var variant string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&variant, &n}, func() error {
		counts[variant] = n
		return nil
	}); err != nil {
		return nil, err
	}
	exposed := make([]int64, 0, len(counts))
	for _, v := range a.study.Variants() {
		exposed = append(exposed, counts[v])
	}
	return exposed, nil
}

// earlyOf counts those of one name.
func (a *accounting) earlyOf(ctx context.Context, tx pgx.Tx, name int32) ([]metric.EarlyOutcomes, error) {
	q := subjectQuery{args: a.args[:2:2], asOf: a.asOf, study: a.study}
	first, shortly := q.at(0), q.at(-metric.ShortlyBefore)
	rows, err := tx.Query(ctx, `SELECT phase, variant, sum(outcomes)::bigint AS outcomes, sum(early)::bigint AS early, count(*) FILTER (WHERE early > 0) AS subjects FROM (
			SELECT e.subject_id, e.phase, e.variant, count(*) AS outcomes, count(*) FILTER (WHERE o.occurred_time < `+first+`) AS early
			FROM outcomes o JOIN (`+q.exposed(q.times())+`) e ON e.subject_id = o.subject_id
			WHERE NOT e.crossover AND o.corrects IS NULL AND o.name_id = `+q.arg(name)+` AND o.recorded_time <= $2`+bounds(a.from.Add(-metric.ShortlyBefore))+`
				AND o.occurred_time >= `+shortly+` GROUP BY 1, 2, 3) by_subject
		GROUP BY 1, 2 ORDER BY 1, 2`, append([]any{pgx.QueryExecModeDescribeExec}, q.args...)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[metric.EarlyOutcomes])
}
