package assign

import (
	"github.com/cespare/xxhash/v2"

	"github.com/assayhq/assay/internal/experiment"
)

// The purposes that enter a gate's hash. They make the hashes of one experiment,
// and those of its layer and holdouts, independent of each other.
const (
	PurposeLayer   = "layer"
	PurposeHoldout = "holdout"
	PurposeTraffic = "traffic"
	PurposeSplit   = "split"
)

// hashPair returns XXH64, seed 0, of a ‖ 0x00 ‖ b. With (unit, key) it is the
// subject hash; with (purpose, salt) the gate hash. It is frozen: a changed bit
// would move every subject.
func hashPair(a, b string) uint64 {
	var d xxhash.Digest
	d.Reset()
	d.WriteString(a)
	d.Write(separator[:])
	d.WriteString(b)
	return d.Sum64()
}

var separator = [1]byte{0}

// mix joins the hashes of subject and gate with MurmurHash3's 64-bit finaliser.
// The exclusive-or alone would leave gates correlated; the finaliser makes
// their buckets independent.
func mix(subject, gate uint64) uint64 {
	h := subject ^ gate
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return h
}

// bucketOf scales the upper half of a mixed hash to 0 … 999,999 without
// division.
func bucketOf(mixed uint64) int32 {
	return int32((mixed >> 32) * experiment.Buckets >> 32)
}
