package stats

import "math"

// A duel is the posterior of two proportions, a treatment's and a control's:
// Beta–Binomial, independent of each other. Probabilities of their difference and
// their ratio come from one integral, over the nodes of the narrower one and with
// the distribution function of the wider one: P(t > c) = ∫ f_c(x)·P(t > x) dx. (For
// whole numbers there are sums, as in Miller 2015, Formulas for Bayesian A/B
// testing; they have as many terms as successes.)
type duel struct {
	treatment, control *rate
	nodes              *rate // The narrower one.
	table              *tailTable
}

// newDuels prepares the two for their difference and for their ratio. The narrower
// one is that with the smaller standard deviation, for ratios relative to its mean.
func newDuels(treatment, control *rate) (difference, ratio *duel) {
	difference = newDuel(treatment, control, treatment.spread() < control.spread())
	narrow := treatment.spread()/treatment.mean < control.spread()/control.mean
	if narrow == (difference.nodes == treatment) {
		return difference, difference
	}
	return difference, newDuel(treatment, control, narrow)
}

func newDuel(treatment, control *rate, narrowTreatment bool) *duel {
	if narrowTreatment {
		return &duel{treatment, control, treatment, control.table()}
	}
	return &duel{treatment, control, control, treatment.table()}
}

// A contrast is a line along which two proportions are compared: on it the
// treatment's is scale × the control's + shift.
type contrast struct{ scale, shift float64 }

// beside is the contrast of a difference, and times that of a lift whose ratio has
// this logarithm.
func beside(difference float64) contrast { return contrast{1, difference} }
func times(logRatio float64) contrast    { return contrast{math.Exp(logRatio), 0} }

// sides are the probabilities that the treatment is above the contrast and below
// it, and the density there: of the difference, or for a contrast by a scale of the
// logarithm of the ratio.
func (d *duel) sides(c contrast) (above, below, density float64) {
	scale, shift := c.scale, c.shift
	if d.nodes == d.treatment {
		scale, shift = 1/scale, -shift/scale
	}
	// The other one's place is between 0 and 1 here, and elsewhere it has no tail
	// to look up.
	low, high := math.Max(0, -shift/scale), math.Min(1, (1-shift)/scale)
	nodes := d.nodes.nodes
	if d.hasCorner(low, high) {
		nodes = d.nodes.between(low, high)
	}
	var over, under float64 // The other one's.
	for _, n := range nodes {
		place := point{scale*n.p + shift, scale*n.rest + (1 - scale - shift)}
		less, more, slope := d.table.tails(place)
		under += n.weight * less
		over += n.weight * more
		if slope != 0 && c.shift == 0 {
			density += n.weight * slope / place.rest
		} else if slope != 0 {
			density += n.weight * slope / (place.p * place.rest)
		}
	}
	under, over = math.Min(1, under), math.Min(1, over)
	switch { // One of the two vanishes outside of what was integrated.
	case low > 0:
		over = 1 - under
	case high < 1:
		under = 1 - over
	}
	if d.nodes == d.treatment {
		return under, over, density
	}
	return over, under, density
}

// hasCorner tells whether the integral runs across a corner of the other one's
// distribution function at its 0 or 1, which no rule for smooth functions must. It
// is flat there with many successes, or failures, and does not count where the
// nodes have no weight.
func (d *duel) hasCorner(low, high float64) bool {
	const flat = 20
	return low > 0 && d.table.a < flat && d.nodes.reaches(point{low, 1 - low}) ||
		high < 1 && d.table.b < flat && d.nodes.reaches(point{high, 1 - high})
}

// atDifference and atLift split the probability of a difference and of a lift at
// some place.
func (d *duel) atDifference(x float64) split {
	above, below, _ := d.sides(contrast{1, x})
	return split{above, below}
}

func (d *duel) atLift(x float64) split {
	if x <= -1 {
		return split{above: 1} // A ratio is not negative.
	}
	above, below, _ := d.sides(contrast{1 + x, 0})
	return split{above, below}
}

// loss is the mean of how much worse the treatment is than the control, counting 0
// where it is better. Of a rate W and a number x, E max(0, x−W) is
// (x − E W)·P(W < x) + f(x)/(a+b), where f is the density of W's log odds: of
// W·P, the mean is E W times the distribution with one success more.
func (d *duel) loss(lessIsBetter bool) (loss float64) {
	w := d.table.rate
	nodesAreMore := (d.nodes == d.control) != lessIsBetter
	for _, n := range d.nodes.nodes {
		below, beyond, _ := d.table.tails(n.point)
		part := (n.p - w.mean) * below
		if !nodesAreMore {
			part = (w.mean - n.p) * beyond
		}
		loss += n.weight * (part + w.density(n.point)/(w.a+w.b))
	}
	return math.Max(0, loss)
}

// differenceBound is the difference that is exceeded, or not reached, with
// probability q.
func (d *duel) differenceBound(q float64, upper bool) float64 {
	deviation := math.Hypot(d.treatment.spread(), d.control.spread())
	return d.bound(q, upper, d.treatment.mean-d.control.mean, deviation, 1, beside)
}

// liftBound is the same of the lift, t/c − 1. It is sought as the logarithm of
// the ratio, which varies by about b/(a(a+b)) on each side.
func (d *duel) liftBound(q float64, upper bool) float64 {
	t, c := d.treatment, d.control
	deviation := math.Sqrt(t.rest/t.a + c.rest/c.a)
	return math.Expm1(d.bound(q, upper, math.Log(t.mean/c.mean), deviation, 700, times))
}

// bound searches for the place of a tail of probability q, within ±limit: by
// Newton's method on the logarithm of the tail, which is nearly straight or bent
// one way, kept within a bracket. It begins at the quantile of the normal
// distribution and doubles the digits with every step, so that one after a step
// of 1e-7 standard deviations has twelve or more.
func (d *duel) bound(q float64, upper bool, middle, deviation, limit float64, at func(float64) contrast) float64 {
	sign := -1.0
	if upper {
		sign = 1
	}
	x := middle + sign*deviation*studentUpperQuantile(q, math.Inf(1))
	low, high := -limit, limit
	for range 100 {
		if !(x > low && x < high) { // Or is no number, where there is no tail.
			x = low + (high-low)/2
		}
		tail, below, density := d.sides(at(x))
		if !upper {
			tail = below
		}
		if (tail > q) == upper {
			low = x
		} else {
			high = x
		}
		step := sign * math.Log(tail/q) * tail / density
		if math.Abs(step) <= 1e-7*deviation {
			return x + step
		}
		x += step
	}
	return low + (high-low)/2
}
