package server

import (
	"log/slog"
	"net"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxUploadBytes bounds what all connections have sent of messages that are
	// not complete: 32 of the largest. gRPC's windows do not bound it: once the
	// length of a message is known, its stream's window opens for all of it, and
	// the window of the connection does not wait for what is read. So one
	// connection of 250 streams could hold 250 times 4 MiB.
	maxUploadBytes = 128 << 20
	// uploadBytes is counted for a stream of which more may come, beside its
	// message: about what gRPC keeps for it.
	uploadBytes = 16 << 10
)

// uploads follows what connections send. When it becomes too much, the one
// connection is closed that has sent the most of incomplete messages, of the peer
// that has sent the most: others hardly notice.
//
// It reads the frames of HTTP/2, of which it knows no more than where messages
// begin and end (RFC 9113, section 4.1; gRPC over HTTP2, "Length-Prefixed-Message").
// What it does not understand it does not count, and gRPC refuses.
type uploads struct {
	most    int64
	proxied bool
	log     *slog.Logger
	ended   prometheus.Counter

	mu    sync.Mutex
	taken int64
	conns map[*uploadingConn]int64
}

func newUploads(most int64, proxied bool, log *slog.Logger, ended prometheus.Counter) *uploads {
	return &uploads{most: most, proxied: proxied, log: log, ended: ended, conns: map[*uploadingConn]int64{}}
}

// follow returns a connection that counts what comes in. It calls closed once,
// when the connection is closed.
func (u *uploads) follow(conn net.Conn, peer string, closed func()) net.Conn {
	c := &uploadingConn{Conn: conn, uploads: u, peer: peer, preface: len(clientPreface), streams: map[uint32]upload{}}
	c.close = sync.OnceValue(func() error {
		u.forget(c)
		closed()
		return conn.Close()
	})
	u.mu.Lock()
	defer u.mu.Unlock()
	u.conns[c] = 0
	return c
}

func (u *uploads) forget(c *uploadingConn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.remove(c)
}

// remove gives back what is counted of a connection. The caller holds u.mu.
func (u *uploads) remove(c *uploadingConn) {
	u.taken -= u.conns[c]
	delete(u.conns, c)
}

// add counts what a connection holds more than before, and closes connections
// while all hold too much.
func (u *uploads) add(c *uploadingConn, n int64) {
	if n == 0 {
		return
	}
	for _, greedy := range u.count(c, n) {
		u.ended.Inc()
		u.log.Warn("a connection was closed that had sent the most of messages that were not complete", "peer", greedy.peer)
		greedy.close()
	}
}

// count counts it, and returns the connections to close. They are no longer
// counted, so that nobody who comes in between finds too much, and closes another.
func (u *uploads) count(c *uploadingConn, n int64) (greedy []*uploadingConn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	held, open := u.conns[c]
	if !open {
		return nil
	}
	u.conns[c] = held + n
	u.taken += n
	for u.taken > u.most {
		worst := u.greediest()
		u.remove(worst)
		greedy = append(greedy, worst)
	}
	return greedy
}

// greediest returns the connection to close. The caller holds u.mu.
func (u *uploads) greediest() *uploadingConn {
	peers := map[string]int64{}
	for c, held := range u.conns {
		peers[c.peer] += held
	}
	var worst *uploadingConn
	for c, held := range u.conns {
		switch {
		case worst == nil:
			worst = c
		case !u.proxied && peers[c.peer] != peers[worst.peer]:
			if peers[c.peer] > peers[worst.peer] {
				worst = c
			}
		case held > u.conns[worst]:
			worst = c
		}
	}
	return worst
}

// clientPreface is what a client begins with.
const clientPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Frames of HTTP/2, and their flags.
const (
	frameData    = 0
	frameHeaders = 1
	frameReset   = 3

	flagEndStream = 1
	flagPadded    = 8
)

// uploadingConn is a connection that is followed.
type uploadingConn struct {
	net.Conn
	uploads *uploads
	peer    string
	close   func() error

	mu      sync.Mutex
	preface int // Bytes of it that are to come.
	in, out frame
	streams map[uint32]upload // Those of which more may come.
	held    int64
}

// upload is where a stream stands.
type upload struct {
	head   [5]byte // Of a message: whether it is compressed, and its length.
	got    int     // Bytes of head.
	left   int64   // Bytes of the message that are to come.
	inside int64   // Bytes of the message that came.
}

func (c *uploadingConn) Close() error { return c.close() }

func (c *uploadingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	was := c.held
	c.receive(p[:n])
	grown := c.held - was
	c.mu.Unlock()
	c.uploads.add(c, grown)
	return n, err
}

func (c *uploadingConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	was := c.held
	c.send(p)
	grown := c.held - was
	c.mu.Unlock()
	c.uploads.add(c, grown)
	return c.Conn.Write(p)
}

// receive follows what comes in.
func (c *uploadingConn) receive(p []byte) {
	skipped := min(c.preface, len(p))
	c.preface -= skipped
	for p = p[skipped:]; len(p) > 0; {
		if c.in.left == 0 {
			var begun bool
			if p, begun = c.in.begin(p); begun {
				c.began()
			}
			continue
		}
		var part []byte
		part, p = c.in.take(p)
		if c.in.kind() == frameData {
			c.data(part)
		}
	}
}

// began sees a frame begin that came in.
func (c *uploadingConn) began() {
	id := c.in.stream()
	switch kind := c.in.kind(); {
	case kind == frameReset, (kind == frameData || kind == frameHeaders) && c.in.flag(flagEndStream):
		c.drop(id) // The message is complete, or never will be.
	case kind == frameHeaders:
		if _, known := c.streams[id]; !known {
			c.streams[id] = upload{}
			c.held += uploadBytes
		}
	}
}

// data sees a part of a frame of data.
func (c *uploadingConn) data(p []byte) {
	u, known := c.streams[c.in.stream()]
	if !known {
		return
	}
	for p = c.in.unpadded(p); len(p) > 0; {
		if u.left == 0 {
			n := copy(u.head[u.got:], p)
			u.got += n
			p = p[n:]
			if u.got == len(u.head) {
				u.got = 0
				u.left = int64(u.head[1])<<24 | int64(u.head[2])<<16 | int64(u.head[3])<<8 | int64(u.head[4])
			}
			continue
		}
		n := min(u.left, int64(len(p)))
		u.left -= n
		u.inside += n
		c.held += n
		p = p[n:]
		if u.left == 0 {
			c.held -= u.inside
			u.inside = 0
		}
	}
	c.streams[c.in.stream()] = u
}

// send follows what goes out: whatever ends a stream.
func (c *uploadingConn) send(p []byte) {
	for len(p) > 0 {
		if c.out.left > 0 {
			_, p = c.out.take(p)
			continue
		}
		var begun bool
		if p, begun = c.out.begin(p); !begun {
			continue
		}
		if kind := c.out.kind(); kind == frameReset || kind == frameHeaders && c.out.flag(flagEndStream) {
			c.drop(c.out.stream())
		}
	}
}

func (c *uploadingConn) drop(id uint32) {
	if u, known := c.streams[id]; known {
		c.held -= u.inside + uploadBytes
		delete(c.streams, id)
	}
}

// frame is where one direction of a connection stands: in the head of a frame,
// or in what follows it.
type frame struct {
	head [9]byte
	got  int // Bytes of head.
	left int // Bytes of the rest that are to come.

	length  int // Of the rest.
	padding int // At its end.
}

// begin takes bytes of a head, and says whether it is whole.
func (f *frame) begin(p []byte) (rest []byte, begun bool) {
	n := copy(f.head[f.got:], p)
	if f.got += n; f.got < len(f.head) {
		return p[n:], false
	}
	f.got, f.padding = 0, 0
	f.length = int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
	f.left = f.length
	return p[n:], true
}

// take takes a part of what follows the head.
func (f *frame) take(p []byte) (part, rest []byte) {
	n := min(f.left, len(p))
	f.left -= n
	return p[:n], p[n:]
}

// unpadded returns what of the part that take has just taken is data.
func (f *frame) unpadded(part []byte) []byte {
	if !f.flag(flagPadded) {
		return part
	}
	if f.left+len(part) == f.length {
		f.padding = int(part[0])
		part = part[1:]
	}
	return part[:max(0, min(len(part), len(part)+f.left-f.padding))]
}

func (f *frame) kind() byte          { return f.head[3] }
func (f *frame) flag(flag byte) bool { return f.head[4]&flag != 0 }
func (f *frame) stream() uint32 {
	return uint32(f.head[5]&0x7f)<<24 | uint32(f.head[6])<<16 | uint32(f.head[7])<<8 | uint32(f.head[8])
}
