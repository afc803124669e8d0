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
	// Crossover says that it was seen in two variants of one phase.
	Crossover bool
	// Segments holds the text of each of the study's segments at first
	// exposure. Nil and empty are the same: the subject lacks the attribute.
	Segments [][]byte
	// AttributeNumbers holds each of the study's attributes at first exposure;
	// NaN if it is missing or no number.
	AttributeNumbers []float64
	// Values holds the number of each of the study's columns, all finite.
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
	// Crossovers counts the subjects that were left out because they were seen
	// in two variants of one phase.
	Crossovers int64 `json:"crossovers,omitempty"`
	// UnknownVariants counts the subjects that were left out because the
	// definition has no such variant.
	UnknownVariants int64 `json:"unknown_variants,omitempty"`
	// Cut counts the analysed subjects that were exposed, or whose covariates
	// begin, before KeptFrom: outcomes before it have been dropped.
	Cut      int64           `json:"cut,omitempty"`
	KeptFrom time.Time       `json:"kept_from,omitzero"`
	Metrics  []MetricTally   `json:"metrics"`
	Segments []SegmentValues `json:"segments,omitempty"`
}

// MetricTally is one metric's part of a tally, in the study's order.
type MetricTally struct {
	Metric   string `json:"metric"`
	Revision int32  `json:"revision"`
	// OpenWindows counts the subjects whose window was still open.
	OpenWindows int64 `json:"open_windows,omitempty"`
	// Whole holds the moments of all subjects.
	Whole Arms `json:"whole"`
	// Segments holds the moments of each value of each segment, in the order
	// of Tally.Segments.
	Segments [][]Arms `json:"segments,omitempty"`
}

// SegmentValues are the values of a segment that were met.
type SegmentValues struct {
	Attribute string   `json:"attribute"`
	Values    []string `json:"values"` // Rising. Empty text: lacks it.
	// Limit is positive if there were more values than this many, so that the
	// segment was withheld.
	Limit int `json:"limit,omitempty"`
}

// Arms holds moments by variant and phase.
type Arms [][]stats.Moments
