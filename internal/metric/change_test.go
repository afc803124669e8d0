package metric

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/assayhq/assay/internal/experiment"
)

// estimating is what compares variants on one metric, each with an estimate; of
// −1 it has none.
func estimating(metric string, estimates map[string]float64) []Result {
	result := Result{Metric: metric}
	for _, variant := range []string{"b", "c", "d"} {
		estimate, ok := estimates[variant]
		if !ok {
			continue
		}
		se := 0.5
		c := Comparison{Variant: variant, StandardError: &se}
		if estimate != -1 {
			c.Difference.Estimate = &estimate
		}
		result.Comparisons = append(result.Comparisons, c)
	}
	return []Result{result}
}

func TestChanges(t *testing.T) {
	const cannot = "does not come out again"
	tests := []struct {
		name                 string
		estimates            [6]float64 // From stored to stored, by way of those that are made again.
		erasedFrom, erasedTo int64
		cut                  bool
		want                 [4]float64 // By erasures, definition, late events and new subjects.
		note                 string     // In place of the shares.
	}{
		{"every share", [6]float64{1, 1.5, 3, 7, 15, 20}, 2, 1, false, [4]float64{5.5, 1.5, 4, 8}, ""},
		{"nothing", [6]float64{1, 1, 1, 1, 1, 1}, 0, 0, false, [4]float64{}, ""},
		{"rounding", [6]float64{1, 1 + 1e-12, 1 - 1e-12, 1, 1 + 1e-13, 1}, 0, 0, false, [4]float64{}, ""},
		{"rounding of nothing", [6]float64{0, 1e-12, 0, -1e-12, 1e-17, 0}, 0, 0, false, [4]float64{}, ""},
		{"little", [6]float64{1, 1, 1, 1, 1 + 0x1p-20, 1 + 0x1p-20}, 0, 0, false, [4]float64{0, 0, 0, 0x1p-20}, ""},
		{"erased from both alike", [6]float64{1, 1.5, 1.5, 1.5, 2, 1.5}, 1, 1, false, [4]float64{0, 0, 0, 0.5}, ""},
		{"dropped, and it shows not", [6]float64{1, 1, 1, 2, 2, 2}, 0, 0, true, [4]float64{0, 0, 1, 0}, ""},
		{"dropped from the earlier one", [6]float64{1, 1.5, 1.5, 2, 2, 2}, 1, 1, true, [4]float64{}, cannot},
		{"dropped from the later one", [6]float64{1, 1, 1, 2, 2, 3}, 1, 1, true, [4]float64{}, cannot},
		{"the earlier one is another's", [6]float64{1, 1.5, 1.5, 2, 2, 2}, 0, 0, false, [4]float64{}, cannot},
		{"the later one is another's", [6]float64{1, 1.5, 1.5, 2, 2, 3}, 1, 0, false, [4]float64{}, cannot},
		{"no estimate before", [6]float64{-1, 1, 1, 1, 1, 1}, 0, 0, false, [4]float64{}, "There is no estimate"},
		{"no estimate between", [6]float64{1, 1, 1, -1, 1, 1}, 0, 0, false, [4]float64{}, "There is no estimate"},
		{"no estimate after", [6]float64{1, 1, 1, 1, 1, -1}, 0, 0, false, [4]float64{}, "There is no estimate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			results := func(i int) []Result { return estimating("m", map[string]float64{"b": tt.estimates[i]}) }
			again := Again{
				From: &Analysis{Metrics: results(1)}, Redefined: &Analysis{Metrics: results(2)},
				Known: &Analysis{Metrics: results(3)}, To: &Analysis{Metrics: results(4)}, Cut: tt.cut,
			}
			changes, notes := again.Changes(&Stored{results(0), tt.erasedFrom}, &Stored{results(5), tt.erasedTo})
			want := Change{Metric: "m", Variant: "b", From: results(0)[0].Comparisons[0].Difference.Estimate, To: results(5)[0].Comparisons[0].Difference.Estimate}
			if tt.note == "" {
				want.ByErasures, want.ByDefinition, want.ByLateEvents, want.ByNewSubjects = &tt.want[0], &tt.want[1], &tt.want[2], &tt.want[3]
			}
			if diff := cmp.Diff([]Change{want}, changes, cmpopts.IgnoreFields(Change{}, "Notes")); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if said := strings.Join(changes[0].Notes, " "); (said == "") != (tt.note == "") || !strings.Contains(said, tt.note) {
				t.Errorf("the change's notes %q, want %q", said, tt.note)
			}
			if tt.note == "" && len(notes) > 0 || tt.note != "" && (len(notes) != 1 || !strings.HasPrefix(notes[0], "b on m: ") || !strings.Contains(notes[0], tt.note)) {
				t.Errorf("notes %q, want %q", notes, tt.note)
			}
		})
	}
}

// What only one of the analyses has is no change, and is noted.
func TestChangesOfOne(t *testing.T) {
	from := append(estimating("m", map[string]float64{"b": 1, "c": 1}), estimating("gone", map[string]float64{"b": 1})...)
	to := append(estimating("m", map[string]float64{"b": 1, "d": 1}), estimating("come", map[string]float64{"b": 1})...)
	again := Again{From: &Analysis{Metrics: from}, Redefined: &Analysis{Metrics: to}, Known: &Analysis{Metrics: to}, To: &Analysis{Metrics: to}}
	changes, notes := again.Changes(&Stored{Results: from}, &Stored{Results: to})
	if len(changes) != 1 || changes[0].Variant != "b" || changes[0].ByErasures == nil {
		t.Errorf("changes %v", changes)
	}
	want := []string{
		"Only the earlier analysis compares c on m.", "Only the later analysis compares d on m.",
		"Only the earlier analysis has the metric gone.", "Only the later analysis has the metric come.",
	}
	if diff := cmp.Diff(want, notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

// A fold of those who were known counts, for each metric, whom a fold of the
// earlier moment would have counted.
func TestFoldOnlyKnown(t *testing.T) {
	short, long := Sum("purchase", nil), Sum("purchase", nil)
	short.Window, long.Window = 24*time.Hour, week
	s := mustStudy(t, definition("control", "short"), []Use{
		use("short", short, experiment.RolePrimary), use("long", long, experiment.RoleSecondary), use("ever", Sum("purchase", nil), experiment.RoleSecondary),
	}).Since(moment.Add(-3 * 24 * time.Hour))
	known := s.NewFold(moment)
	known.OnlyKnown = true
	for i, exposures := range []struct{ first, known time.Duration }{ // Before the moment; 0: not known.
		{30 * 24 * time.Hour, 30 * 24 * time.Hour}, // All metrics counted it.
		{10 * 24 * time.Hour, 10 * 24 * time.Hour}, // Its longer window closed at that moment.
		{10 * 24 * time.Hour, 9 * 24 * time.Hour},  // A later exposure was known, whose longer window was open.
		{4 * 24 * time.Hour, 4 * 24 * time.Hour},   // Its shorter window closed at that moment.
		{3 * 24 * time.Hour, 3 * 24 * time.Hour},   // Both windows were open.
		{30 * 24 * time.Hour, 0},                   // It was recorded later.
	} {
		r := Row{Variant: []byte("control"), Phase: 1, FirstExposure: moment.Add(-exposures.first), Values: make([]float64, len(s.Columns()))}
		if exposures.known > 0 {
			r.KnownExposure = moment.Add(-exposures.known)
		}
		for j := range r.Values {
			r.Values[j] = float64(int(1) << i)
		}
		known.Add(&r)
	}
	tally := known.Tally()
	for m, want := range []float64{1 + 2 + 4 + 8, 1 + 2, 1 + 2 + 4 + 8 + 16} {
		got := tally.Metrics[m].Whole[0][0]
		if total := got.Means[0] * float64(got.N); total != want {
			t.Errorf("%s counts the subjects %b, want %b", tally.Metrics[m].Metric, int(total), int(want))
		}
	}
}
