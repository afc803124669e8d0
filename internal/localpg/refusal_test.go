package localpg

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMissingPrograms(t *testing.T) {
	hidePrograms(t)
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	for _, test := range []struct{ manager, want string }{
		{"", "install the Postgres server package"},
		{"brew", "brew install postgresql@"},
		{"pacman", "pacman -S postgresql"},
		{"dnf", "dnf install postgresql-server"},
		{"apt-get", "apt-get install postgresql"},
	} {
		if test.manager != "" {
			if err := os.WriteFile(filepath.Join(bin, test.manager), []byte("#!/bin/sh\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		dataDir := filepath.Join(t.TempDir(), "data")
		_, err := Start(t.Context(), Config{DataDir: dataDir})
		if !errors.Is(err, ErrNoPostgres) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v", test.manager, err)
		}
	}
	t.Setenv("TMPDIR", bin)
	if _, err := Start(t.Context(), Config{Ephemeral: true}); !errors.Is(err, ErrNoPostgres) {
		t.Errorf("ephemeral: got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(bin, "assay-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestProgramsAreChosen(t *testing.T) {
	hidePrograms(t)
	root := t.TempDir()
	for dir, version := range map[string]string{
		"old":     "13.9",
		"a/bin":   "15.3",
		"b/bin":   "17beta1",
		"c/bin":   "16.1 (Debian 16.1-1.pgdg12+1)",
		"path":    "14.2",
		"partial": "18.0",
	} {
		dir = filepath.Join(root, dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
		if err := os.WriteFile(filepath.Join(dir, "postgres"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(dir, "partial") {
			if err := os.WriteFile(filepath.Join(dir, "initdb"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	programPlaces = []string{filepath.Join(root, "partial"), filepath.Join(root, "*", "bin"), filepath.Join(root, "old")}
	for _, test := range []struct {
		path, version string
		want          int
	}{
		{"", "", 17},
		{"path", "", 14},
		{"old", "", 17},
		{"", "15", 15},
		{"path", "16", 16},
		{"path", "14", 14},
		{"old", "13", 0},
		{"", "18", 0},
		{"", "9.6", 0},
	} {
		t.Setenv("PATH", filepath.Join(root, test.path))
		got, err := findPrograms(t.Context(), test.version)
		if got.major != test.want || (err == nil) != (test.want != 0) {
			t.Errorf("PATH %q, cluster %q: got %+v, %v; want %d", test.path, test.version, got, err, test.want)
		}
		if test.want == 0 && !errors.Is(err, ErrVersion) {
			t.Errorf("PATH %q, cluster %q: got %v", test.path, test.version, err)
		}
	}
}

func TestOtherClustersAreRefusedAndUntouched(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		want  error
	}{
		{"an old version", map[string]string{"PG_VERSION": "9\n", "base/1": "x"}, ErrVersion},
		{"an old minor version", map[string]string{"PG_VERSION": "9.6\n"}, ErrVersion},
		{"a version to come", map[string]string{"PG_VERSION": "99\n"}, ErrVersion},
		{"no cluster", map[string]string{"notes.txt": "mine"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			dataDir := t.TempDir()
			dir := filepath.Join(dataDir, clusterName)
			for name, content := range test.files {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if os.Getuid() == 0 { // who else could have made it
				if err := os.Chown(dir, uidOf(t, "nobody"), -1); err != nil {
					t.Fatal(err)
				}
			}
			before := tree(t, dir)
			_, err := Start(t.Context(), Config{DataDir: dataDir})
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v", err)
			}
			if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestClusterOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	nobody := uidOf(t, "nobody")
	dataDir := filepath.Join(openDir(t), "data")
	h := serve(t, nobody, dataDir)
	exec1(t, h.url, "CREATE TABLE kept AS SELECT 'row' AS v")
	h.stdin.Close()
	if err := h.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	// Root runs it as its owner, whoever that is.
	s := start(t, Config{DataDir: dataDir})
	if got := query(t, s.URL(), "SELECT v FROM kept"); got != "row" {
		t.Errorf("got %q", got)
	}
	stop(t, s)

	// Others are told, and so is root of a cluster of its own.
	dir := filepath.Join(dataDir, clusterName)
	for owner, who := range map[int]int{uidOf(t, "postgres"): nobody, 0: 0} {
		if err := os.Chown(dir, owner, -1); err != nil {
			t.Fatal(err)
		}
		out, err := helper(t, who, "serve", dataDir).Output()
		if err == nil || !strings.Contains(string(out), dataDir) {
			t.Errorf("cluster of %d run by %d: %v: %s", owner, who, err, out)
		}
	}
}

// hidePrograms makes the usual places empty for one test.
func hidePrograms(t *testing.T) {
	places := programPlaces
	programPlaces = nil
	t.Cleanup(func() { programPlaces = places })
}

// tree describes all files below dir.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := make(map[string]string)
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		m[path] = info.Mode().String() + info.ModTime().String()
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			m[path] += string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestInstallScriptLooksInTheSamePlaces(t *testing.T) {
	script, err := os.ReadFile("../../deploy/install-postgres")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(script), "for dir in \\\n")
	list, _, ok := strings.Cut(rest, "; do\n")
	if !ok {
		t.Fatal("the script has no list of places")
	}
	got := strings.Fields(strings.ReplaceAll(list, "\\\n", " "))
	if diff := cmp.Diff(programPlaces, got); diff != "" {
		t.Error(diff)
	}
	if want := fmt.Sprintf("\noldest=%d\n", oldestMajor); !strings.Contains(string(script), want) {
		t.Errorf("the script does not say %q", want)
	}
}
