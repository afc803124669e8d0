package main

import (
	"time"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// exposureEntry is a subject of the live experiment: what was sent of it.
type exposureEntry struct {
	variant  string         // The one that the split gives.
	sent     map[int64]bool // Times, in milliseconds since 1970.
	earliest *int64         // The earliest acknowledged.
}

// exposureParcel is an exposure on its way.
type exposureParcel struct {
	exposure *assayv1.Exposure
	subject  experiment.SubjectID
	variant  string // The one that the split gives.
	at       int64  // In milliseconds since 1970.
	mismatch bool   // The exposure names another variant.
}

// sendExposures enters exposures before they are sent.
func (l *ledger) sendExposures(parcels []exposureParcel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range parcels {
		if p.mismatch {
			continue
		}
		e := l.exposures[p.subject]
		if e == nil {
			e = &exposureEntry{variant: p.variant, sent: map[int64]bool{}}
			l.exposures[p.subject] = e
		}
		e.sent[p.at] = true
	}
	l.traffic.calls++
	l.traffic.exposures += int64(len(parcels))
}

// answeredExposures enters what became of a call.
func (l *ledger) answeredExposures(parcels []exposureParcel, resp *assayv1.RecordExposuresResponse, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed(err)
		l.traffic.exposuresInDoubt += int64(len(parcels))
		return
	}
	if n := int(resp.Recorded) + int(resp.Duplicates) + len(resp.Rejected); n != len(parcels) {
		l.complain("%d exposures were answered for as %d: %v", len(parcels), n, resp)
	}
	l.exposuresRecorded += int64(resp.Recorded)
	rejected := byIndex(resp.Rejected)
	for i, p := range parcels {
		r := rejected[int32(i)]
		mismatch := r.GetReason() == assayv1.RejectionReason_REJECTION_REASON_VARIANT_MISMATCH
		switch {
		case r == nil && !p.mismatch:
			l.traffic.exposuresAcknowledged++
			if e := l.exposures[p.subject]; e.earliest == nil || p.at < *e.earliest {
				e.earliest = &p.at
			}
		case mismatch && p.mismatch:
			l.traffic.mismatches++
		default:
			l.complain("the exposure %v was answered with %v", p.exposure, r)
		}
	}
}

// exposureRow is an exposure as it is stored.
type exposureRow struct {
	subject experiment.SubjectID
	variant string
	at      time.Time
}

// compareExposures holds the ledger to the rows that were stored in the trial.
// Rows beyond the earliest of a subject are no fault: they bring nothing new to
// a reader.
func (l *ledger) compareExposures(rows []exposureRow) {
	earliest := map[experiment.SubjectID]int64{}
	for _, r := range rows {
		at := r.at.UnixMilli()
		if e := l.exposures[r.subject]; e == nil || !e.sent[at] || e.variant != r.variant {
			l.complain("the exposure of %v to %s at %v is stored, which was never sent", r.subject, r.variant, r.at)
		}
		if first, ok := earliest[r.subject]; !ok || at < first {
			earliest[r.subject] = at
		}
	}
	for subject, e := range l.exposures {
		if first, ok := earliest[subject]; e.earliest != nil && (!ok || first > *e.earliest) {
			l.complain("the exposure of %v at %d was acknowledged; the earliest that is stored is at %d (0: none)", subject, *e.earliest, first)
		}
	}
	if n := int64(len(rows)); l.exposuresRecorded > n {
		l.complain("%d exposures are stored, and %d were answered for as new", n, l.exposuresRecorded)
	}
}
