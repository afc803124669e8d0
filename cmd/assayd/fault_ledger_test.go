package main

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// identity is that of an outcome, as it is stored.
type identity struct {
	row     experiment.RowID
	subject experiment.SubjectID
}

func (i identity) String() string { return fmt.Sprintf("%x of %v", i.row[:], i.subject) }

// payload is what an outcome says beside its identity.
type payload struct {
	name  string
	value float64 // A multiple of 1/4, so that sums are exact.
	sku   string  // A property; "" for no properties.
}

// nature is what the rules must make of an outcome.
type nature int

const (
	sound  nature = iota
	future        // The rules refuse it.
	poison        // The rules let it pass, and the database refuses it.
)

// parcel is an outcome on its way, and what the ledger knows it by.
type parcel struct {
	outcome *assayv1.Outcome
	id      identity
	payload payload
	nature  nature
}

// fate is what was answered about one payload of an identity, over all times
// that it was sent. All of it may be false: it is under way.
type fate struct {
	acknowledged bool // Recorded or a duplicate.
	conflict     bool // Another payload is recorded.
	refused      bool
	doubt        bool // A call failed; it may be stored.
}

// entry is an identity: the payloads that were sent under it.
type entry struct {
	fates  map[payload]*fate
	before *payload // What an earlier trial left stored.
}

// ledger remembers what was sent in one trial and what was answered. It is
// safe for concurrent use until it is compared with the tables.
type ledger struct {
	mu         sync.Mutex
	entries    map[identity]*entry
	resendable []parcel // To be sent again, as they are or changed.
	exposures  map[experiment.SubjectID]*exposureEntry
	faults     []string // What was answered and must not have been.

	recorded          int64 // Outcomes of which an answer said that they were new.
	exposuresRecorded int64
	unavailable       int64 // Calls that failed so.
	traffic           traffic
}

// traffic counts what was sent and answered.
type traffic struct {
	calls, failedCalls                                             int64
	outcomes, acknowledged, conflicts, refused, inDoubt            int64
	exposures, exposuresAcknowledged, mismatches, exposuresInDoubt int64
	streams, streamsBroken, batches, batchesAcknowledged           int64
}

// newLedger begins a trial with the outcomes that earlier ones left stored.
func newLedger(stored []parcel) *ledger {
	l := &ledger{entries: map[identity]*entry{}, exposures: map[experiment.SubjectID]*exposureEntry{}}
	for _, p := range stored {
		l.entries[p.id] = &entry{fates: map[payload]*fate{p.payload: {acknowledged: true}}, before: &p.payload}
		l.resendable = append(l.resendable, p)
	}
	return l
}

func (l *ledger) complain(format string, args ...any) {
	if len(l.faults) < 20 {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

// send enters parcels before they are sent.
func (l *ledger) send(parcels []parcel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range parcels {
		e := l.entries[p.id]
		if e == nil {
			e = &entry{fates: map[payload]*fate{}}
			l.entries[p.id] = e
			if p.nature == sound {
				l.resendable = append(l.resendable, p)
			}
		}
		if e.fates[p.payload] == nil {
			e.fates[p.payload] = &fate{}
		}
	}
	l.traffic.calls++
	l.traffic.outcomes += int64(len(parcels))
}

// answered enters what became of a call.
func (l *ledger) answered(parcels []parcel, resp *assayv1.RecordOutcomesResponse, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed(err)
		l.traffic.inDoubt += int64(len(parcels))
		for _, p := range parcels {
			l.entries[p.id].fates[p.payload].doubt = true
		}
		return
	}
	if n := int(resp.Recorded) + int(resp.Duplicates) + len(resp.Rejected); n != len(parcels) {
		l.complain("%d outcomes were answered for as %d: %v", len(parcels), n, resp)
	}
	l.recorded += int64(resp.Recorded)
	rejected := byIndex(resp.Rejected)
	for i, p := range parcels {
		l.settle(p, l.entries[p.id].fates[p.payload], rejected[int32(i)])
	}
}

// settle enters what a reply says of one outcome.
func (l *ledger) settle(p parcel, f *fate, r *assayv1.Rejection) {
	invalid := r.GetReason() == assayv1.RejectionReason_REJECTION_REASON_INVALID_FIELD
	switch {
	case r == nil && p.nature == sound:
		f.acknowledged = true
		l.traffic.acknowledged++
	case p.nature == sound && r.GetReason() == assayv1.RejectionReason_REJECTION_REASON_CONFLICT:
		f.conflict = true
		l.traffic.conflicts++
	case p.nature == future && invalid && r.Field == "occurred_time", p.nature == poison && invalid && r.Field == "":
		f.refused = true
		l.traffic.refused++
	default:
		l.complain("the outcome %v was answered with %v", p.outcome, r)
	}
}

// failed enters that a call, or a batch of a stream, got no answer.
func (l *ledger) failed(err error) {
	l.traffic.failedCalls++
	l.judge(err)
}

// judge is about an error: only those that say that the call may be repeated
// may be given to a sound message.
func (l *ledger) judge(err error) {
	switch status.Code(err) {
	case codes.Unavailable:
		l.unavailable++
	case codes.DeadlineExceeded, codes.ResourceExhausted:
	default:
		l.complain("a call failed with %v", err)
	}
}

// refusals counts the calls that failed as unavailable: not those whose caller
// gave up.
func (l *ledger) refusals() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unavailable
}

func byIndex(rejected []*assayv1.Rejection) map[int32]*assayv1.Rejection {
	m := make(map[int32]*assayv1.Rejection, len(rejected))
	for _, r := range rejected {
		m[r.Index] = r
	}
	return m
}

// outcomeRow is an outcome as it is stored.
type outcomeRow struct {
	id       identity
	payload  payload
	occurred time.Time
}

// inDoubt counts what no answer settled: the identities, and those of them
// that are stored.
type inDoubt struct{ sent, stored int64 }

// compareOutcomes holds the ledger to the rows that were stored in the trial.
func (l *ledger) compareOutcomes(rows []outcomeRow) (doubts inDoubt) {
	stored := make(map[identity]payload, len(rows))
	for _, r := range rows {
		e := l.entries[r.id]
		switch _, twice := stored[r.id]; {
		case twice || e != nil && e.before != nil:
			l.complain("the outcome %v is stored twice", r.id)
		case e == nil || e.fates[r.payload] == nil:
			l.complain("the outcome %v is stored as %v, which was never sent", r.id, r.payload)
		case !isFrom(r.id.row, r.occurred):
			l.complain("the outcome %v is stored with the time %v", r.id, r.occurred)
		}
		stored[r.id] = r.payload
	}
	doubted := int64(0)
	for id, e := range l.entries {
		s, ok := stored[id]
		if e.before != nil {
			s, ok = *e.before, true
		}
		doubt, settled := l.compareEntry(id, e, s, ok)
		if doubt {
			doubted++
		}
		if doubt && !settled {
			doubts.sent++
			if ok {
				doubts.stored++
			}
		}
	}
	if n := int64(len(rows)); l.recorded > n || l.recorded < n-doubted {
		l.complain("%d outcomes are stored, %d were answered for as new, and %d were in doubt for a while", n, l.recorded, doubted)
	}
	return doubts
}

// isFrom says whether a row id has the time.
func isFrom(row experiment.RowID, at time.Time) bool {
	id := experiment.NewRowID(at, "")
	return bytes.Equal(id[:6], row[:6])
}

// compareEntry holds what was answered about an identity to what is stored of
// it. It says whether a call with it failed, and whether any was answered.
func (l *ledger) compareEntry(id identity, e *entry, stored payload, isStored bool) (doubt, settled bool) {
	for p, f := range e.fates {
		is := isStored && stored == p
		switch {
		case f.acknowledged && !isStored:
			l.complain("the outcome %v was acknowledged as %v and is lost", id, p)
		case f.acknowledged && !is:
			l.complain("the outcome %v was acknowledged as %v and is stored as %v", id, p, stored)
		case f.conflict && !isStored:
			l.complain("the outcome %v was called a conflict as %v, and nothing is stored", id, p)
		case f.conflict && is:
			l.complain("the outcome %v was called a conflict as %v, and is stored so", id, p)
		case f.refused && is:
			l.complain("the outcome %v was refused as %v, and is stored so", id, p)
		case is && !f.acknowledged && !f.doubt:
			l.complain("the outcome %v is stored as %v without an answer or a doubt", id, p)
		}
		doubt = doubt || f.doubt
		settled = settled || f.acknowledged || f.conflict || f.refused
	}
	return doubt, settled
}
