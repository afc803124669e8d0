package localpg

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

const oldestMajor = 14

// programs are the server programs of one installation.
type programs struct {
	dir   string
	major int
}

// programPlaces are where packages put the server programs when they are not
// on the PATH: Debian, openSUSE, Alpine, PGDG's rpms, Homebrew, Postgres.app,
// a build from source. deploy/install-postgres looks in the same places.
var programPlaces = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/lib/postgresql*/bin",
	"/usr/libexec/postgresql*",
	"/usr/pgsql-*/bin",
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
	"/opt/homebrew/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
	"/usr/local/pgsql/bin",
	"/usr/local/bin",
	"/usr/bin",
}

// findPrograms finds the programs for a cluster of the given version, or with
// no version the ones to make a cluster with: those on the PATH, else the
// newest.
func findPrograms(ctx context.Context, version string) (programs, error) {
	var best programs
	consider := func(dir string) (done bool) {
		p, ok := probe(ctx, dir)
		if !ok {
			return false
		}
		if version != "" {
			if strconv.Itoa(p.major) == version {
				best = p
				return true
			}
			return false
		}
		if p.major > best.major {
			best = p
		}
		return false
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		// As os/exec, we run nothing that lies where we happen to be: an empty
		// element of the PATH means the current directory.
		if !filepath.IsAbs(dir) {
			continue
		}
		if consider(dir) || best.major != 0 {
			return best, nil
		}
	}
	for _, place := range programPlaces {
		dirs, _ := filepath.Glob(place) // the patterns are well formed
		for _, dir := range dirs {
			if consider(dir) {
				return best, nil
			}
		}
	}
	switch {
	case ctx.Err() != nil:
		return programs{}, ctx.Err()
	case best.major != 0:
		return best, nil
	case version != "":
		return programs{}, fmt.Errorf("%w: it was made by Postgres %s, and the server programs of that version were not found; install them or choose another data directory", ErrVersion, version)
	}
	return programs{}, fmt.Errorf("%w; %s, or give the URL of a database", ErrNoPostgres, installHint())
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// probe reports the installation in dir if it is complete and not too old.
func probe(ctx context.Context, dir string) (programs, bool) {
	for _, name := range []string{"initdb", "postgres"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return programs{}, false
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return programs{}, false
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return programs{}, false
	}
	major, err := strconv.Atoi(string(m[1]))
	if err != nil || major < oldestMajor {
		return programs{}, false
	}
	return programs{dir: dir, major: major}, true
}

// installHint names the command that installs the programs on this system.
func installHint() string {
	sudo := "sudo "
	if os.Getuid() == 0 {
		sudo = ""
	}
	for _, manager := range []struct{ program, command string }{
		{"apt-get", sudo + "apt-get install postgresql"},
		{"dnf", sudo + "dnf install postgresql-server"},
		{"yum", sudo + "yum install postgresql-server"},
		{"apk", sudo + "apk add postgresql"},
		{"pacman", sudo + "pacman -S postgresql"},
		{"zypper", sudo + "zypper install postgresql-server"},
		{"brew", "brew install postgresql@17"},
	} {
		if _, err := exec.LookPath(manager.program); err == nil {
			return "install them with: " + manager.command
		}
	}
	return "install the Postgres server package of this system"
}
