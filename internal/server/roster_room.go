package server

import (
	"context"
	"sync"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// rosterRoom is how many subjects the lists that are coming in hold together: no
// more than one list may. A list keeps its room as long as it goes on. One that
// does not, or goes on too slowly, is ended as soon as another needs the room; a
// list alone may take its time.
type rosterRoom struct {
	most  int
	pause time.Duration // How long a list keeps its room without a message.
	open  *openStreams  // Which counts those that are ended.

	mu     sync.Mutex
	held   int
	places map[*rosterPlace]bool // Of lists that are coming in.
}

// rosterPlace is the room of one list.
type rosterPlace struct {
	held     int
	began    time.Time
	last     time.Time // Of its messages.
	complete bool
	end      context.CancelCauseFunc
}

// leastRosterPace is how many subjects a list brings in a second, on average, if
// it is to keep its room after its first pause: a full one takes less than two
// minutes, at half a megabyte a second.
const leastRosterPace = 20_000

func newRosterService(s *services, open *openStreams) *rosterService {
	return &rosterService{services: s, room: &rosterRoom{
		most: experiment.MaxRosterSubjects, pause: open.limits.rosterPause, open: open, places: map[*rosterPlace]bool{},
	}}
}

// enter lets a list begin. If it must end before it is complete, end is called.
func (r *rosterRoom) enter(end context.CancelCauseFunc) *rosterPlace {
	now := time.Now()
	p := &rosterPlace{began: now, last: now, end: end}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.places[p] = true
	return p
}

// take takes room for n more subjects of a list, if need be that of lists which do
// not go on.
func (r *rosterRoom) take(p *rosterPlace, n int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.places[p] {
		return nil // It was ended, which its call learns from its context.
	}
	p.last = time.Now()
	for r.held+n > r.most {
		slow := r.slowest(p)
		if slow == nil {
			return experiment.Errorf(experiment.ErrExhausted, "TOO_MANY_ROSTERS",
				"the rosters that this server takes in at the moment hold %d subjects together; try again when one of them is done", r.most)
		}
		r.forget(slow)
		r.open.ended.WithLabelValues("ROSTER_STALLED").Inc()
		slow.end(experiment.Errorf(experiment.ErrUnavailable, "ROSTER_STALLED",
			"another roster needs the room of this one, which came in too slowly; send it again, %d subjects a second or more and without a pause of %v", leastRosterPace, r.pause))
	}
	p.held += n
	r.held += n
	return nil
}

// slowest returns the list that has overstayed its time the longest, if one has,
// but for p.
func (r *rosterRoom) slowest(p *rosterPlace) (slowest *rosterPlace) {
	var most time.Duration
	for other := range r.places {
		if other == p || other.complete || other.held == 0 {
			continue
		}
		silent := p.last.Sub(other.last) - r.pause
		behind := p.last.Sub(other.began) - r.pause - time.Duration(other.held)*time.Second/leastRosterPace
		if over := max(silent, behind); over > most {
			slowest, most = other, over
		}
	}
	return slowest
}

// complete says that all of a list has come in, and whether it has its room still.
// From now on it keeps it: what remains is bounded by the database's timeouts.
func (r *rosterRoom) complete(p *rosterPlace) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.complete = true
	return r.places[p]
}

func (r *rosterRoom) leave(p *rosterPlace) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(p)
}

func (r *rosterRoom) forget(p *rosterPlace) {
	if r.places[p] {
		r.held -= p.held
		delete(r.places, p)
	}
}
