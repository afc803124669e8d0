package server

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxUploadBytes bounds what all connections have sent that was not read: 32 of
	// the largest messages, or a window of each stream that records. gRPC's windows
	// do not bound it: once the length of a message is known, its stream's window
	// opens for all of it, and the window of the connection does not wait for what
	// is read. So one connection of 250 streams could hold 250 times 4 MiB.
	maxUploadBytes = 128 << 20
	// streamBytes is counted for a stream that is open, beside what it was sent. One
	// was seen to take 6 KB.
	streamBytes = 6 << 10
	// headerFactor is how many times as much as on the wire the headers of a stream
	// may take: a byte of HPACK may stand for a field, which takes 32 and more.
	headerFactor = 32
	// frameBytes is counted for each frame of a message that is not complete: gRPC
	// keeps them apart until it is.
	frameBytes = 24
)

// uploads follows what connections send. When it becomes too much, the one
// connection is closed that has sent the most that was not read, of the peer that
// has sent the most: others hardly notice.
//
// A stream counts until it ends, with the bytes of its message that is not complete,
// or those for which the server has not given back its window, whichever are more.
// It gives the window back in quarters, so that up to 64 KiB count longer than they
// are kept.
//
// It reads the frames of HTTP/2, of which it knows no more than where messages
// begin and end (RFC 9113, section 4.1; gRPC over HTTP2, "Length-Prefixed-Message").
// What it does not understand it does not count, and gRPC refuses.
type uploads struct {
	most    int64
	proxied bool
	log     *slog.Logger
	ended   prometheus.Counter
	unread  prometheus.Counter // Those that were ended for what they did not read.
	taken   atomic.Int64

	mu    sync.Mutex // To be locked before that of a connection.
	conns map[*uploadingConn]bool
}

func newUploads(most int64, proxied bool, log *slog.Logger, ended prometheus.Counter) *uploads {
	return &uploads{most: most, proxied: proxied, log: log, ended: ended, conns: map[*uploadingConn]bool{}}
}

// follow returns a connection that counts what comes in. It calls closed once,
// when the connection is closed.
func (u *uploads) follow(conn net.Conn, peer string, closed func()) net.Conn {
	c := &uploadingConn{Conn: conn, uploads: u, peer: peer, preface: len(clientPreface), streams: map[uint32]upload{}}
	c.addr = &followedAddr{conn.RemoteAddr(), c, peer}
	if u.proxied {
		c.addr.share = conn.RemoteAddr().String()
	}
	c.close = sync.OnceValue(func() error {
		u.forget(c)
		closed()
		return conn.Close()
	})
	u.mu.Lock()
	defer u.mu.Unlock()
	u.conns[c] = true
	return c
}

func (u *uploads) forget(c *uploadingConn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.remove(c)
}

// remove counts a connection no more. The caller holds u.mu.
func (u *uploads) remove(c *uploadingConn) {
	if u.conns[c] {
		delete(u.conns, c)
		u.taken.Add(-c.leave())
	}
}

// bound closes connections if all hold too much.
func (u *uploads) bound() {
	if u.taken.Load() <= u.most {
		return
	}
	for _, greedy := range u.tooMuch() {
		u.ended.Inc()
		u.log.Warn("a connection was closed that had sent the most that was not read", "peer", greedy.peer)
		greedy.close()
	}
}

// tooMuch returns the connections to close. They are no longer counted, so that
// nobody who comes in between finds too much, and closes another.
func (u *uploads) tooMuch() (greedy []*uploadingConn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for u.taken.Load() > u.most && len(u.conns) > 0 {
		worst := u.greediest()
		u.remove(worst)
		greedy = append(greedy, worst)
	}
	return greedy
}

// greediest returns the connection to close. The caller holds u.mu.
func (u *uploads) greediest() (worst *uploadingConn) {
	peers, most := map[string]int64{}, int64(0)
	if !u.proxied {
		for c := range u.conns {
			peers[c.peer] += c.holds()
		}
	}
	for c := range u.conns {
		held := c.holds()
		if worst == nil || peers[c.peer] > peers[worst.peer] || peers[c.peer] == peers[worst.peer] && held > most {
			worst, most = c, held
		}
	}
	return worst
}

// clientPreface is what a client begins with.
const clientPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Frames of HTTP/2, and their flags.
const (
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameWindow       = 8
	frameContinuation = 9

	flagEndStream = 1
	flagPadded    = 8
)

// uploadingConn is a connection that is followed.
type uploadingConn struct {
	net.Conn
	uploads *uploads
	peer    string
	addr    *followedAddr
	close   func() error

	mu      sync.Mutex
	preface int // Bytes of it that are to come.
	in, out frame
	window  uint32 // By how much the frame that goes out opens one.
	last    uint32 // The latest stream.
	streams map[uint32]upload
	held    int64
	left    bool // It is no longer counted.
}

// upload is where a stream stands.
type upload struct {
	head   [5]byte // Of a message: whether it is compressed, and its length.
	got    int     // Bytes of head.
	left   int64   // Bytes of the message that are to come.
	inside int64   // Bytes of the message that came, and what its frames take.

	headers int64 // Bytes of headers.
	unread  int64 // Bytes that came less those that the server has opened the window by: for a long message it does so before they come.
	counted int64 // Of all that.
}

func (c *uploadingConn) Close() error { return c.close() }

// followedAddr is where a connection comes from, and leads to it: gRPC tells its
// handlers no more of it.
type followedAddr struct {
	net.Addr
	conn  *uploadingConn
	share string // Whose share it has part in: its peer's, or behind a proxy its own.
}

func (c *uploadingConn) RemoteAddr() net.Addr { return c.addr }

// shareOf names whose share of the server an address has part in.
func shareOf(addr net.Addr) string {
	if a, ok := addr.(*followedAddr); ok {
		return a.share
	}
	return addr.String()
}

// endForReplies closes a connection, unless it is closed, that does not read its
// replies.
func (c *uploadingConn) endForReplies() {
	u := c.uploads
	u.mu.Lock()
	open := u.conns[c]
	u.remove(c)
	u.mu.Unlock()
	if open {
		u.unread.Inc()
		u.log.Warn("a connection was closed that had left a reply unread for too long, of which others needed the room", "peer", c.peer)
		c.close()
	}
}

func (c *uploadingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.follow(c.receive, p[:n])
	return n, err
}

func (c *uploadingConn) Write(p []byte) (int, error) {
	c.follow(c.send, p)
	return c.Conn.Write(p)
}

// follow follows what goes in one direction.
func (c *uploadingConn) follow(direction func([]byte), p []byte) {
	c.mu.Lock()
	was := c.held
	direction(p)
	if !c.left {
		c.uploads.taken.Add(c.held - was)
	}
	c.mu.Unlock()
	c.uploads.bound()
}

func (c *uploadingConn) holds() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
}

// leave returns what is counted of it, and from now on is not.
func (c *uploadingConn) leave() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = true
	return c.held
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
	id, kind := c.in.stream(), c.in.kind()
	s, known := c.streams[id]
	switch {
	case kind == frameReset:
		c.drop(id)
		return
	case kind == frameHeaders && id > c.last: // Others are of streams that have ended.
		c.last, known = id, true
		s.headers = int64(c.in.length)
	case kind == frameHeaders || kind == frameContinuation:
		s.headers += int64(c.in.length)
	case kind == frameData:
		s.unread += int64(c.in.length)
		s.inside += frameBytes
	}
	if known {
		c.count(id, s)
	}
}

// data sees a part of a frame of data.
func (c *uploadingConn) data(p []byte) {
	id := c.in.stream()
	s, known := c.streams[id]
	if !known {
		return
	}
	for p = c.in.unpadded(p); len(p) > 0; {
		if s.left == 0 {
			n := copy(s.head[s.got:], p)
			s.got += n
			p = p[n:]
			if s.got == len(s.head) {
				s.got = 0
				s.left = int64(s.head[1])<<24 | int64(s.head[2])<<16 | int64(s.head[3])<<8 | int64(s.head[4])
				if s.left == 0 {
					s.inside = 0
				}
			}
			continue
		}
		n := min(s.left, int64(len(p)))
		s.left -= n
		s.inside += n
		p = p[n:]
		if s.left == 0 {
			s.inside = 0
		}
	}
	c.count(id, s)
}

// count counts what a stream holds now.
func (c *uploadingConn) count(id uint32, s upload) {
	now := streamBytes + min(maxHeaderListBytes, headerFactor*s.headers) + max(s.inside, s.unread)
	c.held += now - s.counted
	s.counted = now
	c.streams[id] = s
}

func (c *uploadingConn) drop(id uint32) {
	c.held -= c.streams[id].counted
	delete(c.streams, id)
}

// send follows what goes out: whatever ends a stream, or says that it was read.
func (c *uploadingConn) send(p []byte) {
	for len(p) > 0 {
		if c.out.left > 0 {
			var part []byte
			if part, p = c.out.take(p); c.out.kind() == frameWindow {
				c.opened(part)
			}
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

// opened sees a part of a frame that opens a window.
func (c *uploadingConn) opened(part []byte) {
	for _, b := range part {
		c.window = c.window<<8 | uint32(b)
	}
	id := c.out.stream()
	if s, known := c.streams[id]; known && c.out.left == 0 {
		s.unread -= int64(c.window)
		c.count(id, s)
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
