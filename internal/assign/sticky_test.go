package assign

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

func sticky(d *experiment.Definition) { d.Sticky = true }

func closed(d *experiment.Definition) { d.Sticky, d.IntakeClosed = true, true }

// TestStickyGate takes u-1, to which the split gives v0, with all that can be
// known of its enrolment to experiments of all states.
func TestStickyGate(t *testing.T) {
	nobody := func(d *experiment.Definition) { d.Traffic, d.Eligibility = 0, "unit == 'x'" }
	open := running("e", 1, 0).with(sticky)
	pinned := running("e", 1, 0).with(closed)
	pinned.Overrides = map[experiment.SubjectID]string{pepper.SubjectID(experiment.Subject{Unit: "user", Key: "u-1"}): "v0"}
	shipped := running("e", 1, 0).with(closed)
	shipped.Experiment.ShippedVariant = "v0"
	for _, c := range []struct {
		name     string
		history  history
		enrolled string // "" for not.
		complete bool
		want     answer
		unknown  bool
		says     string // By the sticky gate; "" for no such gate.
	}{
		{"enrolled", open, "v1", true, answer{1, 1, ReasonSticky, false}, false, `first recorded exposure was to "v1"`},
		{"enrolled, others unknown", open, "v1", false, answer{1, 1, ReasonSticky, false}, false, `first recorded exposure was to "v1"`},
		{"enrolled, ineligible, outside traffic", open.with(nobody), "v1", true, answer{1, 1, ReasonSticky, false}, false, "is enrolled"},
		{"enrolled, intake closed", running("e", 1, 0).with(closed), "v1", true, answer{1, 1, ReasonSticky, false}, false, "is enrolled"},
		{"enrolled with what the split gives", open, "v0", true, answer{0, 1, ReasonSticky, false}, false, "is enrolled"},
		{"enrolled, pinned", pinned, "v1", true, answer{0, 1, ReasonOverride, false}, false, ""},
		{"enrolled with a variant that is gone", open, "v9", true, answer{0, 1, ReasonSplit, false}, false, `"v9", which is no variant any more: it is not enrolled`},
		{"the same, others unknown", open, "v9", false, answer{0, 1, ReasonSplit, false}, false, "no variant any more"},
		{"the same, intake closed", running("e", 1, 0).with(closed), "v9", true, answer{-1, 1, ReasonIntakeClosed, false}, false, "it is not enrolled. The intake is closed."},
		{"not enrolled", open, "", true, answer{0, 1, ReasonSplit, false}, false, "The subject is not enrolled."},
		{"not enrolled, ineligible", open.with(nobody), "", true, answer{-1, 1, ReasonIneligible, false}, false, "not enrolled"},
		{"not enrolled, intake closed", running("e", 1, 0).with(closed), "", true, answer{-1, 1, ReasonIntakeClosed, false}, false, "not enrolled. The intake is closed."},
		{"unknown", open, "", false, answer{0, 1, ReasonSplit, false}, true, "could not be read"},
		{"unknown, intake closed", running("e", 1, 0).with(closed), "", false, answer{0, 1, ReasonSplit, false}, true, "could not be read"},
		{"unknown, ineligible", open.with(nobody), "", false, answer{-1, 1, ReasonIneligible, false}, true, "could not be read"},
		{"unknown, outside traffic", open.with(func(d *experiment.Definition) { d.Traffic = 0 }), "", false, answer{-1, 1, ReasonNoTraffic, false}, true, "could not be read"},
		{"unknown, pinned", pinned, "", false, answer{0, 1, ReasonOverride, false}, false, ""},
		{"enrolled, held out", open.covered(coverage(7, experiment.Buckets)), "v1", true, answer{1, 1, ReasonSticky, false}, false, "is enrolled"},
		{"not enrolled, held out", open.covered(coverage(7, experiment.Buckets)), "", true, answer{0, 1, ReasonHoldout, false}, false, "not enrolled"},
		{"unknown, held out", open.covered(coverage(7, experiment.Buckets)), "", false, answer{0, 1, ReasonHoldout, false}, true, "could not be read"},
		{"paused", open.in(experiment.StatePaused, day(3)), "v1", true, answer{-1, 1, ReasonNotRunning, false}, false, ""},
		{"concluded", shipped.in(experiment.StateConcluded, day(3)), "v1", true, answer{0, 1, ReasonConcluded, false}, false, ""},
		{"concluded, unknown", shipped.in(experiment.StateConcluded, day(3)), "", false, answer{0, 1, ReasonConcluded, false}, false, ""},
		{"not sticky", running("e", 1, 0), "v1", true, answer{0, 1, ReasonSplit, false}, false, ""},
		{"not sticky, unknown", running("e", 1, 0), "", false, answer{0, 1, ReasonSplit, false}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			catalog := catalogOf(t, c.history)
			e, subject := catalog.Experiment("e"), catalog.Subject("user", "u-1", nil, day(4))
			enrolled := map[experiment.Enrollment]string{catalog.Subject("user", "u-2", nil, day(4)).Enrollment(e): "v1"}
			if c.enrolled != "" {
				enrolled[subject.Enrollment(e)] = c.enrolled
			}
			subject.Enroll(enrolled, c.complete)
			d, x := subject.Decide(e), subject.Explain(e)
			if diff := cmp.Diff(c.want, answerOf(d)); diff != "" || d.EnrollmentUnknown() != c.unknown || x.Decision != d {
				t.Errorf("unknown %t, explained as %+v:\n%s", d.EnrollmentUnknown(), answerOf(x.Decision), diff)
			}
			checkStickyGate(t, x, c.says)
		})
	}
}

// checkStickyGate finds the gate between the pins and the eligibility.
func checkStickyGate(t *testing.T, x Explanation, says string) {
	t.Helper()
	found := false
	for i, g := range x.Gates {
		if g.Kind != GateSticky {
			continue
		}
		found = true
		if i != 2 || x.Gates[1].Kind != GateOverride || !strings.Contains(g.Detail, says) || g.Passed != (x.Reason != ReasonIntakeClosed) {
			t.Errorf("the gate %d: %+v", i, g)
		}
		if ends := x.Reason == ReasonSticky || x.Reason == ReasonIntakeClosed; ends != (len(x.Gates) == 3) {
			t.Errorf("%d gates, reason %d", len(x.Gates), x.Reason)
		}
	}
	if found != (says != "") {
		t.Errorf("a sticky gate: %t", found)
	}
}

// TestStickyView holds that views of the past and of revisions ask, too.
func TestStickyView(t *testing.T) {
	h := running("e", 1, 0).with(sticky).in(experiment.StatePaused, day(5))
	catalog := catalogOf(t, h)
	subject, e := catalog.Subject("user", "u-1", nil, day(4)), catalog.Experiment("e")
	for name, view := range map[string]*Experiment{"a revision": h.atRevision(e, 1), "the past": h.asOf(e, day(3), nil)} {
		if e.Sticky() || !view.Sticky() || !subject.Decide(view).EnrollmentUnknown() {
			t.Errorf("%s does not ask who is enrolled", name)
		}
		if subject.Enrollment(view) != subject.Enrollment(e) {
			t.Errorf("%s has enrolled others", name)
		}
	}
}

func TestStickyDoesNotAllocate(t *testing.T) {
	catalog := catalogOf(t, running("e", 1, 1).with(sticky))
	subject, e := catalog.Subject("user", "u-1", nil, day(4)), catalog.Experiment("e")
	for _, enrolled := range []map[experiment.Enrollment]string{nil, {subject.Enrollment(e): "v1"}} {
		subject.Enroll(enrolled, true)
		if n := testing.AllocsPerRun(100, func() { subject.Decide(e) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}
