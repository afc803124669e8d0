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

// spread are rows of n subjects of a variant in a country, whose numbers are
// around a mean with a variance of 1.25·n/(n−1); n is a multiple of 4.
func spread(variant, country string, n int, mean float64) []Row {
	var rows []Row
	for i := range n {
		r := row(variant, mean+float64(i%4)-1.5)
		r.Segments = [][]byte{[]byte(country)}
		rows = append(rows, r)
	}
	return rows
}

// TestHeterogeneity: with two values Q is the square of the difference of the
// differences over its standard error. It is corrected over both variants. The rest
// is from R:
//
//	v <- c(1.25*2/99, 1.25*2/39); w <- 1/v; L <- sum((1-w/sum(w))^2/c(198, 78))
//	for (q in c(0.8^2, 0.1^2)/sum(v)) print(c(1/L, pf(q, 1, 1/L, lower.tail=FALSE)))
func TestHeterogeneity(t *testing.T) {
	d := definition("control", "short", "long")
	s := mustStudy(t, d, []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)}, "country")
	rows := slices.Concat(
		spread("control", "DE", 100, 5), spread("short", "DE", 100, 5), spread("long", "DE", 100, 6),
		spread("control", "PL", 40, 5), spread("short", "PL", 40, 5.8), spread("long", "PL", 40, 6.1))
	got := mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0].Heterogeneity
	variance := 1.25*2/99 + 1.25*2/39.0
	short, long := 0.8*0.8/variance, 0.1*0.1/variance
	denominator, pShort, pLong := 142.82750301568154, 0.0083151485666030159, 0.73846733578521784
	twice, one, none := 2*pShort, (short-1)/short, 0.0
	want := []Heterogeneity{
		{Attribute: "country", Variant: "short", Statistic: &short, DegreesOfFreedom: 1, Denominator: &denominator, PValue: &pShort, AdjustedPValue: &twice, Inconsistency: &one},
		{Attribute: "country", Variant: "long", Statistic: &long, DegreesOfFreedom: 1, Denominator: &denominator, PValue: &pLong, AdjustedPValue: &pLong, Inconsistency: &none},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
		t.Errorf("heterogeneity (-want +got):\n%s", diff)
	}
}

// TestSmallestCell: a segment with 19 subjects of some variant shows how many
// there are and nothing else, and is in no family; one with 20 is shown.
func TestSmallestCell(t *testing.T) {
	d := definition("control", "short", "unused")
	s := mustStudy(t, d, []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)}, "country")
	rows := slices.Concat(
		spread("control", "DE", 40, 5), spread("short", "DE", 20, 5.5),
		spread("control", "PL", 20, 5), spread("short", "PL", 20, 6)[:19],
		spread("control", "PT", 4, 5)[:1], spread("short", "PT", 4, 6)[:1],
		spread("control", "SE", 60, 5), spread("short", "SE", 20, 5))
	result := mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0]
	de, pl, se := result.Segments[0], result.Segments[1], result.Segments[3]
	if de.Withheld || se.Withheld || len(de.Comparisons) != 2 || de.Arms[1].Mean == nil {
		t.Errorf("segments with 20 subjects a variant are withheld: %+v", de)
	}
	want := Segment{Attribute: "country", Value: "PL", Withheld: true, Arms: []Arm{
		{Variant: "control", Subjects: 20, Notes: []string{withheldNote}}, {Variant: "short", Subjects: 19, Notes: []string{withheldNote}}, {Variant: "unused", Notes: []string{withheldNote}},
	}}
	if diff := cmp.Diff(want, pl); diff != "" {
		t.Errorf("withheld segment (-want +got):\n%s", diff)
	}
	if p := de.Comparisons[0]; *p.AdjustedPValue != 2**p.PValue {
		t.Errorf("p %v became %v among two shown segments", *p.PValue, *p.AdjustedPValue)
	}
	if h := result.Heterogeneity; h[0].DegreesOfFreedom != 1 || h[1].Statistic != nil || h[1].PValue != nil {
		t.Errorf("heterogeneity %+v", h)
	}

	for smallest, withheld := range map[int32]int{0: 0, 1: 0, 20: 2, 21: 4} {
		d.Plan.SmallestCell = &smallest
		n := 0
		for _, segment := range mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0].Segments {
			if segment.Withheld {
				n++
			}
		}
		if n != withheld {
			t.Errorf("with a smallest cell of %d, %d segments are withheld, want %d", smallest, n, withheld)
		}
	}
}

// TestWithheldTogether: what is withheld of an attribute cannot be told as the
// whole less what is shown, unless it is of the smallest cell or more.
func TestWithheldTogether(t *testing.T) {
	type subjects [2]int // Of control and short.
	for _, tt := range []struct {
		name   string
		values []subjects
		want   []bool
	}{
		{"none is small", []subjects{{40, 20}, {20, 40}}, []bool{false, false}},
		{"one is small, and with the smallest other one", []subjects{{100, 24}, {19, 19}, {40, 40}, {28, 28}}, []bool{true, true, false, false}},
		{"small in one arm", []subjects{{100, 40}, {60, 1}, {40, 44}}, []bool{true, true, false}},
		{"two are small, and enough together", []subjects{{10, 12}, {40, 40}, {10, 8}, {24, 24}}, []bool{true, false, true, false}},
		{"two are small, and too few in one arm", []subjects{{10, 12}, {40, 40}, {10, 7}, {24, 24}}, []bool{true, false, true, true}},
		{"a value without subjects tells nothing", []subjects{{0, 0}, {40, 40}, {24, 24}}, []bool{false, false, false}},
		{"a variant that is not met there", []subjects{{40, 40}, {100, 0}, {60, 60}}, []bool{false, false, false}},
		{"the next smallest has nobody to hide behind", []subjects{{100, 100}, {40, 4}, {60, 0}}, []bool{true, true, false}},
		{"nor in what is small", []subjects{{40, 40}, {19, 0}, {60, 60}}, []bool{true, true, false}},
		{"all", []subjects{{4, 4}, {40, 40}}, []bool{true, true}},
		{"one alone", []subjects{{4, 4}}, []bool{true}},
	} {
		d := definition("control", "short", "unused")
		revenue := Sum("purchase", nil)
		revenue.Window = week
		s := mustStudy(t, d, []Use{use("revenue", revenue, experiment.RolePrimary)}, "country")
		open := row("control", 0) // Its window is, so that it counts for no metric.
		open.FirstExposure, open.Segments = moment.Add(-time.Hour), [][]byte{[]byte("A")}
		rows := []Row{open}
		for i, n := range tt.values {
			country := string(rune('A' + i))
			rows = slices.Concat(rows, spread("control", country, 100, 5)[:n[0]], spread("short", country, 100, 5)[:n[1]])
		}
		var got []bool
		for _, segment := range mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0].Segments {
			got = append(got, segment.Withheld)
			if segment.Withheld == (len(segment.Comparisons) > 0) || segment.Withheld && segment.Arms[0].Mean != nil {
				t.Errorf("%s: %+v", tt.name, segment)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: withheld %v, want %v", tt.name, got, tt.want)
		}
	}
}

// balanceRows are 400 rows of two variants with a past spend and visits.
func balanceRows(tilt float64) []Row {
	var rows []Row
	for i := range 400 {
		r := row([]string{"control", "short"}[i%2], float64(i*37%101), float64(i*11%17))
		r.AttributeNumbers = []float64{float64(i*53%29) + tilt*float64(i%2)}
		if i%10 == 3 {
			r.AttributeNumbers[0] = math.NaN()
		}
		rows = append(rows, r)
	}
	return rows
}

// TestBalance: a covariate that was different before exposure is found, among
// those that have it, and said; one that is not is left in peace.
func TestBalance(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{
		use("plain", Sum("purchase", nil), experiment.RolePrimary),
		use("revenue", Sum("purchase", nil), experiment.RoleSecondary, "visits", "spend"),
		use("again", Proportion("purchase", nil), experiment.RoleSecondary, "spend"),
	})
	warning := func(a *Analysis) bool {
		return slices.ContainsFunc(a.Warnings, func(w string) bool { return strings.HasPrefix(w, `Covariate "spend" was out of balance`) })
	}
	for _, tt := range []struct {
		tilt   float64
		warned bool
	}{{0, false}, {5, true}} {
		rows := balanceRows(tt.tilt)
		for i := range rows {
			rows[i].Values = []float64{rows[i].Values[0], rows[i].Values[1], 1}
		}
		a := mustAnalyze(t, s, fold(s, rows...), 0)
		if len(a.Balance) != 3 || a.Balance[0].Covariate != "spend" || a.Balance[2].Covariate != "visits" || a.Balance[0].Variant != "short" || !a.Balance[1].Missing {
			t.Fatalf("balance %+v", a.Balance)
		}
		if warning(a) != tt.warned {
			t.Errorf("tilt %v: warnings %q", tt.tilt, a.Warnings)
		}
		// Every fifth subject of the treatment lacks it, and none of the control.
		if !slices.ContainsFunc(a.Warnings, func(w string) bool { return strings.HasPrefix(w, `Covariate "spend" is missing more often`) }) {
			t.Errorf("nothing is said of what is missing: warnings %q", a.Warnings)
		}
		var sums, squares, n [2]float64
		for i, r := range rows {
			if x := r.AttributeNumbers[0]; !math.IsNaN(x) {
				sums[i%2], squares[i%2], n[i%2] = sums[i%2]+x, squares[i%2]+x*x, n[i%2]+1
			}
		}
		var means, variances [2]float64
		for v := range means {
			means[v] = sums[v] / n[v]
			variances[v] = (squares[v] - n[v]*means[v]*means[v]) / (n[v] - 1)
		}
		want(t, "standardised difference", a.Balance[0].StandardizedDifference, (means[1]-means[0])/math.Sqrt((variances[0]+variances[1])/2), 1e-9)
		var adjusted []float64
		for _, b := range a.Balance {
			adjusted = append(adjusted, *b.PValue)
		}
		order := []int{0, 1, 2}
		slices.SortFunc(order, func(i, j int) int { return int(math.Copysign(1, adjusted[i]-adjusted[j])) })
		for k, i := range order {
			adjusted[i] *= float64(3 - k)
			if k > 0 {
				adjusted[i] = max(adjusted[i], adjusted[order[k-1]])
			}
		}
		for i := range adjusted {
			want(t, "adjusted p-value of "+a.Balance[i].Covariate, a.Balance[i].AdjustedPValue, min(1, adjusted[i]), 1e-12)
		}
	}
	if a := mustAnalyze(t, s, fold(s), 0); len(a.Balance) != 2 || a.Balance[0].PValue != nil {
		t.Errorf("without subjects: %+v", a.Balance)
	}
}
