package localpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// DataDir is a data directory that this process alone has, until Close. Other
// programs of this user and of root are trusted with what is in it; nobody else
// is: see [OpenDataDir] and [DataDir.Open].
type DataDir struct {
	path string // Absolute, without symbolic links.
	uid  int    // Of its owner.
	lock *os.File
}

// marks are the names of which one is in every data directory that was used
// before. Of catalog and pepper the server sees to what is in them.
var marks = []string{lockName, clusterName, "pepper", "catalog.json.gz"}

// OpenDataDir takes a directory, which is created if missing, or fails at once
// with ErrInUse if another process has it. It refuses what is not a directory
// of ours: the root of the file system, one that holds something and was never
// used as a data directory, one of another user, and one that others may write
// to, who could put files there for us. One that is empty is closed to them
// instead.
func OpenDataDir(path string) (_ *DataDir, err error) {
	if path == "" {
		return nil, errors.New("no data directory was given")
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("cannot create the data directory: %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	d := &DataDir{path: path}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("the data directory %s %w", path, err)
	}
	if d.lock, err = d.takeLock(); err != nil {
		return nil, err
	}
	return d, nil
}

// Path is absolute and without symbolic links.
func (d *DataDir) Path() string { return d.path }

// Close gives the directory back.
func (d *DataDir) Close() error { return d.lock.Close() }

// check says what forbids to use the directory.
func (d *DataDir) check() error {
	if d.path == filepath.Dir(d.path) {
		return errors.New("is the root of the file system; choose one of its own")
	}
	info, err := os.Lstat(d.path)
	if err != nil {
		return err
	}
	d.uid = ownerOf(info)
	if !d.mayBelongTo(d.uid) {
		return fmt.Errorf("belongs to the user with id %d; run as that user, give the directory to this one, or choose another", d.uid)
	}
	names, err := d.names()
	if err != nil {
		return err
	}
	if len(names) > 0 && !slices.ContainsFunc(names, func(name string) bool { return slices.Contains(marks, name) }) {
		return fmt.Errorf("holds %q and was never used by assayd; choose an empty one or a new one", names[0])
	}
	if open := info.Mode().Perm() & writableByOthers; open != 0 {
		if len(names) > 0 || d.uid != os.Getuid() {
			return fmt.Errorf("may be written to by other users (its mode is %v); close it to them with chmod go-w", info.Mode())
		}
		if err := os.Chmod(d.path, info.Mode().Perm()&^writableByOthers); err != nil {
			return err
		}
	}
	return d.checkAbove()
}

const writableByOthers fs.FileMode = 0o022

// mayBelongTo says whether the directory may be that user's. As root the server
// programs run as another user, who may own it: what root opens in it is
// checked. See findOwner.
func (d *DataDir) mayBelongTo(uid int) bool {
	if uid == os.Getuid() || os.Getuid() != 0 {
		return uid == os.Getuid()
	}
	o, err := findOwner(filepath.Join(d.path, clusterName))
	return err == nil && o.uid == uid
}

// names lists what is in the directory. What a file system puts in its own root
// does not count.
func (d *DataDir) names() ([]string, error) {
	f, err := os.Open(d.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	return slices.DeleteFunc(names, func(name string) bool { return name == "lost+found" }), err
}

// checkAbove looks, as root, whether somebody else could put another directory
// in the place of this one. Where a directory is sticky, as /tmp is, nobody
// can. Others risk no more than what is theirs: that the directory belongs to
// them is checked.
func (d *DataDir) checkAbove() error {
	if os.Getuid() != 0 {
		return nil
	}
	for dir := filepath.Dir(d.path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
			return fmt.Errorf("lies in %s, where every user may put another in its place; forbid that with chmod +t", dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// Open opens a file of the directory for reading. See open.
func (d *DataDir) Open(name string) (*os.File, error) { return d.open(name, os.O_RDONLY) }

// open opens a file of the directory, and creates it if the flags say so, with
// mode 0600. It refuses what somebody else may have put there: a link of either
// kind to a file elsewhere, what is no file, one of another user, one that
// others may write to. Nothing has been done to the file by then: the flags
// must not truncate it.
func (d *DataDir) open(name string, flag int) (*os.File, error) {
	path := filepath.Join(d.path, name)
	// A pipe would block until somebody else opens it.
	f, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link, which is not followed; remove it", path)
	}
	if err != nil {
		return nil, err
	}
	if err := d.checkFile(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return f, nil
}

func (d *DataDir) checkFile(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	switch {
	case !info.Mode().IsRegular():
		return errors.New("is not a file; remove it")
	case info.Sys().(*syscall.Stat_t).Nlink > 1:
		return errors.New("is a link to a file that has another name elsewhere; remove it")
	case !slices.Contains([]int{0, os.Getuid(), d.uid}, ownerOf(info)):
		return fmt.Errorf("belongs to the user with id %d; remove it, or give it to this one", ownerOf(info))
	case info.Mode().Perm()&writableByOthers != 0:
		return fmt.Errorf("may be written to by other users (its mode is %v); if it can be trusted, close it to them with chmod go-w", info.Mode())
	}
	return nil
}

// takeLock takes the lock or fails at once with ErrInUse. The file is closed
// on exec, so no child keeps the lock when this process is killed.
func (d *DataDir) takeLock() (*os.File, error) {
	f, err := d.open(lockName, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot lock %s: %w", f.Name(), err)
		}
		var pid int
		_, _ = fmt.Fscan(f, &pid)
		return nil, fmt.Errorf("%w: process %d has %s; stop it or choose another directory", ErrInUse, pid, d.path)
	}
	// The number is for people. A full disk has no room for it.
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintln(f, os.Getpid())
	}
	return f, nil
}
