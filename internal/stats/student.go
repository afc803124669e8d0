package stats

import (
	"math"

	"gonum.org/v1/gonum/mathext"
)

// The tail of Student's t is computed here because gonum's StudentsT loses
// digits of it: its incomplete beta takes x = ν/(ν+t²) as a float64, which keeps
// few digits of t² when ν is large, and takes differences of log-gammas that
// grow with ν. It is off by 1e-6 of the value at ν = 1e9 and by 4e-4 at 1e12,
// and 0 for t above 1e154.

// betaSeriesDegrees is where the expansion for large ν takes over; it is good
// from ν/2 = 15 on (Didonato and Morris 1992, procedure BGRAT).
const betaSeriesDegrees = 30

// studentUpperTail is P(T > t) for Student's t with nu > 0 degrees of freedom,
// which may be +Inf for the normal. Its relative error is below 1e-12 down to
// 1e-300, where it is dominated by the rounding of t itself.
func studentUpperTail(t, nu float64) float64 {
	if t < 0 {
		return 1 - studentUpperTail(-t, nu)
	}
	if math.IsInf(nu, 1) {
		return math.Erfc(t/math.Sqrt2) / 2
	}
	// P(T > t) = I_x(ν/2, 1/2)/2 with x = ν/(ν+t²): Abramowitz and Stegun
	// 26.7.1 with 26.5.2. x is carried as −ln x, which keeps all digits of t².
	a := nu / 2
	var logX float64 // −ln x = ln(1 + t²/ν)
	if ratio := t / math.Sqrt(nu); ratio < 1e100 {
		logX = math.Log1p(ratio * ratio)
	} else {
		logX = 2 * math.Log(ratio)
	}
	switch {
	case t < 1 && nu < betaSeriesDegrees:
		// From the other end, so that a small t² is not lost in x.
		return 0.5 - mathext.RegIncBeta(0.5, a, -math.Expm1(-logX))/2
	case logX > 0.5:
		return betaTailSeries(a, logX) / 2
	case nu >= betaSeriesDegrees:
		// Rounding may take it past one half at t = 0.
		return math.Min(0.5, betaLargeA(a, logX)/2)
	default:
		return mathext.RegIncBeta(a, 0.5, math.Exp(-logX)) / 2
	}
}

// betaTailSeries is I_x(a, 1/2) for x = exp(−logX) not near 1, by the power
// series in x (NIST Digital Library of Mathematical Functions 8.17.7), whose terms are all
// positive: x^a/(a·B(a, 1/2)) · Σ a/(a+n) · (1/2)_n/n! · x^n.
func betaTailSeries(a, logX float64) float64 { return math.Exp(betaLogSeries(a, logX)) }

// betaLogSeries is its logarithm.
func betaLogSeries(a, logX float64) float64 {
	x := math.Exp(-logX)
	sum, coefficient := 1.0, 1.0
	for n := 1.0; ; n++ {
		coefficient *= (n - 0.5) / n * x
		term := coefficient * a / (a + n)
		sum += term
		if term <= 1e-17*sum {
			break
		}
	}
	// 1/(a·B(a, 1/2)) = Γ(a+1/2)/(a·Γ(a)·√π).
	return -a*logX + logGammaStep(a) - math.Log(a) - 0.5*math.Log(math.Pi) + math.Log(sum)
}

// logGammaStep is ln Γ(a+1/2) − ln Γ(a). For large a it is the difference of
// two expansions of ln Γ by Bernoulli polynomials (NIST Digital Library of
// Mathematical Functions 5.11.8), free of the cancellation of log-gammas.
func logGammaStep(a float64) float64 {
	if a < 15 {
		above, _ := math.Lgamma(a + 0.5)
		below, _ := math.Lgamma(a)
		return above - below
	}
	return 0.5*math.Log(a) + gammaStepRest(a)
}

// gammaStepRest is ln Γ(a+1/2) − ln Γ(a) − ln(a)/2 for a ≥ 15.
func gammaStepRest(a float64) float64 {
	r := 1 / (a * a)
	return (-1.0/8 + r*(1.0/192+r*(-1.0/640+r*(17.0/14336+r*(-31.0/18432+r*691.0/180224))))) / a
}

// largeATerms holds p_n of Didonato and Morris's BGRAT for b = 1/2.
var largeATerms = func() (p [24]float64) {
	const b = 0.5
	factorial := func(n int) float64 { return math.Gamma(float64(n) + 1) }
	p[0] = 1
	for n := 1; n < len(p); n++ {
		for m := 1; m < n; m++ {
			p[n] += (float64(m)*b - float64(n)) / factorial(2*m+1) * p[n-m]
		}
		p[n] = p[n]/float64(n) + (b-1)/factorial(2*n+1)
	}
	return p
}()

// betaLargeA is I_x(a, 1/2) for a ≥ 15 and x = exp(−logX) near 1: Didonato and
// Morris (1992), Algorithm 708, ACM Transactions on Mathematical Software 18,
// procedure BGRAT, with b = 1/2 where the incomplete gamma function is erfc.
func betaLargeA(a, logX float64) float64 {
	// h = exp(−u)·u^b/Γ(b); the J_n of the paper are multiplied by it, so that
	// nothing is divided by it when it is 0.
	u := largeAPlace(a, logX)
	return largeASum(a, logX, math.Exp(-u)*math.Sqrt(u/math.Pi), math.Erfc(math.Sqrt(u)))
}

// largeAPlace is the u of the paper.
func largeAPlace(a, logX float64) float64 { return (a - 0.25) * logX }

// largeASum is the sum of betaLargeA from h and its first term j, either of which
// may lack a factor that the other lacks too.
func largeASum(a, logX, h, j float64) float64 {
	const b = 0.5
	t := a + (b-1)/2
	u := largeAPlace(a, logX)
	sum := j
	power, square := 1.0, logX*logX/4
	for n := 1; n < len(largeATerms); n++ {
		b2n := b + 2*float64(n-1)
		j = (b2n*(b2n+1)*j + (u+b2n+1)*power*h) / (4 * t * t)
		power *= square
		term := largeATerms[n] * j
		sum += term
		if math.Abs(term) <= 1e-17*sum {
			break
		}
	}
	// Γ(a+1/2)/(Γ(a)·√t), written so that it does not cancel.
	return math.Exp(gammaStepRest(a)-0.5*math.Log1p(-1/(4*a))) * sum
}

// studentUpperQuantile is the t > 0 with P(T > t) = q, for 0 < q < 1/2 and nu
// degrees of freedom, +Inf for the normal. It inverts studentUpperTail, so
// intervals and p-values agree to rounding: Newton's method on ln P as a
// function of ln t, which is nearly straight, kept within a bracket.
func studentUpperQuantile(q, nu float64) float64 {
	goal := math.Log(q)
	low, high := math.Log(math.SmallestNonzeroFloat64), math.Log(math.MaxFloat64)
	s := math.Log(startingQuantile(q, nu))
	for range 200 {
		t := math.Exp(s)
		tail := studentUpperTail(t, nu)
		miss := math.Log(tail) - goal
		if miss > 0 {
			low = s
		} else {
			high = s
		}
		next := s + miss*tail/(t*studentDensity(t, nu))
		if math.Abs(next-s) <= 1e-9 { // A step doubles the digits, so now they are all there.
			return math.Exp(next)
		}
		if !(next > low && next < high) {
			next = low + (high-low)/2
		}
		if next == low && next == high {
			break
		}
		s = next
	}
	return math.Exp(s)
}

// startingQuantile is near the quantile: the normal one, corrected by the terms
// of Abramowitz and Stegun 26.7.5, of which the first alone where the others grow,
// or for few degrees of freedom the tail of the Cauchy kind, if that reaches
// further.
func startingQuantile(q, nu float64) float64 {
	z := math.Sqrt2 * math.Erfcinv(2*q)
	if !finite(z) || z <= 0 {
		z = 1
	}
	zz := z * z
	t := z + z*(zz+1)/(4*nu)
	if nu > 10 && zz < nu {
		t += z*((5*zz+16)*zz+3)/(96*nu*nu) + z*(((3*zz+19)*zz+17)*zz-15)/(384*nu*nu*nu) +
			z*((((79*zz+776)*zz+1482)*zz-1920)*zz-945)/(92160*nu*nu*nu*nu)
	}
	if nu < 5 {
		t = math.Max(t, math.Pow(q, -1/nu)/4)
	}
	return math.Min(t, 1e300)
}

// studentDensity is the density of Student's t with nu degrees of freedom.
func studentDensity(t, nu float64) float64 {
	if math.IsInf(nu, 1) {
		return math.Exp(-t*t/2) / math.Sqrt(2*math.Pi)
	}
	ratio := t / math.Sqrt(nu)
	return math.Exp(logGammaStep(nu/2) - 0.5*math.Log(nu*math.Pi) - (nu+1)/2*math.Log1p(ratio*ratio))
}
