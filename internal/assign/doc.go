// Package assign decides which variant a subject gets, says why, and checks
// that a reported exposure is one it could have caused.
//
// A [Catalog] holds compiled experiments and never changes; a newer one is made
// from it and from what changed. [Catalog.Subject] prepares what all decisions
// for one subject share, so that one more experiment costs one exclusive-or and
// one finaliser for each hash, and one evaluation of its predicate if it has
// one. Predicates of the common shapes are compiled to functions that decide as
// CEL does and read single [Attributes]; CEL's evaluator decides the others, and
// words every explanation.
//
// The gates, in their order: the experiment's state, a pinned variant, the
// variant that an enrolled subject of a sticky experiment keeps, the eligibility,
// the holdouts in force, the traffic or the slot in a layer, the split. A subject that a holdout holds out gets the control whatever its
// traffic bucket; of an experiment that has shipped a variant only holdouts
// without any personalisation hold it out.
//
// The package promises that a decision is a pure function of the subject, its
// attributes, the time that it is given and what storage knows of the
// experiment: no clock, no randomness, no input or output, no memory of earlier
// decisions. Every server therefore gives the same answer, and anyone can repeat
// it by hand with the hashes that [Subject.Explain] lists. What a sticky
// experiment remembers is in storage; who asks for a decision reads it and hands
// it over by [Subject.Enroll]. Assignment and explanation run through the same
// gates, so that they cannot differ.
//
// # Bucketing
//
// The hashes are specified here so exactly that any language can repeat them;
// testdata/bucketing.jsonl holds golden vectors. ‖ joins bytes.
//
//	subject_hash = XXH64(seed 0, utf8(unit) ‖ 0x00 ‖ utf8(key))
//	gate_hash    = XXH64(seed 0, utf8(purpose) ‖ 0x00 ‖ utf8(salt))
//	mixed        = fmix64(subject_hash XOR gate_hash)
//	bucket       = ((mixed >> 32) × 1,000,000) >> 32
//
// fmix64 is MurmurHash3's 64-bit finaliser; buckets are 0 to 999,999. The
// purposes are "traffic" and "split" with the experiment's salt, by default its
// key, "layer" with that of its layer, and "holdout" with that of a holdout. A
// subject is held out if its holdout bucket is below floor(share × 10⁶ + ½). It
// takes part if its traffic bucket is below floor(traffic × 10⁶ + ½); in a layer
// the traffic hash is not asked, and a subject takes part if its layer bucket is
// in the experiment's slot. No two slots share a bucket, so no subject takes part
// in two experiments of a layer, and as the split is another hash, experiments
// that follow each other in a slot do not share arms. The first split lays the
// variants out in their listed order, the i-th boundary at floor(10⁶ × cumulative
// weight ÷ total weight); the ranges are half-open. Later splits are the
// revision's explicit ranges over the same buckets, and a reshuffle gives the
// split a salt of its own, which the revision names; traffic keeps the
// experiment's.
//
// # Rosters
//
// An experiment with a roster gives the listed subjects their variants and
// nobody else any. [RosterList.Allocate] makes it: in each stratum the subjects
// are ranked by mixed, with the purpose "roster" and the experiment's salt, and
// cut into the variants in their listed order; how many each gets is the whole
// part of its exact share, and one more where systematic sampling says so, from
// a start that is a hash of the stratum:
//
//	stratum_hash = XXH64(seed 0, "stratum" ‖ 0x00 ‖ utf8(stratum))
//	start        = (fmix64(stratum_hash XOR gate_hash) >> 32) × W >> 32
//
// W is the total weight. Decisions look the subject's id up in a sorted array,
// which takes 17 bytes a subject and, in one of a million, about as long as to
// compute the id (1 µs). server's testdata/roster.json is an allocation by a
// program in another language.
package assign
