package stats

import "math"

// A rate is the posterior of a proportion, Beta(a, b), on the scale of log odds,
// where its density p^a·(1−p)^b is smooth, has one peak, at the mean, and falls off
// exponentially to both sides. So the trapezoidal rule converges geometrically
// (Trefethen and Weideman 2014, The exponentially convergent trapezoidal rule),
// for one success as for a billion, and no log-gamma is needed, whose digits a
// billion would eat up.
//
// Log odds are counted from those of the mean. A rate near 0 or 1 and a narrow
// peak then keep their digits.
type rate struct {
	a, b            float64
	mean, rest      float64 // a/(a+b) and b/(a+b).
	deviation       float64 // About that of the log odds; at most ½.
	total           float64 // The integral of the density, whose peak is 1.
	lowest, highest float64 // The log odds between which the density is not negligible.
	nodes           []node
}

// point is a proportion. What it lacks to 1 stands beside it: near 1 the proportion
// alone would lose its digits.
type point struct{ p, rest float64 }

// node is a point of a rate with its share of the probability.
type node struct {
	point
	weight float64
}

const (
	// negligible is the logarithm of a density, in units of the peak, that is
	// not worth integrating.
	negligible = -40
	// broadest is the greatest standard deviation of log odds that steps are
	// made for. The flanks of a rate that is broader fall off within about 1.
	broadest = 0.5
	// nodeStep is the distance of nodes in standard deviations. It leaves an
	// error of exp(−π²/nodeStep²) for the product of a normal density and a
	// normal distribution function that is as steep, and 1e-9 for a few successes,
	// whose flanks differ.
	nodeStep = 0.45
)

// newRate finds out where the rate is and how much the density integrates to.
func newRate(a, b float64) *rate {
	n := a + b
	r := &rate{a: a, b: b, mean: a / n, rest: b / n}
	r.deviation = math.Min(broadest, 1/math.Sqrt(a*r.rest))
	step := nodeStep * r.deviation
	first := -1
	for ; ; first-- {
		if _, height := r.at(float64(first) * step); height < negligible {
			break
		}
	}
	r.lowest = float64(first) * step
	r.nodes = make([]node, 0, -2*first)
	for i := first; ; i++ {
		x := float64(i) * step
		p, height := r.at(x)
		if i > 0 && height < negligible {
			r.highest = x
			break
		}
		weight := math.Exp(height)
		r.total += weight
		r.nodes = append(r.nodes, node{p, weight})
	}
	for i := range r.nodes {
		r.nodes[i].weight /= r.total
	}
	r.total *= step
	return r
}

// at is the proportion at log odds x, and the logarithm of the density there in
// units of the peak: a·x − (a+b)·ln(1 + mean·(eˣ−1)), or the same from the other
// end, of which the one with the smaller terms loses less.
func (r *rate) at(x float64) (p point, height float64) {
	if r.mean <= r.rest {
		factor, change := growth(x)
		whole := 1 + r.mean*change
		return point{r.mean * factor / whole, r.rest / whole}, r.a*x - (r.a+r.b)*math.Log1p(r.mean*change)
	}
	factor, change := growth(-x)
	whole := 1 + r.rest*change
	return point{r.mean / whole, r.rest * factor / whole}, -r.b*x - (r.a+r.b)*math.Log1p(r.rest*change)
}

// growth is eˣ and eˣ − 1, each to its own digits.
func growth(x float64) (factor, change float64) {
	change = math.Expm1(x)
	if change < -0.5 {
		return math.Exp(x), change
	}
	return 1 + change, change
}

// odds is the log odds of a proportion.
func (r *rate) odds(p point) float64 { return math.Log(p.p / r.mean * (r.rest / p.rest)) }

// density is that of the log odds.
func (r *rate) density(p point) float64 {
	x := r.odds(p)
	if !(x >= r.lowest && x <= r.highest) {
		return 0
	}
	_, height := r.at(x)
	return math.Exp(height) / r.total
}

// reaches tells whether the density at a proportion is more than 1e-12 of the peak.
func (r *rate) reaches(p point) bool {
	_, height := r.at(r.odds(p))
	return height > -28
}

// between returns nodes for the proportions between two that cut the peak or a
// flank of it off, on the scale of the log odds of the place between the two,
// which keeps smooth what is integrated if it vanishes or ends there. A flank falls
// off faster on that scale, and takes half the step.
func (r *rate) between(low, high float64) []node {
	first, last := r.nodes[0].p, r.nodes[len(r.nodes)-1].point
	if first >= high || last.p <= low {
		return nil
	}
	from, to := -25.0, 25.0 // From where on there is less than 1e-11.
	if first > low {
		from = math.Log((first - low) / (high - first))
	}
	if left := last.rest - (1 - high); left > 0 {
		to = math.Log((last.p - low) / left)
	}
	width, deviation := high-low, r.spread()
	inset := math.Min(deviation, width/2)
	middle := math.Max(low+inset, math.Min(r.mean, high-inset))
	step := nodeStep / 2 * math.Min(broadest, deviation*width/((middle-low)*(high-middle)))
	var nodes []node
	for x := from; x <= to; x += step {
		share := point{1 / (1 + math.Exp(-x)), 1 / (1 + math.Exp(x))}
		p := point{low + width*share.p, (1 - high) + width*share.rest}
		if p.p > 0 && p.rest > 0 {
			nodes = append(nodes, node{p, step * r.density(p) * width * share.p * share.rest / (p.p * p.rest)})
		}
	}
	return nodes
}

// spread is the standard deviation of the proportion.
func (r *rate) spread() float64 { return math.Sqrt(r.mean * r.rest / (r.a + r.b + 1)) }

// A tailTable holds the distribution function of a rate, to look up.
type tailTable struct {
	*rate
	step    float64
	entries []tailEntry
}

// tailEntry is one place of a table: the probabilities of less and of more, the
// density, and its slope.
type tailEntry struct{ below, beyond, density, slope float64 }

// tableStep is the distance of a table's entries in standard deviations. What is
// looked up between two is off by less than 1e-9 of itself, in the tails too.
const tableStep = 0.045

// table integrates the density by the rule of Euler and Maclaurin up to the third
// derivative, from both ends, so that small tails keep their digits.
func (r *rate) table() *tailTable {
	t := &tailTable{rate: r, step: tableStep * r.deviation}
	count := int((r.highest-r.lowest)/t.step) + 2
	t.entries = make([]tailEntry, count)
	n, sum := r.a+r.b, 0.0
	for i := range t.entries {
		p, height := r.at(r.lowest + float64(i)*t.step)
		// The density's derivative is density × score, and the score's −variance.
		f, score, variance := math.Exp(height)/r.total, r.a*p.rest-r.b*p.p, n*p.p*p.rest
		third := f * (score*score*score - 3*score*variance - variance*(p.rest-p.p))
		correction := t.step * t.step * (f*score/12 - t.step*t.step*third/720)
		t.entries[i] = tailEntry{below: t.step*(sum+f/2) - correction, beyond: correction, density: f, slope: f * score}
		sum += f
	}
	sum = 0
	for i := count - 1; i >= 0; i-- {
		e := &t.entries[i]
		e.beyond += t.step * (sum + e.density/2)
		sum += e.density
	}
	return t
}

// tails are the probabilities that the rate is less and more than p, and the
// density of its log odds there: between two entries by the polynomial of the fifth
// degree that has their values and first two derivatives (Hermite).
func (t *tailTable) tails(p point) (below, beyond, density float64) {
	if p.p <= 0 {
		return 0, 1, 0
	}
	if p.rest <= 0 {
		return 1, 0, 0
	}
	place := (t.odds(p) - t.lowest) / t.step
	if place < 0 {
		return 0, 1, 0
	}
	if place >= float64(len(t.entries)-1) {
		return 1, 0, 0
	}
	i := int(place)
	s := place - float64(i)
	from, to := &t.entries[i], &t.entries[i+1]
	// In units of the step, with c0 + c1·s + c2·s² common to both tails but for
	// their sign.
	c1, c2 := t.step*from.density, t.step*t.step*from.slope/2
	e1, e2 := t.step*to.density-c1-2*c2, t.step*t.step*to.slope-2*c2
	rise := (to.below - from.below) - c1 - c2
	if from.beyond < from.below {
		rise = (from.beyond - to.beyond) - c1 - c2
	}
	c3, c4, c5 := 10*rise-4*e1+e2/2, -15*rise+7*e1-e2, 6*rise-3*e1+e2/2
	step := s * (c1 + s*(c2+s*(c3+s*(c4+s*c5))))
	density = (c1 + s*(2*c2+s*(3*c3+s*(4*c4+5*s*c5)))) / t.step
	return from.below + step, from.beyond - step, density
}
