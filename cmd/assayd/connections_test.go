package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
)

// TestFewFiles has more connections come, which never say a word, than the server
// may open files. Another client records and asks meanwhile; the rest of the server
// has its files, and what was refused is told.
func TestFewFiles(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	metrics := freeAddress(t)
	p := startCommand(t, exec.Command("sh", "-c", `ulimit -n 256; exec "$0" "$@"`, path,
		"serve", "--listen", "127.0.0.1:0", "--data-dir", dataDir(t), "--metrics-listen", metrics))
	address := p.address(t)
	other := connectFrom(t, "127.0.0.2", address)
	count := func(name string) (n int) {
		resp, err := http.Get("http://" + metrics + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^`+name+`(?:\{.*\})? ([0-9.e+]+)$`).FindAllStringSubmatch(string(text), -1) {
			x, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			n += int(x)
		}
		return n
	}
	most := count("assay_connections_limit")
	if most != 256-reservedFiles {
		t.Fatalf("there may be %d connections", most)
	}
	for range 300 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	eventually(t, "connections are refused", func() bool { return count("assay_connections_refused_total") >= 300-most/2 })
	if n := count("assay_connections"); n > most {
		t.Errorf("%d connections are open", n)
	}
	for i := range 20 {
		if _, err := assayv1.NewAssignmentServiceClient(other).Assign(t.Context(), &assayv1.AssignRequest{Subject: &assayv1.Subject{Key: "u"}}, grpc.WaitForReady(true)); err != nil {
			t.Errorf("an assignment: %v", err)
		}
		batch := newOutcomes(1)
		batch.set(0, int64(i))
		if resp, err := assayv1.NewEventServiceClient(other).RecordOutcomes(t.Context(), batch.request); err != nil || resp.Recorded != 1 {
			t.Errorf("an outcome: %v, %v", resp, err)
		}
	}
	if n := strings.Count(p.output.String(), "a connection was refused"); n < 1 || n > 20 {
		t.Errorf("%d lines tell of the connections that were refused", n)
	}
	if strings.Contains(p.output.String(), "too many open files") {
		t.Error("the server ran out of files")
	}
}

// TestSilentMetrics has all connections that the metrics have be taken by clients that
// say nothing. They are closed, and who asks is answered.
func TestSilentMetrics(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	address := freeAddress(t)
	served := make(chan error, 1)
	go func() { served <- serveMetrics(ctx, address, prometheus.NewRegistry()) }()
	eventually(t, "the metrics are served", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	for range maxMetricsConnections {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	cancel()
	<-served
}

// connectFrom connects from an address of this host.
func connectFrom(t *testing.T, from, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			return d.DialContext(ctx, "tcp", to)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestConnectionLimit(t *testing.T) {
	for _, tt := range []struct {
		files uint64
		most  int
	}{{0, 0}, {reservedFiles + minConnections - 1, 0}, {reservedFiles + minConnections, minConnections}, {1024, 1024 - reservedFiles}, {1 << 20, maxConnections}, {^uint64(0), maxConnections}} {
		most, err := connectionLimit(tt.files)
		if most != tt.most || (err == nil) != (tt.most > 0) {
			t.Errorf("%d files: %d connections, %v", tt.files, most, err)
		}
		if err != nil && !strings.Contains(err.Error(), fmt.Sprint("needs ", reservedFiles+minConnections)) {
			t.Errorf("%d files: %v", tt.files, err)
		}
	}
}
