package calibration

import (
	"math/rand/v2"
	"sync"

	"github.com/assayhq/assay/internal/stats"
)

// looks is how often those look that look more than once, after equal shares of the
// subjects.
const looks = 10

// sample is a design in which two arms or more are compared, the control first, as
// subjects come.
type sample struct {
	request  stats.Request // Without arms and test, but for the alternative.
	dim      int           // How many components a subject has.
	subjects []int         // By arm, at the end.
	strata   int
	// draw adds n subjects to an arm's strata.
	draw func(rng *rand.Rand, arm, n int, effect bool, strata []stats.Moments)
	// difference and lift are the true effect where there is one, of the first
	// treatment.
	difference, lift float64
	events           int // How many subjects are expected to inform the metric; 0 for all.
	judges           []watch
}

// watch is a method that looks at a sample.
type watch struct {
	method string
	looks  int // After equal shares of the subjects: a divisor of looks.
	tests  func() []stats.Test
}

// number is which look of the watch one of the looks is, from 0; ok is false if it is
// none.
func (w *watch) number(look int) (number int, ok bool) {
	every := looks / w.looks
	return (look+1)/every - 1, (look+1)%every == 0
}

// The methods by which an analysis is made that claim their error rate.
var (
	fixedOnce  = watch{"fixed horizon", 1, alike(stats.FixedHorizon, 1)}
	alwaysTen  = watch{"always valid, 10 looks", looks, alike(stats.AlwaysValid, looks)}
	obrienFive = watch{"O'Brien–Fleming, 5 looks", 5, scheduled(stats.OBrienFleming, 5)}
	pocockFive = watch{"Pocock, 5 looks", 5, scheduled(stats.Pocock, 5)}

	promising = []watch{fixedOnce, alwaysTen, obrienFive, pocockFive}
	// fewer are enough where the two schedules have nothing to tell apart.
	fewer = []watch{fixedOnce, alwaysTen, obrienFive}
)

// alike is the same test at every look.
func alike(method stats.Method, looks int) func() []stats.Test {
	return func() []stats.Test {
		tests := make([]stats.Test, looks)
		for i := range tests {
			tests[i] = stats.Test{Method: method, ConfidenceLevel: 1 - alpha}
		}
		return tests
	}
}

// scheduled is the group-sequential tests of so many looks, made once: where equal
// shares of the subjects come between looks, their number does not matter.
func scheduled(spending stats.Spending, looks int) func() []stats.Test {
	return sync.OnceValue(func() []stats.Test {
		tests, err := sequential(spending, looks, looks)
		if err != nil {
			panic(err) // Equal looks are a schedule.
		}
		return tests
	})
}

// cell is the sample as a cell of a group.
func (s sample) cell(group, design string, promise Promise) Cell {
	if s.judges == nil {
		s.judges = promising
	}
	s.strata = max(s.strata, 1)
	c := Cell{Group: group, Design: design, parts: [2]bool{true, true}, start: s.start, sample: &s}
	for _, j := range s.judges {
		names := []string{j.method}
		if len(s.request.Covariates) > 0 {
			names = append(names, j.method+", with covariates")
		}
		held := promise
		if s.events/j.looks < held.FromEvents {
			held.Coverage = 0
		}
		c.Methods = append(c.Methods, methods(held, names...)...)
	}
	return c
}

// start prepares a simulation.
func (s *sample) start() simulation {
	total := 0
	for _, n := range s.subjects {
		total += n
	}
	tests := make([][]stats.Test, len(s.judges))
	for j := range s.judges {
		tests[j] = append([]stats.Test(nil), s.judges[j].tests()...)
		for i := range tests[j] {
			tests[j][i].Alternative = s.request.Test.Alternative
			if tests[j][i].Method == stats.AlwaysValid {
				tests[j][i].PlannedSubjects = int64(total)
			}
		}
	}
	return func(rng *rand.Rand, effect bool, seen []sight) error {
		request := s.request
		request.Arms = make([]stats.Arm, len(s.subjects))
		for a := range request.Arms {
			request.Arms[a].Strata = make([]stats.Moments, s.strata)
			for k := range request.Arms[a].Strata {
				request.Arms[a].Strata[k] = stats.NewMoments(s.dim)
			}
		}
		difference, lift := 0.0, 0.0
		if effect {
			difference, lift = s.difference, s.lift
		}
		for look := range looks {
			for a, n := range s.subjects {
				s.draw(rng, a, n*(look+1)/looks-n*look/looks, effect, request.Arms[a].Strata)
			}
			at := 0
			for j := range s.judges {
				number, looking := s.judges[j].number(look)
				if !looking {
					at += 1 + min(1, len(request.Covariates))
					continue
				}
				request.Test = tests[j][number]
				result, err := stats.Compare(request)
				if err != nil {
					return err
				}
				pair := &result.Comparisons[0]
				for _, c := range []*stats.Comparison{&pair.Unadjusted, pair.Adjusted} {
					if c != nil {
						seen[at].look(c, difference)
						seen[at].lookAtLift(c, lift)
						at++
					}
				}
			}
		}
		return nil
	}
}

// look takes in one look of an experiment with a true difference.
func (o *sight) look(c *stats.Comparison, difference float64) {
	if c.PValue != nil && *c.PValue <= alpha {
		o.found = true
		if e := c.Difference.Estimate; e != nil && *e*difference < 0 {
			o.wrong = true
		}
	}
	o.shown = o.shown || c.Difference.Lower != nil || c.Difference.Upper != nil
	miss(c.Difference.Lower, c.Difference.Upper, difference, &o.below, &o.above)
}

// lookAtLift takes in the lift.
func (o *sight) lookAtLift(c *stats.Comparison, lift float64) {
	o.liftShown = o.liftShown || c.Lift.Lower != nil || c.Lift.Upper != nil || c.Lift.Unbounded
	o.unbounded = o.unbounded || c.Lift.Unbounded
	miss(c.Lift.Lower, c.Lift.Upper, lift, &o.liftBelow, &o.liftAbove)
}

// miss notes on which side the truth lies of an interval that misses it, unless an
// earlier one did. A bound that is absent holds everything.
func miss(lower, upper *float64, truth float64, below, above *bool) {
	switch {
	case *below || *above:
	case lower != nil && truth < *lower:
		*below = true
	case upper != nil && truth > *upper:
		*above = true
	}
}
