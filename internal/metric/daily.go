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
// The p-values are the smallest so far. An always-valid p-value bounds the
// chance that it is ever so small, so what it once said still holds, and it never
// rises from the end of one day to that of another, unless the earlier days
// change: by events that are recorded late, by subjects that no longer count, as
// they were seen in a second variant, pinned or erased, and by longer periods
// where there are too many days. Without a window the numbers of
// subjects that have entered still change; then p-values are of the moment.
func (s *Study) cumulate(metric *compiled, tally *MetricTally, visit func(*Day, []Arm, []Comparison)) error {
	subjects := metric.noArms(len(tally.Whole), len(tally.Whole[0]))
	var before []Comparison
	for i := range tally.Days {
		subjects.take(&tally.Days[i])
		arms, comparisons, err := s.compare(metric, subjects)
		if err != nil {
			return err
		}
		if before != nil && metric.entry.closes > 0 {
			for k := range comparisons {
				s.keepSmaller(&before[k], &comparisons[k], tally.Days[i-1].date())
			}
		}
		visit(&tally.Days[i], arms, comparisons)
		before = comparisons
	}
	return nil
}

// keepSmaller lets the p-value of before, which was reached on a day or earlier,
// count for now if it is smaller.
func (s *Study) keepSmaller(before, now *Comparison, day time.Time) {
	if now.Unadjusted != nil {
		plain := before // That day may have had no covariate to adjust by.
		if before.Unadjusted != nil {
			plain = before.Unadjusted
		}
		s.keepSmaller(plain, now.Unadjusted, day)
	}
	if before.PValue == nil || now.PValue != nil && *now.PValue <= *before.PValue {
		return
	}
	moment := "there is none"
	if now.PValue != nil {
		moment = fmt.Sprintf("it is %.3g", *now.PValue)
	}
	if now.Earlier = before.Earlier; now.Earlier == nil {
		now.Earlier = &Earlier{Day: day, PValue: *before.PValue, Difference: before.Difference.Estimate}
	}
	now.Notes = append(now.Notes, fmt.Sprintf("The p-value is that of %s, the smallest of all days; at the moment %s.", now.Earlier.Day.Format(time.DateOnly), moment))
	now.Momentary, now.PValue = now.PValue, before.PValue
	now.Significant = *now.PValue <= 1-s.definition.Plan.ConfidenceLevel
}

// date is the last day as a time.
func (d *Day) date() time.Time { return dateOf(d.Last) }

// dateOf is a day, counted from 1970, as a time.
func dateOf(day int32) time.Time { return time.Unix(int64(day)*secondsPerDay, 0).UTC() }
