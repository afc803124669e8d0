package metric

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// standing is where one treatment stands by the plan.
type standing struct {
	primary    *Comparison
	guardrails []*Comparison
	metrics    []*compiled // Of the guardrails.
	wins       bool        // The primary metric's objective is shown.
	loses      bool        // Its opposite is.
	safe       bool        // Within every guardrail's margin.
	harms      bool        // Beyond some guardrail's margin, corrected for their number.
	negligible bool        // Any effect on the primary metric is too small to matter.
	ended      bool        // It has no weight any more, while others have.
}

// wording is how a verdict speaks of an objective.
type wording struct {
	wins    string // Of a treatment on a metric.
	allLose string // Of a metric.
	better  string
	worse   string
}

var (
	ofDifference = wording{"%s wins on %s", "Every treatment loses on %s", "better", "worse"}
	wordings     = map[experiment.Objective]wording{
		experiment.ObjectiveDifference:  ofDifference,
		experiment.ObjectiveSuperiority: ofDifference,
		experiment.ObjectiveNonInferiority: {
			"%s is not worse by the margin on %s", "Every treatment is worse by the margin on %s", "not worse by the margin", "worse by the margin"},
		experiment.ObjectiveEquivalence: {
			"%s is equivalent on %s", "Every treatment differs by more than the margin on %s", "within the margin", "beyond the margin"},
	}
)

// verdict applies the plan. Once counting has ended there is no more to wait for: what
// is undecided then stays so.
func (s *Study) verdict(a *Analysis, latest []float64) Verdict {
	v := s.decide(a, latest)
	if v.Action == ActionKeepRunning && !a.CountingEnd.IsZero() {
		v.Action, v.Ended = ActionInconclusive, true
		v.Reasons = slices.Insert(v.Reasons, 0, "It was concluded undecided: counting has ended, and no subject will be added.")
	}
	return v
}

// decide is the verdict while counting goes on. Rules are tried in the order of what
// they trust the figures with: first whether they can be trusted at all, then whether it
// is time, then winners, losers, and the end of waiting. latest is the variants'
// shares in the latest phase, in the definition's order; nil if it is not known.
func (s *Study) decide(a *Analysis, latest []float64) Verdict {
	if len(a.Metrics) == 0 || a.Metrics[0].Role != experiment.RolePrimary {
		return Verdict{Action: ActionInconclusive, Reasons: []string{"The plan has no primary metric to decide by."}}
	}
	plan, primary := &s.definition.Plan, &a.Metrics[0]
	standings, words := s.standings(a), wordings[s.metrics[0].Objective]
	s.markEnded(standings, latest)
	subjects := int64(0)
	for i := range primary.Arms {
		subjects += primary.Arms[i].Subjects
	}
	complete := plan.PlannedSubjects > 0 && subjects >= plan.PlannedSubjects
	decide := func(action Action, format string, args ...any) Verdict {
		reasons := append([]string{fmt.Sprintf(format, args...)}, s.reasons(primary.Metric, words, standings)...)
		return Verdict{Action: action, Reasons: reasons}
	}
	switch once := s.decidesOnce(); {
	case a.SampleRatio.Verdict == SampleRatioMismatch:
		return decide(ActionInconclusive, "The sample ratio is broken (%s), so the figures cannot be trusted.", a.SampleRatio.broken())
	case len(a.Doubts) > 0:
		v := decide(ActionInconclusive, "The verdict is withheld: %s", a.Doubts[0])
		v.Reasons = slices.Insert(v.Reasons, 1, a.Doubts[1:]...)
		return v
	case a.SampleRatio.Verdict == SampleRatioTooFew:
		return decide(ActionKeepRunning, "There are too few subjects to tell whether the sample ratio holds.")
	case plan.Method == experiment.MethodFixedHorizon && plan.PlannedSubjects > 0 && !complete:
		return decide(ActionKeepRunning, "%d of %d planned subjects have been analysed%s, and a fixed horizon decides only then.", subjects, plan.PlannedSubjects, a.ofExposed())
	case once && !complete && a.CountingEnd.IsZero() && plan.PlannedSubjects > 0:
		return decide(ActionKeepRunning, "%d of %d planned subjects have been analysed%s. The primary metric has no window, so that more looks are more chances to be wrong: the plan decides once, at that size or when the experiment has been concluded.", subjects, plan.PlannedSubjects, a.ofExposed())
	case once && !complete && a.CountingEnd.IsZero():
		return decide(ActionKeepRunning, "The primary metric has no window, so that more looks are more chances to be wrong, and the plan names no size at which to decide: it decides once the experiment has been concluded.")
	case plan.Method == experiment.MethodGroupSequential && a.Look == nil:
		if v := s.looks.latest(); v != nil {
			return *v
		}
		const undecided = "A group-sequential plan decides at its looks only, and none so far has decided: "
		if ended := !a.CountingEnd.IsZero(); ended && !s.canLook(subjects, ended) {
			return decide(ActionKeepRunning, undecided+"there are no more subjects for another one.")
		}
		return decide(ActionKeepRunning, undecided+"take the next one.")
	case plan.Method == experiment.MethodBayesian && plan.PlannedSubjects > 0 && !complete:
		return decide(ActionKeepRunning, "%d of %d planned subjects have been analysed%s, and a Bayesian plan with a planned size decides only then.", subjects, plan.PlannedSubjects, a.ofExposed())
	}
	if winner := s.winner(standings); winner != nil {
		safely := ""
		if len(winner.guardrails) > 0 {
			safely = " and keeps within every guardrail"
		}
		v := decide(ActionShip, words.wins+"%s.", winner.primary.Variant, primary.Metric, safely)
		v.Variant = winner.primary.Variant
		return v
	}
	lost, hopeless, running := 0, 0, 0
	for i := range standings {
		st := &standings[i]
		if st.ended {
			continue
		}
		running++
		if st.loses || st.harms {
			lost++
		}
		if st.loses || st.harms || st.negligible {
			hopeless++
		}
	}
	switch {
	case lost == running:
		return decide(ActionRollBack, words.allLose+" or breaks a guardrail.", primary.Metric)
	case hopeless == running:
		return decide(ActionInconclusive, "No treatment that does no harm can have an effect on %s beyond the smallest one of interest, %s.", primary.Metric, magnitude(plan.MinimumEffect))
	case complete:
		return decide(ActionInconclusive, "%d subjects have been analysed of %d planned, and no treatment that could be shipped has won.", subjects, plan.PlannedSubjects)
	}
	undecided := fmt.Sprintf("Nothing is decided yet, with %d subjects analysed%s", subjects, a.ofExposed())
	if !a.CountingEnd.IsZero() {
		undecided = fmt.Sprintf("Nothing was decided with %d subjects analysed%s", subjects, a.ofExposed())
	}
	for i := range standings {
		if st := &standings[i]; st.wins && !st.safe && !st.harms && !st.ended {
			return decide(ActionKeepRunning, "%s: "+words.wins+", but is not known to keep within every guardrail.", undecided, st.primary.Variant, primary.Metric)
		}
	}
	return decide(ActionKeepRunning, "%s.", undecided)
}

// decidesOnce says that the plan's method does not protect the primary metric
// against peeking, as it has no window: numbers of subjects change after they were
// counted, which neither an always-valid interval nor the looks of a group-sequential
// plan allow. Then one look decides, which needs no such protection.
func (s *Study) decidesOnce() bool {
	method := s.definition.Plan.Method
	return (method == experiment.MethodAlwaysValid || method == experiment.MethodGroupSequential) && s.metrics[0].Metric.Definition.Window == 0
}

// standings judges every treatment, in listed order. What is to be shown was
// corrected for the number of treatments. Its opposite need not be: a roll-back
// asks that every treatment loses, and a rule that asks for all of several
// tests keeps the error rate of each, as in correct. An effect that is too small
// to matter speaks against a difference, not against being no worse.
func (s *Study) standings(a *Analysis) []standing {
	primary, metric := &a.Metrics[0], &s.metrics[0]
	standings := make([]standing, len(primary.Comparisons))
	for i := range standings {
		c := &primary.Comparisons[i]
		st := standing{primary: c, safe: true}
		switch {
		case metric.Objective != experiment.ObjectiveDifference:
			st.wins, st.loses = c.Significant, c.Opposed && !c.Significant
		case c.Significant:
			st.wins, st.loses = sides(c, metric.Metric.Definition.Direction.sign())
		}
		if !metric.Objective.HasMargin() {
			st.negligible = within(c, s.definition.Plan.MinimumEffect)
		}
		for m := range a.Metrics {
			if a.Metrics[m].Role != experiment.RoleGuardrail {
				continue
			}
			g := &a.Metrics[m].Comparisons[i]
			st.guardrails, st.metrics = append(st.guardrails, g), append(st.metrics, &s.metrics[m])
			st.safe = st.safe && g.Guardrail == GuardrailPassed
		}
		st.harms = s.harmful(st.guardrails)
		standings[i] = st
	}
	return standings
}

// markEnded marks the treatments that have no share of the split any more, by the
// shares of the latest phase that has subjects. If none has one, the experiment has
// ended as a whole, and all are judged; so they are where subjects keep what they
// were given.
func (s *Study) markEnded(standings []standing, latest []float64) {
	if latest == nil || s.definition.Sticky {
		return
	}
	ended := func(st *standing) bool {
		i := s.definition.Variant(st.primary.Variant)
		return i >= 0 && latest[i] == 0
	}
	if !slices.ContainsFunc(standings, func(st standing) bool { return !ended(&st) }) {
		return
	}
	for i := range standings {
		standings[i].ended = ended(&standings[i])
	}
}

// harmful tells whether a treatment breaks one of its guardrails. Any of them is
// enough, so their p-values are corrected by Holm; a Bayesian plan has none.
func (s *Study) harmful(guardrails []*Comparison) bool {
	p, none, alpha := make([]*float64, len(guardrails)), 1.0, 1-s.definition.Plan.ConfidenceLevel
	for i, g := range guardrails {
		p[i] = &none
		if g.Guardrail == GuardrailFailed {
			p[i] = cmp.Or(g.PValue, new(float64))
		}
	}
	corrected, err := stats.Holm.Adjust(p)
	return err == nil && slices.ContainsFunc(corrected, func(p *float64) bool { return *p <= alpha })
}

// sides tells on which side of no effect a significant comparison lies; sign is
// −1 if less is better.
func sides(c *Comparison, sign float64) (better, worse bool) {
	if c.Difference.Estimate == nil {
		return false, false
	}
	now := sign * *c.Difference.Estimate
	return now > 0, now <= 0
}

// winner is the treatment to ship: of those that win, are safe and have not ended
// the one with the best estimate, of equals the first listed.
func (s *Study) winner(standings []standing) *standing {
	sign := s.metrics[0].Metric.Definition.Direction.sign()
	var best *standing
	for i := range standings {
		st := &standings[i]
		if !st.wins || !st.safe || st.ended {
			continue
		}
		if best == nil || sign**st.primary.Difference.Estimate > sign**best.primary.Difference.Estimate {
			best = st
		}
	}
	return best
}

// within tells whether the whole interval lies within the magnitude of zero.
func within(c *Comparison, m *experiment.Magnitude) bool {
	if m == nil {
		return false
	}
	interval := c.Difference
	if m.Relative {
		interval = c.Lift
	}
	return interval.Lower != nil && interval.Upper != nil && *interval.Lower >= -m.Value && *interval.Upper <= m.Value
}

// reasons are the figures behind a verdict, treatment by treatment.
func (s *Study) reasons(primary string, words wording, standings []standing) []string {
	var reasons []string
	for i := range standings {
		st := &standings[i]
		outcome := "not decided"
		switch {
		case st.wins:
			outcome = words.better
		case st.loses:
			outcome = words.worse
		case st.negligible:
			outcome = "too small to matter"
		}
		if st.ended {
			outcome += ", and ended"
		}
		reasons = append(reasons, sentence(st.primary, primary, outcome, s.metrics[0].margin().Scale))
		for j, g := range st.guardrails {
			outcome := map[GuardrailVerdict]string{
				GuardrailPassed: "within the margin", GuardrailFailed: "beyond the margin",
				GuardrailUndecided: "not known to keep within the margin",
			}[g.Guardrail]
			if g.Guardrail == GuardrailFailed && !st.harms {
				outcome += fmt.Sprintf(", but not after correction for %d guardrails", len(st.guardrails))
			}
			reasons = append(reasons, sentence(g, st.metrics[j].Metric.Key, outcome, st.metrics[j].margin().Scale))
		}
	}
	return reasons
}

// sentence is one comparison in words, with the figures that it has, and the interval
// of the scale on which it was decided.
func sentence(c *Comparison, metric, outcome string, on stats.Scale) string {
	text := fmt.Sprintf("%s against %s on %s: %s", c.Variant, c.Baseline, metric, outcome)
	if c.Difference.Estimate == nil {
		return text + "; no estimate."
	}
	text += fmt.Sprintf("; difference %+.6g", *c.Difference.Estimate)
	if on == stats.Absolute {
		text += between(c.Difference, "%+.6g", 1)
	}
	if c.Lift.Estimate != nil {
		text += fmt.Sprintf(", lift %+.2f%%", 100**c.Lift.Estimate)
	}
	if on == stats.Relative {
		text += between(c.Lift, "%+.2f%%", 100)
	}
	if c.ChanceToWin != nil {
		text += fmt.Sprintf("; chance to win %.4g%%", 100**c.ChanceToWin)
	}
	if c.AdjustedPValue != nil {
		text += fmt.Sprintf("; adjusted p = %.3g", *c.AdjustedPValue)
	}
	return text + "."
}

// between is an interval's bounds in words, as far as there are any.
func between(i Interval, format string, unit float64) string {
	bound := func(x *float64) string { return fmt.Sprintf(format, unit**x) }
	switch {
	case i.Lower != nil && i.Upper != nil:
		return fmt.Sprintf(" (%s to %s)", bound(i.Lower), bound(i.Upper))
	case i.Lower != nil:
		return fmt.Sprintf(" (%s or more)", bound(i.Lower))
	case i.Upper != nil:
		return fmt.Sprintf(" (%s or less)", bound(i.Upper))
	}
	return ""
}

func magnitude(m *experiment.Magnitude) string {
	if m.Relative {
		return fmt.Sprintf("%.6g%% of the control's value", 100*m.Value)
	}
	return fmt.Sprintf("%.6g", m.Value)
}
