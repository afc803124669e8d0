package stats

import (
	"math"
	"slices"
)

// The crossing of group-sequential boundaries is computed by the recursive
// integration of Armitage, McPherson and Rowe (1969), Repeated significance
// tests on accumulating data, in this form: g(z) is the chance that no earlier
// look crossed given that the present statistic is z. As the statistic is a
// Brownian motion over the root of its time, the previous one given z is normal
// around ρz with variance 1 − ρ², where ρ² is the ratio of the two looks'
// information, so
//
//	g_k(z) = ∫ g_{k−1}(y) · N(y; ρz, 1 − ρ²) dy
//
// over the region of the previous look, and g lies between 0 and 1 however far
// out z is, where the densities of the usual form underflow.
//
// The integrals are sums over panels of Gauss–Legendre points. Simpson's rule
// on the grid of Jennison and Turnbull (2000), Group sequential methods,
// chapter 19, which is the same at every look, loses all digits where two looks
// are close together, as the kernel is then narrower than the grid; the panels
// here are a few standard deviations of the kernel wide.

const (
	// panelWidth is in standard deviations of the narrowest factor of an
	// integrand. It leaves an error of about 1e-13 of a boundary.
	panelWidth = 6
	// kernelReach is how many standard deviations of the kernel count; what is
	// beyond them is below 1e-13.
	kernelReach = 8
	// lowest is where the region of a one-sided look is cut off.
	lowest = -9
)

// region is where no boundary has been crossed up to a look: points with their
// mass, the quadrature's weight times g. Of a two-sided look it is the upper
// half; the lower one mirrors it.
type region struct {
	information float64
	top         float64 // The boundary.
	mirrored    bool
	points      []float64
	mass        []float64
}

// step leads from a look to a later one: their correlation, and the standard
// deviation of the earlier statistic given the later.
type step struct{ rho, deviation float64 }

func (r *region) step(information float64) step {
	return step{math.Sqrt(r.information / information), math.Sqrt((information - r.information) / information)}
}

// then is the region of a look below its boundary. It follows r, or is the
// first if r is nil. next is the information of the look after it.
func (r *region) then(information, boundary, next float64, mirrored bool) *region {
	n := &region{information: information, top: boundary, mirrored: mirrored}
	scale := n.step(next).deviation
	if r == nil {
		n.lay(scale)
		return n
	}
	from := r.step(information)
	n.lay(math.Min(scale, from.deviation/from.rho))
	for i, z := range n.points {
		n.mass[i] *= r.survival(z, from)
	}
	return n
}

// lay puts panels of points on the region, each with its weight as mass. scale
// is the standard deviation of the narrowest factor that will be integrated.
func (r *region) lay(scale float64) {
	bottom := float64(lowest)
	if r.mirrored {
		bottom = 0
	}
	panels := math.Max(1, math.Ceil((r.top-bottom)/(panelWidth*math.Min(1, scale))))
	width := (r.top - bottom) / panels
	for p := range int(panels) {
		from := bottom + width*float64(p)
		for i, node := range legendre.nodes {
			r.points = append(r.points, from+width*node)
			r.mass = append(r.mass, width*legendre.weights[i])
		}
	}
}

// survival is g(z) of a later look.
func (r *region) survival(z float64, to step) float64 {
	sum := r.kernel(to.rho*z, to.deviation)
	if r.mirrored {
		sum += r.kernel(-to.rho*z, to.deviation)
	}
	return sum / (to.deviation * math.Sqrt(2*math.Pi))
}

// kernel is the sum of the mass by the normal kernel around center, without its
// constant.
func (r *region) kernel(center, deviation float64) float64 {
	first, _ := slices.BinarySearch(r.points, center-kernelReach*deviation)
	sum := 0.0
	for i := first; i < len(r.points); i++ {
		x := (r.points[i] - center) / deviation
		if x > kernelReach {
			break
		}
		sum += r.mass[i] * math.Exp(-x*x/2)
	}
	return sum
}

// crossing is the chance that a later look is the first to have its statistic
// above c, and the slope of its logarithm in c.
func (r *region) crossing(c float64, to step) (chance, slope float64) {
	for i, y := range r.points {
		mass := r.mass[i] * math.Exp(-y*y/2)
		add := func(y float64) {
			x := (c - to.rho*y) / to.deviation
			chance += mass * math.Erfc(x/math.Sqrt2) / 2
			slope -= mass * math.Exp(-x*x/2)
		}
		add(y)
		if r.mirrored {
			add(-y)
		}
	}
	slope /= to.deviation * math.Sqrt(2*math.Pi) * chance
	return chance / math.Sqrt(2*math.Pi), slope
}

// boundary is the c at which a later look is the first to cross with the given
// chance on one side. The logarithm of the chance is concave in c, so Newton's
// method comes down from above without overshooting. It begins where the chance
// is smaller, yet not so small that it underflows.
func (r *region) boundary(chance float64, to step) float64 {
	c := math.Min(normalUpperQuantile(chance), to.rho*r.top+30*to.deviation)
	goal := math.Log(chance)
	for range 100 {
		now, slope := r.crossing(c, to)
		by := (math.Log(now) - goal) / slope
		c -= by
		if math.Abs(by) < 1e-13*math.Max(1, math.Abs(c)) {
			break
		}
	}
	return c
}

// normalUpperQuantile is the z with the given tail above it, for 0 < tail < 1.
func normalUpperQuantile(tail float64) float64 {
	switch {
	case tail < 0.5:
		return studentUpperQuantile(tail, math.Inf(1))
	case tail > 0.5:
		return -studentUpperQuantile(1-tail, math.Inf(1))
	}
	return 0
}
