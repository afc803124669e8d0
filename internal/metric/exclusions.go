package metric

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// ExclusionReason is why exposed subjects are not, or not wholly, what an analysis
// tells of.
type ExclusionReason string

// The reasons.
const (
	// ExclusionCrossover is of subjects seen in two variants of one phase, or where they
	// are assigned elsewhere in two at all.
	ExclusionCrossover ExclusionReason = "crossover"
	// ExclusionOverridden is of subjects that were pinned to a variant at some time.
	ExclusionOverridden ExclusionReason = "overridden"
	// ExclusionUnknownVariant is of subjects seen in a variant that the definition
	// does not have.
	ExclusionUnknownVariant ExclusionReason = "unknown_variant"
	// ExclusionRemovedVariant is of subjects first seen in a variant that was removed.
	// They say nothing against those of the others, however many they are.
	ExclusionRemovedVariant ExclusionReason = "removed_variant"
	// ExclusionOutcomesDropped is of subjects who are analysed although outcomes of
	// theirs may have been dropped since: what is missing is taken for none.
	ExclusionOutcomesDropped ExclusionReason = "outcomes_dropped"
)

// exclusionReasons are all, in the order in which they are told.
var exclusionReasons = []ExclusionReason{ExclusionCrossover, ExclusionOverridden, ExclusionUnknownVariant, ExclusionRemovedVariant, ExclusionOutcomesDropped}

// Excluded counts subjects of one reason by where they were first exposed.
type Excluded struct {
	Reason  ExclusionReason `json:"reason"`
	Phase   int32           `json:"phase"`
	Variant string          `json:"variant"`
	// Beforehand says that they were pinned before they were exposed, so that the
	// split has no part in their first variant.
	Beforehand bool `json:"beforehand,omitempty"`
	// Tied says that they were first exposed to several variants at one moment: which
	// came first is not known, and Variant is the first by name.
	Tied     bool  `json:"tied,omitempty"`
	Subjects int64 `json:"subjects"`
}

// Exclusion is what an analysis says of one reason.
type Exclusion struct {
	Reason    ExclusionReason
	Subjects  int64
	Share     float64 // Of all that were exposed.
	ByVariant map[string]int64
	PValue    *float64 // Of the first variants against the split.
	Notes     []string
	elsewhere bool // Whether the variants are assigned elsewhere.
}

// mostExcluded is the share of exposed subjects that may be excluded for one reason
// while there is a verdict. Those who are left out need not be like the others, and
// the effect on them is not in the estimate: at 2 % what they might hide is as small
// as most effects that are looked for.
const mostExcluded = 0.02

// exclude counts a subject that is excluded.
func (f *Fold) exclude(reason ExclusionReason, row *Row) {
	f.excluded[Excluded{Reason: reason, Phase: row.Phase, Variant: string(row.Variant), Tied: row.Tied}]++
}

// excludedSubjects lays out what exclude counted.
func (f *Fold) excludedSubjects() []Excluded {
	var all []Excluded
	for e, n := range f.excluded {
		e.Subjects = n
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Excluded) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Phase, b.Phase), cmp.Compare(a.Variant, b.Variant), cmp.Compare(ordinal(a.Tied), ordinal(b.Tied)))
	})
	return all
}

// ordinal is 1 of what is true.
func ordinal(b bool) int {
	if b {
		return 1
	}
	return 0
}

// excludedFor counts the subjects of one reason. The first tallies had counts alone.
func (t *Tally) excludedFor(reason ExclusionReason) (n int64) {
	switch reason {
	case ExclusionCrossover:
		return t.Crossovers
	case ExclusionUnknownVariant:
		return t.UnknownVariants
	case ExclusionOutcomesDropped:
		return t.Cut
	}
	for i := range t.Excluded {
		if t.Excluded[i].Reason == reason {
			n += t.Excluded[i].Subjects
		}
	}
	return n
}

// exclusions tells of every reason for which there are subjects.
func (s *Study) exclusions(t *Tally, shares map[int32][]float64) (Exclusions, error) {
	all := Exclusions{Crossovers: t.Crossovers, Overridden: t.excludedFor(ExclusionOverridden)}
	exposed := t.UnknownVariants + all.Crossovers + all.Overridden + t.excludedFor(ExclusionRemovedVariant)
	for _, phase := range t.Subjects {
		for _, n := range phase {
			exposed += n
		}
	}
	for _, reason := range exclusionReasons {
		e, err := t.exclusion(reason, shares)
		if err != nil {
			return all, err
		}
		if e.Subjects > 0 {
			e.Share, e.elsewhere = float64(e.Subjects)/float64(exposed), s.AssignedElsewhere()
			all.ByReason = append(all.ByReason, e)
		}
	}
	return all, nil
}

// exclusion is all of a reason but its share. The first variants of the subjects are
// held against the split as those of the analysed ones are: who is left out must not
// depend on the variant.
func (t *Tally) exclusion(reason ExclusionReason, shares map[int32][]float64) (Exclusion, error) {
	e := Exclusion{Reason: reason, Subjects: t.excludedFor(reason), ByVariant: map[string]int64{}}
	first := Tally{Variants: t.Variants}
	beforehand, tied := int64(0), int64(0)
	for i := range t.Excluded {
		x := &t.Excluded[i]
		if x.Reason != reason {
			continue
		}
		e.ByVariant[x.Variant] += x.Subjects
		v := slices.Index(t.Variants, x.Variant)
		switch {
		case x.Beforehand:
			beforehand += x.Subjects
		case x.Tied:
			tied += x.Subjects
		case v >= 0 && len(shares[x.Phase]) == len(t.Variants):
			p := slices.Index(first.Phases, x.Phase)
			if p < 0 {
				p = len(first.Phases)
				first.Phases, first.Subjects = append(first.Phases, x.Phase), append(first.Subjects, make([]int64, len(t.Variants)))
			}
			first.Subjects[p][v] += x.Subjects
		}
	}
	if beforehand > 0 {
		e.Notes = append(e.Notes, fmt.Sprintf("%s pinned before the first exposure: their first variant is that of the pin, and does not count in the p-value.", subjects(beforehand)))
	}
	if tied > 0 {
		e.Notes = append(e.Notes, fmt.Sprintf("%s first exposed to several variants at one moment: which came first is not known, they stand by that whose key is first, and do not count in the p-value.", subjects(tied)))
	}
	ratio, err := first.ratioOf(first.Subjects, shares)
	switch {
	case err != nil:
		return e, err
	case len(first.Phases) == 0 && beforehand+tied == e.Subjects:
	case len(first.Phases) == 0:
		e.Notes = append(e.Notes, "The split gave these subjects no variant that their first one could be held against: no p-value.")
	case ratio.Verdict == SampleRatioTooFew:
		e.Notes = append(e.Notes, "There are too few of these subjects to hold their first variants against the split: no p-value.")
	default:
		e.PValue = ratio.PValue
	}
	return e, nil
}

// withheld says why an exclusion withholds the verdict; it is empty if it does not.
func (e *Exclusion) withheld() string {
	switch {
	case e.Reason == ExclusionRemovedVariant:
	case e.Share > mostExcluded:
		return fmt.Sprintf("%s: %.3g%% of all that were exposed, and more than %.3g%% withhold the verdict.", e.sentence(), 100*e.Share, 100*mostExcluded)
	case e.PValue != nil && *e.PValue < mismatch && e.Reason != ExclusionOutcomesDropped:
		return fmt.Sprintf("%s: their first variants (%s) are not as the split expects (p = %.3g), so that who is left out depends on the variant.", e.sentence(), e.byVariant(), *e.PValue)
	}
	return ""
}

// sentence begins a sentence about the subjects.
func (e *Exclusion) sentence() string {
	if e.Reason == ExclusionCrossover && e.elsewhere {
		return subjects(e.Subjects) + " seen in more than one variant, and left out"
	}
	return subjects(e.Subjects) + " " + map[ExclusionReason]string{
		ExclusionCrossover:       "seen in more than one variant of a phase, and left out",
		ExclusionOverridden:      "pinned to a variant at some time, and left out",
		ExclusionUnknownVariant:  "seen in a variant that the experiment does not have, and left out",
		ExclusionRemovedVariant:  "first seen in a variant that has been removed since, and left out",
		ExclusionOutcomesDropped: "exposed, or have covariates from, before what is still kept of outcomes, and their lack counts as none",
	}[e.Reason]
}

// byVariant lists the subjects by first variant.
func (e *Exclusion) byVariant() string {
	var parts []string
	for variant, n := range e.ByVariant {
		parts = append(parts, fmt.Sprintf("%s %d", variant, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// warning tells of an exclusion.
func (e *Exclusion) warning() string {
	return fmt.Sprintf("%s: %.3g%% of all that were exposed, by first variant %s.", e.sentence(), 100*e.Share, e.byVariant())
}
