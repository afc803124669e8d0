package stats

import "math"

// Quantile is the number below which the share p of the sorted numbers lies,
// with linear interpolation between two of them: type 7 of Hyndman and Fan
// (1996), Sample quantiles in statistical packages, the default of R's quantile.
// ok is false if there are no numbers. It panics if p is not within 0 and 1.
func Quantile(sorted []float64, p float64) (quantile float64, ok bool) {
	if !(p >= 0 && p <= 1) {
		panic("stats: a quantile is asked for at a share that is not within 0 and 1")
	}
	if len(sorted) == 0 {
		return 0, false
	}
	index := 1 + float64(len(sorted)-1)*p // Counted from 1, as R rounds it.
	below := math.Floor(index)
	low, high := sorted[int(below)-1], sorted[int(math.Ceil(index))-1]
	if share := index - below; share > 0 && high != low {
		return (1-share)*low + share*high, true
	}
	return low, true
}
