package metric

import (
	"cmp"
	"math"
	"strings"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// Baseline is a metric without treatment, as far as a plan needs to know it.
type Baseline struct {
	Field      string // Of the request, for what is wrong with it.
	Value      float64
	Deviation  float64       // The standard deviation between subjects.
	Removed    float64       // The share of the variance that covariates remove.
	Proportion bool          // Value is a rate, and says how much subjects vary.
	Direction  Direction     // Empty if it is not known.
	Window     time.Duration // As in Definition.
	// SubjectsPerDay is the traffic of the experiment that it was taken from, of
	// all variants; 0 if there is none.
	SubjectsPerDay float64
	// Counted is the share of the control's exposed subjects who count for the metric: of
	// a smallest, largest or last value those who have an outcome; 0 if it is not known.
	Counted float64
	// Informative is the share of them who tell something of the metric; nil if it is
	// not known.
	Informative *float64
	// Subjects counts the control's subjects whose figures these are; 0 if a caller
	// brings them.
	Subjects int64
}

// fewSubjects is below how many subjects figures are rough: of 100 the standard
// deviation is known to within 14 % if they are normal, and less well if few of
// them decide the mean.
const fewSubjects = 100

// RateBaseline is that of a proportion.
func RateBaseline(rate float64) Baseline {
	return Baseline{Field: "proportion", Value: rate, Deviation: math.Sqrt(rate * (1 - rate)), Proportion: true}
}

// RatioBaseline is that of a ratio of two means with their variances and
// covariance, by the delta method: (V(x) − 2R·C(x, y) + R²·V(y))/ȳ² with R = x̄/ȳ.
// Its deviation is NaN if no subjects can have these figures.
func RatioBaseline(x, y, vx, vy, covariance float64) Baseline {
	// In units of the denominator's mean, so that no product overflows.
	ratio := x / y
	dx, dy := math.Sqrt(vx)/y, math.Sqrt(vy)/y
	covariance = covariance / y / y
	b := Baseline{Field: "ratio", Value: ratio, Deviation: math.NaN()}
	whole := dx*dx + ratio*ratio*dy*dy
	variance := whole - 2*ratio*covariance
	// Rounded figures may be a little off, and leave a little of no variance.
	if math.Abs(covariance) <= math.Abs(dx*dy)*(1+1e-6) && variance > 1e-12*whole {
		b.Deviation = math.Sqrt(variance)
	}
	return b
}

// Baseline is what the control's subjects were like on the study's only metric,
// and how many subjects a day there were from the first one's day to the last's.
func (s *Study) Baseline(t *Tally) (Baseline, error) {
	if err := s.check(t); err != nil {
		return Baseline{}, err
	}
	metric := &s.metrics[0]
	arms, comparisons, err := s.compare(metric, t.Metrics[0].Whole)
	if err != nil {
		return Baseline{}, err
	}
	control := &arms[s.control]
	if control.StandardError == nil {
		return Baseline{}, noHistory(control.Notes...)
	}
	if note := s.withoutData(t, 0); note != "" {
		return Baseline{}, noHistory(note)
	}
	if *control.StandardError == 0 {
		return Baseline{}, noHistory("The control's subjects have no variance on it.")
	}
	b := Baseline{
		Field: "metric", Value: *control.Mean, Deviation: *control.StandardError * math.Sqrt(float64(control.Subjects)),
		Proportion: metric.Metric.Definition.Kind == KindProportion,
		Direction:  metric.Metric.Definition.Direction, Window: metric.Metric.Definition.Window,
		SubjectsPerDay: t.perDay(), Subjects: control.Subjects,
	}
	without := int64(0)
	if left := t.Metrics[0].LeftOut[NoOutcome]; left != nil {
		without = left[s.control]
	}
	b.Counted = float64(b.Subjects) / float64(b.Subjects+without)
	if informed := control.Informative; informed != nil {
		share := float64(*informed) / float64(b.Subjects)
		b.Informative = &share
	}
	if b.Proportion {
		b.Deviation = math.Sqrt(b.Value * (1 - b.Value))
	}
	if len(metric.covariates) == 0 {
		return b, nil
	}
	// The comparison that gains least from the covariates.
	b.Removed = math.Inf(1)
	for i := range comparisons {
		if comparisons[i].VarianceReduction == nil {
			return Baseline{}, noHistory(append([]string{"What the covariates remove cannot be told."}, comparisons[i].Notes...)...)
		}
		b.Removed = min(b.Removed, *comparisons[i].VarianceReduction)
	}
	return b, nil
}

// perDay is how many subjects there were in a UTC day, from the first one's to
// the last one's. There is one, or more.
func (t *Tally) perDay() float64 {
	days := 1 + t.Exposed[len(t.Exposed)-1].Day - t.Exposed[0].Day
	subjects := int64(0)
	for _, variants := range t.Subjects {
		for _, n := range variants {
			subjects += n
		}
	}
	return float64(subjects) / float64(days)
}

// noHistory refuses a baseline from recorded subjects. The reasons are sentences.
func noHistory(reasons ...string) error {
	return experiment.Errorf(experiment.ErrPrecondition, "NO_HISTORY", "the experiment's history does not give the metric's figures. %s", strings.Join(reasons, " "))
}

// counting is the share of exposed subjects who count, as far as that is known.
func (b *Baseline) counting() float64 { return cmp.Or(b.Counted, 1) }

// SubjectsIn is how many subjects that count come in so many days, but for the days in
// which the last one's window closes.
func (b *Baseline) SubjectsIn(days int32) (int64, error) {
	waiting := b.windowDays()
	subjects := (float64(days) - waiting) * b.SubjectsPerDay * b.counting()
	switch {
	case b.SubjectsPerDay == 0:
		return 0, experiment.Invalid("days", "say nothing without subjects_per_day")
	case subjects < 1:
		return 0, experiment.Invalid("days", "must be more: no subject comes in them, less the %.0f days of the metric's window", waiting)
	case subjects > stats.MaxPlannedSubjects:
		return 0, experiment.Invalid("days", "must be fewer: more than %d subjects come in them", int64(stats.MaxPlannedSubjects))
	}
	return int64(subjects), nil
}

// windowDays is the metric's window in days, rounded up.
func (b *Baseline) windowDays() float64 { return math.Ceil(b.Window.Hours() / 24) }
