package server

import (
	"context"
	"net"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/assayhq/assay/internal/experiment"
)

// encodedReply is what a unary call answers, encoded.
type encodedReply struct{ buffer [1]mem.Buffer }

func newEncodedReply(b mem.Buffer) *encodedReply { return &encodedReply{[1]mem.Buffer{b}} }

// replies counts the bytes of what is encoded and not sent, that streams send too: of
// a client that does not read it outlives its call. No peer has more than half of what
// the others leave free. If there is no room, the connection is closed that has left a
// reply unread for the longest, and too long: to read its socket, or to ping, is no
// sign that a client reads its replies.
//
// Below a kilobyte, where gRPC does not use its buffers twice, a reply is not
// counted: it is little beside the call that it belongs to.
type replies struct {
	most  int64
	pause time.Duration // How long a reply may be unread while there is no room for others.

	mu             sync.Mutex
	taken          int64
	held           map[string]int64 // By peer; behind a proxy, by connection.
	oldest, latest *unsentCount
}

func newReplies(most int64, pause time.Duration) *replies {
	return &replies{most: most, pause: pause, held: map[string]int64{}}
}

// take counts a reply, if there is room for it.
func (r *replies) take(c *unsentCount) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.fits(c) {
		slow := r.oldest
		if slow == nil || c.since.Sub(slow.since) < r.pause {
			return false
		}
		addr, followed := slow.conn.(*followedAddr)
		if !followed {
			return false
		}
		addr.conn.endForReplies()
		r.forget(addr)
	}
	c.counted, c.before = true, r.latest
	if r.latest == nil {
		r.oldest = c
	} else {
		r.latest.after = c
	}
	r.latest = c
	r.taken += c.bytes
	r.held[c.peer] += c.bytes
	return true
}

// fits says whether there is room. The caller holds r.mu.
func (r *replies) fits(c *unsentCount) bool {
	held := r.held[c.peer]
	return r.taken+c.bytes <= r.most && held+c.bytes <= (r.most-r.taken+held)/2
}

// forget counts the replies of a connection that was closed no more: gRPC does not
// give them back. The caller holds r.mu.
func (r *replies) forget(conn net.Addr) {
	for c := r.oldest; c != nil; c = c.after {
		if c.conn == conn {
			r.remove(c)
		}
	}
}

func (r *replies) release(c *unsentCount) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.counted {
		r.remove(c)
	}
}

// remove counts a reply no more. The caller holds r.mu.
func (r *replies) remove(c *unsentCount) {
	c.counted = false
	r.taken -= c.bytes
	if r.held[c.peer] -= c.bytes; r.held[c.peer] == 0 {
		delete(r.held, c.peer)
	}
	if c.before == nil {
		r.oldest = c.after
	} else {
		c.before.after = c.after
	}
	if c.after == nil {
		r.latest = c.before
	} else {
		c.after.before = c.before
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
	peer    string
	bytes   int64
	since   time.Time

	counted       bool
	before, after *unsentCount // In the order of time.
}

func (c *unsentCount) release() { c.replies.release(c) }

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
	return a.encode(ctx, resp.(proto.Message))
}

// encode encodes a message that is to be sent, if there is room for it.
func (a *admission) encode(ctx context.Context, m proto.Message) (any, error) {
	size := proto.Size(m)
	encode := proto.MarshalOptions{UseCachedSize: true} // Which proto.Size has just computed.
	if mem.IsBelowBufferPoolingThreshold(size) {
		b, err := encode.Marshal(m)
		return newEncodedReply(mem.SliceBuffer(b)), err
	}
	count := &unsentCount{replies: a.replies, bytes: int64(size), since: time.Now()}
	if p, ok := peer.FromContext(ctx); ok {
		count.conn, count.peer = p.Addr, shareOf(p.Addr)
	}
	if !a.replies.take(count) {
		a.others.WithLabelValues("REPLIES").Inc()
		return nil, experiment.Errorf(experiment.ErrExhausted, "TOO_MANY_REPLIES",
			"the call was carried out, but the answers that their callers have not read leave no room for its own of %d bytes; read them, and ask again later", size)
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
