package stats

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/integrate/quad"
)

// legendre holds the nodes, rising, and the weights of Gauss and Legendre's rule
// on [0, 1].
var legendre = func() (rule struct{ nodes, weights [20]float64 }) {
	quad.Legendre{}.FixedLocations(rule.nodes[:], rule.weights[:], 0, 1)
	slices.Sort(rule.nodes[:]) // The weights are symmetric.
	return rule
}()

// meanOverScale is the mean of chance(S), where S is a standard deviation that
// is estimated with nu ≥ 1 degrees of freedom, over the true one: νS² is
// chi-square. The estimate of a normal mean does not depend on S, so what is a
// normal probability for a given S becomes one of the noncentral t, or for two
// bounds Owen's Q (Owen 1965, A special case of a bivariate non-central
// t-distribution, Biometrika 52, equations 1 and 6).
//
// Bends are values of S between which chance is smooth. The integral is over
// u = ln S, in which the density exp(ν(u − e²ᵘ/2)) is smooth for all ν, and is
// divided by that of the density, which saves its constant. The relative error
// is below 1e-11 (testdata/power.py).
func meanOverScale(nu float64, bends []float64, chance func(s float64) float64) float64 {
	if math.IsInf(nu, 1) {
		return chance(1)
	}
	deviation := 1 / math.Sqrt(2*nu)
	var points []float64
	for k := -9.0; k <= 9; k += 2 {
		points = append(points, k*deviation)
	}
	low, high := points[0]-40/nu, points[len(points)-1]
	for k := 0.0; k < 4; k++ {
		points = append(points, low+10*k/nu)
	}
	for _, s := range bends {
		if u := math.Log(s); u > low && u < high { // False for S below 0.
			points = append(points, u)
		}
	}
	slices.Sort(points)
	sum, total := 0.0, 0.0
	for i, from := range points[:len(points)-1] {
		width := points[i+1] - from
		for j, node := range legendre.nodes {
			u := from + width*node
			weight := width * legendre.weights[j] * math.Exp(-nu*expRest(2*u)/2)
			total += weight
			sum += weight * chance(math.Exp(u))
		}
	}
	return sum / total
}

// expRest is eʸ − 1 − y without cancellation.
func expRest(y float64) float64 {
	if math.Abs(y) > 0.1 {
		return math.Expm1(y) - y
	}
	sum, term := 0.0, y
	for n := 2.0; n < 12; n++ {
		term *= y / n
		sum += term
	}
	return sum
}
