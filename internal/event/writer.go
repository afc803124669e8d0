// Package event joins the records of concurrent callers into one commit, and
// acknowledges each caller after it. A commit costs a flush of the disk
// whatever it holds, so joining is what makes durable recording cheap.
//
// What it promises:
//
//   - A nil error from [Writer.Write] means that every item has the result
//     that the store gave it, in a commit that has happened.
//   - An error means nothing is known: the items may be stored. Sending them
//     again is safe, as the store is idempotent.
//   - One bad item fails nobody else. If the store refuses a batch for its data
//     ([ErrPoison]), the batch is halved until the item at fault is alone; that
//     item gets [experiment.Refused] and all others are stored.
//   - Memory is bounded: past a fixed number of pending items, callers are
//     refused at once instead of waiting.
//   - While a commit is under way the next batch gathers, so the batch grows with
//     the load and nobody waits for a timer. Under much load a second commit runs
//     beside the first, so that the store has work while a batch is prepared or
//     flushed.
//   - The store is called with a context of its own: a caller that gives up
//     does not cut off the others in its batch.
//
// The store is a function, so that this package knows no database. [Writer.Run] is
// the loop; no goroutine outlives it.
package event

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// ErrPoison is wrapped by the error of a [Flush] that the data itself caused:
// the same items would fail again, other items would not.
var ErrPoison = errors.New("the store refused the data")

const (
	// maxBatch is the most items in one commit. It holds the largest request.
	maxBatch = 10_000
	// maxCommits is how many commits may be under way.
	maxCommits = 2
	// besideBatch is the least items for which a commit begins beside another.
	besideBatch = maxBatch / 4
	// maxPending is the most items accepted and not answered, in commit or not.
	// It holds what is admitted of requests to record, whose bound is in bytes.
	maxPending = 250_000
	// maxBestEffort is the part of maxPending that best-effort items may
	// take, so that they cannot crowd out callers that wait.
	maxBestEffort = maxPending / 5

	flushTimeout = 10 * time.Second
	drainTimeout = 20 * time.Second
)

// retryDelays are the pauses before each repeat of best-effort items.
var retryDelays = [...]time.Duration{250 * time.Millisecond, time.Second, 4 * time.Second}

// Flush commits items and returns one result for each, in their order. On an
// error nothing of them is stored, or it is not known. It must neither reorder
// nor keep the slice, and must return when its context ends.
//
// After an error that wraps ErrPoison it is called with the halves of the
// items; a call with a single item that ends so is the last one for that item,
// and the place to log it.
type Flush[T any] func(ctx context.Context, items []T) ([]experiment.Result, error)

// Writer joins concurrent writes. Its methods are safe for concurrent use.
type Writer[T any] struct {
	flush Flush[T]
	lost  func(n int)
	wake  chan struct{} // Holds a token when something was added.

	mu      sync.Mutex
	queue   []*entry[T]
	retries []*entry[T] // Best effort, each waiting for its due time.
	pending int         // Items accepted and not answered.
	closed  bool
}

// entry is the items of one call, or maxBatch of them.
type entry[T any] struct {
	items []T

	// Of callers that wait:
	done    chan struct{} // Nil for best effort. Closed once answered.
	results []experiment.Result
	err     error

	// Of best-effort items:
	failures int
	due      time.Time
}

// NewWriter returns a writer that stores with flush, which must be safe for
// concurrent use, as must lost. It calls lost with the number of best-effort items
// that it gives up, or that the store refuses: nobody else hears of them.
func NewWriter[T any](flush Flush[T], lost func(n int)) *Writer[T] {
	return &Writer[T]{flush: flush, lost: lost, wake: make(chan struct{}, 1)}
}

// Write returns the items' results once they are committed. More than 10,000
// items take several commits, in order.
//
// It refuses with ErrExhausted when too many items are pending and with
// ErrUnavailable after the end of Run's context. Any other error is that of the
// store, or of ctx; the items may then be stored. The caller must not change
// the items after the call, even after an error.
func (w *Writer[T]) Write(ctx context.Context, items []T) ([]experiment.Result, error) {
	results := make([]experiment.Result, 0, len(items))
	for chunk := range slices.Chunk(items, maxBatch) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e := &entry[T]{items: chunk, done: make(chan struct{})}
		if err := w.add(e); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-e.done:
		}
		if e.err != nil {
			return nil, e.err
		}
		results = append(results, e.results...)
	}
	return results, nil
}

// TryWrite hands the items over and does not wait: they are stored soon, and
// after repeated failures given up and counted as lost. It returns false, and
// takes nothing, when too many items are pending or the writer has stopped.
// The caller must not change the items after the call.
func (w *Writer[T]) TryWrite(items []T) bool {
	if len(items) == 0 {
		return true
	}
	w.mu.Lock()
	fits := !w.closed && w.pending+len(items) <= maxBestEffort
	if fits {
		for chunk := range slices.Chunk(items, maxBatch) {
			w.queue = append(w.queue, &entry[T]{items: chunk})
		}
		w.pending += len(items)
	}
	w.mu.Unlock()
	if fits {
		w.notify()
	}
	return fits
}

func (w *Writer[T]) add(e *entry[T]) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return errStopping()
	case w.pending+len(e.items) > maxPending:
		return experiment.Errorf(experiment.ErrExhausted, "OVERLOADED",
			"too many events wait to be stored; send them again later")
	}
	w.queue = append(w.queue, e)
	w.pending += len(e.items)
	w.notify()
	return nil
}

func (w *Writer[T]) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func errStopping() error {
	return experiment.Errorf(experiment.ErrUnavailable, "STOPPING",
		"the server is stopping; send the events again")
}

// Run commits what is written until ctx ends. Then it refuses new writes,
// commits what is pending within a bounded time, and returns. The error counts
// the items that it could not bring to a commit by then. It is called once.
func (w *Writer[T]) Run(ctx context.Context) error {
	detached := context.WithoutCancel(ctx)
	busy, ended := 0, make(chan struct{}, maxCommits)
	for ctx.Err() == nil {
		entries, due := w.next(busy)
		if len(entries) > 0 {
			busy++
			go func() {
				w.commit(detached, entries)
				ended <- struct{}{}
			}()
			continue
		}
		var timer <-chan time.Time
		if !due.IsZero() {
			timer = time.After(time.Until(due))
		}
		select {
		case <-ctx.Done():
		case <-ended:
			busy--
		case <-w.wake:
		case <-timer:
		}
	}
	for ; busy > 0; busy-- {
		<-ended
	}
	return w.drain(detached)
}

// next takes the entries of the next commit off the queue, while so many are under
// way. If there are none it says when the next repeat is due, which is zero if
// there is none either.
func (w *Writer[T]) next(busy int) (entries []*entry[T], due time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.retries = slices.DeleteFunc(w.retries, func(e *entry[T]) bool {
		if ready := w.closed || !now.Before(e.due); ready {
			w.queue = append(w.queue, e)
			return true
		}
		if due.IsZero() || e.due.Before(due) {
			due = e.due
		}
		return false
	})
	n, size := 0, 0
	for n < len(w.queue) && size+len(w.queue[n].items) <= maxBatch {
		size += len(w.queue[n].items)
		n++
	}
	if busy == maxCommits || busy > 0 && size < besideBatch {
		return nil, due
	}
	entries = slices.Clone(w.queue[:n])
	clear(w.queue[:n])
	if w.queue = w.queue[n:]; len(w.queue) == 0 {
		w.queue = nil
	}
	return entries, due
}

// commit stores the entries together and answers each.
func (w *Writer[T]) commit(ctx context.Context, entries []*entry[T]) {
	b := batch[T]{items: entries[0].items}
	if len(entries) > 1 {
		size := 0
		for _, e := range entries {
			size += len(e.items)
		}
		b.items = make([]T, 0, size)
		for _, e := range entries {
			b.items = append(b.items, e.items...)
		}
	}
	b.results = make([]experiment.Result, len(b.items))
	b.store(ctx, w.flush, 0, len(b.items))
	from := 0
	for _, e := range entries {
		to := from + len(e.items)
		w.answer(e, b.results[from:to:to], b.err(from, to))
		from = to
	}
}

// answer ends an entry, or puts it aside for a repeat.
func (w *Writer[T]) answer(e *entry[T], results []experiment.Result, err error) {
	w.mu.Lock()
	retry := e.done == nil && err != nil && !w.closed && e.failures < len(retryDelays)
	if retry {
		e.due = time.Now().Add(retryDelays[e.failures])
		e.failures++
		w.retries = append(w.retries, e)
	} else {
		w.pending -= len(e.items)
	}
	w.mu.Unlock()
	switch {
	case retry:
	case e.done != nil:
		e.results, e.err = results, err
		close(e.done)
	case err != nil:
		w.lost(len(e.items))
	default:
		if n := refused(results); n > 0 {
			w.lost(n)
		}
	}
}

// refused counts the items that the store keeps nothing of. Those of erased
// subjects are not lost: nothing is to be kept of them.
func refused(results []experiment.Result) (n int) {
	for _, r := range results {
		if r == experiment.Refused || r == experiment.Kept {
			n++
		}
	}
	return n
}

// drain closes the writer and answers everything that is left.
func (w *Writer[T]) drain(ctx context.Context) error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	unsent := 0
	for entries, _ := w.next(0); len(entries) > 0; entries, _ = w.next(0) {
		if ctx.Err() == nil {
			w.commit(ctx, entries)
			continue
		}
		for _, e := range entries {
			unsent += len(e.items)
			w.answer(e, nil, errStopping())
		}
	}
	if unsent > 0 {
		return fmt.Errorf("event: %d items were still waiting when the time to stop was over", unsent)
	}
	return nil
}

// batch is the items of one commit and what became of them.
type batch[T any] struct {
	items   []T
	results []experiment.Result
	errs    []error // By item; nil if no item has one.
}

// store commits the items [from, to), in halves if the data is at fault.
func (b *batch[T]) store(ctx context.Context, flush Flush[T], from, to int) {
	results, err := flushOnce(ctx, flush, b.items[from:to:to])
	switch {
	case err == nil:
		copy(b.results[from:to], results)
	case !errors.Is(err, ErrPoison):
		if b.errs == nil {
			b.errs = make([]error, len(b.items))
		}
		for i := from; i < to; i++ {
			b.errs[i] = err
		}
	case to-from == 1:
		b.results[from] = experiment.Refused
	default:
		middle := from + (to-from)/2
		b.store(ctx, flush, from, middle)
		b.store(ctx, flush, middle, to)
	}
}

// flushOnce calls flush with a deadline of its own, so that a stuck store
// cannot hold up the loop.
func flushOnce[T any](ctx context.Context, flush Flush[T], items []T) ([]experiment.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	results, err := flush(ctx, items)
	if err == nil && len(results) != len(items) {
		err = fmt.Errorf("event: the store gave %d results for %d items", len(results), len(items))
	}
	return results, err
}

// err returns the first error among the items [from, to).
func (b *batch[T]) err(from, to int) error {
	if b.errs == nil {
		return nil
	}
	for _, err := range b.errs[from:to] {
		if err != nil {
			return err
		}
	}
	return nil
}
