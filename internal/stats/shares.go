package stats

import "gonum.org/v1/gonum/mathext"

// EqualShares is the p-value of Pearson's chi-square test of whether groups have
// the same share: of the all[i] members of group i, some[i] belong. Groups without
// members say nothing; nil if fewer than two have any, or if nobody or everybody
// belongs.
//
// R: chisq.test(rbind(some, all − some), correct = FALSE)$p.value.
func EqualShares(some, all []int64) *float64 {
	return EqualSharesWithin([][]int64{some}, [][]int64{all})
}

// EqualSharesWithin is the same of several strata, whose shares may differ from each
// other, as do those of phases: the sum of the statistics of the strata, which are
// independent, has a chi-square distribution with the sum of their degrees of freedom.
// Strata that say nothing are left out.
func EqualSharesWithin(some, all [][]int64) *float64 {
	statistic, degrees := 0.0, 0
	for s := range all {
		x, d := unequalShares(some[s], all[s])
		statistic, degrees = statistic+x, degrees+d
	}
	if degrees == 0 {
		return nil
	}
	p := mathext.GammaIncRegComp(float64(degrees)/2, statistic/2)
	return &p
}

// unequalShares is Pearson's statistic and its degrees of freedom, of which there are
// none if the groups say nothing.
func unequalShares(some, all []int64) (statistic float64, degrees int) {
	belong, members, groups := 0.0, 0.0, 0
	for i, n := range all {
		if n > 0 {
			belong, members, groups = belong+float64(some[i]), members+float64(n), groups+1
		}
	}
	if groups < 2 || belong == 0 || belong == members {
		return 0, 0
	}
	share := belong / members
	for i, n := range all {
		if n > 0 {
			expected := share * float64(n)
			off := float64(some[i]) - expected
			statistic += off * off / (expected * (1 - share))
		}
	}
	return statistic, groups - 1
}
