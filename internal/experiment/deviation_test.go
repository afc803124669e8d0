package experiment

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDeviations(t *testing.T) {
	cases := []struct {
		name      string
		change    func(*Definition)
		reshuffle bool
		want      []Deviation // None: no new phase.
	}{
		{"owner", func(d *Definition) { d.Owner = "x" }, false, nil},
		{"the same shares", func(d *Definition) { d.Variants = weighted("control", 7, "b", 7) }, false, nil},
		{"traffic up", func(d *Definition) { d.Traffic = 0.75 }, false, nil},
		{"weights", func(d *Definition) { d.Variants[1].Weight = 3 }, false, []Deviation{
			{"WEIGHTS_CHANGED", "Revision 4 changed the weights, and began phase 3."}}},
		{"killed", func(d *Definition) { d.Variants[1].Weight = 0 }, false, []Deviation{
			{"WEIGHTS_CHANGED", "Revision 4 changed the weights, and began phase 3."}}},
		{"other variants", func(d *Definition) { d.Variants = weighted("control", 1, "c", 1, "d", 0) }, false, []Deviation{
			{"VARIANTS_CHANGED", "Revision 4 changed the variants (added: c, d) (removed: b), and began phase 3."}}},
		{"one more", func(d *Definition) { d.Variants = weighted("control", 1, "b", 1, "c", 1) }, false, []Deviation{
			{"VARIANTS_CHANGED", "Revision 4 changed the variants (added: c), and began phase 3."}}},
		{"reshuffled", func(*Definition) {}, true, []Deviation{
			{"RESHUFFLED", "Revision 4 split all subjects anew, and began phase 3."}}},
		{"eligibility", func(d *Definition) { d.Eligibility = "true" }, false, []Deviation{
			{"ELIGIBILITY_CHANGED", "Revision 4 changed the eligibility, and began phase 3."}}},
		{"the same shares and eligibility", func(d *Definition) { d.Variants, d.Eligibility = weighted("control", 7, "b", 7), "true" }, false, []Deviation{
			{"ELIGIBILITY_CHANGED", "Revision 4 changed the eligibility, and began phase 3."}}},
		{"traffic down", func(d *Definition) { d.Traffic = 0.125 }, false, []Deviation{
			{"TRAFFIC_LOWERED", "Revision 4 lowered the traffic from 0.5 to 0.125, and began phase 3."}}},
		{"weights and traffic", func(d *Definition) { d.Variants[1].Weight, d.Traffic = 3, 0.25 }, true, []Deviation{
			{"WEIGHTS_CHANGED", "Revision 4 changed the weights, and began phase 3."},
			{"RESHUFFLED", "Revision 4 split all subjects anew, and began phase 3."},
			{"TRAFFIC_LOWERED", "Revision 4 lowered the traffic from 0.5 to 0.25, and began phase 3."}}},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			r := fiftyFifty()
			def := r.Definition
			def.Variants = weighted("control", 1, "b", 1)
			tt.change(&def)
			next, _, err := r.Next(def, tt.reshuffle)
			if err != nil {
				t.Fatal(err)
			}
			last, first := []Revision{*r}, []Revision{*r}
			if next.Phase != r.Phase {
				last, first = append(last, next), append(first, next)
			}
			if diff := cmp.Diff(tt.want, Deviations(last, first)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A phase that nothing else explains is a holdout's. Traffic that was raised
// within a phase is what the next one is compared with.
func TestDeviationsOfPhases(t *testing.T) {
	r := fiftyFifty()
	held := *r
	held.Number, held.Phase = 4, 3
	raised := held
	raised.Number, raised.Definition.Traffic = 5, 1
	lowered := raised
	lowered.Number, lowered.Phase, lowered.Definition.Traffic = 6, 4, 0.6
	want := []Deviation{
		{"HOLDOUT_ADDED", "Revision 4 put the experiment under a holdout, and began phase 3."},
		{"TRAFFIC_LOWERED", "Revision 6 lowered the traffic from 1 to 0.6, and began phase 4."},
	}
	if diff := cmp.Diff(want, Deviations([]Revision{*r, raised, lowered}, []Revision{*r, held, lowered})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
