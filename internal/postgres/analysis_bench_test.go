package postgres_test

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

var analysisSubjects = flag.Int("subjects", 200_000, "BenchmarkAnalysis: how many subjects, each with ten outcomes")

// analysisReference is the sums that an analysis of one metric needs: the value
// of purchases within two weeks after each subject's first exposure in its first
// phase, of subjects whose two weeks are over, without crossovers and pinned
// subjects. It is the fastest of the statements that were tried, and knows that
// nothing was corrected.
const analysisReference = `SELECT variant, phase, count(*), sum(y), sum(y * y) FROM (
		SELECT e.subject_id, e.variant, e.phase, coalesce(sum(o.value), 0) AS y
		FROM (SELECT DISTINCT ON (subject_id) subject_id, phase, exposed_time, variant,
				min(variant) OVER same_phase <> max(variant) OVER same_phase AS crossover
			FROM exposures x
			WHERE experiment_id = $1 AND recorded_time <= $2 AND NOT EXISTS (
				SELECT FROM overrides p WHERE p.experiment_id = $1 AND p.subject_id = x.subject_id AND p.create_time <= $2)
			WINDOW same_phase AS (PARTITION BY subject_id, phase ORDER BY exposed_time, variant ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
			ORDER BY subject_id, phase, exposed_time, variant) e
		LEFT JOIN outcomes o ON o.subject_id = e.subject_id AND o.name_id = $3 AND o.recorded_time <= $2
			AND o.occurred_time >= e.exposed_time AND o.occurred_time < e.exposed_time + interval '14 days'
		WHERE NOT e.crossover AND e.exposed_time <= $2 - interval '14 days'
		GROUP BY e.subject_id, e.variant, e.phase) subjects
	GROUP BY variant, phase`

// BenchmarkAnalysis compares, in turns, the reference with the whole analysis of
// the same metric, and with that of ten metrics and three segments.
func BenchmarkAnalysis(b *testing.B) {
	d := newDatabase(b)
	d.fillForAnalysis(b, *analysisSubjects)
	for _, sql := range []string{`SET enable_nestloop = off`, `SET work_mem = '128MB'`, `SET jit = off`} { // As the analysis has them.
		exec(b, d.raw, sql)
	}
	purchases := scalar[int32](b, d.raw, `SELECT id FROM outcome_names WHERE name = 'purchase'`)
	outcomes := scalar[int](b, d.raw, `SELECT count(*) FROM outcomes`)
	one, ten := analysisStudies(b)
	var ones, tens []float64
	for b.Loop() {
		start := time.Now()
		want := d.referenceMean(b, purchases)
		reference := time.Since(start)
		start = time.Now()
		got := d.analyze(b, one)
		single := time.Since(start)
		start = time.Now()
		all := d.analyze(b, ten)
		many := time.Since(start)
		for _, a := range []*metric.Analysis{got, all} {
			if mean := *a.Metrics[0].Arms[1].Mean; mean < want*(1-1e-9) || mean > want*(1+1e-9) {
				b.Fatalf("the analysis says %v, and the reference %v", mean, want)
			}
		}
		ones, tens = append(ones, single.Seconds()/reference.Seconds()), append(tens, many.Seconds()/reference.Seconds())
		b.Logf("reference %v, one metric %.2f of it, ten with three segments %.2f; %.0f events/s", reference, ones[len(ones)-1], tens[len(tens)-1],
			float64(outcomes+*analysisSubjects)/single.Seconds())
	}
	b.ReportMetric(middleOf(ones), "one-metric-of-reference")
	b.ReportMetric(middleOf(tens), "ten-metrics-of-reference")
	b.ReportMetric(0, "ns/op")
}

func middleOf(list []float64) float64 { return slices.Sorted(slices.Values(list))[len(list)/2] }

// fillForAnalysis records subjects over 30 days, some in a second phase too and
// some in both variants, with ten outcomes each, from five days before exposure
// to 20 days after it: half purchases, two fifths views, a tenth refunds.
func (d *database) fillForAnalysis(b *testing.B, subjects int) {
	b.Helper()
	for _, of := range []int{-5, 1, 40} { // They make the names, and the partitions of three months.
		for _, name := range []string{"purchase", "view", "refund"} {
			if _, err := d.RecordOutcomes(b.Context(), []experiment.Outcome{named(outcome("e", 1, day(of), 1.0, ""), name)}); err != nil {
				b.Fatal(err)
			}
		}
	}
	exec(b, d.raw, `TRUNCATE outcomes`)
	exec(b, d.raw, `INSERT INTO exposures (experiment_id, subject_id, phase, variant, exposed_time, recorded_time, attributes)
		SELECT 1, md5(i::text)::uuid, 1 + (i % 5 = 0)::integer, CASE WHEN hashint4(i) % 2 = 0 THEN 'control' ELSE 'short' END, t, t,
			jsonb_build_object('country', 'c' || i % 20, 'device', 'd' || i % 3, 'tier', 't' || i % 5)
		FROM (SELECT i, timestamptz '2026-01-01' + i::bigint * 7919 % 2592000 * interval '1 second' AS t FROM generate_series(1, $1::integer) i) s
		ORDER BY t`, subjects)
	exec(b, d.raw, `INSERT INTO exposures (experiment_id, subject_id, phase, variant, exposed_time, recorded_time, attributes)
		SELECT 1, subject_id, 2, CASE variant WHEN 'control' THEN 'short' ELSE 'control' END, exposed_time + interval '1 hour', recorded_time, attributes
		FROM exposures WHERE get_byte(uuid_send(subject_id), 0) < 8`)
	exec(b, d.raw, `INSERT INTO outcomes (row_id, subject_id, name_id, value, occurred_time, recorded_time, properties)
		SELECT (lpad(to_hex((extract(epoch FROM t) * 1000)::bigint), 12, '0') || substr(md5(i || '-' || k), 1, 20))::uuid,
			md5(i::text)::uuid, n.id, round((random() * 100)::numeric, 2), t, t, jsonb_build_object('sku', 'A' || k)
		FROM (SELECT i, k, date_trunc('milliseconds', timestamptz '2026-01-01' + i::bigint * 7919 % 2592000 * interval '1 second' + (random() * 25 - 5) * interval '1 day') AS t
			FROM generate_series(1, $1::integer) i, generate_series(0, 9) k) o
		JOIN outcome_names n ON n.name = CASE WHEN k < 5 THEN 'purchase' WHEN k < 9 THEN 'view' ELSE 'refund' END
		ORDER BY t`, subjects)
	exec(b, d.raw, `VACUUM ANALYZE`)
}

// analysisStudies are one metric, and ten of which it is the first, with three
// segments.
func analysisStudies(b *testing.B) (one, ten *metric.Study) {
	b.Helper()
	def := definition()
	def.Segments = []string{"country", "device", "tier"}
	aggregate := func(outcome string, a experiment.Aggregate, conditions ...experiment.Condition) experiment.Component {
		return experiment.Component{Name: "c", Outcome: outcome, Aggregate: a, Conditions: conditions}
	}
	dear := experiment.Condition{Field: experiment.FieldValue, Op: experiment.OpGreater, Values: []string{"50"}}
	week := metric.Sum("purchase", nil)
	week.Window = 7 * 24 * hour
	definitions := []metric.Definition{
		metric.Sum("purchase", nil), metric.Proportion("purchase", nil), metric.Mean("purchase", nil), metric.Proportion("view", nil),
		metric.Ratio(aggregate("purchase", experiment.AggregateCount), aggregate("view", experiment.AggregateCount)),
		metric.Proportion("refund", nil), metric.Sum("refund", nil), metric.Formula("c", []experiment.Component{aggregate("purchase", experiment.AggregateMax)}),
		metric.Proportion("purchase", []experiment.Condition{dear}), week,
	}
	var uses []metric.Use
	for i, m := range definitions {
		m.Direction = metric.DirectionIncrease
		if m.Window == 0 {
			m.Window = 14 * 24 * hour
		}
		use := metric.Use{Metric: metric.Metric{Key: fmt.Sprint("m", i), Revision: 1, Definition: m}, Role: experiment.RoleSecondary}
		if i == 0 {
			use.Role = experiment.RolePrimary
		}
		uses = append(uses, use)
	}
	one, err := metric.NewStudy(&def, def.Variants, uses[:1], nil)
	if err != nil {
		b.Fatal(err)
	}
	if ten, err = metric.NewStudy(&def, def.Variants, uses, def.Segments); err != nil {
		b.Fatal(err)
	}
	return one, ten
}

// analysisTime is when all windows are over.
var analysisTime = day(90)

// analyze is what a server does between a request and its answer.
func (d *database) analyze(b *testing.B, study *metric.Study) *metric.Analysis {
	b.Helper()
	fold := study.NewFold(analysisTime)
	_, accounted, err := d.Subjects(b.Context(), 1, analysisTime, study, func(r *metric.Row) error {
		fold.Add(r)
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	tally := fold.Tally()
	study.Account(tally, accounted)
	a, err := study.Analyze(tally, map[int32][]float64{1: {0.5, 0.5}, 2: {0.5, 0.5}})
	if err != nil {
		b.Fatal(err)
	}
	return a
}

// referenceMean runs the reference and returns the mean of the second variant.
func (d *database) referenceMean(b *testing.B, purchases int32) float64 {
	b.Helper()
	rows, err := d.raw.Query(b.Context(), analysisReference, pgx.QueryExecModeDescribeExec, int32(1), analysisTime, purchases)
	if err != nil {
		b.Fatal(err)
	}
	var variant string
	var phase int32
	var n int64
	var sum, squares, total, subjects float64
	if _, err := pgx.ForEachRow(rows, []any{&variant, &phase, &n, &sum, &squares}, func() error {
		if variant == "short" {
			total, subjects = total+sum, subjects+float64(n)
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	return total / subjects
}
