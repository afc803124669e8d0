package postgres_test

import (
	order "cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

// accounts returns what became of the outcomes of a study's metrics.
func (d *database) accounts(t *testing.T, id int32, asOf time.Time, study *metric.Study) [][]metric.OutcomeUse {
	t.Helper()
	fold := study.NewFold(asOf)
	_, accounted, err := d.Subjects(t.Context(), id, asOf, study, func(r *metric.Row) error {
		fold.Add(r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tally := fold.Tally()
	study.Account(tally, accounted)
	var uses [][]metric.OutcomeUse
	for _, m := range tally.Metrics {
		uses = append(uses, m.Outcomes)
	}
	return uses
}

// What becomes of the outcomes of random worlds is what the reference says.
func TestAccountsAgainstReference(t *testing.T) {
	for seed := range uint64(3) {
		d := newDatabase(t)
		e := createExperiment(t, d.DB, "e", definition())
		randomWorld(t, d, e.ID, seed)
		var others []experiment.Outcome // Of subjects that nobody exposed, some of another unit.
		for i := range 30 {
			o := named(outcome(fmt.Sprint("other", i), 1000+i, day(1+2*i), 1.0, ""), []string{"purchase", "refund", "view"}[i%3])
			o.Unit = []string{"", "user", "account"}[i/3%3]
			others = append(others, o)
		}
		recordOutcomes(t, d.DB, others...)
		exec(t, d.raw, `UPDATE outcomes SET recorded_time = `+someHour(30, `row_id::text`)+` WHERE subject_id = ANY($1)`, subjectIDs(others))
		w := readWorld(t, d.raw, e.ID)
		r := seeded(200 + seed)
		for range 8 {
			study := randomStudy(t, r.IntN)
			conduct := metric.Conduct{}
			if r.IntN(3) == 0 {
				conduct.End = day(20 + r.IntN(30))
			}
			if r.IntN(3) == 0 {
				conduct.Pauses, conduct.ExcludePauses = []metric.Stretch{{From: day(10), To: day(15)}}, true
			}
			if r.IntN(3) > 0 {
				conduct.Phases = randomMoves(r.IntN)
			}
			study = study.Conducted(conduct)
			w.conduct = conduct
			asOf := day(1).Add(time.Duration(r.IntN(40)) * hour)
			if r.IntN(2) == 0 {
				asOf = day(90)
			}
			got := d.accounts(t, e.ID, asOf, study)
			for i := range got {
				for j := range got[i] {
					got[i][j].Similar = nil // Told elsewhere.
					got[i][j].Early = nil
					slices.SortFunc(got[i][j].Lacking, byField)
					for k := range got[i][j].Lacking {
						got[i][j].Lacking[k].Similar = nil
					}
				}
			}
			if diff := cmp.Diff(w.accounts(asOf, study), got); diff != "" {
				t.Errorf("seed %d: %+v (-want +got):\n%s", seed, study.Columns(), diff)
			}
		}
	}
}

// randomMoves are two phases that move subjects, of whom all are exposed before the
// second.
func randomMoves(intN func(int) int) []experiment.Phase {
	var phases []experiment.Phase
	for i := range 2 {
		cut := int32(1000 * intN(40))
		phases = append(phases, experiment.Phase{
			Number: int32(2 + i), Start: day(10+20*i, float64(intN(240))), Moves: true, Reshuffled: intN(4) == 0,
			Allocation: []experiment.Range{{From: 0, To: cut + 1, Variant: "control"}, {From: cut + 1, To: experiment.Buckets, Variant: "short"}},
		})
	}
	return phases
}

func subjectIDs(outcomes []experiment.Outcome) (ids [][16]byte) {
	for i := range outcomes {
		ids = append(ids, outcomes[i].SubjectID)
	}
	return ids
}

// accounts is what becomes of outcomes, said as plainly as Go can.
func (w world) accounts(asOf time.Time, study *metric.Study) (all [][]metric.OutcomeUse) {
	until := asOf
	if end := w.conduct.End; !end.IsZero() && !end.After(asOf) {
		until = end
	} else {
		w.conduct.End = time.Time{}
	}
	first := map[[16]byte]storedExposure{}
	left := map[[16]byte]bool{}
	var from time.Time
	for _, e := range w.exposures {
		if e.Recorded.After(asOf) {
			continue
		}
		if from.IsZero() || e.Time.Before(from) {
			from = e.Time
		}
		known, ok := first[e.Subject]
		if !ok || e.Phase < known.Phase || e.Phase == known.Phase && e.Time.Before(known.Time) {
			first[e.Subject] = e
		}
	}
	for _, e := range w.exposures {
		if known, ok := first[e.Subject]; ok && !e.Recorded.After(asOf) && (e.Phase == known.Phase || study.AssignedElsewhere()) && e.Variant != known.Variant {
			left[e.Subject] = true
		}
	}
	for _, p := range w.pins {
		if _, ok := first[p.Subject]; ok && !p.Created.After(asOf) {
			left[p.Subject] = true
		}
	}
	for _, m := range study.Definitions() {
		var uses []metric.OutcomeUse
		for _, name := range distinct(m) {
			use := metric.OutcomeUse{Name: name}
			var alive []*storedOutcome
			if n := w.nothingToCorrect(name, from, asOf); n > 0 && !from.IsZero() {
				use.NotCounted = map[metric.UncountedReason]int64{metric.NothingToCorrect: n}
			}
			for i := range w.outcomes {
				o := w.corrected(w.outcomes[i], asOf, func(time.Time) bool { return true })
				exposed, ok := first[o.Subject]
				early := o.Time.Before(from)
				if o.Corrects != nil || o.Name != name || o.Recorded.After(asOf) || from.IsZero() ||
					early && (!ok || o.Time.Before(from.Add(-5*time.Second)) || w.pinned(o.Subject, asOf)) {
					continue
				}
				reason := w.reason(o, m, exposed.Time, ok, left[o.Subject] || ok && w.moved(exposed, m.Window, asOf, until), until)
				if reason != metric.OfOtherUnit && !early && (w.conduct.End.IsZero() || o.Time.Before(w.conduct.End)) {
					alive = append(alive, o)
				}
				if reason == "" {
					use.Counted++
					continue
				}
				if use.NotCounted == nil {
					use.NotCounted = map[metric.UncountedReason]int64{}
				}
				use.NotCounted[reason]++
				if reason == metric.BeforeExposure && !o.Time.Before(exposed.Time.Add(-5*time.Second)) {
					use.ShortlyBefore++
				}
				if reason == metric.BeforeExposure && exposed.Time.Sub(exposed.Recorded) > 5*time.Second && !o.Time.Before(exposed.Recorded) {
					use.Hidden++
				}
			}
			if use.Alive = alive != nil; use.Alive {
				use.Lacking = lacking(m, name, alive)
			}
			uses = append(uses, use)
		}
		all = append(all, uses)
	}
	return all
}

// lacking is what the components of a metric need and none of the outcomes has.
func lacking(m *metric.Definition, name string, outcomes []*storedOutcome) (list []metric.Lack) {
	lack := func(field string, number bool, has func(*storedOutcome) bool) {
		if l := (metric.Lack{Field: field, Number: number}); !slices.ContainsFunc(outcomes, has) && !slices.ContainsFunc(list, func(x metric.Lack) bool { return byField(x, l) == 0 }) {
			list = append(list, l)
		}
	}
	hasValue := func(o *storedOutcome) bool { return o.Value != nil }
	for _, c := range m.Components {
		if c.Outcome != name {
			continue
		}
		if needsValue(m, &c) || slices.ContainsFunc(c.Conditions, onValue) {
			lack("value", false, hasValue)
		}
		for _, condition := range c.Conditions {
			switch number := condition.Op != experiment.OpEqual && condition.Op != experiment.OpNotEqual; {
			case onValue(condition):
			case number:
				lack(condition.Field, true, func(o *storedOutcome) bool { _, is := o.Properties[condition.Field].(float64); return is })
			default:
				lack(condition.Field, false, func(o *storedOutcome) bool { return o.Properties[condition.Field] != nil })
			}
		}
	}
	slices.SortFunc(list, byField)
	return list
}

func byField(x, y metric.Lack) int {
	return order.Or(strings.Compare(x.Field, y.Field), strings.Compare(fmt.Sprint(x.Number), fmt.Sprint(y.Number)))
}

// nothingToCorrect counts corrections of which no outcome is known.
func (w world) nothingToCorrect(name string, from, asOf time.Time) (n int64) {
	for _, c := range w.outcomes {
		if c.Corrects == nil || c.Name != name || c.Recorded.After(asOf) || c.Unit != nil || c.Time.Before(from.Add(-5*time.Second)) {
			continue
		}
		if !slices.ContainsFunc(w.outcomes, func(o storedOutcome) bool {
			return o.Corrects == nil && o.Row == *c.Corrects && o.Subject == c.Subject && o.Name == name && !o.Recorded.After(asOf)
		}) {
			n++
		}
	}
	return n
}

// moved says whether a later phase gave a subject another variant within a window.
func (w world) moved(first storedExposure, window time.Duration, asOf, until time.Time) bool {
	bucket := first.Bucket
	for _, e := range w.exposures {
		if e.Subject == first.Subject && e.Phase == first.Phase && e.Bucket != nil && !e.Recorded.After(asOf) {
			bucket = e.Bucket
		}
	}
	return slices.ContainsFunc(w.conduct.Phases, func(p experiment.Phase) bool {
		return p.Number > first.Phase && p.Start.Before(until) && (window == 0 || first.Time.Add(window).After(p.Start)) &&
			(p.Reshuffled || bucket != nil && p.VariantAt(*bucket) != first.Variant)
	})
}

func (w world) pinned(subject [16]byte, asOf time.Time) bool {
	return slices.ContainsFunc(w.pins, func(p storedPin) bool { return p.Subject == subject && !p.Created.After(asOf) })
}

func distinct(m *metric.Definition) (names []string) {
	for _, c := range m.Components {
		if !slices.Contains(names, c.Outcome) {
			names = append(names, c.Outcome)
		}
	}
	return names
}

func (w world) reason(o *storedOutcome, m *metric.Definition, exposed time.Time, isExposed, left bool, until time.Time) metric.UncountedReason {
	paused := w.conduct.ExcludePauses && slices.ContainsFunc(w.conduct.Pauses, func(p metric.Stretch) bool {
		return p.From.Before(until) && !o.Time.Before(p.From) && (o.Time.Before(p.To) || p.To.After(until))
	})
	switch {
	case o.Unit != nil:
		return metric.OfOtherUnit
	case left:
		return metric.OfLeftOut
	case !isExposed:
		return metric.OfNeverExposed
	case o.Time.Before(exposed):
		return metric.BeforeExposure
	case m.Window > 0 && !o.Time.Before(exposed.Add(m.Window)):
		return metric.AfterWindow
	case !w.conduct.End.IsZero() && !o.Time.Before(w.conduct.End):
		return metric.AfterConclusion
	case paused:
		return metric.DuringPause
	}
	reason := metric.ConditionNotMet
	for _, c := range m.Components {
		if c.Outcome != o.Name {
			continue
		}
		if o.Value == nil && meetsAll(o, slices.DeleteFunc(slices.Clone(c.Conditions), onValue)) && (needsValue(m, &c) || slices.ContainsFunc(c.Conditions, onValue)) {
			return metric.WithoutValue
		}
		if meetsAll(o, c.Conditions) {
			reason = ""
		}
	}
	if reason == "" && m.Window > 0 && exposed.Add(m.Window).After(until) {
		return metric.WindowOpen
	}
	return reason
}

func onValue(c experiment.Condition) bool { return c.Field == experiment.FieldValue }

// needsValue says whether a component can take no outcome without a value.
func needsValue(m *metric.Definition, c *experiment.Component) bool {
	switch c.Aggregate {
	case experiment.AggregateSum, experiment.AggregateMin, experiment.AggregateMax, experiment.AggregateLast:
		return true
	case experiment.AggregateCount:
		return strings.HasSuffix(m.Expression, "/ "+c.Name) // Of the formulas here.
	}
	return false
}

// An outcome without a value is told of every metric in which a component lacks no
// more than that, whatever the others make of it. However a mean is written, it is
// of those with a value.
func TestAccountsWithoutValue(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "a", day(10)))
	recordOutcomes(t, d.DB, outcome("a", 1, day(11), 10.0, `{"p":"x"}`), outcome("b", 1, day(11), 2.0, `{"p":"x"}`),
		outcome("c", 1, day(11), nil, `{"p":"x"}`), outcome("d", 1, day(11), nil, `{"p":"y"}`))
	large := experiment.Condition{Field: experiment.FieldValue, Op: experiment.OpGreater, Values: []string{"4"}}
	x := experiment.Condition{Field: "p", Op: experiment.OpEqual, Values: []string{"x"}}
	part := func(name string, a experiment.Aggregate, conditions ...experiment.Condition) experiment.Component {
		return experiment.Component{Name: name, Outcome: "purchase", Aggregate: a, Conditions: conditions}
	}
	const sum, count = experiment.AggregateSum, experiment.AggregateCount
	none := map[metric.UncountedReason]int64(nil)
	for _, c := range []struct {
		name   string
		metric metric.Definition
		values []float64
		use    metric.OutcomeUse
	}{
		{"mean", metric.Mean("purchase", nil), []float64{12, 2}, metric.OutcomeUse{Counted: 2, NotCounted: map[metric.UncountedReason]int64{metric.WithoutValue: 2}}},
		{"ratio", metric.Ratio(part("s", sum), part("c", count)), []float64{12, 2}, metric.OutcomeUse{Counted: 2, NotCounted: map[metric.UncountedReason]int64{metric.WithoutValue: 2}}},
		{"formula", metric.Formula("100 * (s - 1) / c", []experiment.Component{part("s", sum, x), part("c", count, x)}), []float64{12, 2},
			metric.OutcomeUse{Counted: 2, NotCounted: map[metric.UncountedReason]int64{metric.WithoutValue: 1, metric.ConditionNotMet: 1}}},
		{"largest by count", metric.Formula("m / c", []experiment.Component{part("m", experiment.AggregateMax), part("c", count)}), []float64{10, 2},
			metric.OutcomeUse{Counted: 2, NotCounted: map[metric.UncountedReason]int64{metric.WithoutValue: 2}}},
		{"other conditions", metric.Ratio(part("s", sum, x), part("c", count)), []float64{12, 4},
			metric.OutcomeUse{Counted: 3, NotCounted: map[metric.UncountedReason]int64{metric.WithoutValue: 1}}},
		{"by subject", metric.Ratio(part("s", sum), part("c", experiment.AggregateAny)), []float64{12, 1},
			metric.OutcomeUse{Counted: 2, NotCounted: map[metric.UncountedReason]int64{metric.WithoutValue: 2}}},
		{"count for itself", metric.Formula("s / c + c", []experiment.Component{part("s", sum), part("c", count)}), []float64{12, 4},
			metric.OutcomeUse{Counted: 2, NotCounted: map[metric.UncountedReason]int64{metric.WithoutValue: 2}}},
		{"condition on the value", metric.Ratio(part("l", count, large), part("c", count)), []float64{1, 4},
			metric.OutcomeUse{Counted: 2, NotCounted: map[metric.UncountedReason]int64{metric.WithoutValue: 2}}},
		{"conditions", metric.Proportion("purchase", []experiment.Condition{large, x}), []float64{1},
			metric.OutcomeUse{Counted: 1, NotCounted: map[metric.UncountedReason]int64{metric.WithoutValue: 1, metric.ConditionNotMet: 2}}},
		{"count", metric.Formula("c", []experiment.Component{part("c", count)}), []float64{4}, metric.OutcomeUse{Counted: 4, NotCounted: none}},
	} {
		def := definition()
		def.Variants = append(def.Variants, experiment.Variant{Key: "a"})
		study, err := metric.NewStudy(&def, def.Variants, []metric.Use{{Metric: metric.Metric{Key: "m", Revision: 1, Definition: c.metric}, Role: experiment.RoleSecondary}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		rows, _ := d.subjects(t, 7, forever, study)
		if diff := cmp.Diff(c.values, rows[0].Values); diff != "" {
			t.Errorf("%s: values (-want +got):\n%s", c.name, diff)
		}
		c.use.Name, c.use.Alive = "purchase", true
		if diff := cmp.Diff([][]metric.OutcomeUse{{c.use}}, d.accounts(t, 7, forever, study)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// Who first met a variant that is not analysed is left out, as who met two is.
func TestAccountsOfOtherVariants(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "control", day(10)), exposure(2, "gone", day(10)), exposure(3, "control", day(10)), exposure(3, "a", day(11)))
	recordOutcomes(t, d.DB, outcome("a", 1, day(12), 1.0, ""), outcome("b", 2, day(12), 1.0, ""), outcome("c", 2, day(13), 1.0, ""), outcome("d", 3, day(12), 1.0, ""))
	def := definition() // Of control and short.
	def.Variants = append(def.Variants, experiment.Variant{Key: "a"})
	study, err := metric.NewStudy(&def, def.Variants, []metric.Use{{Metric: metric.Metric{Key: "m", Revision: 1, Definition: metric.Sum("purchase", nil)}, Role: experiment.RoleSecondary}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]metric.OutcomeUse{{{Name: "purchase", Alive: true, Counted: 1, NotCounted: map[metric.UncountedReason]int64{metric.OfLeftOut: 3}}}}
	if diff := cmp.Diff(want, d.accounts(t, 7, forever, study)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Each name is counted by the conditions on it, though other metrics have the same on
// another name, and the same metric others on another.
func TestAccountsByName(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "control", day(10)))
	for i, name := range []string{"purchase", "refund"} {
		for k := range 3 + i {
			recordOutcomes(t, d.DB, named(outcome(fmt.Sprint(name, k), 1, day(11), 1.0, []string{`{"p":"x"}`, `{"p":"y"}`}[k%2]), name))
		}
	}
	x := []experiment.Condition{{Field: "p", Op: experiment.OpEqual, Values: []string{"x"}}}
	def := definition()
	var uses []metric.Use
	for i, m := range []metric.Definition{
		metric.Ratio(experiment.Component{Name: "s", Outcome: "purchase", Aggregate: experiment.AggregateSum, Conditions: x}, experiment.Component{Name: "c", Outcome: "refund", Aggregate: experiment.AggregateCount}),
		metric.Sum("purchase", x), metric.Sum("refund", x),
	} {
		uses = append(uses, metric.Use{Metric: metric.Metric{Key: string(rune('a' + i)), Revision: 1, Definition: m}, Role: experiment.RoleSecondary})
	}
	study, err := metric.NewStudy(&def, def.Variants, uses, nil)
	if err != nil {
		t.Fatal(err)
	}
	of := func(name string, counted, others int64) metric.OutcomeUse {
		use := metric.OutcomeUse{Name: name, Alive: true, Counted: counted}
		if others > 0 {
			use.NotCounted = map[metric.UncountedReason]int64{metric.ConditionNotMet: others}
		}
		return use
	}
	want := [][]metric.OutcomeUse{{of("purchase", 2, 1), of("refund", 4, 0)}, {of("purchase", 2, 1)}, {of("refund", 2, 2)}}
	if diff := cmp.Diff(want, d.accounts(t, 7, forever, study)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// However many conditions that have nothing to do with each other metrics have on
// the outcomes of one name, what is read of them does not grow with the outcomes.
func TestAccountsAreBounded(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "control", day(10)))
	var outcomes []experiment.Outcome
	for i := range 64 { // All combinations of six properties.
		outcomes = append(outcomes, outcome(fmt.Sprint(i), 1, day(11), 1.0, fmt.Sprintf(`{"a":%d,"b":%d,"c":%d,"d":%d,"e":%d,"f":%d}`, i&1, i>>1&1, i>>2&1, i>>3&1, i>>4&1, i>>5&1)))
	}
	recordOutcomes(t, d.DB, outcomes...)
	def := definition()
	var uses []metric.Use
	for _, p := range []string{"a", "b", "c", "d", "e", "f"} {
		m := metric.Metric{Key: p, Revision: 1, Definition: metric.Proportion("purchase", []experiment.Condition{{Field: p, Op: experiment.OpEqual, Values: []string{"1"}}})}
		uses = append(uses, metric.Use{Metric: m, Role: experiment.RoleSecondary})
	}
	study, err := metric.NewStudy(&def, def.Variants, uses, nil)
	if err != nil {
		t.Fatal(err)
	}
	fold := study.NewFold(forever)
	_, accounted, err := d.Subjects(t.Context(), 7, forever, study, func(*metric.Row) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if n := len(accounted.Placed); n != 1 {
		t.Errorf("%d groups, want 1", n)
	}
	tally := fold.Tally()
	study.Account(tally, accounted)
	for _, m := range tally.Metrics {
		if use := m.Outcomes[0]; use.Counted != 32 || use.NotCounted[metric.ConditionNotMet] != 32 {
			t.Errorf("%s: %+v", m.Metric, use)
		}
	}
}

// Names that differ in nothing but what people mistype are told, with the unit
// and how many outcomes arrived in the same stretch, and so is the same name of
// other units. Names that differ in a number are others.
func TestSimilarOutcomes(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "a", day(10)))
	record := func(name, unit string, subjects, at int) {
		for n := range subjects {
			o := named(outcome(fmt.Sprint(name, unit), 100+n, day(at), nil, ""), name)
			o.Unit = unit
			recordOutcomes(t, d.DB, o)
		}
	}
	record("Sign-Up", "user", 3, 11)
	record("sign_up", "account", 4, 11)
	record("signups", "", 1, 11)
	record("signup", "device", 2, 11)
	record("signup1", "", 9, 11)
	record("signin", "", 9, 11)
	record("sign.up", "", 9, 9) // Before the stretch.
	for i, name := range []string{"Signup", "SIGNUP", "signnup"} {
		record(name, "", 5+i, 11)
	}
	study := studyOf(t, []metric.Column{{Component: experiment.Component{Outcome: "signup", Aggregate: experiment.AggregateCount}}}, nil, nil)
	want := [][]metric.OutcomeUse{{{Name: "signup", NotCounted: map[metric.UncountedReason]int64{metric.OfOtherUnit: 2}, Similar: []metric.SimilarOutcomes{
		{Name: "signnup", Unit: "user", Outcomes: 7}, {Name: "SIGNUP", Unit: "user", Outcomes: 6}, {Name: "Signup", Unit: "user", Outcomes: 5},
		{Name: "sign_up", Unit: "account", Outcomes: 4}, {Name: "Sign-Up", Unit: "user", Outcomes: 3}}}}}
	if diff := cmp.Diff(want, d.accounts(t, 7, forever, study)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Of a name of whose outcomes most are of analysed subjects no others are looked for.
func TestNothingIsSimilarToWhatIsWell(t *testing.T) {
	for subject, want := range map[int]int{1: 0, 9: 1} {
		d := newDatabase(t)
		recordExposures(t, d.DB, exposure(1, "control", day(10)))
		recordOutcomes(t, d.DB, outcome("x", 1, day(11), 1.0, ""), outcome("y", subject, day(11), 1.0, ""), named(outcome("z", 1, day(11), 1.0, ""), "Purchase"))
		study := studyOf(t, []metric.Column{{Component: component(experiment.AggregateCount)}}, nil, nil)
		if use := d.accounts(t, 7, forever, study)[0][0]; len(use.Similar) != want {
			t.Errorf("one outcome of subject %d: %+v", subject, use)
		}
	}
}

// A name is alive by what somebody did before counting ended, and only by that.
func TestAliveBeforeTheEnd(t *testing.T) {
	for _, c := range []struct {
		day  int
		want bool
	}{{19, true}, {20, false}, {21, false}} {
		d := newDatabase(t)
		recordExposures(t, d.DB, exposure(1, "control", day(10)))
		recordOutcomes(t, d.DB, outcome("x", 9, day(c.day), 1.0, ""))
		study := studyOf(t, []metric.Column{{Component: component(experiment.AggregateCount)}}, nil, nil).Conducted(metric.Conduct{End: day(20)})
		for _, study := range []*metric.Study{study, study.AliveOnly()} {
			if use := d.accounts(t, 7, forever, study)[0][0]; use.Alive != c.want {
				t.Errorf("an outcome of day %d, and counting ends on day 20: alive %t", c.day, use.Alive)
			}
		}
	}
}

// Early outcomes are told by variant and with their subjects where one variant has
// more of them than chance leaves it, and only there.
func TestEarlyOutcomes(t *testing.T) {
	for _, uneven := range []bool{false, true} {
		d := newDatabase(t)
		var exposures []experiment.Exposure
		var outcomes []experiment.Outcome
		for i := range 80 {
			variant := []string{"control", "short"}[i%2]
			exposures = append(exposures, exposure(i, variant, day(10)))
			outcomes = append(outcomes, outcome("later", i, day(11), 1.0, ""))
			if i < 60 && (i%2 == 1 || !uneven) {
				outcomes = append(outcomes, outcome("early", i, day(10).Add(-2*time.Second), 1.0, ""), outcome("again", i, day(10).Add(-time.Second), 1.0, ""),
					outcome("long before", i, day(10).Add(-6*time.Second), 1.0, ""))
			}
		}
		recordExposures(t, d.DB, exposures...)
		recordOutcomes(t, d.DB, outcomes...)
		study := studyOf(t, []metric.Column{{Component: component(experiment.AggregateCount)}}, nil, nil)
		var want []metric.EarlyOutcomes
		if uneven {
			want = []metric.EarlyOutcomes{{Phase: 1, Variant: "control", Outcomes: 40}, {Phase: 1, Variant: "short", Outcomes: 100, Early: 60, Subjects: 30}}
		}
		use := d.accounts(t, 7, forever, study)[0][0]
		if diff := cmp.Diff(want, use.Early); diff != "" {
			t.Errorf("uneven: %t (-want +got):\n%s", uneven, diff)
		}
	}
}

// What a component needs and no outcome has is told, with the property that may
// have been meant; that its condition is not met is not that, nor whose it is.
func TestLackingProperties(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "control", day(10)))
	account := outcome("f", 8, day(11), 1.0, `{"severity":"fatal"}`)
	account.Unit = "account"
	recordOutcomes(t, d.DB, outcome("a", 1, day(11), nil, `{"severty":"fatal","other":1}`), outcome("b", 9, day(11), nil, `{"level":"3","none":null}`),
		named(outcome("c", 1, day(11), 2.0, `{"severity":"fatal"}`), "view"), outcome("d", 9, day(9), 1.0, `{"severity":"fatal"}`), account,
		outcome("e", 9, day(20), 1.0, `{"severity":"fatal"}`))
	on := func(field string, op experiment.Op, value string) []experiment.Condition {
		return []experiment.Condition{{Field: field, Op: op, Values: []string{value}}}
	}
	views := experiment.Component{Name: "views", Outcome: "view", Aggregate: experiment.AggregateCount}
	for _, c := range []struct {
		name   string
		metric metric.Definition
		want   []metric.Lack
	}{
		{"misspelt", metric.Proportion("purchase", on("severity", experiment.OpEqual, "fatal")), []metric.Lack{{Field: "severity", Similar: []string{"severty"}}}},
		{"not met", metric.Proportion("purchase", on("other", experiment.OpGreater, "5")), nil},
		{"of somebody", metric.Proportion("purchase", on("level", experiment.OpNotEqual, "3")), nil},
		{"no number", metric.Proportion("purchase", on("level", experiment.OpGreater, "1")), []metric.Lack{{Field: "level", Number: true}}},
		{"null", metric.Proportion("purchase", on("none", experiment.OpEqual, "1")), []metric.Lack{{Field: "none"}}},
		{"value", metric.Proportion("purchase", on("value", experiment.OpGreater, "1")), []metric.Lack{{Field: "value"}}},
		{"sum", metric.Sum("purchase", nil), []metric.Lack{{Field: "value"}}},
		{"of another name", metric.Ratio(experiment.Component{Name: "fatal", Outcome: "purchase", Aggregate: experiment.AggregateCount, Conditions: on("severity", experiment.OpEqual, "fatal")}, views),
			[]metric.Lack{{Field: "severity", Similar: []string{"severty"}}}},
		{"there", metric.Sum("view", on("severity", experiment.OpEqual, "x")), nil},
	} {
		def := definition()
		study, err := metric.NewStudy(&def, def.Variants, []metric.Use{{Metric: metric.Metric{Key: "m", Revision: 1, Definition: c.metric}, Role: experiment.RoleSecondary}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		study = study.Conducted(metric.Conduct{End: day(20)})
		for _, study := range []*metric.Study{study, study.AliveOnly()} {
			uses := d.accounts(t, 7, forever, study)
			if diff := cmp.Diff(c.want, uses[0][0].Lacking, cmpopts.EquateEmpty()); diff != "" || !uses[0][0].Alive {
				t.Errorf("%s (-want +got):\n%s", c.name, diff)
			}
		}
	}
}

// A covariate of past outcomes is without data if nobody of the unit had one in the
// stretch that it looks into, whatever came after; what is like it is told.
func TestDeadCovariates(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "control", day(10)), exposure(2, "short", day(12)))
	account := named(outcome("v", 9, day(9), nil, ""), "view")
	account.Unit = "account"
	recordOutcomes(t, d.DB, outcome("x", 9, day(9), 1.0, ""), outcome("y", 1, day(13), 1.0, ""), named(outcome("z", 9, day(7), nil, ""), "refund"),
		named(outcome("w", 9, day(12), nil, ""), "refund"), account)
	past := func(name string, window time.Duration) metric.Column {
		return metric.Column{Component: experiment.Component{Outcome: name, Aggregate: experiment.AggregateCount}, Before: window}
	}
	columns := []metric.Column{{Component: component(experiment.AggregateCount)}, past("purchase", 48*hour), past("purchase", hour),
		past("refund", 48*hour), past("refund", 96*hour), past("purchases", 48*hour), past("view", 48*hour)}
	_, accounted, err := d.Subjects(t.Context(), 7, forever, studyOf(t, columns, nil, nil), func(*metric.Row) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	want := []metric.DeadPast{
		{Past: metric.Past{Outcome: "purchase", Window: hour}},
		{Past: metric.Past{Outcome: "refund", Window: 48 * hour}},
		{Past: metric.Past{Outcome: "purchases", Window: 48 * hour}, Similar: []metric.SimilarOutcomes{{Name: "purchase", Unit: "user", Outcomes: 2}}},
		{Past: metric.Past{Outcome: "view", Window: 48 * hour}, Similar: []metric.SimilarOutcomes{{Name: "view", Unit: "account", Outcomes: 1}}},
	}
	if diff := cmp.Diff(want, accounted.DeadPasts); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The unit of what was recorded before units were is not known: it may be the
// experiment's, and makes a name alive. The default unit of what came later is.
func TestUnitsFromBeforeTheyWereRecorded(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "a", day(10)))
	recordOutcomes(t, d.DB, outcome("x", 2, day(11), 1.0, ""))
	def := definition()
	def.Unit = "account"
	use := metric.Use{Metric: metric.Metric{Key: "m", Revision: 1, Definition: metric.Sum("purchase", nil)}, Role: experiment.RoleSecondary}
	study, err := metric.NewStudy(&def, def.Variants, []metric.Use{use}, nil)
	if err != nil {
		t.Fatal(err)
	}
	user := []metric.SimilarOutcomes{{Name: "purchase", Unit: "user", Outcomes: 1}}
	for _, c := range []struct {
		since string
		want  metric.OutcomeUse
	}{
		{"2020-01-01", metric.OutcomeUse{Name: "purchase", NotCounted: map[metric.UncountedReason]int64{metric.OfOtherUnit: 1}, Similar: user}},
		{"2100-01-01", metric.OutcomeUse{Name: "purchase", Alive: true, NotCounted: map[metric.UncountedReason]int64{metric.OfNeverExposed: 1}}},
	} {
		exec(t, d.raw, `UPDATE settings SET value = $1 WHERE name = 'outcome_units_since'`, c.since)
		if diff := cmp.Diff([][]metric.OutcomeUse{{c.want}}, d.accounts(t, 7, forever, study)); diff != "" {
			t.Errorf("units recorded since %s (-want +got):\n%s", c.since, diff)
		}
	}
}

// The unit of a subject is kept by every way in which outcomes are written, and
// the default one takes no room. What a server from before wrote has none.
func TestUnitsAreKept(t *testing.T) {
	d := newDatabase(t)
	of := func(event, unit string, subject int) experiment.Outcome {
		o := outcome(event, subject, day(5), 1.0, "")
		o.Unit = unit
		return o
	}
	account := of("a", "account", 1)
	recordOutcomes(t, d.DB, account, of("b", "user", 2), of("c", "", 3))
	// Once one is repeated, others are looked up first, and inserted at last.
	if got := recordOutcomes(t, d.DB, account, of("d", "device", 4), of("e", "user", 5)); !slices.Equal(got, []experiment.Result{experiment.Duplicate, experiment.Recorded, experiment.Recorded}) {
		t.Errorf("results %v", got)
	}
	exec(t, d.raw, `INSERT INTO outcomes (row_id, subject_id, name_id, occurred_time) SELECT $1, $2, id, $3 FROM outcome_names`,
		[16]byte(of("f", "", 6).RowID), [16]byte(subjectID(6)), day(5))
	units := list[string](t, d.raw, `SELECT coalesce(unit, 'none') FROM outcomes ORDER BY unit NULLS LAST`)
	if diff := cmp.Diff([]string{"account", "device", "none", "none", "none", "none"}, units); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Who asks only whether names are alive hears it of what the exposed have as of
// what others have, and of what nobody has that it is not.
func TestAliveOnly(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "a", day(10)))
	recordOutcomes(t, d.DB, outcome("x", 1, day(11), 1.0, ""), named(outcome("y", 2, day(11), 1.0, ""), "refund"), named(outcome("z", 1, day(9), 1.0, ""), "view"))
	for names, want := range map[string][]bool{"purchase": {true}, "refund": {true}, "view": {false}, "purchase refund": {true, true}, "purchase view": {true, false}} {
		var columns []metric.Column
		for _, name := range strings.Fields(names) {
			columns = append(columns, metric.Column{Component: experiment.Component{Outcome: name, Aggregate: experiment.AggregateCount}})
		}
		columns = append(columns, metric.Column{Component: experiment.Component{Outcome: "view", Aggregate: experiment.AggregateCount}, Before: 100 * hour})
		var got []bool
		for _, uses := range d.accounts(t, 7, forever, studyOf(t, columns, nil, nil).AliveOnly()) {
			got = append(got, uses[0].Alive)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: alive %v, want %v", names, got, want)
		}
	}
}

// What happened before the first exposure of all, if only seconds, is no sign of life.
func TestEarlyIsNotAlive(t *testing.T) {
	d := newDatabase(t)
	recordExposures(t, d.DB, exposure(1, "control", day(10)), exposure(2, "short", day(11)))
	recordOutcomes(t, d.DB, outcome("early", 1, day(10).Add(-2*time.Second), 1.0, ""),
		named(outcome("between", 2, day(11).Add(-2*time.Second), 1.0, ""), "view"))
	study := studyOf(t, []metric.Column{{Component: experiment.Component{Outcome: "purchase", Aggregate: experiment.AggregateCount}},
		{Component: experiment.Component{Outcome: "view", Aggregate: experiment.AggregateCount}}}, nil, nil)
	for i, alive := range []bool{false, true} { // The second is from after the first exposure of somebody else.
		if use := d.accounts(t, 7, forever, study)[i][0]; use.Alive != alive || use.ShortlyBefore != 1 {
			t.Errorf("%+v", use)
		}
	}
}
