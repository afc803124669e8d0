package stats

import "gonum.org/v1/gonum/mathext"

// EqualShares is the p-value of Pearson's chi-square test of whether groups have
// the same share: of the all[i] members of group i, some[i] belong. Groups without
// members say nothing; nil if fewer than two have any, or if nobody or everybody
// belongs.
//
// R: chisq.test(rbind(some, all − some), correct = FALSE)$p.value.
func EqualShares(some, all []int64) *float64 {
	belong, members, groups := 0.0, 0.0, 0
	for i, n := range all {
		if n > 0 {
			belong, members, groups = belong+float64(some[i]), members+float64(n), groups+1
		}
	}
	if groups < 2 || belong == 0 || belong == members {
		return nil
	}
	share, statistic := belong/members, 0.0
	for i, n := range all {
		if n > 0 {
			expected := share * float64(n)
			off := float64(some[i]) - expected
			statistic += off * off / (expected * (1 - share))
		}
	}
	p := mathext.GammaIncRegComp(float64(groups-1)/2, statistic/2)
	return &p
}
