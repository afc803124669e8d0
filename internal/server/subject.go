package server

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/postgres"
)

type subjectService struct {
	assayv1.UnimplementedSubjectServiceServer
	*services
}

func (s *subjectService) subjectID(p *assayv1.Subject) experiment.SubjectID {
	return s.Pepper.SubjectID(experiment.Subject{Unit: unitOf(p.Unit), Key: p.Key})
}

func (s *subjectService) EraseSubject(ctx context.Context, req *assayv1.EraseSubjectRequest) (*assayv1.EraseSubjectResponse, error) {
	id := s.subjectID(req.Subject)
	e, err := s.DB.EraseSubject(ctx, id, authorOf(ctx))
	if err != nil {
		return nil, err
	}
	s.refreshed(ctx)
	return &assayv1.EraseSubjectResponse{
		SubjectId: id.String(), EraseTime: timestamppb.New(e.EraseTime),
		Exposures: e.Exposures, Outcomes: e.Outcomes, Overrides: e.Overrides, RosterEntries: e.Rosters,
	}, nil
}

func (s *subjectService) GetSubject(ctx context.Context, req *assayv1.GetSubjectRequest) (*assayv1.GetSubjectResponse, error) {
	from, err := pagePosition(req.PageToken, subjectPosition{}, readSubjectPosition)
	if err != nil {
		return nil, err
	}
	id := s.subjectID(req.Subject)
	erased, err := s.DB.EraseTime(ctx, id)
	if err != nil {
		return nil, err
	}
	page := subjectPage{db: s.DB, id: id, resp: &assayv1.GetSubjectResponse{SubjectId: id.String(), EraseTime: optionalTime(erased)}}
	return page.resp, page.fill(ctx, from, pageSize(req.PageSize)+1)
}

// subjectPosition is a place among the items of a subject: after so many of a
// list, or after a row of the outcomes, which may be many.
type subjectPosition struct {
	list  int // An index in the lists of subjectPage.
	skip  int
	after experiment.RowID
}

func (p subjectPosition) String() string { return fmt.Sprintf("%d %d %x", p.list, p.skip, p.after) }

// afterSkipping is the position after n more items of a list.
func (p subjectPosition) afterSkipping(n int) string {
	return subjectPosition{list: p.list, skip: p.skip + n}.String()
}

func readSubjectPosition(s string) (p subjectPosition, ok bool) {
	parts := strings.Split(s, " ")
	if len(parts) != 3 {
		return p, false
	}
	list, listErr := strconv.ParseUint(parts[0], 10, 8)
	skip, skipErr := strconv.ParseUint(parts[1], 10, 31)
	after, ok := readID(parts[2])
	p = subjectPosition{int(list), int(skip), after}
	return p, ok && listErr == nil && skipErr == nil && p.list < subjectLists
}

// subjectPage is a page of what is stored of a subject.
type subjectPage struct {
	db   *postgres.DB
	id   experiment.SubjectID
	resp *assayv1.GetSubjectResponse

	items, bytes int // In all lists.
}

// subjectLists is the number of lists that a page is filled from.
const subjectLists = 4

// fill fills the page from a position on, list after list. The limit is one more
// than the page still holds.
func (p *subjectPage) fill(ctx context.Context, at subjectPosition, limit int) error {
	lists := [subjectLists]func(context.Context, subjectPosition, int) (string, int, error){p.exposures, p.overrides, p.rosterEntries, p.outcomes}
	for limit > 1 {
		next, n, err := lists[at.list](ctx, at, limit)
		if err != nil || next != "" {
			p.resp.NextPageToken = next
			return err
		}
		limit -= n
		if at = (subjectPosition{list: at.list + 1}); at.list == subjectLists {
			return nil
		}
	}
	p.resp.NextPageToken = pageToken(at.String())
	return nil
}

// addTo adds the items of a list to the page, and returns how many, and a token if
// there are more. The limit is one more than the page holds; position returns that
// after so many of the items.
func addTo[T any, M proto.Message](p *subjectPage, to *[]M, list []T, limit int, position func(n int) string, convert func(T) M) (next string, n int, err error) {
	for i, item := range list {
		m := convert(item)
		p.bytes += proto.Size(m)
		if i == limit-1 || p.items > 0 && p.bytes > maxPageBytes {
			return pageToken(position(i)), i, nil
		}
		*to = append(*to, m)
		p.items++
	}
	return "", len(list), nil
}

// exposures adds exposures to the page. Like its siblings it returns how many,
// and a token if there are more of them.
func (p *subjectPage) exposures(ctx context.Context, at subjectPosition, limit int) (next string, n int, err error) {
	list, err := p.db.SubjectExposures(ctx, p.id, at.skip, limit)
	if err != nil {
		return "", 0, err
	}
	return addTo(p, &p.resp.Exposures, list, limit, at.afterSkipping, func(e postgres.StoredExposure) *assayv1.RecordedExposure {
		return &assayv1.RecordedExposure{
			Experiment: e.Experiment, Holdout: e.Holdout, Phase: e.Phase, Variant: e.Variant,
			ExposedTime: timestamppb.New(e.ExposedTime), RecordedTime: timestamppb.New(e.RecordedTime),
			Attributes: decodeStruct(e.Attributes),
		}
	})
}

func (p *subjectPage) overrides(ctx context.Context, at subjectPosition, limit int) (next string, n int, err error) {
	list, err := p.db.SubjectOverrides(ctx, p.id, at.skip, limit)
	if err != nil {
		return "", 0, err
	}
	return addTo(p, &p.resp.Overrides, list, limit, at.afterSkipping, func(o postgres.StoredOverride) *assayv1.RecordedOverride {
		return &assayv1.RecordedOverride{
			Experiment: o.Experiment, Variant: o.Variant,
			CreateTime: timestamppb.New(o.CreateTime), EndTime: optionalTime(o.EndTime),
		}
	})
}

func (p *subjectPage) rosterEntries(ctx context.Context, at subjectPosition, limit int) (next string, n int, err error) {
	list, err := p.db.SubjectRosters(ctx, p.id, at.skip, limit)
	if err != nil {
		return "", 0, err
	}
	return addTo(p, &p.resp.RosterEntries, list, limit, at.afterSkipping, func(r postgres.RosterEntry) *assayv1.RecordedRosterEntry {
		return &assayv1.RecordedRosterEntry{Experiment: r.Experiment, Variant: r.Variant}
	})
}

func (p *subjectPage) outcomes(ctx context.Context, at subjectPosition, limit int) (next string, n int, err error) {
	list, err := p.db.SubjectOutcomes(ctx, p.id, at.after, limit)
	if err != nil {
		return "", 0, err
	}
	position := func(n int) string {
		if n == 0 {
			return at.String()
		}
		return subjectPosition{list: at.list, after: list[n-1].RowID}.String()
	}
	return addTo(p, &p.resp.Outcomes, list, limit, position, toRecordedOutcome)
}

func toRecordedOutcome(o postgres.StoredOutcome) *assayv1.RecordedOutcome {
	outcome := &assayv1.RecordedOutcome{
		RowId: formatUUID(o.RowID), Name: o.Name, Value: o.Value,
		OccurredTime: timestamppb.New(o.OccurredTime), RecordedTime: timestamppb.New(o.RecordedTime),
		Properties: decodeStruct(o.Properties), AdjustedTime: optionalTime(o.AdjustedTime),
	}
	if o.Corrects != (experiment.RowID{}) {
		outcome.CorrectsRowId = formatUUID(o.Corrects)
	}
	return outcome
}
