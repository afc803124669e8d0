//go:build unix && !linux

package localpg

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

const (
	longestSocketPath = 103 // sun_path without its zero byte
	descriptorPath    = ""  // a directory cannot be handed over as a descriptor
)

// tie does nothing: the system has no signal for the death of a parent. The
// next Start stops what was left over.
func tie(*syscall.SysProcAttr, syscall.Signal) {}

// processes lists what runs.
func processes() ([]process, error) {
	out, err := exec.Command("ps", "-axww", "-o", "pid=,args=").Output()
	if err != nil {
		return nil, err
	}
	var list []process
	for line := range strings.Lines(string(out)) {
		number, args, _ := strings.Cut(strings.TrimSpace(line), " ")
		if pid, err := strconv.Atoi(number); err == nil {
			list = append(list, process{pid, strings.TrimSpace(args)})
		}
	}
	return list, nil
}
