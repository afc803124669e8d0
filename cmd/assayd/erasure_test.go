package main

import (
	"compress/gzip"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	assayv1 "github.com/assayhq/assay/gen/assay/v1"
	"github.com/assayhq/assay/internal/experiment"
)

// A subject that is erased by one server disappears from the catalogs on disk of
// both.
func TestErasedFromDisk(t *testing.T) {
	c := newCluster(t)
	dirs := []string{t.TempDir(), t.TempDir()}
	first := serveWith(t, c.url("postgres"), dirs[0])
	conn := connect(t, first.address(t))
	serveWith(t, c.url("postgres"), dirs[1]).address(t)
	for _, step := range []struct{ method, request string }{
		{"CreateExperiment", `{"experiment":{"key":"e","variants":[{"key":"a","control":true},{"key":"b"}]}}`},
		{"StartExperiment", `{"key":"e"}`},
		{"SetOverrides", `{"experiment":"e","overrides":[{"subject_key":"u-1","variant":"b"},{"subject_key":"u-2","variant":"b"}]}`},
	} {
		if _, err := call(t.Context(), conn, "assay.v1.ExperimentService", step.method, step.request); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "both are on disk", func() bool {
		return kept(t, dirs[0], "u-1") && kept(t, dirs[0], "u-2") && kept(t, dirs[1], "u-1") && kept(t, dirs[1], "u-2")
	})
	got, err := assayv1.NewSubjectServiceClient(conn).EraseSubject(t.Context(), &assayv1.EraseSubjectRequest{Subject: &assayv1.Subject{Key: "u-1"}})
	if err != nil || got.Overrides != 1 {
		t.Fatal(got, err)
	}
	eventually(t, "u-1 is gone", func() bool { return !kept(t, dirs[0], "u-1") && !kept(t, dirs[1], "u-1") })
	if !kept(t, dirs[0], "u-2") || !kept(t, dirs[1], "u-2") {
		t.Error("u-2 is gone as well")
	}
}

// kept says whether the catalog in a directory holds a subject.
func kept(t *testing.T, dir, key string) bool {
	t.Helper()
	file, err := os.Open(filepath.Join(dir, "catalog.json.gz"))
	if os.IsNotExist(err) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zip, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	id := experiment.Pepper(testPepper).SubjectID(experiment.Subject{Unit: "user", Key: key})
	return strings.Contains(string(text), hex.EncodeToString(id[:]))
}
