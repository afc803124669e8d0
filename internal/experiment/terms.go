package experiment

import (
	"reflect"
	"slices"
	"sort"
	"time"
)

// Terms are what checks of exposures need of a revision. They are all that is
// kept in memory of the revisions before the current one, of which there may be
// many and whose definitions are large.
type Terms struct {
	Number     int32
	Phase      int32
	Traffic    int32 // Traffic buckets below it take part.
	CreateTime time.Time
	Rules      *Rules // Shared by the revisions that do not differ in it.
}

// Rules are how a revision gives variants, and what is kept of those who get them.
// Their JSON form is how they are stored.
type Rules struct {
	Variants   []string `json:"variants"` // Keys, in the listed order.
	Control    int      `json:"control"`  // Its index, or -1.
	Allocation []Range  `json:"allocation"`
	Salt       string   `json:"salt"`
	SplitSalt  string   `json:"split_salt"`
	Layer      string   `json:"layer,omitempty"`
	External   bool     `json:"external,omitempty"`
	Sticky     bool     `json:"sticky,omitempty"`
	Kept       []string `json:"kept,omitempty"` // Names of attributes.
}

// Terms returns the revision's terms.
func (r *Revision) Terms() Terms {
	d := &r.Definition
	rules := &Rules{
		Variants: make([]string, len(d.Variants)), Control: d.Control(), Allocation: r.Allocation,
		Salt: d.Salt, SplitSalt: d.SaltOfSplit(), Layer: d.Layer, External: d.External, Sticky: d.Sticky, Kept: d.KeptAttributes(),
	}
	for i, v := range d.Variants {
		rules.Variants[i] = v.Key
	}
	if len(rules.Kept) == 0 {
		rules.Kept = nil // As it is when it has been stored.
	}
	return Terms{Number: r.Number, Phase: r.Phase, Traffic: d.TrafficBuckets(), CreateTime: r.CreateTime, Rules: rules}
}

// AppendTerms appends the terms of a later revision, which share the rules of the
// last ones if they are the same.
func AppendTerms(list []Terms, t Terms) []Terms {
	if n := len(list); n > 0 && reflect.DeepEqual(list[n-1].Rules, t.Rules) {
		t.Rules = list[n-1].Rules
	}
	return append(list, t)
}

// Variant returns the index of the variant with the key, or -1.
func (r *Rules) Variant(key string) int { return slices.Index(r.Variants, key) }

// VariantAt returns the index of the variant to which the split gives a bucket,
// or -1. The allocation must be valid.
func (r *Rules) VariantAt(bucket int32) int {
	i := sort.Search(len(r.Allocation), func(i int) bool { return r.Allocation[i].To > bucket })
	if i == len(r.Allocation) || r.Allocation[i].From > bucket {
		return -1
	}
	return r.Variant(r.Allocation[i].Variant)
}
