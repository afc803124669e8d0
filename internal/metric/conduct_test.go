package metric

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

// TestConductOf: a pause ends with the next change of state, if there was one.
func TestConductOf(t *testing.T) {
	at := func(day int) time.Time { return moment.AddDate(0, 0, day) }
	transitions := []experiment.Transition{
		{State: experiment.StateRunning, Time: at(0)}, {State: experiment.StatePaused, Time: at(1)}, {State: experiment.StateRunning, Time: at(3)},
		{State: experiment.StatePaused, Time: at(5)}, {State: experiment.StateConcluded, Time: at(6)}, {State: experiment.StatePaused, Time: at(9)},
	}
	phases := []experiment.Phase{{Number: 2}}
	got := ConductOf(&experiment.Experiment{ConcludeTime: at(6)}, phases, transitions)
	want := Conduct{End: at(6), Phases: phases, Pauses: []Stretch{{at(1), at(3)}, {at(5), at(6)}, {From: at(9)}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestCountingEnds: it has ended at the moment at which it ends, and not before.
func TestCountingEnds(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("m", Sum("purchase", nil), experiment.RolePrimary)})
	for name, c := range map[string]struct{ end, want time.Time }{
		"it goes on":  {},
		"now":         {moment, moment},
		"before":      {moment.Add(-time.Hour), moment.Add(-time.Hour)},
		"in a moment": {end: moment.Add(time.Nanosecond)},
	} {
		until := moment
		if !c.want.IsZero() {
			until = c.want
		}
		conducted := s.Conducted(Conduct{End: c.end})
		if got := conducted.CountingEnd(moment); !got.Equal(c.want) || !conducted.Until(moment).Equal(until) {
			t.Errorf("%s: counting ended at %v, and it follows until %v", name, got, conducted.Until(moment))
		}
	}
}

// TestPausedShare: two subjects are followed for a week each, or to the end, of which
// two pauses take a part, in the first of which the week of one ends; a third pause is
// yet to come, and a third subject came when counting had ended.
func TestPausedShare(t *testing.T) {
	at := func(days float64) time.Time { return moment.Add(time.Duration(days * 24 * float64(time.Hour))) }
	weekly := Sum("purchase", nil)
	weekly.Window = week
	s := mustStudy(t, definition("control", "short"), []Use{use("weekly", weekly, experiment.RolePrimary), use("all", Sum("purchase", nil), experiment.RoleSecondary)})
	pauses := []Stretch{{at(-9), at(-7)}, {at(-2), at(0.5)}, {at(1), at(2)}}
	for _, c := range []struct {
		name        string
		conduct     Conduct
		weekly, all float64 // Days in pauses over days that subjects are followed.
		excluded    []Stretch
		warning     string
	}{
		{"it goes on", Conduct{Pauses: pauses}, 3. / 14, 7. / 23, nil,
			"30.4% of the time in which subjects are followed for all lies in 2 pauses of the experiment, when nobody was served: that finds no effect where there is none, but makes one look smaller than it is. `exclude_pauses` leaves out what happened in them."},
		{"without the pauses", Conduct{Pauses: pauses, ExcludePauses: true}, 3. / 14, 7. / 23, []Stretch{{at(-9), at(-7)}, {From: at(-2)}},
			"30.4% of the time in which subjects are followed for all lies in 2 pauses of the experiment, when nobody was served: what happened in it is left out, of all variants alike; corrections count where what they correct does."},
		{"it ended", Conduct{Pauses: pauses, ExcludePauses: true, End: at(-1)}, 3. / 14, 5. / 21, []Stretch{{at(-9), at(-7)}, {From: at(-2)}}, "23.8% of the time"},
		{"it ended as the second pause began", Conduct{Pauses: pauses, ExcludePauses: true, End: at(-2)}, 1. / 7, 3. / 19, []Stretch{{at(-9), at(-7)}},
			"15.8% of the time in which subjects are followed for all lies in 1 pause of the experiment"},
		{"before the first", Conduct{Pauses: pauses[1:]}, 1. / 14, 4. / 23, nil, "17.4% of the time in which subjects are followed for all lies in 1 pause"},
		{"without one", Conduct{ExcludePauses: true}, 0, 0, nil, ""},
	} {
		study := s.Conducted(c.conduct)
		one, two, three := row("control", 1, 1), row("short", 1, 1), row("short", 1, 1)
		one.FirstExposure, two.FirstExposure, three.FirstExposure = at(-15), at(-8), at(-0.5)
		rows := []Row{one, two}
		ended := !c.conduct.End.IsZero()
		if ended {
			rows = append(rows, three)
		}
		tally := fold(study, rows...)
		if n := tally.Metrics[1].OpenWindows; (n == 1) != ended {
			t.Errorf("%s: %d subjects came when counting had ended", c.name, n)
		}
		a := mustAnalyze(t, study, tally, 0)
		want(t, c.name+": weekly", &a.Metrics[0].PausedShare, c.weekly, 1e-12)
		want(t, c.name+": all", &a.Metrics[1].PausedShare, c.all, 1e-12)
		want(t, c.name, &a.PausedShare, max(c.weekly, c.all), 1e-12)
		if diff := cmp.Diff(c.excluded, study.ExcludedPauses(moment)); diff != "" {
			t.Errorf("%s: excluded (-want +got):\n%s", c.name, diff)
		}
		got := ""
		for _, w := range a.Warnings {
			if strings.Contains(w, "pause") {
				got += w
			}
		}
		if !strings.HasPrefix(got, c.warning) || (got == "") != (c.warning == "") {
			t.Errorf("%s: warning %q", c.name, got)
		}
	}
}

// TestStoppedWarnings: intervals hold though it was stopped for what they said where they
// are made to be looked at often, and windows that were open then stay so.
func TestStoppedWarnings(t *testing.T) {
	for _, c := range []struct {
		method experiment.Method
		window time.Duration
		hold   bool
	}{
		{experiment.MethodAlwaysValid, week, true}, {experiment.MethodAlwaysValid, 0, false},
		{experiment.MethodFixedHorizon, week, false}, {experiment.MethodFixedHorizon, 0, false},
		{experiment.MethodGroupSequential, week, true}, {experiment.MethodGroupSequential, 0, false},
	} {
		d := definition("control", "short")
		d.Plan.Method, d.Plan.PlannedSubjects, d.Plan.Spending = c.method, 400, experiment.SpendingPocock
		revenue := Sum("purchase", nil)
		revenue.Window = c.window
		s := mustStudy(t, d, []Use{use("revenue", revenue, experiment.RolePrimary)})
		late := row("short", 1)
		late.FirstExposure = moment.Add(-2 * time.Hour)
		rows := append(won(50), late)
		for _, end := range []time.Time{{}, moment.Add(-time.Hour)} {
			study := s.Conducted(Conduct{End: end})
			a := mustAnalyze(t, study, fold(study, rows...), 0)
			text := strings.Join(a.Warnings, " ")
			ended := !end.IsZero()
			if strings.Contains(text, "Counting ended at 2026") != ended || strings.Contains(text, "its intervals hold all the same.") != (ended && c.hold) ||
				strings.Contains(text, "its intervals hold only if the stop was planned.") != (ended && !c.hold) {
				t.Errorf("%s, window %v, ended %t: warnings %q", c.method, c.window, ended, a.Warnings)
			}
			open := "1 subject was not counted yet for the primary metric, as the window after exposure is still open"
			if ended {
				open = "1 subject was not counted for the primary metric, as the window after exposure was still open when counting ended"
			}
			if strings.Contains(text, open) != (c.window > 0) {
				t.Errorf("%s, window %v, ended %t: warnings %q do not say %q", c.method, c.window, ended, a.Warnings, open)
			}
		}
	}
}
