package server

import (
	"context"
	"net"
	"runtime"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/assayhq/assay/internal/experiment"
)

// encodedReply is what a unary call answers, encoded.
type encodedReply struct{ buffer [1]mem.Buffer }

func newEncodedReply(b mem.Buffer) *encodedReply { return &encodedReply{[1]mem.Buffer{b}} }

// largeReply is the length above which a reply counts for its connection too. A
// connection has at most maxConcurrentStreams replies, so the smaller ones of one
// that reads nothing take a quarter of the budget and no more.
const largeReply = 64 << 10

// replies counts the bytes of the replies that are encoded and not sent: of a
// client that does not read they outlive their calls. No connection has more than
// half of what the others leave free.
//
// Below a kilobyte, where gRPC does not use its buffers twice, a reply is not
// counted: it is little beside the call that it belongs to.
type replies struct {
	most int64

	mu    sync.Mutex
	taken int64
	held  map[net.Addr]int64 // By the large ones of a connection.
}

// take counts n bytes, if there is room for them.
func (r *replies) take(conn net.Addr, n int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken+n > r.most {
		return false
	}
	if n > largeReply {
		held := r.held[conn]
		if held+n > (r.most-r.taken+held)/2 {
			return false
		}
		r.held[conn] = held + n
	}
	r.taken += n
	return true
}

func (r *replies) release(conn net.Addr, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken -= n
	if n > largeReply {
		if r.held[conn] -= n; r.held[conn] <= 0 {
			delete(r.held, conn)
		}
	}
}

// unsent is a reply that is counted until it is sent. It is the pool to which gRPC
// gives the reply's memory back then. Of a connection that has ended gRPC gives
// nothing back: there the garbage collector tells.
type unsent struct {
	cleanup runtime.Cleanup
	count   *unsentCount
}

type unsentCount struct {
	replies *replies
	conn    net.Addr
	bytes   int64
	once    sync.Once
}

func (c *unsentCount) release() {
	c.once.Do(func() { c.replies.release(c.conn, c.bytes) })
}

func (u *unsent) Get(length int) *[]byte { return mem.DefaultBufferPool().Get(length) }

func (u *unsent) Put(data *[]byte) {
	u.cleanup.Stop()
	u.count.release()
	mem.DefaultBufferPool().Put(data)
}

// encodeReply encodes what a call answers, if there is room for it.
func (a *admission) encodeReply(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	if err != nil {
		return nil, err
	}
	m := resp.(proto.Message)
	size := proto.Size(m)
	encode := proto.MarshalOptions{UseCachedSize: true} // Which proto.Size has just computed.
	if mem.IsBelowBufferPoolingThreshold(size) {
		b, err := encode.Marshal(m)
		return newEncodedReply(mem.SliceBuffer(b)), err
	}
	count := &unsentCount{replies: &a.replies, bytes: int64(size)}
	if p, ok := peer.FromContext(ctx); ok {
		count.conn = p.Addr
	}
	if !a.replies.take(count.conn, count.bytes) {
		a.others.WithLabelValues("REPLIES").Inc()
		return nil, experiment.Errorf(experiment.ErrExhausted, "TOO_MANY_REPLIES",
			"the answers that their callers have not read leave no room for one of %d bytes; read them, and ask again later", size)
	}
	pool := &unsent{count: count}
	pool.cleanup = runtime.AddCleanup(pool, (*unsentCount).release, count)
	buffer := pool.Get(size)
	if _, err := encode.MarshalAppend((*buffer)[:0], m); err != nil {
		pool.Put(buffer)
		return nil, err
	}
	return newEncodedReply(mem.NewBuffer(buffer, pool)), nil
}
