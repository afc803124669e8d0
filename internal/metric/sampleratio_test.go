package metric

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// exposed are rows of subjects first exposed so many days after the start, with
// a country.
func exposed(phase int32, day int, country string, control, short int) []Row {
	var rows []Row
	for i := range control + short {
		r := row("control", 1)
		if i >= control {
			r = row("short", 1)
		}
		r.Phase, r.FirstExposure = phase, time.Date(2025, 1, 20+day, 23, 59, 59, 0, time.UTC)
		r.Segments = [][]byte{[]byte(country)}
		rows = append(rows, r)
	}
	return rows
}

func ratioStudy(t *testing.T) *Study {
	return mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)}, "country")
}

// TestSequentialRatioNeverRises: what one day showed is not undone by later
// ones that make up for it, and neither is the verdict. The first figure is printed
// in GrowthBook's tests.
func TestSequentialRatioNeverRises(t *testing.T) {
	rows := exposed(1, 0, "PL", 800, 200)
	broken := mustAnalyze(t, ratioStudy(t), fold(ratioStudy(t), rows...), 0).SampleRatio
	want(t, "after a day", broken.SequentialPValue, 8.126155715401769e-8, 1e-9)
	rows = slices.Concat(rows, exposed(1, 1, "PL", 200, 800))
	later := mustAnalyze(t, ratioStudy(t), fold(ratioStudy(t), rows...), 0).SampleRatio
	want(t, "after two", later.SequentialPValue, 8.126155715401769e-8, 1e-9)
	if *later.PValue != 1 || later.Verdict != SampleRatioMismatch || !strings.Contains(later.broken(), "p = 1 as a whole, but the sequential test once had p = 8.13e-08") {
		t.Errorf("as a whole the ratio holds, and in its parts it does not: %+v, %s", later, later.broken())
	}
	// Within one day there is no order.
	for i := range rows {
		rows[i].FirstExposure = rows[0].FirstExposure
	}
	if p := mustAnalyze(t, ratioStudy(t), fold(ratioStudy(t), rows...), 0).SampleRatio.SequentialPValue; *p != 1 {
		t.Errorf("on one day p = %v", *p)
	}
	if p := mustAnalyze(t, ratioStudy(t), fold(ratioStudy(t)), 0).SampleRatio.SequentialPValue; p != nil {
		t.Errorf("without subjects p = %v", *p)
	}
}

// TestBrokenCells: a country loses subjects on one day. Five cells have enough
// subjects to be tested. With one degree of freedom P(X > x) is erfc(√(x/2)).
func TestBrokenCells(t *testing.T) {
	rows := slices.Concat(
		exposed(1, 0, "DE", 500, 500), exposed(1, 1, "DE", 500, 500), exposed(1, 2, "PL", 600, 400),
		exposed(1, 2, "", 3, 1), exposed(1, 3, "", 2, 0))
	a := mustAnalyze(t, ratioStudy(t), fold(ratioStudy(t), rows...), 0)
	day, country := math.Erfc(math.Sqrt(202*202/1004.0/2)), math.Erfc(math.Sqrt(40.0/2))
	first, second := 5*day, 4*country
	want := []SampleRatioCell{
		{Value: "2025-01-22", Observed: map[string]int64{"control": 603, "short": 401}, Expected: map[string]float64{"control": 502, "short": 502}, PValue: &day, AdjustedPValue: &first},
		{Attribute: "country", Value: "PL", Observed: map[string]int64{"control": 600, "short": 400}, Expected: map[string]float64{"control": 500, "short": 500}, PValue: &country, AdjustedPValue: &second},
	}
	if diff := cmp.Diff(want, a.SampleRatio.BrokenCells, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
		t.Errorf("cells (-want +got):\n%s", diff)
	}
	const says = `It is broken most on 2025-01-22, where country is "PL".`
	if warned := slices.ContainsFunc(a.Warnings, func(w string) bool { return strings.Contains(w, says) }); !warned || a.SampleRatio.Verdict != SampleRatioMismatch {
		t.Errorf("%s, warnings %q", a.SampleRatio.Verdict, a.Warnings)
	}
}

// TestBrokenCellBreaksTheRatio: one threshold for the whole and its cells. Of two
// countries that make up for each other, with 540 of 1,000 expected to be 500 nothing
// is said, as p is 0.011 and corrected 0.034; with 560 there is no verdict.
func TestBrokenCellBreaksTheRatio(t *testing.T) {
	for more, verdict := range map[int]SampleRatioVerdict{40: SampleRatioOK, 60: SampleRatioMismatch} {
		rows := slices.Concat(exposed(1, 0, "DE", 500+more, 500-more), exposed(1, 0, "PL", 500-more, 500+more))
		a := mustAnalyze(t, ratioStudy(t), fold(ratioStudy(t), rows...), 0)
		if a.SampleRatio.Verdict != verdict || *a.SampleRatio.PValue != 1 || (len(a.SampleRatio.BrokenCells) > 0) != (verdict == SampleRatioMismatch) {
			t.Errorf("%d more: %+v", more, a.SampleRatio)
		}
		if verdict == SampleRatioMismatch && (a.Verdict.Action != ActionInconclusive || !strings.Contains(a.Verdict.Reasons[0], "corrected, in a part") || !strings.Contains(a.Warnings[0], "corrected, in a part")) {
			t.Errorf("verdict %+v, warnings %q", a.Verdict, a.Warnings)
		}
	}
}

// TestBrokenCellsByPhase: a cell is measured by the shares of its phases, and an
// intact split has no broken cells.
func TestBrokenCellsByPhase(t *testing.T) {
	rows := slices.Concat(exposed(1, 0, "PL", 900, 100), exposed(2, 0, "PL", 500, 500), exposed(2, 1, "DE", 500, 500))
	shares := map[int32][]float64{1: {0.9, 0.1}, 2: {0.5, 0.5}}
	a, err := ratioStudy(t).Analyze(fold(ratioStudy(t), rows...), shares)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.SampleRatio.BrokenCells) != 0 || *a.SampleRatio.SequentialPValue != 1 {
		t.Errorf("sample ratio %+v", a.SampleRatio)
	}
	shares[1] = []float64{1, 0} // Subjects without a share: impossible, however few.
	if a, err = ratioStudy(t).Analyze(fold(ratioStudy(t), rows...), shares); err != nil {
		t.Fatal(err)
	}
	if cells := a.SampleRatio.BrokenCells; len(cells) != 2 || *cells[0].PValue != 0 || *a.SampleRatio.SequentialPValue != 0 {
		t.Errorf("sample ratio %+v", a.SampleRatio)
	}
}

// TestBrokenCellsAreBounded: 100 of them, those that are broken most.
func TestBrokenCellsAreBounded(t *testing.T) {
	var rows []Row
	for i := range 120 {
		rows = append(rows, exposed(1, i, "PL", 100+i, 10)...)
	}
	cells := mustAnalyze(t, ratioStudy(t), fold(ratioStudy(t), rows...), 0).SampleRatio.BrokenCells
	if len(cells) != 100 || cells[0].Attribute != "country" || cells[1].Value != "2025-05-19" || cells[99].Value != "2025-02-10" {
		t.Errorf("%d cells, first %v, then %v, last %v", len(cells), cells[0].Value, cells[1].Value, cells[len(cells)-1].Value)
	}
}

// TestRatioOfThePlansSegments: the verdict on the sample ratio rests on the plan's
// segments, whether or not results are cut by them, and on no others.
func TestRatioOfThePlansSegments(t *testing.T) {
	rows := slices.Concat(exposed(1, 0, "DE", 560, 440), exposed(1, 0, "PL", 440, 560))
	for _, tt := range []struct {
		name           string
		planned, asked []string
		verdict        SampleRatioVerdict
		cells          int
	}{
		{"asked for", []string{"country"}, []string{"country"}, SampleRatioMismatch, 2},
		{"not asked for", []string{"country"}, nil, SampleRatioMismatch, 2},
		{"asked for and not planned", nil, []string{"past_spend"}, SampleRatioOK, 2},
		{"neither", nil, nil, SampleRatioOK, 0},
	} {
		d := definition("control", "short")
		d.Segments = tt.planned
		s := mustStudy(t, d, []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)}, tt.asked...).CountingSegments()
		a := mustAnalyze(t, s, fold(s, rows...), 0)
		if a.SampleRatio.Verdict != tt.verdict || len(a.SampleRatio.BrokenCells) != tt.cells || len(a.Metrics[0].Segments) != 2*len(tt.asked) {
			t.Errorf("%s: %s with cells %+v and %d segments", tt.name, a.SampleRatio.Verdict, a.SampleRatio.BrokenCells, len(a.Metrics[0].Segments))
		}
		unplanned := tt.cells > 0 && tt.planned == nil
		if unplanned != strings.Contains(strings.Join(a.Warnings, " "), "In segments that the plan does not name the variants' subjects are not as many") ||
			unplanned && !strings.Contains(strings.Join(a.SampleRatio.BrokenCells[0].Notes, " "), "the verdict does not rest on it") {
			t.Errorf("%s: warnings %q, cells %+v", tt.name, a.Warnings, a.SampleRatio.BrokenCells)
		}
	}
}
