package catalog

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

const (
	// keepPause is the least time between two writes of the file. One that
	// takes long is followed by a pause of keepShare times as long.
	keepPause = time.Second
	keepShare = 10
	// leftoverAge is the age at which a file that was never finished is of a
	// process that has ended.
	leftoverAge = time.Hour
)

// Restore makes the catalog that Keep has left in the file the current one,
// until the first load. It is to be called before it. Whoever opens the file
// sees to it that nobody else has put it there.
func (s *Store) Restore(ctx context.Context, f *os.File) error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	histories, current, err := readFile(f, s.pepper)
	if err != nil {
		return err
	}
	faults := map[string]Fault{}
	next := s.empty.With(s.compile(ctx, histories, faults)...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.histories = make(map[string]*experiment.History, len(histories))
	for _, h := range histories {
		s.histories[h.Experiment.Key] = h
	}
	s.faults = faults
	s.loadedAt = current
	s.replace(next)
	return nil
}

// Keep keeps the catalog in the file until ctx ends, and then returns nil. What
// a load has changed is written soon after it, several changes at once if they
// are many, and a last time at the end. The file's modification time is the
// time of the last load, whether it changed anything or not. Failures are
// logged and tried again after the next load.
func (s *Store) Keep(ctx context.Context, path string) error {
	removeLeftovers(filepath.Dir(path))
	written := int64(0)
	save := func() {
		var err error
		if written, err = s.save(path, written); err != nil {
			s.log.WarnContext(ctx, "the catalog could not be kept on disk", "error", err)
			written = 0
		}
	}
	for {
		select {
		case <-ctx.Done():
			save()
			return nil
		case <-s.loaded:
		}
		began := time.Now()
		save()
		select {
		case <-ctx.Done():
		case <-time.After(max(keepPause, keepShare*time.Since(began))):
		}
	}
}

// save brings the file up to date and returns the edition that it holds.
func (s *Store) save(path string, written int64) (int64, error) {
	s.mu.Lock()
	edition, current := s.edition, s.loadedAt
	var histories []*experiment.History
	if edition != written {
		histories = slices.Collect(maps.Values(s.histories))
	}
	s.mu.Unlock()
	switch {
	case edition != written:
		return edition, writeFile(path, s.pepper, histories, current)
	case edition == 0:
		return 0, nil // Nothing has come from storage.
	default:
		return edition, os.Chtimes(path, current, current)
	}
}

func removeLeftovers(dir string) {
	entries, _ := os.ReadDir(dir) // Where nothing can be read, writing tells why.
	for _, entry := range entries {
		if leftover, _ := filepath.Match(temporaryPattern, entry.Name()); !leftover {
			continue
		}
		if info, err := entry.Info(); err == nil && time.Since(info.ModTime()) > leftoverAge {
			os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
}
