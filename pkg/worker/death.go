package worker

import (
	"errors"
	"os"
	"strconv"

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
