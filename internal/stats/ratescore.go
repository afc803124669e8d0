package stats

import "math"

// Two rates at a fixed horizon or at a look, in one stratum and without covariates, are
// judged by the score test of Miettinen and Nurminen (1985), Comparative analysis of two
// rates, Statistics in Medicine 4, with the variance at the rates that fit best
// under the null hypothesis and its factor N/(N − 1): equations 5 to 9 for the
// difference, 10 to 13 for the ratio. It keeps its level with a handful of events,
// has an interval where nobody had any, and stays between −1 and 1.

// scoresRates says that rates are judged by their score under the method. A look
// judges the score by its boundary: with the larger of Welch's and the pooled variance
// up to 7.8 % of rates that rise by just a margin were found to keep within it.
func (m Method) scoresRates() bool { return m == FixedHorizon || m == GroupSequential }

// rates are the events and the subjects of two arms.
type rates struct {
	x, n [2]float64 // Of the control and of the treatment.
}

// rates are those of the pair; ok is false if its values are none.
func (p *pair) rates() (r rates, ok bool) {
	for i, s := range []*side{&p.control, &p.treatment} {
		if !(s.value >= 0 && s.value <= 1) {
			return r, false
		}
		r.n[i] = float64(s.subjects())
		r.x[i] = s.value * r.n[i]
		if whole := math.Round(r.x[i]); math.Abs(r.x[i]-whole) <= 1e-15*r.n[i] { // But for rounding.
			r.x[i] = whole
		}
	}
	return r, true
}

// difference is the score statistic of a difference. It counts the rarer of events
// and others, whose rates keep their digits. Without a difference the rate that fits
// best is that of both arms.
func (r rates) difference(null float64) float64 {
	all, events := r.n[0]+r.n[1], r.x[0]+r.x[1]
	if 2*events > all {
		return -rates{[2]float64{r.n[0] - r.x[0], r.n[1] - r.x[1]}, r.n}.difference(-null)
	}
	distance := (r.x[1]/r.n[1] - r.x[0]/r.n[0]) - null
	switch {
	case !(null > -1 && null < 1):
		return r.beyond(distance, null >= 1)
	case null == 0:
		return r.over(distance, events/all*(1-events/all)*(1/r.n[0]+1/r.n[1]))
	}
	c := r.underDifference(null)
	t := math.Max(0, math.Min(1, c+null))
	return r.over(distance, c*(1-c)/r.n[0]+t*(1-t)/r.n[1])
}

// ratio is the score statistic of a lift.
func (r rates) ratio(lift float64) float64 {
	ratio := 1 + lift
	if !(ratio > 0) {
		return r.beyond(r.x[1]/r.n[1]-ratio*r.x[0]/r.n[0], false)
	}
	c := r.underRatio(ratio)
	t := math.Min(1, ratio*c)
	return r.over(r.x[1]/r.n[1]-ratio*r.x[0]/r.n[0], ratio*ratio*c*(1-c)/r.n[0]+t*(1-t)/r.n[1])
}

// over is a distance in standard errors. Where all are alike under the null
// hypothesis the data are what it says, or cannot be.
func (r rates) over(distance, variance float64) float64 {
	all := r.n[0] + r.n[1]
	statistic := distance / math.Sqrt(variance*all/(all-1))
	if math.IsNaN(statistic) {
		return 0
	}
	return math.Max(-math.MaxFloat64, math.Min(math.MaxFloat64, statistic))
}

// beyond is the statistic at the end of what a rate can be, or past it: none if the
// data lie there too.
func (r rates) beyond(distance float64, above bool) float64 {
	switch {
	case distance == 0:
		return 0
	case above:
		return -math.MaxFloat64
	}
	return math.MaxFloat64
}

// underDifference is the control's rate that fits best if the treatment's is so much
// higher: the root of a cubic that lies between what both can be (Miettinen and
// Nurminen 1985, appendix I). The cosine finds it to some digits of 1, and Newton's
// method to its own, between the bounds, at the lower of which the cubic is above 0.
func (r rates) underDifference(d float64) float64 {
	x, n0, all := r.x[0]+r.x[1], r.n[0], r.n[0]+r.n[1]
	l3, l2 := all, (r.n[1]+2*n0)*d-all-x
	l1, l0 := (n0*d-all-2*r.x[0])*d+x, r.x[0]*d*(1-d)
	third := l2 / (3 * l3)
	q := third*third*third - l1*l2/(6*l3*l3) + l0/(2*l3)
	p := math.Copysign(math.Sqrt(math.Max(0, third*third-l1/(3*l3))), q)
	cosine := 1.0
	if p != 0 {
		cosine = math.Max(-1, math.Min(1, q/(p*p*p)))
	}
	root := 2*p*math.Cos((math.Pi+math.Acos(cosine))/3) - third
	low, high := math.Max(0, -d), math.Min(1, 1-d)
	root = math.Max(low, math.Min(high, root))
	for range 60 {
		value, slope := ((l3*root+l2)*root+l1)*root+l0, (3*l3*root+2*l2)*root+l1
		if value > 0 {
			low = root
		} else {
			high = root
		}
		next := root - value/slope
		if !(next >= low && next <= high) {
			next = low + (high-low)/2
		}
		if done := math.Abs(next-root) <= 1e-15*root; done || value == 0 {
			return next
		}
		root = next
	}
	return root
}

// underRatio is the same if the treatment's rate is so many times the control's: the
// smaller root of a quadratic, by the form that does not cancel.
func (r rates) underRatio(ratio float64) float64 {
	a := (r.n[0] + r.n[1]) * ratio
	b := r.n[1]*ratio + r.x[1] + r.n[0] + r.x[0]*ratio
	c := r.x[0] + r.x[1]
	return 2 * c / (b + math.Sqrt(math.Max(0, b*b-4*a*c)))
}

// differenceBound is where the statistic of a difference has a size: above 0 for the
// lower bound and below for the upper one. It is the end of what a difference can be
// where the statistic has that size nowhere.
func (r rates) differenceBound(size float64) float64 {
	t, c := r.x[1]/r.n[1], r.x[0]/r.n[0]
	return crossing(r.difference, size, t-c, math.Sqrt(r.spread(1)/r.n[1]+r.spread(0)/r.n[0]), -1, 1)
}

// ratioBound is the same of a lift. The control has an event.
func (r rates) ratioBound(size float64) float64 {
	// In logarithms, where the ratio is nearly normal (Katz, Baptista, Azen and Pike 1978).
	t, c := (r.x[1]+0.5)/(r.n[1]+1), r.x[0]/r.n[0]
	deviation := math.Sqrt((1-t)/(t*r.n[1]) + (1-c)/(c*r.n[0]) + 1/(r.n[0]+r.n[1]))
	at := func(logarithm float64) float64 { return r.ratio(math.Expm1(logarithm)) }
	middle := math.Log(t / c)
	if size > 0 && at(-700) < size {
		return -1
	}
	return math.Expm1(crossing(at, size, middle, deviation, -700, 700))
}

// spread is the variance of an arm's subjects with half an event more of either kind,
// which is never 0.
func (r rates) spread(arm int) float64 {
	rate := (r.x[arm] + 0.5) / (r.n[arm] + 1)
	return rate * (1 - rate)
}

// crossing is where a falling function has a value, between bounds: first by steps
// outwards from the place where the normal distribution has it, then by the method
// of Chandrupatla (1997), A new hybrid quadratic/bisection algorithm for finding the
// zero of a nonlinear function without using derivatives.
func crossing(f func(float64) float64, value, middle, deviation, low, high float64) float64 {
	if !finite(middle) || !finite(deviation) {
		return math.NaN()
	}
	clamp := func(x float64) float64 { return math.Max(low, math.Min(high, x)) }
	a := clamp(middle - value*deviation)
	fa := f(a) - value
	step := math.Copysign(0.1*deviation*math.Max(1, math.Abs(value)), fa) // Towards the value.
	b, fb := a, fa
	for fa*fb > 0 {
		if b == low && fb < 0 || b == high && fb > 0 {
			return b
		}
		a, fa = b, fb
		b = clamp(b + step)
		fb = f(b) - value
		step *= 2
	}
	if fa == 0 {
		return a
	}
	c, fc, t := a, fa, 0.5
	for range 100 {
		at := a + t*(b-a)
		fat := f(at) - value
		if (fat > 0) == (fa > 0) {
			c, fc = a, fa
		} else {
			c, b, fc, fb = b, a, fb, fa
		}
		a, fa = at, fat
		best := a
		if math.Abs(fb) < math.Abs(fa) {
			best = b
		}
		limit := (2e-16*math.Abs(best) + 1e-16*deviation) / math.Abs(b-c)
		if limit > 0.5 || fa == 0 || fb == 0 {
			return best
		}
		xi, phi := (a-b)/(c-b), (fa-fb)/(fc-fb)
		t = 0.5
		if phi*phi < xi && (1-phi)*(1-phi) < 1-xi {
			t = fa/(fb-fa)*fc/(fb-fc) + (c-a)/(b-a)*fa/(fc-fa)*fb/(fc-fb)
		}
		t = math.Max(limit, math.Min(1-limit, t))
	}
	return a
}
