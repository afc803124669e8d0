package metric

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/google/go-cmp/cmp"
)

// capped is the sum of an outcome's values with a cap.
func capped(c experiment.Cap) Definition {
	d := Sum("purchase", nil)
	d.Components[0].Cap = &c
	return d
}

func percentile(p float64) *experiment.Bound { return &experiment.Bound{Value: p, Percentile: true} }

func bound(x float64) *experiment.Bound { return &experiment.Bound{Value: x} }

// rowsOf are rows of a control and a treatment.
func rowsOf(control, treatment []float64) []Row {
	var rows []Row
	for _, x := range control {
		rows = append(rows, row("control", x))
	}
	for _, x := range treatment {
		rows = append(rows, row("short", x))
	}
	return rows
}

// TestCapsReference: pmin and pmax at R's pooled quantiles, and its t.test.
func TestCapsReference(t *testing.T) {
	data, err := os.ReadFile("../stats/testdata/guard.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Caps []struct {
			Treatment, Control []float64
			IgnoreZeros        bool     `json:"ignore_zeros"`
			LowerPercentile    *float64 `json:"lower_percentile"`
			UpperPercentile    *float64 `json:"upper_percentile"`
			Lower, Upper       *float64
			Raised, Lowered    int64
			Estimate, SE, P    float64
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for i, c := range file.Caps {
		limit := experiment.Cap{IgnoreZeros: c.IgnoreZeros}
		if c.LowerPercentile != nil {
			limit.Lower = percentile(*c.LowerPercentile)
		}
		if c.UpperPercentile != nil {
			limit.Upper = percentile(*c.UpperPercentile)
		}
		s := mustStudy(t, definition("control", "short"), []Use{use("revenue", capped(limit), experiment.RolePrimary)})
		result := mustAnalyze(t, s, fold(s, rowsOf(c.Control, c.Treatment)...), 0).Metrics[0]
		applied, comparison := result.Caps[0], result.Comparisons[0]
		for name, bound := range map[string][2]*float64{"lower": {applied.Lower, c.Lower}, "upper": {applied.Upper, c.Upper}} {
			if bound[1] == nil && bound[0] == nil {
				continue
			}
			want(t, fmt.Sprint("case ", i, " ", name), bound[0], *bound[1], 1e-12)
		}
		if applied.Raised != c.Raised || applied.Lowered != c.Lowered {
			t.Errorf("case %d: %d raised and %d lowered, want %d and %d", i, applied.Raised, applied.Lowered, c.Raised, c.Lowered)
		}
		want(t, fmt.Sprint("case ", i, " difference"), comparison.Difference.Estimate, c.Estimate, 1e-9)
		want(t, fmt.Sprint("case ", i, " standard error"), comparison.StandardError, c.SE, 1e-9)
		want(t, fmt.Sprint("case ", i, " p-value"), comparison.PValue, c.P, 1e-9)
	}
}

// TestCapsArePooled: the threshold is that of all variants together, and of all
// segments. By variant each would lose its own top, and the effect with it.
func TestCapsArePooled(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{
		use("revenue", capped(experiment.Cap{Upper: percentile(90)}), experiment.RolePrimary),
	}, "country")
	var rows []Row
	for i := range 200 {
		r := row([]string{"control", "short"}[i/100], float64(i+1))
		r.Segments = [][]byte{[]byte([]string{"DE", "PL"}[i%2])}
		rows = append(rows, r)
	}
	result := mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0]
	want(t, "threshold", result.Caps[0].Upper, 180.1, 1e-15) // quantile(1:200, 0.9)
	if result.Caps[0].Lowered != 20 {
		t.Errorf("%d lowered, want 20", result.Caps[0].Lowered)
	}
	want(t, "control", result.Arms[0].Mean, 50.5, 1e-12)
	want(t, "treatment", result.Arms[1].Mean, (180*181/2-100*101/2+20*180.1)/100, 1e-12)
	want(t, "treatment in a segment", result.Segments[1].Arms[1].Mean, (5640+10*180.1)/50, 1e-12) // sum(seq(102, 180, 2)) = 5640
}

// TestCapsOfNumbers: bounds that are numbers, whatever their side, and a
// percentile beside one.
func TestCapsOfNumbers(t *testing.T) {
	nan := -1.0
	for _, tt := range []struct {
		name            string
		cap             experiment.Cap
		lower, upper    float64 // nan: absent.
		raised, lowered int64
		mean            float64 // Of the control, 0 to 9.
		constant        bool
		notes           int
	}{
		{"upper", experiment.Cap{Upper: bound(6)}, nan, 6, 0, 6, 3.9, false, 0},
		{"lower", experiment.Cap{Lower: bound(2)}, 2, nan, 4, 0, 4.8, false, 0},
		{"both", experiment.Cap{Lower: bound(2), Upper: bound(6)}, 2, 6, 4, 6, 4.2, false, 0},
		{"one point", experiment.Cap{Lower: bound(5), Upper: bound(5)}, 5, 5, 10, 8, 5, true, 1},
		{"nothing to do", experiment.Cap{Lower: bound(0), Upper: bound(9)}, 0, 9, 0, 0, 4.5, false, 0},
		{"percentile below the number", experiment.Cap{Lower: bound(5), Upper: percentile(20)}, 5, 5, 10, 8, 5, true, 1},
		{"percentile above the number", experiment.Cap{Lower: percentile(90), Upper: bound(5)}, 5, 5, 10, 8, 5, true, 1},
		{"median of those that are not 0", experiment.Cap{Upper: percentile(50), IgnoreZeros: true}, nan, 5, 0, 8, 3.5, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := mustStudy(t, definition("control", "short"), []Use{use("revenue", capped(tt.cap), experiment.RolePrimary)})
			numbers := []float64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
			a := mustAnalyze(t, s, fold(s, rowsOf(numbers, numbers)...), 0)
			got := a.Metrics[0].Caps[0]
			for name, b := range map[string]struct {
				got  *float64
				want float64
			}{"lower": {got.Lower, tt.lower}, "upper": {got.Upper, tt.upper}} {
				if (b.got == nil) != (b.want == nan) || b.got != nil && *b.got != b.want {
					t.Errorf("%s is %v, want %v", name, b.got, b.want)
				}
			}
			if got.Component != "sum" || got.Raised != tt.raised || got.Lowered != tt.lowered || got.Constant != tt.constant || len(got.Notes) != tt.notes {
				t.Errorf("cap %+v", got)
			}
			want(t, "mean", a.Metrics[0].Arms[0].Mean, tt.mean, 1e-12)
			warned := slices.ContainsFunc(a.Warnings, func(w string) bool { return strings.HasPrefix(w, `The cap on "sum" makes`) })
			if warned != tt.constant {
				t.Errorf("warnings %q", a.Warnings)
			}
		})
	}
}

// TestCapsConstant: the 99th percentile is 0 where fewer than 1 % have spent
// anything. That must be said; where nobody has it is not the cap's doing.
func TestCapsConstant(t *testing.T) {
	spent := make([]float64, 1000)
	spent[3], spent[800] = 50, 20
	for _, tt := range []struct {
		name     string
		cap      experiment.Cap
		numbers  []float64
		constant bool
		notes    []string
	}{
		{"percentile", experiment.Cap{Upper: percentile(99)}, spent, true, []string{"With the cap every subject has the same number: nothing can differ any more."}},
		{"percentile without zeros", experiment.Cap{Upper: percentile(99), IgnoreZeros: true}, spent, false, nil},
		{"nobody has spent", experiment.Cap{Upper: percentile(99)}, make([]float64, 50), false, nil},
		{"nothing to take a percentile of", experiment.Cap{Upper: percentile(99), IgnoreZeros: true}, make([]float64, 50), false, []string{"There is no number to take a percentile of."}},
		{"no subjects", experiment.Cap{Lower: percentile(1), Upper: percentile(99)}, nil, false, []string{"There is no number to take a percentile of."}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := mustStudy(t, definition("control", "short"), []Use{use("spend", capped(tt.cap), experiment.RolePrimary)})
			a := mustAnalyze(t, s, fold(s, rowsOf(tt.numbers, tt.numbers)...), 0)
			got := a.Metrics[0].Caps[0]
			if got.Constant != tt.constant {
				t.Errorf("constant is %v", got.Constant)
			}
			if diff := cmp.Diff(tt.notes, got.Notes); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCapsThatTouchNothing: keeping rows until the end changes no count in any
// stratum, day or segment.
func TestCapsThatTouchNothing(t *testing.T) {
	d := definition("control", "short")
	d.Plan.Method, d.Plan.StratifyBy = experiment.MethodAlwaysValid, "device"
	plain, kept := Sum("purchase", nil), capped(experiment.Cap{Lower: percentile(1)}) // Of which more than 1 % are 0.
	plain.Window, kept.Window = week, week
	study := func(d2 Definition) *Study {
		return mustStudy(t, d, []Use{use("revenue", d2, experiment.RolePrimary, "spend"), use("other", Proportion("x", nil), experiment.RoleSecondary)}, "country")
	}
	rng := rand.New(rand.NewPCG(41, 42))
	var rows []Row
	for range 2000 {
		r := row([]string{"control", "short"}[rng.IntN(2)], float64(max(0, rng.IntN(20)-9)), float64(rng.IntN(2)))
		r.Phase = 1 + rng.Int32N(2)
		r.FirstExposure = moment.Add(-time.Duration(rng.IntN(60*24)) * time.Hour) // Some windows are open.
		r.Segments, r.Stratum = [][]byte{{byte('A' + rng.IntN(4))}}, []byte{byte('a' + rng.IntN(3))}
		r.AttributeNumbers = []float64{rng.NormFloat64()}
		rows = append(rows, r)
	}
	rows[0].FirstExposure = moment.AddDate(0, 0, -30) // It counts, and attributes are counted from it.
	want, got := fold(study(plain), rows...), fold(study(kept), rows...)
	if caps := got.Metrics[0].Caps; len(caps) != 1 || *caps[0].Lower != 0 || caps[0].Raised != 0 {
		t.Fatalf("the cap was to touch nothing: %+v", caps)
	}
	got.Metrics[0].Caps = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tally (-without a cap +with one):\n%s", diff)
	}
	others := rows[1:]
	rng.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	again := fold(study(kept), rows...)
	again.Metrics[0].Caps = nil
	if diff := cmp.Diff(got, again, momentsWithin(1e-9)); diff != "" {
		t.Errorf("in another order (-before +after):\n%s", diff)
	}
}

// TestCapsOpenWindows: a subject whose window is open has no part in the
// threshold.
func TestCapsOpenWindows(t *testing.T) {
	d := capped(experiment.Cap{Upper: percentile(50)})
	d.Window = week
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", d, experiment.RolePrimary)})
	rows := rowsOf([]float64{1, 2, 3}, []float64{4, 5, 1000, 1000, 1000})
	for i := range rows[5:] {
		rows[5+i].FirstExposure = moment
	}
	tally := fold(s, rows...).Metrics[0]
	if tally.OpenWindows != 3 || *tally.Caps[0].Upper != 3 || tally.Caps[0].Lowered != 2 {
		t.Errorf("%d windows are open, cap %+v", tally.OpenWindows, tally.Caps[0])
	}
}

// TestCapsShareTheColumn: the query fetches a number once, however it is capped.
func TestCapsShareTheColumn(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{
		use("plain", Sum("purchase", nil), experiment.RolePrimary),
		use("capped", capped(experiment.Cap{Upper: bound(2)}), experiment.RoleSecondary),
		use("kept", capped(experiment.Cap{Upper: percentile(50)}), experiment.RoleSecondary),
	})
	if len(s.Columns()) != 1 || s.Columns()[0].Component.Cap != nil {
		t.Errorf("columns %+v", s.Columns())
	}
	a := mustAnalyze(t, s, fold(s, rowsOf([]float64{0, 1, 5}, []float64{2, 3, 4})...), 0)
	for i, mean := range []float64{2, 1, 3.5 / 3} {
		want(t, a.Metrics[i].Metric, a.Metrics[i].Arms[0].Mean, mean, 1e-12)
	}
}

// TestCapsOfTimeline: days are capped by the percentiles of their subjects,
// cohorts by those of all, and the days since exposure, which are parts of a
// subject's number, are not.
func TestCapsOfTimeline(t *testing.T) {
	d := definition("control", "short")
	d.Plan.SmallestCell = new(int32)
	m := capped(experiment.Cap{Upper: percentile(50)})
	m.Window = 2 * day
	line, err := NewTimeline(d, d.Variants, use("revenue", m, experiment.RolePrimary))
	if err != nil {
		t.Fatal(err)
	}
	f := line.NewFold(moment)
	for i := range 8 {
		x := float64(i + 1)
		r := row([]string{"control", "short"}[i%2], x, x, 0) // All of it on the first day.
		r.FirstExposure = moment.AddDate(0, 0, -3-i/4)
		f.Add(&r)
	}
	timeline, err := line.Timeline(f.Tally())
	if err != nil {
		t.Fatal(err)
	}
	want(t, "the first day", timeline.Cumulative[0].Arms[0].Mean, (5+6.5)/2, 1e-12)
	want(t, "the last day", timeline.Cumulative[1].Arms[0].Mean, (1+3+4.5+4.5)/4, 1e-12)
	want(t, "a cohort", timeline.Cohorts[0].Arms[1].Mean, 4.5, 1e-12)
	want(t, "the first day since exposure", timeline.SinceExposure[0].Arms[1].Mean, 5, 1e-12)
	if diff := cmp.Diff([]string{
		"Percentiles that cap a number are on each cumulative day those of the subjects by then, and in each cohort those of all subjects now.",
		"By days since exposure nothing is capped: a cap is of the number in the whole window.",
	}, timeline.Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}
