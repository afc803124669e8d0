// Package experiment holds the nouns of the service: experiments, their
// definitions, states and plans, subjects, exposures and outcomes, the rules
// that hold across their fields, and the errors that every other package
// speaks.
//
// It knows no storage, no transport and no clock, so that a rule stands in one
// place whoever applies it. A [Definition] is what a revision freezes; an
// [Experiment] is a definition with its identity, state and history.
//
// A split is explicit ranges of buckets. [Reallocate] changes them by the least
// movement, and [Revision.Next] tells exactly whom a change moves before it is
// made.
package experiment
