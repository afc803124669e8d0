package enrollment

import (
	"context"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// flight is a question to storage that is under way.
type flight struct {
	landed chan struct{}
	found  map[experiment.Enrollment]string // Once it has landed.
}

// learn adds what storage knows of the names, within a time. Those that are being
// asked for by others are asked for again only if they were not found: somebody
// who is enrolled stays so, but who was not when the other question was put may be
// by now, and have been told so.
func (c *Cache) learn(caller context.Context, wait time.Duration, names []experiment.Enrollment, enrolled map[experiment.Enrollment]string) bool {
	deadline := time.Now().Add(wait)
	mine, own, joined := c.board(names)
	if len(own) > 0 {
		found, answered := c.ask(caller, wait, own)
		c.land(mine, own, found)
		if !answered {
			return false
		}
		add(enrolled, found)
	}
	var rest []experiment.Enrollment
	for name, f := range joined {
		if !await(caller, f.landed, time.Until(deadline)) {
			return false
		}
		if variant, ok := f.found[name]; ok {
			enrolled[name] = variant
		} else {
			rest = append(rest, name)
		}
	}
	if len(rest) == 0 {
		return true
	}
	found, answered := c.ask(caller, time.Until(deadline), rest)
	add(enrolled, found)
	return answered
}

// board begins a flight for those of the names that have none.
func (c *Cache) board(names []experiment.Enrollment) (mine *flight, own []experiment.Enrollment, joined map[experiment.Enrollment]*flight) {
	mine = &flight{landed: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		switch f := c.flights[name]; f {
		case nil:
			c.flights[name] = mine
			own = append(own, name)
		case mine: // It is asked for twice.
		default:
			if joined == nil {
				joined = map[experiment.Enrollment]*flight{}
			}
			joined[name] = f
		}
	}
	return mine, own, joined
}

// land ends a flight and tells those who joined it.
func (c *Cache) land(f *flight, names []experiment.Enrollment, found []experiment.Enrolled) {
	c.mu.Lock()
	for _, name := range names {
		if c.flights[name] == f {
			delete(c.flights, name)
		}
	}
	c.mu.Unlock()
	f.found = make(map[experiment.Enrollment]string, len(found))
	add(f.found, found)
	close(f.landed)
}

func add(enrolled map[experiment.Enrollment]string, found []experiment.Enrolled) {
	for _, e := range found {
		enrolled[e.Enrollment] = e.Variant
	}
}

// await waits for an end, and says whether it came in time.
func await(ctx context.Context, end <-chan struct{}, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-end:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}
