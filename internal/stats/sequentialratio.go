package stats

import "math"

// concentration is how tightly the prior of the sequential test lies around the
// split: as tightly as after that many subjects. It is the default of the
// authors' package ssrm-test (dirichlet_concentration) and of GrowthBook's
// gbstats: shares are then expected within about a percentage point of the
// split's, where mismatches that are hard to see lie.
const concentration = 10_000

// SequentialSampleRatio is the p-value of the sequential multinomial test for
// sample-ratio mismatch. Under the split, the smallest p-value of counts as they
// grow is ever below α with probability α at most, however often it is looked
// at, from the first subject on. It is nil without subjects.
//
// The p-value is one over the Bayes factor of a Dirichlet prior, centred on the
// split, against the split itself, and at most 1: Lindon and Malek (2022),
// Anytime-valid inference for multinomial count data; sequential_p_values of
// ssrm-test. The factors of several splits are multiplied, as the splits are
// independent. An arm of weight 0 is none; with subjects in it the p-value is 0.
func SequentialSampleRatio(splits ...Split) (*float64, error) {
	factor, subjects := 0.0, int64(0)
	for s, split := range splits {
		if err := split.check(s); err != nil {
			return nil, err
		}
		for _, n := range split.Observed {
			subjects += n
		}
		factor += split.logBayesFactor()
	}
	if subjects == 0 {
		return nil, nil
	}
	p := math.Min(1, math.Exp(-factor))
	return &p, nil
}

// logBayesFactor is the logarithm of the Bayes factor of the Dirichlet prior
// with aᵢ = Aθᵢ against the shares θᵢ,
//
//	ln Γ(A)/Γ(A+n) + Σ ln Γ(aᵢ+xᵢ)/Γ(aᵢ) − Σ xᵢ ln θᵢ.
//
// Its terms are of the size of n ln n and cancel almost, so they are not
// computed as they stand. With Stirling's formula, lnΓ(z) = (z−½)ln z − z +
// ½ln 2π + μ(z), and uᵢ = (xᵢ − nθᵢ)/(θᵢ(A+n)), how far arm i is from its
// expectation, it is equal to
//
//	Σ [(A+n)θᵢ((1+uᵢ)ln(1+uᵢ) − uᵢ) − ½ ln(1+uᵢ) + μ(aᵢ+xᵢ) − μ(aᵢ)]
//	  − (k−1)/2 · ln(1+n/A) − μ(A+n) + μ(A)
//
// for k arms, in which nothing larger than xᵢ − nθᵢ cancels. It is +Inf if an arm
// without a share has subjects.
func (s Split) logBayesFactor() float64 {
	expected, n := s.expected()
	weight := 0.0
	for _, w := range s.Weights {
		weight += w
	}
	arms, sum := 0, binet(concentration)-binet(concentration+n)
	for i, w := range s.Weights {
		x, share := float64(s.Observed[i]), w/weight
		if share == 0 && x == 0 {
			continue
		}
		arms++
		prior, mean := concentration*share, (concentration+n)*share
		u := (x - expected[i]) / mean
		if math.IsInf(u, 0) { // A share of 0, or hardly more. It may be −0.
			return math.Inf(1)
		}
		ratio := math.Log1p(u)
		sum += mean*((1+u)*ratio-u) - ratio/2 + binet(prior+x) - binet(prior)
	}
	return sum - float64(arms-1)/2*math.Log1p(n/concentration)
}

// binet is μ(z), what Stirling's formula lacks of lnΓ(z) (Abramowitz and Stegun
// 6.1.41).
func binet(z float64) float64 {
	if z < 20 {
		log, _ := math.Lgamma(z)
		return log - (z-0.5)*math.Log(z) + z - math.Log(2*math.Pi)/2
	}
	s := 1 / (z * z)
	return (1.0/12 - s*(1.0/360-s*(1.0/1260-s*(1.0/1680-s/1188)))) / z
}
