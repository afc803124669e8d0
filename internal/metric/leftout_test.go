package metric

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
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
