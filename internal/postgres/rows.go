package postgres

import (
	"context"
	"fmt"
	"maps"
	"math"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/sync/errgroup"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

// SafeTime returns the latest moment before which no event and no pin can still
// be committed: what is recorded up to it will never change.
//
// An event's recorded_time is that of its statement, which follows the start
// of its transaction. So the clock is read first, and then the transactions of
// recorders that are under way: any that could still commit an event from
// before the clock's reading is among them. All servers of a database share
// one role, as pg_stat_activity hides the transactions of others.
func (db *DB) SafeTime(ctx context.Context) (time.Time, error) {
	var now, safe time.Time
	err := db.definitions.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	if err != nil {
		return now, interpret(err)
	}
	err = db.definitions.QueryRow(ctx, `SELECT least($1::timestamptz, min(xact_start) - interval '1 microsecond') FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = $2`, now, recorderName).Scan(&safe)
	return safe, interpret(err)
}

// settleWait is how long Settle waits for the writes that began before a moment.
const settleWait = 5 * time.Second

// Settle waits until [DB.SafeTime] has reached a moment, for 5 seconds at most.
func (db *DB) Settle(ctx context.Context, t time.Time) error {
	for deadline := time.Now().Add(settleWait); ; {
		safe, err := db.SafeTime(ctx)
		switch {
		case err != nil:
			return err
		case !t.After(safe):
			return nil
		case time.Now().After(deadline):
			return experiment.Errorf(experiment.ErrUnavailable, "WRITES_UNDER_WAY", "events from before %s are still being written", t.UTC().Format(time.RFC3339Nano))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Subjects streams one row for each subject that the experiment exposed, as
// known at asOf, to visit: the numbers that the study asks for, at and after
// the subject's first exposure. Subjects that were ever pinned are left out,
// and counted. The row is valid until visit returns.
//
// It also returns what became of the outcomes that the study accounts for, or nil
// if that are none. Those are counted beside the subjects, in a transaction of its
// own: nothing that was recorded up to asOf changes but by an erasure.
func (db *DB) Subjects(ctx context.Context, id int32, asOf time.Time, study *metric.Study, visit func(*metric.Row) error) (pinned []metric.Excluded, accounted *metric.Accounted, err error) {
	accounts, seen := study.Accounts(), sightings{}
	if accounts.AliveOnly {
		visit = seen.watching(study, visit)
	}
	rows := func(ctx context.Context) (err error) {
		pinned, err = db.subjects(ctx, id, asOf, study, visit)
		return err
	}
	account := func(ctx context.Context) (err error) {
		accounted, err = db.account(ctx, id, asOf, study)
		return err
	}
	if len(accounts.Names) > 0 && !accounts.AliveOnly {
		both, ctx := errgroup.WithContext(ctx)
		both.Go(func() error { return guarded(ctx, rows) })
		both.Go(func() error { return guarded(ctx, account) })
		err = both.Wait()
		return pinned, accounted, err
	}
	switch err = rows(ctx); {
	case err != nil || len(accounts.Names) == 0:
	case seen.all(accounts):
		accounted = seen.accounted(accounts)
	default:
		err = account(ctx)
	}
	return pinned, accounted, err
}

// guarded makes an error of a panic, which in a goroutine of its own would end the
// server: its caller could not recover from it.
func guarded(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f(ctx)
}

// subjects streams the rows, and counts the pinned.
func (db *DB) subjects(ctx context.Context, id int32, asOf time.Time, study *metric.Study, visit func(*metric.Row) error) (pinned []metric.Excluded, err error) {
	err = db.reading(ctx, func(tx pgx.Tx) error {
		if pinned, err = pinnedSubjects(ctx, tx, id, asOf); err != nil {
			return err
		}
		names, err := columnNames(ctx, tx, study)
		if err != nil {
			return err
		}
		q := subjectQuery{args: []any{id, asOf}, asOf: asOf, study: study, names: names}
		sql, err := q.build(ctx, tx)
		if err != nil {
			return err
		}
		return stream(ctx, tx, sql, q.args, study, asOf, visit)
	})
	return pinned, err
}

// reading runs the queries of a part of an analysis in one snapshot.
func (db *DB) reading(ctx context.Context, read func(pgx.Tx) error) error {
	return interpret(pgx.BeginTxFunc(ctx, db.analysis, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, read))
}

// CountExposures counts the subjects that an experiment or a holdout exposed, up to a
// limit, as far as is known now.
func (db *DB) CountExposures(ctx context.Context, id int32, limit int64) (n int64, err error) {
	err = db.definitions.QueryRow(ctx, `SELECT count(*) FROM (SELECT DISTINCT subject_id FROM exposures WHERE experiment_id = $1 LIMIT $2) e`, id, limit).Scan(&n)
	return n, interpret(err)
}

// LargestValues returns the values of an attribute that most subjects of an experiment
// have, as known at asOf: at most so many, of equal ones those whose text is first.
// Empty text stands for subjects that lack it. Subjects who are not analysed do not
// count: the pinned, those seen in two variants and those in none of the variants.
func (db *DB) LargestValues(ctx context.Context, id int32, asOf time.Time, study *metric.Study, attribute string, most int) ([]string, error) {
	q := subjectQuery{study: study, phased: true} // Which costs little, once.
	rows, err := db.analysis.Query(ctx, `SELECT value FROM (SELECT coalesce(attributes->>$3::text, '') COLLATE "C" AS value FROM (`+
		q.exposed(q.attributes())+`) e WHERE NOT crossover AND variant = ANY($5)) values_of
		GROUP BY value ORDER BY count(*) DESC, value LIMIT $4`, id, asOf, attribute, most, study.Variants())
	if err != nil {
		return nil, interpret(err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return values, interpret(err)
}

// pinnedSubjects counts the exposed subjects that were ever pinned by their first
// phase and variant, and by whether they were pinned before they were exposed, and
// met several variants at once.
func pinnedSubjects(ctx context.Context, tx pgx.Tx, id int32, asOf time.Time) ([]metric.Excluded, error) {
	rows, err := tx.Query(ctx, `SELECT phase, variant, pinned <= exposed_time, tied, count(*) FROM (
			SELECT DISTINCT ON (subject_id) subject_id, phase, variant, exposed_time, pinned,
				coalesce(lead(exposed_time) OVER (PARTITION BY subject_id, phase ORDER BY exposed_time, variant) = exposed_time, false) AS tied
			FROM exposures x JOIN (
				SELECT subject_id, min(create_time) AS pinned FROM overrides WHERE experiment_id = $1 AND create_time <= $2 GROUP BY subject_id) o USING (subject_id)
			WHERE x.experiment_id = $1 AND x.recorded_time <= $2
			ORDER BY subject_id, phase, exposed_time, variant) e
		GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4`, id, asOf)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (metric.Excluded, error) {
		e := metric.Excluded{Reason: metric.ExclusionOverridden}
		err := row.Scan(&e.Phase, &e.Variant, &e.Beforehand, &e.Tied, &e.Subjects)
		return e, err
	})
}

// columnNames returns the ids of the outcome names that the study's columns
// count. A name that was never recorded is absent.
func columnNames(ctx context.Context, tx pgx.Tx, study *metric.Study) (map[string]int32, error) {
	var wanted []string
	for _, c := range study.Columns() {
		wanted = append(wanted, c.Component.Outcome)
	}
	return namesOf(ctx, tx, wanted)
}

// subjectQuery builds the one statement of an analysis: the subjects with
// their first exposure, joined once with all outcomes that any column counts,
// one aggregate with a filter per column. Grouping by subject and metric
// instead takes twice as long.
type subjectQuery struct {
	args    []any
	asOf    time.Time
	study   *metric.Study
	names   map[string]int32
	moments []moment // The i-th is e's column t<i>.
	// corrected says that some outcome was, and phased that there are exposures of
	// several phases.
	corrected, phased bool
}

// moment is so long after a subject's first exposure, or if it bounds a covariate,
// after the earliest in any phase.
type moment struct {
	after     time.Duration
	covariate bool
}

// arg adds a parameter and returns its place in the statement.
func (q *subjectQuery) arg(v any) string {
	q.args = append(q.args, v)
	return fmt.Sprintf("$%d", len(q.args))
}

// at returns the column of e that is a moment so long after first exposure. It
// is computed for each subject, as adding intervals for each outcome takes
// several times as long as comparing.
func (q *subjectQuery) at(after time.Duration) string { return q.column(moment{after: after}) }

// known returns the column of e that is a moment from the earliest exposure. A
// server that has not yet heard of a new phase may expose to the old one whom
// another has exposed to the new one: what was known before any treatment is from
// before the earlier of the two, though the subject counts in its first phase.
func (q *subjectQuery) known(after time.Duration) string {
	return q.column(moment{after: after, covariate: true})
}

func (q *subjectQuery) column(m moment) string {
	i := slices.Index(q.moments, m)
	if i < 0 {
		i = len(q.moments)
		q.moments = append(q.moments, m)
	}
	return fmt.Sprintf("e.t%d", i)
}

// times are the moments, as more columns of exposures.
func (q *subjectQuery) times() string {
	var b strings.Builder
	for i, m := range q.moments {
		from := "exposed_time"
		if m.covariate && q.phased {
			from = "min(exposed_time) OVER (PARTITION BY subject_id)"
		}
		fmt.Fprintf(&b, ", %s + %s::interval AS t%d", from, q.arg(m.after), i)
	}
	return b.String()
}

// attributes are those of the earliest exposure, as one more column.
func (q *subjectQuery) attributes() string {
	if q.phased {
		return ", first_value(attributes) OVER (PARTITION BY subject_id ORDER BY exposed_time, phase, variant) AS attributes"
	}
	return ", attributes"
}

// exposedSQL finds each subject's first phase, and in it the first exposure;
// a subject with two variants there is a crossover, and one with two at all where the
// variants are assigned elsewhere, as no split tells whom a later phase moved. It is tied if the next exposure
// is of the same moment, as that is of another variant by the key of the table: of
// these the variant is the first by name. It is ahead if it is of later than when it
// was recorded, by more than metric.ClockAhead. One sort serves the window and the
// choice of the first. More columns may follow.
const exposedSQL = `SELECT DISTINCT ON (subject_id) subject_id, phase, exposed_time AS first_time, variant,
		min(variant) OVER %[1]s <> max(variant) OVER %[1]s AS crossover,
		coalesce(lead(exposed_time) OVER same_phase = exposed_time, false) AS tied,
		recorded_time AS first_recorded, exposed_time > recorded_time + interval '%[3]d ms' AS ahead%[2]s
	FROM exposures x
	WHERE experiment_id = $1 AND recorded_time <= $2 AND NOT EXISTS (
		SELECT FROM overrides o WHERE o.experiment_id = $1 AND o.subject_id = x.subject_id AND o.create_time <= $2)
	WINDOW same_phase AS (PARTITION BY subject_id, phase ORDER BY exposed_time, variant ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING),
		all_phases AS (PARTITION BY subject_id ORDER BY phase, exposed_time, variant ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
	ORDER BY subject_id, phase, exposed_time, variant`

// exposed is exposedSQL with more columns.
func (q *subjectQuery) exposed(columns string) string {
	crossing := "same_phase"
	if q.study.AssignedElsewhere() {
		crossing = "all_phases"
	}
	return fmt.Sprintf(exposedSQL, crossing, columns, metric.ClockAhead.Milliseconds())
}

// firstSQL is no more than the moments of first exposures.
const firstSQL = `SELECT DISTINCT ON (subject_id) subject_id%s
	FROM exposures WHERE experiment_id = $1 AND recorded_time <= $2
	ORDER BY subject_id, phase, exposed_time`

// build writes the statement in one of two forms. With attributes, outcomes are
// grouped by subject alone, and exposures read twice: grouping by all that is
// kept of a subject takes half as long again. Without them it is the other way
// round, by a fifth.
func (q *subjectQuery) build(ctx context.Context, tx pgx.Tx) (string, error) {
	var first, last *time.Time
	var phased *bool
	if err := tx.QueryRow(ctx, `SELECT min(exposed_time), max(exposed_time), min(phase) <> max(phase) FROM exposures
		WHERE experiment_id = $1 AND recorded_time <= $2`, q.args[0], q.args[1]).Scan(&first, &last, &phased); err != nil {
		return "", err
	}
	q.phased = phased != nil && *phased
	kept := q.kept()
	attributes := q.attributes() + q.knownTime() + q.bucket()
	const head = "SELECT e.variant, e.phase, e.first_time, e.crossover, e.tied, e.ahead"
	if len(q.names) == 0 {
		return head + kept + q.nothing() + " FROM (" + q.exposed(attributes) + ") e", nil
	}
	outcomes, err := q.outcomes(ctx, tx, first, last)
	if err != nil {
		return "", err
	}
	totals := q.totals()
	if kept == "" {
		return head + ", " + strings.Join(totals, ", ") + " FROM (" + q.exposed(q.times()) + ") e LEFT JOIN " + outcomes +
			" GROUP BY e.subject_id, e.variant, e.phase, e.first_time, e.crossover, e.tied, e.ahead", nil
	}
	var all, named strings.Builder
	for i, total := range totals {
		if q.study.Columns()[i].Optional() {
			fmt.Fprintf(&all, ", t.c%d", i)
		} else {
			fmt.Fprintf(&all, ", coalesce(t.c%d, 0)", i)
		}
		fmt.Fprintf(&named, ", %s AS c%d", total, i)
	}
	return head + kept + all.String() + " FROM (" + q.exposed(attributes) + ") e LEFT JOIN (SELECT e.subject_id" + named.String() +
		" FROM (" + fmt.Sprintf(firstSQL, q.times()) + ") e JOIN " + outcomes + " GROUP BY e.subject_id) t USING (subject_id)", nil
}

// knownTime is the column of exposedSQL that compares with an earlier moment, if the
// study does: the subject's first exposure that was known then.
func (q *subjectQuery) knownTime() string {
	earlier := q.study.Earlier()
	if earlier.IsZero() {
		return ""
	}
	return fmt.Sprintf(", min(exposed_time) FILTER (WHERE recorded_time <= %s) OVER (PARTITION BY subject_id) AS known_time", q.arg(earlier))
}

// bucket is the column of exposedSQL that knows the bucket of a phase, if the study
// needs it. Not every row of a phase has one: some were recorded before buckets were.
func (q *subjectQuery) bucket() string {
	if !q.study.NeedsBuckets(q.asOf) {
		return ""
	}
	return ", max(bucket) OVER same_phase AS bucket"
}

// kept is what the study asks of exposures beside the first one's variant and
// time: of the attributes that are kept with them, and when they were known.
func (q *subjectQuery) kept() string {
	var b strings.Builder
	texts := slices.Clone(q.study.Segments())
	if name := q.study.Stratum(); name != "" {
		texts = append(texts, name)
	}
	for _, name := range texts {
		fmt.Fprintf(&b, ", e.attributes->>%s::text", q.arg(name))
	}
	for _, name := range q.study.Attributes() {
		fmt.Fprintf(&b, ", CASE jsonb_typeof(e.attributes->%[1]s::text) WHEN 'number' THEN (e.attributes->>%[1]s::text)::float8 END", q.arg(name))
	}
	if !q.study.Earlier().IsZero() {
		b.WriteString(", e.known_time")
	}
	if q.study.NeedsBuckets(q.asOf) {
		b.WriteString(", e.bucket")
	}
	return b.String()
}

// totals are the aggregates of the study's columns, null only where a column is
// optional.
func (q *subjectQuery) totals() []string {
	var totals []string
	for _, c := range q.study.Columns() {
		id, known := q.names[c.Component.Outcome]
		switch {
		case !known:
			totals = append(totals, none(c))
		case c.Optional():
			totals = append(totals, q.aggregate(c.Component.Aggregate, q.value(c), q.filter(id, c)))
		default:
			totals = append(totals, fmt.Sprintf("coalesce(%s, 0)::float8", q.aggregate(c.Component.Aggregate, q.value(c), q.filter(id, c))))
		}
	}
	return totals
}

// multirange is stretches as a literal of Postgres.
func multirange(stretches []metric.Stretch) string {
	var ranges []string
	for _, s := range stretches {
		to := ""
		if !s.To.IsZero() {
			to = s.To.UTC().Format(time.RFC3339Nano)
		}
		ranges = append(ranges, "["+s.From.UTC().Format(time.RFC3339Nano)+","+to+")")
	}
	return "{" + strings.Join(ranges, ",") + "}"
}

// nothing is the columns if no outcome that they count was ever recorded.
func (q *subjectQuery) nothing() string {
	var b strings.Builder
	for _, c := range q.study.Columns() {
		b.WriteString(", " + none(c))
	}
	return b.String()
}

// none is a column without outcomes.
func none(c metric.Column) string {
	if c.Optional() {
		return "NULL::float8"
	}
	return "0::float8"
}

// reach is how far before and after first exposure the columns look; endless if
// one has no end.
func (q *subjectQuery) reach() (before, after time.Duration, endless bool) {
	for _, c := range q.study.Columns() {
		before, after = max(before, c.Before), max(after, c.Window)
		endless = endless || c.Window == 0 && c.Before == 0
	}
	return before, after, endless
}

// outcomes is those that some column counts, as o, each with its corrections in
// its value, to be joined with e. The bounds on row_id, from the experiment's
// first and last exposures, are constants by which Postgres leaves partitions
// out.
func (q *subjectQuery) outcomes(ctx context.Context, tx pgx.Tx, first, last *time.Time) (string, error) {
	before, after, endless := q.reach()
	bounds, ended := "", q.study.CountingEnd(q.asOf)
	if first != nil {
		bounds += fmt.Sprintf(" AND row_id >= '%s'", lowestRowID(first.Add(-before)))
		if !endless {
			bounds += fmt.Sprintf(" AND row_id < '%s'", lowestRowID(last.Add(after+time.Millisecond)))
		}
	}
	if !ended.IsZero() {
		bounds += fmt.Sprintf(" AND row_id < '%s'", lowestRowID(ended.Add(time.Millisecond)))
	}
	outcomes, err := q.recorded(ctx, tx, slices.Collect(maps.Values(q.names)), bounds)
	if err != nil {
		return "", err
	}
	from := q.at(0)
	if before > 0 {
		from = q.known(-before)
	}
	join := fmt.Sprintf("(%s) o ON o.subject_id = e.subject_id AND o.occurred_time >= %s", outcomes, from)
	if !endless {
		join += " AND o.occurred_time < " + q.at(after)
	}
	if !ended.IsZero() {
		join += " AND o.occurred_time < " + q.arg(ended)
	}
	return join, nil
}

// recorded is the outcomes of some names within bounds, each with its corrections
// in its value.
func (q *subjectQuery) recorded(ctx context.Context, tx pgx.Tx, ids []int32, bounds string) (string, error) {
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM outcomes WHERE corrects IS NOT NULL AND name_id = ANY($1) AND recorded_time <= $2`+bounds+`)`,
		ids, q.args[1]).Scan(&q.corrected); err != nil {
		return "", err
	}
	in := fmt.Sprintf("name_id = ANY(%s) AND recorded_time <= $2%s", q.arg(ids), bounds)
	if q.corrected {
		return fmt.Sprintf(correctedSQL, in), nil
	}
	return fmt.Sprintf(uncorrectedSQL, in), nil
}

// uncorrectedSQL is the outcomes that meet a condition, if none of them was
// corrected.
const uncorrectedSQL = `SELECT subject_id, row_id, name_id, unit, occurred_time, recorded_time, properties, value FROM outcomes WHERE corrects IS NULL AND %s`

// correctedSQL is the outcomes that meet a condition with their values as
// corrected, and as recorded, beside the times and amounts of their corrections. A
// correction lies beside what it corrects, so that the same bounds hold both; one
// whose outcome is not known counts nothing.
const correctedSQL = `SELECT subject_id, row_id, name_id, unit, occurred_time, recorded_time, properties, value AS recorded, c.times, c.amounts,
		CASE WHEN c.times IS NULL THEN value ELSE coalesce(value, 0) + c.adjustment END AS value
	FROM (SELECT * FROM outcomes WHERE corrects IS NULL AND %[1]s) original
	LEFT JOIN (SELECT subject_id, name_id, corrects AS row_id, sum(value) AS adjustment, array_agg(adjusted_time) AS times, array_agg(value) AS amounts
		FROM outcomes WHERE corrects IS NOT NULL AND %[1]s GROUP BY 1, 2, 3) c USING (subject_id, row_id, name_id)`

// value is what a column takes for an outcome's value: as corrected by all that
// is known, at the time of the corrected outcome. But a covariate is what was
// known before exposure, and a correction is not known before it is made.
func (q *subjectQuery) value(c metric.Column) string {
	if c.Before == 0 || !q.corrected {
		return "o.value"
	}
	return `CASE WHEN o.times IS NULL THEN o.value ELSE (SELECT CASE WHEN count(*) = 0 THEN o.recorded ELSE coalesce(o.recorded, 0) + sum(amount) END
		FROM unnest(o.times, o.amounts) AS a (time, amount) WHERE a.time < ` + q.known(0) + `) END`
}

// filter is the condition under which an outcome enters a column. What holds of
// every outcome that is joined is left out.
func (q *subjectQuery) filter(name int32, c metric.Column) string {
	parts := []string{"o.name_id = " + q.arg(name)}
	before, after, endless := q.reach()
	switch {
	case c.Before > 0 && c.Before != before:
		parts = append(parts, "o.occurred_time >= "+q.known(-c.Before))
	case c.Before == 0 && (c.Start > 0 || before > 0):
		parts = append(parts, "o.occurred_time >= "+q.at(c.Start))
	}
	switch {
	case c.Before > 0:
		parts = append(parts, "o.occurred_time < "+q.known(0))
	case c.Window > 0 && (endless || c.Window != after):
		parts = append(parts, "o.occurred_time < "+q.at(c.Window))
	}
	if pauses := q.study.ExcludedPauses(q.asOf); len(pauses) > 0 && c.Before == 0 {
		parts = append(parts, "NOT o.occurred_time <@ "+q.arg(multirange(pauses))+"::text::tstzmultirange")
	}
	if c.Valued || c.Component.Aggregate == experiment.AggregateLast {
		parts = append(parts, q.value(c)+" IS NOT NULL")
	}
	for _, condition := range c.Component.Conditions {
		parts = append(parts, q.condition(condition, q.value(c)))
	}
	return strings.Join(parts, " AND ")
}

var sqlOps = map[experiment.Op]string{
	experiment.OpGreater: ">", experiment.OpGreaterOrEqual: ">=", experiment.OpLess: "<", experiment.OpLessOrEqual: "<=",
}

// condition is false or null, which in a filter are the same, for an outcome
// that lacks the field. value is what stands for the outcome's value.
func (q *subjectQuery) condition(c experiment.Condition, value string) string {
	if c.Field == experiment.FieldValue {
		switch c.Op {
		case experiment.OpEqual:
			return value + " = ANY(" + q.arg(numbers(c.Values)) + "::float8[])"
		case experiment.OpNotEqual:
			return value + " <> ALL(" + q.arg(numbers(c.Values)) + "::float8[])"
		}
		return value + " " + sqlOps[c.Op] + " " + q.arg(numbers(c.Values)[0]) + "::float8"
	}
	field := q.arg(c.Field)
	switch c.Op {
	case experiment.OpEqual:
		return "o.properties->>" + field + "::text = ANY(" + q.arg(c.Values) + "::text[])"
	case experiment.OpNotEqual:
		return "o.properties->>" + field + "::text <> ALL(" + q.arg(c.Values) + "::text[])"
	}
	return fmt.Sprintf("CASE jsonb_typeof(o.properties->%[1]s::text) WHEN 'number' THEN (o.properties->>%[1]s::text)::float8 %[2]s %[3]s::float8 END",
		field, sqlOps[c.Op], q.arg(numbers(c.Values)[0]))
}

// numbers returns the values as creation checked them. Go and Postgres read
// different things as numbers, such as 1_000 and 1e-400, so one of them reads
// for both.
func numbers(values []string) []float64 {
	list := make([]float64, len(values))
	for i, v := range values {
		list[i], _ = strconv.ParseFloat(v, 64) // No definition holds one that does not parse.
	}
	return list
}

func (q *subjectQuery) aggregate(a experiment.Aggregate, value, filter string) string {
	filtered := " FILTER (WHERE " + filter + ")"
	switch a {
	case experiment.AggregateCount:
		return "count(*)" + filtered
	case experiment.AggregateSum:
		return "sum(" + value + ")" + filtered
	case experiment.AggregateAny:
		return "least(1, count(*)" + filtered + ")"
	case experiment.AggregateMin:
		return "min(" + value + ")" + filtered
	case experiment.AggregateMax:
		return "max(" + value + ")" + filtered
	case experiment.AggregateLast:
		return "(array_agg(" + value + " ORDER BY o.row_id DESC)" + filtered + ")[1]"
	case experiment.AggregateDistinctDays:
		return "count(DISTINCT (o.occurred_time AT TIME ZONE 'UTC')::date)" + filtered
	}
	panic(fmt.Sprintf("postgres: unknown aggregate %q", a)) // The API's schema lists them.
}

func stream(ctx context.Context, tx pgx.Tx, sql string, args []any, study *metric.Study, asOf time.Time, visit func(*metric.Row) error) error {
	// Hardly two analyses share a statement, so none is kept prepared.
	rows, err := tx.Query(ctx, sql, append([]any{pgx.QueryExecModeDescribeExec}, args...)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	row := metric.Row{
		Segments:         make([][]byte, len(study.Segments())),
		AttributeNumbers: make([]float64, len(study.Attributes())),
		Values:           make([]float64, len(study.Columns())),
	}
	numbers, values := make([]*float64, len(study.Attributes())), make([]pgtype.Float8, len(study.Columns()))
	targets := []any{(*pgtype.DriverBytes)(&row.Variant), &row.Phase, &row.FirstExposure, &row.Crossover, &row.Tied, &row.Ahead}
	for i := range row.Segments {
		targets = append(targets, (*pgtype.DriverBytes)(&row.Segments[i]))
	}
	if study.Stratum() != "" {
		targets = append(targets, (*pgtype.DriverBytes)(&row.Stratum))
	}
	for i := range numbers {
		targets = append(targets, &numbers[i])
	}
	var known *time.Time
	if !study.Earlier().IsZero() {
		targets = append(targets, &known)
	}
	if study.NeedsBuckets(asOf) {
		targets = append(targets, &row.Bucket)
	}
	for i := range row.Values {
		if study.Columns()[i].Optional() {
			targets = append(targets, &values[i])
		} else {
			targets = append(targets, &row.Values[i])
		}
	}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		for i, n := range numbers {
			row.AttributeNumbers[i] = math.NaN()
			if n != nil {
				row.AttributeNumbers[i] = *n
			}
		}
		for i := range values {
			switch {
			case values[i].Valid:
				row.Values[i] = values[i].Float64
			case study.Columns()[i].Optional():
				row.Values[i] = math.NaN()
			}
		}
		row.KnownExposure = time.Time{}
		if known != nil {
			row.KnownExposure = *known
		}
		if err := visit(&row); err != nil {
			return err
		}
	}
	return rows.Err()
}
