package main

import (
	"context"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// totals is what tables hold.
type totals struct {
	Outcomes  int64
	Sum       float64 // Of their values, multiples of 1/4 and so exact.
	Exposures int64
}

// query runs a query past the servers, and their proxies.
func query[T any](d *drill, to pgx.RowToFunc[T], sql string, args ...any) []T {
	d.Helper()
	conn, err := pgx.Connect(d.Context(), d.db.url("assay"))
	if err != nil {
		d.Fatal(err)
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(d.Context(), sql, args...)
	if err != nil {
		d.Fatal(err)
	}
	result, err := pgx.CollectRows(rows, to)
	if err != nil {
		d.Fatal(err)
	}
	return result
}

// clock is the database's.
func (d *drill) clock() time.Time {
	return query(d, pgx.RowTo[time.Time], `SELECT clock_timestamp()`)[0]
}

// requireDurability refuses a Postgres that may lose what it has committed.
func (d *drill) requireDurability() {
	for _, setting := range []string{"fsync", "full_page_writes", "synchronous_commit"} {
		if v := query(d, pgx.RowTo[string], `SELECT current_setting($1)`, setting)[0]; v != "on" {
			d.Fatalf("%s is %s", setting, v)
		}
	}
}

// settle waits until nothing that was sent can be stored any more: neither by
// a server, for a caller that gave up, nor by a transaction of which a server
// lost sight.
func (d *drill) settle(o *load) {
	r := o.recorder("last", d.random.Uint64())
	again := &assayv1.RecordExposuresRequest{Exposures: []*assayv1.Exposure{auditExposure(0)}}
	for range 2 { // What waited behind the first round is under way in the second.
		for i, s := range d.servers {
			eventually(d.T, "the server has stored what it was sent", func() bool {
				_, err := assayv1.NewEventServiceClient(s.conn).RecordExposures(d.Context(), again)
				return err == nil && o.callOutcomes(i, []parcel{r.make(sound)}, callPatience) == nil
			})
		}
		eventually(d.T, "the transactions of recorders end", func() bool {
			return query(d, pgx.RowTo[int], `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'assay-record' AND state <> 'idle'`)[0] == 0
		})
	}
}

// compare holds the ledger to what was stored since the trial began, and keeps
// what the next trials need of it.
func (d *drill) compare(l *ledger, since time.Time) {
	rows := query(d, func(row pgx.CollectableRow) (r outcomeRow, err error) {
		err = row.Scan((*[16]byte)(&r.id.row), (*[16]byte)(&r.id.subject), &r.payload.name, &r.payload.value, &r.payload.sku, &r.occurred)
		return r, err
	}, `SELECT o.row_id, o.subject_id, n.name, o.value, coalesce(o.properties->>'sku', ''), o.occurred_time
		FROM outcomes o JOIN outcome_names n ON n.id = o.name_id WHERE o.recorded_time >= $1`, since)
	doubts := l.compareOutcomes(rows)
	exposures := query(d, toExposureRow, `SELECT subject_id, variant, exposed_time FROM exposures
		WHERE recorded_time >= $1 AND experiment_id = (SELECT id FROM experiments WHERE key = $2)`, since, liveFaults)
	l.compareExposures(exposures)
	for _, fault := range l.faults {
		d.Error(fault)
	}
	d.tally.stored(doubts, len(rows), len(exposures))
	d.ended.Outcomes += int64(len(rows))
	d.ended.Exposures += int64(len(exposures))
	for _, r := range rows {
		d.ended.Sum += r.payload.value
	}
	d.keep(l, rows)
}

func toExposureRow(row pgx.CollectableRow) (r exposureRow, err error) {
	err = row.Scan((*[16]byte)(&r.subject), &r.variant, &r.at)
	return r, err
}

// keep picks some of the outcomes that are stored, to be sent again in other
// trials.
func (d *drill) keep(l *ledger, rows []outcomeRow) {
	const most = 500
	stored := make(map[identity]payload, len(rows))
	for _, r := range rows {
		stored[r.id] = r.payload
	}
	for _, p := range l.resendable {
		if is, ok := stored[p.id]; ok && is == p.payload && d.random.IntN(20) == 0 {
			d.stored = append(d.stored, p)
		}
	}
	d.random.Shuffle(len(d.stored), func(i, j int) { d.stored[i], d.stored[j] = d.stored[j], d.stored[i] })
	d.stored = d.stored[:min(most, len(d.stored))]
}

// checkTotals holds the tables, as they are after all trials, to what each
// trial left.
func (d *drill) checkTotals() {
	got := query(d, pgx.RowToStructByPos[totals], `SELECT count(*), coalesce(sum(value), 0),
		(SELECT count(*) FROM exposures e JOIN experiments x ON x.id = e.experiment_id WHERE x.key = $1) FROM outcomes`, liveFaults)[0]
	if got != d.ended {
		d.Errorf("the tables hold %+v; the trials left %+v", got, d.ended)
	}
	if n := query(d, pgx.RowTo[int64], `SELECT count(DISTINCT (row_id, subject_id)) FROM outcomes`)[0]; n != got.Outcomes {
		d.Errorf("%d outcomes have %d identities", got.Outcomes, n)
	}
}

// arm is what an analysis says of a variant.
type arm struct {
	Variant  string
	Subjects int64
	Total    float64
}

// checkAnalyses holds the analyses of both servers to the tables.
func (d *drill) checkAnalyses() {
	for _, key := range []string{liveFaults, auditFaults} {
		want := query(d, pgx.RowToStructByPos[arm], `SELECT e.variant, count(*), coalesce(sum(o.total), 0)
			FROM (SELECT DISTINCT subject_id, variant FROM exposures WHERE experiment_id = (SELECT id FROM experiments WHERE key = $1)) e
			LEFT JOIN (SELECT subject_id, sum(value) AS total FROM outcomes
				WHERE name_id = (SELECT id FROM outcome_names WHERE name = 'purchase') GROUP BY subject_id) o USING (subject_id)
			GROUP BY e.variant`, key)
		for i := range d.servers {
			resp, err := assayv1.NewAnalysisServiceClient(d.servers[i].conn).AnalyzeExperiment(d.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: key})
			if err != nil {
				d.Fatal(err)
			}
			for _, a := range resp.Metrics[0].Arms {
				for _, w := range want {
					if w.Variant == a.Variant && (a.Subjects != w.Subjects || math.Abs(a.GetTotal()-w.Total) > 1e-9*math.Abs(w.Total)) {
						d.Errorf("server %d analyses %s: %v; the tables hold %+v", i, key, a, w)
					}
				}
			}
			if len(want) != 2 || len(resp.Metrics[0].Arms) != 2 {
				d.Errorf("server %d analyses %s: %v; the tables hold %+v", i, key, resp.Metrics[0].Arms, want)
			}
		}
	}
}
