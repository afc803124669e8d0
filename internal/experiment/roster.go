package experiment

import (
	"bytes"
	"slices"
	"sort"
	"time"
)

// The limits of a roster. Every server holds its subjects in memory.
const (
	MaxRosterSubjects   = 2_000_000
	MaxRosterStrata     = 1000
	MaxRosterCovariates = 16
)

// Roster is the allocation of a known list of subjects to the variants of an
// experiment, beside which it gives nobody a variant. It was made while the
// experiment was a draft, and never changes, except that subjects are erased.
type Roster struct {
	ID         int32       // In storage, where no other roster ever has it.
	Revision   int32       // Of the experiment, for whose variants it was made.
	Arms       []RosterArm // In the order of the revision's variants.
	Balance    *Balance    `json:",omitempty"` // Nil except where a roster is read by itself.
	CreateTime time.Time
	Author     string    `json:",omitempty"` // As the caller named itself.
	DeleteTime time.Time // Since when it has no subjects; zero: it has them.
	Erased     int64     `json:",omitempty"` // How many of its subjects were erased, and so are no longer listed.
}

// RosterArm is a variant's part of a roster.
type RosterArm struct {
	Variant  string
	Subjects int64
}

// Subjects is the number of subjects that it holds, or held; 0 for no roster.
func (r *Roster) Subjects() int64 {
	if r == nil {
		return 0
	}
	n := int64(0)
	for _, arm := range r.Arms {
		n += arm.Subjects
	}
	return n
}

// HasSubjects says whether there is a roster that holds its subjects.
func (r *Roster) HasSubjects() bool { return r != nil && r.DeleteTime.IsZero() }

// SharesOf returns the share of the roster's subjects for each variant of a
// definition, in its order.
func (r *Roster) SharesOf(d *Definition) []float64 {
	shares := make([]float64, len(d.Variants))
	for _, arm := range r.Arms {
		if i := d.Variant(arm.Variant); i >= 0 {
			shares[i] = float64(arm.Subjects) / float64(r.Subjects())
		}
	}
	return shares
}

// Balance tells how alike the variants of a roster are. Its JSON form is how it
// is stored.
type Balance struct {
	Strata     []StratumBalance   `json:"strata"`               // By name.
	Covariates []CovariateBalance `json:"covariates,omitempty"` // By name.
}

// StratumBalance is the number of a stratum's subjects in each arm.
type StratumBalance struct {
	Stratum  string  `json:"stratum"`
	Subjects []int64 `json:"subjects"`
}

// CovariateBalance is a covariate in each arm.
type CovariateBalance struct {
	Name string         `json:"name"`
	Arms []ArmCovariate `json:"arms"`
}

// ArmCovariate is a covariate among the subjects of one arm. Numbers that are
// undefined are nil, and the note says why.
type ArmCovariate struct {
	Subjects   int64    `json:"subjects"` // That have it.
	Missing    int64    `json:"missing"`  // That lack it.
	Mean       *float64 `json:"mean,omitempty"`
	Deviation  *float64 `json:"deviation,omitempty"`  // The sample standard deviation.
	Difference *float64 `json:"difference,omitempty"` // The standardised one from the control.
	Note       string   `json:"note,omitempty"`
}

// RosterSubjects are the subjects of a roster with the arm of each. They never
// change, and whoever reads them shares them.
type RosterSubjects struct {
	IDs  []SubjectID // Ascending.
	Arms []uint8     // The index in Roster.Arms of each.
}

// Arm returns the index of the subject's arm, or -1 if it is not listed.
func (r *RosterSubjects) Arm(id SubjectID) int {
	i, found := sort.Find(len(r.IDs), func(i int) int { return bytes.Compare(id[:], r.IDs[i][:]) })
	if !found {
		return -1
	}
	return int(r.Arms[i])
}

// CheckRoster refuses to allocate a roster of the experiment where it has one,
// or where one would not decide alone who gets which variant from the start on.
func (e *Experiment) CheckRoster() error {
	def := &e.Current.Definition
	refuse := func(reason, why string) error {
		return Errorf(ErrPrecondition, reason, "the experiment %q cannot have a roster: %s", e.Key, why)
	}
	switch {
	case e.Roster != nil:
		return Errorf(ErrAlreadyExists, "ROSTER_EXISTS", "the experiment %q has a roster", e.Key)
	case e.State != StateDraft:
		return refuse("ROSTER_NEEDS_DRAFT", "it is "+string(e.State)+", and no longer a draft")
	case def.External:
		return refuse("ROSTER_NOT_POSSIBLE", "it is assigned elsewhere")
	case def.Layer != "":
		return refuse("ROSTER_NOT_POSSIBLE", "it is in the layer "+def.Layer)
	case def.Traffic != 1:
		return refuse("ROSTER_NOT_POSSIBLE", "its traffic is not 1; list those who are to take part")
	}
	return nil
}

// CheckRosterFixed refuses a change of what the roster was made of, if there is
// one.
func (e *Experiment) CheckRosterFixed(next *Definition, reshuffle bool) error {
	if e.Roster == nil {
		return nil
	}
	now := &e.Current.Definition
	var changed fieldNames
	changed.addIf(!slices.Equal(now.weights(), next.weights()) || now.Variants[now.Control()].Key != next.Variants[next.Control()].Key, "variants")
	changed.addIf(now.Unit != next.Unit, "unit")
	changed.addIf(now.Salt != next.Salt, "salt")
	changed.addIf(now.Layer != next.Layer, "layer")
	changed.addIf(now.External != next.External, "assignment")
	changed.addIf(now.Traffic != next.Traffic, "traffic")
	changed.addIf(reshuffle, "the split's salt (reshuffle)")
	return changed.refused("ROSTER_FIXED", "the experiment has a roster, by which who gets which variant is fixed")
}
