package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

const (
	// outcomeRecorders is how many callers record outcomes, call by call. One
	// more records exposures, and one is assigned variants whose exposures the
	// servers record.
	outcomeRecorders = 4
	// streamRecorders is how many callers record both by streams.
	streamRecorders = 2
	// auditSubjects is how many subjects have all the outcomes.
	auditSubjects = 200
	// poisonValue is that which the harness makes the database refuse. No other
	// outcome has it: it is no multiple of 1/4.
	poisonValue = 0.125
	// callPatience is how long most calls wait for their answer. Nothing is late
	// that comes before.
	callPatience = 30 * time.Second
)

// load is the recorders of one trial.
type load struct {
	*ledger
	trial     int
	servers   *[2]*target
	shown     *shownLedger
	tally     *faultTally
	late      time.Time       // The beginning of the month that late events are from.
	calls     sync.RWMutex    // Held for reading by each call.
	answers   [2]atomic.Int64 // Calls with outcomes that each server has answered.
	round     atomic.Int64    // Of batches of streams: one more begins whenever it matters which came later.
	caughtUp  atomic.Int64    // The latest round of which a batch was acknowledged.
	recorders sync.WaitGroup
	cancel    context.CancelFunc
}

// startLoad makes the recorders record until stop.
func (d *drill) startLoad(l *ledger) *load {
	ctx, cancel := context.WithCancel(context.Background())
	d.trials++
	o := &load{ledger: l, trial: d.trials, servers: &d.servers, shown: d.shown, tally: d.tally, cancel: cancel,
		late: time.Date(1971+d.random.IntN(50), time.Month(1+d.random.IntN(12)), 1, 0, 0, 0, 0, time.UTC)}
	for _, some := range []struct {
		name   string
		n      int
		record func(*eventRecorder, context.Context)
	}{
		{"outcomes", outcomeRecorders, (*eventRecorder).recordOutcomes},
		{"exposures", 1, (*eventRecorder).recordExposures},
		{"stream", streamRecorders, (*eventRecorder).streamEvents},
		{"best-effort", 1, (*eventRecorder).showSubjects},
	} {
		for i := range some.n {
			r := o.recorder(fmt.Sprint(some.name, i), d.random.Uint64())
			o.recorders.Go(func() { some.record(r, ctx) })
		}
	}
	return o
}

// stop lets the calls under way end.
func (o *load) stop() {
	o.cancel()
	o.recorders.Wait()
}

// eventRecorder is one caller.
type eventRecorder struct {
	*load
	name     string
	random   *rand.Rand       // Of its goroutine alone.
	made     int              // Events and subjects, for their ids.
	sequence int64            // Of the last batch of its streams.
	met      []exposureParcel // What it has recorded of subjects and their variants.
}

func (o *load) recorder(name string, seed uint64) *eventRecorder {
	return &eventRecorder{load: o, name: fmt.Sprint(o.trial, "-", name), random: rand.New(rand.NewPCG(seed, 0))}
}

func (r *eventRecorder) one(in int) bool { return r.random.IntN(in) == 0 }

func (r *eventRecorder) pause(most time.Duration) {
	time.Sleep(time.Duration(r.random.Int64N(int64(most))))
}

// deadline is how long a call waits: now and then too short to be answered.
func (r *eventRecorder) deadline() time.Duration {
	if r.one(20) {
		return time.Duration(1+r.random.IntN(200)) * time.Millisecond
	}
	return callPatience
}

func (r *eventRecorder) recordOutcomes(ctx context.Context) {
	for ctx.Err() == nil {
		parcels := r.compose()
		if r.one(6) {
			r.sendOverlapping(parcels)
		} else {
			r.insist(ctx, func(server int) bool { return r.sendOutcomes(server, parcels, r.deadline()) })
		}
		r.pause(20 * time.Millisecond)
	}
}

// insist sends until there is an answer, each time to any server, or leaves
// what is in doubt.
func (r *eventRecorder) insist(ctx context.Context, send func(server int) bool) {
	for !send(r.random.IntN(2)) && ctx.Err() == nil {
		r.pause(500 * time.Millisecond)
		if r.one(4) {
			return
		}
	}
}

// sendOverlapping sends two parts of a batch to both servers at once, the
// middle third to both, each in an order of its own.
func (r *eventRecorder) sendOverlapping(parcels []parcel) {
	third := len(parcels) / 3
	parts := [2][]parcel{append([]parcel(nil), parcels[:len(parcels)-third]...), append([]parcel(nil), parcels[third:]...)}
	deadline := r.deadline()
	var both sync.WaitGroup
	for server, part := range parts {
		r.random.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
		both.Go(func() { r.sendOutcomes(server, part, deadline) })
	}
	both.Wait()
}

// sendOutcomes makes one call and says whether it was answered.
func (o *load) sendOutcomes(server int, parcels []parcel, deadline time.Duration) bool {
	o.calls.RLock()
	defer o.calls.RUnlock()
	return o.callOutcomes(server, parcels, deadline) == nil
}

func (o *load) callOutcomes(server int, parcels []parcel, deadline time.Duration) error {
	req := &assayv1.RecordOutcomesRequest{}
	for _, p := range parcels {
		req.Outcomes = append(req.Outcomes, p.outcome)
	}
	o.send(parcels)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	resp, err := assayv1.NewEventServiceClient(o.servers[server].conn).RecordOutcomes(ctx, req)
	o.answered(parcels, resp, err)
	if err == nil {
		o.answers[server].Add(1)
	}
	return err
}

// compose makes a batch of 1 to 1,000 outcomes.
func (r *eventRecorder) compose() []parcel {
	return r.composeUpTo([]int{1, 10, 100, 1000}[r.random.IntN(4)])
}

// composeUpTo makes a batch of 1 to most outcomes: new ones, known ones again
// or with another payload, late ones, some of the future, and poison.
func (r *eventRecorder) composeUpTo(most int) []parcel {
	parcels := make([]parcel, 0, most)
	for range 1 + r.random.IntN(most) {
		parcels = append(parcels, r.next(parcels))
	}
	if r.one(4) { // Somewhere among them.
		parcels[r.random.IntN(len(parcels))] = r.make(poison)
	}
	return parcels
}

// next makes the next outcome of a batch that has begun.
func (r *eventRecorder) next(batch []parcel) parcel {
	switch n := r.random.IntN(200); {
	case n == 0:
		return r.make(future)
	case n < 10 && len(batch) > 0:
		return r.again(batch[r.random.IntN(len(batch))])
	case n < 20:
		if p, ok := r.known(); ok {
			return r.again(p)
		}
	case n < 25:
		if p, ok := r.known(); ok {
			return r.rival(p)
		}
	}
	return r.make(sound)
}

// known picks one of the sound outcomes that were sent, by whomever.
func (r *eventRecorder) known() (p parcel, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.resendable) == 0 {
		return p, false
	}
	return r.resendable[r.random.IntN(len(r.resendable))], true
}

// again is the same outcome: another moment of the millisecond is the same.
func (r *eventRecorder) again(p parcel) parcel {
	p.outcome = proto.CloneOf(p.outcome)
	nanos := &p.outcome.OccurredTime.Nanos
	*nanos = *nanos/1e6*1e6 + r.random.Int32N(1e6)
	return p
}

// rival is another payload under the same identity.
func (r *eventRecorder) rival(p parcel) parcel {
	if p.nature != sound {
		return p
	}
	p = r.again(p)
	switch r.random.IntN(3) {
	case 0:
		p.payload.value++
	case 1:
		p.payload.name = "refund"
	default:
		p.payload.sku += "x"
	}
	p.fill()
	return p
}

// make makes a new outcome.
func (r *eventRecorder) make(n nature) parcel {
	r.made++
	at := time.Now().Add(-time.Duration(r.random.Int64N(int64(40 * 24 * time.Hour)))) // In no order.
	if r.one(100) {
		at = r.late.Add(time.Duration(r.random.Int64N(int64(28 * 24 * time.Hour))))
	}
	p := payload{name: "purchase", value: float64(r.random.IntN(400)) / 4}
	if r.one(3) {
		p.name = "visit"
	}
	if r.one(2) {
		p.sku = fmt.Sprint("A", r.random.IntN(100))
	}
	switch n {
	case future:
		at = time.Now().Add(time.Hour)
	case poison:
		p.value = poisonValue
	}
	return newParcel(auditKey(r.random.IntN(auditSubjects)), fmt.Sprintf("%s-%d", r.name, r.made), at, p, n)
}

func auditKey(i int) string { return fmt.Sprint("audit-", i) }

func newParcel(subject, event string, at time.Time, p payload, n nature) parcel {
	c := parcel{
		outcome: &assayv1.Outcome{EventId: event, Subject: &assayv1.Subject{Key: subject}, OccurredTime: timestamppb.New(at)},
		id:      identity{experiment.NewRowID(at, event), subjectID(subject)},
		payload: p,
		nature:  n,
	}
	c.fill()
	return c
}

// fill writes the payload into the message.
func (p *parcel) fill() {
	p.outcome.Name, p.outcome.Value = p.payload.name, &p.payload.value
	p.outcome.Properties = nil
	if p.payload.sku != "" {
		p.outcome.Properties = &structpb.Struct{Fields: map[string]*structpb.Value{"sku": structpb.NewStringValue(p.payload.sku)}}
	}
}

func subjectID(key string) experiment.SubjectID {
	return experiment.Pepper(testPepper).SubjectID(experiment.Subject{Unit: experiment.DefaultUnit, Key: key})
}

// recordExposures records that subjects met their variants, time and again.
func (r *eventRecorder) recordExposures(ctx context.Context) {
	for ctx.Err() == nil {
		if batch, err := r.composeExposures(ctx); err == nil {
			r.insist(ctx, func(server int) bool { return r.sendMet(server, batch, r.deadline()) })
		}
		r.pause(40 * time.Millisecond)
	}
}

// composeExposures makes a batch of new subjects, who meet their variants, and
// of known ones who meet theirs again.
func (r *eventRecorder) composeExposures(ctx context.Context) ([]exposureParcel, error) {
	batch, err := r.meet(ctx)
	if err != nil {
		return nil, err
	}
	r.met = append(r.met, batch...)
	for range r.random.IntN(len(batch) + 1) {
		batch = append(batch, r.at(r.met[r.random.IntN(len(r.met))]))
	}
	return batch, nil
}

// meet makes new subjects and asks which variant each meets.
func (r *eventRecorder) meet(ctx context.Context) ([]exposureParcel, error) {
	req := &assayv1.BatchAssignRequest{Experiments: []string{liveFaults}}
	for range 1 + r.random.IntN(100) {
		r.made++
		req.Subjects = append(req.Subjects, &assayv1.Subject{Key: fmt.Sprintf("met-%s-%d", r.name, r.made)})
	}
	resp, err := assayv1.NewAssignmentServiceClient(r.servers[r.random.IntN(2)].conn).BatchAssign(ctx, req)
	if err != nil {
		return nil, err // A server that was killed; the prober judges.
	}
	met := make([]exposureParcel, len(req.Subjects))
	for i, s := range req.Subjects {
		met[i] = r.at(exposureParcel{
			exposure: &assayv1.Exposure{Experiment: liveFaults, Subject: s},
			subject:  subjectID(s.Key),
			variant:  resp.Results[i].Assignments[0].Variant,
		})
	}
	return met, nil
}

// at is the same exposure at another time, and now and then to the variant
// that the subject did not meet.
func (r *eventRecorder) at(p exposureParcel) exposureParcel {
	at := time.Now().Add(-time.Duration(r.random.Int64N(int64(40 * 24 * time.Hour))))
	p.exposure, p.at = proto.CloneOf(p.exposure), at.UnixMilli()
	p.exposure.ExposedTime = timestamppb.New(at)
	p.exposure.Variant = p.variant
	if p.mismatch = r.one(200); p.mismatch {
		p.exposure.Variant = map[string]string{"control": "short", "short": "control"}[p.variant]
	}
	return p
}

func (r *eventRecorder) sendMet(server int, parcels []exposureParcel, deadline time.Duration) bool {
	r.calls.RLock()
	defer r.calls.RUnlock()
	req := &assayv1.RecordExposuresRequest{}
	for _, p := range parcels {
		req.Exposures = append(req.Exposures, p.exposure)
	}
	r.sendExposures(parcels)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	resp, err := assayv1.NewEventServiceClient(r.servers[server].conn).RecordExposures(ctx, req)
	r.answeredExposures(parcels, resp, err)
	return err == nil
}
