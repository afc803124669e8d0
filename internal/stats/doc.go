// Package stats turns moments of subjects into estimates, intervals and tests.
//
// It answers one question: how does a treatment differ from the control, and
// how sure can one be? Whatever is compared arrives as [Moments], whether a
// query folded them or a caller typed them in, and goes through [Compare]:
// there is one statistical path, so two ways of asking cannot disagree.
//
// What it promises:
//
//   - It is pure. No clock, no input or output, no randomness: the same request
//     gives the same result, to the bit, on the same machine.
//   - No NaN and no infinity leaves it. A number that is undefined (the lift
//     over a zero baseline, an interval from one subject) is nil, and a note
//     says why in words that a user can read. Zero never stands for "none".
//   - An interval and a p-value on the same scale agree: the bound touches the
//     null value exactly when the p-value equals one minus the level. So do a
//     credible interval and the chance to win.
//   - A malformed request is refused with an [InvalidError] for every field at
//     fault; data that cannot answer the question is not an error but a note.
//
// How it is built, and why so. An estimand is a smooth function of component
// means (a [Formula]), so one multivariate delta method serves means, ratios
// and any longer formula. Each arm is cut into strata (phases, at least), which
// are post-stratified with common weights, so a change of allocation in mid
// flight does not turn into a difference between arms. Covariates replace the
// gradient by a residual one and need no second path. Everything then is a sum
// of independent variances, one for each arm and stratum, from which the
// Satterthwaite degrees of freedom follow. What judges the estimate (a [Test])
// sees only the estimate, its standard error, the degrees of freedom and the
// number of subjects, so a new method stands beside the old ones. Lifts are judged
// by Fieller's method and rates by their score, each as a scale of its own. What is
// not promised: where means are equal and variances are not, skewed numbers are
// found to differ in up to 10 % at 5 %, as no test here knows how skewed its data are. A
// group-sequential one also has a [Schedule] of looks, whose boundaries are
// computed once for all estimates that it judges.
//
// Beside it stand the tests of what a comparison rests on: that the subjects are
// split as meant ([CheckSampleRatio], [SequentialSampleRatio]), alike before they
// were exposed ([CheckBalance]), and of one effect ([CheckHeterogeneity]).
//
// Before there are data a [Design] asks the same test how likely it is to find
// an effect, how many subjects that takes, and how small an effect can be found.
package stats
