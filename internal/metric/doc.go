// Package metric turns the definition of a metric into the numbers that a
// query must fetch for each subject, folds those numbers into what package
// stats needs, and reads the result as the analysis of an experiment.
//
// Every metric is a formula over components: a component is one number per
// subject, the formula is evaluated over the components' means within a
// variant. Proportion, mean, sum and ratio are constructors of such formulas
// and nothing else, so that there is one path to test and to trust.
//
// An analysis has three steps, each a value that can be looked at:
//
//   - A [Study] is an experiment with the metrics in use, compiled. It says
//     which columns, attributes and segments a query must fetch, each once,
//     however many metrics share it.
//   - A [Fold] takes in one [Row] per subject, in any order, for all metrics,
//     segments, variants, strata and days together, and ends as a [Tally], which
//     can be stored and, but for its days, analysed again.
//   - [Study.Analyze] compares the variants of a tally by the experiment's plan
//     and draws the verdict; [Study.AtLook] tells it of the looks of a
//     group-sequential plan. [Study.Timeline] compares them day by day.
//     [Study.Deviations] says how the analysis departs from that plan, [Objections]
//     what speaks against a decision by it, and [Again] what changed between two.
//     [Summaries] enters at this step with aggregates that a caller brings.
//
// A study's [Conduct] says when counting ended, and when nobody was served or
// subjects were given other variants. What happened then is not credited to the
// variant that a subject met first.
//
// Before there are subjects, [Planned] answers how many it takes, from figures
// that a caller brings or from those of another experiment's tally.
//
// What it promises:
//
//   - It is pure: no clock, no input or output. The moment of the analysis is
//     an argument.
//   - The order of the rows changes a result in its last digits at most, and
//     never which subjects, segments or metrics are in it.
//   - A number that is undefined is nil, and a note says why.
//   - A cap is the same for all variants and segments, and every result says what
//     it did.
//   - What a plan did not name is never confirmatory, and a comparison is
//     significant only after the correction of the family that it belongs to.
package metric
