package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/assayhq/assay/internal/experiment"
	"github.com/assayhq/assay/internal/localpg"
)

// The pepper is what keeps the subjects' hashes from being guessed. It is to be
// known to the server alone, and is never made anew where data may depend on it.

// pepperName is the file in the data directory of a private Postgres.
const pepperName = "pepper"

// minPepperKinds is how many different bytes a pepper has at least. Of random
// secrets the worst that is long enough, 16 hexadecimal digits, has fewer once
// in 30,000; a letter or two, repeated, always has.
const minPepperKinds = 6

// maxPepperBytes bounds what is read of a file that is none of a pepper.
const maxPepperBytes = 1 << 16

// givenPepper returns the pepper that the settings name, nil if they name
// none.
func (s *settings) givenPepper() (experiment.Pepper, error) {
	if s.pepperFile == "" {
		if s.pepper == "" {
			return nil, nil
		}
		return parsePepper(s.pepper, "ASSAY_PEPPER")
	}
	// The operator names it, and may name a link: that is how Kubernetes mounts
	// a secret. A pipe would block until somebody else opens it.
	f, err := os.OpenFile(s.pepperFile, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("the pepper: %w", err)
	}
	defer f.Close()
	return readPepper(f)
}

// readPepper reads a pepper from a file that nobody else may read or replace.
// As Postgres has it for its keys, that of root may be read by a group, since
// that is how root hands a secret to a service.
func readPepper(f *os.File) (experiment.Pepper, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("the pepper: %w", err)
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	shared := fs.FileMode(0o077)
	if owner == 0 && os.Getuid() != 0 {
		shared = 0o037
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("the pepper: %s is not a file", f.Name())
	case owner != 0 && owner != os.Getuid():
		return nil, fmt.Errorf("the pepper: %s belongs to the user with id %d, who could read and replace it; give it to this user with chown", f.Name(), owner)
	case info.Mode()&shared != 0:
		return nil, fmt.Errorf("the pepper: other users have access to %s (its mode is %v); close it to them with chmod 600, and if they may have read it, mind that subjects' hashes can be guessed with it", f.Name(), info.Mode())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPepperBytes))
	if err != nil {
		return nil, fmt.Errorf("the pepper: %w", err)
	}
	return parsePepper(string(text), f.Name())
}

func parsePepper(text, from string) (experiment.Pepper, error) {
	text = strings.TrimSpace(text)
	const advice = "make one with: openssl rand -hex 32"
	if n := len(unrepeated(text)); n < experiment.MinPepperBytes {
		if n < len(text) {
			return nil, fmt.Errorf("the pepper in %s repeats a text of %d bytes, which is no better than that text; it needs at least %d: %s", from, n, experiment.MinPepperBytes, advice)
		}
		return nil, fmt.Errorf("the pepper in %s has %d bytes; it needs at least %d: %s", from, n, experiment.MinPepperBytes, advice)
	}
	kinds := map[byte]bool{}
	for i := range len(text) {
		kinds[text[i]] = true
	}
	if len(kinds) < minPepperKinds {
		return nil, fmt.Errorf("the pepper in %s has only %d different characters, and can be guessed; a random one has at least %d: %s", from, len(kinds), minPepperKinds, advice)
	}
	return experiment.Pepper(text), nil
}

// unrepeated is the shortest text of which the given one is a repetition,
// perhaps cut off at its end.
func unrepeated(text string) string {
	for n := 1; n <= len(text)/2; n++ {
		if text[n:] == text[:len(text)-n] {
			return text[:n]
		}
	}
	return text
}

// storedPepper reads the pepper of a data directory, which it makes if there is
// neither one nor a cluster yet. The file appears whole or not at all, and
// before the cluster: one without a pepper has lost it.
func storedPepper(dir *localpg.DataDir, clusterExists bool) (experiment.Pepper, error) {
	f, err := dir.Open(pepperName)
	if err == nil {
		defer f.Close()
		return readPepper(f)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the pepper: %w", err)
	}
	path := filepath.Join(dir.Path(), pepperName)
	if clusterExists {
		return nil, fmt.Errorf("the pepper is lost: there is a database in %s, and no file %s. "+
			"With another one subjects would lose their history, so none is made. Put the file back, or give the pepper by --pepper-file or ASSAY_PEPPER", dir.Path(), path)
	}
	var secret [32]byte
	rand.Read(secret[:])
	text := hex.EncodeToString(secret[:])
	if err := writeFile(path, []byte(text+"\n")); err != nil {
		return nil, fmt.Errorf("the pepper: %w", err)
	}
	return parsePepper(text, path)
}

func writeFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".pepper-") // Mode 0600.
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path)) // The cluster that follows must not outlast it.
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
