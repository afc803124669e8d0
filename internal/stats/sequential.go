package stats

import (
	"fmt"
	"math"
	"sync"
)

// A Spending says how a group-sequential test spreads its error rate over the
// looks. It is the α(t) of Lan and DeMets (1983), Discrete sequential boundaries
// for clinical trials, on each side of a two-sided test with half of the rate,
// as R's rpact has them (typeOfDesign "asOF" and "asP").
type Spending int

const (
	// OBrienFleming spends little at early looks: 2 − 2Φ(z(1 − α/2)/√t).
	OBrienFleming Spending = iota + 1
	// Pocock spends about alike at all looks: α ln(1 + (e − 1)t).
	Pocock
)

// Spent is the error rate spent up to a time, of a test at level 1 − alpha.
func (s Spending) Spent(alpha, time float64, alternative Alternative) float64 {
	if alternative == TwoSided {
		return 2 * s.side(alpha/2, time)
	}
	return s.side(alpha, time)
}

// side is what one side of a test spends of its rate up to a time.
func (s Spending) side(rate, time float64) float64 {
	switch {
	case time >= 1:
		return rate
	case s == Pocock:
		return rate * math.Log1p((math.E-1)*time)
	}
	return 2 * normalUpperTail(normalUpperQuantile(rate/2)/math.Sqrt(time))
}

const (
	// leastGrowth is by what share a look has to add to the one before to count.
	// Less is not worth a look, and boundaries of looks that are close together
	// are long to compute.
	leastGrowth = 1e-3
	// leastChance is the chance of crossing, on one side, below which a look has
	// no boundary: it could not be written.
	leastChance = 1e-300
)

// A Look is one look of a group-sequential test. Its time and its information
// differ where the rate is spent by something else than what the estimate rests
// on (Lan and DeMets 1989, Group sequential procedures: calendar versus
// information time).
type Look struct {
	// Time decides how much of the error rate has been spent: the share of what
	// was planned. From 1 on all of it has.
	Time float64
	// Information is what the estimate then rests on, in any unit, such as the
	// number of subjects.
	Information float64
}

// A Schedule is the looks of a group-sequential test up to the present one, at
// whatever level it is made. It is immutable, computes its boundaries once for
// all estimates that it judges, and may be used by several goroutines.
type Schedule struct {
	spending Spending
	looks    []Look // Those that count, the present one last.
	idle     bool   // Whether the present one does not count.
	oneSided func() *curve
	twoSided func() *curve
}

// NewSchedule returns the schedule of looks, the present one last. Their times
// have to be above 0 and rise, and only the last may be 1 or more. A look at
// which time or information has not [Grown] spends nothing and judges nothing. The
// error is an [InvalidError], or several joined.
func NewSchedule(spending Spending, looks []Look) (*Schedule, error) {
	var f faults
	if spending != OBrienFleming && spending != Pocock {
		f.add("spending", "spending %d is not known", spending)
	}
	if len(looks) == 0 {
		f.add("looks", "there are none")
	}
	s := &Schedule{spending: spending}
	time, counted := 0.0, Look{}
	for i, look := range looks {
		field := fmt.Sprintf("looks[%d]", i)
		switch {
		case !finite(look.Time) || !finite(look.Information) || look.Information < 0:
			f.add(field, "its time and its information are finite, and the information is not negative")
		case !(look.Time > time):
			f.add(field, "the times rise from above 0, and %v does not lie above %v", look.Time, time)
		case look.Time >= 1 && i < len(looks)-1:
			f.add(field, "a look at 1 or later is the last one, and %v has others after it", look.Time)
		}
		time = look.Time
		if s.idle = !Grown(counted.Time, look.Time) || !Grown(counted.Information, look.Information); !s.idle {
			counted = look
			s.looks = append(s.looks, look)
		}
	}
	if len(f) > 0 {
		return nil, f.err()
	}
	s.oneSided = sync.OnceValue(func() *curve { return s.curve(false) })
	s.twoSided = sync.OnceValue(func() *curve { return s.curve(true) })
	return s, nil
}

// Grown says whether information has grown enough for another look: by a
// thousandth.
func Grown(before, now float64) bool { return now > 0 && now >= before*(1+leastGrowth) }

// Boundary is the size of the statistic from which on the present look of a
// group-sequential test is significant, where subjects are so many that their
// degrees of freedom do not matter. It is nil where no result could be
// significant, and at a look that judges nothing.
func (t Test) Boundary() *float64 {
	if t.silence() != "" {
		return nil
	}
	alpha, twoSided := 1-t.ConfidenceLevel, t.Alternative == TwoSided
	if twoSided {
		alpha /= 2
	}
	return present(t.Schedule.boundary(alpha, twoSided))
}

// boundary is where the present look has its boundary, as a quantile of the
// normal distribution, if each side of the test spends the given rate. Without
// one it is +Inf.
func (s *Schedule) boundary(rate float64, twoSided bool) float64 {
	_, c := s.regions(rate, twoSided)
	return c
}

// regions are where the test goes on after each look before the present one, and
// the present one's boundary. A look without a boundary leaves the region as it
// was; nil is everywhere.
func (s *Schedule) regions(rate float64, twoSided bool) (regions []*region, c float64) {
	var below *region // Of the look before.
	spent := 0.0
	for i, look := range s.looks {
		chance := s.spending.side(rate, look.Time) - spent
		switch {
		case chance < leastChance:
			c, chance = math.Inf(1), 0
		case below == nil:
			c = normalUpperQuantile(chance)
		default:
			c = below.boundary(chance, below.step(look.Information))
		}
		if i == len(s.looks)-1 {
			break
		}
		if spent += chance; chance > 0 {
			below = below.then(look.Information, c, s.looks[i+1].Information, twoSided)
		}
		regions = append(regions, below)
	}
	return regions, c
}
