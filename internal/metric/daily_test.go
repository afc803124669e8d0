package metric

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// watched is an experiment with an always-valid plan and one metric with a
// window of a week.
func watched(covariates ...string) (*experiment.Definition, Use) {
	d := definition("control", "short")
	d.Plan.Method, d.Plan.PlannedSubjects = experiment.MethodAlwaysValid, 400
	windowed := Sum("purchase", nil)
	windowed.Window = week
	return d, use("revenue", windowed, experiment.RolePrimary, covariates...)
}

func TestFoldDays(t *testing.T) {
	d, revenue := watched()
	d.Plan.StratifyBy = "device"
	s := mustStudy(t, d, []Use{revenue})
	// The week of the first ends with the 14th, that of the second a millisecond
	// later, with the 15th.
	midnight := time.Date(2026, 1, 8, 0, 0, 0, 0, time.UTC)
	in := func(variant, device string, first time.Time, value float64) Row {
		return Row{Variant: []byte(variant), Stratum: []byte(device), Phase: 1, FirstExposure: first, Values: []float64{value}}
	}
	tally := fold(s,
		in("control", "phone", midnight, 1), in("control", "phone", midnight.Add(time.Millisecond), 2), in("short", "", midnight, 3),
		in("control", "phone", midnight.Add(-time.Hour), 5), in("short", "phone", midnight.Add(23*time.Hour), 4), in("short", "phone", moment.Add(time.Microsecond-week), 9),
	)
	moments := func(values ...float64) stats.Moments {
		m := stats.NewMoments(1)
		for _, v := range values {
			m.Add([]float64{v})
		}
		return m
	}
	const day14 = 20467 // 14 January 2026, counted from 1970.
	wantDays := []Day{
		{Last: day14, Days: 1, Cells: []Cell{{0, 1, moments(1, 5)}, {1, 0, moments(3)}}},
		{Last: day14 + 1, Days: 1, Cells: []Cell{{0, 1, moments(2)}, {1, 1, moments(4)}}},
	}
	within := cmp.Comparer(func(a, b stats.Moments) bool {
		return a.N == b.N && math.Abs(a.Means[0]-b.Means[0]) < 1e-12 && math.Abs(a.Products[0]-b.Products[0]) < 1e-12
	})
	if diff := cmp.Diff(wantDays, tally.Metrics[0].Days, within); diff != "" {
		t.Errorf("days (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Stratum{{1, ""}, {1, "phone"}}, tally.Strata); diff != "" {
		t.Errorf("strata (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Arms{{moments(), moments(5, 1, 2)}, {moments(3), moments(4)}}, tally.Metrics[0].Whole, within); diff != "" {
		t.Errorf("whole (-want +got):\n%s", diff)
	}
}

// TestFoldStratifies compares with the post-stratified difference, its variance
// and Satterthwaite's degrees of freedom in R:
//
//	i <- 0:239; arm <- i%%2; s <- (i%/%2*7)%%10%/%3; y <- 10*s + arm*(1+s/4) + ((i*53)%%29)/10
//	w <- tapply(y, s, length)/240
//	part <- function(a) list(m=tapply(y[arm==a], s[arm==a], mean), v=tapply(y[arm==a], s[arm==a], var), n=tapply(y[arm==a], s[arm==a], length))
//	c0 <- part(0); c1 <- part(1)
//	d <- sum(w*(c1$m-c0$m)); q <- c(w^2*c1$v/c1$n, w^2*c0$v/c0$n, sum(w*(c1$m-c0$m-d)^2)/240); v <- sum(q)
//	df <- v^2/sum(q^2/(c(c1$n,c0$n,240)-1)); c(d, sqrt(v), df, 2*pt(-abs(d)/sqrt(v), df))
func TestFoldStratifies(t *testing.T) {
	d := definition("control", "short")
	d.Plan.StratifyBy = "past_spend" // The attribute of a covariate.
	s := mustStudy(t, d, []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)}, "past_spend")
	var rows []Row
	for i := range 240 {
		band, arm := i/2*7%10/3, i%2
		r := row([]string{"control", "short"}[arm], 10*float64(band)+float64(arm)*(1+float64(band)/4)+float64(i*53%29)/10)
		r.Stratum = []byte([]string{"", "low", "mid", "high"}[band])
		r.Segments = [][]byte{r.Stratum}
		rows = append(rows, r)
	}
	a := mustAnalyze(t, s, fold(s, rows...), 0)
	c := a.Metrics[0].Comparisons[0]
	want(t, "difference", c.Difference.Estimate, 1.3075, 1e-12)
	want(t, "standard error", c.StandardError, 0.11113524466217155, 1e-12)
	want(t, "degrees of freedom", c.DegreesOfFreedom, 241.0074334776813, 1e-12)
	want(t, "p-value", c.PValue, 1.500198265430516e-25, 1e-9)
	if len(c.Notes) != 0 || len(a.Warnings) != 0 {
		t.Errorf("notes %q and warnings %q, want none", c.Notes, a.Warnings)
	}
	// Each segment is one stratum.
	low := a.Metrics[0].Segments[2]
	if low.Value != "low" || low.Arms[0].Subjects != 36 || low.Comparisons[0].StandardError == nil {
		t.Errorf("segment %+v", low)
	}
}

// TestFoldUnstratified counts more values than strata may have: whichever of
// them came first, subjects are in strata of their phases alone.
func TestFoldUnstratified(t *testing.T) {
	d, revenue := watched()
	d.Plan.StratifyBy = "device"
	tally := func(values int, stratify bool) (*Study, *Tally) {
		plan := *d
		if !stratify {
			plan.Plan.StratifyBy = ""
		}
		s := mustStudy(t, &plan, []Use{revenue})
		rows := make([]Row, 4*values)
		for i := range rows {
			rows[i] = row([]string{"control", "short"}[i%2], float64(i*i%17))
			rows[i].Phase = int32(1 + i%3)
			rows[i].Stratum = fmt.Append(nil, i/2%values)
			rows[i].FirstExposure = moment.Add(-week - time.Duration(i)*time.Hour)
		}
		return s, fold(s, rows...)
	}
	s, most := tally(1000, true)
	if len(most.Strata) != 3000 || most.StratumLimit != 0 {
		t.Errorf("of 1,000 values in three phases each, %d strata, limit %d", len(most.Strata), most.StratumLimit)
	}
	if a := mustAnalyze(t, s, most, 0); len(a.Warnings) != 0 {
		t.Errorf("warnings %q", a.Warnings)
	}
	s, over := tally(1001, true)
	_, plain := tally(1001, false)
	if over.StratumLimit != 1000 {
		t.Errorf("limit %d", over.StratumLimit)
	}
	if diff := cmp.Diff(plain, over, cmpopts.IgnoreFields(Tally{}, "StratumLimit")); diff != "" {
		t.Errorf("with too many values the tally is another than without strata (-without +got):\n%s", diff)
	}
	if a := mustAnalyze(t, s, over, 0); !slices.Contains(a.Warnings, `Subjects are not stratified by "device": it has more than 1000 values.`) {
		t.Errorf("warnings %q", a.Warnings)
	}
}

// TestStratumEmptyArm leaves out a stratum where an arm is missing, and says so.
func TestStratumEmptyArm(t *testing.T) {
	d := definition("control", "short")
	d.Plan.StratifyBy = "device"
	s := mustStudy(t, d, []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)})
	var rows []Row
	for i := range 40 {
		r := row([]string{"control", "short"}[i%2], float64(i%7))
		r.Stratum = []byte("phone")
		if i%2 == 0 && i%4 == 0 {
			r.Stratum = []byte("desk")
		}
		rows = append(rows, r)
	}
	c := mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0].Comparisons[0]
	if c.PValue == nil || !slices.ContainsFunc(c.Notes, func(n string) bool {
		return strings.HasPrefix(n, "1 of 2 strata are left out, with 10 subjects")
	}) {
		t.Errorf("p-value %v, notes %q", c.PValue, c.Notes)
	}
}

// arrivals are subjects over many days, in two phases, with a covariate, and
// with an effect that turns around.
func arrivals(seed uint64, n, days int) []Row {
	r := rand.New(rand.NewPCG(seed, 0))
	rows := make([]Row, n)
	for i := range rows {
		treated := r.IntN(2)
		day := r.IntN(days)
		past := r.NormFloat64()
		effect := 2 * (1 - 2*float64(day)/float64(days))
		rows[i] = row([]string{"control", "short"}[treated], past+r.NormFloat64()+effect*float64(treated))
		rows[i].Phase = int32(1 + 2*day/days)
		rows[i].AttributeNumbers = []float64{past}
		rows[i].FirstExposure = moment.Add(-week).AddDate(0, 0, day-days).Add(time.Duration(r.Int64N(int64(24 * time.Hour))))
	}
	return rows
}

// TestPValueNeverRises analyses the same subjects at the end of each of 40 days.
// The p-value is the smallest of those that single analyses of the days give,
// in which nothing but that day is known: if a percentile caps the numbers, it
// was another on each of them.
func TestPValueNeverRises(t *testing.T) {
	d, revenue := watched("spend")
	_, capped := watched("spend")
	capped.Metric.Definition.Components[0].Cap = &experiment.Cap{Lower: percentile(20), Upper: percentile(85)}
	t.Run("plain", func(t *testing.T) { pValueNeverRises(t, mustStudy(t, d, []Use{revenue})) })
	t.Run("capped by percentiles", func(t *testing.T) { pValueNeverRises(t, mustStudy(t, d, []Use{capped})) })
}

func pValueNeverRises(t *testing.T, s *Study) {
	for seed := range uint64(10) {
		rows := arrivals(seed, 300, 40)
		smallest, smallestPlain, rose := math.Inf(1), math.Inf(1), false
		for day := range 40 {
			f := s.NewFold(moment.AddDate(0, 0, day-39))
			for i := range rows {
				f.Add(&rows[i])
			}
			tally := f.Tally()
			if len(tally.Phases) == 0 {
				continue
			}
			_, alone, err := s.compare(&s.metrics[0], tally.Metrics[0].Whole)
			if err != nil {
				t.Fatal(err)
			}
			if p := alone[0].Unadjusted; p != nil && p.PValue != nil {
				smallestPlain = math.Min(smallestPlain, *p.PValue)
			}
			if alone[0].PValue == nil {
				continue
			}
			got := mustAnalyze(t, s, tally, 0).Metrics[0].Comparisons[0]
			rose = rose || *alone[0].PValue > smallest
			noted := slices.ContainsFunc(got.Notes, func(n string) bool { return strings.HasPrefix(n, "The p-value is that of ") })
			if noted != (got.Earlier != nil) {
				t.Errorf("day %d: p-value %v is of %v, notes %q", day, *got.PValue, got.Earlier, got.Notes)
			}
			smallest = math.Min(smallest, *alone[0].PValue)
			want(t, fmt.Sprintf("seed %d, p-value of day %d", seed, day), got.PValue, smallest, 1e-9)
			want(t, fmt.Sprintf("seed %d, unadjusted p-value of day %d", seed, day), got.Unadjusted.PValue, smallestPlain, 1e-9)
			if got.Earlier != nil {
				want(t, fmt.Sprintf("seed %d, p-value at the moment of day %d", seed, day), got.Momentary, *alone[0].PValue, 1e-9)
			}
			if got.Significant != (smallest <= 0.05) || got.Unadjusted.Significant != (smallestPlain <= 0.05) {
				t.Errorf("seed %d, day %d: significant %t at p = %v, unadjusted %t at %v", seed, day, got.Significant, smallest, got.Unadjusted.Significant, smallestPlain)
			}
			if diff := cmp.Diff(alone[0].Difference, got.Difference); diff != "" {
				t.Errorf("the interval is not that of the moment (-moment +got):\n%s", diff)
			}
		}
		if !rose {
			t.Errorf("seed %d: no day's own p-value was higher than an earlier one: the data are not what this test needs", seed)
		}
	}
}

// TestPValueOfTheMoment holds that only always-valid p-values of metrics with a
// window look back.
func TestPValueOfTheMoment(t *testing.T) {
	rows := arrivals(1, 300, 40)
	for name, change := range map[string]func(*experiment.Definition, *Use){
		"fixed horizon": func(d *experiment.Definition, _ *Use) { d.Plan.Method = experiment.MethodFixedHorizon },
		"no window":     func(_ *experiment.Definition, u *Use) { u.Metric.Definition.Window = 0 },
	} {
		d, revenue := watched("spend")
		change(d, &revenue)
		s := mustStudy(t, d, []Use{revenue})
		tally := fold(s, rows...)
		got := mustAnalyze(t, s, tally, 0).Metrics[0].Comparisons[0]
		_, alone, err := s.compare(&s.metrics[0], tally.Metrics[0].Whole)
		if err != nil {
			t.Fatal(err)
		}
		if len(tally.Metrics[0].Days) != 0 || got.Earlier != nil || *got.PValue != *alone[0].PValue {
			t.Errorf("%s: p-value %v is not of the moment, %v", name, *got.PValue, *alone[0].PValue)
		}
	}
}

// TestReversedEffect keeps a treatment from winning or losing by a p-value from
// when the effect was the other way.
func TestReversedEffect(t *testing.T) {
	number := func(x float64) *float64 { return &x }
	for _, tt := range []struct {
		now, then     float64
		better, worse bool
	}{{1, 2, true, false}, {-1, -2, false, true}, {-1, 2, false, false}, {1, -2, false, false}} {
		c := &Comparison{Significant: true, Difference: Interval{Estimate: number(tt.now)}, Earlier: &Earlier{Difference: number(tt.then)}}
		if better, worse := sides(c, 1); better != tt.better || worse != tt.worse {
			t.Errorf("%v now and %v when the p-value was smallest: better %t, worse %t", tt.now, tt.then, better, worse)
		}
		if better, worse := sides(c, -1); better != tt.worse || worse != tt.better {
			t.Errorf("less is better, %v now and %v when the p-value was smallest: better %t, worse %t", tt.now, tt.then, better, worse)
		}
	}
}

// TestCalendarCoarsens spreads subjects over more days than are told apart, in
// any order.
func TestCalendarCoarsens(t *testing.T) {
	d, revenue := watched()
	s := mustStudy(t, d, []Use{revenue})
	random := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct{ days, period int }{{400, 1}, {402, 2}, {1700, 8}, {20000, 64}} {
		rows := make([]Row, 4*tt.days)
		for i := range rows {
			rows[i] = row([]string{"control", "short"}[i%2], random.ExpFloat64())
			rows[i].FirstExposure = moment.AddDate(0, 0, -7-i/4)
		}
		tally := fold(s, rows...)
		first := tally.Metrics[0]
		says := fmt.Sprintf("Days are not told apart, as there are too many of them or of strata: p-values are the smallest of the ends of periods of %d days, and can rise when periods get longer.", tt.period)
		if a := mustAnalyze(t, s, tally, 0); slices.Contains(a.Warnings, says) != (tt.period > 1) {
			t.Errorf("%d days: warnings %q", tt.days, a.Warnings)
		}
		if got := first.Days[0].Days; got != tt.period || len(first.Days) > maxPeriods {
			t.Errorf("%d days are counted by %d, in %d periods; want periods of %d", tt.days, got, len(first.Days), tt.period)
		}
		if last := first.Days[len(first.Days)-1].date(); last.Before(moment.AddDate(0, 0, -1)) {
			t.Errorf("the last period ends with %v", last)
		}
		random.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		if diff := cmp.Diff(first, fold(s, rows...).Metrics[0], momentsWithin(1e-11)); diff != "" {
			t.Errorf("shuffled rows of %d days (-want +got):\n%s", tt.days, diff)
		}
	}
}

// TestCalendarBoundsMemory fills as many strata as there may be on many days.
func TestCalendarBoundsMemory(t *testing.T) {
	d, revenue := watched()
	d.Plan.StratifyBy = "device"
	uses := []Use{revenue}
	for i := range 20 {
		other := revenue
		other.Metric.Key, other.Role = fmt.Sprint("m", i), experiment.RoleSecondary
		uses = append(uses, other)
	}
	s := mustStudy(t, d, uses)
	f := s.NewFold(moment)
	for i := range 4000 {
		r := row([]string{"control", "short"}[i%2], float64(i%3))
		r.Stratum, r.FirstExposure = fmt.Append(nil, i%1000), moment.AddDate(0, 0, -7-i%400)
		f.Add(&r)
	}
	numbers := 0
	for i := range f.strata.pages {
		p := &f.strata.pages[i]
		numbers += len(p.periods) * p.numbers * len(f.strata.strata)
	}
	if f.strata.shift == 0 || numbers > maxCalendarNumbers {
		t.Errorf("%d numbers in periods of %d days", numbers, 1<<f.strata.shift)
	}
	if f.whole.shift != 0 {
		t.Errorf("without strata there is room for days, and periods are of %d", 1<<f.whole.shift)
	}
}
