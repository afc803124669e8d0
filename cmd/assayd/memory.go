package main

import (
	"bufio"
	"bytes"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// memoryShare is the part of the machine's memory, or of the cgroup's, that the
	// server uses: the rest is for the kernel's buffers of connections and files, and
	// because Go's limit is a soft one.
	memoryShare = 0.8
	// postgresBytes is what the private Postgres may take of the same memory: 256 MiB
	// of shared buffers; 10 MiB for each of the 16 connections of the server's pools;
	// and 128 MiB of work memory for each of the four of them that analyse.
	postgresBytes = (256 + 16*10 + 4*128) << 20
)

// limitMemory gives Go a memory limit, unless the environment does. The budgets of
// the server are parts of it.
func limitMemory(private bool, given string, log *slog.Logger) {
	if given != "" {
		log.Info("the memory limit is that of GOMEMLIMIT", "bytes", debug.SetMemoryLimit(-1))
		return
	}
	machine := os.DirFS("/")
	limit := memoryLimit(machineMemory(machine), private)
	if limit == 0 {
		log.Warn("the machine does not tell its memory, and so there is no memory limit; set GOMEMLIMIT")
		return
	}
	debug.SetMemoryLimit(limit)
	log.Info("the memory limit is set from that of the machine; GOMEMLIMIT sets another", "bytes", limit, "machine_bytes", machineMemory(machine))
}

// memoryLimit returns Go's limit on a machine with so much memory, 0 if that is not
// known. It is never less than half of the server's share: Postgres takes all that
// it may only where there is much to analyse.
func memoryLimit(machine int64, private bool) int64 {
	share := int64(memoryShare * float64(machine))
	if private {
		return max(share-postgresBytes, share/2)
	}
	return share
}

// machineMemory returns how much memory there is for this process: the machine's,
// or less where a cgroup limits it; 0 if it cannot be known.
func machineMemory(files fs.FS) int64 {
	least := int64(math.MaxInt64)
	if text, err := fs.ReadFile(files, "proc/meminfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "MemTotal:" {
				if kB, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
					least = kB << 10
				}
			}
		}
	}
	text, _ := fs.ReadFile(files, "proc/self/cgroup") // Absent where there are no cgroups.
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		parts := strings.SplitN(lines.Text(), ":", 3)
		switch {
		case len(parts) != 3:
		case parts[0] == "0": // Version 2, alone or beside version 1.
			least = min(least, cgroupLimit(files, "sys/fs/cgroup", parts[2], "memory.max"), cgroupLimit(files, "sys/fs/cgroup/unified", parts[2], "memory.max"))
		case strings.Contains(","+parts[1]+",", ",memory,"):
			least = min(least, cgroupLimit(files, "sys/fs/cgroup/memory", parts[2], "memory.limit_in_bytes"))
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}

// cgroupLimit returns the least limit of a cgroup and those that it lies in. In a
// container the mounted root often is the container's own, and its path unknown.
func cgroupLimit(files fs.FS, root, cgroup, name string) int64 {
	least := int64(math.MaxInt64)
	for dir := path.Join(root, cgroup); ; dir = path.Dir(dir) {
		if text, err := fs.ReadFile(files, path.Join(dir, name)); err == nil {
			// "max" is no number, and is no limit.
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
				least = min(least, n)
			}
		}
		if len(dir) <= len(root) {
			return least
		}
	}
}
