package localpg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSocketIsPrivate(t *testing.T) {
	for name, dataDir := range map[string]string{
		"in the data directory":     filepath.Join(openDir(t), "data"),
		"among the temporary files": filepath.Join(t.TempDir(), strings.Repeat("long/", 30)),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.MkdirAll(dataDir, 0o755); err != nil {
				t.Fatal(err)
			}
			s := start(t, Config{DataDir: dataDir})
			if got := query(t, s.URL(), "SELECT 'reached'"); got != "reached" {
				t.Errorf("got %q", got)
			}
			dir := socketDirOf(t, s.URL())
			if strings.HasPrefix(dir, dataDir) != (name == "in the data directory") {
				t.Errorf("the socket is in %s", dir)
			}
			info, err := os.Stat(dir)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != 0o700 || ownerOf(info) != s.cluster.owner.uid {
				t.Errorf("%s has mode %v and belongs to %d", dir, info.Mode(), ownerOf(info))
			}
			if os.Getuid() != 0 {
				t.Skip("needs root, to become another user")
			}
			socket := filepath.Join(dir, socketFile)
			if out, err := helper(t, s.cluster.owner.uid, "connect", socket).Output(); err != nil {
				t.Errorf("the owner cannot connect: %s", out)
			}
			const stranger = 54321
			out, err := helper(t, stranger, "connect", socket).Output()
			if err == nil || !strings.Contains(string(out), "permission denied") {
				t.Errorf("a stranger: %v: %s", err, out)
			}
		})
	}
}

// Whoever makes our directory first must not get to hold our socket.
func TestSocketDirectoryOfAnother(t *testing.T) {
	tmp := openDir(t)
	t.Setenv("TMPDIR", tmp)
	t.Setenv("XDG_RUNTIME_DIR", "")
	dataDir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	if err := os.MkdirAll(dataDir, 0o755); err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	taken := filepath.Join(tmp, titleOf(real))
	for name, take := range map[string]func() error{
		"open": func() error { return os.Mkdir(taken, 0o755) },
		"link": func() error { return os.Symlink(t.TempDir(), taken) },
		"file": func() error { return os.WriteFile(taken, nil, 0o700) },
		"foreign": func() error {
			if os.Getuid() != 0 {
				return os.Mkdir(taken, 0o750)
			}
			if err := os.Mkdir(taken, 0o700); err != nil {
				return err
			}
			return os.Chown(taken, 54321, -1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer os.Remove(taken)
			if err := take(); err != nil {
				t.Fatal(err)
			}
			if s, err := Start(t.Context(), Config{DataDir: dataDir}); err == nil {
				stop(t, s)
				t.Error("the directory was used")
			} else if !strings.Contains(err.Error(), taken) {
				t.Errorf("got %v", err)
			}
			if _, err := os.Lstat(taken); err != nil {
				t.Errorf("the directory was touched: %v", err)
			}
		})
	}
	// What we left ourselves is used again.
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	stop(t, start(t, Config{DataDir: dataDir}))
}
