package metric

import (
	"fmt"
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
)

// LeftOut counts subjects that were analysed and do not count for a metric.
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
func (t *MetricTally) describeLeftOut(variants []string) []LeftOut {
	all := int64(0)
	for v := range variants {
		all += t.counted(v)
		for _, subjects := range t.LeftOut {
			all += subjects[v]
		}
	}
	var list []LeftOut
	for _, reason := range []LeftOutReason{NoOutcome, Moved} {
		subjects, ok := t.LeftOut[reason]
		if !ok {
			continue
		}
		left, sum := LeftOut{Reason: reason, Subjects: map[string]int64{}}, int64(0)
		for v, n := range subjects {
			left.Subjects[variants[v]] = n
			sum += n
		}
		left.Share = float64(sum) / float64(all)
		list = append(list, left)
	}
	return list
}

// counted is how many subjects of a variant count for the metric.
func (t *MetricTally) counted(variant int) (n int64) {
	for i := range t.Whole[variant] {
		n += t.Whole[variant][i].N
	}
	return n
}

// unequalReports says that the variants' shares of subjects without an outcome for
// a metric differ, if they do by more than chance: the metric then compares groups
// that a treatment may have chosen.
func (t *Tally) unequalReports(metric int) string {
	m := &t.Metrics[metric]
	without := m.LeftOut[NoOutcome]
	if without == nil {
		return ""
	}
	all, shares := make([]int64, len(without)), make([]string, len(without))
	for v, n := range without {
		all[v] = n + m.counted(v)
		shares[v] = fmt.Sprintf("%d of %d in %s", n, all[v], t.Variants[v])
	}
	p := stats.EqualShares(without, all)
	if p == nil || *p >= mismatch {
		return ""
	}
	return fmt.Sprintf("Metric %s leaves out the subjects that have no outcome for it, and their share differs between the variants (%s; p = %.3g): who has one is then part of the effect, and the metric compares unlike subjects.",
		m.Metric, strings.Join(shares, ", "), *p)
}
