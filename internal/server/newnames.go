package server

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// withoutNames returns a batch without the outcomes of names that are not admitted,
// which it rejects.
func (s *eventService) withoutNames(b *batch[experiment.Outcome], refusal *experiment.NameRefusal) *batch[experiment.Outcome] {
	rest := &batch[experiment.Outcome]{rejected: b.rejected}
	rejection := newNameRejection(refusal)
	for i, o := range b.accepted {
		if !refusal.Names[o.Name] {
			rest.accepted, rest.indices = append(rest.accepted, o), append(rest.indices, b.indices[i])
			continue
		}
		rest.rejected = append(rest.rejected, &assayv1.Rejection{Index: b.indices[i],
			Reason: rejection.Reason, Field: rejection.Field, Message: rejection.Message, RetryDelay: rejection.RetryDelay})
	}
	s.newNames.WithLabelValues(strings.TrimPrefix(rejection.Reason.String(), "REJECTION_REASON_")).Add(float64(len(b.accepted) - len(rest.accepted)))
	return rest
}

// newNameRejection is of an outcome whose name met a limit.
func newNameRejection(refusal *experiment.NameRefusal) *assayv1.Rejection {
	const always = "; a name that a metric counts is always admitted"
	r := &assayv1.Rejection{Field: "name"}
	switch refusal.Limit {
	case experiment.NamesPerCall:
		r.Reason, r.RetryDelay = assayv1.RejectionReason_REJECTION_REASON_NEW_NAMES_PER_CALL, &durationpb.Duration{}
		r.Message = fmt.Sprintf("one call may bring %d new outcome names, and this one brought more: send the outcome again in another", refusal.Most)
	case experiment.NamesPerHour:
		delay := refusal.Retry.Round(time.Second)
		r.Reason, r.RetryDelay = assayv1.RejectionReason_REJECTION_REASON_NEW_NAMES_PER_HOUR, durationpb.New(delay)
		r.Message = fmt.Sprintf("%d new outcome names are admitted in an hour, by all servers together: send the outcome again in %v", refusal.Most, delay) + always
	default:
		r.Reason = assayv1.RejectionReason_REJECTION_REASON_LIMIT
		r.Message = fmt.Sprintf("there are as many outcome names as the server's setting allows, %d: unused ones are freed after a day or two", refusal.Most) + always
	}
	return r
}
