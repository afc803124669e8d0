package stats

import "fmt"

// fill makes up for the variance of cells whose subjects are all alike so far.
// Where few convert, the first subjects of a small arm never do, in an experiment
// or in a phase of it, and a variance of zero would make them certain. At a fixed
// horizon in one stratum it stays zero, as Welch has it. Elsewhere both cells of
// such a stratum have the variance of their subjects together, which over many
// strata is neither too much nor too little.
//
// A stratum in which nobody varies is certain of nothing either: if more, all cells
// have the variance of the subjects of all strata together. If nobody varies at
// all and the formula is a proportion, each cell has the variance of one success
// and one failure more (Agresti and Caffo 2000, Simple and effective confidence
// intervals for proportions and differences of proportions result from adding two
// successes and two failures): that nobody was lost of 10,000 is known to within
// some ten-thousandths.
func (p *pair) fill(control, treatment *estimate, r *Request) (note string) {
	if !p.variance {
		return ""
	}
	strata, filled, silent := len(p.weights), 0, 0
	var all spread
	for k := range p.weights {
		c, t := &p.control.cells[k], &p.treatment.cells[k]
		both := spread{}.with(&control.parts[k], c).with(&treatment.parts[k], t)
		all = all.and(both)
		one, other := c.quadratic(p.control.gradient) > 0, t.quadratic(p.treatment.gradient) > 0
		name := "treatment"
		if other {
			name = "control"
		}
		switch {
		case one && other:
		case !one && !other:
			silent++
		case strata == 1 && r.Test.Method == FixedHorizon:
			return fmt.Sprintf("All subjects of the %s are alike, and its variance is taken to be zero: with few of them the interval is far too narrow.", name)
		default:
			control.parts[k], treatment.parts[k] = both.part(c), both.part(t)
			note = fmt.Sprintf("All subjects of the %s are alike so far: the variance of either arm is taken to be that of both together.", name)
			filled++
		}
	}
	switch {
	case silent == strata && r.Proportion:
		for k, w := range p.weights {
			control.parts[k], treatment.parts[k] = oneMore(w, p.control.value, p.control.cells[k].N), oneMore(w, p.treatment.value, p.treatment.cells[k].N)
		}
		return "All subjects are alike so far: the variances are those of one success and one failure more."
	case silent > 0 && silent < strata:
		p.even(control, treatment, all)
	case strata == 1 || filled == 0:
		return note
	}
	if silent == strata {
		return ""
	}
	return fmt.Sprintf("In %d of %d strata all subjects of an arm are alike: the variances of both arms there are taken to be those of more subjects together.", filled+silent, strata)
}

// spread is the squared distances of subjects from the means of their cells, with
// the degrees of freedom.
type spread struct{ squares, degrees float64 }

// with adds a cell with its part of the variance.
func (s spread) with(of *part, c *cell) spread {
	n := float64(c.N)
	return s.and(spread{of.variance / (c.weight * c.weight) * n * (n - 1), n - 1})
}

func (s spread) and(other spread) spread {
	return spread{s.squares + other.squares, s.degrees + other.degrees}
}

// part is a cell's part of the variance if its subjects vary like these.
func (s spread) part(c *cell) part {
	return part{c.weight * c.weight * s.squares / s.degrees / float64(c.N), s.degrees}
}

// even gives all cells the same variance between subjects, if that is more.
func (p *pair) even(control, treatment *estimate, all spread) {
	var ofControl, ofTreatment []part
	for k := range p.weights {
		ofControl = append(ofControl, all.part(&p.control.cells[k]))
		ofTreatment = append(ofTreatment, all.part(&p.treatment.cells[k]))
	}
	own, _ := satterthwaite(control.parts, treatment.parts)
	if shared, _ := satterthwaite(ofControl, ofTreatment); shared > own {
		control.parts, treatment.parts = ofControl, ofTreatment
	}
}

// oneMore is the variance of a rate with one success and one failure more than n
// subjects of a stratum have.
func oneMore(weight, rate float64, n int64) part {
	subjects := float64(n)
	rate = (rate*subjects + 1) / (subjects + 2)
	return part{weight * weight * rate * (1 - rate) / (subjects + 2), subjects - 1}
}
