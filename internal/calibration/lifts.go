package calibration

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/assayhq/assay/internal/stats"
)

// linear is arms in which the metric follows covariates, in each by its own slopes.
type linear struct {
	name       string
	lift       float64
	arms       []linearArm // The control first.
	mean, unit float64     // Of every covariate: its mean and its deviation.
	strata     int
}

type linearArm struct {
	subjects int
	slopes   []float64
	noise    float64
}

// linearBase is the control's mean.
const linearBase = 10

// lifts is lifts of dense means with covariates, where arms have different slopes.
func lifts() []Cell {
	var cells, margins []Cell
	for _, d := range []linear{
		{"slopes 4 and 9, lift +100 %", 1, []linearArm{{2000, []float64{4}, 1}, {2000, []float64{9}, 1}}, 2, 1, 1},
		{"slopes 1 and 6, 1:6, lift +100 %", 1, []linearArm{{500, []float64{1}, 1}, {3000, []float64{6}, 1}}, 2, 1, 1},
		{"slopes 6 and 1, 6:1, lift -50 %", -0.5, []linearArm{{3000, []float64{6}, 1}, {500, []float64{1}, 1}}, 2, 1, 1},
		{"two covariates, 3:1, lift +60 %", 0.6, []linearArm{{3000, []float64{5, 1}, 1}, {1000, []float64{1, 4}, 1}}, 2, 1, 1},
		{"slopes 1 and 0.5, 300 an arm, lift +50 %", 0.5, []linearArm{{300, []float64{1}, 0.5}, {300, []float64{0.5}, 0.5}}, 10, 3, 1},
		{"slopes 1 and 1.5, 300 an arm, lift +50 %", 0.5, []linearArm{{300, []float64{1}, 0.5}, {300, []float64{1.5}, 0.75}}, 10, 3, 1},
		{"slopes 1 and 1.5, 300 an arm, lift -25 %", -0.25, []linearArm{{300, []float64{1}, 0.5}, {300, []float64{1.5}, 0.5}}, 10, 3, 1},
		{"slopes 4, 9 and 1 in three arms, lift +100 %", 1, []linearArm{{1000, []float64{4}, 1}, {1000, []float64{9}, 1}, {2000, []float64{1}, 1}}, 2, 1, 1},
		{"slopes 4 and 9 in 5 strata, lift +100 %", 1, []linearArm{{1000, []float64{4}, 1}, {1000, []float64{9}, 1}}, 2, 1, 5},
	} {
		s := d.sample()
		cells = append(cells, s.cell("lift with covariates", d.name, light))
		s.request.Margin = stats.Margin{Scale: stats.Relative, Value: d.lift}
		c := s.cell("lift against a margin", d.name, Promise{FalsePositives: mostFalse, Reason: reasonLight})
		c.parts, c.atMargin = [2]bool{false, true}, true
		margins = append(margins, c)
	}
	return append(cells, margins...)
}

func (d *linear) sample() sample {
	covariates := len(d.arms[0].slopes)
	s := sample{dim: 1 + covariates, strata: d.strata, judges: fewer, difference: linearBase * d.lift, lift: d.lift}
	s.request.Formula = stats.ComponentMean(0)
	for i := range covariates {
		s.request.Covariates = append(s.request.Covariates, 1+i)
	}
	for _, a := range d.arms {
		s.subjects = append(s.subjects, a.subjects)
	}
	s.draw = func(rng *rand.Rand, arm, n int, effect bool, strata []stats.Moments) {
		x, lift := make([]float64, 1+covariates), 0.0
		if effect && arm == 1 {
			lift = d.lift
		}
		for range n {
			stratum := 0
			if len(strata) > 1 {
				stratum = rng.IntN(len(strata))
			}
			// Strata differ in the metric and in the covariates, around the same means.
			place := float64(stratum) - float64(len(strata)-1)/2
			x[0] = (linearBase+place)*(1+lift) + d.arms[arm].noise*rng.NormFloat64()
			before := 0.0
			for i, slope := range d.arms[arm].slopes {
				z := rng.NormFloat64()
				x[1+i] = d.unit*(z+0.5*before) + place
				x[0] += slope * (x[1+i] - place)
				x[1+i] += d.mean
				before = z
			}
			strata[stratum].Add(x)
		}
	}
	return s
}

// weakBaselines is lifts over a control that is not many standard errors away from
// zero.
func weakBaselines() []Cell {
	var cells []Cell
	for _, errors := range []float64{3, 5, 10} {
		for _, uneven := range []int{1, 9} {
			for _, lift := range []float64{-0.3, 0.2, 0.5} {
				subjects := split(2000, uneven)
				deviation := math.Sqrt(float64(subjects[0])) / errors
				s := sample{dim: 1, subjects: subjects, judges: fewer, difference: lift, lift: lift}
				s.request.Formula = stats.ComponentMean(0)
				s.draw = func(rng *rand.Rand, arm, n int, effect bool, strata []stats.Moments) {
					mean := 1.0
					if effect && arm > 0 {
						mean += lift
					}
					for range n {
						strata[0].Add([]float64{mean + deviation*rng.NormFloat64()})
					}
				}
				cells = append(cells, s.cell("lift over a weak baseline", fmt.Sprintf("control %g standard errors from 0, 1:%d, lift %+g %%", errors, uneven, 100*lift), light))
			}
		}
	}
	return cells
}
