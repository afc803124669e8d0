// Package calibration tries the statistical methods on simulated experiments
// and counts how often they are wrong: false positives without an effect, and
// with one the power, the coverage of intervals and the bias of estimates.
//
// What is simulated is what methods find hard: rare conversions, heavy-tailed
// spending, ratios whose denominator is a subject's own choice, each without and
// with covariates; and each experiment is looked at once, ten times, and so
// often that it makes no difference to look more often. That is the short form,
// [Run]. The long form, [Cells], is hundreds of awkward designs: few events, uneven
// splits, heavy tails, sparse strata, lifts whose arms have different slopes,
// effects that drift, experiments that are changed, paused and concluded. Each is a
// cell that can be tried by itself.
//
// What it promises:
//
//   - The judge is [stats.Compare], by which every analysis is made, or the fold and
//     analysis of package metric; nothing of them is repeated here.
//   - The truth is known by construction, not estimated.
//   - The same seed gives the same table, however many processors there are.
//   - A promise counts as broken only if a count lies beyond the 99.9 % bound of
//     the binomial distribution. It is held to 6 % of false positives for 5 %, and
//     to a coverage of 94 % for 95 %, or 92 % of log-normal numbers.
//   - Subjects that are alike are counted and not drawn, so that a rate of 0.1 %
//     costs no more than one of half.
package calibration
