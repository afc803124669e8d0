package calibration

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"

	"gonum.org/v1/gonum/mathext"

	"github.com/assayhq/assay/internal/stats"
)

// Config is how much is simulated.
type Config struct {
	// Experiments of each kind, half of them with an effect.
	Experiments int
	// Subjects of both arms of an experiment.
	Subjects int
	// Share is the chance of a subject to be in the treatment, above 0 and below
	// 1. Corrections and the sample ratio are tried with one half all the same.
	Share float64
	Seed  uint64
}

// Rate is a share that was counted.
type Rate struct{ Count, Of int }

// Share is the counted share, 0 of nothing.
func (r Rate) Share() float64 { return float64(r.Count) / float64(max(r.Of, 1)) }

// Interval is the binomial interval at a level of Clopper and Pearson (1934), The
// use of confidence or fiducial limits illustrated in the case of the binomial.
func (r Rate) Interval(level float64) (lower, upper float64) {
	k, n := float64(r.Count), float64(r.Of)
	lower, upper = 0, 1
	if r.Count > 0 {
		lower = mathext.InvRegIncBeta(k, n-k+1, (1-level)/2)
	}
	if r.Count < r.Of {
		upper = mathext.InvRegIncBeta(k+1, n-k, (1+level)/2)
	}
	return lower, upper
}

// chance is how likely a count may be under what is promised to count as a broken
// promise: beyond the 99.9 % bound of the binomial distribution.
const chance = 0.001

// Above says whether the share is above a bound beyond chance: P(X ≥ k) is the
// regularised incomplete beta function I_p(k, n − k + 1).
func (r Rate) Above(bound float64) bool {
	return r.Count > 0 && mathext.RegIncBeta(float64(r.Count), float64(r.Of-r.Count)+1, bound) < chance
}

// Below says whether the share is below a bound beyond chance.
func (r Rate) Below(bound float64) bool { return r.missed().Above(1 - bound) }

// missed is the rest of what was counted.
func (r Rate) missed() Rate { return Rate{r.Of - r.Count, r.Of} }

// Row is what became of one method on one metric.
type Row struct {
	Metric     string
	Covariates bool // Whether the estimate was adjusted by them.
	Method     string
	Looks      Looks
	// Promise is what the method claims under these looks: nothing if it is empty.
	Promise Promise
	// FalsePositives counts, of the experiments without an effect, those that
	// were significant at some look. Where an effect is tried at the margin, it
	// counts those of the experiments with an effect, and the rest is empty.
	FalsePositives Rate
	// Coverage counts the experiments in which the interval held the true
	// difference at every look.
	Coverage Rate
	// Power counts, of those with an effect, those that some look found, on the
	// right side.
	Power Rate
	// Bias is how far the estimates of experiments with an effect lie above it
	// on average, as a share of it, at the look that found it or at the last; and
	// its standard error.
	Bias, BiasError float64
}

// Broken says whether the row breaks its promise beyond chance, and how.
func (r *Row) Broken() string {
	switch {
	case r.Promise.FalsePositives > 0 && r.FalsePositives.Above(r.Promise.FalsePositives):
		return "too many false positives"
	case r.Promise.Coverage > 0 && r.Coverage.Below(r.Promise.Coverage):
		return "too little coverage"
	}
	return ""
}

// Run simulates, and returns a row for every metric, without and with
// covariates, method and way of looking; and rows for the corrections of a family
// and the tests of the sample ratio, which have neither coverage nor bias.
func Run(ctx context.Context, c Config) ([]Row, error) {
	var rows []Row
	judges, err := judges(c.Subjects)
	if err != nil {
		return nil, err
	}
	for p := range populations {
		trials, err := c.trials(ctx, p, judges)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", populations[p].name, err)
		}
		for _, covariates := range []bool{false, true} {
			for j := range judges {
				rows = append(rows, summarise(p, covariates, j, &judges[j], trials))
			}
		}
	}
	for _, counts := range []func() ([]Row, error){c.families, c.sampleRatios} {
		more, err := counts()
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// trial is what the judges said of one experiment, without and with covariates.
type trial struct {
	truth    float64
	outcomes [2][]outcome
}

// outcome is what one judge said of it.
type outcome struct {
	found    bool // Some look was significant.
	positive bool // The first that was had an estimate above 0.
	covered  bool // Every interval held the truth.
	estimate float64
}

// trials simulates the experiments of one population, every other one with an
// effect. Each has a generator of its own.
func (c Config) trials(ctx context.Context, p int, judges []judge) ([]trial, error) {
	trials := make([]trial, c.Experiments)
	errs := make([]error, runtime.GOMAXPROCS(0))
	var workers sync.WaitGroup
	for w := range errs {
		workers.Go(func() {
			for i := w; i < len(trials) && errs[w] == nil && ctx.Err() == nil; i += len(errs) {
				rng := rand.New(rand.NewPCG(c.Seed, uint64(p)<<32|uint64(i)))
				trials[i], errs[w] = c.try(&populations[p], i%2 == 1, rng, judges)
			}
		})
	}
	workers.Wait()
	return trials, errors.Join(append(errs, ctx.Err())...)
}

// try simulates one experiment: subjects come one by one, each to an arm by
// chance, and whenever a judge wants to look, all that do see the same figures.
func (c Config) try(p *population, effect bool, rng *rand.Rand, judges []judge) (trial, error) {
	lift := 0.0
	if effect {
		lift = p.lift
	}
	t := trial{truth: p.value(lift) - p.value(0)}
	for adjusted := range t.outcomes {
		t.outcomes[adjusted] = make([]outcome, len(judges))
		for j := range judges {
			t.outcomes[adjusted][j].covered = true
		}
	}
	schedule := newSchedule(judges, c.Subjects)
	arms := [2]stats.Moments{stats.NewMoments(p.dim), stats.NewMoments(p.dim)}
	x := make([]float64, p.dim)
	for n := 1; n <= c.Subjects; n++ {
		arm := 0
		if rng.Float64() < c.Share {
			arm = 1
		}
		p.draw(rng, lift*float64(arm), x)
		arms[arm].Add(x)
		looking := schedule.looking(n)
		if len(looking) == 0 {
			continue
		}
		for _, j := range looking {
			if err := c.look(p, &judges[j], schedule.next[j], arms, n == c.Subjects, &t, j); err != nil {
				return t, err
			}
			schedule.next[j]++
		}
	}
	return t, nil
}

// look lets judge number j look once.
func (c Config) look(p *population, judge *judge, number int, arms [2]stats.Moments, last bool, t *trial, j int) error {
	request := stats.Request{
		Formula: p.formula, Covariates: p.covariates, Proportion: p.proportion,
		Arms: []stats.Arm{{Strata: arms[:1]}, {Strata: arms[1:]}}, Test: judge.test(number),
	}
	if judge.margin != nil {
		if t.truth == 0 {
			return nil
		}
		request.Margin.Value = judge.margin(t.truth)
	}
	result, err := stats.Compare(request)
	if err != nil {
		return err
	}
	pair := &result.Comparisons[0]
	for adjusted, comparison := range []*stats.Comparison{&pair.Unadjusted, pair.Adjusted} {
		if f, ok := judge.read(comparison); ok {
			t.outcomes[adjusted][j].see(&f, t.truth, last)
		}
	}
	return nil
}

// see takes in what one look found.
func (o *outcome) see(f *finding, truth float64, last bool) {
	o.covered = o.covered && f.holds(truth)
	if !o.found && (f.significant || last) {
		o.estimate = f.estimate
	}
	if !o.found && f.significant {
		o.found, o.positive = true, f.estimate > 0
	}
}

// schedule says which judges look when.
type schedule struct {
	at   [][]int // By judge.
	next []int   // By judge: the number of its next look.
}

func newSchedule(judges []judge, subjects int) *schedule {
	s := &schedule{next: make([]int, len(judges))}
	for _, j := range judges {
		s.at = append(s.at, j.looks.at(subjects))
	}
	return s
}

func (s *schedule) looking(n int) []int {
	var judges []int
	for j, at := range s.at {
		if at[s.next[j]] == n {
			judges = append(judges, j)
		}
	}
	return judges
}

// summarise counts what one judge said.
func summarise(p int, covariates bool, j int, judge *judge, trials []trial) Row {
	row := Row{Metric: populations[p].name, Covariates: covariates, Method: judge.method, Looks: judge.looks}
	if judge.promised {
		row.Promise = populations[p].promise
	}
	adjusted := 0
	if covariates {
		adjusted = 1
	}
	var misses []float64
	for i := range trials {
		t := &trials[i]
		o := &t.outcomes[adjusted][j]
		if judge.margin != nil {
			if t.truth != 0 {
				row.FalsePositives.add(o.found)
			}
			continue
		}
		row.Coverage.add(o.covered)
		if t.truth == 0 {
			row.FalsePositives.add(o.found)
			continue
		}
		row.Power.add(o.found && o.positive)
		misses = append(misses, o.estimate/t.truth-1)
	}
	moments := stats.NewMoments(1)
	for _, e := range misses {
		moments.Add([]float64{e})
	}
	if variance, ok := moments.Covariance(0, 0); ok {
		row.Bias, _ = moments.Mean(0)
		row.BiasError = math.Sqrt(variance / float64(moments.N))
	}
	return row
}

func (r *Rate) add(yes bool) {
	r.Of++
	if yes {
		r.Count++
	}
}
