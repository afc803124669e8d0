package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/assayhq/assay/internal/localpg"
)

func TestPepperText(t *testing.T) {
	for _, tt := range []struct{ text, err string }{
		{"0123456789abcdef", ""},
		{" 4f1d0c9a7be26358\n", ""},
		{"correct horse battery staple", ""},
		{strings.Repeat("0123456789abcdef", 2), ""}, // 16 bytes are enough.
		{"0123456789abcde", "has 15 bytes; it needs at least 16"},
		{"", "has 0 bytes"},
		{strings.Repeat("a", 64), "repeats a text of 1 bytes"},
		{strings.Repeat("ab", 40), "repeats a text of 2 bytes"},
		{"secretsecretsecretsec", "repeats a text of 6 bytes"},
		{"abaabbaaababbbababab", "has only 2 different characters"},
		{"11223344551234512345", "has only 5 different characters"},
	} {
		got, err := parsePepper(tt.text, "the test")
		if tt.err == "" && (err != nil || string(got) != strings.TrimSpace(tt.text)) {
			t.Errorf("%q: %q, %v", tt.text, got, err)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.err)
		}
	}
}

// TestPepperFile: a pepper file is for its owner alone, or root's for a group.
func TestPepperFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pepper")
	for _, tt := range []struct {
		name string
		make func() error
		want string
	}{
		{"ours", func() error { return os.Chmod(path, 0o400) }, ""},
		{"read by all", func() error { return os.Chmod(path, 0o644) }, "other users have access"},
		{"written by all", func() error { return os.Chmod(path, 0o666) }, "other users have access"},
		{"read by a group", func() error { return os.Chmod(path, 0o640) }, "other users have access"},
		{"a directory", func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, "is not a file"},
		{"a link, as Kubernetes mounts it", func() error {
			target := filepath.Join(dir, "..data")
			return errors.Join(os.Remove(path), os.WriteFile(target, []byte(testPepper), 0o600), os.Symlink(target, path))
		}, ""},
		{"a stranger's", func() error {
			if os.Getuid() != 0 {
				return errors.ErrUnsupported
			}
			return os.Chown(path, 54321, -1)
		}, "belongs to the user with id 54321"},
	} {
		if _, err := os.Lstat(path); err != nil {
			if err := os.WriteFile(path, []byte(testPepper), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := tt.make(); errors.Is(err, errors.ErrUnsupported) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		s := settings{pepperFile: path}
		pepper, err := s.givenPepper()
		if (err == nil) != (tt.want == "") || err == nil && string(pepper) != testPepper || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %q, %v, want %q", tt.name, pepper, err, tt.want)
		}
	}
}

// refusal runs a command in this process, which must fail.
func refusal(t *testing.T, args ...string) string {
	t.Helper()
	err := run(t.Context(), args, env{func(string) string { return "" }, io.Discard, io.Discard})
	if err == nil {
		t.Fatalf("assayd %v was not refused", args)
	}
	return err.Error()
}

// TestLostPepper: beside a database no pepper is made, whoever asks for it, and
// with the old one put back all goes on.
func TestLostPepper(t *testing.T) {
	dir := dataDir(t)
	migrate := func() error {
		return run(t.Context(), []string{"migrate", "--data-dir", dir}, env{func(string) string { return "" }, io.Discard, io.Discard})
	}
	if err := migrate(); err != nil {
		t.Fatal(err)
	}
	path, aside := filepath.Join(dir, pepperName), filepath.Join(t.TempDir(), "aside")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"serve", "migrate"} {
		if got := refusal(t, command, "--listen", "127.0.0.1:0", "--data-dir", dir); !strings.Contains(got, "the pepper is lost") {
			t.Errorf("%s: %s", command, got)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s made another pepper: %v", command, err)
		}
	}
	if err := errors.Join(os.WriteFile(aside, text, 0o600), os.Symlink(aside, path)); err != nil {
		t.Fatal(err)
	}
	if got := refusal(t, "serve", "--listen", "127.0.0.1:0", "--data-dir", dir); !strings.Contains(got, "is a symbolic link") {
		t.Errorf("a link: %s", got)
	}
	if err := os.Rename(aside, path); err != nil {
		t.Fatal(err)
	}
	if err := migrate(); err != nil {
		t.Error(err)
	}
}

// TestPepperComesBeforeCluster: where a cluster could not be made, the pepper is
// there for the next attempt.
func TestPepperComesBeforeCluster(t *testing.T) {
	dir, err := localpg.OpenDataDir(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	first, err := storedPepper(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, exists := range []bool{false, true} {
		if again, err := storedPepper(dir, exists); err != nil || string(again) != string(first) {
			t.Errorf("%q and then %q, %v", first, again, err)
		}
	}
}

func TestDataDirectoriesRefused(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pepper := pepperFile(t, testPepper)
	for dir, want := range map[string]string{
		"/":  "is the root of the file system",
		full: `holds "thesis.tex" and was never used by assayd`,
	} {
		for name, args := range map[string][]string{
			"private":  {"serve", "--listen", "127.0.0.1:0", "--data-dir", dir},
			"external": {"serve", "--listen", "127.0.0.1:0", "--data-dir", dir, "--database-url", "postgres:///x", "--pepper-file", pepper},
			"migrate":  {"migrate", "--data-dir", dir},
		} {
			if got := refusal(t, args...); !strings.Contains(got, want) {
				t.Errorf("%s: %s, want %q", name, got, want)
			}
		}
	}
}
