package experiment

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPhases(t *testing.T) {
	start := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	halves := []Range{{0, 500_000, "control"}, {500_000, 1_000_000, "b"}}
	quarters := []Range{{0, 250_000, "control"}, {250_000, 1_000_000, "b"}}
	roster, external := &Experiment{Roster: &Roster{}}, &Experiment{}
	external.Current.Definition.External = true
	sticky := &Experiment{}
	sticky.Current.Definition.Sticky = true
	weights := func(d *Definition) { d.Variants[1].Weight = 3 }
	traffic := func(d *Definition) { d.Traffic = 0.125 }
	eligibility := func(d *Definition) { d.Eligibility = "true" }
	cases := []struct {
		name      string
		of        *Experiment
		change    func(*Definition)
		reshuffle bool
		want      Phase
	}{
		{"weights", nil, weights, false, Phase{Moves: true, Allocation: quarters}},
		{"another variant without weight", nil, func(d *Definition) { d.Variants = append(d.Variants, Variant{Key: "c"}) }, false, Phase{Allocation: halves}},
		{"reshuffled", nil, func(*Definition) {}, true, Phase{Moves: true, Reshuffled: true, Allocation: halves}},
		{"eligibility", nil, eligibility, false, Phase{Dilutes: "changed the eligibility", Allocation: halves}},
		{"traffic", nil, traffic, false, Phase{Dilutes: "lowered the traffic", Allocation: halves}},
		{"weights and traffic", nil, func(d *Definition) { weights(d); traffic(d) }, false, Phase{Moves: true, Dilutes: "lowered the traffic", Allocation: quarters}},
		{"weights of a roster", roster, weights, false, Phase{Allocation: quarters}},
		{"traffic of a roster", roster, traffic, false, Phase{Allocation: halves}},
		{"eligibility of a roster", roster, eligibility, false, Phase{Dilutes: "changed the eligibility", Allocation: halves}},
		{"weights, assigned elsewhere", external, weights, false, Phase{Dilutes: "changed the weights of an experiment that is assigned elsewhere", Allocation: quarters}},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			e := tt.of
			if e == nil {
				e = &Experiment{}
			}
			before := fiftyFifty()
			before.Definition.External = e.Current.Definition.External
			def := before.Definition
			def.Variants = weighted("control", 1, "b", 1)
			tt.change(&def)
			next, _, err := before.Next(def, tt.reshuffle)
			if err != nil {
				t.Fatal(err)
			}
			next.CreateTime = start
			tt.want.Number, tt.want.Start = 3, start
			both := []Revision{*before, next}
			if diff := cmp.Diff([]Phase{tt.want}, e.Phases(both, both)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got := sticky.Phases(both, both); len(got) > 0 {
				t.Errorf("of a sticky experiment: %+v", got)
			}
		})
	}
	held := *fiftyFifty()
	held.Number, held.Phase = 4, 3
	if got := new(Experiment).Phases([]Revision{*fiftyFifty(), held}, []Revision{*fiftyFifty(), held}); got[0].Dilutes != "began a holdout" || got[0].Moves {
		t.Errorf("under a holdout: %+v", got)
	}
}

// TestReshuffleOfOneVariant: while one variant has all buckets a reshuffle begins no
// phase, and exposures of one phase have buckets under two salts.
func TestReshuffleOfOneVariant(t *testing.T) {
	first := fiftyFifty()
	first.Definition.Variants = weighted("control", 0, "b", 1)
	first.Allocation = FirstAllocation(first.Definition.Variants)
	last, moved, err := first.Next(first.Definition, true)
	if err != nil || moved.NewPhase() {
		t.Fatal(moved, err)
	}
	def := last.Definition
	def.Variants = weighted("control", 1, "b", 1)
	next, _, err := last.Next(def, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := new(Experiment).Phases([]Revision{last, next}, []Revision{*first, next}); !got[0].Reshuffled {
		t.Errorf("%+v", got)
	}
}

func TestVariantAt(t *testing.T) {
	p := Phase{Allocation: []Range{{0, 10, "a"}, {10, 500_000, "b"}, {500_001, 1_000_000, "a"}}}
	for bucket, want := range map[int32]string{0: "a", 9: "a", 10: "b", 499_999: "b", 500_000: "", 500_001: "a", 999_999: "a"} {
		if got := p.VariantAt(bucket); got != want {
			t.Errorf("%d: %q, want %q", bucket, got, want)
		}
	}
}
