package stats

// Heterogeneity says whether an effect differs between groups of subjects.
type Heterogeneity struct {
	// Statistic is Cochran's Q; nil with fewer than two effects to compare.
	Statistic        *float64
	DegreesOfFreedom int
	PValue           *float64
	// Inconsistency is I², the share of the variation between the effects that
	// is more than chance brings about: 1 − DegreesOfFreedom/Q, or 0.
	Inconsistency *float64
}

// CheckHeterogeneity compares the effects of disjoint groups of subjects.
// Effects without an estimate or a standard error above 0 do not count. The
// p-value takes the standard errors as known, so it is rough for groups of a few
// subjects.
//
// Cochran (1954), The combination of estimates from different experiments;
// Higgins and Thompson (2002), Quantifying heterogeneity in a meta-analysis;
// metafor's rma(yi, sei = sei, method = "FE").
func CheckHeterogeneity(effects []Effect) Heterogeneity {
	var known []Effect
	for _, e := range effects {
		if e.Estimate != nil && e.StandardError != nil && *e.StandardError > 0 {
			known = append(known, e)
		}
	}
	if len(known) < 2 {
		return Heterogeneity{}
	}
	smallest := *known[0].StandardError
	for _, e := range known {
		smallest = min(smallest, *e.StandardError)
	}
	// The mean is computed by its distance from the first effect, and with
	// weights relative to the largest, so that no size of them does harm.
	first, sum, weights := *known[0].Estimate, 0.0, 0.0
	for _, e := range known {
		w := smallest / *e.StandardError
		w *= w
		weights += w
		sum += w * (*e.Estimate - first)
	}
	mean, q := sum/weights, 0.0
	for _, e := range known {
		z := (*e.Estimate - first - mean) / *e.StandardError
		q += z * z
	}
	h := Heterogeneity{Statistic: present(q), DegreesOfFreedom: len(known) - 1}
	if h.Statistic == nil {
		return Heterogeneity{}
	}
	degrees := float64(h.DegreesOfFreedom)
	h.PValue = present(chiSquareUpperTail(q, h.DegreesOfFreedom))
	inconsistency := 0.0
	if q > degrees {
		inconsistency = (q - degrees) / q
	}
	h.Inconsistency = &inconsistency
	return h
}
