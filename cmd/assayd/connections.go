package main

import (
	"fmt"
	"net"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/assayhq/assay/internal/server"
)

const (
	// maxConnections is how many connections the API takes where there are file
	// descriptors enough. An idle one was seen to take 49 KB, so that all take
	// 200 MB.
	maxConnections = 4096
	// maxMetricsConnections is for Prometheus, which has one or two.
	maxMetricsConnections = 16
	// reservedFiles is how many file descriptors are kept for the rest. A server
	// without calls was seen to have 18, which are its listeners, its files, the
	// private Postgres's and some connections to the database. With all 16 of these and
	// 16 for metrics that is 50. Twice as many leave room for what comes and goes: a
	// connection that is accepted to be closed, one that cancels a statement, a file
	// that replaces another.
	reservedFiles = 100
	// minConnections is with how many a server is of use.
	minConnections = 16
)

// listen opens the address of the API. Its connections leave file descriptors for
// the rest of the server, which would fail in ways of its own.
func listen(s *settings, registry *prometheus.Registry) (net.Listener, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, fmt.Errorf("the limit of open files: %w", err)
	}
	most, err := connectionLimit(files.Cur)
	if err != nil {
		return nil, err
	}
	return server.Listen(s.listen, server.ListenerConfig{Most: most, BehindProxy: s.behindProxy, Metrics: registry, Log: s.log})
}

// connectionLimit returns how many connections fit below a limit of open files.
func connectionLimit(files uint64) (int, error) {
	if files < reservedFiles+minConnections {
		return 0, fmt.Errorf("this process may open %d files, and needs %d or more: raise the limit (ulimit -n)", files, reservedFiles+minConnections)
	}
	return int(min(files-reservedFiles, maxConnections)), nil
}
