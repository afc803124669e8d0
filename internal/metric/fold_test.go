package metric

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var moment = time.Date(2026, 1, 20, 0, 0, 0, 0, time.UTC)

// row is a row that has been exposed for long, with values for the columns.
func row(variant string, values ...float64) Row {
	return Row{Variant: []byte(variant), Phase: 1, FirstExposure: moment.AddDate(-1, 0, 0), Values: values}
}

func fold(s *Study, rows ...Row) *Tally {
	f := s.NewFold(moment)
	for i := range rows {
		f.Add(&rows[i])
	}
	return f.Tally()
}

func TestFoldCounts(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)}, "country")
	in := func(r Row, phase int32, country string) Row {
		r.Phase, r.Segments = phase, [][]byte{[]byte(country)}
		return r
	}
	crossover := in(row("short", 100), 1, "PL")
	crossover.Crossover = true
	crossover.FirstExposure = time.Unix(0, 0) // It does not count.
	absent := row("short", 9)
	absent.FirstExposure = absent.FirstExposure.Add(time.Hour)
	absent.Segments = [][]byte{nil}
	tally := fold(s,
		in(row("short", 5), 3, "PL"), in(row("control", 1), 1, "DE"), in(row("control", 4), 1, "PL"),
		in(row("short", 7), 3, "PL"), absent, crossover, in(row("gone", 50), 1, "PL"),
	)
	moments := func(values ...float64) stats.Moments {
		m := stats.NewMoments(1)
		for _, v := range values {
			m.Add([]float64{v})
		}
		return m
	}
	want := &Tally{
		Variants: []string{"control", "short"}, Phases: []int32{1, 3},
		Subjects:   [][]int64{{2, 1}, {0, 2}},
		Exposed:    []ExposedDay{{Day: 20108, Phase: 1, Subjects: []int64{2, 1}}, {Day: 20108, Phase: 3, Subjects: []int64{0, 2}}},
		Strata:     []Stratum{{Phase: 1}, {Phase: 3}},
		Crossovers: 1, UnknownVariants: 1,
		Excluded: []Excluded{
			{Reason: ExclusionCrossover, Phase: 1, Variant: "short", Subjects: 1}, {Reason: ExclusionUnknownVariant, Phase: 1, Variant: "gone", Subjects: 1},
		},
		Segments: []SegmentValues{{
			Attribute: "country", Values: []string{"", "DE", "PL"},
			Subjects: [][][]int64{{{0, 1}, {0, 0}}, {{1, 0}, {0, 0}}, {{1, 0}, {0, 2}}},
		}},
		Metrics: []MetricTally{{
			Metric: "revenue", Revision: 1,
			Sizes: [][]Size{{{Largest: 4, Total: 5}}, {{Largest: 9, Total: 21}}},
			Whole: Arms{{moments(1, 4), moments()}, {moments(9), moments(5, 7)}},
			Segments: [][]Arms{{
				{{moments(), moments()}, {moments(9), moments()}},
				{{moments(1), moments()}, {moments(), moments()}},
				{{moments(4), moments()}, {moments(), moments(5, 7)}},
			}},
		}},
	}
	if diff := cmp.Diff(want, tally); diff != "" {
		t.Errorf("tally (-want +got):\n%s", diff)
	}

	text, err := json.Marshal(tally)
	if err != nil {
		t.Fatal(err)
	}
	var back Tally
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tally, &back, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("read back from JSON (-want +got):\n%s", diff)
	}
}

func TestFoldReusesTheRow(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)}, "country")
	f := s.NewFold(moment)
	r := row("control", 1)
	r.Segments = [][]byte{[]byte("PL")}
	f.Add(&r)
	copy(r.Variant, "short--")
	r.Variant = r.Variant[:5]
	copy(r.Segments[0], "DE")
	r.Values[0] = 2
	f.Add(&r)
	tally := f.Tally()
	if diff := cmp.Diff([]string{"DE", "PL"}, tally.Segments[0].Values); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	if got := tally.Metrics[0].Whole[0][0].Means[0]; got != 1 {
		t.Errorf("the first subject's value became %v", got)
	}
}

func TestFoldWindows(t *testing.T) {
	windowed := Sum("purchase", nil)
	windowed.Window = week
	s := mustStudy(t, definition("control", "short"), []Use{
		use("week", windowed, experiment.RolePrimary),
		use("ever", Sum("purchase", nil), experiment.RoleSecondary),
	})
	exposed := func(before time.Duration) Row {
		r := row("control", 1, 2)
		r.FirstExposure = moment.Add(-before)
		return r
	}
	// The window is half open: an outcome at its very end no longer counts, so
	// at that moment the window is closed.
	tally := fold(s, exposed(week+time.Microsecond), exposed(week), exposed(week-time.Microsecond), exposed(0))
	if got := tally.Metrics[0].Whole[0][0].N; got != 2 {
		t.Errorf("%d subjects with a closed window, want 2", got)
	}
	if got := tally.Metrics[0].OpenWindows; got != 2 {
		t.Errorf("%d subjects with an open window, want 2", got)
	}
	if whole := &tally.Metrics[1]; whole.Whole[0][0].N != 4 || whole.OpenWindows != 0 {
		t.Errorf("without a window: %d subjects and %d open ones, want 4 and 0", whole.Whole[0][0].N, whole.OpenWindows)
	}
	if got := tally.Subjects[0][0]; got != 4 {
		t.Errorf("%d subjects for the sample ratio, want all 4", got)
	}
}

func TestFoldMissingCovariate(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary, "spend", "visits")})
	vectors := [][]float64{}
	f := s.NewFold(moment)
	for _, x := range []float64{7, 9, math.NaN(), 1e101, -1e100, math.Inf(-1)} {
		r := row("control", 3, 5)
		r.AttributeNumbers = []float64{x}
		f.Add(&r)
		vectors = append(vectors, append([]float64(nil), f.vectors[0]...))
	}
	// The metric's component, the attribute from 7 on, its absence, the past
	// outcomes.
	want := [][]float64{{3, 0, 0, 5}, {3, 2, 0, 5}, {3, 0, 1, 5}, {3, 0, 1, 5}, {3, -1e100, 0, 5}, {3, 0, 1, 5}}
	if diff := cmp.Diff(want, vectors); diff != "" {
		t.Errorf("components (-want +got):\n%s", diff)
	}
}

func TestFoldWithholdsIdentifiers(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)}, "country", "device")
	tally := func(values int) *Tally {
		var rows []Row
		for i := range 2 * values {
			r := row("control", 1)
			r.Segments = [][]byte{[]byte("PL"), fmt.Appendf(nil, "%d", i%values)}
			rows = append(rows, r)
		}
		return fold(s, rows...)
	}
	if got := tally(200).Segments[1]; len(got.Values) != 200 || got.Limit != 0 {
		t.Errorf("of 200 values %d are shown, limit %d", len(got.Values), got.Limit)
	}
	over := tally(201)
	want := []SegmentValues{{Attribute: "country", Values: []string{"PL"}, Subjects: [][][]int64{{{402, 0}}}}, {Attribute: "device", Limit: 200}}
	if diff := cmp.Diff(want, over.Segments); diff != "" {
		t.Errorf("segments (-want +got):\n%s", diff)
	}
	if len(over.Metrics[0].Segments[1]) != 0 || over.Metrics[0].Whole[0][0].N != 402 {
		t.Error("a withheld segment has moments, or the whole has lost subjects")
	}
}

func TestSegmentLimitBoundsMemory(t *testing.T) {
	d := definition("control", "short")
	for i := range 62 {
		d.Variants = append(d.Variants, experiment.Variant{Key: fmt.Sprintf("v%d", i), Weight: 1})
	}
	var components []experiment.Component
	expression := "0"
	for i := range 16 {
		name := fmt.Sprintf("c%d", i)
		components = append(components, sum(name, name))
		expression += "+" + name
	}
	var uses []Use
	for i := range 100 {
		uses = append(uses, use(fmt.Sprintf("m%d", i), Formula(expression, components), experiment.RoleSecondary))
	}
	s := mustStudy(t, d, uses, "country", "device")
	limit := s.segmentLimit()
	numbers := limit * 2 * 64 * 100 * (2*16 + 16*17/2)
	if limit < 1 || limit >= maxSegmentValues || numbers > maxSegmentNumbers {
		t.Errorf("limit %d means %d numbers", limit, numbers)
	}
}

// randomRows are rows for benchmarkStudy in every variant, phase and segment.
func randomRows(n int) []Row {
	random := rand.New(rand.NewPCG(3, 4))
	rows := make([]Row, n)
	for i := range rows {
		spend := random.ExpFloat64() * 50
		if random.IntN(10) == 0 {
			spend = math.NaN()
		}
		rows[i] = Row{
			Variant:          []byte([]string{"control", "short", "long"}[random.IntN(3)]),
			Phase:            int32(1 + random.IntN(2)),
			FirstExposure:    moment.Add(-time.Duration(random.IntN(20*24)) * time.Hour),
			Segments:         [][]byte{fmt.Appendf(nil, "c%d", random.IntN(30)), fmt.Appendf(nil, "d%d", random.IntN(3))},
			AttributeNumbers: []float64{spend},
			Values: []float64{
				float64(random.IntN(2)), random.ExpFloat64() * 1e6, float64(random.IntN(5)), float64(random.IntN(3)),
			},
		}
	}
	return rows
}

func benchmarkStudy(t testing.TB) *Study {
	windowed := Proportion("visit", nil)
	windowed.Window = week
	return mustStudy(t, definition("control", "short", "long"), []Use{
		use("visited", windowed, experiment.RolePrimary),
		use("revenue", Sum("purchase", nil), experiment.RoleSecondary, "spend"),
		use("order_value", Ratio(sum("a", "purchase"), experiment.Component{Outcome: "purchase", Aggregate: "count"}),
			experiment.RoleSecondary, "spend", "visits"),
	}, "country", "device")
}

// TestFoldOrder holds that the order of rows shows in the last digits only.
func TestFoldOrder(t *testing.T) {
	s := benchmarkStudy(t)
	rows := randomRows(5000)
	shares := map[int32][]float64{1: {1, 1, 1}, 2: {1, 1, 1}}
	analysis := func() (*Tally, *Analysis) {
		tally := fold(s, rows...)
		a, err := s.Analyze(tally, shares)
		if err != nil {
			t.Fatal(err)
		}
		return tally, a
	}
	first, firstAnalysis := analysis()
	again, againAnalysis := analysis()
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the same rows again make another tally (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(firstAnalysis, againAnalysis); diff != "" {
		t.Errorf("the same rows again make another analysis (-want +got):\n%s", diff)
	}
	random := rand.New(rand.NewPCG(5, 6))
	for range 3 {
		others := rows[1:] // The first is where attributes are counted from.
		random.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
		shuffled, _ := analysis()
		if diff := cmp.Diff(first, shuffled, cmpopts.IgnoreFields(stats.Moments{}, "Tails"), momentsWithin(1e-12)); diff != "" {
			t.Errorf("shuffled rows (-want +got):\n%s", diff)
		}
		rows[0], rows[1] = rows[1], rows[0]
		_, shuffledAnalysis := analysis()
		rows[0], rows[1] = rows[1], rows[0]
		// An analysis is a difference of means, so it loses digits to them.
		if diff := cmp.Diff(firstAnalysis, shuffledAnalysis, cmpopts.EquateApprox(1e-9, 1e-300)); diff != "" {
			t.Errorf("analysis of shuffled rows (-want +got):\n%s", diff)
		}
	}
}

// momentsWithin compares moments by means and by covariances, the latter
// relative to the deviations, as a covariance can be near zero.
func momentsWithin(tolerance float64) cmp.Option {
	sizes := cmp.Comparer(func(a, b Size) bool {
		return a.Largest == b.Largest && math.Abs(a.Total-b.Total) <= tolerance*a.Total
	})
	return cmp.Options{sizes, cmp.Comparer(func(a, b stats.Moments) bool {
		if a.N != b.N || a.Dim() != b.Dim() {
			return false
		}
		for i := range a.Means {
			if math.Abs(a.Means[i]-b.Means[i]) > tolerance*math.Abs(a.Means[i]) {
				return false
			}
			for j := range a.Means {
				x, _ := a.Covariance(i, j)
				y, _ := b.Covariance(i, j)
				vi, _ := a.Covariance(i, i)
				vj, _ := a.Covariance(j, j)
				if math.Abs(x-y) > tolerance*math.Sqrt(vi*vj) {
					return false
				}
			}
		}
		return true
	})}
}

func TestAddDoesNotAllocate(t *testing.T) {
	f := benchmarkStudy(t).NewFold(moment)
	rows := randomRows(2000)
	for i := range rows {
		f.Add(&rows[i])
	}
	i := 0
	if n := testing.AllocsPerRun(1000, func() { f.Add(&rows[i]); i++ }); n != 0 {
		t.Errorf("%v allocations per row of known cells", n)
	}
}

func BenchmarkFold(b *testing.B) {
	f := benchmarkStudy(b).NewFold(moment)
	rows := randomRows(4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f.Add(&rows[i%len(rows)])
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// TestFoldShowsTheLargest tells two of 30 values apart and counts the others together,
// which come last, as a part of the subjects like any other.
func TestFoldShowsTheLargest(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)}, "country")
	f := s.NewFold(moment)
	f.Show("country", []string{"v7", ""})
	if over := f.Overflown(); len(over) != 0 {
		t.Errorf("overflown %v", over)
	}
	met := 0
	add := func(value string, n int) {
		for i := range n {
			met++
			r := row([]string{"control", "short"}[i%2], float64(met*7%5))
			r.Segments = [][]byte{[]byte(value)}
			f.Add(&r)
		}
	}
	add("v7", 60)
	add("", 50)
	for i := range 30 {
		if i != 7 {
			add(fmt.Sprint("v", i), 2)
		}
	}
	tally := f.Tally()
	want := SegmentValues{Attribute: "country", Values: []string{"", "v7", ""}, Rest: true, Subjects: [][][]int64{{{25, 25}}, {{30, 30}}, {{29, 29}}}}
	if diff := cmp.Diff(want, tally.Segments[0]); diff != "" {
		t.Errorf("segment (-want +got):\n%s", diff)
	}
	a := mustAnalyze(t, s, tally, 0)
	segments := a.Metrics[0].Segments
	if len(segments) != 3 || segments[0].Rest || !segments[2].Rest || segments[2].Value != "" || segments[2].Arms[1].Subjects != 29 || segments[2].Comparisons[0].PValue == nil {
		t.Errorf("segments %+v", segments)
	}
	if h := a.Metrics[0].Heterogeneity[0]; h.DegreesOfFreedom != 2 {
		t.Errorf("heterogeneity %+v", h)
	}
	if !slices.Contains(a.Warnings, `Segment "country" has more values than can be told apart: the 2 with most subjects are shown, and all others as one.`) {
		t.Errorf("warnings %q", a.Warnings)
	}
	// What is withheld is so of the rest too.
	thirty := int32(30)
	s.definition.Plan.SmallestCell = &thirty
	for i, segment := range mustAnalyze(t, s, tally, 0).Metrics[0].Segments {
		if segment.Withheld != (i != 1) {
			t.Errorf("segment %d is withheld: %t", i, segment.Withheld)
		}
	}
}

func TestFoldOverflows(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)}, "country", "device")
	f := s.NewFold(moment)
	for i := range 201 {
		r := row("control", 1)
		r.Segments = [][]byte{[]byte("PL"), fmt.Append(nil, i)}
		f.Add(&r)
	}
	if diff := cmp.Diff(map[string]int{"device": 20}, f.Overflown()); diff != "" {
		t.Errorf("overflown (-want +got):\n%s", diff)
	}
}
