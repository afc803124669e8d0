package calibration

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/assayhq/assay/internal/stats"
)

// What is promised, as the service states it: methods that say 5 % are held to 6 %,
// and intervals that say 95 % to 94 %, or to 92 % of log-normal numbers with σ up
// to 2, whose sums are far from normal in any sample that experiments have.
const (
	mostFalse     = 0.06
	leastCovered  = 0.94
	heavyCovered  = 0.92
	reasonLight   = "numbers that are bounded or have light tails"
	reasonHeavy   = "log-normal numbers"
	reasonWild    = "log-normal numbers with σ 2, of which fewer than 200 seldom have the large ones that most of the mean rests on"
	reasonPrinted = "the means are equal and the variances are not, which few events cannot tell from an effect"
)

var (
	light = Promise{FalsePositives: mostFalse, Coverage: leastCovered, Lift: leastCovered, Reason: reasonLight}
	heavy = Promise{FalsePositives: mostFalse, Coverage: heavyCovered, Lift: heavyCovered, Reason: reasonHeavy}
	// wild is of the heaviest tails.
	wild = Promise{FalsePositives: mostFalse, Coverage: heavyCovered, Lift: heavyCovered, FromEvents: 200, Reason: reasonWild}
	// decided is of designs whose effect does not stay what it is, or that are not
	// left alone.
	decided = Promise{FalsePositives: mostFalse, Coverage: leastCovered, Wrong: mostFalse, Reason: reasonLight}
)

// Cells are all designs of the long form.
func Cells() []Cell {
	var cells []Cell
	for _, group := range [][]Cell{
		rates(), sparse(), numerators(), unequal(), adjustedSparse(), stratified(), lifts(), weakBaselines(), guardrails(),
		drifts(), decisions(), heterogeneities(), conducts(), known(),
	} {
		cells = append(cells, group...)
	}
	return cells
}

// known is the metrics of the short form, at even and uneven splits.
func known() []Cell {
	var cells []Cell
	for _, p := range populations {
		for _, uneven := range []int{1, 9} {
			const subjects = 2000
			s := sample{
				request: stats.Request{Formula: p.formula, Covariates: p.covariates, Proportion: p.proportion, NonNegative: true},
				dim:     p.dim, subjects: split(subjects, uneven),
				difference: p.value(p.lift) - p.value(0), lift: p.value(p.lift)/p.value(0) - 1,
				draw: func(rng *rand.Rand, arm, n int, effect bool, strata []stats.Moments) {
					x, lift := make([]float64, p.dim), 0.0
					if effect && arm > 0 {
						lift = p.lift
					}
					for range n {
						p.draw(rng, lift, x)
						strata[0].Add(x)
					}
				},
			}
			cells = append(cells, s.cell("dense", fmt.Sprintf("%s, 1:%d, %d subjects", p.name, uneven, subjects), p.promise))
		}
	}
	return cells
}

// split is the subjects of a control and a treatment, of which the treatment has
// one for so many of the control.
func split(total, uneven int) []int {
	treated := total / (uneven + 1)
	return []int{treated * uneven, treated}
}

// A size is a split, and how many subjects are expected to inform the metric.
type size struct{ uneven, events int }

func (n size) String() string { return fmt.Sprintf("1:%d, %d events", n.uneven, n.events) }

// sizes are the splits and the expected events of both arms together that sparse
// designs are tried at.
func sizes(chance float64, events, splits []int, each func(size, []int)) {
	for _, uneven := range splits {
		for _, n := range events {
			subjects := split(int(math.Round(float64(n)/chance)), uneven)
			if subjects[1] >= 3 {
				each(size{uneven, n}, subjects)
			}
		}
	}
}

var (
	allEvents = []int{20, 100, 500, 2000}
	allSplits = []int{1, 9, 99}
)

// sparseLift is the effect on what few subjects have, where there is one.
const sparseLift = 0.5

// rates is conversions of few and of many subjects.
func rates() []Cell {
	var cells []Cell
	for _, chance := range []float64{0.001, 0.01, 0.05, 0.5} {
		sizes(chance, allEvents, allSplits, func(name size, subjects []int) {
			s := converting(chance, subjects)
			cells = append(cells, s.cell("rate", fmt.Sprintf("%g %%, %s", 100*chance, name), light))
		})
	}
	return cells
}

// converting is a rate of one in so many.
func converting(chance float64, subjects []int) sample {
	lift := math.Min(sparseLift, 0.2/chance)
	c := crowd{
		dim:    1,
		rare:   []kind{{chance: [2]float64{chance, chance * (1 + lift)}, x: []float64{1}}},
		common: []kind{{x: []float64{0}}},
	}
	s := c.sample(subjects)
	s.request.Formula, s.request.Proportion = stats.ComponentMean(0), true
	s.difference, s.lift = chance*lift, lift
	return s
}

// sample is a comparison of subjects of the crowd.
func (c crowd) sample(subjects []int) sample {
	s := sample{dim: c.dim, subjects: subjects, draw: c.add}
	s.request.NonNegative = true
	return s
}

// spending is a mean or a ratio of what few buyers spend: log-normally, and for a
// ratio one in five twice.
type spending struct {
	ratio bool
	sigma float64
	share float64 // Of buyers among all.
	scale float64 // Of what they spend: 1.
}

func (b spending) String() string {
	if b.ratio {
		return fmt.Sprintf("ratio, %g %% buy, σ %g", 100*b.share, b.sigma)
	}
	return fmt.Sprintf("mean, %g %% buy, σ %g", 100*b.share, b.sigma)
}

// promise is what methods are held to.
func (b spending) promise() Promise {
	if b.sigma < 2 {
		return heavy
	}
	return wild
}

// draw fills in one buyer.
func (b spending) draw(rng *rand.Rand, effect bool, x []float64) {
	spend := func() float64 { return b.scale * math.Exp(b.sigma*rng.NormFloat64()) }
	x[0] = spend()
	if b.ratio {
		x[1] = 1
		if rng.Float64() < 0.2 {
			x[0] += spend()
			x[1] = 2
		}
	}
	if effect {
		x[0] *= 1 + sparseLift
	}
}

// crowd is the buyers and the others.
func (b spending) crowd() crowd {
	c := crowd{dim: 1 + index(b.ratio)}
	c.rare = []kind{{chance: [2]float64{b.share, b.share}, draw: b.draw}}
	c.common = []kind{{x: make([]float64, c.dim)}}
	return c
}

// sample is a comparison of spenders by the metric.
func (b spending) sample(c crowd, subjects []int) sample {
	s := c.sample(subjects)
	value := b.scale * math.Exp(b.sigma*b.sigma/2)
	if b.ratio {
		s.request.Formula = stats.ComponentRatio(0, 1)
	} else {
		s.request.Formula = stats.ComponentMean(0)
		value *= b.share
	}
	s.difference, s.lift = value*sparseLift, sparseLift
	return s
}

// sparse is means and ratios of which few subjects have something to tell.
func sparse() []Cell {
	var cells []Cell
	for _, ratio := range []bool{false, true} {
		for _, share := range []float64{0.01, 0.02} {
			for _, sigma := range []float64{1, 2} {
				b := spending{ratio, sigma, share, 1}
				sizes(share, allEvents, allSplits, func(name size, subjects []int) {
					s := b.sample(b.crowd(), subjects)
					s.events = name.events
					cells = append(cells, s.cell("sparse", fmt.Sprintf("%s, %s", b, name), b.promise()))
				})
			}
		}
	}
	return cells
}

// unequal is arms of equal means, of which the treatment varies more. It is
// printed and not held.
func unequal() []Cell {
	var cells []Cell
	for _, ratio := range []bool{false, true} {
		for _, sigma := range []float64{1, 2} {
			b := spending{ratio, sigma, 0.02, 1}
			wide := b
			wide.sigma += 0.4 - 0.1*sigma
			wide.scale = math.Exp((b.sigma*b.sigma - wide.sigma*wide.sigma) / 2)
			sizes(b.share, []int{100, 500, 2000}, []int{1, 9}, func(name size, subjects []int) {
				s := b.sample(b.crowd(), subjects)
				control, treatment := b.crowd(), wide.crowd()
				s.draw = func(rng *rand.Rand, arm, n int, effect bool, strata []stats.Moments) {
					if arm > 0 {
						treatment.add(rng, arm, n, effect, strata)
					} else {
						control.add(rng, arm, n, effect, strata)
					}
				}
				c := s.cell("unequal variances", fmt.Sprintf("%s and %.1f, %s", b, wide.sigma, name), Promise{Reason: reasonPrinted})
				c.parts[1] = false
				cells = append(cells, c)
			})
		}
	}
	return cells
}

// numerators is ratios whose denominator everybody has and whose numerator few
// have: a rate in all but name.
func numerators() []Cell {
	var cells []Cell
	const share = 0.01
	views := func(rng *rand.Rand) float64 {
		switch u := rng.Float64(); {
		case u < 0.5:
			return 1
		case u < 0.8:
			return 2
		}
		return 3
	}
	for _, sigma := range []float64{0, 1, 2} {
		chance, value, promise, name := [2]float64{share, share}, math.Exp(sigma*sigma/2), spending{sigma: sigma}.promise(), fmt.Sprintf("σ %g", sigma)
		if sigma == 0 {
			chance[1], promise, name = share*(1+sparseLift), light, "one each"
		}
		c := crowd{
			dim: 2,
			rare: []kind{{chance: chance, draw: func(rng *rand.Rand, effect bool, x []float64) {
				x[0], x[1] = math.Exp(sigma*rng.NormFloat64()), views(rng)
				if effect && sigma > 0 {
					x[0] *= 1 + sparseLift
				}
			}}},
			common: []kind{{chance: [2]float64{0.5, 0.5}, x: []float64{0, 1}}, {chance: [2]float64{0.3, 0.3}, x: []float64{0, 2}}, {x: []float64{0, 3}}},
		}
		sizes(share, allEvents, allSplits, func(size size, subjects []int) {
			s := c.sample(subjects)
			s.request.Formula = stats.ComponentRatio(0, 1)
			s.difference, s.lift, s.events = share*value*sparseLift/1.7, sparseLift, size.events
			cells = append(cells, s.cell("rare numerator", fmt.Sprintf("%s, %s", name, size), promise))
		})
	}
	return cells
}

// adjustedSparse is sparse designs with a covariate: who bought before. Half of
// the buyers did, and as many others.
func adjustedSparse() []Cell {
	var cells []Cell
	const share = 0.02
	for _, b := range []spending{{false, 1, share, 1}, {false, 2, share, 1}, {true, 1, share, 1}, {true, 2, share, 1}} {
		past := b.crowd().dim
		root := math.Sqrt(0.5)
		c := crowd{dim: past + 1, common: []kind{{x: make([]float64, past+1)}}}
		half := [2]float64{share / 2, share / 2}
		c.rare = []kind{
			{chance: half, draw: func(rng *rand.Rand, effect bool, x []float64) {
				taste := rng.NormFloat64()
				loyal := spending{b.ratio, b.sigma * root, share, math.Exp(b.sigma * root * taste)}
				loyal.draw(rng, effect, x[:past])
				x[past] = math.Exp(b.sigma * root * (taste + rng.NormFloat64()))
			}},
			{chance: half, draw: func(rng *rand.Rand, effect bool, x []float64) { b.draw(rng, effect, x[:past]); x[past] = 0 }},
			{chance: half, draw: func(rng *rand.Rand, _ bool, x []float64) {
				clear(x)
				x[past] = math.Exp(b.sigma * rng.NormFloat64())
			}},
		}
		sizes(share, []int{100, 500, 2000}, allSplits, func(size size, subjects []int) {
			s := b.sample(c, subjects)
			s.request.Covariates, s.judges = []int{past}, fewer
			s.events = size.events
			cells = append(cells, s.cell("sparse with a covariate", fmt.Sprintf("%s, %s", b, size), b.promise()))
		})
	}
	converted := crowd{dim: 2, rare: []kind{
		{chance: [2]float64{share / 2, share / 2 * (1 + sparseLift)}, x: []float64{1, 1}},
		{chance: [2]float64{share / 2, share / 2 * (1 + sparseLift)}, x: []float64{1, 0}},
		{chance: [2]float64{share / 2, share / 2 * (1 - sparseLift)}, x: []float64{0, 1}},
	}, common: []kind{{x: []float64{0, 0}}}}
	sizes(share, []int{100, 500, 2000}, allSplits, func(size size, subjects []int) {
		s := converted.sample(subjects)
		s.request.Formula, s.request.Proportion, s.request.Covariates = stats.ComponentMean(0), true, []int{1}
		s.difference, s.lift, s.judges = share*sparseLift, sparseLift, fewer
		cells = append(cells, s.cell("sparse with a covariate", fmt.Sprintf("rate, 2 %%, %s", size), light))
	})
	return cells
}

// stratified is sparse designs in 20 strata, some of which have hardly any event.
func stratified() []Cell {
	var cells []Cell
	const share, strata = 0.02, 20
	add := func(name string, s sample, promise Promise) {
		s.strata, s.judges = strata, fewer
		cells = append(cells, s.cell("20 sparse strata", name, promise))
	}
	sizes(share, []int{100, 500, 2000}, allSplits, func(size size, subjects []int) {
		add(fmt.Sprintf("rate, 2 %%, %s", size), converting(share, subjects), light)
		for _, ratio := range []bool{false, true} {
			b := spending{ratio, 1, share, 1}
			add(fmt.Sprintf("%s, %s", b, size), b.sample(b.crowd(), subjects), heavy)
		}
	})
	return cells
}

// guardrails is rates that must not rise by more than a margin, and rise by just
// as much.
func guardrails() []Cell {
	var cells, stratified []Cell
	for _, chance := range []float64{0.001, 0.01, 0.1} {
		for _, relative := range []bool{false, true} {
			name := fmt.Sprintf("rate %g %% against %+g %%", 100*chance, 100*chance*sparseLift)
			if relative {
				name = fmt.Sprintf("rate %g %% against a lift of %+g %%", 100*chance, 100*sparseLift)
			}
			sizes(chance, allEvents, allSplits, func(size size, subjects []int) {
				s := converting(chance, subjects)
				s.request.Test.Alternative = stats.Less
				s.request.Margin = stats.Margin{Value: s.difference}
				if relative {
					s.request.Margin = stats.Margin{Scale: stats.Relative, Value: s.lift}
				}
				promise := Promise{FalsePositives: mostFalse, Reason: reasonLight}
				c := s.cell("non-inferiority", fmt.Sprintf("%s, %s", name, size), promise)
				c.parts, c.atMargin = [2]bool{false, true}, true
				cells = append(cells, c)
				if chance > 0.01 || size.events > 500 {
					return
				}
				s.strata, s.judges = 20, fewer
				c = s.cell("non-inferiority in 20 strata", fmt.Sprintf("%s, %s", name, size), promise)
				c.parts, c.atMargin = [2]bool{false, true}, true
				stratified = append(stratified, c)
			})
		}
	}
	return append(cells, stratified...)
}
