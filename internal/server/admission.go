package server

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/tap"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

const (
	// callBytes is what a call to record takes beside its message.
	callBytes = 16 << 10
	// unreadShare is how many times as much a message to record takes once it is
	// decoded as while it is unread.
	unreadShare = 9
	// smallMessage is how long a message may be that is not weighed: a longer one
	// takes tens of times longer to decode than to weigh.
	smallMessage = 512
	// smallFactor is how many times as much as its encoding any message may take,
	// beside its own few hundred bytes.
	smallFactor = 96
)

// admission keeps what is received and what is answered within its memory. Each
// message is admitted by what it takes once it is decoded, before it is. What is
// too much is refused at once if it is a unary call, and waits, not decoded, if it
// is of a stream that records.
//
// A unary call that records is admitted twice: before its message is read, if
// there is room for one of the usual size, of which it takes what it is while
// unread; and then by its size. Once half of the room is taken by messages that are read, there
// must be room for all that are unread. So under too much load nearly all that is
// refused is refused unread, which costs next to nothing; to read a message
// costs a tenth of storing it.
type admission struct {
	refused    prometheus.Counter     // Calls to record.
	others     *prometheus.CounterVec // Other calls, and what could never be admitted, by reason.
	overloaded error                  // The status of a refusal to record.

	small, large budget // Of requests that do not record.
	replies      *replies

	streams   *semaphore.Weighted // Bytes of the messages of streams that record.
	waiting   *semaphore.Weighted // Bytes, as they are encoded, of those that wait for it.
	recording int64               // How many these are at most, and how many those of unary calls.

	mu     sync.Mutex
	unary  int64 // Bytes of unary calls.
	read   int64 // Those of them that are of messages which were read.
	unread int64 // Unary calls whose message is unread.
	usual  int64 // Bytes of a message, the latest ones weighing most.
}

// arrival is a unary call, in its context.
type arrival struct {
	bytes int64
	read  bool // Or it has ended.
}

type arrivalKey struct{}

func newAdmission(metrics prometheus.Registerer, log *slog.Logger) (*admission, error) {
	scale := budgetScale(debug.SetMemoryLimit(-1))
	of := func(bytes int64) int64 { return int64(float64(bytes) * scale) }
	a := &admission{
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "assay_recordings_refused_total",
			Help: "Calls to record that were refused because too much was under way.",
		}),
		others: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "assay_messages_refused_total",
			Help: "Requests and answers that were refused for the memory that they would have taken, but for want of room to record, by reason.",
		}, []string{"reason"}),
		overloaded: toStatus(context.Background(), errOverloaded(), "", log),
		small:      budget{most: of(smallBytes)},
		large:      budget{most: of(requestBytes)},
		replies:    newReplies(of(replyBytes), defaultStreamLimits.sending),
		waiting:    semaphore.NewWeighted(of(defaultStreamLimits.waiting)),
		recording:  of(recordingBytes),
	}
	a.streams = semaphore.NewWeighted(a.recording)
	return a, errors.Join(metrics.Register(a.refused), metrics.Register(a.others))
}

func errOverloaded() error {
	return experiment.Errorf(experiment.ErrExhausted, "OVERLOADED", "more events arrive than can be stored; send these again later")
}

// arrive admits a unary call before its message is read.
func (a *admission) arrive(ctx context.Context, info *tap.Info) (context.Context, error) {
	if !records(info.FullMethodName) {
		return ctx, nil
	}
	c := &arrival{}
	a.mu.Lock()
	needed := a.unary + callBytes + a.usual
	if a.read > a.recording/2 {
		needed += a.unread * (a.usual - a.usual/unreadShare)
	}
	if needed <= a.recording {
		c.bytes = callBytes + a.usual/unreadShare
		a.unary += c.bytes
		a.unread++
	}
	a.mu.Unlock()
	if c.bytes == 0 {
		a.refused.Inc()
		return ctx, a.overloaded
	}
	context.AfterFunc(ctx, func() { a.leave(c) }) // However the call ends.
	return context.WithValue(ctx, arrivalKey{}, c), nil
}

// records says whether a method records.
func records(method string) bool {
	return method == assayv1.EventService_RecordExposures_FullMethodName || method == assayv1.EventService_RecordOutcomes_FullMethodName
}

// waitInStream admits the n bytes of a stream's message once there is room, for
// which it waits as long as not too many bytes of others do.
func (a *admission) waitInStream(ctx context.Context, n, encoded int64) error {
	if a.streams.TryAcquire(n) {
		return nil
	}
	if !a.waiting.TryAcquire(encoded) {
		a.refused.Inc()
		return experiment.Errorf(experiment.ErrUnavailable, "OVERLOADED",
			"more events arrive in streams than can be stored; send on a new stream what was not acknowledged, later")
	}
	defer a.waiting.Release(encoded)
	return a.streams.Acquire(ctx, n)
}

// take counts the n bytes of a message, if there is room, in place of the usual
// size that its call was admitted with.
func (a *admission) take(c *arrival, n int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.learn(n)
	a.noLongerUnread(c)
	assumed := max(0, c.bytes-callBytes) // 0 if the call has ended meanwhile.
	if a.unary-assumed+n > a.recording {
		return false
	}
	a.unary += n - assumed
	a.read += n
	c.bytes -= assumed
	return true
}

// refuse makes a message that was refused for what is in it count among the
// latest. It is n bytes long, and takes no more than unread.
func (a *admission) refuse(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.learn(n * unreadShare)
}

// learn makes a message of n bytes count among the latest. However large they are,
// no call reserves more than half of the room for its own, or they would keep out
// all others. The caller holds a.mu.
func (a *admission) learn(n int64) {
	a.usual += (min(n, a.recording/2) - a.usual) / 8
}

// noLongerUnread counts a call as unread no more. The caller holds a.mu.
func (a *admission) noLongerUnread(c *arrival) {
	if !c.read {
		c.read = true
		a.unread--
	}
}

func (a *admission) leave(c *arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.noLongerUnread(c)
	a.unary -= c.bytes
	c.bytes = 0
}

func (a *admission) release(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unary -= n
	a.read -= n
}
