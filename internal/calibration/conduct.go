package calibration

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
)

// conduct is an experiment whose subjects come over some days, and that is changed,
// paused or concluded meanwhile. What subjects do rises with the time, in both arms
// alike, so that arms which are followed at different times differ without any
// effect. All times are in days.
type conduct struct {
	name string
	// window is how long each subject is followed; 0 until counting ends.
	window float64
	// moved is when a split of 90:10 becomes 50:50; 0 for never.
	moved float64
	// pause is from when to when nobody is served, and excluded says that it is left
	// out by time.
	pause    [2]float64
	excluded bool
	// concluded is when everybody gets the control again; 0 for never.
	concluded float64
	// looks are how often the always-valid method looks; 1 is at the end.
	looks int
}

const (
	conductSubjects = 2000
	conductDays     = 20  // In which the subjects come.
	conductTrend    = 3.0 // By how much the control rises in that time, in standard deviations.
	conductEffect   = 1.0
)

// conducts is experiments that were not left alone.
func conducts() []Cell {
	var cells []Cell
	for _, c := range []conduct{
		{name: "90:10 becomes 50:50, window of 6 days", window: 6, moved: 10, looks: 5},
		{name: "90:10 becomes 50:50, window of 2 days", window: 2, moved: 6, looks: 1},
		{name: "90:10 becomes 50:50, no window", moved: 10, looks: 1},
		{name: "concluded in mid flight, window of 6 days", window: 6, concluded: 14, looks: 5},
		{name: "concluded in mid flight, no window", concluded: 14, looks: 1},
		{name: "paused, window of 6 days", window: 6, pause: [2]float64{8, 12}, looks: 1},
		{name: "pause left out, window of 6 days", window: 6, pause: [2]float64{8, 12}, excluded: true, looks: 1},
		{name: "moved, paused and concluded, window of 4 days", window: 4, moved: 5, pause: [2]float64{8, 10}, concluded: 16, looks: 5},
	} {
		always := "always valid, at the end"
		if c.looks > 1 {
			always = fmt.Sprintf("always valid, %d looks", c.looks)
		}
		cells = append(cells, Cell{
			Group: "moves, conclusions and pauses under a trend", Design: c.name,
			Methods: methods(decided, "fixed horizon", always), parts: [2]bool{true, true}, start: c.start,
		})
	}
	return cells
}

// end is when the last subject's window closes, and the analysis is made.
func (c *conduct) end() float64 { return conductDays + c.window }

// until is the end of what counts.
func (c *conduct) until() float64 {
	if c.concluded > 0 {
		return c.concluded
	}
	return c.end()
}

// start prepares a simulation.
func (c *conduct) start() simulation {
	difference := c.truth()
	var studies [2]*metric.Study
	for m, method := range []experiment.Method{experiment.MethodFixedHorizon, experiment.MethodAlwaysValid} {
		studies[m] = studyOf(method, c.window).Conducted(c.conducted())
	}
	rows := make([]metric.Row, conductSubjects)
	values, buckets := make([]float64, conductSubjects), make([]int32, conductSubjects)
	return func(rng *rand.Rand, effect bool, seen []sight) error {
		for i := range rows {
			rows[i] = metric.Row{Values: values[i : i+1], Bucket: &buckets[i]}
			c.subject(rng, effect, &rows[i])
		}
		truth := difference
		if !effect {
			truth = 0
		}
		for m, study := range studies {
			for look := range c.looks {
				if m == 0 && look < c.looks-1 {
					continue
				}
				asOf := c.end() * float64(look+1) / float64(c.looks)
				if err := seen[m].analyze(study, rows, at(asOf), truth); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// conducted is what the analysis is told.
func (c *conduct) conducted() metric.Conduct {
	conducted := metric.Conduct{ExcludePauses: c.excluded}
	if c.concluded > 0 {
		conducted.End = at(c.concluded)
	}
	if c.pause[1] > 0 {
		conducted.Pauses = []metric.Stretch{{From: at(c.pause[0]), To: at(c.pause[1])}}
	}
	if c.moved > 0 {
		conducted.Phases = []experiment.Phase{{
			Number: 2, Start: at(c.moved), Moves: true,
			Allocation: []experiment.Range{{From: 0, To: experiment.Buckets / 2, Variant: "control"}, {From: experiment.Buckets / 2, To: experiment.Buckets, Variant: "treatment"}},
		}}
	}
	return conducted
}

// analyze takes in an analysis of the rows known at a moment.
func (o *sight) analyze(study *metric.Study, rows []metric.Row, asOf time.Time, difference float64) error {
	fold := study.NewFold(asOf)
	for i := range rows {
		if rows[i].FirstExposure.Before(asOf) {
			fold.Add(&rows[i])
		}
	}
	analysis, err := study.Analyze(fold.Tally(), map[int32][]float64{1: {0.9, 0.1}, 2: {0.5, 0.5}})
	if err != nil {
		return err
	}
	c := &analysis.Metrics[0].Comparisons[0]
	interval := &c.Difference
	if c.Significant {
		o.found = true
		// The interval must bear it.
		shown := interval.Lower != nil && *interval.Lower > 0 || interval.Upper != nil && *interval.Upper < 0
		o.wrong = o.wrong || !shown || *interval.Estimate*difference < 0
	}
	o.shown = o.shown || interval.Lower != nil || interval.Upper != nil
	miss(interval.Lower, interval.Upper, difference, &o.below, &o.above)
	return nil
}

// studyOf is the analysis of a mean within a window of so many days by a method.
func studyOf(method experiment.Method, window float64) *metric.Study {
	spending := metric.Sum("spending", nil)
	spending.Direction, spending.Window = metric.DirectionIncrease, days(window)
	definition := &experiment.Definition{
		Unit: "user", Salt: "salt", Traffic: 1,
		Variants: []experiment.Variant{{Key: "control", Control: true, Weight: 9}, {Key: "treatment", Weight: 1}},
		Plan: experiment.Plan{
			Method: method, ConfidenceLevel: 1 - alpha, Correction: experiment.CorrectionHolm, PlannedSubjects: conductSubjects,
		},
	}
	use := metric.Use{Metric: metric.Metric{Key: "spending", Revision: 1, Definition: spending}, Role: experiment.RolePrimary}
	study, err := metric.NewStudy(definition, definition.Variants, []metric.Use{use}, nil)
	if err != nil {
		panic(err) // It follows from this file alone.
	}
	return study
}

// subject fills in one subject: when it came, in which phase, to which variant, and
// what a query finds of it.
func (c *conduct) subject(rng *rand.Rand, effect bool, row *metric.Row) {
	came := conductDays * rng.Float64()
	for came >= c.pause[0] && came < c.pause[1] || c.concluded > 0 && came >= c.concluded {
		came = conductDays * rng.Float64() // Nobody is exposed then.
	}
	*row.Bucket = int32(rng.IntN(experiment.Buckets))
	bucket := float64(*row.Bucket) / experiment.Buckets
	row.Phase = 1
	if c.moved > 0 && came >= c.moved {
		row.Phase = 2
	}
	row.Variant = []byte("control")
	if c.treated(bucket, came) {
		row.Variant = []byte("treatment")
	}
	row.FirstExposure = at(came)
	from, to, unit := came, c.until(), float64(conductDays)
	if c.window > 0 {
		to, unit = came+c.window, c.window
	}
	level := c.counted(from, to, func(from, to float64) float64 {
		return (to - from) * (1 + conductTrend*(from+to)/2/conductDays)
	})
	if effect {
		level += conductEffect * c.served(bucket, from, to)
	}
	row.Values[0] = level/unit + rng.NormFloat64()
}

// treated says whether a subject of a place in the split gets the treatment at a
// time.
func (c *conduct) treated(bucket, time float64) bool {
	if c.moved == 0 || time >= c.moved {
		return bucket >= 0.5
	}
	return bucket >= 0.9
}

// counted adds something up over the time that counts.
func (c *conduct) counted(from, to float64, of func(from, to float64) float64) float64 {
	sum := of(from, to)
	if from, to := math.Max(from, c.pause[0]), math.Min(to, c.pause[1]); c.excluded && from < to {
		sum -= of(from, to)
	}
	return sum
}

// served is how long a subject really gets the treatment.
func (c *conduct) served(bucket, from, to float64) float64 {
	length := func(from, to float64) float64 {
		paused := math.Min(to, c.pause[1]) - math.Max(from, c.pause[0])
		return math.Max(0, to-from) - math.Max(0, paused)
	}
	to = math.Min(to, c.until())
	sum := 0.0
	if c.treated(bucket, from) {
		sum += length(from, math.Min(to, math.Max(from, c.moved)))
	}
	if c.treated(bucket, math.Max(from, c.moved)) {
		sum += length(math.Max(from, c.moved), to)
	}
	return sum
}

// truth is the effect on those who keep their variant while they are followed, if
// that counts.
func (c *conduct) truth() float64 {
	const steps = 20_000
	sum, subjects, unit := 0.0, 0.0, c.window
	for i := range steps {
		came := conductDays * (float64(i) + 0.5) / steps
		to := came + c.window
		if c.window == 0 {
			to, unit = c.until(), conductDays
		}
		if came >= c.pause[0] && came < c.pause[1] || to > c.until() || came >= c.until() {
			continue
		}
		weight := 1.0
		if came < c.moved && to > c.moved {
			weight = 0.6 // Those between 0.5 and 0.9 of the split are moved.
		}
		subjects += weight
		sum += weight * c.served(1, came, to)
	}
	return conductEffect * sum / unit / subjects
}

// at is a moment so many days after the start.
func at(day float64) time.Time { return conductStart.Add(days(day)) }

var conductStart = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

func days(n float64) time.Duration { return time.Duration(n * float64(24*time.Hour)) }
