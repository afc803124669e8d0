package calibration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// A File keeps results as JSON lines, so that what was tried once is not tried
// again. It does not know by which version of the methods: after a change of them
// it takes another file.
type File struct {
	path  string // Empty for none.
	known map[resultKey]Result
}

// resultKey is what a result follows from.
type resultKey struct {
	cell string
	seed uint64
	runs int
}

// OpenFile reads a file of results, which may not exist yet. A line that was
// cut off does not count; an empty path keeps nothing.
func OpenFile(path string) (*File, error) {
	f := &File{path: path, known: map[resultKey]Result{}}
	if path == "" {
		return f, nil
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r Result
		if json.Unmarshal(lines.Bytes(), &r) == nil {
			f.known[resultKey{r.Cell, r.Seed, r.Runs}] = r
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Try returns what is known of a cell, or tries it and keeps the result. known says
// which.
func (f *File) Try(ctx context.Context, c *Cell, runs int, seed uint64) (r Result, known bool, err error) {
	if r, known = f.known[resultKey{c.Name(), seed, runs}]; known {
		return r, true, nil
	}
	if r, err = c.Try(ctx, runs, seed); err != nil || f.path == "" {
		return r, false, err
	}
	line, err := json.Marshal(r)
	if err != nil {
		return r, false, err
	}
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return r, false, err
	}
	_, err = file.Write(append(line, '\n'))
	return r, false, errors.Join(err, file.Close())
}
