package server

import "sync/atomic"

// budget is how many bytes may be taken for one purpose at once.
type budget struct {
	most  int64
	taken atomic.Int64
}

// take takes bytes if there is room for them.
func (b *budget) take(n int64) bool {
	if b.taken.Add(n) <= b.most {
		return true
	}
	b.taken.Add(-n)
	return false
}

func (b *budget) release(n int64) { b.taken.Add(-n) }

// The budgets of a server that has memory enough. All are of what is decoded or
// encoded, and admitted before it is.
const (
	// recordingBytes is for the requests to record that are under way: once for
	// unary calls and once for streams, so that neither kind crowds out the other.
	// At 1,100 bytes an outcome it is 60,000 outcomes, a second or two of what
	// Postgres stores.
	recordingBytes = 64 << 20
	// requestBytes is for other requests above smallMessage. A batch of 1,000
	// subjects with ten attributes each takes 3.7 MB.
	requestBytes = 64 << 20
	// smallBytes is for the others, the hot path among them: room for a few
	// thousand at once, which wait for nothing.
	smallBytes = 64 << 20
	// replyBytes is for the answers that their callers have not read. A page is at
	// most 1 MiB.
	replyBytes = 64 << 20
)

// budgetShare is the part of Go's memory limit that the budgets have together. A
// quarter is that of the analyses; the rest is for the catalog, for enrolled
// subjects, for what is computed, and for the garbage that waits for its
// collection: beyond the limit the collector would take all the processors.
const budgetShare = 3. / 8

// budgetScale returns what the budgets are to be multiplied with to keep to their
// share of a memory limit.
func budgetScale(limit int64) float64 {
	const sum = 2*recordingBytes + requestBytes + smallBytes + replyBytes + maxUploadBytes + acknowledgementBytes + waitingBytes
	return min(1, budgetShare*float64(limit)/sum)
}
