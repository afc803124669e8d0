package server_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// outcomesOf are outcomes at the times, under ids that begin with a prefix.
func outcomesOf(prefix string, times ...time.Time) *assayv1.RecordOutcomesRequest {
	req := &assayv1.RecordOutcomesRequest{}
	for i, at := range times {
		req.Outcomes = append(req.Outcomes, &assayv1.Outcome{EventId: fmt.Sprint(prefix, i), Name: "purchase",
			Subject: &assayv1.Subject{Key: "u-1"}, OccurredTime: timestamppb.New(at)})
	}
	return req
}

// TestManyMonths records a batch of 132 months, in the calls that it takes. Others who record meanwhile do not wait for it, be it for a month that is
// there or for one that is new, and be the months made slowly or not at all.
func TestManyMonths(t *testing.T) {
	a, address := newAPIAt(t)
	now := time.Now()
	if _, err := a.events.RecordOutcomes(t.Context(), outcomesOf("first", now)); err != nil {
		t.Fatal(err)
	}
	var months []time.Time
	for at := time.Unix(0, 0).UTC(); at.Year() < 1981; at = at.AddDate(0, 1, 0) {
		months = append(months, at)
	}
	conn := connect(t, address)
	holder, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Exec(t.Context(), `SELECT pg_advisory_xact_lock($1)`, 0x6173736179); err != nil {
		t.Fatal(err)
	}
	refusals, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		for {
			resp, err := a.events.RecordOutcomes(context.WithoutCancel(t.Context()), outcomesOf("old", months...))
			if err == nil {
				if resp.Recorded != int32(len(months)) {
					t.Errorf("recorded %v", resp)
				}
				return
			}
			if status.Code(err) != codes.Unavailable {
				t.Error(err)
				return
			}
			for _, detail := range status.Convert(err).Details() {
				if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Reason == "MONTHS_BEING_MADE" {
					refusals++
				}
			}
		}
	}()
	for waits := false; !waits; time.Sleep(time.Millisecond) {
		if err := holder.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)`).Scan(&waits); err != nil {
			t.Fatal(err)
		}
	}
	meanwhile := func(what string, times ...time.Time) {
		t.Helper()
		if resp, err := a.events.RecordOutcomes(t.Context(), outcomesOf(what, times...)); err != nil || resp.Recorded != int32(len(times)) {
			t.Errorf("%s: %v, %v", what, resp, err)
		}
		select {
		case <-done:
			t.Errorf("%s: waited for all the months", what)
		default:
		}
	}
	meanwhile("while no month can be made", now)
	if err := holder.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		meanwhile(fmt.Sprint("a month that is there, ", i), now)
	}
	meanwhile("a new month", time.Date(2021, 1, 5, 0, 0, 0, 0, time.UTC))
	<-done
	if refusals != 1 {
		t.Errorf("%d calls made room for 132 months, want 1 and the one that recorded them", refusals)
	}
}
