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
	if diff := cmp.Diff([]Stratum{{Phase: 1}, {Phase: 1, Value: "phone"}}, tally.Strata); diff != "" {
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
//	by <- function(a, f) tapply(y[arm==a], s[arm==a], f)
//	part <- function(a) list(m=by(a, mean), v=by(a, var), n=by(a, length))
//	c0 <- part(0); c1 <- part(1)
//	d <- sum(w*(c1$m-c0$m)); q <- c(w^2*c1$v/c1$n, w^2*c0$v/c0$n)
//	between <- sum(w*(c1$m-c0$m-d)^2)/240
//	pooled <- sum(w^2*((c1$n-1)*c1$v+(c0$n-1)*c0$v)/(c1$n+c0$n-2)*(1/c1$n+1/c0$n))
//	v <- max(sum(q), pooled)+between
//	b <- function(a) (sum(y[arm==a]!=0)-1)/(sum(arm==a)-1); q <- c(q, between)
//	df <- sum(q)^2/sum(q^2/c((c1$n-1)*b(1),(c0$n-1)*b(0),239))
//	c(d, sqrt(v), df, 2*pt(-abs(d)/sqrt(v), df))
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
	want(t, "degrees of freedom", c.DegreesOfFreedom, 238.8999925209229, 1e-12)
	want(t, "p-value", c.PValue, 1.6513798305482560e-25, 1e-9)
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

// TestSmallestPValueNeverRises analyses the same subjects at the end of each of 40
// days. The figures are those of the moment, and the smallest p-value is the smallest
// of those that single analyses of the days give, in which nothing but that day is
// known: if a percentile caps the numbers, it was another on each of them.
func TestSmallestPValueNeverRises(t *testing.T) {
	d, revenue := watched("spend")
	_, capped := watched("spend")
	capped.Metric.Definition.Components[0].Cap = &experiment.Cap{Lower: percentile(20), Upper: percentile(85)}
	t.Run("plain", func(t *testing.T) { smallestNeverRises(t, mustStudy(t, d, []Use{revenue})) })
	t.Run("capped by percentiles", func(t *testing.T) { smallestNeverRises(t, mustStudy(t, d, []Use{capped})) })
}

func smallestNeverRises(t *testing.T, s *Study) {
	faded := false
	for seed := range uint64(10) {
		rows := arrivals(seed, 300, 40)
		smallest, smallestPlain, rose := math.Inf(1), math.Inf(1), false
		var reached time.Time
		for day := range 40 {
			f := s.NewFold(moment.AddDate(0, 0, day-39))
			for i := range rows {
				f.Add(&rows[i])
			}
			tally := f.Tally()
			if len(tally.Phases) == 0 || len(tally.Metrics[0].Days) == 0 {
				continue
			}
			_, alone, err := s.compare(&s.metrics[0], tally.Metrics[0].Whole)
			if err != nil {
				t.Fatal(err)
			}
			if p := alone[0].Unadjusted; p != nil && p.PValue != nil {
				smallestPlain = math.Min(smallestPlain, *p.PValue)
			}
			got := mustAnalyze(t, s, tally, 0).Metrics[0].Comparisons[0]
			if alone[0].PValue == nil {
				continue
			}
			days := tally.Metrics[0].Days
			rose = rose || *alone[0].PValue > smallest
			if *alone[0].PValue <= smallest {
				smallest, reached = *alone[0].PValue, days[len(days)-1].date()
			}
			what := fmt.Sprintf("seed %d, day %d: ", seed, day)
			want(t, what+"p-value", got.PValue, *alone[0].PValue, 1e-9)
			want(t, what+"smallest p-value", &got.Smallest.PValue, smallest, 1e-9)
			want(t, what+"smallest unadjusted p-value", &got.Unadjusted.Smallest.PValue, smallestPlain, 1e-9)
			if !got.Smallest.Day.Equal(reached) {
				t.Errorf("%sit was reached on %v, want %v", what, got.Smallest.Day, reached)
			}
			noted := slices.ContainsFunc(got.Notes, func(n string) bool {
				return strings.HasPrefix(n, "At the end of "+reached.Format(time.DateOnly)+" it was significant before correction")
			})
			if noted != (smallest <= 0.05 && *got.PValue > 0.05) {
				t.Errorf("%sp-value %v, smallest %v, notes %q", what, *got.PValue, smallest, got.Notes)
			}
			faded = faded || noted
			if got.Significant != (*got.PValue <= 0.05) {
				t.Errorf("%ssignificant %t at p = %v", what, got.Significant, *got.PValue)
			}
			if diff := cmp.Diff(alone[0].Difference, got.Difference); diff != "" {
				t.Errorf("the interval is not that of the moment (-moment +got):\n%s", diff)
			}
		}
		if !rose {
			t.Errorf("seed %d: no day's own p-value was higher than an earlier one: the data are not what this test needs", seed)
		}
	}
	if !faded {
		t.Error("no effect was ever said to have faded: the data are not what this test needs")
	}
}

// TestSmallestPValue holds that only always-valid p-values of metrics with a window
// look back.
func TestSmallestPValue(t *testing.T) {
	rows := arrivals(1, 300, 40)
	for name, change := range map[string]func(*experiment.Definition, *Use){
		"fixed horizon": func(d *experiment.Definition, _ *Use) { d.Plan.Method = experiment.MethodFixedHorizon },
		"no window":     func(_ *experiment.Definition, u *Use) { u.Metric.Definition.Window = 0 },
	} {
		d, revenue := watched("spend")
		change(d, &revenue)
		s := mustStudy(t, d, []Use{revenue})
		tally := fold(s, rows...)
		got := mustAnalyze(t, s, tally, 0).Metrics[0]
		if c := got.Comparisons[0]; len(tally.Metrics[0].Days) != 0 || c.Smallest != nil || len(got.Drift) != 0 {
			t.Errorf("%s: smallest p-value %+v, drift %+v", name, c.Smallest, got.Drift)
		}
	}
}

// TestRemember keeps the smallest p-value so far, and that without covariates apart; of
// two that are the same the later one.
func TestRemember(t *testing.T) {
	d, revenue := watched()
	s := mustStudy(t, d, []Use{revenue})
	at := func(p float64) Comparison { return Comparison{PValue: &p} }
	smallest := func(day int, p float64) Comparison {
		return Comparison{Smallest: &Smallest{Day: moment.AddDate(0, 0, day), PValue: p}}
	}
	with := func(c, plain Comparison) Comparison {
		c.Unadjusted = &plain
		return c
	}
	for _, tt := range []struct {
		name        string
		before      *Comparison
		now         Comparison
		want, plain string // Empty for none.
	}{
		{"the first day", nil, with(at(0.2), at(0.3)), "0.2 on 9", "0.3 on 9"},
		{"a larger one", &[]Comparison{with(smallest(1, 0.1), smallest(2, 0.2))}[0], with(at(0.4), at(0.5)), "0.1 on 1", "0.2 on 2"},
		{"the same", &[]Comparison{with(smallest(1, 0.1), smallest(2, 0.2))}[0], with(at(0.1), at(0.2)), "0.1 on 9", "0.2 on 9"},
		{"a smaller one", &[]Comparison{with(smallest(1, 0.1), smallest(2, 0.2))}[0], with(at(0.01), at(0.02)), "0.01 on 9", "0.02 on 9"},
		{"no covariate before", &[]Comparison{smallest(1, 0.1)}[0], with(at(0.4), at(0.5)), "0.1 on 1", "0.1 on 1"},
		{"no covariate", &[]Comparison{smallest(1, 0.1)}[0], at(0.4), "0.1 on 1", ""},
		{"no p-value", &[]Comparison{smallest(1, 0.1)}[0], Comparison{}, "0.1 on 1", ""},
		{"never one", &Comparison{}, Comparison{}, "", ""},
	} {
		s.remember(tt.before, &tt.now, moment.AddDate(0, 0, 9))
		text := func(c *Comparison) string {
			if c == nil || c.Smallest == nil {
				return ""
			}
			return fmt.Sprintf("%v on %v", c.Smallest.PValue, c.Smallest.Day.Sub(moment).Hours()/24)
		}
		if got, plain := text(&tt.now), text(tt.now.Unadjusted); got != tt.want || plain != tt.plain {
			t.Errorf("%s: %q and without covariates %q, want %q and %q", tt.name, got, plain, tt.want, tt.plain)
		}
	}
}

// TestFaded says that an effect was significant and is no longer, or is to the other
// side.
func TestFaded(t *testing.T) {
	d, revenue := watched()
	s := mustStudy(t, d, []Use{revenue})
	number := func(x float64) *float64 { return &x }
	then := &Smallest{Day: moment, PValue: 0.001, Statistic: number(4)}
	for _, tt := range []struct {
		name string
		now  Comparison
		want string // Part of the note.
	}{
		{"as before", Comparison{PValue: number(0.01), Significant: true, Statistic: number(3), Smallest: then}, ""},
		{"faded", Comparison{PValue: number(0.2), Statistic: number(1), Smallest: then}, "at the moment it is not (p = 0.2)"},
		{"turned around", Comparison{PValue: number(0.01), Significant: true, Statistic: number(-3), Smallest: then}, "has turned around"},
		{"without statistics", Comparison{PValue: number(0.01), Significant: true, Smallest: then}, ""},
		{"without one then", Comparison{PValue: number(0.01), Significant: true, Statistic: number(-3), Smallest: &Smallest{Day: moment, PValue: 0.001}}, ""},
		{"not judged", Comparison{Smallest: then}, "at the moment there is no p-value"},
		{"never significant", Comparison{PValue: number(0.2), Smallest: &Smallest{Day: moment, PValue: 0.06}}, ""},
		{"without days", Comparison{PValue: number(0.2)}, ""},
	} {
		if got := s.faded(&tt.now); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestEarlyEffect: an effect of 0.7 in the first ten days, by which an analysis of that
// time ships, is −0.1 in the fifty days that follow. The verdict is that of the
// moment, and a drift is found.
func TestEarlyEffect(t *testing.T) {
	d, revenue := watched()
	s := mustStudy(t, d, []Use{revenue})
	r := rand.New(rand.NewPCG(5, 5))
	var rows []Row
	for i := range 3000 {
		treated, day := i%2, i/50
		effect := -0.1 * float64(treated)
		if day < 10 {
			effect = 0.7 * float64(treated)
		}
		one := row([]string{"control", "short"}[treated], r.NormFloat64()+effect)
		one.FirstExposure = moment.Add(-week).AddDate(0, 0, day-60)
		rows = append(rows, one)
	}
	f := s.NewFold(moment.AddDate(0, 0, -48))
	for i := range rows {
		f.Add(&rows[i])
	}
	if v := mustAnalyze(t, s, f.Tally(), 0).Verdict; v.Action != ActionShip {
		t.Errorf("early on: %s, %q", v.Action, v.Reasons)
	}
	a := mustAnalyze(t, s, fold(s, rows...), 0)
	c := a.Metrics[0].Comparisons[0]
	if c.Significant || *c.PValue <= 0.05 || *c.Difference.Lower >= 0 || c.Smallest.PValue > 0.001 {
		t.Errorf("p %v, smallest %v, from %v", *c.PValue, c.Smallest.PValue, *c.Difference.Lower)
	}
	if a.Verdict.Action != ActionKeepRunning && a.Verdict.Action != ActionInconclusive {
		t.Errorf("verdict %s, %q", a.Verdict.Action, a.Verdict.Reasons)
	}
	if !strings.Contains(strings.Join(c.Notes, " "), "it was significant before correction") {
		t.Errorf("notes %q", c.Notes)
	}
	drift := a.Metrics[0].Drift
	if len(drift) != 1 || drift[0].Attribute != "week" || drift[0].Variant != "short" || *drift[0].PValue >= drifted {
		t.Errorf("drift %+v", drift)
	}
	if !slices.ContainsFunc(a.Warnings, func(w string) bool {
		return strings.HasPrefix(w, "The effect of short on the primary metric differs between the weeks")
	}) {
		t.Errorf("warnings %q", a.Warnings)
	}
}

// TestWeeks puts days together by calendar weeks: 5 January 2026 was a Monday.
func TestWeeks(t *testing.T) {
	d, revenue := watched()
	m := &mustStudy(t, d, []Use{revenue}).metrics[0]
	dayOfMonth := func(n int) int32 { return dayOf(time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC)) }
	moments := func(n int64) stats.Moments { return stats.Moments{N: n, Means: []float64{1}, Products: []float64{0}} }
	var days []Day
	for _, n := range []int{4, 5, 7, 11, 12} {
		days = append(days, Day{Last: dayOfMonth(n), Days: 1, Cells: []Cell{{Variant: n % 2, Moments: moments(int64(n))}}})
	}
	var got []string
	for _, w := range m.weeks(days, 2, 1) {
		text := w.date().Format(time.DateOnly)
		for _, c := range w.Cells {
			text += fmt.Sprintf(" %d:%d", c.Variant, c.Moments.N)
		}
		got = append(got, text)
	}
	if want := []string{"2026-01-04 0:4", "2026-01-11 1:23", "2026-01-18 0:12"}; !slices.Equal(got, want) {
		t.Errorf("weeks %q, want %q", got, want)
	}
}

// TestDriftOfNothing finds a drift in about 5 % of experiments without one, by the
// test's own level, though each week has few subjects.
func TestDriftOfNothing(t *testing.T) {
	d, revenue := watched()
	s := mustStudy(t, d, []Use{revenue})
	r := rand.New(rand.NewPCG(6, 6))
	found := 0
	const runs = 400
	for range runs {
		var rows []Row
		for i := range 300 {
			one := row([]string{"control", "short"}[i%2], 5+r.ExpFloat64())
			one.FirstExposure = moment.Add(-week).AddDate(0, 0, -i/6)
			rows = append(rows, one)
		}
		if h := mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0].Drift[0]; *h.PValue <= 0.05 {
			found++
		}
	}
	if found < 6 || found > 36 { // Four standard errors.
		t.Errorf("a drift in %d of %d experiments without one", found, runs)
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
		says := fmt.Sprintf("Days are not told apart, as there are too many of them or of strata: a smallest p-value is that of the ends of periods of %d days, and can rise when periods get longer.", tt.period)
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

// TestDriftTakesTwoWeeks: of subjects of one week nothing is said, with no word of it.
func TestDriftTakesTwoWeeks(t *testing.T) {
	d, revenue := watched()
	s := mustStudy(t, d, []Use{revenue})
	monday := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	for weeks, want := range map[int]int{1: 0, 2: 1} {
		var rows []Row
		for i := range 80 {
			one := row([]string{"control", "short"}[i%2], 5+float64(i%7))
			one.FirstExposure = monday.AddDate(0, 0, i%5+7*(i/4%weeks)-7)
			rows = append(rows, one)
		}
		tally := fold(s, rows...)
		for _, longer := range []bool{false, true} { // Periods of two weeks.
			if longer && want > 0 {
				tally.Metrics[0].Weeks[0].Days = 14
			}
			got := mustAnalyze(t, s, tally, 0).Metrics[0]
			if len(got.Drift) != want || len(got.Comparisons) != 1 {
				t.Fatalf("%d weeks: drift %+v", weeks, got.Drift)
			}
			for _, h := range got.Drift {
				said := strings.Contains(strings.Join(h.Notes, " "), "In place of weeks")
				if said != longer || said && !slices.Contains(h.Notes, "In place of weeks there are periods of 14 days, as there are too many days or strata.") {
					t.Errorf("notes %q", h.Notes)
				}
			}
		}
	}
}
