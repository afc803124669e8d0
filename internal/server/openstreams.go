package server

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// streamLimits are those of streams and of their connections.
type streamLimits struct {
	// recording is how many streams may record at once. Each may hold a window of
	// what is not read, and all have room for it: see maxUploadBytes.
	recording int
	// standing is how many other streams there may be, which are those that tell
	// of changes, of health and of the API, and the rosters that come in: one for
	// each of the clients of a large service.
	standing int
	// acknowledgements is how many bytes of acknowledgements may wait for their
	// clients before the one that has not read for the longest is ended. Most are
	// of a few bytes, and that of the largest batch, all rejected, of 2 MB.
	acknowledgements int64
	// waiting is how many bytes of messages, not decoded, may wait in streams for
	// their admission. Decoded, most take nine times as much, and so twice as much
	// may wait as is admitted; those of long properties take little more.
	waiting int64
	// sending is how long a client may leave its acknowledgements unread while
	// more wait: as long as a connection may leave a ping unanswered.
	sending time.Duration
	// rosterPause is how long a roster that comes in keeps its room without
	// sending, if another has none. A client that reads a file takes milliseconds.
	rosterPause time.Duration
	// idle ends connections without calls. Their clients connect again with the
	// next one; those of grpc-go close theirs after half an hour themselves.
	idle time.Duration
}

const (
	acknowledgementBytes = 32 << 20
	waitingBytes         = 16 << 20
)

var defaultStreamLimits = streamLimits{
	recording:        512,
	standing:         4096,
	acknowledgements: acknowledgementBytes,
	waiting:          waitingBytes,
	sending:          unansweredTime,
	rosterPause:      10 * time.Second,
	idle:             10 * time.Minute,
}

// openStreams knows the streams that record. Each has its place until a new one
// has none: then the stream is ended that has been idle for the longest, of the
// peer with the most streams that has an idle one.
type openStreams struct {
	limits  streamLimits
	ended   *prometheus.CounterVec
	refused *prometheus.CounterVec

	mu     sync.Mutex
	open   map[*openStream]bool
	unread int64 // Bytes of acknowledgements that wait for their clients.
}

// openStream is a stream that records.
type openStream struct {
	peer    string
	end     context.CancelCauseFunc
	working int       // Messages that wait, are recorded, or are not acknowledged.
	idle    time.Time // Since when there are none.
	sending time.Time // Since when an acknowledgement waits for its client; 0 if none does.
	unread  int64     // Bytes of its acknowledgements.
}

func newOpenStreams(limits streamLimits, metrics prometheus.Registerer) (*openStreams, error) {
	o := &openStreams{
		limits: limits,
		open:   map[*openStream]bool{},
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "assay_streams_ended_total",
			Help: "Streams that the server ended, by the reason that it told.",
		}, []string{"reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "assay_streams_refused_total",
			Help: "Streams that were refused because too many were open, by reason: RECORDING, or TOTAL or PEER of the others.",
		}, []string{"reason"}),
	}
	o.limits.acknowledgements = int64(float64(limits.acknowledgements) * budgetScale(debug.SetMemoryLimit(-1)))
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "assay_recording_streams",
		Help: "Streams that record.",
	}, func() float64 {
		o.mu.Lock()
		defer o.mu.Unlock()
		return float64(len(o.open))
	})
	return o, errors.Join(metrics.Register(o.ended), metrics.Register(o.refused), metrics.Register(open))
}

// enter gives a stream a place, if need be that of an idle one.
func (o *openStreams) enter(s *openStream) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.open) >= o.limits.recording {
		victim := o.idlest()
		if victim == nil {
			o.refused.WithLabelValues("RECORDING").Inc()
			return errTooManyStreams()
		}
		o.finish(victim, "STREAM_IDLE", "other clients need the place of this stream, which was idle; send on a new one when there is something to send")
	}
	s.idle = time.Now()
	o.open[s] = true
	return nil
}

func errTooManyStreams() error {
	return experiment.Errorf(experiment.ErrExhausted, "TOO_MANY_STREAMS", "this server has as many streams as it may; try again later, or on another server")
}

// finish ends a stream, whose place is free from now on. The caller holds o.mu.
func (o *openStreams) finish(s *openStream, reason, message string) {
	o.forget(s)
	o.ended.WithLabelValues(reason).Inc()
	s.end(experiment.Errorf(experiment.ErrUnavailable, reason, "%s", message))
}

func (o *openStreams) forget(s *openStream) {
	delete(o.open, s)
	o.unread -= s.unread
	s.unread = 0
}

func (o *openStreams) leave(s *openStream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forget(s)
}

// idlest returns the stream to end for a new one, or nil. The caller holds o.mu.
func (o *openStreams) idlest() *openStream {
	peers := map[string]int{}
	for s := range o.open {
		peers[s.peer]++
	}
	var found *openStream
	for s := range o.open {
		switch {
		case s.working > 0:
		case found == nil, peers[s.peer] > peers[found.peer], peers[s.peer] == peers[found.peer] && s.idle.Before(found.idle):
			found = s
		}
	}
	return found
}

// work says that a message of a stream is under way.
func (o *openStreams) work(s *openStream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.working++
}

// answer counts an acknowledgement that waits for the stream's client. If all
// are too many, the stream is ended whose client has not read for the longest.
func (o *openStreams) answer(s *openStream, bytes int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.open[s] {
		return
	}
	s.unread += bytes
	o.unread += bytes
	for o.unread > o.limits.acknowledgements {
		var slowest *openStream
		for other := range o.open {
			if !other.sending.IsZero() && (slowest == nil || other.sending.Before(slowest.sending)) {
				slowest = other
			}
		}
		if slowest == nil {
			return // All are about to be sent, and bounded by what was admitted.
		}
		o.finish(slowest, unreadReason, unreadMessage)
	}
}

const (
	unreadReason  = "ACKNOWLEDGEMENTS_UNREAD"
	unreadMessage = "the acknowledgements were not read; send on a new stream what was not acknowledged, and read while sending"
)

// unreadEnd ends a stream whose client does not read.
func (o *openStreams) unreadEnd() error {
	o.ended.WithLabelValues(unreadReason).Inc()
	return experiment.Errorf(experiment.ErrUnavailable, unreadReason, unreadMessage)
}

// begin says that an acknowledgement is being sent.
func (o *openStreams) begin(s *openStream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.sending = time.Now()
}

// sent says that an acknowledgement was sent, and so a message is done.
func (o *openStreams) sent(s *openStream, bytes int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.sending = time.Time{}
	if s.working--; s.working == 0 {
		s.idle = time.Now()
	}
	if o.open[s] {
		s.unread -= bytes
		o.unread -= bytes
	}
}

// peerOfCall names whose call it is.
func peerOfCall(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return peerOf(p.Addr)
	}
	return ""
}

// boundStreams gives each stream a place but for those that record, which have
// their own. None of them is ended for being idle: that is what they are for.
func (o *openStreams) boundStreams(places *shares) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if info.FullMethod == assayv1.EventService_StreamEvents_FullMethodName {
			return handler(srv, stream)
		}
		peer := peerOfCall(stream.Context())
		if reason := places.take(peer); reason != "" {
			o.refused.WithLabelValues(reason).Inc()
			return errTooManyStreams()
		}
		defer places.release(peer)
		return handler(srv, stream)
	}
}
