package experiment

import (
	"fmt"
	"slices"
	"strings"
)

// Deviation is a way in which an experiment, or an analysis of it, departed from
// the plan that was sealed at the start.
type Deviation struct {
	Reason  string // UPPER_SNAKE_CASE, stable.
	Message string
}

// Deviations lists how a started experiment has changed since its plan was
// sealed. It is given the revisions with which its phases ended, or which are in
// force, and those with which they began, both by phase. Within a phase nothing
// changes that matters here, and what the plan's hash covers beside the variants
// never does.
func Deviations(last, first []Revision) []Deviation {
	var list []Deviation
	for i := 1; i < len(first); i++ {
		list = append(list, last[i-1].deviations(&first[i])...)
	}
	return list
}

// deviations says what made next begin a new phase after r.
func (r *Revision) deviations(next *Revision) []Deviation {
	var list []Deviation
	add := func(reason, format string, args ...any) {
		list = append(list, Deviation{reason, fmt.Sprintf("Revision %d %s, and began phase %d.", next.Number, fmt.Sprintf(format, args...), next.Phase)})
	}
	before, after := &r.Definition, &next.Definition
	moved := r.MovementTo(next)
	switch {
	case moved.VariantsChanged:
		add("VARIANTS_CHANGED", "changed the variants%s%s", listed("added", after.variantsBeside(before)), listed("removed", before.variantsBeside(after)))
	case !slices.Equal(r.Allocation, next.Allocation):
		add("WEIGHTS_CHANGED", "changed the weights")
	}
	if before.SaltOfSplit() != after.SaltOfSplit() {
		add("RESHUFFLED", "split all subjects anew")
	}
	if moved.EligibilityChanged {
		add("ELIGIBILITY_CHANGED", "changed the eligibility")
	}
	if moved.Leave > 0 {
		add("TRAFFIC_LOWERED", "lowered the traffic from %.6g to %.6g", before.Traffic, after.Traffic)
	}
	if len(list) == 0 {
		add("HOLDOUT_ADDED", "put the experiment under a holdout")
	}
	return list
}

// variantsBeside lists the variants that the other definition does not have.
func (d *Definition) variantsBeside(other *Definition) (keys []string) {
	for _, v := range d.Variants {
		if other.Variant(v.Key) < 0 {
			keys = append(keys, v.Key)
		}
	}
	return keys
}

func listed(what string, keys []string) string {
	if len(keys) == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s: %s)", what, strings.Join(keys, ", "))
}
