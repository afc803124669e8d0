package experiment

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"
)

// Exposure is a subject that met a variant, checked and ready to be stored.
type Exposure struct {
	ExperimentID int32
	Phase        int32
	SubjectID    SubjectID
	Variant      string
	ExposedTime  time.Time       // To the millisecond.
	Bucket       *int32          // Of the split, under the salt of the phase; nil if no split decided.
	Attributes   json.RawMessage // The kept ones, as a JSON object; nil if none.
	HeldOut      bool            // It counts for its sides alone, not for the experiment.
	Sides        []Side          // In the holdouts that cover the experiment.
	// Sticky is the definition of a sticky experiment: a subject that another of its
	// variants was recorded of first keeps that one. Nil if it does not matter.
	Sticky *Definition
}

// Side is the side of a subject in a holdout.
type Side struct {
	HoldoutID int32
	HeldOut   bool
}

// Variant is the side's name.
func (s Side) Variant() string {
	if s.HeldOut {
		return SideHeldOut
	}
	return SideOpen
}

// Outcome is something a subject did, checked and ready to be stored.
type Outcome struct {
	RowID        RowID
	SubjectID    SubjectID
	Unit         string // Of the subject. Empty is the default.
	Name         string
	Value        *float64
	OccurredTime time.Time       // To the millisecond.
	Properties   json.RawMessage // Canonical: keys sorted; nil if none.

	// Of a correction:
	Corrects     RowID     // The corrected outcome; zero if it is no correction.
	AdjustedTime time.Time // When it was corrected; OccurredTime is that of the corrected one.
}

// IsOutcomeName says whether outcomes may have the name: 1 to 128 bytes of UTF-8
// without control characters.
func IsOutcomeName(name string) bool {
	return name != "" && len(name) <= 128 && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// NameLimit is a limit of new outcome names.
type NameLimit uint8

// The limits.
const (
	NamesPerCall NameLimit = iota + 1
	NamesPerHour           // Of all servers together.
	NamesInAll
)

// NameRefusal is of outcome names that are not admitted.
type NameRefusal struct {
	Limit NameLimit
	Most  int           // What it allows.
	Retry time.Duration // After so long names are admitted again; of NamesPerHour.
	Names map[string]bool
}

// IsCorrection says whether the outcome adjusts the value of another one.
func (o *Outcome) IsCorrection() bool { return o.Corrects != RowID{} }

// RowID identifies an outcome of a subject. It is ordered by time, so that
// inserts stay in one corner of the index.
type RowID [16]byte

// NewRowID returns 48 bits of the time in milliseconds since 1970, then the
// first 80 bits of SHA-256(event id).
func NewRowID(occurred time.Time, eventID string) RowID {
	var id RowID
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(occurred.UnixMilli())<<16)
	copy(id[:6], ms[:6])
	var short [256]byte // As long as the longest event id, to spare an allocation.
	sum := sha256.Sum256(append(short[:0], eventID...))
	copy(id[6:], sum[:10])
	return id
}

// At returns the id of the same event at another time.
func (id RowID) At(occurred time.Time) RowID {
	other := NewRowID(occurred, "")
	copy(other[6:], id[6:])
	return other
}

// Result says what became of an event.
type Result uint8

// The results.
const (
	Recorded   Result = iota
	Duplicate         // It was known.
	Conflict          // Its identity is known with another content.
	Limited           // A limit of the store refused it.
	Refused           // The store refused its data, which no rule foresaw.
	Erased            // Its subject was erased.
	Recorrects        // It corrects an outcome that is a correction itself.
	Kept              // The subject keeps another variant of a sticky experiment.
)
