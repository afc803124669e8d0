package catalog

import (
	"bufio"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/assayhq/assay/internal/experiment"
)

// The file is a gzip stream of JSON values: a header, then each experiment, and
// after one with a roster its subjects, in chunks. It
// is whole or refused: gzip ends with a checksum and a length, and the header
// counts the experiments. It is read by the release that wrote it, or by one
// with the same formatVersion; a field that this release does not know is
// refused too, since what it says of assignment would be lost.

// temporaryPattern names the file while it is written.
const temporaryPattern = ".catalog-*"

const formatName = "assay catalog"

// formatVersion is to be raised when the JSON form of what is stored changes
// so that an older file would be understood wrongly.
const formatVersion = 2

type header struct {
	Format      string `json:"format"`
	Version     int    `json:"version"`
	PepperKeyID string `json:"pepper_key_id"` // Overrides are by subject id, which means nothing under another pepper.
	Experiments int    `json:"experiments"`
}

// stored is the form of an experiment.History.
type stored struct {
	Experiment  experiment.Experiment   `json:"experiment"`
	Revisions   []experiment.Terms      `json:"revisions"` // Without rules: with those of the revision before.
	Transitions []experiment.Transition `json:"transitions"`
	Fault       string                  `json:"fault,omitempty"`
	Overrides   map[string]string       `json:"overrides,omitempty"` // Subject id in hexadecimal → variant.
	Slots       []experiment.SlotPeriod `json:"slots,omitempty"`
	Coverages   []experiment.Coverage   `json:"coverages,omitempty"`
	Roster      *int                    `json:"roster,omitempty"` // The number of subjects whose chunks follow; nil for no roster.
}

// rosterChunk is the number of subjects in a chunk.
const rosterChunk = 1 << 16

// chunk is a part of the subjects of a roster: their ids one after another, and
// the arm of each.
type chunk struct {
	IDs  []byte `json:"ids"`
	Arms []byte `json:"arms"`
}

func encodeRoster(out *json.Encoder, r *experiment.RosterSubjects) error {
	for from := 0; from < len(r.IDs); from += rosterChunk {
		to := min(from+rosterChunk, len(r.IDs))
		c := chunk{Arms: r.Arms[from:to]}
		for _, id := range r.IDs[from:to] {
			c.IDs = append(c.IDs, id[:]...)
		}
		if err := out.Encode(c); err != nil {
			return err
		}
	}
	return nil
}

func decodeRoster(in *json.Decoder, n int) (*experiment.RosterSubjects, error) {
	r := &experiment.RosterSubjects{}
	for len(r.IDs) < n {
		var c chunk
		if err := in.Decode(&c); err != nil {
			return nil, err
		}
		if len(c.Arms) == 0 || len(c.Arms) > n-len(r.IDs) || len(c.IDs) != len(c.Arms)*len(experiment.SubjectID{}) {
			return nil, errors.New("a part of the roster is not whole")
		}
		r.Arms = append(r.Arms, c.Arms...)
		for id := range slices.Chunk(c.IDs, len(experiment.SubjectID{})) {
			r.IDs = append(r.IDs, experiment.SubjectID(id))
		}
	}
	return r, nil
}

func toStored(h *experiment.History) stored {
	s := stored{Experiment: h.Experiment, Revisions: slices.Clone(h.Revisions), Transitions: h.Transitions, Slots: h.Slots, Coverages: h.Coverages, Fault: h.Fault}
	for i := range h.Revisions {
		if i > 0 && h.Revisions[i].Rules == h.Revisions[i-1].Rules {
			s.Revisions[i].Rules = nil
		}
	}
	if h.Roster != nil {
		n := len(h.Roster.IDs)
		s.Roster = &n
	}
	if len(h.Overrides) > 0 {
		s.Overrides = make(map[string]string, len(h.Overrides))
		for id, variant := range h.Overrides {
			s.Overrides[hex.EncodeToString(id[:])] = variant
		}
	}
	return s
}

func (s *stored) history() (experiment.History, error) {
	h := experiment.History{Experiment: s.Experiment, Revisions: s.Revisions, Transitions: s.Transitions, Slots: s.Slots, Coverages: s.Coverages, Fault: s.Fault}
	for i := range h.Revisions {
		r := &h.Revisions[i]
		if r.Rules == nil && i > 0 {
			r.Rules = h.Revisions[i-1].Rules
		}
		if r.Rules == nil {
			return experiment.History{}, fmt.Errorf("revision %d has no rules", r.Number)
		}
	}
	if len(s.Overrides) > 0 {
		h.Overrides = make(map[experiment.SubjectID]string, len(s.Overrides))
	}
	for text, variant := range s.Overrides {
		id, err := hex.DecodeString(text)
		if err != nil || len(id) != len(experiment.SubjectID{}) {
			return experiment.History{}, fmt.Errorf("%q is no subject id", text)
		}
		h.Overrides[experiment.SubjectID(id)] = variant
	}
	return h, nil
}

// encode writes the histories in the form of the file.
func encode(to io.Writer, pepper experiment.Pepper, histories []*experiment.History) error {
	zip, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
	if err != nil {
		return err
	}
	out := json.NewEncoder(zip)
	out.SetEscapeHTML(false)
	if err := out.Encode(header{formatName, formatVersion, pepper.KeyID(), len(histories)}); err != nil {
		return err
	}
	for _, h := range histories {
		if err := out.Encode(toStored(h)); err != nil {
			return fmt.Errorf("experiment %s: %w", h.Experiment.Key, err)
		}
		if h.Roster != nil {
			if err := encodeRoster(out, h.Roster); err != nil {
				return err
			}
		}
	}
	return zip.Close()
}

// decode reads what encode has written under the same pepper, to the end.
func decode(from io.Reader, pepper experiment.Pepper) ([]*experiment.History, error) {
	zip, err := gzip.NewReader(from)
	if err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	in := json.NewDecoder(zip)
	var head header
	if err := in.Decode(&head); err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	switch {
	case head.Format != formatName || head.Version != formatVersion:
		return nil, fmt.Errorf("its format is %q, version %d; this release reads %q, version %d", head.Format, head.Version, formatName, formatVersion)
	case head.PepperKeyID != pepper.KeyID():
		return nil, fmt.Errorf("it was written with the pepper %s; this server has %s", head.PepperKeyID, pepper.KeyID())
	}
	in.DisallowUnknownFields()
	var histories []*experiment.History
	for {
		var s stored
		if err := in.Decode(&s); errors.Is(err, io.EOF) {
			break // The checksum and the length hold, or it would be another error.
		} else if err != nil {
			return nil, fmt.Errorf("damaged or of another release: %w", err)
		}
		h, err := s.history()
		if err != nil {
			return nil, fmt.Errorf("damaged: experiment %s: %w", s.Experiment.Key, err)
		}
		if s.Roster != nil {
			if h.Roster, err = decodeRoster(in, *s.Roster); err != nil {
				return nil, fmt.Errorf("damaged: the roster of %s: %w", s.Experiment.Key, err)
			}
		}
		histories = append(histories, &h)
	}
	if len(histories) != head.Experiments {
		return nil, fmt.Errorf("damaged: it holds %d experiments of %d", len(histories), head.Experiments)
	}
	return histories, nil
}

// readFile returns what the file holds and when that was last known to be
// current.
func readFile(f *os.File, pepper experiment.Pepper) ([]*experiment.History, time.Time, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	histories, err := decode(bufio.NewReader(f), pepper)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return histories, info.ModTime(), nil
}

// writeFile replaces the file. Whenever the process or the machine stops, the
// old file or the new one is there, whole.
func writeFile(path string, pepper experiment.Pepper, histories []*experiment.History, current time.Time) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, temporaryPattern) // Mode 0600.
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	buffered := bufio.NewWriterSize(f, 1<<16)
	err = encode(buffered, pepper, histories)
	if err = errors.Join(err, buffered.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Chtimes(f.Name(), current, current); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename outlast the machine's power.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
