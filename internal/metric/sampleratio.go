package metric

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/assayhq/assay/internal/stats"
)

const (
	// mismatch is the p-value below which a sample ratio counts as broken: as a
	// whole, by the chi-square test or by the sequential one, or corrected in a cell.
	// It is small because the tests are looked at with every analysis, and because a
	// split that is really broken shows up with far smaller ones. The sequential test
	// would need no such reserve; the chi-square test finds a mismatch with fewer
	// subjects, and in its first days.
	mismatch = 0.001
	// maxBrokenCells is how many broken cells are listed.
	maxBrokenCells = 100
)

// sampleRatio tests the number of subjects by variant against the split, as a
// whole, from day to day, and where it breaks: among others in the planned segments.
func sampleRatio(t *Tally, planned []string, shares map[int32][]float64) (SampleRatio, error) {
	ratio, err := t.ratioOf(t.Subjects, shares)
	if err != nil {
		return ratio, err
	}
	if ratio.SequentialPValue, err = t.sequentialRatio(shares); err != nil {
		return ratio, err
	}
	if ratio.SequentialPValue == nil {
		ratio.Notes = append(ratio.Notes, "Without subjects there is no sequential p-value.")
	}
	ratio.BrokenCells, err = t.brokenCells(planned, shares)
	if len(ratio.BrokenCells) > 0 && !ratio.BrokenCells[0].Unplanned || ratio.SequentialPValue != nil && *ratio.SequentialPValue < mismatch {
		ratio.Verdict = SampleRatioMismatch
	}
	return ratio, err
}

// broken says by what a sample ratio is broken that is.
func (r *SampleRatio) broken() string {
	switch {
	case *r.PValue < mismatch:
		return fmt.Sprintf("p = %.3g", *r.PValue)
	case *r.SequentialPValue < mismatch:
		return fmt.Sprintf("p = %.3g as a whole, but the sequential test once had p = %.3g", *r.PValue, *r.SequentialPValue)
	}
	return fmt.Sprintf("p = %.3g as a whole, but %.3g, corrected, in a part", *r.PValue, *r.BrokenCells[0].AdjustedPValue)
}

// ratioOf tests the number of subjects by phase and variant against the split,
// phase by phase. A phase with too few subjects to be tested does not keep the
// others from being tested.
func (t *Tally) ratioOf(subjects [][]int64, shares map[int32][]float64) (SampleRatio, error) {
	ratio := SampleRatio{Observed: map[string]int64{}, Expected: map[string]float64{}}
	for _, v := range t.Variants {
		ratio.Observed[v], ratio.Expected[v] = 0, 0
	}
	all, err := t.splits(subjects, shares)
	if err != nil {
		return ratio, err
	}
	var testable []stats.Split
	for _, split := range all {
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
	ratio.judge(&test)
	return ratio, nil
}

// splits are the subjects of each phase beside the shares that its variants
// were due. A phase whose variants have all been removed since is left out:
// nothing was expected of its subjects.
func (t *Tally) splits(subjects [][]int64, shares map[int32][]float64) ([]stats.Split, error) {
	var splits []stats.Split
	for p, phase := range t.Phases {
		split := stats.Split{Observed: subjects[p], Weights: shares[phase]}
		if len(split.Weights) != len(t.Variants) {
			return nil, fmt.Errorf("phase %d has %d shares for %d variants", phase, len(split.Weights), len(t.Variants))
		}
		if slices.ContainsFunc(split.Weights, func(w float64) bool { return w > 0 }) {
			splits = append(splits, split)
		}
	}
	return splits, nil
}

// judge takes over the test's p-value, and draws the verdict.
func (r *SampleRatio) judge(test *stats.SampleRatio) {
	r.PValue = test.PValue
	if test.Note != "" {
		r.Notes = append(r.Notes, test.Note)
	}
	if test.PValue != nil && test.TooFew {
		r.Notes = append(r.Notes, "No two groups of variants expect 5 subjects each: the p-value is rough, and no verdict follows from it.")
	}
	switch {
	case impossible(test):
		r.Verdict = SampleRatioMismatch
	case test.PValue == nil || test.TooFew:
		r.Verdict = SampleRatioTooFew
	case *test.PValue < mismatch:
		r.Verdict = SampleRatioMismatch
	default:
		r.Verdict = SampleRatioOK
	}
}

// impossible tells whether no chance can bring the counts about, however few
// they are: a variant without a share has subjects, say.
func impossible(test *stats.SampleRatio) bool {
	return test.PValue != nil && *test.PValue == 0
}

// sequentialRatio is the smallest p-value of the sequential test at the ends of
// all days, by the days of first exposure, and at the end of all.
func (t *Tally) sequentialRatio(shares map[int32][]float64) (*float64, error) {
	splits, err := t.splits(t.Subjects, shares)
	if err != nil {
		return nil, err
	}
	smallest, err := stats.SequentialSampleRatio(splits...)
	if err != nil {
		return nil, err
	}
	subjects := t.noSubjects()
	for i, day := range t.Exposed {
		t.count(subjects, day)
		if i+1 < len(t.Exposed) && t.Exposed[i+1].Day == day.Day {
			continue
		}
		if splits, err = t.splits(subjects, shares); err != nil {
			return nil, err
		}
		p, err := stats.SequentialSampleRatio(splits...)
		if err != nil {
			return nil, err
		}
		if p != nil && *p < *smallest {
			smallest = p
		}
	}
	return smallest, nil
}

// noSubjects is a count of none by phase and variant.
func (t *Tally) noSubjects() [][]int64 {
	subjects := make([][]int64, len(t.Phases))
	for p := range subjects {
		subjects[p] = make([]int64, len(t.Variants))
	}
	return subjects
}

// count adds the subjects of a day.
func (t *Tally) count(subjects [][]int64, day ExposedDay) {
	p := slices.Index(t.Phases, day.Phase)
	for v, n := range day.Subjects {
		subjects[p][v] += n
	}
}

// brokenCells are the segments and days in which the ratio is broken, worst
// first. Those with too few subjects are not tested. Segments that the plan does not
// name are a family of their own, which comes last: whoever asks for them can neither
// hide a mismatch nor bring one about.
func (t *Tally) brokenCells(planned []string, shares map[int32][]float64) ([]SampleRatioCell, error) {
	var cells, unplanned []SampleRatioCell
	test := func(attribute, value string, subjects [][]int64) error {
		ratio, err := t.ratioOf(subjects, shares)
		if err != nil || ratio.Verdict == SampleRatioTooFew {
			return err
		}
		cell := SampleRatioCell{Attribute: attribute, Value: value, Observed: ratio.Observed, Expected: ratio.Expected, PValue: ratio.PValue, Notes: ratio.Notes}
		if cell.Unplanned = attribute != "" && !slices.Contains(planned, attribute); cell.Unplanned {
			cell.Notes = append(cell.Notes, "The plan does not name this segment: the verdict does not rest on it.")
			unplanned = append(unplanned, cell)
		} else {
			cells = append(cells, cell)
		}
		return nil
	}
	for _, segment := range slices.Concat(t.Segments, t.Counted) {
		for i, value := range segment.Values {
			if segment.Rest && i == len(segment.Values)-1 {
				break // All other values together are no cell that could be named.
			}
			if err := test(segment.Attribute, value, segment.Subjects[i]); err != nil {
				return nil, err
			}
		}
	}
	for i := 0; i < len(t.Exposed); {
		day, subjects := t.Exposed[i].Day, t.noSubjects()
		for ; i < len(t.Exposed) && t.Exposed[i].Day == day; i++ {
			t.count(subjects, t.Exposed[i])
		}
		if err := test("", dateOf(day).Format(time.DateOnly), subjects); err != nil {
			return nil, err
		}
	}
	var broken []SampleRatioCell
	for _, family := range [][]SampleRatioCell{cells, unplanned} {
		if err := holm(family, func(c *SampleRatioCell) (*float64, **float64) { return c.PValue, &c.AdjustedPValue }); err != nil {
			return nil, err
		}
		family = slices.DeleteFunc(family, func(c SampleRatioCell) bool { return *c.AdjustedPValue >= mismatch })
		slices.SortStableFunc(family, func(a, b SampleRatioCell) int { return cmp.Compare(*a.PValue, *b.PValue) })
		broken = append(broken, family...)
	}
	return broken[:min(len(broken), maxBrokenCells)], nil
}

// unplannedBroken are those of the broken cells on which no verdict rests.
func (r *SampleRatio) unplannedBroken() []SampleRatioCell {
	i := slices.IndexFunc(r.BrokenCells, func(c SampleRatioCell) bool { return c.Unplanned })
	if i < 0 {
		return nil
	}
	return r.BrokenCells[i:]
}
