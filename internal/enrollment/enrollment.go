// Package enrollment knows which subjects sticky experiments have enrolled, and
// with which variant. It keeps what it has read in memory, so that a subject
// that comes again costs no query.
//
// What it promises:
//
//   - [Cache.Lookup] asks storage once for all that memory lacks, and only then.
//   - It never holds an assignment up: it waits [MaxWait] at most, and at most
//     half of the time that its caller has left. While storage fails, one call
//     in a second tries it, and the others are answered from memory at once.
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

// MaxWait is the longest that a lookup takes.
const MaxWait = 250 * time.Millisecond

const (
	// fairWait is the least time within which storage should answer. If it does
	// not, it has failed, and not only its caller been in a hurry.
	fairWait = 50 * time.Millisecond
	// pause is the time between two tries while storage fails.
	pause = time.Second
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
	retry atomic.Int64 // While storage fails: when to try again, in Unix nanoseconds; else 0.

	mu      sync.Mutex // Held to add and to forget.
	forgets int        // Calls of Forget so far.

	hits, queries, failures atomic.Int64
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
	return &Cache{find: find, now: now, known: known}
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
	if c.resting() {
		return enrolled, false
	}
	found, err := c.ask(ctx, missing)
	if err != nil {
		return enrolled, false
	}
	for _, e := range found {
		enrolled[e.Enrollment] = e.Variant
	}
	return enrolled, true
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

// resting says whether storage is to be left alone since it failed. Once the
// pause is over it lets one caller through, and the others in the next pause.
func (c *Cache) resting() bool {
	now, retry := c.now(), c.retry.Load()
	return retry != 0 && (now.UnixNano() < retry || !c.retry.CompareAndSwap(retry, now.Add(pause).UnixNano()))
}

// ask asks storage and remembers what it says.
func (c *Cache) ask(caller context.Context, names []experiment.Enrollment) ([]experiment.Enrolled, error) {
	wait := MaxWait
	if deadline, ok := caller.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/2)
	}
	ctx, cancel := context.WithTimeout(caller, wait)
	defer cancel()
	c.mu.Lock()
	forgets := c.forgets
	c.mu.Unlock()
	c.queries.Add(1)
	found, err := c.find(ctx, names)
	if err != nil {
		c.failures.Add(1)
		if caller.Err() == nil && (wait >= fairWait || ctx.Err() == nil) {
			c.retry.Store(c.now().Add(pause).UnixNano())
		}
		return nil, err
	}
	c.retry.Store(0)
	c.remember(found, forgets)
	return found, nil
}

// remember keeps what was found, unless somebody was forgotten since.
func (c *Cache) remember(found []experiment.Enrolled, forgets int) {
	c.mu.Lock()
	defer c.mu.Unlock()
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
}

// Counts returns what the cache has done so far.
func (c *Cache) Counts() Counts {
	return Counts{Hits: c.hits.Load(), Queries: c.queries.Load(), Failures: c.failures.Load()}
}
