package guard

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// process is one that may be killed.
type process struct {
	pid   int
	name  string
	bytes int64 // of memory that it has resident
}

// daemons are Docker's own. Packages start them with a score that spares them,
// and so do we: without them no container ends well.
var daemons = map[string]int64{"dockerd": -500, "containerd": -900, "containerd-shim": -900}

const unkillable = -1000

// largest returns the process that Linux would kill: the one with most memory,
// where the score that a process was given counts as a share of the limit in
// thousandths. PID 1 is this program.
func largest(pids []int, limit int64) (process, bool) {
	var worst process
	var most int64
	for _, pid := range pids {
		p := process{pid: pid, name: comm(pid)}
		if p.bytes = p.size(); pid == 1 || pid == os.Getpid() || p.bytes == 0 {
			continue
		}
		score := adjustment(p)
		if points := p.bytes + score*(limit/1000); score > unkillable && (worst.pid == 0 || points > most) {
			worst, most = p, points
		}
	}
	return worst, worst.pid != 0
}

func adjustment(p process) int64 {
	if score, found := daemons[p.name]; found {
		return score
	}
	score, _ := readFile(procFile(p.pid, "oom_score_adj"))
	return score
}

// size returns how much memory the process has resident, in bytes: 0 when it is
// gone, or dead and not yet reaped.
func (p process) size() int64 {
	text, _ := os.ReadFile(procFile(p.pid, "statm"))
	fields := strings.Fields(string(text))
	if p.pid == 0 || len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// resident returns how much memory processes have together, in bytes.
func resident(pids []int) int64 {
	var sum int64
	for _, pid := range pids {
		sum += process{pid: pid}.size()
	}
	return sum
}

// container returns the ID of the Docker container that the process is in, ""
// if it is in none: the last part of its memory cgroup.
func (p process) container() string {
	text, _ := os.ReadFile(procFile(p.pid, "cgroup"))
	for line := range strings.Lines(string(text)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		if path, ok := strings.CutPrefix(rest, "memory:"); ok {
			return containerOf(path)
		}
	}
	return ""
}

// containerOf returns the part of a cgroup's path that is a container's ID: 64
// hexadecimal digits. A container may make cgroups below its own.
func containerOf(path string) string {
	for part := range strings.SplitSeq(path, "/") {
		if len(part) == 64 && strings.Trim(part, "0123456789abcdef") == "" {
			return part
		}
	}
	return ""
}

// processesIn returns the processes of a cgroup and of those below it.
func processesIn(path string) []int {
	var pids []int
	_ = filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "cgroup.procs" {
			return nil
		}
		text, _ := os.ReadFile(path)
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// allProcesses returns every process of the sandbox.
func allProcesses() []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func comm(pid int) string {
	text, _ := os.ReadFile(procFile(pid, "comm"))
	return strings.TrimSpace(string(text))
}

func procFile(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }
