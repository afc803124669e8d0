package metric

import (
	"slices"
	"strings"
	"testing"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// TestVerdict tries every rule on treatments a and b.
func TestVerdict(t *testing.T) {
	type treatment struct {
		effect      float64 // On the primary metric, both difference and lift.
		half        float64 // Of its interval.
		significant bool
		guardrail   GuardrailVerdict
	}
	var (
		win    = treatment{0.2, 0.1, true, GuardrailPassed}
		better = treatment{0.3, 0.1, true, GuardrailPassed}
		lose   = treatment{-0.2, 0.1, true, GuardrailPassed}
		open   = treatment{0.1, 0.2, false, GuardrailPassed}
		small  = treatment{0, 0.01, false, GuardrailPassed}
		harm   = treatment{0.2, 0.1, true, GuardrailFailed}
		unsafe = treatment{0.2, 0.1, true, GuardrailUndecided}
	)
	fixed, always := experiment.MethodFixedHorizon, experiment.MethodAlwaysValid
	effect := &experiment.Magnitude{Value: 0.02}
	relative := &experiment.Magnitude{Value: 0.02, Relative: true}
	tests := []struct {
		name      string
		method    experiment.Method
		planned   int64 // 300 subjects have been analysed.
		minimum   *experiment.Magnitude
		direction Direction
		ratio     SampleRatioVerdict
		a, b      treatment
		action    Action
		variant   string
		reason    string // Part of the first one.
	}{
		{"winner", always, 0, nil, DirectionIncrease, SampleRatioOK, win, open, ActionShip, "a", "a wins on revenue and keeps within every guardrail."},
		{"best of winners", always, 0, nil, DirectionIncrease, SampleRatioOK, win, better, ActionShip, "b", "b wins on revenue"},
		{"of equal winners the first", always, 0, nil, DirectionIncrease, SampleRatioOK, win, win, ActionShip, "a", "a wins"},
		{"the better winner is not safe", always, 0, nil, DirectionIncrease, SampleRatioOK, win,
			treatment{0.3, 0.1, true, GuardrailUndecided}, ActionShip, "a", "a wins"},
		{"winner among losers", always, 0, nil, DirectionIncrease, SampleRatioOK, lose, win, ActionShip, "b", "b wins"},
		{"winner where less is better", always, 0, nil, DirectionDecrease, SampleRatioOK, lose, win, ActionShip, "a", "a wins"},
		{"best where less is better", always, 0, nil, DirectionDecrease, SampleRatioOK, lose,
			treatment{-0.3, 0.1, true, GuardrailPassed}, ActionShip, "b", "b wins"},
		{"winner that matters little still wins", always, 0, &experiment.Magnitude{Value: 1}, DirectionIncrease, SampleRatioOK, win, open, ActionShip, "a", "a wins"},
		{"winner before the planned size", always, 1000, nil, DirectionIncrease, SampleRatioOK, win, open, ActionShip, "a", "a wins"},
		{"winner at a fixed horizon without a size", fixed, 0, nil, DirectionIncrease, SampleRatioOK, win, open, ActionShip, "a", "a wins"},
		{"winner at the planned size", fixed, 300, nil, DirectionIncrease, SampleRatioOK, win, open, ActionShip, "a", "a wins"},

		{"fixed horizon, too early to ship", fixed, 301, nil, DirectionIncrease, SampleRatioOK, win, open, ActionKeepRunning, "", "300 of 301 planned subjects"},
		{"fixed horizon, too early to roll back", fixed, 301, nil, DirectionIncrease, SampleRatioOK, lose, lose, ActionKeepRunning, "", "300 of 301"},
		{"fixed horizon, too early to give up", fixed, 301, effect, DirectionIncrease, SampleRatioOK, small, small, ActionKeepRunning, "", "300 of 301"},
		{"guardrail undecided", always, 0, nil, DirectionIncrease, SampleRatioOK, unsafe, open, ActionKeepRunning, "", "Nothing is decided yet, with 300 subjects analysed: a wins on revenue, but is not known to keep within every guardrail."},
		{"nothing significant", always, 301, nil, DirectionIncrease, SampleRatioOK, open, open, ActionKeepRunning, "", "Nothing is decided yet"},
		{"one loser", always, 0, nil, DirectionIncrease, SampleRatioOK, lose, open, ActionKeepRunning, "", "Nothing is decided yet"},
		{"one without effect", always, 0, effect, DirectionIncrease, SampleRatioOK, small, open, ActionKeepRunning, "", "Nothing is decided yet"},
		{"one that may do harm", always, 0, effect, DirectionIncrease, SampleRatioOK, small,
			treatment{-0.1, 0.11, false, GuardrailPassed}, ActionKeepRunning, "", "Nothing is decided yet"},
		{"small, but no smallest effect", always, 0, nil, DirectionIncrease, SampleRatioOK, small, small, ActionKeepRunning, "", "Nothing is decided yet"},
		{"too few subjects to ship", always, 0, nil, DirectionIncrease, SampleRatioTooFew, win, win, ActionKeepRunning, "", "too few subjects"},
		{"too few subjects to roll back", always, 0, nil, DirectionIncrease, SampleRatioTooFew, lose, lose, ActionKeepRunning, "", "too few subjects"},

		{"all lose", always, 0, nil, DirectionIncrease, SampleRatioOK, lose, lose, ActionRollBack, "", "Every treatment loses"},
		{"one loses, one harms", always, 0, nil, DirectionIncrease, SampleRatioOK, lose, harm, ActionRollBack, "", "Every treatment loses"},
		{"all lose at the planned size", fixed, 300, nil, DirectionIncrease, SampleRatioOK, lose, lose, ActionRollBack, "", "Every treatment loses"},
		{"all lose where less is better", always, 0, nil, DirectionDecrease, SampleRatioOK, win, win, ActionRollBack, "", "Every treatment loses"},

		{"sample ratio broken", always, 0, nil, DirectionIncrease, SampleRatioMismatch, win, win, ActionInconclusive, "", "sample ratio is broken"},
		{"sample ratio broken, all lose", always, 0, nil, DirectionIncrease, SampleRatioMismatch, lose, lose, ActionInconclusive, "", "sample ratio is broken"},
		{"planned size without a winner", always, 300, nil, DirectionIncrease, SampleRatioOK, open, lose, ActionInconclusive, "", "300 subjects have been analysed of 300 planned"},
		{"planned size, winner not safe", fixed, 300, nil, DirectionIncrease, SampleRatioOK, unsafe, open, ActionInconclusive, "", "300 subjects"},
		{"no effect of interest", always, 0, effect, DirectionIncrease, SampleRatioOK, small, small, ActionInconclusive, "", "smallest one of interest, 0.02"},
		{"no lift of interest", always, 0, relative, DirectionIncrease, SampleRatioOK, small, small, ActionInconclusive, "", "2% of the control's value"},
		{"none can win", always, 0, effect, DirectionIncrease, SampleRatioOK, small, harm, ActionInconclusive, "", "smallest one of interest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := definition("control", "a", "b")
			d.Plan.Method, d.Plan.PlannedSubjects, d.Plan.MinimumEffect = tt.method, tt.planned, tt.minimum
			revenue := Sum("purchase", nil)
			revenue.Direction, revenue.Window = tt.direction, week
			s := mustStudy(t, d, []Use{
				use("revenue", revenue, experiment.RolePrimary),
				use("speed", Sum("speed", nil), experiment.RoleSecondary),
				use("refunds", Sum("refund", nil), experiment.RoleGuardrail),
			})
			p := 1e-5
			primary := Result{Metric: "revenue", Role: experiment.RolePrimary, Arms: []Arm{{Subjects: 100}, {Subjects: 100}, {Subjects: 100}}}
			guard := Result{Metric: "refunds", Role: experiment.RoleGuardrail}
			for i, from := range []treatment{tt.a, tt.b} {
				lower, upper := from.effect-from.half, from.effect+from.half
				interval := Interval{Estimate: &from.effect, Lower: &lower, Upper: &upper}
				variant := []string{"a", "b"}[i]
				primary.Comparisons = append(primary.Comparisons, Comparison{
					Variant: variant, Baseline: "control", Difference: interval, Lift: interval, Significant: from.significant,
				})
				guard.Comparisons = append(guard.Comparisons, Comparison{Variant: variant, Baseline: "control", Guardrail: from.guardrail})
			}
			v := s.verdict(&Analysis{
				SampleRatio: SampleRatio{Verdict: tt.ratio, PValue: &p},
				Metrics:     []Result{primary, {Metric: "speed", Role: experiment.RoleSecondary}, guard},
			}, nil)
			if v.Action != tt.action || v.Variant != tt.variant || !strings.Contains(v.Reasons[0], tt.reason) {
				t.Errorf("verdict %s %q, %q; want %s %q, %q", v.Action, v.Variant, v.Reasons, tt.action, tt.variant, tt.reason)
			}
			if len(v.Reasons) != 5 { // And two sentences for each treatment.
				t.Errorf("reasons %q", v.Reasons)
			}
		})
	}
}

func TestVerdictWithoutPrimary(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("speed", Sum("speed", nil), experiment.RoleSecondary)})
	for _, s := range []*Study{s, mustStudy(t, definition("control", "short"), nil)} {
		a := mustAnalyze(t, s, s.NewFold(moment).Tally(), 0)
		if a.Verdict.Action != ActionInconclusive || len(a.Verdict.Reasons) != 1 {
			t.Errorf("verdict %+v", a.Verdict)
		}
	}
}

func TestVerdictWithoutGuardrails(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
	var rows []Row
	for i := range 100 {
		rows = append(rows, row("control", float64(i%5)), row("short", 2+float64(i%5)))
	}
	v := mustAnalyze(t, s, fold(s, rows...), 0).Verdict
	if v.Action != ActionShip || v.Variant != "short" || v.Reasons[0] != "short wins on revenue." {
		t.Errorf("verdict %+v", v)
	}
}

func TestReasons(t *testing.T) {
	x, y, z, p, zero := 0.1, 0.05, 0.15, 0.0012, 0.0
	tests := []struct {
		c    Comparison
		want string
	}{
		{Comparison{Difference: Interval{Estimate: &x, Lower: &y, Upper: &z}, Lift: Interval{Estimate: &x, Lower: &y, Upper: &z}, AdjustedPValue: &p},
			"short against control on revenue: better; difference +0.1 (+0.05 to +0.15), lift +10.00%; adjusted p = 0.0012."},
		{Comparison{Difference: Interval{Estimate: &x, Lower: &y, Upper: &z}}, "short against control on revenue: better; difference +0.1 (+0.05 to +0.15)."},
		{Comparison{Difference: Interval{Estimate: &zero}}, "short against control on revenue: better; difference +0."},
		{Comparison{}, "short against control on revenue: better; no estimate."},
	}
	for _, tt := range tests {
		tt.c.Variant, tt.c.Baseline = "short", "control"
		if got := sentence(&tt.c, "revenue", "better", stats.Absolute); got != tt.want {
			t.Errorf("sentence = %q, want %q", got, tt.want)
		}
	}
	// Against a relative margin the lift's interval decides.
	c := Comparison{Variant: "short", Baseline: "control", Difference: Interval{Estimate: &x, Lower: &x, Upper: &x}, Lift: Interval{Estimate: &x, Lower: &y, Unbounded: true}}
	if got, want := sentence(&c, "revenue", "worse", stats.Relative), "short against control on revenue: worse; difference +0.1, lift +10.00% (+5.00% or more)."; got != want {
		t.Errorf("sentence = %q, want %q", got, want)
	}
}

// TestUnevenVariants warns while an uneven split leaves a variant few subjects.
func TestUnevenVariants(t *testing.T) {
	s := mustStudy(t, definition("control", "short", "long"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
	for _, tt := range []struct {
		control, short, long int
		want                 []string
	}{
		{800, 900, 200, []string{"long"}}, {200, 900, 800, []string{"short", "long"}}, {300, 290, 20, []string{"long"}}, {12, 8, 11, nil}, {18_000, 1_990, 1_500, []string{"long"}}, {0, 0, 0, nil},
	} {
		var rows []Row
		for variant, n := range map[string]int{"control": tt.control, "short": tt.short, "long": tt.long} {
			for i := range n {
				rows = append(rows, row(variant, float64(i%5)))
			}
		}
		var named []string
		for _, w := range mustAnalyze(t, s, fold(s, rows...), 0).Warnings {
			if variant, _, ok := strings.Cut(w, " and the control are of uneven size"); ok {
				named = append(named, variant)
			}
		}
		if !slices.Equal(named, tt.want) {
			t.Errorf("%d, %d and %d subjects: warned of %q, want %q", tt.control, tt.short, tt.long, named, tt.want)
		}
	}
}

// TestNothingHappens: a guardrail that nothing touches passes once there are
// enough subjects to tell, and keeps nobody from shipping.
func TestNothingHappens(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{
		use("rate", Proportion("purchase", nil), experiment.RolePrimary),
		{Metric: use("refunds", Proportion("refund", nil), "").Metric, Role: experiment.RoleGuardrail, Margin: &experiment.Magnitude{Value: 0.01}},
	})
	for _, tt := range []struct {
		subjects  int
		guardrail GuardrailVerdict
		action    Action
	}{{40, GuardrailUndecided, ActionKeepRunning}, {4000, GuardrailPassed, ActionShip}} {
		var rows []Row
		for i := range tt.subjects {
			bought := 0.0
			if arm := i % 2; i/2%10 <= 2+6*arm {
				bought = 1
			}
			rows = append(rows, row([]string{"control", "short"}[i%2], bought, 0))
		}
		a := mustAnalyze(t, s, fold(s, rows...), 0)
		if got := a.Metrics[1].Comparisons[0].Guardrail; got != tt.guardrail || a.Verdict.Action != tt.action {
			t.Errorf("%d subjects: %s and %+v", tt.subjects, got, a.Verdict)
		}
	}
}

// TestManyGuardrails: one of many guardrails is beyond its margin by chance; a
// treatment is rolled back only if it is so beyond their number.
func TestManyGuardrails(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
	guardrail := func(p float64, v GuardrailVerdict) *Comparison { return &Comparison{PValue: &p, Guardrail: v} }
	for _, tt := range []struct {
		p       float64
		others  int
		harmful bool
	}{{0.04, 0, true}, {0.04, 1, false}, {0.02, 1, true}, {0.012, 4, false}, {0.009, 4, true}} {
		guardrails := []*Comparison{guardrail(tt.p, GuardrailFailed)}
		for range tt.others {
			guardrails = append(guardrails, guardrail(1e-9, GuardrailPassed))
		}
		if got := s.harmful(guardrails); got != tt.harmful {
			t.Errorf("p = %v of %d guardrails: harmful %t", tt.p, 1+tt.others, got)
		}
	}
	if s.harmful(nil) || !s.harmful([]*Comparison{{Guardrail: GuardrailFailed}}) {
		t.Error("without guardrails nothing is harmful, and without p-values a broken one is")
	}
}

// TestEndedTreatments: a treatment without weight neither ships nor holds up what
// is to be said of the others, unless all have ended.
func TestEndedTreatments(t *testing.T) {
	comparison := func(variant string, effect float64, significant bool) Comparison {
		lower, upper := effect-0.1, effect+0.1
		interval := Interval{Estimate: &effect, Lower: &lower, Upper: &upper}
		return Comparison{Variant: variant, Baseline: "control", Difference: interval, Lift: interval, Significant: significant}
	}
	lose, open, win := comparison("a", -0.2, true), comparison("b", 0.05, false), comparison("b", 0.2, true)
	for _, tt := range []struct {
		name   string
		a, b   Comparison
		shares []float64
		sticky bool
		action Action
		reason string // Of the second treatment.
	}{
		{"the only one that runs loses", lose, open, []float64{0.5, 0.5, 0}, false, ActionRollBack, "not decided, and ended"},
		{"the winner has ended", comparison("a", 0.05, false), win, []float64{0.5, 0.5, 0}, false, ActionKeepRunning, "better, and ended"},
		{"all have ended", comparison("a", 0.05, false), win, []float64{1, 0, 0}, false, ActionShip, "better; difference"},
		{"subjects keep it", comparison("a", 0.05, false), win, []float64{0.5, 0.5, 0}, true, ActionShip, "better; difference"},
		{"none has", lose, open, []float64{0.5, 0.25, 0.25}, false, ActionKeepRunning, "not decided; difference"},
	} {
		d := definition("control", "a", "b")
		d.Sticky = tt.sticky
		s := mustStudy(t, d, []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
		v := s.verdict(&Analysis{
			SampleRatio: SampleRatio{Verdict: SampleRatioOK},
			Metrics:     []Result{{Metric: "revenue", Role: experiment.RolePrimary, Arms: []Arm{{Subjects: 100}, {Subjects: 100}, {Subjects: 100}}, Comparisons: []Comparison{tt.a, tt.b}}},
		}, tt.shares)
		if v.Action != tt.action || !strings.Contains(v.Reasons[2], tt.reason) {
			t.Errorf("%s: %s, %q", tt.name, v.Action, v.Reasons)
		}
	}
}
