package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// printAnalysis writes an analysis for people: the sample ratio, each metric
// with its arms and comparisons, and the verdict. It leaves out nothing that a
// reader must know before trusting a figure; a figure that is absent shows as
// "–", with its note below.
func printAnalysis(w io.Writer, a *assayv1.AnalyzeExperimentResponse) {
	r := report{w: w, level: a.GetPlan().GetConfidenceLevel()}
	r.heading(a)
	r.sampleRatio(a)
	r.balance(a.GetBalance())
	r.looks(a.GetLooks())
	for _, m := range a.GetMetrics() {
		r.metric(m)
	}
	r.verdict(a)
}

// report is an analysis being written.
type report struct {
	w     io.Writer
	level float64
}

func (r *report) printf(format string, args ...any) { fmt.Fprintf(r.w, format+"\n", args...) }

func (r *report) heading(a *assayv1.AnalyzeExperimentResponse) {
	r.printf("Experiment %s, revision %d, as recorded up to %s", a.GetExperiment(), a.GetRevision(),
		a.GetAsOfTime().AsTime().Format(time.RFC3339))
	plan := a.GetPlan()
	words := []string{
		enumWords(plan.GetMethod().String(), "METHOD_"),
		"confidence " + percent(r.level),
		"correction " + enumWords(plan.GetCorrection().String(), "CORRECTION_"),
	}
	if n := plan.GetPlannedSubjects(); n > 0 {
		words = append(words, thousands(n)+" planned subjects")
	}
	if hash := a.GetPlanHash(); hash != "" {
		words = append(words, "sealed as "+hash[:min(12, len(hash))])
	}
	r.printf("Plan: %s", strings.Join(words, ", "))
	r.printf("Stored as analysis %s", a.GetAnalysisId())
}

func (r *report) sampleRatio(a *assayv1.AnalyzeExperimentResponse) {
	s := a.GetSampleRatio()
	if s == nil {
		s = &assayv1.SampleRatio{}
	}
	r.printf("\nSample ratio: %s (p %s; however often looked at, p %s)",
		enumWords(s.GetVerdict().String(), "SAMPLE_RATIO_VERDICT_"), pValue(s.PValue), pValue(s.SequentialPValue))
	var t table
	t.row("", "subjects", "expected")
	for _, variant := range variants(a) {
		t.row(variant, thousands(s.GetObserved()[variant]), figure(new(s.GetExpected()[variant])))
	}
	t.print(r.w, "  ")
	for _, c := range s.GetBrokenCells() {
		where := c.GetValue()
		if c.GetAttribute() != "" {
			where = c.GetAttribute() + " " + where
		}
		r.printf("  broken in %s (corrected p %s)", where, pValue(c.AdjustedPValue))
		r.notes(where, c.GetNotes(), "  ")
	}
	r.notes("the ratio", s.GetNotes(), "  ")
	e := a.GetExclusions()
	if len(e.GetByReason()) == 0 && e.GetCrossovers()+e.GetOverridden() > 0 {
		r.printf("  left out: %s seen in two variants, %s overridden", thousands(e.GetCrossovers()), thousands(e.GetOverridden()))
	}
	for _, e := range e.GetByReason() {
		var by []string
		for _, variant := range sortedKeys(e.GetByVariant()) {
			by = append(by, variant+" "+thousands(e.GetByVariant()[variant]))
		}
		what := enumWords(e.GetReason().String(), "EXCLUSION_REASON_")
		r.printf("  %s: %s, %s of the exposed (first in %s; against the split p %s)", what, thousands(e.GetSubjects()), percent(e.GetShare()), strings.Join(by, ", "), pValue(e.PValue))
		r.notes(what, e.GetNotes(), "  ")
	}
}

func (r *report) balance(covariates []*assayv1.CovariateBalance) {
	for _, b := range covariates {
		what := b.GetCovariate()
		if b.GetMissing() {
			what = "a missing " + what
		}
		r.printf("Balance of %s before exposure, %s: %s standard deviations (p %s, corrected %s)", what, b.GetVariant(),
			figure(b.StandardizedDifference), pValue(b.PValue), pValue(b.AdjustedPValue))
		r.notes(what, b.GetNotes(), "  ")
	}
}

func (r *report) looks(looks []*assayv1.Look) {
	for _, l := range looks {
		r.printf("Look %d at %s of the planned subjects: %s of the error rate is spent", l.GetNumber(), percent(l.GetInformation()), percent(l.GetSpent()))
		r.notes(fmt.Sprint("look ", l.GetNumber()), l.GetNotes(), "  ")
	}
}

// variants lists the variants in the experiment's order, as the metrics do.
func variants(a *assayv1.AnalyzeExperimentResponse) []string {
	var names []string
	for _, m := range a.GetMetrics() {
		for _, arm := range m.GetArms() {
			if !slices.Contains(names, arm.GetVariant()) {
				names = append(names, arm.GetVariant())
			}
		}
	}
	for _, name := range sortedKeys(a.GetSampleRatio().GetObserved()) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (r *report) metric(m *assayv1.MetricAnalysis) {
	words := []string{"asked for"}
	if m.GetRole() != assayv1.MetricRole_METRIC_ROLE_UNSPECIFIED {
		words = []string{enumWords(m.GetRole().String(), "METRIC_ROLE_")}
	}
	if !m.GetConfirmatory() {
		words = append(words, "exploratory")
	}
	if !m.GetPeekingProtected() {
		words = append(words, "not protected against peeking")
	}
	if m.GetWindow() != nil {
		words = append(words, "window of "+days(m.GetWindow().AsDuration()))
	}
	r.printf("\nMetric %s (%s)", m.GetMetric(), strings.Join(words, ", "))
	r.arms(m.GetArms(), "  ")
	r.comparisons(m.GetComparisons(), "  ")
	if n := m.GetOpenWindowSubjects(); n > 0 {
		r.printf("  %s exposed subjects do not count yet: their window is open", thousands(n))
	}
	r.caps(m.GetCaps())
	for _, h := range m.GetDrift() {
		r.printf("  does the effect of %s drift from week to week? p %s, corrected %s", h.GetVariant(), pValue(h.PValue), pValue(h.AdjustedPValue))
		r.notes(h.GetVariant(), h.GetNotes(), "  ")
	}
	r.segments(m)
}

func (r *report) caps(caps []*assayv1.AppliedCap) {
	for _, c := range caps {
		r.printf("  %s is capped to %s … %s: %s subjects were raised, %s lowered", c.GetComponent(),
			figure(c.Lower), figure(c.Upper), thousands(c.GetRaised()), thousands(c.GetLowered()))
		r.notes(c.GetComponent(), c.GetNotes(), "  ")
	}
}

// segments writes a table for each attribute, with a line for each value and
// comparison, and below it whether the effects differ.
func (r *report) segments(m *assayv1.MetricAnalysis) {
	var t table
	var notes []func()
	attribute := ""
	flush := func() {
		if len(t.rows) == 0 {
			return
		}
		r.printf("\n  by %s (exploratory)", attribute)
		t.print(r.w, "    ")
		for _, note := range notes {
			note()
		}
		for _, h := range m.GetHeterogeneity() {
			if h.GetAttribute() == attribute {
				r.printf("    does the effect of %s differ? p %s, corrected %s", h.GetVariant(), pValue(h.PValue), pValue(h.AdjustedPValue))
				r.notes(h.GetVariant(), h.GetNotes(), "    ")
			}
		}
		t, notes = table{}, nil
	}
	for _, s := range m.GetSegments() {
		if s.GetAttribute() != attribute {
			flush()
			attribute = s.GetAttribute()
		}
		if len(t.rows) == 0 {
			t.row("", "", "subjects", "difference", percent(r.level)+" from", "to", "adjusted p")
		}
		value := s.GetValue()
		if value == "" {
			value = "(none)"
		}
		if s.GetRest() {
			value = "(all others)"
		}
		first := value
		if len(s.GetComparisons()) == 0 {
			t.row(value, map[bool]string{true: "withheld", false: absent}[s.GetWithheld()])
		}
		for _, c := range s.GetComparisons() {
			d := c.GetDifference()
			if d == nil {
				d = &assayv1.Interval{}
			}
			t.row(first, c.GetVariant(), thousands(subjectsOf(s, c.GetVariant())), figure(d.Estimate), figure(d.Lower), figure(d.Upper), pValue(c.AdjustedPValue))
			notes = append(notes, func() { r.notes(c.GetVariant()+" where it is "+value, c.GetNotes(), "    ") })
			first = ""
		}
	}
	flush()
}

func subjectsOf(s *assayv1.SegmentResult, variant string) int64 {
	for _, arm := range s.GetArms() {
		if arm.GetVariant() == variant {
			return arm.GetSubjects()
		}
	}
	return 0
}

func (r *report) arms(arms []*assayv1.ArmResult, indent string) {
	var t table
	head := []string{"", "subjects", "mean", "std. error", "total"}
	if slices.ContainsFunc(arms, func(a *assayv1.ArmResult) bool { return a.LargestShare != nil }) {
		head = append(head, "largest")
	}
	t.row(head...)
	for _, a := range arms {
		t.row(a.GetVariant(), thousands(a.GetSubjects()), figure(a.Mean), figure(a.StandardError), figure(a.Total), given(a.LargestShare, rounded))
	}
	t.print(r.w, indent)
	for _, a := range arms {
		r.notes(a.GetVariant(), a.GetNotes(), indent)
	}
}

// comparisonsAbreast is how many comparisons stand side by side, so that a
// terminal of 80 columns holds them.
const comparisonsAbreast = 4

// comparisons writes a column for each comparison, and beside it one for the
// same without covariates.
func (r *report) comparisons(comparisons []*assayv1.Comparison, indent string) {
	var abreast []column
	for _, c := range comparisons {
		columns := []column{r.column(c.GetVariant(), c)}
		if u := c.GetUnadjusted(); u != nil {
			columns = append(columns, r.column("unadjusted", u))
		}
		if len(abreast) > 0 && len(abreast)+len(columns) > comparisonsAbreast {
			r.columns(abreast, c.GetBaseline(), indent)
			abreast = nil
		}
		abreast = append(abreast, columns...)
	}
	if len(comparisons) > 0 {
		r.columns(abreast, comparisons[0].GetBaseline(), indent)
	}
	for _, c := range comparisons {
		r.notes(c.GetVariant(), c.GetNotes(), indent)
	}
}

// column is one comparison as labels and what stands beside them.
type column struct {
	name  string
	cells [][2]string
}

func (r *report) column(name string, c *assayv1.Comparison) column {
	from, to := "  "+percent(r.level)+" from", "  "+percent(r.level)+" to"
	d, l := c.GetDifference(), c.GetLift()
	if d == nil {
		d = &assayv1.Interval{}
	}
	if l == nil {
		l = &assayv1.Interval{}
	}
	wide, wideLift := c.GetAdjustedDifference(), c.GetAdjustedLift()
	return column{name, [][2]string{
		{"difference", figure(d.Estimate)}, {from, figure(d.Lower)}, {to, figure(d.Upper)},
		{"  corrected from", within(wide, figure).lower}, {"  corrected to", within(wide, figure).upper},
		{"standard error", figure(c.StandardError)},
		{"lift", share(l.Estimate)}, {from, share(l.Lower)}, {to, share(l.Upper)},
		{"  corrected from", within(wideLift, share).lower}, {"  corrected to", within(wideLift, share).upper},
		{"p", pValue(c.PValue)}, {"adjusted p", given(c.AdjustedPValue, pValue)}, {"significant", yesNo(c.GetSignificant())},
		{"smallest p so far", given(c.SmallestPValue, pValue)}, {"  on", c.GetSmallestPValueDay()},
		{"variance removed", given(c.VarianceReduction, rounded)}, {"guardrail", guardrail(c)},
		{"chance to win", given(c.ChanceToWin, figure)}, {"expected loss", given(c.ExpectedLoss, figure)}, {"boundary", given(c.Boundary, figure)},
	}}
}

// given writes a number that not every comparison has, and nothing where it is absent.
func given(x *float64, write func(*float64) string) string {
	if x == nil {
		return ""
	}
	return write(x)
}

// bounds are those of an interval, as text.
type bounds struct{ lower, upper string }

// within writes the bounds of an interval that not every comparison has.
func within(i *assayv1.Interval, write func(*float64) string) bounds {
	if i == nil {
		return bounds{}
	}
	return bounds{write(i.Lower), write(i.Upper)}
}

// columns writes comparisons side by side, without the lines that are empty in
// all of them.
func (r *report) columns(columns []column, baseline, indent string) {
	var t table
	head := []string{"against " + baseline}
	for _, c := range columns {
		head = append(head, c.name)
	}
	t.row(head...)
	for i, label := range columns[0].cells {
		cells, empty := []string{label[0]}, true
		for _, c := range columns {
			cells = append(cells, c.cells[i][1])
			empty = empty && c.cells[i][1] == ""
		}
		if !empty {
			t.row(cells...)
		}
	}
	r.printf("")
	t.print(r.w, indent)
}

func guardrail(c *assayv1.Comparison) string {
	if c.GetGuardrail() == assayv1.GuardrailVerdict_GUARDRAIL_VERDICT_UNSPECIFIED {
		return ""
	}
	return enumWords(c.GetGuardrail().String(), "GUARDRAIL_VERDICT_")
}

func (r *report) notes(name string, notes []string, indent string) {
	for _, note := range notes {
		r.printf("%snote on %s: %s", indent, name, note)
	}
}

func (r *report) verdict(a *assayv1.AnalyzeExperimentResponse) {
	v := a.GetVerdict()
	action := strings.ToUpper(enumWords(v.GetAction().String(), "VERDICT_ACTION_"))
	r.printf("\nVerdict: %s", strings.TrimSpace(action+" "+v.GetVariant()))
	for _, reason := range v.GetReasons() {
		r.printf("  %s", reason)
	}
	for _, d := range a.GetDeviations() {
		r.printf("Deviation from the plan: %s", d.GetMessage())
	}
	for _, warning := range a.GetWarnings() {
		r.printf("Warning: %s", warning)
	}
}

// days writes a window: in days if it is whole ones.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d%day != 0 {
		return d.String()
	}
	return strings.TrimSuffix(fmt.Sprintf("%d days", d/day), map[bool]string{true: "s"}[d == day])
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// enumWords turns an enum value's name into words.
func enumWords(name, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, prefix)), "_", " ")
}

const absent = "–"

// figure writes a number with seven decimals, with fewer the larger it is.
func figure(x *float64) string {
	if x == nil {
		return absent
	}
	size := math.Abs(*x)
	if size != 0 && (size < 1e-5 || size >= 1e15) {
		return strconv.FormatFloat(*x, 'e', 6, 64)
	}
	decimals := 7
	for ; size >= 10 && decimals > 1; size /= 10 {
		decimals--
	}
	whole, fraction, _ := strings.Cut(strconv.FormatFloat(*x, 'f', decimals, 64), ".")
	sign := strings.HasPrefix(whole, "-")
	n, err := strconv.ParseInt(strings.TrimPrefix(whole, "-"), 10, 64)
	if err != nil {
		return whole + "." + fraction
	}
	whole = thousands(n)
	if sign {
		whole = "-" + whole
	}
	return whole + "." + fraction
}

// share writes a lift as a percentage.
func share(x *float64) string {
	if x == nil {
		return absent
	}
	return strconv.FormatFloat(*x*100, 'f', 2, 64) + " %"
}

// rounded writes a share as a percentage of few digits.
func rounded(x *float64) string { return percent(*x) }

func percent(x float64) string {
	return strconv.FormatFloat(math.Round(x*1e4)/100, 'f', -1, 64) + " %"
}

func pValue(p *float64) string {
	switch {
	case p == nil:
		return absent
	case *p != 0 && *p < 0.0001:
		return strconv.FormatFloat(*p, 'e', 1, 64)
	default:
		return strconv.FormatFloat(*p, 'f', 4, 64)
	}
}
