package metric

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// A phase that moves subjects gives some of those of before another variant. What
// they do from then on is not that of the variant that they met first.
//
// Whom it moved is known by the bucket that their exposure kept, whether or not they
// came back, so that nothing which a treatment did chooses. They are left out of
// each metric whose window reaches past the move. Those who stay are kept, in strata
// of their own: left out alone, the moved would take the later subjects of one
// variant with them, and whatever changes in time would pass for an effect. In such
// a stratum both variants came in the same stretch of time. A subject whose window
// closed before the move stays where it was, so that no figure of an earlier day
// changes.

// laterPhases are the phases that follow one, as far as they began before the end
// of what counts.
type laterPhases struct {
	moves   []experiment.Phase
	dilutes []time.Time // When those began that dilute.
	parts   []int       // By the moves that are touched: the index of the part of segments; −1 if there is none.
}

// laterThan are the phases that follow one.
func (f *Fold) laterThan(number int32) (later laterPhases) {
	for _, p := range f.study.begun(f.asOf) {
		if p.Number <= number {
			continue
		}
		if p.Moves {
			later.moves = append(later.moves, p)
		}
		if p.Dilutes != "" {
			later.dilutes = append(later.dilutes, p.Start)
		}
	}
	later.parts = slices.Repeat([]int{-1}, len(later.moves)+1)
	return later
}

// begun are the phases after the first that began before the end of what an
// analysis of a moment counts.
func (s *Study) begun(asOf time.Time) []experiment.Phase {
	until := s.Until(asOf)
	i := slices.IndexFunc(s.conduct.Phases, func(p experiment.Phase) bool { return !p.Start.Before(until) })
	if i < 0 {
		return s.conduct.Phases
	}
	return s.conduct.Phases[:i]
}

// Moves are those of them that move subjects.
func (s *Study) Moves(asOf time.Time) (moves []experiment.Phase) {
	for _, p := range s.begun(asOf) {
		if p.Moves {
			moves = append(moves, p)
		}
	}
	return moves
}

// NeedsBuckets says whether an analysis of a moment must know the buckets of
// exposures.
func (s *Study) NeedsBuckets(asOf time.Time) bool {
	return slices.ContainsFunc(s.Moves(asOf), func(p experiment.Phase) bool { return !p.Reshuffled })
}

// reaches says whether what is counted of a subject reaches past a moment. Without
// a window it does past every one before the end of what counts.
func reaches(first time.Time, closes time.Duration, t time.Time) bool {
	return closes == 0 || first.Add(closes).After(t)
}

// touched is how many of the moves that follow its phase a subject's window reaches
// past: the first so many of them, as they are in the order of time.
func (f *Fold) touched(phase int, first time.Time, closes time.Duration) (n int32) {
	for _, p := range f.later[phase].moves {
		if !reaches(first, closes, p.Start) {
			break
		}
		n++
	}
	return n
}

// stays is how many of the moves that follow its phase leave a subject its variant,
// before the first that does not. One whose bucket is not known is taken to stay,
// but for a reshuffle: who stays then is not known of anybody, and nobody does.
func (f *Fold) stays(phase int, variant string, bucket *int32) (n int32) {
	for i := range f.later[phase].moves {
		p := &f.later[phase].moves[i]
		if p.Reshuffled || bucket != nil && p.VariantAt(*bucket) != variant {
			break
		}
		n++
	}
	return n
}

// notePhases counts a subject that counts for a metric among those of whom it is
// not known whether they stayed what they were.
func (f *Fold) notePhases(m int, row *Row) {
	if f.at.moves[m] > 0 && row.Bucket == nil {
		f.doubts[m].Unplaced++
	}
	for _, start := range f.later[f.at.phase].dilutes {
		if reaches(row.FirstExposure, f.study.metrics[m].entry.closes, start) {
			f.doubts[m].Diluted++
			return
		}
	}
}

// PhaseDoubts counts subjects that count for a metric, although it is not known
// whether they still got their variant once a later phase had begun.
type PhaseDoubts struct {
	// Unplaced are those past a move whose bucket is not known.
	Unplaced int64 `json:"unplaced,omitempty"`
	// Diluted are those past a phase that may leave subjects of before without
	// their variant.
	Diluted int64 `json:"diluted,omitempty"`
}

// moveWarnings say whom later phases moved, as far as it is known, each of that one
// of the first few metrics that it concerns most.
func (t *Tally) moveWarnings(metrics int) (warnings []string) {
	if m := mostOf(metrics, func(m int) int64 { return total(t.Metrics[m].LeftOut[Moved]) }); m >= 0 {
		warnings = append(warnings, t.movedWarning(m))
		if metrics > 1 {
			warnings[0] += " See left_out for the other metrics."
		}
	}
	if m := mostOf(metrics, func(m int) int64 { return t.Metrics[m].Doubts.Unplaced }); m >= 0 {
		warnings = append(warnings, fmt.Sprintf("%s followed for %s past a later phase that gives some subjects another variant, and kept, as it is not known which bucket they are in: their exposures were recorded before buckets were.",
			subjects(t.Metrics[m].Doubts.Unplaced), t.Metrics[m].Metric))
	}
	if m := mostOf(metrics, func(m int) int64 { return t.Metrics[m].Doubts.Diluted }); m >= 0 {
		n := t.Metrics[m].Doubts.Diluted
		warnings = append(warnings, fmt.Sprintf("%s followed for %s (%.3g%% of its subjects) past a later phase that %s: some of them may have got nothing or another variant since, which is not known, so they are kept, and an effect looks smaller than it is.",
			subjects(n), t.Metrics[m].Metric, 100*float64(n)/float64(t.Metrics[m].Whole.subjects()), strings.Join(t.Dilutions, " or ")))
	}
	return warnings
}

func (t *Tally) movedWarning(m int) string {
	var text string
	for _, left := range t.Metrics[m].describeLeftOut(t.Variants) {
		if left.Reason != Moved {
			continue
		}
		byVariant := make([]string, len(t.Variants))
		for v, name := range t.Variants {
			byVariant[v] = fmt.Sprintf("%d of %s", left.Subjects[name], name)
		}
		text = fmt.Sprintf("%s left out of %s (%.3g%%), as a later phase gave them another variant while they were followed, whether or not they came back: %s.",
			subjects(total(t.Metrics[m].LeftOut[Moved])), t.Metrics[m].Metric, 100*left.Share, strings.Join(byVariant, ", "))
	}
	if t.Reshuffled {
		text += " Past a reshuffle nobody is known to have stayed, and all are left out, of every variant."
	}
	return text
}

// mostOf is the one of the first few metrics of which there are most; −1 if there
// are none of any.
func mostOf(metrics int, n func(metric int) int64) int {
	most, which := int64(0), -1
	for m := range metrics {
		if k := n(m); k > most {
			most, which = k, m
		}
	}
	return which
}

func total(counts []int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}
