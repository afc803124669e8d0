package stats

import (
	"fmt"
	"slices"
)

// A Correction adjusts p-values for having tested several hypotheses.
type Correction int

const (
	// NoCorrection leaves p-values as they are.
	NoCorrection Correction = iota
	// Holm bounds the chance of any false positive; it is never weaker than
	// Bonferroni.
	Holm
	// Bonferroni bounds the chance of any false positive.
	Bonferroni
	// BenjaminiHochberg bounds the expected share of false ones among the
	// positives.
	BenjaminiHochberg
)

// Adjust returns the adjusted p-values in the order of p. An absent one stays
// absent and does not count as a test. It refuses numbers outside of [0, 1].
//
// Holm (1979), A simple sequentially rejective multiple test procedure;
// Benjamini and Hochberg (1995), Controlling the false discovery rate. The
// adjusted p-values are those of R's p.adjust.
func (c Correction) Adjust(p []*float64) ([]*float64, error) {
	var order []int
	for i, value := range p {
		if value == nil {
			continue
		}
		if !(*value >= 0 && *value <= 1) {
			return nil, fmt.Errorf("p-value %d is %v, which is not between 0 and 1", i, *value)
		}
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(i, j int) int {
		switch {
		case *p[i] < *p[j]:
			return -1
		case *p[i] > *p[j]:
			return 1
		}
		return 0
	})
	adjusted := make([]*float64, len(p))
	set := func(rank int, value float64) { adjusted[order[rank]] = &value }
	tests := float64(len(order))
	switch c {
	case NoCorrection:
		for rank, i := range order {
			set(rank, *p[i])
		}
	case Bonferroni:
		for rank, i := range order {
			set(rank, min(1, tests**p[i]))
		}
	case Holm:
		highest := 0.0
		for rank, i := range order {
			highest = max(highest, min(1, (tests-float64(rank))**p[i]))
			set(rank, highest)
		}
	case BenjaminiHochberg:
		lowest := 1.0
		for rank, i := range slices.Backward(order) {
			lowest = min(lowest, tests/float64(rank+1)**p[i])
			set(rank, lowest)
		}
	default:
		return nil, fmt.Errorf("correction %d is not known", c)
	}
	return adjusted, nil
}
