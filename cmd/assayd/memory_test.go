package main

import (
	"os"
	"strconv"
	"testing"
	"testing/fstest"
)

// TestMachineMemory is about machines and containers as they are.
func TestMachineMemory(t *testing.T) {
	const ram = "MemTotal:       16000000 kB\nMemFree:        1 kB\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"nothing is known", nil, 0},
		{"no cgroups", map[string]string{"proc/meminfo": ram}, 16_000_000 << 10},
		{"version 2 without a limit", map[string]string{"proc/meminfo": ram, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, 16_000_000 << 10},
		{"version 2", map[string]string{"proc/meminfo": ram, "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "1000000\n"}, 1_000_000},
		{"an outer one", map[string]string{"proc/meminfo": ram, "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "900000\n", "sys/fs/cgroup/a/b/memory.max": "1000000\n"}, 900_000},
		{"a container", map[string]string{"proc/meminfo": ram, "proc/self/cgroup": "0::/../elsewhere\n", "sys/fs/cgroup/memory.max": "800000\n"}, 800_000},
		{"version 1", map[string]string{"proc/meminfo": ram, "proc/self/cgroup": "4:cpu,memory:/a\n0::/\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "700000\n"}, 700_000},
		{"version 1 without a limit", map[string]string{"proc/meminfo": ram, "proc/self/cgroup": "4:memory:/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n"}, 16_000_000 << 10},
		{"version 1 in a container", map[string]string{"proc/meminfo": ram, "proc/self/cgroup": "4:memory:/docker/x\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "600000\n"}, 600_000},
		{"both", map[string]string{"proc/meminfo": ram, "proc/self/cgroup": "4:memory:/a\n0::/b\n", "sys/fs/cgroup/unified/b/memory.max": "500000\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "700000\n"}, 500_000},
		{"what is no cgroup", map[string]string{"proc/meminfo": "MemTotal: many kB\n", "proc/self/cgroup": "0:\n::\n", "sys/fs/cgroup/memory.max": "-1\n"}, 0},
	} {
		files := fstest.MapFS{}
		for name, text := range tt.files {
			files[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := machineMemory(files); got != tt.want {
			t.Errorf("%s: %d bytes, want %d", tt.name, got, tt.want)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	const GiB = 1 << 30
	for _, tt := range []struct {
		machine int64
		private bool
		want    int64
	}{
		{0, false, 0}, {0, true, 0},
		{10 * GiB, false, 8 * GiB},
		{10 * GiB, true, 8*GiB - postgresBytes},
		{GiB, true, 4 * GiB / 10}, // Half of the server's share.
	} {
		if got := memoryLimit(tt.machine, tt.private); got != tt.want {
			t.Errorf("of %d bytes, private %v: %d, want %d", tt.machine, tt.private, got, tt.want)
		}
	}
}

// The server says its limit, and keeps the operator's.
func TestMemoryLimitIsSaid(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "")
	p, _ := serveIn(t, dataDir(t), "")
	limit, err := strconv.ParseInt(p.waitFor(t, `memory limit is set .* bytes=(\d+)`)[1], 10, 64)
	if err != nil || limit <= 0 || limit >= machineMemory(os.DirFS("/")) {
		t.Errorf("a limit of %d bytes, %v", limit, err)
	}
	t.Setenv("GOMEMLIMIT", "300MiB")
	p, _ = serveIn(t, dataDir(t), "")
	p.waitFor(t, `that of GOMEMLIMIT" bytes=314572800`)
}
