package metric

import (
	"strings"
	"testing"

	"github.com/assayhq/assay/internal/experiment"
)

// Outcomes shortly before exposure that one variant has more of than another are lost
// to its clock: no verdict rests on their name. What all have alike is none of that,
// nor what is little, nor many of a few subjects, nor what the variants do later.
func TestUnevenlyEarly(t *testing.T) {
	early := func(variant string, outcomes, early, subjects int64) EarlyOutcomes {
		return EarlyOutcomes{Phase: 1, Variant: variant, Outcomes: outcomes, Early: early, Subjects: subjects}
	}
	for _, c := range []struct {
		name  string
		early []EarlyOutcomes
		told  bool
	}{
		{"not told apart", nil, false},
		{"one variant's", []EarlyOutcomes{early("control", 300, 0, 0), early("short", 300, 120, 120)}, true},
		{"alike", []EarlyOutcomes{early("control", 300, 110, 110), early("short", 300, 120, 120)}, false},
		{"alike, of unlike numbers later", []EarlyOutcomes{early("control", 200, 110, 110), early("short", 900, 120, 120)}, false},
		{"of one subject", []EarlyOutcomes{early("control", 300, 0, 0), early("short", 300, 120, 1)}, false},
		{"little", []EarlyOutcomes{early("control", 3000, 0, 0), early("short", 3000, 60, 60)}, false},
		{"more than that", []EarlyOutcomes{early("control", 3000, 0, 0), early("short", 3000, 61, 61)}, true},
	} {
		for _, role := range []experiment.Role{experiment.RolePrimary, experiment.RoleSecondary} {
			uses := []Use{use("m", Proportion("x", nil), role)}
			if role != experiment.RolePrimary {
				uses = append(uses, use("other", Proportion("other", nil), experiment.RolePrimary))
			}
			s := mustStudy(t, definition("control", "short"), uses)
			var rows []Row
			for range 1000 {
				rows = append(rows, row("control", make([]float64, len(s.Columns()))...), row("short", make([]float64, len(s.Columns()))...))
			}
			tally := fold(s, rows...)
			for m := range tally.Metrics {
				if tally.Metrics[m].Metric == "m" {
					tally.Metrics[m].Outcomes = []OutcomeUse{{Name: "x", Alive: true, Counted: 500, Early: c.early}}
				}
			}
			a := mustAnalyze(t, s, tally, 0)
			warned := strings.Contains(strings.Join(a.Warnings, "|"), `Outcomes "x" lie in the last 5 seconds before their subject's exposure, and do not count, more often in one variant`)
			if warned != c.told || (len(a.Doubts) == 1) != (c.told && role == experiment.RolePrimary) {
				t.Errorf("%s, %s: warnings %q, doubts %q", c.name, role, a.Warnings, a.Doubts)
			}
		}
	}
}
