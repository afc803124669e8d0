package localpg

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestFilesOfSomebodyElse puts something else in the place of each file that is
// opened. It is refused, and nothing happens to what it leads to.
func TestFilesOfSomebodyElse(t *testing.T) {
	for _, name := range []string{lockName, logName, "pepper"} {
		for _, tt := range []struct {
			what string
			put  func(path, victim string) error
			want string
		}{
			{"a symbolic link", func(path, victim string) error { return os.Symlink(victim, path) }, "is a symbolic link"},
			{"a link to nothing", func(path, victim string) error { return os.Symlink(victim+".new", path) }, "is a symbolic link"},
			{"another name of a file", func(path, victim string) error { return os.Link(victim, path) }, "another name elsewhere"},
			{"a pipe", func(path, _ string) error { return syscall.Mkfifo(path, 0o600) }, "is not a file"},
			{"a file that others may write to", func(path, _ string) error {
				return errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o666))
			}, "may be written to by other users"},
			{"a stranger's file", func(path, _ string) error {
				if os.Getuid() != 0 {
					return nil // Who else could make one?
				}
				return errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, 54321, -1))
			}, "belongs to the user with id 54321"},
		} {
			t.Run(name+"/"+tt.what, func(t *testing.T) {
				dir := t.TempDir()
				if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
					t.Fatal(err)
				}
				victim := filepath.Join(dir, "victim")
				if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dir, "data", name)
				if err := tt.put(path, victim); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Lstat(path); err != nil {
					t.Skip("needs root, to give a file to another user")
				}
				err := openAll(t, filepath.Join(dir, "data"), name)
				if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want %q", err, tt.want)
				}
				if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
					t.Errorf("what it leads to holds %q, %v", text, err)
				}
				if _, err := os.Lstat(victim + ".new"); err == nil {
					t.Error("what it leads to was made")
				}
			})
		}
	}
}

// openAll opens what a server opens in a data directory, up to the name.
func openAll(t *testing.T, dir, name string) error {
	if name != lockName && name != "pepper" { // The directory needs a mark.
		if err := os.WriteFile(filepath.Join(dir, "pepper"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := OpenDataDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if name == "pepper" {
		f, err := d.Open(name)
		if err == nil {
			f.Close()
		}
		return err
	}
	c, err := d.Postgres(t.Context(), true)
	if err == nil {
		c.Close()
	}
	return err
}

// TestDirectoriesRefused: what is none of ours is refused, and nothing in it
// changes.
func TestDirectoriesRefused(t *testing.T) {
	isRoot := os.Getuid() == 0
	for _, tt := range []struct {
		name string
		make func(t *testing.T) (dir string)
		want string // Empty for what is accepted.
	}{
		{"the root", func(*testing.T) string { return "/" }, "is the root of the file system"},
		{"a link to the root", func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "link")
			check(t, os.Symlink("/", path))
			return path
		}, "is the root of the file system"},
		{"something else", func(t *testing.T) string {
			dir := t.TempDir()
			check(t, os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o600))
			return dir
		}, `holds "thesis.tex" and was never used by assayd`},
		{"open to all", func(t *testing.T) string {
			dir := t.TempDir()
			check(t, os.WriteFile(filepath.Join(dir, lockName), nil, 0o600))
			check(t, os.Chmod(dir, 0o777))
			return dir
		}, "may be written to by other users"},
		{"open to a group", func(t *testing.T) string {
			dir := t.TempDir()
			check(t, os.WriteFile(filepath.Join(dir, lockName), nil, 0o600))
			check(t, os.Chmod(dir, 0o770))
			return dir
		}, "may be written to by other users"},
		{"below one that is open to all", func(t *testing.T) string {
			if !isRoot {
				t.Skip("root alone needs it")
			}
			dir := t.TempDir()
			check(t, os.Chmod(dir, 0o777))
			return filepath.Join(dir, "data")
		}, "where every user may put another in its place"},
		{"of another user", func(t *testing.T) string {
			if !isRoot {
				return "/" + strings.Split(os.TempDir(), "/")[1] // It is root's.
			}
			dir := t.TempDir()
			check(t, os.Chown(dir, 54321, -1))
			return dir
		}, ""},
		{"below a sticky one", func(t *testing.T) string { return filepath.Join(openDir(t), "data") }, ""},
		{"a link to one of ours", func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "link")
			check(t, os.Symlink(t.TempDir(), path))
			return path
		}, ""},
		{"an empty file system", func(t *testing.T) string {
			dir := t.TempDir()
			check(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
			return dir
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := tt.make(t)
			if tt.name == "of another user" {
				tt.want = "belongs to the user with id"
			}
			d, err := OpenDataDir(dir)
			if err == nil {
				d.Close()
			}
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if _, err := os.Lstat(filepath.Join(dir, lockName)); err == nil && strings.HasPrefix(tt.want, "holds") {
				t.Error("a file was made in it")
			}
		})
	}
}

// TestEmptyDirectoryIsClosed: an empty one of ours needs nobody to look at it.
func TestEmptyDirectoryIsClosed(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Chmod(dir, 0o777|os.ModeSticky))
	d, err := OpenDataDir(dir)
	check(t, err)
	defer d.Close()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestProgramsWhereWeAre: neither an empty element of the PATH nor a relative
// one makes us run what lies in the current directory.
func TestProgramsWhereWeAre(t *testing.T) {
	hidePrograms(t)
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	check(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	for _, name := range []string{"postgres", "initdb", "bin/postgres", "bin/initdb"} {
		script := "#!/bin/sh\necho >" + ran + "\necho 'postgres (PostgreSQL) 17.0'\n"
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	t.Chdir(dir)
	for _, path := range []string{"", ":/nonexistent", "/nonexistent:", "/nonexistent::/nowhere", ".", "bin", "./bin"} {
		t.Setenv("PATH", path)
		if p, err := findPrograms(t.Context(), ""); !errors.Is(err, ErrNoPostgres) {
			t.Errorf("PATH %q: %+v, %v", path, p, err)
		}
		if _, err := os.Stat(ran); err == nil {
			t.Fatalf("PATH %q: the program in the current directory ran", path)
		}
	}
}

// TestLogIsBounded: a long log becomes the old one, also under a server that
// has it open, and an error quotes what has come since.
func TestLogIsBounded(t *testing.T) {
	d, err := OpenDataDir(t.TempDir())
	check(t, err)
	defer d.Close()
	c := &Cluster{held: d}
	check(t, c.openLog())
	defer c.log.Close()
	write := func(f *os.File, n int, s string) {
		_, err := f.WriteString(strings.Repeat(s, n))
		check(t, err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(d.path, name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(b)
	}
	write(c.log, 100, "a")
	c.boundLog(100)
	if read(logName) != strings.Repeat("a", 100) || read(oldLogName) != "" {
		t.Error("a log that is not too long was cut")
	}
	for _, s := range []string{"b", "c"} {
		write(c.log, 200, s)
		before := read(logName)
		c.boundLog(100)
		if read(logName) != "" || read(oldLogName) != before {
			t.Errorf("the log holds %q, the old one %q", read(logName), read(oldLogName))
		}
		write(c.log, 10, "after")
		if got := read(logName); got != strings.Repeat("after", 10) {
			t.Errorf("who has the log open goes on at %q", bytes.ReplaceAll([]byte(got), []byte{0}, []byte(".")))
		}
		if tail := c.logTail(); !strings.HasSuffix(tail, "afterafter") {
			t.Errorf("an error quotes %q", tail)
		}
	}
	check(t, os.Remove(filepath.Join(d.path, oldLogName)))
	check(t, os.Symlink(filepath.Join(d.path, "elsewhere"), filepath.Join(d.path, oldLogName)))
	write(c.log, 200, "d")
	c.boundLog(100)
	if _, err := os.Lstat(filepath.Join(d.path, "elsewhere")); err == nil {
		t.Error("the old log was written through a link")
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
