package stats

import (
	"fmt"
	"math"
)

const (
	// collinear is the share of a covariate's variance that the covariates
	// before it must leave unexplained.
	collinear = 1e-10
	// subjectsPerCovariate is how many degrees of freedom a covariate should
	// have, for the loss of one of them not to show in the interval.
	subjectsPerCovariate = 20
)

// adjustment is what covariates do to every arm alike: CUPED (Deng, Xu, Kohavi
// and Walker 2013, Improving the sensitivity of online controlled experiments
// by utilizing pre-experiment data).
type adjustment struct {
	theta []float64 // as long as the means; 0 for all but the covariates
	mean  []float64 // pooled means
	// moved is θᵀ(x̄_s − x̄) for the pooled covariates of each kept stratum s.
	moved []float64
	// early says that there are too few subjects for the covariates: θ fits them,
	// and what is left of them varies too little.
	early bool
}

// adjust finds θ. The formula is linearised at the means of all subjects of
// all arms, and regressed on the covariates within arms and strata: θ solves
// S_xx θ = S_xy g, with S the products added up over all cells and g the
// gradient. For a plain mean in one stratum θ is the slope of a least-squares
// regression on arm and covariates. A nil adjustment comes with a note that
// says why there is none.
func (r *Request) adjust(kept []int) (*adjustment, []string, error) {
	pooled, degrees := r.pool(kept)
	if degrees <= float64(len(r.Covariates)) {
		return nil, []string{"There are too few subjects for the covariates: there is no adjusted comparison."}, nil
	}
	_, gradient, note, err := r.evaluate(pooled.Means, "all arms together")
	if err != nil || note != "" {
		return nil, []string{note}, err
	}
	dim := pooled.Dim()
	covariance := make([]float64, dim) // of each component with the linearised formula
	for i := range dim {
		for j := range dim {
			if gradient[j] != 0 {
				covariance[i] += pooled.Products[pooled.index(i, j)] * gradient[j]
			}
		}
	}
	theta, notes := regress(pooled, r.Covariates, covariance, degrees)
	for _, x := range theta {
		if !finite(x) {
			return nil, []string{"The covariates are too large to compute with: there is no adjusted comparison."}, nil
		}
	}
	adj := adjustment{
		theta: theta, mean: pooled.Means,
		early: degrees < float64(subjectsPerCovariate*len(r.Covariates)),
	}
	switch {
	case adj.early && r.Test.Method == AlwaysValid: // What it says on a day counts for ever.
		notes = append(notes, "There are too few subjects yet for the covariates: no adjusted interval and no p-value.")
	case adj.early:
		notes = append(notes, "There are few subjects for the covariates: the adjusted interval is too narrow.")
	}
	adj.moved = make([]float64, len(kept))
	if len(kept) == 1 {
		return &adj, notes, nil
	}
	for k, s := range kept {
		stratum, _ := r.pool([]int{s})
		for i, t := range theta {
			if t != 0 {
				adj.moved[k] += t * (stratum.Means[i] - pooled.Means[i])
			}
		}
	}
	return &adj, notes, nil
}

// pool adds up all arms in the kept strata: the mean of all subjects, and the
// products within cells, with their degrees of freedom.
func (r *Request) pool(kept []int) (pooled *Moments, degrees float64) {
	all := NewMoments(r.Arms[0].Strata[0].Dim())
	for _, arm := range r.Arms {
		for _, s := range kept {
			m := &arm.Strata[s]
			if m.N == 0 {
				continue
			}
			all.N += m.N
			share := float64(m.N) / float64(all.N)
			for i := range all.Means {
				all.Means[i] += (m.Means[i] - all.Means[i]) * share
			}
			for k := range all.Products {
				all.Products[k] += m.Products[k]
			}
			degrees += float64(m.N - 1)
		}
	}
	return &all, degrees
}

// regress solves S_xx θ = covariance for the covariates by Cholesky
// factorisation, scaled to unit variances. A covariate that is constant or a
// linear combination of those before it gets θ = 0 and a note: the fit is the
// same as with a pseudo-inverse, for the linear combinations it can make are.
func regress(pooled *Moments, covariates []int, covariance []float64, degrees float64) (theta []float64, notes []string) {
	theta = make([]float64, pooled.Dim())
	var used []int         // components in use
	var rows [][]float64   // their rows of the Cholesky factor
	var solution []float64 // forward substitution
	deviation := make(map[int]float64, len(covariates))
	for _, c := range covariates {
		deviation[c] = math.Sqrt(pooled.Products[pooled.index(c, c)])
		if deviation[c] <= 1e-15*math.Abs(pooled.Means[c])*math.Sqrt(degrees) {
			notes = append(notes, fmt.Sprintf("Component %d is constant: it is not used as a covariate.", c))
			continue
		}
		row := make([]float64, len(used)+1)
		left, value := 1.0, covariance[c]/deviation[c]
		for k, u := range used {
			row[k] = pooled.Products[pooled.index(c, u)] / deviation[c] / deviation[u]
			for l := range k {
				row[k] -= row[l] * rows[k][l]
			}
			row[k] /= rows[k][k]
			left -= row[k] * row[k]
			value -= row[k] * solution[k]
		}
		if left < collinear {
			notes = append(notes, fmt.Sprintf("Component %d follows from the covariates before it: it is not used as a covariate.", c))
			continue
		}
		row[len(used)] = math.Sqrt(left)
		used = append(used, c)
		rows = append(rows, row)
		solution = append(solution, value/row[len(row)-1])
	}
	for k := len(used) - 1; k >= 0; k-- {
		t := solution[k]
		for l := k + 1; l < len(used); l++ {
			t -= rows[l][k] * theta[used[l]] * deviation[used[l]]
		}
		theta[used[k]] = t / rows[k][k] / deviation[used[k]]
	}
	return theta, notes
}

// change is what the adjustment does to one arm, whose value is f(m) − θᵀ(x̄ − pooled
// x̄). θ is taken as given: it varies too, but not in the first order.
func (adj *adjustment) change(s side) (change float64) {
	for i, theta := range adj.theta {
		if theta != 0 {
			change -= theta * ((s.means[i] - adj.mean[i]) + s.tails[i])
		}
	}
	return change
}
