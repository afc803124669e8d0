package server

import (
	"context"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

const (
	// maxRecordingBytes bounds the requests to record that are under way: once
	// for unary calls and once for streams, so that neither kind crowds out the
	// other. At 100 bytes an outcome it is 67,000 outcomes, a second or two of
	// what Postgres stores.
	maxRecordingBytes = 32 << 20
	// callBytes is what a call takes beside its message.
	callBytes = 16 << 10
	// itemBytes is what an exposure or outcome takes in memory beside its text.
	itemBytes = 400
	// elementBytes is counted for a value of properties beside its text. A message
	// of the largest size may hold two million.
	elementBytes = 8
	// unreadShare is how many times as much a message takes in memory, with its
	// items, as while it is unread.
	unreadShare = 6
	// maxEventStreams is how many streams may record at once. Each holds one
	// message that waits for its admission.
	maxEventStreams = 256
)

// admission keeps recording within its memory. What is too much is refused at
// once if it is a unary call, and waits, unread, if it is a stream.
//
// A unary call is admitted twice: before its message is read, if there is room
// for one of the usual size, of which it takes what it is while unread; and then
// by its size. Once half of the room is taken by messages that are read, there
// must be room for all that are unread. So under too much load nearly all that is
// refused is refused unread, which costs next to nothing; to read a message
// costs a tenth of storing it.
type admission struct {
	refused    prometheus.Counter
	overloaded error // The status of a refusal.

	open    *semaphore.Weighted // Streams.
	streams *semaphore.Weighted // Bytes of their messages.

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
	a := &admission{
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "assay_recordings_refused_total",
			Help: "Calls to record that were refused because too much was under way.",
		}),
		overloaded: toStatus(context.Background(), errOverloaded(), "", log),
		open:       semaphore.NewWeighted(maxEventStreams),
		streams:    semaphore.NewWeighted(maxRecordingBytes),
	}
	return a, metrics.Register(a.refused)
}

func errOverloaded() error {
	return experiment.Errorf(experiment.ErrExhausted, "OVERLOADED", "more events arrive than can be stored; send these again later")
}

// arrive admits a unary call before its message is read.
func (a *admission) arrive(ctx context.Context, info *tap.Info) (context.Context, error) {
	switch info.FullMethodName {
	case assayv1.EventService_RecordExposures_FullMethodName, assayv1.EventService_RecordOutcomes_FullMethodName:
	default:
		return ctx, nil
	}
	c := &arrival{}
	a.mu.Lock()
	needed := a.unary + callBytes + a.usual
	if a.read > maxRecordingBytes/2 {
		needed += a.unread * (a.usual - a.usual/unreadShare)
	}
	if needed <= maxRecordingBytes {
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

// admit admits the message of a unary call that keeps the schema's rules.
func (a *admission) admit(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	var n int64
	switch m := req.(type) {
	case *assayv1.RecordExposuresRequest:
		n = requestBytes(m, len(m.Exposures))
	case *assayv1.RecordOutcomesRequest:
		n = outcomesBytes(m.Outcomes)
	default:
		return handler(ctx, req)
	}
	if !a.take(ctx.Value(arrivalKey{}).(*arrival), n) {
		a.refused.Inc()
		return nil, errOverloaded()
	}
	defer a.release(n)
	return handler(ctx, req)
}

// take counts the n bytes of a message, if there is room, in place of the usual
// size that its call was admitted with.
func (a *admission) take(c *arrival, n int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.usual += (n - a.usual) / 8
	a.noLongerUnread(c)
	assumed := max(0, c.bytes-callBytes) // 0 if the call has ended meanwhile.
	if a.unary-assumed+n > maxRecordingBytes {
		return false
	}
	a.unary += n - assumed
	a.read += n
	c.bytes -= assumed
	return true
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

// requestBytes is about what a request takes in memory.
func requestBytes(m proto.Message, items int) int64 {
	return int64(proto.Size(m) + items*itemBytes)
}

// outcomesBytes is requestBytes of outcomes, by hand: the library goes through
// properties so slowly that it took a sixth of the server's time in recording.
func outcomesBytes(outcomes []*assayv1.Outcome) int64 {
	n := len(outcomes) * itemBytes
	for _, o := range outcomes {
		s := o.GetSubject()
		n += len(o.GetEventId()) + len(s.GetUnit()) + len(s.GetKey()) + len(o.GetName()) + len(o.GetCorrectsEventId())
		n += structBytes(s.GetAttributes()) + structBytes(o.GetProperties())
	}
	return int64(n)
}

func structBytes(s *structpb.Struct) int {
	n := 0
	for name, v := range s.GetFields() {
		n += len(name) + valueBytes(v)
	}
	return n
}

func valueBytes(v *structpb.Value) int {
	n := elementBytes
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		n += len(kind.StringValue)
	case *structpb.Value_StructValue:
		n += structBytes(kind.StructValue)
	case *structpb.Value_ListValue:
		for _, element := range kind.ListValue.GetValues() {
			n += valueBytes(element)
		}
	}
	return n
}
