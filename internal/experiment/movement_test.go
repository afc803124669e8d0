package experiment

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fiftyFifty is the third revision of a started experiment, in its second
// phase.
func fiftyFifty() *Revision {
	d := Definition{Unit: "user", Salt: "e", Traffic: 0.5, Variants: weighted("control", 1, "b", 1)}
	return &Revision{Number: 3, Phase: 2, Definition: d, Allocation: FirstAllocation(d.Variants)}
}

func TestNext(t *testing.T) {
	control := func(weight int32) Variant { return Variant{Key: "control", Control: true, Weight: weight} }
	cases := []struct {
		name      string
		change    func(*Definition)
		reshuffle bool
		phase     int32
		want      Movement
	}{
		{"owner", func(d *Definition) { d.Owner = "x" }, false, 2, Movement{}},
		{"payload", func(d *Definition) { d.Variants[1].Payload = []byte(`{}`) }, false, 2, Movement{}},
		{"order", func(d *Definition) { slices.Reverse(d.Variants) }, false, 2, Movement{}},
		{"the same shares", func(d *Definition) { d.Variants = weighted("control", 7, "b", 7) }, false, 2, Movement{}},
		{"traffic up", func(d *Definition) { d.Traffic = 0.75 }, false, 2, Movement{Enter: 0.25}},
		{"traffic down", func(d *Definition) { d.Traffic = 0.125 }, false, 3, Movement{Leave: 0.375, OfParticipants: 0.75}},
		{"traffic down by less than a bucket", func(d *Definition) { d.Traffic = 0.4999997 }, false, 2, Movement{}},
		{"weights", func(d *Definition) { d.Variants[1].Weight = 3 }, false, 3, Movement{
			Change: 0.125, SplitChange: 0.25, OfParticipants: 0.25, Flows: []Flow{{"control", "b", 0.125, 0.25}}}},
		{"weights and traffic down", func(d *Definition) { d.Variants[1].Weight, d.Traffic = 3, 0.25 }, false, 3, Movement{
			Change: 0.0625, Leave: 0.25, SplitChange: 0.25, OfParticipants: 0.625, Flows: []Flow{{"control", "b", 0.0625, 0.25}}}},
		{"weights and traffic up", func(d *Definition) { d.Variants[1].Weight, d.Traffic = 3, 1 }, false, 3, Movement{
			Change: 0.125, Enter: 0.5, SplitChange: 0.25, OfParticipants: 0.25, Flows: []Flow{{"control", "b", 0.125, 0.25}}}},
		{"killed", func(d *Definition) { d.Variants[1].Weight = 0 }, false, 3, Movement{
			Change: 0.25, SplitChange: 0.5, OfParticipants: 0.5, Flows: []Flow{{"b", "control", 0.25, 0.5}}}},
		{"renamed", func(d *Definition) { d.Variants[1].Key = "c" }, false, 3, Movement{
			Change: 0.25, SplitChange: 0.5, OfParticipants: 0.5, VariantsChanged: true, Flows: []Flow{{"b", "c", 0.25, 0.5}}}},
		{"added without weight", func(d *Definition) { d.Variants = weighted("control", 1, "b", 1, "c", 0) }, false, 3, Movement{VariantsChanged: true}},
		{"added", func(d *Definition) { d.Variants = weighted("control", 1, "b", 1, "c", 2) }, false, 3, Movement{
			Change: 0.25, SplitChange: 0.5, OfParticipants: 0.5, VariantsChanged: true,
			Flows: []Flow{{"b", "c", 0.125, 0.25}, {"control", "c", 0.125, 0.25}}}},
		{"eligibility", func(d *Definition) { d.Eligibility = "true" }, false, 3, Movement{EligibilityChanged: true}},
		{"reshuffled", func(*Definition) {}, true, 3, Movement{
			Change: 0.25, SplitChange: 0.5, OfParticipants: 0.5, Flows: []Flow{{"b", "control", 0.125, 0.25}, {"control", "b", 0.125, 0.25}}}},
		{"reshuffled with weights", func(d *Definition) { d.Variants = []Variant{control(1), {Key: "b", Weight: 3}} }, true, 3, Movement{
			Change: 0.25, SplitChange: 0.5, OfParticipants: 0.5, Flows: []Flow{{"b", "control", 0.0625, 0.125}, {"control", "b", 0.1875, 0.375}}}},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			r := fiftyFifty()
			def := r.Definition
			def.Variants = slices.Clone(def.Variants)
			tt.change(&def)
			next, got, err := r.Next(def, tt.reshuffle)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("movement (-want +got):\n%s", diff)
			}
			if next.Number != 4 || next.Phase != tt.phase || got.NewPhase() != (tt.phase == 3) {
				t.Errorf("revision %d of phase %d", next.Number, next.Phase)
			}
			salt := "e"
			if tt.reshuffle {
				salt = "e/3"
			}
			if next.Definition.Salt != "e" || next.Definition.SaltOfSplit() != salt {
				t.Errorf("salt %q, of the split %q", next.Definition.Salt, next.Definition.SaltOfSplit())
			}
			if diff := cmp.Diff(fiftyFifty(), r); diff != "" {
				t.Errorf("the revision before has changed:\n%s", diff)
			}
		})
	}
}

// TestReshuffleStays: later changes keep the salt that a reshuffle gave, and
// another reshuffle gives another one.
func TestReshuffleStays(t *testing.T) {
	r := *fiftyFifty()
	var salts []string
	for _, reshuffle := range []bool{false, true, false, true} {
		def := r.Definition
		def.Traffic -= 0.1
		def.SplitSalt = "forged"
		next, _, err := r.Next(def, reshuffle)
		if err != nil {
			t.Fatal(err)
		}
		r = next
		salts = append(salts, r.Definition.SaltOfSplit())
	}
	if diff := cmp.Diff([]string{"e", "e/4", "e/4", "e/6"}, salts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSealed(t *testing.T) {
	for field, change := range map[string]func(*Definition){
		"unit":       func(d *Definition) { d.Unit = "device" },
		"salt":       func(d *Definition) { d.Salt = "x" },
		"layer":      func(d *Definition) { d.Layer = "x" },
		"assignment": func(d *Definition) { d.External = true },
		"sticky":     func(d *Definition) { d.Sticky = true },
		"variants":   func(d *Definition) { d.Variants = weighted("b", 1, "control", 1) },
		"segments":   func(d *Definition) { d.Segments = []string{"country"} },
		"covariates": func(d *Definition) { d.Covariates = []Covariate{{Name: "c", Attribute: "c"}} },
		"metrics":    func(d *Definition) { d.Metrics = []MetricUse{{Metric: "m", Role: RolePrimary}} },
		"plan":       func(d *Definition) { d.Plan.PlannedSubjects = 7 },
	} {
		r := fiftyFifty()
		def := r.Definition
		change(&def)
		_, _, err := r.Next(def, true)
		var refusal *Error
		if !errors.As(err, &refusal) || refusal.Reason != "EXPERIMENT_STARTED" || !strings.Contains(refusal.Message, field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestStickyMovement closes and opens the intake, which moves nobody, and lowers
// the traffic, which a layer forbids.
func TestStickyMovement(t *testing.T) {
	r := *fiftyFifty()
	r.Definition.Sticky = true
	for _, closed := range []bool{true, false} {
		def := r.Definition
		def.IntakeClosed = closed
		next, movement, err := r.Next(def, false)
		if err != nil || next.Phase != r.Phase || movement.Allow(false) != nil || next.Definition.IntakeClosed != closed {
			t.Errorf("closed %t: phase %d, %v", closed, next.Phase, err)
		}
		r = next
	}
	for _, tt := range []struct {
		layer   string
		traffic float64
		refused bool
	}{{"", 0.25, false}, {"l", 0.25, true}, {"l", 0.75, false}} {
		r.Definition.Layer = tt.layer
		def := r.Definition
		def.Traffic = tt.traffic
		_, _, err := r.Next(def, false)
		var refusal *Error
		if refused := errors.As(err, &refusal) && refusal.Reason == "STICKY_IN_LAYER"; refused != tt.refused || (err != nil) != tt.refused {
			t.Errorf("layer %q, traffic %v: %v", tt.layer, tt.traffic, err)
		}
	}
}

func TestAllow(t *testing.T) {
	movement := Movement{Change: 0.125, Leave: 0.25, SplitChange: 0.25, EligibilityChanged: true}
	if err := movement.Allow(true); err != nil {
		t.Error(err)
	}
	err := movement.Allow(false)
	if !errors.Is(err, ErrPrecondition) || !strings.Contains(err.Error(), "12.5 % change variant, 0 % enter and 25 % leave, and an unknown share") {
		t.Error(err)
	}
	if err := (&Movement{Enter: 0.5}).Allow(false); err != nil {
		t.Error(err)
	}
}

func TestAmong(t *testing.T) {
	if got := (&Movement{OfParticipants: 0.625}).Among(101); got != 63 {
		t.Errorf("%d of 101", got)
	}
}
