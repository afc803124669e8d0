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
		kept    bool // Of outcomes before the exposures: none.
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
		{"outcomes are dropped", nil, nil, true, ActionInconclusive, "before what is still kept of outcomes", 1, 1, "", 980},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := s.NewFold(moment)
			if tt.kept {
				f.KeptFrom = moment
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

func rowsIn(variant string, n int) []Row {
	rows := make([]Row, n)
	for i := range rows {
		rows[i] = row(variant, 1)
	}
	return rows
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

// TestLargestShare: one subject of 30 has 87 of 100 in the treatment's sum; with a cap it
// has not, among fewer subjects it is not said, and of a rate there is none.
func TestLargestShare(t *testing.T) {
	capped := Sum("purchase", nil)
	capped.Components[0].Cap = &experiment.Cap{Upper: &experiment.Bound{Value: 1}}
	for _, tt := range []struct {
		name     string
		metric   Definition
		subjects int
		share    float64
		warning  string
	}{
		{"sum", Sum("purchase", nil), 30, 0.87, "One subject carries 87% of short's revenue: one wrong number may be all of the difference. A cap bounds it."},
		{"capped", capped, 30, 1.0 / 14, ""},
		{"few subjects", Sum("purchase", nil), 19, 0.87, ""},
		{"ratio", Ratio(sum("a", "x"), sum("b", "y")), 30, 0.87, "One subject carries 87% of short's a in revenue"},
	} {
		s := mustStudy(t, definition("control", "short"), []Use{use("revenue", tt.metric, experiment.RolePrimary)})
		var rows []Row
		for i := range tt.subjects {
			x := 0.0
			switch {
			case i == 0:
				x = -87
			case i <= 13:
				x = 1
			}
			if tt.name != "sum" {
				x = math.Abs(x)
			}
			values := make([]float64, len(s.Columns()))
			values[0] = x
			control := make([]float64, len(s.Columns()))
			control[0] = 1
			if len(values) > 1 {
				values[1], control[1] = 1, 1
			}
			rows = append(rows, row("short", values...), row("control", control...))
		}
		a := mustAnalyze(t, s, fold(s, rows...), 0)
		arms := a.Metrics[0].Arms
		want(t, tt.name, arms[1].LargestShare, tt.share, 1e-12)
		said := slices.ContainsFunc(a.Warnings, func(w string) bool { return strings.HasPrefix(w, "One subject carries") })
		if said != (tt.warning != "") || said && !slices.ContainsFunc(a.Warnings, func(w string) bool { return strings.Contains(w, tt.warning) }) {
			t.Errorf("%s: warnings %q", tt.name, a.Warnings)
		}
	}
	s := mustStudy(t, definition("control", "short"), []Use{use("rate", Proportion("purchase", nil), experiment.RolePrimary)})
	if arm := mustAnalyze(t, s, fold(s, won(30)...), 0).Metrics[0].Arms[0]; arm.LargestShare != nil {
		t.Errorf("of a rate one subject carries %v", *arm.LargestShare)
	}
}
