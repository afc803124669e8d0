package stats

import "math"

// A rarity tells that two rates keep within a margin though too few subjects differ for
// anything else to be told. Of the difference t − c of rates of few events no more is
// taken for granted than that c is not negative: t − c ≤ margin is shown by the exact
// binomial test of t ≤ margin (Clopper and Pearson 1934, The use of confidence or
// fiducial limits illustrated in the case of the binomial, Biometrika 26), and
// t − c ≥ −margin by that of c ≤ margin. So none of n subjects can pass, and a chance
// event in a small arm cannot make the other seem harmless. Rates of few non-events are
// those of failures, with the arms in each other's place. Nothing but that a margin is
// kept is told so.
type rarity struct {
	upper, lower rareCount // What the effect's bounds rest on.
	on           Scale
}

// rareCount is how many of an arm's subjects are of the rarer kind.
type rareCount struct {
	x, n float64
	// most is how many times its own share of the arm a stratum weighs at most, and so
	// how many times the arm's rate the weighted one can be.
	most float64
}

// mostRare is how many events an arm may have beside one that is too small to tell.
const mostRare = 100_000

// rarity is that of a pair of rates, on the margin's scale; nil if that tells nothing. A
// share of a rate of few events is as little known as the rate.
func (r *Request) rarity(p *pair) *rarity {
	return r.rarityOf(p.control.events(p.weights), p.treatment.events(p.weights))
}

// rarityOf is that of so many events of the two arms.
func (r *Request) rarityOf(control, treatment rareCount) *rarity {
	switch {
	case 2*(control.x+treatment.x) > control.n+treatment.n:
		control.x, treatment.x = control.n-control.x, treatment.n-treatment.x
		control, treatment = treatment, control
	case r.Margin.Scale == Relative:
		return nil
	}
	if math.Max(control.x, treatment.x) > mostRare {
		return nil
	}
	return &rarity{upper: treatment, lower: control, on: r.Margin.Scale}
}

// keeps tells whether the request asks if a rate keeps within a margin on its bad side.
func (r *Request) keeps() bool {
	margin := r.Margin.Value
	switch {
	case !r.Proportion:
		return false
	case r.Test.Alternative == Equivalent:
		return margin > 0
	case r.Test.Alternative == Greater:
		return margin < 0
	case r.Test.Alternative == Less:
		return margin > 0
	}
	return r.Guardrail && margin != 0
}

// events counts those of a side.
func (s *side) events(weights []float64) rareCount {
	of, component := rareCount{n: float64(s.subjects())}, s.component()
	for k, c := range s.cells {
		n := float64(c.N)
		of.x += math.Max(0, math.Min(n, math.Round(c.Means[component]*n)))
		of.most = math.Max(of.most, weights[k]*of.n/n)
	}
	return of
}

// component is the one whose mean a rate is.
func (s *side) component() int {
	for i, g := range s.gradient {
		if g != 0 {
			return i
		}
	}
	return 0
}

// score is the normal score of the exact test's tail where the data speak for the
// margin being kept, and 0 elsewhere.
func (r *rarity) score(null float64) (statistic, degrees float64) {
	if null < 0 {
		return -r.lower.score(-null), math.Inf(1)
	}
	if r.on == Relative { // t/c − 1 is at most 1/c − 1, and c is 1 less the failures.
		null /= 1 + null
	}
	return r.upper.score(null), math.Inf(1)
}

func (r *rarity) bounds(below, above float64) (lower, upper *float64) {
	low, high := -r.lower.bound(below), r.upper.bound(above)
	if r.on == Relative {
		high /= 1 - high
	}
	return present(low), present(high)
}

// score is that of a rate of at least so much, which few events speak against.
func (c rareCount) score(rate float64) float64 {
	tail := binomialTail(c.x, c.n, rate/c.most)
	if tail >= 0.5 {
		return 0
	}
	return -normalUpperQuantile(math.Max(tail, math.SmallestNonzeroFloat64))
}

// bound is the rate whose score is so far below 0, and 1 if there is none.
func (c rareCount) bound(size float64) float64 {
	rate := c.most * (c.x + 0.5) / (c.n + 1)
	return crossing(c.score, -size, rate, math.Sqrt(rate*c.most/c.n), 0, math.Max(1, c.most))
}

// binomialTail is P(X ≤ x) of n events of a probability, if it is below a half: the
// terms from x downwards, which fall there, by the first (Loader 2000, Fast and accurate
// computation of binomial probabilities). Above it is 1. That events of different
// probabilities have the same mean makes the tail smaller (Hoeffding 1956, On the
// distribution of the number of successes in independent trials).
func binomialTail(x, n, probability float64) float64 {
	mean, rest := n*probability, n*(1-probability)
	switch {
	case x >= mean:
		return 1
	case probability >= 1:
		return 0
	case x == 0:
		return math.Exp(n * math.Log1p(-probability))
	}
	away := func(x, mean float64) float64 {
		u := (x - mean) / mean
		return mean * ((1+u)*math.Log1p(u) - u)
	}
	sum := 0.0
	term := math.Exp(binet(n)-binet(x)-binet(n-x)-away(x, mean)-away(n-x, rest)) * math.Sqrt(n/(2*math.Pi*x*(n-x)))
	for k := x; term > 1e-17*sum && k >= 0; k-- {
		sum += term
		term *= k / (n - k + 1) * (1 - probability) / probability
	}
	return sum
}

// keepsWithin is what a rarity tells on the margin's scale: bounds and a p-value of the
// margin being kept, and nothing of the opposite.
func (v *view) keepsWithin(null float64) (i Inference) {
	if v.r.Test.Method == Bayesian { // The bound is the posterior's, from a prior of Beta(1, 0).
		v.gauge.bound(&i, v.rare, null)
	} else {
		i = v.gauge.weigh(v.rare, null)
	}
	i.Opposite = nil
	if v.r.Test.Alternative == TwoSided {
		if i.Unbounded = false; null > 0 {
			i.Lower = nil
		} else {
			i.Upper = nil
		}
	}
	return i
}
