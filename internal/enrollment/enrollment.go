// Package enrollment knows which subjects sticky experiments have enrolled, and
// with which variant. It keeps what it has read in memory, so that a subject
// that comes again costs no query.
//
// What it promises:
//
//   - [Cache.Lookup] asks storage once for all that memory lacks, and only then.
//     Who is found by a question that is under way is not asked for again.
//   - It never holds an assignment up: it waits [MaxWait] at most, and at most
//     half of the time that its caller has left. [Cache.Await] is for callers
//     that wait for storage anyway, and tries again for [Patience].
//   - While storage fails, one call at a time tries it, after a pause that grows
//     with each failure, and the others are answered from memory at once. After a
//     single failure that pause is short.
//   - Memory is bounded. Only the enrolled are kept: events are append only, so
//     that the first one recorded stays the first, while somebody who is not
//     enrolled may be at any moment.
//   - What was recorded so lately that an earlier record may still be committed
//     is asked for again a minute later.
//   - A subject that [Cache.Forget] was called for is not in memory, also not by
//     a lookup that was under way.
//
// Storage is a function, so that this package knows no database. It starts no
// goroutine.
package enrollment

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/assayhq/assay/internal/experiment"
)

const (
	// MaxWait is the longest that a lookup takes.
	MaxWait = 250 * time.Millisecond
	// Patience is the longest that Await takes: a connection that is lost without
	// notice is given up after a try, and the next ones come to another.
	Patience = 5 * time.Second

	// patientTry is the longest that a try of Await takes. Storage gives up its
	// statements after as long.
	patientTry = time.Second
	// fairWait is the least time within which storage should answer. If it does
	// not, it has failed, and not only its caller been in a hurry.
	fairWait = 50 * time.Millisecond
	// recheck is the time after which a recent enrolment is asked for again.
	recheck = time.Minute
)

// Find returns those that are enrolled. It may return others beside. It must
// return soon after its context ends.
type Find func(context.Context, []experiment.Enrollment) ([]experiment.Enrolled, error)

// Cache answers from memory and from storage. It is safe for concurrent use.
type Cache struct {
	find  Find
	now   func() time.Time
	known *lru.Cache[experiment.Enrollment, entry]

	mu      sync.Mutex
	forgets int // Calls of Forget so far.
	breaker breaker
	flights map[experiment.Enrollment]*flight // By the names that are being asked for.

	hits, queries, failures, unknown atomic.Int64
}

// entry is what memory holds of an enrolled subject.
type entry struct {
	variant string
	until   time.Time // When to ask again; zero for never.
}

// New returns a cache that holds up to size enrolments, about 220 bytes each.
func New(find Find, size int, now func() time.Time) *Cache {
	known, err := lru.New[experiment.Enrollment, entry](size)
	if err != nil {
		panic(fmt.Sprintf("enrollment: a cache of %d: %v", size, err)) // The size is a constant of the caller's.
	}
	return &Cache{find: find, now: now, known: known, flights: map[experiment.Enrollment]*flight{}}
}

// Lookup returns the variants of those of the given that are enrolled, and
// perhaps of others. If it is complete, the others are not enrolled; otherwise
// storage could not be asked, and nothing is known of them.
func (c *Cache) Lookup(ctx context.Context, names []experiment.Enrollment) (enrolled map[experiment.Enrollment]string, complete bool) {
	enrolled = make(map[experiment.Enrollment]string, len(names))
	missing := c.recall(names, enrolled)
	if len(missing) == 0 {
		return enrolled, true
	}
	wait := MaxWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/2)
	}
	complete = c.learn(ctx, wait, missing, enrolled)
	c.countUnknown(missing, enrolled, complete)
	return enrolled, complete
}

// Await is Lookup for callers that wait for storage anyway. It tries again until
// storage answers, the context ends or Patience is over.
func (c *Cache) Await(ctx context.Context, names []experiment.Enrollment) (enrolled map[experiment.Enrollment]string, complete bool) {
	enrolled = make(map[experiment.Enrollment]string, len(names))
	missing := c.recall(names, enrolled)
	if len(missing) == 0 {
		return enrolled, true
	}
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	for !c.learn(ctx, patientTry, missing, enrolled) {
		select {
		case <-ctx.Done():
			c.countUnknown(missing, enrolled, false)
			return enrolled, false
		case <-time.After(firstPause):
		}
	}
	return enrolled, true
}

func (c *Cache) countUnknown(names []experiment.Enrollment, enrolled map[experiment.Enrollment]string, complete bool) {
	if complete {
		return
	}
	for _, name := range names {
		if _, known := enrolled[name]; !known {
			c.unknown.Add(1)
		}
	}
}

// recall adds what memory knows, and returns what is to be asked for.
func (c *Cache) recall(names []experiment.Enrollment, enrolled map[experiment.Enrollment]string) (missing []experiment.Enrollment) {
	now := c.now()
	for _, name := range names {
		known, ok := c.known.Get(name)
		if ok {
			enrolled[name] = known.variant
		}
		if ok && (known.until.IsZero() || now.Before(known.until)) {
			c.hits.Add(1)
		} else {
			missing = append(missing, name)
		}
	}
	return missing
}

// ask asks storage, if it may be asked, and remembers what it says.
func (c *Cache) ask(caller context.Context, wait time.Duration, names []experiment.Enrollment) (found []experiment.Enrolled, answered bool) {
	c.mu.Lock()
	admitted, probes := c.breaker.admit(c.now())
	forgets := c.forgets
	c.mu.Unlock()
	if !admitted {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(caller, wait)
	defer cancel()
	c.queries.Add(1)
	found, err := c.find(ctx, names)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failures.Add(1)
		c.breaker.fail(c.now(), probes, caller.Err() == nil && (wait >= fairWait || ctx.Err() == nil))
		return nil, false
	}
	c.breaker.succeed()
	c.remember(found, forgets)
	return found, true
}

// remember keeps what was found, unless somebody was forgotten since. Its caller
// holds c.mu.
func (c *Cache) remember(found []experiment.Enrolled, forgets int) {
	if c.forgets != forgets {
		return
	}
	for _, e := range found {
		known := entry{variant: e.Variant}
		if e.Recent {
			known.until = c.now().Add(recheck)
		}
		c.known.Add(e.Enrollment, known)
	}
}

// Forget drops all that is known of the subjects. It looks through all of memory.
func (c *Cache) Forget(subjects []experiment.SubjectID) {
	gone := make(map[experiment.SubjectID]bool, len(subjects))
	for _, id := range subjects {
		gone[id] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgets++
	clear(c.flights) // Who comes now must not be answered by one that began before.
	for _, name := range c.known.Keys() {
		if gone[name.SubjectID] {
			c.known.Remove(name)
		}
	}
}

// Counts are what a cache has done so far.
type Counts struct {
	Hits     int64 // Answers from memory, one for each subject and experiment.
	Queries  int64 // Questions to storage, each for many.
	Failures int64 // Those of them that were not answered in time.
	Unknown  int64 // Answers without knowing, one for each subject and experiment.
}

// Counts returns what the cache has done so far.
func (c *Cache) Counts() Counts {
	return Counts{Hits: c.hits.Load(), Queries: c.queries.Load(), Failures: c.failures.Load(), Unknown: c.unknown.Load()}
}
