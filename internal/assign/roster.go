package assign

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/assayhq/assay/internal/experiment"
)

// PurposeRoster enters the hash by which the subjects of a roster are ranked.
const PurposeRoster = "roster"

// RosterList is the subjects of a roster that is to be allocated. It holds them
// in columns, 26 bytes a subject, since there may be millions.
type RosterList struct {
	pepper  experiment.Pepper
	unit    string
	gate    uint64 // The gate's hash.
	ids     []experiment.SubjectID
	mixed   []uint64
	strata  []uint16 // The number of each subject's stratum.
	names   []string // Of the strata, in the order of their first subjects.
	numbers map[string]uint16
}

// NewRosterList returns an empty list of subjects of an experiment. The pepper
// makes their ids.
func NewRosterList(pepper experiment.Pepper, d *experiment.Definition) *RosterList {
	return &RosterList{pepper: pepper, unit: d.Unit, gate: hashPair(PurposeRoster, d.Salt), numbers: map[string]uint16{}}
}

// Add adds a subject. It returns false, and adds nothing, if that would make
// more than experiment.MaxRosterStrata strata.
func (l *RosterList) Add(key, stratum string) bool {
	number, known := l.numbers[stratum]
	if !known {
		if len(l.names) == experiment.MaxRosterStrata {
			return false
		}
		number = uint16(len(l.names))
		l.names, l.numbers[stratum] = append(l.names, stratum), number
	}
	l.ids = append(l.ids, l.pepper.SubjectID(experiment.Subject{Unit: l.unit, Key: key}))
	l.mixed = append(l.mixed, mix(hashPair(l.unit, key), l.gate))
	l.strata = append(l.strata, number)
	return true
}

// Len is the number of subjects.
func (l *RosterList) Len() int { return len(l.ids) }

// Strata are the names of the strata, by number.
func (l *RosterList) Strata() []string { return l.names }

// Stratum returns the number of the stratum of a subject, by its place in the
// list.
func (l *RosterList) Stratum(place int32) int { return int(l.strata[place]) }

// Order returns the places of the subjects in the order of their ids, in which
// one that is listed twice stands beside itself, in the order of the list.
func (l *RosterList) Order() []int32 { return l.sorted(l.byID) }

func (l *RosterList) byID(a, b int32) int {
	if c := bytes.Compare(l.ids[a][:], l.ids[b][:]); c != 0 {
		return c
	}
	return cmp.Compare(a, b)
}

// byRank compares by the mixed hashes.
func (l *RosterList) byRank(a, b int32) int {
	if c := cmp.Compare(l.mixed[a], l.mixed[b]); c != 0 {
		return c
	}
	return l.byID(a, b)
}

// Same says whether two places hold one subject.
func (l *RosterList) Same(a, b int32) bool { return l.ids[a] == l.ids[b] }

func (l *RosterList) sorted(compare func(a, b int32) int) []int32 {
	places := make([]int32, len(l.ids))
	for i := range places {
		places[i] = int32(i)
	}
	slices.SortFunc(places, compare)
	return places
}

// Allocate gives each subject a variant, as its index, by its place in the list.
// No subject may be listed twice, and the total weight must be positive. The
// allocation does not depend on the order of the list.
//
// In each stratum the subjects are ranked by their mixed hashes, equal ones by
// their ids, and cut into the variants in the listed order.
func (l *RosterList) Allocate(variants []experiment.Variant) []uint8 {
	sizes := make([]int64, len(l.names))
	for _, s := range l.strata {
		sizes[s]++
	}
	left := make([][]int64, len(l.names)) // Of each stratum, what its variants still lack.
	for s, name := range l.names {
		left[s] = rosterCounts(sizes[s], variants, mix(hashPair("stratum", name), l.gate))
	}
	given := make([]uint8, len(l.ids))
	for _, place := range l.sorted(l.byRank) {
		lack := left[l.strata[place]]
		v := slices.IndexFunc(lack, func(n int64) bool { return n > 0 })
		lack[v]--
		given[place] = uint8(v)
	}
	return given
}

// rosterCounts says how many of a stratum's subjects each variant gets.
//
// A variant's exact share is n × weight ÷ W, with W the total weight. It gets
// the whole part, and the places that are left go by systematic sampling
// (Madow 1949, On the theory of systematic sampling, II) with probability
// proportional to the remainders n × weight mod W: laid end to end, these are a
// multiple of W long, and of the points start, start + W, start + 2W, … each
// gives the variant in whose remainder it lies one place. A remainder is shorter
// than W and holds one point at most, so that every count is within one of its
// exact share, and over many strata the shares are exact. To give the places to
// the largest remainders instead would favour the same variant in every small
// stratum: 1,000 customers who are a stratum each, with weights 2 and 1, would
// all get the first.
//
// The start is the stratum's mixed hash, scaled to 0 … W−1 as a bucket is.
func rosterCounts(n int64, variants []experiment.Variant, mixed uint64) []int64 {
	total := int64(0)
	for _, v := range variants {
		total += int64(v.Weight)
	}
	counts := make([]int64, len(variants))
	point := int64((mixed >> 32) * uint64(total) >> 32)
	end := int64(0)
	for i, v := range variants {
		exact := n * int64(v.Weight)
		counts[i] = exact / total
		end += exact % total
		if point < end {
			counts[i]++
			point += total
		}
	}
	return counts
}

// Subjects returns what is kept of an allocation, by the order of Order.
func (l *RosterList) Subjects(order []int32, given []uint8) *experiment.RosterSubjects {
	kept := &experiment.RosterSubjects{IDs: make([]experiment.SubjectID, len(order)), Arms: make([]uint8, len(order))}
	for i, place := range order {
		kept.IDs[i], kept.Arms[i] = l.ids[place], given[place]
	}
	return kept
}

// roster is a roster as decisions read it.
type roster struct {
	subjects *experiment.RosterSubjects // Nil if they were deleted.
	variants []int                      // Of each arm, its index in the definition.
}

// ErrNoRoster is of an experiment whose roster's subjects were not at hand.
var ErrNoRoster = errors.New("the roster's subjects are missing")

// compileRoster returns nil if the experiment has no roster, or had none yet in
// its current revision.
func compileRoster(e *experiment.Experiment, subjects *experiment.RosterSubjects) (*roster, error) {
	if e.Roster == nil || e.Current.Number < e.Roster.Revision {
		return nil, nil
	}
	r := &roster{variants: make([]int, len(e.Roster.Arms))}
	for i, arm := range e.Roster.Arms {
		if r.variants[i] = e.Current.Definition.Variant(arm.Variant); r.variants[i] < 0 {
			return nil, fmt.Errorf("the roster names the variant %q, which does not exist", arm.Variant)
		}
	}
	if !e.Roster.HasSubjects() {
		return r, nil
	}
	if subjects == nil || len(subjects.IDs) != len(subjects.Arms) {
		return nil, ErrNoRoster
	}
	if len(subjects.Arms) > 0 && int(slices.Max(subjects.Arms)) >= len(r.variants) {
		return nil, errors.New("the roster has a subject in an arm that does not exist")
	}
	r.subjects = subjects
	return r, nil
}

// variant returns the index of the subject's variant, or -1.
func (r *roster) variant(s *Subject) int {
	if r.subjects == nil {
		return -1
	}
	if arm := r.subjects.Arm(s.ID()); arm >= 0 {
		return r.variants[arm]
	}
	return -1
}
