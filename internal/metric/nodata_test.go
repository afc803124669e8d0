package metric

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// What nobody has outcomes of decides nothing, whatever its objective and margin;
// with one outcome of anybody 0 is 0, and so it is in a tally from before outcomes
// were accounted for.
func TestNothingIsDecidedWithoutData(t *testing.T) {
	for _, objective := range []experiment.Objective{experiment.ObjectiveDifference, experiment.ObjectiveNonInferiority, experiment.ObjectiveEquivalence} {
		d := definition("control", "short")
		d.Plan.MinimumEffect = &experiment.Magnitude{Value: 0.5}
		primary := use("crashes", Proportion("crash", nil), experiment.RolePrimary)
		guard := use("errors", Proportion("error", nil), experiment.RoleGuardrail)
		if primary.Objective = objective; objective.HasMargin() {
			primary.Margin = &experiment.Magnitude{Value: 0.5}
		}
		guard.Margin = &experiment.Magnitude{Value: 0.5}
		s := mustStudy(t, d, []Use{primary, guard}, "country")
		var rows []Row
		for range 2000 {
			for _, v := range []string{"control", "short"} {
				item := row(v, 0, 0)
				item.Segments = [][]byte{[]byte("PL")}
				rows = append(rows, item)
			}
		}
		for _, c := range []struct {
			name      string
			accounted *Accounted
			dead      bool
		}{
			{"without data", &Accounted{}, true},
			{"of another unit", &Accounted{Placed: []Placed{{Name: "crash", Owner: OtherUnit, Outcomes: 50}, {Name: "error", Owner: OtherUnit, Outcomes: 50}}}, true},
			{"of somebody, when counting had ended", &Accounted{Placed: []Placed{{Name: "crash", Owner: Analysed, AfterEnd: true, Outcomes: 1, Taken: []int64{1, 0}, Valueless: []int64{0, 0}},
				{Name: "error", Owner: NeverExposed, AfterEnd: true, Outcomes: 1}}}, true},
			{"of somebody", &Accounted{Placed: []Placed{{Name: "crash", Owner: NeverExposed, Outcomes: 1}, {Name: "error", Owner: SubjectLeftOut, Outcomes: 1}}}, false},
			{"not accounted for", nil, false},
		} {
			tally := fold(s, rows...)
			if c.accounted != nil {
				s.Account(tally, c.accounted)
			}
			a, err := s.Analyze(tally, map[int32][]float64{1: {0.5, 0.5}})
			if err != nil {
				t.Fatal(err)
			}
			comparison, guarded := a.Metrics[0].Comparisons[0], a.Metrics[1].Comparisons[0].Guardrail
			if a.Metrics[0].WithoutData != c.dead || a.Metrics[1].WithoutData != c.dead || comparison.Guardrail != "" {
				t.Errorf("%s, %s: without data %t and %t, guardrail %q", objective, c.name, a.Metrics[0].WithoutData, a.Metrics[1].WithoutData, comparison.Guardrail)
			}
			for _, arms := range [][]Arm{a.Metrics[0].Arms, a.Metrics[1].Arms, a.Metrics[0].Segments[0].Arms} {
				for _, arm := range arms {
					if none := arm.Mean == nil && arm.StandardError == nil && arm.Total == nil && arm.Informative == nil && len(arm.Notes) == 1 && strings.Contains(arm.Notes[0], " has no data"); none != c.dead || arm.Subjects != 2000 {
						t.Errorf("%s, %s: arm %+v", objective, c.name, arm)
					}
				}
			}
			for _, h := range a.Metrics[0].Heterogeneity {
				if none := slices.ContainsFunc(h.Notes, func(n string) bool { return strings.HasPrefix(n, "Metric crashes has no data") }); none != c.dead || c.dead && (h.DegreesOfFreedom != 0 || h.Attribute == "" || h.Variant == "") {
					t.Errorf("%s, %s: heterogeneity %+v", objective, c.name, h)
				}
			}
			if c.dead && strings.Contains(strings.Join(a.Warnings, " "), "None of the") {
				t.Errorf("%s, %s: warnings %q", objective, c.name, a.Warnings)
			}
			if segment := a.Metrics[0].Segments[0].Comparisons[0]; c.dead && segment.Significant {
				t.Errorf("%s, %s: a segment is significant", objective, c.name)
			}
			switch {
			case c.dead && (comparison.Significant || guarded != GuardrailUndecided || a.Verdict.Action != ActionKeepRunning):
				t.Errorf("%s, %s: significant %t, guardrail %s, verdict %v", objective, c.name, comparison.Significant, guarded, a.Verdict)
			case !c.dead && (guarded != GuardrailPassed || comparison.Significant != objective.HasMargin()):
				t.Errorf("%s, %s: significant %t, guardrail %s", objective, c.name, comparison.Significant, guarded)
			}
			for _, texts := range [][]string{a.Verdict.Reasons, a.Warnings} {
				said := 0
				for _, text := range texts {
					if strings.HasPrefix(text, "Metric crashes has no data") || strings.HasPrefix(text, "Metric errors has no data") {
						said++
					}
				}
				if want := map[bool]int{true: 2}[c.dead]; said != want {
					t.Errorf("%s, %s: said of %d metrics, want %d: %q", objective, c.name, said, want, texts)
				}
			}
		}
	}
}

// What a metric lacks is named, with what arrived in place of it.
func TestWithoutDataNamesWhatArrived(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("m", Proportion("x", nil), experiment.RolePrimary)})
	got := s.withoutData(&Tally{Metrics: []MetricTally{{Metric: "m", Outcomes: []OutcomeUse{
		{Name: "clicks", Similar: []SimilarOutcomes{{Name: "click", Unit: "user", Outcomes: 3}, {Name: "Clicks", Unit: "device", Outcomes: 1}, {Name: "clicks_", Outcomes: 2}}},
		{Name: "views", Alive: true},
		{Name: "buys", ShortlyBefore: 7},
		{Name: "crash", Alive: true, Lacking: []Lack{{Field: "severity", Similar: []string{"severty", "Severity"}}, {Field: "load", Number: true}, {Field: "value"}}},
	}}}}, 0)
	const want = `Metric m has no data: since the start or the first exposure, whichever is earlier, nobody of the unit user, exposed or not, has had an outcome ` +
		`"clicks" (but there is "click", 3 times; "Clicks" of the unit device, once; "clicks_" of a unit that is not known, 2 times) or ` +
		`"buys" (but for 7 in the last 5 seconds before the subject's exposure: the clock that they are timed by may be behind) or ` +
		`"crash" with a property "severity", which it has a condition on (but there is "severty", "Severity") or ` +
		`"crash" with a number as its property "load", which it has a condition on or "crash" with a value. Nothing is decided by it.`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := s.withoutData(&Tally{Metrics: []MetricTally{{Metric: "m", Outcomes: []OutcomeUse{{Name: "views", Alive: true}}}}}, 0); got != "" {
		t.Errorf("of a metric with data: %s", got)
	}
}

// Where outcomes arrive and do not count, what looks like a fault is said.
func TestFaultsOfOutcomes(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("m", Proportion("x", nil), experiment.RolePrimary)})
	for _, c := range []struct {
		use  OutcomeUse
		want string
	}{
		{OutcomeUse{Counted: 100}, ""},
		{OutcomeUse{Counted: 1, NotCounted: map[UncountedReason]int64{OfNeverExposed: 10000}}, ""}, // A little of the traffic takes part.
		{OutcomeUse{NotCounted: map[UncountedReason]int64{OfNeverExposed: 9}}, ""},
		{OutcomeUse{NotCounted: map[UncountedReason]int64{OfNeverExposed: 10}}, `None of the 10 outcomes "x" counts for m: 10 of them are of subjects that were never exposed.`},
		{OutcomeUse{NotCounted: map[UncountedReason]int64{WithoutValue: 20}}, `None of the 20 outcomes "x" counts for m: 20 of them have no value.`},
		{OutcomeUse{NotCounted: map[UncountedReason]int64{OfNeverExposed: 60, AfterWindow: 40}}, `None of the 100 outcomes "x" counts for m: 60 of them are of subjects that were never exposed.`},
		{OutcomeUse{NotCounted: map[UncountedReason]int64{OfNeverExposed: 60, WindowOpen: 1}}, ""},
		{OutcomeUse{Counted: 40, NotCounted: map[UncountedReason]int64{OfOtherUnit: 60}}, `60 of the 100 outcomes "x" are of subjects of another unit than user, and do not count for m.`},
		{OutcomeUse{Counted: 50, NotCounted: map[UncountedReason]int64{OfOtherUnit: 50}}, ""},
		{OutcomeUse{Counted: 40, NotCounted: map[UncountedReason]int64{BeforeExposure: 90}, ShortlyBefore: 50},
			`50 outcomes "x" do not count for m, as they occurred in the last 5 seconds before the subject's exposure, and 40 count: the clock that they are timed by may be behind.`},
		{OutcomeUse{Counted: 40, NotCounted: map[UncountedReason]int64{BeforeExposure: 90}, ShortlyBefore: 40}, ""},
		{OutcomeUse{Counted: 1, NotCounted: map[UncountedReason]int64{BeforeExposure: 9}, ShortlyBefore: 9}, ""},
		{OutcomeUse{Counted: 1, NotCounted: map[UncountedReason]int64{BeforeExposure: 10}, ShortlyBefore: 10},
			`10 outcomes "x" do not count for m, as they occurred in the last 5 seconds before the subject's exposure, and 1 count: the clock that they are timed by may be behind.`},
		{OutcomeUse{NotCounted: map[UncountedReason]int64{NothingToCorrect: 9}}, ""},
		{OutcomeUse{NotCounted: map[UncountedReason]int64{NothingToCorrect: 10}},
			`10 corrections of outcomes "x" count nowhere, as no outcome is known that is as they say: one of the same subject, name, event_id and occurred_time, and no correction itself.`},
		{OutcomeUse{Counted: 400, NotCounted: map[UncountedReason]int64{WithoutValue: 10}},
			`10 outcomes "x" that m would take have no value, beside 400 that count: what takes values leaves them out, and if one variant loses more values than another, the two differ by that.`},
		{OutcomeUse{Counted: 490, NotCounted: map[UncountedReason]int64{WithoutValue: 10}}, ""},
		{OutcomeUse{Counted: 40, NotCounted: map[UncountedReason]int64{WithoutValue: 9}}, ""},
	} {
		c.use.Name, c.use.Alive = "x", true
		got := strings.Join(s.uncounted(&MetricTally{Metric: "m", Outcomes: []OutcomeUse{c.use}}), "|")
		if got != c.want {
			t.Errorf("%+v: %q, want %q", c.use, got, c.want)
		}
	}
}

// Metrics without data are tests of their family that found nothing: their zeros,
// which are well within any margin, make no other metric significant. By the method of
// Benjamini and Hochberg, of seven tests (R: p.adjust(c(p, 1, 1, 1), "BH")).
func TestMetricsWithoutDataLendNothing(t *testing.T) {
	for _, method := range []experiment.Method{experiment.MethodFixedHorizon, experiment.MethodAlwaysValid, experiment.MethodBayesian} {
		d := definition("control", "short")
		d.Plan.Method, d.Plan.Correction = method, experiment.CorrectionBenjaminiHochberg
		uses := []Use{use("sales", Sum("sale", nil), experiment.RolePrimary)}
		for _, name := range []string{"one", "two", "three", "four"} {
			uses = append(uses, use(name, Sum(name, nil), experiment.RoleSecondary))
		}
		for _, name := range []string{"dead", "gone", "lost"} {
			dead := use(name, Proportion(name, nil), experiment.RoleSecondary)
			dead.Objective, dead.Margin = experiment.ObjectiveNonInferiority, &experiment.Magnitude{Value: 0.5}
			uses = append(uses, dead)
		}
		s := mustStudy(t, d, uses, "country")
		r := rand.New(rand.NewPCG(1, 16))
		var rows []Row
		for i := range 400 {
			values := make([]float64, 8)
			for k := range 5 {
				values[k] = r.NormFloat64() + 0.1*float64(k*(i%2))
			}
			item := row([]string{"control", "short"}[i%2], values...)
			item.Segments = [][]byte{[]byte("PL")}
			rows = append(rows, item)
		}
		tally := fold(s, rows...)
		accounted := &Accounted{}
		for _, name := range []string{"sale", "one", "two", "three", "four"} {
			accounted.Placed = append(accounted.Placed, Placed{Name: name, Owner: NeverExposed, Outcomes: 1, Having: slices.Repeat([]int64{1}, len(s.Accounts().Needs))})
		}
		s.Account(tally, accounted)
		a, err := s.Analyze(tally, map[int32][]float64{1: {0.5, 0.5}})
		if err != nil {
			t.Fatal(err)
		}
		var p []float64
		for i := range a.Metrics[1:] {
			result := &a.Metrics[1+i]
			all := append(result.Comparisons, result.Segments[0].Comparisons...)
			for _, c := range all {
				if !result.WithoutData {
					continue
				}
				if c.PValue != nil || c.AdjustedPValue != nil || c.Smallest != nil || c.ChanceToWin != nil || c.Difference != (Interval{}) || c.Lift != (Interval{}) ||
					c.AdjustedDifference != (Interval{}) || c.Unadjusted != nil || c.Significant || strings.Contains(strings.Join(c.Notes, " "), "p-value") {
					t.Errorf("%s, %s: %+v", method, result.Metric, c)
				}
			}
			if c := result.Comparisons[0]; c.PValue != nil {
				p = append(p, *c.PValue)
			}
		}
		if method == experiment.MethodBayesian {
			continue
		}
		slices.Sort(p)
		if len(p) != 4 {
			t.Fatalf("%s: %d p-values", method, len(p))
		}
		for i := range a.Metrics[1:5] {
			c := &a.Metrics[1+i].Comparisons[0]
			adjusted := 1.0
			for k, q := range p {
				if q >= *c.PValue {
					adjusted = min(adjusted, q*7/float64(k+1))
				}
			}
			want(t, string(method)+" "+a.Metrics[1+i].Metric, c.AdjustedPValue, adjusted, 1e-12)
		}
	}
}

// A covariate of outcomes that nobody had is named, with what arrived in place of
// them; one that looks elsewhere is not.
func TestCovariatesWithoutData(t *testing.T) {
	d := definition("control", "short")
	past := func(window time.Duration) *experiment.PastOutcomes {
		return &experiment.PastOutcomes{Component: experiment.Component{Outcome: "visit", Aggregate: experiment.AggregateCount}, Window: window}
	}
	d.Covariates = []experiment.Covariate{{Name: "before", Past: past(24 * time.Hour)}, {Name: "long before", Past: past(48 * time.Hour)}, {Name: "country", Attribute: "country"}}
	u := use("m", Proportion("x", nil), experiment.RolePrimary)
	u.Covariates = []string{"before", "long before"}
	s := mustStudy(t, d, []Use{u})
	if got := s.Accounts().Pasts; len(got) != 2 || len(s.Unaccounted().Accounts().Pasts) != 0 {
		t.Errorf("pasts %+v", got)
	}
	tally := fold(s)
	s.Account(tally, &Accounted{DeadPasts: []DeadPast{{Past: Past{"visit", 24 * time.Hour}, Similar: []SimilarOutcomes{{Name: "visits", Unit: "user", Outcomes: 3}}}}})
	a := mustAnalyze(t, s, tally, 0)
	const want = `Covariate "before" has no data: from 24h0m0s before the first exposure up to the last, nobody of the unit user, exposed or not, had an outcome "visit" (but there is "visits", 3 times). It adjusts nothing.`
	var got []string
	for _, w := range a.Warnings {
		if strings.HasPrefix(w, "Covariate") {
			got = append(got, w)
		}
	}
	if len(got) != 1 || got[0] != want {
		t.Errorf("warnings %q", got)
	}
}
