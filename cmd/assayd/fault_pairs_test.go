package main

import (
	"context"
	"slices"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// stroke is a fault of a moment, which strikes while another one lasts. It says
// how many times it did: nothing may be left to strike.
type stroke struct {
	name   string
	strike func(*drill) int
}

var (
	connectionsCut   = stroke{"connections cut", (*drill).cutOnce}
	backendKilled    = stroke{"a backend killed", (*drill).killBackend}
	serverKilled     = stroke{"a server killed", func(d *drill) int { return d.killServer(nil) }}
	postmasterKilled = stroke{"the postmaster killed", func(d *drill) int { return d.killPostmaster(nil) }}

	allStrokes = []stroke{connectionsCut, backendKilled, serverKilled, postmasterKilled}
)

// fixedPair is the one of the short form.
var fixedPair = pair(outcomesLocked, backendKilled)

// pair is two faults at a time.
func pair(k faultKind, s stroke) faultKind {
	return faultKind{name: k.name + "; meanwhile " + s.name, inject: func(d *drill, o *load) (n int) {
		d.strike = func() {
			d.strike = nil // Strokes hold, too.
			n = s.strike(d)
		}
		k.inject(d, o)
		return n
	}}
}

// anyPair is one of those that go together, of a kind that lasts.
func (d *drill) anyPair(kinds []faultKind) faultKind {
	lasting := slices.DeleteFunc(slices.Clone(kinds), func(k faultKind) bool { return len(k.strokes) == 0 })
	k := lasting[d.random.IntN(len(lasting))]
	return pair(k, k.strokes[d.random.IntN(len(k.strokes))])
}

func (d *drill) cutOnce() (n int) {
	for _, s := range d.servers {
		n += s.proxy.cut()
	}
	return n
}

// killBackend kills a backend, if there is one, and waits until the postmaster
// knows. Recovery, or the end of Postgres for want of what it needs, are left to
// come.
func (d *drill) killBackend() int {
	conn, err := pgx.Connect(d.Context(), d.db.url("assay"))
	if err != nil {
		return 0
	}
	defer conn.Close(context.Background())
	var pid int
	if err := conn.QueryRow(d.Context(), recorderBackends+` LIMIT 1`).Scan(&pid); err != nil || syscall.Kill(pid, syscall.SIGKILL) != nil {
		return 0
	}
	eventually(d.T, "the backend has ended", func() bool { return syscall.Kill(pid, 0) != nil })
	return 1
}
