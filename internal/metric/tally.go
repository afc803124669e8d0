package metric

import (
	"time"

	"github.com/assayhq/assay/internal/stats"
)

// Row is what a query knows of one subject. The caller may use its slices
// again after Add.
type Row struct {
	// Variant is the key of the variant that the subject met.
	Variant []byte
	// Phase is the phase of its first exposure.
	Phase         int32
	FirstExposure time.Time
	// Bucket is that of the split in its first phase; nil if it is not known, or the
	// study does not need it.
	Bucket *int32
	// KnownExposure is the first exposure as known at the study's earlier moment;
	// zero if none was, or the study has no such moment.
	KnownExposure time.Time
	// Crossover says that it was seen in two variants of one phase, or where they are
	// assigned elsewhere in two at all.
	Crossover bool
	// Tied says that two of them were met at the moment of the first exposure, so that
	// which of them came first is not known: Variant is the first by name.
	Tied bool
	// Ahead says that the first exposure is of later than when it was recorded, by more
	// than ClockAhead.
	Ahead bool
	// Segments holds the text of each of the study's segments at first
	// exposure. Nil and empty are the same: the subject lacks the attribute.
	Segments [][]byte
	// Stratum holds the text of the study's stratum at first exposure, if it has
	// one. Nil and empty are the same: the subject lacks the attribute.
	Stratum []byte
	// AttributeNumbers holds each of the study's attributes at first exposure;
	// NaN if it is missing or no number.
	AttributeNumbers []float64
	// Values holds the number of each of the study's columns, all finite but for NaN
	// where the subject lacks one that is optional.
	Values []float64
}

// Tally is all that an analysis needs to know of the subjects. Its JSON form
// is how it is stored with an analysis.
type Tally struct {
	Variants []string `json:"variants"` // As in the definition.
	Phases   []int32  `json:"phases"`   // Those with subjects, rising.
	// Subjects counts by phase and variant those that were analysed, whatever
	// their windows.
	Subjects [][]int64 `json:"subjects"`
	// Exposed counts the same by day of first exposure, too. Rising by day.
	Exposed []ExposedDay `json:"exposed,omitempty"`
	// Strata are what all subjects are cut into.
	Strata []Stratum `json:"strata"`
	// Parts are what segments are cut into: the phases alone if there are none.
	Parts []Stratum `json:"parts,omitempty"`
	// StratumLimit is positive if the plan's attribute has more values than this
	// many, so that strata are phases alone.
	StratumLimit int `json:"stratum_limit,omitempty"`
	// Crossovers counts the subjects that were left out because they were seen
	// in two variants of one phase, or where they are assigned elsewhere in two at all.
	Crossovers int64 `json:"crossovers,omitempty"`
	// UnknownVariants counts the subjects that were left out because the
	// definition has no such variant.
	UnknownVariants int64 `json:"unknown_variants,omitempty"`
	// Ahead counts the analysed subjects whose first exposure was timed by a clock that
	// is ahead.
	Ahead int64 `json:"ahead,omitempty"`
	// Excluded counts the same, with those below, by first variant; and, which a fold
	// does not know, the subjects that were ever pinned.
	Excluded []Excluded `json:"excluded,omitempty"`
	// Cut counts the analysed subjects that were exposed, or whose covariates
	// begin, before KeptFrom: outcomes before it have been dropped.
	Cut      int64     `json:"cut,omitempty"`
	KeptFrom time.Time `json:"kept_from,omitzero"`
	// CountingEnd is when counting had ended, by the conclusion or the end of a
	// holdout; zero if it had not.
	CountingEnd time.Time `json:"counting_end,omitzero"`
	// Pauses counts those that had begun before the end of what counts.
	Pauses int `json:"pauses,omitempty"`
	// Reshuffled says that subjects were left out as a later phase splits all anew,
	// and Dilutions is what later phases did that may leave subjects without their
	// variant.
	Reshuffled bool     `json:"reshuffled,omitempty"`
	Dilutions  []string `json:"dilutions,omitempty"`
	// DeadPasts are those that covariates look into and nobody had outcomes in. None
	// in tallies from before they were accounted for.
	DeadPasts []DeadPast      `json:"dead_pasts,omitempty"`
	Metrics   []MetricTally   `json:"metrics"`
	Segments  []SegmentValues `json:"segments,omitempty"`
	// Counted holds the subjects of the plan's other segments, which have no moments.
	Counted []SegmentValues `json:"counted,omitempty"`
}

// MetricTally is one metric's part of a tally, in the study's order.
type MetricTally struct {
	Metric   string `json:"metric"`
	Revision int32  `json:"revision"`
	// OpenWindows counts the subjects whose window was still open.
	OpenWindows int64 `json:"open_windows,omitempty"`
	// Doubts counts those that count, although a later phase may have moved them.
	Doubts PhaseDoubts `json:"doubts,omitzero"`
	// FollowUp is how long the subjects that count were followed; nothing if the
	// experiment was never paused.
	FollowUp FollowUp `json:"follow_up,omitzero"`
	// LeftOut counts, by variant, the other subjects that were analysed and do not
	// count for the metric.
	LeftOut map[LeftOutReason][]int64 `json:"left_out,omitempty"`
	// Outcomes is what became of the outcomes that the metric is of, by name. Nothing
	// in tallies from before they were accounted for.
	Outcomes []OutcomeUse `json:"outcomes,omitempty"`
	// Caps is what was capped, in the order of the components.
	Caps []CapTally `json:"caps,omitempty"`
	// Sizes is how the numbers of each formula component add up, by variant and
	// component; empty before it was counted.
	Sizes [][]Size `json:"sizes,omitempty"`
	// Whole holds the moments of all subjects, by variant and stratum. Covariates
	// that may be missing are counted from the first number that came.
	Whole Arms `json:"whole"`
	// Days holds the same by the day on which the subjects entered, rising, for
	// metrics of which that is asked. It is not stored: it is many times the
	// rest.
	Days []Day `json:"-"`
	// Weeks holds the same by the calendar week, each with its own subjects alone,
	// as the caps at the moment leave them.
	Weeks []Day `json:"-"`
	// Segments holds the moments of each value of each segment, in the order
	// of Tally.Segments, by variant and part.
	Segments [][]Arms `json:"segments,omitempty"`
}

// FollowUp is the time of all subjects together from their first exposure to the
// end of their window, or to the end of what counts without one.
type FollowUp struct {
	Milliseconds int64 `json:"milliseconds,omitempty"`
	Paused       int64 `json:"paused,omitempty"` // The part of it in pauses.
}

// pausedShare is the part of the follow-up in pauses; 0 without any.
func (f FollowUp) pausedShare() float64 {
	if f.Milliseconds == 0 {
		return 0
	}
	return float64(f.Paused) / float64(f.Milliseconds)
}

// ExposedDay is the subjects of one phase whose first exposure was on one UTC
// day.
type ExposedDay struct {
	Day      int32   `json:"day"` // Counted from 1970.
	Phase    int32   `json:"phase"`
	Subjects []int64 `json:"subjects"` // By variant.
}

// CapTally is what a cap did to a component.
type CapTally struct {
	Component string   `json:"component"`
	Lower     *float64 `json:"lower,omitempty"`   // Smaller numbers were raised to it.
	Upper     *float64 `json:"upper,omitempty"`   // Larger ones were lowered to it.
	Raised    int64    `json:"raised,omitempty"`  // Subjects.
	Lowered   int64    `json:"lowered,omitempty"` // Subjects.
}

// Stratum is a part of the subjects in which variants are compared like with
// like: a phase, the moves that they lived through, and a value of the attribute
// that the plan stratifies by.
type Stratum struct {
	Phase int32  `json:"phase"`
	Value string `json:"value,omitempty"` // Empty text: lacks it, or no attribute.
	// Moves is how many of the later phases that move subjects the windows of these
	// reach past, all of which left them their variant.
	Moves int32 `json:"moves,omitempty"`
}

// Day is the subjects that entered on one UTC day, or if there are too many
// days, in a period of them.
type Day struct {
	Last int32 // The last day, counted from 1970.
	Days int   // How many days: a power of 2.
	// Anew says that the cells hold all subjects so far: what caps them has
	// changed since the day before.
	Anew  bool
	Cells []Cell // By variant and stratum; those without subjects are absent.
}

// Cell is the moments of one variant in one stratum.
type Cell struct {
	Variant, Stratum int
	Moments          stats.Moments
}

// SegmentValues are the values of a segment that were met.
type SegmentValues struct {
	Attribute string   `json:"attribute"`
	Values    []string `json:"values"` // Rising. Empty text: lacks it.
	// Subjects counts by value, phase and variant, as Tally.Subjects.
	Subjects [][][]int64 `json:"subjects,omitempty"`
	// Rest says that there were too many values, so that those with most subjects are
	// shown, and the last one, of empty text, is all others together.
	Rest bool `json:"rest,omitempty"`
	// Limit is positive if there were more values than this many, so that the
	// segment was withheld.
	Limit int `json:"limit,omitempty"`
}

// Arms holds moments by variant, and by stratum or phase.
type Arms [][]stats.Moments

// noArms is the moments of a metric without subjects.
func (m *compiled) noArms(variants, strata int) Arms {
	arms := make(Arms, variants)
	for v := range arms {
		arms[v] = make([]stats.Moments, strata)
		for s := range arms[v] {
			arms[v][s] = stats.NewMoments(len(m.sources))
		}
	}
	return arms
}

// cells lays out the moments that have subjects.
func (a Arms) cells() []Cell {
	var cells []Cell
	for v, strata := range a {
		for s, moments := range strata {
			if moments.N > 0 {
				cells = append(cells, Cell{v, s, moments})
			}
		}
	}
	return cells
}

// merge adds other subjects of the same metric, variants and strata.
func (a Arms) merge(b Arms) {
	for v := range a {
		for s := range a[v] {
			a[v][s].Merge(b[v][s])
		}
	}
}

// take adds the subjects of the next day.
func (a Arms) take(d *Day) {
	if d.Anew {
		for _, strata := range a {
			for s := range strata {
				strata[s] = stats.NewMoments(len(strata[s].Means))
			}
		}
	}
	for i := range d.Cells {
		c := &d.Cells[i]
		a[c.Variant][c.Stratum].Merge(c.Moments)
	}
}
