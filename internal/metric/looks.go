package metric

import (
	"fmt"
	"slices"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// maxLooks bounds the looks of an experiment, whose boundaries depend on all
// earlier ones.
const maxLooks = 50

// Look is one look of a group-sequential plan.
type Look struct {
	Number   int32            // From 1 on.
	Subjects map[string]int64 // Those that were analysed, by metric of the plan.
	Ended    bool             // Counting had ended when it was taken.
	// Verdict is what the look decided. Only the latest one's is needed, where
	// an analysis takes no look.
	Verdict Verdict
}

// looks is where a study stands among the looks of its plan.
type looks struct {
	earlier   []Look
	taking    bool                       // Whether the analysis takes the next one.
	schedules map[string]*stats.Schedule // By metric, if it does.
}

var spendings = map[experiment.Spending]stats.Spending{
	experiment.SpendingOBrienFleming: stats.OBrienFleming,
	experiment.SpendingPocock:        stats.Pocock,
}

// AtLook is the study of an analysis that follows the earlier looks, and takes
// the next one if take is set. It refuses a look that cannot be taken, whatever
// the subjects did.
func (s *Study) AtLook(earlier []Look, take bool) (*Study, error) {
	at := *s
	at.looks = looks{earlier: earlier, taking: take}
	if !take {
		return &at, nil
	}
	refuse := func(reason, format string, args ...any) (*Study, error) {
		return nil, experiment.Errorf(experiment.ErrPrecondition, reason, format, args...)
	}
	last := len(earlier) - 1
	switch {
	case s.definition.Plan.Method != experiment.MethodGroupSequential:
		return refuse("NOT_GROUP_SEQUENTIAL", "the plan is not group-sequential, and has no looks to take")
	case len(s.metrics) == 0 || s.metrics[0].Role != experiment.RolePrimary:
		return refuse("NO_PRIMARY_METRIC", "the plan has no primary metric, by whose subjects looks are timed")
	case last >= 0 && s.Information(&earlier[last]) >= 1:
		return refuse("LAST_LOOK_TAKEN", "look %d was the last one: it had all of the %d planned subjects", earlier[last].Number, s.definition.Plan.PlannedSubjects)
	case len(earlier) >= maxLooks:
		return refuse("TOO_MANY_LOOKS", "%d looks were taken, and there are no more", maxLooks)
	}
	return &at, nil
}

// Information is the share of the planned subjects that a look had. There is a
// primary metric wherever there is a look.
func (s *Study) Information(l *Look) float64 {
	return float64(l.Subjects[s.metrics[0].Metric.Key]) / float64(s.definition.Plan.PlannedSubjects)
}

// Spent is the error rate that two-sided tests have spent up to a look.
func (s *Study) Spent(l *Look) float64 {
	plan := &s.definition.Plan
	return spendings[plan.Spending].Spent(1-plan.ConfidenceLevel, s.timeOf(l), stats.TwoSided)
}

// decides says whether a look can decide, which of a plan that decides once only that
// look can which has the planned subjects, or comes when counting has ended.
func (s *Study) decides(l *Look) bool {
	return !s.decidesOnce() || l.Ended || s.Information(l) >= 1
}

// timeOf is the time of a look on the scale of the error rate. A plan that decides
// once spends all of it at the look that does, and nothing at one that cannot. Any
// other plan spends by the subjects that a look has, after a conclusion too: whoever
// concludes for what the figures said, and then spent what is left, would have a full
// error rate at every look that looked well.
func (s *Study) timeOf(l *Look) float64 {
	switch {
	case !s.decidesOnce():
		return s.Information(l)
	case s.decides(l):
		return 1
	}
	return 0
}

// Boundaries are those of the primary metric's statistic at each of the looks, in
// order, without regard to degrees of freedom; nil at a look at which no result
// could be significant.
func (s *Study) Boundaries(looks []Look) ([]*float64, error) {
	boundaries := make([]*float64, len(looks))
	for i := range looks {
		if !s.decides(&looks[i]) {
			continue
		}
		alternative, _ := s.metrics[0].question()
		test, err := test(&s.definition.Plan, s.pairShare(), alternative)
		if err != nil {
			return nil, err
		}
		if test.Schedule, err = stats.NewSchedule(spendings[s.definition.Plan.Spending], s.looksOf(s.metrics[0].Metric.Key, looks[:i+1])); err != nil {
			return nil, fmt.Errorf("look %d: %w", looks[i].Number, err)
		}
		boundaries[i] = test.Boundary()
	}
	return boundaries, nil
}

// schedule prepares the study for the look that an analysis of the tally takes,
// if it takes one.
func (s *Study) schedule(t *Tally) (*Study, *Look, error) {
	if !s.looks.taking {
		return s, nil, nil
	}
	look := Look{Number: int32(len(s.looks.earlier)) + 1, Subjects: map[string]int64{}, Ended: !t.CountingEnd.IsZero()}
	for i := range t.Metrics {
		if s.metrics[i].Role != "" {
			look.Subjects[t.Metrics[i].Metric] = t.Metrics[i].Whole.subjects()
		}
	}
	if err := s.checkNext(&look); err != nil {
		return nil, nil, err
	}
	at := *s
	at.looks.schedules = map[string]*stats.Schedule{}
	all := append(slices.Clone(s.looks.earlier), look)
	known := map[string]*stats.Schedule{} // By the subjects at all looks.
	for i := range s.metrics {
		key := s.metrics[i].Metric.Key
		looks := s.looksOf(key, all)
		text := fmt.Sprint(looks)
		if known[text] == nil {
			schedule, err := stats.NewSchedule(spendings[s.definition.Plan.Spending], looks)
			if err != nil {
				return nil, nil, fmt.Errorf("looks of metric %q: %w", key, err)
			}
			known[text] = schedule
		}
		at.looks.schedules[key] = known[text]
	}
	return &at, &look, nil
}

// checkNext refuses a look that cannot decide, or adds too little to the one before.
func (s *Study) checkNext(look *Look) error {
	primary, once := s.metrics[0].Metric.Key, s.decidesOnce()
	now, before := look.Subjects[primary], int64(0)
	if !s.decides(look) {
		return experiment.Errorf(experiment.ErrPrecondition, "LOOK_CANNOT_DECIDE",
			"%q has no window, so that the plan decides once, at its planned size or when the experiment has been concluded: an earlier look would spend its error rate for nothing", primary)
	}
	for i := range s.looks.earlier {
		switch earlier := &s.looks.earlier[i]; {
		case once && s.decides(earlier):
			return experiment.Errorf(experiment.ErrPrecondition, "LAST_LOOK_TAKEN", "look %d was the last one: the plan decides once, as %q has no window", earlier.Number, primary)
		case !once:
			before = earlier.Subjects[primary]
		}
	}
	if stats.Grown(float64(before), float64(now)) {
		return nil
	}
	ended := ""
	if look.Ended {
		ended = ", and as counting has ended, there will be none: what the look before left undecided stays so"
	}
	return experiment.Errorf(experiment.ErrPrecondition, "LOOK_WITHOUT_SUBJECTS",
		"%d subjects have been analysed for %q, and %d at the look before: a look needs a thousandth more%s", now, primary, before, ended)
}

// canLook says whether an analysis of so many subjects for the primary metric could
// take a look.
func (s *Study) canLook(subjects int64, ended bool) bool {
	_, err := s.AtLook(s.looks.earlier, true)
	return err == nil && s.checkNext(&Look{Subjects: map[string]int64{s.metrics[0].Metric.Key: subjects}, Ended: ended}) == nil
}

// looksOf is the looks of one metric. All metrics spend by the time of the
// primary one, whose subjects the plan counts, so that all have spent everything
// at the last look. Their statistics are correlated by their own subjects, which
// differ where windows do. A metric whose subjects are not known of every look,
// as the plan does not name it, is taken to have those of the primary one.
func (s *Study) looksOf(key string, all []Look) []stats.Look {
	if slices.ContainsFunc(all, func(l Look) bool { _, ok := l.Subjects[key]; return !ok }) {
		key = s.metrics[0].Metric.Key
	}
	if s.decidesOnce() {
		all = all[len(all)-1:] // Those before decided nothing.
	}
	looks := make([]stats.Look, len(all))
	for i := range all {
		looks[i] = stats.Look{Time: s.timeOf(&all[i]), Information: float64(all[i].Subjects[key])}
	}
	return looks
}

// latest is the verdict of the latest look, or nil if it has not decided.
func (l *looks) latest() *Verdict {
	if len(l.earlier) == 0 {
		return nil
	}
	last := &l.earlier[len(l.earlier)-1]
	v := last.Verdict
	if v.Action == "" || v.Action == ActionKeepRunning {
		return nil
	}
	v.Reasons = append([]string{fmt.Sprintf("Look %d decided. Its verdict stands until another look is taken.", last.Number)}, v.Reasons...)
	return &v
}

// subjects counts the subjects of all variants.
func (a Arms) subjects() (n int64) {
	for _, strata := range a {
		for i := range strata {
			n += strata[i].N
		}
	}
	return n
}
