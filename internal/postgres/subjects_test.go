package postgres_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

const hour = time.Hour

// forever is a moment after all that a test records.
var forever = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// studyOf is a study of the columns, the attributes as numbers, and the
// segments, of which the first is its stratum too.
func studyOf(t *testing.T, columns []metric.Column, attributes, segments []string) *metric.Study {
	t.Helper()
	return studyOfExperiment(t, definition(), columns, attributes, segments)
}

func studyOfExperiment(t *testing.T, def experiment.Definition, columns []metric.Column, attributes, segments []string) *metric.Study {
	t.Helper()
	def.Segments = segments
	if len(segments) > 0 {
		def.Plan.StratifyBy = segments[0]
	}
	var names []string
	covariate := func(c experiment.Covariate) {
		c.Name = fmt.Sprint("x", len(names))
		names = append(names, c.Name)
		def.Covariates = append(def.Covariates, c)
	}
	for _, a := range attributes {
		covariate(experiment.Covariate{Attribute: a})
	}
	var uses []metric.Use
	for _, c := range columns {
		if c.Before > 0 {
			covariate(experiment.Covariate{Past: &experiment.PastOutcomes{Component: c.Component, Window: c.Before}})
			continue
		}
		c.Component.Name = "c"
		m := metric.Metric{Key: fmt.Sprint("m", len(uses)), Revision: 1, Definition: metric.Formula("c", []experiment.Component{c.Component})}
		m.Definition.Window = c.Window
		uses = append(uses, metric.Use{Metric: m, Role: experiment.RoleSecondary})
	}
	if len(names) > 0 && len(uses) == 0 {
		uses = append(uses, metric.Use{Metric: metric.Metric{Key: "m", Definition: metric.Proportion("never", nil)}, Role: experiment.RoleSecondary})
	}
	if len(names) > 0 {
		uses[0].Covariates = names
	}
	study, err := metric.NewStudy(&def, def.Variants, uses, segments)
	if err != nil {
		t.Fatal(err)
	}
	return study
}

// subjects returns the rows that Subjects streams, and those that were pinned.
func (d *database) subjects(t *testing.T, id int32, asOf time.Time, study *metric.Study) (rows []metric.Row, pinned []metric.Excluded) {
	t.Helper()
	pinned, _, err := d.Subjects(t.Context(), id, asOf, study, func(r *metric.Row) error {
		row := *r
		row.Variant, row.Stratum = slices.Clone(r.Variant), slices.Clone(r.Stratum)
		row.AttributeNumbers, row.Values, row.Segments = slices.Clone(r.AttributeNumbers), slices.Clone(r.Values), nil
		for _, s := range r.Segments {
			row.Segments = append(row.Segments, slices.Clone(s))
		}
		rows = append(rows, row)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows, pinned
}

// totals returns the columns' values of the only subject, in the order of the
// columns asked for.
func (d *database) totals(t *testing.T, id int32, asOf time.Time, columns ...metric.Column) []float64 {
	t.Helper()
	study := studyOf(t, columns, nil, nil)
	rows, _ := d.subjects(t, id, asOf, study)
	if len(rows) != 1 {
		t.Fatalf("%d subjects, want 1", len(rows))
	}
	values := make([]float64, len(columns))
	for i, c := range columns {
		values[i] = rows[0].Values[slices.IndexFunc(study.Columns(), func(s metric.Column) bool { return cmp.Equal(s, c) })]
	}
	return values
}

// of is the exposure to another experiment.
func of(id int32, e experiment.Exposure) experiment.Exposure {
	e.ExperimentID = id
	return e
}

func component(a experiment.Aggregate, conditions ...experiment.Condition) experiment.Component {
	return experiment.Component{Outcome: "purchase", Aggregate: a, Conditions: conditions}
}

// All windows are half-open, to the millisecond, at either side of exposure,
// and whatever partitions their ends fall into.
func TestSubjectsWindows(t *testing.T) {
	const ms = time.Millisecond
	d := newDatabase(t)
	for n, c := range []struct {
		name  string
		first time.Time
	}{
		{"inside a month", day(15, 12)},
		{"window ends with the month", day(31, 0)},
		{"window ends in the next month", day(31, 7.5)},
		{"begins with the month", day(1)},
		{"window before ends in December", day(1, 23)},
		{"not on a millisecond", day(15).Add(300 * time.Microsecond)},
	} {
		id, first := int32(n), c.first
		recordExposures(t, d.DB, of(id, exposure(n, "a", first)))
		at := first.Truncate(ms)
		if at.Before(first) {
			at = at.Add(ms) // The first millisecond that is not before the exposure.
		}
		for i, moment := range []time.Time{
			at.Add(-24*hour - ms), at.Add(-24 * hour), at.Add(-ms), at, at.Add(24*hour - ms), at.Add(24 * hour), at.AddDate(1, 0, 0),
		} {
			recordOutcomes(t, d.DB, outcome(fmt.Sprint(i), n, moment, math.Exp2(float64(i)), ""))
		}
		recordOutcomes(t, d.DB, outcome("other subject", 99, at, 1000.0, ""), named(outcome("other name", n, at, 1000.0, ""), "refund"))
		sum := component(experiment.AggregateSum)
		after, before, endless := metric.Column{Component: sum, Window: 24 * hour}, metric.Column{Component: sum, Before: 24 * hour}, metric.Column{Component: sum}
		if diff := cmp.Diff([]float64{8 + 16, 2 + 4, 8 + 16 + 32 + 64}, d.totals(t, id, forever, after, before, endless)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		for _, alone := range []struct { // With the bounds that it alone needs.
			column metric.Column
			want   float64
		}{{after, 24}, {before, 6}, {endless, 120}} {
			if got := d.totals(t, id, forever, alone.column); got[0] != alone.want {
				t.Errorf("%s: %+v alone: %v, want %v", c.name, alone.column, got[0], alone.want)
			}
		}
	}
}

// A window may reach back to before 1970, where no outcome is.
func TestSubjectsAtTheBeginningOfTime(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "a", time.UnixMilli(5)))
	recordOutcomes(t, d.DB, outcome("a", 1, time.UnixMilli(0), 1.0, ""), outcome("b", 1, time.UnixMilli(6), 2.0, ""))
	sum := component(experiment.AggregateSum)
	got := d.totals(t, 7, forever, metric.Column{Component: sum, Before: 24 * hour}, metric.Column{Component: sum, Window: hour})
	if diff := cmp.Diff([]float64{1, 2}, got); diff != "" {
		t.Error(diff)
	}
}

func TestSubjectsAggregates(t *testing.T) {
	aggregates := []experiment.Aggregate{experiment.AggregateCount, experiment.AggregateSum, experiment.AggregateAny, experiment.AggregateMin,
		experiment.AggregateMax, experiment.AggregateLast, experiment.AggregateDistinctDays}
	var columns []metric.Column
	for _, a := range aggregates {
		columns = append(columns, metric.Column{Component: component(a)})
	}
	lower, higher := "a", "b" // Of two events in one millisecond, the row id decides.
	if x, y := experiment.NewRowID(day(5), lower), experiment.NewRowID(day(5), higher); string(x[:]) > string(y[:]) {
		lower, higher = higher, lower
	}
	d, nan := newDatabase(t), math.NaN()
	for n, c := range []struct {
		name     string
		outcomes []experiment.Outcome
		want     []float64 // count, sum, any, min, max, last, distinct days
	}{
		{"none", nil, []float64{0, 0, 0, nan, nan, nan, 0}},
		{"one without value", []experiment.Outcome{outcome("a", 1, day(5), nil, "")}, []float64{1, 0, 1, nan, nan, nan, 1}},
		{"negative", []experiment.Outcome{outcome("a", 1, day(5, 1), -3.0, ""), outcome("b", 1, day(5), -1.0, "")}, []float64{2, -4, 1, -3, -1, -3, 1}},
		{"the last has no value", []experiment.Outcome{outcome("a", 1, day(5), 2.0, ""), outcome("b", 1, day(5, 1), nil, "")}, []float64{2, 2, 1, 2, 2, 2, 1}},
		{"tie", []experiment.Outcome{outcome(lower, 1, day(5), 9.0, ""), outcome(higher, 1, day(5), 8.0, "")}, []float64{2, 17, 1, 8, 9, 8, 1}},
		{"around midnight", []experiment.Outcome{
			outcome("a", 1, day(6).Add(-time.Millisecond), 1.0, ""), outcome("b", 1, day(6), 2.0, ""), outcome("c", 1, day(6, 23.9), 3.0, ""),
		}, []float64{3, 6, 1, 1, 3, 3, 2}},
		{"large", []experiment.Outcome{outcome("a", 1, day(5), 1e100, ""), outcome("b", 1, day(6), 1e100, "")}, []float64{2, 2e100, 1, 1e100, 1e100, 1e100, 2}},
	} {
		outcomes := append(c.outcomes, named(outcome("else", 1, day(9), 77.0, ""), "refund"))
		for i := range outcomes {
			outcomes[i].SubjectID = subjectID(n)
		}
		recordOutcomes(t, d.DB, outcomes...)
		recordExposures(t, d.DB, of(int32(n), exposure(n, "a", day(2))))
		if diff := cmp.Diff(c.want, d.totals(t, int32(n), forever, columns...), cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

// Of columns that need a value, an outcome without one is no outcome: not the
// last, and in no count. Attributes are read beside them in another way.
func TestSubjectsWithoutValue(t *testing.T) {
	d, nan := newDatabase(t), math.NaN()
	for n := range 4 {
		e := exposure(n, "a", day(2+n))
		e.Attributes = json.RawMessage(`{"country":"PL"}`)
		recordExposures(t, d.DB, e)
	}
	recordOutcomes(t, d.DB, outcome("a", 1, day(10), nil, ""), outcome("b", 1, day(11), nil, ""),
		outcome("a", 2, day(10), 7.0, ""), outcome("b", 2, day(11), nil, ""), outcome("c", 3, day(10), nil, ""), outcome("d", 3, day(10), 3.0, ""),
		correction("e", outcome("c", 3, day(10), nil, ""), day(12), -2))
	valued := metric.Mean("purchase", nil)
	last := metric.Formula("m", []experiment.Component{{Name: "m", Outcome: "purchase", Aggregate: experiment.AggregateLast}})
	largest := metric.Formula("m", []experiment.Component{{Name: "m", Outcome: "purchase", Aggregate: experiment.AggregateMax}})
	def := definition()
	def.Segments = []string{"country"}
	var uses []metric.Use
	for i, m := range []metric.Definition{valued, last, largest} {
		uses = append(uses, metric.Use{Metric: metric.Metric{Key: fmt.Sprint("m", i), Revision: 1, Definition: m}, Role: experiment.RoleSecondary})
	}
	for _, segments := range [][]string{nil, {"country"}} {
		study, err := metric.NewStudy(&def, def.Variants, uses, segments)
		if err != nil {
			t.Fatal(err)
		}
		rows, _ := d.subjects(t, 7, forever, study)
		slices.SortFunc(rows, func(a, b metric.Row) int { return a.FirstExposure.Compare(b.FirstExposure) })
		var got [][]float64
		for _, r := range rows {
			got = append(got, r.Values)
		}
		// The last of the fourth subject's is of the greater row id.
		latest := got[3][2]
		want := [][]float64{{0, 0, nan, nan}, {0, 0, nan, nan}, {7, 1, 7, 7}, {1, 2, latest, 3}}
		if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" || latest != 3 && latest != -2 {
			t.Errorf("segments %v: the last is %v (-want +got):\n%s", segments, latest, diff)
		}
	}
}

// Each outcome's value is a power of two, so that a sum tells which met the
// conditions.
func TestSubjectsConditions(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "a", day(2)))
	for i, properties := range []string{
		`{"p":"a"}`, `{"p":"b"}`, `{"p":5}`, `{"p":"5"}`, `{"p":6.5}`, `{"p":true}`, `{"p":null}`, `{}`, ``, `{"q":"a"}`, `{"p":""}`, `{"p":{"p":7}}`,
	} {
		recordOutcomes(t, d.DB, outcome(fmt.Sprint(i), 1, day(5), math.Exp2(float64(i)), properties))
	}
	recordOutcomes(t, d.DB, outcome("no value", 1, day(5), nil, `{"p":"a"}`))
	const a, b, five, text5, six, yes, empty, object = 1, 2, 4, 8, 16, 32, 1024, 2048
	on := func(field string, op experiment.Op, values ...string) experiment.Condition {
		return experiment.Condition{Field: field, Op: op, Values: values}
	}
	for _, c := range []struct {
		conditions []experiment.Condition
		want       float64
	}{
		{nil, 4095},
		{[]experiment.Condition{on("p", "eq", "a")}, a},
		{[]experiment.Condition{on("p", "eq", "a", "b")}, a + b},
		{[]experiment.Condition{on("p", "eq", "5")}, five + text5},
		{[]experiment.Condition{on("p", "eq", "5.0")}, 0},
		{[]experiment.Condition{on("p", "eq", "true")}, yes},
		{[]experiment.Condition{on("p", "eq", "null")}, 0},
		{[]experiment.Condition{on("p", "eq", "")}, empty},
		{[]experiment.Condition{on("p", "eq", "'; DROP TABLE outcomes; --")}, 0},
		{[]experiment.Condition{on("p' --", "eq", "a")}, 0},
		{[]experiment.Condition{on("p", "ne", "a")}, b + five + text5 + six + yes + empty + object},
		{[]experiment.Condition{on("p", "ne", "a", "b", "5")}, six + yes + empty + object},
		{[]experiment.Condition{on("missing", "ne", "a")}, 0},
		{[]experiment.Condition{on("p", "gt", "5")}, six},
		{[]experiment.Condition{on("p", "ge", "5")}, five + six},
		{[]experiment.Condition{on("p", "lt", "6.5")}, five},
		{[]experiment.Condition{on("p", "le", "6.5")}, five + six},
		{[]experiment.Condition{on("p", "gt", "1e-400")}, five + six},
		{[]experiment.Condition{on("p", "ge", "5"), on("p", "lt", "6")}, five},
		{[]experiment.Condition{on("p", "ge", "5"), on("value", "gt", "4")}, six},
		{[]experiment.Condition{on("value", "eq", "4", "8.0", "3")}, 12},
		{[]experiment.Condition{on("value", "ne", "1", "2")}, 4092},
		{[]experiment.Condition{on("value", "gt", "1024")}, 2048},
		{[]experiment.Condition{on("value", "ge", "1024")}, 1024 + 2048},
		{[]experiment.Condition{on("value", "lt", "2")}, 1},
		{[]experiment.Condition{on("value", "le", "0x1p1")}, 3},
	} {
		sum, count := component(experiment.AggregateSum, c.conditions...), component(experiment.AggregateCount, c.conditions...)
		got := d.totals(t, 7, forever, metric.Column{Component: sum}, metric.Column{Component: count})
		if got[0] != c.want {
			t.Errorf("%v: %v, want %v", c.conditions, got[0], c.want)
		}
		matches := strings.Count(fmt.Sprintf("%b", int(c.want)), "1")
		if c.conditions == nil || slices.Equal(c.conditions[0].Values, []string{"a"}) && c.want == a || len(c.conditions[0].Values) == 2 && c.want == a+b {
			matches++ // The outcome without a value.
		}
		if int(got[1]) != matches {
			t.Errorf("%v: %v outcomes, want %d", c.conditions, got[1], matches)
		}
	}
}

func TestSubjectsOfNothing(t *testing.T) {
	d := newDatabase(t)
	columns := []metric.Column{{Component: component(experiment.AggregateMin)}, {Component: component(experiment.AggregateSum), Before: hour}}
	if rows, pinned := d.subjects(t, 7, forever, studyOf(t, columns, nil, nil)); len(rows) != 0 || len(pinned) != 0 {
		t.Errorf("no exposures: %v, %v", rows, pinned)
	}
	recordExposures(t, d.DB, exposure(1, "a", day(2)))
	if diff := cmp.Diff([]float64{math.NaN(), 0}, d.totals(t, 7, forever, columns...), cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("a name that was never recorded: %s", diff)
	}
	if rows, _ := d.subjects(t, 7, forever, studyOf(t, nil, nil, nil)); len(rows) != 1 || string(rows[0].Variant) != "a" {
		t.Errorf("no columns: %v", rows)
	}
	if rows, _ := d.subjects(t, 8, forever, studyOf(t, columns, nil, nil)); len(rows) != 0 {
		t.Errorf("another experiment: %v", rows)
	}
}

func TestSubjectsAttributes(t *testing.T) {
	d := newDatabase(t)
	for n, c := range []struct {
		attributes string
		segment    string
		number     float64
	}{
		{``, "", math.NaN()},
		{`{}`, "", math.NaN()},
		{`{"other":1}`, "", math.NaN()},
		{`{"x":null}`, "", math.NaN()},
		{`{"x":"PL"}`, "PL", math.NaN()},
		{`{"x":"7"}`, "7", math.NaN()},
		{`{"x":""}`, "", math.NaN()},
		{`{"x":true}`, "true", math.NaN()},
		{`{"x":31}`, "31", 31},
		{`{"x":-2.50}`, "-2.50", -2.5},
		{`{"x":1e21}`, "1000000000000000000000", 1e21},
		{`{"x":[1]}`, "[1]", math.NaN()},
		{`{"x":"\u017c\u00f3\u0142w"}`, "żółw", math.NaN()},
	} {
		e := of(int32(n), exposure(1, "a", day(2)))
		if c.attributes != "" {
			e.Attributes = json.RawMessage(c.attributes)
		}
		recordExposures(t, d.DB, e)
		rows, _ := d.subjects(t, int32(n), forever, studyOf(t, nil, []string{"x", "y"}, []string{"y", "x"}))
		if got := fmt.Sprintf("%q", rows[0].Segments); got != fmt.Sprintf("%q", []string{"", c.segment}) {
			t.Errorf("%s: segments %s", c.attributes, got)
		}
		if diff := cmp.Diff([]float64{c.number, math.NaN()}, rows[0].AttributeNumbers, cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("%s: %s", c.attributes, diff)
		}
	}
}

// The first phase counts, in it the first exposure, and a subject with two
// variants there is a crossover. Attributes are those of the earliest exposure in
// any phase: later ones may follow from a treatment.
func TestSubjectsFirstExposure(t *testing.T) {
	in := func(phase int32, variant string, at time.Time, country string) experiment.Exposure {
		e := exposure(1, variant, at)
		e.Phase, e.Attributes = phase, json.RawMessage(`{"country":"`+country+`"}`)
		return e
	}
	d := newDatabase(t)
	for n, c := range []struct {
		name  string
		items []experiment.Exposure
		want  string
	}{
		{"one", []experiment.Exposure{in(1, "a", day(3), "PL")}, "a 1 3 false false PL"},
		{"an earlier one came later", []experiment.Exposure{in(1, "a", day(3), "PL"), in(1, "a", day(2), "DE")}, "a 1 2 false false DE"},
		{"two variants", []experiment.Exposure{in(1, "b", day(2), "PL"), in(1, "a", day(3), "DE")}, "b 1 2 true false PL"},
		{"two variants at once", []experiment.Exposure{in(1, "b", day(2), "PL"), in(1, "a", day(2), "DE")}, "a 1 2 true true DE"},
		{"two variants at once later", []experiment.Exposure{in(1, "b", day(3), "PL"), in(1, "a", day(3), "DE"), in(1, "a", day(2), "DE")}, "a 1 2 true false DE"},
		{"two phases", []experiment.Exposure{in(2, "b", day(4), "PL"), in(1, "a", day(3), "DE")}, "a 1 3 false false DE"},
		{"a later phase is earlier", []experiment.Exposure{in(2, "b", day(2), "PL"), in(1, "a", day(3), "DE")}, "a 1 3 false false PL"},
		{"two variants in a later phase", []experiment.Exposure{in(2, "b", day(4), "PL"), in(2, "a", day(5), "PL"), in(1, "a", day(3), "DE")}, "a 1 3 false false DE"},
		{"a later phase alone", []experiment.Exposure{in(3, "b", day(4), "PL")}, "b 3 4 false false PL"},
	} {
		for _, item := range c.items {
			recordExposures(t, d.DB, of(int32(n), item))
		}
		rows, _ := d.subjects(t, int32(n), forever, studyOf(t, nil, nil, []string{"country"}))
		if len(rows) != 1 {
			t.Fatalf("%s: %d rows", c.name, len(rows))
		}
		r := rows[0]
		if got := fmt.Sprintf("%s %d %d %t %t %s", r.Variant, r.Phase, r.FirstExposure.UTC().Day(), r.Crossover, r.Tied, r.Segments[0]); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// A covariate is what was known before exposure: a correction counts in it if it
// was made before then, in its value and in the conditions on it. In a metric it
// counts whenever it was made.
func TestSubjectsKnownBeforeExposure(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "a", day(10)))
	old, open, empty := outcome("old", 1, day(5), 100.0, ""), outcome("open", 1, day(6), 10.0, ""), outcome("empty", 1, day(7), nil, "")
	after := outcome("after", 1, day(11), 1000.0, "")
	recordOutcomes(t, d.DB, old, open, empty, after,
		correction("early", old, day(8), -30), correction("late", old, day(12), -50), correction("at once", old, day(10), -1),
		correction("late", open, day(10), -10), correction("late", empty, day(11), 7), correction("late", after, day(20), -400))
	more := experiment.Condition{Field: experiment.FieldValue, Op: experiment.OpGreater, Values: []string{"9"}}
	var columns []metric.Column
	for _, a := range []experiment.Aggregate{experiment.AggregateSum, experiment.AggregateMin, experiment.AggregateMax, experiment.AggregateLast, experiment.AggregateCount} {
		columns = append(columns, metric.Column{Component: component(a), Before: 9 * 24 * hour})
	}
	columns = append(columns,
		metric.Column{Component: component(experiment.AggregateSum, more), Before: 9 * 24 * hour},
		metric.Column{Component: component(experiment.AggregateCount, more), Before: 9 * 24 * hour},
		metric.Column{Component: component(experiment.AggregateSum)})
	got := d.totals(t, 7, forever, columns...)
	if diff := cmp.Diff([]float64{80, 10, 70, 10, 3, 80, 2, 600}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A subject that a server with the old split exposes after another has exposed it
// in a new phase counts in the old one, and what is known before exposure is from
// before both.
func TestSubjectsKnownBeforeAnyPhase(t *testing.T) {
	d := newDatabase(t)
	first, second := exposure(1, "a", day(10)), exposure(1, "b", day(8))
	second.Phase = 2
	recordExposures(t, d.DB, first, second)
	recordOutcomes(t, d.DB, outcome("before", 1, day(7), 1.0, ""), outcome("between", 1, day(9), 2.0, ""), outcome("after", 1, day(11), 4.0, ""),
		outcome("long before", 1, day(4), 8.0, ""))
	sum := component(experiment.AggregateSum)
	got := d.totals(t, 7, forever, metric.Column{Component: sum, Before: 3 * 24 * hour}, metric.Column{Component: sum, Before: 2 * 24 * hour},
		metric.Column{Component: sum, Before: 6 * 24 * hour}, metric.Column{Component: sum})
	if diff := cmp.Diff([]float64{1, 1, 9, 4}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSubjectsOverridden(t *testing.T) {
	d := newDatabase(t)
	e := createExperiment(t, d.DB, "e", definition())
	for n := 1; n <= 5; n++ {
		recordExposures(t, d.DB, of(e.ID, exposure(n, fmt.Sprint("v", n), day(3))))
	}
	setOverrides(t, d.DB, pin("short", 1, 2, 3, 6)...) // 6 was never exposed.
	setOverrides(t, d.DB, append(pin("", 2), pin("control", 3)...)...)
	asOf := scalar[time.Time](t, d.raw, `SELECT clock_timestamp()`)
	setOverrides(t, d.DB, pin("short", 4)...)
	check := func(name string, asOf time.Time, wantOverridden int64, want ...string) {
		t.Helper()
		rows, pinned := d.subjects(t, e.ID, asOf, studyOf(t, []metric.Column{{Component: component(experiment.AggregateSum)}}, nil, nil))
		var got []string
		overridden := int64(0)
		for _, p := range pinned {
			overridden += p.Subjects
		}
		for _, r := range rows {
			got = append(got, string(r.Variant))
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" || overridden != wantOverridden {
			t.Errorf("%s: %d overridden; %s", name, overridden, diff)
		}
	}
	check("before the last pin", asOf, 3, "v4", "v5")
	check("now", forever, 4, "v5")
	// The pins of another experiment do not matter.
	createExperiment(t, d.DB, "f", definition())
	if _, err := d.SetOverrides(t.Context(), "f", "", pin("short", 5)); err != nil {
		t.Fatal(err)
	}
	check("another experiment's pins", forever, 4, "v5")
}

// The values of a segment that are shown are those with most subjects who are
// analysed.
func TestLargestValues(t *testing.T) {
	d := newDatabase(t)
	e := createExperiment(t, d.DB, "e", definition())
	n := 0
	expose := func(country string, subjects int, variants ...string) {
		for range subjects {
			n++
			for i, v := range variants {
				x := of(e.ID, exposure(n, v, day(2+i)))
				if country != "" {
					x.Attributes = json.RawMessage(`{"country":"` + country + `"}`)
				}
				recordExposures(t, d.DB, x)
			}
		}
	}
	expose("CR", 5, "control", "short")
	expose("UN", 5, "removed")
	expose("PL", 2, "control")
	expose("", 2, "short")
	expose("DE", 3, "short")
	expose("PI", 4, "short")
	setOverrides(t, d.DB, pin("short", n-3, n-2, n-1, n)...)
	got, err := d.LargestValues(t.Context(), e.ID, forever, studyOf(t, nil, nil, []string{"country"}), "country", 2)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"DE", ""}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// An analysis of a moment sees nothing that was recorded after it.
func TestSubjectsAsOf(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "a", day(3)), exposure(1, "b", day(4)), exposure(2, "a", day(3)))
	recordExposures(t, d.DB, exposure(1, "a", day(2)))
	recordOutcomes(t, d.DB, outcome("x", 1, day(2, 1), 1.0, ""), outcome("y", 1, day(5), 2.0, ""))
	known := day(20)
	for _, u := range []struct {
		table, where string
		at           time.Time
	}{
		{"exposures", "exposed_time = '2026-01-03Z' AND variant = 'a'", known},
		{"exposures", "exposed_time = '2026-01-02Z'", known.Add(time.Microsecond)},
		{"exposures", "variant = 'b'", known.Add(2 * time.Microsecond)},
		{"outcomes", "value = 1", known.Add(3 * time.Microsecond)},
		{"outcomes", "value = 2", known},
	} {
		exec(t, d.raw, `UPDATE `+u.table+` SET recorded_time = $1 WHERE `+u.where, u.at)
	}
	exec(t, d.raw, `UPDATE exposures SET recorded_time = $1 WHERE subject_id = $2`, known.Add(5*time.Microsecond), [16]byte(subjectID(2)))
	study := studyOf(t, []metric.Column{{Component: component(experiment.AggregateSum)}}, nil, nil)
	for micros, want := range []string{
		"1 a 3 false [2]", // Its own microsecond is known.
		"1 a 2 false [2]",
		"1 a 2 true [2]",
		"1 a 2 true [3]",
		"1 a 2 true [3]",
		"2 a 2 true [3]",
	} {
		rows, _ := d.subjects(t, 7, known.Add(time.Duration(micros)*time.Microsecond), study)
		slices.SortFunc(rows, func(a, b metric.Row) int { return a.FirstExposure.Compare(b.FirstExposure) })
		r := rows[0]
		if got := fmt.Sprintf("%d %s %d %t %v", len(rows), r.Variant, r.FirstExposure.UTC().Day(), r.Crossover, r.Values); got != want {
			t.Errorf("%d µs later: %s, want %s", micros, got, want)
		}
	}
	if rows, _ := d.subjects(t, 7, known.Add(-time.Microsecond), study); len(rows) != 0 {
		t.Errorf("before anything was recorded: %v", rows)
	}
}

// A study since an earlier moment also tells the first exposures that were known
// then, in whatever phase.
func TestSubjectsSince(t *testing.T) {
	d := newDatabase(t)
	known := day(20)
	in := func(subject int, phase int32, at, recorded time.Time) {
		e := exposure(subject, "a", at)
		e.Phase = phase
		recordExposures(t, d.DB, e)
		exec(t, d.raw, `UPDATE exposures SET recorded_time = $1 WHERE subject_id = $2 AND exposed_time = $3`, recorded, [16]byte(subjectID(subject)), at)
	}
	later := known.Add(time.Microsecond)
	in(1, 1, day(3), known)
	in(2, 1, day(4), later)
	in(3, 1, day(6), known)
	in(3, 1, day(5), later) // An earlier exposure came late.
	in(4, 2, day(8), known) // A first phase came late.
	in(4, 1, day(7), later)
	in(5, 2, day(10), later)
	in(5, 1, day(9), known)
	recordOutcomes(t, d.DB, outcome("x", 1, day(3, 1), 1.0, ""))
	want := map[string]string{"3": "3", "4": "0", "5": "6", "7": "8", "9": "9"} // Day of the first exposure → of the known one.
	for _, columns := range [][]metric.Column{nil, {{Component: component(experiment.AggregateSum)}}} {
		study := studyOf(t, columns, nil, []string{"country"})
		got := map[string]string{}
		rows, _ := d.subjects(t, 7, forever, study.Since(known))
		for _, r := range rows {
			day := r.KnownExposure.UTC().Day()
			if r.KnownExposure.IsZero() {
				day = 0
			}
			got[fmt.Sprint(r.FirstExposure.UTC().Day())] = fmt.Sprint(day)
		}
		if diff := cmp.Diff(want, got); diff != "" || len(rows) != 5 {
			t.Errorf("%d rows (-want +got):\n%s", len(rows), diff)
		}
		if rows, _ = d.subjects(t, 7, forever, study); len(rows) != 5 || !rows[0].KnownExposure.IsZero() {
			t.Errorf("without an earlier moment: %v", rows)
		}
	}
}

func TestSubjectsEndsWithTheVisitor(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "a", day(3)), exposure(2, "a", day(3)))
	enough := errors.New("enough")
	visits := 0
	_, _, err := d.Subjects(t.Context(), 7, forever, studyOf(t, nil, nil, nil), func(*metric.Row) error { visits++; return enough })
	if !errors.Is(err, enough) || visits != 1 {
		t.Errorf("error %v after %d visits", err, visits)
	}
}

// Random worlds, seen at random moments, are as the reference sees them.
func TestSubjectsAgainstReference(t *testing.T) {
	for seed := range uint64(6) {
		d := newDatabase(t)
		e := createExperiment(t, d.DB, "e", definition())
		randomWorld(t, d, e.ID, seed)
		w := readWorld(t, d.raw, e.ID)
		r := seeded(100 + seed)
		for i := range 10 {
			study := randomStudy(t, r.IntN)
			if i < 2 {
				study = randomTimeline(t, r.IntN)
			}
			asOf := day(1).Add(time.Duration(r.IntN(40)) * hour)
			if i >= 6 {
				asOf, w.conduct = forever, randomConduct(r.IntN, w.outcomes)
				study = study.Conducted(w.conduct)
			}
			want, wantPinned := w.subjects(asOf, study)
			rows, pinned := d.subjects(t, e.ID, asOf, study)
			var got []string
			for i := range rows {
				got = append(got, textOfRow(&rows[i]))
			}
			slices.Sort(want)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("seed %d: %+v: %s", seed, study.Columns(), diff)
			}
			if diff := cmp.Diff(wantPinned, pinned, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("seed %d: pinned subjects (-want +got):\n%s", seed, diff)
			}
		}
	}
}

// Windows and pasts that the random studies use and the random worlds aim at.
var windows = []time.Duration{0, hour, 24 * hour, 31 * 24 * hour}

func randomWorld(t *testing.T, d *database, id int32, seed uint64) {
	t.Helper()
	r := seeded(seed)
	pick := func(choices ...string) string { return choices[r.IntN(len(choices))] }
	var exposures []experiment.Exposure
	var outcomes []experiment.Outcome
	var pins []int
	for n := range 40 {
		var times []time.Time
		variant := pick("control", "short")
		for range 1 + r.IntN(3) {
			at := day(1 + r.IntN(60)).Add(time.Duration(r.IntN(24*3600*1000)) * time.Millisecond)
			if r.IntN(3) == 0 {
				at = time.Date(2026, time.Month(1+r.IntN(3)), 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(r.IntN(3)-1) * time.Millisecond)
			}
			again := len(times) > 0 && r.IntN(4) == 0 // At the moment of the one before.
			if again {
				at = times[len(times)-1]
			}
			times = append(times, at)
			item := exposure(n, variant, at)
			if again || r.IntN(8) == 0 {
				item.Variant = pick("control", "short")
			}
			item.ExperimentID, item.Phase = id, int32(1+r.IntN(8)/6)
			if r.IntN(4) > 0 {
				bucket := int32(n)*1000 + item.Phase // One in each phase.
				item.Bucket = &bucket
			}
			item.Attributes = json.RawMessage(pick(`{"country":"PL","age":31}`, `{"country":"DE"}`, `{"age":"31"}`, `{"age":null,"country":true}`, `{"age":2.5}`, `null`))
			if string(item.Attributes) == "null" {
				item.Attributes = nil
			}
			exposures = append(exposures, item)
		}
		for i := range r.IntN(12) {
			at := times[r.IntN(len(times))]
			window := windows[r.IntN(len(windows))]
			if r.IntN(2) == 0 {
				window = -window
			}
			at = at.Add(window).Add(time.Duration(r.IntN(3)-1) * time.Millisecond)
			if r.IntN(3) == 0 {
				at = at.Add(time.Duration(r.IntN(72*3600*1000)-36*3600*1000) * time.Millisecond)
			}
			var value any
			if r.IntN(6) > 0 {
				value = float64(r.IntN(20)-5) / 4
			}
			o := outcome(fmt.Sprint("e", i/2), n, at, value, pick(`{"p":"a"}`, `{"p":1}`, `{"p":1.5}`, `{"p":"1"}`, `{"p":true,"q":2}`, `{"q":null}`, ``))
			outcomes = append(outcomes, named(o, pick("purchase", "refund", "view")))
			if r.IntN(4) == 0 { // Some of an outcome of another subject, or under another name.
				c := correction(fmt.Sprint("c", i), outcomes[len(outcomes)-1-r.IntN(min(3, len(outcomes)))], day(1+r.IntN(60)), float64(r.IntN(9)-4)/4)
				c.SubjectID = subjectID(n)
				outcomes = append(outcomes, named(c, pick(c.Name, c.Name, "view")))
			}
		}
		if r.IntN(6) == 0 {
			pins = append(pins, n)
		}
	}
	recordOutcomes(t, d.DB, outcomes...)
	for _, item := range exposures {
		recordExposures(t, d.DB, item)
	}
	setOverrides(t, d.DB, pin("short", pins...)...)
	setOverrides(t, d.DB, pin("", pins[:len(pins)/2]...)...)
	// Everything became known at some full hour.
	for _, sql := range []string{
		`UPDATE exposures SET recorded_time = ` + someHour(30, `subject_id::text || variant || extract(epoch FROM exposed_time - timestamptz '2026-01-01 00:00Z')::text`),
		`UPDATE outcomes SET recorded_time = ` + someHour(30, `row_id::text`),
		`UPDATE overrides SET create_time = ` + someHour(60, `subject_id::text || variant`),
	} {
		exec(t, d.raw, sql)
	}
}

// someHour is one of so many hours from the first day on, by what is hashed: Citus takes
// it in an update, and a second run has the same.
func someHour(of int, hashed string) string {
	return fmt.Sprintf("to_timestamp(%d + (hashtext(%s) & 65535) %% %d * 3600)", day(1).Unix(), hashed, of)
}

func randomStudy(t *testing.T, intN func(int) int) *metric.Study {
	t.Helper()
	aggregates := []experiment.Aggregate{experiment.AggregateCount, experiment.AggregateSum, experiment.AggregateAny, experiment.AggregateMin,
		experiment.AggregateMax, experiment.AggregateLast, experiment.AggregateDistinctDays}
	ops := []experiment.Op{experiment.OpEqual, experiment.OpNotEqual, experiment.OpGreater, experiment.OpGreaterOrEqual, experiment.OpLess, experiment.OpLessOrEqual}
	var columns []metric.Column
	for range intN(5) {
		c := metric.Column{Component: experiment.Component{
			Outcome:   []string{"purchase", "refund", "view", "never"}[intN(4)],
			Aggregate: aggregates[intN(len(aggregates))],
		}}
		for range intN(3) {
			condition := experiment.Condition{Field: []string{"value", "p", "q"}[intN(3)], Op: ops[intN(len(ops))], Values: []string{[]string{"1", "0.5", "1.5"}[intN(3)]}}
			if (condition.Op == experiment.OpEqual || condition.Op == experiment.OpNotEqual) && condition.Field != "value" && intN(2) == 0 {
				condition.Values = append(condition.Values, "a", "true")
			}
			c.Component.Conditions = append(c.Component.Conditions, condition)
		}
		window := windows[intN(len(windows))]
		if intN(3) == 0 && window > 0 {
			c.Before = window
		} else {
			c.Window = window
		}
		columns = append(columns, c)
	}
	def := definition()
	def.External = intN(3) == 0
	return studyOfExperiment(t, def, columns, []string{"age", "country"}[:intN(3)], []string{"country", "age"}[:intN(3)])
}

// randomConduct ends counting while some of a random world still happens, and
// leaves out what happened in a pause or two, of which the last may go on. Some
// outcomes come at the very moment.
func randomConduct(intN func(int) int, outcomes []storedOutcome) metric.Conduct {
	at := func() time.Time { return day(1).Add(time.Duration(intN(60*24)) * hour) }
	c := metric.Conduct{End: at(), ExcludePauses: intN(2) == 0}
	switch intN(3) {
	case 0:
		c.End = time.Time{}
	case 1:
		c.End = outcomes[intN(len(outcomes))].Time
	}
	for from := at().Add(-20 * 24 * hour); len(c.Pauses) < 2; from = from.Add(15 * 24 * hour) {
		to := outcomes[intN(len(outcomes))].Time
		if to.Before(from) || to.After(from.Add(15*24*hour)) {
			to = from.Add(time.Duration(intN(10*24)) * hour)
		}
		c.Pauses = append(c.Pauses, metric.Stretch{From: from, To: to})
	}
	if intN(2) == 0 {
		c.Pauses[1].To = time.Time{}
	}
	if intN(2) == 0 {
		c.Phases = []experiment.Phase{{Number: 2, Start: day(1), Moves: true}}
	}
	return c
}

// randomTimeline is a study with columns that start some time after exposure.
func randomTimeline(t *testing.T, intN func(int) int) *metric.Study {
	t.Helper()
	def := definition()
	def.Plan.Method = experiment.MethodFixedHorizon
	aggregates := []experiment.Aggregate{experiment.AggregateCount, experiment.AggregateSum, experiment.AggregateAny}
	m := metric.Metric{Key: "m", Revision: 1, Definition: metric.Formula("c", []experiment.Component{
		{Name: "c", Outcome: []string{"purchase", "refund"}[intN(2)], Aggregate: aggregates[intN(3)]},
	})}
	m.Definition.Window = []time.Duration{0, 36 * hour, 31 * 24 * hour, 100 * 24 * hour}[intN(4)]
	study, err := metric.NewTimeline(&def, def.Variants, metric.Use{Metric: m, Role: experiment.RolePrimary})
	if err != nil {
		t.Fatal(err)
	}
	return study
}

// TestPanicWhileReading holds that a panic about a row fails the analysis, where rows
// are read in a goroutine of their own as well, and gives the connections back.
func TestPanicWhileReading(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "control", day(10)))
	study := studyOf(t, []metric.Column{{Component: component(experiment.AggregateCount)}}, nil, nil)
	for range 10 { // More than there are connections.
		_, _, err := d.Subjects(t.Context(), 7, forever, study, func(*metric.Row) error { panic("of a row") })
		if err == nil || !strings.Contains(err.Error(), "panic: of a row\n") {
			t.Fatalf("a panic about a row: %v", err)
		}
	}
}
