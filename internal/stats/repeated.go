package stats

import "math"

// The repeated confidence interval and p-value of Jennison and Turnbull (2000),
// Group sequential methods, chapter 9: the interval is what the boundary of the
// present look does not reject, and the p-value is the smallest error rate at
// which the same schedule would reject at this look. Both need the boundary at
// any rate, so it is tabulated once for a schedule.

const (
	// curveNodes leaves an error below 1e-9 of any rate.
	curveNodes = 48
	// highestRate is the largest rate of a side that is tabulated: that of a
	// level of 0.5, below which no test has its level.
	highestRate = 0.5
	// lowestRate is the smallest one, and the smallest chance of crossing at the
	// present look.
	lowestRate = 1e-290
)

// critical is the boundary of the present look in standard errors. It is found
// for the normal distribution, and has the same tail beyond it by Student's t. It
// is +Inf where no result could be significant.
func (s *Schedule) critical(rate, degrees float64, twoSided bool) float64 {
	if s.fixed() {
		return studentUpperQuantile(rate, degrees)
	}
	c, at := s.curveOf(twoSided), normalUpperQuantile(rate)
	if at > c.top {
		return math.Inf(1)
	}
	boundary, _ := c.boundary(at)
	return studentUpperQuantile(normalUpperTail(boundary), degrees)
}

// rate is the smallest rate of a side at which a statistic with the given tail
// beyond it reaches the boundary of the present look. Above highestRate it is 1.
func (s *Schedule) rate(tail float64, twoSided bool) float64 {
	switch {
	case s.fixed():
		return tail
	case tail >= 0.5:
		return 1
	}
	rate, ok := s.curveOf(twoSided).rate(normalUpperQuantile(math.Max(tail, math.SmallestNonzeroFloat64)))
	if !ok {
		return 1
	}
	return normalUpperTail(rate)
}

// fixed says whether the only look is at the end, so that the test is that of a
// fixed horizon.
func (s *Schedule) fixed() bool { return len(s.looks) == 1 && s.looks[0].Time >= 1 }

func (s *Schedule) curveOf(twoSided bool) *curve {
	if twoSided {
		return s.twoSided()
	}
	return s.oneSided()
}

// A curve is the boundary of a schedule's present look as a function of the
// rate that each side of the test spends. Both are quantiles of the normal
// distribution, so that it is nearly straight. It is a Chebyshev series in
// ln(2 + rate).
type curve struct {
	bottom, top  float64 // The rates between which it holds.
	low, high    float64 // The boundaries there.
	coefficients [curveNodes]float64
}

// curve tabulates the boundary of the present look.
func (s *Schedule) curve(twoSided bool) *curve {
	c := new(curve)
	c.bottom = normalUpperQuantile(highestRate)
	if twoSided {
		c.bottom = normalUpperQuantile(highestRate / 2)
	}
	if c.top = s.lastRate(); c.top <= c.bottom {
		c.low, c.high = math.Inf(1), math.Inf(1) // At no rate is there one.
		return c
	}
	from, to := math.Log(2+c.bottom), math.Log(2+c.top)
	for j := range curveNodes {
		angle := math.Pi * (float64(j) + 0.5) / curveNodes
		at := math.Exp(from+(to-from)*(1+math.Cos(angle))/2) - 2
		boundary := s.boundary(normalUpperTail(at), twoSided)
		for k := range c.coefficients {
			c.coefficients[k] += 2.0 / curveNodes * boundary * math.Cos(float64(k)*angle)
		}
	}
	c.coefficients[0] /= 2
	c.low, _ = c.boundary(c.bottom)
	c.high, _ = c.boundary(c.top)
	return c
}

// lastRate is the last rate, as a quantile, at which the present look has a
// boundary that can be written.
func (s *Schedule) lastRate() float64 {
	before := 0.0
	if n := len(s.looks); n > 1 {
		before = s.looks[n-2].Time
	}
	low, high := 0.0, normalUpperQuantile(lowestRate)
	for range 50 {
		rate := normalUpperTail(low + (high-low)/2)
		if s.spending.side(rate, s.looks[len(s.looks)-1].Time)-s.spending.side(rate, before) >= lowestRate {
			low += (high - low) / 2
		} else {
			high -= (high - low) / 2
		}
	}
	return low
}

// boundary is the boundary at a rate between bottom and top, and its slope.
func (c *curve) boundary(rate float64) (boundary, slope float64) {
	from, to := math.Log(2+c.bottom), math.Log(2+c.top)
	x := (2*math.Log(2+rate) - from - to) / (to - from)
	// Clenshaw's recurrence, with that of the derivative beside it.
	var b1, b2, d1, d2 float64
	for k := curveNodes - 1; k > 0; k-- {
		d1, d2 = 2*b1+2*x*d1-d2, d1
		b1, b2 = 2*x*b1-b2+c.coefficients[k], b1
	}
	return x*b1 - b2 + c.coefficients[0], (b1 + x*d1 - d2) * 2 / (to - from) / (2 + rate)
}

// rate is the rate whose boundary is reached by a statistic, both as quantiles;
// ok is false if it would have to be above the highest rate. Beyond the
// smallest rate it goes on in a straight line.
func (c *curve) rate(statistic float64) (rate float64, ok bool) {
	switch {
	case statistic < c.low:
		return 0, false
	case statistic > c.high:
		_, slope := c.boundary(c.top)
		return c.top + (statistic-c.high)/slope, true
	}
	rate = c.bottom + (c.top-c.bottom)*(statistic-c.low)/(c.high-c.low)
	for range 50 {
		boundary, slope := c.boundary(rate)
		by := (boundary - statistic) / slope
		rate = math.Max(c.bottom, math.Min(c.top, rate-by))
		if math.Abs(by) < 1e-13*math.Max(1, rate) {
			break
		}
	}
	return rate, true
}
