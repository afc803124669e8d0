package metric

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// Conduct is how an experiment or a holdout was conducted, as far as it decides
// which outcomes are those of the variant that a subject met first. The zero value
// is one that goes on as it began. It tells all that is known: what came after the
// moment of an analysis does not count in it.
type Conduct struct {
	// End is when counting ends for every variant: at the conclusion, from which on
	// subjects get what was shipped or nothing, or when a holdout lets its subjects
	// go. Zero while it goes on.
	End time.Time
	// Pauses are the stretches in which nobody was served, rising and disjoint.
	Pauses []Stretch
	// ExcludePauses leaves out what happened in the pauses, of all variants alike.
	ExcludePauses bool
	// Phases are those after the first, by number.
	Phases []experiment.Phase
	// Removed are variants that it had in some phase and that the definition need not
	// have. The others are still randomised against each other.
	Removed []string
}

// Stretch is a stretch of time, its end exclusive; zero means that it goes on.
type Stretch struct{ From, To time.Time }

// ConductOf is how an experiment was conducted, by its phases and its changes of
// state in the order of time.
func ConductOf(e *experiment.Experiment, phases []experiment.Phase, transitions []experiment.Transition) Conduct {
	c := Conduct{End: e.ConcludeTime, Phases: phases}
	for i, t := range transitions {
		if t.State != experiment.StatePaused {
			continue
		}
		pause := Stretch{From: t.Time}
		if i+1 < len(transitions) {
			pause.To = transitions[i+1].Time
		}
		c.Pauses = append(c.Pauses, pause)
	}
	return c
}

// Conducted returns the study of an experiment that was conducted so.
func (s *Study) Conducted(c Conduct) *Study {
	conducted := *s
	conducted.conduct = c
	return &conducted
}

// CountingEnd is when counting had ended by the moment of an analysis: outcomes
// from then on do not count. Zero if it had not.
func (s *Study) CountingEnd(asOf time.Time) time.Time {
	if end := s.conduct.End; !end.After(asOf) {
		return end
	}
	return time.Time{}
}

// Until is the moment up to which subjects are followed: that of the analysis, or
// the end of counting.
func (s *Study) Until(asOf time.Time) time.Time {
	if end := s.CountingEnd(asOf); !end.IsZero() {
		return end
	}
	return asOf
}

// pauses are those that had begun before the end of what an analysis counts. One
// that went on then has no end.
func (s *Study) pauses(asOf time.Time) []Stretch {
	until := s.Until(asOf)
	var pauses []Stretch
	for _, p := range s.conduct.Pauses {
		if !p.From.Before(until) {
			break
		}
		if p.To.After(until) {
			p.To = time.Time{}
		}
		pauses = append(pauses, p)
	}
	return pauses
}

// ExcludedPauses are the pauses in which outcomes after exposure do not count in an
// analysis of a moment.
func (s *Study) ExcludedPauses(asOf time.Time) []Stretch {
	if !s.conduct.ExcludePauses {
		return nil
	}
	return s.pauses(asOf)
}

// overlap is how much of the time from one moment to another lies in a stretch.
func (s Stretch) overlap(from, to time.Time) time.Duration {
	if s.From.After(from) {
		from = s.From
	}
	if !s.To.IsZero() && s.To.Before(to) {
		to = s.To
	}
	return max(0, to.Sub(from))
}

// windowClosed says whether all is known of what a subject did in a window after
// exposure. Without a window that is so at any time, but nothing is ever known of
// one who came once counting had ended.
func (f *Fold) windowClosed(row *Row, closes time.Duration) bool {
	if closes == 0 {
		return f.until.Equal(f.asOf) || row.FirstExposure.Before(f.until)
	}
	return !row.FirstExposure.Add(closes).After(f.until) &&
		!(f.OnlyKnown && row.KnownExposure.Add(closes).After(f.known))
}

// follow adds up how long a subject is followed for a metric, and how much of that
// lies in pauses.
func (f *Fold) follow(m int, row *Row) {
	if f.followed == nil {
		return
	}
	end := f.until
	if closes := f.study.metrics[m].entry.closes; closes > 0 {
		end = row.FirstExposure.Add(closes)
	}
	f.followed[m].Milliseconds += max(0, end.Sub(row.FirstExposure)).Milliseconds()
	for _, p := range f.pauses {
		f.followed[m].Paused += p.overlap(row.FirstExposure, end).Milliseconds()
	}
}

// leastPaused is the share of the follow-up from which on pauses are told of: what lies
// in less cannot change an effect by more than some thousandths of it.
const leastPaused = 0.001

// conductWarnings say what an analysis does not count for the way in which the
// experiment was conducted, and what that does to the figures.
func (s *Study) conductWarnings(t *Tally, a *Analysis) []string {
	warnings := countingEnded(t)
	if !t.CountingEnd.IsZero() {
		intervals := "its intervals hold only if the stop was planned"
		if len(a.Metrics) > 0 && (a.Metrics[0].PeekingProtected || s.definition.Plan.Method == experiment.MethodGroupSequential && !s.decidesOnce()) {
			intervals = "its intervals hold all the same"
		}
		warnings = append(warnings, fmt.Sprintf("If it was stopped for what its figures said, they make the effect look larger on average than it is; %s.", intervals))
	}
	if a.PausedShare >= leastPaused {
		most := slices.MaxFunc(a.Metrics, func(x, y Result) int { return cmp.Compare(x.PausedShare, y.PausedShare) })
		warnings = append(warnings, s.pausedWarning(most.Metric, most.PausedShare, a.Pauses))
	}
	return append(warnings, t.moveWarnings(len(t.Metrics))...)
}

// countingEnded says that counting ended.
func countingEnded(t *Tally) []string {
	if t.CountingEnd.IsZero() {
		return nil
	}
	return []string{fmt.Sprintf("Counting ended at %s: from then on subjects no longer got what the experiment gives them, and what they did does not count, for any variant; corrections of what they did before still do.",
		t.CountingEnd.UTC().Format(time.RFC3339))}
}

// pausedWarning says how much of what a metric counts lies in pauses.
func (s *Study) pausedWarning(metric string, share float64, pauses int) string {
	text := fmt.Sprintf("%.3g%% of the time in which subjects are followed for %s lies in %s of the experiment, when nobody was served: ",
		100*share, metric, plural(pauses, "pause"))
	if s.conduct.ExcludePauses {
		return text + "what happened in it is left out, of all variants alike; corrections count where what they correct does."
	}
	return text + "that finds no effect where there is none, but makes one look smaller than it is. `exclude_pauses` leaves out what happened in them."
}

// notCounted begins a sentence about subjects whose window was open.
func notCounted(n int64, t *Tally) string {
	if t.CountingEnd.IsZero() {
		return subjects(n) + " not counted yet"
	}
	return subjects(n) + " not counted"
}

// openWindow is why they are not counted.
func openWindow(t *Tally) string {
	if t.CountingEnd.IsZero() {
		return "the window after exposure is still open"
	}
	return "the window after exposure was still open when counting ended"
}

// plural is a number of things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
