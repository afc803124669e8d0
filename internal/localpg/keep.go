package localpg

import (
	"context"
	"time"
)

// A server that does not start is tried again after firstPause, and then after
// twice as long each time: most causes, such as a child of a killed server that
// has not ended yet, are gone in a moment. A start that fails costs some ten
// milliseconds, of which longestPause makes next to nothing, and a disk that has
// room again is found within it.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
	logPause     = time.Minute // Between two looks at the length of the log.
)

// Keep runs the server until ctx ends, and stops it then. Whenever it ends, and
// whatever a start fails with, it is started again, for as long as it takes. It
// recovers what it had committed, and its URL stays the same. Keep calls tell
// after each start, with nil once the server accepts connections, and when it
// has ended.
func (c *Cluster) Keep(ctx context.Context, tell func(error)) error {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		s, err := c.start(ctx)
		if err == nil {
			tell(nil)
			began := time.Now()
			err = s.wait(ctx)
			stopErr := s.Stop()
			if ctx.Err() != nil {
				return stopErr
			}
			// What is left over is looked for again by the next start.
			if time.Since(began) > longestPause {
				pause = firstPause
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		tell(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// wait returns when the server or ctx has ended, and bounds its log meanwhile.
func (s *Server) wait(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.done:
			return s.err
		case <-time.After(logPause):
			s.cluster.boundLog(maxLog)
		}
	}
}
