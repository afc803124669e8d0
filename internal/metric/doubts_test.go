package metric

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/assayhq/assay/internal/experiment"
)

// TestDecidesOnce: numbers without a window are not protected against looking often,
// so that a plan which relies on that decides at its size or once it is over, and the
// warning says the same as the verdict.
func TestDecidesOnce(t *testing.T) {
	for _, tt := range []struct {
		name      string
		method    experiment.Method
		planned   int64 // 200 subjects are analysed.
		window    bool
		concluded bool
		action    Action
		reason    string
		warned    bool
	}{
		{"no size", experiment.MethodAlwaysValid, 0, false, false, ActionKeepRunning, "the plan names no size at which to decide", true},
		{"below its size", experiment.MethodAlwaysValid, 201, false, false, ActionKeepRunning, "200 of 201 planned subjects have been analysed. The primary metric has no window", true},
		{"at its size", experiment.MethodAlwaysValid, 200, false, false, ActionShip, "short wins on revenue.", true},
		{"concluded", experiment.MethodAlwaysValid, 0, false, true, ActionShip, "short wins on revenue.", true},
		{"with a window", experiment.MethodAlwaysValid, 0, true, false, ActionShip, "short wins on revenue.", false},
		{"no look below its size", experiment.MethodGroupSequential, 250, false, false, ActionKeepRunning, "200 of 250 planned subjects", true},
		{"the last look", experiment.MethodGroupSequential, 200, false, false, ActionShip, "short wins on revenue.", true},
		{"the last look of what is over", experiment.MethodGroupSequential, 250, false, true, ActionShip, "short wins on revenue.", true},
		{"a look with a window", experiment.MethodGroupSequential, 250, true, false, ActionShip, "short wins on revenue.", false},
		{"a fixed horizon", experiment.MethodFixedHorizon, 0, false, false, ActionShip, "short wins on revenue.", false},
	} {
		d := definition("control", "short")
		d.Plan.Method, d.Plan.PlannedSubjects = tt.method, tt.planned
		revenue := Sum("purchase", nil)
		if tt.window {
			revenue.Window = week
		}
		if tt.method == experiment.MethodGroupSequential {
			d.Plan.Spending = experiment.SpendingPocock
		}
		s := mustStudy(t, d, []Use{use("revenue", revenue, experiment.RolePrimary)})
		if tt.method == experiment.MethodGroupSequential && (tt.window || tt.concluded || tt.planned <= 200) {
			s = mustLook(t, s, nil, true)
		}
		tally := fold(s, won(100)...)
		if tt.concluded {
			tally.CountingEnd = moment
		}
		a := mustAnalyze(t, s, tally, 0)
		if a.Verdict.Action != tt.action || !strings.Contains(a.Verdict.Reasons[0], tt.reason) {
			t.Errorf("%s: %s, %q", tt.name, a.Verdict.Action, a.Verdict.Reasons)
		}
		if warned := slices.ContainsFunc(a.Warnings, func(w string) bool { return strings.HasPrefix(w, "The primary metric has no window") }); warned != tt.warned {
			t.Errorf("%s: warnings %q", tt.name, a.Warnings)
		}
	}
}

// TestDoubts: what makes the arms unlike each other is a warning and withholds the
// verdict, in the same words.
func TestDoubts(t *testing.T) {
	lowest := Sum("purchase", nil)
	lowest.Components[0].Aggregate = experiment.AggregateMin
	spend := func(r *Row, x float64) { r.AttributeNumbers = []float64{x} }
	for _, tt := range []struct {
		name   string
		metric Definition
		change func(i int, r *Row)
		doubt  string // Empty if there is a verdict.
	}{
		{"nothing", Sum("purchase", nil), func(i int, r *Row) { spend(r, float64(i/2%7)) }, ""},
		{"a covariate out of balance", Sum("purchase", nil), func(i int, r *Row) { spend(r, float64(i/2%7+i%2)) }, `Covariate "spend" was out of balance before exposure`},
		{"a covariate missing more often", Sum("purchase", nil), func(i int, r *Row) {
			spend(r, float64(i/2%7))
			if i%4 == 1 {
				spend(r, math.NaN())
			}
		}, `Covariate "spend" is missing more often in one variant`},
		{"a covariate that one variant lacks", Sum("purchase", nil), func(i int, r *Row) {
			spend(r, float64(i/2%7))
			if i%2 == 1 {
				spend(r, math.NaN())
			}
		}, `Covariate "spend" is missing for every subject of short, and not for the others`},
		{"a covariate that nobody has", Sum("purchase", nil), func(_ int, r *Row) { spend(r, math.NaN()) }, ""},
		{"outcomes of one variant", lowest, func(i int, r *Row) {
			spend(r, float64(i/2%7))
			if i%8 == 1 {
				r.Values = []float64{math.NaN()}
			}
		}, "Metric revenue leaves out the subjects that have no outcome for it"},
	} {
		s := mustStudy(t, definition("control", "short"), []Use{use("revenue", tt.metric, experiment.RolePrimary, "spend")})
		rows := won(400)
		for i := range rows {
			tt.change(i, &rows[i])
		}
		a := mustAnalyze(t, s, fold(s, rows...), 0)
		if tt.doubt == "" {
			if a.Verdict.Action != ActionShip {
				t.Errorf("%s: %s, %q", tt.name, a.Verdict.Action, a.Verdict.Reasons)
			}
			continue
		}
		if a.Verdict.Action != ActionInconclusive || !strings.HasPrefix(a.Verdict.Reasons[0], "The verdict is withheld: "+tt.doubt) {
			t.Errorf("%s: %s, %q", tt.name, a.Verdict.Action, a.Verdict.Reasons)
		}
		if !slices.ContainsFunc(a.Warnings, func(w string) bool { return strings.HasPrefix(w, strings.Split(tt.doubt, ", and")[0]) }) {
			t.Errorf("%s: warnings %q", tt.name, a.Warnings)
		}
	}
}

// TestAbsentCovariates: that a variant lacks a covariate is said once, whichever of the
// metrics have it, and not of a handful who may lack it by chance.
func TestAbsentCovariates(t *testing.T) {
	for _, tt := range []struct {
		name       string
		covariates [3][]string // By metric.
		short      int
		want       int
	}{
		{"of all metrics", [3][]string{{"spend"}, {"spend"}, {"spend"}}, 400, 1},
		{"of the last", [3][]string{nil, nil, {"spend"}}, 400, 1},
		{"of few subjects", [3][]string{{"spend"}, nil, nil}, 3, 0},
	} {
		var uses []Use
		for i, covariates := range tt.covariates {
			role := []experiment.Role{experiment.RolePrimary, experiment.RoleSecondary, experiment.RoleSecondary}[i]
			uses = append(uses, use(string(rune('a'+i)), Sum("purchase", nil), role, covariates...))
		}
		s := mustStudy(t, definition("control", "short"), uses)
		var rows []Row
		for i := range 400 {
			control, short := row("control", float64(i%5)), row("short", float64(i%5))
			control.AttributeNumbers, short.AttributeNumbers = []float64{float64(i % 7)}, []float64{math.NaN()}
			if i%2 == 0 {
				control.AttributeNumbers[0] = math.NaN()
			}
			if rows = append(rows, control); i < tt.short {
				rows = append(rows, short)
			}
		}
		said := 0
		for _, d := range mustAnalyze(t, s, fold(s, rows...), 0).Doubts {
			if strings.HasPrefix(d, `Covariate "spend" is missing for every subject of short`) {
				said++
			}
		}
		if said != tt.want {
			t.Errorf("%s: said %d times, want %d", tt.name, said, tt.want)
		}
	}
}

// TestRepeatedLooksWeakenTheVerdict: a fixed horizon without a size that was looked at
// before still decides, and says that it is more often wrong.
func TestRepeatedLooksWeakenTheVerdict(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
	for looks, weakened := range map[int64]bool{0: false, 2: true} {
		a := mustAnalyze(t, s, fold(s, won(100)...), 0)
		list := s.Deviations(a, Course{EarlyLooks: looks})
		said := strings.Contains(strings.Join(a.Verdict.Reasons, " "), "this verdict is more often wrong than the plan says")
		if a.Verdict.Action != ActionShip || said != weakened || (len(list) > 0) != weakened {
			t.Errorf("%d looks before: %q, deviations %v", looks, a.Verdict.Reasons, list)
		}
	}
}
