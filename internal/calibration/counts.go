package calibration

import (
	"math/rand/v2"
	"slices"

	"github.com/assayhq/assay/internal/stats"
)

// brokenShare is the control's share of the subjects where the split is broken,
// of two arms that should be alike.
const brokenShare = 0.47

// sampleRatios tries the tests of the sample ratio. Their false positives are of
// splits that hold, their power of such that are broken.
func (c Config) sampleRatios() ([]Row, error) {
	tests := []struct {
		name string
		p    func(stats.Split) (*float64, error)
	}{
		{"chi-square", func(s stats.Split) (*float64, error) {
			r, err := stats.CheckSampleRatio(s)
			return r.PValue, err
		}},
		{"sequential multinomial", func(s stats.Split) (*float64, error) { return stats.SequentialSampleRatio(s) }},
	}
	var rows []Row
	for _, test := range tests {
		for _, looks := range []Looks{Once, Ten, Often} {
			row := Row{Metric: "sample ratio", Method: test.name, Looks: looks}
			if looks == Once || test.name != "chi-square" {
				row.Promise.FalsePositives = mostFalse
			}
			for i := range c.Experiments {
				rng := rand.New(rand.NewPCG(c.Seed, 1<<40|uint64(i)))
				share := 0.5
				if i%2 == 1 {
					share = brokenShare
				}
				found, subjects := false, [2]int64{}
				for _, n := range looks.at(c.Subjects) {
					for subjects[0]+subjects[1] < int64(n) {
						if rng.Float64() < share {
							subjects[0]++
						} else {
							subjects[1]++
						}
					}
					p, err := test.p(stats.Split{Observed: subjects[:], Weights: []float64{1, 1}})
					if err != nil {
						return nil, err
					}
					found = found || p != nil && *p <= alpha
				}
				if share == 0.5 {
					row.FalsePositives.add(found)
				} else {
					row.Power.add(found)
				}
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

const (
	// familySize is how many metrics a family has, and familyEffects how many of
	// them have an effect, in the families that have one.
	familySize    = 6
	familyEffects = 3
	// familyArm is the subjects of an arm, and familyEffect the effect in standard
	// deviations, which is three standard errors.
	familyArm    = 100
	familyEffect = 0.42
)

// families tries corrections on families of independent normal metrics. A false
// positive is a family in which a metric without effect is found, and power is of
// finding any that has one.
func (c Config) families() ([]Row, error) {
	corrections := []struct {
		name string
		stats.Correction
		promised bool
		// strong says that the promise holds for the metrics without effect also
		// where others have one, and not only where none has.
		strong bool
	}{
		{"no correction", stats.NoCorrection, false, false},
		{"Bonferroni", stats.Bonferroni, true, true},
		{"Holm", stats.Holm, true, true},
		{"Benjamini–Hochberg", stats.BenjaminiHochberg, true, false},
	}
	rows := make([]Row, len(corrections))
	for k, correction := range corrections {
		rows[k] = Row{Metric: "family of six metrics", Method: correction.name, Looks: Once}
		if correction.promised {
			rows[k].Promise.FalsePositives = mostFalse
		}
	}
	for i := range c.Experiments {
		effects := i % 2 * familyEffects
		p, err := family(rand.New(rand.NewPCG(c.Seed, 2<<40|uint64(i))), effects)
		if err != nil {
			return nil, err
		}
		for k, correction := range corrections {
			adjusted, err := correction.Adjust(p)
			if err != nil {
				return nil, err
			}
			if effects == 0 || correction.strong {
				rows[k].FalsePositives.add(anyFound(adjusted[effects:]))
			}
			if effects > 0 {
				rows[k].Power.add(anyFound(adjusted[:effects]))
			}
		}
	}
	return rows, nil
}

// family returns the p-values of one family, those with an effect first.
func family(rng *rand.Rand, effects int) ([]*float64, error) {
	p := make([]*float64, familySize)
	for m := range p {
		arms := [2]stats.Moments{stats.NewMoments(1), stats.NewMoments(1)}
		for n := range 2 * familyArm {
			x := rng.NormFloat64()
			if n%2 == 1 && m < effects {
				x += familyEffect
			}
			arms[n%2].Add([]float64{x})
		}
		result, err := stats.Compare(stats.Request{
			Formula: stats.ComponentMean(0), Arms: []stats.Arm{{Strata: arms[:1]}, {Strata: arms[1:]}},
			Test: stats.Test{Method: stats.FixedHorizon, ConfidenceLevel: 1 - alpha},
		})
		if err != nil {
			return nil, err
		}
		p[m] = result.Comparisons[0].Unadjusted.PValue
	}
	return p, nil
}

func anyFound(p []*float64) bool {
	return slices.ContainsFunc(p, func(p *float64) bool { return p != nil && *p <= alpha })
}
