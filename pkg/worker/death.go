package worker

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// deathWatch tells when a process that need not be our child has ended.
type deathWatch struct {
	file *os.File // a pidfd, in Go's poller
}

// watchDeath opens a pidfd; a process that is already gone is unix.ESRCH.
func watchDeath(pid int) (*deathWatch, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &deathWatch{os.NewFile(uintptr(fd), "pidfd:"+strconv.Itoa(pid))}, nil
}

// wait returns true when the process has ended, false when the watch was closed.
func (d *deathWatch) wait() bool {
	raw, err := d.file.SyscallConn()
	if err != nil {
		return false
	}
	dead := false
	err = raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		dead = n == 1 && err == nil
		return dead || (err != nil && !errors.Is(err, unix.EINTR))
	})
	return err == nil && dead
}

func (d *deathWatch) close() { _ = d.file.Close() }

// oomKills reads how often the kernel has killed in a cgroup for want of
// memory, on cgroup v1 and v2; 0 where it cannot be read.
func oomKills(cgroup string) int {
	for _, file := range []string{
		filepath.Join("/sys/fs/cgroup/memory", cgroup, "memory.oom_control"),
		filepath.Join("/sys/fs/cgroup", cgroup, "memory.events"),
	} {
		content, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(content)) {
			if count, found := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); found {
				n, _ := strconv.Atoi(count)
				return n
			}
		}
	}
	return 0
}
