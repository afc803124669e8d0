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

// stalled begins calls on one connection whose messages it never completes, of
// which it sends so many bytes each, until the server closes the connection. It
// returns how many bytes it sent in all.
func stalled(t *testing.T, address string, calls, size int) (sent int, closed bool) {
	t.Helper()
	conn, err := dial(t.Context(), "127.0.0.1", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, clientPreface); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // Of writing.
	f := http2.NewFramer(conn, conn)
	f.WriteSettings()
	window := make(chan *http2.WindowUpdateFrame, 10_000)
	go func() {
		defer close(window)
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.WindowUpdateFrame:
				update := *frame
				window <- &update
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					mu.Lock()
					f.WriteSettingsAck()
					mu.Unlock()
				}
			}
		}
	}()
	part, left := make([]byte, 16<<10), map[uint32]int{0: 65_535}
	for i := range calls {
		var head bytes.Buffer
		h := hpack.NewEncoder(&head)
		for _, field := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/grpc.health.v1.Health/Check"},
			{":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
			h.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
		}
		id := uint32(2*i + 1)
		left[id] = 65_535 // The server's setting of more may still be on its way.
		mu.Lock()
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndHeaders: true})
		err := f.WriteData(id, false, binary.BigEndian.AppendUint32([]byte{0}, 4<<20-100))
		mu.Unlock()
		for n := 0; n < size && err == nil; n += len(part) {
			for left[0] < len(part) || left[id] < len(part) {
				more, open := <-window
				if !open {
					return sent, true
				}
				left[more.StreamID] += int(more.Increment)
			}
			left[0] -= len(part)
			left[id] -= len(part)
			mu.Lock()
			err = f.WriteData(id, false, part)
			mu.Unlock()
			sent += len(part)
		}
		if err != nil {
			return sent, true
		}
	}
	for range window { // Until the server closes the connection, or the deadline below.
		conn.SetDeadline(time.Now().Add(time.Second))
	}
	return sent, false
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
	b.uploads.mu.Lock()
	defer b.uploads.mu.Unlock()
	if b.uploads.taken != 0 {
		t.Errorf("%d bytes are still counted", b.uploads.taken)
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
	ended := 0
	u.ended = callingCounter{inc: func() {
		if ended++; ended == 1 {
			u.add(other, 3)
		}
	}}
	u.add(other, 5)
	u.add(greedy, 6)
	if ended != 1 || !slices.Equal(closed, []string{"greedy"}) {
		t.Errorf("%d connections are counted as ended, and closed are those of %q", ended, closed)
	}
	if u.taken != 8 {
		t.Errorf("%d bytes are counted of the connection that goes on", u.taken)
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
		taken, conns := b.uploads.taken, len(b.uploads.conns)
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
		next := uint32(1)
		for range 100 {
			id := 2*uint32(r.IntN(int(next))) + 1
			switch r.IntN(8) {
			case 0, 1:
				id = 2*next + 1
				next++
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: make([]byte, r.IntN(50)), EndHeaders: true})
				var text []byte
				for range r.IntN(4) {
					n := r.IntN(20_000)
					text = append(text, 0)
					text = binary.BigEndian.AppendUint32(text, uint32(n))
					text = append(text, make([]byte, n)...)
				}
				streams[id] = &playedStream{text: text}
			case 2:
				f.WriteRSTStream(id, http2.ErrCodeCancel)
				delete(streams, id)
			case 3:
				f.WritePing(false, [8]byte{})
				f.WriteData(id, true, make([]byte, r.IntN(10)))
				delete(streams, id)
			case 4:
				back.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: make([]byte, 10), EndHeaders: true, EndStream: r.IntN(2) == 0})
				if out.Bytes()[4]&flagEndStream != 0 {
					flush(c, in, r)
					delete(streams, id)
				}
			default:
				s := streams[id]
				if s == nil { // It has ended, or never was.
					f.WriteData(id, false, make([]byte, r.IntN(100)))
					break
				}
				n := r.IntN(len(s.text) - s.sent + 1)
				f.WriteDataPadded(id, false, s.text[s.sent:s.sent+n], make([]byte, r.IntN(2)*r.IntN(200)))
				s.sent += n
			}
			flush(c, in, r)
			for out.Len() > 0 {
				c.Write(out.Next(1 + r.IntN(12)))
			}
			want := int64(0)
			for _, s := range streams {
				want += uploadBytes + s.incomplete()
			}
			if c.held != want || u.taken != want {
				t.Fatalf("%d bytes are counted, and in all %d; %d were sent", c.held, u.taken, want)
			}
		}
		c.Close()
		if u.taken != 0 {
			t.Fatal("something is counted of a connection that is closed")
		}
	}
}

// playedStream is a stream's messages, and how many of their bytes were sent.
type playedStream struct {
	text []byte
	sent int
}

// incomplete is how many bytes were sent of a message that is not complete.
func (s *playedStream) incomplete() int64 {
	for text, sent := s.text, s.sent; sent > 5; {
		n := 5 + int(binary.BigEndian.Uint32(text[1:]))
		if sent < n {
			return int64(sent - 5)
		}
		text, sent = text[n:], sent-n
	}
	return 0
}

// flush has the connection read all that is there.
func flush(c *uploadingConn, in *bytes.Buffer, r *rand.Rand) {
	for in.Len() > 0 {
		if _, err := c.Read(make([]byte, 1+r.IntN(1+r.IntN(30_000)))); errors.Is(err, io.EOF) {
			return
		}
	}
}
