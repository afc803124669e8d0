package server

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// incoming is a message that is to be received. The codec decodes it once it is
// admitted; a codec alone could refuse nothing but as INTERNAL, and does not know
// for which call it works.
type incoming struct {
	ctx       context.Context
	admission *admission
	message   proto.Message
	call      *arrival                         // Of a unary call that records.
	wait      func(bytes, encoded int64) error // Of a stream that records: it waits for room.
	bytes     int64                            // Admitted.
	budget    *budget                          // From which.
	work      *work
	queue     *queue // Of the call's class; nil for none.
	long      bool   // So that it takes turns to be decoded and checked.
	err       error  // Why it is not.
}

// admit admits the message by its encoding. If not, err says why.
func (in *incoming) admit(data []byte) bool {
	a, n := in.admission, int64(len(data))
	recording := in.call != nil || in.wait != nil
	if n <= smallMessage && !recording {
		return in.take(&a.small, n*smallFactor)
	}
	most := a.large.most
	if recording {
		most = a.recording - callBytes
	}
	bytes, err := weigh(data, in.message, most)
	switch {
	case err != nil:
		if recording {
			a.refuse(n)
		}
		a.others.WithLabelValues("MESSAGE").Inc()
		in.err = err
	case in.wait != nil:
		if in.err = in.wait(bytes, n); in.err == nil {
			in.bytes += bytes
		}
	case in.call != nil:
		if a.take(in.call, bytes) {
			in.bytes += bytes
		} else {
			a.refused.Inc()
			in.err = errOverloaded()
		}
	default:
		return in.take(&a.large, bytes)
	}
	return in.err == nil
}

// decode decodes the message if it is admitted. A long one of a class that has a queue
// waits for its turn to be weighed and decoded, and counts meanwhile as it is. A panic
// is a refusal: the interceptors, which recover from others, have not seen a unary call
// yet.
func (in *incoming) decode(data mem.BufferSlice) (err error) {
	defer func() {
		if p := recover(); p != nil {
			in.err, err = recovered(in.ctx, p), nil
		}
	}()
	if in.long = in.queue != nil && data.Len() > longMessage; in.long {
		if !in.take(&in.admission.large, int64(data.Len())) {
			return nil
		}
		var one *turn
		if one, in.err = in.work.turnBefore(in.ctx, in.queue); in.err != nil {
			return nil
		}
		defer one.end()
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	if !in.admit(buffer.ReadOnlyData()) {
		return nil
	}
	return decode(buffer.ReadOnlyData(), in.message)
}

// take takes the bytes from a budget.
func (in *incoming) take(b *budget, n int64) bool {
	if !b.take(n) {
		in.admission.others.WithLabelValues("REQUESTS").Inc()
		in.err = experiment.Errorf(experiment.ErrExhausted, "TOO_MANY_REQUESTS",
			"the requests under way take the %d bytes that they may, and this one would take %d; send it again later", b.most, n)
		return false
	}
	in.budget, in.bytes = b, in.bytes+n
	return true
}

// release gives back what the message was admitted with, but for a stream that
// records, which does so itself.
func (in *incoming) release() {
	switch {
	case in.budget != nil:
		in.budget.release(in.bytes)
	case in.call != nil:
		in.admission.release(in.bytes)
	}
	in.bytes, in.budget = 0, nil
}

// incomingKey is that of its message in the context of a call which may have a long one.
type incomingKey struct{}

// registrar registers services of which each unary call is admitted.
type registrar struct {
	*grpc.Server
	admission *admission
	work      *work
}

// RegisterService registers a service whose requests are admitted before they are
// decoded, and count until their handlers have returned. A refusal goes through
// the interceptors as if the handler had returned it.
func (r registrar) RegisterService(desc *grpc.ServiceDesc, implementation any) {
	admitted := *desc
	admitted.Methods = slices.Clone(desc.Methods)
	for i := range admitted.Methods {
		m := &admitted.Methods[i]
		handler, method := m.Handler, "/"+desc.ServiceName+"/"+m.MethodName
		recording := records(method)
		queue := r.work.byMethod[method]
		m.Handler = func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			in := &incoming{ctx: ctx, admission: r.admission, work: r.work, queue: queue}
			defer in.release()
			if recording {
				in.call, _ = ctx.Value(arrivalKey{}).(*arrival)
			}
			if queue != nil {
				ctx = context.WithValue(ctx, incomingKey{}, in)
			}
			resp, err := handler(srv, ctx, func(m any) error {
				in.message = m.(proto.Message)
				if err := decode(in); err != nil {
					return err
				}
				return in.err
			}, intercept)
			if in.err != nil { // The interceptors have not seen the call.
				info := &grpc.UnaryServerInfo{Server: srv, FullMethod: method}
				return intercept(ctx, nil, info, func(context.Context, any) (any, error) { return nil, in.err })
			}
			return resp, err
		}
	}
	r.Server.RegisterService(&admitted, implementation)
}

// admitStream admits the messages of streams. A message counts until the next one
// or the end of the stream.
func (a *admission) admitStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	s := &admittedStream{ServerStream: stream, admission: a, acknowledges: info.FullMethod == assayv1.EventService_StreamEvents_FullMethodName}
	defer s.hold(nil, true)
	return handler(srv, s)
}

// admittedStream is a stream whose handler may end while another goroutine of it still
// receives.
type admittedStream struct {
	grpc.ServerStream
	admission    *admission
	acknowledges bool // What it sends is counted by openStreams.

	mu    sync.Mutex
	held  *incoming // The message that counts, if there is one.
	ended bool
}

// hold has another message count in the place of the last one, or none, for good if the
// stream ends.
func (s *admittedStream) hold(next *incoming, end bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		s.held.release()
	}
	s.held, s.ended = next, s.ended || end
	if s.ended && s.held != nil {
		s.held.release()
	}
}

func (s *admittedStream) SendMsg(m any) error {
	if s.acknowledges {
		return s.ServerStream.SendMsg(m)
	}
	encoded, err := s.admission.encode(s.Context(), m.(proto.Message))
	if err != nil {
		return err
	}
	return s.ServerStream.SendMsg(encoded)
}

func (s *admittedStream) RecvMsg(m any) error {
	if _, ok := m.(*incoming); ok { // Of a stream that sees to it itself.
		return s.ServerStream.RecvMsg(m)
	}
	s.hold(nil, false)
	in := &incoming{admission: s.admission, message: m.(proto.Message)}
	err := s.ServerStream.RecvMsg(in)
	s.hold(in, false)
	if err != nil {
		return err
	}
	return in.err
}
