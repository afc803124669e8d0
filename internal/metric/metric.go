package metric

import (
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// Metric is one revision of a definition with the identity of its metric.
type Metric struct {
	Key        string
	Revision   int32 // From 1.
	Archived   bool
	Version    int64 // Grows with every change of any kind; the etag.
	CreateTime time.Time
	UpdateTime time.Time // When this revision was made.
	Definition Definition
}

// Definition is what a revision of a metric freezes. Its JSON form is how it
// is stored; a field that is added later must mean nothing when absent.
//
// Expression and Components say everything about the number; Kind only
// remembers how it was asked for. The constructors fill in these three.
type Definition struct {
	Description string                 `json:"description,omitempty"`
	Direction   Direction              `json:"direction"`
	Kind        Kind                   `json:"kind"`
	Expression  string                 `json:"expression"`
	Components  []experiment.Component `json:"components"`
	Window      time.Duration          `json:"window,omitempty"` // After first exposure; 0 means none.
}

// Direction says which way a metric gets better.
type Direction string

// The directions.
const (
	DirectionIncrease Direction = "increase"
	DirectionDecrease Direction = "decrease"
)

// sign is 1 if more is better and −1 if less is.
func (d Direction) sign() float64 {
	if d == DirectionDecrease {
		return -1
	}
	return 1
}

// Kind is the form in which a metric was defined.
type Kind string

// The kinds.
const (
	KindProportion Kind = "proportion"
	KindMean       Kind = "mean"
	KindSum        Kind = "sum"
	KindRatio      Kind = "ratio"
	KindFormula    Kind = "formula"
)
