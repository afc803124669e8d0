package stats

import "math"

// lifts is the scale of lifts: L is judged by T(L) = (t − c) − L·|c|, which is a
// difference of two means and has mean 0 under the null hypothesis (Fieller 1954,
// Some problems in interval estimation, Journal of the Royal Statistical Society B
// 16; for the set where it is no interval Zerbe 1978, On Fieller's theorem and the
// general linear model). So the lift and the difference say the same of 0, and no
// bound leans on the control's value as if it were known.
type lifts struct {
	lift float64 // (t − c)/|c|.
	sign float64 // Of the control.
	base float64 // |c|.
	dispersion
	nonNegative bool // Neither value can be below zero, so no lift is below −1.
}

func (l *lifts) score(null float64) (statistic, degrees float64) {
	if l.nonNegative && null < -1 { // No lift is, whatever the data say.
		return math.MaxFloat64, l.degrees(null)
	}
	null *= l.sign
	return (l.lift - l.sign*null) * l.base / l.deviation(null), l.degrees(null)
}

func (l *lifts) bounds(below, above float64) (lower, upper *float64) {
	lower, _ = l.reach(below)
	_, upper = l.reach(above)
	return lower, upper
}

// reach is the lifts at a size of the statistic, T(L)² = k²·V(L), on either side of
// the estimate: in units of the control, the roots of a·L² − 2h·L + e with
// a = 1 − k²·V_c. Where a is not positive the control is not known to differ from
// zero: what the test does not reject is all lifts, or all but those between the
// roots. Of the latter there is a lower end if those below the roots cannot be.
func (l *lifts) reach(k float64) (lower, upper *float64) {
	unit := 1 / l.base
	control, mixed, difference := l.whole.control()*unit*unit, l.sign*l.whole.mixed()*unit*unit, l.whole.at(0)*unit*unit
	a, h := 1-k*k*control, l.lift+k*k*mixed
	root := difference + 2*l.lift*mixed + l.lift*l.lift*control - k*k*(control*difference-mixed*mixed)
	switch {
	case a > 0:
		root = k * math.Sqrt(math.Max(0, root))
		lower, upper = present((h-root)/a), present((h+root)/a)
	case a < 0 && root > 0 && l.nonNegative:
		root = k * math.Sqrt(root)
		if first, last := (h+root)/a, (h-root)/a; first <= -1 && last > -1 {
			lower = present(last)
		}
	}
	if l.nonNegative {
		for _, bound := range []*float64{lower, upper} {
			if bound != nil {
				*bound = math.Max(*bound, -1)
			}
		}
	}
	return lower, upper
}
