// Package assign decides which variant a subject gets, says why, and checks
// that a reported exposure is one it could have caused.
//
// A [Catalog] holds compiled experiments and never changes; a newer one is made
// from it and from what changed. [Catalog.Subject] prepares what all decisions
// for one subject share, so that one more experiment costs one exclusive-or and
// one finaliser for each hash, and one evaluation of its predicate if it has
// one.
//
// The package promises that a decision is a pure function of the subject, its
// attributes and what storage knows of the experiment: no clock, no randomness,
// no input or output, no memory of earlier decisions. Every server therefore
// gives the same answer, and anyone can repeat it by hand with the hashes that
// [Subject.Explain] lists. Assignment and explanation run through the same
// gates, so that they cannot differ.
package assign
