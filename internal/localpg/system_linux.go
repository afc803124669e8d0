package localpg

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

const (
	longestSocketPath = 107 // sun_path without its zero byte
	// descriptorPath is how a child names the directory it got as descriptor
	// 3. Postgres changes to it at start and uses relative paths from there on.
	descriptorPath = "/proc/self/fd/3"
)

// tie has the kernel send the child a signal when this process dies. It holds
// across the change of credential, which happens before it is set.
func tie(attr *syscall.SysProcAttr, signal syscall.Signal) { attr.Pdeathsig = signal }

// processes lists what runs, from /proc: a small container has no ps.
func processes() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil {
			continue // it has just ended
		}
		args := strings.TrimRight(strings.ReplaceAll(string(b), "\x00", " "), " ")
		list = append(list, process{pid, args})
	}
	return list, nil
}
