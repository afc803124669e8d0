package stats

import "math"

// The always-valid method is the asymptotic confidence sequence of
// Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), Time-uniform central
// limit theory and asymptotic confidence sequences, Annals of Statistics 52;
// equations are numbered as in arXiv:2103.06476v7, and GrowthBook's gbstats
// implements the same ones. By equation (9), after N subjects the mean lies
// within
//
//	σ̂ · √( 2(Nρ²+1)/(N²ρ²) · ln( √(Nρ²+1)/α ) )
//
// of its estimate, at all N together with probability 1 − α. The estimate here
// is a difference of two arms, its standard error se stands for σ̂/√N, and N
// counts the subjects of both arms.
//
// The promise is asymptotic: it leans on the variance estimate, so it is not
// kept by the first handful of subjects. More planned subjects help, because
// the boundary is then wider in the beginning: watched from the fourth subject
// on at α = 0.05, normal data are ever wrong in 10 % of experiments planned for
// 100 subjects, 3.5 % for 1,000 and 1 % for 10,000 (testdata/peeking.py). Arms of
// different size leave the difference some of the data's skewness, and its
// variance to a few subjects. So nothing is judged before that share is down to a
// tenth ([pair.skewness]): 100 subjects in the smaller of two very different arms,
// 71 at 1:9, none at 1:1. And few subjects may be the ones that count: the boundary is
// that of the normal score of Student's t by the informative ones (normalscore.go),
// with the variance of [Request.disperse] and five of them in each arm. Of a rate of
// 2 %, whose false positives on 40 days were 80 % at 1:99 and 17 % at 1:9, and of the
// spending of 2 % who buy, lognormal with σ up to 2, of which 17 % were, with 1,000 and
// 5,000 subjects at 1:1 to 1:99 1.2 % or fewer are left.
//
// A one-sided test uses the two-sided boundary and drops a bound. It is valid
// and conservative: its error rate is about half of the α it is given. So do
// the two one-sided tests of equivalence, whose interval therefore has the level
// 1 − α and not 1 − 2α.

// mostSkewness is the share of the data's skewness up to which an estimate is
// judged.
const mostSkewness = 0.1

// intrinsicTime is Nρ², the time of the boundary. ρ is fixed by the plan, so
// that it cannot follow the data: it makes the boundary tightest at the
// planned subjects N*, by the approximation
//
//	ρ² = (−2 ln α + ln(1 − 2 ln α)) / N*
//
// of equation (161); the exact minimum is −W₋₁(−α²/e) − 1 over N*, of which
// this takes the first two terms of Lambert's W.
func (t Test) intrinsicTime(subjects int64) float64 {
	planned := t.PlannedSubjects
	if planned == 0 {
		planned = DefaultPlannedSubjects
	}
	logAlpha := math.Log1p(-t.ConfidenceLevel)
	rhoSquared := (-2*logAlpha + math.Log1p(-2*logAlpha)) / float64(planned)
	return float64(subjects) * rhoSquared
}

// mixtureCritical is the half width in standard errors at intrinsic time x:
// √( 2(x+1)/x · (ln(x+1)/2 − ln α) ), the boundary above with N cancelled.
func mixtureCritical(alpha, x float64) float64 {
	return math.Sqrt(2 * (x + 1) / x * (math.Log1p(x)/2 - math.Log(alpha)))
}

// mixturePValue is the smallest α at which the boundary is reached by an
// estimate z standard errors from the null: ln p = ln(x+1)/2 − z²x/(2(x+1)),
// and at most 1. It is equation (9) solved for α, and one over the e-value of
// equation (155).
func mixturePValue(z, x float64) float64 {
	return math.Min(1, math.Exp(math.Log1p(x)/2-z*z*x/(2*(x+1))))
}
