package localpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// The socket is named after a port, though nothing listens on one.
const (
	socketPort = "5432"
	socketFile = ".s.PGSQL." + socketPort
)

// owner is the user the server runs as.
type owner struct {
	uid, gid int
	name     string
	other    bool // not the user of this process, which then is root
}

// findOwner decides who runs the cluster in dir, which need not exist yet.
func findOwner(dir string) (owner, error) {
	uid := os.Getuid()
	info, err := os.Lstat(dir)
	exists := err == nil
	switch {
	case uid != 0 && exists && ownerOf(info) != uid:
		return owner{}, fmt.Errorf("%s belongs to the user with id %d; run as that user or choose another data directory", dir, ownerOf(info))
	case uid != 0:
		return owner{uid: uid, gid: os.Getgid(), name: "this user"}, nil
	case exists && ownerOf(info) == 0:
		return owner{}, fmt.Errorf("%s belongs to root, and Postgres refuses to run as root; give it to another user with chown -R", dir)
	case exists:
		st := info.Sys().(*syscall.Stat_t)
		return owner{uid: int(st.Uid), gid: int(st.Gid), name: "user " + strconv.Itoa(int(st.Uid)), other: true}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errU := strconv.Atoi(u.Uid)
		gid, errG := strconv.Atoi(u.Gid)
		if errU != nil || errG != nil || uid <= 0 {
			continue
		}
		return owner{uid: uid, gid: gid, name: name, other: true}, nil
	}
	return owner{}, errors.New("as root, Postgres must be run as another user, and there is neither a user postgres nor nobody")
}

func ownerOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// own gives path to the owner.
func (o owner) own(path string) error {
	if !o.other {
		return nil
	}
	return os.Lchown(path, o.uid, o.gid)
}

// reaches tells whether the owner may pass through dir and all above it, by
// their modes. For this process's own user the system is left to decide.
func (o owner) reaches(dir string) bool {
	if !o.other {
		return true
	}
	for {
		info, err := os.Stat(dir)
		if err != nil {
			return false
		}
		st := info.Sys().(*syscall.Stat_t)
		need := fs.FileMode(0o001)
		switch {
		case int(st.Uid) == o.uid:
			need = 0o100
		case int(st.Gid) == o.gid:
			need = 0o010
		}
		if info.Mode()&need == 0 {
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
}

// handedDir is a directory as the server programs are told of it.
type handedDir struct {
	path string
	file *os.File // if set, the child's descriptor 3
}

// handOver makes dir usable for the owner, as an open descriptor if the
// owner cannot walk to it. The returned function ends our hold on it.
func (c *Cluster) handOver(dir string) (handedDir, func(), error) {
	if c.owner.reaches(filepath.Dir(dir)) {
		return handedDir{path: dir}, func() {}, nil
	}
	if descriptorPath == "" {
		return handedDir{}, nil, fmt.Errorf("as root, Postgres is run as %s, who has no access to %s; choose another data directory or run as another user", c.owner.name, filepath.Dir(dir))
	}
	f, err := os.Open(dir)
	if err != nil {
		return handedDir{}, nil, err
	}
	return handedDir{path: descriptorPath, file: f}, func() { _ = f.Close() }, nil
}

// chooseSocketDir names the directory that guards the socket. It is in the data
// directory where the path is short enough and the owner can get there, else
// among the temporary files, under a name made from the data directory's path,
// so that what a killed process left is found and used again.
func (c *Cluster) chooseSocketDir() (string, error) {
	fits := func(dir string) bool {
		// A comma separates hosts in a connection string.
		return !strings.Contains(dir, ",") && len(filepath.Join(dir, socketFile)) <= longestSocketPath && c.owner.reaches(filepath.Dir(dir))
	}
	if dir := filepath.Join(c.dataDir, socketDirName); fits(dir) {
		return dir, nil
	}
	for _, base := range []string{os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), "/tmp"} {
		dir := filepath.Join(base, c.title)
		if info, err := os.Stat(base); err == nil && info.IsDir() && fits(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no directory for the socket: a path of at most %d bytes is needed, and neither the data directory nor the directory for temporary files gives one", longestSocketPath)
}

// makePrivate makes a directory that only the owner can enter. One that exists
// is taken only if it already is that: others can create directories among
// the temporary files.
func (c *Cluster) makePrivate(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	uid := ownerOf(info)
	if !info.IsDir() || info.Mode().Perm() != 0o700 || uid != c.owner.uid && uid != os.Getuid() {
		return fmt.Errorf("%s is there but is not a private directory of ours; remove it", dir)
	}
	if err := c.owner.own(dir); err != nil {
		return err
	}
	return removeSocket(dir)
}

// removeSocket removes what a killed server left in the directory. Postgres
// does so too, unless the number in the lock file is taken; see clearPIDFile.
func removeSocket(dir string) error {
	for _, name := range []string{socketFile, socketFile + ".lock"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
