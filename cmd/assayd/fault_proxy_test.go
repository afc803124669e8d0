package main

import (
	"bytes"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// proxy stands between a server and its Postgres, and is as bad a network as
// it is told to be.
type proxy struct {
	listener net.Listener
	socket   string // Of Postgres.
	pumps    sync.WaitGroup

	mu        sync.Mutex
	links     map[*link]bool
	weather   weather
	met       int           // Commits that came in this weather.
	struck    int           // Those of them that met their fate.
	swallowed bool          // Something vanished in this weather.
	changed   chan struct{} // Closed when the weather changes.
}

// weather is what the network does to what passes.
type weather struct {
	delay                  time.Duration // Of each piece, in either direction.
	swallowUp, swallowDown bool          // What goes to Postgres, or comes from it, vanishes.
	atCommit               commitFate
	commitsSpared          int // Commits that pass before the fate of others begins.
}

// commitFate is what happens to a connection that carries a COMMIT.
type commitFate int

const (
	commitPasses  commitFate = iota
	cutBefore                // It never arrives.
	cutAfter                 // It arrives, and the connection is cut.
	swallowAnswer            // It arrives, and nothing comes back.
)

// link is a connection through the proxy.
type link struct {
	server, postgres net.Conn
	lost             bool // Some bytes vanished, or its answers do: no good any more. Guarded by proxy.mu.
	deaf             bool // What comes from Postgres vanishes. Guarded by proxy.mu.
}

func newProxy(t testing.TB, c *cluster) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{
		listener: listener, socket: filepath.Join(c.link, ".s.PGSQL.5432"),
		links: map[*link]bool{}, changed: make(chan struct{}),
	}
	p.pumps.Go(p.accept)
	t.Cleanup(func() {
		listener.Close()
		p.set(weather{})
		p.cut()
		p.pumps.Wait()
	})
	return p
}

// url is the database's, through the proxy.
func (p *proxy) url(database string) string {
	host, port, _ := net.SplitHostPort(p.listener.Addr().String())
	return "host=" + host + " port=" + port + " user=assay sslmode=disable dbname=" + database
}

func (p *proxy) accept() {
	for {
		server, err := p.listener.Accept()
		if err != nil {
			return
		}
		postgres, err := net.Dial("unix", p.socket)
		if err != nil {
			server.Close()
			continue
		}
		l := &link{server: server, postgres: postgres}
		p.mu.Lock()
		p.links[l] = true
		p.mu.Unlock()
		p.pumps.Go(func() { p.pump(l, true) })
		p.pumps.Go(func() { p.pump(l, false) })
	}
}

// set changes the weather. Connections that lost something end when it does:
// what comes after a gap is no protocol any more.
func (p *proxy) set(w weather) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weather, p.met, p.struck, p.swallowed = w, 0, 0, false
	close(p.changed)
	p.changed = make(chan struct{})
	for l := range p.links {
		if l.lost {
			p.end(l)
		}
	}
}

// cut breaks all connections and returns how many there were.
func (p *proxy) cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.links)
	for l := range p.links {
		p.end(l)
	}
	return n
}

// strikes is how many commits met their fate in this weather.
func (p *proxy) strikes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.struck
}

// hasSwallowed says whether something has vanished in this weather.
func (p *proxy) hasSwallowed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.swallowed
}

// end closes both sides. The caller holds p.mu.
func (p *proxy) end(l *link) {
	l.server.(*net.TCPConn).SetLinger(0) // A reset, not a farewell.
	l.server.Close()
	l.postgres.Close()
	delete(p.links, l)
}

// commit is how the driver asks for one: a simple query, its length, its text.
var commit = []byte("Q\x00\x00\x00\x0bcommit\x00")

// pump carries what goes in one direction.
func (p *proxy) pump(l *link, up bool) {
	from, to := l.postgres, l.server
	if up {
		from, to = to, from
	}
	piece := make([]byte, 64<<10)
	var tail []byte // The end of what came before: a COMMIT may come in pieces.
	for {
		n, err := from.Read(piece)
		carriesCommit := false
		if up {
			tail = append(tail, piece[:n]...)
			carriesCommit = bytes.Contains(tail, commit)
			tail = bytes.Clone(tail[max(0, len(tail)-len(commit)+1):])
		}
		if !p.pass(l, up, to, piece[:n], carriesCommit) || err != nil {
			break
		}
	}
	p.awaitFair(up)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.links[l] {
		p.end(l)
	}
}

// pass hands a piece over as the weather wants it. False ends the connection.
func (p *proxy) pass(l *link, up bool, to net.Conn, piece []byte, carriesCommit bool) bool {
	if len(piece) == 0 {
		return true
	}
	p.mu.Lock()
	w, changed := p.weather, p.changed
	fate := commitPasses
	if carriesCommit && w.atCommit != commitPasses {
		if p.met++; p.met > w.commitsSpared {
			fate = w.atCommit
			p.struck++
		}
	}
	l.deaf = l.deaf || fate == swallowAnswer
	swallowed := up && w.swallowUp || !up && (w.swallowDown || l.deaf)
	l.lost = l.lost || swallowed || l.deaf
	p.swallowed = p.swallowed || swallowed
	p.mu.Unlock()
	if w.delay > 0 {
		select {
		case <-time.After(w.delay):
		case <-changed:
		}
	}
	switch {
	case swallowed:
		return true
	case fate == cutBefore:
		return false
	}
	_, err := to.Write(piece)
	return err == nil && fate != cutAfter
}

// awaitFair waits while the news of an end would vanish as everything else
// does.
func (p *proxy) awaitFair(up bool) {
	for {
		p.mu.Lock()
		vanishes, changed := up && p.weather.swallowUp || !up && p.weather.swallowDown, p.changed
		p.mu.Unlock()
		if !vanishes {
			return
		}
		<-changed
	}
}
