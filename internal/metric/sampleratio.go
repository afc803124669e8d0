package metric

import (
	"fmt"
	"slices"

	"github.com/assayhq/assay/internal/stats"
)

// mismatch is the p-value below which a sample ratio counts as broken. It is
// small because the test is looked at with every analysis, and because a split
// that is really broken shows up with far smaller ones.
const mismatch = 0.001

// sampleRatio tests the number of subjects by variant against the split, phase
// by phase. A phase with too few subjects to be tested does not keep the others
// from being tested.
func sampleRatio(t *Tally, shares map[int32][]float64) (SampleRatio, error) {
	ratio := SampleRatio{Observed: map[string]int64{}, Expected: map[string]float64{}}
	for _, v := range t.Variants {
		ratio.Observed[v], ratio.Expected[v] = 0, 0
	}
	var all, testable []stats.Split
	for p, phase := range t.Phases {
		split := stats.Split{Observed: t.Subjects[p], Weights: shares[phase]}
		if len(split.Weights) != len(t.Variants) {
			return ratio, fmt.Errorf("phase %d has %d shares for %d variants", phase, len(split.Weights), len(t.Variants))
		}
		if !slices.ContainsFunc(split.Weights, func(w float64) bool { return w > 0 }) {
			continue // The variants of that phase have been removed since: nothing was expected of these.
		}
		all = append(all, split)
		alone, err := stats.CheckSampleRatio(split)
		if err != nil {
			return ratio, err
		}
		if !alone.TooFew || impossible(&alone) {
			testable = append(testable, split)
		}
		for v, variant := range t.Variants {
			ratio.Observed[variant] += split.Observed[v]
			ratio.Expected[variant] += alone.Expected[0][v]
		}
	}
	if len(testable) == 0 {
		testable = all
	}
	test, err := stats.CheckSampleRatio(testable...)
	if err != nil {
		return ratio, err
	}
	ratio.PValue = test.PValue
	switch {
	case impossible(&test):
		ratio.Verdict = SampleRatioMismatch
	case test.PValue == nil || test.TooFew:
		ratio.Verdict = SampleRatioTooFew
	case *test.PValue < mismatch:
		ratio.Verdict = SampleRatioMismatch
	default:
		ratio.Verdict = SampleRatioOK
	}
	return ratio, nil
}

// impossible tells whether no chance can bring the counts about, however few
// they are: a variant without a share has subjects, say.
func impossible(test *stats.SampleRatio) bool {
	return test.PValue != nil && *test.PValue == 0
}
