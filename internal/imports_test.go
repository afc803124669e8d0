// Package internal holds no code: this test holds the packages below it, and
// the command, to the imports that each may have. A package that needs another
// one is a change of the design and is made here first.
package internal

import (
	"go/build"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/assayhq/assay"

// allowed lists, for each package, what it may import beside the standard
// library: packages of this project by their path below internal/, and modules
// by a prefix of their import paths.
var allowed = map[string][]string{
	"internal/experiment":            {},
	"internal/assign":                {"experiment", "cel.dev/cel-go", "github.com/cespare/xxhash/v2"},
	"internal/stats":                 {"gonum.org/v1/gonum"},
	"internal/calibration":           {"experiment", "metric", "stats", "gonum.org/v1/gonum"},
	"internal/metric":                {"experiment", "stats"},
	"internal/postgres":              {"experiment", "metric", "github.com/jackc/pgx/v5", "github.com/pressly/goose/v3", "golang.org/x/sync"},
	"internal/postgres/postgrestest": {"experiment", "localpg", "postgres", "github.com/jackc/pgx/v5"},
	"internal/catalog":               {"assign", "experiment"},
	"internal/event":                 {"experiment"},
	"internal/enrollment":            {"experiment", "github.com/hashicorp/golang-lru/v2"},
	"internal/localpg":               {},
	"internal/server":                {"assign", "catalog", "enrollment", "event", "experiment", "metric", "postgres", "stats", "gen", "google.golang.org", "buf.build", "github.com/grpc-ecosystem/go-grpc-middleware", "github.com/prometheus/client_golang", "golang.org/x/sync"},
	"cmd/assayd":                     {"*"},
}

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	for _, root := range []string{"../internal", "../cmd"} {
		err := filepath.WalkDir(root, func(dir string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() || d.Name() == "testdata" {
				return err
			}
			pkg, err := build.ImportDir(dir, 0)
			if _, none := err.(*build.NoGoError); none || err == nil && len(pkg.GoFiles) == 0 {
				return nil
			}
			if err != nil {
				return err
			}
			name := filepath.ToSlash(strings.TrimPrefix(dir, "../"))
			seen[name] = true
			check(t, name, pkg.Imports)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("package %s is listed and does not exist", name)
		}
	}
}

func check(t *testing.T, name string, imports []string) {
	rules, ok := allowed[name]
	if !ok {
		t.Errorf("package %s is not listed: say what it may import", name)
		return
	}
	if slices.Contains(rules, "*") {
		return
	}
	for _, imported := range imports {
		if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
			continue // The standard library.
		}
		if !slices.ContainsFunc(rules, func(rule string) bool { return matches(rule, imported) }) {
			t.Errorf("package %s imports %s, which it may not", name, imported)
		}
	}
}

func matches(rule, imported string) bool {
	switch first, _, _ := strings.Cut(rule, "/"); {
	case rule == "gen":
		return strings.HasPrefix(imported, module+"/gen/")
	case !strings.Contains(first, "."):
		return imported == path.Join(module, "internal", rule)
	}
	return imported == rule || strings.HasPrefix(imported, rule+"/")
}
