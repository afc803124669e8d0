package calibration

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/metric"
	"github.com/assayhq/assay/internal/stats"
)

// driftDays is how many days a drifting effect is watched.
const driftDays = 40

// courses are effects that are another on each day of entry.
var courses = []struct {
	name   string
	perDay int
	effect func(day int) float64
}{
	{"constant 0.08", 250, func(int) float64 { return 0.08 }},
	{"0.3, none after 8 days", 250, func(day int) float64 { return 0.3 * indicator(day < 8) }},
	{"fading from 0.3", 250, func(day int) float64 { return 0.3 * math.Exp(-float64(day)/10) }},
	{"0.25, -0.15 after 10 days", 250, func(day int) float64 {
		if day < 10 {
			return 0.25
		}
		return -0.15
	}},
	{"rising to 0.3", 1000, func(day int) float64 { return 0.3 * float64(day) / (driftDays - 1) }},
	{"none, 0.4 after 15 days", 1000, func(day int) float64 { return 0.4 * indicator(day >= 15) }},
	{"0.1 ± 0.15 by week", 1000, func(day int) float64 {
		if day/7%2 == 0 {
			return 0.25
		}
		return -0.05
	}},
}

// drifts is always-valid intervals of the average effect so far, at the end of each
// day.
func drifts() []Cell {
	var cells []Cell
	for _, course := range courses {
		c := Cell{
			Group: "drifting effect", Design: fmt.Sprintf("%s, %d a day", course.name, course.perDay),
			Methods: methods(decided, "always valid, 40 days"), parts: [2]bool{true, true},
		}
		c.start = func() simulation {
			request := stats.Request{
				Formula: stats.ComponentMean(0), Arms: make([]stats.Arm, 2),
				Test: stats.Test{Method: stats.AlwaysValid, ConfidenceLevel: 1 - alpha, PlannedSubjects: int64(driftDays * course.perDay)},
			}
			return func(rng *rand.Rand, effect bool, seen []sight) error {
				for a := range request.Arms {
					request.Arms[a].Strata = []stats.Moments{stats.NewMoments(1)}
				}
				sum, x := 0.0, make([]float64, 1)
				for day := range driftDays {
					shift := 0.0
					if effect {
						shift = course.effect(day)
					}
					sum += shift
					for n := range course.perDay {
						x[0] = rng.NormFloat64() + shift*float64(n%2)
						request.Arms[n%2].Strata[0].Add(x)
					}
					result, err := stats.Compare(request)
					if err != nil {
						return err
					}
					seen[0].look(&result.Comparisons[0].Unadjusted, sum/float64(day+1))
				}
				return nil
			}
		}
		cells = append(cells, c)
	}
	return cells
}

// decisions is what is decided of a drifting effect at the end, by an analysis that
// knows of all days.
func decisions() []Cell {
	const perDay = 50
	var cells []Cell
	for _, course := range courses {
		c := Cell{
			Group: "drifting effect, decided", Design: fmt.Sprintf("%s, %d a day", course.name, perDay),
			Methods: methods(decided, "always valid, at the end"), parts: [2]bool{true, true},
		}
		c.start = func() simulation {
			study := studyOf(experiment.MethodAlwaysValid, 1)
			rows, values := make([]metric.Row, driftDays*perDay), make([]float64, driftDays*perDay)
			return func(rng *rand.Rand, effect bool, seen []sight) error {
				sum := 0.0
				for day := range driftDays {
					shift := 0.0
					if effect {
						shift = course.effect(day)
					}
					sum += shift
					for n := range perDay {
						i := day*perDay + n
						values[i] = rng.NormFloat64() + shift*float64(n%2)
						rows[i] = metric.Row{
							Variant: []byte([]string{"control", "treatment"}[n%2]), Phase: 2,
							FirstExposure: at(float64(day) + rng.Float64()), Values: values[i : i+1],
						}
					}
				}
				return seen[0].analyze(study, rows, at(driftDays+1), sum/driftDays)
			}
		}
		cells = append(cells, c)
	}
	return cells
}

// heterogeneities is tests of whether an effect differs between groups of subjects,
// where it does not.
func heterogeneities() []Cell {
	var cells []Cell
	for _, d := range []struct{ groups, subjects int }{{2, 20}, {5, 20}, {20, 20}, {20, 100}} {
		for _, exponential := range []bool{false, true} {
			name := "normal"
			if exponential {
				name = "exponential"
			}
			c := Cell{
				Group: "heterogeneity", Design: fmt.Sprintf("%d groups, %d subjects a cell, %s", d.groups, d.subjects, name),
				Methods: methods(Promise{FalsePositives: mostFalse, Reason: reasonLight}, "fixed horizon, Cochran", "always valid, Cochran"),
				parts:   [2]bool{true, false},
			}
			c.start = func() simulation {
				x := make([]float64, 1)
				return func(rng *rand.Rand, _ bool, seen []sight) error {
					effects := make([][]stats.Effect, len(seen))
					for range d.groups {
						arms := make([]stats.Arm, 2)
						for a := range arms {
							m := stats.NewMoments(1)
							for range d.subjects {
								if x[0] = rng.NormFloat64(); exponential {
									x[0] = rng.ExpFloat64()
								}
								m.Add(x)
							}
							arms[a].Strata = []stats.Moments{m}
						}
						for m, method := range []stats.Method{stats.FixedHorizon, stats.AlwaysValid} {
							result, err := stats.Compare(stats.Request{
								Formula: stats.ComponentMean(0), Arms: arms, Test: stats.Test{Method: method, ConfidenceLevel: 1 - alpha},
							})
							if err != nil {
								return err
							}
							effects[m] = append(effects[m], result.Comparisons[0].Unadjusted.Difference)
						}
					}
					for m := range seen {
						h := stats.CheckHeterogeneity(effects[m])
						seen[m].found = h.PValue != nil && *h.PValue <= alpha
					}
					return nil
				}
			}
			cells = append(cells, c)
		}
	}
	return cells
}
