package server

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// bounded is a server of health behind a bounded listener. Other calls do nothing,
// and end with their clients.
type bounded struct {
	*boundedListener
	address string
	lines   *logLines
}

type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logLines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

func serveBounded(t *testing.T, c ListenerConfig) *bounded {
	t.Helper()
	lines := &logLines{}
	c.Metrics, c.Log = prometheus.NewRegistry(), slog.New(slog.NewTextHandler(lines, nil))
	l, err := Listen("127.0.0.1:0", c)
	if err != nil {
		t.Fatal(err)
	}
	wait := func(_ any, stream grpc.ServerStream) error {
		<-stream.Context().Done()
		return nil
	}
	srv := grpc.NewServer(grpc.UnknownServiceHandler(wait), grpc.ConnectionTimeout(time.Minute), grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connectionWindow))
	grpc_health_v1.RegisterHealthServer(srv, health.NewServer())
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	return &bounded{l.(*boundedListener), l.Addr().String(), lines}
}

// dial connects from an address of this host.
func dial(ctx context.Context, from, to string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return d.DialContext(ctx, "tcp", to)
}

// client is a gRPC client at an address of this host.
func (b *bounded) client(t *testing.T, from string) grpc_health_v1.HealthClient {
	t.Helper()
	conn, err := grpc.NewClient(b.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return dial(ctx, from, addr) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return grpc_health_v1.NewHealthClient(conn)
}

// silent opens connections that never say a word, and returns those that the
// server has not closed.
func (b *bounded) silent(t *testing.T, n int, from string) (open []net.Conn) {
	t.Helper()
	refused := func() int {
		return int(testutil.ToFloat64(b.refused.WithLabelValues("PEER")) + testutil.ToFloat64(b.refused.WithLabelValues("TOTAL")))
	}
	before := refused()
	held := b.shares.count()
	for range n {
		c, err := dial(t.Context(), from, b.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		open = append(open, c)
	}
	for b.shares.count()-held+refused()-before < n {
		time.Sleep(time.Millisecond)
	}
	var left []net.Conn
	for _, c := range open {
		c.SetReadDeadline(time.Now().Add(2 * time.Second)) // The server sends its settings, or closes.
		if _, err := c.Read(make([]byte, 1)); err == io.EOF || err != nil && !err.(net.Error).Timeout() {
			continue
		}
		left = append(left, c)
	}
	return left
}

// TestSilentConnections has one peer take all that it may get, while another goes on.
func TestSilentConnections(t *testing.T) {
	b := serveBounded(t, ListenerConfig{Most: 16})
	check := func(from string) {
		t.Helper()
		if _, err := b.client(t, from).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Error(err)
		}
	}
	check("127.0.0.2")
	left := b.silent(t, 300, "127.0.0.1")
	if n := b.shares.of("127.0.0.1"); n != 7 { // Of the 15 that are left, and not more than remain.
		t.Errorf("one peer has %d connections", n)
	}
	check("127.0.0.2")
	check("127.0.0.3")
	if refused := testutil.ToFloat64(b.refused.WithLabelValues("PEER")); refused != 293 {
		t.Errorf("%v connections are counted as refused", refused)
	}
	if lines := b.lines.count("a connection was refused"); lines != 1 {
		t.Errorf("%d lines tell of 293 connections", lines)
	}
	for _, c := range left {
		c.Close()
	}
	for b.shares.of("127.0.0.1") > 0 {
		time.Sleep(time.Millisecond)
	}
	check("127.0.0.1")
}

// TestBehindProxy has all clients at one address.
func TestBehindProxy(t *testing.T) {
	b := serveBounded(t, ListenerConfig{Most: 16, BehindProxy: true})
	b.silent(t, 40, "127.0.0.1")
	if n := b.shares.count(); n != 16 {
		t.Errorf("%d connections are open", n)
	}
	if refused := testutil.ToFloat64(b.refused.WithLabelValues("TOTAL")); refused != 24 {
		t.Errorf("%v connections are counted as refused", refused)
	}
}

// TestDeafConnection has a client ask and not read, while it goes on to send. Its
// connection ends, though gRPC sees it alive.
func TestDeafConnection(t *testing.T) {
	b := serveBounded(t, ListenerConfig{Most: 16, unanswered: 500 * time.Millisecond})
	conn, err := dial(t.Context(), "127.0.0.1", b.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.(*net.TCPConn).SetReadBuffer(4096)
	var settings bytes.Buffer // Each is answered, until there is no room for answers.
	f := http2.NewFramer(&settings, nil)
	for range 1000 {
		f.WriteSettings()
	}
	for _, err = io.WriteString(conn, clientPreface); err == nil; {
		_, err = conn.Write(settings.Bytes())
	}
	for b.shares.count() > 0 {
		time.Sleep(time.Millisecond)
	}
}

// TestShares has greedy peers come one after another: each gets something, and
// none more than is left.
func TestShares(t *testing.T) {
	s := newShares(100, false)
	for _, tt := range []struct {
		peer string
		want int
	}{{"a", 50}, {"b", 25}, {"c", 12}, {"d", 6}, {"e", 3}, {"f", 2}, {"g", 1}, {"h", 1}, {"i", 0}} {
		got := 0
		for s.take(tt.peer) == "" {
			got++
		}
		if got != tt.want {
			t.Errorf("%s has %d, want %d", tt.peer, got, tt.want)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		peer := string(rune('a' + r.IntN(9)))
		if own := s.by[peer]; own > 0 && r.IntN(2) == 0 {
			s.release(peer)
		} else if s.take(peer) == "" && own > 0 && s.by[peer] > s.most-s.taken {
			t.Fatalf("%s has %d, and %d are free", peer, s.by[peer], s.most-s.taken)
		}
	}
	for peer, n := range s.by {
		for range n {
			s.release(peer)
		}
	}
	if s.taken != 0 || len(s.by) != 0 {
		t.Errorf("in the end %d are taken by %v", s.taken, s.by)
	}
}

func TestPeerOf(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7:1":              "192.0.2.7",
		"[::ffff:192.0.2.7]:2":     "192.0.2.7",
		"[2001:db8:0:1:2:3:4:5]:3": "2001:db8:0:1::/64",
		"[2001:db8:0:1:ffff::9]:4": "2001:db8:0:1::/64",
		"[fe80::1%lo]:5":           "fe80::/64",
		"[2001:db8:0:2:2:3:4:5]:3": "2001:db8:0:2::/64",
	} {
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := peerOf(tcp); got != want {
			t.Errorf("the peer of %s is %s, want %s", addr, got, want)
		}
	}
}

// of is how many connections a peer has.
func (s *shares) of(peer string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by[peer]
}
