package stats

import "math"

// A form is the variance of b_t·T + b_c·C, where T and C are the values of a
// treatment and of the control, as coefficients of b_t, b_c and their sum b: the
// difference has (1, −1) and T(L) = (T − C) − L·|C| has (1, −(1 ± L)), so that what
// both have in common, through the pooled means of covariates, counts by b alone
// and vanishes for the difference.
type form struct {
	tt, cc float64 // Of b_t² and b_c².
	tb, cb float64 // Of 2·b_t·b and 2·b_c·b.
	bb     float64 // Of b².
}

// at is the variance with b_t = 1 and b_c = −(1 + lift).
func (f form) at(lift float64) float64 {
	c := 1 + lift
	return f.tt + f.cc*c*c + 2*lift*(f.cb*c-f.tb) + f.bb*lift*lift
}

// of is the variance with any b_t and b_c.
func (f form) of(t, c float64) float64 {
	b := t + c
	return f.tt*t*t + f.cc*c*c + 2*b*(f.tb*t+f.cb*c) + f.bb*b*b
}

// control is the variance of the control's value, and mixed its covariance with
// the difference, with the sign turned: V(L) is at(0) + 2·L·mixed + L²·control for
// a control above zero.
func (f form) control() float64 { return f.cc + 2*f.cb + f.bb }
func (f form) mixed() float64   { return f.cc - f.tb + f.cb }

func (f form) plus(g form) form {
	return form{f.tt + g.tt, f.cc + g.cc, f.tb + g.tb, f.cb + g.cb, f.bb + g.bb}
}

func (f form) times(x float64) form {
	return form{f.tt * x, f.cc * x, f.tb * x, f.cb * x, f.bb * x}
}

// term is a part of the variance that is independent of the others, as one cell
// estimates it, with the degrees of freedom of that.
type term struct {
	form
	degrees float64
}

// A dispersion is the variance of a pair's values: by terms, from which degrees of
// freedom follow, and as a whole, which may be more than their sum.
type dispersion struct {
	terms []term
	whole form
	cells form // What the pair's cells are of it.
	// silent says which of the arms has subjects that are all alike, as the formula
	// sees them, in all strata; partly, how many strata have such an arm.
	silentControl, silentTreatment bool
	partly                         int
	pooled                         bool    // Whether the arms' variances are pooled.
	ofZero                         float64 // The degrees at 0, once they were asked for.
}

// degrees are the degrees of freedom of the variance at a lift. Those at 0 are asked
// for often, and remembered.
func (d *dispersion) degrees(lift float64) float64 {
	if lift != 0 {
		return d.satterthwaite(lift)
	}
	if d.ofZero == 0 {
		d.ofZero = d.satterthwaite(0)
	}
	return d.ofZero
}

// satterthwaite is V²/Σ(v_k²/ν_k) (Satterthwaite 1946, An approximate distribution of
// estimates of variance components; for two terms Welch 1947 and R's t.test), by the
// terms' own variances. It is 0 if these are.
func (d *dispersion) satterthwaite(lift float64) float64 {
	variance, sum := 0.0, 0.0
	for _, t := range d.terms {
		variance += t.at(lift)
	}
	if !(variance > 0) {
		return 0
	}
	for _, t := range d.terms {
		share := t.at(lift) / variance
		sum += share * share / t.degrees
	}
	return 1 / sum
}

// disperse finds the variance of a pair's values, adjusted if adj is not nil. Cell
// (arm k, stratum s) has the gradient
//
//	b_k·(g_k − θ) + (b_t + b_c)·(n_ks/N_s)·θ
//
// by its means, and every other arm's cells the second term, for the covariates'
// means are pooled over all arms: each adds w_s²·gᵀΣg/n, by the multivariate delta
// method (van der Vaart 1998, Asymptotic Statistics, theorem 3.1; for metrics Deng,
// Knoblich and Lu 2018, Applying the delta method in metric analytics). What the
// strata's weights add is that of between.
//
// The variance is the larger of two: Welch's, where each cell has its own, and that
// in which both arms of a stratum have the pooled variance of the linearised
// residual. With few subjects that count an arm's own variance is too small just
// when its mean is, and the pooled one is not; with unequal variances it is the
// other way round. Which one is decided for the difference and kept for lifts, so
// that the two agree: what the pooled one has more is each arm's by its size, since
// only the control's is multiplied by a lift. A treatment whose subjects are all alike has
// its part of the pooled one. A stratum in which nobody varies is certain of nothing either:
// with one, all cells have the variance of the subjects of all strata, if that is
// more.
func (r *Request) disperse(p *pair, adj *adjustment, info information) dispersion {
	d := dispersion{terms: make([]term, 0, 2*len(p.weights)+1), silentControl: true, silentTreatment: true}
	control, treatment := p.control.residual(adj), p.treatment.residual(adj)
	var own, sizes form
	var pooled, deviations, subjects, shared float64
	silent := 0
	for k, w := range p.weights {
		c, t := &p.control.cells[k], &p.treatment.cells[k]
		squares := [2]float64{c.quadratic(control), t.quadratic(treatment)}
		n := [2]float64{float64(c.N), float64(t.N)}
		here := form{cc: w * w / n[0], tt: w * w / n[1]}
		pooled += here.at(0) * (squares[0] + squares[1]) / (n[0] + n[1] - 2)
		shared += here.tt * squares[0] / (n[0] + n[1] - 2)
		sizes, deviations, subjects = sizes.plus(here), deviations+squares[0]+squares[1], subjects+n[0]+n[1]-2
		ofControl := term{form{cc: w * w * squares[0] / (n[0] - 1) / n[0]}, info.control.degrees(n[0])}
		ofTreatment := term{form{tt: w * w * squares[1] / (n[1] - 1) / n[1]}, info.treatment.degrees(n[1])}
		own.cc += ofControl.cc
		own.tt += ofTreatment.tt
		d.silentControl = d.silentControl && squares[0] == 0
		d.silentTreatment = d.silentTreatment && squares[1] == 0
		d.partly += int(one(squares[0] == 0 || squares[1] == 0))
		silent += int(one(squares[0] == 0 && squares[1] == 0))
		if adj != nil {
			ofControl.cb, ofControl.bb = p.common(adj, k, c.Moments, control, squares[0])
			ofTreatment.tb, ofTreatment.bb = p.common(adj, k, t.Moments, treatment, squares[1])
		}
		d.terms = append(d.terms, ofControl, ofTreatment)
	}
	if adj != nil {
		d.terms = r.others(p, adj, d.terms)
	}
	size := 0.0
	if d.silentControl && d.silentTreatment { // Else rounding does not show.
		size = p.size(adj)
	}
	if between := p.between(adj, size); between != (form{}) {
		d.terms = append(d.terms, term{between, p.population - 1})
	}
	d.whole, d.cells = d.own(), own
	if all := sizes.at(0) * deviations / subjects; silent > 0 {
		pooled = max(pooled, all)
	}
	if more := pooled - own.at(0); more > 0 {
		d.pooled = true
		d.replace(own.plus(sizes.times(more / sizes.at(0))))
	}
	if more := shared - d.cells.tt; d.silentTreatment && more > 0 { // Else a lift of −1 would be certain.
		d.replace(d.cells.plus(form{cc: -more, tt: more}))
	}
	return d
}

// own is the sum of the terms.
func (d *dispersion) own() (sum form) {
	for _, t := range d.terms {
		sum = sum.plus(t.form)
	}
	return sum
}

// replace puts others in the place of the cells' own variances.
func (d *dispersion) replace(cells form) {
	d.whole.cc += cells.cc - d.cells.cc
	d.whole.tt += cells.tt - d.cells.tt
	d.cells = cells
}

// residual is the gradient of a side's value, less θ.
func (s side) residual(adj *adjustment) []float64 {
	if adj == nil {
		return s.gradient
	}
	gradient := make([]float64, len(s.gradient))
	for i, theta := range adj.theta {
		gradient[i] = s.gradient[i] - theta
	}
	return gradient
}

// common is what a cell of the pair adds through the pooled means of covariates:
// the coefficient of 2·b_k·b, for its own arm k, and that of b². A residual without
// squares has nothing in common with anything, however its products were rounded.
func (p *pair) common(adj *adjustment, stratum int, m *Moments, residual []float64, squares float64) (mixed, square float64) {
	n := float64(m.N)
	w, share := p.weights[stratum], n/(p.weights[stratum]*p.population)
	by := w * w / (n - 1) / n
	if squares > 0 {
		mixed = by * share * m.bilinear(residual, adj.theta)
	}
	return mixed, by * share * share * m.quadratic(adj.theta)
}

// others adds what the arms that are not compared do to the pooled means of
// covariates.
func (r *Request) others(p *pair, adj *adjustment, terms []term) []term {
	for a, arm := range r.Arms {
		if a == r.Control || a == p.arm {
			continue
		}
		for k, s := range p.kept {
			m := &arm.Strata[s]
			if m.N < 2 {
				continue
			}
			_, square := p.common(adj, k, m, nil, 0)
			terms = append(terms, term{form{bb: square}, float64(m.N - 1)})
		}
	}
	return terms
}

// between is what the strata's weights add: how many subjects fell into each is
// chance too. With subjects drawn from a population a function of the strata's
// means μ_s varies by Σ w_s·(bᵀ(μ_s − m))²/N between them. It vanishes where the
// effect is alike in all strata, as far as numbers of a size can tell. It is the
// variance, given those within the cells, of the population's effect (Miratrix, Sekhon
// and Yu 2013, section 4).
func (p *pair) between(adj *adjustment, size float64) (f form) {
	if len(p.weights) == 1 {
		return f
	}
	for k, w := range p.weights {
		c := p.control.moved(adj, k)
		t := p.treatment.moved(adj, k) - c // b_t·(t − c) + b·c.
		if isLastDigits(c, size) {
			c = 0
		}
		if isLastDigits(t, size) {
			t = 0
		}
		f = f.plus(form{tt: w * t * t, tb: w * t * c, bb: w * c * c})
	}
	return f.times(1 / p.population)
}

// bilinear is gᵀSh, with S the matrix of products.
func (m *Moments) bilinear(g, h []float64) (sum float64) {
	for i := range g {
		for j := range h {
			if g[i] != 0 && h[j] != 0 {
				sum += g[i] * m.Products[m.index(i, j)] * h[j]
			}
		}
	}
	return sum
}

// addOne gives each cell the variance of a rate with one success and one failure
// more (Agresti and Caffo 2000, Simple and effective confidence intervals for
// proportions and differences of proportions result from adding two successes and
// two failures), if that is more: that nobody was lost of 10,000 is known to within
// some ten-thousandths. Where some did differ the arm as a whole has one more of each,
// for its strata are known to be alike, more or less.
func (d *dispersion) addOne(p *pair) {
	var more form
	terms := make([]term, 0, 2*len(p.weights))
	for k, w := range p.weights {
		c, t := p.control.oneMore(k, w), p.treatment.oneMore(k, w)
		if d.silentControl && d.silentTreatment {
			c, t = oneMore(w, p.control.value, p.control.cells[k].N), oneMore(w, p.treatment.value, p.treatment.cells[k].N)
		}
		terms = append(terms, term{form{cc: c}, float64(p.control.cells[k].N - 1)}, term{form{tt: t}, float64(p.treatment.cells[k].N - 1)})
		more = more.plus(form{cc: c, tt: t})
	}
	if more.cc+more.tt <= d.cells.cc+d.cells.tt {
		return
	}
	d.pooled, d.ofZero = false, 0
	d.replace(more)
	for k := range terms {
		d.terms[k].cc, d.terms[k].tt, d.terms[k].degrees = terms[k].cc, terms[k].tt, terms[k].degrees
	}
}

// oneMore is the variance of a rate with one success and one failure more than n
// subjects of a stratum have.
func oneMore(weight, rate float64, n int64) float64 {
	subjects := float64(n)
	rate = (rate*subjects + 1) / (subjects + 2)
	return weight * weight * rate * (1 - rate) / (subjects + 2)
}

// oneMore is a stratum's part of the variance of the side's rate, with one success and
// one failure more among all of its subjects.
func (s side) oneMore(stratum int, weight float64) float64 {
	subjects := float64(s.subjects())
	rate := (s.value*subjects + 1) / (subjects + 2)
	return weight * weight * rate * (1 - rate) / float64(s.cells[stratum].N) * subjects / (subjects + 2)
}

// deviation is the standard error at a lift: 0 where rounding leaves less.
func (d *dispersion) deviation(lift float64) float64 { return math.Sqrt(math.Max(0, d.whole.at(lift))) }
