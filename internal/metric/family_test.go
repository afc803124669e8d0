package metric

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/stats"
)

// fourArms are summaries of a control and three treatments around effects.
func fourArms(r *rand.Rand, effects ...float64) Summaries {
	s := Summaries{Components: []string{"x"}, Plan: definition("control", "short").Plan}
	for i, effect := range append([]float64{0}, effects...) {
		s.Arms = append(s.Arms, SummaryArm{
			Variant: string(rune('a' + i)), Control: i == 0,
			Strata: []SummaryStratum{{Subjects: int64(200 + r.IntN(300)), Means: []float64{5 + effect + 0.1*r.NormFloat64()}, Covariances: []float64{2 + r.Float64()}}},
		})
	}
	return s
}

// TestAdjustedIntervals: by Bonferroni the level of each of three, and by Benjamini and
// Yekutieli twice its error rate where two are significant, from R:
//
//	n <- c(400, 300, 350, 500); m <- c(5, 5.3, 5.35, 5.05); v <- c(2, 2.5, 1.8, 2.2)
//	for (k in 2:4) for (a in c(0.05/3, 2*0.05/3)) { i <- c(1, k); s <- v[i]/n[i]
//	  pooled <- sum(v[i]*(n[i]-1))/(sum(n[i])-2)*sum(1/n[i]); df <- sum(s)^2/sum(s^2/(n[i]-1))
//	  print(m[k]-m[1] + c(-1,1)*qt(1-a/2, df)*sqrt(max(sum(s), pooled)), 17) }
func TestAdjustedIntervals(t *testing.T) {
	s := Summaries{Components: []string{"x"}, Plan: definition("control", "short").Plan}
	for i, n := range []int64{400, 300, 350, 500} {
		s.Arms = append(s.Arms, SummaryArm{
			Variant: string(rune('a' + i)), Control: i == 0,
			Strata: []SummaryStratum{{Subjects: n, Means: []float64{[]float64{5, 5.3, 5.35, 5.05}[i]}, Covariances: []float64{[]float64{2, 2.5, 1.8, 2.2}[i]}}},
		})
	}
	for correction, bounds := range map[experiment.Correction][3][2]float64{
		experiment.CorrectionHolm:              bonferroni,
		experiment.CorrectionBonferroni:        bonferroni,
		experiment.CorrectionBenjaminiHochberg: yekutieli,
	} {
		s.Plan.Correction = correction
		got, err := s.Compare()
		if err != nil {
			t.Fatal(err)
		}
		for k, c := range got.Comparisons {
			if c.AdjustedDifference.Lower == nil || c.AdjustedLift.Lower == nil {
				t.Fatalf("%s: %+v", correction, c)
			}
			want(t, fmt.Sprint(correction, " lower of ", c.Variant), c.AdjustedDifference.Lower, bounds[k][0], 1e-9)
			want(t, fmt.Sprint(correction, " upper of ", c.Variant), c.AdjustedDifference.Upper, bounds[k][1], 1e-9)
			if *c.AdjustedDifference.Estimate != *c.Difference.Estimate || *c.AdjustedLift.Lower >= *c.Lift.Lower {
				t.Errorf("%s of %s: %+v beside %+v", correction, c.Variant, c.AdjustedLift, c.Lift)
			}
		}
	}
	// A family of one has no other interval.
	s.Arms = s.Arms[:2]
	got, err := s.Compare()
	if err != nil {
		t.Fatal(err)
	}
	if c := got.Comparisons[0]; c.AdjustedDifference != (Interval{}) || c.AdjustedLift != (Interval{}) {
		t.Errorf("one comparison, and %+v", c.AdjustedDifference)
	}
}

var (
	bonferroni = [3][2]float64{
		{0.022793293686546312, 0.57720670631345339}, {0.10750042257920581, 0.59249957742079351}, {-0.18378933185389346, 0.28378933185389310},
	}
	yekutieli = [3][2]float64{
		{0.053709843541885571, 0.54629015645811407}, {0.13452576064105076, 0.56547423935894847}, {-0.15774708032613285, 0.25774708032613247},
	}
)

// TestAdjustedIntervalsImplySignificance: where a corrected interval excludes what is
// tested against the comparison is significant, for every objective, method and
// correction.
func TestAdjustedIntervalsImplySignificance(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	excluding := 0
	for range 300 {
		for _, alternative := range []stats.Alternative{stats.TwoSided, stats.Greater, stats.Less, stats.Equivalent} {
			for _, scale := range []stats.Scale{stats.Absolute, stats.Relative} {
				method := []experiment.Method{experiment.MethodFixedHorizon, experiment.MethodAlwaysValid, experiment.MethodGroupSequential}[r.IntN(3)]
				s := fourArms(r, 0.3*r.NormFloat64(), 0.3*r.NormFloat64(), 0.3*r.NormFloat64())
				s.Plan.Method, s.Plan.PlannedSubjects = method, 1500
				s.Plan.Correction = []experiment.Correction{experiment.CorrectionHolm, experiment.CorrectionBonferroni, experiment.CorrectionBenjaminiHochberg}[r.IntN(3)]
				s.Alternative, s.Margin = alternative, stats.Margin{Scale: scale}
				if method == experiment.MethodGroupSequential {
					s.Looks, s.Plan.Spending = []float64{0.5, 1}, experiment.SpendingPocock
				}
				if s.Margin.Value = 0.05 * r.Float64(); alternative == stats.Equivalent {
					s.Margin.Value = 0.05 + 0.1*r.Float64()
				}
				if scale == stats.Absolute {
					s.Margin.Value *= 5
				}
				got, err := s.Compare()
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range got.Comparisons {
					wide := Comparison{Difference: c.AdjustedDifference, Lift: c.AdjustedLift}
					judge := contest{test: stats.Test{Alternative: alternative}, margin: s.Margin}
					if !judge.excludesMargin(&wide) {
						continue
					}
					excluding++
					if !c.Significant {
						t.Errorf("%s by %s, alternative %d, margin %+v: not significant at an adjusted p of %v, but %+v", method, s.Plan.Correction, alternative, s.Margin, *c.AdjustedPValue, c.AdjustedDifference)
					}
				}
			}
		}
	}
	if excluding < 500 {
		t.Errorf("%d corrected intervals exclude the margin: the data are not what this test needs", excluding)
	}
}

// TestWiderIntervalWithoutBounds says that it has none.
func TestWiderIntervalWithoutBounds(t *testing.T) {
	x, y := 1.0, 2.0
	now := Interval{Estimate: &x}
	for _, tt := range []struct{ wider, want Interval }{
		{Interval{Estimate: &y}, Interval{}},
		{Interval{Estimate: &y, Unbounded: true}, Interval{Estimate: &x, Unbounded: true}},
		{Interval{Estimate: &y, Lower: &y}, Interval{Estimate: &x, Lower: &y}},
		{Interval{Estimate: &y, Upper: &y}, Interval{Estimate: &x, Upper: &y}},
	} {
		for _, lift := range []bool{false, true} {
			comparisons, wider := []Comparison{{AdjustedRate: 0.01, Difference: now, Lift: now}}, Comparison{Difference: tt.wider}
			want := [2]Interval{tt.want, {}}
			if lift {
				wider, want = Comparison{Lift: tt.wider}, [2]Interval{{}, tt.want}
			}
			err := widen(comparisons, func(float64) ([]Comparison, error) { return []Comparison{wider}, nil })
			if got := [2]Interval{comparisons[0].AdjustedDifference, comparisons[0].AdjustedLift}; err != nil || got != want {
				t.Errorf("%+v, want %+v, %v", got, want, err)
			}
		}
	}
}

// TestFamiliesOfTests: those without a p-value are tests where the plan counts them, and
// not where it does not; of one test there is no family.
func TestFamiliesOfTests(t *testing.T) {
	plan := definition("control", "short").Plan
	plan.Correction = experiment.CorrectionBonferroni
	for _, tt := range []struct{ tests, without, planned, want int }{{2, 1, 0, 2}, {2, 1, 3, 3}, {2, 0, 5, 5}, {1, 2, 0, 0}, {1, 0, 1, 0}} {
		var family []*Comparison
		for range tt.tests {
			p := 0.001
			family = append(family, &Comparison{PValue: &p})
		}
		for range tt.without {
			family = append(family, new(Comparison))
		}
		if err := correct(&plan, family, tt.planned); err != nil {
			t.Fatal(err)
		}
		rate := 0.0
		if tt.want > 0 {
			rate = (1 - plan.ConfidenceLevel) / float64(tt.want)
		}
		for i, c := range family {
			if c.AdjustedRate != rate || (c.AdjustedPValue == nil) != (i >= tt.tests) || c.Significant != (i < tt.tests) {
				t.Errorf("%+v: rate %v, want %v; adjusted %v, significant %t", tt, c.AdjustedRate, rate, c.AdjustedPValue, c.Significant)
			}
		}
	}
}

// TestWiderIntervalsOfSegments: each of those of two attributes is wider than its own.
func TestWiderIntervalsOfSegments(t *testing.T) {
	s := mustStudy(t, definition("control", "short"), []Use{use("revenue", Sum("purchase", nil), experiment.RolePrimary)}, "country", "device")
	r := rand.New(rand.NewPCG(3, 9))
	var rows []Row
	for i := range 1200 {
		country, device := r.IntN(3), r.IntN(2)
		one := row([]string{"control", "short"}[i%2], r.NormFloat64()+float64(i%2*(10*country+100*device)))
		one.Segments = [][]byte{[]byte([]string{"DE", "FR", "PL"}[country]), []byte([]string{"desktop", "phone"}[device])}
		rows = append(rows, one)
	}
	segments := mustAnalyze(t, s, fold(s, rows...), 0).Metrics[0].Segments
	if len(segments) != 5 {
		t.Fatalf("%d segments", len(segments))
	}
	for _, segment := range segments {
		c := &segment.Comparisons[0]
		now, wider := c.Difference, c.AdjustedDifference
		if c.AdjustedRate != (1-s.definition.Plan.ConfidenceLevel)/5 || *wider.Estimate != *now.Estimate {
			t.Fatalf("%s: rate %v, estimate %v", segment.Value, c.AdjustedRate, *wider.Estimate)
		}
		ratio := (*wider.Upper - *wider.Lower) / (*now.Upper - *now.Lower)
		if *wider.Lower >= *now.Lower || *wider.Upper <= *now.Upper || ratio > 1.6 {
			t.Errorf("%s: %v to %v, and of the family %v to %v", segment.Value, *now.Lower, *now.Upper, *wider.Lower, *wider.Upper)
		}
	}
}
