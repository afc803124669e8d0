package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// TestLedger holds what the ledger calls a fault, so that TestFaults cannot
// pass for want of looking.
func TestLedger(t *testing.T) {
	at := time.Date(2026, 1, 5, 10, 0, 0, 0, time.UTC)
	a := newParcel("s", "a", at, payload{"purchase", 1, ""}, sound)
	rival := newParcel("s", "a", at, payload{"purchase", 2, ""}, sound)
	bad := newParcel("s", "bad", at, payload{"purchase", poisonValue, ""}, poison)
	is := func(parcels ...parcel) (rows []outcomeRow) {
		for _, p := range parcels {
			rows = append(rows, outcomeRow{p.id, p.payload, at})
		}
		return rows
	}
	rejected := func(reason assayv1.RejectionReason) *assayv1.RecordOutcomesResponse {
		return &assayv1.RecordOutcomesResponse{Rejected: []*assayv1.Rejection{{Index: 0, Reason: reason}}}
	}
	recorded, known := &assayv1.RecordOutcomesResponse{Recorded: 1}, &assayv1.RecordOutcomesResponse{Duplicates: 1}
	conflict := rejected(assayv1.RejectionReason_REJECTION_REASON_CONFLICT)
	invalid := rejected(assayv1.RejectionReason_REJECTION_REASON_INVALID_FIELD)
	unavailable := status.Error(codes.Unavailable, "")
	type answer struct {
		to   parcel
		resp *assayv1.RecordOutcomesResponse
		err  error
	}
	for _, tt := range []struct {
		name    string
		before  []parcel
		answers []answer
		rows    []outcomeRow
		fault   string // Part of it; "" for none.
	}{
		{"all is well", nil, []answer{{a, recorded, nil}, {a, known, nil}, {rival, conflict, nil}, {bad, invalid, nil}}, is(a), ""},
		{"in doubt and stored", nil, []answer{{a, nil, unavailable}}, is(a), ""},
		{"in doubt and not stored", nil, []answer{{a, nil, unavailable}}, nil, ""},
		{"in doubt, then a duplicate", nil, []answer{{a, nil, unavailable}, {a, known, nil}}, is(a), ""},
		{"of an earlier trial", []parcel{a}, []answer{{a, known, nil}, {rival, conflict, nil}}, nil, ""},
		{"lost", nil, []answer{{a, recorded, nil}}, nil, "is lost"},
		{"lost, called a duplicate", nil, []answer{{a, known, nil}}, nil, "is lost"},
		{"stored twice", nil, []answer{{a, recorded, nil}}, is(a, a), "stored twice"},
		{"stored again", []parcel{a}, []answer{{a, recorded, nil}}, is(a), "stored twice"},
		{"stored as its rival", nil, []answer{{a, recorded, nil}, {rival, nil, unavailable}}, is(rival), "is stored as"},
		{"both acknowledged", nil, []answer{{a, recorded, nil}, {rival, known, nil}}, is(a), "is stored as"},
		{"called new twice", nil, []answer{{a, recorded, nil}, {a, recorded, nil}}, is(a), "2 were answered for as new"},
		{"called known and new", nil, []answer{{a, known, nil}}, is(a), "0 were answered for as new"},
		{"a conflict with nothing", nil, []answer{{rival, conflict, nil}}, nil, "nothing is stored"},
		{"a conflict with itself", nil, []answer{{rival, conflict, nil}}, is(rival), "is stored so"},
		{"refused and stored", nil, []answer{{bad, invalid, nil}}, is(bad), "is stored so"},
		{"poison accepted", nil, []answer{{bad, recorded, nil}}, is(bad), "was answered with"},
		{"refused without reason", nil, []answer{{a, invalid, nil}}, nil, "was answered with"},
		{"never sent", nil, nil, is(a), "never sent"},
		{"stored at another time", nil, []answer{{a, recorded, nil}}, []outcomeRow{{a.id, a.payload, at.Add(time.Millisecond)}}, "with the time"},
		{"not answered for", nil, []answer{{a, &assayv1.RecordOutcomesResponse{}, nil}}, nil, "were answered for as 0"},
		{"an error that tells nothing", nil, []answer{{a, nil, status.Error(codes.Internal, "")}}, nil, "a call failed"},
	} {
		l := newLedger(tt.before)
		for _, answer := range tt.answers {
			l.send([]parcel{answer.to})
			l.answered([]parcel{answer.to}, answer.resp, answer.err)
		}
		l.compareOutcomes(tt.rows)
		checkFound(t, tt.name, l.faults, tt.fault)
	}
}

// checkFound holds that part of a fault is among those found, or that there are
// none if it is "".
func checkFound(t *testing.T, name string, faults []string, want string) {
	t.Helper()
	if found := strings.Join(faults, "; "); want == "" && found != "" || !strings.Contains(found, want) {
		t.Errorf("%s: found %q, want %q", name, found, want)
	}
}

// TestExposureLedger is the same of exposures.
func TestExposureLedger(t *testing.T) {
	at := time.Date(2026, 1, 5, 10, 0, 0, 0, time.UTC)
	met := func(at time.Time) exposureParcel {
		return exposureParcel{exposure: &assayv1.Exposure{Variant: "short"}, subject: subjectID("s"), variant: "short", at: at.UnixMilli()}
	}
	early, late := met(at), met(at.Add(time.Hour))
	ok := &assayv1.RecordExposuresResponse{Recorded: 1}
	row := func(variant string, p exposureParcel) exposureRow {
		return exposureRow{p.subject, variant, time.UnixMilli(p.at)}
	}
	for _, tt := range []struct {
		name  string
		rows  []exposureRow
		fault string
	}{
		{"both", []exposureRow{row("short", late), row("short", early)}, ""},
		{"lost", nil, "acknowledged"},
		{"the earlier one lost", []exposureRow{row("short", late), row("short", late)}, "acknowledged"},
		{"another variant", []exposureRow{row("short", early), row("control", late)}, "never sent"},
		{"another time", []exposureRow{row("short", early), row("short", met(at.Add(time.Second)))}, "never sent"},
		{"called new too often", []exposureRow{row("short", early)}, "2 were answered for as new"},
	} {
		l := newLedger(nil)
		for _, p := range []exposureParcel{late, early} {
			l.sendExposures([]exposureParcel{p})
			l.answeredExposures([]exposureParcel{p}, ok, nil)
		}
		l.compareExposures(tt.rows)
		checkFound(t, tt.name, l.faults, tt.fault)
	}
}

// TestStreamLedger is the same of streams.
func TestStreamLedger(t *testing.T) {
	at := time.Date(2026, 1, 5, 10, 0, 0, 0, time.UTC)
	a, b := newParcel("s", "a", at, payload{"purchase", 1, ""}, sound), newParcel("s", "b", at, payload{"purchase", 1, ""}, sound)
	shown := exposureParcel{exposure: &assayv1.Exposure{Variant: "short"}, subject: subjectID("s"), variant: "short", at: at.UnixMilli()}
	stored, shownRow := []outcomeRow{{a.id, a.payload, at}, {b.id, b.payload, at}}, []exposureRow{{shown.subject, "short", at}}
	unavailable := status.Error(codes.Unavailable, "")
	for _, tt := range []struct {
		name         string
		acknowledged []int64 // By sequence number, of 1 to 3.
		end          error
		outcomes     []outcomeRow
		exposures    []exposureRow
		fault        string
	}{
		{"all is well", []int64{1, 2, 3}, io.EOF, stored, shownRow, ""},
		{"broken, and stored", nil, unavailable, stored, shownRow, ""},
		{"broken, and not stored", []int64{1}, unavailable, stored[:1], nil, ""},
		{"broken when nothing is owed", []int64{1, 2, 3}, unavailable, stored, shownRow, ""},
		{"lost", []int64{1, 2}, unavailable, stored[:1], nil, "is lost"},
		{"the exposure lost", []int64{1, 2, 3}, io.EOF, stored, nil, "acknowledged"},
		{"stored twice", []int64{1}, unavailable, append(stored, stored[1]), nil, "stored twice"},
		{"out of turn", []int64{2}, unavailable, stored, shownRow, "out of turn"},
		{"acknowledged twice", []int64{1, 1}, unavailable, stored, shownRow, "out of turn"},
		{"one too many", []int64{1, 2, 3, 4}, io.EOF, stored, shownRow, "out of turn"},
		{"not acknowledged", []int64{1}, io.EOF, stored, shownRow, "owes 2"},
		{"an end that tells nothing", []int64{1, 2, 3}, status.Error(codes.Internal, ""), stored, shownRow, "a call failed"},
	} {
		l := newLedger(nil)
		owed := []*streamedBatch{{sequence: 1, outcomes: []parcel{a}}, {sequence: 2, outcomes: []parcel{b}}, {sequence: 3, exposures: []exposureParcel{shown}}}
		for _, b := range owed {
			l.sendStreamed(b)
		}
		for _, n := range tt.acknowledged {
			if l.batchAcknowledged(owed, &assayv1.StreamEventsResponse{Sequence: n, Recorded: 1}) {
				owed = owed[1:]
			}
		}
		l.streamEnded(owed, tt.end)
		l.compareOutcomes(tt.outcomes)
		l.compareExposures(tt.exposures)
		checkFound(t, tt.name, l.faults, tt.fault)
	}
}

// TestShownLedger is the same of exposures by best effort.
func TestShownLedger(t *testing.T) {
	asked := time.Date(2026, 1, 5, 10, 0, 0, 700, time.UTC)
	answered := asked.Add(time.Second)
	l := newShownLedger()
	owed, told := subjectID("owed"), subjectID("told")
	l.ask([]experiment.SubjectID{owed, told}, asked)
	l.answer(told, "short", answered)
	for _, tt := range []struct {
		name  string
		rows  []exposureRow
		fault string
	}{
		{"lost", nil, ""},
		{"stored", []exposureRow{{told, "short", asked.Truncate(time.Millisecond)}, {owed, "control", answered.Add(time.Hour)}}, ""},
		{"stored twice", []exposureRow{{told, "short", asked}, {told, "short", answered}}, "stored twice"},
		{"another variant", []exposureRow{{told, "control", asked}}, "answered with short"},
		{"too late", []exposureRow{{told, "short", answered.Add(time.Millisecond)}}, "answered with short"},
		{"too early", []exposureRow{{owed, "short", asked.Add(-time.Millisecond)}}, "asked for at"},
		{"never asked for", []exposureRow{{subjectID("other"), "short", asked}}, "never asked for"},
	} {
		checkFound(t, tt.name, l.compare(tt.rows), tt.fault)
	}
}
