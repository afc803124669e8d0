package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// talkative answers with a megabyte.
type talkative struct {
	assayv1.UnimplementedAssignmentServiceServer
}

func (talkative) Assign(context.Context, *assayv1.AssignRequest) (*assayv1.AssignResponse, error) {
	return &assayv1.AssignResponse{Assignments: []*assayv1.Assignment{{Variant: string(make([]byte, 1<<20))}}}, nil
}

// deafConn reads nothing any more once it is deaf, until it ends.
type deafConn struct {
	net.Conn
	deaf  *atomic.Bool
	ended chan struct{}
}

func (c *deafConn) Read(b []byte) (int, error) {
	if c.deaf.Load() {
		<-c.ended
		return 0, io.EOF
	}
	return c.Conn.Read(b)
}

// TestRepliesThatNobodyReads has a client that asks and does not read. What it is
// answered counts, keeps to half of the budget, and counts no more once its
// connection has ended; others are answered meanwhile.
func TestRepliesThatNobodyReads(t *testing.T) {
	a := newTestAdmission(t)
	a.replies.most = 16 << 20
	srv := grpc.NewServer(grpc.ForceServerCodecV2(newCodec()), grpc.ChainUnaryInterceptor(mapErrors(slog.New(slog.DiscardHandler)), a.encodeReply))
	assayv1.RegisterAssignmentServiceServer(registrar{srv, a, newTestWork(t)}, talkative{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(listener)
	defer srv.Stop()
	connect := func(options ...grpc.DialOption) *grpc.ClientConn {
		conn, err := grpc.NewClient(listener.Addr().String(), append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	ask := func(conn *grpc.ClientConn) error {
		_, err := assayv1.NewAssignmentServiceClient(conn).Assign(t.Context(), &assayv1.AssignRequest{})
		return err
	}
	taken := func() int64 {
		a.replies.mu.Lock()
		defer a.replies.mu.Unlock()
		return a.replies.taken
	}
	waitFor := func(what string, holds func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("in vain: %s; %d bytes are taken", what, taken())
			}
		}
	}

	var deaf atomic.Bool
	ended := make(chan struct{})
	silent := connect(grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		return &deafConn{conn, &deaf, ended}, err
	}))
	hearing := connect()
	for _, conn := range []*grpc.ClientConn{silent, hearing} {
		if err := ask(conn); err != nil {
			t.Fatal(err)
		}
	}
	waitFor("what was read counts no more", func() bool { return taken() == 0 })
	deaf.Store(true)
	for range 60 {
		go ask(silent)
	}
	waitFor("the unread replies count", func() bool { return taken() > 6<<20 })
	for range 20 {
		if err := ask(hearing); err != nil {
			t.Errorf("another client: %v", err)
		}
	}
	if n := taken(); n > a.replies.most/2+1<<20 {
		t.Errorf("a client that does not read holds %d bytes of %d", n, a.replies.most)
	}
	close(ended)
	silent.Close()
	waitFor("what can be sent no more counts no more", func() bool {
		runtime.GC()
		return taken() == 0
	})
}

// TestStreamsThatNobodyReads has clients on many addresses open streams and read none
// of what these send. It counts as replies do, and no address has more than half of
// what is left; once others need the room, who has left something unread for too long
// is closed.
func TestStreamsThatNobodyReads(t *testing.T) {
	a := newTestAdmission(t)
	a.replies.most, a.replies.pause = 16<<20, time.Hour
	reply := &assayv1.AssignResponse{Assignments: []*assayv1.Assignment{{Variant: string(make([]byte, 1<<20))}}}
	talk := func(_ any, stream grpc.ServerStream) error {
		if err := stream.SendMsg(reply); err != nil {
			return err
		}
		<-stream.Context().Done()
		return nil
	}
	srv := grpc.NewServer(grpc.ForceServerCodecV2(newCodec()), grpc.UnknownServiceHandler(talk),
		grpc.ChainUnaryInterceptor(mapErrors(slog.New(slog.DiscardHandler)), a.encodeReply),
		grpc.ChainStreamInterceptor(mapStreamErrors(slog.New(slog.DiscardHandler)), a.admitStream))
	assayv1.RegisterAssignmentServiceServer(registrar{srv, a, newTestWork(t)}, talkative{})
	lines := &logLines{}
	l, err := Listen("127.0.0.1:0", ListenerConfig{Most: 100, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(lines, nil))})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Stop()
	connect := func(from string) *grpc.ClientConn {
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithInitialWindowSize(1<<16), grpc.WithInitialConnWindowSize(1<<16), // Or the client lets them grow, and takes what nobody reads.
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return dial(ctx, from, addr) }))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	held := func(from string) int64 {
		a.replies.mu.Lock()
		defer a.replies.mu.Unlock()
		return a.replies.held[from]
	}
	for i, most := range []int64{7 << 20, 4 << 20, 2 << 20, 1 << 20} {
		from := fmt.Sprintf("127.0.0.%d", 2+i)
		for range 2 { // Connections of one address, which have their share together.
			conn := connect(from)
			for range 10 {
				if _, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/x/Y"); err != nil {
					t.Fatal(err)
				}
			}
		}
		for deadline := time.Now().Add(time.Minute); held(from) < most; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s holds %d bytes", from, held(from))
			}
		}
		if n := held(from); n > most+1000 {
			t.Errorf("%s holds %d bytes", from, n)
		}
	}
	hearing := connect("127.0.0.1")
	_, err = assayv1.NewAssignmentServiceClient(hearing).Assign(t.Context(), &assayv1.AssignRequest{})
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "was carried out") {
		t.Errorf("while there is no room: %v", err)
	}
	a.replies.mu.Lock()
	for c := a.replies.oldest; c != nil; c = c.after {
		c.since = c.since.Add(-time.Hour)
	}
	a.replies.mu.Unlock()
	for range 10 {
		if _, err := assayv1.NewAssignmentServiceClient(hearing).Assign(t.Context(), &assayv1.AssignRequest{}); err != nil {
			t.Errorf("another client: %v", err)
		}
	}
	u := l.(*boundedListener).uploads
	if testutil.ToFloat64(u.unread) == 0 {
		t.Error("no connection is counted as ended")
	}
	if lines.count("left a reply unread") != 1 {
		t.Error("no line, or more than one, tells of it")
	}
}
