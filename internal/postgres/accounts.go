package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

// accounting counts the outcomes of an analysis' names from the earlier of the
// experiment's start and its first exposure on, whether or not they count: one more
// pass over them, grouped by all that tells them apart.
type accounting struct {
	subjectQuery
	*metric.Accounts
	from  time.Time // Zero if the experiment has neither begun nor exposed anybody.
	since time.Time // Units were recorded from then on.
	keys  []key
	sums  []string // Two by Takings, those that are taken and those that lack a value, and one by Needs.
}

// account says what became of the outcomes that a study accounts for.
func (db *DB) account(ctx context.Context, id int32, asOf time.Time, study *metric.Study) (accounted *metric.Accounted, err error) {
	err = db.reading(ctx, func(tx pgx.Tx) error {
		names, err := columnNames(ctx, tx, study)
		if err != nil {
			return err
		}
		var pinned bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM overrides o JOIN exposures x USING (experiment_id, subject_id)
			WHERE o.experiment_id = $1 AND o.create_time <= $2 AND x.recorded_time <= $2)`, id, asOf).Scan(&pinned); err != nil {
			return err
		}
		a := accounting{subjectQuery: subjectQuery{args: []any{id, asOf}, asOf: asOf, study: study, names: names}, Accounts: study.Accounts()}
		accounted, err = a.account(ctx, tx, pinned)
		return err
	})
	return accounted, err
}

// account counts outcomes. pinned says that there are exposed subjects who were.
func (a *accounting) account(ctx context.Context, tx pgx.Tx, pinned bool) (*metric.Accounted, error) {
	accounted := &metric.Accounted{}
	if err := a.bound(ctx, tx); err != nil || a.from.IsZero() {
		return accounted, err
	}
	names := map[int32]string{}
	for name, id := range a.names {
		if slices.Contains(a.Names, name) {
			names[id] = name
		}
	}
	if len(names) > 0 {
		sql, err := a.sql(ctx, tx, names, pinned)
		if err != nil {
			return nil, err
		}
		if accounted.Placed, err = a.place(ctx, tx, sql, names); err != nil {
			return nil, err
		}
		if accounted.Early, err = a.early(ctx, tx, accounted.Placed); err != nil {
			return nil, err
		}
		if accounted.SimilarFields, err = a.similarFields(ctx, tx, a.Unmet(accounted.Placed)); err != nil {
			return nil, err
		}
		if accounted.NothingToCorrect, err = a.nothingToCorrect(ctx, tx, names); err != nil {
			return nil, err
		}
	}
	foreign := map[string]bool{} // The names with outcomes of other units.
	for _, p := range accounted.Placed {
		foreign[p.Name] = foreign[p.Name] || p.Owner == metric.OtherUnit
	}
	var err error
	if accounted.Similar, err = a.similar(ctx, tx, namesAmiss(a.Names, accounted.Placed), foreign, a.from); err != nil {
		return nil, err
	}
	accounted.DeadPasts, err = a.deadPasts(ctx, tx)
	return accounted, err
}

// bound finds from when on outcomes are counted.
func (a *accounting) bound(ctx context.Context, tx pgx.Tx) error {
	var exposed, started *time.Time
	if err := tx.QueryRow(ctx, `SELECT min(exposed_time) FROM exposures WHERE experiment_id = $1 AND recorded_time <= $2`, a.args...).Scan(&exposed); err != nil {
		return err
	}
	// A holdout's id is no experiment's.
	if err := tx.QueryRow(ctx, `SELECT min(start_time) FROM (SELECT start_time FROM experiments WHERE id = $1 UNION ALL SELECT start_time FROM holdouts WHERE id = $1) both_kinds`,
		a.args[0]).Scan(&started); err != nil {
		return err
	}
	for _, t := range []*time.Time{exposed, started} {
		if t != nil && (a.from.IsZero() || t.Before(a.from)) {
			a.from = *t
		}
	}
	err := tx.QueryRow(ctx, `SELECT value::timestamptz FROM settings WHERE name = 'outcome_units_since'`).Scan(&a.since)
	if errors.Is(err, pgx.ErrNoRows) { // Whoever deleted it has units from the beginning.
		err = nil
	}
	return err
}

// bounds leaves out the partitions and outcomes from before a moment.
func bounds(from time.Time) string { return fmt.Sprintf(" AND row_id >= '%s'", lowestRowID(from)) }

// foreign is the condition that an outcome is of another unit, as far as is known.
func (a *accounting) foreign() string {
	if unit := a.study.Unit(); unit != experiment.DefaultUnit {
		return "(o.unit <> " + a.arg(unit) + "::text OR o.unit IS NULL AND o.recorded_time >= " + a.arg(a.since) + ")"
	}
	return "o.unit IS NOT NULL"
}

// sql counts the outcomes of the names by all that tells them apart.
func (a *accounting) sql(ctx context.Context, tx pgx.Tx, names map[int32]string, pinned bool) (string, error) {
	// Those of a clock that is behind may all seem to be from before the stretch.
	outcomes, err := a.recorded(ctx, tx, slices.Sorted(maps.Keys(names)), bounds(a.from.Add(-metric.ShortlyBefore)))
	if err != nil {
		return "", err
	}
	pins := ""
	if pinned {
		pins = " LEFT JOIN (SELECT DISTINCT subject_id FROM overrides JOIN exposures USING (experiment_id, subject_id)" +
			" WHERE experiment_id = $1 AND create_time <= $2 AND recorded_time <= $2) p ON p.subject_id = o.subject_id"
	}
	early := "o.occurred_time < " + a.arg(a.from)
	a.tellOwners(pinned)
	a.tellMoves()
	a.tellPlaces(early)
	a.tellTakings(len(names) > 1)
	a.tellNeeds(len(names) > 1)
	var keys, groups strings.Builder
	for i, k := range a.keys {
		fmt.Fprintf(&keys, ", %s", k.sql)
		fmt.Fprintf(&groups, ", %d", i+2)
	}
	return "SELECT o.name_id" + keys.String() + ", count(*), " + strings.Join(a.sums, ", ") + " FROM (" + outcomes + ") o LEFT JOIN (" + a.exposed(a.times()+a.bucket()) +
		") e ON e.subject_id = o.subject_id" + pins + " WHERE NOT " + early + " OR o.occurred_time < " + a.at(0) + " GROUP BY 1" + groups.String(), nil
}

// key is a condition that tells outcomes apart, and what follows if it holds.
type key struct {
	sql string
	set func(*metric.Placed)
}

// tell adds a key. All are booleans: of these Postgres expects few groups, and
// shares the work between processes.
func (a *accounting) tell(sql string, set func(*metric.Placed)) {
	a.keys = append(a.keys, key{sql, set})
}

// tellOwners tells whose the outcomes are.
func (a *accounting) tellOwners(pinned bool) {
	of := func(owner metric.Owner) func(*metric.Placed) {
		return func(p *metric.Placed) { p.Owner = owner }
	}
	if pinned {
		a.tell("p.subject_id IS NOT NULL", of(metric.SubjectLeftOut))
	}
	a.tell(a.foreign(), of(metric.OtherUnit)) // Of whom nobody is exposed.
	a.tell("e.subject_id IS NOT NULL", of(metric.Analysed))
	a.tell("e.crossover OR e.variant <> ALL("+a.arg(a.study.Variants())+")", of(metric.SubjectLeftOut))
}

// tellMoves tells whether a later phase moved the subject: for metrics without a
// window, and then for the windows.
func (a *accounting) tellMoves() {
	moves := a.study.Moves(a.asOf)
	if len(moves) == 0 {
		return
	}
	for _, window := range append([]time.Duration{0}, a.Windows...) {
		var moved []string
		for i := range moves {
			moved = append(moved, a.moved(&moves[i], window))
		}
		a.tell(strings.Join(moved, " OR "), func(p *metric.Placed) { p.Moved++ })
	}
}

// moved is the condition that one phase moved the subject within a window.
func (a *accounting) moved(by *experiment.Phase, window time.Duration) string {
	parts := []string{"e.phase < " + a.arg(by.Number)}
	if window > 0 {
		parts = append(parts, a.at(window)+" > "+a.arg(by.Start))
	}
	if !by.Reshuffled {
		var froms []int32
		var variants []string
		for _, r := range by.Allocation {
			froms, variants = append(froms, r.From), append(variants, r.Variant)
		}
		parts = append(parts, fmt.Sprintf("e.variant <> (%s::text[])[width_bucket(e.bucket, %s::integer[])]", a.arg(variants), a.arg(froms)))
	}
	return "(" + strings.Join(parts, " AND ") + ")"
}

// tellPlaces tells when they occurred, and how much is known of the time: from
// the last window to what is long before exposure, so that the first that holds an
// outcome is told last.
func (a *accounting) tellPlaces(early string) {
	at := func(place int) func(*metric.Placed) {
		return func(p *metric.Placed) { p.Place = place }
	}
	for i, w := range slices.Backward(a.Windows) {
		a.tell("o.occurred_time < "+a.at(w), at(i))
		a.tell("e.first_time <= "+a.arg(a.study.Until(a.asOf).Add(-w)), func(p *metric.Placed) { p.Closed++ })
	}
	a.tell("o.occurred_time < "+a.at(0), at(-1))
	a.tell("o.occurred_time < "+a.at(-metric.ShortlyBefore), at(-2))
	for i, variant := range a.study.Variants() {
		if i > 0 {
			a.tell("o.occurred_time < "+a.at(0)+" AND e.variant = "+a.arg(variant), func(p *metric.Placed) { p.Variant = i })
		}
	}
	a.tell("e.ahead AND o.occurred_time >= e.first_recorded AND o.occurred_time < "+a.at(0), func(p *metric.Placed) { p.Hidden = true })
	a.tell(early, func(p *metric.Placed) { p.Early = true })
	if end := a.study.CountingEnd(a.asOf); !end.IsZero() {
		a.tell("o.occurred_time >= "+a.arg(end), func(p *metric.Placed) { p.AfterEnd = true })
	}
	if pauses := a.study.ExcludedPauses(a.asOf); len(pauses) > 0 {
		a.tell("o.occurred_time <@ "+a.arg(multirange(pauses))+"::text::tstzmultirange", func(p *metric.Placed) { p.DuringPause = true })
	}
}

// tellTakings tells what of them counts, as sums: groups by conditions that have
// nothing to do with each other may be as many as the outcomes. Each outcome has one
// of the names, or of several.
func (a *accounting) tellTakings(several bool) {
	for i := range a.Takings {
		taken, valueless := "0::bigint", "0::bigint"
		if id, recorded := a.names[a.Takings[i].Name]; recorded {
			taken, valueless = a.taking(&a.Takings[i], id, several)
		}
		a.sums = append(a.sums, taken, valueless)
	}
}

// taking counts what a metric takes of the outcomes of one name, and what lacks a
// value. Those without conditions are the same for all names, which Postgres then
// counts but once.
func (a *accounting) taking(t *metric.Taking, id int32, several bool) (taken, valueless string) {
	var takes, lacks []string
	conditional := false
	for _, c := range t.Components {
		var all, others []string
		valued := c.Valued
		for _, condition := range c.Conditions {
			sql := a.condition(condition, "o.value")
			if all = append(all, sql); condition.Field == experiment.FieldValue {
				valued = true
			} else {
				others = append(others, sql)
			}
		}
		conditional = conditional || len(all) > 0
		takes = append(takes, conjunction(all))
		if valued {
			lacks = append(lacks, conjunction(others))
		}
	}
	switch {
	case !conditional && lacks == nil:
		return "count(*)", "0::bigint"
	case !conditional:
		return "count(o.value)", "count(*) - count(o.value)"
	}
	of := "count(*) FILTER (WHERE e.subject_id IS NOT NULL"
	if several {
		of += " AND o.name_id = " + a.arg(id)
	}
	taken = of + " AND (" + strings.Join(takes, " OR ") + ")"
	if lacks == nil {
		return taken + ")", "0::bigint"
	}
	lacking := "o.value IS NULL AND (" + strings.Join(lacks, " OR ") + ")"
	return taken + " AND (" + lacking + ") IS NOT TRUE)", of + " AND " + lacking + ")"
}

// tellNeeds tells how many of them have what components need. A value is asked for as
// takings do, so that Postgres counts it once.
func (a *accounting) tellNeeds(several bool) {
	for _, need := range a.Needs {
		id, recorded := a.names[need.Name]
		having := ""
		switch {
		case !recorded:
			a.sums = append(a.sums, "0::bigint")
			continue
		case need.Field == experiment.FieldValue:
			a.sums = append(a.sums, "count(o.value)")
			continue
		case need.Number:
			having = "jsonb_typeof(o.properties->" + a.arg(need.Field) + "::text) = 'number'"
		default:
			having = "o.properties->>" + a.arg(need.Field) + "::text IS NOT NULL"
		}
		if several {
			having = "o.name_id = " + a.arg(id) + " AND " + having
		}
		a.sums = append(a.sums, "count(*) FILTER (WHERE "+having+")")
	}
}

// conjunction is that all conditions hold.
func conjunction(conditions []string) string {
	if conditions == nil {
		return "true"
	}
	return "(" + strings.Join(conditions, " AND ") + ")"
}

// place reads the groups.
func (a *accounting) place(ctx context.Context, tx pgx.Tx, sql string, names map[int32]string) ([]metric.Placed, error) {
	rows, err := tx.Query(ctx, sql, append([]any{pgx.QueryExecModeDescribeExec}, a.args...)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p metric.Placed, err error) {
		var id int32
		holds := make([]pgtype.Bool, len(a.keys))
		targets := []any{&id}
		for i := range holds {
			targets = append(targets, &holds[i])
		}
		p.Taken, p.Valueless = make([]int64, len(a.Takings)), make([]int64, len(a.Takings))
		p.Having = make([]int64, len(a.Needs))
		targets = append(targets, &p.Outcomes)
		for i := range a.Takings {
			targets = append(targets, &p.Taken[i], &p.Valueless[i])
		}
		for i := range p.Having {
			targets = append(targets, &p.Having[i])
		}
		if err := row.Scan(targets...); err != nil {
			return p, err
		}
		p.Name, p.Owner, p.Place = names[id], metric.NeverExposed, len(a.Windows)
		for i, k := range a.keys {
			if holds[i].Bool {
				k.set(&p)
			}
		}
		return p, nil
	})
}

// nothingToCorrect counts, by name, the corrections of which no outcome is known. If
// that has another unit than theirs, so would they.
func (a *accounting) nothingToCorrect(ctx context.Context, tx pgx.Tx, names map[int32]string) (map[string]int64, error) {
	if !a.corrected {
		return nil, nil
	}
	q := accounting{subjectQuery: subjectQuery{args: []any{slices.Collect(maps.Keys(names)), a.asOf}, study: a.study}, since: a.since}
	in := "name_id = ANY($1) AND recorded_time <= $2" + bounds(a.from.Add(-metric.ShortlyBefore))
	rows, err := tx.Query(ctx, "SELECT o.name_id, count(*) FROM (SELECT * FROM outcomes WHERE corrects IS NOT NULL AND "+in+") o"+
		" LEFT JOIN (SELECT subject_id, row_id, name_id FROM outcomes WHERE corrects IS NULL AND "+in+") original"+
		" ON original.subject_id = o.subject_id AND original.row_id = o.corrects AND original.name_id = o.name_id"+
		" WHERE original.row_id IS NULL AND NOT coalesce("+q.foreign()+", false) GROUP BY 1", q.args...)
	if err != nil {
		return nil, err
	}
	counts := map[string]int64{}
	var id int32
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error {
		counts[names[id]] = n
		return nil
	})
	return counts, err
}

// sightings are what an exposed subject has an outcome of after exposure, as its
// numbers tell: names, which need nothing, and needs. They spare who asks for no more
// than that the pass over all outcomes.
type sightings map[metric.Need]bool

// watching returns a visitor that notes what it sees of the study's metrics. Of a
// number other than 0 there are outcomes that have all that its component needs.
func (seen sightings) watching(study *metric.Study, visit func(*metric.Row) error) func(*metric.Row) error {
	columns := study.Columns()
	noted := make([]bool, len(columns))
	return func(row *metric.Row) error {
		for i, x := range row.Values {
			if c := &columns[i]; !noted[i] && c.Before == 0 && x != 0 && !math.IsNaN(x) {
				noted[i], seen[metric.Need{Name: c.Component.Outcome}] = true, true
				for _, need := range c.Needs() {
					seen[need] = true
				}
			}
		}
		return visit(row)
	}
}

func (seen sightings) all(of *metric.Accounts) bool {
	return !slices.ContainsFunc(of.Needs, func(need metric.Need) bool { return !seen[need] }) &&
		!slices.ContainsFunc(of.Names, func(name string) bool { return !seen[metric.Need{Name: name}] })
}

// accounted tells that the names are alive, and meet all needs.
func (seen sightings) accounted(of *metric.Accounts) *metric.Accounted {
	accounted := new(metric.Accounted)
	for _, name := range of.Names {
		accounted.Placed = append(accounted.Placed, metric.Placed{Name: name, Owner: metric.NeverExposed, Having: slices.Repeat([]int64{1}, len(of.Needs))})
	}
	return accounted
}
