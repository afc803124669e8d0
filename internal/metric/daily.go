package metric

import (
	"fmt"
	"math"
	"time"

	"github.com/assayhq/assay/internal/stats"
)

// Smallest is the smallest p-value that a comparison had at the end of any day, or
// has at the moment. An always-valid p-value bounds the chance that it is ever so
// small, so it tests whether there was never any effect, or none on the side of the
// margin that is asked for. Nothing is decided by it, as the effect may be another
// now: the comparison's own p-value and its interval are those of the moment.
type Smallest struct {
	Day       time.Time // UTC.
	PValue    float64
	Statistic *float64 // Then.
}

// now compares the variants by all subjects.
func (s *Study) now(metric *compiled, tally *MetricTally) (arms []Arm, comparisons []Comparison, err error) {
	if len(tally.Days) == 0 {
		return s.compare(metric, tally.Whole)
	}
	err = s.cumulate(metric, tally, func(_ *Day, a []Arm, c []Comparison) { arms, comparisons = a, c })
	return arms, comparisons, err
}

// cumulate compares the variants at the end of every day, each time by all
// subjects that had entered by then, as the analysis of that day would have: with
// the strata's weights and the covariates' coefficients of those subjects. The
// last day is that of the analysis, and has all subjects.
//
// Beside its own figures each day has the smallest p-value so far. That one never
// rises from the end of one day to that of another, unless the earlier days
// change: by events that are recorded late, by subjects that no longer count, as
// they were seen in a second variant, pinned or erased, and by longer periods
// where there are too many days. Without a window the numbers of subjects that have
// entered still change, and there is none.
func (s *Study) cumulate(metric *compiled, tally *MetricTally, visit func(*Day, []Arm, []Comparison)) error {
	subjects := metric.noArms(len(tally.Whole), len(tally.Whole[0]))
	var before []Comparison
	for i := range tally.Days {
		subjects.take(&tally.Days[i])
		arms, comparisons, err := s.compare(metric, subjects)
		if err != nil {
			return err
		}
		if metric.entry.closes > 0 {
			for k := range comparisons {
				var earlier *Comparison
				if before != nil {
					earlier = &before[k]
				}
				s.remember(earlier, &comparisons[k], tally.Days[i].date())
			}
		}
		visit(&tally.Days[i], arms, comparisons)
		before = comparisons
	}
	return nil
}

// remember keeps beside a comparison of a day the smallest p-value so far, of which
// before, the same of the day before, knows; nil on the first day.
func (s *Study) remember(before, now *Comparison, day time.Time) {
	if now.Unadjusted != nil {
		plain := before // That day may have had no covariate to adjust by.
		if before != nil && before.Unadjusted != nil {
			plain = before.Unadjusted
		}
		s.remember(plain, now.Unadjusted, day)
	}
	if before != nil {
		now.Smallest = before.Smallest
	}
	if now.PValue != nil && (now.Smallest == nil || *now.PValue <= now.Smallest.PValue) {
		now.Smallest = &Smallest{Day: day, PValue: *now.PValue, Statistic: now.Statistic}
	}
	if note := s.faded(now); note != "" {
		now.Notes = append(now.Notes, note)
	}
}

// faded says that a comparison was significant once and is no longer, or is to the
// other side now. Both are before any correction.
func (s *Study) faded(c *Comparison) string {
	then := c.Smallest
	if then == nil || then.PValue > 1-s.definition.Plan.ConfidenceLevel {
		return ""
	}
	day := then.Day.Format(time.DateOnly)
	switch {
	case c.PValue == nil:
		return fmt.Sprintf("At the end of %s it was significant before correction (p = %.3g); at the moment there is no p-value.", day, then.PValue)
	case !c.Significant:
		return fmt.Sprintf("At the end of %s it was significant before correction (p = %.3g), and at the moment it is not (p = %.3g): the effect may have faded.", day, then.PValue, *c.PValue)
	case then.Statistic != nil && c.Statistic != nil && *then.Statistic**c.Statistic < 0:
		return fmt.Sprintf("At the end of %s it was significant to the other side, before correction (p = %.3g): the effect has turned around.", day, then.PValue)
	}
	return ""
}

// drifted is the p-value below which the primary metric's effect is said to
// drift. One in a hundred analyses without drift says so, which costs its reader a
// look at the timeline and changes no verdict. At the 0.001 of what does change
// verdicts a drift would seldom be found: the test compares weeks, each of which
// has a part of the subjects.
const drifted = 0.01

// drift tests, for each variant, whether its effect differs between the weeks in
// which subjects entered, if they are two or more.
func (s *Study) drift(metric *compiled, tally *MetricTally, comparisons []Comparison) ([]Heterogeneity, error) {
	if len(tally.Weeks) < 2 {
		return nil, nil
	}
	effects := make([][]stats.Effect, len(comparisons))
	for i := range tally.Weeks {
		subjects := metric.noArms(len(tally.Whole), len(tally.Whole[0]))
		subjects.take(&tally.Weeks[i])
		_, weekly, err := s.compare(metric, subjects)
		if err != nil {
			return nil, err
		}
		for k := range weekly {
			effects[k] = append(effects[k], weekly[k].effect())
		}
	}
	var all []Heterogeneity
	for k := range comparisons {
		h := heterogeneity("week", comparisons[k].Variant, effects[k])
		if days := tally.Weeks[0].Days; days > daysPerWeek {
			h.Notes = append(h.Notes, fmt.Sprintf("In place of weeks there are periods of %d days, as there are too many days or strata.", days))
		}
		all = append(all, h)
	}
	return all, correctHeterogeneity(all)
}

const daysPerWeek = 7

// weeks puts days, none of which repeats the subjects of another, together by the
// calendar weeks of ISO 8601, which begin on Mondays. A period of several days
// belongs to the week of its last one.
func (m *compiled) weeks(days []Day, variants, strata int) []Day {
	var weeks []Day
	var subjects Arms
	for i := range days {
		// Day 0, the 1 January 1970, was a Thursday: day −4 was a Sunday.
		last := int32(math.Ceil(float64(days[i].Last+4)/daysPerWeek))*daysPerWeek - 4
		if n := len(weeks); n == 0 || weeks[n-1].Last != last {
			weeks = append(weeks, Day{Last: last, Days: max(daysPerWeek, days[i].Days)})
			subjects = m.noArms(variants, strata)
		}
		subjects.take(&days[i])
		weeks[len(weeks)-1].Cells = subjects.cells()
	}
	return weeks
}

// date is the last day as a time.
func (d *Day) date() time.Time { return dateOf(d.Last) }

// dateOf is a day, counted from 1970, as a time.
func dateOf(day int32) time.Time { return time.Unix(int64(day)*secondsPerDay, 0).UTC() }
