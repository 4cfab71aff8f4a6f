package guard

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unlimited is what a cgroup's limit is before anybody sets it, less the
// rounding to pages that some kernels do.
const unlimited = math.MaxInt64 - 1<<20

// tree is a hierarchy of cgroups, with inotify on each of them.
type tree struct {
	root   string
	fd     int // of notify, whose own method would make it block
	notify *os.File
}

func openTree(root string) (*tree, error) {
	if _, err := os.Stat(root); err != nil {
		return nil, err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	return &tree{root, fd, os.NewFile(uintptr(fd), "inotify")}, nil
}

func (t *tree) close() { t.notify.Close() }

// watch tells changed when a cgroup came, went, or got another limit or process
// from outside, until the tree is closed.
func (t *tree) watch(changed chan<- struct{}) {
	buf := make([]byte, 64<<10)
	for {
		n, err := t.notify.Read(buf)
		if err != nil {
			return
		}
		if !matters(buf[:n]) {
			continue
		}
		select {
		case changed <- struct{}{}:
		default: // it has not seen the last change yet
		}
	}
}

// matters reports whether one of inotify's events is about a cgroup's coming or
// going, its limit, or a process that joins it, which starts or comes by exec.
func matters(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(events[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		if end > len(events) {
			return true
		}
		name := strings.TrimRight(string(events[unix.SizeofInotifyEvent:end]), "\x00")
		if mask&(unix.IN_ISDIR|unix.IN_Q_OVERFLOW) != 0 || name == "memory.limit_in_bytes" || name == "cgroup.procs" {
			return true
		}
		events = events[end:]
	}
	return false
}

// limited returns the cgroups that have a limit now, opened anew, because a
// container that is started again gets another cgroup of the same name. What is
// known of those in before is kept, and their files are closed.
func (t *tree) limited(before map[string]*group) map[string]*group {
	defer closeAll(before)
	groups := map[string]*group{}
	t.visit(t.root, func(path string) {
		limit, err := readFile(filepath.Join(path, "memory.limit_in_bytes"))
		if err != nil || limit >= unlimited {
			return
		}
		usage, err := os.Open(filepath.Join(path, "memory.usage_in_bytes"))
		if err != nil {
			return
		}
		gr := &group{path: path, usage: usage, limit: limit} // to be looked at now
		if old := before[path]; old != nil {
			gr.last, gr.victim, gr.killed, gr.freed = old.last, old.victim, old.killed, old.freed
		}
		groups[path] = gr
	})
	return groups
}

// files returns the memory that a cgroup has in files of its own, in bytes: 0
// where gVisor does not tell.
func files(path string) int64 {
	text, _ := os.ReadFile(filepath.Join(path, "memory.stat"))
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "total_shmem "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return n
		}
	}
	return 0
}

func closeAll(groups map[string]*group) {
	for _, gr := range groups {
		gr.usage.Close()
	}
}

// visit calls f for every cgroup below path. A new one is watched before it is
// listed, so that nothing is missed.
func (t *tree) visit(path string, f func(path string)) {
	_, _ = unix.InotifyAddWatch(t.fd, path, unix.IN_CREATE|unix.IN_DELETE|unix.IN_MODIFY|unix.IN_ONLYDIR)
	entries, err := os.ReadDir(path)
	if err != nil {
		return // it is gone
	}
	for _, entry := range entries {
		if entry.IsDir() {
			child := filepath.Join(path, entry.Name())
			f(child)
			t.visit(child, f)
		}
	}
}

// readNumber reads a file of a cgroup, which has one number, from its start.
func readNumber(file *os.File) (int64, error) {
	var buf [32]byte
	n, err := file.ReadAt(buf[:], 0)
	if n == 0 {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(buf[:n])), 10, 64)
}

func readFile(path string) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	return readNumber(file)
}
