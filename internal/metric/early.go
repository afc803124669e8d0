package metric

import (
	"fmt"
	"slices"
	"strings"

	"github.com/assayhq/assay/internal/stats"
)

// An outcome that seems to lie shortly before its subject's exposure does not count.
// What is really before it no treatment has done, so that as many subjects of each
// variant have some, for their number, but for chance. If that is not so, the clock
// of one variant is behind, and it loses what the others count.

// EarlyOutcomes are those of the analysed subjects of a variant in a phase.
type EarlyOutcomes struct {
	Phase    int32  `json:"phase"`
	Variant  string `json:"variant"`
	Outcomes int64  `json:"outcomes"`        // Shortly before exposure and later.
	Early    int64  `json:"early,omitempty"` // Shortly before it.
	// Subjects have some of these. They are what is compared: the outcomes of one
	// subject are not independent.
	Subjects int64 `json:"subjects,omitempty"`
}

// HasEarly says whether there are some of a name that it is worth to look at.
func HasEarly(placed []Placed, name string) bool {
	all := int64(0)
	for i := range placed {
		if p := &placed[i]; p.early(name) {
			all += p.Outcomes
		}
	}
	return all >= someOutcomes
}

func (p *Placed) early(name string) bool {
	return p.Name == name && p.Owner == Analysed && p.Place == -1
}

// LooksUneven says whether the early outcomes of a name may differ between variants
// by more than chance, if those of one subject were independent: as they need not be,
// that is for the subjects to tell, who take longer to count. exposed are the
// subjects by variant.
func LooksUneven(placed []Placed, name string, exposed []int64) bool {
	early := make([]int64, len(exposed))
	for i := range placed {
		if p := &placed[i]; p.early(name) {
			early[p.Variant] += p.Outcomes
		}
	}
	for v := range early {
		early[v] = min(early[v], exposed[v])
	}
	p := stats.EqualShares(early, exposed)
	return p != nil && *p < mismatch
}

// unevenlyEarly says of the names of a metric of which a variant has lost more than
// a little to early outcomes, and unevenly.
func (t *Tally) unevenlyEarly(metric int) (warnings []string) {
	for i := range t.Metrics[metric].Outcomes {
		use := &t.Metrics[metric].Outcomes[i]
		if use.Early == nil {
			continue
		}
		early, subjects, all := make([]int64, len(t.Variants)), t.noSubjects(), make([]int64, len(t.Variants))
		for k := range use.Early {
			e := &use.Early[k]
			p, v := slices.Index(t.Phases, e.Phase), slices.Index(t.Variants, e.Variant)
			if p < 0 || v < 0 {
				continue
			}
			early[v], all[v] = early[v]+e.Early, all[v]+e.Outcomes
			subjects[p][v] = min(e.Subjects, t.Subjects[p][v])
		}
		material, shares := false, []string(nil)
		for v, variant := range t.Variants {
			material = material || float64(early[v]) > mostExcluded*float64(all[v])
			shares = append(shares, fmt.Sprintf("%d of %d in %s", early[v], all[v], variant))
		}
		if p := stats.EqualSharesWithin(subjects, t.Subjects); material && p != nil && *p < mismatch {
			warnings = append(warnings, fmt.Sprintf("Outcomes %q lie in the last %.0f seconds before their subject's exposure, and do not count, more often in one variant than in another (%s; by the subjects that have some %s): nothing that a variant does can bring that about, so a clock is behind, and they are lost unevenly.",
				use.Name, ShortlyBefore.Seconds(), strings.Join(shares, ", "), pEquals(*p)))
		}
	}
	return warnings
}
