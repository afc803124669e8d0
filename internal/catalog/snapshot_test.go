package catalog

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/assayhq/assay/internal/experiment"
)

var pepper = experiment.Pepper("0123456789abcdef")

// fill gives every field below v a value that is not its zero, so that a field
// that the form of the file loses shows.
func fill(v reflect.Value, n int) {
	switch p := v.Addr().Interface().(type) {
	case *time.Time:
		*p = time.Date(2026, 1, 1, 0, 0, n, 123456000, time.UTC)
		return
	case *json.RawMessage:
		*p = json.RawMessage(fmt.Sprintf(`{"n":%d,"html":"<&>"}`, n))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("text-", n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(n + 1))
	case reflect.Uint8:
		v.SetUint(uint64(n + 1))
	case reflect.Float64:
		v.SetFloat(float64(n) + 0.1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n+i)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for i := range 2 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, n+i)
			fill(value, n+i)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n+i)
		}
	default:
		panic(fmt.Sprintf("%s: say how it is filled", v.Type()))
	}
}

func filled(n int) *experiment.History {
	var h experiment.History
	fill(reflect.ValueOf(&h).Elem(), n)
	h.Pinned = "" // Is not kept: it is of the storage.
	return &h
}

// readPath opens the file that readFile reads.
func readPath(path string, pepper experiment.Pepper) ([]*experiment.History, time.Time, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	return readFile(f, pepper)
}

func encoded(t *testing.T, histories ...*experiment.History) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b, pepper, histories); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSnapshotRoundTrip(t *testing.T) {
	for _, want := range [][]*experiment.History{nil, {filled(0)}, {filled(0), filled(7), {}}} {
		got, err := decode(bytes.NewReader(encoded(t, want...)), pepper)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%d experiments, want %d", len(got), len(want))
		}
		for i := range want {
			if diff := cmp.Diff(want[i], got[i]); diff != "" {
				t.Errorf("-written +read:\n%s", diff)
			}
		}
	}
}

// TestSnapshotOfThisVersion reads a file that an earlier build wrote. Where it
// no longer can, formatVersion must be raised and the file made anew.
func TestSnapshotOfThisVersion(t *testing.T) {
	histories, _, err := readPath("testdata/version-2.json.gz", pepper)
	if err != nil {
		t.Fatal(err)
	}
	h := histories[0]
	def := h.Experiment.Current.Definition
	got := []any{len(histories), h.Experiment.Key, h.Experiment.State, h.Experiment.Version, def.Unit, def.Eligibility,
		def.Salt, def.Traffic, string(def.Variants[1].Payload), h.Revisions[1].Rules.Allocation, h.Transitions[0].State, h.Overrides}
	want := []any{1, "checkout-copy", experiment.StateRunning, int64(2), "user", "attributes.age >= 18",
		"checkout-copy", 0.5, `{"title":"Pay now"}`, []experiment.Range{{From: 0, To: 500_000, Variant: "control"}, {From: 500_000, To: 1_000_000, Variant: "short"}},
		experiment.StateRunning, map[experiment.SubjectID]string{pepper.SubjectID(experiment.Subject{Unit: "user", Key: "u-1"}): "short"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +read:\n%s", diff)
	}
}

// TestSnapshotCutOff: of a file that ends early nothing is taken, wherever it
// ends, and nothing of one with a byte too many.
func TestSnapshotCutOff(t *testing.T) {
	whole := encoded(t, filled(0), filled(3))
	for n := range whole {
		if h, err := decode(bytes.NewReader(whole[:n]), pepper); err == nil || h != nil {
			t.Fatalf("%d of %d bytes were taken for whole", n, len(whole))
		}
	}
	if _, err := decode(bytes.NewReader(append(whole, 0)), pepper); err == nil {
		t.Error("a byte too many was taken")
	}
}

// TestSnapshotDamaged changes each byte in turn. What is still taken must be
// what was written: some bytes of gzip's header mean nothing.
func TestSnapshotDamaged(t *testing.T) {
	want := filled(0)
	whole := encoded(t, want)
	const head = 10 // Bytes of gzip's header; time, level and system in it are for people.
	taken := 0
	for i := range whole {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x55
		h, err := decode(bytes.NewReader(damaged), pepper)
		if err != nil {
			continue
		}
		if i >= head {
			taken++
		}
		if diff := cmp.Diff(want, h[0]); diff != "" {
			t.Fatalf("byte %d: -written +read:\n%s", i, diff)
		}
	}
	if taken > 2 { // Bytes that fill up the compressed data to whole ones.
		t.Errorf("%d damaged files were taken", taken)
	}
}

func TestSnapshotRefused(t *testing.T) {
	head := func(format string, version int, keyID string, n int) string {
		b, err := json.Marshal(header{format, version, keyID, n})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	id := pepper.KeyID()
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "damaged"},
		{"another format", head("other", formatVersion, id, 0), `its format is "other"`},
		{"a later version", head(formatName, formatVersion+1, id, 0), "version 3; this release reads"},
		{"another pepper", head(formatName, formatVersion, "ffff", 0), "written with the pepper ffff"},
		{"an earlier version", head(formatName, formatVersion-1, id, 0), "version 1; this release reads"},
		{"a revision without rules", head(formatName, formatVersion, id, 1) + `{"experiment":{"Key":"x"},"revisions":[{"Number":4}]}`, "experiment x: revision 4 has no rules"},
		{"too few experiments", head(formatName, formatVersion, id, 1), "0 experiments of 1"},
		{"too many experiments", head(formatName, formatVersion, id, 0) + `{}`, "1 experiments of 0"},
		{"an unknown field", head(formatName, formatVersion, id, 1) + `{"experiment":{"Quota":1}}`, `unknown field "Quota"`},
		{"a wrong subject", head(formatName, formatVersion, id, 1) + `{"experiment":{"Key":"x"},"overrides":{"00ff":"a"}}`, `experiment x: "00ff" is no subject id`},
		{"a roster cut off", head(formatName, formatVersion, id, 1) + `{"experiment":{"Key":"x"},"roster":2}{"ids":"AAAAAAAAAAAAAAAAAAAAAA==","arms":"AA=="}`, "the roster of x: EOF"},
		{"a roster with half an id", head(formatName, formatVersion, id, 1) + `{"experiment":{"Key":"x"},"roster":1}{"ids":"AAAA","arms":"AA=="}`, "a part of the roster is not whole"},
		{"a longer roster", head(formatName, formatVersion, id, 1) + `{"experiment":{"Key":"x"},"roster":0}{"ids":"AAAA","arms":"AA=="}`, "unknown field"},
	} {
		var b bytes.Buffer
		zip := gzip.NewWriter(&b)
		zip.Write([]byte(tt.text))
		zip.Close()
		if h, err := decode(&b, pepper); err == nil || h != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := decode(strings.NewReader("no gzip at all"), pepper); err == nil {
		t.Error("text was taken for a catalog")
	}
}

func TestSnapshotFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	path := filepath.Join(dir, "catalog.json.gz")
	if _, _, err := readPath(path, pepper); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading nothing: %v", err)
	}
	current := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range 2 {
		if err := writeFile(path, pepper, []*experiment.History{filled(i)}, current); err != nil {
			t.Fatal(err)
		}
		histories, at, err := readPath(path, pepper)
		if err != nil || !at.Equal(current) {
			t.Fatalf("%v, of %v", err, at)
		}
		if diff := cmp.Diff([]*experiment.History{filled(i)}, histories); diff != "" {
			t.Errorf("-written +read:\n%s", diff)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// FuzzSnapshot: whatever is in the file, reading it ends in an error or in
// experiments.
func FuzzSnapshot(f *testing.F) {
	f.Add([]byte(`{"format":"assay catalog","version":2,"pepper_key_id":"`+pepper.KeyID()+`","experiments":1}{"experiment":{"Key":"x"},"overrides":{"00":"a"}}`), true)
	f.Add([]byte("\x1f\x8b"), false)
	f.Fuzz(func(t *testing.T, content []byte, compress bool) {
		var b bytes.Buffer
		if compress {
			zip := gzip.NewWriter(&b)
			zip.Write(content)
			zip.Close()
		} else {
			b.Write(content)
		}
		if h, err := decode(&b, pepper); err != nil && h != nil {
			t.Error("experiments of a file that was refused")
		}
	})
}
