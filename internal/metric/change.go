package metric

import (
	"fmt"
	"math"
)

// Change is how the estimate of a difference changed between two stored analyses
// of one experiment, and why. The shares add up to To − From; they are nil where
// they cannot be told.
type Change struct {
	Metric, Variant string
	From, To        *float64
	ByErasures      *float64
	ByDefinition    *float64
	ByLateEvents    *float64
	ByNewSubjects   *float64
	Notes           []string
}

// Stored is what a stored analysis says, and what became of its subjects.
type Stored struct {
	Results []Result
	// Erased counts those of the experiment's subjects that were erased since.
	Erased int64
}

// Again is what the two analyses would say now, step by step from the earlier
// one to the later.
type Again struct {
	From      *Analysis // The earlier one.
	Redefined *Analysis // At its moment, by the later one's definition.
	Known     *Analysis // The later one, of the subjects that the earlier one counts.
	To        *Analysis // The later one.
	// Cut says that outcomes have been dropped which the analyses may have known.
	Cut bool
}

// Changes compares two stored analyses in what both of them compare. A note says
// what only one of them has, and why a share is not told.
func (again *Again) Changes(from, to *Stored) (changes []Change, notes []string) {
	for i := range from.Results {
		before := &from.Results[i]
		after := find(to.Results, before.Metric)
		if after == nil {
			notes = append(notes, fmt.Sprintf("Only the earlier analysis has the metric %s.", before.Metric))
			continue
		}
		for j := range before.Comparisons {
			b := &before.Comparisons[j]
			a := after.of(b.Variant)
			if a == nil {
				notes = append(notes, fmt.Sprintf("Only the earlier analysis compares %s on %s.", b.Variant, before.Metric))
				continue
			}
			change := Change{Metric: before.Metric, Variant: b.Variant, From: b.Difference.Estimate, To: a.Difference.Estimate}
			if note := again.share(&change, b, from.Erased > 0, to.Erased > 0); note != "" {
				change.Notes = append(change.Notes, note)
				notes = append(notes, fmt.Sprintf("%s on %s: %s", b.Variant, before.Metric, note))
			}
			changes = append(changes, change)
		}
		for j := range after.Comparisons {
			if v := after.Comparisons[j].Variant; before.of(v) == nil {
				notes = append(notes, fmt.Sprintf("Only the later analysis compares %s on %s.", v, before.Metric))
			}
		}
	}
	for i := range to.Results {
		if m := to.Results[i].Metric; find(from.Results, m) == nil {
			notes = append(notes, fmt.Sprintf("Only the later analysis has the metric %s.", m))
		}
	}
	return changes, notes
}

func find(results []Result, metric string) *Result {
	for i := range results {
		if results[i].Metric == metric {
			return &results[i]
		}
	}
	return nil
}

// share tells the shares of a change, or why it cannot. What an erased subject
// did to both analyses alike explains no difference between them, so that the
// share of erasures is what they did to the earlier one less what they did to the
// later one. Without erasures an estimate must come out again as it was stored.
func (again *Again) share(c *Change, before *Comparison, erasedFrom, erasedTo bool) (note string) {
	estimates := []*float64{c.From, again.From.estimate(c), again.Redefined.estimate(c), again.Known.estimate(c), again.To.estimate(c), c.To}
	for _, e := range estimates {
		if e == nil {
			return "There is no estimate in one of them, or on the way between them; no share is told."
		}
	}
	step := func(i int) float64 { return beyondRounding(*estimates[i], *estimates[i+1], before.StandardError) }
	from, to := step(0), step(4)
	if from != 0 && (again.Cut || !erasedFrom) || to != 0 && (again.Cut || !erasedTo) {
		return "An analysis does not come out again as it was, since outcomes have been dropped or another release computed it; no share is told."
	}
	erasures, definition, late, fresh := from+to, step(1), step(2), step(3)
	c.ByErasures, c.ByDefinition, c.ByLateEvents, c.ByNewSubjects = &erasures, &definition, &late, &fresh
	return ""
}

// estimate is an analysis' estimate of the difference that a change is of.
func (a *Analysis) estimate(c *Change) *float64 {
	if result := find(a.Metrics, c.Metric); result != nil {
		if comparison := result.of(c.Variant); comparison != nil {
			return comparison.Difference.Estimate
		}
	}
	return nil
}

// negligible is the part of an estimate and of its standard error up to which a
// difference is taken for rounding: sums depend on their order in the last digits.
const negligible = 1e-9

// beyondRounding is b − a, and 0 if that is rounding.
func beyondRounding(a, b float64, standardError *float64) float64 {
	scale := math.Abs(a) + math.Abs(b)
	if standardError != nil {
		scale += *standardError
	}
	if math.Abs(b-a) <= negligible*scale {
		return 0
	}
	return b - a
}
