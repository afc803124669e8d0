package metric

import (
	"fmt"
	"slices"
	"time"
)

// A covariate of past outcomes that nobody has is 0 for all and adjusts nothing. That
// its name is misspelt looks the same, so it is said, as it is of metrics.

// Past is where a covariate looks for outcomes: so long before exposure.
type Past struct {
	Outcome string        `json:"outcome"`
	Window  time.Duration `json:"window"`
}

// DeadPast is one in which nobody of the unit had an outcome: in the stretch from
// so long before the first exposure up to the last.
type DeadPast struct {
	Past
	Similar []SimilarOutcomes `json:"similar,omitempty"`
}

// pasts are those of the covariates of the metrics that are accounted for.
func (s *Study) pasts() (pasts []Past) {
	for i := range s.definition.Covariates {
		v := &s.definition.Covariates[i]
		if v.Past == nil || !slices.ContainsFunc(s.metrics[:s.accounted], func(m compiled) bool { return slices.Contains(m.Use.Covariates, v.Name) }) {
			continue
		}
		if past := (Past{v.Past.Component.Outcome, v.Past.Window}); !slices.Contains(pasts, past) {
			pasts = append(pasts, past)
		}
	}
	return pasts
}

// deadCovariates says of each covariate that is without data what arrived in place
// of it.
func (s *Study) deadCovariates(t *Tally) (warnings []string) {
	for i := range s.definition.Covariates {
		v := &s.definition.Covariates[i]
		for k := range t.DeadPasts {
			dead := &t.DeadPasts[k]
			if v.Past == nil || dead.Past != (Past{v.Past.Component.Outcome, v.Past.Window}) {
				continue
			}
			but := ""
			if arrived := s.arrived(dead.Similar); arrived != "" {
				but = " (but there is " + arrived + ")"
			}
			warnings = append(warnings, fmt.Sprintf("Covariate %q has no data: from %s before the first exposure up to the last, nobody of the unit %s, exposed or not, had an outcome %q%s. It adjusts nothing.",
				v.Name, dead.Window, s.Unit(), dead.Outcome, but))
		}
	}
	return warnings
}
