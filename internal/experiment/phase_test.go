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
		{"another variant without weight, assigned elsewhere", external, func(d *Definition) { d.Variants = append(d.Variants, Variant{Key: "c"}) }, false, Phase{Allocation: halves}},
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

// TestDefinedAt: an experiment that has lost a variant is defined as at the end of the
// phase that a moment lies in; one that has not is as it is.
func TestDefinedAt(t *testing.T) {
	at := func(day int) time.Time { return time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC) }
	revision := func(number int32, day int, variants ...string) Revision {
		r := Revision{Number: number, CreateTime: at(day)}
		for _, v := range variants {
			r.Definition.Variants = append(r.Definition.Variants, Variant{Key: v})
		}
		return r
	}
	// Revision 2 ends the first phase, 4 the second; 5 is the third.
	first := []Revision{revision(1, 1, "control", "b"), revision(3, 10, "control", "b", "c"), revision(5, 20, "control", "c")}
	last := []Revision{revision(2, 5, "control", "b"), revision(4, 15, "control", "b", "c"), revision(5, 20, "control", "c")}
	e := &Experiment{Current: last[2]}
	for day, want := range map[int]int32{1: 2, 9: 2, 10: 4, 19: 4, 20: 5, 30: 5} {
		if got := e.DefinedAt(at(day), last, first).Current.Number; got != want {
			t.Errorf("on day %d by revision %d, want %d", day, got, want)
		}
	}
	if e.Current.Number != 5 {
		t.Errorf("the experiment itself is changed to revision %d", e.Current.Number)
	}
	whole := &Experiment{Current: revision(6, 25, "control", "b", "c", "d")}
	if got := whole.DefinedAt(at(9), last, first); got != whole {
		t.Errorf("with all its variants it is defined by revision %d", got.Current.Number)
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
