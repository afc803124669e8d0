package postgres_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

// TestSubjectsWhileCounting holds the end of counting and the pauses to the
// millisecond. What came before the exposure, and a correction of what counts, count
// whenever they were made.
func TestSubjectsWhileCounting(t *testing.T) {
	const ms = time.Millisecond
	d := newDatabase(t)
	first := day(5)
	recordExposures(t, d.DB, exposure(1, "a", first))
	var outcomes []experiment.Outcome
	for i, at := range []time.Time{first.Add(-ms), first, day(6).Add(-ms), day(6), day(6).Add(ms), day(7).Add(-ms), day(7), day(30)} {
		outcomes = append(outcomes, outcome(fmt.Sprint(i), 1, at, math.Exp2(float64(i)), ""))
	}
	recordOutcomes(t, d.DB, outcomes...)
	recordOutcomes(t, d.DB, correction("refund", outcomes[1], day(20), -0.5))
	sum := component(experiment.AggregateSum)
	columns := []metric.Column{{Component: sum}, {Component: sum, Before: 24 * hour}, {Component: sum, Window: 36 * hour}}
	pause := []metric.Stretch{{From: day(6), To: day(7)}}
	for _, c := range []struct {
		name    string
		conduct metric.Conduct
		want    []float64
	}{
		{"it goes on", metric.Conduct{}, []float64{253.5, 1, 29.5}},
		{"it ended", metric.Conduct{End: day(6)}, []float64{5.5, 1, 5.5}},
		{"within the millisecond", metric.Conduct{End: day(6).Add(ms / 2)}, []float64{13.5, 1, 13.5}},
		{"it will end", metric.Conduct{End: forever.Add(ms)}, []float64{253.5, 1, 29.5}},
		{"a pause", metric.Conduct{Pauses: pause}, []float64{253.5, 1, 29.5}},
		{"a pause, left out", metric.Conduct{Pauses: pause, ExcludePauses: true}, []float64{197.5, 1, 5.5}},
		{"a pause that goes on, left out", metric.Conduct{Pauses: []metric.Stretch{{From: day(6)}}, ExcludePauses: true}, []float64{5.5, 1, 5.5}},
		{"a pause of before the exposure", metric.Conduct{Pauses: []metric.Stretch{{From: day(4), To: day(5)}}, ExcludePauses: true}, []float64{253.5, 1, 29.5}},
	} {
		study := studyOf(t, columns, nil, nil).Conducted(c.conduct)
		rows, _ := d.subjects(t, 7, forever, study)
		if diff := cmp.Diff(c.want, rows[0].Values); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
