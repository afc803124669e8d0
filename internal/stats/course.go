package stats

import "math"

// A course is what can become of a group-sequential test whose looks are planned
// up to the last one. The chance of having crossed no boundary given the present
// statistic, which a region holds, is that of a Brownian bridge: it does not
// depend on the drift. So the regions are computed once, and the chance of being
// in them follows for any effect.
type course struct {
	times    []float64
	regions  []*region // Where it goes on after each look; the last one ends it.
	boundary float64   // The last one's.
}

// course is that of a schedule whose last look has an information of 1, and of
// which each side spends the given rate.
func (s *Schedule) course(rate float64, twoSided bool) *course {
	c := new(course)
	c.regions, c.boundary = s.regions(rate, twoSided)
	var before *region
	for i, look := range s.looks {
		c.times = append(c.times, look.Time)
		if i < len(c.regions) {
			before = c.regions[i]
		}
	}
	c.regions = append(c.regions, before.then(1, c.boundary, 2, twoSided))
	return c
}

// power is the chance that some look crosses, if the last statistic has the mean
// drift.
func (c *course) power(drift float64) float64 {
	return math.Max(0, 1-c.regions[len(c.regions)-1].chance(drift))
}

// expected is the mean time at which it ends.
func (c *course) expected(drift float64) float64 {
	sum := c.times[0]
	for i, t := range c.times[1:] {
		sum += (t - c.times[i]) * c.regions[i].chance(drift)
	}
	return sum
}

// chance is that of the region, if the statistic at an information of 1 has the
// mean drift.
func (r *region) chance(drift float64) float64 {
	if r == nil {
		return 1
	}
	mean := drift * math.Sqrt(r.information)
	sum := 0.0
	for i, y := range r.points {
		density := math.Exp(-(y - mean) * (y - mean) / 2)
		if r.mirrored {
			density += math.Exp(-(y + mean) * (y + mean) / 2)
		}
		sum += r.mass[i] * density
	}
	sum /= math.Sqrt(2 * math.Pi)
	if !r.mirrored {
		sum += normalUpperTail(mean - lowest) // Where it was cut off.
	}
	return sum
}
