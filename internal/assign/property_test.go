package assign

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

// subjects are the ids that the statistical tests bucket: sequential ones, whose
// likeness a weak hash passes on to the buckets, and random ones. They are
// fixed, so that a test that has passed once passes always.
func subjects(n int) []string {
	keys := make([]string, 0, n)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range n / 2 {
		keys = append(keys, fmt.Sprint("u-", i), fmt.Sprintf("%016x", random.Uint64()))
	}
	return keys
}

// critical returns the value that a chi-square statistic exceeds with
// probability 1e-6, by Wilson and Hilferty's cube-root approximation (1931),
// which is above the true value for few degrees of freedom.
func critical(df int) float64 {
	const z = 4.753424 // Standard normal quantile of 1 − 1e-6.
	k := 2 / (9 * float64(df))
	return float64(df) * math.Pow(1-k+z*math.Sqrt(k), 3)
}

// independence returns the chi-square statistic of a table of counts against
// independence of rows and columns, and its degrees of freedom.
func independence(table [][]int) (chi2 float64, df int) {
	rows, columns, total := make([]int, len(table)), make([]int, len(table[0])), 0
	for i := range table {
		for j, n := range table[i] {
			rows[i] += n
			columns[j] += n
			total += n
		}
	}
	for i := range table {
		for j, n := range table[i] {
			expected := float64(rows[i]) * float64(columns[j]) / float64(total)
			chi2 += (float64(n) - expected) * (float64(n) - expected) / expected
		}
	}
	return chi2, (len(rows) - 1) * (len(columns) - 1)
}

func TestSharesFollowWeights(t *testing.T) {
	keys := subjects(200_000)
	for i, weights := range [][]int32{{1, 1}, {1, 0, 3}, {5, 3, 2, 90}, {1, 1, 1, 1, 1, 1, 1}, {999, 1}} {
		salt := fmt.Sprint("experiment-", i)
		catalog := catalogOf(t, running(salt, weights...))
		counts, total := make([]int, len(weights)), int32(0)
		for _, w := range weights {
			total += w
		}
		for _, key := range keys {
			counts[catalog.Subject("user", key, nil, day(3)).Assign(salt).Variant]++
		}
		chi2, df := 0.0, -1
		for v, w := range weights {
			if w == 0 {
				if counts[v] != 0 {
					t.Errorf("%v: a variant without weight has %d subjects", weights, counts[v])
				}
				continue
			}
			expected := float64(len(keys)) * float64(w) / float64(total)
			chi2 += (float64(counts[v]) - expected) * (float64(counts[v]) - expected) / expected
			df++
		}
		if chi2 > critical(df) {
			t.Errorf("%v: got %v, chi-square %.1f", weights, counts, chi2)
		}
	}
}

func TestTrafficShare(t *testing.T) {
	keys := subjects(200_000)
	for _, traffic := range []float64{0, 0.001, 0.25, 0.5, 0.9, 1} {
		catalog := catalogOf(t, running("e", 1, 1).with(func(d *experiment.Definition) { d.Traffic = traffic }))
		in := 0
		for _, key := range keys {
			if catalog.Subject("user", key, nil, day(3)).Assign("e").Reason == ReasonSplit {
				in++
			}
		}
		n := float64(len(keys))
		if d := math.Abs(float64(in) - n*traffic); d > 4.9*math.Sqrt(n*traffic*(1-traffic)) {
			t.Errorf("traffic %v: %d of %v", traffic, in, n)
		}
	}
}

func TestExperimentsAreIndependent(t *testing.T) {
	keys := subjects(100_000)
	histories := []history{running("a", 1, 1, 1), running("b", 1, 1, 1), running("exp-1", 1, 1, 1), running("exp-2", 1, 1, 1)}
	catalog := catalogOf(t, histories...)
	variants := make([][]int, len(histories))
	for _, key := range keys {
		subject := catalog.Subject("user", key, nil, day(3))
		for i, s := range histories {
			variants[i] = append(variants[i], subject.Assign(s.Experiment.Key).Variant)
		}
	}
	for i := range histories {
		for j := range i {
			table := [][]int{make([]int, 3), make([]int, 3), make([]int, 3)}
			for k := range keys {
				table[variants[i][k]][variants[j][k]]++
			}
			if chi2, df := independence(table); chi2 > critical(df) {
				t.Errorf("%s and %s: %v, chi-square %.1f", histories[i].Experiment.Key, histories[j].Experiment.Key, table, chi2)
			}
		}
	}
}

// TestTrafficIsIndependentOfSplit: those who take part are split like everyone.
func TestTrafficIsIndependentOfSplit(t *testing.T) {
	half := catalogOf(t, running("e", 1, 1, 2).with(func(d *experiment.Definition) { d.Traffic = 0.5 }))
	everyone := catalogOf(t, running("e", 1, 1, 2))
	table := [][]int{make([]int, 3), make([]int, 3)}
	for _, key := range subjects(200_000) {
		in := 0
		if half.Subject("user", key, nil, day(3)).Assign("e").Reason == ReasonSplit {
			in = 1
		}
		table[in][everyone.Subject("user", key, nil, day(3)).Assign("e").Variant]++
	}
	if chi2, df := independence(table); chi2 > critical(df) {
		t.Errorf("%v, chi-square %.1f", table, chi2)
	}
}

func TestRaisingTrafficMovesNobody(t *testing.T) {
	keys := subjects(20_000)
	before := make([]int, len(keys))
	for i := range before {
		before[i] = -1
	}
	for _, traffic := range []float64{0, 0.000001, 0.01, 0.013, 0.3, 0.5, 0.999999, 1} {
		catalog := catalogOf(t, running("e", 1, 3, 2).with(func(d *experiment.Definition) { d.Traffic = traffic }))
		for i, key := range keys {
			now := catalog.Subject("user", key, nil, day(3)).Assign("e").Variant
			if before[i] >= 0 && now != before[i] {
				t.Fatalf("at traffic %v %s moved from %d to %d", traffic, key, before[i], now)
			}
			before[i] = now
		}
	}
}

// randomHistory makes an experiment of any state with any gates.
func randomHistory(r *rand.Rand, key string) history {
	weights := make([]int32, 2+r.IntN(4))
	for i := range weights {
		weights[i] = r.Int32N(10)
	}
	weights[0]++
	predicates := []string{
		"", "", "attributes.country == 'PL'", "attributes.age >= 18", "attributes.country", "unit == 'user'",
		"attributes.tags.exists(t, t == 'a')", "has(attributes.age) && attributes.country in ['PL', 'DE']",
	}
	s := running(key, weights...).with(func(d *experiment.Definition) {
		d.Traffic = []float64{0, 0.3, 0.7, 1, 1}[r.IntN(5)]
		d.Eligibility = predicates[r.IntN(len(predicates))]
		d.External = r.IntN(10) == 0
		if r.IntN(10) == 0 {
			d.Unit = "device"
		}
	})
	if r.IntN(3) == 0 {
		s.Overrides = map[experiment.SubjectID]string{}
		for i := range 20 {
			id := pepper.SubjectID(experiment.Subject{Unit: "user", Key: fmt.Sprint("u-", i)})
			s.Overrides[id] = fmt.Sprint("v", r.IntN(len(weights)))
		}
	}
	if r.IntN(3) == 0 {
		from := r.Int32N(experiment.Buckets / 2)
		s = s.inLayer("layer", experiment.Range{From: 0, To: from / 2}, experiment.Range{From: from, To: experiment.Buckets})
	}
	s.Coverages = randomCoverages(r)
	switch r.IntN(8) {
	case 0:
		s.Experiment.State, s.Transitions = experiment.StateDraft, s.Transitions[:1]
	case 1:
		s = s.in(experiment.StatePaused, day(3))
	case 2:
		s = s.in(experiment.StateConcluded, day(3))
	case 3:
		s = s.in(experiment.StateConcluded, day(3))
		s.Experiment.ShippedVariant = "v1"
	}
	return s
}

func randomAttributes(r *rand.Rand) map[string]any {
	if r.IntN(5) == 0 {
		return nil
	}
	attributes := map[string]any{}
	for name, values := range map[string][]any{
		"country": {"PL", "DE", "FR", true, nil}, "age": {17.0, 18.0, 31.5, "31"}, "tags": {[]any{"a"}, []any{}, []any{1.0}, "a"},
	} {
		if i := r.IntN(len(values) + 1); i < len(values) {
			attributes[name] = values[i]
		}
	}
	return attributes
}

// TestAssignIsPure compares every decision with that of another catalog, which
// was compiled separately, in another order and one by one; with a second asking
// of the same subject; and with the explanation. Explanations must end with the
// gate that decided.
func TestAssignIsPure(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const n = 200
	histories := make([]history, n)
	compiled := make([]*Experiment, n)
	for i := range histories {
		histories[i] = randomHistory(r, fmt.Sprint("e-", i))
		compiled[n-1-i] = compile(t, histories[i])
	}
	one, other := catalogOf(t, histories...), NewCatalog(pepper).With(compiled...)
	deciding := map[Reason]GateKind{
		ReasonUnitMismatch: GateState, ReasonExternal: GateState, ReasonNotRunning: GateState, ReasonOverride: GateOverride,
		ReasonIneligible: GateEligibility, ReasonConcluded: GateHoldout, ReasonHoldout: GateHoldout, ReasonNoTraffic: GateTraffic, ReasonSplit: GateSplit,
	}
	seen := map[Reason]int{}
	for i := range 100 {
		attributes := randomAttributes(r)
		a := one.Subject("user", fmt.Sprint("u-", i), attributes, day(3))
		b := other.Subject("user", fmt.Sprint("u-", i), attributes, day(3))
		for _, s := range histories {
			key := s.Experiment.Key
			first := a.Assign(key)
			x := a.Explain(one.Experiment(key))
			for _, again := range []answer{answerOf(b.Assign(key)), answerOf(a.Assign(key)), answerOf(x.Decision)} {
				if diff := cmp.Diff(answerOf(first), again); diff != "" {
					t.Fatalf("u-%d, %+v: %s", i, s.Experiment, diff)
				}
			}
			last := x.Gates[len(x.Gates)-1]
			want := deciding[first.Reason]
			if want == GateTraffic && s.Experiment.Current.Definition.Layer != "" {
				want = GateLayer
			}
			if last.Kind != want || last.Passed != (first.Variant >= 0) {
				t.Fatalf("u-%d, %+v: reason %d, but the last gate is %+v", i, s.Experiment, first.Reason, last)
			}
			seen[first.Reason]++
		}
	}
	for reason := range deciding {
		if seen[reason] == 0 {
			t.Errorf("reason %d never came up", reason)
		}
	}
}
