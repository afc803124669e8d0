package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// rawClient speaks HTTP/2 as no library would.
type rawClient struct {
	conn   net.Conn
	mu     sync.Mutex // Of writing.
	f      *http2.Framer
	window chan http2.WindowUpdateFrame // Closed when the server closes the connection.
	left   map[uint32]int               // Of windows; that of the connection under 0.
	sent   int
}

func newRawClient(t *testing.T, address string, settings ...http2.Setting) *rawClient {
	t.Helper()
	conn, err := dial(t.Context(), "127.0.0.1", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, clientPreface); err != nil {
		t.Fatal(err)
	}
	r := &rawClient{conn: conn, f: http2.NewFramer(conn, conn), window: make(chan http2.WindowUpdateFrame, 10_000), left: map[uint32]int{0: 65_535}}
	r.f.WriteSettings(settings...)
	go func() {
		defer close(r.window)
		for {
			frame, err := r.f.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.WindowUpdateFrame:
				r.window <- *frame
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					r.mu.Lock()
					r.f.WriteSettingsAck()
					r.mu.Unlock()
				}
			}
		}
	}()
	return r
}

// begin begins the i-th call, of a method of health.
func (r *rawClient) begin(i int, method string) (id uint32) {
	var head bytes.Buffer
	h := hpack.NewEncoder(&head)
	for _, field := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/grpc.health.v1.Health/" + method},
		{":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		h.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	id = uint32(2*i + 1)
	r.left[id] = 65_535 // The server's setting of more may still be on its way.
	r.mu.Lock()
	defer r.mu.Unlock()
	r.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndHeaders: true})
	return id
}

// send sends a part of a message once the windows allow it, and says whether the
// connection goes on.
func (r *rawClient) send(id uint32, part []byte, end bool) bool {
	for r.left[0] < len(part) || r.left[id] < len(part) {
		more, open := <-r.window
		if !open {
			return false
		}
		r.left[more.StreamID] += int(more.Increment)
	}
	r.left[0] -= len(part)
	r.left[id] -= len(part)
	r.sent += len(part)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.f.WriteData(id, end, part) == nil
}

// ends says whether the server closes the connection.
func (r *rawClient) ends() bool {
	for {
		select {
		case _, open := <-r.window:
			if !open {
				return true
			}
		case <-time.After(10 * time.Second):
			return false
		}
	}
}

// stalled begins calls on one connection whose messages it never completes, of
// which it sends so many bytes each, until the server closes the connection. It
// returns how many bytes it sent in all.
func stalled(t *testing.T, address string, calls, size int) (sent int, closed bool) {
	t.Helper()
	r := newRawClient(t, address)
	for i := range calls {
		id := r.begin(i, "Check")
		open := r.send(id, binary.BigEndian.AppendUint32([]byte{0}, 4<<20-100), false)
		for n := 0; n < size && open; n += 16 << 10 {
			open = r.send(id, make([]byte, 16<<10), false)
		}
		if !open {
			return r.sent, true
		}
	}
	return r.sent, r.ends()
}

// TestUnfinishedMessages has one connection begin messages and complete none. It
// is closed before it has sent more than all may have; other clients go on.
func TestUnfinishedMessages(t *testing.T) {
	const most = 8 << 20
	b := serveBounded(t, ListenerConfig{Most: 16, uploadBytes: most})
	client := b.client(t, "127.0.0.2")
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	calls := 0
	others.Go(func() {
		// A name of 1 MB, which has no such service.
		req := &grpc_health_v1.HealthCheckRequest{Service: strings.Repeat("x", 1<<20)}
		for ctx.Err() == nil {
			if _, err := client.Check(t.Context(), req); err == nil || !strings.Contains(err.Error(), "unknown service") {
				t.Errorf("another client's call: %v", err)
				return
			}
			calls++
		}
	})
	for range 3 {
		// One stream's window opens by its message, so that each can send as much.
		sent, closed := stalled(t, b.address, 100, 3<<20)
		if !closed || sent > 2*most {
			t.Errorf("a connection sent %d bytes of messages that it did not complete, closed: %v", sent, closed)
		}
	}
	cancel()
	others.Wait()
	if calls == 0 {
		t.Error("the other client made no call")
	}
	if n := testutil.ToFloat64(b.uploads.ended); n != 3 {
		t.Errorf("%v connections are counted as ended", n)
	}
	if n := b.lines.count("a connection was closed"); n != 1 {
		t.Errorf("%d lines tell of it", n)
	}
	if n := b.uploads.taken.Load(); n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
}

// TestUnreadMessages has one connection send complete messages on streams from which
// the server does not read. It is closed before it has sent more than all may have.
func TestUnreadMessages(t *testing.T) {
	const most = 4 << 20
	b := serveBounded(t, ListenerConfig{Most: 16, uploadBytes: most})
	r := newRawClient(t, b.address)
	open := true
	for i := 0; i < 200 && open; i++ {
		id := r.begin(i, "Wait")
		for n := 0; n < 3 && open; n++ {
			open = r.send(id, make([]byte, 16<<10), false)
		}
	}
	if open && !r.ends() || r.sent > 2*most {
		t.Errorf("a connection sent %d bytes of messages that were not read", r.sent)
	}
}

// TestStreamsLeftOpen has connections that give their replies no window leave streams open.
// Some are closed for it, though what they sent was read.
func TestStreamsLeftOpen(t *testing.T) {
	b := serveBounded(t, ListenerConfig{Most: 64, BehindProxy: true, uploadBytes: 4 << 20})
	for range 20 {
		r := newRawClient(t, b.address, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		for i := range 90 {
			r.send(r.begin(i, "Check"), make([]byte, 5), true)
		}
	}
	for testutil.ToFloat64(b.uploads.ended) == 0 {
		time.Sleep(time.Millisecond)
	}
	if held := b.uploads.taken.Load(); held > 5<<20 {
		t.Errorf("the connections that are left hold %d bytes", held)
	}
}

// TestUploadsEndOne has a connection send more while another is being closed for
// what all hold: what that one held is free at once, and nothing else is closed.
func TestUploadsEndOne(t *testing.T) {
	u := newUploads(10, false, slog.New(slog.DiscardHandler), nil)
	var closed []string
	follow := func(peer string) *uploadingConn {
		return u.follow(&playedConn{}, peer, func() { closed = append(closed, peer) }).(*uploadingConn)
	}
	greedy, other := follow("greedy"), follow("other")
	send := func(c *uploadingConn, n int64) { c.follow(func([]byte) { c.held += n }, nil) }
	ended := 0
	u.ended = callingCounter{inc: func() {
		if ended++; ended == 1 {
			send(other, 3)
		}
	}}
	send(other, 5)
	send(greedy, 6)
	if ended != 1 || !slices.Equal(closed, []string{"greedy"}) {
		t.Errorf("%d connections are counted as ended, and closed are those of %q", ended, closed)
	}
	if n := u.taken.Load(); n != 8 {
		t.Errorf("%d bytes are counted of the connection that goes on", n)
	}
}

// callingCounter calls a function instead of counting.
type callingCounter struct {
	prometheus.Counter
	inc func()
}

func (c callingCounter) Inc() { c.inc() }

// TestUploadsEnd makes calls of all sizes, and breaks many off: on a connection
// that goes on nothing is left.
func TestUploadsEnd(t *testing.T) {
	b := serveBounded(t, ListenerConfig{Most: 16})
	client := b.client(t, "127.0.0.1")
	var callers sync.WaitGroup
	for i := range 16 {
		r := rand.New(rand.NewPCG(uint64(i), 1))
		callers.Go(func() {
			for range 100 {
				ctx, cancel := context.WithCancel(t.Context())
				if r.IntN(2) == 0 {
					time.AfterFunc(time.Duration(r.IntN(2000))*time.Microsecond, cancel)
				}
				client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: strings.Repeat("x", 1<<r.IntN(22))})
				cancel()
			}
		})
	}
	callers.Wait()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		b.uploads.mu.Lock()
		taken, conns := b.uploads.taken.Load(), len(b.uploads.conns)
		b.uploads.mu.Unlock()
		if taken == 0 && conns == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are counted of %d connections", taken, conns)
		}
	}
}

// play is a connection whose bytes the test plays.
type playedConn struct {
	net.Conn
	in io.Reader
}

func (c *playedConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *playedConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *playedConn) Close() error                { return nil }
func (c *playedConn) RemoteAddr() net.Addr        { return &net.TCPAddr{} }

// TestUploadsFollow cuts frames at random places, pads them, and compares what is
// counted with what was sent.
func TestUploadsFollow(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		u := newUploads(1<<40, false, nil, nil)
		in := &bytes.Buffer{}
		c := u.follow(&playedConn{in: in}, "a", func() {}).(*uploadingConn)
		in.WriteString(clientPreface)
		out := &bytes.Buffer{}
		f, back := http2.NewFramer(in, nil), http2.NewFramer(out, nil)
		f.AllowIllegalWrites = true
		streams := map[uint32]*playedStream{}
		next := uint32(0)
		for range 100 {
			id := 2*uint32(r.IntN(int(next)+1)) + 1
			s := streams[id]
			switch r.IntN(9) {
			case 0, 1:
				id = 2*next + 1
				next++
				s = &playedStream{headers: r.IntN(600)}
				block := make([]byte, s.headers)
				first := r.IntN(s.headers + 1)
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:first], EndHeaders: first == len(block)})
				if first < len(block) {
					f.WriteContinuation(id, true, block[first:])
				}
				for range r.IntN(4) {
					n := r.IntN(2) * r.IntN(20_000)
					s.text = append(s.text, 0)
					s.text = binary.BigEndian.AppendUint32(s.text, uint32(n))
					s.text = append(s.text, make([]byte, n)...)
				}
				streams[id] = s
			case 2:
				f.WriteRSTStream(id, http2.ErrCodeCancel)
				delete(streams, id)
			case 3:
				f.WritePing(false, [8]byte{})
				if s == nil && id < 2*next { // It has ended.
					f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: make([]byte, 7), EndHeaders: true, EndStream: true})
				}
			case 4:
				flush(c, in, r)
				back.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: make([]byte, 10), EndHeaders: true, EndStream: r.IntN(2) == 0})
				if out.Bytes()[4]&flagEndStream != 0 {
					delete(streams, id)
				}
			case 5:
				back.WriteWindowUpdate(0, 1+r.Uint32N(1<<20))
				n := 1 + r.Uint32N(30_000)
				back.WriteWindowUpdate(id, n)
				if s != nil {
					s.opened += int(n)
				}
			default:
				if s == nil { // It has ended, or never was.
					f.WriteData(id, false, make([]byte, r.IntN(100)))
					break
				}
				n := r.IntN(len(s.text) - s.sent + 1)
				before := in.Len()
				f.WriteDataPadded(id, r.IntN(9) == 0, s.text[s.sent:s.sent+n], make([]byte, r.IntN(2)*r.IntN(200)))
				s.came += in.Len() - before - 9
				s.send(n)
			}
			flush(c, in, r)
			for out.Len() > 0 {
				c.Write(out.Next(1 + r.IntN(12)))
			}
			want := int64(0)
			for _, s := range streams {
				want += int64(streamBytes + min(16<<10, 32*s.headers) + max(s.incomplete()+frameBytes*s.frames, s.came-s.opened))
			}
			if c.held != want || u.taken.Load() != want {
				t.Fatalf("%d bytes are counted, and in all %d; %d were sent", c.held, u.taken.Load(), want)
			}
		}
		c.Close()
		if u.taken.Load() != 0 {
			t.Fatal("something is counted of a connection that is closed")
		}
	}
}

// playedStream is a stream's messages, and what was sent of them.
type playedStream struct {
	text    []byte
	sent    int // Bytes of it.
	frames  int // Since a message was complete.
	headers int
	came    int // Bytes with their padding.
	opened  int
}

// send sends a frame of n bytes of text.
func (s *playedStream) send(n int) {
	before := s.complete()
	s.sent += n
	s.frames++
	if s.complete() > before {
		s.frames = 0
	}
}

// complete is how many bytes were sent of messages that are complete.
func (s *playedStream) complete() (n int) {
	for n+5 <= s.sent {
		length := 5 + int(binary.BigEndian.Uint32(s.text[n+1:]))
		if n+length > s.sent {
			break
		}
		n += length
	}
	return n
}

// incomplete is how many bytes were sent of a message that is not complete.
func (s *playedStream) incomplete() int { return max(0, s.sent-s.complete()-5) }

// flush has the connection read all that is there.
func flush(c *uploadingConn, in *bytes.Buffer, r *rand.Rand) {
	for in.Len() > 0 {
		if _, err := c.Read(make([]byte, 1+r.IntN(1+r.IntN(30_000)))); errors.Is(err, io.EOF) {
			return
		}
	}
}
