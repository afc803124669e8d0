package postgres_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

// world is all that is stored, read row by row.
type world struct {
	exposures []storedExposure
	outcomes  []storedOutcome
	pins      []storedPin
	conduct   metric.Conduct // Of which the moment of the analysis knows all.
}

type storedExposure struct {
	Subject    [16]byte
	Phase      int32
	Variant    string
	Time       time.Time
	Recorded   time.Time
	Bucket     *int32
	Attributes map[string]any
}

type storedOutcome struct {
	Row        [16]byte
	Subject    [16]byte
	Name       string
	Value      *float64
	Time       time.Time
	Recorded   time.Time
	Properties map[string]any
	Corrects   *[16]byte
	Adjusted   *time.Time
	Unit       *string
}

type storedPin struct {
	Subject [16]byte
	Created time.Time
}

func readWorld(t *testing.T, conn *pgx.Conn, id int32) world {
	t.Helper()
	return world{
		exposures: rowsOf[storedExposure](t, conn, `SELECT subject_id, phase, variant, exposed_time, recorded_time, bucket, attributes FROM exposures WHERE experiment_id = $1`, id),
		outcomes: rowsOf[storedOutcome](t, conn, `SELECT row_id, subject_id, name, value, occurred_time, recorded_time, properties, corrects, adjusted_time, unit
			FROM outcomes JOIN outcome_names ON id = name_id`),
		pins: rowsOf[storedPin](t, conn, `SELECT subject_id, create_time FROM overrides WHERE experiment_id = $1`, id),
	}
}

func rowsOf[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) []T {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// subjects is what DB.Subjects promises, said as plainly as Go can: the rows
// as text, in no order, and the subjects left out for a pin by phase, variant and
// whether they were pinned before they were exposed.
func (w world) subjects(asOf time.Time, study *metric.Study) (rows []string, pinned []metric.Excluded) {
	bySubject := map[[16]byte][]storedExposure{}
	for _, e := range w.exposures {
		if !e.Recorded.After(asOf) {
			bySubject[e.Subject] = append(bySubject[e.Subject], e)
		}
	}
	for subject, exposures := range bySubject {
		first := slices.MinFunc(exposures, func(a, b storedExposure) int {
			return cmp.Or(cmp.Compare(a.Phase, b.Phase), a.Time.Compare(b.Time), cmp.Compare(a.Variant, b.Variant))
		})
		earliest := slices.MinFunc(exposures, func(a, b storedExposure) int {
			return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Phase, b.Phase), cmp.Compare(a.Variant, b.Variant))
		})
		var pin time.Time
		for _, p := range w.pins {
			if p.Subject == subject && !p.Created.After(asOf) && (pin.IsZero() || p.Created.Before(pin)) {
				pin = p.Created
			}
		}
		if !pin.IsZero() {
			left := metric.Excluded{Reason: metric.ExclusionOverridden, Phase: first.Phase, Variant: first.Variant, Beforehand: !pin.After(first.Time), Tied: tied(exposures, first), Subjects: 1}
			i := slices.IndexFunc(pinned, func(e metric.Excluded) bool {
				return e.Phase == left.Phase && e.Variant == left.Variant && e.Beforehand == left.Beforehand && e.Tied == left.Tied
			})
			if i < 0 {
				pinned = append(pinned, left)
			} else {
				pinned[i].Subjects++
			}
			continue
		}
		row := metric.Row{Variant: []byte(first.Variant), Phase: first.Phase, FirstExposure: first.Time, Tied: tied(exposures, first), Ahead: first.Time.Sub(first.Recorded) > metric.ClockAhead}
		for _, e := range exposures {
			row.Crossover = row.Crossover || (e.Phase == first.Phase || study.AssignedElsewhere()) && e.Variant != first.Variant
			if e.Phase == first.Phase && e.Bucket != nil && study.NeedsBuckets(asOf) {
				row.Bucket = e.Bucket
			}
		}
		for _, name := range study.Segments() {
			text, _ := textOf(earliest.Attributes[name])
			row.Segments = append(row.Segments, []byte(text))
		}
		if name := study.Stratum(); name != "" {
			text, _ := textOf(earliest.Attributes[name])
			row.Stratum = []byte(text)
		}
		for _, name := range study.Attributes() {
			number, ok := earliest.Attributes[name].(float64)
			if !ok {
				number = math.NaN()
			}
			row.AttributeNumbers = append(row.AttributeNumbers, number)
		}
		for _, c := range study.Columns() {
			row.Values = append(row.Values, w.total(subject, first.Time, earliest.Time, asOf, c))
		}
		rows = append(rows, textOfRow(&row))
	}
	slices.SortFunc(pinned, func(a, b metric.Excluded) int {
		return cmp.Or(cmp.Compare(a.Phase, b.Phase), cmp.Compare(a.Variant, b.Variant), map[bool]int{true: 1}[a.Beforehand]-map[bool]int{true: 1}[b.Beforehand],
			map[bool]int{true: 1}[a.Tied]-map[bool]int{true: 1}[b.Tied])
	})
	return rows, pinned
}

// tied says whether the first exposure is one to several variants.
func tied(exposures []storedExposure, first storedExposure) bool {
	return slices.ContainsFunc(exposures, func(e storedExposure) bool {
		return e.Phase == first.Phase && e.Time.Equal(first.Time) && e.Variant != first.Variant
	})
}

func textOfRow(r *metric.Row) string {
	bucket := int32(-1)
	if r.Bucket != nil {
		bucket = *r.Bucket
	}
	return fmt.Sprintf("%s phase %d bucket %d at %s crossover %t tied %t ahead %t segments %q stratum %q attributes %v values %v",
		r.Variant, r.Phase, bucket, r.FirstExposure.UTC().Format("01-02T15:04:05.000"), r.Crossover, r.Tied, r.Ahead, r.Segments, r.Stratum, r.AttributeNumbers, r.Values)
}

func (w world) total(subject [16]byte, first, earliest, asOf time.Time, c metric.Column) float64 {
	from, to := first.Add(c.Start), first.Add(c.Window)
	if c.Before > 0 {
		from, to = earliest.Add(-c.Before), earliest
	}
	var values []float64
	var latest *storedOutcome
	count, sum := 0.0, 0.0
	days := map[string]bool{}
	for i := range w.outcomes {
		o := w.corrected(w.outcomes[i], asOf, func(adjusted time.Time) bool { return c.Before == 0 || adjusted.Before(earliest) })
		endless := c.Window == 0 && c.Before == 0
		if o.Corrects != nil || o.Subject != subject || o.Name != c.Component.Outcome || o.Recorded.After(asOf) ||
			o.Time.Before(from) || c.Valued && o.Value == nil || !endless && !o.Time.Before(to) || w.leftOut(o, c) || !meetsAll(o, c.Component.Conditions) {
			continue
		}
		count++
		days[o.Time.UTC().Format(time.DateOnly)] = true
		if o.Value != nil {
			values = append(values, *o.Value)
			sum += *o.Value
		}
		if o.Value != nil && (latest == nil || slices.Compare(o.Row[:], latest.Row[:]) > 0) {
			latest = o
		}
	}
	switch a := c.Component.Aggregate; {
	case a == experiment.AggregateCount:
		return count
	case a == experiment.AggregateSum:
		return sum
	case a == experiment.AggregateAny:
		return min(count, 1)
	case a == experiment.AggregateMin && len(values) > 0:
		return slices.Min(values)
	case a == experiment.AggregateMax && len(values) > 0:
		return slices.Max(values)
	case a == experiment.AggregateLast && latest != nil:
		return *latest.Value
	case a == experiment.AggregateDistinctDays:
		return float64(len(days))
	}
	return math.NaN()
}

// leftOut says whether an outcome came once counting had ended, or in a pause.
func (w world) leftOut(o *storedOutcome, c metric.Column) bool {
	paused := slices.ContainsFunc(w.conduct.Pauses, func(p metric.Stretch) bool {
		return !o.Time.Before(p.From) && (p.To.IsZero() || o.Time.Before(p.To))
	})
	return !w.conduct.End.IsZero() && !o.Time.Before(w.conduct.End) || w.conduct.ExcludePauses && c.Before == 0 && paused
}

// corrected returns the outcome with what those of its corrections add that were
// made at a time that counts.
func (w world) corrected(o storedOutcome, asOf time.Time, counts func(adjusted time.Time) bool) *storedOutcome {
	for _, c := range w.outcomes {
		if c.Corrects == nil || *c.Corrects != o.Row || c.Subject != o.Subject || c.Name != o.Name || c.Recorded.After(asOf) || !counts(*c.Adjusted) {
			continue
		}
		sum := *c.Value
		if o.Value != nil {
			sum += *o.Value
		}
		o.Value = &sum
	}
	return &o
}

func meetsAll(o *storedOutcome, conditions []experiment.Condition) bool {
	for _, c := range conditions {
		if !meets(o, c) {
			return false
		}
	}
	return true
}

func meets(o *storedOutcome, c experiment.Condition) bool {
	var text string
	var number float64
	var isText, isNumber bool
	if c.Field == experiment.FieldValue {
		if isNumber = o.Value != nil; isNumber {
			number = *o.Value
		}
	} else {
		text, isText = textOf(o.Properties[c.Field])
		number, isNumber = o.Properties[c.Field].(float64)
	}
	equal := func(v string) bool {
		if isText {
			return v == text
		}
		return parse(v) == number
	}
	switch c.Op {
	case experiment.OpEqual:
		return (isText || isNumber) && slices.ContainsFunc(c.Values, equal)
	case experiment.OpNotEqual:
		return (isText || isNumber) && !slices.ContainsFunc(c.Values, equal)
	case experiment.OpGreater:
		return isNumber && number > parse(c.Values[0])
	case experiment.OpGreaterOrEqual:
		return isNumber && number >= parse(c.Values[0])
	case experiment.OpLess:
		return isNumber && number < parse(c.Values[0])
	case experiment.OpLessOrEqual:
		return isNumber && number <= parse(c.Values[0])
	}
	panic("unknown operator " + c.Op)
}

func parse(s string) float64 {
	x, err := strconv.ParseFloat(s, 64)
	if err != nil {
		panic(err)
	}
	return x
}

// textOf is the text of a JSON value; null is as good as missing.
func textOf(v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "", false
	case string:
		return v, true
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b), true
}
