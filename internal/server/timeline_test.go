package server_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"gonum.org/v1/gonum/stat/distuv"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

const oneDay = 24 * time.Hour

// ordersOf5Days counts purchases within five days.
const ordersOf5Days = `{"metric":{"key":"purchase_rate","direction":"DIRECTION_INCREASE","window":"432000s",
	"formula":{"expression":"orders","components":[{"name":"orders","outcome":"purchase","aggregate":"AGGREGATE_COUNT"}]}}}`

// crowd exposes 40 customers a day for ten days up to the day before yesterday.
// Those with the treatment buy more on the day of exposure, less so on the next,
// and more on the third the later they come.
func crowd() []customer {
	start := time.Now().UTC().Truncate(oneDay).AddDate(0, 0, -12)
	var customers []customer
	for day := range 10 {
		for i := range 40 {
			c := customer{variant: []string{"a", "b"}[i%2], exposed: start.AddDate(0, 0, day).Add(time.Duration(1+i*37%1400) * time.Minute)}
			for since := range 7 {
				buys := (i*7+since+day)%3 == 0
				if i%2 == 1 {
					buys = buys || since == 0 && i%4 == 1 || since == 1 && i%8 == 1 || since == 2 && i%10 < day
				}
				if buys {
					c.buys = append(c.buys, time.Duration(since)*oneDay+time.Duration(i)*time.Minute)
				}
			}
			customers = append(customers, c)
		}
	}
	return customers
}

// watch records customers as if everything had been recorded when it happened.
func watch(t *testing.T, patch string, customers []customer) *api {
	t.Helper()
	a, address := newAPIAt(t)
	a.do(t, "MetricService/CreateMetric", ordersOf5Days)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"assignment":"ASSIGNMENT_EXTERNAL",`+patch))
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	for i := range customers { // What is yet to come cannot be recorded.
		c := &customers[i]
		c.buys = slices.DeleteFunc(c.buys, func(after time.Duration) bool { return time.Since(c.exposed.Add(after)) < 0 })
	}
	a.sell(t, "plain", customers)
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, sql := range []string{`UPDATE exposures SET recorded_time = exposed_time`, `UPDATE outcomes SET recorded_time = occurred_time`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// effect is the mean difference with its always-valid interval.
type effect struct {
	subjects               [2]int64
	estimate, lower, upper float64
}

// effectOf computes an effect in two passes, by the boundary
// √N·√(2(Nρ²+1)/(N²ρ²)·ln(√(Nρ²+1)/α)), ρ² = (−2 ln α + ln(1 − 2 ln α))/N*, of the normal
// score of Student's t by the customers who bought.
func effectOf(customers []customer, counts func(*customer) (number float64, ok bool)) effect {
	const alpha, planned = 0.05, 300
	var e effect
	var mean, variance, squares, bought [2]float64
	binary := true
	for pass := range 2 {
		for i := range customers {
			x, ok := counts(&customers[i])
			if !ok {
				continue
			}
			arm := int(customers[i].variant[0] - 'a')
			if pass == 0 {
				e.subjects[arm]++
				mean[arm] += x
				if x != 0 {
					bought[arm]++
				}
				binary = binary && (x == 0 || x == 1)
			} else {
				variance[arm] += (x - mean[arm]) * (x - mean[arm])
			}
		}
		for arm, n := range e.subjects {
			if pass == 0 {
				mean[arm] /= float64(n)
			} else {
				squares[arm] = variance[arm]
				variance[arm] /= float64(n-1) * float64(n)
			}
		}
	}
	for arm, n := range e.subjects {
		if binary {
			bought[arm] = math.Min(bought[arm], float64(n)-bought[arm]) // The rarer.
		}
	}
	n := float64(e.subjects[0] + e.subjects[1])
	rho := (-2*math.Log(alpha) + math.Log(1-2*math.Log(alpha))) / planned
	boundary := math.Sqrt(n) * math.Sqrt(2*(n*rho+1)/(n*n*rho)*math.Log(math.Sqrt(n*rho+1)/alpha))
	pooled := (squares[0] + squares[1]) / (n - 2) * (1/float64(e.subjects[0]) + 1/float64(e.subjects[1]))
	degrees := math.Pow(variance[0]+variance[1], 2) / (math.Pow(variance[0], 2)/math.Max(bought[0]-1, 1) + math.Pow(variance[1], 2)/math.Max(bought[1]-1, 1))
	half := math.Sqrt(math.Max(variance[0]+variance[1], pooled)) * atNormalScore(boundary, degrees)
	if min(bought[0], bought[1]) < 5 && (bought[0]+bought[1])/n*float64(min(e.subjects[0], e.subjects[1])) < 5 {
		half = math.NaN() // Too few bought.
	}
	if uneven := math.Abs(float64(e.subjects[1] - e.subjects[0])); uneven > 0.1*math.Sqrt(float64(e.subjects[0]*e.subjects[1])*n) {
		half = math.NaN() // It is not judged yet, as in the first hours of a day.
	}
	e.estimate = mean[1] - mean[0]
	e.lower, e.upper = e.estimate-half, e.estimate+half
	return e
}

// atNormalScore is where Student's t has the same tail beyond it as the normal
// distribution has beyond z, by halves.
func atNormalScore(z, degrees float64) float64 {
	if !(degrees > 0) {
		return math.NaN()
	}
	t, tail := distuv.StudentsT{Sigma: 1, Nu: degrees}, math.Erfc(z/math.Sqrt2)/2
	low, high := 0.0, 1e9
	for range 200 {
		if middle := (low + high) / 2; t.Survival(middle) > tail {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}

// orders is how often a customer bought from one time after exposure to another.
func orders(c *customer, from, to time.Duration) (n float64) {
	for _, after := range c.buys {
		if after >= from && after < to {
			n++
		}
	}
	return n
}

func checkEffect(t *testing.T, where string, point *assayv1.TimelinePoint, want effect) {
	t.Helper()
	number := func(x *float64) float64 {
		if x == nil { // As of an arm without subjects, in the first hours of a day.
			return math.NaN()
		}
		return *x
	}
	d := point.Comparisons[0].GetDifference()
	got := effect{[2]int64{point.Arms[0].Subjects, point.Arms[1].Subjects}, number(d.Estimate), number(d.Lower), number(d.Upper)}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(effect{}), cmpopts.EquateApprox(1e-9, 1e-12), cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", where, diff)
	}
}

// TestTimeline compares all points with what the customers did: an effect that
// fades with the days since exposure, and grows from one cohort to the next. The
// plan has another method, and the band is always-valid.
func TestTimeline(t *testing.T) {
	customers := crowd()
	a := watch(t, `"plan":{"method":"METHOD_FIXED_HORIZON","planned_subjects":"300","smallest_cell":0}`, customers)
	got := call[*assayv1.GetTimelineResponse](t, a, "AnalysisService/GetTimeline", `{"experiment":"plain"}`)
	asOf := got.AsOfTime.AsTime()
	closed := func(c *customer, after time.Duration) bool { return !c.exposed.Add(after).After(asOf) }

	first := customers[0].exposed.Truncate(oneDay)
	days := int(asOf.Sub(first)/oneDay) + 1
	seen := 0
	for day := range days {
		end := first.AddDate(0, 0, day+1)
		want := effectOf(customers, func(c *customer) (float64, bool) {
			return orders(c, 0, 5*oneDay), closed(c, 5*oneDay) && !c.exposed.Add(5*oneDay).After(end)
		})
		if want.subjects == [2]int64{} {
			continue
		}
		point := got.Cumulative[seen]
		if name := end.AddDate(0, 0, -1).Format(time.DateOnly); point.Day != name {
			t.Fatalf("point %d is of %s, want %s", seen, point.Day, name)
		}
		checkEffect(t, "cumulative "+point.Day, point, want)
		seen++
	}
	if seen != len(got.Cumulative) || seen < 7 {
		t.Errorf("%d cumulative points, want %d", len(got.Cumulative), seen)
	}
	if len(got.SinceExposure) != 5 {
		t.Fatalf("%d days since exposure, want 5", len(got.SinceExposure))
	}
	var fading []float64
	for i, point := range got.SinceExposure {
		if point.DaysSinceExposure != int32(i) || point.Days != 1 || point.Day != "" {
			t.Errorf("point %d since exposure: day %d, %d days, of %q", i, point.DaysSinceExposure, point.Days, point.Day)
		}
		from, to := time.Duration(i)*oneDay, time.Duration(i+1)*oneDay
		checkEffect(t, "since exposure", point, effectOf(customers, func(c *customer) (float64, bool) { return orders(c, from, to), closed(c, to) }))
		fading = append(fading, point.Comparisons[0].Difference.GetEstimate())
	}
	if !(fading[0] > 0.2 && fading[0] > 1.5*fading[1] && fading[1] > 0.05 && math.Abs(fading[4]) < 0.05) {
		t.Errorf("the effect should fade: %v", fading)
	}
	var growing []float64
	for i, point := range got.Cohorts {
		name := first.AddDate(0, 0, i).Format(time.DateOnly)
		if point.Day != name {
			t.Fatalf("cohort %d is of %s, want %s", i, point.Day, name)
		}
		checkEffect(t, "cohort "+name, point, effectOf(customers, func(c *customer) (float64, bool) {
			return orders(c, 0, 5*oneDay), c.exposed.Format(time.DateOnly) == name && closed(c, 5*oneDay)
		}))
		growing = append(growing, point.Comparisons[0].Difference.GetEstimate())
	}
	if n := len(growing); n < 7 || growing[n-2] < growing[0]+0.15 {
		t.Errorf("the effect should grow: %v", growing)
	}
}

// TestTimelineAgreesWithAnalysis analyses at every midnight what was known then.
// The smallest p-values never rise, the last cumulative point is the analysis before its
// correction for two treatments, and an event that comes late changes what had
// been said.
func TestTimelineAgreesWithAnalysis(t *testing.T) {
	customers := crowd()
	first := customers[0].exposed.Truncate(oneDay)
	for i := range customers { // From the fifth day on the effect is the other way.
		if c := &customers[i]; !c.exposed.Before(first.AddDate(0, 0, 4)) {
			c.variant = map[string]string{"a": "b", "b": "a"}[c.variant]
		}
	}
	for _, c := range customers {
		if c.variant == "b" { // As good as it.
			c.variant = "c"
			c.buys = slices.Clone(c.buys)
			customers = append(customers, c)
		}
	}
	a := watch(t, `"variants":[{"key":"a","control":true},{"key":"b"},{"key":"c"}],"plan":{"planned_subjects":"300"}`, customers)
	previous, faded, analyses := []float64{1, 1}, 0, 0
	for midnight := first.AddDate(0, 0, 6); midnight.Before(time.Now()); midnight = midnight.AddDate(0, 0, 1) {
		at := timestamppb.New(midnight)
		analysis, err := a.analysis.AnalyzeExperiment(t.Context(), &assayv1.AnalyzeExperimentRequest{Experiment: "plain", AsOfTime: at})
		if err != nil {
			t.Fatal(err)
		}
		timeline, err := a.analysis.GetTimeline(t.Context(), &assayv1.GetTimelineRequest{Experiment: "plain", Metric: "purchase_rate", AsOfTime: at})
		if err != nil {
			t.Fatal(err)
		}
		point := timeline.Cumulative[len(timeline.Cumulative)-1]
		// The two read the subjects in different orders, which shows in the last digits.
		if diff := cmp.Diff(analysis.Metrics[0].Comparisons, point.Comparisons, protocmp.Transform(), cmpopts.EquateApprox(1e-12, 1e-12),
			protocmp.IgnoreFields(&assayv1.Comparison{}, "adjusted_p_value", "adjusted_difference", "adjusted_lift", "significant")); diff != "" {
			t.Errorf("%v (-analysis +timeline):\n%s", midnight, diff)
		}
		for i, c := range analysis.Metrics[0].Comparisons {
			alone := point.Comparisons[i]
			if c.Significant != (c.GetAdjustedPValue() <= 0.05) || alone.Significant != (c.GetPValue() <= 0.05) || alone.AdjustedPValue != nil {
				t.Errorf("%v: %s is judged by p = %v, corrected %v: %v, and the point %v", midnight, c.Variant, *c.PValue, *c.AdjustedPValue, c.Significant, alone.Significant)
			}
			if *c.SmallestPValue > previous[i] || *c.SmallestPValue > *c.PValue {
				t.Errorf("%v: the smallest p-value of %s goes from %v to %v, with %v at the moment", midnight, c.Variant, previous[i], *c.SmallestPValue, *c.PValue)
			}
			if slices.ContainsFunc(c.Notes, func(n string) bool {
				return strings.HasPrefix(n, "At the end of "+c.SmallestPValueDay+" it was significant before correction")
			}) {
				faded++
			}
			previous[i] = *c.SmallestPValue
		}
		analyses++
	}
	if analyses < 6 || previous[0] > 0.05 || faded == 0 {
		t.Errorf("%d analyses, the smallest p = %v, %d whose effect has faded: the data are not what this test needs", analyses, previous, faded)
	}
	// Ten late orders of the control's first customers.
	var late []customer
	for i := range customers[:20] {
		late = append(late, customer{variant: customers[i].variant, exposed: customers[i].exposed})
		if customers[i].variant == "a" {
			late[i].buys = []time.Duration{5*oneDay - time.Minute}
		}
	}
	a.buy(t, "plain", "late", late)
	now := call[*assayv1.AnalyzeExperimentResponse](t, a, "AnalysisService/AnalyzeExperiment", `{"experiment":"plain"}`)
	if p := now.Metrics[0].Comparisons[0].GetSmallestPValue(); p <= previous[0] {
		t.Errorf("orders of the control came late, and the smallest p-value is %v after %v", p, previous[0])
	}
}

func TestTimelineRefuses(t *testing.T) {
	const timeline = "AnalysisService/GetTimeline"
	a := newAPI(t)
	a.do(t, "MetricService/CreateMetric", purchaseRate)
	a.do(t, "ExperimentService/CreateExperiment", newExperiment(`"metrics":[]`))
	a.refuses(t, []refusal{
		{"draft", timeline, `{"experiment":"plain","metric":"purchase_rate"}`, codes.FailedPrecondition, []string{"EXPERIMENT_NOT_STARTED"}, ""},
	})
	a.do(t, "ExperimentService/StartExperiment", `{"key":"plain"}`)
	a.refuses(t, []refusal{
		{"no primary metric", timeline, `{"experiment":"plain"}`, codes.InvalidArgument, []string{"metric"}, "no primary"},
		{"unknown experiment", timeline, `{"experiment":"nothing"}`, codes.NotFound, []string{"EXPERIMENT_NOT_FOUND"}, ""},
		{"unknown metric", timeline, `{"experiment":"plain","metric":"nothing"}`, codes.NotFound, []string{"METRIC_NOT_FOUND"}, ""},
		{"keys", timeline, `{"metric":"-"}`, codes.InvalidArgument, []string{"experiment", "metric"}, ""},
		{"future", timeline, `{"experiment":"plain","metric":"purchase_rate","as_of_time":"9999-12-31T23:59:59Z"}`, codes.InvalidArgument, []string{"as_of_time"}, "future"},
	})
	empty := call[*assayv1.GetTimelineResponse](t, a, timeline, `{"experiment":"plain","metric":"purchase_rate"}`)
	if len(empty.Cumulative)+len(empty.SinceExposure)+len(empty.Cohorts) != 0 {
		t.Errorf("without subjects: %v", empty)
	}
}

// TestTimelineWithholds: cohorts of 20 customers a variant where 21 are wanted.
func TestTimelineWithholds(t *testing.T) {
	a := watch(t, `"plan":{"smallest_cell":21}`, crowd())
	got := call[*assayv1.GetTimelineResponse](t, a, "AnalysisService/GetTimeline", `{"experiment":"plain"}`)
	if len(got.Cohorts) < 6 {
		t.Fatalf("%d cohorts", len(got.Cohorts))
	}
	for _, point := range got.Cohorts {
		if !point.Withheld || len(point.Comparisons) > 0 || point.Arms[0].Subjects == 0 || point.Arms[0].Mean != nil {
			t.Errorf("cohort %v", point)
		}
	}
	for _, point := range slices.Concat(got.Cumulative, got.SinceExposure) {
		if point.Withheld || len(point.Comparisons) != 1 {
			t.Errorf("point %v", point)
		}
	}
}
