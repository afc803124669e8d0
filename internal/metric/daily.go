package metric

import (
	"fmt"
	"time"
)

// Earlier is the end of a day on which a p-value was smaller than at the moment
// of the analysis.
type Earlier struct {
	Day        time.Time // UTC.
	PValue     float64
	Difference *float64
}

// cumulate compares the variants at the end of every day, each time by all
// subjects that had entered by then, as the analysis of that day would have: with
// the strata's weights and the covariates' coefficients of those subjects.
func (s *Study) cumulate(metric *compiled, tally *MetricTally, visit func(day *Day, arms []Arm, comparisons []Comparison)) error {
	if len(tally.Days) == 0 {
		return nil
	}
	subjects := metric.noArms(len(tally.Whole), len(tally.Whole[0]))
	for i := range tally.Days {
		day := &tally.Days[i]
		subjects.take(day)
		arms, comparisons, err := s.compare(metric, subjects)
		if err != nil {
			return err
		}
		visit(day, arms, comparisons)
	}
	return nil
}

// keepSmallest puts the smallest p-values of all days in place of the
// moment's. An always-valid p-value bounds the chance that it is ever so small,
// so what it once said still holds, and it never rises from the end of one day to
// that of another. Only events from before that are recorded late change what it
// said.
func (s *Study) keepSmallest(metric *compiled, tally *MetricTally, comparisons []Comparison) error {
	if err := s.cumulate(metric, tally, func(day *Day, _ []Arm, then []Comparison) {
		for i := range comparisons {
			comparisons[i].remember(&then[i], day)
			if plain := comparisons[i].Unadjusted; plain != nil {
				plain.remember(then[i].Unadjusted, day)
			}
		}
	}); err != nil {
		return err
	}
	for i := range comparisons {
		s.judgeBySmallest(&comparisons[i])
		if plain := comparisons[i].Unadjusted; plain != nil {
			s.judgeBySmallest(plain)
		}
	}
	return nil
}

// remember keeps an earlier p-value that is the smallest so far.
func (c *Comparison) remember(then *Comparison, day *Day) {
	smallest := c.PValue
	if c.Earlier != nil {
		smallest = &c.Earlier.PValue
	}
	if then.PValue != nil && (smallest == nil || *then.PValue < *smallest) {
		c.Earlier = &Earlier{Day: day.date(), PValue: *then.PValue, Difference: then.Difference.Estimate}
	}
}

// judgeBySmallest makes the smallest p-value the one that counts.
func (s *Study) judgeBySmallest(c *Comparison) {
	if c.Earlier == nil {
		return
	}
	now := "there is none"
	if c.PValue != nil {
		now = fmt.Sprintf("it is %.3g", *c.PValue)
	}
	c.Notes = append(c.Notes, fmt.Sprintf("The p-value is that of %s, the smallest of all days; at the moment %s.", c.Earlier.Day.Format(time.DateOnly), now))
	c.PValue = &c.Earlier.PValue
	c.Significant = *c.PValue <= 1-s.definition.Plan.ConfidenceLevel
}

// date is the last day as a time.
func (d *Day) date() time.Time { return time.Unix(int64(d.Last)*secondsPerDay, 0).UTC() }
