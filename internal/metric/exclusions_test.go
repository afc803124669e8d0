package metric

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// won are rows of a treatment that wins clearly, n subjects in each arm.
func won(n int) []Row {
	var rows []Row
	for i := range n {
		rows = append(rows, row("control", 5+float64(i%5)), row("short", 8+float64(i%5)))
	}
	return rows
}

// crossed are rows of subjects first seen in a variant and then in another.
func crossed(variant string, n int) []Row {
	rows := make([]Row, n)
	for i := range rows {
		rows[i] = row(variant, 1)
		rows[i].Crossover = true
	}
	return rows
}

// tied are rows of subjects that met two variants at once.
func tied(rows []Row) []Row {
	for i := range rows {
		rows[i].Tied = true
	}
	return rows
}

// TestExclusions tries the reasons for which a winner does not ship.
func TestExclusions(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)}).Conducted(Conduct{Removed: []string{"removed"}})
	pinned := func(variant string, n int64, beforehand bool) []Excluded {
		return []Excluded{{Reason: ExclusionOverridden, Phase: 1, Variant: variant, Beforehand: beforehand, Subjects: n}}
	}
	for _, tt := range []struct {
		name    string
		rows    []Row
		pinned  []Excluded
		kept    bool // Outcomes of the last two years alone.
		action  Action
		reason  string
		share   float64
		pValue  float64 // NaN for none, from R: chisq.test(c(control, short))$p.value.
		noted   string
		control int64
	}{
		{"two in a hundred", slices.Concat(crossed("control", 20), crossed("short", 20)), nil, false, ActionShip, "", 0.02, 1, "", 20},
		{"more", slices.Concat(crossed("control", 21), crossed("short", 21)), nil, false, ActionInconclusive, "42 subjects were seen in more than one variant of a phase, and left out: 2.1% of all that were exposed, and more than 2% withhold the verdict.", 42.0 / 2002, 1, "", 21},
		{"uneven", crossed("short", 12), nil, false, ActionInconclusive, "their first variants (short 12) are not as the split expects (p = 0.000532)", 12.0 / 1972, 0.000532005505135251, "", 0},
		{"a little uneven", slices.Concat(crossed("short", 12), crossed("control", 2)), nil, false, ActionShip, "", 14.0 / 1974, 0.00752631516645, "", 2},
		{"too few to tell", crossed("short", 9), nil, false, ActionShip, "", 9.0 / 1969, math.NaN(), "too few of these subjects", 0},
		{"at one moment", tied(crossed("control", 15)), nil, false, ActionShip, "", 15.0 / 1975, math.NaN(), "15 subjects were first exposed to several variants at one moment", 15},
		{"some at one moment", slices.Concat(tied(crossed("control", 15)), crossed("short", 12)), nil, false, ActionInconclusive, "are not as the split expects (p = 0.000532)", 27.0 / 1987, 0.000532005505135251, "", 15},
		{"unknown variant", rowsIn("gone", 50), nil, false, ActionInconclusive, "50 subjects were seen in a variant that the experiment does not have", 50.0 / 2010, math.NaN(), "gave these subjects no variant", 0},
		{"a variant that was removed", rowsIn("removed", 500), nil, false, ActionShip, "", 500.0 / 2460, math.NaN(), "gave these subjects no variant", 0},
		{"pinned while it ran", nil, pinned("short", 12, false), false, ActionInconclusive, "pinned to a variant at some time", 12.0 / 1972, 0.000532005505135251, "", 0},
		{"pinned before", nil, pinned("short", 12, true), false, ActionShip, "", 12.0 / 1972, math.NaN(), "12 subjects were pinned before the first exposure", 0},
		{"many pinned before", nil, pinned("short", 50, true), false, ActionInconclusive, "more than 2% withhold", 50.0 / 2010, math.NaN(), "pinned before", 0},
		{"outcomes of a few of one variant are dropped", ancient(rowsIn("short", 30)), nil, true, ActionShip, "", 30.0 / 1990, 4.3204630578274968e-08, "", 0},
		{"outcomes are dropped", ancient(won(21)), nil, true, ActionInconclusive, "before what is still kept of outcomes", 42.0 / 2002, 1, "", 21},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := s.NewFold(moment)
			if tt.kept {
				f.KeptFrom = moment.AddDate(-2, 0, 0)
			}
			for _, r := range slices.Concat(won(980), tt.rows) {
				f.Add(&r)
			}
			tally := f.Tally()
			tally.Excluded = append(tally.Excluded, tt.pinned...)
			a, err := s.Analyze(tally, map[int32][]float64{1: {0.5, 0.5}})
			if err != nil {
				t.Fatal(err)
			}
			if a.Verdict.Action != tt.action || !strings.Contains(a.Verdict.Reasons[0], tt.reason) {
				t.Errorf("verdict %s, %q", a.Verdict.Action, a.Verdict.Reasons)
			}
			if len(a.Exclusions.ByReason) != 1 {
				t.Fatalf("exclusions %+v", a.Exclusions)
			}
			e := a.Exclusions.ByReason[0]
			want(t, "share", &e.Share, tt.share, 1e-12)
			if math.IsNaN(tt.pValue) {
				if e.PValue != nil || !strings.Contains(strings.Join(e.Notes, " "), tt.noted) {
					t.Errorf("p %v, notes %q", e.PValue, e.Notes)
				}
			} else {
				want(t, "p-value", e.PValue, tt.pValue, 1e-9)
			}
			if e.ByVariant["control"] != tt.control {
				t.Errorf("by variant %v", e.ByVariant)
			}
			if len(a.Warnings) == 0 {
				t.Error("no warning")
			}
			text, err := json.Marshal(tally)
			if err != nil {
				t.Fatal(err)
			}
			var back Tally
			if err := json.Unmarshal(text, &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tally.Excluded, back.Excluded, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("read back (-want +got):\n%s", diff)
			}
		})
	}
}

// ancient are rows of subjects that were exposed three years ago, on a day each.
func ancient(rows []Row) []Row {
	for i := range rows {
		rows[i].FirstExposure = moment.AddDate(-3, 0, -i)
	}
	return rows
}

func rowsIn(variant string, n int) []Row {
	rows := make([]Row, n)
	for i := range rows {
		rows[i] = row(variant, 1)
	}
	return rows
}

// TestExclusionsByReason: each subject stands by its own reason, with no more notes than
// concern it. The p-value of the crossovers is R's chisq.test(c(12, 15))$p.value, without
// those of a phase whose split is not known.
func TestExclusionsByReason(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
	later := crossed("short", 3)
	for i := range later {
		later[i].Phase = 2
	}
	tally := fold(s, slices.Concat(won(970), crossed("short", 15), crossed("control", 12), later, rowsIn("gone", 3), rowsIn("away", 2))...)
	tally.Excluded = append(tally.Excluded, Excluded{Reason: ExclusionOverridden, Phase: 1, Variant: "short", Beforehand: true, Subjects: 5},
		Excluded{Reason: ExclusionOverridden, Phase: 1, Variant: "control", Tied: true, Subjects: 1})
	a, err := s.Analyze(tally, map[int32][]float64{1: {0.5, 0.5}})
	if err != nil {
		t.Fatal(err)
	}
	p := 0.56370286165077299
	const exposed = 1940 + 30 + 5 + 6
	want := []Exclusion{
		{ExclusionCrossover, 30, 30. / exposed, map[string]int64{"control": 12, "short": 18}, &p, nil, false},
		{ExclusionOverridden, 6, 6. / exposed, map[string]int64{"control": 1, "short": 5}, nil, []string{
			"5 subjects were pinned before the first exposure: their first variant is that of the pin, and does not count in the p-value.",
			"1 subject was first exposed to several variants at one moment: which came first is not known, they stand by that whose key is first, and do not count in the p-value."}, false},
		{ExclusionUnknownVariant, 5, 5. / exposed, map[string]int64{"away": 2, "gone": 3}, nil, []string{
			"The split gave these subjects no variant that their first one could be held against: no p-value."}, false},
	}
	if diff := cmp.Diff(want, a.Exclusions.ByReason, cmp.AllowUnexported(Exclusion{}), cmpopts.EquateApprox(1e-12, 0)); diff != "" {
		t.Errorf("exclusions (-want +got):\n%s", diff)
	}
	for range 8 { // Whatever the order of a map.
		const told = "5 subjects were seen in a variant that the experiment does not have, and left out: 0.252% of all that were exposed, by first variant away 2, gone 3."
		if got := a.Exclusions.ByReason[2].warning(); got != told {
			t.Errorf("%q", got)
		}
	}
}

// TestExclusionsOfOldTallies: the first tallies had counts alone.
func TestExclusionsOfOldTallies(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
	tally := fold(s, won(100)...)
	tally.Crossovers = 50
	a := mustAnalyze(t, s, tally, 0)
	if e := a.Exclusions.ByReason; len(e) != 1 || e[0].Subjects != 50 || e[0].Share != 0.2 || e[0].PValue != nil || len(e[0].Notes) != 1 || a.Verdict.Action != ActionInconclusive {
		t.Errorf("exclusions %+v, verdict %s", e, a.Verdict.Action)
	}
}

// TestLargestShare: one subject has 87 of 100 in the treatment's sum. With a cap it has
// not, among fewer subjects or fewer numbers it is not said, and of a rate there is none.
func TestLargestShare(t *testing.T) {
	capped := Sum("purchase", nil)
	capped.Components[0].Cap = &experiment.Cap{Upper: &experiment.Bound{Value: 1}}
	thirteen := append([]float64{-87}, slices.Repeat([]float64{1}, 13)...)
	ratio := Ratio(sum("a", "x"), sum("b", "y"))
	for _, tt := range []struct {
		name     string
		metric   Definition
		subjects int
		first    []float64 // Numbers of the treatment's first component; the others are 0.
		second   []float64
		share    float64
		warnings []string
	}{
		{"sum", Sum("purchase", nil), 30, thirteen, nil, 0.87, []string{"One subject carries 87% of short's revenue: one wrong number may be all of the difference. A cap bounds it."}},
		{"capped", capped, 30, []float64{87, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, nil, 1. / 14, nil},
		{"just enough subjects", Sum("purchase", nil), 20, thirteen, nil, 0.87, []string{"One subject carries 87% of short's revenue"}},
		{"few subjects", Sum("purchase", nil), 19, thirteen, nil, 0.87, nil},
		{"just enough numbers", Sum("purchase", nil), 30, []float64{6, 1, 1, 1, 1}, nil, 0.6, []string{"One subject carries 60% of short's revenue"}},
		{"few numbers", Sum("purchase", nil), 30, []float64{7, 1, 1, 1}, nil, 0.7, nil},
		{"a half", Sum("purchase", nil), 30, []float64{4, 1, 1, 1, 1}, nil, 0.5, nil},
		{"above the line", ratio, 30, thirteen, slices.Repeat([]float64{1}, 30), 0.87, []string{"One subject carries 87% of short's a in revenue"}},
		{"below the line", ratio, 30, slices.Repeat([]float64{1}, 30), []float64{6, 1, 1, 1, 1}, 0.6, []string{"One subject carries 60% of short's b in revenue"}},
	} {
		s := mustStudy(t, definition("control", "short"), []Use{use("revenue", tt.metric, experiment.RolePrimary)})
		var rows []Row
		for i := range tt.subjects {
			values := make([]float64, len(s.Columns()))
			for k, numbers := range [][]float64{tt.first, tt.second} {
				if i < len(numbers) {
					values[k] = numbers[i]
				}
			}
			rows = append(rows, row("short", values...), row("control", slices.Repeat([]float64{1}, len(values))...))
		}
		tally := fold(s, rows...)
		a := mustAnalyze(t, s, tally, 0)
		want(t, tt.name, a.Metrics[0].Arms[1].LargestShare, tt.share, 1e-12)
		var said []string
		for _, w := range a.Warnings {
			if strings.HasPrefix(w, "One subject carries") {
				said = append(said, w)
			}
		}
		if !slices.EqualFunc(said, tt.warnings, strings.HasPrefix) {
			t.Errorf("%s: warnings %q", tt.name, said)
		}
		// Of tallies that have no counts or no sizes nothing is said.
		for _, old := range []func(){
			func() { tally.Metrics[0].Whole[1][0].NonZero, tally.Metrics[0].Whole[1][0].Negative = nil, nil },
			func() { tally.Metrics[0].Sizes = nil },
		} {
			old()
			a := mustAnalyze(t, s, tally, 0)
			if slices.ContainsFunc(a.Warnings, func(w string) bool { return strings.HasPrefix(w, "One subject carries") }) ||
				(a.Metrics[0].Arms[1].LargestShare == nil) != (tally.Metrics[0].Sizes == nil) {
				t.Errorf("%s, an old tally: share %v, warnings %q", tt.name, a.Metrics[0].Arms[1].LargestShare, a.Warnings)
			}
		}
	}
	s := mustStudy(t, definition("control", "short"), []Use{use("rate", Proportion("purchase", nil), experiment.RolePrimary)})
	if arm := mustAnalyze(t, s, fold(s, won(30)...), 0).Metrics[0].Arms[0]; arm.LargestShare != nil {
		t.Errorf("of a rate one subject carries %v", *arm.LargestShare)
	}
}
