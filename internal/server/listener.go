package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ListenerConfig is how many connections a listener takes.
type ListenerConfig struct {
	Most        int  // Connections at once.
	BehindProxy bool // Whether an address stands for many clients, so that it has no share of its own.
	Metrics     prometheus.Registerer
	Log         *slog.Logger

	uploadBytes int64         // For tests; 0 is maxUploadBytes.
	unanswered  time.Duration // For tests; 0 is unansweredTime.
}

// Listen listens at an address of TCP, and bounds the connections that there are and
// what they have sent that was not read. A connection that is too much is closed at
// once, rather than left to wait for a file descriptor that may never come, and
// no peer takes more than half of what the others leave free.
func Listen(address string, c ListenerConfig) (net.Listener, error) {
	if c.uploadBytes == 0 {
		c.uploadBytes = int64(maxUploadBytes * budgetScale(debug.SetMemoryLimit(-1)))
	}
	if c.unanswered == 0 {
		c.unanswered = unansweredTime
	}
	l, err := listenPatiently(address, c.unanswered)
	if err != nil {
		return nil, err
	}
	b := &boundedListener{
		Listener: l,
		shares:   newShares(c.Most, c.BehindProxy),
		log:      sampled(c.Log),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "assay_connections_refused_total",
			Help: "Connections that were closed at once, by reason: TOTAL if there were too many, PEER if their address had too many.",
		}, []string{"reason"}),
	}
	ended := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "assay_connections_ended_total",
		Help: "Connections that were closed for the memory that they held, by reason: SENT if they had sent the most that was not read, REPLIES if they did not read a reply.",
	}, []string{"reason"})
	b.uploads = newUploads(c.uploadBytes, c.BehindProxy, b.log, ended.WithLabelValues("SENT"))
	b.uploads.unread = ended.WithLabelValues("REPLIES")
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "assay_connections",
		Help: "Connections that are open.",
	}, func() float64 { return float64(b.shares.count()) })
	most := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "assay_connections_limit",
		Help: "Connections that may be open.",
	}, func() float64 { return float64(c.Most) })
	if err := errors.Join(c.Metrics.Register(b.refused), c.Metrics.Register(ended), c.Metrics.Register(open), c.Metrics.Register(most)); err != nil {
		l.Close()
		return nil, err
	}
	return b, nil
}

// tcpUserTimeout is TCP_USER_TIMEOUT of Linux. Other systems have none.
const tcpUserTimeout = 18

// listenPatiently listens at an address of TCP, whose connections the kernel ends if
// they leave what is sent to them unread, or do not acknowledge it, for so long.
// Otherwise a client that reads nothing and goes on to send is alive for ever. gRPC
// does so too, but only for connections that nobody has wrapped. Multipath TCP, which
// Go offers by default, has no such limit.
func listenPatiently(address string, patience time.Duration) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var set error // Connections have what their listener has (tcp(7), TCP_USER_TIMEOUT).
		err := raw.Control(func(fd uintptr) {
			if runtime.GOOS == "linux" {
				set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(patience.Milliseconds()))
			}
		})
		return errors.Join(err, set)
	}}
	config.SetMultipathTCP(false)
	return config.Listen(context.Background(), "tcp", address)
}

type boundedListener struct {
	net.Listener
	shares  *shares
	uploads *uploads
	refused *prometheus.CounterVec
	log     *slog.Logger
}

// Accept returns the next connection for which there is room.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				l.log.Warn("no connection can be accepted", "error", err)
			}
			return nil, err
		}
		peer := peerOf(conn.RemoteAddr())
		reason := l.shares.take(peer)
		if reason == "" {
			return l.uploads.follow(conn, peer, func() { l.shares.release(peer) }), nil
		}
		conn.Close()
		l.refused.WithLabelValues(reason).Inc()
		l.log.Warn("a connection was refused", "reason", reason, "peer", peer, "open", l.shares.count(), "limit", l.shares.most)
	}
}

// peerOf names whose an address is: a host's, whatever its port. In IPv6 a host
// is commonly given a network of 64 bits.
func peerOf(addr net.Addr) string {
	if a, ok := addr.(*followedAddr); ok {
		return a.conn.peer
	}
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return addr.String()
	}
	ip := tcp.AddrPort().Addr().Unmap()
	if ip.Is6() {
		return netip.PrefixFrom(ip.WithZone(""), 64).Masked().String()
	}
	return ip.String()
}

// shares hands out places to peers. After each that it gives, at least as many
// are free as the peer has; a peer that has none gets one as long as there is one.
// So a single peer takes half, and any number of greedy ones leave room for the
// next.
type shares struct {
	most    int
	proxied bool // Peers are not told apart.

	mu    sync.Mutex
	taken int
	by    map[string]int
}

func newShares(most int, proxied bool) *shares {
	return &shares{most: most, proxied: proxied, by: map[string]int{}}
}

// take takes a place, or says why not.
func (s *shares) take(peer string) (reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.by[peer]
	switch {
	case s.taken >= s.most:
		return "TOTAL"
	case !s.proxied && own > 0 && own+1 > s.most-(s.taken+1):
		return "PEER"
	}
	s.taken++
	s.by[peer] = own + 1
	return ""
}

func (s *shares) release(peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.by[peer]--; s.by[peer] == 0 {
		delete(s.by, peer)
	}
}

func (s *shares) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}
