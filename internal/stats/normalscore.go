package stats

import "math"

// The normal score of a statistic is the normal deviate that has the same tail
// beyond it as Student's t. By it a boundary that was made for the normal
// distribution judges estimates whose standard error is itself an estimate. The
// boundary of a first day lies so far out that its tail cannot be written, so tails
// are carried as logarithms there.

// leastTail is the tail below which logarithms take over.
const leastTail = 1e-280

// normalScore is the normal score of a statistic with nu degrees of freedom.
func normalScore(t, nu float64) float64 {
	if t < 0 {
		return -normalScore(-t, nu)
	}
	if math.IsInf(nu, 1) {
		return t
	}
	if tail := studentUpperTail(t, nu); tail > leastTail {
		return normalUpperQuantile(tail)
	}
	// Newton's method on ln P, whose slope is −φ/P.
	goal := studentLogTail(t, nu)
	z := math.Sqrt(-2 * goal)
	for range 50 {
		step := (normalLogTail(z) - goal) / z // φ/P is about z.
		z += step
		if math.Abs(step) <= 1e-15*z {
			break
		}
	}
	return z
}

// atNormalScore is the statistic with nu degrees of freedom that has a normal score
// above 0: the inverse of normalScore. It is +Inf if it cannot be written.
func atNormalScore(z, nu float64) float64 {
	if math.IsInf(nu, 1) {
		return z
	}
	if tail := normalUpperTail(z); tail > leastTail {
		return studentUpperQuantile(tail, nu)
	}
	// Tails are halved and halved again between bounds on ln t.
	goal := normalLogTail(z)
	low, high := math.Log(z), math.Log(math.MaxFloat64)
	if studentLogTail(math.MaxFloat64, nu) > goal {
		return math.Inf(1)
	}
	for range 100 {
		middle := low + (high-low)/2
		if studentLogTail(math.Exp(middle), nu) > goal {
			low = middle
		} else {
			high = middle
		}
		if high-low <= 1e-16*math.Abs(low) {
			break
		}
	}
	return math.Exp(low + (high-low)/2)
}

// studentLogTail is ln P(T > t) for t > 0, also where the tail is too small to write.
func studentLogTail(t, nu float64) float64 {
	if tail := studentUpperTail(t, nu); tail > leastTail {
		return math.Log(tail)
	}
	a := nu / 2
	ratio := t / math.Sqrt(nu)
	logX := 2 * math.Log(ratio)
	if ratio < 1e100 {
		logX = math.Log1p(ratio * ratio)
	}
	if logX > 0.5 {
		return betaLogSeries(a, logX) - math.Ln2
	}
	u := largeAPlace(a, logX)
	return math.Log(largeASum(a, logX, math.Sqrt(u/math.Pi), scaledErfc(u))/2) - u
}

// normalLogTail is ln P(Z > z) for z > 0.
func normalLogTail(z float64) float64 {
	if tail := normalUpperTail(z); tail > leastTail {
		return math.Log(tail)
	}
	return math.Log(scaledErfc(z*z/2)/2) - z*z/2
}

// scaledErfc is exp(u)·erfc(√u) for a large u (Abramowitz and Stegun 7.1.23).
func scaledErfc(u float64) float64 {
	sum, term := 1.0, 1.0
	for k := 1.0; k <= 8; k++ {
		term *= -(2*k - 1) / (2 * u)
		sum += term
	}
	return sum / math.Sqrt(math.Pi*u)
}
