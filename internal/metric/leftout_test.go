package metric

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

func aggregated(a experiment.Aggregate, cap *experiment.Cap) Definition {
	return Formula("m", []experiment.Component{{Name: "m", Outcome: "load", Aggregate: a, Cap: cap}})
}

// A subject without an outcome has no largest value, and does not count; the others
// do as if it were not there, with caps by percentile too.
func TestFoldLeavesOutWhoHasNoNumber(t *testing.T) {
	median := &experiment.Cap{Upper: &experiment.Bound{Value: 50, Percentile: true}}
	uses := []Use{use("plain", aggregated(experiment.AggregateMax, nil), experiment.RolePrimary), use("capped", aggregated(experiment.AggregateMax, median), experiment.RoleSecondary),
		use("count", aggregated(experiment.AggregateCount, nil), experiment.RoleSecondary)}
	s := mustStudy(t, definition("control", "short"), uses)
	nan := math.NaN()
	with := []Row{row("control", 1, 1), row("control", 3, 1), row("short", 5, 2), row("short", 9, 1)}
	without := append([]Row{row("control", nan, 0), row("short", nan, 0)}, append(with, row("short", nan, 0))...)
	got, want := fold(s, without...), fold(s, with...)
	for m := range 2 {
		if diff := cmp.Diff(want.Metrics[m].Whole, got.Metrics[m].Whole); diff != "" {
			t.Errorf("metric %d (-want +got):\n%s", m, diff)
		}
		if diff := cmp.Diff(map[LeftOutReason][]int64{NoOutcome: {1, 2}}, got.Metrics[m].LeftOut); diff != "" {
			t.Errorf("metric %d (-want +got):\n%s", m, diff)
		}
	}
	if n := got.Metrics[2].Whole[1][0].N; n != 4 || got.Metrics[2].LeftOut != nil {
		t.Errorf("a count has %d subjects of short, and leaves out %v; none is absent from it", n, got.Metrics[2].LeftOut)
	}
	a, err := s.Analyze(got, map[int32][]float64{1: {0.5, 0.5}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]LeftOut{{NoOutcome, map[string]int64{"control": 1, "short": 2}, 3. / 7}}, a.Metrics[0].LeftOut); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A plan counts those who count for its primary metric, and whoever waits for them is
// told how many were exposed, and why not all count.
func TestVerdictOfThoseWhoCount(t *testing.T) {
	d := definition("control", "short")
	d.Plan.Method, d.Plan.PlannedSubjects = experiment.MethodFixedHorizon, 200
	load := aggregated(experiment.AggregateMax, nil)
	s := mustStudy(t, d, []Use{use("load", load, experiment.RolePrimary)})
	var rows []Row
	for i := range 200 {
		r := row([]string{"control", "short"}[i%2], math.NaN())
		if i%4 < 2 {
			r.Values[0] = float64(50 + i%30)
		}
		rows = append(rows, r)
	}
	a := mustAnalyze(t, s, fold(s, rows...), 0)
	const says = "100 of 200 planned subjects have been analysed of 200 exposed (not counted for load: 100 without an outcome for it), and a fixed horizon decides only then."
	if a.Verdict.Action != ActionKeepRunning || a.Verdict.Reasons[0] != says {
		t.Errorf("%s, %q", a.Verdict.Action, a.Verdict.Reasons)
	}
	list := s.Deviations(a, Course{Concluded: true})
	const early = "The experiment was concluded with 100 of 200 planned subjects exposed, besides 100 without an outcome for the primary metric, and undecided."
	if len(list) != 1 || list[0].Reason != "ENDED_EARLY" || list[0].Message != early {
		t.Errorf("deviations %+v", list)
	}
	for i := range rows {
		rows[i].Values[0] = float64(50 + i%30)
	}
	if a := mustAnalyze(t, s, fold(s, rows[:100]...), 0); a.Verdict.Reasons[0] != "100 of 200 planned subjects have been analysed, and a fixed horizon decides only then." {
		t.Errorf("all count: %q", a.Verdict.Reasons)
	}
}

// A window that is open leaves a subject without an outcome open: one may come.
func TestFoldWaitsForANumber(t *testing.T) {
	d := aggregated(experiment.AggregateLast, nil)
	d.Window = 24 * time.Hour
	s := mustStudy(t, definition("control", "short"), []Use{use("m", d, experiment.RolePrimary)})
	r := row("control", math.NaN())
	r.FirstExposure = moment.Add(-time.Hour)
	if m := fold(s, r).Metrics[0]; m.OpenWindows != 1 || m.LeftOut != nil {
		t.Errorf("%d open windows, left out %v", m.OpenWindows, m.LeftOut)
	}
}

// Subjects that have no largest value from before exposure are told apart from
// those whose largest value was 0, as those without an attribute are.
func TestMissingPastIsNotZero(t *testing.T) {
	d := definition("control", "short")
	d.Covariates = []experiment.Covariate{
		{Name: "past", Past: &experiment.PastOutcomes{Component: experiment.Component{Outcome: "load", Aggregate: experiment.AggregateMax}, Window: time.Hour}},
		{Name: "kept", Attribute: "kept"},
	}
	one, other := use("past", Sum("purchase", nil), experiment.RolePrimary), use("kept", Sum("purchase", nil), experiment.RoleSecondary)
	one.Covariates, other.Covariates = []string{"past"}, []string{"kept"}
	s := mustStudy(t, d, []Use{one, other})
	r := rand.New(rand.NewPCG(1, 2))
	var rows []Row
	for i := range 400 {
		before := 1.7e9 + r.NormFloat64()
		if i%5 == 0 {
			before = math.NaN()
		}
		item := row([]string{"control", "short"}[i%2], r.NormFloat64(), before)
		item.AttributeNumbers = []float64{before}
		rows = append(rows, item)
	}
	tally := fold(s, rows...)
	if diff := cmp.Diff(tally.Metrics[0].Whole, tally.Metrics[1].Whole); diff != "" {
		t.Errorf("a past that is missing enters otherwise than an attribute (-attribute +past):\n%s", diff)
	}
	a, err := s.Analyze(tally, map[int32][]float64{1: {0.5, 0.5}})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Balance) != 4 || !a.Balance[1].Missing {
		t.Errorf("balance %+v, want the past and its lack, and the same of the attribute", a.Balance)
	}
}

// A mean divides by how many values there were, however it is written; a count of
// its own is of outcomes. Definitions as they are stored say nothing of it.
func TestMeansCountValues(t *testing.T) {
	mean := Mean("purchase", nil)
	ratio := Ratio(mean.Components[0], mean.Components[1])
	count := Formula("count", mean.Components[1:])
	s := mustStudy(t, definition("control", "short"), []Use{use("mean", mean, experiment.RolePrimary), use("ratio", ratio, experiment.RoleSecondary), use("count", count, experiment.RoleSecondary)})
	var valued []bool
	for _, c := range s.Columns() {
		valued = append(valued, c.Valued)
	}
	if diff := cmp.Diff([]bool{false, true, false}, valued); diff != "" {
		t.Errorf("sum, count of values and count (-want +got):\n%s", diff)
	}
}

// Whatever numbers subjects lack, no figure is NaN.
func TestLackIsNeverNaN(t *testing.T) {
	aggregates := []experiment.Aggregate{experiment.AggregateMin, experiment.AggregateMax, experiment.AggregateLast, experiment.AggregateSum}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		d := definition("control", "short", "long")
		d.Plan.Method = []experiment.Method{experiment.MethodAlwaysValid, experiment.MethodFixedHorizon, experiment.MethodBayesian}[r.IntN(3)]
		d.Covariates = []experiment.Covariate{{Name: "past", Past: &experiment.PastOutcomes{
			Component: experiment.Component{Outcome: "load", Aggregate: aggregates[r.IntN(4)]}, Window: time.Hour}}}
		var uses []Use
		for i := range 3 {
			cap := []*experiment.Cap{nil, {Upper: &experiment.Bound{Value: 80, Percentile: true}}, {Lower: &experiment.Bound{Value: 1}}}[r.IntN(3)]
			m := Formula("a / b", []experiment.Component{
				{Name: "a", Outcome: "load", Aggregate: aggregates[r.IntN(4)], Cap: cap}, {Name: "b", Outcome: "view", Aggregate: aggregates[r.IntN(4)]}})
			m.Window = time.Duration(r.IntN(2)) * 24 * time.Hour
			u := use(string(rune('a'+i)), m, []experiment.Role{experiment.RolePrimary, experiment.RoleSecondary, experiment.RoleSecondary}[i])
			u.Covariates = []string{"past"}[:r.IntN(2)]
			uses = append(uses, u)
		}
		s := mustStudy(t, d, uses, "country")
		lack := r.Float64() * 1.2 // At times all of them.
		var rows []Row
		for range r.IntN(200) {
			item := Row{Variant: []byte([]string{"control", "short", "long"}[r.IntN(3)]), Phase: int32(1 + r.IntN(2)),
				FirstExposure: moment.Add(-time.Duration(r.IntN(10*24)) * time.Hour), Segments: [][]byte{[]byte([]string{"PL", "DE", ""}[r.IntN(3)])}}
			for _, c := range s.Columns() {
				x := float64(r.IntN(5))
				if c.Optional() && r.Float64() < lack {
					x = math.NaN()
				}
				item.Values = append(item.Values, x)
			}
			rows = append(rows, item)
		}
		tally := fold(s, rows...)
		if _, err := json.Marshal(tally); err != nil {
			t.Fatalf("seed %d: the tally: %v", seed, err)
		}
		a, err := s.Analyze(tally, map[int32][]float64{1: {0.4, 0.3, 0.3}, 2: {0.4, 0.3, 0.3}})
		if err != nil {
			t.Fatal(err)
		}
		if path := notFinite(reflect.ValueOf(a), "analysis"); path != "" {
			t.Fatalf("seed %d: %s is not finite", seed, path)
		}
		for _, text := range append(a.Verdict.Reasons, a.Warnings...) {
			if strings.Contains(text, "NaN") {
				t.Errorf("seed %d: %s", seed, text)
			}
		}
	}
}

// notFinite is the path to a number that is NaN or infinite; empty if there is
// none.
func notFinite(v reflect.Value, path string) string {
	switch v.Kind() {
	case reflect.Float64:
		if math.IsNaN(v.Float()) || math.IsInf(v.Float(), 0) {
			return path
		}
	case reflect.Pointer:
		if !v.IsNil() {
			return notFinite(v.Elem(), path)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return ""
		}
		for i := range v.NumField() {
			if p := notFinite(v.Field(i), path+"."+v.Type().Field(i).Name); p != "" {
				return p
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if p := notFinite(v.Index(i), path); p != "" {
				return p
			}
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			if p := notFinite(v.MapIndex(key), path); p != "" {
				return p
			}
		}
	}
	return ""
}

// Who reports is part of the effect if more do in one variant than in another.
func TestUnequalReports(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("m", aggregated(experiment.AggregateMax, nil), experiment.RolePrimary)})
	for _, c := range []struct {
		lacking int // Of 100 in short; 10 lack it in control.
		want    bool
	}{{10, false}, {20, false}, {40, true}, {100, true}} {
		var rows []Row
		for i := range 100 {
			control, short := row("control", float64(i)), row("short", float64(i))
			if i < 10 {
				control.Values[0] = math.NaN()
			}
			if i < c.lacking {
				short.Values[0] = math.NaN()
			}
			rows = append(rows, control, short)
		}
		a, err := s.Analyze(fold(s, rows...), map[int32][]float64{1: {0.5, 0.5}})
		if err != nil {
			t.Fatal(err)
		}
		said := false
		for _, w := range a.Warnings {
			said = said || strings.HasPrefix(w, "Metric m leaves out the subjects that have no outcome for it") && strings.Contains(w, "10 of 100 in control")
		}
		if said != c.want {
			t.Errorf("%d of 100 lack it: warnings %q", c.lacking, a.Warnings)
		}
	}
}

// A mean tells of those alone who have a value, so that the variants' shares of them
// are tested as those of a largest value are, where a verdict rests on it. What
// another formula divides by is told, and withholds nothing.
func TestUnequalMeans(t *testing.T) {
	mean := Mean("load", nil)
	swapped := Ratio(mean.Components[1], mean.Components[0]) // A count over a sum is no mean.
	for _, c := range []struct {
		name           string
		metric         Definition
		role           experiment.Role
		lacking        int // Of 1000 in short; none in control.
		told, withheld bool
	}{
		{"none", mean, experiment.RolePrimary, 0, false, false},
		{"chance", mean, experiment.RolePrimary, 8, false, false},
		{"primary", mean, experiment.RolePrimary, 439, true, true},
		{"all", mean, experiment.RolePrimary, 1000, true, true},
		{"guardrail", mean, experiment.RoleGuardrail, 439, true, true},
		{"secondary", mean, experiment.RoleSecondary, 439, true, false},
		{"formula", Formula("1000 * (s - 1) / n", []experiment.Component{{Name: "s", Outcome: "load", Aggregate: experiment.AggregateSum}, {Name: "n", Outcome: "load", Aggregate: experiment.AggregateCount}}), experiment.RolePrimary, 439, true, true},
		{"other ratio", swapped, experiment.RolePrimary, 439, true, false},
	} {
		uses := []Use{use("m", c.metric, c.role)}
		if c.role != experiment.RolePrimary {
			uses = append(uses, use("other", Proportion("other", nil), experiment.RolePrimary))
		}
		if c.role == experiment.RoleGuardrail {
			uses[0].Margin = &experiment.Magnitude{Value: 5}
		}
		s := mustStudy(t, definition("control", "short"), uses)
		var rows []Row
		for i := range 1000 {
			for _, v := range []string{"control", "short"} {
				values := make([]float64, len(s.Columns()))
				for k, column := range s.Columns() {
					switch {
					case column.Component.Outcome == "other" || v == "short" && i < c.lacking:
					case column.Component.Aggregate == experiment.AggregateSum:
						values[k] = 10 + float64(i%7)
					default:
						values[k] = 1
					}
				}
				rows = append(rows, row(v, values...))
			}
		}
		a := mustAnalyze(t, s, fold(s, rows...), 0)
		said := func(texts []string) (n int) {
			for _, text := range texts {
				if strings.Contains(text, "Metric m tells nothing of the subjects that have no ") && strings.Contains(text, "(0 of 1000 in control, "+strconv.Itoa(c.lacking)+" of 1000 in short; p ") {
					n++
				}
			}
			return n
		}
		if got := said(a.Warnings); got != ordinal(c.told) {
			t.Errorf("%s: warned %d times: %q", c.name, got, a.Warnings)
		}
		if got := said(a.Doubts); got != ordinal(c.withheld) || c.withheld && a.Verdict.Action != ActionInconclusive {
			t.Errorf("%s: %d doubts, verdict %v", c.name, got, a.Verdict)
		}
		var want []LeftOut
		if c.lacking > 0 && c.name != "other ratio" {
			want = []LeftOut{{NoValue, map[string]int64{"control": 0, "short": int64(c.lacking)}, float64(c.lacking) / 2000}}
		}
		for i := range a.Metrics {
			if a.Metrics[i].Metric == "m" {
				if diff := cmp.Diff(want, a.Metrics[i].LeftOut); diff != "" {
					t.Errorf("%s (-want +got):\n%s", c.name, diff)
				}
			}
		}
	}
}

// Shares that differ from phase to phase, as the split does, are no inequality.
func TestUnequalMeansWithinPhases(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("m", Mean("load", nil), experiment.RolePrimary)})
	var rows []Row
	add := func(variant string, phase int32, n, with int) {
		for i := range n {
			item := row(variant, 0, 0)
			if item.Phase = phase; i < with {
				item.Values = []float64{float64(10 + i%5), 1}
			}
			rows = append(rows, item)
		}
	}
	add("control", 1, 900, 90)
	add("short", 1, 100, 10)
	add("control", 2, 100, 50)
	add("short", 2, 900, 450)
	a, err := s.Analyze(fold(s, rows...), map[int32][]float64{1: {0.9, 0.1}, 2: {0.1, 0.9}})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Doubts) > 0 {
		t.Errorf("doubts %q", a.Doubts)
	}
}

// That nobody of a variant has what the others have is told, and decides nothing. With
// 10 of 1,000 in control as many are expected of short. R 4:
// chisq.test(rbind(c(0, 10), c(1000, 990)), correct = FALSE)$p.value.
func TestSilentVariants(t *testing.T) {
	conditions := []experiment.Condition{{Field: "p", Op: experiment.OpEqual, Values: []string{"x"}}}
	uses := []Use{use("m", Proportion("x", nil), experiment.RolePrimary), use("same", Formula("c", []experiment.Component{{Name: "c", Outcome: "x", Aggregate: experiment.AggregateCount}}), experiment.RoleSecondary),
		use("sum", Sum("x", nil), experiment.RoleSecondary), use("some", Proportion("x", conditions), experiment.RoleSecondary)}
	s := mustStudy(t, definition("control", "short"), uses)
	for _, c := range []struct {
		control, short int
		want           []string
	}{
		{1000, 1, nil}, {9, 0, nil}, {0, 0, nil},
		{10, 0, []string{`No subject of short has an outcome "x", and 10 of the 1000 others have (p = 0.00152): that is taken for 0, but if the outcomes of short were lost it would look the same.`,
			`No subject of short has an outcome "x" with a value other than 0, and 10 of the 1000 others have (p = 0.00152): that is taken for 0, but if the outcomes of short were lost it would look the same.`,
			`No subject of short has an outcome "x" that meets the conditions of some, and 10 of the 1000 others have (p = 0.00152): that is taken for 0, but if the outcomes of short were lost it would look the same.`}},
		{0, 1000, []string{`No subject of control has an outcome "x", and 1000 of the 1000 others have (p < 1e-300): that is taken for 0, but if the outcomes of control were lost it would look the same.`,
			`No subject of control has an outcome "x" with a value other than 0, and 1000 of the 1000 others have (p < 1e-300): that is taken for 0, but if the outcomes of control were lost it would look the same.`,
			`No subject of control has an outcome "x" that meets the conditions of some, and 1000 of the 1000 others have (p < 1e-300): that is taken for 0, but if the outcomes of control were lost it would look the same.`}},
	} {
		var rows []Row
		for i := range 1000 {
			control, short := float64(ordinal(i < c.control)), float64(ordinal(i < c.short))
			rows = append(rows, row("control", control, control, control, control), row("short", short, short, short, short))
		}
		a := mustAnalyze(t, s, fold(s, rows...), 0)
		var got []string
		for _, w := range a.Warnings {
			if strings.HasPrefix(w, "No subject of") {
				got = append(got, w)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" || len(a.Doubts) > 0 {
			t.Errorf("%d and %d: doubts %q, warnings (-want +got):\n%s", c.control, c.short, a.Doubts, diff)
		}
	}
}
