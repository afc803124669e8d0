package server

import (
	"math"
	"strings"

	"google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// accepts says that a message of the most frequent kinds breaks no rule of the
// schema. It repeats the schema's rules by hand, for a fiftieth of their
// validator's price. False says nothing: the validator must look, and words
// what is wrong. So a check here may be too strict, which only costs time, and
// must never be too lax; the tests hold it to the validator.
func accepts(m proto.Message) bool {
	switch m := m.(type) {
	case *assayv1.AssignRequest:
		return acceptsSubject(m.Subject) && acceptsQuery(m.Experiments, m.Labels, m.ExposureRecording)
	case *assayv1.BatchAssignRequest:
		return acceptsCount(len(m.Subjects), 1000) && acceptsQuery(m.Experiments, m.Labels, m.ExposureRecording)
	case *assayv1.Subject:
		return acceptsSubject(m)
	case *assayv1.RecordExposuresRequest:
		return acceptsCount(len(m.Exposures), maxBatchItems)
	case *assayv1.Exposure:
		return isKey(m.Experiment) && isKey(m.Variant) && acceptsSubject(m.Subject) && (m.Revision == nil || *m.Revision >= 1)
	case *assayv1.AllocateRosterRequest:
		return acceptsRoster(m)
	case *assayv1.RecordOutcomesRequest:
		return acceptsCount(len(m.Outcomes), maxBatchItems)
	case *assayv1.StreamEventsRequest:
		return m.Sequence >= 1 && len(m.Exposures) <= maxBatchItems && len(m.Outcomes) <= maxBatchItems
	case *assayv1.Outcome:
		return acceptsText(m.EventId, 256) && acceptsSubject(m.Subject) &&
			acceptsText(m.Name, 128) && strings.IndexFunc(m.Name, isControl) < 0 &&
			(m.Value == nil || math.Abs(*m.Value) <= 1e100) && m.OccurredTime != nil && m.CorrectsEventId == ""
	}
	return false
}

func acceptsSubject(s *assayv1.Subject) bool {
	return s != nil && (s.Unit == "" || isKey(s.Unit)) && acceptsText(s.Key, 256)
}

// acceptsQuery is about what Assign and BatchAssign have in common.
func acceptsQuery(experiments []string, labels map[string]string, recording assayv1.ExposureRecording) bool {
	// More experiments than a few are left to the validator: it alone need know
	// how to find equal ones among many.
	const few = 16
	if len(experiments) > few || len(labels) > 64 {
		return false
	}
	for i, key := range experiments {
		if !isKey(key) {
			return false
		}
		for _, other := range experiments[:i] {
			if other == key {
				return false
			}
		}
	}
	_, defined := assayv1.ExposureRecording_name[int32(recording)]
	return defined
}

func acceptsRoster(m *assayv1.AllocateRosterRequest) bool {
	if m.Experiment != "" && !isKey(m.Experiment) || len(m.Subjects) > 10_000 {
		return false
	}
	for _, s := range m.Subjects {
		if !acceptsText(s.Key, 256) || s.Stratum != "" && !acceptsText(s.Stratum, 256) || len(s.Covariates) > 16 {
			return false
		}
		for name, x := range s.Covariates {
			if !isKey(name) || strings.IndexByte(name, '-') >= 0 || !(math.Abs(x) <= 1e100) {
				return false
			}
		}
	}
	return true
}

func acceptsCount(n, most int) bool { return 1 <= n && n <= most }

// acceptsText is about text of 1 to most bytes without NUL.
func acceptsText(s string, most int) bool {
	return s != "" && len(s) <= most && strings.IndexByte(s, 0) < 0
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// isKey says whether s matches ^[a-z][a-z0-9_-]{0,62}$.
func isKey(s string) bool {
	if s == "" || len(s) > 63 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
