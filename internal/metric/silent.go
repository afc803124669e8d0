package metric

import (
	"fmt"
	"slices"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// expectedOfSilent is how many subjects of a variant the others let expect to have
// something before it is worth saying that none has: by chance that happens in one of
// 20,000.
const expectedOfSilent = 10

// silentVariants says of variants no subject of which has an outcome that a metric
// counts, while others have: that may be the effect, so that 0 is 0, but a variant
// that has lost its logging looks the same. Whoever has no value of a mean, no
// largest value, or nothing of what is divided by, is told by the shares of those who
// have: see unequalReports.
func (s *Study) silentVariants(t *Tally, metric int) (warnings []string) {
	m, tally := &s.metrics[metric], &t.Metrics[metric]
	divisors := m.expression.dividedBy()
	for i := range m.Metric.Definition.Components {
		c := &m.Metric.Definition.Components[i]
		zero, all, known := tally.zeros(i)
		if !known || optional(c.Aggregate) || !m.expression.uses(i) || slices.Contains(divisors, i) {
			continue
		}
		for v := range all {
			others, of := total(all)-total(zero)-(all[v]-zero[v]), total(all)-all[v]
			if zero[v] < all[v] || of == 0 || float64(all[v])*float64(others)/float64(of) < expectedOfSilent {
				continue
			}
			warning := fmt.Sprintf("No subject of %s has an outcome %s, and %d of the %d others have (%s): that is taken for 0, but if the outcomes of %s were lost it would look the same.",
				t.Variants[v], m.counts(c), others, of, pEquals(*stats.EqualShares([]int64{0, others}, []int64{all[v], of})), t.Variants[v])
			if !slices.Contains(warnings, warning) {
				warnings = append(warnings, warning)
			}
		}
	}
	return warnings
}

// counts says which outcomes a component counts.
func (m *compiled) counts(c *experiment.Component) string {
	text := fmt.Sprintf("%q", c.Outcome)
	if c.Aggregate == experiment.AggregateSum {
		text += " with a value other than 0"
	}
	if len(c.Conditions) > 0 {
		text += " that meets the conditions of " + m.Metric.Key
	}
	return text
}
