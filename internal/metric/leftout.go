package metric

import (
	"fmt"
	"slices"
	"strings"

	"github.com/assayhq/assay/internal/stats"
)

// LeftOutReason is why a subject that was analysed does not count for a metric.
type LeftOutReason string

// The reasons for which subjects do not count for a metric.
const (
	// NoOutcome is that a smallest, largest or last value has no outcome to be of. A
	// 0 would be a number that nobody had.
	NoOutcome LeftOutReason = "no_outcome"
	// Moved is that a later phase moved the subject.
	Moved LeftOutReason = "moved"
	// NoValue is that a mean has no value of the subject's. It counts with 0 in both
	// the sum and the number of values, and so tells nothing of the mean.
	NoValue LeftOutReason = "no_value"
)

// LeftOut counts subjects that were analysed and do not count for a metric, or tell
// nothing of it.
type LeftOut struct {
	Reason   LeftOutReason
	Subjects map[string]int64 // By variant.
	Share    float64          // Of the metric's subjects and all that are left out.
}

// all counts those of all variants.
func (l *LeftOut) all() (n int64) {
	for _, subjects := range l.Subjects {
		n += subjects
	}
	return n
}

// describeLeftOut says who does not count for the metric.
func (t *MetricTally) describeLeftOut(variants []string) (list []LeftOut) {
	for _, reason := range []LeftOutReason{NoOutcome, Moved} {
		if subjects, ok := t.LeftOut[reason]; ok {
			list = append(list, t.leftOut(reason, subjects, variants))
		}
	}
	return list
}

// leftOut tells of the subjects of one reason.
func (t *MetricTally) leftOut(reason LeftOutReason, subjects []int64, variants []string) LeftOut {
	left, all := LeftOut{Reason: reason, Subjects: map[string]int64{}}, int64(0)
	for v, n := range subjects {
		left.Subjects[variants[v]] = n
		all += t.counted(v)
		for _, others := range t.LeftOut {
			all += others[v]
		}
	}
	left.Share = float64(total(subjects)) / float64(all)
	return left
}

// counted is how many subjects of a variant count for the metric.
func (t *MetricTally) counted(variant int) (n int64) {
	for i := range t.Whole[variant] {
		n += t.Whole[variant][i].N
	}
	return n
}

// withoutValue counts, by variant, the subjects that have no value of a mean; ok is
// false if there are none, or that is not known. If the formula has several means,
// they are those of the one that most lack.
func (m *compiled) withoutValue(t *MetricTally) (subjects []int64, ok bool) {
	most := int64(0)
	for i, counts := range m.meanCounts {
		if !counts {
			continue
		}
		without, _, known := t.zeros(i)
		if sum := total(without); known && sum > most {
			subjects, most = without, sum
		}
	}
	return subjects, most > 0
}

// zeros counts, by variant, the subjects whose number of a component is 0, and all
// that count; known is false if that was not counted.
func (t *MetricTally) zeros(component int) (zero, all []int64, known bool) {
	for v, strata := range t.Whole {
		all = append(all, t.counted(v))
		for i := range strata {
			if strata[i].N > 0 && len(strata[i].NonZero) == 0 {
				return nil, nil, false
			}
		}
		zero = append(zero, all[v]-nonZero(strata, component))
	}
	return zero, all, true
}

// zerosByPhase are the same, known, phase by phase: their shares may differ in time,
// and the split with them.
func (t *Tally) zerosByPhase(metric, component int) (zero, all [][]int64) {
	for _, phase := range t.Phases {
		zeros, alls := make([]int64, len(t.Variants)), make([]int64, len(t.Variants))
		for v, strata := range t.Metrics[metric].Whole {
			for i := range strata {
				if m := &strata[i]; t.Strata[i].Phase == phase && m.N > 0 {
					alls[v] += m.N
					zeros[v] += m.N - m.NonZero[component]
				}
			}
		}
		zero, all = append(zero, zeros), append(all, alls)
	}
	return zero, all
}

// An inequality is that the variants differ by more than chance in the share of
// subjects of whom a metric can tell nothing.
type inequality struct {
	text string
	// fault says that it cannot be an effect that is meant: the metric is of the
	// subjects that have something to tell, and of nothing else.
	fault bool
}

// unequalReports says that the variants' shares of subjects of whom a metric tells
// nothing differ, if they do by more than chance: it then compares groups that a
// treatment may have chosen, by losing the reports of what is slow, say. A mean is of
// those who have values. What another formula divides by may be meant to differ, as
// visits may, but chooses no less.
func (s *Study) unequalReports(t *Tally, metric int) (list []inequality) {
	m, tally := &s.metrics[metric], &t.Metrics[metric]
	say := func(p *float64, fault bool, without, all []int64, what string) {
		if p == nil || *p >= mismatch {
			return
		}
		var shares []string
		for v, n := range without {
			shares = append(shares, fmt.Sprintf("%d of %d in %s", n, all[v], t.Variants[v]))
		}
		list = append(list, inequality{fault: fault, text: fmt.Sprintf("Metric %s %s, and their share differs between the variants (%s; %s): who has one is then part of the effect, and the metric compares unlike subjects.",
			tally.Metric, what, strings.Join(shares, ", "), pEquals(*p))})
	}
	if without := tally.LeftOut[NoOutcome]; without != nil {
		all := make([]int64, len(without))
		for v, n := range without {
			all[v] = n + tally.counted(v)
		}
		say(stats.EqualShares(without, all), true, without, all, "leaves out the subjects that have no outcome for it")
	}
	divisors := m.expression.dividedBy()
	for i := range m.Metric.Definition.Components {
		c := &m.Metric.Definition.Components[i]
		without, all, known := tally.zeros(i)
		if !known || optional(c.Aggregate) || !slices.Contains(divisors, i) {
			continue
		}
		p := stats.EqualSharesWithin(t.zerosByPhase(metric, i))
		if m.meanCounts[i] {
			say(p, true, without, all, "tells nothing of the subjects that have no value for it")
		} else {
			say(p, false, without, all, fmt.Sprintf("tells nothing of the subjects that have no outcome %s, by which it divides", m.counts(c)))
		}
	}
	return list
}

// pEquals is a p-value in words. One that is smaller than any number is not 0.
func pEquals(p float64) string {
	if p == 0 {
		return "p < 1e-300"
	}
	return fmt.Sprintf("p = %.3g", p)
}

// dividedBy are the variables that what is divided by is made of.
func (e *Expression) dividedBy() (variables []int) {
	for i, n := range e.nodes {
		if n.kind == divide {
			variables = append(variables, e.variables(i-1)...)
		}
	}
	return variables
}
