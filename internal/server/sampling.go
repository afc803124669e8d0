package server

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// samplePeriod is how long a warning stands for those that are like it: while the
// database is away thousands of calls fail in a second, and each for the same reason.
const samplePeriod = 10 * time.Second

// sampler writes of warnings with the same message and method one in each period, with
// how many were left out before it; the metrics count all calls by their code. What is
// worse than a warning is always written.
type sampler struct {
	slog.Handler
	seen *seen
}

// seen is the warnings that were written. There are few messages and methods.
type seen struct {
	mu    sync.Mutex
	lines map[string]*line
}

// line is when a warning was written last, and how many were not since.
type line struct {
	written time.Time
	left    int
}

func sampled(log *slog.Logger) *slog.Logger {
	return slog.New(&sampler{log.Handler(), &seen{lines: map[string]*line{}}})
}

func (s *sampler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn {
		left, write := s.seen.count(keyOf(r), r.Time)
		if !write {
			return nil
		}
		if left > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int("left_out", left))
		}
	}
	return s.Handler.Handle(ctx, r)
}

func (s *sampler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &sampler{s.Handler.WithAttrs(attrs), s.seen}
}

func (s *sampler) WithGroup(name string) slog.Handler {
	return &sampler{s.Handler.WithGroup(name), s.seen}
}

// keyOf is what warnings have in common.
func keyOf(r slog.Record) string {
	key := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "method" {
			key += a.Value.String()
		}
		return true
	})
	return key
}

// count says whether a warning is to be written, and how many like it were not since
// the last one.
func (s *seen) count(key string, at time.Time) (left int, write bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.lines[key]
	if ok && at.Sub(l.written) < samplePeriod {
		l.left++
		return 0, false
	}
	if !ok {
		l = &line{}
		s.lines[key] = l
	}
	left = l.left
	*l = line{written: at}
	return left, true
}
