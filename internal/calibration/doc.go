// Package calibration tries the statistical methods on simulated experiments
// and counts how often they are wrong: false positives without an effect, and
// with one the power, the coverage of intervals and the bias of estimates.
//
// What is simulated is what methods find hard: rare conversions, heavy-tailed
// spending, ratios whose denominator is a subject's own choice, each without and
// with covariates; and each experiment is looked at once, ten times, and so
// often that it makes no difference to look more often.
//
// What it promises:
//
//   - The judge is [stats.Compare], by which every analysis is made; nothing of
//     it is repeated here.
//   - The truth is known by construction, not estimated.
//   - The same seed gives the same table, however many processors there are.
//   - Every share comes with its binomial interval, and a promise counts as
//     broken only if the interval lies beyond it.
package calibration
